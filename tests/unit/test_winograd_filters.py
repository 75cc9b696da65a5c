"""Gradients of 3x3 filters by Winograd's minimal filtering: every size and blocking; exact where the direct sum is."""

import numpy as np
import pytest
from compiled_steps import check_exactly, native
from test_contraction_lowering import levels

from tilewright import compiler
from tilewright.autodiff.vjp import vjp
from tilewright.compiler import Executable
from tilewright.core import dtype as dt
from tilewright.core.settings import settings
from tilewright.core.size import Size
from tilewright.graph import reference
from tilewright.graph.ir import Value, input_value, make, topological
from tilewright.lower import winograd_filters
from tilewright.lower.winograd_filters import filter_gradient
from tilewright.recipes.machine import Machine
from tilewright.recipes.winograd import Summing, choose_summing
from tilewright.runtime.target import host_target

MACHINE = Machine(64, 32, 48 << 10, 1 << 20, 1)
Padding = tuple[tuple[int, int], ...]


def convolution(x: Value, w: Value, padding: Padding, stride: int = 1, groups: int = 1) -> Value:
    ones = (1, 1)
    return make(
        "conv", (x, w), stride=(stride, stride), padding=padding, lhs_dilation=ones, rhs_dilation=ones,
        groups=groups, dtype=x.dtype,
    )  # fmt: skip


def gradient(
    shape: tuple[int, ...], filters: int, padding: Padding = ((1, 1), (1, 1))
) -> tuple[list[Value], Value]:
    """The image and the results' gradient, and the filters' gradient."""
    x, w = input_value(dt.float32, shape), input_value(dt.float32, (filters, shape[1], 3, 3))
    y = convolution(x, w, padding)
    g = input_value(dt.float32, y.shape)
    (dw,) = vjp([y], [g], [w])
    assert dw is not None
    return [x, g], dw


def whole(rng: np.random.Generator, v: Value) -> np.ndarray:
    """Small multiples of four: every sum is exact, in any order and by either algorithm."""
    return rng.integers(-2, 3, v.shape).astype(v.dtype.numpy) * 4


def labels(executable: Executable) -> str:
    return executable.stage_text("plan")


def check(executable: Executable, inputs: list[Value], outputs: list[Value]) -> None:
    check_exactly(executable, inputs, outputs, whole)


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe is taken wherever it can be built."""
    monkeypatch.setattr(winograd_filters, "GAIN", 0.0)


# images, filters, padding: half tiles, short rows, channels and filters that are no whole vectors, several blocks and pieces
CASES = [
    ((4, 16, 8, 8), 16, ((1, 1), (1, 1))),
    ((3, 24, 9, 7), 40, ((1, 1), (1, 1))),
    ((2, 8, 16, 17), 33, ((0, 0), (0, 0))),
    ((1, 32, 5, 11), 19, ((2, 2), (2, 1))),
    ((1, 9, 6, 130), 8, ((1, 1), (1, 1))),
    ((2, 16, 3, 31), 24, ((1, 0), (0, 2))),
    ((16, 70, 4, 4), 130, ((1, 1), (1, 1))),
    ((5, 10, 2, 2), 12, ((1, 1), (1, 1))),
    ((6, 12, 4, 5), 9, ((-1, 2), (2, 0))),
]


@levels
@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c[0])))
def test_every_size(target: str, case: tuple, always: None) -> None:
    inputs, dw = gradient(*case)
    with settings.override(target=target, threads=2):
        executable = compiler.compile(inputs, [dw])
        assert "winograd filters" in labels(executable)
        check(executable, inputs, [dw])


SHAPES = [
    Summing(1, 1, 1, 3, 8, 16, 3, 1),
    Summing(2, 4, 1, 6, 24, 32, 5, 2),
    Summing(4, 2, 1, 1, 11, 20, 11, 1),
    Summing(4, 4, 1, 2, 17, 9, 4, 1),
    Summing(4, 4, 2, 3, 24, 33, 8, 3),
    Summing(4, 4, 6, 1, 16, 16, 16, 1),
    Summing(1, 2, 4, 3, 10, 33, 12, 1),
]


@pytest.mark.skipif(
    host_target().vector_bytes != 64,
    reason="the blockings listed are made of AVX-512 register tiles; test_every_size runs on what this machine has",
)
@pytest.mark.parametrize("summing", SHAPES, ids=lambda s: str(s.tiles))
def test_every_blocking(summing: Summing, monkeypatch: pytest.MonkeyPatch, always: None) -> None:
    """Whatever the cost model chooses: parts and pieces of any number, filters and channels of tasks that overlap."""
    monkeypatch.setattr(winograd_filters, "choose_summing", lambda *args: (0.0, summing))
    inputs, dw = gradient((6, 33, 8, 7), 24)
    with settings.override(target="host"):
        executable = compiler.compile(inputs, [dw])
    assert f"block {summing.filters}x{summing.channels}x{summing.tiles}" in labels(executable)
    check(executable, inputs, [dw])


def test_work_before_and_after(always: None) -> None:
    """A padded function of an image, gradients computed on the way, and an update of the filters."""
    x, w = input_value(dt.float32, (4, 16, 6, 9)), input_value(dt.float32, (24, 16, 3, 3))
    y = convolution(make("abs", (x,)), w, ((1, 1), (1, 1)))
    g = input_value(dt.float32, y.shape)
    (dw,) = vjp([y], [make("add", (g, g))], [w])
    assert dw is not None
    out = make("sub", (w, make("add", (dw, dw))))
    executable = compiler.compile([x, w, g], [out], donated={1: 0})
    assert "winograd filters" in labels(executable)
    rng = np.random.default_rng(3)
    arrays = [whole(rng, v) for v in (x, w, g)]
    (want,) = reference.evaluate([out], dict(zip((x, w, g), arrays, strict=True)))
    np.testing.assert_array_equal(native(executable, arrays)[0], want)


def test_errors_are_those_of_the_direct_sum() -> None:
    inputs, dw = gradient((16, 64, 16, 16), 64)
    rng = np.random.default_rng(4)
    arrays = [rng.normal(size=v.shape).astype(np.float32) for v in inputs]
    executable = compiler.compile(inputs, [dw])
    assert "winograd filters" in labels(executable)
    (ours,) = native(executable, arrays)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(winograd_filters, "GAIN", float("inf"))
        other = compiler.compile(inputs, [dw])
    assert "winograd" not in labels(other)
    (direct,) = native(other, arrays)
    padded = np.pad(arrays[0].astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    want = np.einsum("nfhw,nchwij->fcij", arrays[1].astype(np.float64), windows, optimize=True)
    errors = [float(np.sqrt(np.mean((got.reshape(want.shape) - want) ** 2))) for got in (ours, direct)]
    assert errors[0] < 4 * errors[1]
    print(f"\nroot mean square errors: {errors[0]:.2e}, direct {errors[1]:.2e}")


@pytest.mark.parametrize("what", [np.inf, -np.inf, np.nan, 3e38], ids=str)
@pytest.mark.parametrize("where", [0, 1])
def test_what_is_not_finite_stays_where_it_belongs(what: float, where: int, always: None) -> None:
    """Differences of transformed tiles would make NaN of infinities; sums of four inputs overflow where one product does not."""
    inputs, dw = gradient((2, 16, 8, 12), 24, ((0, 0), (0, 0)))
    rng = np.random.default_rng(5)
    arrays = [whole(rng, v) / 4 for v in inputs]
    arrays[1 - where] = np.abs(arrays[1 - where]) + 0.25
    arrays[1 - where] *= 1 / 64 if what == 3e38 else 1
    arrays[where][0, 3, 4, 5] = what
    arrays[where][0, 3, 4, 6] = what if what == 3e38 else 1
    executable = compiler.compile(inputs, [dw])
    assert "winograd filters" in labels(executable)
    (got,) = native(executable, arrays)
    with np.errstate(over="ignore", invalid="ignore"):
        (want,) = reference.evaluate([dw], dict(zip(inputs, arrays, strict=True)))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    finite = np.isfinite(want)
    np.testing.assert_allclose(got[finite], want[finite], rtol=1e-5)
    if what == 3e38:
        assert finite.all()
    elif where == 0:
        assert finite[:, np.arange(16) != 3].all()
    else:
        assert finite[np.arange(24) != 3].all()


@pytest.mark.parametrize("where", ["row", "column"])
def test_what_lies_beyond_an_odd_result_is_not_multiplied(where: str, always: None) -> None:
    """The tiles of an odd result reach one row or column further, where the image is, but no gradient."""
    inputs, dw = gradient((2, 16, 9, 11), 24, ((0, 0), (0, 0)))
    rng = np.random.default_rng(7)
    arrays = [whole(rng, v) / 4 for v in inputs]
    arrays[0][0, 3, 8 if where == "row" else 4, 4 if where == "row" else 10] = np.inf
    executable = compiler.compile(inputs, [dw])
    assert "winograd filters" in labels(executable)
    (got,) = native(executable, arrays)
    with np.errstate(invalid="ignore"):
        (want,) = reference.evaluate([dw], dict(zip(inputs, arrays, strict=True)))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    finite = np.isfinite(want)
    np.testing.assert_array_equal(np.isfinite(got), finite)
    np.testing.assert_allclose(got[finite], want[finite], rtol=1e-5)


def test_it_is_used_where_it_pays() -> None:
    assert (
        choose_summing(MACHINE, 8, 3, 32, 32, 32) is None
        and choose_summing(MACHINE, 8, 32, 4, 32, 32) is None
    )
    for images, channels, filters, high, wide in (
        (16, 64, 128, 16, 16),
        (64, 32, 32, 15, 17),
        (128, 512, 512, 14, 14),
        (1, 64, 64, 56, 56),
    ):
        found = choose_summing(MACHINE, images, channels, filters, high, wide)
        assert found is not None
        s = found[1]
        held = 16 * (s.tiles * (s.filters + s.channels) + s.filters * s.channels)
        assert 4 * held <= MACHINE.l2 and s.mr * s.nr < MACHINE.registers
        assert images * -(-high // 2) * -(-wide // 2) % (s.tiles * s.blocks) == 0
    inputs, dw = gradient((2, 16, 8, 8), 16)
    assert [filter_gradient(v) is not None for v in topological([dw])].count(True) == 1
    x, w = inputs[0], input_value(dt.float32, (16, 16, 3, 3))
    batch = input_value(dt.float32, (Size("batch", 2, 64), 16, 8, 8))
    halves = input_value(dt.float64, x.shape), input_value(dt.float64, w.shape)
    others = [
        convolution(x, w, ((1, 1), (1, 1)), stride=2),
        convolution(x, input_value(dt.float32, (16, 16, 5, 5)), ((1, 1), (1, 1))),
        convolution(x, input_value(dt.float32, (16, 8, 3, 3)), ((1, 1), (1, 1)), groups=2),
        convolution(*halves, ((1, 1), (1, 1))),
        convolution(batch, w, ((1, 1), (1, 1))),  # as many images as there are at run time
    ]
    for y in others:
        found_all = vjp([y], [input_value(y.dtype, y.shape)], [y.inputs[1]])
        assert not any(filter_gradient(v) for v in topological([v for v in found_all if v is not None]))

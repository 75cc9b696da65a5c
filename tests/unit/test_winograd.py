"""Winograd's minimal filtering: every size, border and place of a tile; exact where the direct sum is, close where not."""

import numpy as np
import pytest
from compiled_steps import native, run_in_random_order
from test_contraction_lowering import levels

from tilewright import compiler
from tilewright.autodiff.vjp import vjp
from tilewright.compiler import Executable
from tilewright.core import dtype as dt
from tilewright.core.settings import settings
from tilewright.graph import build, reference
from tilewright.graph.ir import Value, input_value, make
from tilewright.kernel.verify import verify
from tilewright.lower.groups import form_groups
from tilewright.lower.winograd import Winograd
from tilewright.recipes.machine import Machine
from tilewright.recipes.winograd import Blocking, choose_blocking

MACHINE = Machine(64, 32, 1 << 15, 1 << 20, 2)


def convolution(x: Value, w: Value, padding: tuple[tuple[int, int], ...] = ((1, 1), (1, 1))) -> Value:
    ones = (1, 1)
    return make(
        "conv",
        (x, w),
        stride=ones,
        padding=padding,
        lhs_dilation=ones,
        rhs_dilation=ones,
        groups=1,
        dtype=dt.float32,
    )


def whole(rng: np.random.Generator, v: Value) -> np.ndarray:
    """Small integers: every sum is exact, in any order and by either algorithm."""
    return rng.integers(-3, 4, v.shape).astype(np.float32)


def labels(executable: Executable) -> str:
    return executable.stage_text("plan")


# images, channels, height, width, filters, padding; sizes that leave half tiles, short rows, several blocks and segments of rows
CASES = [
    (1, 16, 8, 8, 16, ((1, 1), (1, 1))),
    (3, 24, 9, 7, 40, ((1, 1), (1, 1))),
    (2, 16, 16, 17, 33, ((0, 0), (0, 0))),
    (1, 32, 5, 11, 19, ((2, 2), (2, 1))),
    (1, 16, 6, 210, 16, ((1, 1), (1, 1))),
    (2, 16, 3, 231, 24, ((1, 0), (0, 2))),
    (5, 64, 4, 4, 64, ((1, 1), (1, 1))),
    (1, 130, 14, 14, 24, ((1, 1), (1, 1))),
]


@levels
@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c[:5])))
def test_every_size(target: str, case: tuple) -> None:
    n, c, h, w, f, padding = case
    x, k, b = (
        input_value(dt.float32, (n, c, h, w)),
        input_value(dt.float32, (f, c, 3, 3)),
        input_value(dt.float32, (f,)),
    )
    y = convolution(x, k, padding)
    out = build.unary("abs", make("add", (y, build.broadcast(build.reshape(b, (f, 1, 1)), y.shape))))
    rng = np.random.default_rng(0)
    arrays = [whole(rng, v) for v in (x, k, b)]
    (want,) = reference.evaluate([out], dict(zip((x, k, b), arrays, strict=True)))
    with settings.override(target=target, threads=2):
        executable = compiler.compile([x, k, b], [out])
        for kernel in executable.names:
            verify(kernel)
        np.testing.assert_array_equal(native(executable, arrays)[0], want)
        np.testing.assert_array_equal(run_in_random_order(executable, arrays, rng)[0], want)


@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("across", [2, 3, 5])
@pytest.mark.parametrize(("filters", "mr", "nr"), [(8, 4, 1), (6, 3, 1), (24, 12, 1), (21, 7, 1)])
def test_every_blocking(rows: int, across: int, filters: int, mr: int, nr: int) -> None:
    """Whatever the cost model chooses: blocks that end with the image, parts that end with the filters."""
    x, k = input_value(dt.float32, (2, 9, 7, 9)), input_value(dt.float32, (25, 9, 3, 3))
    y = convolution(x, k)
    (group,) = form_groups([y])
    blocking = Blocking(rows, across, filters, mr, nr)
    calls = Winograd(group, lambda v: v.op == "input", MACHINE, blocking).calls()
    for call in calls:
        verify(call.kernel)
    assert calls[1].grid >= 1


def test_gradients_of_both_operands() -> None:
    x, k = input_value(dt.float32, (2, 32, 12, 12)), input_value(dt.float32, (48, 32, 3, 3))
    y = convolution(x, k)
    g = input_value(dt.float32, y.shape)
    outputs = [y, *(v for v in vjp([y], [g], [x, k]) if v is not None)]
    rng = np.random.default_rng(1)
    arrays = [whole(rng, v) for v in (x, k, g)]
    executable = compiler.compile([x, k, g], outputs)
    assert labels(executable).count("winograd [") == 2  # forward, and the gradient of the image
    want = reference.evaluate(outputs, dict(zip((x, k, g), arrays, strict=True)))
    for got, right in zip(native(executable, arrays), want, strict=True):
        np.testing.assert_array_equal(got, right)


def test_work_before_and_after() -> None:
    """A padded and scaled image, flipped filters, a residual and a comparison."""
    x, k = input_value(dt.float32, (2, 32, 10, 10)), input_value(dt.float32, (32, 32, 3, 3))
    r = input_value(dt.float32, (2, 32, 10, 10))
    doubled = make("add", (x, x))
    y = convolution(doubled, make("flip", (k,), axes=(2, 3)))
    out = make("maximum", (make("add", (y, r)), make("neg", (r,))))
    rng = np.random.default_rng(2)
    arrays = [whole(rng, v) for v in (x, k, r)]
    executable = compiler.compile([x, k, r], [out])
    assert "winograd" in labels(executable)
    (want,) = reference.evaluate([out], dict(zip((x, k, r), arrays, strict=True)))
    np.testing.assert_array_equal(native(executable, arrays)[0], want)


def test_errors_are_a_few_times_those_of_the_direct_sum() -> None:
    x, k = input_value(dt.float32, (4, 128, 16, 16)), input_value(dt.float32, (64, 128, 3, 3))
    y = convolution(x, k)
    rng = np.random.default_rng(3)
    arrays = [rng.normal(size=v.shape).astype(np.float32) for v in (x, k)]
    wider = input_value(dt.float32, (64, 128, 3, 4))  # a column of zeros, and the sum is a direct one
    executable = compiler.compile([x, k, wider], [y, convolution(x, wider, ((1, 1), (1, 2)))])
    assert labels(executable).count("winograd") == 1
    results = native(executable, [*arrays, np.pad(arrays[1], ((0, 0), (0, 0), (0, 0), (0, 1)))])
    padded = np.pad(arrays[0].astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    want = np.einsum("nchwij,fcij->nfhw", windows, arrays[1].astype(np.float64), optimize=True)
    ours, direct = (float(np.sqrt(np.mean((got - want) ** 2))) for got in results)
    assert ours < 4 * direct
    print(f"\nroot mean square errors: {ours:.2e}, direct {direct:.2e}")


@pytest.mark.parametrize("what", [np.inf, -np.inf, np.nan, 3e38], ids=str)
def test_what_is_not_finite_stays_where_it_belongs(what: float) -> None:
    """Differences of transformed tiles would spread it; sums of four inputs would overflow where nine products do not."""
    x, k = input_value(dt.float32, (2, 16, 9, 12)), input_value(dt.float32, (24, 16, 3, 3))
    rng = np.random.default_rng(4)
    arrays = [whole(rng, v) for v in (x, k)]
    arrays[1][0] = 0.25 * np.sign(arrays[1][0])
    arrays[0][0, 3, 4, 5] = what
    arrays[0][0, 3, 4, 6] = what if what == 3e38 else 1
    arrays[0][1, 0, 0, 0] = arrays[0][1, 0, 8, 11] = what
    y = convolution(x, k)
    executable = compiler.compile([x, k], [y])
    assert "winograd" in labels(executable)
    (got,) = native(executable, arrays)
    with np.errstate(over="ignore", invalid="ignore"):
        (want,) = reference.evaluate([y], dict(zip((x, k), arrays, strict=True)))
        (total,) = reference.evaluate([y], {x: np.abs(arrays[0]) / 1024, k: np.abs(arrays[1])})
    # where large terms of both signs meet, the order of the sum decides whether it is infinite or NaN
    judged = (total < np.finfo(np.float32).max / 1024) | (what != 3e38)
    assert judged[0, 0].all()
    np.testing.assert_array_equal(np.isnan(got)[judged], np.isnan(want)[judged])
    np.testing.assert_allclose(got[judged], want[judged], rtol=1e-6)
    if what != 3e38:
        assert np.isfinite(got[0, 0, :3]).all() and np.isfinite(got[0, 0, :, 7:]).all()


def test_it_is_used_where_it_pays() -> None:
    for channels, shape in ((3, (32, 32, 32, 32)), (64, (1, 4, 64, 64)), (8, (1, 8, 3, 3))):
        assert choose_blocking(MACHINE, channels, shape) is None
    for channels, shape in ((32, (8, 64, 32, 32)), (64, (16, 128, 16, 16)), (256, (1, 256, 28, 28))):
        assert choose_blocking(MACHINE, channels, shape) is not None
    x = input_value(dt.float32, (2, 32, 16, 16))
    for change in ({"stride": (2, 2)}, {"rhs_dilation": (2, 2)}, {"lhs_dilation": (2, 2)}):
        attrs = {"stride": (1, 1), "lhs_dilation": (1, 1), "rhs_dilation": (1, 1), **change}
        w = input_value(dt.float32, (32, 32, 3, 3))
        rest = (attrs["lhs_dilation"], attrs["rhs_dilation"])
        y = make(
            "conv", (x, w), stride=attrs["stride"], padding=((1, 1), (1, 1)), lhs_dilation=rest[0],
            rhs_dilation=rest[1], groups=1, dtype=dt.float32,
        )  # fmt: skip
        assert "winograd" not in labels(compiler.compile(list(y.inputs), [y]))

"""Convolutions with lanes along images: every size, border, stride and block, exactly, with small integers."""

from dataclasses import replace

import numpy as np
import pytest
from compiled_steps import check_exactly, native
from test_contraction_lowering import levels

from tilewright import compiler
from tilewright.autodiff.vjp import vjp
from tilewright.compiler import Executable
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.settings import settings
from tilewright.core.size import Size
from tilewright.graph import build, reference
from tilewright.graph.ir import Value, constant, input_value, make
from tilewright.lower import images
from tilewright.lower.images import convolution_of_images
from tilewright.recipes.images import Panels, choose_panels
from tilewright.recipes.machine import Machine

MACHINE = Machine(64, 32, 48 << 10, 1 << 20, 1)
Padding = tuple[tuple[int, int], ...]


def convolution(x: Value, w: Value, padding: Padding, stride: tuple[int, ...] = ()) -> Value:
    ones = (1,) * len(padding)
    return make(
        "conv", (x, w), stride=stride or ones, padding=padding, lhs_dilation=ones, rhs_dilation=ones, groups=1,
        dtype=x.dtype,
    )  # fmt: skip


def whole(rng: np.random.Generator, v: Value) -> np.ndarray:
    """Small integers: every sum is exact, in any order."""
    return rng.integers(-3, 4, v.shape).astype(v.dtype.numpy)


def check(executable: Executable, inputs: list[Value], outputs: list[Value]) -> None:
    check_exactly(executable, inputs, outputs, whole)


def labels(executable: Executable) -> str:
    return executable.stage_text("plan")


# shape of the images, filters, taps, padding, stride: whole vectors or not, blocks that overlap, taps beyond the image
CASES = [
    ((64, 6, 14, 14), 16, (5, 5), ((0, 0), (0, 0)), (1, 1)),
    ((32, 16, 10, 10), 6, (5, 5), ((4, 4), (4, 4)), (1, 1)),
    ((33, 3, 5, 7), 10, (3, 3), ((1, 1), (1, 1)), (1, 1)),
    ((50, 4, 8, 9), 5, (3, 2), ((1, 0), (0, 2)), (2, 3)),
    ((40, 7, 3, 3), 9, (5, 4), ((4, 5), (3, 2)), (1, 1)),
    ((35, 5, 6, 6), 7, (3, 3), ((-1, 2), (2, -1)), (1, 2)),
    ((48, 2, 1, 1), 3, (1, 1), ((0, 0), (0, 0)), (1, 1)),
    ((70, 5, 21), 8, (6,), ((2, 3),), (2,)),
    ((36, 2, 4, 3, 5), 4, (2, 3, 3), ((1, 0), (1, 1), (0, 2)), (1, 1, 2)),
]


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe is taken wherever it can be built."""
    monkeypatch.setattr(images, "GAIN", 0.0)


@levels
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64], ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda c: "x".join(map(str, c[0])))
def test_every_size(target: str, dtype: DType, case: tuple, always: None) -> None:
    shape, filters, taps, padding, stride = case
    x = input_value(dtype, shape)
    w = input_value(dtype, (filters, shape[1], *taps))
    y = convolution(x, w, padding, stride)
    with settings.override(target=target, threads=2):
        executable = compiler.compile([x, w], [y])
        assert " images " in labels(executable)
        check(executable, [x, w], [y])


@pytest.mark.parametrize("vectors", [1, 2, 4])
@pytest.mark.parametrize("mr", [1, 3, 8])
@pytest.mark.parametrize("count", [64, 71])
def test_every_panel(
    vectors: int, mr: int, count: int, monkeypatch: pytest.MonkeyPatch, always: None
) -> None:
    """Whatever the cost model chooses: blocks that end with the images, panels that end with the filters."""
    monkeypatch.setattr(images, "choose_panels", lambda machine, sizes: (0.0, Panels(vectors, mr)))
    x, w = input_value(dt.float32, (count, 2, 3, 4)), input_value(dt.float32, (8, 2, 2, 3))
    y = convolution(x, w, ((1, 1), (1, 2)))
    executable = compiler.compile([x, w], [y])
    assert f" images {mr}x{vectors}x" in labels(executable)
    check(executable, [x, w], [y])


def epilogues() -> dict[str, tuple[list[Value], list[Value]]]:
    x, w = input_value(dt.float32, (32, 8, 6, 7)), input_value(dt.float32, (9, 8, 5, 5))
    y = convolution(x, w, ((2, 2), (2, 2)))
    bias, place = input_value(dt.float32, (9,)), input_value(dt.float32, (6, 7))
    other = input_value(dt.float32, y.shape)
    filters = build.broadcast(build.reshape(bias, (9, 1, 1)), y.shape)
    doubled = convolution(make("add", (x, x)), make("flip", (w,), axes=(2, 3)), ((2, 2), (2, 2)))
    small = input_value(dt.float32, (32, 8, 5, 6))
    zero = constant(0.0, dt.float32)
    padded = make("pad", (small, zero), low=(0, 0, 1, 0), high=(0, 0, 0, 1), interior=(0, 0, 0, 0))
    long = y
    for _ in range(9):
        long = make("maximum", (make("mul", (long, filters)), make("neg", (long,))))
        long = make("minimum", (long, build.broadcast(build.reshape(bias, (9, 1, 1)), y.shape)))
    return {
        "bias": ([x, w, bias], [build.unary("abs", make("add", (y, filters)))]),
        "places": ([x, w, place], [make("add", (y, build.broadcast(place, y.shape)))]),
        "residual": ([x, w, other], [make("maximum", (make("add", (y, other)), make("neg", (other,))))]),
        "two results": ([x, w, bias], [y, make("add", (y, filters))]),
        "padded before": ([small, w], [convolution(padded, w, ((2, 2), (2, 2)))]),
        "long": ([x, w, bias], [long]),
        "computed operands": ([x, w, other], [make("sub", (doubled, other))]),
    }


@levels
@pytest.mark.parametrize("which", epilogues())
def test_work_before_and_after(target: str, which: str, always: None) -> None:
    inputs, outputs = epilogues()[which]
    with settings.override(target=target, threads=2):
        executable = compiler.compile(inputs, outputs)
        assert " images " in labels(executable)
        check(executable, inputs, outputs)


def test_gradients() -> None:
    """The gradient of the images of a convolution without padding meets more zeros than elements."""
    x, w = input_value(dt.float32, (64, 6, 14, 14)), input_value(dt.float32, (16, 6, 5, 5))
    y = convolution(x, w, ((0, 0), (0, 0)))
    g = input_value(dt.float32, y.shape)
    outputs = [y, *(v for v in vjp([y], [g], [x, w]) if v is not None)]
    with settings.override(threads=1):
        executable = compiler.compile([x, w, g], outputs)
        check(executable, [x, w, g], outputs)


def test_a_settled_filter_is_laid_out_once(always: None) -> None:
    x, w = input_value(dt.float32, (32, 16, 10, 10)), input_value(dt.float32, (6, 16, 5, 5))
    y = convolution(x, w, ((4, 4), (4, 4)))
    executable = compiler.compile([x, w], [y], settled=[1])
    assert " images " in labels(executable)
    assert executable.preparation is not None and len(executable.schedule.steps) == 1
    arrays = [whole(np.random.default_rng(2), v) for v in (x, w)]
    (want,) = reference.evaluate([y], dict(zip((x, w), arrays, strict=True)))
    np.testing.assert_array_equal(native(executable, arrays)[0], want)


def test_it_is_chosen_where_zeros_or_lanes_are_saved() -> None:
    def cost(
        shape: tuple[int, ...], filters: int, taps: int, padding: int, machine: Machine = MACHINE
    ) -> float:
        x, w = input_value(dt.float32, shape), input_value(dt.float32, (filters, shape[1], taps, taps))
        sizes = convolution_of_images(convolution(x, w, ((padding, padding),) * 2))
        assert sizes is not None
        found = choose_panels(machine, sizes)
        return found[0] if found else float("inf")

    assert cost((64, 16, 10, 10), 6, 5, 4) < 0.5 * cost((64, 16, 18, 18), 6, 5, 0)
    assert cost((15, 16, 10, 10), 6, 5, 4) == float("inf")  # no vector's worth of images
    assert cost((64, 256, 28, 28), 64, 5, 2) == float("inf")  # a block does not stay in L2
    small, halved = (64, 6, 14, 14), replace(MACHINE, threads=2)
    assert cost(small, 16, 5, 0, halved) < 0.6 * cost(small, 16, 5, 0)
    x, w = input_value(dt.float32, small), input_value(dt.float32, (16, 6, 5, 5))
    for change in ({"rhs_dilation": (2, 2)}, {"lhs_dilation": (2, 2)}):
        attrs = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1), **change}
        y = make("conv", (x, w), stride=(1, 1), padding=((4, 4),) * 2, **attrs, groups=1, dtype=dt.float32)
        assert convolution_of_images(y) is None
    halves = [make("cast", (v,), dtype=dt.bfloat16) for v in (x, w)]
    assert convolution_of_images(convolution(*halves, ((0, 0), (0, 0)))) is None
    batch = Size("batch", 16, 128)
    y = convolution(input_value(dt.float32, (batch, *small[1:])), w, ((0, 0), (0, 0)))
    assert convolution_of_images(y) is None

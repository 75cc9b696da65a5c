"""Short rows that go through each phase together, and what rows need no loop for: compared with the reference, on every
instruction set this machine can run."""

import re
from collections.abc import Callable

import numpy as np
import pytest
from compiled_steps import Array, equal_bits, interpreted, native, run_in_random_order

from tilewright import compiler
from tilewright.compiler import Executable
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.settings import settings
from tilewright.core.shape import Shape
from tilewright.graph import build
from tilewright.graph.ir import Value, input_value, make
from tilewright.graph.reference import evaluate
from tilewright.kernel.text import print_kernel
from tilewright.kernel.verify import verify
from tilewright.lower.groups import form_groups
from tilewright.lower.lowering import lower_groups
from tilewright.recipes.machine import Machine
from tilewright.runtime.target import host_target

HOST = host_target()
LEVELS = ["host"]
if HOST.triple.startswith("x86_64"):
    LEVELS += {"avx512": ["avx2", "sse", "generic"], "avx2": ["sse", "generic"], "sse": ["generic"]}.get(
        HOST.name, []
    )
levels = pytest.mark.parametrize("target", LEVELS)
ROWS = ((67, 1), (37, 3), (66, 65), (300, 128), (33, 1024))


def along(row: Value, shape: Shape) -> Value:
    """A value of every row, for all its elements."""
    return build.broadcast(build.reshape(row, (*row.shape, 1)), shape)


def largest(x: Value) -> Value:
    return make("reduce_max", [x], axes=(len(x.shape) - 1,))


def total(x: Value) -> Value:
    return make("reduce_sum", [x], axes=(len(x.shape) - 1,))


def softmax(x: Value) -> Value:
    e = build.unary("exp", build.sub(x, along(largest(x), x.shape)))
    return build.div(e, along(total(e), x.shape))


def log_softmax(x: Value) -> Value:
    shifted = build.sub(x, along(largest(x), x.shape))
    return build.sub(shifted, along(build.unary("log", total(build.unary("exp", shifted))), x.shape))


def layer_norm(x: Value) -> Value:
    n = 1.0 / float(x.shape[-1])  # type: ignore[arg-type]
    centred = build.sub(x, along(build.mul(total(x), n), x.shape))
    variance = build.add(build.mul(total(build.square(centred)), n), 1e-5)
    return build.mul(centred, along(build.unary("rsqrt", variance), x.shape))


def arg(op: str, x: Value) -> Value:
    return make(op, [x], axis=len(x.shape) - 1)


def picked(x: Value, number: Value) -> Value:
    """The element of every row that ``number`` names, less the row's maximum, written as a sum over the row."""
    places = make("iota", [], shape=x.shape, axis=len(x.shape) - 1, dtype=dt.int64)
    shifted = build.sub(x, along(largest(x), x.shape))
    return total(
        build.where(build.compare("eq", places, along(number, x.shape)), shifted, build.zeros_like(x))
    )


FUNCTIONS: tuple[Callable[[Value], Value], ...] = (softmax, log_softmax, layer_norm)


def compiled(target: str, threads: int, leaves: list[Value], outputs: list[Value]) -> Executable:
    with settings.override(target=target, threads=threads):
        executable = compiler.compile(leaves, outputs)
    assert executable.fallbacks == []
    for kernel in executable.names:
        verify(kernel)
    return executable


def draw(shape: Shape, dtype: DType = dt.float32) -> Array:
    return np.random.default_rng(3).normal(size=shape).astype(dtype.numpy)


def text(executable: Executable) -> str:
    return "\n".join(print_kernel(k) for k in executable.names)


@pytest.mark.parametrize(
    ("target", "dtype"),
    [("host", dt.float64), ("host", dt.bfloat16), *((level, dt.float32) for level in LEVELS)],
    ids=str,
)
def test_rows_of_every_length(target: str, dtype: DType) -> None:
    for n, shape in enumerate(ROWS):
        x = input_value(dtype, shape)
        outputs = [f(x) for f in FUNCTIONS] + [arg("argmax", x), arg("argmin", x)]
        array = draw(shape, dtype)
        wants = evaluate(outputs, {x: array})
        with settings.override(target=target, threads=1 + n % 2):
            executable = compiled(target, 1 + n % 2, [x], outputs)
            runs = [native(executable, [array])]
            runs.append(run_in_random_order(executable, [array], np.random.default_rng(n)))
        rough = 0.04 if dtype is dt.bfloat16 else 2e-5
        for results in runs:
            for got, want in zip(results, wants, strict=True):
                np.testing.assert_allclose(
                    got.astype(np.float64), want.astype(np.float64), rtol=rough, atol=rough / 10
                )


@pytest.mark.parametrize("rows", [16, 37, 66])
def test_interpreted_rows_stay_inside_their_memory(rows: int) -> None:
    x, number = input_value(dt.float32, (rows, 13)), input_value(dt.int64, (rows,))
    outputs = [softmax(x), log_softmax(x), arg("argmax", x), picked(x, number)]
    arrays = [draw((rows, 13)), np.arange(rows) % 15 - 1]
    executable = compiled("host", 1, [x, number], outputs)
    assert "for row in" in text(executable)
    for got, want in zip(interpreted(executable, arrays), native(executable, arrays), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_what_reads_a_row_differs_along_the_axis_before_it() -> None:
    """A mask of the last two axes: rows of the first axis do not run as one range with the second."""
    x, mask = input_value(dt.float32, (3, 37, 20)), input_value(dt.float32, (37, 20))
    y = softmax(build.add(x, build.broadcast(mask, x.shape)))
    arrays = [draw((3, 37, 20)), draw((37, 20))]
    executable = compiled("host", 1, [x, mask], [y])
    assert "for row in" in text(executable)
    (got,), (want,) = native(executable, arrays), evaluate([y], dict(zip((x, mask), arrays, strict=True)))
    np.testing.assert_allclose(got, want, rtol=2e-5)


def test_few_or_long_rows_go_alone() -> None:
    for shape in ((4, 8), (64, 40_000)):
        x = input_value(dt.float32, shape)
        assert "for row in" not in text(compiled("host", 1, [x], [softmax(x)]))


def test_rows_together_have_the_bits_of_rows_alone() -> None:
    """The number of rows that go together depends on the number of threads; a row's sum does not depend on it."""
    x, array = input_value(dt.float32, (48, 70)), draw((48, 70))
    outputs = [softmax(x), layer_norm(x)]
    together = compiled("host", 1, [x], outputs)
    with settings.override(deterministic=True):  # for eight threads
        alone = compiled("host", 1, [x], outputs)
    assert "for row in" in text(together)
    assert "for row in" not in text(alone)
    with settings.override(threads=1):
        pairs = zip(native(together, [array]), native(alone, [array]), strict=True)
    assert all(equal_bits(a, b) for a, b in pairs)


# ---- what needs no loop ------------------------------------------------------------------------------------


@levels
@pytest.mark.parametrize("shape", [(70, 9), (3, 40), (5, 7, 11)])
def test_an_element_picked_by_its_number(target: str, shape: Shape) -> None:
    x, number = input_value(dt.float32, shape), input_value(dt.int64, shape[:-1])
    y = picked(x, number)
    array = draw(shape)
    array[0] = np.inf  # not where it is not picked
    size = int(shape[-1])  # type: ignore[arg-type]
    numbers = np.random.default_rng(0).integers(-2, size + 2, shape[:-1])
    numbers.flat[:3] = (-(2**62), size, 2**62)
    executable = compiled(target, 1, [x, number], [y])
    assert " == b1[" not in text(executable)
    (got,), (want,) = native(executable, [array, numbers]), evaluate([y], {x: array, number: numbers})
    assert np.array_equal(got, want, equal_nan=True)


def test_nothing_is_picked_from_an_empty_axis() -> None:
    x, number = input_value(dt.float32, (0, 7)), input_value(dt.int64, (1, 1))
    places = make("iota", [], shape=x.shape, axis=0, dtype=dt.int64)
    chosen = build.compare("eq", places, build.broadcast(number, x.shape))
    y = make("reduce_sum", [build.where(chosen, x, build.zeros_like(x))], axes=(0,))
    executable = compiled("host", 1, [x, number], [y])
    arrays = [np.zeros((0, 7), np.float32), np.zeros((1, 1), np.int64)]
    for run in (native, interpreted):
        (got,) = run(executable, arrays)
        assert np.array_equal(got, np.zeros(7, np.float32))


SPECIAL = (0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3e38, -3e38, float("inf"), float("-inf"), float("nan"))


@levels
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64, dt.float16, dt.bfloat16], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_the_first_largest_element_among_special_numbers(target: str, dtype: DType, axis: int) -> None:
    rng = np.random.default_rng(1)
    with np.errstate(over="ignore"):
        table = np.array(SPECIAL).astype(np.float32).astype(dtype.numpy)
    array = table[rng.integers(0, len(SPECIAL) - 1, (600, 7))]  # without NaN
    array[::3] = table[rng.integers(0, len(SPECIAL), (200, 7))]
    array[:50] = table[-2]  # nothing but -infinity, or infinity
    array[50:90] = table[-3]
    array[90:200] = table[rng.integers(0, 2, (110, 7))]  # zeros of both signs are equal
    array[200:220, 1:] = table[-1]
    array = array if axis else np.ascontiguousarray(array.T)
    x = input_value(dtype, array.shape)
    outputs = [make(op, [x], axis=axis) for op in ("argmax", "argmin")]
    executable = compiled(target, 1, [x], outputs)
    for got, want in zip(native(executable, [array]), evaluate(outputs, {x: array}), strict=True):
        assert np.array_equal(got, want)


@levels
@pytest.mark.parametrize("dtype", [dt.int32, dt.uint8, dt.int64], ids=str)
def test_the_first_largest_integer(target: str, dtype: DType) -> None:
    array = np.random.default_rng(2).integers(0, 5, (50, 40)).astype(dtype.numpy)
    array[0] = np.iinfo(dtype.numpy).min
    x = input_value(dtype, array.shape)
    outputs = [make(op, [x], axis=axis) for op in ("argmax", "argmin") for axis in (0, 1)]
    executable = compiled(target, 1, [x], outputs)
    for got, want in zip(native(executable, [array]), evaluate(outputs, {x: array}), strict=True):
        assert np.array_equal(got, want)


@levels
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64, dt.float16], ids=str)
@pytest.mark.parametrize("length", [256, 300, 319, 1025])
def test_extremes_of_long_rows_and_their_places(target: str, dtype: DType, length: int) -> None:
    """Value and place come from one pass, unless the row's sum is NaN."""
    rng = np.random.default_rng(length)
    array = rng.normal(size=(40, length)).astype(dtype.numpy)
    infinite, nan = np.inf, np.nan
    array[1], array[2], array[3] = infinite, -infinite, nan
    array[4, 100], array[4, 200] = infinite, -infinite  # their sum is NaN, no element is
    array[5, -1], array[6, 0], array[7, 64:] = nan, nan, nan
    array[8, 255], array[8, 100], array[8, 3] = nan, infinite, -infinite
    array[9], array[9, 70] = -infinite, nan
    array[10], array[10, 77] = -infinite, -3.0
    array[11], array[11, 17] = 0.0, -0.0
    array[12] = rng.integers(0, 3, length)  # the first of many
    array[13], array[13, 0] = 2.0, 1.0
    array[14] = np.finfo(dtype.numpy).max  # the sum overflows
    x = input_value(dtype, array.shape)
    outputs = [arg("argmax", x), arg("argmin", x), largest(x), make("reduce_min", [x], axes=(1,))]
    for chosen in (outputs, outputs[:1], outputs[1:2]):
        executable = compiled(target, 1, [x], chosen)
        assert "sum0_" in text(executable)
        for got, want in zip(native(executable, [array]), evaluate(chosen, {x: array}), strict=True):
            assert np.array_equal(got, want, equal_nan=dtype.is_float)
        # no comparison for every element: blocks of four vectors, then one of them again
        assert re.search(r"for block\d_\d in 0\.\.", text(executable))
    if length == 300 and target == "host":
        got = interpreted(executable, [array])[0]
        assert np.array_equal(got, evaluate(outputs[1:2], {x: array})[0])


def test_vectors_side_by_side_in_a_pass_with_a_function() -> None:
    """Where two multiplications begin in a cycle and there are registers for their numbers."""
    x = input_value(dt.float32, (64, 1024))
    for registers, fmas, lanes in ((32, 2.0, 64), (16, 2.0, 32), (32, 1.0, 32)):
        machine = Machine(64, registers, 48 << 10, 1 << 20, 1, fmas=fmas)
        (step,) = lower_groups(form_groups((softmax(x),)), machine)
        lines = print_kernel(step.calls[0].kernel).splitlines()
        before = next(n for n, line in enumerate(lines) if "exp" in line) - 1
        assert lines[before].endswith(f"vector {lanes}:")


# ---- sums over columns -------------------------------------------------------------------------------------


@levels
@pytest.mark.parametrize("rows", [3, 4, 7, 64, 85])
def test_rows_added_several_at_a_time_are_added_in_order(target: str, rows: int) -> None:
    array = draw((3, rows, 200))
    x = input_value(dt.float32, array.shape)
    y = make("reduce_sum", [x], axes=(1,))
    executable = compiled(target, 1, [x], [y])
    want = np.zeros((3, 200), np.float32)
    for k in range(rows):
        want += array[:, k]
    assert np.array_equal(native(executable, [array])[0], want)


def test_kernels_align_their_stack() -> None:
    """A vector that is spilled to a stack of another alignment lies in two cache lines."""
    x = input_value(dt.float32, (1 << 15,))
    y = build.mul(make("erf", [x]), x)
    assert '"stackrealign"' in compiled("host", 1, [x], [y]).stage_text("llvm")

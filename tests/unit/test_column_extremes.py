"""The first extreme of every column in one pass: compared with the reference, on every instruction set this machine can run."""

import numpy as np
import pytest
from compiled_steps import Array, interpreted, native

from tilewright import compiler
from tilewright.compiler import Executable
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.settings import settings
from tilewright.core.shape import Shape
from tilewright.graph.ir import Value, input_value, make
from tilewright.graph.reference import evaluate
from tilewright.kernel.text import print_kernel
from tilewright.kernel.verify import verify
from tilewright.lower.groups import form_groups
from tilewright.lower.lowering import lower_groups
from tilewright.passes.pipeline import run_passes
from tilewright.recipes.machine import Machine
from tilewright.runtime.target import host_target

HOST = host_target()
LEVELS = ["host"]
if HOST.triple.startswith("x86_64"):
    LEVELS += {"avx512": ["avx2", "sse", "generic"], "avx2": ["sse", "generic"], "sse": ["generic"]}.get(
        HOST.name, []
    )
levels = pytest.mark.parametrize("target", LEVELS)
SHAPES = ((1, 3), (8, 40), (23, 129), (5, 19, 70), (2, 3, 9, 33), (40, 3000), (3000, 33))


def compiled(target: str, leaves: list[Value], outputs: list[Value]) -> Executable:
    with settings.override(target=target, threads=2):
        executable = compiler.compile(leaves, outputs)
    assert executable.fallbacks == []
    for kernel in executable.names:
        verify(kernel)
    return executable


def special(shape: Shape, dtype: DType) -> Array:
    """Columns with NaN, infinities of both signs, zeros of both signs, and elements that occur more than once."""
    rng = np.random.default_rng(0)
    array = rng.integers(-9, 9, shape).astype(dtype.numpy)
    columns = np.moveaxis(array, -2, 0).reshape(shape[-2], -1)
    kinds = rng.integers(0, 12, columns.shape[1])
    if dtype.is_float:
        many = rng.uniform(size=columns.shape) < 0.2
        columns[many & (kinds < 3)] = np.nan
        columns[(rng.uniform(size=columns.shape) < 0.2) & (kinds > 1) & (kinds < 6)] = np.inf
        columns[(rng.uniform(size=columns.shape) < 0.2) & (kinds > 3) & (kinds < 7)] = -np.inf
        columns[:, kinds == 7] = -np.inf
        columns[:, kinds == 8] = np.nan
        columns[:, kinds == 9] = np.where(many, np.float32(-0.0), np.float32(0.0))[:, kinds == 9]
        columns[:, kinds == 10] = np.inf
    else:
        lowest = 0 if dtype.kind == "u" else -(1 << (dtype.bits - 1))
        columns[:, kinds == 7] = lowest
        columns[:, kinds == 8] = lowest + (1 << dtype.bits) - 1
    return np.ascontiguousarray(np.moveaxis(columns.reshape(shape[-2], *shape[:-2], shape[-1]), 0, -2))


@levels
@pytest.mark.parametrize(
    "dtype", [dt.float32, dt.float64, dt.bfloat16, dt.float16, dt.int32, dt.uint8, dt.int64], ids=str
)
def test_extremes_of_columns_and_their_places(target: str, dtype: DType) -> None:
    for shape in SHAPES if target in ("host", "avx2") else SHAPES[2:4]:
        array = special(shape, dtype)
        x = input_value(dtype, shape)
        axis = len(shape) - 2
        outputs = [make(op, [x], axis=axis) for op in ("argmax", "argmin")]
        outputs += [make(op, [x], axes=(axis,)) for op in ("reduce_max", "reduce_min")]
        for chosen in (outputs, outputs[:1], outputs[1:2]):
            executable = compiled(target, [x], chosen)
            for got, want in zip(native(executable, [array]), evaluate(chosen, {x: array}), strict=True):
                assert np.array_equal(got, want, equal_nan=dtype.is_float), (shape, chosen[0].op)


def test_one_pass() -> None:
    """Every row is met once, unless the strip has NaN."""
    x = input_value(dt.float32, (20, 70))
    executable = compiled("host", [x], [make("argmax", [x], axis=0)])
    text = executable.stage_text("kernels")
    assert "for several in 0..2" in text and text.count("<=") == 0
    array = special((20, 70), dt.float32)
    want = evaluate([make("argmax", [x], axis=0)], {x: array})[0]
    assert np.array_equal(interpreted(executable, [array])[0], want)


def test_rows_beyond_the_caches_go_one_by_one_and_are_asked_for() -> None:
    x = input_value(dt.float32, (300, 1024))
    machine = Machine(64, 32, 48 << 10, 1 << 20, 1, l3=1 << 18)
    (step,) = lower_groups(form_groups(run_passes([make("argmax", [x], axis=0)])), machine)[:1]
    text = print_kernel(step.calls[0].kernel)
    assert "several" not in text and "+ 4096] cache 1" in text


def test_a_strip_for_every_thread() -> None:
    x = input_value(dt.float32, (999, 600))  # rows that are not cut
    for threads, strips in ((1, 1), (2, 7)):
        machine = Machine(64, 32, 48 << 10, 1 << 20, threads)
        (step,) = lower_groups(form_groups(run_passes([make("argmin", [x], axis=0)])), machine)
        assert step.calls[0].grid == strips


def test_the_place_is_cut_with_its_maximum() -> None:
    """Every block gives its best element and the place of that; no block is read for the best of all blocks."""
    x = input_value(dt.float32, (4096, 96))
    outputs = [make("argmax", [x], axis=0)]
    groups = form_groups(run_passes(outputs))
    assert [(g.dims, len(g.outputs)) for g in groups] == [((64, 64, 96), 2), ((64, 96), 1)]
    executable = compiled("host", [x], outputs)
    array = np.zeros((4096, 96), np.float32)
    array[700], array[4000, 1:], array[3000, 2:4], array[3999, 3:] = 1, 1, 2, np.nan
    array[:, 90], array[:, 91] = -np.inf, np.nan
    want = evaluate(outputs, {x: array})[0]
    assert np.array_equal(native(executable, [array])[0], want)
    assert want[:4].tolist() == [700, 700, 3000, 3999]


@pytest.mark.parametrize(("shape", "axis"), [((1 << 17,), 0), ((4, 1 << 15), 1), ((2, 3000, 40), 1)])
@pytest.mark.parametrize("dtype", [dt.float32, dt.int32, dt.bfloat16], ids=str)
def test_long_rows_that_are_cut(shape: Shape, axis: int, dtype: DType) -> None:
    x = input_value(dtype, shape)
    outputs = [make(op, [x], axis=axis) for op in ("argmax", "argmin")]
    executable = compiled("host", [x], outputs)
    array = np.random.default_rng(0).integers(-100, 100, shape).astype(dtype.numpy)
    for got, want in zip(native(executable, [array]), evaluate(outputs, {x: array}), strict=True):
        assert np.array_equal(got, want)

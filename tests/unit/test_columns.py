"""Reductions over rows that a row group computes on the way: compared with the reference, on every instruction set this machine
can run."""

import numpy as np
import pytest
from compiled_steps import Array, equal_bits, interpreted, native, run_in_random_order
from test_rows_together import compiled, draw, layer_norm, levels, softmax, total

from tilewright import compiler
from tilewright.autodiff.vjp import vjp
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.settings import settings
from tilewright.core.shape import Shape, static
from tilewright.graph import build
from tilewright.graph.ir import Value, input_value, make
from tilewright.graph.reference import evaluate
from tilewright.lower.groups import form_groups
from tilewright.passes.pipeline import run_passes
from tilewright.runtime.buffers import Buffer


def normalised(x: Value, weight: Value, bias: Value) -> Value:
    """A layer norm over the last axis."""
    return build.add(
        build.mul(layer_norm(x), build.broadcast(weight, x.shape)), build.broadcast(bias, x.shape)
    )


def step(shape: Shape, dtype: DType = dt.float32) -> tuple[list[Value], list[Value]]:
    """A layer norm with all its gradients: leaves and outputs."""
    x, g = input_value(dtype, shape), input_value(dtype, shape)
    weight, bias = input_value(dtype, shape[-1:]), input_value(dtype, shape[-1:])
    y = normalised(x, weight, bias)
    gradients = vjp([y], [g], [x, weight, bias])
    return [x, g, weight, bias], [y, *[v for v in gradients if v is not None]]


def arrays_of(leaves: list[Value]) -> list[Array]:
    rng = np.random.default_rng(5)
    return [rng.normal(size=static(v.shape)).astype(v.dtype.numpy) for v in leaves]


def agree(got: list[Array], want: list[Array], rough: float) -> None:
    for a, b in zip(got, want, strict=True):
        scale = float(np.abs(b.astype(np.float64)).max())
        np.testing.assert_allclose(a.astype(np.float64), b.astype(np.float64), rtol=rough, atol=rough * scale)


@levels
@pytest.mark.parametrize(
    "shape", [(16384, 64), (2048, 300), (1024, 1024), (2048, 70), (20, 1030, 96)], ids=str
)
def test_a_layer_norm_and_all_its_gradients_are_one_pass(target: str, shape: Shape) -> None:
    leaves, outputs = step(shape)
    executable = compiled(target, 1, leaves, outputs)
    large = [g for g in executable.groups if max(static(g.dims)[0], *static(g.dims)[-2:-1]) > 1000]
    assert [len(g.columns) for g in large] == [2]
    arrays = arrays_of(leaves)
    agree(native(executable, arrays), evaluate(outputs, dict(zip(leaves, arrays, strict=True))), 3e-5)


@pytest.mark.parametrize(
    ("dtype", "shape"), [(dt.float32, (16, 9, 66)), (dt.float64, (17, 8, 5, 13))], ids=str
)
def test_kernels_with_columns_stay_inside_their_memory(dtype: DType, shape: Shape) -> None:
    x = input_value(dtype, shape)
    outputs = [y := softmax(x), make("reduce_sum", [y], axes=(1,)), make("reduce_min", [x], axes=(1,))]
    if len(shape) == 4:  # a row of two axes
        scale = build.broadcast(make("reduce_sum", [x], axes=(2, 3)), (*shape[2:], *shape[:2]))
        y = build.mul(x, make("permute", [scale], axes=(2, 3, 0, 1)))
        outputs = [y, *(make("reduce_max", [v], axes=(1,)) for v in (x, y))]
    executable = compiled("host", 2, [x], outputs)
    assert [len(g.columns) for g in executable.groups] == [2]
    arrays = [draw(shape, dtype)]
    want = evaluate(outputs, {x: arrays[0]})
    for run in (native(executable, arrays), interpreted(executable, arrays)):
        agree(run, want, 3e-5)
    agree(run_in_random_order(executable, arrays, np.random.default_rng(0)), want, 3e-5)


def test_columns_have_the_same_bits_on_any_number_of_threads() -> None:
    leaves, outputs = step((4096, 128))
    arrays = arrays_of(leaves)
    with settings.override(deterministic=True):
        runs = []
        for threads in (1, 2, 5):
            executable = compiled("host", threads, leaves, outputs)
            with settings.override(threads=threads):
                runs.append(native(executable, arrays))
    assert all(equal_bits(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))


def test_a_gradient_written_over_its_operand() -> None:
    """The terms of the columns are read before the row is written over."""
    leaves, outputs = step((2048, 256))
    arrays = arrays_of(leaves)
    want = evaluate(outputs, dict(zip(leaves, arrays, strict=True)))
    executable = compiler.compile(leaves, outputs, donated={1: 1})
    assert any(g.columns for g in executable.groups)
    results = executable.run([Buffer.from_numpy(a.copy()) for a in arrays])
    agree([b.to_numpy(w.shape) for b, w in zip(results, want, strict=True)], want, 3e-5)


def test_other_reductions_over_rows() -> None:
    """Softmax beside the largest of its elements over the batch, and sums in a reduction's own type."""
    x = input_value(dt.float32, (16, 1200, 100))
    y = softmax(x)
    top = make("reduce_max", [make("reduce_max", [y], axes=(1,))], axes=(0,))
    count = make("reduce_sum", [make("cast", [build.mul(y, 300.0)], dtype=dt.int32)], axes=(0, 1))
    half = make("reduce_sum", [make("cast", [y], dtype=dt.bfloat16)], axes=(1,))
    outputs = [y, top, count, half]
    executable = compiled("host", 1, [x], outputs)
    assert max(len(g.columns) for g in executable.groups) == 3
    array = draw((16, 1200, 100))
    got, want = native(executable, [array]), evaluate(outputs, {x: array})
    agree(got[:3], want[:3], 1e-5)
    agree(got[3:], want[3:], 1e-2)


def test_what_reads_a_column_is_computed_after_all_rows() -> None:
    """Its elements have the index at which a row's are computed, and are not complete there."""
    x = input_value(dt.float32, (64, 64, 128))
    y = softmax(x)
    column = make("reduce_sum", [y], axes=(1,))
    scaled = build.mul(column, column)
    back = build.sub(y, build.broadcast(build.reshape(scaled, (64, 1, 128)), x.shape))
    outputs = [total(back), scaled]
    executable = compiled("host", 1, [x], outputs)
    assert any(g.columns for g in executable.groups)
    array = draw((64, 64, 128))
    agree(native(executable, [array]), evaluate(outputs, {x: array}), 1e-5)


def test_rows_reduced_in_different_ways_are_not_columns_of_one_group() -> None:
    x = input_value(dt.float32, (64, 64, 128))
    y = softmax(x)
    outputs = [make("reduce_sum", [y], axes=(axis,)) for axis in (0, 1)]
    executable = compiled("host", 1, [x], outputs)
    array = draw((64, 64, 128))
    agree(native(executable, [array]), evaluate(outputs, {x: array}), 1e-5)


def test_few_rows_and_the_widest_have_sums_of_their_own() -> None:
    for shape, count in (((64, 1024), 0), ((300, 128), 0), ((1024, 16384), 0), ((1024, 8192), 2)):
        groups = form_groups(run_passes(step(shape)[1]))
        assert sum(len(g.columns) for g in groups) == count


def test_equal_layers_share_their_kernels() -> None:
    x, g = input_value(dt.float32, (2048, 96)), input_value(dt.float32, (2048, 96))
    weights = [input_value(dt.float32, (96,)) for _ in range(4)]
    y = normalised(make("sin", [normalised(x, *weights[:2])]), *weights[2:])
    outputs = [y, *[v for v in vjp([y], [g], [x, *weights]) if v is not None]]
    leaves = [x, g, *weights]
    executable = compiled("host", 1, leaves, outputs)
    arrays = arrays_of(leaves)
    agree(native(executable, arrays), evaluate(outputs, dict(zip(leaves, arrays, strict=True))), 1e-4)


def test_sums_beside_a_large_map() -> None:
    """A bias' gradient beside an activation's: the map's rows are passed over once. What caches hold is summed by itself."""
    for rows, count in ((1 << 16, 1), (1 << 13, 0)):
        x, g = input_value(dt.float32, (rows, 64)), input_value(dt.float32, (rows, 64))
        bias = input_value(dt.float32, (64,))
        y = make("tanh", [build.add(x, build.broadcast(bias, x.shape))])
        leaves, gradients = [x, bias, g], vjp([y], [g], [x, bias])
        outputs = [v for v in gradients if v is not None]
        executable = compiled("host", 1, leaves, outputs)
        assert sum(len(group.columns) for group in executable.groups) == count
        arrays = arrays_of(leaves)
        agree(native(executable, arrays), evaluate(outputs, dict(zip(leaves, arrays, strict=True))), 1e-4)

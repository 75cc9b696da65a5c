"""Long reductions in two steps: which are cut, into what, and that the result is the same."""

from __future__ import annotations

import numpy as np
import pytest

from tilewright import compiler
from tilewright.core import dtype as dt
from tilewright.core.settings import settings
from tilewright.graph.ir import Value, input_value, make, topological
from tilewright.graph.reference import evaluate
from tilewright.passes.split_reductions import split_reductions
from tilewright.runtime.buffers import Buffer


def total(*shape: int, axes: tuple[int, ...], op: str = "reduce_sum", dtype: dt.DType = dt.float32) -> Value:
    return make(op, (input_value(dtype, shape),), axes=axes)


def split(v: Value) -> Value:
    return split_reductions([v])[0]


def test_before_and_after() -> None:
    v = total(1_000_000, axes=(0,))
    (x,) = v.inputs
    cut = make("reshape", (x,), shape=(64, 15_625))
    assert split(v) is make("reduce_sum", (make("reduce_sum", (cut,), axes=(1,)),), axes=(0,))


def test_the_outermost_reduced_axis_is_cut() -> None:
    v = total(96, 20, 100, axes=(0, 2), op="reduce_max")
    (x,) = v.inputs
    cut = make("reshape", (x,), shape=(48, 2, 20, 100))
    assert split(v) is make("reduce_max", (make("reduce_max", (cut,), axes=(1, 3)),), axes=(0,))


@pytest.mark.parametrize(
    "v",
    [
        total(60_000, axes=(0,)),  # short
        total(64, 1024, axes=(1,)),  # rows enough for all cores
        total(1_000_003, axes=(0,)),  # a prime number of elements
        total(70_000, axes=(0,), dtype=dt.float16),  # partial sums would be rounded to the half type
        total(64, 4096, axes=(0,)),  # many columns
    ],
    ids=["short", "rows", "prime", "half", "columns"],
)
def test_what_stays_whole(v: Value) -> None:
    assert split(v) is v


def test_readers_of_a_cut_reduction_read_the_new_one() -> None:
    v = total(1 << 20, axes=(0,))
    out = make("exp", (make("neg", (v,)),))
    after = split(out)
    assert [x.op for x in topological([after])] == [
        "input",
        "reshape",
        "reduce_sum",
        "reduce_sum",
        "neg",
        "exp",
    ]


@pytest.mark.parametrize("op", ["reduce_sum", "reduce_max", "reduce_min", "reduce_prod"])
@pytest.mark.parametrize(
    ("shape", "axes"), [((1 << 17,), (0,)), ((96, 30, 100), (0, 2)), ((4, 1 << 15), (1,))]
)
def test_the_result_is_the_same(op: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    v = total(*shape, axes=axes, op=op, dtype=dt.float64)
    after = split(v)
    assert after is not v
    (x,) = v.inputs
    rng = np.random.default_rng(0)
    data = rng.uniform(0.9999, 1.0001, shape) if op == "reduce_prod" else rng.standard_normal(shape)
    want, got = evaluate([v, after], {x: data})
    np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-10)
    (native,) = compiler.compile([x], [v]).run([Buffer.from_numpy(data)])
    np.testing.assert_allclose(native.to_numpy(want.shape), want, rtol=1e-12, atol=1e-10)


def test_special_numbers_survive() -> None:
    x = input_value(dt.float32, (1 << 17,))
    outputs = [make(op, (x,), axes=(0,)) for op in ("reduce_max", "reduce_min", "reduce_sum")]
    executable = compiler.compile([x], outputs)
    for place, number in ((0, np.nan), (77_777, np.nan), (5, np.inf), (131_071, -np.inf)):
        data = np.ones(1 << 17, np.float32)
        data[place] = number
        results = [b.to_numpy(()).item() for b in executable.run([Buffer.from_numpy(data)])]
        want = [float(f(data)) for f in (np.max, np.min, np.sum)]
        np.testing.assert_array_equal(results, want)


def test_blocks_do_not_depend_on_threads() -> None:
    """The pass sees the shape alone, so sums are the same bits on any number of threads."""
    x = input_value(dt.float32, (1 << 18,))
    data = np.random.default_rng(1).standard_normal(1 << 18).astype(np.float32)
    results = set()
    for threads in (1, 2, 5):
        with settings.override(threads=threads):
            (b,) = compiler.compile([x], [make("reduce_sum", (x,), axes=(0,))]).run([Buffer.from_numpy(data)])
            results.add(b.to_numpy(()).tobytes())
    assert len(results) == 1


@pytest.mark.parametrize("columns", [1003, 700])
@pytest.mark.parametrize("dtype", [dt.float32, dt.float16, dt.int32], ids=str)
def test_rows_are_added_to_sums_in_scratch(columns: int, dtype: dt.DType) -> None:
    """Large sums over columns read memory in order; each column's elements are combined in the order of the rows."""
    x = input_value(dtype, (5, 37, columns))
    outputs = [make(op, (x,), axes=(1,)) for op in ("reduce_sum", "reduce_max")]
    executable = compiler.compile([x], outputs)
    kernels = executable.stage_text("kernels")
    assert f"scratch s0: {'int32' if dtype is dt.int32 else 'float32'}[{columns}]" in kernels
    data = np.random.default_rng(0).integers(-99, 99, (5, 37, columns)).astype(dtype.numpy)
    results = executable.run([Buffer.from_numpy(data)])
    for got, f in zip(results, (np.sum, np.max), strict=True):
        want = f(data, axis=1)
        np.testing.assert_array_equal(got.to_numpy(want.shape), want.astype(dtype.numpy))


def test_long_chains_run_several_vectors_side_by_side() -> None:
    """One vector's operations would wait for each other, and the next vector's are too far away to start meanwhile."""
    x = input_value(dt.float32, (4096,))
    short, long = make("tanh", (x,)), x
    for _ in range(5):
        long = make("tanh", (make("neg", (long,)),))
    lanes = []
    for v in (short, long):
        text = compiler.compile([x], [v]).stage_text("kernels")
        lanes.append(int(text.split("vector ")[1].split(":")[0]))
    assert lanes[1] > lanes[0]

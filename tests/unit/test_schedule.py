"""Schedules: waits cover every conflict over memory, any order they allow gives the same bits, donation corrupts nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from compiled_steps import Array, conflicts, equal_bits, native, run_in_random_order, span
from fuzz.generator import random_graph

from tilewright import compiler
from tilewright.compiler import Executable
from tilewright.core import dtype as dt
from tilewright.graph import build
from tilewright.graph.ir import Value, constant, input_value, make
from tilewright.lower.schedule import may_fail
from tilewright.runtime.buffers import Buffer

ORDERS = 4


def leaf(*shape: int) -> Value:
    return input_value(dt.float32, shape)


def numbers(rng: np.random.Generator, values: Sequence[Value]) -> list[Array]:
    return [rng.uniform(-1, 1, v.shape).astype(v.dtype.numpy) for v in values]


def check_waits(executable: Executable) -> None:
    steps = executable.schedule.steps
    for a, b in conflicts(executable):
        assert steps[b].wait_for >= a, (
            f"step {b} starts before step {a} is complete\n{executable.stage_text('plan')}"
        )
    replaced = {executable.final[o] for o in executable.schedule.taken}
    failing = [n for n, fails in enumerate(may_fail(steps)) if fails]
    for n, s in enumerate(steps):
        assert -1 <= s.wait_for < n
        if not replaced.isdisjoint(s.writes()):
            assert s.wait_for >= max(failing, default=-1)
        for i, call in enumerate(s.calls):  # calls of one launch run at the same time
            mine = [span(executable, a.place) for a in call.args if "w" in a.access]
            for j, other in enumerate(s.calls):
                theirs = [span(executable, a.place) for a in other.args]
                assert i == j or not any(x.meets(y) for x in mine for y in theirs)


@pytest.mark.parametrize("seed", range(40))
def test_random_graphs_run_in_any_order_that_waits_allow(seed: int, nightly: bool) -> None:
    case = random_graph(seed + 50_000, 12 + seed % 25)
    executable = compiler.compile(case.inputs, case.outputs)
    check_waits(executable)
    arrays = [case.arrays[v] for v in case.inputs]
    want = native(executable, arrays)
    rng = np.random.default_rng(seed)
    for _ in range(10 * ORDERS if nightly else ORDERS):
        got = run_in_random_order(executable, arrays, rng)
        assert all(map(equal_bits, got, want)), executable.stage_text("plan")


# ---- donation ----------------------------------------------------------------------------------------------


def optimizer_like(rng: np.random.Generator) -> tuple[list[Value], list[Value], dict[int, int]]:
    """Parameters and state that are read by shared work and by one another, and their new values.

    Some updates read only their own old value, some read another's, some move elements; all may be donated.
    """
    shapes = [(7, 5), (5,), (7, 5), (3, 3), (5,), (400, 30)]
    params = [leaf(*shapes[int(rng.integers(len(shapes)))]) for _ in range(int(rng.integers(2, 7)))]
    x = leaf(*params[0].shape)
    total = build.reduce_sum(build.mul(params[0], x), range(len(x.shape)))
    for p in params[1:]:
        total = build.add(total, build.reduce_sum(build.unary("tanh", p), range(len(p.shape))))
    new: list[Value] = []
    for p in params:
        same = [q for q in [*params, *new] if q.shape == p.shape]
        other = same[int(rng.integers(len(same)))]
        kind = int(rng.integers(7))
        if kind == 0:
            v = build.sub(p, build.mul(build.full_like(p, 0.1), build.broadcast(total, p.shape)))
        elif kind == 1:
            v = build.add(build.mul(p, build.full_like(p, 0.9)), other)
        elif kind == 2:
            v = make("flip", (p,), axes=(0,))
        elif kind == 3:
            v = build.mul(other, build.full_like(p, 2.0))
        elif kind == 4:
            v = build.add(p, build.broadcast(build.reduce_sum(p, (0,)), p.shape))
        elif kind == 5:
            v = build.add(make("flip", (other,), axes=(len(p.shape) - 1,)), p)
        else:
            v = make("cumsum", (p,), axis=0, reverse=bool(rng.integers(2)))
        new.append(v)
    extra = [total] if rng.random() < 0.7 else []
    if rng.random() < 0.3:
        extra.append(params[int(rng.integers(len(params)))])  # an old value is a result as well
    inputs = [x, *params]
    donated = {1 + k: k for k in range(len(params)) if rng.random() < 0.9}
    if len(params) > 1 and params[0].shape == params[1].shape and rng.random() < 0.5:
        donated[1], donated[2] = 1, 0  # memory changes hands
    return inputs, [*new, *extra], donated


@pytest.mark.parametrize("seed", range(40))
def test_donation_changes_no_result(seed: int, nightly: bool) -> None:
    rng = np.random.default_rng(seed)
    inputs, outputs, donated = optimizer_like(rng)
    kept = compiler.compile(inputs, outputs)
    given = compiler.compile(inputs, outputs, donated)
    assert not kept.schedule.taken
    check_waits(given)
    arrays = numbers(rng, inputs)
    want = native(kept, arrays)
    assert all(map(equal_bits, native(given, arrays), want)), given.stage_text("plan")
    for _ in range(10 * ORDERS if nightly else ORDERS):
        assert all(map(equal_bits, run_in_random_order(given, arrays, rng), want)), given.stage_text("plan")


def update(p: Value, g: Value) -> Value:
    return build.sub(p, build.mul(build.full_like(p, 0.1), g))


def test_updates_take_over_the_memory_of_what_they_replace_in_one_launch() -> None:
    params = [leaf(8, 16), leaf(16, 8), leaf(100), leaf(2, 3, 50)]
    grads = [leaf(*p.shape) for p in params]
    executable = compiler.compile(
        [*params, *grads],
        [update(p, g) for p, g in zip(params, grads, strict=True)],
        {k: k for k in range(4)},
    )
    assert executable.schedule.taken == {k: k for k in range(4)}
    (step,) = executable.schedule.steps
    assert len(step.calls) == 4  # one kernel, a segment for every parameter
    assert executable.schedule.fresh == []


def test_the_last_reader_of_an_old_value_comes_before_the_update() -> None:
    p, x, g = leaf(8, 8), leaf(8, 8), leaf(8, 8)
    new = update(p, g)
    y = build.dot(x, p, ((1,), (0,)))
    executable = compiler.compile([p, x, g], [new, y], {0: 0})
    assert executable.schedule.taken == {0: 0}
    reader, writer = executable.schedule.steps
    assert p in reader.reads()
    assert writer.wait_for == 0
    check_waits(executable)


def adam(p: Value, m: Value, v: Value, g: Value) -> list[Value]:
    m = build.add(build.mul(m, 0.9), build.mul(g, 0.1))
    v = build.add(build.mul(v, 0.99), build.mul(build.mul(g, g), 0.01))
    root = build.add(build.mul(build.unary("sqrt", build.unary("abs", v)), 1.5), 1e-8)
    step = build.div(build.div(m, 0.9), root)
    return [build.sub(build.mul(p, 0.999), build.mul(build.full_like(p, 0.1), step)), m, v]


# rows, columns and length of the sum: whole blocks, blocks that overlap, one block, a sum in pieces
@pytest.mark.parametrize(
    "sizes", [(128, 784, 64), (512, 128, 768), (500, 777, 64), (30, 33, 100), (40, 30, 5000)]
)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_contraction_updates_parameters_in_place_once(
    sizes: tuple[int, int, int], threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adam's update is the epilogue of a gradient: what it reads at its own place it may write over."""
    monkeypatch.setattr(compiler, "default_threads", lambda: int(threads))
    rows, columns, length = sizes
    old = [leaf(rows, columns) for _ in range(3)]
    x, y = leaf(length, columns), leaf(length, rows)
    new = adam(*old, build.dot(y, x, ((0,), (0,))))
    given = compiler.compile([*old, x, y], new, {0: 0, 1: 1, 2: 2})
    assert given.schedule.taken == {0: 0, 1: 1, 2: 2}
    check_waits(given)
    rng = np.random.default_rng(0)
    arrays = numbers(rng, [*old, x, y])
    want = native(compiler.compile([*old, x, y], new), arrays)
    assert all(map(equal_bits, native(given, arrays), want))
    assert all(map(equal_bits, run_in_random_order(given, arrays, rng), want))


def test_a_contraction_keeps_the_memory_of_its_operands() -> None:
    p, m, v = leaf(96, 96), leaf(96, 96), leaf(96, 96)
    new = adam(p, m, v, build.dot(p, p, ((0,), (0,))))
    given = compiler.compile([p, m, v], new, {0: 0, 1: 1, 2: 2})
    assert given.schedule.taken == {1: 1, 2: 2}
    arrays = numbers(np.random.default_rng(0), [p, m, v])
    assert all(map(equal_bits, native(given, arrays), native(compiler.compile([p, m, v], new), arrays)))


def trained(rows: int) -> tuple[list[Value], list[Value]]:
    """A product's weights and two moments, x and dy; and their updates by the gradient xᵀ dy: every new value reads old ones."""
    w, m, v = (leaf(96, 64) for _ in range(3))
    x, dy = leaf(rows, 96), leaf(rows, 64)
    g = build.dot(x, dy, ((0,), (0,)))
    first = build.add(build.mul(m, build.full_like(m, 0.9)), g)
    second = build.add(build.mul(v, build.full_like(v, 0.99)), build.mul(g, g))
    return [w, m, v, x, dy], [build.sub(w, build.mul(first, second)), first, second]


@pytest.mark.parametrize("rows", (32, 3000))
def test_a_product_updates_the_memory_of_what_its_results_replace(rows: int) -> None:
    """Tiles divide the sizes here, so that each element is computed once; a long sum is added up by a call of its own."""
    inputs, outputs = trained(rows)
    given = compiler.compile(inputs, outputs, {0: 0, 1: 1, 2: 2})
    assert given.schedule.taken == {0: 0, 1: 1, 2: 2}
    rng = np.random.default_rng(0)
    arrays = numbers(rng, inputs)
    want = native(compiler.compile(inputs, outputs), arrays)
    for _ in range(ORDERS):
        assert all(map(equal_bits, run_in_random_order(given, arrays, rng), want)), given.stage_text("plan")


def test_large_updates_come_as_early_as_they_can() -> None:
    """Before the next layer's gradient is there, and behind the last use of the old weights."""
    n = 1536
    x, weights = leaf(n, n), [leaf(n, n) for _ in range(4)]
    gradient, outputs = x, []
    for w in weights:
        wide = build.unary("exp", gradient)
        gradient = build.dot(wide, w, ((1,), (0,)))
        outputs.append(update(w, build.dot(wide, gradient, ((0,), (0,)))))
    executable = compiler.compile([x, *weights], outputs, {1 + k: k for k in range(4)})
    assert executable.schedule.taken == {k: 1 + k for k in range(4)}
    assert executable.schedule.arena_bytes <= 3 * 4 * n * n
    check_waits(executable)


def test_the_same_check_a_second_time_does_not_fail() -> None:
    """What a gather has checked, the scatter of its gradient need not: updates before it are made in place."""
    p, q, w = leaf(50, 16), leaf(16), leaf(16, 16)
    i, j = input_value(dt.int64, (7,)), input_value(dt.int64, (7,))

    def taken(first: Value, second: Value) -> dict[int, int]:
        total = build.reduce_sum(make("gather", (p, first), axes=(0,)), (0,))
        new = build.add(q, build.dot(total, w, ((0,), (0,))))
        spread = make("scatter", (p, build.broadcast(new, (7, 16)), second), axes=(0,), mode="add")
        executable = compiler.compile([p, q, w, i, j], [spread, new], {1: 1})
        check_waits(executable)
        return executable.schedule.taken

    assert taken(i, i) == {1: 1}
    assert not taken(j, i)
    assert not taken(build.slice_(i, (0,), (3,)), i)  # the others have not been checked


NOT_TAKEN = {
    "elements move": lambda p: [make("flip", (p,), axes=(0,))],
    "the old value is a result": lambda p: [build.add(p, build.full_like(p, 1)), p],
    "the type changes": lambda p: [build.cast(p, dt.float64)],
    "a reduction still reads it": lambda p: [
        build.add(p, build.broadcast(build.reduce_sum(p, (0,)), p.shape))
    ],
}


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_memory_is_kept_where_taking_it_would_be_wrong(name: str) -> None:
    p = leaf(33, 33)
    executable = compiler.compile([p], NOT_TAKEN[name](p), {0: 0})
    if name != "a reduction still reads it":
        assert not executable.schedule.taken
    rng = np.random.default_rng(0)
    arrays = numbers(rng, [p])
    want = native(compiler.compile([p], NOT_TAKEN[name](p)), arrays)
    assert all(map(equal_bits, run_in_random_order(executable, arrays, rng), want))


FAILING = {
    "a check beside": lambda p, q, x, i: [twice(q), twice(p), make("gather", (x, i), axes=(0,))],
    "a check after the update": lambda p, q, x, i: [
        make("gather", (build.dot(x, twice(p), ((1,), (0,))), i), axes=(0,)),
        twice(p),
        q,
    ],
    "a check within the update": lambda p, q, x, i: [
        q,
        build.add(p, build.reduce_sum(make("gather", (x, i), axes=(0,)), (0,))),
        q,
    ],
    "the host": lambda p, q, x, i: [
        make("real", (make("gather", (make("complex", (x, x)), i), axes=(0,)),)),
        build.add(p, q),
        q,
    ],
}


def twice(v: Value) -> Value:
    return build.mul(v, build.full_like(v, 2.0))


@pytest.mark.parametrize("name", FAILING)
def test_a_run_that_fails_replaces_nothing(name: str) -> None:
    p, q, x, i = leaf(64), leaf(64), leaf(10, 64), input_value(dt.int64, (3,))
    executable = compiler.compile([p, q, x, i], FAILING[name](p, q, x, i), {0: 1})
    data = [
        np.ones(64, np.float32),
        np.ones(64, np.float32),
        np.ones((10, 64), np.float32),
        np.array([1, 50, 2]),
    ]
    check_waits(executable)
    buffers = [Buffer.from_numpy(a, copy=True) for a in data]
    with pytest.raises(IndexError):
        executable.run(buffers)
    for b, a in zip(buffers, data, strict=True):
        np.testing.assert_array_equal(b.to_numpy(a.shape), a)
    buffers[3] = Buffer.from_numpy(np.array([1, 9, 2]))
    executable.run(buffers)


def test_two_parameters_that_change_places() -> None:
    p, q = leaf(100), leaf(100)
    outputs = [build.add(q, build.full_like(q, 1)), build.add(p, build.full_like(p, 2))]
    executable = compiler.compile([p, q], outputs, {0: 0, 1: 1})
    arrays = [np.arange(100, dtype=np.float32), -np.arange(100, dtype=np.float32)]
    rng = np.random.default_rng(0)
    for _ in range(10):
        a, b = run_in_random_order(executable, arrays, rng)
        np.testing.assert_array_equal(a, arrays[1] + 1)
        np.testing.assert_array_equal(b, arrays[0] + 2)


def test_the_host_waits_and_is_waited_for() -> None:
    """Complex elements are computed by the reference, between native parts."""
    x = leaf(5)
    z = make("complex", (build.unary("exp", x), x))
    y = build.unary("exp", make("real", (make("mul", (z, z)),)))
    executable = compiler.compile([x], [y])
    steps = executable.schedule.steps
    hosts = [n for n, s in enumerate(steps) if s.host is not None]
    assert hosts
    for n in hosts:
        assert steps[n].wait_for == n - 1
    check_waits(executable)


def test_intermediate_values_share_the_arena() -> None:
    """A chain of contractions needs two intermediate values at a time."""
    v = leaf(64, 64)
    weights = [leaf(64, 64) for _ in range(8)]
    out = v
    for w in weights:
        out = build.dot(out, w, ((1,), (0,)))
    plan = compiler.compile([v, *weights], [out]).schedule
    assert plan.planned_bytes >= 7 * 64 * 64 * 4
    assert plan.arena_bytes <= 2 * 64 * 64 * 4


def test_one_result_twice_and_an_input_as_a_result() -> None:
    x = leaf(4)
    y = build.unary("neg", x)
    executable = compiler.compile([x, leaf(2)], [y, x, y, constant(3.0, dt.float32)])
    arrays = [np.arange(4, dtype=np.float32), np.zeros(2, np.float32)]
    a, b, c, d = native(executable, arrays)
    np.testing.assert_array_equal(a, -arrays[0])
    np.testing.assert_array_equal(b, arrays[0])
    np.testing.assert_array_equal(c, a)
    assert d == 3
    assert len(executable.schedule.fresh) == 2


def test_nothing_to_compute() -> None:
    x = leaf(3)
    executable = compiler.compile([x], [x])
    assert executable.schedule.steps == []
    assert equal_bits(native(executable, [np.ones(3, np.float32)])[0], np.ones(3, np.float32))

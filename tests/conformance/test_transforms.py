"""The transforms over the op table: forward mode against reverse mode, batches against one example at a time.

Reverse mode is held to finite differences elsewhere; here forward mode is its transpose, to second order, and the
batched operation gives what a loop over the examples gives, also for derivatives. The user's transforms have tests
of their own in ``tests/unit/test_transforms.py``.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from conformance.cases import TABLE, Array, Case, cases, draw, dtypes
from conformance.compare import run_compiled
from conformance.test_gradients import smooth_cases
from tilewright.autodiff import batching, jvp, vjp
from tilewright.autodiff.batching import batch
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.graph.ir import OPS, Value, input_value, make
from tilewright.graph.reference import evaluate

DIFFERENTIABLE = sorted(set(jvp.RULES) - {"custom"})
MAPPED = sorted(set(batching.RULES) - {"custom"})


# ---- completeness ------------------------------------------------------------------------------------------


def test_every_operation_has_a_tangent_or_a_reason_for_none() -> None:
    assert set(jvp.RULES) | set(vjp.NOT_DIFFERENTIABLE) == set(OPS)
    assert set(jvp.RULES) == set(vjp.RULES)


def test_every_operation_has_a_batching_rule_or_a_reason_for_none() -> None:
    assert set(batching.RULES) | set(batching.NOT_MAPPED) == set(OPS)
    assert set(batching.RULES) & set(batching.NOT_MAPPED) == set()


# ---- forward against reverse mode --------------------------------------------------------------------------


def inner(a: Array, b: Array) -> float:
    return float(np.sum(np.real(np.conj(a) * b)))


def fresh(like: Value) -> Value:
    return input_value(like.dtype, like.shape)


def close(a: float, b: float, scale: float) -> bool:
    return abs(a - b) <= 1e-9 * (scale + 1e-3)


PAIRS = [
    (op, d)
    for op in DIFFERENTIABLE
    if op not in vjp.FORWARD_ONLY
    for d in (dt.float64, dt.complex128)
    if d in dtypes(op)
]


@pytest.mark.parametrize(("op", "dtype"), PAIRS, ids=[f"{op}-{d}" for op, d in PAIRS])
def test_forward_mode_is_the_transpose_of_reverse_mode(op: str, dtype: DType) -> None:
    """<g, jvp(t)> is <vjp(g), t>, and the same for the directional derivatives of both."""
    rng = np.random.default_rng(5)
    chosen = smooth_cases(op, dtype)
    assert chosen
    for case in chosen:
        leaves, arrays, y = case.build()
        bound = dict(zip(leaves, arrays, strict=True))
        wrt = [v for v in leaves if v.dtype.is_inexact]
        moves, seed = [fresh(v) for v in wrt], fresh(y)
        for v in (*moves, seed):
            bound[v] = draw(rng, v.dtype, v.shape, -1, 1)  # type: ignore[arg-type]
        (tangent,) = jvp.jvp([y], wrt, moves)
        cotangents = vjp.vjp([y], [seed], wrt)
        check_pair([tangent], [seed], cotangents, moves, bound, str(case))
        # Second order: both derivatives of the gradient, along new directions.
        known = [(g, v) for g, v in zip(cotangents, wrt, strict=True) if g is not None]
        seeds = [fresh(g) for g, _ in known]
        for v in seeds:
            bound[v] = draw(rng, v.dtype, v.shape, -1, 1)  # type: ignore[arg-type]
        gradients = [g for g, _ in known]
        check_pair(
            jvp.jvp(gradients, wrt, moves), seeds, vjp.vjp(gradients, seeds, wrt), moves, bound, str(case)
        )
        if tangent is not None:
            again = jvp.jvp([tangent], wrt, moves)
            check_pair(again, [seed], vjp.vjp([tangent], [seed], wrt), moves, bound, str(case))


def check_pair(
    tangents: list[Value | None], seeds: list[Value], cotangents: list[Value | None], moves: list[Value],
    bound: dict[Value, Array], what: str,
) -> None:  # fmt: skip
    def total(pairs: list[tuple[Value, Value]]) -> tuple[float, float]:
        arrays = evaluate([v for pair in pairs for v in pair], bound)
        sums = [inner(a, b) for a, b in zip(arrays[::2], arrays[1::2], strict=True)]
        sizes = [float(np.sum(np.abs(a * b))) for a, b in zip(arrays[::2], arrays[1::2], strict=True)]
        return sum(sums), sum(sizes)

    forward, size = total([(t, s) for t, s in zip(tangents, seeds, strict=True) if t is not None])
    reverse, other = total([(g, m) for g, m in zip(cotangents, moves, strict=True) if g is not None])
    assert close(forward, reverse, max(size, other)), f"{what}: forward {forward}, reverse {reverse}"


# ---- batches against a loop --------------------------------------------------------------------------------

SIZE = 3


def examples_of(case: Case, rng: np.random.Generator) -> list[list[Array]]:
    """Data for several examples: the case's own, and permutations of its elements."""
    out = []
    for array in case.build()[1]:
        rows = [array] + [rng.permutation(array.ravel()).reshape(array.shape) for _ in range(SIZE - 1)]
        out.append([np.asarray(r) for r in rows])
    return out


def patterns(count: int) -> list[tuple[bool, ...]]:
    """Which operands differ between examples: all, each alone, all but each."""
    if count > 4:
        return [(True,) * count, (True, *[False] * (count - 1))]
    return [p for p in itertools.product((True, False), repeat=count) if any(p)]


def batched_cases(op: str) -> list[Case]:
    out: list[Case] = []
    for dtype in (d for d in (dt.float32, dt.int64, dt.bool_, dt.uint32, dt.complex64) if d in dtypes(op)):
        found = [c for c in cases(op, dtype) if c.arrays and sum(a.size for a in c.arrays) < 400]
        straight = [c for c in found if c.layout == "straight"]
        out += straight if op in ("conv", "dot", "gather", "scatter", "pad", "broadcast") else straight[:6]
    return out


@pytest.mark.parametrize("op", MAPPED)
def test_a_batch_is_a_loop_over_examples(op: str) -> None:
    rng = np.random.default_rng(3)
    chosen = batched_cases(op)
    assert chosen
    for number, case in enumerate(chosen):
        leaves, _, y = case.build()
        data = examples_of(case, rng)
        every = patterns(len(leaves))
        for mapped in (
            every if len(every) <= 3 or op in ("conv", "dot", "gather", "scatter") else every[number % 3 :: 3]
        ):
            many = {
                v: input_value(v.dtype, (SIZE, *v.shape)) for v, m in zip(leaves, mapped, strict=True) if m
            }
            (out,) = batch([y], many, SIZE)
            assert out is not None and out.type.dtype is y.dtype and out.shape == (SIZE, *y.shape)
            bound = {
                many.get(v, v): np.stack(rows) if v in many else rows[0]
                for v, rows in zip(leaves, data, strict=True)
            }
            (got,) = evaluate([out], bound)
            for n in range(SIZE):
                one = {v: rows[n] if v in many else rows[0] for v, rows in zip(leaves, data, strict=True)}
                (want,) = evaluate([y], one)
                size = (
                    float(np.max(np.abs(want), initial=0, where=np.isfinite(want)))
                    if want.dtype.kind in "fc"
                    else 0
                )
                np.testing.assert_allclose(
                    got[n], want, rtol=1e-5, atol=1e-5 * size, err_msg=f"{case} {mapped}"
                )


@pytest.mark.parametrize("op", MAPPED)
def test_compiled_batches_match_the_reference(op: str) -> None:
    inputs: list[Value] = []
    outputs: list[Value] = []
    arrays: list[Array] = []
    rng = np.random.default_rng(4)
    for case in [c for c in batched_cases(op) if not any(a.dtype.kind == "c" for a in c.arrays)][:8]:
        leaves, _, y = case.build()
        many = {v: input_value(v.dtype, (SIZE, *v.shape)) for v in leaves}
        found = batch([y], many, SIZE)
        outputs += [v for v in found if v is not None]
        inputs += many.values()
        arrays += [np.stack(rows) for rows in examples_of(case, rng)]
    if not outputs:  # complex only
        return
    want = evaluate(outputs, dict(zip(inputs, arrays, strict=True)))
    for value, actual, expected in zip(outputs, run_compiled(inputs, outputs, arrays), want, strict=True):
        size = (
            float(np.max(np.abs(expected), initial=0, where=np.isfinite(expected))) if expected.size else 0.0
        )
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6 * size + 1e-7, err_msg=str(value))


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_derivatives_of_a_batch_are_those_of_its_examples(op: str) -> None:
    """Both modes of the batched operation against the batched derivatives of one example."""
    rng = np.random.default_rng(6)
    kind = dt.float64 if dt.float64 in dtypes(op) else dt.complex128
    for case in smooth_cases(op, kind)[:4]:
        leaves, _, y = case.build()
        data = examples_of(case, rng)
        wrt = [v for v in leaves if v.dtype.is_inexact]
        seed = fresh(y)
        moves = [fresh(v) for v in wrt]
        many = {v: input_value(v.dtype, (SIZE, *v.shape)) for v in (*leaves, seed, *moves)}
        bound = {many[v]: np.stack(rows) for v, rows in zip(leaves, data, strict=True)}
        for v in (seed, *moves):
            bound[many[v]] = draw(rng, v.dtype, (SIZE, *v.shape), -1, 1)  # type: ignore[arg-type]
        (whole,) = batch([y], many, SIZE)
        assert whole is not None
        first = jvp.jvp([y], wrt, moves)
        second = jvp.jvp([whole], [many[v] for v in wrt], [many[v] for v in moves])
        if op not in vjp.FORWARD_ONLY:
            first += vjp.vjp([y], [seed], wrt)
            second += vjp.vjp([whole], [many[seed]], [many[v] for v in wrt])
        for one, other in zip(first, second, strict=True):
            if one is None:
                assert other is None
                continue
            (mapped,) = batch([one], many, SIZE)
            shape = (SIZE, *one.shape)
            a, b = (np.broadcast_to(x, shape) for x in evaluate([mapped or one, other], bound))  # type: ignore[list-item]
            np.testing.assert_allclose(
                a, b, rtol=1e-9, atol=1e-9 * float(np.max(np.abs(b), initial=0)), err_msg=str(case)
            )


# ---- what the rules are for: one operation stays one operation ---------------------------------------------


def count(value: Value | None, op: str) -> int:
    from tilewright.graph.ir import topological

    assert value is not None
    return sum(v.op == op for v in topological([value]))


@pytest.mark.parametrize(
    "op", ["dot", "conv", "gather", "scatter", "cumsum", "argmax", "reduce_max", "window"]
)
def test_a_batched_operation_is_one_operation(op: str) -> None:
    for case in cases(op, dt.float32)[:12]:
        leaves, _, y = case.build()
        for mapped in patterns(len(leaves)):
            many = {
                v: input_value(v.dtype, (SIZE, *v.shape)) for v, m in zip(leaves, mapped, strict=True) if m
            }
            assert count(batch([y], many, SIZE)[0], op) == 1


def test_table_and_rules_name_the_same_operations() -> None:
    assert set(TABLE) == set(OPS)


def test_what_does_not_differ_is_not_batched() -> None:
    x, other = input_value(dt.float32, (3,)), input_value(dt.float32, (3,))
    heavy = make("exp", (other,))
    found = batch([make("add", (x, heavy)), heavy], {x: input_value(dt.float32, (SIZE, 3))}, SIZE)
    assert count(found[0], "exp") == 1 and found[1] is None

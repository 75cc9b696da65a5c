"""Every derivative rule against central differences in float64 and complex128, first and second order.

The loss is the inner product of an operation's result with random weights; its derivative along a random
direction of one operand is compared with the difference of two evaluations of the reference.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from conformance.cases import Array, Case, cases, draw, dtypes
from conformance.compare import run_compiled
from tilewright.autodiff.vjp import FORWARD_ONLY, NOT_DIFFERENTIABLE, RULES, vjp
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.graph.build import conj, dot, full, mul, ones_like, reduce_sum, unary
from tilewright.graph.ir import Value, input_value, make, topological
from tilewright.graph.reference import evaluate

EPS = 1e-5
REVERSE = sorted(set(RULES) - set(FORWARD_ONLY))
PAIRS = [(op, d) for op in REVERSE for d in (dt.float64, dt.complex128) if d in dtypes(op)]


def smooth_cases(op: str, dtype: DType) -> list[Case]:
    """Small cases with finite operands: those with NaN and infinities have no differences."""
    out = []
    for case in cases(op, dtype, every=True):
        small = 0 < sum(a.size for a in case.arrays) <= 400
        if small and case.layout == "straight" and all(np.all(np.isfinite(a)) for a in case.arrays):
            tied = case.op in ("reduce_max", "reduce_min") and not all(np.all(a) for a in case.arrays)
            if not tied and case.attrs.get("dtype", dtype) in (dtype, dt.float64, dt.complex128):
                out.append(case)
    return out


def inner(x: Value, weights: Value) -> Value:
    """The real inner product with constant weights."""
    product = mul(x, conj(weights))
    return reduce_sum(unary("real", product) if x.dtype.is_complex else product, range(x.type.rank))


def gradient(loss: Value, wrt: Value) -> Value | None:
    return vjp([loss], [ones_like(loss)], [wrt])[0]


def check_slope(
    loss: Value, wrt: Value, grad: Value | None, bound: Mapping[Value, Array], rng: np.random.Generator
) -> None:
    """<grad, direction> against the loss's central difference along a random direction."""
    direction = draw(rng, wrt.dtype, wrt.shape, -1, 1)  # type: ignore[arg-type]
    near = [{**bound, wrt: np.asarray(bound[wrt] + sign * EPS * direction)} for sign in (1, -1)]
    high, low = (evaluate([loss], b)[0] for b in near)
    measured = float((high - low) / (2 * EPS))
    if grad is None:
        assert measured == 0, "the rule says that there is no derivative, but the loss moves"
        return
    assert grad.type == wrt.type
    (g,) = evaluate([grad], bound)
    computed = float(np.sum(np.real(np.conj(g) * direction)))
    # Errors: of the difference (the loss's own rounding / EPS, and EPS**2), against the size of what was
    # summed.
    scale = float(np.sum(np.abs(g * direction))) + 1e-5 * float(np.abs(high)) + 1e-6
    assert abs(measured - computed) <= 2e-5 * scale, f"difference {measured}, gradient {computed}"


@pytest.mark.parametrize(("op", "dtype"), PAIRS, ids=[f"{op}-{d}" for op, d in PAIRS])
def test_gradient_matches_differences(op: str, dtype: DType) -> None:
    chosen = smooth_cases(op, dtype)
    assert chosen
    rng = np.random.default_rng(7)
    for case in chosen:
        leaves, arrays, value = case.build()
        bound = dict(zip(leaves, arrays, strict=True))
        weights = input_value(value.dtype, value.shape)
        bound[weights] = draw(rng, value.dtype, value.shape, -1, 1)  # type: ignore[arg-type]
        loss = inner(value, weights)
        for leaf in leaves:
            if not leaf.dtype.is_inexact or not bound[leaf].size:
                continue
            grad = gradient(loss, leaf)
            check_slope(loss, leaf, grad, bound, rng)
            if grad is None:
                continue
            # Second order: the slope of <grad, more weights> along every operand.
            more = input_value(grad.dtype, grad.shape)
            bound[more] = draw(rng, grad.dtype, grad.shape, -1, 1)  # type: ignore[arg-type]
            slope = inner(grad, more)
            for other in leaves:
                if other.dtype.is_inexact and bound[other].size:
                    check_slope(slope, other, gradient(slope, other), bound, rng)


@pytest.mark.parametrize("op", sorted(set(REVERSE) - {"real", "imag", "conj", "complex", "custom"}))
def test_compiled_gradients_match_reference(op: str) -> None:
    inputs: list[Value] = []
    arrays: list[Array] = []
    outputs: list[Value] = []
    rng = np.random.default_rng(11)
    for case in smooth_cases(op, dt.float32)[:4]:
        leaves, data, value = case.build()
        g = input_value(value.dtype, value.shape)
        wrt = [v for v in leaves if v.dtype.is_inexact]
        outputs += [v for v in vjp([value], [g], wrt) if v is not None]
        inputs += [*leaves, g]
        arrays += [*data, draw(rng, value.dtype, value.shape)]  # type: ignore[arg-type]
    want = evaluate(outputs, dict(zip(inputs, arrays, strict=True)))
    for value, actual, expected in zip(outputs, run_compiled(inputs, outputs, arrays), want, strict=True):
        size = float(np.max(np.abs(expected), initial=0)) + 1e-3
        np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-6 * size, err_msg=str(value))


# ---- the transform -----------------------------------------------------------------------------------------


def leaf(*shape: int) -> Value:
    return input_value(dt.float64, shape)


def grads(y: Value, wrt: list[Value], bound: Mapping[Value, Array]) -> list[Array]:
    found = vjp([y], [ones_like(y)], wrt)
    assert all(g is not None for g in found)
    return evaluate([g for g in found if g is not None], bound)


def test_contributions_of_shared_values_add_up() -> None:
    x = leaf(2)
    y = unary("exp", x)
    (g,) = grads(mul(y, mul(y, x)), [x], {x: np.array([0.5, -1.0])})
    np.testing.assert_allclose(g, np.exp([1.0, -2.0]) * (1 + 2 * np.array([0.5, -1.0])))


def test_wrt_may_be_interior_and_derivatives_flow_through_it() -> None:
    x = leaf(2)
    y = unary("exp", x)
    z = mul(y, y)
    dy, dx = grads(z, [y, x], {x: np.array([0.0, 1.0])})
    np.testing.assert_allclose(dy, 2 * np.exp([0.0, 1.0]))
    np.testing.assert_allclose(dx, 2 * np.exp([0.0, 2.0]))


def test_no_dependence_gives_none() -> None:
    x, other = leaf(2), leaf(2)
    index = input_value(dt.int64, (2,))
    stopped = make("stop_gradient", (x,))
    y = make("gather", (mul(stopped, 2.0), index), axes=(0,))
    assert vjp([y], [ones_like(y)], [x, other, index]) == [None, None, None]
    assert vjp([make("floor", (x,))], [ones_like(x)], [x]) == [None]


def test_an_output_may_be_a_wrt() -> None:
    x = leaf(2)
    g = leaf(2)
    assert vjp([x], [g], [x]) == [g]


def test_wrt_behind_an_operation_without_derivative_is_reached_otherwise() -> None:
    x = leaf(2)
    floor = make("floor", (x,))
    y = mul(floor, x)
    d_floor, dx = grads(y, [floor, x], {x: np.array([1.5, 2.5])})
    assert d_floor.tolist() == [1.5, 2.5] and dx.tolist() == [1.0, 2.0]


def test_several_outputs_and_absent_cotangents() -> None:
    x = leaf(2)
    a, b = unary("neg", x), mul(x, x)
    (g,) = vjp([a, b, unary("exp", x)], [full(2, dt.float64, (2,)), full(1, dt.float64, (2,)), None], [x])
    assert g is not None
    assert evaluate([g], {x: np.array([3.0, 4.0])})[0].tolist() == [4.0, 6.0]


def test_a_cotangent_of_another_type_is_an_error() -> None:
    x = leaf(2)
    with pytest.raises(ValueError, match=r"float64\[2\] has its type, got float64\[3\]"):
        vjp([unary("exp", x)], [leaf(3)], [x])


def test_long_chains_do_not_recurse() -> None:
    x = leaf()
    y = x
    for _ in range(5000):
        y = mul(y, x)
    (g,) = vjp([y], [ones_like(y)], [x])
    assert g is not None


# ---- points where formulas break ---------------------------------------------------------------------------


def at(op: str, *operands: float) -> list[float]:
    leaves = [leaf() for _ in operands]
    found = grads(make(op, leaves), leaves, {v: np.array(x) for v, x in zip(leaves, operands, strict=True)})
    return [float(g) for g in found]


def test_values_at_singular_points() -> None:
    assert at("maximum", 2.0, 2.0) == [0.5, 0.5]
    assert at("minimum", 2.0, 2.0) == [0.5, 0.5]
    assert at("maximum", 3.0, 2.0) == [1.0, 0.0]
    assert at("abs", 0.0) == [0.0]
    assert at("sqrt", 0.0) == [np.inf]
    assert at("pow", 0.0, 2.0) == [0.0, 0.0]
    assert at("pow", 0.0, 1.0) == [1.0, 0.0]
    assert at("pow", 0.0, 0.0) == [0.0, 0.0]
    assert at("pow", -2.0, 2.0)[0] == -4.0


@pytest.mark.parametrize(("n", "slope"), [(0.0, None), (1.0, 1.0), (2.0, 0.0), (3.0, 0.0), (0.5, np.inf)])
def test_power_of_a_number_at_zero(n: float, slope: float | None) -> None:
    x = leaf(1)
    y = make("pow", (x, full(n, dt.float64, (1,))))
    (g,) = vjp([y], [ones_like(y)], [x])
    if slope is None:
        assert g is None
    else:
        assert g is not None
        assert evaluate([g], {x: np.zeros(1)})[0].tolist() == [slope]


def test_ties_of_a_reduction_share_evenly() -> None:
    x = leaf(2, 4)
    data = np.array([[1.0, 3, 3, 3], [2, 2, 1, 0]])
    (g,) = grads(make("reduce_max", (x,), axes=(1,)), [x], {x: data})
    np.testing.assert_allclose(g, [[0, 1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0, 0]])


def test_products_with_zeros() -> None:
    x = leaf(2, 3)
    (g,) = grads(make("reduce_prod", (x,), axes=(1,)), [x], {x: np.array([[2.0, 0, 3], [0, 0, 5]])})
    assert g.tolist() == [[0, 6, 0], [0, 0, 0]]


def test_overwritten_updates_have_no_gradient() -> None:
    x, u = leaf(3), leaf(3)
    i = input_value(dt.int64, (3,))
    y = make("scatter", (x, u, i), axes=(0,), mode="set")
    dx, du = grads(y, [x, u], {x: np.zeros(3), u: np.ones(3), i: np.array([1, 0, 1])})
    assert dx.tolist() == [0, 0, 1] and du.tolist() == [0, 1, 1]


def test_gradients_keep_their_type_through_mixed_precision() -> None:
    a, b = (input_value(dt.bfloat16, s) for s in ((4, 8), (8, 3)))
    y = dot(a, b, ((1,), (0,)), dtype=dt.float32)
    found = vjp([y], [ones_like(y)], [a, b])
    assert [g.type for g in found if g is not None] == [a.type, b.type]


# ---- cost --------------------------------------------------------------------------------------------------


def count(outputs: list[Value | None], op: str | None = None) -> int:
    values = topological([v for v in outputs if v is not None])
    return sum(v.op == op if op else v.op not in ("input", "constant", "broadcast") for v in values)


def test_gradients_reuse_results() -> None:
    x, g = leaf(4), leaf(4)
    for op, most in (("exp", 2), ("tanh", 4), ("sqrt", 3), ("neg", 1), ("cumsum", 1)):
        y = make(op, (x,), axis=0, reverse=False) if op == "cumsum" else unary(op, x)
        found = vjp([y], [g], [x])
        assert count(found) <= most, op
        assert count(found, op) <= 1, op


def test_a_sum_of_repeated_numbers_is_no_reduction() -> None:
    x, b = leaf(8, 4), leaf(4)
    y = reduce_sum(make("add", (x, make("broadcast", (b,), shape=(8, 4)))), (0, 1))
    assert count(vjp([y], [ones_like(y)], [x, b]), "reduce_sum") == 0


def test_every_reason_is_a_sentence() -> None:
    assert all(NOT_DIFFERENTIABLE.values())

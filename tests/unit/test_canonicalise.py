"""Canonical form: every rule before -> after, and the elements stay what they were, also at NaN, infinity and -0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS
from tilewright.graph import build
from tilewright.graph.ir import OPS, Value, constant, input_value, make, topological
from tilewright.graph.reference import evaluate
from tilewright.passes import canonicalise as module
from tilewright.passes.canonicalise import canonicalise
from tilewright.passes.pipeline import run_passes

Array = np.ndarray[Any, Any]
Edges = [0.0, -0.0, 1.0, -1.0, 0.1, np.inf, -np.inf, np.nan, 3e38, 1e-45, 1.1754944e-38, -2.5]

X = input_value(dt.float32, (2, 3, 4))
ROW = input_value(dt.float32, (12,))
I = input_value(dt.int32, (12,))
B = input_value(dt.bool_, (12,))
S = input_value(dt.float32, ())


def full(number: float, like: Value) -> Value:
    return build.full_like(like, number)


def canonical(v: Value) -> Value:
    return canonicalise([v])[0]


def data(v: Value) -> Array:
    """Elements of an input: the edge values over and over."""
    size = v.type.size
    if v.dtype.is_bool:
        return (np.arange(size) % 3 == 0).reshape(v.shape)
    if v.dtype.is_integer:
        info = np.iinfo(v.dtype.name)
        values = [0, 1, 7, info.min, info.max, info.max - 1]
        return np.resize(np.array(values, v.dtype.numpy), v.shape)
    with np.errstate(all="ignore"):
        return np.resize(np.array(Edges).astype(v.dtype.numpy), v.shape)


def same_elements(before: Value, after: Value) -> bool:
    """Equal bits by the reference, every NaN being the same; a sum that is zero may have either sign."""
    leaves = {v: data(v) for v in topological([before, after]) if v.op == "input"}
    with np.errstate(all="ignore"):
        a, b = evaluate([before, after], leaves)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    nan = a != a
    a, b = a[~nan], b[~nan] if np.array_equal(nan, b != b) else b
    return bool(np.array_equal(a, b)) and (before.op == "reduce_sum" or a.tobytes() == b.tobytes())


RULES: dict[str, tuple[Callable[[], Value], Callable[[], Value]]] = {
    "x * 1": (lambda: make("mul", (ROW, full(1, ROW))), lambda: ROW),
    "1 * x": (lambda: make("mul", (full(1, ROW), ROW)), lambda: ROW),
    "integer x * 1": (lambda: make("mul", (I, full(1, I))), lambda: I),
    "x / 1": (lambda: make("div", (ROW, full(1, ROW))), lambda: ROW),
    "x / 2**k": (lambda: make("div", (ROW, full(8, ROW))), lambda: make("mul", (ROW, full(0.125, ROW)))),
    "x / 2**-k": (lambda: make("div", (ROW, full(0.25, ROW))), lambda: make("mul", (ROW, full(4, ROW)))),
    "integer x + 0": (lambda: make("add", (I, full(0, I))), lambda: I),
    "integer 0 + x": (lambda: make("add", (full(0, I), I)), lambda: I),
    "x - 0": (lambda: make("sub", (ROW, full(0, ROW))), lambda: ROW),
    "-(-x)": (lambda: build.neg(build.neg(ROW)), lambda: ROW),
    "where true": (lambda: make("where", (full(1, B), ROW, full(2, ROW))), lambda: ROW),
    "where false": (lambda: make("where", (full(0, B), full(2, ROW), ROW)), lambda: ROW),
    "where of one": (lambda: make("where", (B, ROW, ROW)), lambda: ROW),
    "b & b": (lambda: make("bitand", (B, B)), lambda: B),
    "b & true": (lambda: make("bitand", (B, full(1, B))), lambda: B),
    "false & b": (lambda: make("bitand", (full(0, B), B)), lambda: full(0, B)),
    "b | false": (lambda: make("bitor", (full(0, B), B)), lambda: B),
    "b | true": (lambda: make("bitor", (B, full(1, B))), lambda: full(1, B)),
    "cast to its type": (lambda: make("cast", (ROW,), dtype=dt.float32), lambda: ROW),
    "cast through a wider type": (
        lambda: make("cast", (make("cast", (I,), dtype=dt.int64),), dtype=dt.float32),
        lambda: make("cast", (I,), dtype=dt.float32),
    ),
    "cast there and back": (lambda: build.cast(build.cast(ROW, dt.float64), dt.float32), lambda: ROW),
    "cast of a bool through a number": (
        lambda: build.cast(build.cast(B, dt.float32), dt.int8),
        lambda: make("cast", (B,), dtype=dt.int8),
    ),
    "reshape to its shape": (lambda: make("reshape", (X,), shape=(2, 3, 4)), lambda: X),
    "two reshapes": (
        lambda: make("reshape", (make("reshape", (X,), shape=(6, 4)),), shape=(8, 3)),
        lambda: make("reshape", (X,), shape=(8, 3)),
    ),
    "reshape of a repeated number": (
        lambda: make("reshape", (make("broadcast", (S,), shape=(2, 6)),), shape=(12,)),
        lambda: make("broadcast", (S,), shape=(12,)),
    ),
    "permute in order": (lambda: make("permute", (X,), axes=(0, 1, 2)), lambda: X),
    "two permutes": (
        lambda: make("permute", (make("permute", (X,), axes=(1, 2, 0)),), axes=(0, 2, 1)),
        lambda: make("permute", (X,), axes=(1, 0, 2)),
    ),
    "permute of axes of size 1": (
        lambda: make("permute", (make("reshape", (X,), shape=(6, 1, 4)),), axes=(1, 0, 2)),
        lambda: make("reshape", (X,), shape=(1, 6, 4)),
    ),
    "permute of a repeated number": (
        lambda: make("permute", (make("broadcast", (S,), shape=(2, 6)),), axes=(1, 0)),
        lambda: make("broadcast", (S,), shape=(6, 2)),
    ),
    "two broadcasts": (
        lambda: make("broadcast", (make("broadcast", (ROW,), shape=(3, 12)),), shape=(2, 3, 12)),
        lambda: make("broadcast", (ROW,), shape=(2, 3, 12)),
    ),
    "broadcast to its shape": (lambda: make("broadcast", (ROW,), shape=(12,)), lambda: ROW),
    "broadcast of a reshaped number": (
        lambda: make("broadcast", (make("reshape", (S,), shape=(1, 1)),), shape=(4, 5)),
        lambda: make("broadcast", (S,), shape=(4, 5)),
    ),
    "whole slice": (lambda: make("slice", (ROW,), start=(0,), stop=(12,), step=(1,)), lambda: ROW),
    "slice of a repeated number": (
        lambda: make("slice", (make("broadcast", (S,), shape=(12,)),), start=(3,), stop=(12,), step=(2,)),
        lambda: make("broadcast", (S,), shape=(5,)),
    ),
    "empty pad": (
        lambda: make("pad", (ROW, constant(7, dt.float32)), low=(0,), high=(0,), interior=(0,)),
        lambda: ROW,
    ),
    "flip of size 1": (
        lambda: make("flip", (make("reshape", (X,), shape=(1, 24)),), axes=(0,)),
        lambda: make("reshape", (X,), shape=(1, 24)),
    ),
    "flip of size 1 and others": (
        lambda: make("flip", (make("reshape", (X,), shape=(1, 24)),), axes=(0, 1)),
        lambda: make("flip", (make("reshape", (X,), shape=(1, 24)),), axes=(1,)),
    ),
    "concat with empty": (
        lambda: make("concat", (full(1, input_value(dt.float32, (0,))), ROW), axis=0),
        lambda: ROW,
    ),
    "concat with empty between": (
        lambda: make("concat", (ROW, build.full(1, dt.float32, (0,)), ROW), axis=0),
        lambda: make("concat", (ROW, ROW), axis=0),
    ),
    "stop_gradient": (lambda: make("stop_gradient", (ROW,)), lambda: ROW),
    "mark": (lambda: make("mark", (ROW,), id=5), lambda: ROW),
    "custom": (lambda: make("custom", (X, ROW, I), rule=0, outputs=2, index=1), lambda: ROW),
    "sum over size 1": (
        lambda: make("reduce_sum", (make("reshape", (X,), shape=(6, 1, 4)),), axes=(1,)),
        lambda: make("reshape", (X,), shape=(6, 4)),
    ),
    "maximum of maxima": (
        lambda: make("reduce_max", (make("reduce_max", (X,), axes=(1,)),), axes=(1,)),
        lambda: make("reduce_max", (X,), axes=(1, 2)),
    ),
    "minimum of minima, other axes": (
        lambda: make("reduce_min", (make("reduce_min", (X,), axes=(0,)),), axes=(1,)),
        lambda: make("reduce_min", (X,), axes=(0, 2)),
    ),
    "maximum of a repeated number": (
        lambda: make("reduce_max", (make("broadcast", (S,), shape=(3, 5)),), axes=(1,)),
        lambda: make("broadcast", (S,), shape=(3,)),
    ),
    "contraction over nothing": (
        lambda: build.dot(input_value(dt.float32, (3, 0)), input_value(dt.float32, (0, 4)), ((1,), (0,))),
        lambda: build.full(0, dt.float32, (3, 4)),
    ),
    "number and number": (lambda: make("add", (full(2, ROW), full(3, ROW))), lambda: full(5, ROW)),
    "cast of a number": (lambda: make("cast", (full(2.75, ROW),), dtype=dt.int32), lambda: full(2, I)),
}


@pytest.mark.parametrize("name", RULES)
def test_before_and_after(name: str) -> None:
    before, after = (f() for f in RULES[name])
    assert canonical(before) is after
    assert same_elements(before, after)


STAYS: dict[str, Callable[[], Value]] = {
    "x + 0, which turns -0 into 0": lambda: make("add", (ROW, full(0, ROW))),
    "x - (-0), the same": lambda: make("sub", (ROW, full(-0.0, ROW))),
    "x * 0, which is NaN at infinity": lambda: make("mul", (ROW, full(0, ROW))),
    "x / 3, whose reciprocal is not exact": lambda: make("div", (ROW, full(3, ROW))),
    "x / 2**-130, whose reciprocal is infinite": lambda: make("div", (ROW, full(2.0**-130, ROW))),
    "x / 0": lambda: make("div", (ROW, full(0, ROW))),
    "x - x": lambda: make("sub", (ROW, ROW)),
    "cast through a narrower type": lambda: build.cast(build.cast(ROW, dt.float16), dt.float32),
    "cast through an integer": lambda: build.cast(build.cast(ROW, dt.int32), dt.float32),
    "maximum of sums": lambda: make("reduce_max", (make("reduce_sum", (X,), axes=(1,)),), axes=(1,)),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_is_not_exact_stays(name: str) -> None:
    assert canonical(STAYS[name]()) is STAYS[name]()


def test_every_rule_of_the_tables_is_shown() -> None:
    shown = {v.op for before, _ in RULES.values() for v in topological([before()])}
    covered_below = {"conv", "scatter", "reduce_prod", "reduce_sum", "argmax", "argmin"}
    assert {*module._RULES, *module._SCALAR_RULES} <= shown | covered_below
    assert {*module._RULES, *module._SCALAR_RULES} <= set(OPS)


@pytest.mark.parametrize("dtype", [d for d in dt.ALL if not d.is_complex], ids=str)
def test_folded_numbers_are_the_computed_ones(dtype: DType) -> None:
    """Every scalar operation on every pair of edge values, without a warning."""
    if dtype.is_bool:
        numbers: list[Any] = [False, True]
    elif dtype.is_integer:
        info = np.iinfo(dtype.name)
        numbers = [info.min, info.max, 0, 1, 3, dtype.bits - 1]
    else:
        numbers = [
            np.asarray(x).astype(dtype.numpy).item() for x in (0.0, -0.0, 1, -2.5, np.inf, -np.inf, np.nan)
        ]
    scalars = [constant(n, dtype) for n in numbers]
    for row in SCALAR_OPS.values():
        if dtype.kind not in row.kinds or row.name in ("where", "real", "imag", "conj", "complex"):
            continue
        for a in scalars:
            for b in scalars if row.arity == 2 else [None]:
                v = make(row.name, (a,) if b is None else (a, b))
                folded = canonical(v)
                assert folded.op == "constant", v.op
                with np.errstate(all="ignore"):
                    (want,) = evaluate([v], {})
                got = np.asarray(folded["value"]).astype(v.dtype.numpy)
                assert got.tobytes() == want.tobytes() or (got != got and want != want), (v.op, a, b)


def test_sums_of_a_repeated_number_are_products() -> None:
    s = make("reduce_sum", (make("broadcast", (S,), shape=(3, 5)),), axes=(1,))
    after = canonical(s)
    assert [v.op for v in topological([after])] == ["input", "constant", "mul", "broadcast"]
    for number in (0.5, np.inf, np.nan, -3.0):
        leaves = {S: np.asarray(number, np.float32)}
        a, b = evaluate([s, after], leaves)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("shape", "to", "axes"),
    [
        ((), (1 << 20, 1 << 20), (0, 1)),
        ((1,), (1 << 20, 1 << 20), (0, 1)),
        ((3, 1), (3, 1 << 25), (1,)),
        ((3, 1), (3, 1 << 25), (0, 1)),
        ((4,), (1 << 25, 4), (0,)),
        ((2, 1, 4), (5, 2, 1 << 24, 4), (0, 2)),
        ((2, 1, 4), (5, 2, 1 << 24, 4), (1, 2, 3)),
    ],
)
def test_sums_over_repeated_axes_do_not_add_up_the_repetitions(shape, to, axes) -> None:
    c = input_value(dt.float32, shape)
    array = np.asarray(np.random.default_rng(0).random(shape, np.float32) + np.float32(0.1))
    count = np.prod([to[a] for a in axes], dtype=np.float64)
    mean = np.broadcast_to(array.astype(np.float64), [min(d, 64) for d in to]).mean(axes)
    after = canonical(make("reduce_sum", (make("broadcast", (c,), shape=to),), axes=axes))
    (found,) = evaluate([after], {c: array})
    np.testing.assert_allclose(found, mean * count, rtol=1e-6)
    for op in ("reduce_max", "reduce_min"):
        (found,) = evaluate(
            [canonical(make(op, (make("broadcast", (c,), shape=to),), axes=axes))], {c: array}
        )
        small = np.broadcast_to(array, [min(d, 64) for d in to])
        np.testing.assert_array_equal(found, (small.max if op == "reduce_max" else small.min)(axes))


@pytest.mark.parametrize("dtype", [dt.int8, dt.uint8, dt.int16, dt.uint64], ids=str)
@pytest.mark.parametrize("count", [3, 127, 128, 300, 70_000])
def test_integer_sums_of_a_repeated_number_wrap_around(dtype: DType, count: int) -> None:
    n = input_value(dtype, ())
    s = make("reduce_sum", (make("broadcast", (n,), shape=(count,)),), axes=(0,))
    after = canonical(s)
    assert not any(v.op == "reduce_sum" for v in topological([after]))
    a, b = evaluate([s, after], {n: np.asarray(7, dtype.numpy)})
    assert a == b
    assert a == np.asarray(7 * count, np.uint64).astype(dtype.numpy)


def test_sums_of_half_types_keep_their_accumulator() -> None:
    h = input_value(dt.float16, ())
    s = make("reduce_sum", (make("broadcast", (h,), shape=(4096,)),), axes=(0,))
    assert canonical(s) is s


def test_additions_to_half_types_are_rounded_once() -> None:
    x, u = input_value(dt.float16, (5,)), input_value(dt.float16, (9,))
    i = input_value(dt.int64, (9,))
    after = canonical(make("scatter", (x, u, i), axes=(0,), mode="add"))
    assert [v.op for v in topological([after]) if v.op != "input"] == ["cast", "cast", "scatter", "cast"]
    assert after.inputs[0].dtype is dt.float32
    kept = make("scatter", (x, u, i), axes=(0,), mode="max")
    assert canonical(kept) is kept


def test_a_convolution_of_no_channels_is_zero() -> None:
    x, w = input_value(dt.float32, (2, 0, 5)), input_value(dt.float32, (4, 0, 3))
    v = make(
        "conv", (x, w), stride=(1,), padding=((0, 0),), lhs_dilation=(1,), rhs_dilation=(1,), groups=1,
        dtype=dt.float32,
    )  # fmt: skip
    assert canonical(v) is build.full(0, dt.float32, (2, 4, 3))


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", [dt.float32, dt.float16, dt.int32, dt.uint8, dt.bool_], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_the_place_of_the_best_element_survives(name: str, dtype: DType, axis: int) -> None:
    """The first of equals, and the first NaN before all others."""
    x = input_value(dtype, (6, 4))
    v = make(name, (x,), axis=axis)
    leaves = {x: data(x) if axis else data(x)[::-1]}
    before, after = evaluate([v, canonical(v)], leaves)
    np.testing.assert_array_equal(after, before)
    assert after.dtype == before.dtype


def test_products_of_products() -> None:
    v = make("reduce_prod", (make("reduce_prod", (X,), axes=(2,)),), axes=(0,))
    assert canonical(v) is make("reduce_prod", (X,), axes=(0, 2))


def test_rules_chain_and_common_parts_merge() -> None:
    """x * (2 - 1) is x; two spellings of one value become one."""
    one = make("sub", (full(2, ROW), full(1, ROW)))
    a = make("exp", (make("mul", (ROW, one)),))
    b = make("exp", (make("stop_gradient", (ROW,)),))
    assert canonicalise([a, b]) == [make("exp", (ROW,))] * 2


def test_canonical_form_is_a_fixed_point() -> None:
    values = [f() for before, _ in RULES.values() for f in (before,)]
    once = canonicalise(values)
    assert canonicalise(once) == once
    twice = run_passes(run_passes(values))
    assert twice == run_passes(values)


def test_long_chains_do_not_recurse() -> None:
    v = ROW
    for _ in range(5_000):
        v = make("add", (v, full(0.5, ROW)))
    assert canonical(v) is v

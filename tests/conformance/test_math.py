"""The mathematical functions: accuracy, edges, exactness where promised, and the same bits on every instruction set."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from mpmath import mp

from conformance.math_accuracy import (
    BINARY,
    FLOAT64,
    UNARY,
    Array,
    Compiled,
    float32_arguments,
    float32_error,
    float32_errors,
    float32_patterns,
    float64_arguments,
    float64_error,
    function,
)  # fmt: skip
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS
from tilewright.kernel import math_coefficients, math_constants
from tilewright.kernel.ir import Expr, const, op, var
from tilewright.kernel.math import EXPANSIONS, expand, threefry2x32
from tilewright.runtime.target import Target, host_target

LIMIT = 2.0  # units in the last place
BASIC = {
    "const", "var", "add", "sub", "mul", "div", "fma", "neg", "abs", "sqrt", "floor", "ceil", "round", "trunc",
    "copysign", "eq", "ne", "lt", "le", "gt", "ge", "where", "bitand", "bitor", "bitxor", "invert", "shl", "shr", "cast",
    "bitcast", "maximum", "minimum", "rarely",
}  # fmt: skip
HOST = host_target()


def targets() -> list[Target]:
    """This machine's instruction set and the smaller ones it also runs."""
    if not HOST.triple.startswith("x86_64"):
        return [HOST]
    below = {"avx512": ("avx2", "generic"), "avx2": ("generic",)}.get(HOST.name, ())
    return [HOST, *(replace(Target.named(name), triple=HOST.triple) for name in below)]


def bits(a: Array) -> Array:
    """The bit patterns, every NaN the same."""
    a = a.copy()
    a[np.isnan(a)] = np.nan
    return a.view(f"u{a.dtype.itemsize}")


# ---- accuracy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_float32_is_within_two_units(name: str, nightly: bool) -> None:
    worst = float32_error(name, 31 if nightly else 1021)
    print(f"{name} float32: {worst}")
    assert worst.error <= LIMIT, str(worst)


@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_float64_is_within_two_units(name: str, nightly: bool) -> None:
    worst = float64_error(name, 20_000 if nightly else 700)
    print(f"{name} float64: {worst}")
    assert worst.error <= LIMIT, str(worst)


@pytest.mark.parametrize("dtype", [dt.float16, dt.bfloat16], ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_half_types_are_float32_rounded_once(name: str, dtype: DType) -> None:
    x = np.arange(2**16, dtype=np.uint16).view(dtype.numpy)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float32)
        expected = function(name, dt.float32)(wide).astype(dtype.numpy).astype(np.float32)
        got = function(name, dtype)(x).astype(np.float32)
    assert np.array_equal(bits(got), bits(expected))


# ---- edges --------------------------------------------------------------------------------------------------------


def edges(dtype: DType) -> Array:
    """Zeros, infinities, NaN, the ends of the normal and subnormal ranges, and numbers where the functions change."""
    info = np.finfo(dtype.numpy)
    values = [
        0.0,
        info.smallest_subnormal,
        3 * info.smallest_subnormal,
        info.tiny,
        1.5 * info.tiny,
        info.max,
        info.max / 2,
    ]
    values += [
        0.1,
        0.5,
        1 - info.epsneg,
        1,
        1 + info.eps,
        1.5,
        2,
        3,
        4,
        7,
        10,
        100,
        2.0**24 + 2,
        2.0**53,
        1e10,
        np.inf,
    ]
    values += [float(np.log(info.max)), float(np.log(info.tiny)), 709.0, 88.0, 104.0, 745.0]
    positive = np.array(values, dtype.numpy)
    return np.concatenate([positive, -positive, np.array([np.nan], dtype.numpy)])


def same(got: Array, expected: Array, relative: float) -> Array:
    """Where results agree: NaN, zeros with their sign and infinities exactly, others to a relative or tiny error."""
    tiny = 3 * np.finfo(got.dtype).smallest_subnormal
    near = (got == expected) | (np.abs(got - expected) <= relative * np.abs(expected) + tiny)
    signs = (np.signbit(got) == np.signbit(expected)) & ((got == 0) == (expected == 0))
    subnormal = np.abs(expected) < np.finfo(got.dtype).tiny
    return (np.isnan(got) & np.isnan(expected)) | (
        near & (signs | subnormal & (np.signbit(got) == np.signbit(expected)))
    )


@pytest.mark.parametrize("dtype", [dt.float32, dt.float64], ids=str)
@pytest.mark.parametrize("name", [*UNARY, *BINARY])
def test_edges_are_numpys(name: str, dtype: DType) -> None:
    one = edges(dtype)
    arguments = [one] if name in UNARY else [a.ravel() for a in np.meshgrid(one, one)]
    with np.errstate(all="ignore"):
        expected = FLOAT64[name](*(a.astype(np.float64) for a in arguments)).astype(dtype.numpy)
        got = function(name, dtype)(*arguments)
        wrong = ~same(got, expected, 3 * float(np.finfo(dtype.numpy).eps))
    found = [
        (*(float(a[k]) for a in arguments), float(got[k]), float(expected[k])) for k in np.flatnonzero(wrong)
    ]
    assert not found, f"{name} {dtype}: arguments, result, NumPy's result: {found[:5]}"


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0, 3.0, 4.0, -1.0, -2.0, 0.5, -0.5, 1.7])
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64], ids=str)
def test_pow_of_a_known_exponent(exponent: float, dtype: DType) -> None:
    x = np.concatenate(
        [edges(dtype), np.random.default_rng(0).standard_normal(1000).astype(dtype.numpy) * 10]
    )
    got = Compiled(lambda x: op("pow", x, const(exponent, x.dtype)), dtype)(x)
    with np.errstate(all="ignore"):
        known = np.full(x.size, exponent, dtype.numpy).astype(np.float64)
        expected = np.power(x.astype(np.float64), known).astype(dtype.numpy)
        assert same(got, expected, 2 * float(np.finfo(dtype.numpy).eps)).all()


def test_some_results_are_exact() -> None:
    whole = np.arange(-120, 121, dtype=np.float64)
    for dtype in (dt.float32, dt.float64):
        assert np.array_equal(function("exp2", dtype)(whole), (2.0**whole).astype(dtype.numpy))
        assert np.array_equal(function("log2", dtype)(2.0**whole), whole.astype(dtype.numpy))
        power = function("pow", dtype)(np.repeat(np.arange(1.0, 11), 6), np.tile(np.arange(6.0), 10))
        assert np.array_equal(
            power, (np.repeat(np.arange(1.0, 11), 6) ** np.tile(np.arange(6.0), 10)).astype(dtype.numpy)
        )
        assert function("tanh", dtype)(np.array([30.0, -30.0])).tolist() == [1.0, -1.0]
        assert function("erf", dtype)(np.array([7.0, -7.0])).tolist() == [1.0, -1.0]


def test_powers_that_are_floats_are_exact() -> None:
    """Odd numbers times powers of two to whole powers, and the roots of what comes out."""
    cases = list[tuple[float, float, float]]()
    for m in range(3, 2**12, 2):
        for n in range(2, 16):
            if m**n >= 2**24:
                break
            for k in range(-140 // n, 126 // n):
                exact = float(m**n) * 2.0 ** (k * n)
                if exact < 2.0**127 and float(np.float32(exact)) == exact:
                    cases.append((m * 2.0**k, n, exact))
                    if n in (2, 4, 8):
                        cases.append((exact, 1 / n, m * 2.0**k))
    base, exponent, true = np.array(cases).T
    assert np.array_equal(function("pow", dt.float32)(base, exponent), true.astype(np.float32))


@pytest.mark.parametrize("scale", [-1.0, 1.0])
def test_powers_next_to_the_ends_of_the_range(scale: float) -> None:
    """Bases of every magnitude, with exponents that take them to every magnitude."""
    rng = np.random.default_rng(0)
    count = 1 << 18
    base = rng.integers(1, 0x7F800000, count, np.uint32).view(np.float32)
    base[::2] = np.exp(rng.standard_normal(count // 2) * 10.0 ** rng.uniform(-7, 0, count // 2))
    logarithm = np.log2(base.astype(np.float64))
    target = rng.uniform(100, 160, count) * scale
    exponent = (target / np.where(logarithm == 0, 1, logarithm)).astype(np.float32)
    got = function("pow", dt.float32)(base, exponent)
    with np.errstate(all="ignore"):
        errors = float32_errors(got, np.power(base.astype(np.float64), exponent.astype(np.float64)))
    assert errors.max() <= LIMIT


# ---- exact operations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [dt.float32, dt.float64], ids=str)
@pytest.mark.parametrize("name", ["mod", "floordiv"])
def test_float_division_with_remainder_is_exactly_numpys(name: str, dtype: DType) -> None:
    rng, count = np.random.default_rng(2), 30_000
    unsigned = f"u{dtype.itemsize}"
    one = edges(dtype)
    pairs = [[a.ravel() for a in np.meshgrid(one, one)]]
    pairs += [[rng.integers(0, 2**dtype.bits - 1, count, unsigned).view(dtype.numpy) for _ in range(2)]]
    pairs += [[(rng.standard_normal(count) * scale).astype(dtype.numpy) for scale in (100, 7)]]
    pairs += [[(rng.integers(-60, 60, count) * 0.1).astype(dtype.numpy) for _ in range(2)]]
    x, y = (np.concatenate([pair[k] for pair in pairs]) for k in range(2))
    got, expected = function(name, dtype)(x, y), SCALAR_OPS[name].numpy(x, y)
    wrong = np.flatnonzero(bits(got) != bits(expected))
    assert wrong.size == 0, [(x[k], y[k], got[k], expected[k]) for k in wrong[:5]]


@pytest.mark.parametrize("dtype", [d for d in dt.ALL if d.is_integer], ids=str)
def test_integer_powers_wrap_as_numpys(dtype: DType) -> None:
    rng, info = np.random.default_rng(3), np.iinfo(dtype.numpy)
    low = -5 if dtype.kind == "i" else 0

    def draw(high: int) -> Array:
        anything = rng.integers(info.min, info.max, 3000, dtype.numpy, endpoint=True)
        return np.concatenate([anything, rng.integers(low, high, 3000).astype(dtype.numpy)])

    base, exponent = draw(10), draw(40)
    expected = SCALAR_OPS["pow"].numpy(base, exponent)
    got = Compiled(lambda x, y: expand(op("pow", x, y)), dtype, dtype)(base, exponent)
    assert np.array_equal(got, expected)
    for known in (0, 1, 2, 5, 13):
        got = Compiled(lambda x, n=known: expand(op("pow", x, const(n, x.dtype))), dtype)(base)
        assert np.array_equal(got, SCALAR_OPS["pow"].numpy(base, np.full_like(base, known)))


def test_threefry_gives_the_published_bits() -> None:
    """The known answers of the authors' reference implementation for 20 rounds."""
    counter = np.array([[0, 0], [0xFFFFFFFF, 0xFFFFFFFF], [0x243F6A88, 0x85A308D3]], np.uint32).T
    key = np.array([[0, 0], [0xFFFFFFFF, 0xFFFFFFFF], [0x13198A2E, 0x03707344]], np.uint32).T
    got = Compiled(threefry2x32, *[dt.uint32] * 4)(*key, *counter)
    assert [[hex(v) for v in word] for word in np.stack(got, 1).tolist()] == [
        ["0x6b200159", "0x99ba4efe"],
        ["0x1cb996fc", "0xbb002be7"],
        ["0xc4923a9c", "0x483df7a0"],
    ]


# ---- one meaning everywhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [dt.float32, dt.float64], ids=str)
@pytest.mark.parametrize("name", sorted(EXPANSIONS))
def test_every_instruction_set_gives_the_same_bits(name: str, dtype: DType) -> None:
    if name in ("mod", "floordiv"):
        arguments = [edges(dtype), edges(dtype)[::-1]]
    elif dtype is dt.float32:
        arguments = [a[::101] for a in float32_arguments(name, 2**20 - 3)]
    else:
        arguments = float64_arguments(name, 50)
    results = [bits(function(name, dtype, target)(*arguments)) for target in targets()]
    for result in results[1:]:
        assert np.array_equal(results[0], result)


@pytest.mark.parametrize("dtype", [d for d in dt.ALL if d.is_float], ids=str)
@pytest.mark.parametrize("name", sorted(EXPANSIONS))
def test_an_expansion_is_made_of_basic_operations(name: str, dtype: DType) -> None:
    operands = [var(f"x{k}", dtype) for k in range(SCALAR_OPS[name].arity)]
    result = expand(op(name, *operands))
    assert result.dtype is dtype
    assert {e.op for e in every(result)} <= BASIC
    assert expand(result) is result


def every(root: Expr) -> set[Expr]:
    found, stack = {root}, [root]
    while stack:
        new = set(stack.pop().args) - found
        found |= new
        stack.extend(new)
    return found


def test_expand_shares_what_was_shared_and_stands_deep_expressions() -> None:
    x = var("x", dt.float32)
    e = op("exp", x)
    both = expand(op("add", e, op("mul", e, e)))
    assert len(every(both)) == len(every(expand(e))) + 2
    untouched = op("add", x, x)
    assert expand(untouched) is untouched
    deep = x
    for _ in range(5000):
        deep = op("add", deep, x)
    assert deep in every(expand(op("exp", deep)))


def test_integer_operations_and_complex_functions_stay_as_they_are() -> None:
    i, z = var("i", dt.int32), var("z", dt.complex64)
    for e in (op("mod", i, i), op("floordiv", i, i), op("exp", z)):
        assert expand(e) is e


# ---- where the numbers come from ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit_math(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("fit_math", repository / "tools" / "fit_math.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["fit_math"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def test_the_coefficients_are_what_the_tool_computes(fit_math: Any, nightly: bool) -> None:
    cheap = {("SIN", 32), ("COS", 32), ("EXPM1", 32), ("POW_LOG2", 32), ("POW_EXP2", 32)}
    seen = set()
    for fit in fit_math.rows():
        stored = getattr(math_coefficients, fit.name)[fit.bits]
        seen.add(fit.name)
        assert len(stored) == fit.degree + 1 - len(fit.fixed)
        if nightly or (fit.name, fit.bits) in cheap:
            coefficients, _ = fit_math.solve(fit)
            assert tuple(coefficients) == stored
    assert seen == set(math_coefficients.__all__)


def test_the_constants_are_right() -> None:
    with mp.workdps(420):
        expected = {
            "LN2": mp.log(2), "LOG2_E": 1 / mp.log(2), "LOG10_2": mp.log10(2), "LOG10_E": mp.log10(mp.e), "PI": +mp.pi,
            "TWO_OVER_SQRT_PI": 2 / mp.sqrt(mp.pi),
        }  # fmt: skip
        for name, value in expected.items():
            stored: Fraction = getattr(math_constants, name)
            assert abs(mp.mpf(stored.numerator) / stored.denominator / value - 1) < mp.mpf(10) ** -85
        bits, count = math_constants.TWO_OVER_PI_BITS
        assert bits == int(mp.floor(2 / mp.pi * mp.mpf(2) ** count))


def test_the_measuring_covers_every_function() -> None:
    assert {*UNARY, *BINARY, "mod", "floordiv"} == set(EXPANSIONS)
    assert float32_patterns(2**20).dtype == np.float32

"""How accurate and how fast the mathematical functions are, measured on compiled code.

`float32_error` compares bit patterns spread evenly over all of float32 with float64 results; `float64_error` compares random
and structured arguments with mpmath. Errors are in units in the last place of the true result (of the smallest normal number
for results below it). Run as a program, this prints the table of docs/numerics.md:

    cd tests && python -m conformance.math_accuracy
"""

from __future__ import annotations

import ctypes
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from mpmath import mp, mpf

from tilewright.codegen.llvm import emit
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.kernel.ir import HI, LO, Buf, Expr, Kernel, Loop, Store, load, op, var
from tilewright.runtime.jit import KernelLibrary
from tilewright.runtime.target import Target, host_target

Array = np.ndarray[Any, Any]

UNARY = (
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "rsqrt", "sin", "cos", "tan", "asin", "acos", "atan",
    "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "sigmoid",
)  # fmt: skip
BINARY = ("pow", "atan2")

_names = (f"math_{k}" for k in itertools.count())
_libraries: dict[str, KernelLibrary] = {}


class Compiled:
    """A function of scalars, ``build``, compiled as a vector loop over arrays of ``dtypes``."""

    def __init__(
        self,
        build: Callable[..., Expr | tuple[Expr, ...]],
        *dtypes: DType,
        target: Target | None = None,
    ) -> None:
        target = target or host_target()
        i = var("i")
        built = build(*(load(f"x{k}", i, d) for k, d in enumerate(dtypes)))
        results = built if isinstance(built, tuple) else (built,)
        self.dtypes, self.results = dtypes, [e.dtype for e in results]
        lanes = max(1, target.vector_bytes * 8 // max(d.bits for d in dtypes))
        buffers = [Buf(f"x{k}", d, "r") for k, d in enumerate(dtypes)]
        buffers += [Buf(f"y{k}", d, "w") for k, d in enumerate(self.results)]
        stores = tuple(Store(f"y{k}", i, e) for k, e in enumerate(results))
        kernel = Kernel(tuple(buffers), (Loop("i", LO, HI, stores, "vector", lanes),), name=next(_names))
        library = _libraries.setdefault(target.name, KernelLibrary(target))
        address = library.compile([(kernel.name, emit(kernel, target), "")])[kernel.name]
        pointer, integer = ctypes.c_void_p, ctypes.c_int64
        self._function = ctypes.CFUNCTYPE(None, pointer, pointer, integer, integer, pointer)(address)

    def bind(self, arguments: Sequence[Array], results: Sequence[Array]) -> Callable[[], None]:
        """A call on these arrays, ready to be repeated."""
        pointers = [a.ctypes.data for a in (*arguments, *results)]
        table, status = (ctypes.c_void_p * len(pointers))(*pointers), ctypes.c_int32(0)
        return lambda: self._function(table, None, 0, arguments[0].size, ctypes.byref(status))

    def __call__(self, *arguments: Array) -> Any:
        """The results for 1-d arrays of equal length: one array, or a tuple of them."""
        given = [np.ascontiguousarray(a, d.numpy) for a, d in zip(arguments, self.dtypes, strict=True)]
        results = [np.empty(given[0].size, d.numpy) for d in self.results]
        self.bind(given, results)()
        return results[0] if len(results) == 1 else tuple(results)


def nanoseconds(call: Callable[[], Any], count: int) -> float:
    """The best time of ``call`` for each of its ``count`` elements."""
    best = math.inf
    for _ in range(30):
        start = time.perf_counter()
        for _ in range(20):
            call()
        best = min(best, (time.perf_counter() - start) / 20)
    return best / count * 1e9


def function(name: str, dtype: DType, target: Target | None = None) -> Compiled:
    """A scalar operation of the vocabulary, compiled for one operand type."""
    count = 2 if name in (*BINARY, "mod", "floordiv") else 1
    return Compiled(lambda *x: op(name, *x), *[dtype] * count, target=target)


@dataclass(frozen=True)
class Worst:
    """The largest error found, in units in the last place, and where."""

    error: float
    at: tuple[float, ...]
    got: float

    def __str__(self) -> str:
        return f"{self.error:.3f} ulp at {self.at}, got {self.got!r}"


# ---- float32 against float64 --------------------------------------------------------------------------------------


def _erf(x: Array) -> Array:
    return np.fromiter(map(math.erf, x.tolist()), np.float64, x.size)


def _sigmoid(x: Array) -> Array:
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1.0) / (1.0 + small)


FLOAT64: dict[str, Callable[..., Array]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2, "log10": np.log10,
    "log1p": np.log1p, "rsqrt": lambda x: 1 / np.sqrt(x), "sin": np.sin, "cos": np.cos, "tan": np.tan,
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "erf": _erf, "sigmoid": _sigmoid,
    "pow": np.power, "atan2": np.arctan2,
}  # fmt: skip


def float32_errors(got: Array, true: Array) -> Array:
    """The error of float32 results in units in the last place of ``true``, given in float64.

    A result beyond the largest number counts as 2^128 whether it is written as infinity or not; NaN in the wrong place
    and the wrong sign of a zero count as infinite errors.
    """
    limit = 2.0**128
    bounded = np.clip(true, -limit, limit)
    exponent = np.frexp(np.clip(np.abs(bounded), 2.0**-126, limit / 2))[1] - 1
    error = np.abs(np.clip(got.astype(np.float64), -limit, limit) - bounded) / np.ldexp(1.0, exponent - 23)
    nan = np.isnan(true)
    error = np.where(nan | np.isnan(got), np.where(nan & np.isnan(got), 0.0, np.inf), error)
    wrong_zero = (true == 0) & (got == 0) & (np.signbit(true) != np.signbit(got))
    return np.where(wrong_zero, np.inf, error)


def float32_patterns(stride: int) -> Array:
    """Every ``stride``-th float32 in the order of the bit patterns, and the patterns beside the special ones."""
    special = np.array([0, 0x00800000, 0x3F000000, 0x3F800000, 0x7F800000, 0x7FC00000], np.int64)
    beside = (special[:, None] + np.arange(-3, 4)).ravel()
    beside = np.concatenate([beside, beside + 2**31]) % 2**32
    return np.concatenate([np.arange(0, 2**32, stride), beside]).astype(np.uint32).view(np.float32)


def float32_arguments(name: str, stride: int, seed: int = 0) -> list[Array]:
    """Arguments that cover the function: bit patterns for one operand; patterns and usual magnitudes for two."""
    if name in UNARY:
        return [float32_patterns(stride)]
    rng = np.random.default_rng(seed)
    count = 2**32 // stride // 4
    pattern = [rng.integers(0, 2**32, count, np.uint32).view(np.float32) for _ in range(2)]
    scale = np.exp(rng.standard_normal(count) * 3), rng.standard_normal(count) * 20
    near_one = 1 + rng.standard_normal(count) * 1e-4, rng.standard_normal(count) * 1e5
    parts = zip(pattern, scale, near_one, strict=True)
    return [np.concatenate([p, *(a.astype(np.float32) for a in usual)]) for p, *usual in parts]


def float32_error(name: str, stride: int) -> Worst:
    """The largest error of the compiled float32 function."""
    arguments = float32_arguments(name, stride)
    compiled = function(name, dt.float32)
    worst = Worst(-1.0, (), 0.0)
    for start in range(0, arguments[0].size, 2**20):
        part = [a[start : start + 2**20] for a in arguments]
        got = compiled(*part)
        with np.errstate(all="ignore"):
            errors = float32_errors(got, FLOAT64[name](*(a.astype(np.float64) for a in part)))
        k = int(np.argmax(errors))
        if errors[k] > worst.error:
            worst = Worst(float(errors[k]), tuple(float(a[k]) for a in part), float(got[k]))
    return worst


# ---- float64 against mpmath ---------------------------------------------------------------------------------------

EXACT: dict[str, Callable[..., Any]] = {
    "exp2": lambda x: mp.power(2, x),
    "log2": lambda x: mp.log(x, 2),
    "rsqrt": lambda x: 1 / mp.sqrt(x),
    "sigmoid": lambda x: 1 / (1 + mp.exp(-x)),
    "pow": mp.power,
    **{name: getattr(mp, name) for name in UNARY if name not in ("exp2", "log2", "rsqrt", "sigmoid")},
    "atan2": mp.atan2,
}


def float64_arguments(name: str, count: int, seed: int = 0) -> list[Array]:
    """Random arguments where the function is interesting, and random bit patterns; finite and in its domain."""
    rng = np.random.default_rng(seed)

    def patterns() -> Array:
        values = rng.integers(0, 2**64 - 1, count, np.uint64, endpoint=True).view(np.float64)
        return np.where(np.isfinite(values), values, 1.0)

    sign = rng.choice([-1.0, 1.0], count)
    usual = np.exp(rng.standard_normal(count) * 2) * sign
    near_one = 1 + rng.standard_normal(count) * np.exp(-rng.uniform(0, 30, count))
    if name == "pow":
        exponents = rng.standard_normal(count) * np.where(np.arange(count) % 2, 30.0, 3e4)
        return [
            np.where(np.arange(count) % 2, np.exp(5 * rng.standard_normal(count)), np.abs(near_one)),
            exponents,
        ]
    if name == "atan2":
        return [np.concatenate([usual, patterns()]), np.concatenate([rng.permutation(usual), patterns()])]
    if name in ("asin", "acos", "atanh"):
        return [np.concatenate([rng.uniform(-1, 1, count), (1 - np.exp(-rng.uniform(0, 36, count))) * sign])]
    if name in ("log", "log2", "log10", "rsqrt"):
        return [np.abs(np.concatenate([usual, near_one, patterns()]))]
    if name == "acosh":
        return [1 + np.concatenate([np.abs(usual), np.abs(near_one - 1), np.abs(patterns()) / 2])]
    if name == "log1p":
        return [np.concatenate([np.abs(usual), np.expm1(rng.standard_normal(count)), np.abs(patterns())])]
    if name in ("exp", "exp2", "expm1", "sinh", "cosh", "tanh", "sigmoid"):
        return [np.concatenate([usual, rng.uniform(-1080, 1080, count)])]
    if name in ("sin", "cos", "tan"):  # also near multiples of pi/2, where the result is small
        multiples = np.round(np.exp(rng.uniform(0, 700, count))) * (np.pi / 2)
        return [np.concatenate([usual, multiples, patterns(), [6381956970095103 * 2.0**797]])]
    return [np.concatenate([usual, rng.uniform(-6, 6, count), patterns()])]


def float64_error_at(name: str, arguments: tuple[float, ...], got: float) -> float:
    """The error of one float64 result in units in the last place of the true one."""
    try:
        true = EXACT[name](*map(mpf, arguments))
    except (ValueError, ZeroDivisionError):  # outside the domain: the edge tests' business
        return 0.0
    if isinstance(true, mpmath.mpc) or mp.isnan(true):
        return 0.0 if math.isnan(got) else math.inf
    if math.isnan(got):
        return math.inf
    limit = mpf(2) ** 1024
    value = mp.sign(mpf(got)) * limit if math.isinf(got) else mpf(got)
    if abs(true) > limit:
        true = mp.sign(true) * limit
    exponent = max(int(mp.floor(mp.log(abs(true), 2))), -1022) if true else -1022
    return float(abs(value - true) / mpf(2) ** (exponent - 52))


def float64_error(name: str, count: int) -> Worst:
    """The largest error of the compiled float64 function."""
    arguments = float64_arguments(name, count)
    results = function(name, dt.float64)(*arguments).tolist()
    worst = Worst(-1.0, (), 0.0)
    # A trigonometric function of a huge argument needs all bits of the argument and as many of pi.
    with mp.workprec(1250 if name in ("sin", "cos", "tan") else 140):
        for *at, got in zip(*(a.tolist() for a in arguments), results, strict=True):
            error = float64_error_at(name, tuple(at), got)
            if error > worst.error:
                worst = Worst(error, tuple(at), got)
    return worst


def main() -> None:
    """Print the table as Markdown."""
    rng = np.random.default_rng(0)
    print("| function | float32 max ulp | ns | NumPy ns | float64 max ulp | ns | NumPy ns |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in (*UNARY, *BINARY):
        cells = []
        for dtype in (dt.float32, dt.float64):
            worst = float32_error(name, 127) if dtype is dt.float32 else float64_error(name, 4000)
            low = 1.0 if name == "acosh" else 0.0
            sample = [(low + rng.random(4096)).astype(dtype.numpy) for _ in range(1 + (name in BINARY))]
            result = np.empty_like(sample[0])
            ours = nanoseconds(function(name, dtype).bind(sample, [result]), 4096)
            cells += [f"{worst.error:.2f}", f"{ours:.2f}"]
            numpy = FLOAT64[name]
            if isinstance(numpy, np.ufunc):
                cells += [f"{nanoseconds(lambda f=numpy, x=sample, y=result: f(*x, out=y), 4096):.2f}"]
            else:
                cells += ["—"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

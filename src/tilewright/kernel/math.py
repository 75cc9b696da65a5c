"""Mathematical functions as expressions of basic operations, the same for every target.

`expand` rewrites each call of a transcendental function in an expression into additions, multiplications,
fma, divisions, square roots, comparisons, selections and bit operations: no table, no library call, and no
branch but around what hardly any argument needs, so that every lane of a vector runs the same instructions.
float32 and float64 results are within 2 units in the last place (docs/numerics.md has the measured errors),
including subnormal numbers, infinities, NaN and signed zeros; float16 and bfloat16 are computed in float32
and rounded once. Complex functions are not here: complex arithmetic is taken apart before.
"""

from __future__ import annotations

from collections.abc import Callable

from tilewright.kernel import math_exp, math_integer, math_log, math_trig
from tilewright.kernel.ir import Expr, cast, op, rebuild
from tilewright.kernel.math_float import Format, format_of
from tilewright.kernel.math_integer import integer_pow, threefry2x32
from tilewright.kernel.math_storage import converted

__all__ = ["EXPANSIONS", "converted", "expand", "threefry2x32"]

Expansion = Callable[..., Expr]


def _rsqrt(f: Format, x: Expr) -> Expr:
    return op("div", f.const(1.0), op("sqrt", x))


def _float(function: Callable[..., Expr]) -> Expansion:
    """The expansion of a float function: half types are widened before and rounded after."""

    def apply(*operands: Expr) -> Expr:
        dtype = operands[0].dtype
        f = format_of(dtype)
        return cast(function(f, *(cast(x, f.dtype) for x in operands)), dtype)

    return apply


def _pow(base: Expr, exponent: Expr) -> Expr:
    if base.dtype.is_integer:
        return integer_pow(base, exponent)
    return _float(math_log.pow)(base, exponent)


EXPANSIONS: dict[str, Expansion] = {
    "exp": _float(math_exp.exp),
    "exp2": _float(math_exp.exp2),
    "expm1": _float(math_exp.expm1),
    "log": _float(math_log.log),
    "log2": _float(math_log.log2),
    "log10": _float(math_log.log10),
    "log1p": _float(math_log.log1p),
    "rsqrt": _float(_rsqrt),
    "sin": _float(math_trig.sin),
    "cos": _float(math_trig.cos),
    "tan": _float(math_trig.tan),
    "asin": _float(math_trig.asin),
    "acos": _float(math_trig.acos),
    "atan": _float(math_trig.atan),
    "sinh": _float(math_exp.sinh),
    "cosh": _float(math_exp.cosh),
    "tanh": _float(math_exp.tanh),
    "asinh": _float(math_log.asinh),
    "acosh": _float(math_log.acosh),
    "atanh": _float(math_log.atanh),
    "erf": _float(math_exp.erf),
    "sigmoid": _float(math_exp.sigmoid),
    "pow": _pow,
    "atan2": _float(math_trig.atan2),
    "mod": _float(math_integer.mod),
    "floordiv": _float(math_integer.floordiv),
}


def expand(expr: Expr) -> Expr:
    """``expr`` with every mathematical function written out; shared sub-expressions stay shared.

    >>> from tilewright.core import dtype as dt
    >>> from tilewright.kernel.ir import op, var
    >>> expand(op("rsqrt", var("x", dt.float32)))
    <div  : float32>
    """
    done: dict[Expr, Expr] = {}
    stack = [expr]
    while stack:  # an explicit stack: fused expressions may be deeper than Python's recursion
        e = stack[-1]
        missing = [a for a in e.args if a not in done]
        if e in done or missing:
            if e in done:
                stack.pop()
            stack.extend(missing)
            continue
        stack.pop()
        args = tuple(done[a] for a in e.args)
        row = EXPANSIONS.get(e.op)
        if row is not None and (e.dtype.is_float or (e.op == "pow" and e.dtype.is_integer)):
            done[e] = row(*args)
        else:
            done[e] = e if args == e.args else rebuild(e, args)
    return done[expr]

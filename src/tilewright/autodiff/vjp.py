"""Reverse-mode derivatives: the vector-Jacobian product of every operation, and the transform over a graph.

``RULES`` maps an operation to its rule ``rule(value, g) -> cotangents``, one per operand of ``value``
(``None``: no derivative), where ``g`` is the cotangent of the result. Rules build graph operations only, so
that gradients can be differentiated again. Operations without a derivative are named in
``NOT_DIFFERENTIABLE`` with the reason.

Letters: ``x`` (``a``, ``b``) operands, ``y`` the result, ``g`` its cotangent. The gradient of a real loss L
with respect to a complex z is dL/d(re z) + i dL/d(im z), as in PyTorch: holomorphic rules multiply by the
conjugate derivative.

This file knows nothing of tensors or traces, and nothing of forward mode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Sequence
from functools import reduce
from itertools import accumulate

from tilewright.autodiff import scan, switch
from tilewright.core import dtype as dt
from tilewright.core.diagnostics import GradientError
from tilewright.core.shape import Shape, product, static
from tilewright.graph.attention import attention, decompose_attention
from tilewright.graph.build import (
    add,
    broadcast,
    cast,
    compare,
    conj,
    div,
    dot,
    expand,
    full,
    mul,
    neg,
    ones_like,
    pad,
    permute,
    reduce_sum,
    reshape,
    slice_,
    spread,
    square,
    sub,
    unary,
    unbroadcast,
    where,
    zeros_like,
)  # fmt: skip
from tilewright.graph.graph import rebuild
from tilewright.graph.ir import Value, constant, input_value, make, topological

__all__ = [
    "DIVISOR", "FACTOR", "FORWARD_ONLY", "JOINT", "NOT_DIFFERENTIABLE", "RULES", "dependent", "products_of_others",
    "repeated_number", "square_length", "vjp",
]  # fmt: skip

Cotangents = Sequence[Value | None]
Rule = Callable[[Value, Value], Cotangents]


# ---- the transform -----------------------------------------------------------------------------------------


MOST_FACTORS = 12  # of a product that is taken apart


def vjp(
    outputs: Sequence[Value], cotangents: Sequence[Value | None], wrt: Sequence[Value]
) -> list[Value | None]:
    """The gradients of sum(<output, cotangent>) with respect to each of ``wrt`` (``None``: no dependence).

    ``cotangents[i]`` has the type of ``outputs[i]`` (``None`` counts as zero). ``wrt`` may hold leaves and
    interior values; derivatives flow through an interior one to those it is made of. Only values that depend
    on ``wrt`` by a differentiable path are visited, and ``stop_gradient`` ends a path.

    >>> from tilewright.core import dtype as dt
    >>> from tilewright.graph.ir import input_value, make
    >>> x = input_value(dt.float32, (3,))
    >>> y = make("tanh", (x,))
    >>> (dx,) = vjp([y], [full(1.0, dt.float32, (3,))], [x])
    >>> dx.type
    float32[3]
    """
    sums: dict[Value, list[Value]] = {}

    def give(value: Value, cotangent: Value) -> None:
        sums.setdefault(value, []).append(cotangent)

    path = dependent(outputs, wrt)
    for output, cotangent in zip(outputs, cotangents, strict=True):
        if cotangent is None:
            continue
        if cotangent.type != output.type:
            raise ValueError(f"the cotangent of a {output.type} has its type, got {cotangent.type}")
        if output in path:
            give(output, cotangent)
    wanted = set(wrt)
    calls = _calls(path)
    for value in reversed(path):
        terms = sums.get(value) if value in wanted else sums.pop(value, None)
        g = None if terms is None else _sum(terms)
        if value.op in JOINT:  # the rule wants the cotangents of all results at once
            found = calls[_call_of(value)].give(value, g, path)
        elif g is None or value.op in NOT_DIFFERENTIABLE or not any(v in path for v in value.inputs):
            continue
        else:
            found = RULES[value.op](value, g)
        for operand, cotangent in zip(value.inputs, found, strict=bool(found)):
            if cotangent is not None and operand in path:
                give(operand, cotangent)
    return [_sum(sums[v]) if v in sums else None for v in wrt]


def _sum(terms: list[Value]) -> Value:
    """The sum of a value's cotangents. Those of slices that fill an axis side by side are put together; the others, elements with
    zeros around, are added."""
    if len(terms) > 1:
        for axis in range(terms[0].type.rank):
            pieces = sorted((t for t in terms if _pads_only(t, axis)), key=lambda t: t["low"][axis])
            starts = [0, *accumulate(static(t.inputs[0].shape[axis] for t in pieces))]
            if len(pieces) > 1 and [*(t["low"][axis] for t in pieces), terms[0].shape[axis]] == starts:
                joined = make("concat", [t.inputs[0] for t in pieces], axis=axis)
                terms = [*(t for t in terms if t not in pieces), joined]
    return reduce(_added, terms)


def _added(a: Value, b: Value) -> Value:
    """a + b; of two products of a contraction with functions of the operand, such as GELU's, the contraction times the functions'
    sum: one number for it to read, computed where the operand is."""
    if a.dtype.is_float and a.op == b.op == "mul":
        first, second = _factors(a), _factors(b)
        common = [x for x in first if x in second and x.op in ("dot", "conv")]
        if len(common) == 1 and len(first) > 1 and len(second) > 1:
            first.remove(common[0])
            second.remove(common[0])
            return mul(common[0], add(reduce(mul, first), reduce(mul, second)))
    return add(a, b)


def _factors(x: Value) -> list[Value]:
    """What a product is made of, none where that is many: powers have exponentially many."""
    found, rest = list[Value](), [x]
    while rest:
        v = rest.pop()
        if v.op == "mul":
            rest.extend(reversed(v.inputs))
        else:
            found.append(v)
        if len(found) + len(rest) > MOST_FACTORS:
            return []
    return found


def _pads_only(term: Value, axis: int) -> bool:
    """Whether a cotangent is that of a slice along one axis: elements with zeros around."""
    if term.op != "pad" or any(term["interior"]) or repeated_number(term.inputs[1]) != 0:
        return False
    return all(
        a == axis for a, widths in enumerate(zip(term["low"], term["high"], strict=True)) if any(widths)
    )


def dependent(outputs: Sequence[Value], wrt: Iterable[Value]) -> dict[Value, None]:
    """The values on a differentiable path from ``wrt`` to ``outputs``, operands first (an ordered set)."""
    wanted = {v for v in wrt if v.dtype.is_inexact}
    path: dict[Value, None] = {}
    for value in topological(outputs):
        passes = value.op not in NOT_DIFFERENTIABLE and value.dtype.is_inexact
        if value in wanted or (passes and any(v in path for v in value.inputs)):
            path[value] = None
    return path


# Operations with several results: values that differ in their last attribute, ``index``.
JOINT = ("custom", "scan", "while_loop", "switch")


def _call_of(value: Value) -> tuple[object, ...]:
    """What the results of one call or loop share."""
    return (value.op, value.inputs, value.attrs[:-1])


class _Call:
    """The results of one call with a rule of its own, or of one loop, on a path; ``first`` is visited last."""

    def __init__(self, first: Value) -> None:
        self.first = first
        self.cotangents: dict[int, Value] = {}

    def give(self, result: Value, g: Value | None, path: Container[Value]) -> Cotangents:
        """Note a result's cotangent; at the last of them, the cotangents of the operands."""
        if g is not None:
            self.cotangents[result["index"]] = g
        if result is not self.first or not self.cotangents:
            return ()
        if result.op in FORWARD_ONLY:
            raise GradientError(
                f"reverse mode through `{result.op}`: {FORWARD_ONLY[result.op]}; use `scan` or `fori_loop` with a bound, take"
                " the derivative in forward mode (`jvp`, `jacfwd`), or stop it with `stop_gradient`"
            )
        if result.op in ("scan", "switch"):
            pulled = scan.pulled if result.op == "scan" else switch.pulled
            return pulled(result, self.cotangents, [v in path for v in result.inputs], vjp, dependent)
        count: int = result["outputs"]
        outputs, operands = result.inputs[:count], result.inputs[count:]
        given = [self.cotangents.get(i, zeros_like(v)) for i, v in enumerate(outputs)]
        return [*[None] * count, *result["rule"].vjp(outputs, operands, given)]


def _calls(path: Iterable[Value]) -> dict[tuple[object, ...], _Call]:
    calls: dict[tuple[object, ...], _Call] = {}
    for value in path:
        if value.op in JOINT:
            calls.setdefault(_call_of(value), _Call(value))
    return calls


FORWARD_ONLY: dict[str, str] = {
    "while_loop": "its number of iterations is known only when it has run, so there is nowhere to keep what the derivative"
    " reads",
}

NOT_DIFFERENTIABLE: dict[str, str] = {
    **dict.fromkeys(("input", "constant", "iota"), "a leaf has no operands"),
    "host_call": "an algorithm outside the graph; where it has a derivative, `custom` stands around it",
    **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge"), "a comparison gives bool"),
    **dict.fromkeys(
        ("invert", "bitand", "bitor", "bitxor", "shl", "shr"), "defined for bool and integers only"
    ),
    **dict.fromkeys(("sign", "floor", "ceil", "round", "trunc", "floordiv"), "piecewise constant"),
    **dict.fromkeys(("argmax", "argmin", "random_bits"), "the result is an integer"),
    "bitcast": "bits have no derivative",
    "stop_gradient": "it exists to have none",
}

RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return register


# ---- one operand: y = f(x), dx = g * conj(f'(x)) -----------------------------------------------------------

LN2 = math.log(2.0)

# f'(x) as a factor of the cotangent. It is written with y where y is at hand.
FACTOR: dict[str, Callable[[Value, Value], Value]] = {
    "exp": lambda x, y: y,
    "exp2": lambda x, y: mul(y, LN2),
    "expm1": lambda x, y: add(y, 1),
    "sin": lambda x, y: unary("cos", x),
    "cos": lambda x, y: neg(unary("sin", x)),
    "tan": lambda x, y: add(square(y), 1),
    "sinh": lambda x, y: unary("cosh", x),
    "cosh": lambda x, y: unary("sinh", x),
    "tanh": lambda x, y: sub(1, square(y)),
    "sigmoid": lambda x, y: mul(y, sub(1, y)),
    "erf": lambda x, y: mul(unary("exp", neg(square(x))), 2 / math.sqrt(math.pi)),
    "rsqrt": lambda x, y: mul(mul(y, square(y)), -0.5),
}

# 1 / f'(x), where the derivative is a quotient.
DIVISOR: dict[str, Callable[[Value, Value], Value]] = {
    "log": lambda x, y: x,
    "log2": lambda x, y: mul(x, LN2),
    "log10": lambda x, y: mul(x, math.log(10.0)),
    "log1p": lambda x, y: add(x, 1),
    "sqrt": lambda x, y: mul(y, 2),
    # (1-x)(1+x) keeps the digits that 1-x*x loses near 1.
    "asin": lambda x, y: unary("sqrt", mul(sub(1, x), add(x, 1))),
    "acos": lambda x, y: neg(unary("sqrt", mul(sub(1, x), add(x, 1)))),
    "atan": lambda x, y: add(square(x), 1),
    "asinh": lambda x, y: unary("sqrt", add(square(x), 1)),
    # Two roots: on the left half of the complex plane the root of the product has the other sign.
    "acosh": lambda x, y: mul(unary("sqrt", sub(x, 1)), unary("sqrt", add(x, 1))),
    "atanh": lambda x, y: mul(sub(1, x), add(x, 1)),
}


def _by_factor(y: Value, g: Value) -> Cotangents:
    return (mul(g, conj(FACTOR[y.op](y.inputs[0], y))),)


def _by_divisor(y: Value, g: Value) -> Cotangents:
    return (div(g, conj(DIVISOR[y.op](y.inputs[0], y))),)


RULES.update(dict.fromkeys(FACTOR, _by_factor))
RULES.update(dict.fromkeys(DIVISOR, _by_divisor))


@_rule("neg")
def _neg(y: Value, g: Value) -> Cotangents:
    return (neg(g),)


@_rule("mark")
def _mark(y: Value, g: Value) -> Cotangents:
    return (g,)


@_rule("barrier")
def _barrier(y: Value, g: Value) -> Cotangents:
    return g, *[None] * len(y.inputs[1:])


@_rule(*JOINT)
def _joint(y: Value, g: Value) -> Cotangents:
    return _Call(y).give(y, g, set(y.inputs))


@_rule("abs")
def _abs(y: Value, g: Value) -> Cotangents:
    (x,) = y.inputs
    if not x.dtype.is_complex:
        return (mul(g, unary("sign", x)),)
    direction = div(x, cast(where(compare("eq", y, 0), 1, y), x.dtype))  # 0 at 0
    return (mul(cast(g, x.dtype), direction),)


@_rule("real")
def _real(y: Value, g: Value) -> Cotangents:
    return (make("complex", (g, zeros_like(g))),)


@_rule("imag")
def _imag(y: Value, g: Value) -> Cotangents:
    return (make("complex", (zeros_like(g), g)),)


@_rule("conj")
def _conj(y: Value, g: Value) -> Cotangents:
    return (conj(g),)


@_rule("cast")
def _cast(y: Value, g: Value) -> Cotangents:
    (x,) = y.inputs
    return (cast(g, x.dtype) if x.dtype.is_inexact else None,)


# ---- two operands ------------------------------------------------------------------------------------------


@_rule("add")
def _add(y: Value, g: Value) -> Cotangents:
    return g, g


@_rule("sub")
def _sub(y: Value, g: Value) -> Cotangents:
    return g, neg(g)


@_rule("mul")
def _mul(y: Value, g: Value) -> Cotangents:
    a, b = y.inputs
    return mul(g, conj(b)), mul(g, conj(a))


@_rule("div")
def _div(y: Value, g: Value) -> Cotangents:
    da = div(g, conj(y.inputs[1]))
    return da, neg(mul(da, conj(y)))


@_rule("mod")
def _mod(y: Value, g: Value) -> Cotangents:
    return g, neg(mul(g, make("floordiv", y.inputs)))


@_rule("pow")
def _pow(y: Value, g: Value) -> Cotangents:
    a, b = y.inputs
    number = repeated_number(b)
    if number is not None and not a.dtype.is_complex:
        return _pow_number(a, g, float(number.real)), None  # a number depends on nothing
    # At b = 0 the factor b makes da zero; an exponent of 0 instead of -1 keeps 0 * inf away.
    da = mul(g, conj(mul(b, make("pow", (a, sub(where(compare("eq", b, 0), 1, b), 1))))))
    at_zero = compare("eq", a, 0)
    if not a.dtype.is_complex:
        at_zero = make("bitand", (at_zero, compare("ge", b, 0)))
    db = mul(g, conj(mul(y, unary("log", where(at_zero, 1, a)))))
    return da, db


def _pow_number(a: Value, g: Value, n: float) -> Value | None:
    if n == 0:
        return None
    if n == 1:
        return g
    power = a if n == 2 else square(a) if n == 3 else make("pow", (a, full(n - 1, a.dtype, a.shape)))
    return mul(g, mul(power, n))


def repeated_number(x: Value) -> complex | None:
    """The number that ``x`` repeats, when it is a broadcast constant."""
    while x.op in ("broadcast", "reshape"):
        x = x.inputs[0]
    return complex(x["value"]) if x.op == "constant" else None


@_rule("atan2")
def _atan2(y: Value, g: Value) -> Cotangents:
    a, b = y.inputs  # the angle of the point (b, a)
    scaled = div(g, square_length(a, b))
    return mul(scaled, b), neg(mul(scaled, a))


def square_length(a: Value, b: Value) -> Value:
    """a^2 + b^2 as a divisor: 1 at the origin, where every direction is as good and the slope of an angle is said to be 0."""
    origin = make("bitand", (compare("eq", a, 0), compare("eq", b, 0)))
    return where(origin, 1, add(square(a), square(b)))


@_rule("maximum", "minimum")
def _extremum(y: Value, g: Value) -> Cotangents:
    a, b = y.inputs
    wins = "gt" if y.op == "maximum" else "lt"
    at_tie = where(compare("eq", a, b), mul(g, 0.5), 0)
    return where(compare(wins, a, b), g, at_tie), where(compare(wins, b, a), g, at_tie)


@_rule("copysign")
def _copysign(y: Value, g: Value) -> Cotangents:
    a, b = y.inputs
    return mul(g, mul(unary("sign", a), make("copysign", (ones_like(b), b)))), None


@_rule("complex")
def _complex(y: Value, g: Value) -> Cotangents:
    return unary("real", g), unary("imag", g)


@_rule("where")
def _where(y: Value, g: Value) -> Cotangents:
    condition = y.inputs[0]
    return None, where(condition, g, 0), where(condition, 0, g)


# ---- movement ----------------------------------------------------------------------------------------------


@_rule("reshape")
def _reshape(y: Value, g: Value) -> Cotangents:
    return (reshape(g, y.inputs[0].shape),)


@_rule("permute")
def _permute(y: Value, g: Value) -> Cotangents:
    axes: tuple[int, ...] = y["axes"]
    return (permute(g, [axes.index(i) for i in range(len(axes))]),)


@_rule("broadcast")
def _broadcast(y: Value, g: Value) -> Cotangents:
    return (unbroadcast(g, y.inputs[0].shape),)


@_rule("slice")
def _slice(y: Value, g: Value) -> Cotangents:
    spans: list[tuple[int, int, int]] = []  # low, high, interior
    for size, start, n, step in zip(y.inputs[0].shape, y["start"], y.shape, y["step"], strict=True):
        if n == size:  # the whole axis, which may be symbolic
            spans.append((0, 0, 0))
        elif n == 0:
            spans.append((0, static((size,))[0], 0))
        else:
            (whole, count) = static((size, n))
            spans.append((start, whole - start - (count - 1) * step - 1, step - 1))
    low, high, interior = ([span[i] for span in spans] for i in range(3))
    return (pad(g, low, high, interior),)


@_rule("pad")
def _pad(y: Value, g: Value) -> Cotangents:
    x = y.inputs[0]
    low, high, interior = y["low"], y["high"], y["interior"]
    stop = [size if h == 0 else static((size,))[0] - h for size, h in zip(y.shape, high, strict=True)]
    dx = slice_(g, low, stop, [i + 1 for i in interior])
    # The fill's share is summed where the padding is: a difference of two sums would lose its digits.
    inside = full(False, dt.bool_, x.shape)
    around = pad(inside, low, high, interior, constant(True, dt.bool_))
    return dx, reduce_sum(where(around, g, 0), range(g.type.rank))


@_rule("flip")
def _flip(y: Value, g: Value) -> Cotangents:
    return (make("flip", (g,), axes=y["axes"]),)


@_rule("concat")
def _concat(y: Value, g: Value) -> Cotangents:
    axis: int = y["axis"]
    out: list[Value] = []
    at = 0
    for x in y.inputs:
        start, stop = [0] * g.type.rank, list(g.shape)
        (size,) = static((x.shape[axis],))
        start[axis], stop[axis] = at, at + size
        out.append(slice_(g, start, stop))
        at += size
    return out


@_rule("window")
def _window(y: Value, g: Value) -> Cotangents:
    size = tuple(y.inputs[0].shape[a] for a in y["axes"])
    return (make("fold", (g,), axes=y["axes"], size=size, stride=y["stride"], dilation=y["dilation"]),)


@_rule("fold")
def _fold(y: Value, g: Value) -> Cotangents:
    x = y.inputs[0]
    kernel = x.shape[x.type.rank - len(y["axes"]) :]
    return (make("window", (g,), axes=y["axes"], size=kernel, stride=y["stride"], dilation=y["dilation"]),)


# ---- reductions and scans ----------------------------------------------------------------------------------


@_rule("reduce_sum")
def _reduce_sum(y: Value, g: Value) -> Cotangents:
    return (expand(g, y["axes"], y.inputs[0].shape),)


@_rule("reduce_max", "reduce_min")
def _reduce_extremum(y: Value, g: Value) -> Cotangents:
    """Shared evenly among ties."""
    (x,), axes = y.inputs, y["axes"]
    chosen = compare("eq", x, expand(y, axes, x.shape))
    share = div(g, reduce_sum(cast(chosen, g.dtype), axes))
    return (where(chosen, expand(share, axes, x.shape), 0),)


@_rule("reduce_prod")
def _reduce_prod(y: Value, g: Value) -> Cotangents:
    """g times the product of all the others, without division: right at zeros and in higher derivatives."""
    (x,), axes = y.inputs, y["axes"]
    return (mul(expand(g, axes, x.shape), conj(products_of_others(y))),)


def products_of_others(y: Value) -> Value:
    """For every element of a product's operand, the product of all the others that are multiplied with it."""
    (x,), axes = y.inputs, y["axes"]
    kept = [a for a in range(x.type.rank) if a not in axes]
    rows = permute(x, [*kept, *axes])
    count = product(static(x.shape[a] for a in axes))
    line = reshape(rows, (*y.shape, count))
    others = mul(_products_before(line), _flip_last(_products_before(_flip_last(line))))
    return permute(reshape(others, rows.shape), [[*kept, *axes].index(a) for a in range(x.type.rank)])


def _products_before(line: Value) -> Value:
    """Along the last axis, the product of all earlier elements, by doubling: log2(n) steps."""
    (count,) = static(line.shape[-1:])
    out = _shift(line, 1)
    step = 1
    while step < count:
        out = mul(out, _shift(out, step))
        step *= 2
    return out


def _shift(line: Value, by: int) -> Value:
    """Move the last axis ``by`` places up; ones come in."""
    (count,) = static(line.shape[-1:])
    none = [0] * (line.type.rank - 1)
    kept = slice_(line, [*none, 0], [*line.shape[:-1], max(count - by, 0)])
    return pad(kept, [*none, min(by, count)], [*none, 0], value=1)


def _flip_last(line: Value) -> Value:
    return make("flip", (line,), axes=(line.type.rank - 1,))


@_rule("cumsum")
def _cumsum(y: Value, g: Value) -> Cotangents:
    return (make("cumsum", (g,), axis=y["axis"], reverse=not y["reverse"]),)


# ---- indexed access ----------------------------------------------------------------------------------------


@_rule("gather")
def _gather(y: Value, g: Value) -> Cotangents:
    x, *indices = y.inputs
    dx = make("scatter", (zeros_like(x), g, *indices), axes=y["axes"], mode="add")
    return dx, *[None] * len(indices)


@_rule("scatter")
def _scatter(y: Value, g: Value) -> Cotangents:
    dx, du = {"add": _scatter_add, "set": _scatter_set, "max": _scatter_best, "min": _scatter_best}[
        y["mode"]
    ](y, g)
    return dx, du, *[None] * len(y.inputs[2:])


def _at(x: Value, scatter: Value) -> Value:
    """``x`` at the places of a scatter."""
    return make("gather", (x, *scatter.inputs[2:]), axes=scatter["axes"])


def _scatter_add(y: Value, g: Value) -> tuple[Value, Value]:
    return g, _at(g, y)


def _scatter_set(y: Value, g: Value) -> tuple[Value, Value]:
    _, updates, *indices = y.inputs
    dx = make("scatter", (g, zeros_like(updates), *indices), axes=y["axes"], mode="set")
    return dx, where(_last_writers(y), _at(g, y), 0)


def _last_writers(y: Value) -> Value:
    """Which updates of a scatter survive (bool, like the updates): each writes its number; the last stays."""
    x, updates, *indices = y.inputs
    places: Shape = indices[0].shape
    count = product(static(places))
    if count <= 1:
        return full(True, dt.bool_, updates.shape)
    number = reshape(make("iota", shape=(count,), axis=0, dtype=dt.int32), places)
    board = full(-1, dt.int32, tuple(x.shape[a] for a in y["axes"]))
    axes = tuple(range(len(y["axes"])))
    board = make("scatter", (board, number, *indices), axes=axes, mode="set")
    survives = compare("eq", make("gather", (board, *indices), axes=axes), number)
    rest = updates.type.rank - len(places)
    return broadcast(reshape(survives, (*places, *[1] * rest)), updates.shape)


def _scatter_best(y: Value, g: Value) -> tuple[Value, Value]:
    """Shared evenly among the operand's element and all updates that equal the result."""
    x, updates, *indices = y.inputs
    held, hit = compare("eq", x, y), compare("eq", updates, _at(y, y))
    count = make("scatter", (cast(held, g.dtype), cast(hit, g.dtype), *indices), axes=y["axes"], mode="add")
    share = div(g, where(compare("eq", count, 0), 1, count))
    return where(held, share, 0), where(hit, _at(share, y), 0)


# ---- contractions ------------------------------------------------------------------------------------------


@_rule("dot")
def _dot(y: Value, g: Value) -> Cotangents:
    lhs, rhs = y.inputs
    if (
        lhs.dtype is dt.bfloat16
    ):  # products of bfloat16 are so in the backward pass too, whatever type they come out in
        g = cast(g, dt.bfloat16)
    left = (y["lhs_contract"], y["lhs_batch"])
    right = (y["rhs_contract"], y["rhs_batch"])
    batch = len(y["lhs_batch"])
    free = lhs.type.rank - batch - len(y["lhs_contract"])
    # The result's axes: batch, then lhs free, then rhs free.
    of_lhs, of_rhs = range(batch, batch + free), range(batch + free, y.type.rank)
    return _dot_side(g, of_rhs, rhs, right, lhs, left), _dot_side(g, of_lhs, lhs, left, rhs, right)


Axes = tuple[tuple[int, ...], tuple[int, ...]]  # contracted, batch


def _dot_side(
    g: Value, summed: Sequence[int], other: Value, other_axes: Axes, mine: Value, my_axes: Axes
) -> Value:
    """The cotangent of ``mine`` in a dot with ``other``: g contracted with it over its free axes, ``summed``
    in g.
    """
    contract, batch = other_axes
    free = [a for a in range(other.type.rank) if a not in contract and a not in batch]
    out = dot(g, conj(other), (summed, free), (range(len(batch)), batch))
    # The result's axes: batch, my free axes, then the contracted ones in the order they have in ``other``.
    my_contract, my_batch = my_axes
    my_free = [a for a in range(mine.type.rank) if a not in my_contract and a not in my_batch]
    order = [*my_batch, *my_free, *(my_contract[contract.index(a)] for a in sorted(contract))]
    return cast(permute(out, [order.index(a) for a in range(mine.type.rank)]), mine.dtype)


@_rule("conv")
def _conv(y: Value, g: Value) -> Cotangents:
    return _conv_image(y, g), _conv_kernel(y, g)


def _conv_image(y: Value, g: Value) -> Value:
    """The transposed convolution: g with zeros between (the stride), over the kernel turned around."""
    image, kernel = y.inputs
    groups: int = y["groups"]
    filters, per_group, *size = static(kernel.shape)
    spatial = range(2, kernel.type.rank)
    turned = reshape(kernel, (groups, filters // groups, per_group, *size))
    turned = permute(turned, (0, 2, 1, *(a + 1 for a in spatial)))
    turned = reshape(turned, (groups * per_group, filters // groups, *size))
    turned = conj(make("flip", (turned,), axes=tuple(spatial)))
    padding = []
    for n, out, k, s, (low, _), ld, rd in zip(
        static(image.shape[2:]), static(y.shape[2:]), size, y["stride"], y["padding"], y["lhs_dilation"],
        y["rhs_dilation"], strict=True,
    ):  # fmt: skip
        if n == 0:
            return zeros_like(image)
        before = (k - 1) * rd - low
        padding.append((before, (n - 1) * ld + (k - 1) * rd - (out - 1) * s - before))
    wide = dt.promote(g.dtype, kernel.dtype)
    out = make(
        "conv", (cast(g, wide), cast(turned, wide)), stride=y["lhs_dilation"], padding=tuple(padding),
        lhs_dilation=y["stride"], rhs_dilation=y["rhs_dilation"], groups=groups, dtype=wide,
    )  # fmt: skip
    return cast(out, image.dtype)


def _conv_kernel(y: Value, g: Value) -> Value:
    """A contraction of g with the image's windows over images and places."""
    image, kernel = y.inputs
    groups: int = y["groups"]
    filters, per_group, *size = static(kernel.shape)
    spatial = tuple(range(2, image.type.rank))
    windows = make(
        "window", (spread(image, y["padding"], y["lhs_dilation"]),), axes=spatial, size=tuple(size),
        stride=y["stride"], dilation=y["rhs_dilation"],
    )  # fmt: skip
    windows = reshape(windows, (windows.shape[0], groups, per_group, *windows.shape[2:]))
    g = reshape(g, (g.shape[0], groups, filters // groups, *g.shape[2:]))
    summed = (0, *(a + 1 for a in spatial))
    out = dot(g, conj(windows), (summed, summed), ((1,), (1,)))
    return cast(reshape(out, kernel.shape), kernel.dtype)


# ---- attention ---------------------------------------------------------------------------------------------


@_rule("attention")
def _attention(y: Value, g: Value) -> Cotangents:
    """From the rows' log-sum-exp the weights are computed again, block by block (Dao et al., "FlashAttention", 2022)."""
    query, key, value = y.inputs
    scale, causal = y["scale"], y["causal"]
    if y["result"] == "mix":
        lse = attention(query, key, value, scale, causal, "lse")
        delta = reduce_sum(mul(g, y), (y.type.rank - 1,))
        return [_attention_grad_of((query, key, value, g, lse, delta), scale, causal, wrt) for wrt in "qkv"]
    # d lse / d scores are the weights: for the query they mix keys, for the key they mix queries
    column = expand(g, (y.type.rank,), query.shape)
    dq = mul(mul(column, attention(query, key, key, scale, causal)), scale)
    operands = (query, key, key, mul(column, query), y, zeros_like(y))
    return dq, mul(_attention_grad_of(operands, scale, causal, "v"), scale), None


def _attention_grad_of(operands: Sequence[Value], scale: float, causal: bool, wrt: str) -> Value:
    return make("attention_grad", operands, scale=scale, causal=causal, wrt=wrt)


@_rule("attention_grad")
def _attention_grad(y: Value, g: Value) -> Cotangents:
    """Second derivatives go through the decomposition, whose operands are leaves meanwhile: what depends on what among the
    real ones is not this rule's business."""
    leaves = [input_value(x.dtype, x.shape) for x in (*y.inputs, g)]
    plain = decompose_attention(make(y.op, leaves[:-1], **dict(y.attrs)))
    found = vjp([plain], [leaves[-1]], leaves[:-1])
    real = iter(rebuild([c for c in found if c is not None], dict(zip(leaves, (*y.inputs, g), strict=True))))
    return [None if c is None else next(real) for c in found]

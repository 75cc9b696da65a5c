"""Forward-mode derivatives: the tangent of every operation, and the transform over a graph.

``RULES`` maps an operation to its rule ``rule(value, tangents) -> tangent``: ``tangents`` has one entry per operand
of ``value`` (``None``: zero), at least one is given, and the result is the tangent of ``value`` (``None``: zero).
Rules build graph operations only, so that tangents can be differentiated again in either mode. Operations without
a derivative are those of reverse mode (``vjp.NOT_DIFFERENTIABLE``).

Letters: ``x`` (``a``, ``b``) operands, ``y`` the result, ``t`` (``s``, ``t``) tangents. The tangent of a complex
value is complex; holomorphic rules multiply by the derivative itself, so that <g, jvp(t)> and <vjp(g), t> have one
real part.

This file knows nothing of tensors or traces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tilewright.autodiff import scan, switch
from tilewright.autodiff.vjp import (
    DIVISOR,
    FACTOR,
    JOINT,
    NOT_DIFFERENTIABLE,
    dependent,
    products_of_others,
    repeated_number,
    square_length,
)
from tilewright.graph.attention import decompose_attention
from tilewright.graph.build import (
    add,
    cast,
    compare,
    conj,
    div,
    expand,
    full,
    mul,
    neg,
    ones_like,
    pad,
    reduce_sum,
    square,
    sub,
    unary,
    where,
    zeros_like,
)  # fmt: skip
from tilewright.graph.graph import rebuild
from tilewright.graph.ir import Value, input_value, make

__all__ = ["RULES", "jvp"]

Tangents = Sequence[Value | None]
Rule = Callable[[Value, Tangents], Value | None]

RULES: dict[str, Rule] = {}


def jvp(
    outputs: Sequence[Value], wrt: Sequence[Value], tangents: Sequence[Value | None]
) -> list[Value | None]:
    """The tangents of ``outputs`` when each of ``wrt`` moves by its tangent (``None``: not at all).

    ``tangents[i]`` has the type of ``wrt[i]``. ``wrt`` may hold leaves and interior values; an interior one that
    depends on another of them moves by both, which makes this the transpose of ``vjp``. The result is ``None``
    where an output does not depend on ``wrt`` by a differentiable path.

    >>> from tilewright.graph.ir import input_value
    >>> x, t = input_value(dt.float32, (3,)), input_value(dt.float32, (3,))
    >>> (dy,) = jvp([make("tanh", (x,))], [x], [t])
    >>> dy.type
    float32[3]
    """
    moved: dict[Value, Value] = {}
    for value, tangent in zip(wrt, tangents, strict=True):
        if tangent is None or not value.dtype.is_inexact:
            continue
        if tangent.type != value.type:
            raise ValueError(f"the tangent of a {value.type} has its type, got {tangent.type}")
        moved[value] = _sum(moved.get(value), tangent)  # type: ignore[assignment]
    calls: dict[tuple[object, ...], Mapping[int, Value | None]] = {}
    for value in dependent(outputs, wrt):
        given = [moved.get(v) for v in value.inputs]
        if value.op in NOT_DIFFERENTIABLE or all(t is None for t in given):
            continue
        if value.op in JOINT:  # the rule gives the tangents of all results at once
            call = (value.op, value.inputs, value.attrs[:-1])
            if call not in calls:
                calls[call] = _joint_call(value, given)
            tangent = calls[call].get(value["index"])
        else:
            tangent = RULES[value.op](value, given)
        if tangent is not None:
            moved[value] = _sum(moved.get(value), tangent)  # type: ignore[assignment]
    return [moved.get(v) for v in outputs]


def _sum(a: Value | None, b: Value | None) -> Value | None:
    return a if b is None else b if a is None else add(a, b)


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for name in names:
            RULES[name] = rule
        return rule

    return register


# ---- linear in all operands together: the operation itself, on tangents -----------------------------------------

LINEAR = (
    "neg", "real", "imag", "conj", "reshape", "permute", "broadcast", "slice", "flip", "window", "fold",
    "reduce_sum", "cumsum",
)  # fmt: skip


def _itself(y: Value, tangents: Tangents) -> Value:
    return make(y.op, [t for t in tangents if t is not None], **dict(y.attrs))


RULES.update(dict.fromkeys(LINEAR, _itself))


def _filled(y: Value, tangents: Tangents) -> list[Value]:
    """The tangents with zeros where there is none."""
    return [zeros_like(v) if t is None else t for v, t in zip(y.inputs, tangents, strict=True)]


@_rule("concat", "complex")
def _joined(y: Value, tangents: Tangents) -> Value:
    return make(y.op, _filled(y, tangents), **dict(y.attrs))


@_rule("pad")
def _pad(y: Value, tangents: Tangents) -> Value:
    t, fill = tangents
    x = zeros_like(y.inputs[0]) if t is None else t
    return pad(x, y["low"], y["high"], y["interior"], 0 if fill is None else fill)


@_rule("cast")
def _cast(y: Value, tangents: Tangents) -> Value | None:
    (t,) = tangents
    return None if t is None else cast(t, y.dtype)


@_rule("mark")
def _mark(y: Value, tangents: Tangents) -> Value | None:
    return tangents[0]


@_rule("barrier")
def _barrier(y: Value, tangents: Tangents) -> Value | None:
    return None if tangents[0] is None else make("barrier", (tangents[0], *y.inputs[1:]))


@_rule(*JOINT)
def _joint(y: Value, tangents: Tangents) -> Value | None:
    return _joint_call(y, tangents).get(y["index"])


def _joint_call(y: Value, tangents: Tangents) -> Mapping[int, Value | None]:
    """The tangents of all results of a call, loop or switch, by index."""
    if y.op != "custom":
        pushed = switch.pushed if y.op == "switch" else scan.pushed
        return pushed(y, tangents, jvp, dependent)
    count: int = y["outputs"]
    return dict(enumerate(y["rule"].jvp(y.inputs[:count], y.inputs[count:], tangents[count:])))


# ---- one operand: dy = t * f'(x) --------------------------------------------------------------------------------


def _by_factor(y: Value, tangents: Tangents) -> Value | None:
    (t,) = tangents
    return None if t is None else mul(t, FACTOR[y.op](y.inputs[0], y))


def _by_divisor(y: Value, tangents: Tangents) -> Value | None:
    (t,) = tangents
    return None if t is None else div(t, DIVISOR[y.op](y.inputs[0], y))


RULES.update(dict.fromkeys(FACTOR, _by_factor))
RULES.update(dict.fromkeys(DIVISOR, _by_divisor))


@_rule("abs")
def _abs(y: Value, tangents: Tangents) -> Value | None:
    (x,), (t,) = y.inputs, tangents
    if t is None:
        return None
    if not x.dtype.is_complex:
        return mul(t, unary("sign", x))
    # The share of t along x; 0 at 0.
    return div(unary("real", mul(conj(x), t)), where(compare("eq", y, 0), 1, y))


# ---- several operands -------------------------------------------------------------------------------------------


@_rule("add")
def _add(y: Value, tangents: Tangents) -> Value | None:
    return _sum(*tangents)


@_rule("sub")
def _sub(y: Value, tangents: Tangents) -> Value | None:
    s, t = tangents
    return s if t is None else neg(t) if s is None else sub(s, t)


@_rule("mul")
def _mul(y: Value, tangents: Tangents) -> Value | None:
    (a, b), (s, t) = y.inputs, tangents
    return _sum(None if s is None else mul(s, b), None if t is None else mul(a, t))


@_rule("div")
def _div(y: Value, tangents: Tangents) -> Value | None:
    s, t = tangents
    b = y.inputs[1]
    if t is None:
        return None if s is None else div(s, b)
    change = mul(y, t)
    return neg(div(change, b)) if s is None else div(sub(s, change), b)


@_rule("mod")
def _mod(y: Value, tangents: Tangents) -> Value | None:
    s, t = tangents
    if t is None:
        return s
    share = neg(mul(make("floordiv", y.inputs), t))
    return _sum(s, share)


@_rule("pow")
def _pow(y: Value, tangents: Tangents) -> Value | None:
    (a, b), (s, t) = y.inputs, tangents
    number = repeated_number(b)
    if number is not None and not a.dtype.is_complex:
        return None if s is None else _pow_number(a, s, float(number.real))
    out: Value | None = None
    if s is not None:
        # At b = 0 the factor b makes this zero; an exponent of 0 instead of -1 keeps 0 * inf away.
        out = mul(s, mul(b, make("pow", (a, sub(where(compare("eq", b, 0), 1, b), 1)))))
    if t is not None:
        at_zero = compare("eq", a, 0)
        if not a.dtype.is_complex:
            at_zero = make("bitand", (at_zero, compare("ge", b, 0)))
        out = _sum(out, mul(t, mul(y, unary("log", where(at_zero, 1, a)))))
    return out


def _pow_number(a: Value, s: Value, n: float) -> Value | None:
    if n == 0:
        return None
    if n == 1:
        return s
    power = a if n == 2 else square(a) if n == 3 else make("pow", (a, full(n - 1, a.dtype, a.shape)))
    return mul(s, mul(power, n))


@_rule("atan2")
def _atan2(y: Value, tangents: Tangents) -> Value | None:
    (a, b), (s, t) = y.inputs, tangents  # the angle of the point (b, a)
    turn = _sum(None if s is None else mul(s, b), None if t is None else neg(mul(t, a)))
    return None if turn is None else div(turn, square_length(a, b))


@_rule("maximum", "minimum")
def _extremum(y: Value, tangents: Tangents) -> Value | None:
    """The winner's tangent; at a tie the mean of both, as in reverse mode."""
    (a, b), (s, t) = y.inputs, _filled(y, tangents)
    wins = "gt" if y.op == "maximum" else "lt"
    at_tie = where(compare("eq", a, b), mul(add(s, t), 0.5), 0)
    return where(compare(wins, a, b), s, where(compare(wins, b, a), t, at_tie))


@_rule("copysign")
def _copysign(y: Value, tangents: Tangents) -> Value | None:
    (a, b), s = y.inputs, tangents[0]
    return None if s is None else mul(s, mul(unary("sign", a), make("copysign", (ones_like(b), b))))


@_rule("where")
def _where(y: Value, tangents: Tangents) -> Value:
    _, s, t = tangents
    return where(y.inputs[0], zeros_like(y) if s is None else s, zeros_like(y) if t is None else t)


# ---- reductions -------------------------------------------------------------------------------------------------


@_rule("reduce_max", "reduce_min")
def _reduce_extremum(y: Value, tangents: Tangents) -> Value | None:
    """The mean of the tangents at the chosen element and its ties."""
    (x,), (t,), axes = y.inputs, tangents, y["axes"]
    if t is None:
        return None
    chosen = compare("eq", x, expand(y, axes, x.shape))
    return div(reduce_sum(where(chosen, t, 0), axes), reduce_sum(cast(chosen, t.dtype), axes))


@_rule("reduce_prod")
def _reduce_prod(y: Value, tangents: Tangents) -> Value | None:
    (t,) = tangents
    return None if t is None else reduce_sum(mul(t, products_of_others(y)), y["axes"])


# ---- indexed access ---------------------------------------------------------------------------------------------


@_rule("gather")
def _gather(y: Value, tangents: Tangents) -> Value | None:
    t = tangents[0]
    return None if t is None else make("gather", (t, *y.inputs[1:]), axes=y["axes"])


@_rule("scatter")
def _scatter(y: Value, tangents: Tangents) -> Value | None:
    """``set`` and ``add`` are linear; ``max`` and ``min`` take the mean over all that equal the result."""
    x, updates, *indices = y.inputs
    t, u = _filled(y, tangents)[:2]
    if y["mode"] in ("set", "add"):
        return make("scatter", (t, u, *indices), axes=y["axes"], mode=y["mode"])
    at = make("gather", (y, *indices), axes=y["axes"])
    held, hit = compare("eq", x, y), compare("eq", updates, at)
    total = make("scatter", (where(held, t, 0), where(hit, u, 0), *indices), axes=y["axes"], mode="add")
    count = make("scatter", (cast(held, t.dtype), cast(hit, t.dtype), *indices), axes=y["axes"], mode="add")
    return div(total, where(compare("eq", count, 0), 1, count))


# ---- contractions: linear in each operand -----------------------------------------------------------------------


@_rule("dot", "conv")
def _bilinear(y: Value, tangents: Tangents) -> Value | None:
    (a, b), (s, t) = y.inputs, tangents
    attrs = dict(y.attrs)
    first = None if s is None else make(y.op, (s, b), **attrs)
    return _sum(first, None if t is None else make(y.op, (a, t), **attrs))


# ---- attention --------------------------------------------------------------------------------------------------


@_rule("attention", "attention_grad")
def _attention(y: Value, tangents: Tangents) -> Value | None:
    """Through the decomposition, whose operands are leaves meanwhile: what depends on what among the real ones is accounted for
    already."""
    given = [t for t in tangents if t is not None]
    leaves = [input_value(x.dtype, x.shape) for x in y.inputs]
    moves = [None if t is None else input_value(t.dtype, t.shape) for t in tangents]
    plain = decompose_attention(make(y.op, leaves, **dict(y.attrs)))
    (found,) = jvp([plain], leaves, moves)
    if found is None:
        return None
    real = dict(zip([*leaves, *(m for m in moves if m is not None)], [*y.inputs, *given], strict=True))
    return rebuild([found], real)[0]

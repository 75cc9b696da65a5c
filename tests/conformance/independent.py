"""What every operation means, said a second time and in another way, to check the reference itself.

Elementwise operations are computed one Python number at a time; integers with unbounded arithmetic, wrapped
at the end; floats in float64 (or longer). Structured operations are loops over positions, or other NumPy
routes.
"""

from __future__ import annotations

import cmath
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType

Array = np.ndarray[Any, Any]
Attrs = Mapping[str, Any]
Independent = Callable[[Sequence[Array], Attrs], Array]

INDEPENDENT: dict[str, Independent] = {}


def _says(*names: str) -> Callable[[Independent], Independent]:
    def add(function: Independent) -> Independent:
        for name in names:
            INDEPENDENT[name] = function
        return function

    return add


# ---- elementwise, one number at a time ---------------------------------------------------------------------


def _wrap(n: int, to: DType) -> int:
    n &= (1 << to.bits) - 1
    return n - (1 << to.bits) if to.kind == "i" and n >> (to.bits - 1) else n


def _shift_left(a: int, b: int, width: int) -> int:
    return a << b if 0 <= b < width else 0


def _shift_right(a: int, b: int, width: int) -> int:
    return a >> (b if 0 <= b < width else width)


def _integer_power(a: int, b: int, width: int) -> int:
    if b >= 0:
        return pow(a, b, 1 << width) if abs(a) > 1 else a**b if b < 2 else (a if b % 2 else a * a)
    return {1: 1, -1: -1 if b % 2 else 1}.get(a, 0)


INTEGER: dict[str, Callable[..., Any]] = {
    "neg": lambda a, w: -a,
    "abs": lambda a, w: abs(a),
    "sign": lambda a, w: (a > 0) - (a < 0),
    "invert": lambda a, w: ~a,
    "add": lambda a, b, w: a + b,
    "sub": lambda a, b, w: a - b,
    "mul": lambda a, b, w: a * b,
    "floordiv": lambda a, b, w: a // b if b else 0,
    "mod": lambda a, b, w: a % b if b else 0,
    "pow": _integer_power,
    "maximum": lambda a, b, w: max(a, b),
    "minimum": lambda a, b, w: min(a, b),
    "bitand": lambda a, b, w: a & b,
    "bitor": lambda a, b, w: a | b,
    "bitxor": lambda a, b, w: a ^ b,
    "shl": _shift_left,
    "shr": _shift_right,
}
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
}


def _propagate(choose: Callable[[float, float], float]) -> Callable[[float, float], float]:
    return lambda a, b: math.nan if math.isnan(a) or math.isnan(b) else choose(a, b)


def _float_mod(a: float, b: float) -> float:
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or b == 0:
        return math.nan
    rest = math.fmod(a, b)
    return rest + b if rest and (rest < 0) != (b < 0) else rest


def _float_floordiv(a: float, b: float) -> float:
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1, b)
    if math.isnan(a) or math.isnan(b) or math.isinf(a):
        return math.nan
    if math.isinf(b):
        return 0.0 if a == 0 or (a < 0) == (b < 0) else -1.0
    return float(np.floor(np.longdouble(a) / np.longdouble(b)))


REAL: dict[str, Callable[..., float]] = {
    "neg": lambda a: -a,
    "abs": abs,
    "sign": lambda a: math.nan if math.isnan(a) else float((a > 0) - (a < 0)),
    "exp2": lambda a: 2.0**a,
    "log2": math.log2,
    "log10": math.log10,
    "rsqrt": lambda a: 1 / math.sqrt(a),
    "erf": math.erf,
    "expm1": math.expm1,
    "log1p": math.log1p,
    "floor": lambda a: float(math.floor(a)) if math.isfinite(a) else a,
    "ceil": lambda a: float(math.ceil(a)) if math.isfinite(a) else a,
    "round": lambda a: float(round(a)) if math.isfinite(a) else a,
    "trunc": lambda a: float(math.trunc(a)) if math.isfinite(a) else a,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "floordiv": _float_floordiv,
    "mod": _float_mod,
    "pow": lambda a, b: math.pow(a, b),
    "atan2": math.atan2,
    "maximum": _propagate(max),
    "minimum": _propagate(min),
    "copysign": math.copysign,
    "sigmoid": lambda a: math.exp(a) / (1 + math.exp(a)) if a < 0 else 1 / (1 + math.exp(-a)),
    **{
        name: getattr(math, name)
        for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan")
    },
    **{name: getattr(math, name) for name in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
}
COMPLEX: dict[str, Callable[..., Any]] = {
    "neg": lambda a: -a,
    "abs": abs,
    "real": lambda a: a.real,
    "imag": lambda a: a.imag,
    "conj": lambda a: a.conjugate(),
    "expm1": lambda a: cmath.exp(a) - 1,
    "log1p": lambda a: cmath.log(1 + a),
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    **{
        name: getattr(cmath, name)
        for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "asin", "acos", "atan")
    },
    **{name: getattr(cmath, name) for name in ("sinh", "cosh", "tanh", "asinh", "acosh", "atanh")},
}


def _numbers(x: Array) -> list[Any]:
    kind = dt.from_numpy(x.dtype)
    return list((x.astype(np.float64) if kind.is_float else x).ravel().tolist())


def _guarded(function: Callable[..., Any], args: Sequence[Any]) -> Any:
    """None where Python raises: IEEE arithmetic gives NaN or infinity there, which is left out."""
    try:
        return function(*args)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None


def _elementwise(op: str) -> Independent:
    def apply(arrays: Sequence[Array], attrs: Attrs) -> Array:
        kind = dt.from_numpy(arrays[-1].dtype)
        columns = [_numbers(a) for a in arrays]
        shape = arrays[0].shape
        out: list[Any]
        if op == "where":
            out = [a if c else b for c, a, b in zip(*columns, strict=True)]
        elif op == "complex":
            out = [complex(a, b) for a, b in zip(*columns, strict=True)]
        elif op in COMPARE:
            out = [COMPARE[op](a, b) for a, b in zip(*columns, strict=True)]
        elif kind.is_bool:
            out = [bool(INTEGER[op](*map(int, row), 1) & 1) for row in zip(*columns, strict=True)]
        elif kind.is_integer:
            out = [_wrap(INTEGER[op](*row, kind.bits), kind) for row in zip(*columns, strict=True)]
        else:
            table = COMPLEX if kind.is_complex else REAL
            out = [_guarded(table[op], row) for row in zip(*columns, strict=True)]
        return np.array(out, object).reshape(shape)

    return apply


ELEMENTWISE = sorted({*INTEGER, *COMPARE, *REAL, *COMPLEX, "where", "complex"})
INDEPENDENT.update({op: _elementwise(op) for op in ELEMENTWISE})


# ---- leaves and types --------------------------------------------------------------------------------------


@_says("constant")
def _constant(x: Sequence[Array], a: Attrs) -> Array:
    return np.full((), a["value"], a["dtype"].numpy)


@_says("iota")
def _iota(x: Sequence[Array], a: Attrs) -> Array:
    out = np.empty(a["shape"], np.int64)
    for place in np.ndindex(*a["shape"]):
        out[place] = place[a["axis"]]
    return out.astype(a["dtype"].numpy)


@_says("random_bits")
def _random_bits(x: Sequence[Array], a: Attrs) -> Array:
    """Threefry-2x32-20 on Python integers."""
    mask = 0xFFFFFFFF
    rotations = (13, 15, 26, 6, 17, 29, 16, 24)
    out = []
    for (k0, k1), (s0, s1) in zip(x[0].reshape(-1, 2).tolist(), x[1].reshape(-1, 2).tolist(), strict=True):
        keys = (k0, k1, k0 ^ k1 ^ 0x1BD11BDA)
        for n in range(math.prod(a["shape"])):
            n += s0 + (s1 << 32)
            a0, a1 = ((n & mask) + k0) & mask, ((n >> 32) + k1) & mask
            for r in range(20):
                a0 = (a0 + a1) & mask
                s = rotations[r % 8]
                a1 = (((a1 << s) | (a1 >> (32 - s))) & mask) ^ a0
                if r % 4 == 3:
                    g = r // 4 + 1
                    a0, a1 = (a0 + keys[g % 3]) & mask, (a1 + keys[(g + 1) % 3] + g) & mask
            out.append((a0, a1)[a["word"]])
    return np.array(out, np.uint32).reshape((*x[0].shape[:-1], *a["shape"]))


@_says("cast")
def _cast(x: Sequence[Array], a: Attrs) -> Array:
    to: DType = a["dtype"]
    return np.array([_cast_one(v, to) for v in _numbers(x[0])], object).reshape(x[0].shape)


def _cast_one(v: Any, to: DType) -> Any:
    if to.is_bool:
        return v != 0
    v = v.real if isinstance(v, complex) and not to.is_complex else v
    if not to.is_integer:
        return v
    if isinstance(v, int):
        return _wrap(v, to)
    low = -(1 << (to.bits - 1)) if to.kind == "i" else 0
    high = low + (1 << to.bits) - 1
    return 0 if math.isnan(v) else low if v <= low else high if v >= high else int(v)


@_says("bitcast")
def _bitcast(x: Sequence[Array], a: Attrs) -> Array:
    return np.frombuffer(x[0].tobytes(), a["dtype"].numpy).reshape(x[0].shape)


# ---- movement ----------------------------------------------------------------------------------------------


def _fill(x: Array, shape: Sequence[int], source: Callable[..., Any]) -> Array:
    """Every element from its position: the value that ``source(*position)`` gives."""
    out = np.empty(tuple(shape), x.dtype)
    for place in np.ndindex(*out.shape):
        out[place] = source(*place)
    return out


@_says("reshape")
def _reshape(x: Sequence[Array], a: Attrs) -> Array:
    flat = [x[0][p] for p in np.ndindex(*x[0].shape)]
    return np.array(flat, x[0].dtype).reshape(a["shape"])


@_says("permute")
def _permute(x: Sequence[Array], a: Attrs) -> Array:
    axes = a["axes"]
    return _fill(
        x[0],
        [x[0].shape[i] for i in axes],
        lambda *p: x[0][tuple(p[axes.index(i)] for i in range(len(axes)))],
    )


@_says("broadcast")
def _broadcast(x: Sequence[Array], a: Attrs) -> Array:
    lead = len(a["shape"]) - x[0].ndim
    return _fill(
        x[0],
        a["shape"],
        lambda *p: x[0][tuple(i if n > 1 else 0 for i, n in zip(p[lead:], x[0].shape, strict=True))],
    )


@_says("slice")
def _slice(x: Sequence[Array], a: Attrs) -> Array:
    ranges = [range(*r) for r in zip(a["start"], a["stop"], a["step"], strict=True)]
    return _fill(
        x[0], [len(r) for r in ranges], lambda *p: x[0][tuple(r[i] for r, i in zip(ranges, p, strict=True))]
    )


@_says("pad")
def _pad(x: Sequence[Array], a: Attrs) -> Array:
    shape = [
        low + max(n + (n - 1) * gap, 0) + high
        for n, low, high, gap in zip(x[0].shape, a["low"], a["high"], a["interior"], strict=True)
    ]
    out = np.full(shape, x[1])
    for p in np.ndindex(*x[0].shape):
        out[tuple(low + i * (gap + 1) for i, low, gap in zip(p, a["low"], a["interior"], strict=True))] = x[
            0
        ][p]
    return out


@_says("flip")
def _flip(x: Sequence[Array], a: Attrs) -> Array:
    shape = x[0].shape
    return _fill(
        x[0],
        shape,
        lambda *p: x[0][tuple(shape[i] - 1 - q if i in a["axes"] else q for i, q in enumerate(p))],
    )


@_says("concat")
def _concat(x: Sequence[Array], a: Attrs) -> Array:
    rows = [row for part in x for row in np.moveaxis(part, a["axis"], 0)]
    if not rows:
        return x[0].copy()
    return np.stack(rows, a["axis"])


def _windowed(
    shape: Sequence[int], a: Attrs, size: Sequence[int]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(position in the windows, position in the array) of every element of every window."""
    out = list(shape)
    for axis, k, s, d in zip(a["axes"], size, a["stride"], a["dilation"], strict=True):
        out[axis] = len(range(0, shape[axis] - (k - 1) * d, s))
    pairs = []
    for p, k in itertools.product(np.ndindex(*out), list(np.ndindex(*size))):
        at = list(p)
        for axis, inner, s, d in zip(a["axes"], k, a["stride"], a["dilation"], strict=True):
            at[axis] = p[axis] * s + inner * d
        pairs.append(((*p, *k), tuple(at)))
    return pairs


@_says("window")
def _window(x: Sequence[Array], a: Attrs) -> Array:
    shape = list(x[0].shape)
    for axis, k, s, d in zip(a["axes"], a["size"], a["stride"], a["dilation"], strict=True):
        shape[axis] = len(range(0, shape[axis] - (k - 1) * d, s))
    out = np.empty((*shape, *a["size"]), x[0].dtype)
    for target, source in _windowed(x[0].shape, a, a["size"]):
        out[target] = x[0][source]
    return out


# ---- reductions and scans ----------------------------------------------------------------------------------


def _exact(x: Array) -> Array:
    """Wide enough to add up without an error that matters, or Python's integers."""
    kind = dt.from_numpy(x.dtype)
    return x.astype(object) if kind.is_integer else x.astype(np.complex128 if kind.is_complex else np.float64)


def _reduction(combine: Callable[[Any, Any], Any], start: Any) -> Independent:
    def apply(x: Sequence[Array], a: Attrs) -> Array:
        wide = _exact(x[0])
        kept = [i for i in range(wide.ndim) if i not in a["axes"]]
        out = np.empty([wide.shape[i] for i in kept], object)
        moved = wide.transpose([*kept, *a["axes"]])
        for place in np.ndindex(*out.shape):
            total = start
            for number in np.asarray(moved[place], object).ravel().tolist():
                total = number if total is None else combine(total, number)
            out[place] = total
        return out

    return apply


INDEPENDENT["reduce_sum"] = _reduction(lambda a, b: a + b, 0)
INDEPENDENT["reduce_prod"] = _reduction(lambda a, b: a * b, 1)
INDEPENDENT["reduce_max"] = _reduction(lambda a, b: a if a != a or a >= b else b, None)
INDEPENDENT["reduce_min"] = _reduction(lambda a, b: a if a != a or a <= b else b, None)


def _arg(better: Callable[[Any, Any], bool]) -> Independent:
    def apply(x: Sequence[Array], a: Attrs) -> Array:
        rows = np.moveaxis(x[0], a["axis"], -1)
        out = np.empty(rows.shape[:-1], np.int64)
        for place in np.ndindex(*out.shape):
            best, numbers = 0, _numbers(rows[place])
            for i, v in enumerate(numbers):
                held = numbers[best]
                if held == held and (v != v or better(v, held)):
                    best = i
            out[place] = best
        return out

    return apply


INDEPENDENT["argmax"] = _arg(lambda v, held: v > held)
INDEPENDENT["argmin"] = _arg(lambda v, held: v < held)


@_says("cumsum")
def _cumsum(x: Sequence[Array], a: Attrs) -> Array:
    rows = np.moveaxis(_exact(x[0]), a["axis"], 0)
    out = np.empty(rows.shape, object)
    for i in range(len(rows)):
        out[i] = (rows[i:] if a["reverse"] else rows[: i + 1]).sum(0)
    return np.moveaxis(out, 0, a["axis"])


@_says("scan")
def _scan(x: Sequence[Array], a: Attrs) -> Array:
    """The loop of ``cases.scan_body``, written out."""
    c, h, p, xs = x
    stacked = np.zeros_like(xs)
    for i in sorted(range(a["length"]), reverse=a["reverse"]):
        new = h * c + xs[i]
        stacked[i] = new * p
        h, p = new, h
    return [h, p, stacked][a["index"]]


@_says("while_loop")
def _while_loop(x: Sequence[Array], a: Attrs) -> Array:
    """The loop of ``cases.while_body``, written out."""
    c, go, n, p, q = x
    while go:
        n, p, q = n + np.int32(1), q, p + c * q
        go = n < 5
    return [np.asarray(go), np.asarray(n), p, q][a["index"]]


@_says("switch")
def _switch(x: Sequence[Array], a: Attrs) -> Array:
    """The branches of ``cases.switch_branches``, written out."""
    n, c, y = x
    with np.errstate(over="ignore"):
        results = [
            (y * c, y.sum(dtype=y.dtype)),
            (c, c[0] * y[1]),
            (y, (y * c).sum(dtype=y.dtype) * y.sum(dtype=y.dtype)),
        ]
    return np.asarray(results[min(max(int(n), 0), 2)][a["index"]])


@_says("fold")
def _fold(x: Sequence[Array], a: Attrs) -> Array:
    rank = x[0].ndim - len(a["axes"])
    shape = list(x[0].shape[:rank])
    for axis, size in zip(a["axes"], a["size"], strict=True):
        shape[axis] = size
    wide = _exact(x[0])
    out = np.zeros(shape, wide.dtype)
    for source, target in _windowed(shape, a, x[0].shape[rank:]):
        out[target] += wide[source]
    return out


# ---- indexed access ----------------------------------------------------------------------------------------


def _places(
    rank: int, axes: Sequence[int], indices: Sequence[Array]
) -> list[tuple[tuple[int, ...], list[Any]]]:
    """(position among the indices, the addressed position with slices elsewhere)."""
    out = []
    for p in np.ndindex(*indices[0].shape):
        where: list[Any] = [slice(None)] * rank
        for axis, index in zip(axes, indices, strict=True):
            where[axis] = int(index[p])
        out.append((p, where))
    return out


@_says("gather")
def _gather(x: Sequence[Array], a: Attrs) -> Array:
    rest = [n for i, n in enumerate(x[0].shape) if i not in a["axes"]]
    out = np.empty([*x[1].shape, *rest], x[0].dtype)
    for p, where in _places(x[0].ndim, a["axes"], x[1:]):
        out[p] = x[0][tuple(where)]
    return out


@_says("scatter")
def _scatter(x: Sequence[Array], a: Attrs) -> Array:
    out = x[0].copy() if a["mode"] != "add" else _exact(x[0])
    join: dict[str, Callable[[Any, Any], Any]] = {
        "set": lambda old, new: new,
        "add": lambda old, new: old + new,
        "max": lambda old, new: np.where(old > new, old, new),
        "min": lambda old, new: np.where(old < new, old, new),
    }
    updates = x[1] if a["mode"] != "add" else _exact(x[1])
    for p, where in _places(x[0].ndim, a["axes"], x[2:]):
        out[tuple(where)] = join[a["mode"]](out[tuple(where)], updates[p])
    return out


# ---- contractions ------------------------------------------------------------------------------------------


@_says("dot")
def _dot(x: Sequence[Array], a: Attrs) -> Array:
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    left = [next(letters) for _ in range(x[0].ndim)]
    right = [next(letters) for _ in range(x[1].ndim)]
    for i, j in (
        *zip(a["lhs_contract"], a["rhs_contract"], strict=True),
        *zip(a["lhs_batch"], a["rhs_batch"], strict=True),
    ):
        right[j] = left[i]
    taken = {*a["lhs_contract"], *a["lhs_batch"]}, {*a["rhs_contract"], *a["rhs_batch"]}
    out = [left[i] for i in a["lhs_batch"]]
    for names, used in ((left, taken[0]), (right, taken[1])):
        out += [c for i, c in enumerate(names) if i not in used]
    kind = _contraction_dtype(x[0], a["dtype"])
    return np.einsum(
        f"{''.join(left)},{''.join(right)}->{''.join(out)}", x[0].astype(kind), x[1].astype(kind)
    )


def _contraction_dtype(x: Array, result: DType) -> Any:
    kind = dt.from_numpy(x.dtype)
    if kind.is_integer:
        return dt.promote(kind, result).numpy
    return np.complex128 if kind.is_complex else np.float64


@_says("conv")
def _conv(x: Sequence[Array], a: Attrs) -> Array:
    image, kernel = (v.astype(_contraction_dtype(v, a["dtype"])) for v in x)
    filters, per_group, *size = kernel.shape
    out_shape = []
    for n, k, s, (low, high), ld, rd in zip(
        image.shape[2:], size, a["stride"], a["padding"], a["lhs_dilation"], a["rhs_dilation"], strict=True
    ):
        out_shape.append(len(range(0, (n - 1) * ld + 1 + low + high - (k - 1) * rd, s)))
    out = np.zeros((image.shape[0], filters, *out_shape), image.dtype)
    group = np.arange(filters) // (filters // a["groups"])
    channels = group[:, None] * per_group + np.arange(per_group)  # the channels that each filter reads
    for p, k in itertools.product(np.ndindex(*out_shape), list(np.ndindex(*size))):
        at = []
        for i, q, s, (low, _), ld, rd, n in zip(
            p,
            k,
            a["stride"],
            a["padding"],
            a["lhs_dilation"],
            a["rhs_dilation"],
            image.shape[2:],
            strict=True,
        ):
            where = i * s + q * rd - low
            at.append(where // ld if where % ld == 0 and 0 <= where < (n - 1) * ld + 1 else None)
        if None not in at:
            seen = image[(slice(None), channels, *at)]  # [n, filters, c/groups]
            out[(..., *p)] += (seen * kernel[(slice(None), slice(None), *k)]).sum(-1)
    return out


# ---- attention ---------------------------------------------------------------------------------------------


def _scores(query: Array, key: Array, a: Attrs, t: int) -> Array:
    """The scores of query ``t`` with the keys it sees."""
    seen = min(t + 1, len(key)) if a["causal"] else len(key)
    return np.asarray(key[:seen].astype(np.float64) @ query[t].astype(np.float64) * a["scale"])


@_says("attention")
def _attention(x: Sequence[Array], a: Attrs) -> Array:
    query, key, value = x
    out = np.zeros(query.shape[: -1 if a["result"] == "lse" else None])
    for place in np.ndindex(*query.shape[:-1]):
        scores = _scores(query[place[:-1]], key[place[:-1]], a, place[-1])
        total = math.log(math.fsum(math.exp(s) for s in scores))
        mix = sum(math.exp(s - total) * value[place[:-1]][j].astype(np.float64) for j, s in enumerate(scores))
        out[place] = total if a["result"] == "lse" else mix
    return out


@_says("attention_grad")
def _attention_grad(x: Sequence[Array], a: Attrs) -> Array:
    query, key, value, g, lse, delta = (v.astype(np.float64) for v in x)
    out = np.zeros((query, key, value)["qkv".index(a["wrt"])].shape)
    for place in np.ndindex(*query.shape[:-1]):
        head, t = place[:-1], place[-1]
        for j, score in enumerate(_scores(query[head], key[head], a, t)):
            weight = math.exp(score - lse[place])
            change = weight * (float(g[place] @ value[head][j]) - delta[place]) * a["scale"]
            if a["wrt"] == "q":
                out[place] += change * key[head][j]
            else:
                out[(*head, j)] += change * query[place] if a["wrt"] == "k" else weight * g[place]
    return out

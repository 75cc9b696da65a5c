"""Random, well-conditioned graphs with data.

A graph grows operation by operation, and every new value is computed at once: by the reference in its own types, and
as two shadows in float64 whose every operation errs at random, as much as rounding may. The distance from the shadows
measures how much rounding errors have grown, so that a tolerance needs no analysis; values that overflow or lose their
digits are not taken up. Operations with jumps (comparisons, rounding, conversion to integers) are applied only to
values that every correct implementation computes exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from conformance.cases import Array, draw

from tilewright.autodiff.vjp import vjp
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS
from tilewright.core.shape import Shape, broadcast_shapes, product, static
from tilewright.graph import build
from tilewright.graph.graph import Graph
from tilewright.graph.ir import Value, constant, input_value, make, topological
from tilewright.graph.reference import MEANING, evaluate

MOST_ELEMENTS = 4000
LEAF_TYPES = (
    *(dt.float32,) * 10, dt.float64, dt.float64, dt.bfloat16, dt.float16, dt.int32, dt.int64, dt.int32,
    dt.bool_, dt.uint8, dt.int8, dt.uint32, dt.complex64,
)  # fmt: skip
SIZES = (1, 1, 2, 3, 4, 5, 7, 8, 13, 16, 17, 32, 33)

# Elementwise operations whose result is the same bits in every correct implementation, given the same bits.
EXACT = (
    "neg", "abs", "sign", "floor", "ceil", "round", "trunc", "maximum", "minimum", "copysign", "eq", "ne",
    "lt", "le", "gt", "ge", "where", "real", "imag", "conj", "complex",
)  # fmt: skip
JUMPS = (
    "sign",
    "floor",
    "ceil",
    "round",
    "trunc",
    "copysign",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "mod",
    "floordiv",
)
ACCUMULATING = ("reduce_sum", "cumsum", "fold", "dot", "conv")
# Operations that need their operand (the last one) in a range.
WITHIN: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("log", "log2", "log10", "sqrt", "rsqrt", "div"), (0.05, 1e3)),
    **dict.fromkeys(("exp", "exp2", "expm1", "sinh", "cosh"), (-20.0, 5.0)),
    **dict.fromkeys(("sin", "cos"), (-30.0, 30.0)),
    **dict.fromkeys(("asin", "acos", "atanh"), (-0.9, 0.9)),
    "acosh": (1.1, 1e3),
    "log1p": (-0.9, 1e3),
    "tan": (-1.2, 1.2),
    "pow": (0.1, 4.0),  # both operands
}


@dataclass
class RandomGraph:
    """A graph with the arrays of its inputs; for each value its array, its shadows, and whether it is exact."""

    seed: int
    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    arrays: dict[Value, Array] = field(default_factory=dict)
    shadows: dict[Value, list[Array]] = field(default_factory=dict)
    exact: set[Value] = field(default_factory=set)

    def tolerance(self, value: Value) -> float:
        """The absolute error that an implementation may have: what rounding does here, many times over."""
        if value in self.exact:
            return 0.0
        array = self.arrays[value]
        many = 4 if value.dtype.bits == 16 else 16
        return many * (error(array, self.shadows[value]) + largest(array) * eps(value.dtype))

    def graph(self) -> Graph:
        return Graph(tuple(self.inputs), tuple(self.outputs))


def error(array: Array, shadows: Sequence[Array]) -> float:
    """The largest distance of a computed array from its shadows."""
    with np.errstate(all="ignore"):
        return max(largest(array.astype(shadow.dtype) - shadow) for shadow in shadows)


def largest(array: Array) -> float:
    """The largest magnitude of an element, 0 when there is none."""
    return float(np.max(np.abs(array.astype(np.complex128)), initial=0))


def eps(dtype: DType) -> float:
    """The distance from 1 to the next number."""
    return float(ml_dtypes.finfo(dtype.numpy).eps)


def random_graph(seed: int, size: int = 20) -> RandomGraph:
    """The graph of this seed: about ``size`` operations and one to four outputs."""
    grower = _Grower(seed)
    for _ in range(2 + size // 8):
        grower.leaf(grower.shape())
    for _ in range(size * 4):
        if len(grower.pool) - len(grower.out.inputs) >= size:
            break
        try:
            grower.step()
        except (ValueError, TypeError):  # operands that do not fit: draw again
            continue
    return grower.finish()


class _Grower:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.noise = np.random.default_rng([seed, 1])
        self.out = RandomGraph(seed)
        self.pool: list[Value] = []
        self.steps: list[tuple[int, Callable[[], Value | None]]] = [
            (30, self.elementwise), (14, self.movement), (8, self.reduction), (7, self.dot), (4, self.cast),
            (4, self.row_program), (3, self.indexed), (3, self.window), (2, self.convolution),
            (2, self.cumsum), (2, self.number), (2, self.gradient), (1, self.random),
        ]  # fmt: skip

    # ---- drawing

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, items: Sequence[Any]) -> Any:
        return items[int(self.rng.integers(len(items)))]

    def shape(self) -> tuple[int, ...]:
        rank = int(self.pick((0, 1, 1, 2, 2, 2, 3, 3, 4)))
        shape = tuple(int(self.pick(SIZES)) for _ in range(rank))
        if self.chance(0.02) and rank:
            shape = (*shape[:-1], 0)
        return shape if product(shape) <= MOST_ELEMENTS else shape[:2]

    def value(self, accept: Callable[[Value], bool] = lambda v: True) -> Value:
        """A value that is accepted, recent ones more often; ``ValueError`` when there is none."""
        fit = [v for v in self.pool if accept(v)]
        if not fit:
            raise ValueError("nothing fits")
        recent = fit[-6:] if self.chance(0.6) else fit
        chosen: Value = self.pick(recent)
        return chosen

    def leaf(self, shape: Shape, dtype: DType | None = None, array: Array | None = None) -> Value:
        dtype = dtype or self.pick(LEAF_TYPES)
        if array is None:
            array = draw(self.rng, dtype, static(shape), -2, 2)
            if dtype.is_float and self.chance(0.3):
                array = np.asarray(np.round(array.astype(np.float64))).astype(
                    dtype.numpy
                )  # with ties and zeros
        leaf = input_value(dtype, shape)
        self.out.inputs.append(leaf)
        self._keep(leaf, array, [_widen(array)], exact=True)
        return leaf

    # ---- growing

    def step(self) -> None:
        weights = np.array([w for w, _ in self.steps], float)
        _, function = self.steps[int(self.rng.choice(len(self.steps), p=weights / weights.sum()))]
        value = function()
        if value is not None:
            self.admit(value)

    def admit(self, value: Value) -> bool:
        """Compute the value and all that is new on the way to it; take it up when it is well conditioned."""
        new = topological([value], stop=self.out.arrays.__contains__)
        for v in new:
            if v not in self.out.arrays and not self._compute(v):
                return False
        if value not in self.pool:
            self.pool.append(value)
        return True

    def _compute(self, v: Value) -> bool:
        if v.type.size > 4 * MOST_ELEMENTS:
            return False
        known = self.out.arrays
        try:
            (array,) = evaluate([v], {i: known[i] for i in v.inputs})
        except IndexError:
            return False
        exact = self._is_exact(v)
        if not exact and v.op in JUMPS:
            return False
        shadows = [_widen(array)] if exact else [self._shadow(v, k) for k in range(2)]
        if v.dtype.is_inexact and array.size:
            size, lost = largest(array), error(array, shadows)
            digits = 1e-3 if v.dtype.bits > 16 else 3e-2
            if not (np.all(np.isfinite(array)) and size < 1e4 and lost <= digits * size):
                return False
        self._keep(v, array, shadows, exact, pool=False)
        return True

    def _shadow(self, v: Value, k: int) -> Array:
        """The operation on the operands' shadows in float64, with an error of the size that rounding may have."""
        attrs = {n: dt.float64 if isinstance(a, DType) and a.is_float else a for n, a in v.attrs}
        operands = [self.out.shadows[i][-1 if k else 0] for i in v.inputs]
        with np.errstate(all="ignore"):
            shadow = _widen(np.asarray(MEANING[v.op](operands, attrs)))
            noise = np.abs(shadow) * eps(v.dtype)
            if v.op in ACCUMULATING:  # in proportion to all that is added, in the accumulating type
                terms = [np.abs(x) if x.dtype.kind in "fc" else x for x in operands]
                noise = noise + np.abs(MEANING[v.op](terms, attrs)) * min(eps(v.dtype), eps(dt.float32))
            return np.asarray(shadow + noise * self.noise.uniform(-1, 1, shadow.shape))

    def _is_exact(self, v: Value) -> bool:
        if not all(i in self.out.exact for i in v.inputs):
            return not v.dtype.is_inexact and v.op not in (*JUMPS, "cast", "argmax", "argmin")
        if not v.dtype.is_inexact:
            return True
        if v.op in SCALAR_OPS:
            return v.op in EXACT and not (v.op == "abs" and v.inputs[0].dtype.is_complex)
        if v.op == "cast":
            source = v.inputs[0].dtype
            # Numbers that do not fit may be rounded in two steps.
            return source.bits < v.dtype.bits if source.is_integer else source.bits - v.dtype.bits <= 32
        return v.op not in (*ACCUMULATING, "reduce_prod") and not (v.op == "scatter" and v["mode"] == "add")

    def _keep(self, v: Value, array: Array, shadows: list[Array], exact: bool, pool: bool = True) -> None:
        self.out.arrays[v], self.out.shadows[v] = array, shadows
        if exact:
            self.out.exact.add(v)
        if pool:
            self.pool.append(v)

    def finish(self) -> RandomGraph:
        made = [v for v in self.pool if v.op != "input"] or self.pool
        used = {i for v in topological(made) for i in v.inputs}
        loose = [v for v in made if v not in used]
        count = int(self.rng.integers(1, 5))
        chosen = [loose[i] for i in self.rng.permutation(len(loose))[:count]] + [self.pick(made)]
        self.out.outputs = list(dict.fromkeys(chosen))
        needed = set(topological(self.out.outputs))
        self.out.inputs = [v for v in self.out.inputs if v in needed or self.chance(0.1)]
        return self.out

    # ---- operations

    def elementwise(self) -> Value | None:
        a = self.value()
        rows = [r for r in SCALAR_OPS.values() if a.dtype.kind in r.kinds]
        row = self.pick(rows)
        if a not in self.out.exact and row.name in JUMPS:
            return None
        if row.name in ("pow", "shl") and a.dtype.is_integer:
            return None  # wraps soon, and then all that follows is noise
        low, high = WITHIN.get(row.name, (-np.inf, np.inf))
        if row.arity == 1:
            return build.unary(row.name, self._clamp(a, low, high))
        alone = self.chance(0.1)  # an operation of a value with itself
        b = self.value(
            lambda v: v.dtype is a.dtype and (alone or v is not a) and _broadcasts(a.shape, v.shape)
        )
        b = self._clamp(b, low, high)
        a = self._clamp(a, low, high) if row.name == "pow" else a
        shape = broadcast_shapes((a.shape, b.shape))
        operands = [build.broadcast(v, shape) for v in (a, b)]
        if row.name == "where":
            c = self.value(lambda v: v.dtype.is_bool and _broadcasts(v.shape, shape))
            shape = broadcast_shapes((c.shape, shape))
            operands = [build.broadcast(v, shape) for v in (c, *operands)]
        return make(row.name, operands)

    def _clamp(self, v: Value, low: float, high: float) -> Value:
        """The value when it lies in the range, else brought into it; ``ValueError`` if it is complex."""
        if low == -np.inf:
            return v
        if v.dtype.is_complex:
            raise ValueError("complex numbers have no order")
        if self._within(v, low, high):
            return v
        above = make("maximum", (v, build.full_like(v, max(low, -3.0))))
        return make("minimum", (above, build.full_like(v, min(high, 3.0))))

    def _within(self, v: Value, low: float, high: float) -> bool:
        if v.dtype.is_complex:
            return low == -np.inf
        wide = self.out.arrays[v].astype(np.float64)
        return bool(np.all((wide >= low) & (wide <= high)))

    def number(self) -> Value | None:
        a = self.value(lambda v: not v.dtype.is_bool)
        b = constant(int(self.rng.integers(1, 4)), a.dtype)
        op = self.pick(("add", "sub", "mul", "maximum") if not a.dtype.is_complex else ("add", "sub", "mul"))
        return make(op, (a, build.broadcast(b, a.shape)))

    def cast(self) -> Value | None:
        a = self.value()
        to = self.pick(dt.ALL)
        if a not in self.out.exact and not to.is_inexact:
            return None
        if a.dtype.is_float and to.is_integer and not self._within(a, -100, 100):
            return None
        return build.cast(a, to)

    def movement(self) -> Value | None:
        a = self.value(lambda v: v.type.rank > 0)
        shape = static(a.shape)
        kind = self.pick(("reshape", "permute", "broadcast", "slice", "slice", "pad", "flip", "concat"))
        if kind == "reshape":
            return build.reshape(a, self._refactor(shape))
        if kind == "permute":
            return build.permute(a, [int(i) for i in self.rng.permutation(len(shape))])
        if kind == "broadcast":
            grown = tuple(int(self.pick((2, 3, 5))) if n == 1 else n for n in shape)
            return build.broadcast(a, (int(self.pick((1, 2, 3))), *grown) if self.chance(0.5) else grown)
        if kind == "slice":
            start = [int(self.rng.integers(0, n // 2 + 1)) for n in shape]
            stop = [
                int(self.rng.integers(s, n + 1)) if self.chance(0.3) else n
                for s, n in zip(start, shape, strict=True)
            ]
            return build.slice_(a, start, stop, [int(self.pick((1, 1, 1, 2, 3))) for _ in shape])
        if kind == "pad":
            low, high, gap = ([int(self.pick((0, 0, 1, 2))) for _ in shape] for _ in range(3))
            gap = gap if self.chance(0.3) else [0] * len(shape)
            return build.pad(a, low, high, gap, constant(int(self.chance(0.3)), a.dtype))
        if kind == "flip":
            return make("flip", (a,), axes=tuple(i for i in range(len(shape)) if self.chance(0.6)))
        axis = int(self.rng.integers(len(shape)))
        off = [i for i in range(len(shape)) if i != axis]
        b = self.value(
            lambda v: (
                v.dtype is a.dtype and v.type.rank == len(shape) and all(v.shape[i] == shape[i] for i in off)
            )
        )
        return make("concat", (a, b, a)[: int(self.pick((2, 3)))], axis=axis)

    def _refactor(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Another shape of as many elements: two axes joined, or one split."""
        axis = int(self.rng.integers(len(shape)))
        if self.chance(0.5) and axis + 1 < len(shape):
            return (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])
        n = shape[axis]
        factors = [f for f in range(1, n + 1) if n % f == 0] or [1]
        f = int(self.pick(factors))
        return (*shape[:axis], f, n // f, *shape[axis + 1 :])

    def _axes(self, rank: int) -> tuple[int, ...]:
        axes = [i for i in range(rank) if self.chance(0.5)] or [int(self.rng.integers(rank))]
        return tuple(axes)

    def reduction(self) -> Value | None:
        a = self.value(lambda v: v.type.rank > 0 and not v.dtype.is_bool)
        op = self.pick(
            ("reduce_sum", "reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin")
        )
        if op.startswith("arg"):
            return make(op, (a,), axis=int(self.rng.integers(a.type.rank))) if a in self.out.exact else None
        if op == "reduce_prod" and not (a.dtype.is_inexact and a.type.size <= 64):
            return None
        return make(op, (a,), axes=self._axes(a.type.rank))

    def cumsum(self) -> Value | None:
        a = self.value(lambda v: v.type.rank > 0 and not v.dtype.is_bool)
        return make("cumsum", (a,), axis=int(self.rng.integers(a.type.rank)), reverse=self.chance(0.5))

    def row_program(self) -> Value | None:
        """Softmax, its logarithm, normalisation: several reductions over the same rows."""
        x = self.value(lambda v: v.type.rank > 0 and v.dtype.is_float and v.type.size > 0)
        axis = x.type.rank - 1 if self.chance(0.7) else int(self.rng.integers(x.type.rank))
        count = static(x.shape)[axis]
        if self.chance(0.5):
            top = build.expand(make("reduce_max", (x,), axes=(axis,)), (axis,), x.shape)
            e = build.unary("exp", build.sub(x, top))
            return build.div(e, build.expand(build.reduce_sum(e, (axis,)), (axis,), x.shape))
        mean = build.mul(build.reduce_sum(x, (axis,)), 1 / count)
        centred = build.sub(x, build.expand(mean, (axis,), x.shape))
        spread = build.mul(build.reduce_sum(build.square(centred), (axis,)), 1 / count)
        scale = build.unary("rsqrt", build.add(spread, 0.1))
        return build.mul(centred, build.expand(scale, (axis,), x.shape))

    def dot(self) -> Value | None:
        a = self.value(lambda v: v.type.rank > 0 and not v.dtype.is_bool and v.type.size > 0)
        shape, rank = static(a.shape), a.type.rank
        contract = [int(self.rng.integers(rank))]
        batch = [i for i in range(rank) if i not in contract and self.chance(0.25)]
        size = int(self.pick(SIZES))
        wanted = [*(shape[i] for i in batch), shape[contract[0]], *([size] if self.chance(0.9) else [])]
        order = [int(i) for i in self.rng.permutation(len(wanted))]
        b = self.leaf(tuple(wanted[i] for i in order), a.dtype)
        place = [order.index(i) for i in range(len(wanted))]
        out = build.dot(a, b, (contract, [place[len(batch)]]), (batch, place[: len(batch)]))
        if self.chance(0.4) and out.dtype.is_float:  # a layer: bias and activation
            bias = self.leaf(out.shape[-1:], a.dtype)
            out = make("maximum", (build.add(out, bias), build.zeros_like(out)))
        return out

    def convolution(self) -> Value | None:
        x = self.value(
            lambda v: (
                v.type.rank in (3, 4) and v.dtype in (dt.float32, dt.float64) and 0 < v.type.size <= 1500
            )
        )
        _, channels, *places = static(x.shape)
        groups = int(self.pick([g for g in (1, 1, 2, channels) if channels % g == 0]))
        size = tuple(int(self.rng.integers(1, 4)) for _ in places)
        padding = tuple((int(self.rng.integers(0, 3)), int(self.rng.integers(0, 3))) for _ in places)
        kernel = self.leaf((groups * int(self.pick((1, 2, 3))), channels // groups, *size), x.dtype)
        stride, ld, rd = (tuple(int(self.pick((1, 1, 2))) for _ in places) for _ in range(3))
        return make(
            "conv", (x, kernel), stride=stride, padding=padding, lhs_dilation=ld, rhs_dilation=rd,
            groups=groups, dtype=x.dtype,
        )  # fmt: skip

    def window(self) -> Value | None:
        x = self.value(lambda v: v.type.rank > 0 and v.type.size <= 1500)
        axes = self._axes(x.type.rank)[:2]
        size = tuple(int(self.rng.integers(1, 4)) for _ in axes)
        stride, dilation = (tuple(int(self.pick((1, 2))) for _ in axes) for _ in range(2))
        w = make("window", (x,), axes=axes, size=size, stride=stride, dilation=dilation)
        if self.chance(0.3) and not x.dtype.is_bool:  # overlap and add, as the gradient of pooling does
            whole = tuple(x.shape[a] for a in axes)
            return make("fold", (w,), axes=axes, size=whole, stride=stride, dilation=dilation)
        if self.chance(0.6) and not x.dtype.is_complex:  # pooling
            return make("reduce_max", (w,), axes=tuple(range(x.type.rank, w.type.rank)))
        return w

    def indexed(self) -> Value | None:
        x = self.value(lambda v: v.type.rank > 0 and v.type.size > 0)
        axes = self._axes(x.type.rank)[:2]
        places = tuple(int(self.pick((1, 3, 5))) for _ in range(int(self.pick((0, 1, 1, 2)))))
        kind = self.pick((dt.int64, dt.int32))
        indices = [
            self.leaf(
                places, kind, np.asarray(self.rng.integers(0, static(x.shape)[a], places)).astype(kind.numpy)
            )
            for a in axes
        ]
        if self.chance(0.5):
            return make("gather", (x, *indices), axes=axes)
        rest = tuple(d for a, d in enumerate(x.shape) if a not in axes)
        mode = self.pick(
            ["set", *(["add"] if not x.dtype.is_bool else []), *(["max"] if not x.dtype.is_complex else [])]
        )
        return make("scatter", (x, self.leaf(places + rest, x.dtype), *indices), axes=axes, mode=mode)

    def random(self) -> Value | None:
        shape = self.shape()
        if shape and self.chance(0.4):
            return make("iota", shape=shape, axis=int(self.rng.integers(len(shape))), dtype=dt.int32)
        if self.chance(0.3):
            a = self.value(lambda v: v in self.out.exact and v.dtype in (dt.float32, dt.int32, dt.uint32))
            return make("bitcast", (make("stop_gradient", (a,)),), dtype=dt.int32)
        key = self.leaf((2,), dt.uint32, self.rng.integers(0, 2**32, 2, dtype=np.uint32))
        bits = make(
            "random_bits", (key, build.full(0, dt.uint32, (2,))), shape=shape, word=int(self.rng.integers(2))
        )
        if self.chance(0.3):
            return bits
        # A uniform number in [0, 1) from the upper bits: exact in float32.
        top = make("shr", (bits, build.full(8, dt.uint32, bits.shape)))
        uniform = build.mul(build.cast(top, dt.float32), 2.0**-24)
        return build.where(build.compare("lt", build.cast(top, dt.int32), 1 << 23), uniform, 0.0)

    def gradient(self) -> Value | None:
        """The gradient of a sum with respect to something that it is made of."""
        y = self.value(lambda v: v.dtype in (dt.float32, dt.float64) and v.op != "input" and v.type.size > 0)
        path = [v for v in topological([y]) if v.dtype is y.dtype and v in self.pool and v is not y]
        if not path:
            return None
        (g,) = vjp([y], [build.full(0.5, y.dtype, y.shape)], [self.pick(path)])
        return g


def _widen(array: Array) -> Array:
    kind = dt.from_numpy(array.dtype)
    return (
        array.astype(np.float64)
        if kind.is_float
        else array.astype(np.complex128)
        if kind.is_complex
        else array
    )


def _broadcasts(a: Shape, b: Shape) -> bool:
    try:
        return product(broadcast_shapes((a, b))) <= MOST_ELEMENTS
    except ValueError:
        return False

"""The table of cases: for every operation, operands and static arguments over types and awkward shapes.

``cases(op, dtype)`` gives the cases of one operation for one element type (of its first operand that carries
data). ``Case.build`` makes the graph; an operand may reach the operation through movement, so that it is not
contiguous. The main types get every shape, the others a few, except when ``every`` asks for all.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS
from tilewright.graph.body import Body
from tilewright.graph.ir import OPS, Value, constant, input_value, make

Array = np.ndarray[Any, Any]
Sample = tuple[list[Array], dict[str, Any]]
Rng = np.random.Generator

MAIN = (dt.float32, dt.int64, dt.bool_, dt.complex64)
SHAPES: tuple[tuple[int, ...], ...] = (
    (), (1,), (37,), (0,), (3, 0, 2), (13, 5), (1, 1, 3), (2, 3, 5, 7), (1, 64), (2, 1, 3, 1, 2, 3),
)  # fmt: skip
FEW_SHAPES: tuple[tuple[int, ...], ...] = ((37,), (3, 5), ())


@dataclass(frozen=True)
class Case:
    """One use of an operation. ``layout`` says how the operands reach it: straight, or through movement."""

    op: str
    arrays: list[Array]
    attrs: dict[str, Any] = field(default_factory=dict)
    layout: str = "straight"

    def build(self) -> tuple[list[Value], list[Array], Value]:
        """The leaves, their arrays, and the operation's value."""
        leaves, data, operands = [], [], []
        for array in self.arrays:
            stored, move = LAYOUTS[self.layout](np.asarray(array))
            leaf = input_value(dt.from_numpy(stored.dtype), stored.shape)
            leaves.append(leaf)
            data.append(stored)
            operands.append(move(leaf))
        if self.op == "input":
            return leaves, data, operands[0]
        if self.op == "constant":
            return [], [], constant(**self.attrs)
        return leaves, data, make(self.op, operands, **self.attrs)

    def __str__(self) -> str:
        shapes = ", ".join(f"{a.dtype}{list(a.shape)}" for a in self.arrays)
        return f"{self.op}({shapes}) {self.attrs} {self.layout}"


# ---- layouts: the stored array, and the movement that gives back the operand -------------------------------


def _transposed(x: Array) -> tuple[Array, Callable[[Value], Value]]:
    axes = tuple(reversed(range(x.ndim)))
    return np.ascontiguousarray(x.transpose()).reshape(x.shape[::-1]), lambda v: make(
        "permute", (v,), axes=axes
    )


def _sliced(x: Array) -> tuple[Array, Callable[[Value], Value]]:
    stored = np.full([2 * n + 3 for n in x.shape], x.ravel()[0] if x.size else 0, x.dtype)
    stored[tuple(slice(2, 2 + 2 * n, 2) for n in x.shape)] = x
    start, stop = (2,) * x.ndim, tuple(2 + 2 * n for n in x.shape)
    return stored, lambda v: make("slice", (v,), start=start, stop=stop, step=(2,) * x.ndim)


def _flipped(x: Array) -> tuple[Array, Callable[[Value], Value]]:
    axes = tuple(range(x.ndim))
    return np.ascontiguousarray(np.flip(x)).reshape(x.shape), lambda v: make("flip", (v,), axes=axes)


LAYOUTS: dict[str, Callable[[Array], tuple[Array, Callable[[Value], Value]]]] = {
    "straight": lambda x: (np.asarray(x, order="C"), lambda v: v),
    "transposed": _transposed,
    "sliced": _sliced,
    "flipped": _flipped,
}


# ---- data --------------------------------------------------------------------------------------------------

# Ranges in which an operation is defined and well conditioned.
DOMAIN: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("log", "log2", "log10", "sqrt", "rsqrt"), (0.05, 40.0)),
    **dict.fromkeys(("exp", "exp2", "expm1", "sinh", "cosh"), (-8.0, 8.0)),
    **dict.fromkeys(("asin", "acos", "atanh"), (-0.95, 0.95)),
    "acosh": (1.05, 40.0),
    "log1p": (-0.9, 20.0),
    "pow": (0.1, 3.0),
    "tan": (-1.4, 1.4),
}


def draw(rng: Rng, dtype: DType, shape: tuple[int, ...], low: float = -4.0, high: float = 4.0) -> Array:
    """Random elements; integers come from the whole numbers in the range, without negative ones for unsigned
    types.
    """
    if dtype.is_bool:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if dtype.is_integer:
        first = 0 if dtype.kind == "u" else int(np.ceil(low))
        return rng.integers(first, int(high) + 1, shape).astype(dtype.numpy)
    if dtype.is_complex:
        return np.asarray(rng.uniform(low, high, shape) + 1j * rng.uniform(low, high, shape)).astype(
            dtype.numpy
        )
    return np.asarray(rng.uniform(low, high, shape)).astype(dtype.numpy)


def edges(dtype: DType) -> Array:
    """The numbers at which arithmetic goes wrong first."""
    if dtype.is_bool:
        return np.array([False, True])
    if dtype.is_integer:
        info = np.iinfo(dtype.name)
        values = [info.min, info.min + 1, 0, 1, 2, 3, 7, info.bits - 1, info.max - 1, info.max]
        return np.array(values + ([-1, -2, -7] if dtype.kind == "i" else []), dtype.numpy)
    small = ml_dtypes.finfo(dtype.numpy)
    values = [0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, 2.5, -2.5, 3, 1e-3, np.inf, -np.inf, np.nan]
    values += [float(small.max), -float(small.max), float(small.tiny), -float(small.tiny)]
    return np.array(values).astype(dtype.numpy)


# ---- elementwise -------------------------------------------------------------------------------------------

NO_EDGES = {"complex"}  # built from parts: nothing happens at edges


def _elementwise(op: str, dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    row = SCALAR_OPS[op]
    count = row.arity - 1 if op == "where" else row.arity
    low, high = DOMAIN.get(op, (-4.0, 4.0))
    for shape in SHAPES if every or dtype in MAIN else FEW_SHAPES:
        data = [draw(rng, dtype, shape, low, high) for _ in range(count)]
        yield [*([draw(rng, dt.bool_, shape)] if op == "where" else []), *data], {}
    if op in NO_EDGES or dtype.is_complex:
        return
    special = edges(dtype)
    pairs = [np.array(p, special.dtype) for p in zip(*itertools.product(special, repeat=count), strict=True)]
    if op in ("shl", "shr"):
        widths = np.arange(-2 if dtype.kind == "i" else 0, dtype.bits + 3).astype(dtype.numpy)
        pairs = [np.array(p, special.dtype) for p in zip(*itertools.product(special, widths), strict=True)]
    yield [*([np.arange(len(pairs[0])) % 3 > 0] if op == "where" else []), *pairs], {}


# ---- leaves, types, markers --------------------------------------------------------------------------------


def _input(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    yield [draw(rng, dtype, (3, 5))], {}


def _constant(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for x in edges(dtype) if not dtype.is_complex else draw(rng, dtype, (3,)):
        yield [], {"value": x.item(), "dtype": dtype}


def _iota(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for shape, axis in (((7,), 0), ((3, 5), 0), ((3, 5), 1), ((2, 0, 3), 2), ((2, 3, 4), 1), ((1, 300), 1)):
        yield [], {"shape": shape, "axis": axis, "dtype": dtype}


def _random_bits(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for shape in ((), (1,), (0, 3), (1031,), (3, 5, 7)):
        key = rng.integers(0, 2**32, 2, dtype=np.uint32)
        yield [key, np.zeros(2, np.uint32)], {"shape": shape, "word": 0}
        keys = rng.integers(0, 2**32, (2, 3, 2), dtype=np.uint32)
        starts = rng.integers(0, 2**32, (2, 3, 2), dtype=np.uint32)
        starts[0] = [[2**32 - 5, 7], [2**32 - 1, 2**32 - 1], [0, 1]]  # the counter carries and wraps around
        yield [keys, starts], {"shape": shape, "word": 1}


def _cast(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for to in dt.ALL:
        yield [draw(rng, dtype, (5, 7), -200, 200)], {"dtype": to}
        if not dtype.is_complex:
            yield [edges(dtype)], {"dtype": to}


def _bitcast(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    bits = rng.integers(0, 256, (6, 5, dtype.itemsize), dtype=np.uint8).view(dtype.numpy)[..., 0]
    for to in dt.ALL:
        if to.bits == dtype.bits and to.kind in "iuf":
            yield [bits], {"dtype": to}


def _same(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    yield [draw(rng, dtype, (3, 5))], {}


def _mark(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    yield [draw(rng, dtype, (3, 5))], {"id": 7}


def _barrier(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    yield [draw(rng, dtype, (3, 5)), draw(rng, dtype, (2,))], {}


class NoRule:
    """The rule of a call that nobody differentiates."""


def _custom(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    data = [draw(rng, dtype, shape) for shape in ((3, 5), (4,), (2,))]
    yield data, {"rule": NoRule(), "outputs": 2, "index": 1}


def _host_call(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for shape, axis in (((3, 5), -1), ((4,), -1), ((2, 3, 4), -2)):
        arguments = (("axis", axis), ("descending", axis == -2))
        yield (
            [draw(rng, dtype, shape)],
            {"function": "argsort", "arguments": arguments, "dtype": dt.int64, "shape": shape},
        )


# ---- loops -------------------------------------------------------------------------------------------------


def scan_body(dtype: DType) -> Body:
    """c, h, p, x -> the carries h * c + x and h (what h was before), and what is stacked: h' * p."""
    c, h, p, x = (input_value(dtype, (3,)) for _ in range(4))
    new = make("add", (make("mul", (h, c)), x))
    return Body.of([c, h, p, x], [new, h, make("mul", (new, p))])


def _scan(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for length, reverse, index in (
        (5, False, 0),
        (5, False, 2),
        (5, True, 2),
        (4, True, 0),
        (1, False, 1),
        (0, False, 0),
    ):
        data = [draw(rng, dtype, shape, -2, 2) for shape in ((3,), (3,), (3,), (length, 3))]
        attrs = {"length": length, "reverse": reverse, "consts": 1, "carries": 2, "index": index}
        yield data, {"body": scan_body(dtype), **attrs}


def while_body(dtype: DType) -> Body:
    """c, go, n, x, y -> whether the new n is below 5, n + 1, and the carries y and x + c * y, which pass into one another."""
    c, x, y = (input_value(dtype, (3,)) for _ in range(3))
    go, n = input_value(dt.bool_, ()), input_value(dt.int32, ())
    more = make("add", (n, constant(1, dt.int32)))
    new = make("add", (x, make("mul", (c, y))))
    return Body.of([c, go, n, x, y], [make("lt", (more, constant(5, dt.int32))), more, y, new])


def _while_loop(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for start, go, index in (
        (0, True, 3),
        (1, True, 2),
        (3, True, 1),
        (7, True, 3),
        (0, False, 2),
        (2, True, 0),
    ):
        first = [
            np.asarray(go),
            np.asarray(start, np.int32),
            *(draw(rng, dtype, (3,), 0, 3) for _ in range(2)),
        ]
        data = [draw(rng, dtype, (3,), 0, 2), *first]
        yield data, {"body": while_body(dtype), "consts": 1, "carries": 4, "index": index}


def switch_branches(dtype: DType) -> tuple[Body, ...]:
    """c, x -> x * c and the sum of x; c and c0 * x1; x and its product with that sum."""
    c, x = (input_value(dtype, (3,)) for _ in range(2))

    def total(v: Value) -> Value:
        return make("reduce_sum", (v,), axes=(0,))

    def at(v: Value, n: int) -> Value:
        return make("reshape", (make("slice", (v,), start=(n,), stop=(n + 1,), step=(1,)),), shape=())

    return (
        Body.of([c, x], [make("mul", (x, c)), total(x)]),
        Body.of([c, x], [c, make("mul", (at(c, 0), at(x, 1)))]),
        Body.of([c, x], [x, make("mul", (total(make("mul", (x, c))), total(x)))]),
    )


def _switch(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for selector, index in ((0, 0), (1, 1), (2, 1), (-7, 0), (2**31 - 1, 0), (1, 0), (0, 1)):
        data = [np.asarray(selector, np.int32), *(draw(rng, dtype, (3,), -2, 2) for _ in range(2))]
        yield data, {"branches": switch_branches(dtype), "index": index}


# ---- movement ----------------------------------------------------------------------------------------------


def _reshape(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for old, new in (
        ((6, 35), (10, 21)), ((), (1, 1)), ((1,), ()), ((3, 0, 2), (0, 5)), ((2, 3, 5), (30,)),
        ((30,), (5, 1, 6)), ((2, 1, 3, 1, 2, 3), (4, 9)),
    ):  # fmt: skip
        yield [draw(rng, dtype, old)], {"shape": new}


def _permute(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for axes in itertools.permutations(range(3)):
        yield [draw(rng, dtype, (3, 5, 7))], {"axes": axes}
    yield [draw(rng, dtype, ())], {"axes": ()}
    yield [draw(rng, dtype, (2, 0, 3))], {"axes": (2, 0, 1)}
    yield [draw(rng, dtype, (2, 1, 3, 1, 2, 3))], {"axes": (5, 0, 3, 2, 1, 4)}
    yield [draw(rng, dtype, (67, 131))], {"axes": (1, 0)}


def _broadcast(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for old, new in (
        ((), (3, 5)), ((1,), (7,)), ((5,), (3, 5)), ((3, 1), (2, 3, 4)), ((1, 1), (0, 3)),
        ((2, 1, 3), (2, 5, 3)), ((2, 1, 3), (4, 1, 2, 2, 2, 3)),
    ):  # fmt: skip
        yield [draw(rng, dtype, old)], {"shape": new}


def _slice(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for shape, start, stop, step in (
        ((7,), (2,), (6,), (1,)), ((7,), (1,), (7,), (3,)), ((7,), (3,), (3,), (1,)), ((), (), (), ()),
        ((5, 7), (1, 0), (4, 7), (2, 2)), ((5, 0, 3), (0, 0, 1), (5, 0, 2), (1, 1, 1)),
        ((3, 4, 5), (0, 0, 0), (3, 4, 5), (1, 1, 1)), ((1, 9), (0, 8), (1, 9), (5, 5)),
        ((2, 2, 3, 1, 2, 3), (0, 1, 0, 0, 0, 1), (2, 2, 3, 1, 1, 3), (1, 1, 2, 1, 1, 1)),
    ):  # fmt: skip
        yield [draw(rng, dtype, shape)], {"start": start, "stop": stop, "step": step}


def _pad(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for shape, low, high, interior in (
        ((5,), (1,), (2,), (0,)), ((5,), (0,), (0,), (2,)), ((0,), (2,), (1,), (3,)), ((), (), (), ()),
        ((3, 4), (1, 0), (0, 2), (1, 0)), ((1, 1), (0, 3), (0, 0), (4, 4)),
        ((2, 3, 5), (0, 1, 2), (3, 0, 1), (0, 1, 0)),
    ):  # fmt: skip
        attrs = {"low": low, "high": high, "interior": interior}
        yield [draw(rng, dtype, shape), draw(rng, dtype, ())], attrs


def _flip(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for shape, axes in (
        ((7,), (0,)),
        ((3, 5), (1,)),
        ((3, 5), (1, 0)),
        ((3, 5), ()),
        ((2, 0), (1,)),
        ((), ()),
    ):
        yield [draw(rng, dtype, shape)], {"axes": axes}


def _concat(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for shapes, axis in (
        (((3,), (4,)), 0), (((3, 5), (3, 1), (3, 2)), 1), (((2, 5), (3, 5)), 0), (((4,),), 0),
        (((0, 3), (2, 3)), 0), (((2, 1, 3), (2, 4, 3)), 1), (((1,),) * 9, 0), (((0,), (0,)), 0),
    ):  # fmt: skip
        yield [draw(rng, dtype, s) for s in shapes], {"axis": axis}


WINDOWS = (
    ((9,), (0,), (3,), (1,), (1,)), ((9,), (0,), (2,), (3,), (2,)), ((7,), (0,), (7,), (1,), (1,)),
    ((5,), (0,), (1,), (2,), (1,)), ((6, 7), (0, 1), (2, 3), (2, 2), (1, 1)),
    ((6, 7), (1, 0), (3, 2), (1, 2), (2, 3)), ((2, 0, 5), (2,), (2,), (1,), (1,)),
    ((2, 3, 8, 9), (2, 3), (2, 2), (2, 2), (1, 1)), ((4, 4), (), (), (), ()),
)  # fmt: skip


def _window(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for shape, axes, size, stride, dilation in WINDOWS:
        attrs = {"axes": axes, "size": size, "stride": stride, "dilation": dilation}
        yield [draw(rng, dtype, shape)], attrs


# ---- reductions and scans ----------------------------------------------------------------------------------

REDUCED: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((), ()), ((7,), (0,)), ((1,), (0,)), ((3, 0, 2), (0, 2)), ((13, 5), (0,)), ((13, 5), (1,)),
    ((13, 5), (0, 1)), ((2, 3, 5, 7), (1, 3)), ((2, 3, 5, 7), (0, 2)), ((2, 1, 3, 1, 2, 3), (0, 2, 5)),
    ((2, 3), ()), ((1031,), (0,)), ((3, 517), (1,)), ((517, 3), (0,)), ((1, 1, 3), (0, 1)),
)  # fmt: skip
EMPTY_REDUCED: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((0,), (0,)),
    ((3, 0, 2), (1,)),
    ((3, 0), (0, 1)),
)


def _reduction(op: str, dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    few = not (every or dtype in MAIN)
    shapes = REDUCED[4:8] + REDUCED[11:12] if few else REDUCED
    if op in ("reduce_sum", "reduce_prod"):
        shapes += EMPTY_REDUCED
    for shape, axes in shapes:
        x = draw(rng, dtype, shape)
        if op == "reduce_prod" and not dtype.is_integer:
            x = (x / (np.abs(x) + np.array(1e-3, x.dtype))).astype(x.dtype)  # of size near one
        yield [x], {"axes": axes}
    if op in ("reduce_max", "reduce_min") and not dtype.is_complex:
        yield [edges(dtype)], {"axes": (0,)}
        yield [edges(dtype)[:2]], {"axes": (0,)}
    if dtype.is_float and op in ("reduce_max", "reduce_min", "reduce_sum"):
        x = draw(rng, dtype, (7, 19))
        x[2, 3], x[4, 5], x[4, 6] = np.nan, np.inf, -np.inf
        yield [x], {"axes": (1,)}


def _arg_reduction(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for shape, axis in (
        ((7,), 0),
        ((1,), 0),
        ((13, 5), 0),
        ((13, 5), 1),
        ((2, 3, 5), 1),
        ((0, 3), 1),
        ((1031,), 0),
    ):
        x = draw(rng, dtype, shape)
        yield [np.round(x.astype(np.float64)).astype(dtype.numpy)], {"axis": axis}  # with ties
    yield [edges(dtype)], {"axis": 0}
    if dtype.is_float:
        yield [np.array([1, np.inf, -np.inf, 3], dtype.numpy)], {"axis": 0}


def _cumsum(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for (shape, axis), reverse in itertools.product(
        (
            ((7,), 0),
            ((1,), 0),
            ((0, 3), 0),
            ((13, 5), 0),
            ((13, 5), 1),
            ((2, 3, 5), 1),
            ((1031,), 0),
            ((8, 33), 0),
        ),
        (False, True),
    ):
        yield [draw(rng, dtype, shape)], {"axis": axis, "reverse": reverse}


def _fold(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for shape, axes, size, stride, dilation in WINDOWS:
        out = list(shape)
        for axis, k, s, d in zip(axes, size, stride, dilation, strict=True):
            out[axis] = (shape[axis] - (k - 1) * d - 1) // s + 1
        attrs = {"axes": axes, "size": tuple(shape[a] for a in axes), "stride": stride, "dilation": dilation}
        yield [draw(rng, dtype, (*out, *size))], attrs


# ---- indexed access ----------------------------------------------------------------------------------------

PLACES: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    ((7,), (0,), (4,)), ((7,), (0,), ()), ((5, 3), (0,), (4,)), ((5, 3), (1,), (2, 3)),
    ((5, 3, 4), (0, 2), (6,)), ((5, 3, 4), (2, 0), (2, 2)), ((5, 3), (0, 1), (11,)), ((5, 3), (0,), (0,)),
    ((5, 0), (0,), (3,)), ((2, 3, 5), (1,), (40,)),
)  # fmt: skip


def _indices(
    rng: Rng, shape: tuple[int, ...], axes: tuple[int, ...], places: tuple[int, ...], n: int
) -> list[Array]:
    kind = (np.int64, np.int32, np.uint8)[n % 3]
    return [np.asarray(rng.integers(0, shape[a], places)).astype(kind) for a in axes]


def _gather(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for n, (shape, axes, places) in enumerate(PLACES):
        yield [draw(rng, dtype, shape), *_indices(rng, shape, axes, places, n)], {"axes": axes}


def _scatter(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    modes = {"set": "biufc", "add": "iufc", "max": "biuf", "min": "biuf"}
    for mode, kinds in modes.items():
        for n, (shape, axes, places) in enumerate(PLACES if dtype.kind in kinds else ()):
            rest = tuple(d for a, d in enumerate(shape) if a not in axes)
            data = [draw(rng, dtype, shape), draw(rng, dtype, places + rest)]
            yield [*data, *_indices(rng, shape, axes, places, n)], {"axes": axes, "mode": mode}


# ---- contractions ------------------------------------------------------------------------------------------

DOTS: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, ...], ...]], ...] = (
    # lhs, rhs, (lhs_contract, rhs_contract, lhs_batch, rhs_batch)
    ((5, 7), (7, 3), ((1,), (0,), (), ())), ((7, 5), (3, 7), ((0,), (1,), (), ())),
    ((7,), (7,), ((0,), (0,), (), ())), ((5, 7), (7,), ((1,), (0,), (), ())),
    ((7,), (7, 3), ((0,), (0,), (), ())), ((5,), (3,), ((), (), (), ())), ((), (3,), ((), (), (), ())),
    ((5, 0), (0, 3), ((1,), (0,), (), ())), ((0, 7), (7, 3), ((1,), (0,), (), ())),
    ((1, 1), (1, 1), ((1,), (0,), (), ())), ((2, 5, 7), (2, 7, 3), ((2,), (1,), (0,), (0,))),
    ((5, 2, 7), (7, 3, 2), ((2,), (0,), (1,), (2,))),
    ((2, 3, 4, 5), (5, 2, 7, 4), ((3, 2), (0, 3), (0,), (1,))),
    ((3, 2, 4), (4, 2, 3), ((2, 0), (0, 2), (1,), (1,))), ((37, 53), (53, 29), ((1,), (0,), (), ())),
    ((64, 10), (64, 33), ((0,), (0,), (), ())), ((6, 4), (6, 4), ((), (), (0, 1), (0, 1))),
    ((1, 130), (130, 17), ((1,), (0,), (), ())),
)  # fmt: skip


def _results(dtype: DType) -> list[DType]:
    """The result types worth trying beside the operands' own."""
    more = {
        dt.float16: dt.float32,
        dt.bfloat16: dt.float32,
        dt.int8: dt.int32,
        dt.uint8: dt.int32,
        dt.float32: dt.float64,
    }
    return [dtype, *([more[dtype]] if dtype in more else [])]


def _dot(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    names = ("lhs_contract", "rhs_contract", "lhs_batch", "rhs_batch")
    for n, (lhs, rhs, axes) in enumerate(DOTS):
        for result in _results(dtype)[: 2 if n in (0, 11, 14) else 1]:
            attrs = {**dict(zip(names, axes, strict=True)), "dtype": result}
            yield [draw(rng, dtype, lhs), draw(rng, dtype, rhs)], attrs


CONVS: tuple[tuple[Any, ...], ...] = (
    # image, kernel, stride, padding, lhs_dilation, rhs_dilation, groups
    ((2, 3, 9), (4, 3, 3), (1,), ((0, 0),), (1,), (1,), 1),
    ((2, 4, 9), (6, 2, 2), (2,), ((1, 2),), (1,), (3,), 2),
    ((2, 3, 7, 8), (5, 3, 3, 3), (1, 1), ((1, 1), (1, 1)), (1, 1), (1, 1), 1),
    ((1, 3, 7, 8), (5, 3, 1, 1), (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1), 1),
    ((2, 4, 7, 8), (8, 1, 3, 2), (2, 1), ((1, 0), (0, 1)), (1, 1), (1, 2), 4),
    ((2, 4, 5, 6), (8, 2, 3, 2), (2, 3), ((1, 2), (-1, 2)), (2, 1), (1, 2), 2),
    ((1, 4, 5, 6), (2, 4, 3, 2), (3, 2), ((-1, -1), (2, -1)), (2, 2), (1, 1), 1),
    ((1, 2, 3, 3), (2, 2, 2, 2), (1, 1), ((-4, 8), (0, 0)), (1, 1), (1, 1), 1),
    ((0, 2, 5, 5), (3, 2, 3, 3), (1, 1), ((0, 0), (0, 0)), (1, 1), (1, 1), 1),
    ((2, 2, 4, 5, 3), (3, 2, 2, 2, 2), (1, 2, 1), ((0, 1), (1, 0), (0, 0)), (1, 1, 1), (1, 1, 1), 1),
    ((2, 1, 16, 16), (6, 1, 5, 5), (1, 1), ((2, 2), (2, 2)), (1, 1), (1, 1), 1),
)  # fmt: skip


def _conv(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    names = ("stride", "padding", "lhs_dilation", "rhs_dilation", "groups")
    for n, (image, kernel, *rest) in enumerate(CONVS):
        for result in _results(dtype)[: 2 if n == 2 else 1]:
            attrs = {**dict(zip(names, rest, strict=True)), "dtype": result}
            yield [draw(rng, dtype, image), draw(rng, dtype, kernel)], attrs


# ---- attention ---------------------------------------------------------------------------------------------

HEADS: tuple[tuple[tuple[int, ...], int, int, int], ...] = (
    # leading axes, queries, keys, features
    ((2,), 5, 7, 8), ((), 3, 4, 5), ((1, 2), 1, 1, 1), ((2,), 4, 2, 3), ((0,), 4, 4, 8), ((2, 1), 0, 3, 8),
    ((1,), 67, 50, 8), ((1,), 49, 149, 40), ((1,), 150, 150, 16), ((1,), 33, 20, 130),
)  # fmt: skip


def _attention(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for n, (lead, t, s, d) in enumerate(HEADS):
        for causal, result in itertools.product((False, True), ("mix", "lse")):
            data = [draw(rng, dtype, (*lead, size, d), -2, 2) for size in (t, s, s)]
            yield data, {"scale": (0.5, 0.3)[n % 2], "causal": causal, "result": result}


def _attention_grad(dtype: DType, rng: Rng, every: bool) -> Iterator[Sample]:
    for n, (lead, t, s, d) in enumerate(HEADS):
        for causal, wrt in itertools.product((False, True), "qkv"):
            scale = (0.5, 0.3)[n % 2]
            data = [draw(rng, dtype, (*lead, size, d), -1, 1) for size in (t, s, s, t)]
            # a log-sum-exp that rows of such scores might have keeps the weights near one
            lse, delta = draw(rng, dtype, (*lead, t), 2, 3), draw(rng, dtype, (*lead, t), -1, 1)
            yield [*data, lse, delta], {"scale": scale, "causal": causal, "wrt": wrt}


# ---- the table ---------------------------------------------------------------------------------------------

Generator = Callable[[DType, Rng, bool], Iterator[Sample]]


def _named(function: Callable[[str, DType, Rng, bool], Iterator[Sample]], op: str) -> Generator:
    return lambda dtype, rng, every: function(op, dtype, rng, every)


# operation -> (kinds of element, generator)
TABLE: dict[str, tuple[str, Generator]] = {
    **{op: (row.kinds, _named(_elementwise, op)) for op, row in SCALAR_OPS.items()},
    "input": ("biufc", _input),
    "constant": ("biufc", _constant),
    "iota": ("iu", _iota),
    "random_bits": ("random", _random_bits),
    "cast": ("biufc", _cast),
    "bitcast": ("iuf", _bitcast),
    "stop_gradient": ("biufc", _same),
    "mark": ("biufc", _mark),
    "barrier": ("biufc", _barrier),
    "custom": ("biu", _custom),  # its derivatives are a rule's, which has tests of its own
    "host_call": ("f", _host_call),
    "scan": ("iufc", _scan),
    "while_loop": ("iufc", _while_loop),
    "switch": ("iufc", _switch),
    "reshape": ("biufc", _reshape),
    "permute": ("biufc", _permute),
    "broadcast": ("biufc", _broadcast),
    "slice": ("biufc", _slice),
    "pad": ("biufc", _pad),
    "flip": ("biufc", _flip),
    "concat": ("biufc", _concat),
    "window": ("biufc", _window),
    "reduce_sum": ("iufc", _named(_reduction, "reduce_sum")),
    "reduce_prod": ("iufc", _named(_reduction, "reduce_prod")),
    "reduce_max": ("biuf", _named(_reduction, "reduce_max")),
    "reduce_min": ("biuf", _named(_reduction, "reduce_min")),
    "argmax": ("biuf", _arg_reduction),
    "argmin": ("biuf", _arg_reduction),
    "cumsum": ("iufc", _cumsum),
    "fold": ("iufc", _fold),
    "gather": ("biufc", _gather),
    "scatter": ("biufc", _scatter),
    "dot": ("iufc", _dot),
    "conv": ("iufc", _conv),
    "attention": ("f", _attention),
    "attention_grad": ("f", _attention_grad),
}


def dtypes(op: str) -> list[DType]:
    """The element types that an operation takes."""
    kinds = TABLE[op][0]
    if kinds == "random":
        return [dt.uint32]
    narrow = (dt.float16, dt.bfloat16) if op in ("complex", "attention", "attention_grad") else ()
    return [d for d in dt.ALL if d.kind in kinds and d not in narrow]


def cases(op: str, dtype: DType, every: bool = False) -> list[Case]:
    """The cases of one operation for one element type; the same in every run."""
    rng = np.random.default_rng(zlib.crc32(f"{op} {dtype}".encode()))
    out = [Case(op, arrays, attrs) for arrays, attrs in TABLE[op][1](dtype, rng, every)]
    if op in ("random_bits", "constant", "input", "iota"):
        return out
    # The main types also through movement: a few cases, each in another layout.
    through = [c for c in out if any(a.size > 1 for a in c.arrays)]
    if not (every or dtype in MAIN):
        through = through[:1]
    layouts = [name for name in LAYOUTS if name != "straight"]
    picked = through if every else through[: 6 if op in SCALAR_OPS else 9]
    return out + [Case(c.op, c.arrays, c.attrs, layouts[n % len(layouts)]) for n, c in enumerate(picked)]


assert set(TABLE) <= set(OPS)

"""The NumPy meaning of every graph operation, on one page.

``evaluate`` computes a graph one value at a time with the table ``MEANING``; every target is tested against
it. It is written to be read and to be right: it fuses nothing, and it is slow where clarity asks for it.

Elementwise meaning comes from the scalar vocabulary. Sums, products and contractions of half types accumulate
in float32 and round once; all other types accumulate in themselves, a contraction in its result type where
that is wider.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS, cast_numpy
from tilewright.core.shape import Shape, Size
from tilewright.core.size import bind
from tilewright.graph import host
from tilewright.graph.ir import Value, topological

__all__ = ["MEANING", "evaluate", "threefry2x32"]

Array = np.ndarray[Any, Any]
Meaning = Callable[[Sequence[Array], Mapping[str, Any]], Any]

MEANING: dict[str, Meaning] = {}


def evaluate(outputs: Sequence[Value], bindings: Mapping[Value, Array]) -> list[Array]:
    """The arrays of ``outputs`` when the values in ``bindings`` (leaves or interior values) are given.

    Each result is a new C-contiguous array of exactly the value's dtype and shape. Symbolic sizes take the
    sizes of the bound arrays. Raises ``ValueError`` for an unbound input or a binding of another dtype or
    shape, and ``IndexError`` for an index out of range.

    >>> from tilewright.core import dtype as dt
    >>> from tilewright.graph.ir import input_value, make
    >>> x = input_value(dt.float32, (2,))
    >>> evaluate([make("add", (x, x))], {x: np.array([1, 2], np.float32)})
    [array([2., 4.], dtype=float32)]
    """
    sizes: dict[str, int] = {}
    for value, array in bindings.items():
        _bind_sizes(value, array, sizes)
    order = topological(outputs, stop=lambda v: v in bindings)
    uses: dict[Value, int] = dict.fromkeys(outputs, 1)  # outputs are never dropped
    for value in order:
        for operand in () if value in bindings else value.inputs:
            uses[operand] = uses.get(operand, 0) + 1
    arrays: dict[Value, Array] = {}
    for value in order:
        arrays[value] = bindings[value] if value in bindings else _compute(value, arrays, sizes)
        for operand in () if value in bindings else value.inputs:
            uses[operand] -= 1
            if not uses[operand]:
                arrays.pop(operand, None)
    return [np.array(arrays[v], order="C", copy=True) for v in outputs]


def _bind_sizes(value: Value, array: Array, sizes: dict[str, int]) -> None:
    """Check a bound array against its value's type and learn the symbolic sizes from it."""
    fits = (
        isinstance(array, np.ndarray) and array.dtype == value.dtype.numpy and array.ndim == value.type.rank
    )
    for dim, actual in zip(value.shape, array.shape, strict=True) if fits else ():
        if isinstance(dim, Size) and dim.is_named:
            fits = fits and dim.low <= actual <= dim.high and sizes.setdefault(dim.name, actual) == actual
        elif isinstance(dim, Size):
            fits = fits and dim.low <= actual <= dim.high
        else:
            fits = fits and dim == actual
    if not fits:
        found = f"{array.dtype}{list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ValueError(f"a value of type {value.type} cannot take {found}")


def _resolve(item: Any, sizes: Mapping[str, int]) -> Any:
    """A static argument with its symbolic sizes replaced by the bound ones."""
    if isinstance(item, tuple):
        return tuple(_resolve(i, sizes) for i in item)
    if isinstance(item, Size):
        unknown = [name for name in item.names() if name not in sizes]
        if unknown:
            raise ValueError(f"size {unknown[0]} is not known from the bound arrays")
        return bind(item, sizes)
    return item


def _compute(value: Value, arrays: Mapping[Value, Array], sizes: Mapping[str, int]) -> Array:
    if value.op == "input":
        raise ValueError(f"no array is given for the input {value!r}")
    attrs = {name: _resolve(item, sizes) for name, item in value.attrs}
    result = np.asarray(MEANING[value.op]([arrays[v] for v in value.inputs], attrs))
    shape = _resolve(value.shape, sizes)
    if result.dtype != value.dtype.numpy or result.shape != shape:
        raise AssertionError(f"the meaning of {value!r} gave {result.dtype}{list(result.shape)}")
    return result


def _meaning(*names: str) -> Callable[[Meaning], Meaning]:
    def add(function: Meaning) -> Meaning:
        for name in names:
            MEANING[name] = function
        return function

    return add


for _row in SCALAR_OPS.values():
    MEANING[_row.name] = lambda x, a, function=_row.numpy: function(*x)  # type: ignore[misc]


# ---- accumulation ------------------------------------------------------------------------------------------


def _is_half(array: Array) -> bool:
    return dt.from_numpy(array.dtype).is_float and array.dtype.itemsize == 2


def _accumulator(array: Array) -> Array:
    """The array in the type in which its sums are kept."""
    return array.astype(np.float32) if _is_half(array) else array


def _contraction_type(operand: DType, result: DType) -> np.dtype[Any]:
    """The type in which a contraction accumulates: the wider of operand and result, halves as float32."""
    wide = dt.promote(operand, result)
    return np.dtype(np.float32) if wide.is_float and wide.bits == 16 else wide.numpy


# ---- leaves ------------------------------------------------------------------------------------------------


@_meaning("constant")
def _constant(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return np.array(a["value"], a["dtype"].numpy)


@_meaning("iota")
def _iota(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    shape, axis = a["shape"], a["axis"]
    line = np.arange(shape[axis], dtype=np.int64).astype(a["dtype"].numpy)
    return np.broadcast_to(line.reshape([-1 if i == axis else 1 for i in range(len(shape))]), shape)


def threefry2x32(key: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al., 2011): two uint32 words for the counters ``(low, high)`` of keys [.., 2]."""
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    k0, k1 = key[..., 0], key[..., 1]
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    with np.errstate(over="ignore"):
        x0, x1 = low + keys[0], high + keys[1]
        for group in range(5):
            for r in rotations[group % 2]:
                x0 = x0 + x1
                x1 = ((x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))) ^ x0
            x0 = x0 + keys[(group + 1) % 3]
            x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


@_meaning("random_bits")
def _random_bits(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    inner = [1] * len(a["shape"])
    key, start = (np.asarray(v).reshape(*v.shape[:-1], *inner, 2) for v in x)
    number = np.arange(int(np.prod(a["shape"], dtype=np.int64)), dtype=np.uint64).reshape(a["shape"])
    first = start[..., 0].astype(np.uint64) | start[..., 1].astype(np.uint64) << np.uint64(32)
    with np.errstate(over="ignore"):
        counter = first + number
    low, high = counter.astype(np.uint32), (counter >> np.uint64(32)).astype(np.uint32)
    return threefry2x32(key, low, high)[a["word"]]


# ---- types and markers -------------------------------------------------------------------------------------


@_meaning("cast")
def _cast(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    out: Array = np.asarray(cast_numpy(x[0], a["dtype"]))
    return out


@_meaning("bitcast")
def _bitcast(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return np.asarray(x[0], order="C").view(a["dtype"].numpy)


@_meaning("stop_gradient", "mark", "barrier")
def _same(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return x[0]


@_meaning("custom")
def _custom(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    index: int = a["index"]
    return x[index]


@_meaning("host_call")
def _host_call(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return host.call(a["function"], x, a["arguments"]).astype(a["dtype"].numpy, copy=False)


# ---- movement ----------------------------------------------------------------------------------------------


@_meaning("reshape")
def _reshape(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return x[0].reshape(a["shape"])


@_meaning("permute")
def _permute(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return x[0].transpose(a["axes"])


@_meaning("broadcast")
def _broadcast(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return np.broadcast_to(x[0], a["shape"])


@_meaning("slice")
def _slice(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return x[0][tuple(map(slice, a["start"], a["stop"], a["step"]))]


@_meaning("pad")
def _pad(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    spread = [n + gap * max(n - 1, 0) for n, gap in zip(x[0].shape, a["interior"], strict=True)]
    sizes = [low + n + high for low, n, high in zip(a["low"], spread, a["high"], strict=True)]
    out = np.full(sizes, x[1])
    out[
        tuple(
            slice(low, low + n, gap + 1) for low, n, gap in zip(a["low"], spread, a["interior"], strict=True)
        )
    ] = x[0]
    return out


@_meaning("flip")
def _flip(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return np.flip(x[0], a["axes"])


@_meaning("concat")
def _concat(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return np.concatenate(x, a["axis"])


@_meaning("window")
def _window(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    return _windows(x[0], a["axes"], a["size"], a["stride"], a["dilation"])


def _windows(
    x: Array, axes: Sequence[int], size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> Array:
    shape, strides = list(x.shape), list(x.strides)
    for axis, k, s, d in zip(axes, size, stride, dilation, strict=True):
        shape[axis] = (shape[axis] - (k - 1) * d - 1) // s + 1
        strides[axis] *= s
    steps = [x.strides[axis] * d for axis, d in zip(axes, dilation, strict=True)]
    return np.lib.stride_tricks.as_strided(x, [*shape, *size], [*strides, *steps], writeable=False)


# ---- reductions and scans ----------------------------------------------------------------------------------


def _reduction(function: Callable[..., Any], typed: bool) -> Meaning:
    def reduce(x: Sequence[Array], a: Mapping[str, Any]) -> Any:
        wide = _accumulator(x[0])
        with np.errstate(all="ignore"):
            out = (
                function(wide, axis=a["axes"], dtype=wide.dtype) if typed else function(wide, axis=a["axes"])
            )
            return np.asarray(out).astype(x[0].dtype)

    return reduce


MEANING["reduce_sum"] = _reduction(np.sum, typed=True)
MEANING["reduce_prod"] = _reduction(np.prod, typed=True)
MEANING["reduce_max"] = _reduction(np.max, typed=False)
MEANING["reduce_min"] = _reduction(np.min, typed=False)


@_meaning("argmax")
def _argmax(x: Sequence[Array], a: Mapping[str, Any]) -> Any:
    return np.asarray(np.argmax(_accumulator(x[0]), axis=a["axis"]), np.int64)


@_meaning("argmin")
def _argmin(x: Sequence[Array], a: Mapping[str, Any]) -> Any:
    return np.asarray(np.argmin(_accumulator(x[0]), axis=a["axis"]), np.int64)


@_meaning("cumsum")
def _cumsum(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    wide = _accumulator(x[0])
    wide = np.flip(wide, a["axis"]) if a["reverse"] else wide
    with np.errstate(all="ignore"):
        out = np.cumsum(wide, axis=a["axis"], dtype=wide.dtype).astype(x[0].dtype)
    return np.flip(out, a["axis"]) if a["reverse"] else out


@_meaning("fold")
def _fold(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    axes, rank = a["axes"], x[0].ndim - len(a["axes"])
    wide = _accumulator(x[0])
    shape = list(x[0].shape[:rank])
    for axis, size in zip(axes, a["size"], strict=True):
        shape[axis] = size
    out = np.zeros(shape, wide.dtype)
    with np.errstate(all="ignore"):
        for place in itertools.product(*map(range, x[0].shape[rank:])):
            where = [slice(None)] * rank
            for axis, k, s, d in zip(axes, place, a["stride"], a["dilation"], strict=True):
                where[axis] = slice(k * d, k * d + (x[0].shape[axis] - 1) * s + 1, s)
            out[tuple(where)] += wide[(slice(None),) * rank + place]
        return out.astype(x[0].dtype)


# ---- indexed access ----------------------------------------------------------------------------------------


def _indices(op: str, shape: Shape, axes: Sequence[int], indices: Sequence[Array]) -> tuple[Array, ...]:
    """The index arrays as int64, checked against the axes they address."""
    for axis, index in zip(axes, indices, strict=True):
        size: int = shape[axis]  # type: ignore[assignment]
        bad = index[(index < 0) | (index >= size)]
        if bad.size:
            raise IndexError(f"{op}: index {bad[0]} is out of range for axis {axis} of size {size}")
    return tuple(i.astype(np.int64) for i in indices)


def _addressed_first(x: Array, axes: Sequence[int]) -> Array:
    """A view of ``x`` with the addressed axes in front, the others behind in order."""
    return x.transpose([*axes, *(i for i in range(x.ndim) if i not in axes)])


@_meaning("gather")
def _gather(x: Sequence[Array], a: Mapping[str, Any]) -> Any:
    return _addressed_first(x[0], a["axes"])[_indices("gather", x[0].shape, a["axes"], x[1:])]


@_meaning("scatter")
def _scatter(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    indices = _indices("scatter", x[0].shape, a["axes"], x[2:])
    out = np.array(_accumulator(x[0]), order="C", copy=True)
    target, updates = _addressed_first(out, a["axes"]), _accumulator(x[1])
    with np.errstate(all="ignore"):
        if a["mode"] == "set":
            # One at a time, so that the last of repeated places wins by definition and not by NumPy's choice.
            for place in np.ndindex(*indices[0].shape):
                target[tuple(i[place] for i in indices)] = updates[place]
        else:
            {"add": np.add, "max": np.maximum, "min": np.minimum}[a["mode"]].at(target, indices, updates)
        return out.astype(x[0].dtype)


# ---- contractions ------------------------------------------------------------------------------------------


@_meaning("dot")
def _dot(x: Sequence[Array], a: Mapping[str, Any]) -> Any:
    result: DType = a["dtype"]
    wide = _contraction_type(dt.from_numpy(x[0].dtype), result)
    sides = []
    for array, contract, batch in (
        (x[0], a["lhs_contract"], a["lhs_batch"]),
        (x[1], a["rhs_contract"], a["rhs_batch"]),
    ):
        free = [i for i in range(array.ndim) if i not in contract and i not in batch]
        moved = array.transpose([*batch, *free, *contract]).astype(wide)
        sides.append(
            (
                moved,
                [array.shape[i] for i in batch],
                [array.shape[i] for i in free],
                [array.shape[i] for i in contract],
            )
        )
    (lhs, batch, rows, inner), (rhs, _, columns, _) = sides
    b, m, n, k = (int(np.prod(s, dtype=np.int64)) for s in (batch, rows, columns, inner))
    with np.errstate(all="ignore"):
        out = np.matmul(lhs.reshape(b, m, k), rhs.reshape(b, n, k).transpose(0, 2, 1))
    return cast_numpy(out.reshape([*batch, *rows, *columns]), result)


@_meaning("conv")
def _conv(x: Sequence[Array], a: Mapping[str, Any]) -> Any:
    result: DType = a["dtype"]
    wide = _contraction_type(dt.from_numpy(x[0].dtype), result)
    groups, rank = a["groups"], x[0].ndim - 2
    image = _spread(x[0].astype(wide), a["padding"], a["lhs_dilation"])
    kernel = x[1].astype(wide)
    windows = _windows(image, range(2, 2 + rank), kernel.shape[2:], a["stride"], a["rhs_dilation"])
    filters, per_group = kernel.shape[0] // groups, kernel.shape[1]
    places = windows.shape[2 : 2 + rank]
    out = np.zeros((x[0].shape[0], kernel.shape[0], *places), wide)
    inner = [1, *range(2 + rank, 2 + 2 * rank)]
    with np.errstate(all="ignore"):
        for g in range(groups):
            part = windows[:, g * per_group : (g + 1) * per_group]
            weights = kernel[g * filters : (g + 1) * filters]
            product = np.tensordot(
                part, weights, (inner, list(range(1, 2 + rank)))
            )  # [n, places..., filters]
            out[:, g * filters : (g + 1) * filters] = np.moveaxis(product, -1, 1)
    return cast_numpy(out, result)


def _spread(x: Array, padding: Sequence[tuple[int, int]], dilation: Sequence[int]) -> Array:
    """The spatial axes with ``dilation - 1`` zeros between elements and zeros around; padding < 0 removes."""
    for axis, ((low, high), d) in enumerate(zip(padding, dilation, strict=True), 2):
        spread = (x.shape[axis] - 1) * d + 1 if x.shape[axis] else 0
        out = np.zeros([spread + low + high if i == axis else n for i, n in enumerate(x.shape)], x.dtype)
        at = np.arange(x.shape[axis]) * d + low  # where each element goes; those outside fall off
        kept = (at >= 0) & (at < out.shape[axis])
        np.moveaxis(out, axis, 0)[at[kept]] = np.moveaxis(x, axis, 0)[kept]
        x = out
    return x


# ---- attention ---------------------------------------------------------------------------------------------


def _scores(query: Array, key: Array, a: Mapping[str, Any]) -> Any:
    scores = np.matmul(query, np.swapaxes(key, -1, -2)) * query.dtype.type(a["scale"])
    if a["causal"]:
        hidden = np.triu(np.ones(scores.shape[-2:], np.bool_), 1)
        scores = np.where(hidden, scores.dtype.type(-np.inf), scores)
    return scores


@_meaning("attention")
def _attention(x: Sequence[Array], a: Mapping[str, Any]) -> Any:
    with np.errstate(all="ignore"):
        scores = _scores(x[0], x[1], a)
        top = scores.max(-1, keepdims=True)
        weights = np.exp(scores - top)
        total = weights.sum(-1, keepdims=True)
        return (top + np.log(total))[..., 0] if a["result"] == "lse" else np.matmul(weights / total, x[2])


@_meaning("attention_grad")
def _attention_grad(x: Sequence[Array], a: Mapping[str, Any]) -> Any:
    query, key, value, g, lse, delta = x
    with np.errstate(all="ignore"):
        weights = np.exp(_scores(query, key, a) - lse[..., None])
        if a["wrt"] == "v":
            return np.matmul(np.swapaxes(weights, -1, -2), g)
        change = (
            weights * (np.matmul(g, np.swapaxes(value, -1, -2)) - delta[..., None]) * g.dtype.type(a["scale"])
        )
        return np.matmul(change, key) if a["wrt"] == "q" else np.matmul(np.swapaxes(change, -1, -2), query)


# ---- loops and branches -------------------------------------------------------------------------------------------------


@_meaning("scan")
def _scan(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    body, index, first = a["body"], a["index"], a["consts"] + a["carries"]
    consts, carries, xs = x[: a["consts"]], list(x[a["consts"] : first]), x[first:]
    one = body.types[index]
    ys = np.zeros((a["length"], *one.shape), one.dtype.numpy)
    for i in range(a["length"])[:: -1 if a["reverse"] else 1]:
        given = [*consts, *carries, *(np.asarray(stack[i]) for stack in xs)]
        results = evaluate(body.outputs, dict(zip(body.inputs, given, strict=True)))
        carries = results[: a["carries"]]
        if index >= a["carries"]:
            ys[i] = results[index]
    return carries[index] if index < a["carries"] else ys


@_meaning("while_loop")
def _while_loop(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    body, consts, carries = a["body"], x[: a["consts"]], list(x[a["consts"] :])
    while carries[0]:
        carries = evaluate(body.outputs, dict(zip(body.inputs, [*consts, *carries], strict=True)))
    return np.asarray(carries[a["index"]])


@_meaning("switch")
def _switch(x: Sequence[Array], a: Mapping[str, Any]) -> Array:
    branch = a["branches"][min(max(int(x[0]), 0), len(a["branches"]) - 1)]
    bound = dict(zip(branch.inputs, x[1:], strict=True))
    return np.asarray(evaluate([branch.outputs[a["index"]]], bound)[0])

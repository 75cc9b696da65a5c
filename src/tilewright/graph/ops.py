"""The op table: every graph operation with its operands, static arguments, type rule and meaning in one line.

Elementwise operations come from the scalar vocabulary; their operands have one shape (``broadcast`` is
explicit) and the types the scalar row asks for. Shapes are lists of ``Extent``; rules that need a known size say
so through ``static``. Notation: B batch, M N K contraction ranges, n image, c channel, s spatial axes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tilewright.core import dtype as dt
from tilewright.core import shape as shapes
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS, ScalarOp, result_dtype
from tilewright.core.shape import Extent, Shape
from tilewright.graph.body import Body
from tilewright.graph.host import FUNCTIONS as HOST_FUNCTIONS
from tilewright.graph.ir import OPS, Op, TensorType

__all__ = ["ANCHORS", "MOVEMENT", "OPS", "REDUCTIONS"]

Types = tuple[TensorType, ...]
Attrs = dict[str, Any]

REDUCTIONS = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min")
MOVEMENT = ("reshape", "permute", "broadcast", "slice", "pad", "flip", "concat", "window")


def _row(
    name: str, arity: int | None, attrs: Sequence[str], doc: str
) -> Callable[[Callable[[Types, Attrs], TensorType]], None]:
    def add(infer: Callable[[Types, Attrs], TensorType]) -> None:
        OPS[name] = Op(name, arity, tuple(attrs), infer, doc)

    return add


def _check_axis(op: str, axis: int, rank: int) -> None:
    if not 0 <= axis < rank:
        raise ValueError(f"{op}: axis {axis} is out of range for rank {rank}")


def _check_axes(op: str, axes: Sequence[int], rank: int) -> None:
    for axis in axes:
        _check_axis(op, axis, rank)
    if len(set(axes)) != len(axes):
        raise ValueError(f"{op}: an axis repeats in {tuple(axes)}")


def _check_shape(op: str, shape: Shape) -> None:
    if any(d < 0 for d in shape):
        raise ValueError(f"{op}: a size is not negative, got shape {shape}")


def _check_lengths(op: str, count: int, attrs: Attrs, *names: str) -> None:
    for name in names:
        if len(attrs[name]) != count:
            raise ValueError(f"{op}: {name} has {len(attrs[name])} entries for {count} axes")


def _check_result(op: str, operand: DType, result: DType) -> None:
    """A contraction gives an element of its operands' sort: integer, float or complex."""
    sort = {"i": "integer", "u": "integer", "f": "float", "c": "complex"}
    if operand.is_bool or sort.get(result.kind) != sort[operand.kind]:
        raise TypeError(f"{op}: operands of type {operand} do not give {result}; cast before or after")


def _elementwise(row: ScalarOp) -> Callable[[Types, Attrs], TensorType]:
    def infer(types: Types, attrs: Attrs) -> TensorType:
        for t in types[1:]:
            if t.shape != types[0].shape:
                raise ValueError(
                    f"{row.name}: shapes {types[0].shape} and {t.shape} differ; broadcast them first"
                )
        return TensorType(result_dtype(row, tuple(t.dtype for t in types)), types[0].shape)

    return infer


for _scalar in SCALAR_OPS.values():
    OPS[_scalar.name] = Op(
        _scalar.name, _scalar.arity, (), _elementwise(_scalar), _scalar.text or f"elementwise {_scalar.name}"
    )


# ---- leaves ------------------------------------------------------------------------------------------------


@_row("input", 0, ("id", "dtype", "shape"), "a tensor given from outside")
def _input(types: Types, attrs: Attrs) -> TensorType:
    return TensorType(attrs["dtype"], attrs["shape"])


@_row("constant", 0, ("value", "dtype"), "a rank-0 constant")
def _constant(types: Types, attrs: Attrs) -> TensorType:
    return TensorType(attrs["dtype"], ())


@_row("iota", 0, ("shape", "axis", "dtype"), "each element is its index along axis")
def _iota(types: Types, attrs: Attrs) -> TensorType:
    _check_shape("iota", attrs["shape"])
    _check_axis("iota", attrs["axis"], len(attrs["shape"]))
    if not attrs["dtype"].is_integer:
        raise TypeError(f"iota gives integers, got {attrs['dtype']}; cast its result")
    return TensorType(attrs["dtype"], attrs["shape"])


@_row(
    "random_bits",
    2,
    ("shape", "word"),
    "element n of each key [.., 2] is word 0 or 1 of Threefry-2x32 at the 64-bit counter start [.., 2] (low word first) + n",
)
def _random_bits(types: Types, attrs: Attrs) -> TensorType:
    key, start = types
    if key.dtype is not dt.uint32 or key.shape[-1:] != (2,):
        raise TypeError(f"random_bits: a key is uint32[2], got {key}")
    if start != key:
        raise TypeError(f"random_bits: a start is of the key's type {key}, got {start}")
    if attrs["word"] not in (0, 1):
        raise ValueError(f"random_bits: a counter gives the words 0 and 1, not {attrs['word']!r}")
    _check_shape("random_bits", attrs["shape"])
    return TensorType(dt.uint32, key.shape[:-1] + attrs["shape"])


# ---- types and markers -------------------------------------------------------------------------------------


@_row("cast", 1, ("dtype",), "convert; floats saturate into integers, NaN becomes 0, to bool is x != 0")
def _cast(types: Types, attrs: Attrs) -> TensorType:
    return TensorType(attrs["dtype"], types[0].shape)


@_row("bitcast", 1, ("dtype",), "the same bits as another type of the same width")
def _bitcast(types: Types, attrs: Attrs) -> TensorType:
    to: DType = attrs["dtype"]
    if {to.kind, types[0].dtype.kind} & {"b", "c"}:
        raise TypeError(f"bitcast: {types[0].dtype} to {to} is not between real numbers")
    if to.bits != types[0].dtype.bits:
        raise TypeError(f"bitcast: {types[0].dtype} and {to} do not have the same width")
    return TensorType(to, types[0].shape)


@_row("stop_gradient", 1, (), "the operand, with no derivative")
def _stop_gradient(types: Types, attrs: Attrs) -> TensorType:
    return types[0]


@_row(
    "mark",
    1,
    ("id",),
    "the operand under a name of its own, so that a transform can differentiate with respect to it",
)
def _mark(types: Types, attrs: Attrs) -> TensorType:
    return types[0]


@_row(
    "barrier",
    None,
    (),
    "the first operand, not before the others are known: what is computed from it is computed anew",
)
def _barrier(types: Types, attrs: Attrs) -> TensorType:
    if not types:
        raise TypeError("barrier: needs at least one operand")
    return types[0]


@_row(
    "custom",
    None,
    ("rule", "outputs", "index"),
    "operand number index, one of the first outputs operands; rule gives their derivatives with respect to the rest",
)
def _custom(types: Types, attrs: Attrs) -> TensorType:
    if not 0 <= attrs["index"] < attrs["outputs"] <= len(types):
        raise ValueError(
            f"custom: {attrs['index']} is not one of {attrs['outputs']} outputs among {len(types)} operands"
        )
    return types[attrs["index"]]


@_row(
    "host_call",
    None,
    ("function", "arguments", "dtype", "shape"),
    "the array that a function of graph/host.py (LAPACK, pocketfft, sorting) gives for the operands",
)
def _host_call(types: Types, attrs: Attrs) -> TensorType:
    if attrs["function"] not in HOST_FUNCTIONS:
        raise ValueError(f"host_call: there is no function {attrs['function']!r}")
    if not types:
        raise ValueError("host_call: needs at least one operand")
    _check_shape("host_call", attrs["shape"])
    return TensorType(attrs["dtype"], attrs["shape"])


# ---- movement: index rewrites, no arithmetic ---------------------------------------------------------------


@_row("reshape", 1, ("shape",), "the same elements in row-major order under another shape")
def _reshape(types: Types, attrs: Attrs) -> TensorType:
    shape: Shape = attrs["shape"]
    _check_shape("reshape", shape)
    count = shapes.total(types[0].shape)
    if shapes.total(shape) != count:
        raise ValueError(f"reshape: {count} elements of shape {types[0].shape} do not fill shape {shape}")
    return TensorType(types[0].dtype, shape)


@_row("permute", 1, ("axes",), "out[i...] with axis j taken from the operand's axis axes[j]")
def _permute(types: Types, attrs: Attrs) -> TensorType:
    axes: tuple[int, ...] = attrs["axes"]
    if sorted(axes) != list(range(types[0].rank)):
        raise ValueError(f"permute: {axes} is not an order of the {types[0].rank} axes")
    return TensorType(types[0].dtype, tuple(types[0].shape[a] for a in axes))


@_row("broadcast", 1, ("shape",), "NumPy's broadcasting to a shape: new leading axes, size-1 axes repeated")
def _broadcast(types: Types, attrs: Attrs) -> TensorType:
    shape: Shape = attrs["shape"]
    _check_shape("broadcast", shape)
    old = types[0].shape
    lead = len(shape) - len(old)
    if lead < 0 or any(a != 1 and not shapes.dim_equal(a, b) for a, b in zip(old, shape[lead:], strict=True)):
        raise ValueError(f"broadcast: shape {old} does not broadcast to {shape}")
    return TensorType(types[0].dtype, shape)


@_row("slice", 1, ("start", "stop", "step"), "start, stop (exclusive) and positive step for every axis")
def _slice(types: Types, attrs: Attrs) -> TensorType:
    _check_lengths("slice", types[0].rank, attrs, "start", "stop", "step")
    out: list[Extent] = []
    for dim, a, b, s in zip(types[0].shape, attrs["start"], attrs["stop"], attrs["step"], strict=True):
        if not 0 <= a <= b <= dim or s < 1:
            raise ValueError(f"slice: {a}:{b}:{s} does not lie in an axis of size {dim}")
        out.append(dim if (a, b, s) == (0, dim, 1) else -(-(b - a) // s))
    return TensorType(types[0].dtype, tuple(out))


@_row(
    "pad",
    2,
    ("low", "high", "interior"),
    "add low/high elements around and interior ones between; the second operand fills",
)
def _pad(types: Types, attrs: Attrs) -> TensorType:
    if types[1] != TensorType(types[0].dtype, ()):
        raise TypeError(f"pad: the fill value is {types[0].dtype}[], got {types[1]}")
    _check_lengths("pad", types[0].rank, attrs, "low", "high", "interior")
    out: list[Extent] = []
    for dim, low, high, gap in zip(
        types[0].shape, attrs["low"], attrs["high"], attrs["interior"], strict=True
    ):
        if min(low, high, gap) < 0:
            raise ValueError("pad: widths are not negative; slice to remove elements")
        if low == high == gap == 0:
            out.append(dim)
        else:
            out.append(low + high + dim + gap * (dim - 1 if dim > 0 else 0))
    return TensorType(types[0].dtype, tuple(out))


@_row("flip", 1, ("axes",), "reverse the order along axes")
def _flip(types: Types, attrs: Attrs) -> TensorType:
    _check_axes("flip", attrs["axes"], types[0].rank)
    return types[0]


@_row("concat", None, ("axis",), "join along an axis")
def _concat(types: Types, attrs: Attrs) -> TensorType:
    axis: int = attrs["axis"]
    if not types:
        raise ValueError("concat: needs at least one operand")
    first = types[0]
    _check_axis("concat", axis, first.rank)
    total: Extent = 0
    for t in types:
        if t.dtype is not first.dtype or t.rank != first.rank:
            raise TypeError(f"concat: {first} and {t} differ in type or rank")
        if any(i != axis and a != b for i, (a, b) in enumerate(zip(first.shape, t.shape, strict=True))):
            raise ValueError(f"concat: shapes {first.shape} and {t.shape} differ off axis {axis}")
        total = total + t.shape[axis]
    return TensorType(first.dtype, (*first.shape[:axis], total, *first.shape[axis + 1 :]))


@_row(
    "window",
    1,
    ("axes", "size", "stride", "dilation"),
    "out[..o.., k..] = x[..o*stride + k*dilation..]; the k axes come last",
)
def _window(types: Types, attrs: Attrs) -> TensorType:
    axes: tuple[int, ...] = attrs["axes"]
    _check_axes("window", axes, types[0].rank)
    _check_lengths("window", len(axes), attrs, "size", "stride", "dilation")
    out = list(types[0].shape)
    for axis, k, s, d in zip(axes, attrs["size"], attrs["stride"], attrs["dilation"], strict=True):
        size = out[axis]
        if k < 1 or s < 1 or d < 1:
            raise ValueError("window: size, stride and dilation are at least 1")
        if size < (k - 1) * d + 1:
            raise ValueError(f"window: {k} elements with dilation {d} do not fit in an axis of size {size}")
        out[axis] = (size - (k - 1) * d - 1) // s + 1
    return TensorType(types[0].dtype, (*out, *attrs["size"]))


# ---- reductions and scans ----------------------------------------------------------------------------------


def _reduce(types: Types, attrs: Attrs) -> TensorType:
    _check_axes("reduce", attrs["axes"], types[0].rank)
    return TensorType(
        types[0].dtype, tuple(d for i, d in enumerate(types[0].shape) if i not in attrs["axes"])
    )


for _name, _kinds in (
    ("reduce_sum", "iufc"),
    ("reduce_prod", "iufc"),
    ("reduce_max", "biuf"),
    ("reduce_min", "biuf"),
):

    def _typed(types: Types, attrs: Attrs, name: str = _name, kinds: str = _kinds) -> TensorType:
        if types[0].dtype.kind not in kinds:
            raise TypeError(f"{name} is not defined for {types[0].dtype}")
        if name in ("reduce_max", "reduce_min") and any(types[0].shape[a] == 0 for a in attrs["axes"]):
            raise ValueError(f"{name}: an axis of size 0 has no {name[-3:]}imum")
        return _reduce(types, attrs)

    OPS[_name] = Op(
        _name,
        1,
        ("axes",),
        _typed,
        f"{_name[7:]} over axes, which disappear; half types accumulate in float32",
    )


def _arg_reduce(types: Types, attrs: Attrs) -> TensorType:
    axis: int = attrs["axis"]
    _check_axis("argmax", axis, types[0].rank)
    if types[0].dtype.is_complex:
        raise TypeError("argmax/argmin are not defined for complex elements")
    if types[0].shape[axis] == 0:
        raise ValueError("argmax/argmin: an axis of size 0 has no largest element")
    return TensorType(dt.int64, (*types[0].shape[:axis], *types[0].shape[axis + 1 :]))


OPS["argmax"] = Op(
    "argmax", 1, ("axis",), _arg_reduce, "int64 index of the first largest element (of the first NaN)"
)
OPS["argmin"] = Op(
    "argmin", 1, ("axis",), _arg_reduce, "int64 index of the first smallest element (of the first NaN)"
)


@_row(
    "cumsum", 1, ("axis", "reverse"), "running sum along an axis, itself included; from the end when reverse"
)
def _cumsum(types: Types, attrs: Attrs) -> TensorType:
    _check_axis("cumsum", attrs["axis"], types[0].rank)
    if types[0].dtype.is_bool:
        raise TypeError("cumsum is not defined for bool; cast first")
    return types[0]


@_row(
    "fold",
    1,
    ("axes", "size", "stride", "dilation"),
    "adjoint of window: out[i] sums x[..o.., k..] over o*stride + k*dilation == i",
)
def _fold(types: Types, attrs: Attrs) -> TensorType:
    axes: tuple[int, ...] = attrs["axes"]
    rank = types[0].rank - len(axes)
    _check_axes("fold", axes, rank)
    _check_lengths("fold", len(axes), attrs, "size", "stride", "dilation")
    if types[0].dtype.is_bool:
        raise TypeError("fold is not defined for bool; cast first")
    kernel = shapes.static(types[0].shape[rank:])
    out = list(types[0].shape[:rank])
    for axis, k, size, s, d in zip(
        axes, kernel, attrs["size"], attrs["stride"], attrs["dilation"], strict=True
    ):
        if s < 1 or d < 1:
            raise ValueError("fold: stride and dilation are at least 1")
        span = (k - 1) * d + 1
        if size < span or (size - span) // s + 1 != out[axis]:
            raise ValueError(
                f"fold: size {size} does not give {out[axis]} windows of {k}, stride {s}, dilation {d}"
            )
        out[axis] = size
    return TensorType(types[0].dtype, tuple(out))


# ---- indexed access ----------------------------------------------------------------------------------------


def _index_types(op: str, operand: TensorType, indices: Types, axes: tuple[int, ...]) -> Shape:
    _check_axes(op, axes, operand.rank)
    if not indices or len(indices) != len(axes):
        raise ValueError(f"{op}: {len(axes)} axes need as many index operands, got {len(indices)}")
    for t in indices:
        if not t.dtype.is_integer or t.shape != indices[0].shape:
            raise TypeError(f"{op}: indices are integers of one shape, got {', '.join(map(str, indices))}")
    return indices[0].shape + tuple(d for i, d in enumerate(operand.shape) if i not in axes)


@_row(
    "gather",
    None,
    ("axes",),
    "x, i0...: out[j..., r...] = x at index i_a[j...] on axes[a], r on the others; out of range is an error",
)
def _gather(types: Types, attrs: Attrs) -> TensorType:
    return TensorType(types[0].dtype, _index_types("gather", types[0], types[1:], attrs["axes"]))


@_row(
    "scatter",
    None,
    ("axes", "mode"),
    "x, updates, i0...: x with updates[j..., r...] set/add/max/min at those places; set keeps the last",
)
def _scatter(types: Types, attrs: Attrs) -> TensorType:
    if attrs["mode"] not in ("set", "add", "max", "min"):
        raise ValueError(f"scatter: mode {attrs['mode']!r} is not one of set, add, max, min")
    kinds = {"set": "biufc", "add": "iufc"}.get(attrs["mode"], "biuf")
    if types[0].dtype.kind not in kinds:
        raise TypeError(f"scatter: mode {attrs['mode']} is not defined for {types[0].dtype}")
    want = TensorType(types[0].dtype, _index_types("scatter", types[0], types[2:], attrs["axes"]))
    if types[1] != want:
        raise TypeError(f"scatter: the updates are {want}, got {types[1]}")
    return types[0]


# ---- contractions ------------------------------------------------------------------------------------------


@_row(
    "dot",
    2,
    ("lhs_contract", "rhs_contract", "lhs_batch", "rhs_batch", "dtype"),
    "general contraction; out axes: batch, lhs free, rhs free",
)
def _dot(types: Types, attrs: Attrs) -> TensorType:
    lhs, rhs = types
    lc, rc, lb, rb = (attrs[k] for k in ("lhs_contract", "rhs_contract", "lhs_batch", "rhs_batch"))
    _check_axes("dot", (*lc, *lb), lhs.rank)
    _check_axes("dot", (*rc, *rb), rhs.rank)
    if lhs.dtype is not rhs.dtype or lhs.dtype.is_bool:
        raise TypeError(f"dot: operands are of one numeric type, got {lhs} and {rhs}")
    _check_result("dot", lhs.dtype, attrs["dtype"])
    for what, left, right in (("contracted", lc, rc), ("batch", lb, rb)):
        if len(left) != len(right) or any(
            lhs.shape[a] != rhs.shape[b] for a, b in zip(left, right, strict=True)
        ):
            raise ValueError(f"dot: {what} axes {left} of {lhs} and {right} of {rhs} do not match")
    batch = tuple(lhs.shape[a] for a in lb)
    free_l = tuple(d for i, d in enumerate(lhs.shape) if i not in lc and i not in lb)
    free_r = tuple(d for i, d in enumerate(rhs.shape) if i not in rc and i not in rb)
    return TensorType(attrs["dtype"], batch + free_l + free_r)


@_row(
    "conv", 2, ("stride", "padding", "lhs_dilation", "rhs_dilation", "groups", "dtype"),
    "cross-correlation of [n, c, s...] with [o, c/groups, k...]; padding ((low, high), ...) may be negative",
)  # fmt: skip
def _conv(types: Types, attrs: Attrs) -> TensorType:
    lhs, rhs = types
    if lhs.rank != rhs.rank or lhs.rank < 3:
        raise ValueError(f"conv: operands have one rank of at least 3, got {lhs} and {rhs}")
    if lhs.dtype is not rhs.dtype or lhs.dtype.is_bool:
        raise TypeError(f"conv: operands are of one numeric type, got {lhs} and {rhs}")
    _check_result("conv", lhs.dtype, attrs["dtype"])
    _check_lengths("conv", lhs.rank - 2, attrs, "stride", "padding", "lhs_dilation", "rhs_dilation")
    if (
        min(*attrs["stride"], *attrs["lhs_dilation"], *attrs["rhs_dilation"], *shapes.static(rhs.shape[2:]))
        < 1
    ):
        raise ValueError("conv: strides, dilations and kernel sizes are at least 1")
    groups: int = attrs["groups"]
    (channels, filters, per_group) = shapes.static((lhs.shape[1], rhs.shape[0], rhs.shape[1]))
    if groups < 1 or channels != per_group * groups or filters % groups:
        raise ValueError(
            f"conv: {channels} input and {filters} output channels in {groups} groups do not match a kernel "
            f"of shape {rhs.shape}"
        )
    out: list[Extent] = [lhs.shape[0], filters]
    for size, k, s, (low, high), ld, rd in zip(
        lhs.shape[2:], shapes.static(rhs.shape[2:]), attrs["stride"], attrs["padding"],
        attrs["lhs_dilation"], attrs["rhs_dilation"], strict=True,
    ):  # fmt: skip
        spread = 0 if size == 0 else (size - 1) * ld + 1
        span = (k - 1) * rd + 1
        if spread + low + high < span:
            raise ValueError(
                f"conv: a kernel of span {span} does not fit in a padded axis of size {spread + low + high}"
            )
        out.append((spread + low + high - span) // s + 1)
    return TensorType(attrs["dtype"], tuple(out))


def _attention_types(op: str, types: Types) -> None:
    query, key, value = types[:3]
    if query.rank < 2 or key.shape != value.shape or len({t.dtype for t in types}) != 1:
        raise TypeError(
            f"{op}: query [.., T, D], key and value [.., S, D] of one type, got {', '.join(map(str, types))}"
        )
    if query.shape[:-2] != key.shape[:-2] or query.shape[-1:] != key.shape[-1:]:
        raise ValueError(f"{op}: query {query} and key {key} differ off axis {query.rank - 2}")
    if query.dtype.name not in ("float32", "float64"):
        raise TypeError(f"{op} is defined for float32 and float64, got {query.dtype}")
    if key.shape[-2] == 0:
        raise ValueError(f"{op}: a row of no scores has no softmax")


@_row(
    "attention", 3, ("scale", "causal", "result"),
    "softmax(q k^T * scale) v of q [.., T, D] and k, v [.., S, D] (result 'mix'), or log sum exp of each row of scores "
    "('lse'); causal: position t sees keys up to t",
)  # fmt: skip
def _attention(types: Types, attrs: Attrs) -> TensorType:
    _attention_types("attention", types)
    if attrs["result"] not in ("mix", "lse"):
        raise ValueError(f"attention: result {attrs['result']!r} is not one of mix, lse")
    return types[0] if attrs["result"] == "mix" else TensorType(types[0].dtype, types[0].shape[:-1])


@_row(
    "attention_grad", 6, ("scale", "causal", "wrt"),
    "q, k, v, g, lse, delta: with P = exp(q k^T * scale - lse) and Z = P * (g v^T - delta) * scale, Z k (wrt 'q'), Z^T q ('k') "
    "or P^T g ('v')",
)  # fmt: skip
def _attention_grad(types: Types, attrs: Attrs) -> TensorType:
    _attention_types("attention_grad", types)
    rows = TensorType(types[0].dtype, types[0].shape[:-1])
    if types[3:] != (types[0], rows, rows):
        raise TypeError(
            f"attention_grad: g is {types[0]}, lse and delta are {rows}, got {', '.join(map(str, types[3:]))}"
        )
    if attrs["wrt"] not in ("q", "k", "v"):
        raise ValueError(f"attention_grad: wrt {attrs['wrt']!r} is not one of q, k, v")
    return types["qkv".index(attrs["wrt"])]


# ---- loops -------------------------------------------------------------------------------------------------


@_row(
    "scan",
    None,
    ("body", "length", "reverse", "consts", "carries", "index"),
    "body repeated: operands are constants, first carries, stacked x; index picks a last carry or a stacked y",
)
def _scan(types: Types, attrs: Attrs) -> TensorType:
    body: Body = attrs["body"]
    length, consts, carries = attrs["length"], attrs["consts"], attrs["carries"]
    if min(length, consts, carries) < 0 or consts + carries > len(types):
        raise ValueError(
            f"scan: {consts} constants and {carries} carries of length {length} do not fit {len(types)} operands"
        )
    if len(body.inputs) != len(types):
        raise ValueError(f"scan: the body takes {len(body.inputs)} values, got {len(types)} operands")
    for number, (own, given) in enumerate(zip(body.inputs, types, strict=True)):
        want = own.type if number < consts + carries else _stacked(own.type, length)
        if given != want:
            raise TypeError(f"scan: operand {number} is {want} for the body, got {given}")
    for number, (own, new) in enumerate(
        zip(body.inputs[consts : consts + carries], body.types, strict=False)
    ):
        if own.type != new:
            raise TypeError(f"scan: carry {number} is {own.type} and becomes {new}")
    if len(body.outputs) < carries or not 0 <= attrs["index"] < len(body.outputs):
        raise ValueError(
            f"scan: result {attrs['index']} of {len(body.outputs)} with {carries} carries does not exist"
        )
    one = body.types[attrs["index"]]
    return one if attrs["index"] < carries else _stacked(one, length)


@_row(
    "while_loop",
    None,
    ("body", "consts", "carries", "index"),
    "body repeated while carry 0, a bool, is true: operands are constants and first carries; index picks a last carry",
)
def _while_loop(types: Types, attrs: Attrs) -> TensorType:
    body: Body = attrs["body"]
    consts, carries = attrs["consts"], attrs["carries"]
    if min(consts, carries) < 0 or consts + carries != len(types):
        raise ValueError(
            f"while_loop: {consts} constants and {carries} carries do not fit {len(types)} operands"
        )
    _takes("while_loop", body, types)
    if not carries or types[consts] != TensorType(dt.bool_, ()):
        raise TypeError(f"while_loop: carry 0 is bool[], got {types[consts] if carries else 'none'}")
    if body.types != types[consts:]:
        raise TypeError(f"while_loop: carries {_listed(types[consts:])} become {_listed(body.types)}")
    index = _picked("while_loop", attrs["index"], carries)
    return body.types[index]


@_row(
    "switch",
    None,
    ("branches", "index"),
    "the branch whose number operand 0 (int32) is, clamped to those there are, of the other operands; index picks a result",
)
def _switch(types: Types, attrs: Attrs) -> TensorType:
    branches: tuple[Body, ...] = attrs["branches"]
    if not branches or not types or types[0] != TensorType(dt.int32, ()):
        raise TypeError(f"switch: int32[] selects one of {len(branches)} branches, got {_listed(types[:1])}")
    for branch in branches:
        _takes("switch", branch, types[1:])
        if branch.types != branches[0].types:
            raise TypeError(f"switch: branches give {_listed(branches[0].types)} and {_listed(branch.types)}")
    index = _picked("switch", attrs["index"], len(branches[0].outputs))
    return branches[0].types[index]


def _takes(op: str, body: Body, types: Types) -> None:
    if tuple(v.type for v in body.inputs) != tuple(types):
        wanted = _listed([v.type for v in body.inputs])
        raise TypeError(f"{op}: the body takes {wanted}, got {_listed(types)}")


def _picked(op: str, index: int, count: int) -> int:
    if not 0 <= index < count:
        raise ValueError(f"{op}: result {index} of {count} does not exist")
    return index


def _listed(types: Sequence[TensorType]) -> str:
    return "(" + ", ".join(map(str, types)) + ")"


def _stacked(one: TensorType, length: int) -> TensorType:
    return TensorType(one.dtype, (length, *one.shape))


ANCHORS = (
    *REDUCTIONS,
    "argmax",
    "argmin",
    "cumsum",
    "fold",
    "gather",
    "scatter",
    "dot",
    "conv",
    "attention",
    "attention_grad",
    "random_bits",
    "scan",
    "while_loop",
    "switch",
)

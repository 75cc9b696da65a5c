"""Installs functions as methods and operators of ``Tensor``.

The class declares their types (``tensor/handle.py``); here is the table that says which function each one is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilewright.core.dtype import DType
from tilewright.core.elsewhere import ABSENT_FROM_TENSORS, Absent
from tilewright.functions import (
    activations,
    arithmetic,
    creation,
    differences,
    elementwise,
    grids,
    histograms,
    indexing,
    joining,
    linalg,
    movement,
    norms,
    reductions,
    running,
    selection,
    sets,
    sorting,
    statistics,
    types,
)
from tilewright.functions.arguments import as_tensor, cast, dtype_of
from tilewright.functions.indexing import At
from tilewright.functions.spellings import spelled
from tilewright.tensor import DTypeError, ShapeError, Tensor

__all__: list[str] = []

_OPERATORS: dict[str, Callable[[Any, Any], Tensor]] = {
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "truediv": elementwise.divide,
    "floordiv": elementwise.floor_divide,
    "mod": elementwise.remainder,
    "pow": elementwise.pow,
    "matmul": linalg.matmul,
    "and": elementwise.bitwise_and,
    "or": elementwise.bitwise_or,
    "xor": elementwise.bitwise_xor,
    "lshift": elementwise.bitwise_left_shift,
    "rshift": elementwise.bitwise_right_shift,
}
_COMPARISONS: dict[str, Callable[[Any, Any], Tensor]] = {
    "lt": elementwise.less,
    "le": elementwise.less_equal,
    "gt": elementwise.greater,
    "ge": elementwise.greater_equal,
    "eq": elementwise.equal,
    "ne": elementwise.not_equal,
}
_FOREIGN = (str, bytes, dict, set, type(None))  # operands that are no numbers: let Python say so


def _operator(function: Callable[[Any, Any], Tensor]) -> Callable[[Tensor, Any], Any]:
    def forward(self: Tensor, other: Any) -> Any:
        foreign = other.__class__ is not Tensor and isinstance(other, _FOREIGN)
        return NotImplemented if foreign else function(self, other)

    return forward


def _reflected(function: Callable[[Any, Any], Tensor]) -> Callable[[Tensor, Any], Any]:
    def backward(self: Tensor, other: Any) -> Any:
        return NotImplemented if isinstance(other, _FOREIGN) else function(other, self)

    return backward


def _in_place(name: str, function: Callable[[Any, Any], Tensor]) -> Callable[[Tensor, Any], Any]:
    def update(self: Tensor, other: Any) -> Any:
        if isinstance(other, _FOREIGN):
            return NotImplemented
        new = function(self, other)
        if new.dtype is not self.dtype:
            if _rank_of(new.dtype) > _rank_of(self.dtype):
                raise DTypeError(
                    f"{name}: the result is {new.dtype} and does not go into a tensor of {self.dtype};"
                    " write `x = x ... y` to get a new tensor, or convert the operand"
                )
            new = cast(new, self.dtype)
        if new.shape != self.shape:
            return self.assign(new)  # raises: an operand has more elements than the tensor
        return self._rebind(new, name)

    return update


def _rank_of(dtype: DType) -> int:
    return "buifc".index(dtype.kind) if dtype.kind != "u" else 1


_SHARED = {
    activations: ("relu", "sigmoid", "softmax", "log_softmax", "logsumexp", "silu", "gelu"),
    elementwise: (
        "abs", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "rsqrt", "sin", "cos", "tan", "asin", "acos",
        "atan", "sinh", "cosh", "tanh", "erf", "floor", "ceil", "round", "trunc", "sign", "square", "reciprocal", "conj",
        "isnan", "isinf", "isfinite", "clip", "maximum", "minimum", "logical_and", "logical_or", "logical_not", "logical_xor",
        "pow", "acosh", "asinh", "atanh", "atan2", "copysign", "hypot", "floor_divide", "remainder", "signbit", "logaddexp",
        "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift",
    ),
    arithmetic: (
        "addcdiv", "addcmul", "allclose", "angle", "deg2rad", "fmax", "fmin", "fmod", "frac", "frexp", "gcd", "heaviside",
        "isclose", "isneginf", "isposinf", "isreal", "lcm", "ldexp", "lerp", "logaddexp2", "nan_to_num", "rad2deg", "sinc",
    ),
    linalg: ("matmul", "dot", "outer"),
    movement: (
        "reshape", "flatten", "unflatten", "permute_dims", "swapaxes", "moveaxis", "broadcast_to", "expand_dims", "squeeze",
        "unstack", "split", "flip", "roll", "tile", "repeat",
    ),
    joining: (
        "array_split", "chunk", "dsplit", "expand", "fliplr", "flipud", "hsplit", "narrow", "ravel", "rot90", "unbind", "vsplit",
    ),
    reductions: (
        "sum", "prod", "max", "min", "mean", "var", "std", "any", "all", "argmax", "argmin", "count_nonzero",
        "cumulative_sum", "cumsum",
    ),
    differences: ("cumprod", "cumulative_prod", "diff", "nextafter"),
    running: ("cummax", "cummin", "logcumsumexp"),
    statistics: (
        "corrcoef", "cov", "median", "mode", "nanmean", "nanmedian", "nanquantile", "nansum", "ptp", "quantile",
    ),
    histograms: ("bincount", "histogram"),
    indexing: ("take", "take_along_axis", "nonzero"),
    selection: (
        "argwhere", "choose", "compress", "gather", "index_add", "index_copy", "index_fill", "index_select", "masked_fill",
        "masked_select", "put", "put_along_axis", "scatter", "scatter_add", "scatter_reduce",
    ),
    sets: ("isin", "unique", "unique_consecutive"),
    sorting: ("argpartition", "argsort", "kthvalue", "msort", "partition", "sort", "topk"),
    creation: ("tril", "triu"),
    grids: ("diag", "diag_embed", "diagflat", "fill_diagonal"),
}  # fmt: skip
_ALIASES: dict[str, Callable[..., Any]] = {
    "permute": movement.permute_dims,
    "view": movement.reshape,
    "unsqueeze": movement.expand_dims,
    "add": elementwise.add,
    "sub": elementwise.subtract,
    "mul": elementwise.multiply,
    "div": elementwise.divide,
    "neg": elementwise.negative,
    "clamp": elementwise.clip,
    "absolute": elementwise.abs,
    "arccos": elementwise.acos,
    "arcsin": elementwise.asin,
    "arctan": elementwise.atan,
    "bitwise_not": elementwise.bitwise_invert,
    "divide": elementwise.divide,
    "multiply": elementwise.multiply,
    "negative": elementwise.negative,
    "subtract": elementwise.subtract,
    "true_divide": elementwise.divide,
    "amax": reductions.max,
    "amin": reductions.min,
    "eq": elementwise.equal,
    "ne": elementwise.not_equal,
    "lt": elementwise.less,
    "le": elementwise.less_equal,
    "gt": elementwise.greater,
    "ge": elementwise.greater_equal,
    "mm": linalg.matmul,
    "movedim": movement.moveaxis,
    "swapdims": movement.swapaxes,
    "repeat_interleave": movement.repeat,
    "unfold": selection.unfold_axis,
    "__pos__": elementwise.positive,
    "__neg__": elementwise.negative,
    "__abs__": elementwise.abs,
    "__invert__": elementwise.bitwise_invert,
    "__getitem__": indexing.getitem,
    "__setitem__": indexing.setitem,
    "astype": types.astype,
    "to": types.to,
}
_CONVERSIONS = {
    "float": "float32",
    "double": "float64",
    "half": "float16",
    "bfloat16": "bfloat16",
    "byte": "uint8",
    "char": "int8",
    "short": "int16",
    "int": "int32",
    "long": "int64",
    "bool": "bool",
}


def _transpose(self: Tensor, *axes: Any) -> Tensor:
    """Axes reversed, or in the order given; two axes given are exchanged."""
    if len(axes) == 2:
        return movement.swapaxes(self, *axes)
    return (
        movement.permute_dims(self, *axes)
        if axes
        else movement.permute_dims(self, tuple(range(self.ndim))[::-1])
    )


def _t(self: Tensor) -> Tensor:
    """A matrix transposed; a vector or a number as it is."""
    if self.ndim > 2:
        raise ShapeError(f"t: takes at most 2 axes, got shape {self.shape}; use `x.mT` or `x.transpose`")
    return _transpose(self)


def _where(self: Tensor, condition: Any, other: Any) -> Tensor:
    """The elements where ``condition`` is true, those of ``other`` elsewhere."""
    return elementwise.where(condition, self, other)


def _norm(self: Tensor, p: Any = 2, axis: Any = None, keepdims: bool = False) -> Tensor:
    """The p-norm of the elements over ``axis``."""
    return norms.vector_norm(self, axis=axis, keepdims=keepdims, ord=2 if p == "fro" else p)


def _type_as(self: Tensor, other: Tensor) -> Tensor:
    """x in the element type of another tensor."""
    return types.astype(self, other.dtype)


def _as_shaped(self: Tensor, other: Tensor) -> Tensor:
    """x under the shape of another tensor of as many elements."""
    return movement.reshape(self, other.shape)


def _expand_as(self: Tensor, other: Tensor) -> Tensor:
    """x broadcast to the shape of another tensor."""
    return movement.broadcast_to(self, other.shape)


def _number_of_elements(self: Tensor) -> int:
    """How many elements there are."""
    return int(self.size)


def _rank(self: Tensor) -> int:
    """How many axes there are."""
    return self.ndim


def _itself(self: Tensor) -> Tensor:
    """x: tensors are always contiguous, and lie in the memory of the CPU."""
    return self


def _always(self: Tensor) -> bool:
    """True: tensors are always contiguous."""
    return True


def _is_floating_point(self: Tensor) -> bool:
    """Whether the elements are real floating numbers."""
    return self.dtype.is_float


def _element_size(self: Tensor) -> int:
    """Bytes of one element."""
    return self.dtype.itemsize


def _new(name: str) -> Callable[..., Tensor]:
    def make(self: Tensor, *size: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
        kind = self.dtype if dtype is None else dtype_of(dtype, f"new_{name}")
        made: Tensor = getattr(creation, name)(*size, dtype=kind, requires_grad=requires_grad)
        return made

    make.__name__, make.__doc__ = f"new_{name}", f"A tensor of {name} in x's element type (or ``dtype``)."
    return make


def _new_full(
    self: Tensor, size: Any, fill_value: Any, dtype: Any = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of one repeated number in x's element type (or ``dtype``)."""
    return creation.full(size, fill_value, self.dtype if dtype is None else dtype, requires_grad)


def _new_tensor(self: Tensor, data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of ``data`` in x's element type (or ``dtype``)."""
    return creation.tensor(data, self.dtype if dtype is None else dtype, requires_grad)


def _fill(self: Tensor, value: Any) -> Tensor:
    """Write ``value`` to every element, in place."""
    return self.assign(cast(as_tensor(value, "fill_", "value", self.dtype), self.dtype))


def _zero(self: Tensor) -> Tensor:
    """Write 0 to every element, in place."""
    return _fill(self, 0)


def _copy(self: Tensor, src: Any) -> Tensor:
    """Write the elements of ``src``, cast and broadcast, in place."""
    return self.assign(as_tensor(src, "copy_", "src"))


def _clamp_in_place(self: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Limit every element to [min, max], in place."""
    return self.assign(elementwise.clip(self, min, max))


def _masked_fill_in_place(self: Tensor, mask: Any, value: Any) -> Tensor:
    """Write ``value`` where ``mask`` is true, in place."""
    return self.assign(selection.masked_fill(self, mask, value))


_METHODS: dict[str, Callable[..., Any]] = {
    "t": _t,
    "copy": Tensor.clone,
    "conjugate": elementwise.conj,
    "__round__": elementwise.round,
    "__divmod__": arithmetic.divmod,
    "__rdivmod__": lambda self, other: arithmetic.divmod(other, self),
    "where": _where,
    "norm": _norm,
    "type_as": _type_as,
    "view_as": _as_shaped,
    "reshape_as": _as_shaped,
    "expand_as": _expand_as,
    "numel": _number_of_elements,
    "nelement": _number_of_elements,
    "dim": _rank,
    "contiguous": _itself,
    "cpu": _itself,
    "is_contiguous": _always,
    "is_floating_point": _is_floating_point,
    "element_size": _element_size,
    "new_zeros": _new("zeros"),
    "new_ones": _new("ones"),
    "new_empty": _new("empty"),
    "new_full": _new_full,
    "new_tensor": _new_tensor,
    "fill_": _fill,
    "zero_": _zero,
    "copy_": _copy,
    "clamp_": _clamp_in_place,
    "masked_fill_": _masked_fill_in_place,
    "add_": _in_place("add_", elementwise.add),
    "sub_": _in_place("sub_", elementwise.subtract),
    "mul_": _in_place("mul_", elementwise.multiply),
    "div_": _in_place("div_", elementwise.divide),
    "pow_": _in_place("pow_", elementwise.pow),
}


_PROPERTIES: dict[str, Callable[[Any], Any]] = {
    "T": _transpose,
    "mT": movement.matrix_transpose,
    "at": At,
    "real": elementwise.real,
    "imag": elementwise.imag,
}


def _install() -> None:
    for name, function in _OPERATORS.items():
        setattr(Tensor, f"__{name}__", _operator(function))
        setattr(Tensor, f"__r{name}__", _reflected(function))
        setattr(Tensor, f"__i{name}__", _in_place(f"in-place {name}", function))
    for name, function in _COMPARISONS.items():
        setattr(Tensor, f"__{name}__", _operator(function))
    for module, names in _SHARED.items():
        for name in names:
            setattr(Tensor, name, spelled(getattr(module, name)))
    for name, method in {**_ALIASES, **_METHODS}.items():
        setattr(Tensor, name, spelled(method))
    setattr(Tensor, "transpose", _transpose)  # noqa: B010
    for name, reader in _PROPERTIES.items():
        setattr(Tensor, name, property(reader))
    for name, kind in _CONVERSIONS.items():
        setattr(Tensor, name, _converter(kind))
    for name, instead in ABSENT_FROM_TENSORS.items():
        setattr(Tensor, name, Absent(name, instead))


def add(name: str, method: Callable[..., Any]) -> None:
    """Give ``Tensor`` a method that is made of the functions of all families."""
    setattr(Tensor, name, method)


def _converter(kind: str) -> Callable[[Tensor], Tensor]:
    def convert(self: Tensor) -> Tensor:
        return types.astype(self, kind)

    convert.__name__, convert.__doc__ = kind, f"x as {kind}."
    return convert


_install()

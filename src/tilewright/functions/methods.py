"""Installs functions as methods and operators of ``Tensor``.

The class declares their types (``tensor/handle.py``); here is the table that says which function each one is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilewright.core.dtype import DType
from tilewright.functions import (
    activations,
    creation,
    elementwise,
    indexing,
    linalg,
    movement,
    reductions,
    types,
)
from tilewright.functions.arguments import cast
from tilewright.functions.indexing import At
from tilewright.tensor import DTypeError, Tensor

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
        return NotImplemented if isinstance(other, _FOREIGN) else function(self, other)

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
        "pow",
    ),
    linalg: ("matmul", "dot", "outer"),
    movement: (
        "reshape", "flatten", "unflatten", "permute_dims", "swapaxes", "moveaxis", "broadcast_to", "expand_dims", "squeeze",
        "unstack", "split", "flip", "roll", "tile", "repeat",
    ),
    reductions: (
        "sum", "prod", "max", "min", "mean", "var", "std", "any", "all", "argmax", "argmin", "count_nonzero",
        "cumulative_sum", "cumsum",
    ),
    indexing: ("take", "take_along_axis", "nonzero"),
    creation: ("tril", "triu"),
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
            setattr(Tensor, name, getattr(module, name))
    for name, method in _ALIASES.items():
        setattr(Tensor, name, method)
    setattr(Tensor, "transpose", _transpose)  # noqa: B010
    for name, reader in _PROPERTIES.items():
        setattr(Tensor, name, property(reader))
    for name, kind in _CONVERSIONS.items():
        setattr(Tensor, name, _converter(kind))


def _converter(kind: str) -> Callable[[Tensor], Tensor]:
    def convert(self: Tensor) -> Tensor:
        return types.astype(self, kind)

    convert.__name__, convert.__doc__ = kind, f"x as {kind}."
    return convert


_install()

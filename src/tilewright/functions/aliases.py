"""Names that NumPy and PyTorch have for functions which are here under the array API's name. Nothing is computed here."""

from __future__ import annotations

from tilewright.functions.arithmetic import deg2rad, rad2deg
from tilewright.functions.creation import asarray, tensor
from tilewright.functions.elementwise import (
    abs,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atan2,
    atanh,
    bitwise_invert,
    bitwise_left_shift,
    bitwise_right_shift,
    clip,
    conj,
    divide,
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    multiply,
    negative,
    not_equal,
    pow,
    remainder,
    round,
    subtract,
    trunc,
)
from tilewright.functions.linalg import matmul
from tilewright.functions.movement import (
    concat,
    expand_dims,
    moveaxis,
    permute_dims,
    repeat,
    swapaxes,
)
from tilewright.functions.reductions import max, min

__all__ = [
    "absolute", "amax", "amin", "arccos", "arccosh", "arcsin", "arcsinh", "arctan", "arctan2", "arctanh", "around", "array",
    "as_tensor", "bitwise_not", "cat", "clamp", "concatenate", "conjugate", "degrees", "div", "eq", "fix", "ge", "gt", "invert",
    "le", "left_shift", "lt", "mm", "mod", "movedim", "mul", "ne", "neg", "permute", "power", "radians",
    "repeat_interleave", "right_shift", "rint", "sub", "swapdims", "true_divide", "unsqueeze",
]  # fmt: skip

# NumPy's
absolute, conjugate, concatenate = abs, conj, concat
amax, amin = max, min
arccos, arccosh, arcsin, arcsinh, arctan, arctan2, arctanh = acos, acosh, asin, asinh, atan, atan2, atanh
array = tensor
around, rint, fix = round, round, trunc
bitwise_not = invert = bitwise_invert
left_shift, right_shift = bitwise_left_shift, bitwise_right_shift
degrees, radians = rad2deg, deg2rad
mod, power, true_divide = remainder, pow, divide

# PyTorch's
as_tensor, cat, clamp, mm = asarray, concat, clip, matmul
eq, ne, lt, le, gt, ge = equal, not_equal, less, less_equal, greater, greater_equal
sub, mul, div, neg = subtract, multiply, divide, negative
movedim, permute, swapdims, unsqueeze = moveaxis, permute_dims, swapaxes, expand_dims
repeat_interleave = repeat

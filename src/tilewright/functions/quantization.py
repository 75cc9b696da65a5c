"""Numbers as int8 with a scale: symmetric quantisation, and the linear layer on it.

x is nearly ``q * scale`` with whole q from -127 to 127. Products of int8 add up exactly in int32; the scales, the bias and what
follows are applied to the sums on their way to memory. There is no zero point, no calibration and no training here.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.core import dtype as dt
from tilewright.functions.arguments import TensorLike, as_tensor, cast
from tilewright.functions.elementwise import abs, add, clip, divide, maximum, multiply, round
from tilewright.functions.linalg import contract
from tilewright.functions.movement import reshape
from tilewright.functions.reductions import max as max_over
from tilewright.tensor import DTypeError, ShapeError, Tensor

__all__ = ["quantize", "quantized_linear"]

_LARGEST = 127  # -128 is left out, so that -q is there for every q


def quantize(x: TensorLike, axis: int | Sequence[int] | None = None) -> tuple[Tensor, Tensor]:
    """(q, scale): ``x`` as int8 with ``x ≈ q * scale``, the error at most half a scale.

    ``axis``: the axes that share a scale (kept with size 1 in ``scale``); None: all of them. A weight [out, in] with a scale
    for every output is ``quantize(w, axis=1)``. Elements must be finite.

    >>> q, scale = quantize(Tensor([0.5, -1.0, 0.25]))
    >>> q.tolist(), round(scale, 6).tolist()
    ([64, -127, 32], [0.007874])
    """
    x = as_tensor(x, "quantize")
    if not x.dtype.is_float:
        raise DTypeError(f"quantize: takes a tensor of a floating type, got {x.dtype}")
    largest = max_over(abs(x), axis=tuple(axis) if isinstance(axis, Sequence) else axis, keepdims=True)
    tiny = 1e-30 if x.dtype is not dt.float16 else 1e-7  # of all zeros, any scale will do
    scale = divide(maximum(largest, tiny), _LARGEST)
    return cast(clip(round(divide(x, scale)), -_LARGEST, _LARGEST), dt.int8), scale


def quantized_linear(
    x: TensorLike,
    weight: TensorLike,
    x_scale: TensorLike,
    weight_scale: TensorLike,
    bias: TensorLike | None = None,
) -> Tensor:
    """(x * x_scale) @ (weight * weight_scale).T + bias for int8 x [..., in] and weight [out, in], in the scales' type.

    ``x_scale``: one number, or [..., 1] for a scale of every row; ``weight_scale``: one number, [out] or [out, 1]. Products add
    up in int32, exactly for up to 131,000 features.

    >>> (x, a), (w, b) = quantize(Tensor([[1.0, 2.0]])), quantize(Tensor([[1.0, -1.0]]), axis=1)
    >>> quantized_linear(x, w, a, b).numpy().round(2).tolist()
    [[-0.99]]
    """
    name = "quantized_linear"
    x, weight = as_tensor(x, name, "x"), as_tensor(weight, name, "weight")
    a, b = as_tensor(x_scale, name, "x_scale"), as_tensor(weight_scale, name, "weight_scale")
    for t, what in ((x, "x"), (weight, "weight")):
        if t.dtype is not dt.int8:
            raise DTypeError(f"{name}: `{what}` is of type int8, got {t.dtype}; see `quantize`")
    if weight.ndim != 2 or not x.ndim or x.shape[-1] != weight.shape[1]:
        raise ShapeError(
            f"{name}: `x` of shape {x.shape} does not fit `weight` of shape {weight.shape}: [..., in] and [out, in]"
        )
    if b.size not in (1, weight.shape[0]):
        raise ShapeError(
            f"{name}: `weight_scale` is one number or one for each of {weight.shape[0]} outputs, got {b.shape}"
        )
    total = contract(x, weight, ((x.ndim - 1,), (1,)), function=name, dtype=dt.int32)
    b = reshape(b, (b.size,)) if b.size > 1 else reshape(b, ())
    out = multiply(multiply(cast(total, dt.promote(a.dtype, b.dtype)), a), b)
    return out if bias is None else add(out, bias)

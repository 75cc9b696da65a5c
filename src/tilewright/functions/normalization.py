"""Normalisation: layer, RMS, batch, group and vector norms.

Statistics of half types are computed in float32. Each is a few reductions over rows with elementwise work between, which the
compiler keeps in one loop nest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tilewright.core import dtype as dt
from tilewright.functions.arguments import Axes, TensorLike, as_tensor, cast, count_of, float_tensor, shape_of
from tilewright.functions.elementwise import abs as absolute
from tilewright.functions.elementwise import add, divide, maximum, multiply, pow, rsqrt, subtract
from tilewright.functions.movement import reshape
from tilewright.functions.reductions import max as maximum_over
from tilewright.functions.reductions import mean, root
from tilewright.functions.reductions import sum as sum_over
from tilewright.tensor import ArgumentError, ShapeError, Tensor, no_grad
from tilewright.tensor.composite import composite

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "normalize", "rms_norm", "vector_norm"]


def _wide(x: Tensor) -> Tensor:
    return cast(x, dt.float32) if x.dtype.bits == 16 else x


def _moments(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """(x - mean, mean, biased variance) over ``axes``, which stay with size 1."""
    center = mean(x, axes, keepdims=True)
    distance = subtract(x, center)
    return distance, center, mean(multiply(distance, distance), axes, keepdims=True)


def _trailing(x: Tensor, normalized_shape: int | Sequence[int], function: str) -> tuple[int, ...]:
    shape = shape_of(normalized_shape, function, "normalized_shape")
    if not shape or x.shape[-len(shape) :] != shape:
        raise ShapeError(f"{function}: `normalized_shape` {shape} is not how shape {x.shape} ends")
    return tuple(range(x.ndim - len(shape), x.ndim))


@composite
def layer_norm(
    x: TensorLike,
    normalized_shape: int | Sequence[int],
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, whose sizes are ``normalized_shape``."""
    x = float_tensor(x, "layer_norm")
    axes = _trailing(x, normalized_shape, "layer_norm")
    distance, _, variance = _moments(_wide(x), axes)
    return _affine(multiply(distance, rsqrt(add(variance, eps))), x, weight, bias, "layer_norm")


def _affine(
    out: Tensor, x: Tensor, weight: TensorLike | None, bias: TensorLike | None, function: str
) -> Tensor:
    if weight is not None:
        out = multiply(out, as_tensor(weight, function, "weight"))
    if bias is not None:
        out = add(out, as_tensor(bias, function, "bias"))
    return cast(out, x.dtype)


@composite
def rms_norm(
    x: TensorLike,
    normalized_shape: int | Sequence[int],
    weight: TensorLike | None = None,
    eps: float | None = None,
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight over the last axes; eps is the type's machine epsilon by default."""
    x = float_tensor(x, "rms_norm")
    axes = _trailing(x, normalized_shape, "rms_norm")
    wide = _wide(x)
    if eps is None:
        eps = {16: 2.0**-10, 32: 2.0**-23, 64: 2.0**-52}[x.dtype.bits]
    scale = rsqrt(add(mean(multiply(wide, wide), axes, keepdims=True), eps))
    return _affine(multiply(wide, scale), x, weight, None, "rms_norm")


def _channels(v: TensorLike, x: Tensor, function: str, name: str) -> Tensor:
    """One number per channel, shaped to broadcast along axis 1."""
    v = as_tensor(v, function, name)
    if v.shape != (x.shape[1],):
        raise ShapeError(
            f"{function}: `{name}` has one element for each of the {x.shape[1]} channels, got shape {v.shape}"
        )
    return reshape(v, (1, x.shape[1], *(1,) * (x.ndim - 2)))


def batch_norm(
    x: TensorLike,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each channel (axis 1) of [N, C, ...] over all other axes.

    In training, with the batch's statistics, and ``running_mean``/``running_var`` (if given) move towards them by
    ``momentum``, in place; the variance moves towards the unbiased one. Otherwise with the running statistics.
    """
    x = float_tensor(x, "batch_norm")
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: `x` has shape [N, C, ...], got {x.shape}")
    axes = (0, *range(2, x.ndim))
    wide = _wide(x)
    if training or running_mean is None or running_var is None:
        count = math.prod(x.shape[a] for a in axes)
        if count < 2 and training:
            raise ShapeError(
                f"batch_norm: shape {x.shape} has one value per channel; training needs more than one"
            )
        distance, center, variance = _moments(wide, axes)
        if training and running_mean is not None and running_var is not None:
            with no_grad():
                if isinstance(count, int):
                    unbiased = multiply(variance, count / (count - 1))
                else:
                    number = count_of([x.shape[a] for a in axes], wide.dtype)
                    unbiased = multiply(variance, divide(number, subtract(number, 1.0)))
                _move(running_mean, reshape(center, running_mean.shape), momentum)
                _move(running_var, reshape(unbiased, running_var.shape), momentum)
    else:
        distance = subtract(wide, _channels(running_mean, x, "batch_norm", "running_mean"))
        variance = _channels(running_var, x, "batch_norm", "running_var")
    scale = rsqrt(add(variance, eps))
    if weight is not None:
        scale = multiply(scale, _channels(weight, x, "batch_norm", "weight"))
    out = multiply(distance, scale)
    if bias is not None:
        out = add(out, _channels(bias, x, "batch_norm", "bias"))
    return cast(out, x.dtype)


def _move(state: Tensor, towards: Tensor, momentum: float) -> None:
    state.assign(add(multiply(state, 1.0 - momentum), multiply(towards, momentum)))


@composite
def group_norm(
    x: TensorLike,
    num_groups: int,
    weight: TensorLike | None = None,
    bias: TensorLike | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise each example of [N, C, ...] over groups of C / num_groups channels and all further axes."""
    x = float_tensor(x, "group_norm")
    if x.ndim < 2 or num_groups < 1 or x.shape[1] % num_groups:
        raise ShapeError(
            f"group_norm: shape {x.shape} has no {num_groups} groups of channels (axis 1) of one size"
        )
    apart = reshape(_wide(x), (x.shape[0], num_groups, x.shape[1] // num_groups, *x.shape[2:]))
    distance, _, variance = _moments(apart, tuple(range(2, apart.ndim)))
    out = reshape(multiply(distance, rsqrt(add(variance, eps))), x.shape)
    w = None if weight is None else _channels(weight, x, "group_norm", "weight")
    b = None if bias is None else _channels(bias, x, "group_norm", "bias")
    return _affine(out, x, w, b, "group_norm")


@composite
def instance_norm(
    x: TensorLike, weight: TensorLike | None = None, bias: TensorLike | None = None, eps: float = 1e-5
) -> Tensor:
    """Normalise each channel of each example of [N, C, ...] over the further axes."""
    x = float_tensor(x, "instance_norm")
    if x.ndim < 3:
        raise ShapeError(f"instance_norm: `x` has shape [N, C, ...] with at least 3 axes, got {x.shape}")
    return group_norm(x, x.shape[1], weight, bias, eps)


@composite
def vector_norm(x: TensorLike, axis: Axes = None, keepdims: bool = False, ord: float = 2) -> Tensor:
    """The ``ord`` norm over ``axis``: (sum |x|^ord)^(1/ord); the largest |x| for infinity. At 0 the gradient is 0."""
    x = float_tensor(x, "vector_norm")
    if ord == 2 and not x.dtype.is_complex:
        return root(sum_over(multiply(x, x), axis, keepdims=keepdims))
    size = absolute(x)
    if ord == math.inf:
        return maximum_over(size, axis, keepdims)
    if ord == 1:
        return sum_over(size, axis, keepdims=keepdims)
    if ord <= 0:
        raise ArgumentError(f"vector_norm: `ord` is positive, got {ord}")
    return pow(sum_over(pow(size, ord), axis, keepdims=keepdims), 1.0 / ord)


@composite
def normalize(x: TensorLike, p: float = 2.0, axis: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(norm(x), eps) along ``axis``."""
    x = float_tensor(x, "normalize")
    return divide(x, maximum(vector_norm(x, axis, keepdims=True, ord=p), eps))

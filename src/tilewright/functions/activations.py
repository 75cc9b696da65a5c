"""Activation functions, softmax and its relatives, dropout.

Each is a short expression of elementwise operations and reductions; the compiler fuses it into one loop over rows.
"""

from __future__ import annotations

import math

from tilewright.functions.arguments import Axes, TensorLike, as_tensor, axes_of, axis_of, float_tensor
from tilewright.functions.elementwise import abs as absolute
from tilewright.functions.elementwise import (
    add,
    divide,
    erf,
    exp,
    expm1,
    greater_equal,
    less_equal,
    log,
    log1p,
    multiply,
    negative,
    reciprocal,
    sigmoid,
    subtract,
    tanh,
    where,
)
from tilewright.functions.elementwise import equal as equals
from tilewright.functions.reductions import max as maximum_over
from tilewright.functions.reductions import sum as sum_over
from tilewright.tensor import ArgumentError, Tensor
from tilewright.tensor.composite import composite

__all__ = [
    "celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid", "log_softmax", "logsumexp",
    "mish", "prelu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softmin", "softplus", "softsign",
]  # fmt: skip


@composite
def relu(x: TensorLike) -> Tensor:
    """max(x, 0), elementwise; NaN stays NaN.

    >>> relu(Tensor([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    x = as_tensor(x, "relu")
    return where(less_equal(x, 0), 0, x)


@composite
def relu6(x: TensorLike) -> Tensor:
    """min(max(x, 0), 6), elementwise; the slope is 0 at both ends."""
    x = relu(x)
    return where(greater_equal(x, 6), 6, x)


@composite
def leaky_relu(x: TensorLike, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, else ``negative_slope`` * x."""
    x = float_tensor(x, "leaky_relu")
    return where(less_equal(x, 0), multiply(x, negative_slope), x)


@composite
def prelu(x: TensorLike, weight: TensorLike) -> Tensor:
    """x where it is positive, else ``weight`` * x; weight has one element, or one per channel (axis 1)."""
    x, weight = float_tensor(x, "prelu"), as_tensor(weight, "prelu", "weight")
    if weight.size != 1 and x.ndim > 1:
        weight = weight.reshape((weight.size, *(1,) * (x.ndim - 2)))
    return where(less_equal(x, 0), multiply(x, weight), x)


def folded(x: Tensor) -> Tensor:
    """-|x| for smooth functions of it: at 0 its derivative is 1, that of the side at 0, where -|x| itself has 0."""
    return where(less_equal(x, 0), x, negative(x))


@composite
def log_sigmoid(x: TensorLike) -> Tensor:
    """log(sigmoid(x)) without overflow."""
    x = float_tensor(x, "log_sigmoid")
    return subtract(where(less_equal(x, 0), x, 0), log1p(exp(folded(x))))


@composite
def softplus(x: TensorLike, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta x)) / beta; x itself where beta x is above ``threshold``."""
    x = float_tensor(x, "softplus")
    scaled = x if beta == 1.0 else multiply(x, beta)
    inside = less_equal(scaled, threshold)
    soft = log1p(exp(where(inside, scaled, threshold)))
    return where(inside, soft if beta == 1.0 else divide(soft, beta), x)


@composite
def silu(x: TensorLike) -> Tensor:
    """x * sigmoid(x), elementwise (also known as swish)."""
    x = float_tensor(x, "silu")
    return multiply(x, sigmoid(x))


@composite
def mish(x: TensorLike) -> Tensor:
    """x * tanh(softplus(x)), elementwise."""
    x = float_tensor(x, "mish")
    return multiply(x, tanh(softplus(x)))


@composite
def gelu(x: TensorLike, approximate: str = "none") -> Tensor:
    """x times the normal distribution's probability below x: exact by ``erf``, or by tanh with ``approximate="tanh"``."""
    x = float_tensor(x, "gelu")
    if approximate == "none":
        return multiply(multiply(x, 0.5), add(1.0, erf(multiply(x, math.sqrt(0.5)))))
    if approximate == "tanh":
        cubic = multiply(multiply(multiply(x, x), x), 0.044715)
        return multiply(multiply(x, 0.5), add(1.0, tanh(multiply(add(x, cubic), math.sqrt(2 / math.pi)))))
    raise ArgumentError(f"gelu: `approximate` is 'none' or 'tanh', got {approximate!r}")


@composite
def elu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else alpha * (exp(x) - 1)."""
    x = float_tensor(x, "elu")
    low = less_equal(x, 0)
    return where(low, multiply(expm1(where(low, x, 0)), alpha), x)


@composite
def celu(x: TensorLike, alpha: float = 1.0) -> Tensor:
    """x where it is positive, else alpha * (exp(x / alpha) - 1)."""
    x = float_tensor(x, "celu")
    low = less_equal(x, 0)
    return where(low, multiply(expm1(divide(where(low, x, 0), alpha)), alpha), x)


@composite
def selu(x: TensorLike) -> Tensor:
    """The self-normalising scale * elu(x, alpha) of Klambauer et al. (2017)."""
    return multiply(elu(x, 1.6732632423543772), 1.0507009873554805)


@composite
def hardtanh(x: TensorLike, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    """x limited to [min_val, max_val]; the slope is 0 at both ends, other than that of ``clip``."""
    x = float_tensor(x, "hardtanh")
    return where(less_equal(x, min_val), min_val, where(greater_equal(x, max_val), max_val, x))


@composite
def hardsigmoid(x: TensorLike) -> Tensor:
    """relu6(x + 3) / 6."""
    return divide(relu6(add(float_tensor(x, "hardsigmoid"), 3.0)), 6.0)


@composite
def hardswish(x: TensorLike) -> Tensor:
    """x * hardsigmoid(x)."""
    x = float_tensor(x, "hardswish")
    return multiply(x, hardsigmoid(x))


@composite
def softsign(x: TensorLike) -> Tensor:
    """x / (1 + |x|)."""
    x = float_tensor(x, "softsign")
    return divide(x, add(1.0, absolute(x)))


# ---- over an axis -------------------------------------------------------------------------------------------------


@composite
def softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """exp(x) / sum(exp(x)) along ``axis``: positive numbers that add up to 1.

    The largest element is subtracted first, without a derivative, since the result does not depend on it. The sum is at
    least 1 then, so that its reciprocal, which a row needs once, is as good as a division of every element.

    >>> softmax(Tensor([0.0, 0.0])).tolist()
    [0.5, 0.5]
    """
    x = float_tensor(x, "softmax")
    at = axis_of(axis, x.ndim, "softmax")
    if x.shape[at] == 0:  # no elements, so no largest one
        nothing: Tensor = x.clone()
        return nothing
    powers = exp(subtract(x, maximum_over(x, at, keepdims=True).detach()))
    return multiply(powers, reciprocal(sum_over(powers, at, keepdims=True)))


@composite
def softmin(x: TensorLike, axis: int = -1) -> Tensor:
    """softmax(-x) along ``axis``."""
    return softmax(negative(float_tensor(x, "softmin")), axis)


@composite
def log_softmax(x: TensorLike, axis: int = -1) -> Tensor:
    """log(softmax(x)) along ``axis``, without overflow."""
    x = float_tensor(x, "log_softmax")
    at = axis_of(axis, x.ndim, "log_softmax")
    if x.shape[at] == 0:
        nothing: Tensor = x.clone()
        return nothing
    shifted = subtract(x, maximum_over(x, at, keepdims=True).detach())
    return subtract(shifted, log(sum_over(exp(shifted), at, keepdims=True)))


@composite
def logsumexp(x: TensorLike, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """log(sum(exp(x))) over ``axis`` without overflow; -inf over nothing but -inf."""
    x = float_tensor(x, "logsumexp")
    axes = axes_of(axis, x.ndim, "logsumexp")
    if not all(x.shape[a] for a in axes):
        return log(sum_over(x, axes, keepdims=keepdims))
    high = maximum_over(x, axes, keepdims=True).detach()
    high = where(equals(absolute(high), math.inf), 0.0, high)
    total = log(sum_over(exp(subtract(x, high)), axes, keepdims=True))
    out = add(total, high)
    return out if keepdims else out.reshape(tuple(d for i, d in enumerate(out.shape) if i not in axes))

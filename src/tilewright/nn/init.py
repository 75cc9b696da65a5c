"""Initial values of parameters: each function fills a tensor in place from the default random generator.

The rules are those of Glorot & Bengio (2010, "xavier") and He et al. (2015, "kaiming"): the spread of the
weights follows from how many inputs (fan in) and outputs (fan out) a unit has, so that signals keep their
size through the layers.
"""

from __future__ import annotations

import math

import numpy as np

from tilewright import random
from tilewright.tensor import Tensor, no_grad

__all__ = [
    "calculate_gain",
    "constant_",
    "fans",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "trunc_normal_",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

_GAINS = {
    "linear": 1.0,
    "conv1d": 1.0,
    "conv2d": 1.0,
    "sigmoid": 1.0,
    "tanh": 5.0 / 3.0,
    "relu": math.sqrt(2.0),
    "selu": 0.75,
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which weights before this activation are larger; `param` is leaky_relu's negative slope.

    >>> calculate_gain("relu") ** 2
    2.0000000000000004
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        return math.sqrt(2.0 / (1 + slope**2))
    if nonlinearity not in _GAINS:
        names = ", ".join([*_GAINS, "leaky_relu"])
        raise ValueError(f"no gain is known for {nonlinearity!r}; known: {names}")
    return _GAINS[nonlinearity]


def fans(tensor: Tensor) -> tuple[int, int]:
    """(fan in, fan out) of a weight [out, in, *kernel]: channels times the cells of the kernel."""
    shape = tuple(int(size) for size in tensor.shape)
    if len(shape) < 2:
        raise ValueError(f"fan in and fan out need at least two axes, got shape {shape}")
    cells = math.prod(shape[2:])
    return shape[1] * cells, shape[0] * cells


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0) -> Tensor:
    """Fill with numbers drawn evenly from [a, b)."""
    return _fill(tensor, random.uniform(a, b, tensor.shape, tensor.dtype))


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Fill with normally distributed numbers."""
    return _fill(tensor, random.normal(mean, std, tensor.shape, tensor.dtype))


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0
) -> Tensor:
    """Fill with normally distributed numbers from within [a, b], by inverting the distribution function."""

    def cdf(x: float) -> float:
        return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0

    low, high = cdf((a - mean) / std), cdf((b - mean) / std)
    u = random.uniform(2 * low - 1, 2 * high - 1, tensor.shape, tensor.dtype)
    return _fill(tensor, (_erfinv(u) * (std * math.sqrt(2.0)) + mean).clip(a, b))


def _erfinv(x: Tensor) -> Tensor:
    """Inverse of erf on (-1, 1): the closed form of Winitzki (2008), then two Newton steps."""
    a = 0.147
    log = (1 - x * x).log()
    half = 2 / (math.pi * a) + log / 2
    y = x.sign() * ((half * half - log / a).sqrt() - half).sqrt()
    for _ in range(2):
        y = y - (y.erf() - x) / (2 / math.sqrt(math.pi) * (-(y * y)).exp())
    return y


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one number."""
    return _fill(tensor, Tensor(np.full(tensor.shape, val, tensor.dtype.numpy)))  # nothing to compile


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with 0."""
    return constant_(tensor, 0.0)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with 1."""
    return constant_(tensor, 1.0)


def xavier_uniform_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Even spread with variance gain² · 2 / (fan in + fan out)."""
    bound = gain * math.sqrt(6.0 / max(sum(fans(tensor)), 1))
    return uniform_(tensor, -bound, bound)


def xavier_normal_(tensor: Tensor, gain: float = 1.0) -> Tensor:
    """Normal spread with variance gain² · 2 / (fan in + fan out)."""
    return normal_(tensor, 0.0, gain * math.sqrt(2.0 / max(sum(fans(tensor)), 1)))


def kaiming_uniform_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Even spread with variance gain² / fan; `a` is the slope of the leaky_relu that follows."""
    bound = math.sqrt(3.0) * calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode))
    return uniform_(tensor, -bound, bound)


def kaiming_normal_(
    tensor: Tensor, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu"
) -> Tensor:
    """Normal spread with variance gain² / fan."""
    return normal_(tensor, 0.0, calculate_gain(nonlinearity, a) / math.sqrt(_fan(tensor, mode)))


def _fan(tensor: Tensor, mode: str) -> int:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode is 'fan_in' or 'fan_out', got {mode!r}")
    return max(fans(tensor)[mode == "fan_out"], 1)  # 0 only where there is nothing to fill


def _fill(tensor: Tensor, values: Tensor) -> Tensor:
    with no_grad():
        tensor.assign(values)
    return tensor

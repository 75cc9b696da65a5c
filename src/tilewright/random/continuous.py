"""Distributions over real numbers with a location and a scale. Gradients reach the parameters of all of them, because each
draw is a differentiable function of its parameters and of numbers that do not depend on them.
"""

from __future__ import annotations

import math
from typing import Any

from tilewright.core import dtype as dt
from tilewright.functions.arguments import as_tensor, cast, check_device, is_scalar, shape_of
from tilewright.functions.decompositions import cholesky, qr
from tilewright.functions.elementwise import (
    add,
    cos,
    divide,
    log,
    log1p,
    maximum,
    minimum,
    multiply,
    negative,
    sqrt,
    tan,
    where,
)
from tilewright.functions.linalg import matmul
from tilewright.functions.linear_algebra import diagonal
from tilewright.functions.movement import expand_dims, squeeze
from tilewright.random.keys import Generator, key_of
from tilewright.random.quantiles import normal_between
from tilewright.random.uniform import Draw, Parameter, _sizes, float_type, open_unit, positive, unit
from tilewright.tensor import ArgumentError, ShapeError, Tensor

__all__ = [
    "cauchy", "exponential", "gumbel", "laplace", "logistic", "multivariate_normal", "normal", "orthogonal", "randn",
    "standard_gumbel", "standard_normal", "truncated_normal",
]  # fmt: skip


def standard_normal(key: Tensor, shape: tuple[int, ...], kind: dt.DType) -> Tensor:
    """Standard normal numbers by the method of Box and Muller (1958): a random radius at a random angle.

    float32 takes radius and angle from the two words of a counter; float64 from the counters below and above the middle.
    """
    if kind is dt.float64:
        both = (2, *shape)
        radius, turn = open_unit(key, both, kind)[0], unit(key, both, kind)[1]
    else:
        radius, turn = open_unit(key, shape, kind, 0), unit(key, shape, kind, 1)
    return multiply(sqrt(multiply(log(radius), -2.0)), cos(multiply(turn, 2 * math.pi)))


def normal(
    mean: Parameter = 0.0,
    std: Parameter = 1.0,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers of the normal distribution."""
    check_device(device, "normal")
    positive("normal", "std", std, zero=True)
    draw = Draw("normal", {"mean": mean, "std": std}, shape, dtype, generator, key)
    return draw.placed(standard_normal(draw.key, draw.shape, draw.wide), *draw.parameters)


def randn(
    *shape: Any,
    dtype: Any = dt.float32,
    generator: Generator | None = None,
    key: Tensor | None = None,
    device: Any = None,
) -> Tensor:
    """Numbers of the standard normal distribution: ``randn(2, 3)`` or ``randn((2, 3))``."""
    check_device(device, "randn")
    return normal(0.0, 1.0, _sizes(shape, "randn"), dtype, generator, key=key)


def truncated_normal(
    low: Parameter = -2.0,
    high: Parameter = 2.0,
    mean: Parameter = 0.0,
    std: Parameter = 1.0,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Numbers of the normal distribution that lie in [low, high]; the bounds are values, not multiples of ``std``.

    Bounds may be infinite, and may lie far out on one side. The quantile function is used, in float64.
    """
    positive("truncated_normal", "std", std)
    if is_scalar(low) and is_scalar(high) and not low < high:
        raise ArgumentError(f"truncated_normal: `low` is below `high`, got {low!r} and {high!r}")
    names = {"low": low, "high": high, "mean": mean, "std": std}
    draw = Draw("truncated_normal", names, shape, dtype, generator, key, wide=dt.float64)
    low, high, mean, std = (as_tensor(p, draw.function, dtype=draw.wide) for p in draw.parameters)
    x = normal_between(divide(low - mean, std), divide(high - mean, std), draw.open_unit())
    out = draw.placed(x, mean, std)
    return cast(minimum(maximum(out, low), high), draw.kind)


def exponential(
    rate: Parameter = 1.0,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Numbers of the exponential distribution with mean 1 / rate."""
    positive("exponential", "rate", rate)
    draw = Draw("exponential", {"rate": rate}, shape, dtype, generator, key)
    return cast(divide(negative(log(draw.open_unit())), draw.parameters[0]), draw.kind)


def laplace(
    loc: Parameter = 0.0,
    scale: Parameter = 1.0,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Numbers of the Laplace distribution: exponential numbers of mean ``scale`` on both sides of ``loc``."""
    positive("laplace", "scale", scale)
    draw = Draw("laplace", {"loc": loc, "scale": scale}, shape, dtype, generator, key)
    u = draw.open_unit()
    half = where(u < 0.5, u, 1.0 - u)
    size = log(multiply(half, 2.0))
    return draw.placed(where(u < 0.5, size, negative(size)), *draw.parameters)


def standard_gumbel(key: Tensor, shape: tuple[int, ...], kind: dt.DType) -> Tensor:
    """-log of standard exponential numbers. Those near 0, which give the largest results, have all the bits of ``open_unit``."""
    return negative(log(negative(log1p(negative(open_unit(key, shape, kind))))))


def gumbel(
    loc: Parameter = 0.0,
    scale: Parameter = 1.0,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Numbers of the Gumbel distribution, that of a largest value."""
    positive("gumbel", "scale", scale)
    draw = Draw("gumbel", {"loc": loc, "scale": scale}, shape, dtype, generator, key)
    return draw.placed(standard_gumbel(draw.key, draw.shape, draw.wide), *draw.parameters)


def logistic(
    loc: Parameter = 0.0,
    scale: Parameter = 1.0,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Numbers of the logistic distribution, whose distribution function is the sigmoid."""
    positive("logistic", "scale", scale)
    draw = Draw("logistic", {"loc": loc, "scale": scale}, shape, dtype, generator, key)
    u = draw.open_unit()
    return draw.placed(log(u) - log1p(negative(u)), *draw.parameters)


def cauchy(
    loc: Parameter = 0.0,
    scale: Parameter = 1.0,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Numbers of the Cauchy distribution, which has no mean."""
    positive("cauchy", "scale", scale)
    draw = Draw("cauchy", {"loc": loc, "scale": scale}, shape, dtype, generator, key)
    # the tangent of an angle uniform in (-pi/2, pi/2); from a quarter turn on as 1 / tan, where it is steep
    u = draw.open_unit()
    near = multiply(minimum(u, 1.0 - u), math.pi)  # the angle's distance from the nearest end, precise near 0
    size = divide(1.0, tan(near))
    return draw.placed(where(u < 0.5, negative(size), size), *draw.parameters)


def multivariate_normal(
    mean: Any,
    covariance: Any,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Vectors of the normal distribution with a mean [.., n] and a positive definite covariance [.., n, n].

    ``shape`` is the shape of the stack of vectors, without n; by default that of ``mean`` and ``covariance`` together.
    Uses the Cholesky factor; raises when there is none.
    """
    centre = as_tensor(mean, "multivariate_normal", "mean")
    spread = as_tensor(covariance, "multivariate_normal", "covariance")
    if centre.ndim < 1 or spread.ndim < 2 or spread.shape[-2:] != (centre.shape[-1],) * 2:
        raise ShapeError(
            f"multivariate_normal: a mean of shape (.., n) needs a covariance of shape (.., n, n), got {centre.shape} and"
            f" {spread.shape}"
        )
    kind = float_type(dtype, "multivariate_normal", [centre, spread])
    wide = dt.float64 if kind is dt.float64 else dt.float32
    factor = cholesky(cast(spread, wide))
    stack = {"mean": centre[..., 0], "covariance": spread[..., 0, 0]}
    draw = Draw("multivariate_normal", stack, shape, kind, generator, key)
    x = standard_normal(draw.key, (*draw.shape, centre.shape[-1]), wide)
    return cast(add(squeeze(matmul(factor, expand_dims(x, -1)), -1), cast(centre, wide)), kind)


def orthogonal(
    n: int,
    shape: Any = (),
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Orthogonal matrices [.., n, n], uniform over the orthogonal group (Mezzadri, 2007)."""
    kind = float_type(dtype, "orthogonal", [])
    wide = dt.float64 if kind is dt.float64 else dt.float32
    sizes = (*shape_of(shape, "orthogonal"), *shape_of((n, n), "orthogonal", "n"))
    q, r = qr(standard_normal(key_of(key, generator, "orthogonal"), sizes, wide))
    signs = where(diagonal(r) < 0, -1.0, 1.0)
    return cast(multiply(q, expand_dims(signs, -2)), kind)

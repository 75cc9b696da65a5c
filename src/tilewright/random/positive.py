"""The gamma distribution and those made of it. Gradients reach their parameters by implicit reparameterisation.

Gamma numbers are drawn by a rejection method with a fixed number of rounds, so that a draw is straight code: the same on
every target, in a batch and in a loop.
"""

from __future__ import annotations

from typing import Any

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.activations import log_softmax
from tilewright.functions.arguments import as_tensor, broadcast_to_shape, cast
from tilewright.functions.control import fori_loop
from tilewright.functions.creation import zeros
from tilewright.functions.custom import custom_jvp
from tilewright.functions.elementwise import (
    add,
    divide,
    exp,
    less,
    log,
    logical_and,
    logical_or,
    maximum,
    multiply,
    sqrt,
    where,
)
from tilewright.random.continuous import standard_normal
from tilewright.random.keys import Generator, fold_in, key_of
from tilewright.random.uniform import Draw, Parameter, float_type, open_unit, positive, result_shape
from tilewright.tensor import ShapeError, Tensor

__all__ = ["beta", "dirichlet", "gamma"]

_ROUNDS = (
    12  # a round is rejected with probability below 0.05: 2e-16 that all are; then the last proposal stands
)
_SERIES = 30.0  # from here on the derivative's series is replaced by its limit
_TERMS = 120


def _drawn(key: Tensor, shape: Tensor) -> Tensor:
    """log of standard gamma numbers. G. Marsaglia, W. Tsang, "A simple method for generating gamma variables" (2000).

    A shape below 1 is drawn as one above 1 times u^(1 / shape), which is kept as a logarithm: it may be below all floats.
    """
    kind, sizes = shape.dtype, shape.shape
    small = shape < 1.0
    d = where(small, shape + 1.0, shape) - 1.0 / 3.0
    c = divide(1.0, sqrt(multiply(d, 9.0)))

    def attempt(number: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        done, cube = state
        own = fold_in(key, number)
        x = standard_normal(fold_in(own, 0), sizes, kind)
        u = open_unit(fold_in(own, 1), sizes, kind)
        t = add(x * c, 1.0)
        v = maximum(t * t * t, 1e-30)
        fits = logical_and(t > 0.0, log(u) < multiply(x * x, 0.5) + d * (add(log(v), 1.0) - v))
        return logical_or(done, fits), where(done, cube, v)

    start = (zeros(sizes, dtype=dt.bool_), zeros(sizes, dtype=kind))
    _, cube = fori_loop(0, _ROUNDS, attempt, start)
    boost = divide(log(open_unit(fold_in(key, _ROUNDS), sizes, kind)), shape)
    return log(d * cube) + where(small, boost, 0.0)


@custom_jvp
def log_gamma_numbers(key: Tensor, shape: Tensor) -> Tensor:
    """log of numbers of the gamma distribution with these shape parameters and scale 1."""
    return _drawn(key, shape)


@log_gamma_numbers.defjvp
def _log_gamma_jvp(primals: Any, tangents: Any) -> tuple[Tensor, Tensor]:
    key, shape = primals
    out = log_gamma_numbers(key, shape)
    return out, cast(_slope(cast(shape, dt.float64), cast(out, dt.float64)), shape.dtype) * tangents[1]


def _slope(a: Tensor, log_x: Tensor) -> Tensor:
    """d log x / d a of a gamma number x with shape a at a fixed quantile: -(dF/da) / (x p(x)).

    From the series of the distribution function, F = x^a e^-x / Gamma(a + 1) sum_k t_k with t_k = x^k / (a+1)...(a+k),
    it is sum_k t_k (digamma(a + 1 + k) - log x) / a: no term needs a Gamma function. For large a the limit is used:
    x is nearly (1 - 1/(9a) + z/(3 sqrt a))^3 a with a normal z (Wilson and Hilferty, 1931).
    """
    large = a > _SERIES
    b = where(large, 1.0, a)
    y = where(large, 0.0, log_x)
    x = exp(y)

    def term(number: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        total, t, psi = state
        below = b + 1.0 + cast(number, dt.float64)
        return total + t * (psi - y), t * x / below, psi + divide(1.0, below)

    total, _, _ = fori_loop(
        0, _TERMS, term, (zeros(a.shape, dtype=dt.float64), b * 0.0 + 1.0, digamma(b + 1.0))
    )
    root = exp(multiply(log_x, 1.0 / 3.0)) / exp(multiply(log(a), 1.0 / 3.0))  # 1 - 1/(9a) + z/(3 sqrt a)
    tilt = 1.0 / (9.0 * a)
    limit = divide(1.0, a) + 3.0 / root * (tilt / a - (root - 1.0 + tilt) / (2.0 * a))
    return where(large, limit, total / b)


def digamma(x: Tensor) -> Tensor:
    """The logarithmic derivative of the gamma function, for x of at least 1: eight steps up, then Stirling's series."""
    steps = divide(1.0, x)
    for k in range(1, 8):
        steps = steps + divide(1.0, x + float(k))
    y = x + 8.0
    r = divide(1.0, y * y)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (1 / 132 - r * 691 / 32760)))))
    return log(y) - 0.5 / y - series - steps


def gamma(
    concentration: Parameter,
    rate: Parameter = 1.0,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Numbers of the gamma distribution: mean concentration / rate.

    >>> gamma(2.0, shape=(3,)).shape
    (3,)
    """
    positive("gamma", "concentration", concentration)
    positive("gamma", "rate", rate)
    draw = Draw("gamma", {"concentration": concentration, "rate": rate}, shape, dtype, generator, key)
    alpha, rate = draw.parameters
    return cast(
        divide(exp(log_gamma_numbers(draw.key, _spread(alpha, draw.shape, draw.wide))), rate), draw.kind
    )


def _spread(x: Parameter, shape: tuple[int, ...], kind: DType) -> Tensor:
    """A parameter as a tensor of the result's shape; NaN where it is not positive."""
    x = broadcast_to_shape(as_tensor(x, "gamma", dtype=kind), shape)
    return where(less(0.0, x), x, float("nan"))


def beta(
    concentration1: Parameter,
    concentration0: Parameter,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Numbers of the beta distribution in [0, 1]: mean concentration1 / (concentration1 + concentration0)."""
    names = {"concentration1": concentration1, "concentration0": concentration0}
    for name, x in names.items():
        positive("beta", name, x)
    draw = Draw("beta", names, shape, dtype, generator, key)
    one, other = (
        log_gamma_numbers(fold_in(draw.key, n), _spread(x, draw.shape, draw.wide))
        for n, x in enumerate(draw.parameters)
    )
    return cast(divide(1.0, add(exp(other - one), 1.0)), draw.kind)


def dirichlet(
    concentration: Any,
    shape: Any = None,
    dtype: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Vectors [.., n] of positive numbers with sum 1, with the parameters ``concentration`` [.., n].

    ``shape`` is the shape of the stack of vectors, without n; by default that of ``concentration``.
    """
    alpha = as_tensor(concentration, "dirichlet", "concentration")
    if alpha.ndim < 1:
        raise ShapeError("dirichlet: `concentration` has a last axis, that of the vectors, got rank 0")
    if not alpha.shape[-1]:
        raise ShapeError(f"dirichlet: the vectors have at least 1 element, got shape {alpha.shape}")
    kind = float_type(dtype, "dirichlet", [alpha])
    wide = dt.float64 if kind is dt.float64 else dt.float32
    stack = result_shape("dirichlet", {"concentration": alpha[..., 0]}, shape)
    source = key_of(key, generator, "dirichlet")
    logs = log_gamma_numbers(source, _spread(cast(alpha, wide), (*stack, alpha.shape[-1]), wide))
    return cast(exp(log_softmax(logs, axis=-1)), kind)

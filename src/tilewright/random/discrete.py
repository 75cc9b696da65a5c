"""Distributions over integers. Counts have no gradients with respect to their parameters.

Numbers are found by the inverse of the distribution function where means are small, and by rejection with a fixed
number of rounds where they are large. All in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import (
    as_tensor,
    broadcast_to_shape,
    cast,
    check_device,
    dtype_of,
    is_scalar,
    shape_of,
)
from tilewright.functions.control import fori_loop
from tilewright.functions.creation import zeros
from tilewright.functions.elementwise import (
    abs as magnitude,
)
from tilewright.functions.elementwise import (
    add,
    bitwise_and,
    bitwise_right_shift,
    divide,
    exp,
    floor,
    less,
    log,
    log1p,
    logical_and,
    logical_not,
    logical_or,
    maximum,
    minimum,
    multiply,
    negative,
    sqrt,
    subtract,
    where,
)
from tilewright.random.keys import Generator, bits_of, fold_in, joined, key_of, words
from tilewright.random.uniform import Draw, Parameter, open_unit, positive, result_shape, unit
from tilewright.tensor import ArgumentError, DTypeError, Tensor

__all__ = ["bernoulli", "binomial", "dropout", "geometric", "poisson", "rademacher", "randint"]

_STEPS = 72  # of the inversion: a mean of 10 is passed by more with probability 1e-35
_ROUNDS = 26  # of the rejection: at most a quarter of the proposals fails, 2e-16 that all do
_LARGE = 10.0  # means from here on are drawn by rejection


# ---- bounded integers ----------------------------------------------------------------------------------------------


def randint(
    low: Any,
    high: Any = None,
    shape: Any = (),
    dtype: Any = dt.int64,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
    device: Any = None,
) -> Tensor:
    """Integers uniform in [low, high); with one bound, in [0, low). The bounds are integers or integer tensors.

    ``randint(10, (2, 3))`` is ``randint(0, 10, (2, 3))``. Ranges may be as large as the type: to draw from all of
    uint64 let ``high`` be 2**64. No integer is more likely than another by more than 2^-32 of itself (2^-64 in
    ranges above 2^32).
    """
    check_device(device, "randint")
    if isinstance(high, tuple | list):
        if shape != ():
            raise ArgumentError(f"randint: `high` is an integer, got {high}")
        low, high, shape = 0, low, high
    elif high is None:
        low, high = 0, low
    kind = dtype_of(dtype, "randint")
    if not kind.is_integer:
        raise DTypeError(f"randint: integers are drawn, got {kind}")
    if not (_whole(low) and _whole(high)):
        return _between(low, high, None if shape == () else shape, kind, generator, key)
    span, sizes = int(high) - int(low), shape_of(shape, "randint")
    info = np.iinfo(kind.name)
    if span <= 0:
        raise ArgumentError(
            f"randint: from {low} up to, not including, {high} there are 0 integers to draw from"
        )
    if low < info.min or high > int(info.max) + 1:
        raise ArgumentError(
            f"randint: {kind} holds {info.min} to {info.max}, which is not all of {low} to {high - 1}; give another `dtype`"
        )
    source = key_of(key, generator, "randint")
    if span == 1 << kind.bits:
        return bits_of(source, sizes, kind)
    drawn = _narrow(source, sizes, span) if span <= 1 << 32 else _broad(source, sizes, span)
    return cast(add(drawn, int(low) % (1 << 64)), kind)  # modulo 2^64, as the types' own arithmetic is


def _whole(x: Any) -> bool:
    return isinstance(x, (int, np.integer)) and not isinstance(x, bool)


def _between(
    low: Any, high: Any, shape: Any, kind: DType, generator: Generator | None, key: Tensor | None
) -> Tensor:
    """Integers between bounds that are tensors; ``low`` where there are none between."""
    bounds = {"low": as_tensor(low, "randint", "low"), "high": as_tensor(high, "randint", "high")}
    for name, bound in bounds.items():
        if not bound.dtype.is_integer:
            raise DTypeError(f"randint: `{name}` is an integer or a tensor of integers, got {bound.dtype}")
    sizes = result_shape("randint", bounds, shape)
    first, last = (cast(cast(b, dt.int64), dt.uint64) for b in bounds.values())
    span = where(less(bounds["low"], bounds["high"]), last - first, 0)
    drawn = _broad(key_of(key, generator, "randint"), sizes, broadcast_to_shape(span, sizes))
    return cast(drawn + first, kind)


def _narrow(key: Tensor, shape: tuple[int, ...], span: int) -> Tensor:
    """floor(r * span / 2^64) of 64 random bits r, for spans up to 2^32 (Lemire, 2019), as uint64."""
    if span == 1 << 32:
        return cast(words(key, shape), dt.uint64)
    high, low = (cast(words(key, shape, word), dt.uint64) for word in (0, 1))
    return (high * span + (low * span >> 32)) >> 32


def _broad(key: Tensor, shape: tuple[int, ...], span: int | Tensor) -> Tensor:
    """floor(r * span / 2^128) of 128 random bits r, for spans below 2^64, as uint64."""
    high, low = (joined(fold_in(key, n), shape) for n in (0, 1))
    bound = span if isinstance(span, Tensor) else as_tensor(np.asarray(span, np.uint64), "randint")
    product = high * bound
    total = product + _upper(low, bound)
    return _upper(high, bound) + cast(total < product, dt.uint64)


def _upper(a: Tensor, b: Tensor) -> Tensor:
    """The upper 64 bits of a product of uint64, from products of halves."""
    a1, a0, b1, b0 = a >> 32, bitwise_and(a, 0xFFFFFFFF), b >> 32, bitwise_and(b, 0xFFFFFFFF)
    cross = a1 * b0 + (a0 * b0 >> 32)
    return a1 * b1 + (cross >> 32) + ((a0 * b1 + bitwise_and(cross, 0xFFFFFFFF)) >> 32)


# ---- two outcomes ----------------------------------------------------------------------------------------------------


def bernoulli(
    p: Parameter = 0.5,
    shape: Any = None,
    dtype: Any = dt.bool_,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """True with probability ``p``: a number, or a tensor of probabilities that also gives the shape. Exact to 2^-53."""
    _probability("bernoulli", p)
    draw = Draw("bernoulli", {"p": p}, shape, dt.float64, generator, key)
    return cast(less(draw.unit(), draw.parameters[0]), dtype_of(dtype, "bernoulli"))


def _probability(function: str, p: Parameter) -> None:
    if is_scalar(p) and not 0 <= p <= 1:
        raise ArgumentError(f"{function}: `p` is a probability from 0 to 1, got {p!r}")


def rademacher(
    shape: Any = (), dtype: Any = dt.float32, generator: Generator | None = None, *, key: Tensor | None = None
) -> Tensor:
    """-1 or 1, equally often."""
    kind, sizes = dtype_of(dtype, "rademacher"), shape_of(shape, "rademacher")
    if kind.kind not in "if":
        raise DTypeError(f"rademacher: the type holds -1 and 1, got {kind}")
    sign = bitwise_right_shift(words(key_of(key, generator, "rademacher"), sizes), 31)
    return subtract(1, multiply(cast(sign, kind), 2))


def dropout(
    x: Any,
    p: float = 0.5,
    training: bool = True,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Each element 0 with probability ``p``, else divided by 1 - p; x itself when not ``training``."""
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"dropout: `p` is a probability from 0 to 1, got {p}")
    source = as_tensor(x, "dropout")
    if not training or p == 0.0:
        return source
    keep = less(unit(key_of(key, generator, "dropout"), source.shape, dt.float32), 1.0 - p)
    return where(keep, multiply(source, 1.0 / (1.0 - p) if p < 1.0 else 0.0), 0.0)


# ---- counts ----------------------------------------------------------------------------------------------------------


def _count_type(dtype: Any, function: str) -> DType:
    kind = dtype_of(dtype, function)
    if kind.kind not in "iuf":
        raise DTypeError(f"{function}: counts are of an integer or floating type, got {kind}")
    return kind


def _full(x: Parameter, shape: tuple[int, ...]) -> Tensor:
    return broadcast_to_shape(as_tensor(x, "random", dtype=dt.float64).detach(), shape)


def geometric(
    p: Parameter,
    shape: Any = None,
    dtype: Any = dt.int64,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """The number of trials up to and including the first success, at least 1, when each succeeds with probability ``p``."""
    kind = _count_type(dtype, "geometric")
    _probability("geometric", p)
    positive("geometric", "p", p)
    draw = Draw("geometric", {"p": p}, shape, dt.float64, generator, key)
    chance = _full(draw.parameters[0], draw.shape)
    count = add(floor(log(draw.open_unit()) / log1p(negative(chance))), 1.0)
    return cast(where(chance < 1.0, count, 1.0), kind)


def poisson(
    rate: Parameter,
    shape: Any = None,
    dtype: Any = dt.int64,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Counts of the Poisson distribution with mean ``rate``."""
    kind = _count_type(dtype, "poisson")
    positive("poisson", "rate", rate, zero=True)
    draw = Draw("poisson", {"rate": rate}, shape, dt.float64, generator, key)
    mean = _full(draw.parameters[0], draw.shape)
    small, large = minimum(mean, _LARGE), maximum(mean, _LARGE)
    few = _inverted(draw, exp(negative(small)), lambda k: small / k)
    b = add(multiply(sqrt(large), 2.53), 0.931)
    ratio = 1.1239 + 1.1328 / (b - 3.4)
    many = _rejected(
        draw, b, add(multiply(b, 0.02483), -0.059), large + 0.43, 0.9277 - 3.6224 / (b - 2.0), ratio,
        lambda k: k * log(large) - large - log_factorial(k), lambda k: k >= 0.0,
    )  # fmt: skip
    return cast(_known(where(mean < _LARGE, few, many), mean >= 0.0), kind)


def binomial(
    n: Parameter,
    p: Parameter = 0.5,
    shape: Any = None,
    dtype: Any = dt.int64,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """The number of successes in ``n`` trials that succeed with probability ``p`` each."""
    kind = _count_type(dtype, "binomial")
    _probability("binomial", p)
    positive("binomial", "n", n, zero=True)
    draw = Draw("binomial", {"n": n, "p": p}, shape, dt.float64, generator, key)
    trials, chance = (_full(x, draw.shape) for x in draw.parameters)
    rarer = minimum(chance, 1.0 - chance)
    odds = rarer / (1.0 - rarer)
    mean = trials * rarer
    few = _inverted(
        draw,
        exp(where(mean < _LARGE, trials, 0.0) * log1p(negative(rarer))),
        lambda k: (trials + 1.0 - k) / k * odds,
    )
    # W. Hörmann, "The generation of binomial random variates" (1993), algorithm BTRS; harmless numbers where it is not used
    many_trials, q = where(mean < _LARGE, 40.0, trials), where(mean < _LARGE, 0.5, rarer)
    wide_odds = log(q / (1.0 - q))
    deviation = sqrt(many_trials * q * (1.0 - q))
    b = add(multiply(deviation, 2.53), 1.15)
    mode = floor((many_trials + 1.0) * q)
    top = log_factorial(mode) + log_factorial(many_trials - mode)
    many = _rejected(
        draw, b, -0.0873 + 0.0248 * b + 0.01 * q, many_trials * q + 0.5, 0.92 - 4.2 / b, (2.83 + 5.1 / b) * deviation,
        lambda k: top - log_factorial(k) - log_factorial(many_trials - k) + (k - mode) * wide_odds,
        lambda k: logical_and(k >= 0.0, k <= many_trials),
    )  # fmt: skip
    count = minimum(where(mean < _LARGE, few, many), trials)
    count = where(chance > 0.5, trials - count, count)
    return cast(_known(count, logical_and(trials >= 0.0, logical_and(chance >= 0.0, chance <= 1.0))), kind)


def _known(count: Tensor, sound: Tensor) -> Tensor:
    """NaN where a parameter is none (0 in an integer type)."""
    return where(sound, count, float("nan"))


def _inverted(draw: Draw, first: Tensor, ratio: Callable[[Tensor], Tensor]) -> Tensor:
    """The smallest k whose distribution function reaches u. ``ratio(k)`` is the probability of k over that of k - 1."""
    u = open_unit(fold_in(draw.key, 0), draw.shape, dt.float64)

    def step(number: Tensor, state: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        mass, total, count = state
        count = count + cast(u > total, dt.float64)
        mass = maximum(mass * ratio(cast(number, dt.float64)), 0.0)
        return mass, total + mass, count

    none = zeros(draw.shape, dtype=dt.float64)
    count: Tensor
    _, _, count = fori_loop(1, _STEPS + 1, step, (first, first, none))
    return count


def _rejected(
    draw: Draw, b: Tensor, a: Tensor, centre: Tensor, squeeze: Tensor, ratio: Tensor,
    log_mass: Callable[[Tensor], Tensor], inside: Callable[[Tensor], Tensor],
) -> Tensor:  # fmt: skip
    """W. Hörmann's transformed rejection with squeeze ("The transformed rejection method", 1993; PTRS and BTRS)."""

    def attempt(number: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        done, count = state
        own = fold_in(fold_in(draw.key, 1), number)
        u = open_unit(fold_in(own, 0), draw.shape, dt.float64) - 0.5
        v = open_unit(fold_in(own, 1), draw.shape, dt.float64)
        edge = 0.5 - magnitude(u)
        k = floor((2.0 * a / edge + b) * u + centre)
        good = inside(k)
        k = where(good, k, 0.0)
        quick = logical_and(edge >= 0.07, v <= squeeze)
        slow = log(v * ratio / (a / (edge * edge) + b)) <= log_mass(k)
        fits = logical_and(good, logical_or(quick, slow))
        return logical_or(done, fits), where(logical_and(good, logical_not(done)), k, count)

    start = (zeros(draw.shape, dtype=dt.bool_), floor(centre))
    count: Tensor
    _, count = fori_loop(0, _ROUNDS, attempt, start)
    return count


def log_factorial(k: Tensor) -> Tensor:
    """log k! for float64 counts k >= 0: Stirling's series from 8 on, below it log of (k + 8)! over its last factors."""
    x = k + 1.0
    low = x < 8.0
    factors = x
    for n in range(1, 8):
        factors = factors * (x + float(n))
    y = where(low, x + 8.0, x)
    r = divide(1.0, y * y)
    series = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r / 1188)))) / y
    out = (y - 0.5) * log(y) - y + 0.9189385332046727 + series
    return out - where(low, log(where(low, factors, 1.0)), 0.0)

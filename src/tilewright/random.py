"""Random tensors from a counter-based generator: the same numbers eagerly and inside ``tw.jit``, for any thread count.

A generator is one tensor ``state``: uint32[2], a key that counts draws. A draw takes the Threefry-2x32 bits of the current
key at the counters 0, 1, 2, ... and adds one to the key's second word, so every draw is a stream of its own. Because the
state is a tensor, a jitted function captures it and writes it back like a parameter.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import as_tensor, cast, dtype_of, shape_of
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import (
    add,
    bitwise_or,
    bitwise_right_shift,
    cos,
    less,
    log1p,
    multiply,
    negative,
    remainder,
    sqrt,
    where,
)
from tilewright.functions.indexing import take
from tilewright.functions.sorting import argsort
from tilewright.graph.ir import make
from tilewright.runtime.buffers import Buffer
from tilewright.tensor import (
    ArgumentError,
    DTypeError,
    Tensor,
    from_buffer,
    from_value,
    modes,
    no_grad,
    operand_value,
    suspend_trace,
)

__all__ = [
    "Generator", "bernoulli", "default_generator", "dropout", "manual_seed", "normal", "permutation", "rand", "randint", "randn",
    "uniform",
]  # fmt: skip

_MASK = 0xFFFFFFFF


def _mixed(seed: int) -> int:
    """64 well-mixed bits of a seed (the finaliser of SplitMix64), so that near seeds give unrelated keys."""
    z = (seed + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)


class Generator:
    """A stream of random numbers. Two generators with one seed give the same numbers.

    >>> a, b = Generator(7), Generator(7)
    >>> rand(3, generator=a).tolist() == rand(3, generator=b).tolist()
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        with suspend_trace():
            self.state = _leaf(_key(seed))

    def manual_seed(self, seed: int) -> Generator:
        """Start again from a seed; returns the generator."""
        self.seed = seed
        with no_grad():
            self.state.assign(_leaf(_key(seed)))
        return self

    def next_key(self) -> Tensor:
        """The key of the next draw (uint32[2]); the state moves on."""
        if modes.trace is None:
            now = self.state.numpy()
            key = from_buffer(self.state._buffer(), dt.uint32, (2,))
            self.state.assign(_leaf(_advanced(now)))
            return key
        with no_grad():
            key = from_value(operand_value(self.state))
            self.state.assign(add(self.state, iota((2,), 0, dt.uint32)))
        return key


def _key(seed: int) -> np.ndarray[Any, Any]:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise DTypeError(f"manual_seed: a seed is an integer, got {type(seed).__name__}")
    mixed = _mixed(int(seed))
    return np.array([mixed & _MASK, mixed >> 32], np.uint32)


def _advanced(key: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.array([key[0], (int(key[1]) + 1) & _MASK], np.uint32)


def _leaf(key: np.ndarray[Any, Any]) -> Tensor:
    return from_buffer(Buffer.from_numpy(key, copy=True), dt.uint32, (2,))


default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Start the default generator again from a seed (any integer). Two runs with one seed give the same numbers."""
    return default_generator.manual_seed(seed)


def _bits(shape: tuple[int, ...], generator: Generator | None) -> Tensor:
    key = (generator or default_generator).next_key()
    return from_value(make("random_bits", (operand_value(key),), shape=shape), (key,))


_PRECISION = {
    dt.bfloat16: 8,
    dt.float16: 11,
    dt.float32: 24,
}  # bits of a fraction that are never rounded up to 1


def _unit(shape: tuple[int, ...], dtype: DType, generator: Generator | None) -> Tensor:
    """Uniform in [0, 1): as many high bits as ``dtype`` holds exactly, in float32; 53 bits of two words for float64."""
    if dtype is dt.float64:
        words = _bits((2, *shape), generator)
        wide = _joined(words[0], words[1])
        return multiply(cast(bitwise_right_shift(wide, 11), dt.float64), 2.0**-53)
    bits = _PRECISION[dtype]
    return multiply(cast(bitwise_right_shift(_bits(shape, generator), 32 - bits), dt.float32), 2.0**-bits)


def _joined(high: Tensor, low: Tensor) -> Tensor:
    """Two words as one uint64."""
    return bitwise_or(cast(high, dt.uint64) << 32, cast(low, dt.uint64))


def _float_type(dtype: Any, function: str) -> DType:
    kind = dtype_of(dtype, function)
    if not kind.is_float:
        raise DTypeError(f"{function}: numbers of a floating type are drawn, got {kind}")
    return kind


def uniform(
    low: float = 0.0,
    high: float = 1.0,
    shape: Any = (),
    dtype: Any = dt.float32,
    generator: Generator | None = None,
) -> Tensor:
    """Numbers uniform in [low, high)."""
    kind = _float_type(dtype, "uniform")
    unit = _unit(shape_of(shape, "uniform"), kind, generator)
    if (low, high) != (0.0, 1.0):
        unit = unit * (high - low) + low
    return cast(unit, kind)


def _sizes(shape: tuple[Any, ...], function: str) -> tuple[int, ...]:
    return shape_of(shape[0] if len(shape) == 1 else shape, function)


def rand(*shape: Any, dtype: Any = dt.float32, generator: Generator | None = None) -> Tensor:
    """Numbers uniform in [0, 1): ``rand(2, 3)`` or ``rand((2, 3))``."""
    return uniform(0.0, 1.0, _sizes(shape, "rand"), dtype, generator)


def normal(
    mean: float = 0.0,
    std: float = 1.0,
    shape: Any = (),
    dtype: Any = dt.float32,
    generator: Generator | None = None,
) -> Tensor:
    """Numbers of the normal distribution, by the method of Box and Muller."""
    kind = _float_type(dtype, "normal")
    unit = _unit((2, *shape_of(shape, "normal")), kind if kind is dt.float64 else dt.float32, generator)
    radius = sqrt(multiply(log1p(negative(unit[0])), -2.0))  # 1 - u is in (0, 1], so the logarithm is finite
    out = multiply(radius, cos(multiply(unit[1], 2 * math.pi)))
    if std != 1.0:
        out = multiply(out, std)
    if mean != 0.0:
        out = add(out, mean)
    return cast(out, kind)


def randn(*shape: Any, dtype: Any = dt.float32, generator: Generator | None = None) -> Tensor:
    """Numbers of the standard normal distribution: ``randn(2, 3)`` or ``randn((2, 3))``."""
    return normal(0.0, 1.0, _sizes(shape, "randn"), dtype, generator)


def randint(
    low: int,
    high: int | tuple[int, ...] | list[int] | None = None,
    shape: Any = (),
    dtype: Any = dt.int64,
    generator: Generator | None = None,
) -> Tensor:
    """Integers uniform in [low, high); with one bound, in [0, low). The range has at most 2^63 numbers.

    ``randint(10, (2, 3))`` is ``randint(0, 10, (2, 3))``.
    """
    if isinstance(high, tuple | list):
        if shape != ():
            raise ArgumentError(f"randint: `high` is an integer, got {high}")
        low, high, shape = 0, low, high
    elif high is None:
        low, high = 0, low
    kind = dtype_of(dtype, "randint")
    if not kind.is_integer:
        raise DTypeError(f"randint: integers are drawn, got {kind}")
    span = int(high) - int(low)
    if not 0 < span <= 1 << 63:
        raise ArgumentError(
            f"randint: from {low} up to, not including, {high} there are {max(span, 0)} integers to draw from"
        )
    sizes = shape_of(shape, "randint")
    if span <= 1 << 32:  # the high word of a 32 x 32 bit product (Lemire): its bias is below span / 2^32
        product = multiply(cast(_bits(sizes, generator), dt.uint64), span)
        drawn = bitwise_right_shift(product, 32)
    else:
        words = _bits((2, *sizes), generator)
        drawn = remainder(_joined(words[0], words[1]), span)
    out = cast(drawn, kind)
    return add(out, int(low)) if low else out


def bernoulli(
    p: Any = 0.5, shape: Any = None, dtype: Any = dt.bool_, generator: Generator | None = None
) -> Tensor:
    """True with probability ``p``: a number, or a tensor of probabilities that also gives the shape."""
    if shape is None:
        probability = as_tensor(p, "bernoulli", "p")
        sizes = probability.shape
    else:
        probability, sizes = p, shape_of(shape, "bernoulli")
    return cast(less(_unit(sizes, dt.float32, generator), probability), dtype_of(dtype, "bernoulli"))


def dropout(x: Any, p: float = 0.5, training: bool = True, generator: Generator | None = None) -> Tensor:
    """Each element 0 with probability ``p``, else divided by 1 - p; x itself when not ``training``."""
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"dropout: `p` is a probability from 0 to 1, got {p}")
    source = as_tensor(x, "dropout")
    if not training or p == 0.0:
        return source
    keep = less(_unit(source.shape, dt.float32, generator), 1.0 - p)
    return where(keep, multiply(source, 1.0 / (1.0 - p) if p < 1.0 else 0.0), 0.0)


def permutation(x: int | Tensor, generator: Generator | None = None) -> Tensor:
    """The integers below x in random order (int64), or the rows of a tensor in random order."""
    count = x if isinstance(x, int) else x.shape[0]
    words = _bits((2, count), generator)
    order = argsort(_joined(words[0], words[1]))
    return order if isinstance(x, int) else take(x, order, axis=0)

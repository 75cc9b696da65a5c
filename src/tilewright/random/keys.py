"""Keys and generators: where random bits come from.

A key is a tensor uint32[2]. The bits of a key are Threefry-2x32 at the counters 0, 1, 2, ...; the keys derived from it
(``split``, ``fold_in``) are Threefry-2x32 at the counters from 2^63 on, which no tensor is large enough to reach, so
a key's numbers and its derived keys never meet.

A generator is one key that counts draws: a draw uses the current key and adds one to its second word. Because the key
is a tensor, a jitted function captures it and writes it back like a parameter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import as_tensor, cast, dtype_of, filled, shape_of
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import add, bitwise_or, bitwise_right_shift, multiply, where
from tilewright.functions.movement import stack
from tilewright.functions.types import bitcast
from tilewright.graph.ir import make
from tilewright.runtime.buffers import Buffer
from tilewright.tensor import (
    ArgumentError,
    DTypeError,
    ShapeError,
    Tensor,
    from_buffer,
    from_value,
    modes,
    no_grad,
    operand_value,
    suspend_trace,
)

__all__ = [
    "Generator", "bits", "default_generator", "fold_in", "joined", "key", "key_of", "manual_seed", "split", "words",
]  # fmt: skip

_MASK = 0xFFFFFFFF
_DERIVED = 1 << 31  # high word of the counters at which derived keys lie


# ---- keys ----------------------------------------------------------------------------------------------------------


def key(seed: int) -> Tensor:
    """The key of a seed: uint32[2]. Near seeds give unrelated keys.

    >>> key(0).shape, bool((key(0) == key(1)).any())
    ((2,), False)
    """
    return from_buffer(Buffer.from_numpy(_key(seed, "key"), copy=True), dt.uint32, (2,))


def split(key: Tensor, num: int = 2) -> Tensor:
    """``num`` new keys, uint32[num, 2], unrelated to each other and to the numbers of ``key`` itself.

    Key i of them is ``fold_in(key, i)``.

    >>> first, second = split(key(0))
    >>> uniform_differs = bits(3, key=first).tolist() != bits(3, key=second).tolist()
    """
    source = _checked(key, "split")
    if isinstance(num, bool) or not hasattr(num, "__index__") or num < 0:
        raise ArgumentError(f"split: `num` is the number of keys, got {num!r}")
    start = multiply(iota((2,), 0, dt.uint32), _DERIVED)
    return stack(_both_words(source, start, (int(num),)), -1)


def fold_in(key: Tensor, data: Any) -> Tensor:
    """The key that belongs to ``key`` and a number: an integer or an integer tensor of rank 0, such as a step's number.

    Equal numbers modulo 2^63 give equal keys.
    """
    source = _checked(key, "fold_in")
    if isinstance(data, (int, np.integer)) and not isinstance(data, bool):
        low, high = int(data) & _MASK, int(data) >> 32 & _DERIVED - 1 | _DERIVED
        place = iota((2,), 0, dt.uint32)
        start = add(multiply(place, (high - low) & _MASK), low)
    else:
        number = as_tensor(data, "fold_in", "data")
        if not number.dtype.is_integer or number.ndim:
            raise DTypeError(
                f"fold_in: `data` is an integer, got {number.dtype} of shape {number.shape}; for many keys at once map"
                " it: tw.vmap(tw.random.fold_in, in_axes=(None, 0))"
            )
        wide = cast(cast(number, dt.int64), dt.uint64)
        upper = bitwise_or(cast(bitwise_right_shift(wide, 32), dt.uint32), _DERIVED)
        start = stack([cast(wide & _MASK, dt.uint32), upper])
    return stack(_both_words(source, start, ()), -1)


def _both_words(source: Tensor, start: Tensor, shape: tuple[int, ...]) -> list[Tensor]:
    operands = (operand_value(source), operand_value(start))
    return [
        from_value(make("random_bits", operands, shape=shape, word=word), (source, start)) for word in (0, 1)
    ]


def _checked(key: Any, function: str) -> Tensor:
    if not isinstance(key, Tensor) or key.dtype is not dt.uint32:
        kind = f"a tensor of {key.dtype}" if isinstance(key, Tensor) else type(key).__name__
        raise DTypeError(
            f"{function}: a key is a uint32 tensor of shape (2,), got {kind}; make one with tw.random.key(seed)"
        )
    if key.shape != (2,):
        raise ShapeError(
            f"{function}: a key has shape (2,), got {key.shape}; to use many keys at once map the function over them with"
            " tw.vmap"
        )
    return key


# ---- generators ------------------------------------------------------------------------------------------------------


def _mixed(seed: int) -> int:
    """64 well-mixed bits of a seed (the finaliser of SplitMix64), so that near seeds give unrelated keys."""
    z = (seed + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return z ^ (z >> 31)


class Generator:
    """A stream of random numbers. Two generators with one seed give the same numbers.

    >>> import tilewright as tw
    >>> a, b = Generator(7), Generator(7)
    >>> tw.rand(3, generator=a).tolist() == tw.rand(3, generator=b).tolist()
    True
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        with suspend_trace():
            self.state = _leaf(_key(seed, "Generator"))

    def manual_seed(self, seed: int) -> Generator:
        """Start again from a seed; returns the generator."""
        state = _leaf(_key(seed, "manual_seed"))
        self.seed = seed
        with no_grad():
            self.state.assign(state)
        return self

    def next_key(self) -> Tensor:
        """The key of the next draw (uint32[2]); the state moves on. Inside ``vmap`` every example has one of its own."""
        if modes.trace is None:
            now = self.state.numpy()
            key = from_buffer(self.state._buffer(), dt.uint32, (2,))
            self.state.assign(_leaf(_advanced(now)))
            return key
        with no_grad():
            key = from_value(operand_value(self.state))
            self.state.assign(add(self.state, iota((2,), 0, dt.uint32)))
        for number in modes.examples:
            if number is None:
                raise ArgumentError(
                    "a generator was drawn from inside `vmap` with randomness='error'; pass each example its key, or say"
                    " 'different' or 'same'"
                )
            key = fold_in(key, number)
        return key


def _key(seed: int, function: str) -> np.ndarray[Any, Any]:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise DTypeError(f"{function}: a seed is an integer, got {type(seed).__name__}")
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


def key_of(key: Tensor | None, generator: Generator | None, function: str) -> Tensor:
    """The key to draw with: the caller's, or the next one of a generator."""
    if key is None:
        return (generator or default_generator).next_key()
    if generator is not None:
        raise ArgumentError(f"{function}: give `key` or `generator`, not both")
    return _checked(key, function)


# ---- bits ------------------------------------------------------------------------------------------------------------


def words(key: Tensor, shape: tuple[int, ...], word: int = 0) -> Tensor:
    """Random words (uint32). The words 0 and 1 of one key and place are independent, and cost little more than one."""
    start = filled(0, dt.uint32, (2,))
    return from_value(make("random_bits", (operand_value(key), start), shape=shape, word=word), (key,))


def joined(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Both words of each place as one uint64, word 0 above."""
    high, low = (cast(words(key, shape, word), dt.uint64) for word in (0, 1))
    return bitwise_or(high << 32, low)


def bits(
    shape: Any = (), dtype: Any = dt.uint32, generator: Generator | None = None, *, key: Tensor | None = None
) -> Tensor:
    """Random bits: integers that take every value of ``dtype``, or bools, equally often."""
    kind, sizes = dtype_of(dtype, "bits"), shape_of(shape, "bits")
    if not (kind.is_integer or kind.is_bool):
        raise DTypeError(f"bits: integers or bool hold bits, got {kind}")
    return bits_of(key_of(key, generator, "bits"), sizes, kind)


def bits_of(key: Tensor, shape: tuple[int, ...], kind: DType) -> Tensor:
    """Random bits of a key as integers of any type."""
    if kind.bits == 64:
        return bitcast(joined(key, shape), kind)
    if kind.bits == 32:
        return bitcast(words(key, shape), kind)
    if kind.is_bool:
        return where(bitwise_right_shift(words(key, shape), 31) == 1, True, False)
    return cast(bitwise_right_shift(words(key, shape), 32 - kind.bits), kind)

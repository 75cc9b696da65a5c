"""Given things in a random order, and random choices among them."""

from __future__ import annotations

import math
from typing import Any

from tilewright.core import dtype as dt
from tilewright.core.integers import plain
from tilewright.functions.arguments import (
    as_tensor,
    axis_of,
    broadcast_to_shape,
    cast,
    float_tensor,
    is_symbolic,
    shape_of,
)
from tilewright.functions.elementwise import divide, log, minimum
from tilewright.functions.indexing import take, take_along_axis
from tilewright.functions.movement import expand_dims, moveaxis, reshape
from tilewright.functions.reductions import argmax, cumulative_sum
from tilewright.functions.reductions import sum as total
from tilewright.functions.sorting import argsort
from tilewright.random.continuous import standard_gumbel
from tilewright.random.discrete import randint
from tilewright.random.keys import Generator, joined, key_of
from tilewright.random.uniform import unit
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor

__all__ = ["categorical", "choice", "permutation"]


def permutation(
    x: int | Tensor,
    axis: int = 0,
    independent: bool = False,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """The integers below x in random order (int64), or a tensor with its slices along ``axis`` in random order.

    With ``independent`` every line along the axis gets an order of its own.

    >>> sorted(permutation(4).tolist())
    [0, 1, 2, 3]
    """
    x = plain(x)
    if is_symbolic(x) or (isinstance(x, int) and not isinstance(x, bool)):
        if x < 0:
            raise ArgumentError(f"permutation: the number of integers is not negative, got {x}")
        return argsort(joined(key_of(key, generator, "permutation"), shape_of(x, "permutation")))
    source = as_tensor(x, "permutation")
    place = axis_of(axis, source.ndim, "permutation")
    drawn = key_of(key, generator, "permutation")
    if independent:
        return take_along_axis(source, argsort(joined(drawn, source.shape), axis=place), axis=place)
    return take(source, argsort(joined(drawn, (source.shape[place],))), axis=place)


def categorical(
    logits: Any,
    axis: int = -1,
    shape: Any = None,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Places along ``axis``, each with the probability softmax(logits) (int64), by the largest of ``logits`` + Gumbel noise.

    ``shape`` is the result's; its last axes are the other axes of ``logits``, which are the default. A logit of minus
    infinity is never chosen.

    >>> from tilewright.tensor import Tensor
    >>> categorical(Tensor([0.0, float("-inf")]), shape=(3,)).tolist()
    [0, 0, 0]
    """
    source = float_tensor(logits, "categorical", "logits")
    if source.dtype.is_complex:
        raise DTypeError(f"categorical: logits are real, got {source.dtype}")
    place = axis_of(axis, source.ndim, "categorical")
    wide = dt.float64 if source.dtype is dt.float64 else dt.float32
    source = moveaxis(cast(source, wide), place, -1)
    count, own = source.shape[-1], source.shape[:-1]
    if not count:
        raise ShapeError("categorical: there is nothing to choose from on an axis of size 0")
    sizes = own if shape is None else shape_of(shape, "categorical")
    if sizes[len(sizes) - len(own) :] != own:
        raise ShapeError(f"categorical: `shape` {sizes} does not end in the other axes of `logits`, {own}")
    noise = standard_gumbel(key_of(key, generator, "categorical"), (*sizes, count), wide)
    return argmax(source + noise, axis=-1)


def choice(
    a: int | Tensor,
    shape: Any = (),
    replace: bool = True,
    p: Any = None,
    axis: int = 0,
    generator: Generator | None = None,
    *,
    key: Tensor | None = None,
) -> Tensor:
    """Random integers below ``a``, or random slices of a tensor along ``axis``, with ``shape`` in place of the axis.

    ``p`` holds the probabilities (they are divided by their sum); without ``replace`` nothing is chosen twice.
    """
    a = plain(a)
    source = None if isinstance(a, int) else as_tensor(a, "choice", "a")
    place = 0 if source is None else axis_of(axis, source.ndim, "choice")
    count = int(a) if source is None else source.shape[place]
    sizes = shape_of(shape, "choice")
    wanted = math.prod(sizes)
    if count < 1 and wanted:
        raise ArgumentError(f"choice: there is nothing to choose from, `a` has {count} elements")
    if not replace and wanted > count:
        raise ArgumentError(f"choice: {wanted} of {count} elements cannot be chosen without `replace`")
    weights = None if p is None else cast(as_tensor(p, "choice", "p"), dt.float64).detach()
    if weights is not None and weights.shape != (count,):
        raise ShapeError(
            f"choice: `p` has one probability for each of {count} elements, got shape {weights.shape}"
        )
    if weights is not None and not isinstance(p, Tensor) and count:  # elements of tensors are not read
        given = weights.numpy()
        if not ((given >= 0).all() and 0 < given.sum() < math.inf):
            raise ArgumentError(
                "choice: `p` holds probabilities, none of them negative and not all of them 0"
            )
    drawn = key_of(key, generator, "choice")
    if weights is None and replace:
        index = randint(0, max(count, 1), sizes, key=drawn)
    elif weights is None:
        index = reshape(argsort(joined(drawn, (count,)))[:wanted], sizes)
    elif replace:
        index = _weighted(drawn, weights, sizes)
    else:  # the largest of log p + Gumbel noise, as drawing one after the other would choose them
        scores = log(weights) + standard_gumbel(drawn, (count,), dt.float64)
        index = reshape(argsort(scores, descending=True)[:wanted], sizes)
    if source is None:
        return index
    chosen = take(source, reshape(index, (wanted,)), axis=place)
    return reshape(chosen, (*source.shape[:place], *sizes, *source.shape[place + 1 :]))


def _weighted(key: Tensor, weights: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The number of sums of the first weights that a uniform number has reached."""
    sums = cumulative_sum(weights)
    steps = divide(sums, sums[-1])
    u = expand_dims(unit(key, shape, dt.float64), -1)
    reached = total(cast(broadcast_to_shape(steps, (*shape, *steps.shape)) <= u, dt.int64), axis=-1)
    return minimum(reached, steps.shape[0] - 1)

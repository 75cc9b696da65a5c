"""``associative_scan``: running combinations along an axis with any associative function, in logarithmically many steps.

It needs no loop: pairs are combined, their running combinations found by recursion, and those in between filled in.
What it builds are ordinary operations, so every transform applies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tilewright.core.trees import Structure, flatten, unflatten
from tilewright.functions.arguments import as_tensor, axis_of
from tilewright.functions.movement import concat, flip, reshape, stack
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor

__all__ = ["associative_scan"]


def associative_scan(fn: Callable[[Any, Any], Any], elems: Any, reverse: bool = False, axis: int = 0) -> Any:
    """The running combinations ``e0, fn(e0, e1), fn(fn(e0, e1), e2), ...`` along ``axis`` of a tensor, or a tree of them.

    ``fn(a, b)`` combines two trees of tensors element by element of the axis; it must be associative and is called on
    many elements at once, about 2 log2(n) times with about 2 n elements in all. ``reverse`` runs from the end:
    ``fn`` then gets the later elements first.

    >>> from tilewright.functions import maximum
    >>> associative_scan(maximum, Tensor([1.0, 3.0, 2.0, 5.0])).tolist()
    [1.0, 3.0, 3.0, 5.0]
    """
    leaves, structure = flatten(elems)
    tensors = [as_tensor(x, "associative_scan", "elems") for x in leaves]
    if not tensors:
        raise ArgumentError("associative_scan: `elems` holds no tensor")
    axes = [axis_of(axis, t.ndim, "associative_scan") for t in tensors]
    sizes = {t.shape[a] for t, a in zip(tensors, axes, strict=True)}
    if len(sizes) > 1:
        raise ShapeError(
            f"associative_scan: the tensors have different sizes along axis {axis}: {sorted(sizes)}"
        )
    if reverse:
        tensors = [flip(t, a) for t, a in zip(tensors, axes, strict=True)]
    out = _Scan(fn, structure, axes).run(tensors)
    if reverse:
        out = [flip(t, a) for t, a in zip(out, axes, strict=True)]
    return unflatten(structure, out)


class _Scan:
    def __init__(self, fn: Callable[[Any, Any], Any], structure: Structure, axes: list[int]) -> None:
        self.fn = fn
        self.structure = structure
        self.axes = axes

    def run(self, elems: list[Tensor]) -> list[Tensor]:
        count = elems[0].shape[self.axes[0]]
        if count < 2:
            return elems
        pairs = self.combined(self.part(elems, 0, count - 1, 2), self.part(elems, 1, count, 2))
        odd = self.run(pairs)  # the combinations that end at elements 1, 3, 5, ...
        first, rest = self.part(elems, 0, 1), self.part(elems, 2, count, 2)
        if count == 2:
            even = first
        else:
            before = self.part(odd, 0, (count - 1) // 2)
            between = self.combined(before, rest)
            even = [concat([a, b], x) for a, b, x in zip(first, between, self.axes, strict=True)]
        return [_woven(a, b, x) for a, b, x in zip(even, odd, self.axes, strict=True)]

    def part(self, elems: list[Tensor], start: int, stop: int, step: int = 1) -> list[Tensor]:
        return [
            t[(*[slice(None)] * a, slice(start, stop, step))] for t, a in zip(elems, self.axes, strict=True)
        ]

    def combined(self, a: list[Tensor], b: list[Tensor]) -> list[Tensor]:
        leaves, structure = flatten(self.fn(unflatten(self.structure, a), unflatten(self.structure, b)))
        if structure != self.structure:
            raise ArgumentError("associative_scan: `fn` returns another structure than that of `elems`")
        for got, want in zip(leaves, a, strict=True):
            if not isinstance(got, Tensor) or got.shape != want.shape or got.dtype is not want.dtype:
                shown = f"{got.dtype}{list(got.shape)}" if isinstance(got, Tensor) else type(got).__name__
                raise DTypeError(
                    f"associative_scan: `fn` of two tensors {want.dtype}{list(want.shape)} returns one of their kind, got {shown}"
                )
        return leaves


def _woven(even: Tensor, odd: Tensor, axis: int) -> Tensor:
    """Elements of two tensors in turn; the first has as many as the second, or one more."""
    count = odd.shape[axis]
    head = (*[slice(None)] * axis, slice(0, count))
    both = stack([even[head], odd], axis + 1)
    woven = reshape(both, (*odd.shape[:axis], 2 * count, *odd.shape[axis + 1 :]))
    if even.shape[axis] == count:
        return woven
    return concat([woven, even[(*[slice(None)] * axis, slice(count, None))]], axis)

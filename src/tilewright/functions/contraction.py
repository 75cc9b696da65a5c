"""``einsum``: sums of products written as index labels, reduced to diagonals, sums and pairwise contractions."""

from __future__ import annotations

import functools
import math
import operator
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tilewright.core import dtype as dt
from tilewright.functions.arguments import as_tensor, broadcast_to_shape, cast
from tilewright.functions.linalg import contract
from tilewright.functions.movement import moveaxis, permute_dims, reshape
from tilewright.functions.reductions import sum as sum_over
from tilewright.tensor import ArgumentError, ShapeError, Tensor, apply

__all__ = ["einsum", "einsum_path"]


def einsum(subscripts: Any, *operands: Any) -> Tensor:
    """Einstein summation: every operand's axes are labelled by letters, labels that the result lacks are summed over.

    A label repeated in one operand takes the diagonal. Without ``->`` the result has the labels that occur once, in
    alphabetical order. ``...`` stands for any further axes, which broadcast. The list form
    ``einsum(x1, [0, 1], x2, [1, 2], [0, 2])`` has integers (and ``...``) for letters. Operands are multiplied two at a time,
    up to eight in the order that needs the fewest multiplications; ``einsum_path`` shows it.

    >>> einsum("ij,jk->ik", Tensor([[1, 2]]), Tensor([[3], [4]])).tolist()
    [[11]]
    """
    _, inputs, output, tensors, sizes = _read("einsum", subscripts, operands)
    kind = dt.promote(*(t.dtype for t in tensors))
    terms = [_single(cast(t, kind), labels, sizes) for t, labels in zip(tensors, inputs, strict=True)]
    for i, j in _path([frozenset(names) for _, names in terms], output, sizes):
        second, first = terms.pop(j), terms.pop(i)
        terms.append(_pair(first, second, {x for _, labels in terms for x in labels} | set(output)))
    tensor, labels = _sum_out(*terms[0], set(output))
    return permute_dims(tensor, [labels.index(x) for x in output if x in labels])


def einsum_path(subscripts: Any, *operands: Any) -> tuple[list[Any], str]:
    """The order in which ``einsum`` multiplies its operands, as in NumPy: pairs of places in the list of what is left, to
    whose end each product goes; and a text with every product and its number of multiplications.

    >>> x, y = Tensor([[1.0, 2.0]]), Tensor([[1.0], [2.0]])
    >>> einsum_path("ij,jk,kl->il", x, y, x)[0]
    ['einsum_path', (0, 1), (0, 1)]
    """
    text, inputs, output, tensors, sizes = _read("einsum_path", subscripts, operands)
    names = [frozenset(labels) for labels in inputs]
    path = _path(names, output, sizes)
    lines, total = [], 0
    for i, j in path:
        second, first = names.pop(j), names.pop(i)
        kept = (first | second) & frozenset(output).union(*names)
        count = math.prod(sizes[x] for x in first | second)
        total += count
        parts = [" ".join(sorted(x)) or "1" for x in (first, second, kept)]
        lines.append(f"  {parts[0]} , {parts[1]} -> {parts[2]}: {count} multiplications")
        names.append(kept)
    at_once = math.prod(sizes.values()) * max(1, len(tensors) - 1)
    head = f"{text}: {total} multiplications two at a time, {at_once} all at once"
    return ["einsum_path", *path], "\n".join([head, *lines])


Reading = tuple[str, list[list[str]], list[str], list[Tensor], dict[str, int]]


def _read(function: str, subscripts: Any, operands: Sequence[Any]) -> Reading:
    if not isinstance(subscripts, str):
        subscripts, operands = _letters(function, [subscripts, *operands])
    tensors = [as_tensor(x, function, f"operands[{i}]") for i, x in enumerate(operands)]
    inputs, output = _parse(subscripts, tensors)
    sizes = _sizes(subscripts, inputs, tensors)
    for label in output:
        if label not in sizes:
            raise ArgumentError(
                f"einsum: label {_shown(label)} of the result is in no operand of {subscripts!r}"
            )
    return subscripts, inputs, output, tensors, sizes


def _letters(function: str, items: list[Any]) -> tuple[str, list[Any]]:
    """The list form as subscripts and operands."""
    result = items.pop() if len(items) % 2 else None

    def text(labels: Any) -> str:
        try:
            return "".join("..." if x is Ellipsis else _LETTERS[operator.index(x)] for x in labels)
        except (TypeError, IndexError):
            raise ArgumentError(
                f"{function}: takes subscripts and operands, or operands each followed by a list of integers from 0 to"
                f" {len(_LETTERS) - 1} and `...`, got {labels!r} for such a list"
            ) from None

    left = ",".join(text(labels) for labels in items[1::2])
    return (left if result is None else f"{left}->{text(result)}"), items[::2]


Term = tuple[Tensor, list[str]]


def _shown(label: str) -> str:
    return f"'{label}'" if len(label) == 1 else "'...'"


def _parse(subscripts: str, tensors: Sequence[Tensor]) -> tuple[list[list[str]], list[str]]:
    """Labels of each operand's axes and of the result; axes under ``...`` are labelled by their distance from its end."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(tensors):
        raise ArgumentError(f"einsum: {subscripts!r} describes {len(parts)} operands, got {len(tensors)}")
    inputs: list[list[str]] = []
    widest = 0
    for i, (part, tensor) in enumerate(zip(parts, tensors, strict=True)):
        head, dots, tail = part.partition("...")
        if not (head + tail).isalpha() and head + tail:
            raise ArgumentError(f"einsum: labels are letters, got {part!r} in {subscripts!r}")
        rest = tensor.ndim - len(head) - len(tail)
        if rest < 0 or (rest > 0 and not dots):
            raise ShapeError(
                f"einsum: {part!r} labels {len(head) + len(tail)} axes, operand {i} has shape {tensor.shape}"
            )
        widest = max(widest, rest)
        inputs.append([*head, *(f"...{d}" for d in range(rest, 0, -1)), *tail])
    spread = [f"...{d}" for d in range(widest, 0, -1)]
    if not arrow:
        counts = Counter(label for labels in inputs for label in labels if len(label) == 1)
        return inputs, spread + sorted(label for label, n in counts.items() if n == 1)
    head, dots, tail = right.partition("...")
    output = [*head, *(spread if dots else []), *tail]
    if len(set(output)) != len(output) or ((head + tail) and not (head + tail).isalpha()):
        raise ArgumentError(
            f"einsum: the result {right!r} of {subscripts!r} has each label once, and only letters"
        )
    return inputs, output


def _sizes(subscripts: str, inputs: Sequence[Sequence[str]], tensors: Sequence[Tensor]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for labels, tensor in zip(inputs, tensors, strict=True):
        for label, size in zip(labels, tensor.shape, strict=True):
            known = sizes.setdefault(label, size)
            if known != size and 1 not in (known, size):
                raise ShapeError(
                    f"einsum: label {_shown(label)} of {subscripts!r} has size {known} and size {size}"
                )
            sizes[label] = size if known == 1 else known
    return sizes


def _single(x: Tensor, labels: Sequence[str], sizes: dict[str, int]) -> Term:
    """One operand with every label once: axes of size 1 that broadcast are dropped, repeated labels become diagonals."""
    keep = [
        i
        for i, (label, d) in enumerate(zip(labels, x.shape, strict=True))
        if d == sizes[label] or labels.count(label) > 1
    ]
    x, names = reshape(x, tuple(x.shape[i] for i in keep)), [labels[i] for i in keep]
    while len(set(names)) < len(names):
        label = next(n for n in names if names.count(n) > 1)
        a = names.index(label)
        b = names.index(label, a + 1)
        n = max(x.shape[a], x.shape[b])
        if x.shape[a] != x.shape[b]:
            x = broadcast_to_shape(x, tuple(n if i in (a, b) else d for i, d in enumerate(x.shape)))
        x = moveaxis(x, (a, b), (x.ndim - 2, x.ndim - 1))
        names = [m for i, m in enumerate(names) if i not in (a, b)] + [label]
        lead = x.shape[:-2]
        flat = reshape(x, (*lead, n * n))
        steps, zeros = (1,) * len(lead), (0,) * len(lead)
        x = apply("slice", flat, start=(*zeros, 0), stop=(*lead, n * n), step=(*steps, n + 1))
    return x, names


def _sum_out(x: Tensor, labels: list[str], needed: set[str]) -> Term:
    axes = tuple(i for i, label in enumerate(labels) if label not in needed)
    return (sum_over(x, axes, dtype=x.dtype) if axes else x), [label for label in labels if label in needed]


Names = frozenset[str]
_SEARCHED = 8  # operands up to which all orders are considered
_LETTERS = string.ascii_uppercase + string.ascii_lowercase


def _path(names: Sequence[Names], output: Sequence[str], sizes: dict[str, int]) -> list[tuple[int, int]]:
    """Which two terms to multiply next, by place; a product goes to the end of the list."""
    return list(_ordered(tuple(names), frozenset(output), tuple(sorted(sizes.items()))))


@functools.lru_cache(maxsize=256)
def _ordered(
    names: tuple[Names, ...], output: Names, pairs: tuple[tuple[str, int], ...]
) -> tuple[tuple[int, int], ...]:
    sizes, left = dict(pairs), list(names)
    if 2 < len(names) <= _SEARCHED:
        return tuple(_fewest(names, output, sizes))
    path = []
    while len(left) > 1:
        i, j = _cheapest(left, output, sizes)
        path.append((i, j))
        second, first = left.pop(j), left.pop(i)
        left.append((first | second) & output.union(*left))
    return tuple(path)


def _cheapest(terms: Sequence[Names], output: Names, sizes: dict[str, int]) -> tuple[int, int]:
    """The pair whose product is smallest: a good order without a search over all orders."""
    best: tuple[int, int, int] | None = None
    for i in range(len(terms)):
        for j in range(i + 1, len(terms)):
            others = output.union(*(t for k, t in enumerate(terms) if k not in (i, j)))
            result = math.prod(sizes[x] for x in (terms[i] | terms[j]) & others)
            if best is None or result < best[0]:
                best = (result, i, j)
    assert best is not None
    return best[1], best[2]


def _fewest(terms: Sequence[Names], output: Names, sizes: dict[str, int]) -> list[tuple[int, int]]:
    """The order with the fewest multiplications: the best way to a set of terms goes through the best ways to two parts."""
    count = len(terms)
    everything = (1 << count) - 1

    def union(chosen: int) -> Names:
        return frozenset[str]().union(*(t for k, t in enumerate(terms) if chosen >> k & 1))

    kept = {m: union(m) & (output | union(everything & ~m)) for m in range(1, everything + 1)}
    cost = {1 << k: 0 for k in range(count)}
    split: dict[int, int] = {}
    for whole in range(1, everything + 1):
        if whole in cost:
            continue
        part = whole & (whole - 1)  # all proper parts that lack the lowest term
        while part:
            rest = whole ^ part
            price = cost[part] + cost[rest] + math.prod(sizes[x] for x in kept[part] | kept[rest])
            if whole not in cost or price < cost[whole]:
                cost[whole], split[whole] = price, part
            part = (part - 1) & whole & (whole - 1)
    left, path = [1 << k for k in range(count)], []

    def multiplied(whole: int) -> None:
        if whole not in split:
            return
        for part in (whole ^ split[whole], split[whole]):
            multiplied(part)
        i, j = sorted((left.index(split[whole]), left.index(whole ^ split[whole])))
        path.append((i, j))
        left.pop(j), left.pop(i)
        left.append(whole)

    multiplied(everything)
    return path


def _pair(first: Term, second: Term, needed: set[str]) -> Term:
    """Two operands multiplied and summed over the labels that nobody else needs."""
    a, left = _sum_out(*first, needed | set(second[1]))
    b, right = _sum_out(*second, needed | set(left))
    shared = [x for x in left if x in right]
    batch = [x for x in shared if x in needed]
    summed = [x for x in shared if x not in needed]
    out = contract(
        a, b, ([left.index(x) for x in summed], [right.index(x) for x in summed]),
        ([left.index(x) for x in batch], [right.index(x) for x in batch]), "einsum",
    )  # fmt: skip
    return out, [*batch, *(x for x in left if x not in shared), *(x for x in right if x not in shared)]

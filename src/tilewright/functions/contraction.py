"""``einsum``: sums of products written as index labels, reduced to diagonals, sums and pairwise contractions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from tilewright.core import dtype as dt
from tilewright.functions.arguments import TensorLike, as_tensor, broadcast_to_shape, cast
from tilewright.functions.linalg import contract
from tilewright.functions.movement import moveaxis, permute_dims, reshape
from tilewright.functions.reductions import sum as sum_over
from tilewright.tensor import ArgumentError, ShapeError, Tensor, apply

__all__ = ["einsum"]


def einsum(subscripts: str, *operands: TensorLike) -> Tensor:
    """Einstein summation: every operand's axes are labelled by letters, labels that the result lacks are summed over.

    A label repeated in one operand takes the diagonal. Without ``->`` the result has the labels that occur once, in
    alphabetical order. ``...`` stands for any further axes, which broadcast.

    >>> einsum("ij,jk->ik", Tensor([[1, 2]]), Tensor([[3], [4]])).tolist()
    [[11]]
    """
    tensors = [as_tensor(x, "einsum", f"operands[{i}]") for i, x in enumerate(operands)]
    inputs, output = _parse(subscripts, tensors)
    kind = dt.promote(*(t.dtype for t in tensors))
    sizes = _sizes(subscripts, inputs, tensors)
    for label in output:
        if label not in sizes:
            raise ArgumentError(
                f"einsum: label {_shown(label)} of the result is in no operand of {subscripts!r}"
            )
    terms = [_single(cast(t, kind), labels, sizes) for t, labels in zip(tensors, inputs, strict=True)]
    while len(terms) > 1:
        i, j = _cheapest(terms, output, sizes)
        second, first = terms.pop(j), terms.pop(i)
        terms.insert(i, _pair(first, second, {x for _, labels in terms for x in labels} | set(output)))
    tensor, labels = _sum_out(*terms[0], set(output))
    return permute_dims(tensor, [labels.index(x) for x in output if x in labels])


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


def _cheapest(terms: Sequence[Term], output: Sequence[str], sizes: dict[str, int]) -> tuple[int, int]:
    """The pair whose product is smallest: a good order without a search over all orders."""
    best: tuple[int, int, int] | None = None
    for i in range(len(terms)):
        for j in range(i + 1, len(terms)):
            others = {x for k, (_, names) in enumerate(terms) if k not in (i, j) for x in names} | set(output)
            result = math.prod(sizes[x] for x in (set(terms[i][1]) | set(terms[j][1])) & others)
            if best is None or result < best[0]:
                best = (result, i, j)
    assert best is not None
    return best[1], best[2]


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

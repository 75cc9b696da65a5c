"""Which way round a contraction is computed, and how many versions of it there are where its sizes are symbolic."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.core.dtype import DType
from tilewright.core.shape import is_static, lower_bound, product, total
from tilewright.core.size import Size
from tilewright.graph.ir import Value
from tilewright.lower.problem import Problem, conv_problem, dot_problem

__all__ = ["LONG_K", "Ranges", "contraction_problem", "versions"]

LONG_K = 1024  # a sum over more elements may be cut
SHORT_N = 32  # a symbolic N that may be shorter than this changes places with M
# from each of these on another version computes M rows: its tiles have no more than there are
ROWS = (1, 2, 4, 8, 32, 256)

Ranges = dict[str, tuple[int, int]]  # bounds of named sizes


def contraction_problem(anchor: Value, total_kind: DType | None = None) -> Problem:
    """A contraction's problem, turned so that lanes have a long range and tiles of rows a symbolic one."""
    problem = dot_problem(anchor, total_kind) if anchor.op == "dot" else conv_problem(anchor)
    if total_kind is None:
        problem = problem.squeezed()
    if product(problem.n) == 1 and product(problem.m) > 1 and is_static(problem.m):
        return problem.swapped()
    if not is_static(problem.n) and is_static(problem.m) and lower_bound(total(problem.n)) < SHORT_N:
        return problem.swapped()
    return problem


def versions(problem: Problem) -> list[Ranges]:
    """The bounds of symbolic sizes for which a problem has kernels of their own: few or many rows, short or long sums."""
    m, k = total(problem.m), total(problem.k)
    ms, ks = [Ranges()], [Ranges()]
    if isinstance(m, Size):
        ms = _cut(m, [r for r in ROWS if m.low < r <= m.high])
    if isinstance(k, Size) and k.low <= LONG_K < k.high:
        ks = _cut(k, [LONG_K + 1])
    found = []
    for a in ms:
        for b in ks:
            both = {n: (max(a[n][0], b[n][0]), min(a[n][1], b[n][1])) for n in a.keys() & b.keys()}
            if all(low <= high for low, high in both.values()):
                found.append({**a, **b, **both})
    return found


def _cut(size: Size, starts: Sequence[int]) -> list[Ranges]:
    """The ranges of the one name of ``size`` in which it is below the first start, from it on, and so on."""
    ((monomial, factor),) = size.terms.items() if len(size.terms) == 1 else (((), 0),)
    if len(monomial) != 1 or len(monomial[0]) != 3:
        return [{}]
    name, low, high = monomial[0]
    ends = sorted({low, *(-(-s // factor) for s in starts if low < -(-s // factor) <= high)})
    return [{name: (a, b - 1)} for a, b in zip(ends, [*ends[1:], high + 1], strict=True)]

"""The graph passes in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tilewright.graph.ir import Value
from tilewright.passes.canonicalise import canonicalise
from tilewright.passes.dilated_convolutions import split_dilated_convolutions
from tilewright.passes.linear_sums import split_linear_sums
from tilewright.passes.scans import merge_scans
from tilewright.passes.split_reductions import split_reductions
from tilewright.passes.switches import merge_switches

__all__ = ["PASSES", "run_passes"]

PASSES: tuple[Callable[[Sequence[Value]], list[Value]], ...] = (
    canonicalise,
    split_linear_sums,
    split_dilated_convolutions,
    split_reductions,
)


def run_passes(outputs: Sequence[Value]) -> list[Value]:
    """Every pass over the outputs, and over the bodies of their loops and branches."""
    current = list(outputs)
    for step in PASSES:
        current = step(current)
    return merge_switches(merge_scans(current, run_passes), run_passes)

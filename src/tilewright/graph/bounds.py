"""Which index was out of range: asked after a run has reported that one was, when time no longer matters.

Kernels only report the size of the axis. Here the index operands of every ``gather`` and ``scatter`` are computed again by the
reference, until one is found that does not lie in its axis. Bodies of loops are not looked into.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.core.shape import is_static, static
from tilewright.graph.ir import Value, topological
from tilewright.graph.reference import evaluate

__all__ = ["describe_out_of_range"]


def describe_out_of_range(
    outputs: Sequence[Value], bindings: Mapping[Value, np.ndarray[Any, Any]]
) -> str | None:
    """The first index out of range in the graph of ``outputs``, in words, or None when none is found.

    ``bindings`` holds the leaves that are known; what depends on others is left out.
    """
    for value in topological(outputs):
        if value.op not in ("gather", "scatter") or not is_static(value.inputs[0].shape):
            continue
        shape = static(value.inputs[0].shape)
        operands = value.inputs[1:] if value.op == "gather" else value.inputs[2:]
        for axis, operand in zip(dict(value.attrs)["axes"], operands, strict=True):
            given, from_end = _given(operand)
            size = shape[axis]
            bad = _first_bad(given, -size if from_end else 0, size, bindings)
            if bad is not None:
                what = "reading at an index" if value.op == "gather" else "writing at an index"
                takes = f" (it takes {-size if from_end else 0} to {size - 1})" if size else ""
                return (
                    f"{value.op} ({what}): {bad} is out of range for an axis of size {size}{takes},"
                    f" axis {axis} of a tensor of shape {shape}"
                )
    return None


def _given(operand: Value) -> tuple[Value, bool]:
    """An index as the user gave it, and whether negative ones count from the end: then it is ``where(i < 0, i + size, i)``."""
    inner = operand
    while inner.op in ("broadcast", "cast", "reshape"):
        inner = inner.inputs[0]
    if inner.op == "where" and inner.inputs[0].op == "lt" and inner.inputs[0].inputs[0] is inner.inputs[2]:
        return inner.inputs[2], True
    return operand, False


def _first_bad(
    index: Value, low: int, size: int, bindings: Mapping[Value, np.ndarray[Any, Any]]
) -> int | None:
    try:
        (found,) = evaluate([index], bindings)
    except (ValueError, IndexError, MemoryError):  # it depends on what is no longer known
        return None
    bad = found[(found < low) | (found >= size)]
    return int(bad[0]) if bad.size else None

"""Compiled code against the reference: every operation, element type and awkward shape of the table.

All cases of one operation and type are the outputs of one graph, so that one compilation serves them.
"""

from __future__ import annotations

import numpy as np
import pytest

from conformance.cases import TABLE, Case, cases, dtypes
from conformance.compare import Array, mismatch, run_compiled
from conformance.tolerance import expected, tolerance
from tilewright.core import dtype as dt
from tilewright.graph.ir import Value, input_value, make

PAIRS = [(op, d.name) for op in TABLE for d in dtypes(op)]


def run_cases(chosen: list[Case]) -> list[Array]:
    """The compiled result of each case."""
    leaves: list[Value] = []
    arrays: list[Array] = []
    outputs: list[Value] = []
    for case in chosen:
        more, data, value = case.build()
        leaves += more
        arrays += data
        outputs.append(value)
    return run_compiled(leaves, outputs, arrays)


@pytest.mark.parametrize(("op", "name"), PAIRS, ids=[f"{op}-{name}" for op, name in PAIRS])
def test_compiled_matches_reference(op: str, name: str, nightly: bool) -> None:
    chosen = cases(op, dt.BY_NAME[name], every=nightly)
    wrong = []
    for case, actual in zip(chosen, run_cases(chosen), strict=True):
        want = expected(case)
        found = mismatch(actual, want, **tolerance(case, dt.from_numpy(want.dtype)))
        if found:
            wrong.append(f"{case}: {found}")
    assert not wrong, "\n".join([f"{len(wrong)} of {len(chosen)} cases", *wrong[:5]])


@pytest.mark.parametrize("op", ["gather", "scatter"])
@pytest.mark.parametrize("bad", [5, -1, 2**40])
def test_index_out_of_range_is_an_error(op: str, bad: int) -> None:
    x = input_value(dt.float32, (5, 3))
    i = input_value(dt.int64, (2,))
    rows = np.ones((2, 3), np.float32)
    u = input_value(dt.float32, (2, 3))
    if op == "gather":
        inputs, value = [x, i], make("gather", (x, i), axes=(0,))
        arrays = [np.ones((5, 3), np.float32), np.array([1, bad])]
    else:
        inputs, value = [x, u, i], make("scatter", (x, u, i), axes=(0,), mode="add")
        arrays = [np.ones((5, 3), np.float32), rows, np.array([1, bad])]
    with pytest.raises(IndexError, match="size 5"):
        run_compiled(inputs, [value], arrays)

"""Random graphs: compiled against the reference.

200 graphs in the normal run, 2,000 in the nightly one; ``TW_FUZZ`` sets another number. A failure is reduced
to the first value that is wrong by itself and as few operations before it as keep it wrong, and printed as a
graph.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import numpy as np
import pytest
from conformance.compare import Array, run_compiled

from fuzz.generator import RandomGraph, random_graph
from tilewright.core import dtype as dt
from tilewright.graph.graph import Graph
from tilewright.graph.ir import Value, input_value, make, topological
from tilewright.graph.reference import evaluate

BATCH = 10


def size_of(seed: int) -> int:
    """Most graphs are small, some are large."""
    return 4 + (seed * 7919) % 23 + (25 if seed % 10 == 0 else 0)


def wrong(case: RandomGraph, value: Value, actual: Array) -> str | None:
    """What differs between a computed array and the reference's, or None."""
    want = case.arrays[value]
    if actual.dtype != want.dtype or actual.shape != want.shape:
        return f"{actual.dtype}{list(actual.shape)} instead of {want.dtype}{list(want.shape)}"
    if value in case.exact:
        good = actual == want
        if want.dtype.kind in "fcV":
            good |= np.isnan(actual) & np.isnan(want)
    else:
        wide = np.complex128 if want.dtype.kind == "c" else np.float64
        good = np.abs(actual.astype(wide) - want.astype(wide)) <= case.tolerance(value)
    if np.all(good):
        return None
    at = tuple(int(i) for i in np.argwhere(~good)[0]) if good.ndim else ()
    allowed = case.tolerance(value)
    return f"at {list(at)}: {actual[at]!r} instead of {want[at]!r} (tolerance {allowed:.3g})"


def given(leaves: list[Value], outputs: list[Value]) -> tuple[list[Value], list[Value]]:
    """The same graph with an input in place of every leaf: the compiler would compute a leaf that is an operation."""
    new = {v: v if v.op == "input" else input_value(v.dtype, v.shape) for v in leaves}
    for v in topological(outputs, stop=new.__contains__):
        if v not in new:
            operands = tuple(new[i] for i in v.inputs)
            new[v] = v if operands == v.inputs else make(v.op, operands, **dict(v.attrs))
    return [new[v] for v in leaves], [new[v] for v in outputs]


def compiled(case: RandomGraph, outputs: list[Value], inputs: Iterable[Value]) -> list[str | None]:
    """What is wrong with each output when it is compiled from these inputs."""
    leaves = list(inputs)
    try:
        results = run_compiled(*given(leaves, outputs), [case.arrays[v] for v in leaves])
    except Exception as error:  # any failure of the compiler is a finding
        return [f"{type(error).__name__}: {error}"] * len(outputs)
    return [wrong(case, v, a) for v, a in zip(outputs, results, strict=True)]


def reduced(case: RandomGraph, outputs: list[Value], inputs: list[Value]) -> tuple[Graph, str]:
    """A small graph that is still wrong, and what is wrong with it."""
    given = set(inputs)
    for value in topological(outputs, stop=given.__contains__):
        if value in given:
            continue
        alone = Graph.of([value], stop=given.__contains__)
        (found,) = compiled(case, [value], alone.inputs)
        if found is None:
            continue
        cuts: set[Value] = set(
            given
        )  # values that are given instead of computed, the nearest to the end first
        for v in reversed(topological([value], stop=given.__contains__)[:-1]):
            trial = Graph.of([value], stop=(cuts | {v}).__contains__)
            (still,) = compiled(case, [value], trial.inputs)
            if still is not None:
                cuts, found = cuts | {v}, still
        return Graph.of([value], stop=cuts.__contains__), found
    found = [f"output {n}: {f}" for n, f in enumerate(compiled(case, outputs, inputs)) if f]
    whole = Graph.of(outputs, stop=given.__contains__)
    return whole, "; ".join(found) or "wrong once, and right when it was compiled again"


def count(nightly: bool) -> int:
    return int(os.environ.get("TW_FUZZ", 2000 if nightly else 200))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "batch" in metafunc.fixturenames:
        total = count(bool(metafunc.config.getoption("--nightly")))
        metafunc.parametrize("batch", range(-(-total // BATCH)))


def test_random_graphs_agree(batch: int) -> None:
    for seed in range(batch * BATCH, (batch + 1) * BATCH):
        case = random_graph(seed, size_of(seed))
        if any(compiled(case, case.outputs, case.inputs)):
            graph, found = reduced(case, case.outputs, case.inputs)
            pytest.fail(f"seed {seed}, {found}\n{graph}", pytrace=False)


def test_what_is_wrong_is_reduced_to_where_it_is_wrong() -> None:
    """Operations before the culprit are given as inputs, not computed."""
    x = input_value(dt.float32, (5,))
    before = make("neg", (make("abs", (x,)),))
    culprit = make("floor", (before,))
    case = RandomGraph(0, [x], [make("sign", (culprit,))])
    case.arrays[x] = np.linspace(-2, 2, 5, dtype=np.float32)
    for v in topological(case.outputs):
        if v is not x:
            (case.arrays[v],) = evaluate([v], {i: case.arrays[i] for i in v.inputs})
        case.exact.add(v)
    assert compiled(case, case.outputs, case.inputs) == [None]
    case.arrays[culprit] = case.arrays[culprit] + 1  # what a wrong compiler looks like from here
    case.arrays[case.outputs[0]] = case.arrays[case.outputs[0]] + 1
    graph, _ = reduced(case, case.outputs, case.inputs)
    assert topological(graph.outputs, stop={before}.__contains__) == [before, culprit]

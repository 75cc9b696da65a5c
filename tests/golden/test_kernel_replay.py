"""Kernel replay: the kernels generated for fixed graphs on a fixed machine, compared with the committed ones.

``kernels/NAME.graph`` is a graph, ``kernels/NAME.MACHINE.txt`` what the passes, groups, recipes and schedule make of it. A
change of the compiler shows here as a diff to read; ``TW_UPDATE_GOLDEN=1`` writes the new text. With
``TW_UPDATE_GOLDEN=graphs`` the graphs, too, are made anew from the models of ``small_models``.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import replace
from pathlib import Path

import pytest
from small_models import MODELS, step

from tilewright.graph.graph import Graph
from tilewright.kernel.ir import Kernel
from tilewright.kernel.text import parse_kernel, print_kernel
from tilewright.kernel.verify import verify
from tilewright.lower.groups import form_groups
from tilewright.lower.lowering import lower_groups
from tilewright.lower.schedule import schedule
from tilewright.passes.pipeline import run_passes
from tilewright.recipes.machine import Machine

FOLDER = Path(__file__).with_name("kernels")
UPDATE = os.environ.get("TW_UPDATE_GOLDEN", "")
MACHINES = {
    "wide": Machine(vector_bytes=64, registers=32, l1=32 << 10, l2=1 << 20, threads=4),
    "narrow": Machine(vector_bytes=16, registers=16, l1=32 << 10, l2=256 << 10, threads=1),
}
CASES = [
    ("mlp", "wide"),
    ("mlp", "narrow"),
    ("cnn", "wide"),
    ("gpt", "wide"),
    ("dots", "wide"),
    ("dots", "narrow"),
]


def kernels(graph: Graph, machine: Machine) -> str:
    """The launches in order, and every kernel once under the number of its first launch."""
    outputs = run_passes(graph.outputs)
    plan = schedule(lower_groups(form_groups(outputs), machine), graph.inputs, outputs, {})
    names: dict[Kernel, str] = {}
    lines = [f"arena {plan.arena_bytes} bytes"]
    for n, s in enumerate(plan.steps):
        if s.host is not None:
            lines.append(f"{n:3} after {s.wait_for:3}: host, {s.host.reason}")
            continue
        name = names.setdefault(s.calls[0].kernel, f"k{len(names)}")
        grids = ", ".join(f"{c.grid} by {c.chunk}" for c in s.calls)
        lines.append(f"{n:3} after {s.wait_for:3}: {name} {s.calls[0].label}: {grids}")
    texts = []
    for kernel, name in names.items():
        verify(kernel)
        text = print_kernel(replace(kernel, name=name))
        assert parse_kernel(text) == replace(kernel, name=name)
        texts.append(text)
    return "\n".join([*lines, "", *texts])


@pytest.mark.parametrize(("name", "machine"), CASES)
def test_generated_kernels_are_the_committed_ones(name: str, machine: str) -> None:
    source = FOLDER / f"{name}.graph"
    if UPDATE == "graphs" and name in MODELS:
        function, arguments = step(name)
        executable = function.executable(*arguments)
        source.write_text(Graph(executable.inputs, executable.outputs).text())
    got = kernels(Graph.parse(source.read_text()), MACHINES[machine])
    golden = FOLDER / f"{name}.{machine}.txt"
    if UPDATE:
        golden.write_text(got)
    want = golden.read_text()
    if got != want:
        diff = list(
            difflib.unified_diff(want.splitlines(), got.splitlines(), "committed", "generated", lineterm="")
        )
        shown = "\n".join(diff[:80])
        pytest.fail(
            f"{golden.name}: {len(diff)} lines of differences. When they are meant, run with TW_UPDATE_GOLDEN=1 "
            f"and read the diff.\n{shown}",
            pytrace=False,
        )


def test_lowering_is_the_same_twice() -> None:
    """Nothing depends on addresses or on what was lowered before."""
    text = (FOLDER / "gpt.graph").read_text()
    assert kernels(Graph.parse(text), MACHINES["wide"]) == kernels(Graph.parse(text), MACHINES["wide"])

"""The tables of `docs/graph.md` say what the op table says, and its examples run.

With TW_UPDATE_SPECS=1 the tables are rewritten.
"""

from __future__ import annotations

import doctest
import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from conformance.cases import TABLE, cases, dtypes

from tilewright.autodiff.batching import NOT_MAPPED
from tilewright.autodiff.vjp import FORWARD_ONLY, NOT_DIFFERENTIABLE
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS
from tilewright.graph.ir import OPS
from tilewright.lower.groups import form_groups
from tilewright.lower.lowering import lower_groups
from tilewright.passes.pipeline import run_passes
from tilewright.recipes.machine import Machine

PAGE = Path(__file__).parents[2] / "docs" / "graph.md"
TABLES_OF_PAGE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def elementwise() -> Iterator[str]:
    yield "| operation | operands | kinds | result | derivative | batched | runs in |"
    yield "|---|---|---|---|---|---|---|"
    for row in SCALAR_OPS.values():
        note = f" ({row.text})" if row.text else ""
        yield (
            f"| `{row.name}`{note} | {row.arity} | {row.kinds} | {row.result} | {derivative(row.name)}"
            f" | {batched(row.name)} | {runs_in(row.name)} |"
        )


def structured() -> Iterator[str]:
    yield "| operation | operands | static arguments | meaning | kinds | derivative | batched | runs in |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in OPS.values():
        if row.name not in SCALAR_OPS:
            count = "any" if row.arity is None else row.arity
            attrs = ", ".join(f"`{name}`" for name in row.attrs)
            kinds = letters(dtypes(row.name))
            yield (
                f"| `{row.name}` | {count} | {attrs} | {row.doc} | {kinds} | {derivative(row.name)}"
                f" | {batched(row.name)} | {runs_in(row.name)} |"
            )


def derivative(op: str) -> str:
    """Of both modes: a test holds that they know the same operations."""
    if op in FORWARD_ONLY:
        return f"forward mode only: {FORWARD_ONLY[op]}"
    return f"none: {NOT_DIFFERENTIABLE[op]}" if op in NOT_DIFFERENTIABLE else "yes"


def batched(op: str) -> str:
    return f"no: {NOT_MAPPED[op]}" if op in NOT_MAPPED else "yes"


def runs_in(op: str) -> str:
    """Which element types are computed by kernels, and which by the reference between them."""
    host = [d for d in dtypes(op) if on_host(op, d)]
    if not host:
        return "kernels"
    native = [d for d in dtypes(op) if d not in host]
    return f"{letters(native)} kernels, {letters(host)} reference" if native else "reference"


def on_host(op: str, dtype: DType) -> bool:
    outputs = [case.build()[2] for case in cases(op, dtype)]
    real = [
        v for v in outputs if not v.dtype.is_complex
    ]  # a cast to complex says nothing of the type it is from
    groups = form_groups(run_passes(outputs if dtype.is_complex or not real else real))
    if any(group.kind in ("loop", "switch") for group in groups):  # lowering looks into their bodies
        return any(
            step.host is not None for step in lower_groups(groups, Machine(64, 32, 1 << 15, 1 << 20, 1))
        )
    return any(group.kind == "host" for group in groups)


def letters(kinds: Collection[DType]) -> str:
    """Element types by kind, where a kind is there as a whole, else by name."""
    text, whole = "", []
    for kind in "biufc":
        of_kind = {d for d in ALL if d.kind == kind}
        if of_kind & set(kinds) and of_kind <= set(kinds):
            text += kind
            whole += of_kind
    names = [d.name for d in kinds if d not in whole]
    return ", ".join([text, *names] if text else names)


ALL = {d for op in TABLE for d in dtypes(op)}
TABLES = {"elementwise": elementwise, "structured": structured}


def test_tables_are_what_the_code_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    want = TABLES_OF_PAGE.sub(lambda m: m[1] + "\n".join(TABLES[m[2]]()) + "\n" + m[4], text)
    assert {m[2] for m in TABLES_OF_PAGE.finditer(text)} == set(TABLES)
    if os.environ.get("TW_UPDATE_SPECS"):
        PAGE.write_text(want, encoding="utf-8")
    else:
        assert text == want, "run this test with TW_UPDATE_SPECS=1"


def test_examples_run() -> None:
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert tried and not failed


def test_every_file_of_the_page_exists() -> None:
    root = PAGE.parents[1]
    named = re.findall(r"^\| `([\w/]+\.py)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert named and all((root / "src" / "tilewright" / name).is_file() for name in named)

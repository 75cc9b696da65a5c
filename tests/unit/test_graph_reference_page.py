"""The tables of `docs/graph.md` say what the op table says, and its examples run.

With TW_UPDATE_SPECS=1 the tables are rewritten.
"""

from __future__ import annotations

import doctest
import os
import re
from collections.abc import Iterator
from pathlib import Path

from tilewright.autodiff.vjp import NOT_DIFFERENTIABLE
from tilewright.core.scalar import SCALAR_OPS
from tilewright.graph.ir import OPS

PAGE = Path(__file__).parents[2] / "docs" / "graph.md"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def elementwise() -> Iterator[str]:
    yield "| operation | operands | kinds | result | derivative |"
    yield "|---|---|---|---|---|"
    for row in SCALAR_OPS.values():
        note = f" ({row.text})" if row.text else ""
        yield f"| `{row.name}`{note} | {row.arity} | {row.kinds} | {row.result} | {derivative(row.name)} |"


def structured() -> Iterator[str]:
    yield "| operation | operands | static arguments | meaning | derivative |"
    yield "|---|---|---|---|---|"
    for row in OPS.values():
        if row.name not in SCALAR_OPS:
            count = "any" if row.arity is None else row.arity
            attrs = ", ".join(f"`{name}`" for name in row.attrs)
            yield f"| `{row.name}` | {count} | {attrs} | {row.doc} | {derivative(row.name)} |"


def derivative(op: str) -> str:
    return f"none: {NOT_DIFFERENTIABLE[op]}" if op in NOT_DIFFERENTIABLE else "yes"


TABLES = {"elementwise": elementwise, "structured": structured}


def test_tables_are_what_the_code_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    want = TABLE.sub(lambda m: m[1] + "\n".join(TABLES[m[2]]()) + "\n" + m[4], text)
    assert {m[2] for m in TABLE.finditer(text)} == set(TABLES)
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

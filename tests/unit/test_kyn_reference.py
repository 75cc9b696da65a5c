"""The tables of `docs/kyn.md` say what the language's own tables say, and its program is one.

With TW_UPDATE_SPECS=1 the tables are rewritten.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tilewright.data.codes import CODES as DATA_CODES
from tilewright.lang import check
from tilewright.lang import vocabulary as words
from tilewright.lang.codes import CODES
from tilewright.lang.program import Component
from tilewright.lang.types import Field, Signature

PAGE = Path(__file__).parents[2] / "docs" / "kyn.md"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def default(field: Field) -> str:
    value = field.default
    if field.is_required:
        return "required"
    if value is None:
        return "none"
    return f"`{show(value)}`"


def show(value: object) -> str:
    if isinstance(value, Component):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(value[0]) if len(set(value)) == 1 else f"[{', '.join(map(show, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def keys(block: str) -> Iterator[str]:
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    for field in words.BLOCKS[block]:
        yield f"| `{field.name}` | {default(field)} | {field.doc}{choices(field)} |"


def choices(field: Field) -> str:
    kind = getattr(field.type, "inner", field.type)
    kind = getattr(kind, "item", kind)
    names = getattr(kind, "names", None)
    return f": {', '.join(f'`{name}`' for name in names)}" if names else ""


def calls(table: Mapping[str, Signature]) -> Iterator[tuple[str, list[str], str]]:
    """Each name with its values and options as they are written, and what they mean."""
    for name, signature in table.items():
        parts = []
        for position, field in enumerate(signature.fields):
            optional = not field.is_required
            if position < signature.positional:
                parts.append(f"[{field.name.upper()}]" if optional else field.name.upper())
            else:
                value = show(field.default) if optional and field.default is not None else "..."
                parts.append(f"{field.name}={value}" if value != "," else f'{field.name}=","')
        docs = "; ".join(f"`{field.name}`: {field.doc}" for field in signature.fields)
        yield name, parts, f"the same as `{signature.alias_of}`" if signature.alias_of else docs


def layers() -> Iterator[str]:
    yield "| layer | values and options |"
    yield "|---|---|"
    for name, parts, docs in calls(words.LAYERS):
        if name in words.VARIADIC_LAYERS:
            parts, docs = ["SIZE ..."], "one to six sizes"
        yield f"| `{' '.join([name, *parts])}` | {docs} |"
    yield "| `repeat COUNT:` | the layers below, `COUNT` times |"


def components(tables: list[tuple[str, Mapping[str, Signature]]]) -> Iterator[str]:
    yield "| key | value | options |"
    yield "|---|---|---|"
    for key, table in tables:
        for name, parts, docs in calls(table):
            yield f"| `{key}` | `{name}({', '.join(parts)})` | {docs} |"


def codes() -> Iterator[str]:
    yield "| code | meaning |"
    yield "|---|---|"
    for page in (*CODES.values(), *DATA_CODES.values()):
        yield f"| {page.code} | {page.title} |"


def table(name: str) -> str:
    match name:
        case "layers":
            lines = layers()
        case "sources":
            lines = components([("source", words.SOURCES)])
        case "components":
            lines = components(
                [
                    ("optimizer", words.OPTIMIZERS),
                    ("scheduler", words.SCHEDULERS),
                    ("early_stop", words.EARLY_STOP),
                    ("checkpoint", words.CHECKPOINT),
                ]
            )
        case "codes":
            lines = codes()
        case _:
            lines = keys(name)
    return "\n".join(lines) + "\n"


def test_the_tables_of_the_reference() -> None:
    text = PAGE.read_text(encoding="utf-8")
    wanted = TABLE.sub(lambda match: match[1] + table(match[2]) + match[4], text)
    if os.environ.get("TW_UPDATE_SPECS"):
        PAGE.write_text(wanted, encoding="utf-8")
        return
    assert text == wanted


def test_the_program_of_the_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    program = re.findall(r"^```kyn\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)[
        0
    ]
    Path("common.kyn").write_text("# nothing\n")
    Path("t.kyn").write_text(program)
    assert len(check("t.kyn").runs) == 2

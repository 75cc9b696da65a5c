"""Runs the Markdown files beside this one: each heading is a case, each fence a program or what must come of
it.

    ```kyn                 the program, as the file `net.kyn`
    ```kyn file=NAME       another file; before the first heading, it belongs to every case of the document
    ```csv file=NAME       a data file (likewise)
    ```json file=NAME      a lock file (likewise)
    ```param               `key=value` lines, as given to `--param`

    ```valid               `tw validate` accepts the program and prints this
    ```error               checking fails with exactly these diagnostics
    ```warning             checking succeeds with exactly these diagnostics
    ```ast                 the syntax tree is this
    ```format              the formatter makes this of the program
    ```run                 `KEY = value` lines: parts of the first resolved run
    ```data                the data is loaded and looks like this
    ```data-error          loading the data fails with exactly this
    ```locked              comparing with the lock file fails with exactly this

With TW_UPDATE_SPECS=1 the expectations are rewritten to what happened; read the difference before keeping it.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tilewright.cli.validate import summarize
from tilewright.core.diagnostics import Reporter, TilewrightError, render
from tilewright.data.codes import CODES as DATA_CODES
from tilewright.lang import KynError, check, format_text
from tilewright.lang.codes import CODES
from tilewright.lang.dataset import load_dataset
from tilewright.lang.lock import check_sources
from tilewright.lang.program import Run, plain
from tilewright.lang.syntax.nodes import dump
from tilewright.lang.syntax.parser import parse

HERE = Path(__file__).parent
DOCUMENTS = sorted(HERE.glob("*.md"))
UPDATE = bool(os.environ.get("TW_UPDATE_SPECS"))
MAIN = "net.kyn"
INPUTS = {"kyn", "csv", "json", "param"}


@dataclass
class Fence:
    kind: str
    file: str
    text: str
    start: int  # of the text within the document
    end: int


@dataclass
class Case:
    document: Path
    title: str
    fences: list[Fence] = field(default_factory=list)

    @property
    def expectations(self) -> list[Fence]:
        return [fence for fence in self.fences if fence.kind not in INPUTS]


def read_cases(document: Path) -> list[Case]:
    text = document.read_text(encoding="utf-8")
    shared: list[Fence] = []
    cases: list[Case] = []
    pattern = re.compile(
        r"^#+ (?P<title>[^\n]+)$|^```(?P<info>[^\n]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
    )
    for match in pattern.finditer(text):
        if match["title"]:
            cases.append(Case(document, match["title"].strip(), list(shared) if cases else []))
            continue
        kind, _, rest = match["info"].strip().partition(" ")
        name = rest.removeprefix("file=") or (MAIN if kind == "kyn" else "")
        fence = Fence(kind, name, match["body"], match.start("body"), match.end("body"))
        assert kind in INPUTS | EXPECT.keys(), f"{document.name}: no such fence: {kind}"
        cases[-1].fences.append(fence)
        if len(cases) == 1:
            shared.append(fence)
    return [case for case in cases if case.expectations]


# --- what happens, as text ----------------------------------------------------------------------------------


def show_valid(params: list[str], program: str) -> str:
    return "\n".join(summarize(check(MAIN, params)))


def show_error(params: list[str], program: str) -> str:
    with pytest.raises(KynError) as caught:
        check(MAIN, params)
    return f"{type(caught.value).__name__}\n\n{caught.value.render()}"


def show_warning(params: list[str], program: str) -> str:
    checked = check(MAIN, params)
    return "\n\n".join(render(d, checked.texts) for d in checked.warnings)


def show_ast(params: list[str], program: str) -> str:
    report = Reporter()
    tree = parse(program, MAIN, report)
    assert not report.diagnostics
    return dump(tree)


def show_format(params: list[str], program: str) -> str:
    formatted = format_text(program, MAIN)
    assert format_text(formatted, MAIN) == formatted, "not idempotent"
    return formatted


def show_run(params: list[str], program: str, wanted: str) -> str:
    """The value of each path that is named on the left side of the expectation."""
    run = check(MAIN, params).runs[0]
    lines = []
    for line in wanted.splitlines():
        path = line.partition(" = ")[0]
        lines.append(f"{path} = {json.dumps(plain(_follow(run, path)))}")
    return "\n".join(lines)


def _follow(run: Run, path: str) -> Any:
    value: Any = run
    for part in path.split("."):
        if part.isdigit():
            value = value[int(part)]
        else:
            value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def show_data(params: list[str], program: str) -> str:
    data = load_dataset(check(MAIN, params))
    lines = [
        f"features: {', '.join(data.schema.features)}",
        f"classes: {', '.join(data.schema.classes)}" if data.schema.classes else "",
        f"train: {data.x_train.dtype} {data.x_train.shape} -> {data.y_train.dtype} {data.y_train.shape}",
        f"test: {data.x_test.dtype} {data.x_test.shape} -> {data.y_test.dtype} {data.y_test.shape}",
        f"first row: {data.x_train[0].tolist()} -> {data.y_train[0].tolist()}",
    ]
    return "\n".join(line for line in lines if line)


def show_data_error(params: list[str], program: str) -> str:
    checked = check(MAIN, params)
    with pytest.raises(TilewrightError) as caught:
        load_dataset(checked)
    return f"{type(caught.value).__name__}\n\n{caught.value.render()}"


def show_locked(params: list[str], program: str) -> str:
    with pytest.raises(KynError) as caught:
        check_sources(check(MAIN, params))
    return f"{type(caught.value).__name__}\n\n{caught.value.render()}"


EXPECT = {
    "valid": show_valid,
    "error": show_error,
    "warning": show_warning,
    "ast": show_ast,
    "format": show_format,
    "run": show_run,
    "data": show_data,
    "data-error": show_data_error,
    "locked": show_locked,
}

CASES = [case for document in DOCUMENTS for case in read_cases(document)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.document.stem}: {case.title}")
def test_case(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = {fence.file: fence.text for fence in case.fences if fence.file}
    params = [line for fence in case.fences if fence.kind == "param" for line in fence.text.splitlines()]
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(text.encode())
    for fence in case.expectations:
        arguments = (fence.text,) if fence.kind == "run" else ()
        actual = EXPECT[fence.kind](params, files[MAIN], *arguments).rstrip("\n") + "\n"  # type: ignore[operator]
        if UPDATE and actual != fence.text:
            _update(case.document, fence, actual)
        else:
            assert actual == fence.text


def _update(document: Path, fence: Fence, actual: str) -> None:
    """Put the actual text where the expectation was; earlier updates may have moved it."""
    text = document.read_text(encoding="utf-8")
    for other in (
        f for case in CASES if case.document == document for f in case.fences if f.start > fence.start
    ):
        other.start += len(actual) - len(fence.text)
        other.end += len(actual) - len(fence.text)
    document.write_text(text[: fence.start] + actual + text[fence.end :], encoding="utf-8")
    fence.end = fence.start + len(actual)


# Codes about the state of a disk, about a version, or about a long file: `tests/unit` shows their messages.
OUTSIDE = {"KYN001", "KYN123", "KYN302", "DAT001", "DAT003", "DAT010"}


def test_every_code_has_a_case() -> None:
    shown = {
        code
        for case in CASES
        for fence in case.expectations
        for code in re.findall(r"\[((?:KYN|DAT)\d{3})\]", fence.text)
    }
    codes = CODES.keys() | DATA_CODES.keys()
    assert shown <= codes, "a code without a page"
    assert codes - shown == OUTSIDE


def test_every_error_kind_has_a_case() -> None:
    text = "\n".join(fence.text for case in CASES for fence in case.expectations)
    for kind in ("KynParseError", "KynSemanticError", "KynShapeError", "LockMismatchError", "DataError"):
        assert f"{kind}\n" in text

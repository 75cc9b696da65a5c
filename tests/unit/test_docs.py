"""The pages say what is true: their Python runs and prints what they show, their commands do, their links lead somewhere.

A fence of ``pycon`` is a session whose output is compared; the sessions of a page share their names. A fence of ``python`` is a
program that must run. A fence of ``console`` holds commands, each after ``$``, and what they print. ``...`` in an output stands
for anything. What depends on the processor's vectors is compared as if it did not.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tilewright import nn, optim
from tilewright.cli.main import COMMANDS
from tilewright.core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md")]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*TOP, *DOCS, *sorted((ROOT / "examples").glob("*/README.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OPTIONS = doctest.ELLIPSIS


def names(path: Path) -> str:
    return str(path.relative_to(ROOT))


def fences(page: Path, kind: str) -> Iterator[tuple[int, str]]:
    """Line number and text of every fence of one kind."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if found[1] == kind:
            yield text.count("\n", 0, found.start(2)), found[2]


def with_fences(kind: str) -> list[Path]:
    return [page for page in PAGES if any(fences(page, kind))]


def comparable(text: str) -> str:
    text = re.sub(r"\bvector \d+", "vector N", text)
    return re.sub(
        r"^(?:\w+\.)+(\w+Error: )", r"\1", text, flags=re.MULTILINE
    )  # pages leave out where errors live


class Checker(doctest.OutputChecker):
    def check_output(self, want: str, got: str, optionflags: int) -> bool:
        return super().check_output(comparable(want), comparable(got), optionflags)


@pytest.fixture
def clone(in_tmp_path: Path) -> Path:
    """The working directory: what a reader has who cloned the project, as far as the pages use it."""
    shutil.copytree(
        ROOT / "examples", in_tmp_path / "examples", ignore=shutil.ignore_patterns("models", "*.lock")
    )
    return in_tmp_path


@pytest.mark.parametrize("page", with_fences("pycon"), ids=names)
def test_sessions(page: Path, clone: Path) -> None:
    known: dict[str, object] = {"__name__": "__main__"}
    runner = doctest.DocTestRunner(Checker(), optionflags=OPTIONS)
    reports: list[str] = []
    for line, text in fences(page, "pycon"):
        session = doctest.DocTestParser().get_doctest(text, known, page.name, str(page), line)
        runner.run(session, out=reports.append, clear_globs=False)
        known = session.globs
    assert runner.summarize(verbose=False).attempted, "no session"
    assert not reports, "\n" + "".join(reports)


@pytest.mark.parametrize("page", with_fences("python"), ids=names)
def test_programs(page: Path, clone: Path) -> None:
    known: dict[str, object] = {"__name__": "__main__"}
    for line, text in fences(page, "python"):
        exec(compile("\n" * line + text, str(page), "exec"), known)


@pytest.mark.parametrize("page", with_fences("console"), ids=names)
def test_commands(page: Path, clone: Path) -> None:
    for line, text in fences(page, "console"):
        for shown in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, want = shown.partition("\n")
            got = printed(command)
            same = Checker().check_output(want, got, doctest.ELLIPSIS)
            assert same, f"{names(page)}:{line}: `{command}` printed\n{got}\nand the page shows\n{want}"


def printed(command: str) -> str:
    """What a command prints, stdout and stderr together. `tw` and `python` are this project's and this Python."""
    words = shlex.split(command)
    variables = {"PYTHONPATH": str(ROOT / "src")}
    while "=" in words[0]:
        variables.update([words.pop(0).split("=", 1)])
    program = {"tw": [sys.executable, "-m", "tilewright"], "python": [sys.executable]}[words[0]]
    done = subprocess.run(
        program + words[1:],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **variables},
        check=False,
    )
    return done.stdout


def test_the_model_of_the_front_page_is_sound(clone: Path) -> None:
    """It is the example's, without its comments."""
    ((_, text),) = fences(ROOT / "README.md", "kyn")
    program = (clone / "examples" / "digits" / "digits.kyn").read_text(encoding="utf-8")
    assert text == re.sub(r"^#.*\n+", "", program, flags=re.MULTILINE)


# ---- links and names -----------------------------------------------------------------------------------------------


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))


def anchor(heading: str) -> str:
    """How Markdown hosts name a heading: lower case, words joined by hyphens, other signs left out."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text(encoding="utf-8"))):
        if re.match(r"https?://", target):
            continue
        path, _, part = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{names(page)} links to {target}"
        if part:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert part in map(anchor, headings), f"{names(page)} links to {target}"


@pytest.mark.parametrize("index", [ROOT / "README.md", ROOT / "docs" / "README.md"], ids=names)
def test_every_page_can_be_found(index: Path) -> None:
    linked = {
        (index.parent / target).resolve()
        for target in re.findall(r"\]\(([\w./-]+)\)", index.read_text(encoding="utf-8"))
    }
    assert set(DOCS) - {index} <= linked


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_named_files_and_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:[\w.]+/)+[\w.]+\.(?:py|md|kyn|txt|csv))(?:::\w+)?`", text):
        places = (ROOT, ROOT / "src" / "tilewright", ROOT / "docs", page.parent)
        assert any((place / name).exists() for place in places), f"{names(page)} names {name}"
    tests = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(?:[\w/]+\.py::)?(test_\w+)`", text):
        assert f"def {name}(" in tests, f"{names(page)} names {name}"
    for path, name in re.findall(r"`([\w/]+\.py)::(test_\w+)`", text):
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8"), (
            f"{names(page)} names {path}::{name}"
        )


def test_the_tour_lists_every_setting() -> None:
    text = (ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| `(TW_\w+)` \|", text, re.MULTILINE)
    assert sorted(table) == sorted(getattr(Settings, name).variable for name in Settings.names())


def test_the_page_of_networks_lists_every_name() -> None:
    text = (ROOT / "docs" / "nn.md").read_text(encoding="utf-8")
    table = text[text.index("## What there is") : text.index("## Modules")]
    listed = set(re.findall(r"`(?:nn\.|nn\.utils\.|optim\.)?(\w+)`", table))
    public = {*nn.__all__, *nn.utils.__all__, *optim.__all__, *optim.lr_scheduler.__all__}
    left_out = {"StateDictError", "Optimizer", "OptimizerStateError", "ParamGroup", "utils", "LRScheduler"}
    assert public - left_out <= listed, "not on the page"
    assert listed <= public, "on the page only"


def test_the_front_page_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `tw (\w+)", text, re.MULTILINE)) == sorted(COMMANDS)


def test_the_options_of_training_are_the_commands() -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = "\n".join(re.findall(r"^\| (`--.*?) \|", text, re.MULTILINE))
    listed = set(re.findall(r"`(--\w+)", rows))
    known = set(re.findall(r"(--\w+)", printed("tw train --help"))) - {"--help"}
    assert listed == known

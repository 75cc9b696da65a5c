"""How a diagnostic is drawn, how a spelling is suggested, and what an error says of itself."""

from __future__ import annotations

import pickle
import re

import pytest

from tilewright.core.diagnostics import (
    Diagnostic,
    Label,
    Reporter,
    Severity,
    Span,
    TilewrightError,
    edit_distance,
    join_names,
    render,
    suggest,
)


def at(line: int, col: int, end: int, file: str = "a.kyn") -> Span:
    return Span(file, line, col, line, end)


def test_labels_in_several_files_and_lines() -> None:
    text = "".join(f"line {i}\n" for i in range(1, 13))
    labels = (
        Label(at(3, 1, 5), "context"),
        Label(at(12, 6, 8), "here", True),
        Label(at(4, 1, 5)),
        Label(at(1, 1, 2, "b.kyn"), "there"),
        Label(at(1, 1, 2, "gone.kyn"), "no text"),
    )
    diagnostic = Diagnostic("KYN101", "message", labels, ("first\nsecond",), ("do it",), Severity.WARNING)
    assert (
        render(diagnostic, {"a.kyn": text, "b.kyn": "x"})
        == """\
warning[KYN101]: message
  --> a.kyn:12:6
   |
 3 | line 3
   | ---- context
 4 | line 4
   | ----
...
12 | line 12
   |      ^^ here
  ::: b.kyn:1:1
   |
 1 | x
   | - there
  ::: gone.kyn:1:1
   | no text
   |
   = note: first
           second
   = help: do it"""
    )


def test_colour_changes_nothing_but_colour() -> None:
    diagnostic = Diagnostic("KYN101", "message", (Label(at(1, 2, 4), "here", True),), ("note",), ("help",))
    plain = render(diagnostic, {"a.kyn": "abcd"})
    coloured = render(diagnostic, {"a.kyn": "abcd"}, color=True)
    assert "\x1b[1;31m^^ here\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


@pytest.mark.parametrize(
    ("line", "col", "end", "shown", "marks"),
    [
        ("ab漢字cd", 4, 5, "ab漢字cd", "    ^^"),
        ("e\u0301x", 3, 4, "e\u0301x", " ^"),
        ("a\tb", 3, 4, "a    b", "     ^"),
        ("a\x1bb", 3, 4, "a\\x1bb", "     ^"),
        ("ab", 3, 4, "ab", "  ^"),
        ("ab", 1, 1, "ab", "^"),
        ("", 5, 9, "", "    ^^^^"),
    ],
)
def test_the_mark_stands_under_the_text(line: str, col: int, end: int, shown: str, marks: str) -> None:
    diagnostic = Diagnostic("X", "m", (Label(at(1, col, end), "", True),))
    drawn = render(diagnostic, {"a.kyn": line}).splitlines()
    assert drawn[3] == f"1 | {shown}".rstrip()
    assert drawn[4] == f"  | {marks}"


def test_a_span_of_several_lines_marks_the_first() -> None:
    diagnostic = Diagnostic("X", "m", (Label(Span("a", 1, 3, 2, 2), "", True),))
    assert render(diagnostic, {"a": "abcd\nef"}).splitlines()[3:] == ["1 | abcd", "  |   ^^"]


def test_messages_cannot_drive_the_terminal() -> None:
    assert render(Diagnostic("X", "a\x1b[2Jb\u202e")) == "error[X]: a\\x1b[2Jb\\u202e"


def test_suggestions() -> None:
    names = ["dense", "dropout", "conv2d", "batchnorm", "log_softmax"]
    assert suggest("dens", names) == "dense"
    assert suggest("DENSE", names) == "dense"
    assert suggest("conv2", names) == "conv2d"
    assert suggest("batch_norm", names) == "batchnorm"
    assert suggest("logsoftmax", names) == "log_softmax"
    assert suggest("attention", names) is None
    assert suggest("x" * 10_000, names) is None
    assert suggest("a", ["b"]) is None
    assert suggest("a", []) is None


def test_edit_distance() -> None:
    assert edit_distance("", "abc") == 3
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("ab", "ba") == 1
    assert edit_distance("relu", "relu") == 0


def test_join_names() -> None:
    assert join_names([]) == ""
    assert join_names("a") == "`a`"
    assert join_names("abc", "or") == "`a`, `b` or `c`"


def test_errors() -> None:
    plain = TilewrightError("axis 3 is out of range")
    assert str(plain) == "axis 3 is out of range" and plain.diagnostic is None
    warning = Diagnostic("W", "careful", severity=Severity.WARNING)
    error = TilewrightError([warning, Diagnostic("E", "broken")])
    assert error.diagnostic is not None and error.diagnostic.code == "E" and error.message == "broken"
    assert str(error) == "warning[W]: careful\n\nerror[E]: broken"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)  # noqa: S301  (our own bytes)


def test_the_reporter_keeps_one_of_each_and_sorts() -> None:
    report = Reporter()
    for line in (3, 1, 3):
        report.add("X", "m", at(line, 1, 2), help=[None, "", "h"])
    report.warn("W", "w", at(2, 1, 2))
    spans = [d.span for d in report.in_order()]
    assert [span.line for span in spans if span] == [1, 2, 3]
    assert report.has_errors and report.diagnostics[0].help == ("h",)


def test_the_reporter_keeps_a_hundred() -> None:
    report = Reporter()
    for line in range(1, 1_000):
        report.add("X", "m", at(line, 1, 2))
    shown = report.in_order()
    assert len(shown) == 101 and shown[-1].message == "899 more problems are not shown"

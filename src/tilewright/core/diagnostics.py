"""One way to report a problem: the same `Diagnostic` for the language, for tensors and for imports.

A diagnostic is data (code, severity, one short message, labelled source spans, notes, help); `render` turns
it into text with the source line printed and the span underlined. `TilewrightError` is the root of every
exception the package raises on purpose; it may carry diagnostics. `suggest` finds the nearest spelling.

This file prints nothing and opens no file: the caller hands over the source texts.
"""

from __future__ import annotations

import enum
import functools
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_DIAGNOSTICS = 100  # a file that is no program at all would have millions
MAX_LINE_WIDTH = 120  # source lines wider than this are cut to a window around the span


class Severity(enum.Enum):
    """How bad it is. Only `ERROR` stops the work."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Span(NamedTuple):
    """A piece of a source file. Lines and columns count from 1; `end_col` is one past the last character.

    Columns count characters (code points), not bytes and not terminal cells.
    """

    file: str
    line: int
    col: int
    end_line: int
    end_col: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.col}"

    def to(self, end: Span) -> Span:
        """The span from the start of this one to the end of `end`."""
        return Span(self.file, self.line, self.col, end.end_line, end.end_col)


@dataclass(frozen=True)
class Label:
    """A span with something to say about it. The primary one is where the error is; others give context."""

    span: Span
    message: str = ""
    primary: bool = False


@dataclass(frozen=True)
class Diagnostic:
    """One problem, stated once.

    `message` is one short line without a final full stop. `labels` point into sources; the first primary
    label is the place of the problem. `notes` give facts; `help` says what to do.

    >>> span = Span("net.kyn", 3, 5, 3, 9)
    >>> d = Diagnostic("KYN106", "unknown layer `dens`", (Label(span, "not a layer", True),),
    ...                help=("did you mean `dense`?",))
    >>> print(render(d, {"net.kyn": "model Net:\\n    input 10\\n    dens 1\\n"}))
    error[KYN106]: unknown layer `dens`
     --> net.kyn:3:5
      |
    3 |     dens 1
      |     ^^^^ not a layer
      |
      = help: did you mean `dense`?
    """

    code: str
    message: str
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: tuple[str, ...] = ()
    severity: Severity = Severity.ERROR

    @property
    def span(self) -> Span | None:
        """Where the problem is, if it is in a source at all."""
        for label in self.labels:
            if label.primary:
                return label.span
        return self.labels[0].span if self.labels else None

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, for `--json` and for editors."""
        return {
            "code": self.code,
            "severity": self.severity.value,
            "message": self.message,
            "labels": [
                {**label.span._asdict(), "message": label.message, "primary": label.primary}
                for label in self.labels
            ],
            "notes": list(self.notes),
            "help": list(self.help),
        }


@dataclass(frozen=True)
class Explanation:
    """The page that `tw explain CODE` prints: what the code means, with the wrong and the right text."""

    code: str
    title: str
    text: str
    wrong: str = ""
    right: str = ""


class TilewrightError(Exception):
    """Root of the errors the package raises on purpose.

    Raise it (or a subclass) with a plain message, or with one or more diagnostics and the source texts they
    point into. `str()` is readable either way.

    >>> str(TilewrightError("axis 3 is out of range for a tensor of rank 2"))
    'axis 3 is out of range for a tensor of rank 2'
    """

    def __init__(
        self,
        problem: str | Diagnostic | Sequence[Diagnostic] = "",
        sources: Mapping[str, str] | None = None,
    ) -> None:
        self.sources: Mapping[str, str] = sources or {}
        self.diagnostics: tuple[Diagnostic, ...] = ()
        if isinstance(problem, str):
            self.message = problem
        else:
            self.diagnostics = (problem,) if isinstance(problem, Diagnostic) else tuple(problem)
            self.message = next((d.message for d in self.diagnostics if d.is_error), "")
        super().__init__(problem, sources)

    @property
    def diagnostic(self) -> Diagnostic | None:
        """The first error among the diagnostics, or None for an error with a plain message."""
        return next((d for d in self.diagnostics if d.is_error), None)

    def render(self, color: bool = False) -> str:
        """Every diagnostic as text, with source lines where the sources are known."""
        if not self.diagnostics:
            return self.message
        return "\n\n".join(render(d, self.sources, color) for d in self.diagnostics)

    def __str__(self) -> str:
        return self.render()


class IndexingError(TilewrightError, IndexError):
    """An index is out of range or not an index."""


class GradientError(TilewrightError, RuntimeError):
    """A derivative that does not exist or whose graph is gone."""


# --- rendering ----------------------------------------------------------------------------------------------

_RESET = "\x1b[0m"
_STYLES = {
    "error": "\x1b[1;31m",
    "warning": "\x1b[1;33m",
    "note": "\x1b[1;36m",
    "bold": "\x1b[1m",
    "gutter": "\x1b[1;34m",
    "secondary": "\x1b[1;34m",
    "help": "\x1b[1;32m",
}


@dataclass
class _Painter:
    color: bool

    def __call__(self, style: str, text: str) -> str:
        return f"{_STYLES[style]}{text}{_RESET}" if self.color and text else text


def render(diagnostic: Diagnostic, sources: Mapping[str, str] | None = None, color: bool = False) -> str:
    """The diagnostic as text: headline, place, source lines with underlined spans, notes and help.

    `sources` maps the file names of the spans to whole texts; a span in an unknown file gets its place only.
    The result has no final newline.
    """
    paint = _Painter(color)
    style = diagnostic.severity.value
    code = f"[{diagnostic.code}]" if diagnostic.code else ""
    out = [paint(style, style + code) + paint("bold", f": {printable(diagnostic.message)}")]
    width = max((len(str(label.span.line)) for label in diagnostic.labels), default=1)
    gutter = " " * width
    bar = paint("gutter", f"{gutter} |")
    files = _files_in_order(diagnostic.labels)
    for position, name in enumerate(files):
        labels = [label for label in diagnostic.labels if label.span.file == name]
        place = next((label.span for label in labels if label.primary), labels[0].span)
        arrow = "-->" if position == 0 else ":::"
        out.append(f"{gutter}{paint('gutter', arrow)} {printable(str(place))}")
        text = (sources or {}).get(name)
        if text is None:
            out.extend(f"{bar} {printable(label.message)}" for label in labels if label.message)
            continue
        out.append(bar)
        out.extend(_snippet(labels, text, width, style, paint))
    if files and (diagnostic.notes or diagnostic.help):
        out.append(bar)
    equals = f"{gutter} {paint('gutter', '=')}"
    for kind, remarks in (("note", diagnostic.notes), ("help", diagnostic.help)):
        for remark in remarks:
            body = printable(remark, newlines=True).replace("\n", f"\n{gutter}   {' ' * len(kind)}  ")
            out.append(f"{equals} {paint(kind, kind)}: {body}")
    return "\n".join(out)


def _files_in_order(labels: Iterable[Label]) -> list[str]:
    ordered = sorted(labels, key=lambda label: not label.primary)  # the primary label's file comes first
    return list(dict.fromkeys(label.span.file for label in ordered))


@functools.lru_cache(maxsize=4)  # many diagnostics are drawn from the same source
def split_lines(text: str) -> tuple[str, ...]:
    """The lines of a source, without their ends. Only `\\n` and `\\r\\n` end a line, as in the lexer."""
    return tuple(line.removesuffix("\r") for line in text.split("\n"))


def _snippet(labels: list[Label], text: str, width: int, style: str, paint: _Painter) -> Iterator[str]:
    lines = split_lines(text)
    numbers = sorted({label.span.line for label in labels})
    bar = paint("gutter", " " * width + " |")
    previous = 0
    for number in numbers:
        if previous and number > previous + 1:
            yield paint("gutter", "...")
        previous = number
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        here = [label for label in labels if label.span.line == number]
        line, offset = _window(line, here)
        shown, cells = _layout(line)
        yield f"{paint('gutter', f'{number:>{width}} |')} {shown}".rstrip()
        for label in sorted(here, key=lambda label: not label.primary):
            start = _cell(cells, label.span.col - 1 - offset)
            last = label.span.end_col if label.span.end_line == number else len(line) + 1 + offset
            length = max(1, _cell(cells, last - 1 - offset) - start)
            if len(line) > MAX_LINE_WIDTH:
                length = max(1, min(length, cells[-1] - start))  # the line was cut, and so is its mark
            mark = ("^" if label.primary else "-") * length
            words = f"{mark} {printable(label.message)}".rstrip()
            yield f"{bar} {' ' * start}{paint(style if label.primary else 'secondary', words)}"


def _window(line: str, labels: list[Label]) -> tuple[str, int]:
    """Cut a long line to what is around its first label.

    Returns the text and how many columns went before.
    """
    if len(line) <= MAX_LINE_WIDTH:
        return line, 0
    first = next((label for label in labels if label.primary), labels[0])
    start = min(max(0, first.span.col - 1 - MAX_LINE_WIDTH // 3), max(0, len(line) - MAX_LINE_WIDTH))
    end = start + MAX_LINE_WIDTH
    head, tail = ("..." if start else ""), ("..." if end < len(line) else "")
    return head + line[start:end] + tail, start - len(head)


def _layout(line: str) -> tuple[str, list[int]]:
    """The line as it is printed, and the terminal cell at which each of its characters begins."""
    out: list[str] = []
    cells = [0]
    for char in line:
        shown = " " * 4 if char == "\t" else printable(char)
        out.append(shown)
        cells.append(cells[-1] + sum(_char_width(c) for c in shown))
    return "".join(out), cells


def _cell(cells: list[int], index: int) -> int:
    index = max(index, 0)
    return cells[index] if index < len(cells) else cells[-1] + index - len(cells) + 1


def _char_width(char: str) -> int:
    if char.isascii():
        return 1
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def printable(text: str, newlines: bool = False) -> str:
    """The text with control characters escaped, so that a broken file cannot drive the terminal."""
    if text.isascii() and text.isprintable():
        return text
    keep = "\n" if newlines else ""
    return "".join(c if c in keep or c == " " or not _is_control(c) else _escape(c) for c in text)


def _is_control(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escape(char: str) -> str:
    number = ord(char)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"


# --- nearest spelling ---------------------------------------------------------------------------------------


def edit_distance(a: str, b: str) -> int:
    """Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.

    Optimal string alignment, O(len(a) * len(b)).
    """
    before: list[int] = []
    previous = list(range(len(b) + 1))
    for i, ca in enumerate(a, 1):
        row = [i]
        for j, cb in enumerate(b, 1):
            cost = min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (ca != cb))
            if i > 1 and j > 1 and ca == b[j - 2] and cb == a[i - 2]:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, previous = previous, row
    return previous[-1]


def suggest(word: str, candidates: Iterable[str]) -> str | None:
    """The candidate that `word` most likely meant, or None when nothing is near.

    Case and `-`/`_` do not count; about one wrong letter in three is forgiven.

    >>> suggest("sofmax", ["relu", "softmax"])
    'softmax'
    >>> suggest("banana", ["relu", "softmax"]) is None
    True
    """

    def plain(text: str) -> str:
        return text.lower().replace("-", "_")

    if len(word) > 64:
        return None
    wanted = plain(word)
    limit = max(1, (len(wanted) + 1) // 3)
    best: tuple[int, str] | None = None
    for candidate in candidates:
        name = plain(candidate)
        distance = 0 if name.replace("_", "") == wanted.replace("_", "") else edit_distance(wanted, name)
        if distance <= limit and distance < len(name) and (best is None or distance < best[0]):
            best = (distance, candidate)
    return best[1] if best else None


def join_names(names: Iterable[str], word: str = "and") -> str:
    """Names in backticks as an English list: "`a`, `b` and `c`"."""
    quoted = [f"`{name}`" for name in names]
    if len(quoted) <= 1:
        return "".join(quoted)
    return f"{', '.join(quoted[:-1])} {word} {quoted[-1]}"


@dataclass
class Reporter:
    """Collects diagnostics while work goes on, so that one run reports several problems."""

    notes: tuple[str, ...] = ()  # added to every diagnostic
    dropped: int = 0  # diagnostics beyond the limit
    _seen: dict[Diagnostic, None] = field(default_factory=dict)

    @property
    def diagnostics(self) -> list[Diagnostic]:
        """What was recorded, in the order in which it came."""
        return list(self._seen)

    def add(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        label: str = "",
        *,
        more: Iterable[Label] = (),
        notes: Iterable[str] = (),
        help: Iterable[str | None] = (),
        severity: Severity = Severity.ERROR,
    ) -> None:
        """Record one problem; the same problem at the same place is recorded once. Empty help is left out."""
        labels = (Label(span, label, True), *more) if span else tuple(more)
        advice = tuple(line for line in help if line)
        remarks = (*notes, *self.notes)
        self.extend([Diagnostic(code, message, labels, remarks, advice, severity)])

    def extend(self, diagnostics: Iterable[Diagnostic]) -> None:
        """Take over diagnostics that are not known yet; beyond `MAX_DIAGNOSTICS` they are only counted."""
        for diagnostic in diagnostics:
            if diagnostic in self._seen:
                continue
            if len(self._seen) < MAX_DIAGNOSTICS:
                self._seen[diagnostic] = None
            else:
                self.dropped += 1

    def warn(
        self,
        code: str,
        message: str,
        span: Span,
        *,
        more: Iterable[Label] = (),
        notes: Iterable[str] = (),
        help: Iterable[str | None] = (),
    ) -> None:
        """Record something that is allowed and probably not meant."""
        self.add(code, message, span, more=more, notes=notes, help=help, severity=Severity.WARNING)

    @property
    def has_errors(self) -> bool:
        return any(d.is_error for d in self._seen)

    def in_order(self) -> list[Diagnostic]:
        """By file and place; files in the order in which they first came up. A note tells of dropped ones."""
        files: dict[str, int] = {}
        for diagnostic in self.diagnostics:
            if diagnostic.span:
                files.setdefault(diagnostic.span.file, len(files))

        def key(diagnostic: Diagnostic) -> tuple[int, int, int]:
            span = diagnostic.span
            return (files[span.file], span.line, span.col) if span else (len(files), 0, 0)

        rest = f"{self.dropped} more problems are not shown"
        note = [Diagnostic("", rest, severity=Severity.NOTE)] if self.dropped else []
        return [*sorted(self.diagnostics, key=key), *note]

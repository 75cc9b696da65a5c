"""Characters to tokens. Lossless: the texts of the tokens, joined, are the source again.

The lexer knows nothing of indentation or blocks; that is the parser's. What is no token (a stray character,
an unterminated string, a malformed number) becomes a `BAD` token and one diagnostic, and reading goes on.
"""

from __future__ import annotations

import enum
import re
from typing import NamedTuple

from tilewright.core.diagnostics import Reporter, Span, printable

MAX_NUMBER_LENGTH = 64
MAX_INT = 2**63 - 1


class Kind(enum.Enum):
    NAME = "name"
    INT = "integer"
    FLOAT = "number"
    STRING = "string"
    PARAM = "parameter"
    PUNCT = "punctuation"
    SPACE = "space"
    COMMENT = "comment"
    NEWLINE = "end of line"
    BAD = "bad"


TRIVIA = frozenset({Kind.SPACE, Kind.COMMENT, Kind.NEWLINE})


class Token(NamedTuple):
    kind: Kind
    text: str
    span: Span


_TOKEN = re.compile(
    r"""
      (?P<NEWLINE> \r?\n )
    | (?P<SPACE>   [ \t]+ )
    | (?P<COMMENT> \#[^\r\n]* )
    | (?P<NUMBER>  [+-]?\.?[0-9](?: [eE][+-](?=[0-9]) | [\w.] )* )
    | (?P<NAME>    [^\W\d]\w* )
    | (?P<PARAM>   \$\w* )
    | (?P<STRING>  "(?: [^"\\\r\n] | \\[^\r\n] )*" )
    | (?P<OPEN>    ["'](?: [^\r\n] )* )
    | (?P<PUNCT>   [=:,()\[\]] )
    | (?P<OTHER>   . )
    """,
    re.VERBOSE | re.DOTALL,
)
_INT = re.compile(r"-?[0-9]+(_[0-9]+)*\Z")
_FLOAT = re.compile(r"-?[0-9]+(_[0-9]+)*(\.[0-9]+)?([eE][+-]?[0-9]+)?\Z")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


def tokenize(text: str, file: str, report: Reporter) -> list[Token]:
    """All tokens of a source, trivia included; what is wrong goes to `report`."""
    tokens: list[Token] = []
    line, line_start = 1, 0
    for match in _TOKEN.finditer(text):
        col = match.start() - line_start + 1
        lexeme = match.group()
        span = Span(file, line, col, line, col + len(lexeme))
        kind = _classify(match.lastgroup or "", lexeme, span, report)
        tokens.append(Token(kind, lexeme, span))
        if kind is Kind.NEWLINE:
            line += 1
            line_start = match.end()
    return tokens


def _classify(group: str, lexeme: str, span: Span, report: Reporter) -> Kind:
    """The kind of a lexeme; reports it when it is none."""
    match group:
        case "NEWLINE" | "COMMENT" | "PUNCT" | "NAME":
            return Kind[group]
        case "SPACE":
            if (tab := lexeme.find("\t")) >= 0:
                at = span._replace(col=span.col + tab, end_col=span.col + tab + 1)
                report.add("KYN002", "tab character", at, help=["indent and align with spaces"])
            return Kind.SPACE
        case "NUMBER":
            return _classify_number(lexeme, span, report)
        case "PARAM":
            if len(lexeme) > 1 and not lexeme[1].isdigit():
                return Kind.PARAM
            report.add("KYN004", "`$` without a parameter name", span, help=["write `$name`"])
        case "STRING":
            return _classify_string(lexeme, span, report)
        case "OPEN" if lexeme[0] == "'":
            report.add("KYN004", "strings are written in double quotes", span, help=['write "text"'])
        case "OPEN":
            report.add("KYN005", "string without a closing quote", span, help=['end the string with `"`'])
        case _:
            report.add("KYN004", f"unexpected character `{printable(lexeme)}`", span)
    return Kind.BAD


def _classify_number(lexeme: str, span: Span, report: Reporter) -> Kind:
    if not _FLOAT.match(lexeme):
        advice = "a number looks like 10, 0.5 or 1e-3"
        report.add(
            "KYN007", f"malformed number `{printable(lexeme[:MAX_NUMBER_LENGTH])}`", span, help=[advice]
        )
        return Kind.BAD
    is_int = bool(_INT.match(lexeme))
    if len(lexeme) > MAX_NUMBER_LENGTH or abs(float(lexeme)) > (MAX_INT if is_int else 1e308):
        limit = "integers have 64 bits" if is_int else "floats have 64 bits, up to 1e308"
        report.add("KYN007", "number too large", span, notes=[limit])
        return Kind.BAD
    return Kind.INT if is_int else Kind.FLOAT


def _classify_string(lexeme: str, span: Span, report: Reporter) -> Kind:
    for match in _ESCAPE.finditer(lexeme):
        if match.group(1) not in _ESCAPES:
            at = span._replace(col=span.col + match.start(), end_col=span.col + match.end())
            advice = r"known escapes are `\"`, `\\`, `\n` and `\t`; write a backslash as `\\`"
            report.add("KYN006", f"unknown escape `{printable(match.group())}`", at, help=[advice])
            return Kind.BAD
    return Kind.STRING


def unquote(lexeme: str) -> str:
    """The value of a string literal."""
    return _ESCAPE.sub(lambda match: _ESCAPES[match.group(1)], lexeme[1:-1])


def quote(value: str) -> str:
    """The literal of a string value; `unquote(quote(s)) == s` for text without carriage returns."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'

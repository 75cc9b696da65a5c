"""The syntax tree: what was written, with spans and comments, before any name or value is understood.

Every node is an immutable dataclass with a `span`. Statements also keep their comments: `leading` holds the
lines above (a comment's text, or "" for a blank line), `trailing` the comment on the same line. A body keeps
in `dangling` the comment lines after its last statement.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from tilewright.core.diagnostics import Span


@dataclass(frozen=True)
class Int:
    span: Span
    value: int
    text: str


@dataclass(frozen=True)
class Float:
    span: Span
    value: float
    text: str


@dataclass(frozen=True)
class Bool:
    span: Span
    value: bool


@dataclass(frozen=True)
class String:
    span: Span
    value: str


@dataclass(frozen=True)
class Name:
    """A bare word: `relu`, `Houses`, `auto`."""

    span: Span
    name: str


@dataclass(frozen=True)
class Param:
    """A reference to a parameter, `$name`; `name` is without the dollar sign."""

    span: Span
    name: str


@dataclass(frozen=True)
class List:
    span: Span
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Option:
    """`key=value` in a call or on a layer line."""

    span: Span
    key: Name
    value: Value


@dataclass(frozen=True)
class Call:
    """`name(value, key=value, ...)`."""

    span: Span
    name: Name
    args: tuple[Value, ...]
    options: tuple[Option, ...]


Value: TypeAlias = Int | Float | Bool | String | Name | Param | List | Call


@dataclass(frozen=True)
class Entry:
    """`key = value`, a line of every block but `model`."""

    span: Span
    key: Name
    value: Value
    leading: tuple[str, ...] = ()
    trailing: str = ""


@dataclass(frozen=True)
class Layer:
    """A line of `model`: a name, positional values, options, and perhaps an activation word."""

    span: Span
    name: Name
    args: tuple[Value, ...]
    options: tuple[Option, ...]
    activation: Name | None
    leading: tuple[str, ...] = ()
    trailing: str = ""


@dataclass(frozen=True)
class Repeat:
    """`repeat COUNT:` and the layers under it."""

    span: Span
    count: Value
    body: tuple[Layer, ...]
    leading: tuple[str, ...] = ()
    trailing: str = ""
    dangling: tuple[str, ...] = ()


Statement: TypeAlias = Entry | Layer | Repeat


@dataclass(frozen=True)
class Import:
    span: Span
    path: String
    leading: tuple[str, ...] = ()
    trailing: str = ""


@dataclass(frozen=True)
class Block:
    """A header with its body. `kind` is its word (`train`, ...); `name` is set for `dataset` and `model`."""

    span: Span
    kind: str
    name: Name | None
    body: tuple[Statement, ...]
    leading: tuple[str, ...] = ()
    trailing: str = ""
    dangling: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """A whole source: its imports and blocks in the order in which they stand."""

    span: Span
    items: tuple[Import | Block, ...]
    dangling: tuple[str, ...] = ()

    def blocks(self, kind: str) -> Iterator[Block]:
        """The blocks of one kind, in order."""
        return (item for item in self.items if isinstance(item, Block) and item.kind == kind)


Node: TypeAlias = Value | Option | Statement | Import | Block | File

_TRIVIA_FIELDS = frozenset({"leading", "trailing", "dangling", "text"})


def dump(node: Node, spans: bool = True) -> str:
    """The tree as indented text, one node a line, as `tw ast` prints it.

    >>> at = Span("a.kyn", 1, 1, 1, 3)
    >>> print(dump(List(at, (Int(at, 1, "1"), Name(at, "b"))), spans=False))
    List
      Int 1
      Name b
    """
    return "\n".join(_dump_lines(node, "", 0, spans))


def _dump_lines(node: Node, role: str, depth: int, spans: bool) -> Iterator[str]:
    words = [type(node).__name__]
    children: list[tuple[str, Node]] = []
    for item in fields(node):
        value: Any = getattr(node, item.name)
        if item.name == "span" or item.name in _TRIVIA_FIELDS or value is None:
            continue
        if isinstance(value, Name) and item.name in ("key", "name"):
            words.append(value.name)
        elif isinstance(value, tuple):
            children.extend((item.name if item.name == "options" else "", child) for child in value)
        elif hasattr(value, "span"):
            children.append((item.name, value))
        else:
            words.append(_literal(node, value))
    head = f"{role}: " if role in ("count", "activation") else ""
    where = f"  @{_range(node.span)}" if spans else ""
    yield f"{'  ' * depth}{head}{' '.join(words)}{where}"
    for role, child in children:
        yield from _dump_lines(child, role, depth + 1, spans)


def _literal(node: Node, value: Any) -> str:
    if isinstance(node, String):
        return f'"{value}"'.encode("unicode_escape").decode() if not value.isprintable() else f'"{value}"'
    return str(value).lower() if isinstance(value, bool) else str(value)


def _range(span: Span) -> str:
    return f"{span.line}:{span.col}-{span.end_line}:{span.end_col}"


def to_dict(node: Node) -> dict[str, Any]:
    """The tree as JSON-ready dictionaries: `node` is the class, `span` is [line, col, end line, end col]."""
    out: dict[str, Any] = {"node": type(node).__name__}
    for item in fields(node):
        value: Any = getattr(node, item.name)
        if item.name == "span":
            out["span"] = list(value[1:])
        elif isinstance(value, tuple):
            out[item.name] = [part if isinstance(part, str) else to_dict(part) for part in value]
        else:
            out[item.name] = to_dict(value) if hasattr(value, "span") else value
    return out

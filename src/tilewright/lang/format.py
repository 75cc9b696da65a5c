"""The canonical text of a program.

One statement a line; blocks apart by one blank line, at most one blank line elsewhere; keys and options in
the order of `lang.vocabulary`; defaults left out, unless a comment hangs on the line; numbers as they were
written. Comments are kept and move with the statement below or beside them. Formatting twice changes nothing,
and never changes what a program means. A text with syntax errors is refused; one with other errors is
formatted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from tilewright.core.diagnostics import Reporter
from tilewright.lang.errors import error_for
from tilewright.lang.syntax import nodes
from tilewright.lang.syntax.parser import INDENT, parse
from tilewright.lang.syntax.tokens import quote
from tilewright.lang.types import ComponentType, Field, OptionalType, Scope, Signature
from tilewright.lang.vocabulary import BLOCKS, LAYERS


def format_text(text: str, path: str = "<text>") -> str:
    """The canonical form of a program's text, ending in one newline (empty for an empty text).

    Raises `KynParseError` for text that does not parse; `path` names it in the message.

    >>> print(format_text('train:\\n    batch=32\\n    loss =  mse # why\\n    data = D\\n'), end="")
    train:
        data = D
        loss = mse  # why
    """
    report = Reporter()
    tree = parse(text.removeprefix("\ufeff"), path, report)
    if report.has_errors:
        raise error_for(report.in_order(), {path: text})
    return format_tree(tree)


def format_tree(tree: nodes.File) -> str:
    """The canonical text of a syntax tree."""
    lines: list[str] = []
    for item in tree.items:
        lead = list(_comments(item.leading, 0))
        follows_import = isinstance(item, nodes.Import) and bool(lines) and lines[-1].startswith("import ")
        if lines and not (follows_import and not (lead and lead[0] == "") and not any(lead)):
            lines.append("")
        lines.extend(lead[1:] if lead and lead[0] == "" else lead)
        if isinstance(item, nodes.Import):
            lines.append(_with_comment(f"import {quote(item.path.value)}", item.trailing))
        else:
            lines.extend(_format_block(item))
    tail = list(_comments(tree.dangling, 0))
    if any(tail):
        lines.extend(["", *tail] if lines and tail[0] else tail if lines else _strip(tail))
    lines = _strip(lines)
    return "\n".join(lines) + "\n" if lines else ""


def _strip(lines: Sequence[str]) -> list[str]:
    """Without blank lines at either end."""
    solid = [i for i, line in enumerate(lines) if line]
    return list(lines[solid[0] : solid[-1] + 1]) if solid else []


def _comments(trivia: Iterable[str], depth: int) -> Iterator[str]:
    """Comment lines at their depth, runs of blank lines as one."""
    blank = False
    for text in trivia:
        if text or not blank:
            yield f"{' ' * INDENT * depth}{text}" if text else ""
        blank = not text


def _with_comment(line: str, comment: str) -> str:
    return f"{line}  {comment}" if comment else line


def _format_block(block: nodes.Block) -> Iterator[str]:
    name = f" {block.name.name}" if block.name else ""
    yield _with_comment(f"{block.kind}{name}:", block.trailing)
    fields = BLOCKS.get(block.kind, ())
    body = _canonical_entries(block.body, fields) if fields else block.body
    yield from _format_body(body, block.dangling, {field.name: field for field in fields}, 1)


def _format_body(
    body: Sequence[nodes.Statement], dangling: tuple[str, ...], fields: dict[str, Field], depth: int
) -> Iterator[str]:
    pad = " " * INDENT * depth
    for position, statement in enumerate(body):
        lead = list(_comments(statement.leading, depth))
        yield from lead[1:] if position == 0 and lead and lead[0] == "" else lead
        match statement:
            case nodes.Entry():
                text = f"{statement.key.name} = {_format_entry_value(statement, fields)}"
            case nodes.Layer():
                text = format_layer(statement)
            case nodes.Repeat():
                text = f"repeat {format_value(statement.count)}:"
        yield _with_comment(pad + text, statement.trailing)
        if isinstance(statement, nodes.Repeat):
            yield from _format_body(statement.body, statement.dangling, fields, depth + 1)
    tail = list(_comments(dangling, depth))
    while tail and not tail[-1]:
        tail.pop()
    yield from tail


def _canonical_entries(body: Sequence[nodes.Statement], fields: Sequence[Field]) -> list[nodes.Statement]:
    """The entries in canonical order (unknown keys last), without defaults that carry no comment."""
    order = {field.name: position for position, field in enumerate(fields)}
    entries = [entry for entry in body if isinstance(entry, nodes.Entry)]
    entries.sort(key=lambda entry: order.get(entry.key.name, len(order)))
    counts = Counter(entry.key.name for entry in entries)
    by_name = {field.name: field for field in fields}

    def is_kept(entry: nodes.Entry) -> bool:
        field = by_name.get(entry.key.name)
        commented = bool(entry.trailing) or any(entry.leading)
        return field is None or commented or counts[field.name] > 1 or not is_default(entry.value, field)

    kept = [entry for entry in entries if is_kept(entry)]
    return list(kept or entries[:1])  # a body must not become empty


def is_default(value: nodes.Value, field: Field) -> bool:
    """Whether a written value is the one the field has anyway."""
    quiet = Reporter()
    read = field.type.read(value, field.name, Scope(quiet, {}))
    return not quiet.diagnostics and not field.is_required and bool(read == field.default)


def _format_entry_value(entry: nodes.Entry, fields: dict[str, Field]) -> str:
    field = fields.get(entry.key.name)
    kind = (
        field.type.inner if field and isinstance(field.type, OptionalType) else field.type if field else None
    )
    if isinstance(kind, ComponentType) and isinstance(entry.value, nodes.Call):
        call = entry.value
        signature = kind.table.get(call.name.name)
        if signature is not None:
            parts = [*map(format_value, call.args), *_format_options(call.options, signature)]
            return f"{call.name.name}({', '.join(parts)})" if parts else call.name.name
    return format_value(entry.value)


def _format_options(options: Sequence[nodes.Option], signature: Signature) -> list[str]:
    """Options in canonical order, without defaults; unknown ones last."""
    order = {field.name: position for position, field in enumerate(signature.options)}
    by_name = {field.name: field for field in signature.options}
    counts = Counter(option.key.name for option in options)

    def is_kept(option: nodes.Option) -> bool:
        field = by_name.get(option.key.name)
        return field is None or counts[field.name] > 1 or not is_default(option.value, field)

    kept = sorted(filter(is_kept, options), key=lambda option: order.get(option.key.name, len(order)))
    return [f"{option.key.name}={format_value(option.value)}" for option in kept]


def format_layer(layer: nodes.Layer) -> str:
    """The canonical text of a layer line, without indentation and comments."""
    options = _format_options(layer.options, LAYERS.get(layer.name.name, Signature()))
    words = [layer.name.name, *map(format_value, layer.args), *options]
    return " ".join([*words, layer.activation.name] if layer.activation else words)


def format_value(value: nodes.Value) -> str:
    """The canonical text of a value; calls keep all their options."""
    match value:
        case nodes.Int() | nodes.Float():
            return value.text
        case nodes.Bool():
            return "true" if value.value else "false"
        case nodes.String():
            return quote(value.value)
        case nodes.Name():
            return value.name
        case nodes.Param():
            return f"${value.name}"
        case nodes.List():
            return f"[{', '.join(map(format_value, value.items))}]"
        case nodes.Call():
            options = [f"{option.key.name}={format_value(option.value)}" for option in value.options]
            return f"{value.name.name}({', '.join([*map(format_value, value.args), *options])})"

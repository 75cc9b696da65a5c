"""Tokens to the syntax tree, line by line.

The language is line-oriented, so the parser is too: a line that is wrong is reported once and skipped, and
the next line starts afresh. It knows the words of the block headers and nothing else; which keys, layers and
values exist is `lang.check`'s business.

    file      := { import | block }
    import    := "import" STRING
    block     := KIND [ NAME ] ":" { statement }
    statement := NAME "=" value                                     (every block but model)
               | NAME { value } { NAME "=" value } [ NAME ]         (model)
               | "repeat" value ":" { layer }                       (model)
    value     := INT | FLOAT | STRING | "true" | "false" | NAME | "$" NAME
               | "[" [ value { "," value } ] "]"
               | NAME "(" [ argument { "," argument } ] ")"
    argument  := value | NAME "=" value
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NoReturn

from tilewright.core.diagnostics import Label, Reporter, Span, join_names, printable, suggest
from tilewright.lang.syntax import nodes
from tilewright.lang.syntax.tokens import TRIVIA, Kind, Token, tokenize, unquote

NAMED_BLOCKS = ("dataset", "model")
BLOCKS = ("params", "sweep", "dataset", "model", "train", "evaluate", "export")
INDENT = 4
MAX_DEPTH = 32


def parse(text: str, file: str, report: Reporter) -> nodes.File:
    """The syntax tree of a source. Problems go to `report`; the tree holds what could be understood.

    `file` is the name that spans carry.
    """
    lines = _split(tokenize(text, file, report), file)
    return _Parser(file, report).run(lines)


class _SkipLine(Exception):
    """This line was reported; go on with the next."""


@dataclass
class _Line:
    """One source line: its tokens without trivia, its comment, and where it ends."""

    indent: int
    tokens: list[Token]
    comment: str
    end: Span
    has_tab: bool = False  # among its indentation, which then cannot be counted
    position: int = 0

    @property
    def span(self) -> Span:
        return self.tokens[0].span.to(self.tokens[-1].span)

    @property
    def is_bad(self) -> bool:
        return any(token.kind is Kind.BAD for token in self.tokens)

    def peek(self, ahead: int = 0) -> Token | None:
        index = self.position + ahead
        return self.tokens[index] if index < len(self.tokens) else None

    def at(self, text: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind is Kind.PUNCT and token.text == text

    def at_name(self, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token is not None and token.kind is Kind.NAME

    def next(self) -> Token:
        self.position += 1
        return self.tokens[self.position - 1]


def _split(tokens: list[Token], file: str) -> list[_Line]:
    lines: list[_Line] = []
    current: list[Token] = []
    last = Span(file, 1, 1, 1, 1)

    def close() -> None:
        solid = [token for token in current if token.kind not in TRIVIA]
        comment = next((token for token in current if token.kind is Kind.COMMENT), None)
        first = solid[0] if solid else comment
        indent = first.span.col - 1 if first else 0
        end = (solid[-1].span if solid else last)._replace()
        at_end = end._replace(col=end.end_col, end_col=end.end_col + 1)
        has_tab = bool(current) and current[0].kind is Kind.SPACE and "\t" in current[0].text
        lines.append(_Line(indent, solid, comment.text.rstrip() if comment else "", at_end, has_tab))

    for token in tokens:
        last = token.span
        if token.kind is Kind.NEWLINE:
            close()
            current = []
        else:
            current.append(token)
    if current:
        close()
    return lines


@dataclass
class _OpenRepeat:
    node: nodes.Repeat
    body: list[nodes.Layer] = field(default_factory=list)


@dataclass
class _OpenBlock:
    """A block whose body is being read. `known` is false when its header was wrong: the body is skipped."""

    node: nodes.Block
    known: bool = True
    body: list[nodes.Statement] = field(default_factory=list)
    repeat: _OpenRepeat | None = None
    had_bad_line: bool = False


class _Parser:
    def __init__(self, file: str, report: Reporter) -> None:
        self.file = file
        self.report = report
        self.items: list[nodes.Import | nodes.Block] = []
        self.block: _OpenBlock | None = None
        self.pending: list[tuple[int, str]] = []  # (indent, comment or "") not yet given to a statement
        self.unclosed: int | None = None  # the indentation of a line whose bracket is open at its end

    def run(self, lines: list[_Line]) -> nodes.File:
        for line in lines:
            if not line.tokens:
                self.pending.append((line.indent, line.comment))
                continue
            if self.unclosed is not None and line.indent > self.unclosed:
                continue  # meant as the rest of that line
            self.unclosed = None
            try:
                self.read_line(line)
            except _SkipLine:
                if self.block:
                    self.block.had_bad_line = True
        self.close_block()
        end = lines[-1].end if lines else Span(self.file, 1, 1, 1, 1)
        dangling = self.take_pending()
        return nodes.File(Span(self.file, 1, 1, end.line, end.col), tuple(self.items), dangling)

    # --- lines and blocks --------------------------------------------------------------------------------

    def read_line(self, line: _Line) -> None:
        if line.indent == 0:
            self.read_top_line(line)
            return
        block = self.block
        if block is None:
            self.fail(
                "KYN003",
                "indented line outside a block",
                line.tokens[0].span,
                help="a block header such as `train:` stands in column 1 above its lines",
            )
        depth = self.depth_of(line, block)
        if not block.known:
            self.pending.clear()
            return
        if depth == 1:
            self.close_repeat(block)
        if line.is_bad:
            if depth == 1 and line.tokens[0].text == "repeat":
                self.open_repeat(block, line, nodes.Bool(line.span, True))
            raise _SkipLine
        if block.node.kind != "model":
            entry = self.read_entry(line)
            block.body.append(replace(entry, leading=self.take_pending(), trailing=line.comment))
        elif line.tokens[0].text == "repeat" and line.tokens[0].kind is Kind.NAME:
            self.read_repeat(line, block, depth)
        else:
            layer = self.read_layer(line)
            layer = replace(layer, leading=self.take_pending(), trailing=line.comment)
            target = block.repeat.body if block.repeat else block.body
            target.append(layer)

    def depth_of(self, line: _Line, block: _OpenBlock) -> int:
        """1 in the body of a block, 2 in the body of `repeat`.

        A wrong indentation is reported and guessed.
        """
        in_repeat = block.repeat is not None
        if line.indent == INDENT or (in_repeat and line.indent == 2 * INDENT):
            return line.indent // INDENT
        if block.known and not line.has_tab:
            at = Span(self.file, line.tokens[0].span.line, 1, line.tokens[0].span.line, line.indent + 1)
            wanted = "four or eight spaces" if in_repeat else "exactly four spaces"
            found = f"{line.indent} space{'s' if line.indent != 1 else ''}"
            self.report.add("KYN003", "wrong indentation", at, found, help=[f"indent this line by {wanted}"])
        return 2 if in_repeat and line.indent > INDENT + 1 else 1

    def read_top_line(self, line: _Line) -> None:
        first = line.tokens[0]
        if first.text == "import" and first.kind is Kind.NAME:
            self.close_block()
            self.read_import(line)
            return
        if line.is_bad:
            self.open_block(line, "", None, known=False)
            raise _SkipLine
        if first.kind is not Kind.NAME:
            self.fail("KYN008", "expected a block header", line.span, help=_HEADER_HELP)
        if line.at("=", 1) or (first.text not in BLOCKS and line.tokens[-1].text != ":"):
            where = f"a line of `{self.block.node.kind}` is" if self.block else "the lines of a block are"
            near = suggest(first.text, BLOCKS) if not line.at("=", 1) else None
            advice = f"did you mean `{near}`?" if near else f"{where} indented by four spaces"
            self.fail("KYN008", f"expected a block header, found `{first.text}`", first.span, help=advice)
        self.read_header(line)

    def read_import(self, line: _Line) -> None:
        if line.is_bad:
            raise _SkipLine
        line.next()
        token = line.peek()
        if token is None or token.kind is not Kind.STRING:
            span = token.span if token else line.end
            self.fail(
                "KYN014", "expected a file name in double quotes", span, help='write `import "file.kyn"`'
            )
        path = nodes.String(token.span, unquote(line.next().text))
        self.expect_end(line)
        self.items.append(nodes.Import(line.span, path, self.take_pending(), line.comment))

    def read_header(self, line: _Line) -> None:
        word = line.next()
        if word.text not in BLOCKS:
            near = suggest(word.text, BLOCKS)
            self.report.add(
                "KYN008",
                f"unknown block `{word.text}`",
                word.span,
                help=[f"did you mean `{near}`?" if near else _HEADER_HELP],
            )
            self.open_block(line, word.text, None, known=False)
            return
        named = word.text in NAMED_BLOCKS
        name: nodes.Name | None = None
        token = line.peek()
        if line.at_name() and token:
            line.next()
            name = nodes.Name(token.span, token.text)
            if not named:
                self.report.add(
                    "KYN010", f"`{word.text}` takes no name", token.span, help=[f"write `{word.text}:`"]
                )
        elif named:
            at = token.span if token else line.end
            self.report.add("KYN010", f"`{word.text}` needs a name", at, help=[f"write `{word.text} Name:`"])
            name = nodes.Name(word.span, "")
        if line.at(":"):
            line.next()
            token = line.peek()
            if token is not None:
                self.report.add(
                    "KYN012",
                    "expected the end of the line",
                    token.span,
                    help=["the body starts on the next line"],
                )
        elif token := line.peek():
            self.report.add("KYN009", "expected `:`", token.span, help=["a block header ends with `:`"])
        else:
            self.report.add(
                "KYN009",
                "missing `:` at the end of the header",
                line.end,
                help=["a block header ends with `:`"],
            )
        self.open_block(line, word.text, name, known=True)

    def open_block(self, line: _Line, kind: str, name: nodes.Name | None, known: bool) -> None:
        self.close_block()
        node = nodes.Block(line.span, kind, name, (), self.take_pending(), line.comment)
        self.block = _OpenBlock(node, known)

    def close_block(self) -> None:
        """Finish the open block. Indented comments so far are its own; the rest lead what comes next."""
        block = self.block
        if block is None:
            return
        self.close_repeat(block)
        dangling = self.take_pending(deeper_than=0)
        self.block = None
        if not block.known:
            return
        if not block.body and not block.had_bad_line:
            self.report.add(
                "KYN016",
                f"`{block.node.kind}` has an empty body",
                block.node.span,
                help=["write its lines below, indented by four spaces"],
            )
        self.items.append(replace(block.node, body=tuple(block.body), dangling=dangling))

    # --- repeat ------------------------------------------------------------------------------------------

    def read_repeat(self, line: _Line, block: _OpenBlock, depth: int) -> None:
        if depth == 2:
            self.fail(
                "KYN017",
                "`repeat` inside `repeat`",
                line.tokens[0].span,
                help="write one `repeat` with the layers spelled out",
            )
        line.next()
        try:
            if line.peek() is None or line.at(":"):
                self.fail("KYN014", "`repeat` needs a count", line.tokens[0].span, help="write `repeat 3:`")
            count = self.read_value(line)
            if not line.at(":"):
                token = line.peek()
                at = token.span if token else line.end
                self.fail("KYN009", "expected `:` after the count", at, help="write `repeat 3:`")
            line.next()
            self.expect_end(line)
        except _SkipLine:
            block.had_bad_line = True
            count = nodes.Bool(line.span, True)
        self.open_repeat(block, line, count)

    def open_repeat(self, block: _OpenBlock, line: _Line, count: nodes.Value) -> None:
        block.repeat = _OpenRepeat(nodes.Repeat(line.span, count, (), self.take_pending(), line.comment))

    def close_repeat(self, block: _OpenBlock) -> None:
        repeat = block.repeat
        if repeat is None:
            return
        block.repeat = None
        dangling = self.take_pending(deeper_than=INDENT)
        if not repeat.body and not block.had_bad_line:
            self.report.add(
                "KYN016",
                "`repeat` has an empty body",
                repeat.node.span,
                help=["write its layers below, indented by eight spaces"],
            )
        block.body.append(replace(repeat.node, body=tuple(repeat.body), dangling=dangling))

    def take_pending(self, deeper_than: int | None = None) -> tuple[str, ...]:
        """Waiting comment lines: all of them, or those up to the last one indented deeper than
        `deeper_than`."""
        count = len(self.pending)
        if deeper_than is not None:
            deep = [i for i, (indent, text) in enumerate(self.pending) if text and indent > deeper_than]
            count = deep[-1] + 1 if deep else 0
        taken, self.pending = self.pending[:count], self.pending[count:]
        return tuple(text for _, text in taken)

    # --- statements --------------------------------------------------------------------------------------

    def read_entry(self, line: _Line) -> nodes.Entry:
        key = line.next()
        if key.kind is not Kind.NAME:
            self.fail("KYN011", "expected `key = value`", key.span)
        if not line.at("="):
            token = line.peek()
            at = token.span if token else line.end
            self.fail("KYN011", f"expected `=` after `{key.text}`", at, help=f"write `{key.text} = value`")
        line.next()
        value = self.read_value(line)
        self.expect_end(line)
        return nodes.Entry(line.span, nodes.Name(key.span, key.text), value)

    def read_layer(self, line: _Line) -> nodes.Layer:
        name = line.next()
        if name.kind is not Kind.NAME:
            self.fail("KYN011", "expected a layer", name.span, help="a layer line starts with its name")
        if line.at("("):
            self.fail(
                "KYN012",
                "a layer is not called",
                line.tokens[1].span,
                help=f"write `{name.text} 64 key=value relu`, with spaces",
            )
        args: list[nodes.Value] = []
        options: list[nodes.Option] = []
        activation: nodes.Name | None = None
        while (token := line.peek()) is not None:
            if line.at_name() and line.at("=", 1):
                options.append(self.read_option(line))
            elif line.at_name() and token.text not in ("true", "false") and not line.at("(", 1):
                line.next()
                if (after := line.peek()) is not None and not line.at(",") and after.kind is not Kind.PUNCT:
                    self.fail(
                        "KYN015",
                        f"`{token.text}` must come last",
                        token.span,
                        help="a layer line is: name, values, key=value options, activation",
                    )
                activation = nodes.Name(token.span, token.text)
                self.expect_end(line)
            elif token.kind is Kind.PUNCT and token.text != "[":
                advice = "values on a layer line are separated by spaces" if token.text == "," else ""
                self.fail("KYN012", f"unexpected `{token.text}`", token.span, help=advice)
            else:
                value = self.read_value(line)
                if options:
                    self.fail(
                        "KYN015",
                        "positional value after an option",
                        value.span,
                        help="a layer line is: name, values, key=value options, activation",
                    )
                args.append(value)
        key = nodes.Name(name.span, name.text)
        return nodes.Layer(line.span, key, tuple(args), tuple(options), activation)

    # --- values ------------------------------------------------------------------------------------------

    def read_option(self, line: _Line, depth: int = 0) -> nodes.Option:
        key = line.next()
        line.next()  # the `=`, which the caller saw
        value = self.read_value(line, depth)
        return nodes.Option(key.span.to(value.span), nodes.Name(key.span, key.text), value)

    def read_value(self, line: _Line, depth: int = 0) -> nodes.Value:
        token = line.peek()
        if token is None:
            self.fail("KYN014", "expected a value", line.end)
        if depth > MAX_DEPTH:
            self.fail("KYN017", "value nested too deeply", token.span, note=f"at most {MAX_DEPTH} levels")
        if line.at("["):
            return self.read_list(line, depth)
        if token.kind is Kind.PUNCT:
            self.fail("KYN014", f"expected a value, found `{token.text}`", token.span)
        line.next()
        match token.kind:
            case Kind.INT:
                return nodes.Int(token.span, int(token.text), token.text)
            case Kind.FLOAT:
                return nodes.Float(token.span, float(token.text), token.text)
            case Kind.STRING:
                return nodes.String(token.span, unquote(token.text))
            case Kind.PARAM:
                return nodes.Param(token.span, token.text[1:])
            case _ if line.at("("):
                return self.read_call(line, nodes.Name(token.span, token.text), depth)
            case _ if token.text in ("true", "false"):
                return nodes.Bool(token.span, token.text == "true")
        if token.text in ("True", "False"):
            advice = f"write `{token.text.lower()}`"
            self.fail("KYN014", f"expected a value, found `{token.text}`", token.span, help=advice)
        return nodes.Name(token.span, token.text)

    def read_list(self, line: _Line, depth: int) -> nodes.List:
        opening = line.next()
        items: list[nodes.Value] = []
        while not line.at("]"):
            if line.peek() is None:
                self.fail_unclosed(line, opening, "]")
            items.append(self.read_value(line, depth + 1))
            self.expect_comma(line, opening, "]")
        return nodes.List(opening.span.to(line.next().span), tuple(items))

    def read_call(self, line: _Line, name: nodes.Name, depth: int) -> nodes.Call:
        opening = line.next()
        args: list[nodes.Value] = []
        options: list[nodes.Option] = []
        while not line.at(")"):
            if line.peek() is None:
                self.fail_unclosed(line, opening, ")")
            if line.at_name() and line.at("=", 1):
                options.append(self.read_option(line, depth + 1))
            else:
                value = self.read_value(line, depth + 1)
                if options:
                    self.fail(
                        "KYN015",
                        "positional value after an option",
                        value.span,
                        help="inside a call, values come before key=value options",
                    )
                args.append(value)
            self.expect_comma(line, opening, ")")
        return nodes.Call(name.span.to(line.next().span), name, tuple(args), tuple(options))

    def expect_comma(self, line: _Line, opening: Token, closing: str) -> None:
        """A comma, or nothing before the closing bracket (a comma there is allowed)."""
        if line.at(","):
            line.next()
            return
        token = line.peek()
        if token is None:
            self.fail_unclosed(line, opening, closing)
        if not line.at(closing):
            self.fail("KYN012", f"expected `,` or `{closing}`, found `{printable(token.text)}`", token.span)

    def expect_end(self, line: _Line) -> None:
        token = line.peek()
        if token is not None:
            advice = "write a list as `[a, b]`" if token.text == "," else ""
            self.fail(
                "KYN012", f"unexpected `{printable(token.text)}` after the value", token.span, help=advice
            )

    # --- errors ------------------------------------------------------------------------------------------

    def fail_unclosed(self, line: _Line, opening: Token, closing: str) -> NoReturn:
        self.unclosed = line.indent
        self.report.add(
            "KYN013",
            f"`{opening.text}` is never closed",
            opening.span,
            "opened here",
            more=[Label(line.end, f"expected `{closing}`")],
            notes=["a value ends on the line on which it starts"],
        )
        raise _SkipLine

    def fail(self, code: str, message: str, span: Span, *, help: str = "", note: str = "") -> NoReturn:
        self.report.add(code, message, span, help=[help], notes=[note] if note else [])
        raise _SkipLine


_HEADER_HELP = f'blocks are {join_names(BLOCKS)}, and `import "file.kyn"`'

"""Kernels as text: readable loops with types on every binder, and back to an equal kernel.

    kernel scale(x: r float32, y: w float32)
        for i in lo..hi vector 16:
            let a: float32 = x[i]
            y[i] = maximum(a * 2.0f32, 0.0f32)

``print_kernel`` names sub-expressions that a statement uses more than once (``%0 = ...`` on a line before it), so the text is
never larger than the expression. ``parse_kernel`` reads what ``print_kernel`` writes; it checks the grammar and that names exist,
``verify`` checks the rest. The grammar is in docs/kernel.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS
from tilewright.kernel.ir import (
    Buf,
    Check,
    Expr,
    If,
    Kernel,
    Let,
    Loop,
    Prefetch,
    Reg,
    Scratch,
    Set,
    Stmt,
    Store,
    across,
    bitcast,
    cast,
    const,
    dotacc,
    fma,
    idiv,
    imod,
    load,
    op,
    rarely,
    reg,
    var,
)  # fmt: skip

__all__ = ["KernelSyntaxError", "parse_kernel", "print_expression", "print_kernel"]

_SUFFIX = {d: d.kind.replace("b", "") + str(d.bits) for d in dt.ALL if not d.is_bool} | {dt.bfloat16: "bf16"}
_SUFFIX |= {d: f"q{n}" for n, d in enumerate(dt.STORAGE)}
_BY_SUFFIX = {suffix: d for d, suffix in _SUFFIX.items()}
# Infix operators from weakest to strongest; one level's operators group to the left.
_LEVELS: tuple[dict[str, str], ...] = (
    {"==": "eq", "!=": "ne", "<=": "le", ">=": "ge", "<": "lt", ">": "gt"},
    {"|": "bitor"},
    {"^": "bitxor"},
    {"&": "bitand"},
    {"<<": "shl", ">>": "shr"},
    {"+": "add", "-": "sub"},
    {"*": "mul", "/": "div", "//": "idiv", "%": "imod"},
)
_INFIX = {name: (symbol, n) for n, level in enumerate(_LEVELS) for symbol, name in level.items()}
_SMALL = 3  # expressions of up to this many nodes are repeated rather than named


class KernelSyntaxError(ValueError):
    """Text is not a kernel; the message has the line number, the line and what was expected."""


# ---- printing -----------------------------------------------------------------------------------------------------


def print_kernel(kernel: Kernel) -> str:
    """The text of a kernel, ending in a newline."""
    arguments = ", ".join(
        f"{b.name}: {b.access} {'stream ' if b.stream else ''}{b.dtype}" for b in kernel.buffers
    )
    lines = [f"kernel {kernel.name}({arguments})"]
    lines += [f"    scratch {s.name}: {s.dtype}[{s.size}]" for s in kernel.scratch]
    _Printer(lines).body(kernel.body, 1)
    return "\n".join(lines) + "\n"


def print_expression(e: Expr) -> str:
    """The text of one expression, with nothing shared."""
    return _Printer([]).text(e)


def _literal(e: Expr) -> str:
    if e.dtype.is_bool:
        return "true" if e.attr else "false"
    if e.dtype is dt.int64:
        return str(e.attr)
    number = repr(e.attr)
    return f"{number}{'.' if number[-1] in 'fn' else ''}{_SUFFIX[e.dtype]}"


class _Printer:
    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.shared: dict[Expr, str] = {}

    def body(self, statements: Sequence[Stmt], depth: int) -> None:
        if not statements:
            self.lines.append("    " * depth + "pass")
        for s in statements:
            self.statement(s, depth)

    def line(self, depth: int, text: Callable[[], str], *expressions: Expr | None) -> None:
        """One statement's line, after lines for the parts its expressions share."""
        pad = "    " * depth
        self.shared = {}
        for e in _repeated([e for e in expressions if e is not None]):
            value = self.text(e)
            self.shared[e] = f"%{len(self.shared)}"
            self.lines.append(f"{pad}{self.shared[e]} = {value}")
        self.lines.append(pad + text())

    def statement(self, s: Stmt, depth: int) -> None:
        t = self.text
        match s:
            case Loop():
                kind = {"serial": "", "unroll": " unroll", "vector": f" vector {s.lanes}"}[s.kind]
                self.line(
                    depth, lambda: f"for {s.var} in {t(s.start, 5)}..{t(s.stop, 5)}{kind}:", s.start, s.stop
                )
                self.body(s.body, depth + 1)
            case Store():
                mask = s.mask

                def stored() -> str:
                    return f"{s.buffer}[{t(s.index)}] = {t(s.value)}" + (
                        f" if {t(mask)}" if mask is not None else ""
                    )

                self.line(depth, stored, s.index, s.value, mask)
            case Prefetch():
                near = " cache 1" if s.cache == 1 else ""
                self.line(depth, lambda: f"prefetch {s.buffer}[{t(s.index)}]{near}", s.index)
            case Let():
                self.line(depth, lambda: f"let {s.name}: {s.value.dtype} = {t(s.value)}", s.value)
            case Reg():
                shape = f"[{', '.join(map(str, s.shape))}]" if s.shape else ""
                lanes = f" vector {s.lanes}" if s.lanes else ""
                self.line(depth, lambda: f"reg {s.name}: {s.dtype}{shape}{lanes} = {t(s.init)}", s.init)
            case Set():
                self.line(depth, lambda: f"{s.name}{self.place(s.at)} := {t(s.value)}", s.value)
            case Check():
                self.line(depth, lambda: f"check {t(s.condition)} else {s.code}", s.condition)
            case If():
                self.line(depth, lambda: f"if {t(s.condition)}:", s.condition)
                self.body(s.then, depth + 1)
                if s.orelse:
                    self.lines.append("    " * depth + "else:")
                    self.body(s.orelse, depth + 1)

    def place(self, at: Sequence[Expr]) -> str:
        return f"[{', '.join(self.text(i) for i in at)}]" if at else ""

    def text(self, e: Expr, level: int = 0) -> str:
        """``e`` as an operand that binds at least as strongly as ``level``."""
        if e in self.shared:
            return self.shared[e]
        t = self.text
        if e.op in _INFIX:
            symbol, strength = _INFIX[e.op]
            inner = f"{t(e.args[0], strength)} {symbol} {t(e.args[1], strength + 1)}"
            return f"({inner})" if strength < level else inner
        match e.op:
            case "const":
                return _literal(e)
            case "var":
                return str(e.attr)
            case "load" if len(e.args) > 1:
                return f"({e.attr}[{t(e.args[0])}] if {t(e.args[1])} else {t(e.args[2])})"
            case "load":
                return f"{e.attr}[{t(e.args[0])}]"
            case "reg":
                return f"{e.attr}{self.place(e.args)}"
            case "cast":
                return f"{e.dtype}({t(e.args[0])})"
            case "bitcast":
                return f"bitcast.{e.dtype}({t(e.args[0])})"
            case "across":
                return f"across.{e.attr}({t(e.args[0])})"
            case "dotacc":
                return f"dotacc.{e.attr}({', '.join(t(a) for a in e.args)})"
        return f"{e.op}({', '.join(t(a) for a in e.args)})"


def _repeated(roots: Sequence[Expr]) -> list[Expr]:
    """Sub-expressions worth a name, each after those it contains: used more than once, or too deep to print in one piece."""
    uses: dict[Expr, int] = {}
    size: dict[Expr, int] = {}
    height: dict[Expr, int] = {}
    order: list[Expr] = []
    named: set[Expr] = set()
    stack = list(reversed(roots))
    for root in roots:
        uses[root] = uses.get(root, 0) + 1
    while stack:
        e = stack[-1]
        pending = [a for a in e.args if a not in size]
        if pending:
            stack.extend(pending)
            continue
        stack.pop()
        if e in size:
            continue
        for a in e.args:
            uses[a] = uses.get(a, 0) + 1
        size[e] = 1 + sum(min(size[a], _SMALL + 1) for a in e.args)
        height[e] = 1 + max((height[a] for a in e.args if a not in named), default=0)
        if height[e] > 24 and e.op not in ("reg", "const"):
            named.add(e)
        order.append(e)
    protected = {a for e in order if e.op == "across" for a in e.args} | {
        a for e in order if e.op in ("idiv", "imod") for a in e.args[1:]
    }
    return [
        e
        for e in order
        if e not in protected and (e in named or (uses.get(e, 0) > 1 and size[e] > _SMALL)) and e.op != "reg"
    ]


# ---- parsing ------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"\s*(?:"
    r"(?P<number>\d+(?:\.\d+)?(?:e[+-]?\d+)?|(?:inf|nan)\.(?=b?f\d))(?P<suffix>bf16|[iuf]\d+)?"
    r"|(?P<name>[A-Za-z_]\w*(?:\.\w+)*)"
    r"|(?P<alias>%\d+)"
    r"|(?P<symbol>\.\.|:=|==|!=|<=|>=|<<|>>|//|[-+*/%&|^<>=()\[\]:,])"
    r")"
)
Token = tuple[str, str, str]  # kind, text, a number's suffix


def parse_kernel(text: str) -> Kernel:
    """The kernel that ``text`` describes. Raises ``KernelSyntaxError``."""
    return _Parser(text).kernel()


class _Line:
    """The tokens of one line, read from left to right."""

    def __init__(self, number: int, text: str) -> None:
        self.number, self.text = number, text
        self.indent = (len(text) - len(text.lstrip(" "))) // 4
        self.tokens: list[Token] = []
        self.at = 0
        position, stripped = 0, text.rstrip()
        while position < len(stripped):
            match = _TOKEN.match(stripped, position)
            if match is None or match.end() == position:
                self.fail(f"cannot read {stripped[position:].strip()!r}")
            kind = match.lastgroup if match.lastgroup != "suffix" else "number"
            self.tokens.append((str(kind), match[str(kind)], match["suffix"] or ""))
            position = match.end()

    def fail(self, message: str) -> NoReturn:
        raise KernelSyntaxError(f"line {self.number}: {message}, in: {self.text.strip()}")

    def peek(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else ""

    def take(self) -> Token:
        if self.at >= len(self.tokens):
            self.fail("the line ends too early")
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, text: str) -> bool:
        found = self.peek() == text
        self.at += found
        return found

    def expect(self, text: str) -> None:
        if not self.accept(text):
            self.fail(f"expected {text!r}, found {self.peek() or 'the end'!r}")

    def name(self) -> str:
        kind, text, _ = self.take()
        if kind != "name":
            self.fail(f"expected a name, found {text!r}")
        return text

    def integer(self) -> int:
        kind, text, suffix = self.take()
        if kind != "number" or not text.isdigit() or suffix:
            self.fail(f"expected a whole number, found {text!r}")
        return int(text)

    def dtype(self) -> DType:
        name = self.name()
        if name not in dt.BY_NAME:
            self.fail(f"there is no type {name}")
        return dt.BY_NAME[name]

    def end(self) -> None:
        if self.at < len(self.tokens):
            self.fail(f"unexpected {self.peek()!r}")


class _Parser:
    def __init__(self, text: str) -> None:
        lines = [_Line(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
        self.lines: Iterator[_Line] = iter(lines)
        self.line: _Line | None = next(self.lines, None)
        self.areas: dict[str, DType] = {}
        self.names: dict[str, DType] = {"lo": dt.int64, "hi": dt.int64}
        self.registers: dict[str, DType] = {}
        self.aliases: dict[str, Expr] = {}

    def advance(self, line: _Line) -> None:
        line.end()
        self.line = next(self.lines, None)

    def kernel(self) -> Kernel:
        line = self.line
        if line is None:
            raise KernelSyntaxError("line 1: the text is empty; expected: kernel NAME(...)")
        line.expect("kernel")
        name = line.name()
        line.expect("(")
        buffers: list[Buf] = []
        while not line.accept(")"):
            if buffers:
                line.expect(",")
            buffer = line.name()
            line.expect(":")
            access = line.name()
            stream = line.accept("stream")
            buffers.append(Buf(buffer, line.dtype(), access, stream))
            self.areas[buffer] = buffers[-1].dtype
        self.advance(line)
        scratch = []
        while self.line is not None and self.line.accept("scratch"):
            line = self.line
            area = line.name()
            line.expect(":")
            dtype = line.dtype()
            line.expect("[")
            scratch.append(Scratch(area, dtype, line.integer()))
            line.expect("]")
            self.areas[area] = dtype
            self.advance(line)
        body = self.body(1)
        if self.line is not None:
            self.line.fail("unexpected indentation")
        return Kernel(tuple(buffers), body, tuple(scratch), name)

    # ---- statements -----------------------------------------------------------------------------------------------

    def body(self, depth: int) -> tuple[Stmt, ...]:
        names, registers = dict(self.names), dict(self.registers)
        statements: list[Stmt] = []
        while self.line is not None and self.line.indent == depth:
            line = self.line
            if line.accept("pass"):
                self.advance(line)
            elif line.tokens[0][0] == "alias":
                alias = line.take()[1]
                line.expect("=")
                self.aliases[alias] = self.expression(line)
                self.advance(line)
            else:
                statements.append(self.statement(line, depth))
        self.names, self.registers = names, registers
        return tuple(statements)

    def statement(self, line: _Line, depth: int) -> Stmt:
        if line.accept("for"):
            return self.loop(line, depth)
        if line.accept("if"):
            condition = self.expression(line)
            then, orelse = self.block(line, depth), ()
            if self.line is not None and self.line.indent == depth and self.line.accept("else"):
                return If(condition, then, self.block(self.line, depth))
            return If(condition, then, orelse)
        if line.accept("let"):
            name = line.name()
            line.expect(":")
            dtype = line.dtype()
            line.expect("=")
            value = self.expression(line)
            if value.dtype is not dtype:
                line.fail(f"{name} is declared {dtype}, and its value is {value.dtype}")
            self.names[name] = dtype
            self.advance(line)
            return Let(name, value)
        if line.accept("reg"):
            return self.register(line)
        if line.accept("check"):
            condition = self.expression(line)
            line.expect("else")
            code = line.integer()
            self.advance(line)
            return Check(condition, code)
        if line.accept("prefetch"):
            name = line.name()
            at = self.indices(line)
            if len(at) != 1:
                line.fail(f"a prefetch of {name} takes one index")
            cache = line.integer() if line.accept("cache") else 2
            self.advance(line)
            return Prefetch(name, at[0], cache)
        return self.assignment(line)

    def block(self, line: _Line, depth: int) -> tuple[Stmt, ...]:
        line.expect(":")
        self.advance(line)
        if self.line is None or self.line.indent != depth + 1:
            line.fail("expected an indented block below")
        return self.body(depth + 1)

    def loop(self, line: _Line, depth: int) -> Loop:
        name = line.name()
        line.expect("in")
        start = self.expression(line)
        line.expect("..")
        stop = self.expression(line)
        kind, lanes = "serial", 0
        if line.accept("unroll"):
            kind = "unroll"
        elif line.accept("vector"):
            kind, lanes = "vector", line.integer()
        before = self.names.get(name)
        self.names[name] = dt.int64
        body = self.block(line, depth)
        del self.names[name]
        if before is not None:
            self.names[name] = before
        return Loop(name, start, stop, body, kind, lanes)

    def register(self, line: _Line) -> Reg:
        name = line.name()
        line.expect(":")
        dtype = line.dtype()
        shape: list[int] = []
        if line.accept("["):
            shape.append(line.integer())
            while line.accept(","):
                shape.append(line.integer())
            line.expect("]")
        lanes = line.integer() if line.accept("vector") else 0
        line.expect("=")
        init = self.expression(line)
        self.registers[name] = dtype
        self.advance(line)
        return Reg(name, dtype, init, tuple(shape), lanes)

    def assignment(self, line: _Line) -> Stmt:
        name = line.name()
        at = self.indices(line)
        if line.accept(":="):
            value = self.expression(line)
            self.advance(line)
            return Set(name, value, at)
        line.expect("=")
        if len(at) != 1:
            line.fail(f"a store to {name} takes one index")
        value = self.expression(line)
        mask = self.expression(line) if line.accept("if") else None
        self.advance(line)
        return Store(name, at[0], value, mask)

    def indices(self, line: _Line) -> tuple[Expr, ...]:
        found: list[Expr] = []
        if line.accept("["):
            found.append(self.expression(line))
            while line.accept(","):
                found.append(self.expression(line))
            line.expect("]")
        return tuple(found)

    # ---- expressions ----------------------------------------------------------------------------------------------

    def expression(self, line: _Line, level: int = 0) -> Expr:
        if level == len(_LEVELS):
            return self.operand(line)
        left = self.expression(line, level + 1)
        while line.peek() in _LEVELS[level] and line.tokens[line.at][0] == "symbol":
            name = _LEVELS[level][line.take()[1]]
            left = self.apply(line, name, [left, self.expression(line, level + 1)])
        return left

    def operand(self, line: _Line) -> Expr:
        kind, text, suffix = line.take()
        if kind == "number" or text == "-":
            if text == "-":
                sign, (kind, text, suffix) = "-", line.take()
            else:
                sign = ""
            if kind != "number":
                line.fail(f"expected a number after -, found {text!r}")
            dtype = _BY_SUFFIX.get(suffix, dt.int64)
            real = dtype.is_float or dtype.is_storage
            if not real and not text.isdigit():
                line.fail(f"{text} is not a whole number; add the suffix of a float type")
            return const(float(sign + text.rstrip(".")) if real else int(sign + text), dtype)
        if kind == "alias":
            if text not in self.aliases:
                line.fail(f"{text} is not defined")
            return self.aliases[text]
        if text == "(":
            return self.parenthesis(line)
        if kind != "name":
            line.fail(f"expected a value, found {text!r}")
        if line.peek() == "(":
            return self.call(line, text)
        return self.named(line, text)

    def parenthesis(self, line: _Line) -> Expr:
        inner = self.expression(line)
        if line.accept("if"):
            mask = self.expression(line)
            line.expect("else")
            other = self.expression(line)
            if inner.op != "load" or len(inner.args) != 1:
                line.fail("only a load takes `if ... else`; choose values with where(...)")
            inner = load(inner.attr, inner.args[0], inner.dtype, mask, other)
        line.expect(")")
        return inner

    def named(self, line: _Line, name: str) -> Expr:
        if name in ("true", "false"):
            return const(name == "true", dt.bool_)
        if name in self.registers:
            return reg(name, self.registers[name], *self.indices(line))
        if name in self.areas and line.peek() == "[":
            at = self.indices(line)
            if len(at) != 1:
                line.fail(f"a load from {name} takes one index")
            return load(name, at[0], self.areas[name])
        if name not in self.names:
            line.fail(f"{name} is not defined")
        return var(name, self.names[name])

    def call(self, line: _Line, name: str) -> Expr:
        line.expect("(")
        args: list[Expr] = []
        while not line.accept(")"):
            if args:
                line.expect(",")
            args.append(self.expression(line))
        return self.apply(line, name, args)

    def apply(self, line: _Line, name: str, args: list[Expr]) -> Expr:
        head, _, rest = name.partition(".")
        try:
            if name in dt.BY_NAME:
                return cast(args[0], dt.BY_NAME[name])
            if head == "bitcast":
                return bitcast(args[0], dt.BY_NAME[rest])
            if head == "across":
                return across(rest, args[0])
            if head == "dotacc":
                return dotacc(rest, *args)
            if name in ("fma", "rarely"):
                return (fma if name == "fma" else rarely)(*args)
            if name in ("idiv", "imod"):
                return (idiv if name == "idiv" else imod)(args[0], args[1].attr)
            if name not in SCALAR_OPS:
                line.fail(f"there is no operation {name}")
            return op(name, *args)
        except (TypeError, KeyError, IndexError, AssertionError) as error:
            line.fail(f"{name}: {error}")

"""Graphs as text, and back to the same values.

    graph(%x: float32[2, 3], %1: float32[3]) {
        %2 = broadcast %1 shape=[2, 3] : float32[2, 3]
        %3 = add %x, %2 : float32[2, 3]
        return %3
    }

Every binder carries its type. Interior values are numbered in the order of computation, behind the inputs,
which may have names. Static arguments follow the operands as ``name=value``: integers, words, and lists in
brackets; a symbolic size is ``name:low..high``, or an expression of such: ``3*name:1..64+2``. A constant
shows its number instead.

The body of a loop stands in braces on its line, its statements apart by semicolons; those of branches in a list:

    %3 = scan %0, %1, %2 body={(%0: float32[], %1: float32[]); %2 = mul %0, %1 : float32[]; return %2} length=4 ... : ...

Parsing builds every value through ``make``, so it checks types again and yields the interned values
themselves: the very same objects when the text's inputs are bound to the same leaves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.shape import Shape, Size
from tilewright.core.size import parse_size, spell
from tilewright.graph.body import Body
from tilewright.graph.ir import OPS, TensorType, Value, constant, input_value, make, topological

__all__ = ["format_attribute", "format_type", "format_value", "parse_graph", "print_graph"]


# ---- printing ----------------------------------------------------------------------------------------------


class Ends(Protocol):
    """Where a graph begins and ends: a ``Graph``, or whatever has its inputs and outputs."""

    @property
    def inputs(self) -> Sequence[Value]: ...

    @property
    def outputs(self) -> Sequence[Value]: ...


def print_graph(graph: Ends, names: Mapping[Value, str] | None = None) -> str:
    """The text of a graph from its inputs (leaves, or interior values taken as leaves) to its outputs.

    ``names`` maps some inputs to names (letters, digits, ``_`` and ``.``, unique, not a number).
    """
    inputs, outputs = graph.inputs, graph.outputs
    label = {value: str(n) for n, value in enumerate(inputs)}
    for value, name in (names or {}).items():
        if not re.fullmatch(r"[A-Za-z_][\w.]*", name) or value not in label or name in label.values():
            raise ValueError(f"{name!r} cannot name the value {value!r}: names are unique words for inputs")
        label[value] = name
    leaves = set(inputs)
    lines = []
    for value in topological(outputs, stop=leaves.__contains__):
        if value not in leaves:
            label[value] = str(len(label))
            lines.append(f"    {format_value(value, label)}\n")
    header = ", ".join(f"%{label[v]}: {format_type(v.type)}" for v in inputs)
    results = ", ".join(f"%{label[v]}" for v in outputs)
    return f"graph({header}) {{\n{''.join(lines)}    return{' ' if results else ''}{results}\n}}\n"


def format_value(value: Value, label: Mapping[Value, str]) -> str:
    """One line: ``%3 = add %1, %2 : float32[3, 4]``. Values without a label print as ``%?``."""
    if value.op == "constant":
        words = ["constant", _format_number(value["value"], value.dtype)]
    else:
        operands = ", ".join(f"%{label.get(v, '?')}" for v in value.inputs)
        attributes = [f"{name}={format_attribute(item)}" for name, item in value.attrs]
        words = [value.op, *([operands] if operands else []), *attributes]
    return f"%{label.get(value, '?')} = {' '.join(words)} : {format_type(value.type)}"


def format_type(type: TensorType) -> str:
    """``float32[3, 4]``; ``float32[]`` is a scalar."""
    return f"{type.dtype.name}{format_attribute(type.shape)}"


def format_attribute(item: Any) -> str:
    """A static argument as it stands behind ``name=``."""
    if isinstance(item, tuple | list):
        return f"[{', '.join(map(format_attribute, item))}]"
    if isinstance(item, DType):
        return item.name
    if isinstance(item, Size):
        return spell(item)
    if isinstance(item, bool):
        return "true" if item else "false"
    if isinstance(item, str):
        return item
    if isinstance(item, Body):
        lines = [line.strip() for line in print_graph(item).split("\n")]
        return f"{{{lines[0].removeprefix('graph').removesuffix(' {')}; {'; '.join(lines[1:-2])}}}"
    if not hasattr(item, "__index__"):  # a derivative rule of the user's: it has a name, and no text to parse
        return str(item)
    return str(int(item))


def _format_number(number: Any, dtype: DType) -> str:
    """The shortest text that rounds to this element."""
    if dtype.is_bool:
        return "true" if number else "false"
    if dtype.is_complex:
        return repr(complex(number)).strip("()")
    if dtype is dt.float32:
        return str(np.float32(number))
    return repr(number)


# ---- parsing -----------------------------------------------------------------------------------------------


def parse_graph(text: str, inputs: Sequence[Value] | None = None) -> tuple[list[Value], list[Value]]:
    """The inputs and outputs of a printed graph.

    ``inputs`` are the values that stand for the graph's inputs; without them the n-th is ``input_value(...,
    id=n)``. Raises ``ValueError`` with the line's number and text where it is not well formed or does not fit
    together.
    """
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines or not (header := re.fullmatch(r"graph\((.*)\) \{", lines[0][1])):
        raise ValueError("line 1: a graph begins with 'graph(%0: float32[2], ...) {'")
    scope: dict[str, Value] = {}
    leaves: list[Value] = []
    results: list[Value] | None = None
    for n, line in lines:
        try:
            if n == lines[0][0]:
                leaves = _parse_inputs(header[1], inputs, scope)
            elif results is not None:
                if line != "}" or (n, line) != lines[-1]:
                    raise ValueError("only '}' follows the return")
            elif line == "return" or line.startswith("return "):
                results = [_look_up(w.strip(), scope) for w in line[6:].split(",") if w.strip()]
            else:
                _parse_binding(line, scope)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"line {n}: {error}\n    {line}") from None
    if results is None or lines[-1][1] != "}":
        raise ValueError(f"line {lines[-1][0]}: a graph ends with 'return ...' and '}}'")
    return leaves, results


def _parse_inputs(text: str, given: Sequence[Value] | None, scope: dict[str, Value]) -> list[Value]:
    leaves: list[Value] = []
    reader = _Reader(text)
    while reader.more():
        if leaves:
            reader.take(",")
        name = reader.name()
        reader.take(":")
        type = reader.type()
        n = len(leaves)
        if given is None:
            leaf = input_value(type.dtype, type.shape, id=n)
        elif n >= len(given) or given[n].type != type:
            raise ValueError(f"input %{name} is {type}, and no such value is given for it")
        else:
            leaf = given[n]
        _bind(name, leaf, scope)
        leaves.append(leaf)
    if given is not None and len(leaves) != len(given):
        raise ValueError(f"{len(given)} values are given for {len(leaves)} inputs")
    return leaves


def _parse_binding(line: str, scope: dict[str, Value]) -> None:
    left, _, right = line.partition(" = ")
    body, _, ending = right.rpartition(" : ")
    op, _, rest = body.partition(" ")
    rest, inner = _take_bodies(rest)
    name, reader = _Reader(left).name(), _Reader(ending)
    type = reader.type()
    reader.end()
    if op == "constant":
        value = constant(_parse_number(rest, type.dtype), type.dtype)
    else:
        if op not in OPS:
            raise ValueError(f"unknown graph operation {op!r}")
        operands, attributes = _parse_arguments(rest, scope)
        if inner:  # they are the first static arguments of all operations that have them
            attributes = (
                {"body": inner[0], **attributes} if op != "switch" else {"branches": inner, **attributes}
            )
        value = make(op, operands, **attributes)
    if value.type != type:
        raise ValueError(f"the type is {format_type(value.type)}, not {format_type(type)}")
    _bind(name, value, scope)


def _take_bodies(text: str) -> tuple[str, tuple[Body, ...]]:
    """The text without its ``body={...}`` or ``branches=[{...}, ...]``, and these bodies."""
    found = re.search(r"\b(body=|branches=\[)\{", text)
    if found is None:
        return text, ()
    depth, begin, pieces, bodies = 0, found.end(), list[str](), list[Body]()
    for at in range(found.end() - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0 and text[at] == "]":
            return text[: found.start()] + text[at + 1 :], tuple(bodies)
        if (depth == 0 and text[at] == "}") or (depth == 1 and text[at] == ";"):
            pieces.append(text[begin:at].strip())
            begin = at + 1
        elif depth == 1 and text[at] == "{":
            begin = at + 1
        if depth == 0 and text[at] == "}":
            lines = [f"graph{pieces[0]} {{", *pieces[1:], "}"]
            bodies.append(Body.of(*parse_graph("\n".join(lines))))
            pieces = []
            if found[1] == "body=":
                return text[: found.start()] + text[at + 1 :], tuple(bodies)
    raise ValueError("a body's '{' has no '}'")


def _parse_arguments(text: str, scope: Mapping[str, Value]) -> tuple[list[Value], dict[str, Any]]:
    reader = _Reader(text)
    operands: list[Value] = []
    while reader.peek().startswith("%"):
        operands.append(_look_up("%" + reader.name(), scope))
        if reader.peek() != ",":
            break
        reader.take(",")
    attributes: dict[str, Any] = {}
    while reader.more():
        name = reader.next()
        reader.take("=")
        item = reader.item()
        attributes[name] = _dtype(item) if name == "dtype" else item
    return operands, attributes


def _bind(name: str, value: Value, scope: dict[str, Value]) -> None:
    if name in scope:
        raise ValueError(f"%{name} is defined twice")
    scope[name] = value


def _look_up(word: str, scope: Mapping[str, Value]) -> Value:
    value = scope.get(word[1:])
    if value is None or not word.startswith("%"):
        raise ValueError(f"{word} is not defined above")
    return value


def _dtype(name: str) -> DType:
    if name not in dt.BY_NAME:
        raise ValueError(f"no data type is called {name!r}")
    return dt.BY_NAME[name]


def _parse_number(word: str, dtype: DType) -> bool | int | float | complex:
    if dtype.is_bool:
        if word not in ("true", "false"):
            raise ValueError(f"a bool is true or false, not {word!r}")
        return word == "true"
    return int(word) if dtype.is_integer else float(word) if dtype.is_float else complex(word)


class _Reader:
    """The tokens of a piece of a line."""

    TOKEN = re.compile(r"\s*(%[\w.]+|[-\w:.*+/()]*:\d+\.\.\d+[-\w:.*+/()]*|-?\d+|[A-Za-z_]\w*|[\[\],=:])")

    def __init__(self, text: str) -> None:
        self.tokens: list[str] = []
        at = 0
        while text[at:].strip():
            found = self.TOKEN.match(text, at)
            if not found:
                raise ValueError(f"cannot read {text[at:].strip()!r}")
            self.tokens.append(found[1])
            at = found.end()
        self.at = 0

    def more(self) -> bool:
        return self.at < len(self.tokens)

    def peek(self) -> str:
        return self.tokens[self.at] if self.more() else ""

    def next(self) -> str:
        token = self.peek()
        if not token:
            raise ValueError("the line ends too early")
        self.at += 1
        return token

    def take(self, token: str) -> None:
        if self.peek() != token:
            raise ValueError(f"expected {token!r}, found {self.peek() or 'the end'!r}")
        self.at += 1

    def end(self) -> None:
        if self.more():
            raise ValueError(f"{self.peek()!r} is too much")

    def name(self) -> str:
        token = self.next()
        if not token.startswith("%"):
            raise ValueError(f"expected a value such as %3, found {token!r}")
        return token[1:]

    def type(self) -> TensorType:
        dtype = _dtype(self.next())
        shape: Shape = self.item()
        if not isinstance(shape, tuple):
            raise ValueError(f"a type is written float32[2, 3], found {dtype}{shape}")
        return TensorType(dtype, shape)

    def item(self) -> Any:
        """An integer, a word, a symbolic size, or a list of these as a tuple."""
        token = self.next()
        if token == "[":
            items: list[Any] = []
            while self.peek() != "]":
                if items:
                    self.take(",")
                items.append(self.item())
            self.take("]")
            return tuple(items)
        if token in ("true", "false"):
            return token == "true"
        if re.fullmatch(r"-?\d+", token):
            return int(token)
        if ".." in token:
            return parse_size(token)
        if not token[0].isalpha():
            raise ValueError(f"expected a value, found {token!r}")
        return token

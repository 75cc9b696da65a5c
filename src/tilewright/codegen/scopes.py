"""Where instructions go: one list of lines for each level of the loop nest, and values that remember their level.

A value is written at the outermost level at which all it needs is known, so work that does not vary leaves inner loops as it
is emitted. Lines of an outer level can be added while an inner one is open, because an inner level's text is appended to its
parent only when it closes. Nothing here knows the kernel IR.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tilewright.codegen.instructions import Machine, of_type

__all__ = ["Function", "Level", "Scope", "Val"]


@dataclass(frozen=True, slots=True)
class Val:
    """An SSA value or constant: its text, how many lanes it has (0: one plain value) and the level that defines it."""

    text: str
    lanes: int = 0
    level: int = 0


@dataclass(slots=True)
class Scope:
    """An open level: the lines so far, the block they end in, and the names that its body changes.

    ``floor`` is the outermost level that instructions written now may go to, ``load_floor`` the same for memory reads: a branch
    that may not run keeps its work, and a loop that may not run keeps its reads.
    """

    label: str
    floor: int
    load_floor: int
    writes: frozenset[str] = frozenset()
    lines: list[str] = field(default_factory=list)
    pure: dict[str, str] = field(default_factory=dict)
    memo: list[tuple[dict[Any, Any], object]] = field(default_factory=list)  # entries to forget at the end


_MANGLED = {"float": "f32", "double": "f64", "half": "f16", "ptr": "p0"}
_VECTOR = re.compile(r"<(\d+) x (\w+)>")


def mangled(llvm_type: str) -> str:
    """A type's part of an overloaded intrinsic's name: ``<8 x float>`` gives ``v8f32``."""
    match = _VECTOR.fullmatch(llvm_type)
    if match:
        return f"v{match[1]}{mangled(match[2])}"
    return _MANGLED.get(llvm_type, llvm_type)


class Function:
    """The levels of one function under construction and its module's declarations."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.entry: list[str] = []
        self.declarations: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self.scopes: list[Scope] = [Scope("start", 0, 0)]
        self.names = 0
        self._levels: list[Level] = []

    @property
    def scope(self) -> Scope:
        """The innermost open level."""
        return self.scopes[-1]

    def fresh(self, prefix: str = "v") -> str:
        """A new name (without %)."""
        self.names += 1
        return f"{prefix}{self.names}"

    def at(self, *values: Val | None) -> Level:
        """The writer of the outermost level where all of ``values`` are defined and work may go."""
        level = self.scopes[-1].floor
        for value in values:
            if value is not None and value.level > level:
                level = value.level
        return self.level(level)

    def level(self, number: int) -> Level:
        """The writer of one level."""
        while len(self._levels) <= number:
            self._levels.append(Level(self, len(self._levels)))
        return self._levels[number]

    def here(self) -> Level:
        """The writer of the innermost open level."""
        return self.level(len(self.scopes) - 1)

    def open(
        self, label: str, writes: frozenset[str] = frozenset(), *, branch: bool = False, guard: bool = False
    ) -> Scope:
        """Start a level inside the innermost one. ``branch``: nothing leaves it; ``guard``: no memory read leaves it."""
        above, number = self.scopes[-1], len(self.scopes)
        floor = number if branch else above.floor
        scope = Scope(label, floor, number if branch or guard else above.load_floor, writes)
        self.scopes.append(scope)
        return scope

    def close(self) -> Scope:
        """End the innermost level; its lines are the caller's to place."""
        return self.scopes.pop()

    def splat(self, value: Val, scalar: str, lanes: int) -> str:
        """The text of ``value`` in every lane."""
        if value.lanes or not lanes:
            return value.text
        if not value.text.startswith("%"):
            return f"splat ({scalar} {value.text})"
        writer, vector = self.at(value), of_type(scalar, lanes)
        one = writer.write(f"insertelement {vector} poison, {scalar} {value.text}, i64 0")
        return writer.write(f"shufflevector {vector} {one}, {vector} poison, <{lanes} x i32> zeroinitializer")


class Level:
    """Writes instructions at one level (a ``Writer``)."""

    def __init__(self, function: Function, number: int) -> None:
        self.function, self.number = function, number
        self.machine = function.machine

    def write(self, instruction: str) -> str:
        """Append an instruction without side effects; the same text at this level gives the same value."""
        scope = self.function.scopes[self.number]
        found = scope.pure.get(instruction)
        if found is None:
            found = scope.pure[instruction] = "%" + self.function.fresh()
            scope.lines.append(f"  {found} = {instruction}")
        return found

    def read(self, instruction: str) -> str:
        """Append an instruction whose value depends on when it runs."""
        name = "%" + self.function.fresh()
        self.function.scopes[self.number].lines.append(f"  {name} = {instruction}")
        return name

    def do(self, instruction: str) -> None:
        """Append an instruction without a value."""
        self.function.scopes[self.number].lines.append("  " + instruction)

    def _callee(
        self,
        result: str,
        name: str,
        args: tuple[tuple[str, str], ...],
        overloads: tuple[str, ...],
        flags: str = "",
    ) -> str:
        if name.startswith("llvm."):
            name = ".".join((name, *map(mangled, overloads)))
        if not name.startswith("tw."):
            self.declare(name, result, *(t for t, _ in args))
        return f"call {flags}{result} @{name}({', '.join(f'{t} {x}' for t, x in args)})"

    def call(self, result: str, name: str, *args: tuple[str, str], flags: str = "") -> str:
        """Append a call of a pure function; intrinsics are overloaded on the result (and a differing first operand)."""
        overloads: tuple[str, ...] = (result,)
        if name.startswith("llvm.vector.reduce"):
            overloads = (args[0][0],)
        elif name.endswith(".sat"):
            overloads = (result, args[0][0])
        return self.write(self._callee(result, name, args, overloads, flags))

    def intrinsic(self, result: str, name: str, *args: tuple[str, str]) -> str:
        """Append a call of a pure function of exactly this name: an intrinsic of the target."""
        self.declare(name, result, *(t for t, _ in args))
        return self.write(f"call {result} @{name}({', '.join(f'{t} {x}' for t, x in args)})")

    def call_memory(
        self, result: str, name: str, overloads: tuple[str, ...], args: tuple[tuple[str, str], ...], tail: str
    ) -> str:
        """Append a call that reads or writes memory; ``tail`` is its metadata. Returns its value's name ('' for void)."""
        text = self._callee(result, name, args, overloads) + tail
        if result != "void":
            return self.read(text)
        self.do(text)
        return ""

    def declare(self, name: str, result: str, *operands: str) -> None:
        """Add a declaration of a function of exactly this name to the module once."""
        self.function.declarations.setdefault(name, f"declare {result} @{name}({', '.join(operands)})")

    def define(self, name: str, text: str) -> None:
        """Add a function definition to the module once."""
        self.function.definitions.setdefault(name, text)

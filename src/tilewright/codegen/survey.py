"""What an emitter asks about a kernel: what an expression depends on, and what statements touch.

Answers are computed once for each expression and body. Nothing here emits.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.kernel.ir import Check, Expr, If, Kernel, Let, Loop, Prefetch, Reg, Set, Stmt, Store, walk

__all__ = ["Facts", "Survey"]

# Names of buffers ("buf:x") and registers ("reg:c") that are read and change; variables; height.
Facts = tuple[tuple[str, ...], tuple[str, ...], int]


def _expressions(s: Stmt) -> Sequence[Expr]:
    """A statement's own expressions, without those of statements inside it."""
    match s:
        case Store():
            return (s.index, s.value) if s.mask is None else (s.index, s.value, s.mask)
        case Set() | Let():
            return (s.value,)
        case Prefetch():
            return (s.index,)
        case Reg():
            return (s.init,)
        case Check() | If():
            return (s.condition,)
        case Loop():
            return (s.start, s.stop)


class Survey:
    """Answers about one kernel. ``known`` holds the facts of every expression asked about."""

    def __init__(self, kernel: Kernel) -> None:
        self.known: dict[Expr, Facts] = {}
        self._kernel = kernel
        self._idle: frozenset[str] | None = None
        self._stored = frozenset(s.buffer for s in walk(kernel.body) if isinstance(s, Store))
        self._mutated: dict[int, frozenset[str]] = {}  # by identity: the kernel keeps its bodies alive

    def facts(self, e: Expr) -> Facts:
        """What the emitted value of ``e`` depends on."""
        found = self.known.get(e)
        if found is not None:
            return found
        stack = [e]
        while stack:
            x = stack[-1]
            pending = [a for a in x.args if a not in self.known]
            if pending:
                stack.extend(pending)
                continue
            stack.pop()
            changing: set[str] = set()
            bound: set[str] = set()
            height = 0
            if x.op == "var":
                bound.add(x.attr)
            elif x.op == "load" and x.attr in self._stored:
                changing.add("buf:" + x.attr)
            elif x.op == "reg":
                changing.add("reg:" + x.attr)
            for a in x.args:
                more, names, below = self.known[a]
                changing.update(more)
                bound.update(names)
                height = max(height, below + 1)
            self.known[x] = tuple(changing), tuple(bound), height
        return self.known[e]

    def mutated(self, body: Sequence[Stmt]) -> frozenset[str]:
        """Buffers and registers that statements change."""
        found = self._mutated.get(id(body))
        if found is None:
            names: set[str] = set()
            for s in body:
                match s:
                    case Store():
                        names.add("buf:" + s.buffer)
                    case Set() | Reg():
                        names.add("reg:" + s.name)
                    case Loop():
                        names |= self.mutated(s.body)
                    case If():
                        names |= self.mutated(s.then) | self.mutated(s.orelse)
            found = self._mutated[id(body)] = frozenset(names)
        return found

    def idle_lanes(self) -> frozenset[str]:
        """Registers whose lanes beyond those of one partial vector are never looked at, so that anything may stand in them."""
        if self._idle is None:
            seen: dict[str, set[int]] = {}
            self._widths(self._kernel.body, 0, seen)
            self._idle = frozenset(
                name for name, widths in seen.items() if len(widths) == 1 and 0 not in widths
            )
        return self._idle

    def _widths(self, body: Sequence[Stmt], width: int, seen: dict[str, set[int]]) -> None:
        """Collect for each register the lengths, less than a vector, of the loops that use it; 0 stands for any other use."""
        for s in body:
            for name in self._registers(s):
                seen.setdefault(name, set()).add(width)
            if isinstance(s, Loop):
                inner = width
                if s.kind == "vector":
                    known = s.start.op == "const" and s.stop.op == "const"
                    trips = s.stop.attr - s.start.attr if known else 0
                    inner = trips if 0 < trips < s.lanes else 0
                self._widths(s.body, inner, seen)
            elif isinstance(s, If):
                self._widths(s.then, width, seen)
                self._widths(s.orelse, width, seen)

    @staticmethod
    def _registers(s: Stmt) -> set[str]:
        """Registers that a statement itself sets or reads."""
        stack = [] if isinstance(s, Reg) else list(_expressions(s))
        names = {s.name} if isinstance(s, Set) else set()
        done: set[Expr] = set()
        while stack:
            e = stack.pop()
            if e not in done:
                done.add(e)
                stack += e.args
                if e.op == "reg":
                    names.add(e.attr)
        return names

    def names(self, body: Sequence[Stmt]) -> set[str]:
        """Buffers and registers that statements read or change."""
        names: set[str] = set()
        stack: list[Expr] = []
        for s in walk(body):
            if isinstance(s, Store):
                names.add(s.buffer)
            elif isinstance(s, Set):
                names.add(s.name)
            stack += _expressions(s)
        seen: set[Expr] = set()
        while stack:
            e = stack.pop()
            if e not in seen:
                seen.add(e)
                stack += e.args
                if e.op in ("load", "reg"):
                    names.add(e.attr)
        return names

"""What an emitter asks about a kernel: what an expression depends on, and what statements touch.

Answers are computed once for each expression and body. Nothing here emits.
"""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.kernel.ir import Check, Expr, If, Kernel, Let, Loop, Reg, Set, Stmt, Store, walk

__all__ = ["Facts", "Survey"]

# Names of buffers ("buf:x") and registers ("reg:c") that are read and change; variables; height.
Facts = tuple[tuple[str, ...], tuple[str, ...], int]


class Survey:
    """Answers about one kernel. ``known`` holds the facts of every expression asked about."""

    def __init__(self, kernel: Kernel) -> None:
        self.known: dict[Expr, Facts] = {}
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

    def names(self, body: Sequence[Stmt]) -> set[str]:
        """Buffers and registers that statements read or change."""
        names: set[str] = set()
        stack: list[Expr] = []
        for s in walk(body):
            match s:
                case Store():
                    names.add(s.buffer)
                    stack += [s.index, s.value] + ([s.mask] if s.mask is not None else [])
                case Set():
                    names.add(s.name)
                    stack.append(s.value)
                case Let():
                    stack.append(s.value)
                case Reg():
                    stack.append(s.init)
                case Check() | If():
                    stack.append(s.condition)
                case Loop():
                    stack += [s.start, s.stop]
        seen: set[Expr] = set()
        while stack:
            e = stack.pop()
            if e not in seen:
                seen.add(e)
                stack += e.args
                if e.op in ("load", "reg"):
                    names.add(e.attr)
        return names

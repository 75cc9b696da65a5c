"""Plans: what a builtin needs to know to run calls of a variant without Python code (`native`).

A plan is native tables: the types of the arguments, the captured tensors and attributes that have to be as they were, the
memory of the results, what is written, and the run. It only ever says "as last time": a call that differs goes through
Python. Variants that ask for more than that (results with a history, symbolic sizes, arrays) have no plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.compiler import Executable
from tilewright.core import assumptions
from tilewright.core.settings import settings
from tilewright.core.trees import unflatten
from tilewright.graph.ir import TensorType, fresh_leaf, leaf_ids
from tilewright.jit import native
from tilewright.jit.layout import GUARD, OPERAND, PLAN, RESULT, Kind, Write
from tilewright.jit.variant import ARGUMENT, CAPTURED, FIXED, GRADIENT, OUTPUT, Variant
from tilewright.runtime import builtin, profiler
from tilewright.runtime.blocks import block_type
from tilewright.runtime.buffers import Buffer
from tilewright.runtime.builtin import Template
from tilewright.runtime.fresh import FRESH, fresh_row
from tilewright.runtime.memory import Memory
from tilewright.runtime.statistics import stats
from tilewright.runtime.team import state
from tilewright.tensor import Tensor
from tilewright.tensor.handle import from_leaf
from tilewright.tensor.modes import modes

__all__ = ["NO_PLAN", "Plan", "install", "make_plan"]

# Arguments of other types are told apart by identity, which says less than equality where objects compare by it.
_BY_VALUE = (int, float, complex, str, bytes, bool, type(None))


class Plan:
    """Native tables of a call, and what they refer to."""

    __slots__ = ("address", "compilation", "executable", "keep", "lock", "memory")

    def __init__(
        self, fields: dict[str, int], keep: Any = None, executable: Executable | None = None
    ) -> None:
        self.memory: Memory = builtin.table([fields.get(name, 0) for name in PLAN])
        self.address = self.memory.address
        self.keep = keep
        self.executable = executable
        self.compilation = None if executable is None else settings.compilation
        self.lock: tuple[Any, ...] = (None,)  # the runtime's, with its methods

    def store(self, name: str, word: int) -> None:
        self.memory.words(PLAN[name], 1)[0] = word

    def arm(self) -> None:
        """Take for granted what holds now, if that allows a fast call. After a run in Python, which made the program ready."""
        now = assumptions.words[assumptions.VERSION]
        if self.executable is None or self.memory.words(PLAN["version"], 1)[0] == now:
            return
        program = self.executable.program
        if not program.is_ready() or settings.debug or profiler.active():
            return
        if settings.compilation != self.compilation:
            return
        if self.lock[0] is not state.lock:  # a forked child has one of its own
            self.lock = state.lock, state.lock.acquire, state.lock.release
        for name, word in (
            ("acquire", id(self.lock[1])),
            ("release", id(self.lock[2])),
            ("entry", program.entry),
            ("entered", program.entered),
            ("launches", program.launch_count),
            ("version", now),  # last: calls of other threads may come in between
        ):
            self.store(name, word)


NO_PLAN = Plan({"arguments": -1, "assumed": assumptions.address()})
_slow: list[Any] = []  # the method that the builtin leaves other calls to, once there is one


@builtin.once
def install(jitted: type) -> None:
    """Let calls of `jitted` objects go through the plan in their slot `_plan`, where the interpreter allows it. Their method
    `_call` is the way through Python."""
    address = native.compiled(jitted, Plan)
    if address is None:
        return
    slow = jitted._call  # type: ignore[attr-defined]
    builtin.keep_for_ever(slow, NO_PLAN)
    NO_PLAN.store("slow", id(slow))
    _slow.append(slow)
    call = builtin.method(jitted, "__call__", address, jitted.__call__.__doc__)
    jitted.__call__ = call  # type: ignore[method-assign]


def make_plan(variant: Variant, args: Sequence[Any], names: tuple[str, ...], rebind: Any) -> Plan | None:
    """The plan of calls of a variant with arguments like these, of which the last go by `names`, in the modes of now; None where
    there is none. `rebind` gives a tensor new memory."""
    if not _slow or not _fits(variant):
        return None
    return _Planner(variant, args).plan(names, rebind)


def _fits(variant: Variant) -> bool:
    """Whether a variant computes tensors from tensors, all results in new memory, and writes captured tensors at most."""
    program = variant.program
    if variant.inline or variant.recorded or variant.keep or variant.symbolic or program is None:
        return False
    if program.executable is None or program.executable.sizes or variant.other_writes:
        return False
    executable = program.executable
    absent = {id(tensor) for tensor, absent in variant.grad_guards if absent}
    return (
        all(kind in (ARGUMENT, CAPTURED, GRADIENT, FIXED) for kind, _, _, _ in variant.binds)
        and all(kind == OUTPUT for kind, _ in variant.results)
        and all(r < 0 for r in program.results)
        and all(not executable.results[~program.results[p]][0] for _, p in variant.results)
        # a gradient that was None and is dropped again
        and all(position < 0 and id(tensor) in absent for tensor, position in variant.grads)
        and not executable.fallbacks  # in one native call
        # nothing but these goes into a run
        and executable.program.slots
        == 1 + len(executable.inputs) + len(variant.settled_memory()) + len(executable.fresh)
    )


class _Planner:
    """Fills the tables of one plan."""

    def __init__(self, variant: Variant, args: Sequence[Any]) -> None:
        at = native.offsets()
        assert at is not None and variant.program is not None and variant.program.executable is not None
        self.at = at
        self.variant = variant
        self.args = args
        self.outputs = variant.program.results
        self.executable: Executable = variant.program.executable
        self.keep: list[Any] = [variant]

    def kept(self, item: object) -> int:
        self.keep.append(item)
        return id(item)

    def like(self, prototype: object, without: str) -> int:
        template = Template(prototype, lambda cls, name: self.at[cls, name], without.split())
        self.keep.append(template)
        return template.address

    def plan(self, names: tuple[str, ...], rebind: Any) -> Plan | None:
        variant = self.variant
        operands = self.operands()
        if operands is None:
            return None
        single, structure = variant.structure.kind == "leaf", variant.structure
        leaf = fresh_leaf(variant.types[0])
        fields = {
            "arguments": len(self.args),
            "names": self.kept(names) if names else 0,
            "slow": id(_slow[0]),
            "long": not self.executable.brief,
            "slots": self.executable.program.slots_address,
            "assumed": assumptions.address(),
            "counters": stats.address(),
            "none": id(None),
            "true": id(True),
            "false": id(False),
            "tensor_type": id(Tensor),
            "block_type": id(block_type()),
            "input": self.kept(leaf.op),
            "ids": id(leaf_ids),
            "id_name": self.kept(leaf.attrs[0][0]),
            "tensor": self.like(from_leaf(leaf), "_value"),
            "finish": 0 if single else self.kept(lambda leaves: unflatten(structure, leaves)),
            "failed": self.kept(self.failure()),
            "rebind": self.kept(rebind),
            "written": bool(variant.writes),
        }
        records = {
            "guards": self.guards(),
            "fresh": self.fresh(),
            "results": self.results(),
            "operands": operands,
        }
        for name, (layout, rows) in records.items():
            memory = builtin.table([row.get(word, 0) for row in rows for word in layout] or [0])
            self.keep.append(memory)
            fields[name] = memory.address
            fields[f"{name.removesuffix('s') if name != 'fresh' else name}_count"] = len(rows)
        return Plan(fields, self.keep, self.executable)

    def guards(self) -> Any:
        held = [(modes, name, getattr(modes, name)) for name in ("grad", "products", "trace")]
        return GUARD, [
            {"owner": self.kept(owner), "name": self.kept(name), "value": self.kept(value)}
            for owner, name, value in (*held, *self.variant.guards)
        ]

    def fresh(self) -> Any:
        rows = []
        first = 1 + len(self.executable.inputs) + len(self.variant.settled_memory())
        for slot, (size, total, dtype) in enumerate(self.executable.fresh, first):
            assert isinstance(total, int)
            rows.append(dict(zip(FRESH, fresh_row(size, total, dtype, slot, self.keep.append), strict=True)))
        return FRESH, rows

    def results(self) -> Any:
        rows = []
        for _, position in self.variant.results:
            leaf = fresh_leaf(self.variant.types[position])
            _, dtype, shape = leaf.attrs
            rows.append(
                {
                    "fresh": self.executable.results[~self.outputs[position]][1],
                    "template": self.like(leaf, "buffer attrs"),
                    "dtype": self.kept(dtype),
                    "shape": self.kept(shape),
                }
            )
        return RESULT, rows

    def operands(self) -> Any:
        """What a call looks at: its arguments, the captured tensors, the constants. None where they do not go together."""
        rows: list[dict[str, int]] = []
        bound: dict[tuple[int, int], int] = {}
        for slot, (kind, source, _, _) in enumerate(self.variant.binds, 1):
            if kind == FIXED:
                self.kept(source)
                rows.append({"kind": Kind.CONSTANT, "source": source.address, "slot": slot})
            elif bound.setdefault((kind, source if kind == ARGUMENT else id(source)), slot) != slot:
                return None
        for slot, buffer in enumerate(self.variant.settled_memory(), 1 + len(self.variant.binds)):
            self.kept(buffer)
            rows.append({"kind": Kind.CONSTANT, "source": buffer.address, "slot": slot})
        versions = {1 + i: self.kept(version) for i, version in self.variant.settled_versions()}
        number = 0
        for position, arg in enumerate(self.args):
            if arg.__class__ is Tensor:
                slot = bound.pop((ARGUMENT, number), 0)
                number += 1
                row = {"kind": Kind.ARGUMENT, "source": position, "slot": slot}
                rows.append(row | self.type(arg._value.type, False))
            elif isinstance(arg, (Tensor, np.ndarray, np.generic)) or not _by_identity(arg):
                return None
            else:
                rows.append({"kind": Kind.SAME, "source": position, "type": self.kept(arg)})
        for tensor, type, required in self.variant.captured_types:
            slot = bound.pop((CAPTURED, id(tensor)), 0)
            row = {"kind": Kind.CAPTURED, "source": self.kept(tensor), "slot": slot}
            row["memory_version"] = versions.get(slot, 0)
            rows.append(row | self.type(type, required))
        for owner, type, required in self.variant.gradient_types:
            slot = bound.pop((GRADIENT, id(owner)), 0)
            row = {"kind": Kind.GRADIENT, "source": self.kept(owner), "slot": slot}
            rows.append(row | self.type(type, required))
        for tensor, absent in self.variant.grad_guards:
            kind = Kind.NO_GRAD if absent else Kind.SOME_GRAD
            rows.append({"kind": kind, "source": self.kept(tensor)})
        return None if bound or not self.writes(rows) else (OPERAND, rows)

    def type(self, type: TensorType, required: bool) -> dict[str, int]:
        return {
            "type": self.kept(type),
            "dtype": self.kept(type.dtype),
            "shape": self.kept(type.shape),
            "required_grad": self.kept(required),
        }

    def writes(self, rows: list[dict[str, int]]) -> bool:
        """Note what is written to captured tensors; False where it is more than their own memory or new one."""
        captured = {row["source"]: row for row in rows if row["kind"] == Kind.CAPTURED}
        for tensor, position in self.variant.writes:
            row = captured.get(id(tensor))
            given, number = self.executable.results[~self.outputs[position]]
            if row is None or row.get("write") or (given and row["slot"] != number + 1):
                return False
            row["write"] = Write.OVER if given else Write.NEW
            row["fresh"] = 0 if given else number
        donated = {slot for slot, (_, _, _, write) in enumerate(self.variant.binds, 1) if write >= 0}
        return all(row["slot"] in donated for row in captured.values() if row.get("write") == Write.OVER)

    def failure(self) -> Any:
        """Raises the error that a kernel reported. Weakly: it is part of what the plan keeps."""
        executable, binds = self.executable, [(kind, source) for kind, source, _, _ in self.variant.binds]

        def failed(code: int, *args: Any) -> None:
            tensors = [arg for arg in args if isinstance(arg, Tensor)]

            def memory(kind: int, source: Any) -> Buffer:
                if kind == FIXED:
                    return source  # type: ignore[no-any-return]
                tensor = tensors[source] if kind == ARGUMENT else source
                return (tensor._grad if kind == GRADIENT else tensor)._buffer()  # type: ignore[no-any-return]

            buffers = [memory(kind, source) for kind, source in binds]
            executable.fail((code, 0, 0, 0), buffers)

        return failed


def _by_identity(arg: Any) -> bool:
    """Whether an argument that is the same object is the same constant of a trace."""
    own: Any = type(arg).__eq__
    return isinstance(arg, _BY_VALUE) or own is object.__eq__

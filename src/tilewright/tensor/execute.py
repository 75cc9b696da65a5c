"""From pending values to buffers: canonical structure, the cache of compiled programs, and the run.

A graph of values is numbered by first use from its outputs. Leaves (values that already lie in memory) become positions,
so two steps of a training loop have one structure and share one program. ``stop_gradient`` and ``mark`` mean nothing to
execution and are looked through. In eager execution a floating-point constant that is not a simple number (0, 1, 0.5, ...)
becomes a rank-0 leaf: a learning rate that changes from step to step does not compile again.

This file knows values and buffers only; which tensors want them is decided in ``lazy``.
"""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from tilewright import compiler
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.settings import settings
from tilewright.graph.ir import Value, constant, input_value, make
from tilewright.graph.sizes import size_leaf, sizes_of
from tilewright.graph.template import Template
from tilewright.runtime import builtin
from tilewright.runtime.buffers import Buffer
from tilewright.tensor import leaving, repeating

__all__ = [
    "Packed",
    "Plan",
    "UnboundLeaf",
    "changes",
    "evaluate",
    "is_varying",
    "leaf_buffer",
    "plan",
    "program",
    "transparent",
]

CACHE_LIMIT = 256  # programs kept; one that was not used for long goes first
Packed = tuple[Template, tuple[Value, ...]]
transparent = frozenset(("stop_gradient", "mark", "custom"))  # operations that only differentiation sees


class UnboundLeaf(Exception):
    """A leaf without a buffer was reached: the value belongs to a function that is being traced."""


@dataclass(slots=True)
class Plan:
    """A canonical graph. Node n is ``order[n]``; a leaf has its position among the inputs in ``leaf_of``, a value that was taken
    as a whole what it is packed of in ``packed``."""

    signature: tuple[Any, ...]
    order: list[Value]
    leaves: list[Value]
    leaf_of: dict[int, int]
    outputs: list[int]
    numbers: dict[Value, int]
    packed: dict[int, Packed]


def plan(outputs: Sequence[Value], eager: bool = True, bound: Mapping[Value, Any] | None = None) -> Plan:
    """Number the graph below ``outputs`` by first use and describe it as one hashable tuple.

    Values with a buffer, and those in ``bound``, are leaves. Costs about a microsecond per node.
    """
    numbers: dict[Value, int] = {}
    order: list[Value] = []
    leaves: list[Value] = []
    leaf_of: dict[int, int] = {}
    whole: dict[int, Packed] = {}
    signature: list[Any] = []
    stack: list[Value | None] = [*reversed(outputs)]
    begun: list[tuple[Value, Packed | None, Any, tuple[Value, ...]]] = []
    while stack:
        value = stack.pop()
        op: Any
        if value is None:  # all operands of the last one begun have numbers
            value, packed, op, inputs = begun.pop()
            leaf = False
        elif value in numbers:
            continue
        else:
            packed = value.packed
            if packed is None:
                op = value.op
                # A constant stays one where somebody read it: as an operand it would make another program.
                leaf = value.buffer is not None and op != "constant"
            else:
                op, leaf = packed[0].kind, value.buffer is not None
            if bound is not None:
                leaf = leaf or value in bound
            if not leaf:
                inputs = value.inputs if packed is None else packed[1]
                if op == "custom":
                    inputs = (inputs[value["index"]],)
                waiting = [i for i in inputs if i not in numbers]
                if waiting:
                    begun.append((value, packed, op, inputs))
                    stack.append(None)
                    waiting.reverse()
                    stack.extend(waiting)
                    continue
                if op == "input":
                    raise UnboundLeaf(value)
                leaf = eager and op == "constant" and changes(value)
        if not leaf and op in transparent:
            numbers[value] = numbers[inputs[0]]
            continue
        number = numbers[value] = len(order)
        order.append(value)
        if leaf:
            leaf_of[number] = len(leaves)
            leaves.append(value)
            signature.append(value.type.dtype)
            signature.append(value.type.shape)
        elif op == "constant":  # by text: 0.0 and -0.0 are equal in Python, and NaN is not equal to itself
            signature.append(repr(value.attrs[0][1]))
            signature.append(value.type.dtype)
        else:
            signature.append(op)
            if packed is not None:
                whole[number] = packed
            elif value.attrs:
                signature.append(value.attrs)
            signature.extend([numbers[i] for i in inputs])
    results = [numbers[v] for v in outputs]
    signature.append(tuple(results))
    return Plan(tuple(signature), order, leaves, leaf_of, results, numbers, whole)


def changes(value: Value) -> bool:
    """Whether a constant may be another number in the next step: floats that are not small multiples of a half."""
    number = value.attrs[0][1]
    return isinstance(number, float) and varies(number)


def varies(number: float) -> bool:
    """``changes``, of the number."""
    return math.isfinite(number) and not (abs(number) <= 16 and (2 * number).is_integer())


def is_varying(leaf: Value) -> bool:
    """Whether a leaf is a constant that ``changes``."""
    return leaf.op == "constant" and changes(leaf)


@dataclass(slots=True, weakref_slot=True, eq=False)
class Program:
    """A compiled canonical graph. ``results[i]`` is where output i comes from: a leaf's position or, negative, ~position
    among the executable's outputs. ``sizes`` names the symbolic sizes whose numbers are inputs behind the plan's leaves."""

    executable: compiler.Executable | None
    results: list[int]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    sizes: tuple[str, ...] = ()
    used: bool = False  # since somebody looked for one to forget
    record: int = 0  # of brief runs that make just the outputs (`Executable.record`)


_programs: OrderedDict[Any, Program] = OrderedDict()
_written_out: WeakValueDictionary[Any, Program] = WeakValueDictionary()  # by what no packed value is in
_lock = threading.RLock()


def _renew_lock() -> None:
    """A forked child has one thread: what another one held at the fork would never be released."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def program(planned: Plan, donated: Mapping[int, int] | None = None, settled: Sequence[int] = ()) -> Program:
    """The compiled program of a plan, from the cache when a graph of this structure ran before.

    ``donated`` maps leaf positions to positions in the plan's outputs that may take over their memory; ``settled`` are
    positions of leaves that change rarely.
    """
    gifts = tuple(sorted(donated.items())) if donated else ()
    key = (planned.signature, gifts, tuple(settled), settings.compilation)
    with _lock:
        found = _programs.get(key)
        if found is None:
            found = _programs[key] = _compile(planned, donated or {}, settled, key[1:])
        found.used = True
        while len(_programs) > CACHE_LIMIT:
            _drop_one()
        return found


def _drop_one() -> None:
    """Forget the oldest program that was not used since this looked at it last."""
    for key, ready in list(_programs.items()):
        if not ready.used:
            del _programs[key]
            return
        ready.used = False
        _programs.move_to_end(key)
    _programs.popitem(last=False)


def _compile(
    planned: Plan, donated: Mapping[int, int], settled: Sequence[int], rest: tuple[Any, ...]
) -> Program:
    """The program of a plan, which is that of the graph written out: there may be one already, since values are packed or not
    by how they came about. ``rest`` is of the key what does not depend on the graph."""
    leaving.install()  # native code is about to be made anyway
    canonical: list[Value] = []
    for number, value in enumerate(planned.order):
        position = planned.leaf_of.get(number)
        if position is not None:
            canonical.append(input_value(value.type.dtype, value.type.shape, id=position))
        elif number in planned.packed:
            template, inside = planned.packed[number]
            canonical.append(template.kind.build([canonical[planned.numbers[i]] for i in inside]))
        elif value.op == "constant":
            canonical.append(constant(value.attrs[0][1], value.type.dtype))
        else:
            operands = [canonical[planned.numbers[i]] for i in value.inputs]
            canonical.append(make(value.op, operands, **dict(value.attrs)))
    inputs = tuple(canonical[n] for n in planned.leaf_of)
    whole = planned.signature
    if planned.packed:
        outputs = [canonical[n] for n in planned.outputs]
        written_out = plan(outputs, eager=False, bound=dict.fromkeys(inputs))
        # Leaves that come in another order than here would be another program's.
        whole = written_out.signature if written_out.leaves == list(inputs) else whole
    known = _written_out.get((whole, *rest))
    if known is not None:
        return known
    sizes = sizes_of(canonical)
    places: dict[str, Value] = {}
    missing: list[str] = []
    for name, size in sizes.items():  # every size's number is an input, also where only loops want to know it
        number_of = planned.numbers.get(size_leaf(size))
        if number_of is None:
            places[name] = input_value(dt.int64, (), id=len(inputs))
            inputs = (*inputs, places[name])
            missing.append(name)
        else:
            places[name] = canonical[number_of]
    computed: dict[Value, int] = {}
    results: list[int] = []
    for number in planned.outputs:
        position = planned.leaf_of.get(number)
        if position is not None:
            results.append(position)
        else:
            results.append(~computed.setdefault(canonical[number], len(computed)))
    final = tuple(computed)
    gifts: dict[int, int] = {}
    for leaf, output in donated.items():
        if results[output] < 0 and ~results[output] not in gifts.values():
            gifts[leaf] = ~results[output]
    executable = compiler.compile(inputs, final, gifts, places, settled) if final else None
    made = Program(executable, results, inputs, final, tuple(missing))
    _written_out[whole, *rest] = made
    return made


@builtin.once
def _install() -> None:
    repeated = repeating.function(Program, _programs, _operand)
    if repeated is not None:
        _repeated.append(repeated)


def _operand(constant: Value) -> Buffer | None:
    """The memory of a constant that is an operand of programs."""
    return leaf_buffer(constant) if changes(constant) else None


def leaf_buffer(leaf: Value) -> Buffer:
    """The memory of a leaf; a constant that became a leaf gets its own small buffer."""
    if leaf.buffer is not None:
        return leaf.buffer  # type: ignore[no-any-return]
    return _scalar(leaf.attrs[0][1], leaf.type.dtype)


@lru_cache(maxsize=1024)
def _scalar(number: float, dtype: DType) -> Buffer:
    return Buffer.from_numpy(np.asarray(number, dtype.numpy))


_repeated: list[
    repeating.Repeated
] = []  # what was computed before, in one builtin, once there is native code


def evaluate(outputs: list[Value]) -> list[Buffer]:
    """Compute values: one buffer for each."""
    if _repeated:
        again = _repeated[0](outputs)
        if again is not None:
            return again
    planned = plan(outputs)
    ready = program(planned)
    if ready.record:
        _install()  # a program that runs again
    buffers = [leaf_buffer(leaf) for leaf in planned.leaves]
    executable = ready.executable
    computed = executable.compute(buffers) if executable is not None else []
    if executable is not None and ready.results == [~n for n in range(len(outputs))]:
        ready.record = executable.record
    return [buffers[r] if r >= 0 else computed[~r] for r in ready.results]

"""The native tables of a fast call: what `plan` fills in and the builtin in `native` reads. Numbers only."""

from __future__ import annotations

__all__ = ["GUARD", "OPERAND", "PLAN", "RESULT", "Kind", "Write", "record"]


def record(*names: str) -> dict[str, int]:
    """Words by name: their byte offsets."""
    return {name: 8 * number for number, name in enumerate(names)}


PLAN = record(
    "arguments",  # how many there are in all
    "names",  # a tuple of the last ones' names, or null
    "slow",  # the Python function that takes the other calls
    "version",  # of the assumptions under which the plan holds
    "long",  # whether the program runs without the GIL
    "acquire", "release",  # the runtime's lock
    "entry", "entered", "launches", "slots",  # the driver's function, what it runs, and the pointer table
    "assumed", "counters",  # the words of `assumptions` and of `statistics`
    "none", "true", "false", "tensor_type", "block_type", "input",  # objects to compare with
    "ids", "id_name", "tensor",  # for a new tensor: numbers of leaves, the attribute's name, the template
    "finish",  # makes the result of a tuple of tensors; null: the only tensor is the result
    "failed",  # raises the error of a status
    "rebind",  # gives a tensor new memory, where somebody still refers to its leaf
    "guards", "guard_count", "fresh", "fresh_count", "results", "result_count", "operands", "operand_count",
    "written",  # whether captured tensors are written, which must not be arguments then
)  # fmt: skip
GUARD = record("owner", "name", "value")  # an attribute and what it has to be
RESULT = record(
    "fresh", "template", "dtype", "shape"
)  # a new tensor: its memory, its leaf, the leaf's attributes
OPERAND = record(
    "kind", "source",  # and a tensor's type, its parts, and whether it requires gradients
    "type", "dtype", "shape", "required_grad",
    "slot",  # of the pointer table; 0: only looked at
    "memory_version",  # of a settled tensor's memory; null: any
    "write", "fresh",  # what becomes of a captured tensor, and the memory it is written to
)  # fmt: skip


class Kind:
    """Of operands: where they come from, GRADIENT from the tensor whose it is; the last two are tensors that must have no
    gradient, or one."""

    ARGUMENT, CAPTURED, CONSTANT, SAME, GRADIENT, NO_GRAD, SOME_GRAD = range(7)


class Write:
    """What a run does to a captured tensor: nothing, write over its memory, or give it new memory."""

    NOT, OVER, NEW = range(3)

"""What recording the body of a loop and recording branches have in common."""

from __future__ import annotations

from tilewright.core.trees import Structure
from tilewright.graph.ir import Value
from tilewright.tensor import DTypeError, Tensor, from_value, lazy, modes, no_grad
from tilewright.tensor.iteration import Outside

__all__ = ["check_function", "shown", "variable", "write_back"]


def variable(value: Value) -> Tensor:
    """A tensor over a stand-in. Derivatives taken in the body know that others may be taken outside."""
    tensor = from_value(value, (), modes.grad and value.dtype.is_inexact)
    if tensor._requires_grad:
        lazy.register_role(value, tensor)
    return tensor


def write_back(note: Outside, last: Tensor, what: str) -> None:
    """Assign what the last iteration, or the branch taken, left in a tensor from outside."""
    if note.records:
        note.tensor._rebind(last, what)
    else:
        with no_grad():
            note.tensor.assign(last)


def check_function(fun: object, what: str, name: str) -> None:
    """Raise unless an argument can be called."""
    if not callable(fun):
        raise DTypeError(f"{what}: `{name}` is a function, got {type(fun).__name__}")


def shown(structure: Structure) -> str:
    """A tree with ``*`` for its leaves."""
    if structure.kind == "leaf":
        return "*"
    return f"{structure.kind.__name__}({', '.join(map(shown, structure.children))})"

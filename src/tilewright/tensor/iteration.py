"""One run of the body of a loop or branch with stand-ins for what it is given; what it reads and assigns outside is noted.

Every tensor from outside is bound to a placeholder while the body runs, so that a tensor the body assigns (random
state, batch statistics) can become a carry of the loop: all its uses in the body are uses of that placeholder. What
is made of the notes is in ``functions.control`` and ``functions.branching``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tilewright.graph.ir import Value, input_value
from tilewright.tensor import lazy
from tilewright.tensor.errors import GradientError
from tilewright.tensor.standins import StandIns
from tilewright.tensor.trace import Trace

if TYPE_CHECKING:
    from tilewright.tensor.handle import Tensor

__all__ = ["Iteration", "Outside"]


@dataclass(slots=True)
class Outside:
    """A tensor from outside: what it was, the placeholder it had, and what the body left in it."""

    tensor: Tensor
    before: Value
    placeholder: Value
    required: bool
    trace: Trace | None
    group: lazy.Group | None
    after: Value | None = None
    records: bool = False  # whether it was assigned with a history

    @property
    def assigned(self) -> bool:
        """Whether the body gave it another value."""
        return self.after is not self.placeholder


class Iteration(StandIns):
    """A trace of one iteration. Leaving its ``with`` block puts every tensor from outside back."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.outside: dict[int, Outside] = {}

    def capture(self, tensor: Tensor) -> None:
        """Take in a tensor from outside: bind its handle to a placeholder."""
        if tensor._trace is not None and tensor._trace.closed:
            raise lazy.leaked(tensor)
        if tensor._trace is None and self.outer is not None:
            self.outer.capture(tensor)
        before = tensor._value
        placeholder = input_value(before.dtype, before.shape)
        if tensor._requires_grad:
            lazy.register_role(placeholder, tensor)
        self.outside[id(tensor)] = Outside(
            tensor, before, placeholder, tensor._requires_grad, tensor._trace, tensor._group
        )
        tensor._value, tensor._trace, tensor._group = placeholder, self, None

    def note_grad(self, tensor: Tensor, replaced: bool = False) -> None:
        """A gradient is the body's own from where the body replaces it: what is left of it is dropped at the end."""
        made_here = tensor._trace is self and id(tensor) not in self.outside
        if made_here or id(tensor) in self.grads:
            return
        if not replaced:
            raise GradientError(
                f"`{self.name}` uses a `.grad` from before this iteration; the body of a loop or branch is recorded once,"
                " so set it to None there first (`zero_grad()`), or compute gradients with `tw.grad`"
            )
        self.grads[id(tensor)] = (tensor, tensor._grad)
        if self.outer is not None:
            self.outer.note_grad(tensor, replaced)

    def _restore(self) -> Tensor | None:
        for tensor, _ in self.grads.values():
            tensor._grad = None
        for note in self.outside.values():
            tensor = note.tensor
            note.after, note.records = tensor._value, tensor._requires_grad and not tensor._leaf
            tensor._value, tensor._requires_grad = note.before, note.required
            tensor._trace, tensor._group = note.trace, note.group
        return None

"""One run of a jitted function with stand-ins for its tensors, and putting everything back afterwards.

While a trace is active, each tensor from outside that is read or written is taken in: its handle is bound to a
placeholder leaf and noted. At the end ``close`` restores every handle, also after an exception, so nothing traced stays
visible outside. What a trace found is compiled and run by ``jit``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilewright.graph.ir import Value, input_value
from tilewright.tensor import lazy
from tilewright.tensor.modes import suspend_trace

if TYPE_CHECKING:
    from tilewright.tensor.handle import Tensor

__all__ = ["Captured", "Trace"]


class Captured:
    """A tensor from outside that the trace uses. ``placeholder`` is the program's input that stands for it in the traced graph.
    ``owner``: it is the gradient of that tensor, looked up anew each call."""

    __slots__ = ("before", "owner", "placeholder", "required_grad", "tensor")

    def __init__(self, tensor: Tensor, before: Value, placeholder: Value, owner: Tensor | None) -> None:
        self.tensor = tensor
        self.before = before
        self.required_grad = tensor._requires_grad
        self.placeholder = placeholder
        self.owner = owner


class Trace:
    """The tensors and gradients that a running trace has taken in. ``name`` is the traced function's."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.closed = False
        self.history_outside = (
            False  # a captured tensor has a graph outside: gradients would have to leave the trace
        )
        self.captured: dict[int, Captured] = {}
        self.grads: dict[
            int, tuple[Tensor, Tensor | None]
        ] = {}  # tensor whose .grad was looked at, and what it was
        self._watching: set[tuple[int, str]] = set()
        self._owners: dict[
            int, tuple[Tensor, Tensor]
        ] = {}  # stand-in by identity -> whose gradient, and itself
        self.watched: list[
            tuple[Any, str, Any]
        ] = []  # object, attribute, value: plain Python state it depends on

    def capture(self, tensor: Tensor) -> None:
        """Take in a tensor from outside: bind its handle to a placeholder."""
        if tensor._trace is not None:
            raise lazy.leaked(tensor)
        with suspend_trace():
            lazy.realize_tensors((tensor,))
        before = tensor._value
        placeholder = input_value(before.type.dtype, before.type.shape)
        owner = self.owner(tensor)
        self.captured[id(tensor)] = Captured(tensor, before, placeholder, owner)
        if tensor._leaf:
            lazy.register_role(placeholder, tensor)
        elif tensor._requires_grad:
            self.history_outside = True
            lazy.register_role(placeholder, tensor)
        tensor._value = placeholder
        tensor._trace = self

    def note_grad(self, tensor: Tensor, replaced: bool = False) -> None:
        """Remember what ``tensor.grad`` was before the trace looked at it or changed it (``replaced``: without a look)."""
        if id(tensor) not in self.grads and (tensor._trace is not self or id(tensor) in self.captured):
            before = tensor._grad
            self.grads[id(tensor)] = (tensor, before)
            if before is not None and not replaced:
                tensor._grad = self._stand_in(tensor, before)

    def owner(self, gradient: Tensor | None) -> Tensor | None:
        """The tensor whose ``.grad`` gave this tensor to the trace, if one did."""
        note = self._owners.get(id(gradient))
        return None if note is None else note[0]

    def _stand_in(self, owner: Tensor, before: Tensor) -> Tensor:
        """A tensor of its own for a gradient: what the trace reaches by ``.grad`` may be another tensor at the next call, also
        where it is now one that the trace reaches by another way, too."""
        if (before._leaf and before._requires_grad) or before._hooks is not None:
            self.history_outside = True  # gradients arrive at it
            return before
        entry = self.captured.get(id(before))
        if entry is None:
            if before._trace is not None:
                raise lazy.leaked(before)
            with suspend_trace():
                lazy.realize_tensors((before,))
        stand_in = before.__class__.__new__(before.__class__)
        stand_in._value = before._value if entry is None else entry.before
        stand_in._requires_grad = before._requires_grad if entry is None else entry.required_grad
        stand_in._leaf, stand_in._chain = before._leaf, 0
        stand_in._grad = stand_in._group = stand_in._trace = stand_in._hooks = None
        self._owners[id(stand_in)] = owner, stand_in
        return stand_in

    def watch(self, owner: Any, attribute: str) -> None:
        """The traced code depends on a Python attribute; another value of it needs another trace."""
        if (id(owner), attribute) not in self._watching:
            self._watching.add((id(owner), attribute))
            self.watched.append((owner, attribute, getattr(owner, attribute)))

    def close(self) -> None:
        """Give every handle back the value and the gradient it had before."""
        self.closed = True
        for entry in self.captured.values():
            entry.tensor._value = entry.before
            entry.tensor._requires_grad = entry.required_grad
            entry.tensor._trace = None
        for tensor, grad in self.grads.values():
            tensor._grad = grad

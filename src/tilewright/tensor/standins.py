"""One run of a function with stand-ins for values that come later: one example of many, or a cotangent.

Tensors made while such a trace runs are never computed: they only say what to do with the stand-ins. Tensors from
outside are used as they are. Unlike a jitted function's trace it may run inside another trace, which then takes in
what comes from outside of both. What is done with the recorded values is for the transform that started it.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from tilewright.core.dtype import DType
from tilewright.core.shape import Shape
from tilewright.graph.ir import Value, input_value, topological
from tilewright.tensor import lazy
from tilewright.tensor.errors import LeakedTensorError
from tilewright.tensor.modes import Restoring, modes
from tilewright.tensor.trace import Trace

if TYPE_CHECKING:
    from tilewright.tensor.handle import Tensor

__all__ = ["StandIns"]


class StandIns(Trace, Restoring):
    """A trace whose ``placeholders`` stand for values that are given later. Use it in a ``with`` block.

    Leaving the block puts a tensor from outside back, and complains, when it was assigned something made from a
    stand-in; other assignments stay.
    """

    _mode = "trace"

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.outer: Trace | None = None
        self._before: list[Any] = []
        self.placeholders: list[Value] = []
        self._seen: dict[int, tuple[Tensor, Value, bool]] = {}

    def __enter__(self) -> StandIns:
        self.outer = modes.trace
        self._before.append(self.outer)
        modes.trace = self
        return self

    def _left(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True
        stolen = self._restore()
        if error is None and stolen is not None:
            raise LeakedTensorError(
                f"`{self.name}` assigned to a tensor of shape {stolen.shape} from outside a value that exists only"
                " inside; return it instead"
            )

    def stand_in(self, dtype: DType, shape: Shape) -> Value:
        """A placeholder of a type."""
        value = input_value(dtype, shape)
        self.placeholders.append(value)
        return value

    def capture(self, tensor: Tensor) -> None:
        """Use a tensor from outside as it is."""
        if tensor._trace is not None and tensor._trace.closed:
            raise lazy.leaked(tensor)
        if tensor._trace is None and self.outer is not None:
            self.outer.capture(tensor)  # outside of both
        self._seen.setdefault(id(tensor), (tensor, tensor._value, tensor._requires_grad))

    def note_grad(self, tensor: Tensor, replaced: bool = False) -> None:
        if self.outer is not None:
            self.outer.note_grad(tensor, replaced)

    def watch(self, owner: Any, attribute: str) -> None:
        if self.outer is not None:
            self.outer.watch(owner, attribute)

    def _restore(self) -> Tensor | None:
        stolen = None
        for tensor, before, required in self._seen.values():
            if tensor._value is before:
                continue
            if not set(self.placeholders).isdisjoint(topological([tensor._value])):
                tensor._value, tensor._requires_grad = before, required
                stolen = tensor
            elif modes.trace is None and tensor._value.buffer is None and tensor._group is None:
                lazy.enroll(tensor, ())
        return stolen

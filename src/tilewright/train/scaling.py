"""Dynamic loss scaling: small float16 gradients survive, and a step whose gradients overflow changes nothing.

Micikevicius et al., "Mixed Precision Training", 2018. All state are tensors, so the whole step stays one program.
"""

from __future__ import annotations

from tilewright.functions import elementwise as ops
from tilewright.functions.creation import full
from tilewright.functions.elementwise import where
from tilewright.functions.reductions import all as every
from tilewright.optim import Optimizer
from tilewright.tensor import Tensor, no_grad

__all__ = ["LossScale"]


class LossScale:
    """Multiplies the loss before its derivatives are taken. The factor doubles after `interval` good steps in a row and halves
    when a gradient overflows; such a step leaves parameters and optimizer state as they were.
    """

    def __init__(self, initial: float = 2.0**15, interval: int = 1000) -> None:
        self.factor = full((), initial)
        self.good = full((), 0.0)
        self.interval = interval

    def step(self, loss: Tensor, optimizer: Optimizer) -> None:
        """Derivatives of `loss`, and the optimizer's step with them if all are finite."""
        (loss * self.factor.detach()).backward()
        with no_grad():
            inverse = 1.0 / self.factor
            fine: Tensor | None = None
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        p.grad = p.grad * inverse
                        finite = every(ops.isfinite(p.grad))
                        fine = finite if fine is None else ops.logical_and(fine, finite)
            if fine is None:
                return
            held = [(tensor, tensor.detach()) for tensor in _written_by(optimizer)]
            optimizer.step()
            for tensor, before in held:
                tensor.assign(where(fine, tensor, before))
            grown = self.good + 1.0 >= float(self.interval)
            self.factor.assign(where(fine, where(grown, self.factor * 2.0, self.factor), self.factor * 0.5))
            self.good.assign(
                where(ops.logical_and(fine, ops.logical_not(grown)), self.good + 1.0, self.good * 0.0)
            )


def _written_by(optimizer: Optimizer) -> list[Tensor]:
    """Parameters and state: everything that a step may change."""
    found: dict[int, Tensor] = {}
    for group in optimizer.param_groups:
        for item in group.values():
            for tensor in item if isinstance(item, list | tuple) else (item,):
                if isinstance(tensor, Tensor):
                    found[id(tensor)] = tensor
    for state in optimizer.state.values():
        found.update((id(t), t) for t in state.values())
    return list(found.values())

"""``tw.autograd``: gradients between tensors, without touching any ``.grad``. Derivatives of functions are in ``transforms``."""

from __future__ import annotations

from collections.abc import Sequence

from tilewright.graph.ir import make
from tilewright.tensor import GradientError, ShapeError, Tensor, from_value
from tilewright.tensor.gradients import gradients

__all__ = ["grad"]


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Tensor | None, ...]:
    """Gradients of ``outputs`` with respect to ``inputs``, without touching any ``.grad``.

    ``grad_outputs`` weigh the outputs (scalars need none). ``create_graph`` records the computation of the gradients. An
    input that no output depends on is an error, or gives None with ``allow_unused``.
    """
    sources = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    targets = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is None:
        weights: list[Tensor | None] = [None] * len(sources)
    else:
        weights = [grad_outputs] if isinstance(grad_outputs, Tensor) else list(grad_outputs)
    if len(weights) != len(sources):
        raise ShapeError(
            f"autograd.grad: {len(sources)} outputs need as many `grad_outputs`, got {len(weights)}"
        )
    for i, target in enumerate(targets):
        if not target._requires_grad:
            raise GradientError(f"autograd.grad: `inputs[{i}]` does not require gradients")
    keep = create_graph if retain_graph is None else retain_graph
    found = gradients(sources, weights, targets, "autograd.grad", free=not keep)
    results: list[Tensor | None] = []
    for i, value in enumerate(found):
        if value is None:
            if not allow_unused:
                raise GradientError(
                    f"autograd.grad: no output depends on `inputs[{i}]` of shape {targets[i].shape}; pass `allow_unused=True`"
                    " to get None for it"
                )
            results.append(None)
        else:
            kept = value if create_graph else make("stop_gradient", (value,))
            results.append(from_value(kept, (*sources, targets[i]), create_graph))
    return tuple(results)

"""Algorithms on the host as tensor functions: one graph operation, with derivatives put around it where they are known.

``host_call`` is lazy and runs inside ``tw.jit``. The operation has no derivative of its own: a function either has a rule
of ``custom_vjp`` around the call, or it ``refuse_gradients``, since a gradient that silently is zero is worse than none.
"""

from __future__ import annotations

from typing import Any

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.functions.arguments import cast
from tilewright.tensor import GradientError, Tensor, apply, modes

__all__ = ["host_call", "refuse_gradients"]


def host_call(
    function: str, operands: tuple[Tensor, ...], dtype: DType, shape: tuple[int, ...], **arguments: Any
) -> Tensor:
    """The array of a function in ``graph/host.py``, as a tensor of a type and shape known beforehand.

    Half types are computed in float32. Raises ``HostError`` (a ``ValueError``), when the result is read, where the
    algorithm fails.
    """
    wide = [cast(x, dt.float32) if x.dtype.is_float and x.dtype.bits == 16 else x for x in operands]
    computed = dt.float32 if dtype.is_float and dtype.bits == 16 else dtype
    pairs = tuple(sorted(arguments.items()))
    out = apply(
        "host_call",
        *(x.detach() for x in wide),
        function=function,
        arguments=pairs,
        dtype=computed,
        shape=shape,
    )
    return cast(out, dtype)


def refuse_gradients(function: str, *operands: Tensor) -> None:
    """Raise ``GradientError`` when a derivative with respect to an operand is being recorded."""
    if modes.grad and any(x.requires_grad for x in operands):
        raise GradientError(
            f"{function}: has no derivative; call it on `x.detach()`, or under `with tw.no_grad():`"
        )

"""Helpers over parameters that belong to no layer."""

from __future__ import annotations

from collections.abc import Iterable

from tilewright.tensor import Tensor, no_grad

__all__ = ["clip_grad_norm_", "clip_grad_value_"]


def _with_grad(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p for p in tensors if p.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients by one factor so that their joint norm is at most `max_norm`; returns the norm
    before.

    The norm is that of all gradients as one vector (`norm_type` 2, 1, ... or `float("inf")`); the result is a
    rank-0 tensor. Call it between `backward()` and the optimizer's step; it works inside `jit`.
    `error_if_nonfinite` reads the norm, which a jitted function cannot, and raises `RuntimeError` when it is
    infinite or NaN.
    """
    tensors = _with_grad(parameters)
    if not tensors:
        return Tensor(0.0)
    with no_grad():
        grads = [p.grad for p in tensors if p.grad is not None]
        parts = [_power_sum(g, norm_type) for g in grads]
        total = parts[0]
        for part in parts[1:]:
            total = total.maximum(part) if norm_type == float("inf") else total + part
        norm = (
            total
            if norm_type == float("inf")
            else total.sqrt()
            if norm_type == 2
            else total ** (1 / norm_type)
        )
        if error_if_nonfinite and not bool(norm.isfinite()):
            raise RuntimeError(
                f"the norm of the gradients is {norm.item()}, so they cannot be clipped to {max_norm}"
            )
        factor = (max_norm / (norm + 1e-6)).clip(None, 1.0)
        for p, g in zip(tensors, grads, strict=True):
            p.grad = g * factor.astype(g.dtype)
    return norm


def _power_sum(grad: Tensor, norm_type: float) -> Tensor:
    if norm_type == float("inf"):
        return grad.abs().max()
    if norm_type == 2:
        return (grad * grad).sum()
    return (grad.abs() ** norm_type).sum()


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Cut every element of the gradients to [-clip_value, clip_value]."""
    with no_grad():
        for p in _with_grad(parameters):
            if p.grad is not None:
                p.grad = p.grad.clip(-clip_value, clip_value)

"""Adam (Kingma & Ba, 2015) and AdamW (Loshchilov & Hutter, 2019).

    m ← β₁ m + (1 - β₁) g        v ← β₂ v + (1 - β₂) g²
    p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps)

The bias corrections are rank-0 tensors computed from the step count t as -expm1(t log β): 1 - βᵗ would lose
half of its digits in float32 for β near 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from tilewright.optim.optimizer import (
    Optimizer,
    ParamGroup,
    Scalar,
    cast,
    share,
    working_dtype,
    zeros_for,
)
from tilewright.tensor import Tensor

__all__ = ["Adam", "AdamW"]


class Adam(Optimizer):
    """Adam. `weight_decay` adds weight_decay · p to the gradient; `amsgrad` divides by the largest v so far."""

    compiled = True

    decoupled = False

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": tuple(betas) if isinstance(betas, Iterable) else betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: ParamGroup) -> None:
        super()._check(group)
        if not isinstance(group["betas"], (tuple, list)) or len(group["betas"]) != 2:
            raise ValueError(f"betas are two numbers, got {group['betas']!r}")
        for index, beta in enumerate(group["betas"]):
            share(f"betas[{index}]", beta)

    def _initial_state(self, group: ParamGroup, param: Tensor) -> dict[str, Tensor]:
        names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if group["amsgrad"] else [])]
        return {name: zeros_for(param) for name in names}

    def _update(self, group: ParamGroup, pairs: list[tuple[Tensor, Tensor]]) -> None:
        lr, beta1, beta2 = group.scalar("lr"), group.scalar("beta1"), float(group["betas"][1])
        decay, eps = group["weight_decay"], group["eps"]
        t = group.advance()
        step_size = lr / _bias_correction(t, beta1)
        v_scale = 1.0 / _bias_correction(t, beta2).sqrt()
        shrink = 1.0 - lr * decay if decay and self.decoupled else None
        for param, grad in pairs:
            state, work = self.state[param], working_dtype(param)
            p, g = param.astype(work), grad.astype(work)
            if shrink is not None:
                p = p * cast(shrink, work)
            elif decay:
                g = g + p * decay
            b1 = cast(beta1, work)
            m = state["exp_avg"].astype(work) * b1 + g * (1.0 - b1)
            v = state["exp_avg_sq"].astype(work) * beta2 + g * g * (1.0 - beta2)
            state["exp_avg"].assign(m)
            state["exp_avg_sq"].assign(v)
            if "max_exp_avg_sq" in state:
                v = state["max_exp_avg_sq"].astype(work).maximum(v)
                state["max_exp_avg_sq"].assign(v)
            param.assign(p - cast(step_size, work) * (m / (v.sqrt() * cast(v_scale, work) + eps)))


class AdamW(Adam):
    """Adam with decoupled weight decay: p ← p · (1 - lr · weight_decay) before the step."""

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


def _bias_correction(t: Tensor, beta: Scalar) -> Tensor:
    """1 - betaᵗ as a rank-0 float32 tensor."""
    if isinstance(beta, Tensor):
        return -(t * beta.log()).expm1()
    if beta == 0.0:
        return t * 0.0 + 1.0
    return -(t * math.log(beta)).expm1()

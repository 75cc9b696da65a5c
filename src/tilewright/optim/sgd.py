"""Stochastic gradient descent with momentum, and the methods that scale by squared gradients without a first
moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tilewright.optim.optimizer import (
    Optimizer,
    ParamGroup,
    Scalar,
    cast,
    non_negative,
    working_dtype,
    zeros_for,
)
from tilewright.tensor import Tensor

__all__ = ["SGD", "Adagrad", "RMSprop"]


class SGD(Optimizer):
    """p ← p - lr · b with the momentum buffer b ← momentum · b + (1 - dampening) · g, or b = g without
    momentum.

    The first buffer is g itself. `nesterov` steps along g + momentum · b. `weight_decay` adds weight_decay ·
    p to g.
    """

    compiled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: ParamGroup) -> None:
        super()._check(group)
        non_negative(group, "momentum")
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("nesterov needs a momentum above 0 and no dampening")

    def _initial_state(self, group: ParamGroup, param: Tensor) -> dict[str, Tensor]:
        return {"momentum_buffer": zeros_for(param)} if group["momentum"] else {}

    def _update(self, group: ParamGroup, pairs: list[tuple[Tensor, Tensor]]) -> None:
        lr, momentum, decay = group.scalar("lr"), group.scalar("momentum"), group["weight_decay"]
        taken: Scalar = 1.0
        if group["dampening"]:  # the first buffer is the whole gradient
            first = (group.step == 0.0).astype(group.step.dtype)
            taken = first * group["dampening"] + (1.0 - group["dampening"])
        group.advance()
        for param, grad in pairs:
            work = working_dtype(param)
            p, g = param.astype(work), grad.astype(work)
            if decay:
                g = g + p * decay
            if "momentum_buffer" in self.state[param]:
                buffer = self.state[param]["momentum_buffer"]
                mu = cast(momentum, work)
                b = buffer.astype(work) * mu + (g * cast(taken, work) if group["dampening"] else g)
                buffer.assign(b)
                g = g + b * mu if group["nesterov"] else b
            param.assign(p - g * cast(lr, work))


class RMSprop(Optimizer):
    """p ← p - lr · g / (√v + eps) with v ← alpha · v + (1 - alpha) · g².

    `centered` subtracts the square of the mean gradient from v; with `momentum` the quotient goes into a
    buffer b ← momentum · b + g / (√v + eps) and p ← p - lr · b.
    """

    compiled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "centered": centered,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: ParamGroup) -> None:
        super()._check(group)
        non_negative(group, "momentum", "alpha")

    def _initial_state(self, group: ParamGroup, param: Tensor) -> dict[str, Tensor]:
        state = {"square_avg": zeros_for(param)}
        if group["momentum"]:
            state["momentum_buffer"] = zeros_for(param)
        if group["centered"]:
            state["grad_avg"] = zeros_for(param)
        return state

    def _update(self, group: ParamGroup, pairs: list[tuple[Tensor, Tensor]]) -> None:
        lr, momentum, alpha = group.scalar("lr"), group.scalar("momentum"), group["alpha"]
        group.advance()
        for param, grad in pairs:
            state, work = self.state[param], working_dtype(param)
            p, g = param.astype(work), grad.astype(work)
            if group["weight_decay"]:
                g = g + p * group["weight_decay"]
            v = state["square_avg"].astype(work) * alpha + g * g * (1 - alpha)
            state["square_avg"].assign(v)
            if group["centered"]:
                mean = state["grad_avg"].astype(work)
                mean = mean + (g - mean) * (1 - alpha)
                state["grad_avg"].assign(mean)
                v = v - mean * mean
            direction = g / (v.sqrt() + group["eps"])
            if "momentum_buffer" in state:
                direction = state["momentum_buffer"].astype(work) * cast(momentum, work) + direction
                state["momentum_buffer"].assign(direction)
            param.assign(p - direction * cast(lr, work))


class Adagrad(Optimizer):
    """p ← p - lr / (1 + (t - 1) lr_decay) · g / (√s + eps) with s ← s + g² (Duchi et al., 2011)."""

    compiled = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Mapping[str, Any]],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _check(self, group: ParamGroup) -> None:
        super()._check(group)
        non_negative(group, "lr_decay", "initial_accumulator_value")

    def _initial_state(self, group: ParamGroup, param: Tensor) -> dict[str, Tensor]:
        start = zeros_for(param)
        if group["initial_accumulator_value"]:
            start = (start + group["initial_accumulator_value"]).realize()
        return {"sum": start}

    def _update(self, group: ParamGroup, pairs: list[tuple[Tensor, Tensor]]) -> None:
        t = group.advance()
        rate = group.scalar("lr")
        if group["lr_decay"]:
            rate = rate / ((t - 1.0) * group["lr_decay"] + 1.0)
        for param, grad in pairs:
            total, work = self.state[param]["sum"], working_dtype(param)
            p, g = param.astype(work), grad.astype(work)
            if group["weight_decay"]:
                g = g + p * group["weight_decay"]
            s = total.astype(work) + g * g
            total.assign(s)
            param.assign(p - g / (s.sqrt() + group["eps"]) * cast(rate, work))

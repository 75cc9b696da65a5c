"""Learning-rate schedules: a scheduler sets `group["lr"]` of its optimizer, which a jitted step reads as a
tensor.

Construction sets the rate of the first epoch; each `step()` moves to the next. "Epoch" is whatever the caller
steps by: an epoch, or a batch (`OneCycleLR`). All schedules are functions of the epoch's number and the
initial rates, so a restored scheduler continues exactly.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tilewright.optim.optimizer import Optimizer, ParamGroup

__all__ = ["CosineAnnealingLR", "LRScheduler", "LambdaLR", "OneCycleLR", "ReduceLROnPlateau", "StepLR"]


class LRScheduler(ABC):
    """Base of the schedules. A subclass gives each group's rate in `get_lr` from `last_epoch` and `base_lrs`."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(
                f"{type(self).__name__} sets the rates of an optimizer, got {type(optimizer).__name__}"
            )
        self.optimizer = optimizer
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [float(group["initial_lr"]) for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    @abstractmethod
    def get_lr(self) -> list[float]:
        """The rate of each group in epoch `last_epoch`."""

    def step(self) -> None:
        """Go on to the next epoch and set its rates."""
        self.last_epoch += 1
        self._apply()

    def _apply(self) -> None:
        for group, lr in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = lr

    def get_last_lr(self) -> list[float]:
        """The rates now in force."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What is needed to continue: numbers and lists of them."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a `state_dict()`, and set its rates."""
        self.last_epoch = int(state_dict["last_epoch"])
        self.base_lrs = [float(lr) for lr in state_dict["base_lrs"]]
        self._apply()


class LambdaLR(LRScheduler):
    """The initial rate times `lr_lambda(epoch)`; a list has one function per group."""

    def __init__(
        self,
        optimizer: Optimizer,
        lr_lambda: Callable[[int], float] | Sequence[Callable[[int], float]],
        last_epoch: int = -1,
    ) -> None:
        count = len(optimizer.param_groups)
        self.lr_lambdas = [lr_lambda] * count if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != count:
            raise ValueError(f"LambdaLR: {len(self.lr_lambdas)} functions for {count} parameter groups")
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        pairs = zip(self.base_lrs, self.lr_lambdas, strict=True)
        return [base * function(self.last_epoch) for base, function in pairs]


class StepLR(LRScheduler):
    """Multiplies the rate by `gamma` after every `step_size` epochs."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        if step_size < 1:
            raise ValueError(f"StepLR: step_size counts epochs from 1, got {step_size}")
        self.step_size = step_size
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [base * self.gamma ** (self.last_epoch // self.step_size) for base in self.base_lrs]


class CosineAnnealingLR(LRScheduler):
    """From the initial rate to `eta_min` along half a cosine over `T_max` epochs (Loshchilov & Hutter, 2017)."""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if T_max < 1:
            raise ValueError(f"CosineAnnealingLR: T_max counts epochs from 1, got {T_max}")
        self.T_max = T_max
        self.eta_min = eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        high = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * high for base in self.base_lrs]


class OneCycleLR(LRScheduler):
    """Up to `max_lr` and down to almost nothing over a whole training, stepped every batch (Smith & Topin,
    2018).

    The rate begins at max_lr / div_factor, is highest after the share `pct_start` of the steps and ends at
    max_lr / div_factor / final_div_factor. `three_phase` comes down as fast as it went up and then dies away.
    `cycle_momentum` moves momentum (SGD, RMSprop) or β₁ (Adam) the other way, between `base_momentum` and
    `max_momentum`.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | Sequence[float],
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: float = 0.85,
        max_momentum: float = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        if total_steps is None:
            if epochs is None or steps_per_epoch is None:
                raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
            total_steps = epochs * steps_per_epoch
        if total_steps < 1:
            raise ValueError(f"OneCycleLR: expected at least one step, got {total_steps}")
        if not 0 <= pct_start <= 1:
            raise ValueError(f"OneCycleLR: pct_start is a share of the steps, got {pct_start}")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"OneCycleLR: anneal_strategy is 'cos' or 'linear', got {anneal_strategy!r}")
        count = len(optimizer.param_groups)
        self.max_lrs = (
            [float(max_lr)] * count if isinstance(max_lr, int | float) else [float(x) for x in max_lr]
        )
        if len(self.max_lrs) != count:
            raise ValueError(f"OneCycleLR: {len(self.max_lrs)} rates for {count} parameter groups")
        self.total_steps = total_steps
        self.anneal_strategy = anneal_strategy
        self.momenta = (base_momentum, max_momentum)
        self.div_factor = div_factor
        self.final_div_factor = final_div_factor
        up = float(pct_start * total_steps) - 1
        # (last step, rate at its end, momentum at its end); rates: 0 initial, 1 highest, 2 final
        self.phases = (
            [(up, 1, 0), (2 * up, 0, 1), (total_steps - 1.0, 2, 1)]
            if three_phase
            else [(up, 1, 0), (total_steps - 1.0, 2, 1)]
        )
        self.cycled = [_momentum_key(group) if cycle_momentum else None for group in optimizer.param_groups]
        for group, key in zip(optimizer.param_groups, self.cycled, strict=True):
            if key is not None:
                group.make_dynamic(key)
            group["initial_lr"] = group["lr"]
        super().__init__(optimizer, last_epoch)

    def _at(self, values: Sequence[float], ends: int) -> float:
        """The value now of a quantity that passes through `values` at the ends of the phases (column `ends`)."""
        step, start, before = float(self.last_epoch), 0.0, values[0 if ends == 1 else 1]
        for end, *points in self.phases:
            after = values[points[ends - 1]]
            if step <= end or end == self.phases[-1][0]:
                return self._between(before, after, (step - start) / (end - start) if end > start else 1.0)
            start, before = end, after
        return before

    def _between(self, a: float, b: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return a + (b - a) * share
        return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

    def get_lr(self) -> list[float]:
        if self.last_epoch > self.total_steps:
            raise ValueError(
                f"OneCycleLR: step {self.last_epoch} is after its end; it has {self.total_steps} steps"
            )
        rates = []
        for highest in self.max_lrs:
            initial = highest / self.div_factor
            rates.append(self._at((initial, highest, initial / self.final_div_factor), 1))
        return rates

    def _apply(self) -> None:
        super()._apply()
        for group, key in zip(self.optimizer.param_groups, self.cycled, strict=True):
            if key == "beta1":
                group["betas"] = (self._at(self.momenta, 2), group["betas"][1])
            elif key is not None:
                group[key] = self._at(self.momenta, 2)


def _momentum_key(group: ParamGroup) -> str | None:
    """The hyperparameter that a cycle of the momentum moves, if there is one."""
    if "betas" in group:
        return "beta1"
    return "momentum" if group.get("momentum") else None


class ReduceLROnPlateau:
    """Multiplies the rate by `factor` when a watched number has not improved for more than `patience` epochs.

    Better is lower with `mode="min"` and higher with `"max"`, by more than `threshold`: relative to the best
    with `threshold_mode="rel"`, absolute with `"abs"`. After a reduction, `cooldown` epochs do not count.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float | Sequence[float] = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError("ReduceLROnPlateau: mode is 'min' or 'max', threshold_mode is 'rel' or 'abs'")
        if not 0 < factor < 1:
            raise ValueError(f"ReduceLROnPlateau: factor lies between 0 and 1, got {factor}")
        self.optimizer = optimizer
        self.mode = mode
        self.factor = factor
        self.patience = patience
        self.threshold = threshold
        self.threshold_mode = threshold_mode
        self.cooldown = cooldown
        count = len(optimizer.param_groups)
        self.min_lrs = (
            [float(min_lr)] * count if isinstance(min_lr, int | float) else [float(x) for x in min_lr]
        )
        if len(self.min_lrs) != count:
            raise ValueError(
                f"ReduceLROnPlateau: {len(self.min_lrs)} values of min_lr for {count} parameter groups"
            )
        self.eps = eps
        self.best: float = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def step(self, metrics: Any) -> None:
        """Take the watched number (a tensor is read) after an epoch."""
        current = float(metrics)
        self.last_epoch += 1
        if self._is_better(current):
            self.best = current
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _is_better(self, current: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        if math.isinf(self.best):
            return sign * current < sign * self.best
        margin = self.threshold * (self.best if self.threshold_mode == "rel" else 1.0)
        return sign * current < sign * self.best - margin

    def _reduce(self) -> None:
        for group, lowest in zip(self.optimizer.param_groups, self.min_lrs, strict=True):
            lr = max(group["lr"] * self.factor, lowest)
            if group["lr"] - lr > self.eps:
                group["lr"] = lr

    def get_last_lr(self) -> list[float]:
        """The rates now in force."""
        return [group["lr"] for group in self.optimizer.param_groups]

    _SAVED = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")

    def state_dict(self) -> dict[str, Any]:
        """What is needed to continue, without the rates, which are the optimizer's."""
        state = {name: getattr(self, name) for name in self._SAVED}
        return {**state, "best": None if math.isinf(self.best) else self.best}  # JSON knows no infinity

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a `state_dict()`."""
        for name in self._SAVED:
            if state_dict[name] is not None:  # no best yet: as it was made
                setattr(self, name, state_dict[name])

"""Stopping when a watched number no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["EarlyStop"]


@dataclass
class EarlyStop:
    """Stops after `patience` epochs in a row in which `monitor` did not get better by more than `min_delta`.

    `monitor` is "loss" or a metric on the held-out rows; `mode` says whether lower ("min") or higher ("max")
    is better.

    >>> stop = EarlyStop(patience=2)
    >>> [stop.update(loss) for loss in (1.0, 0.5, 0.6, 0.5)]
    [False, False, False, True]
    """

    patience: int = 5
    mode: str = "min"
    monitor: str = "loss"
    min_delta: float = 0.0
    best: float | None = field(default=None, init=False)
    bad_epochs: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.mode not in ("min", "max"):
            raise ValueError(f"EarlyStop: mode is 'min' or 'max', got {self.mode!r}")
        if self.patience < 1:
            raise ValueError(f"EarlyStop: patience counts epochs from 1, got {self.patience}")

    def update(self, value: float) -> bool:
        """Take the number of one more epoch; True: stop now."""
        sign = 1.0 if self.mode == "min" else -1.0
        better = self.best is None or sign * value < sign * self.best - self.min_delta
        if better and not math.isnan(value):
            self.best = value
            self.bad_epochs = 0
        else:
            self.bad_epochs += 1
        return self.bad_epochs >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """What is needed to continue."""
        return {"best": self.best, "bad_epochs": self.bad_epochs}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a `state_dict()`."""
        self.best = None if state_dict["best"] is None else float(state_dict["best"])
        self.bad_epochs = int(state_dict["bad_epochs"])

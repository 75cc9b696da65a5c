"""The types that describe a case: its name, its data, and the arithmetic it cannot avoid."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """Something to measure.

    `flops` and `nbytes` are the least that any implementation must do: multiplications and additions of the
    contractions, and bytes of the operands and results that a single pass over memory moves. They turn a time
    into a share of the machine's limits. `nbytes` is zero where the data stays in the caches between steps.
    Goals are stated for all cases of a `group`. `skip` names frameworks that do not take part, with the reason.
    """

    name: str
    suite: str  # "kernels", "training", "eager", "inference" or "epoch"
    kind: str  # which model or operation; the key in each framework's table
    flops: float
    nbytes: float
    make: Callable[[], Any]  # () -> Training or Arrays, made afresh from a fixed seed
    options: dict[str, Any] = field(default_factory=dict)
    group: str = ""
    skip: dict[str, str] = field(default_factory=dict)
    slow: bool = False  # a quick run takes it at the largest number of threads only
    checked: int = 10  # losses compared between frameworks, from the same start


@dataclass(frozen=True)
class Training:
    """A model's initial parameters under PyTorch's names and layouts, and batches to cycle through."""

    parameters: Arrays
    buffers: Arrays  # running statistics of batch normalisation
    batches: list[tuple[np.ndarray, np.ndarray]]  # inputs, class indices
    lr: float = 1e-3

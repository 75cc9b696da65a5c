"""Errors of real-valued predictions. N samples; any shape, equal on both sides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tilewright.metrics.arrays import same_shape

__all__ = ["mae", "mse", "rmse"]


def mae(predictions: Any, targets: Any) -> float:
    """Mean absolute error.

    >>> mae([1.0, 2.0], [1.0, 4.0])
    1.0
    """
    a, b = same_shape("mae", predictions, targets)
    return float(np.mean(np.abs(a.astype(np.float64) - b)))


def mse(predictions: Any, targets: Any) -> float:
    """Mean squared error.

    >>> mse([1.0, 2.0], [1.0, 4.0])
    2.0
    """
    a, b = same_shape("mse", predictions, targets)
    return float(np.mean(np.square(a.astype(np.float64) - b)))


def rmse(predictions: Any, targets: Any) -> float:
    """Root of the mean squared error, in the targets' unit."""
    return math.sqrt(mse(predictions, targets))

"""Measures of a trained model on held-out data: plain functions of predictions and targets.

They take tensors or NumPy arrays, compute in float64 on the host and return a Python float.
"""

from typing import TYPE_CHECKING

from tilewright.core.elsewhere import advising
from tilewright.metrics.classification import accuracy, auc, f1, precision, recall
from tilewright.metrics.regression import mae, mse, rmse

__all__ = ["accuracy", "auc", "f1", "mae", "mse", "precision", "recall", "rmse"]

if not TYPE_CHECKING:
    __getattr__ = advising(__name__, __all__)

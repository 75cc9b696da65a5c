"""Optimizers and learning-rate schedules, under PyTorch's names and with its formulas and defaults."""

from typing import TYPE_CHECKING

from tilewright.core.elsewhere import advising
from tilewright.nn.utils import clip_grad_norm_, clip_grad_value_
from tilewright.optim import lr_scheduler
from tilewright.optim.adam import Adam, AdamW
from tilewright.optim.optimizer import Optimizer, OptimizerStateError, ParamGroup
from tilewright.optim.sgd import SGD, Adagrad, RMSprop

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "OptimizerStateError",
    "ParamGroup",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "lr_scheduler",
]

if not TYPE_CHECKING:
    __getattr__ = advising(__name__, __all__)

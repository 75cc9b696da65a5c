"""Training: the loop over epochs and batches, early stopping, checkpoints, and the record of a run."""

from typing import TYPE_CHECKING

from tilewright.core.elsewhere import advising
from tilewright.train.batches import batch_sizes, epoch_order
from tilewright.train.checkpoint import Checkpoint, CheckpointError
from tilewright.train.early_stop import EarlyStop
from tilewright.train.loop import EpochResult, History, Observer, Progress, Trainer, TrainingError
from tilewright.train.manifest import write_manifest
from tilewright.train.scaling import LossScale

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "EarlyStop",
    "EpochResult",
    "History",
    "LossScale",
    "Observer",
    "Progress",
    "Trainer",
    "TrainingError",
    "batch_sizes",
    "epoch_order",
    "write_manifest",
]

if not TYPE_CHECKING:
    __getattr__ = advising(__name__, __all__)

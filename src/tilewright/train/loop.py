"""`Trainer`: epochs of mini-batches through one jitted step, with what happens between epochs.

The data lies in memory as one array; an epoch is one gather into a shuffled copy, and a batch is a contiguous
piece of it. A last batch of another size compiles the step a second time. What it does not do: print, and
stream data that does not fit in memory.

Shapes: N rows, B batch, *I input, *O output.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tilewright import random
from tilewright.core.diagnostics import TilewrightError
from tilewright.core.dtype import DType, float16
from tilewright.core.integers import integer
from tilewright.functions.arguments import TensorLike
from tilewright.functions.creation import from_numpy, tensor
from tilewright.jit import jit
from tilewright.nn import BatchNorm1d, BatchNorm2d, Module
from tilewright.optim import Optimizer
from tilewright.optim.lr_scheduler import LRScheduler
from tilewright.tensor import Tensor, autocast, no_grad
from tilewright.train.batches import batch_sizes, epoch_order
from tilewright.train.checkpoint import Checkpoint
from tilewright.train.ctrl_c import ctrl_c_noted
from tilewright.train.early_stop import EarlyStop
from tilewright.train.scaling import LossScale

__all__ = ["EpochResult", "History", "Observer", "Progress", "Trainer", "TrainingError"]

Array = np.ndarray[Any, np.dtype[Any]]
Loss = Callable[[Tensor, Tensor], Tensor]
Metric = Callable[[Array, Array], float]

EVALUATION_BATCH = 1024  # rows at once when nothing is learned


def _array(data: Any) -> Array:
    """Rows as an array: tensors are read, and numbers in lists get the types that `tw.tensor` gives them."""
    return data if isinstance(data, np.ndarray) else np.asarray(tensor(data))


class TrainingError(TilewrightError):
    """Training cannot go on, or cannot begin."""


@dataclass(frozen=True)
class Progress:
    """After a step. `epoch` and `step` count from 1, `loss` is the mean of the epoch so far, `rows` those
    seen so far.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    rows: int


@dataclass(frozen=True)
class EpochResult:
    """After an epoch. `held_out` has the loss and the metrics on the held-out rows, if they were computed."""

    epoch: int
    loss: float
    lr: float
    seconds: float
    held_out: dict[str, float] = field(default_factory=dict)


@dataclass
class History:
    """What a training did. `epochs` includes those of the run that it resumed; `seconds` and `steps` do not."""

    epochs: list[EpochResult] = field(default_factory=list)
    steps: int = 0
    rows: int = 0
    seconds: float = 0.0
    resumed_at: int | None = None
    stopped_early: bool = False


class Observer:
    """Told what happens; every method does nothing unless overridden. It is called between steps, so it must
    be quick.
    """

    def on_resume(self, epoch: int) -> None:
        """Training goes on after `epoch` epochs of an earlier run."""

    def on_step(self, progress: Progress) -> None:
        """A step is done."""

    def on_epoch(self, result: EpochResult) -> None:
        """An epoch is done."""


class Trainer:
    """Trains a model on arrays.

    `loss(output, target)` gives a scalar. `scheduler` is stepped after every epoch, or after every batch with
    `schedule="step"`. `precision` (bfloat16 or float16) is the type that products are computed in; float16 comes
    with dynamic loss scaling. `metrics` are computed on the held-out rows from `scores(output)`. With `compile=False`
    the step runs without `jit`, with the same result.

    >>> trainer = Trainer(model, F.mse_loss, optim.Adam(model.parameters()))   # doctest: +SKIP
    >>> trainer.fit(x_train, y_train, x_test, y_test).epochs[-1].loss          # doctest: +SKIP
    0.031
    """

    def __init__(
        self,
        model: Module,
        loss: Loss,
        optimizer: Optimizer,
        *,
        epochs: int = 10,
        batch: int = 32,
        seed: int = 0,
        shuffle: bool = True,
        compile: bool = True,
        precision: DType | None = None,
        scheduler: LRScheduler | None = None,
        schedule: str = "epoch",
        early_stop: EarlyStop | None = None,
        checkpoint: Checkpoint | None = None,
        metrics: Mapping[str, Metric] | None = None,
        scores: Callable[[Array], Array] | None = None,
        identity: Mapping[str, Any] | None = None,
        observer: Observer | None = None,
    ) -> None:
        try:
            epochs, batch = integer(epochs), integer(batch)
        except TypeError:
            raise ValueError(
                f"Trainer: epochs and batch are integers, got {epochs!r} and {batch!r}"
            ) from None
        if epochs < 1 or batch < 1:
            raise ValueError(f"Trainer: epochs and batch count from 1, got {epochs} and {batch}")
        if schedule not in ("epoch", "step"):
            raise ValueError(f"Trainer: schedule is 'epoch' or 'step', got {schedule!r}")
        self.model = model
        self.loss = loss
        self.optimizer = optimizer
        self.epochs = epochs
        self.batch = batch
        self.seed = seed
        self.shuffle = shuffle
        self.precision = precision
        self.scale = LossScale() if precision is float16 else None
        self.scheduler = scheduler
        self.schedule = schedule
        self.early_stop = early_stop
        self.checkpoint = checkpoint
        self.metrics = dict(metrics or {})
        self.scores = scores
        self.identity = dict(identity or {})
        self.observer = observer or Observer()
        self.train_step: Callable[[Tensor, Tensor], Tensor] = jit(self._step) if compile else self._step
        self._forward: Callable[[Tensor], Tensor] = jit(self._infer) if compile else self._infer

    # ---- the programs --------------------------------------------------------------------------------------

    def _step(self, x: Tensor, y: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        with autocast(self.precision):
            loss = self.loss(self.model(x), y)
        if self.scale is not None:
            self.scale.step(loss, self.optimizer)
        else:
            loss.backward()
            self.optimizer.step()
        return loss

    def _infer(self, x: Tensor) -> Tensor:
        with no_grad(), autocast(self.precision):
            out: Tensor = self.model(x)
        return out

    # ---- training ------------------------------------------------------------------------------------------

    def fit(
        self, x: TensorLike, y: TensorLike, x_test: TensorLike | None = None, y_test: TensorLike | None = None
    ) -> History:
        """Train on rows x [N, *I] with targets y [N, ...]; `early_stop` and `metrics` look at the test rows.

        Raises `TrainingError` when the loss is no longer a number, `CheckpointError` for a checkpoint of
        another run. Ctrl-C ends it between two steps, or after the one that runs: the model has the weights of a
        whole step, and the exception's note says which epoch the checkpoint holds.
        """
        x, y = _array(x), _array(y)
        x_test, y_test = (None if a is None else _array(a) for a in (x_test, y_test))
        held_out = (x_test, y_test) if x_test is not None and y_test is not None and len(x_test) else None
        if len(x) != len(y):
            raise TrainingError(f"training needs as many rows as targets, got {len(x)} and {len(y)}")
        if len(x) == 0:
            raise TrainingError("training needs at least one row, got none")
        if self.early_stop is not None and held_out is None:
            raise TrainingError("early stopping watches held-out rows, and there are none; lower `split`")
        history = History()
        done = self._resume(history)
        epoch, saved = done, history.resumed_at
        try:
            with ctrl_c_noted() as check:
                for epoch in range(done + 1, self.epochs + 1):
                    result = self._epoch(epoch, x, y, held_out, history, check)
                    history.epochs.append(result)
                    self.observer.on_epoch(result)
                    stop = self.early_stop is not None and self._watch(result)
                    if self.checkpoint is not None and (
                        epoch % self.checkpoint.every_n == 0 or epoch == self.epochs or stop
                    ):
                        self.checkpoint.save(*self._state(epoch, stop, history))
                        saved = epoch
                    if stop:
                        history.stopped_early = True
                        break
                check()
        except KeyboardInterrupt as error:
            error.add_note(self._interrupted(epoch, saved))
            raise
        finally:  # also when it is interrupted, what is being written gets whole
            if self.checkpoint is not None:
                self.checkpoint.wait()
        return history

    def _interrupted(self, epoch: int, saved: int | None) -> str:
        """What is left when somebody stops the training in an epoch."""
        where = f"training was interrupted in epoch {epoch} of {self.epochs}"
        if saved is None or self.checkpoint is None:
            return f"{where}; no checkpoint was saved to go on from"
        return (
            f"{where}; {self.checkpoint.path} holds epoch {saved}, and the same training goes on from there"
        )

    def _epoch(
        self,
        epoch: int,
        x: Array,
        y: Array,
        held_out: tuple[Array, Array] | None,
        history: History,
        check: Callable[[], None],
    ) -> EpochResult:
        start = time.perf_counter()
        self.model.train()
        if self.shuffle:
            order = epoch_order(len(x), self.seed, epoch)
            x, y = x[order], y[order]
        sizes = batch_sizes(len(x), self.batch, smallest=2 if self._normalizes_batches() else 1)
        lr, total, seen = float(self.optimizer.param_groups[0]["lr"]), 0.0, 0
        for step, size in enumerate(sizes, 1):
            check()
            rows = slice(seen, seen + size)
            loss = self.train_step(from_numpy(x[rows]), from_numpy(y[rows])).item()
            total += loss * size
            seen += size
            if self.scheduler is not None and self.schedule == "step":
                self.scheduler.step()
            history.steps += 1
            history.rows += size
            mean = total / seen
            if not math.isfinite(mean):
                cause = f"the loss became {loss} in epoch {epoch}, step {step}; "
                for name, part in (("inputs", x[rows]), ("targets", y[rows])):
                    if part.dtype.kind == "f" and not np.isfinite(part).all():
                        raise TrainingError(f"{cause}the {name} of its rows hold NaN or infinity")
                raise TrainingError(
                    f"{cause}a lower learning rate (now {self.optimizer.param_groups[0]['lr']:g}) or normalized data "
                    f"may help"
                )
            self.observer.on_step(Progress(epoch, self.epochs, step, len(sizes), mean, history.rows))
        if self.scheduler is not None and self.schedule == "epoch":
            self.scheduler.step()
        seconds = time.perf_counter() - start
        history.seconds += seconds
        measured = self.evaluate(*held_out) if held_out is not None and self.early_stop is not None else {}
        return EpochResult(epoch, total / seen, lr, seconds, measured)

    def _normalizes_batches(self) -> bool:
        return any(isinstance(m, BatchNorm1d | BatchNorm2d) for m in self.model.modules())

    def _watch(self, result: EpochResult) -> bool:
        assert self.early_stop is not None
        if self.early_stop.monitor not in result.held_out:
            known = ", ".join(result.held_out)
            raise TrainingError(
                f"early stopping watches {self.early_stop.monitor!r}, which is not one of: {known}"
            )
        return self.early_stop.update(result.held_out[self.early_stop.monitor])

    # ---- evaluation ----------------------------------------------------------------------------------------

    def predict(self, x: TensorLike) -> Array:
        """The model's outputs in evaluation mode for rows x [N, *I]: [N, *O]."""
        x = _array(x)
        was_training = self.model.training
        self.model.eval()
        try:
            parts = [
                np.array(self._forward(from_numpy(np.ascontiguousarray(x[i : i + EVALUATION_BATCH]))).numpy())
                for i in range(0, max(len(x), 1), EVALUATION_BATCH)
            ]
        finally:
            self.model.train(was_training)
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def evaluate(self, x: TensorLike, y: TensorLike) -> dict[str, float]:
        """The loss and every metric of the model in evaluation mode on rows x [N, *I] with targets y."""
        x, y = _array(x), _array(y)
        if len(x) == 0:
            raise TrainingError("there are no rows to evaluate on")
        output = self.predict(x)
        with no_grad():
            loss = self.loss(from_numpy(output), from_numpy(np.ascontiguousarray(y))).item()
        scores = self.scores(output) if self.scores is not None else output
        return {"loss": loss, **{name: metric(scores, y) for name, metric in self.metrics.items()}}

    # ---- checkpoints ---------------------------------------------------------------------------------------

    def _state(self, epoch: int, stopped: bool, history: History) -> tuple[dict[str, Any], dict[str, Any]]:
        optimizer = self.optimizer.state_dict()
        tensors: dict[str, Any] = {f"model.{name}": t for name, t in self.model.state_dict().items()}
        for index, entries in optimizer["state"].items():
            tensors.update({f"optimizer.{index}.{name}": t for name, t in entries.items()})
        tensors["random.state"] = random.default_generator.state
        state = {
            "identity": self.identity,
            "epoch": epoch,
            "stopped": stopped,
            "history": [asdict(result) for result in history.epochs],
            "param_groups": optimizer["param_groups"],
            "scheduler": None if self.scheduler is None else self.scheduler.state_dict(),
            "early_stop": None if self.early_stop is None else self.early_stop.state_dict(),
        }
        return tensors, state

    def _resume(self, history: History) -> int:
        """Take over the checkpoint, if there is one; returns how many epochs are done (all, if that run had
        stopped).
        """
        found = None if self.checkpoint is None else self.checkpoint.load(self.identity)
        if found is None:
            return 0
        tensors, state = found
        entries: dict[str, dict[str, Any]] = {}
        for name, array in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                index, _, key = rest.partition(".")
                entries.setdefault(index, {})[key] = array
        prefix = "model."
        self.model.load_state_dict(
            {n.removeprefix(prefix): a for n, a in tensors.items() if n.startswith(prefix)}
        )
        self.optimizer.load_state_dict({"state": entries, "param_groups": state["param_groups"]})
        if self.scheduler is not None and state["scheduler"] is not None:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.early_stop is not None and state["early_stop"] is not None:
            self.early_stop.load_state_dict(state["early_stop"])
        with no_grad():
            random.default_generator.state.assign(Tensor(tensors["random.state"]))
        history.epochs = [EpochResult(**result) for result in state["history"]]
        history.resumed_at = state["epoch"]
        history.stopped_early = bool(state["stopped"])
        self.observer.on_resume(state["epoch"])
        return self.epochs if history.stopped_early else int(state["epoch"])

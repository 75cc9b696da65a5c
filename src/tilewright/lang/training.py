"""Carrying out a checked program: load, train, evaluate, export, record.

`train_run` does one point of a sweep from beginning to end. What could fail late is tried early: places that
cannot be written, metrics that the held-out rows do not allow, formats that this version does not have. It
prints nothing.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tilewright import nn, random
from tilewright.core.dtype import bfloat16, float16
from tilewright.core.files import check_writable
from tilewright.core.settings import settings
from tilewright.data.csv import Data
from tilewright.interop.safetensors import save_file
from tilewright.lang.build import (
    build_early_stop,
    build_loss,
    build_metrics,
    build_model,
    build_optimizer,
    build_scheduler,
    build_scores,
)
from tilewright.lang.dataset import load_dataset
from tilewright.lang.lock import hash_file
from tilewright.lang.program import Program, Run, plain
from tilewright.lang.types import COMMAND_LINE
from tilewright.lang.vocabulary import REGRESSION_METRICS
from tilewright.train import (
    Checkpoint,
    History,
    Observer,
    Trainer,
    TrainingError,
    batch_sizes,
    write_manifest,
)
from tilewright.version import __version__

__all__ = ["Outcome", "Places", "build_trainer", "find_places", "override", "rank", "train_run"]

MANIFEST = "run_manifest.json"


@dataclass(frozen=True)
class Places:
    """Where a run writes: the exported model, its manifest, its checkpoint."""

    model: Path | None
    manifest: Path
    checkpoint: Path | None


@dataclass(frozen=True)
class Outcome:
    """A finished run. `metrics` are those on the held-out rows; `seconds` is the whole run's time by part."""

    run: Run
    model: nn.Module
    history: History
    metrics: dict[str, float]
    places: Places
    rows: int
    held_out: int
    seconds: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {
            "name": self.run.name,
            "params": plain(self.run.params),
            "epochs": len(self.history.epochs),
            "stopped_early": self.history.stopped_early,
            "loss": self.history.epochs[-1].loss,
            "metrics": self.metrics,
            "rows": self.rows,
            "held_out": self.held_out,
            "seconds": self.seconds,
            "model": None if self.places.model is None else str(self.places.model),
            "manifest": str(self.places.manifest),
        }


def override(
    program: Program, *, device: str | None = None, epochs: int | None = None, seed: int | None = None
) -> Program:
    """The program with some values of its `train` block replaced, as the command line's options do."""
    given = {
        key: value
        for key, value in (("device", device), ("epochs", epochs), ("seed", seed))
        if value is not None
    }
    runs = tuple(replace(run, train=replace(run.train, **given)) for run in program.runs)  # type: ignore[arg-type]
    return replace(program, runs=runs)


def find_places(program: Program, run: Run, out: str | None = None) -> Places:
    """Where a run writes: relative to the program's file, or into the directory `out` under the same file
    names.

    Each point of a sweep has a directory of its own, named after the point.
    """
    base = Path(os.path.dirname(program.path))
    point = re.sub(r"[^\w.,=+-]+", "_", run.name)

    def place(written: str) -> Path:
        path = base / written if out is None else Path(out) / Path(written).name
        return path.parent / point / path.name if point else path

    model = None if run.export is None else place(run.export.path)
    checkpoint = None if run.train.checkpoint is None else place(run.train.checkpoint["path"])
    beside = model or checkpoint or place(MANIFEST)
    return Places(model, beside.parent / MANIFEST, checkpoint)


def build_trainer(
    run: Run, data: Data, places: Places | None = None, observer: Observer | None = None
) -> Trainer:
    """The trainer of a run with a fresh model, all from the run's seed."""
    train = run.train
    random.manual_seed(train.seed)
    model = build_model(train.model)
    optimizer = build_optimizer(train.optimizer, model)
    steps = len(batch_sizes(len(data.x_train), train.batch))
    scheduler, schedule = build_scheduler(train.scheduler, optimizer, train.epochs, steps)
    checkpoint = None
    if train.checkpoint is not None and places is not None and places.checkpoint is not None:
        choice = train.checkpoint
        checkpoint = Checkpoint(places.checkpoint, choice["every_n"], choice["async_save"])
    return Trainer(
        model,
        build_loss(train.loss),
        optimizer,
        epochs=train.epochs,
        batch=train.batch,
        seed=train.seed,
        shuffle=train.data.shuffle,
        compile=train.compile,
        precision={"fp32": None, "bf16": bfloat16, "fp16": float16}[train.precision],
        scheduler=scheduler,
        schedule=schedule,
        early_stop=build_early_stop(train.early_stop),
        checkpoint=checkpoint,
        metrics=build_metrics(run),
        scores=build_scores(run),
        identity=_identity(run, data),
        observer=observer,
    )


def _identity(run: Run, data: Data) -> dict[str, Any]:
    """What must not change between a checkpoint and the run that resumes it."""
    train = run.train
    return {
        "model": plain(train.model),
        "loss": plain(train.loss),
        "optimizer": plain(train.optimizer),
        "batch": train.batch,
        "seed": train.seed,
        "data": data.sha256,
    }


def train_run(
    program: Program, run: Run, out: str | None = None, observer: Observer | None = None
) -> Outcome:
    """Train one run and write what it exports and its manifest.

    Raises `TilewrightError` of the kind that fits: data, checkpoint, training, or a file that cannot be
    written. Files are written whole or not at all, and places that cannot be written are refused before
    training.
    """
    with settings.override(deterministic=run.train.deterministic or settings.deterministic):
        return _train_run(program, run, out, observer)


def _train_run(program: Program, run: Run, out: str | None, observer: Observer | None) -> Outcome:
    start = time.perf_counter()
    places = find_places(program, run, out)
    data = load_dataset(program, run)
    trainer = build_trainer(run, data, places, observer)
    _try_metrics(trainer, data)
    for path in filter(None, (places.model, places.manifest, places.checkpoint)):
        check_writable(path)
    loaded = time.perf_counter()
    history = trainer.fit(data.x_train, data.y_train, data.x_test, data.y_test)
    trained = time.perf_counter()
    metrics = trainer.evaluate(data.x_test, data.y_test) if len(data.x_test) else {}
    evaluated = time.perf_counter()
    if places.model is not None:
        _export(run, trainer.model, data, places.model)
    seconds = {
        "load": loaded - start,
        "train": trained - loaded,
        "evaluate": evaluated - trained,
        "export": time.perf_counter() - evaluated,
    }
    outcome = Outcome(
        run, trainer.model, history, metrics, places, len(data.x_train), len(data.x_test), seconds
    )  # fmt: skip
    _record(program, outcome, data)
    return outcome


def _try_metrics(trainer: Trainer, data: Data) -> None:
    """Compute every metric on targets in place of predictions, so that data it cannot measure stops the run
    early.
    """
    if not len(data.y_test):
        if trainer.metrics:
            raise TrainingError("metrics are computed on held-out rows, and there are none; lower `split`")
        return
    stand_in: Any = data.y_test
    if data.y_test.dtype == np.int64 and data.schema.classes is not None:
        stand_in = np.eye(len(data.schema.classes))[data.y_test]
    for name, metric in trainer.metrics.items():
        try:
            metric(stand_in, data.y_test)
        except ValueError as error:
            raise TrainingError(f"metric `{name}` cannot be computed on the held-out rows: {error}") from None


def _export(run: Run, model: nn.Module, data: Data, path: Path) -> None:
    """The model's state, with what is needed to use it: layers, features, classes and normalisation."""
    metadata = {
        "format": "tilewright.model",
        "version": __version__,
        "model": json.dumps(plain(run.train.model)),
        "features": json.dumps(data.schema.features),
        "classes": json.dumps(data.schema.classes),
        "normalization": json.dumps({"mean": data.mean.tolist(), "scale": data.scale.tolist()}),
    }
    save_file(model.state_dict(), path, metadata)


def _record(program: Program, outcome: Outcome, data: Data) -> None:
    run, history, places = outcome.run, outcome.history, outcome.places
    outputs: dict[str, Any] = {}
    if places.model is not None:
        outputs["model"] = {"path": str(places.model), "sha256": hash_file(str(places.model))}
    write_manifest(
        places.manifest,
        program=program.path,
        sources={s.path: s.sha256 for s in program.sources if s.path != COMMAND_LINE},
        data={data.path: data.sha256},
        seed=run.train.seed,
        params=plain(run.params),
        training={
            "rows": outcome.rows,
            "held_out": outcome.held_out,
            "epochs": len(history.epochs),
            "resumed_at": history.resumed_at,
            "stopped_early": history.stopped_early,
            "steps": history.steps,
            "seconds": outcome.seconds,
            "history": [asdict(result) for result in history.epochs],
            "train": plain(run.train),
        },
        metrics=outcome.metrics,
        outputs=outputs,
    )


def rank(outcomes: Sequence[Outcome]) -> int:
    """The position of the best outcome: by its first metric, then by its loss."""

    def key(outcome: Outcome) -> tuple[float, float]:
        names = [name for name in outcome.metrics if name != "loss"]
        value = outcome.metrics[names[0]] if names else 0.0
        if names and names[0] not in REGRESSION_METRICS:
            value = -value  # higher is better
        return value, outcome.metrics.get("loss", outcome.history.epochs[-1].loss)

    return min(range(len(outcomes)), key=lambda i: key(outcomes[i]))

"""Progress of a training on the terminal: a bar with loss, samples per second and time left.

On a terminal the bar is rich's, imported only then. Elsewhere a few lines say how far it is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tilewright.lang.program import Run
from tilewright.train import EpochResult, Observer, Progress

__all__ = ["observer_for"]

REFRESH_SECONDS = 0.1  # between two updates of the bar: a step may take less than writing a line
PRINTED_EPOCHS = 10  # lines at most where there is no terminal


@contextmanager
def observer_for(run: Run, silent: bool) -> Iterator[Observer]:
    """An observer that shows the progress of a run while the block lasts."""
    if silent:
        yield Observer()
    elif sys.stdout.isatty():
        with _bar() as bar:
            yield _Bar(bar, run.train.epochs)
    else:
        yield _Lines(run.train.epochs)


def _bar() -> Any:
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("{task.fields[rate]} samples/s"),
        TimeRemainingColumn(),
        TextColumn("left"),
        transient=True,
    )


class _Bar(Observer):
    """Feeds a rich progress bar; its total is steps of all epochs."""

    def __init__(self, bar: Any, epochs: int) -> None:
        self.bar = bar
        self.epochs = epochs
        self.task = bar.add_task(
            "train", total=None, epoch="1", loss="-", rate="-"
        )  # until the step is compiled
        self.total: int | None = None
        self.first_epoch = 0
        self.last_shown = 0.0
        self.mark = (time.perf_counter(), 0)  # when and at how many rows the rate was last taken
        self.rate = 0.0

    def on_resume(self, epoch: int) -> None:
        self.first_epoch = epoch

    def on_step(self, progress: Progress) -> None:
        now = time.perf_counter()
        if self.total is None:
            self.total = (self.epochs - self.first_epoch) * progress.steps
            self.bar.update(self.task, total=self.total)
        last = progress.epoch == self.epochs and progress.step == progress.steps
        if now - self.last_shown < REFRESH_SECONDS and not last:
            return
        seconds, rows = now - self.mark[0], progress.rows - self.mark[1]
        self.rate = rows / seconds if seconds > 0 else self.rate
        self.mark, self.last_shown = (now, progress.rows), now
        done = (progress.epoch - 1 - self.first_epoch) * progress.steps + progress.step
        self.bar.update(
            self.task,
            completed=done,
            epoch=f"{progress.epoch}/{self.epochs}",
            loss=f"{progress.loss:.4g}",
            rate=f"{self.rate:,.0f}",
        )


class _Lines(Observer):
    """Prints about ten lines in all."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs
        self.every = max(1, -(-epochs // PRINTED_EPOCHS))

    def on_resume(self, epoch: int) -> None:
        print(f"resumed after epoch {epoch}", flush=True)

    def on_epoch(self, result: EpochResult) -> None:
        if result.epoch % self.every and result.epoch != self.epochs:
            return
        held_out = "".join(f", held-out {name} {value:.4g}" for name, value in result.held_out.items())
        print(f"epoch {result.epoch}/{self.epochs}  loss {result.loss:.4g}{held_out}", flush=True)

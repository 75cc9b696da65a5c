"""Checkpoints: all that a run needs to go on, in one safetensors file that is replaced in one step.

Tensors are `model.NAME`, `optimizer.INDEX.NAME` and `random.NAME`; everything else (epoch, history, learning
rates, schedule, early stop, and what identifies the run) is JSON under the metadata key `state`. Nothing is
ever unpickled.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.core.diagnostics import TilewrightError, join_names, printable
from tilewright.core.files import FileFormatError, check_writable
from tilewright.interop.safetensors import load_file, save_file
from tilewright.version import __version__

__all__ = ["Checkpoint", "CheckpointError"]

SUFFIX = ".checkpoint.safetensors"  # an exported model of the same name stays apart


class CheckpointError(TilewrightError):
    """A checkpoint is damaged, or belongs to another run."""


class Checkpoint:
    """Where and how often to save. `path` is without suffix: the file is PATH.checkpoint.safetensors.

    With `async_save` a thread writes a copy while training goes on; its error, if any, is raised by the next
    `save` or by `wait`.
    """

    def __init__(self, path: str | os.PathLike[str], every_n: int = 1, async_save: bool = False) -> None:
        if every_n < 1:
            raise ValueError(f"Checkpoint: every_n counts epochs from 1, got {every_n}")
        text = os.fspath(path)
        self.path = Path(text if text.endswith(SUFFIX) else text + SUFFIX)
        self.every_n = every_n
        self.async_save = async_save
        self._writer: threading.Thread | None = None
        self._written = threading.Event()
        self._error: Exception | None = None

    def check(self) -> None:
        """Raise `FileWriteError` now if the file could not be written later."""
        check_writable(self.path)

    def save(self, tensors: Mapping[str, Any], state: Mapping[str, Any]) -> None:
        """Write tensors (objects with `numpy()`, or arrays) and JSON-ready state, replacing the last
        checkpoint.
        """
        self.wait()
        metadata = {
            "format": "tilewright.checkpoint",
            "version": __version__,
            "state": json.dumps(_finite(state)),
        }
        arrays = {name: np.array(t.numpy() if hasattr(t, "numpy") else t) for name, t in tensors.items()}
        if not self.async_save:
            save_file(arrays, self.path, metadata)
            return

        def write() -> None:
            try:
                save_file(arrays, self.path, metadata)
            except Exception as error:  # raised again where the run can see it
                self._error = error
            finally:
                self._written.set()

        self._written.clear()
        self._writer = threading.Thread(target=write, name="checkpoint")
        self._writer.start()

    def wait(self) -> None:
        """Return when the last checkpoint is on disk; raises the error that kept it from there."""
        if self._writer is not None:
            # not by `join`: interrupted once, that takes the thread for ended
            self._written.wait()
            self._writer = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def load(self, identity: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(tensors, state) of the file, or None if there is none.

        Raises `CheckpointError` when the file is no checkpoint or its run differs from `identity`.
        """
        if not self.path.exists():
            return None
        advice = f"remove {self.path} to start afresh, or give the checkpoint another path"
        try:
            file = load_file(self.path)
        except FileFormatError as error:
            raise CheckpointError(f"{error}; {advice}") from None
        if file.metadata.get("format") != "tilewright.checkpoint":
            raise CheckpointError(f"{self.path} is not a checkpoint; {advice}")
        try:
            state = json.loads(file.metadata["state"])
            saved = state["identity"]
            assert isinstance(saved, dict) and isinstance(state["epoch"], int)
        except (KeyError, TypeError, ValueError, RecursionError, AssertionError):
            raise CheckpointError(f"{self.path}: the checkpoint is damaged; {advice}") from None
        wanted = json.loads(json.dumps(_finite(identity)))
        different = sorted(key for key in {*saved, *wanted} if saved.get(key) != wanted.get(key))
        if different:
            names = printable(join_names(different))
            raise CheckpointError(f"{self.path} is of another run: it differs in {names}; {advice}")
        return dict(file.tensors), state


def _finite(value: Any) -> Any:
    """The value as JSON can hold it: infinities and NaN as null, tuples as lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value

"""Choices measured on this machine, in a file that later compiles read: `tw tune` writes it.

    {"format": 1, "version": "0.1.0", "target": "...", "choices": {KEY: {"tiling": {...}, "gain": 1.12, "date": "2026-11-20"}}}

One file a target, in the cache directory. A choice is used where its key, which says everything that the cost model knows of a
problem, is met again. What is in the file decides how fast a program is and never what it computes beyond the rounding of sums: a
choice that the recipe would not build is ignored, and so is, with a warning, a file that is damaged or somebody else's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any

from tilewright.core.files import write_json_atomic
from tilewright.core.warn import warn
from tilewright.recipes.contraction import Situation, Tiling
from tilewright.recipes.machine import Machine

__all__ = ["Choice", "Choices", "TuningWarning", "database_path", "read_choices", "write_choices"]

FORMAT = 1
MAX_BYTES = 16 << 20  # of a database: nobody has tuned so much


class TuningWarning(UserWarning):
    """A database of tuned choices could not be used; the cost model chooses instead."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A tiling, how many times faster it was than the model's, and the day on which that was measured."""

    tiling: Tiling
    gain: float
    date: str

    @property
    def reason(self) -> str:
        """What ``explain`` says of it."""
        return f"tuned: {self.gain:.2f}x over the model's choice, measured {self.date}"


class Choices:
    """Tuned choices by the key of their problem."""

    def __init__(self, rows: Mapping[str, Choice] | None = None) -> None:
        self.rows = dict(rows or {})

    def find(self, situation: Situation, machine: Machine) -> Choice | None:
        """The choice for a problem, if there is one that the recipe can build."""
        choice = self.rows.get(situation.key(machine)) if self.rows else None
        return choice if choice is not None and situation.allows(choice.tiling, machine) else None


def database_path(directory: Path, target: str) -> Path:
    """The file for a target, named by a digest of its key (CPU and features)."""
    return directory / f"tuned-{blake2b(target.encode(), digest_size=8).hexdigest()}.json"


_known: dict[Path, tuple[tuple[int, int], Choices]] = {}


def read_choices(path: Path, target: str) -> Choices:
    """What is stored for a target: nothing where there is no file; a file that cannot be used warns and gives nothing."""
    try:
        status = path.stat()
    except OSError:
        return Choices()
    stamp = (status.st_mtime_ns, status.st_size)
    known = _known.get(path)
    if known is not None and known[0] == stamp:
        return known[1]
    try:
        if status.st_size > MAX_BYTES:
            raise ValueError("it is too large")
        choices = _parsed(json.loads(path.read_text(encoding="utf-8")), target)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        warn(
            f"the tuned choices in {path} are not used: {error}. Remove the file, or run `tw tune` again.",
            TuningWarning,
        )
        choices = Choices()
    _known[path] = (stamp, choices)
    return choices


def _parsed(document: Any, target: str) -> Choices:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"it is not a database of format {FORMAT}")
    if document.get("target") != target:
        raise ValueError("it was measured for another target")
    if not isinstance(document["choices"], dict):
        raise ValueError("its choices are not a table")
    return Choices({key: _choice(row) for key, row in document["choices"].items()})


def _choice(row: Any) -> Choice:
    kinds = {"str": str, "int": int, "bool": bool}
    tiling = {f.name: row["tiling"][f.name] for f in fields(Tiling)}
    for f in fields(Tiling):
        if type(tiling[f.name]) is not kinds[str(f.type)]:
            raise ValueError(f"{f.name} of a choice is {tiling[f.name]!r}")
    gain, date = row["gain"], row["date"]
    if type(gain) is not float or not 0 < gain < 1e6 or type(date) is not str or len(date) > 40:
        raise ValueError("a choice has no gain or no date")
    return Choice(Tiling(**tiling), gain, date)


def write_choices(path: Path, target: str, version: str, choices: Choices) -> None:
    """Store choices, in one step. Raises ``FileWriteError``."""
    rows = {
        key: {
            "tiling": {f.name: getattr(c.tiling, f.name) for f in fields(Tiling)},
            "gain": round(c.gain, 3),
            "date": c.date,
        }
        for key, c in sorted(choices.rows.items())
    }
    write_json_atomic(path, {"format": FORMAT, "version": version, "target": target, "choices": rows})

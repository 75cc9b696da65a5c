"""The record of a run, `run_manifest.json`: what ran on what, with which result. Written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tilewright.core.files import write_json_atomic
from tilewright.runtime.environment import environment
from tilewright.version import __version__

__all__ = ["write_manifest"]

FORMAT = 1


def write_manifest(
    path: str | os.PathLike[str],
    *,
    program: str,
    sources: Mapping[str, str],
    data: Mapping[str, str],
    seed: int,
    params: Mapping[str, Any],
    training: Mapping[str, Any],
    metrics: Mapping[str, float],
    outputs: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the manifest of a run and return it. `sources` and `data` map paths to sha256 digests.

    Raises `FileWriteError` when it cannot be written.
    """
    manifest = {
        "format": FORMAT,
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "program": program,
        "sources": dict(sources),
        "data": dict(data),
        "seed": seed,
        "params": dict(params),
        "environment": environment(),
        "training": dict(training),
        "metrics": dict(metrics),
        "outputs": dict(outputs),
    }
    write_json_atomic(path, manifest)
    return manifest

"""`tw doctor`: what this machine has, what code is generated for it, where the caches are, and whether it
works.

It compiles and runs a small program, so that a broken installation shows here. Exit code 1 if that fails.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.core.settings import settings
from tilewright.runtime import builtin
from tilewright.runtime.cache import DiskCache
from tilewright.runtime.environment import package_versions
from tilewright.runtime.target import available_cpus, host_target
from tilewright.version import __version__


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    report = examine()
    if args.json:
        json.dump(report, sys.stdout, indent=2)
        print()
    else:
        print("\n".join(render(report)))
    return 0 if report["check"]["ok"] else 1


def examine() -> dict[str, Any]:
    """All that `tw doctor` says, JSON-ready. Sizes are in bytes."""
    return {
        "software": {
            "tilewright": __version__,
            "python": platform.python_version(),
            "calls": _calls(),
            **{name: number or "not installed" for name, number in package_versions().items()},
        },
        "machine": {
            "platform": platform.platform(),
            "cpus": os.cpu_count() or 1,
            "cpus_available": available_cpus(),
            "threads": min(settings.threads or available_cpus(), available_cpus()),
            **_memory(),
        },
        "target": {**asdict(host_target()), "dots": sorted(host_target().dots)},
        "cache": _cache(),
        "settings": {name: _plain(getattr(settings, name)) for name in settings.names()},
        "check": _check(),
    }


def _calls() -> str:
    """How calls of compiled functions go in this Python."""
    why = builtin.unavailable()
    return "native" if why is None else f"Python code, because {why}"


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | float | str | bool | None) else str(value)


def _memory() -> dict[str, int | None]:
    """Bytes of memory: of the machine, free to use now, and the limit that a container or the shell sets."""
    found: dict[str, int | None] = {"memory": None, "memory_available": None, "memory_limit": None}
    with contextlib.suppress(OSError, ValueError):
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        for key, name in (("memory", "MemTotal"), ("memory_available", "MemAvailable")):
            if name in rows:
                found[key] = int(rows[name].split()[0]) << 10
    limits = []
    with contextlib.suppress(OSError, ValueError):
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))  # "max" is no number: no limit
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            limits.append(soft)
    found["memory_limit"] = min(limits, default=None)
    return found


def _cache() -> dict[str, Any]:
    """The kernel cache: where, how full, and whether it can be written."""
    cache = DiskCache.from_settings()
    if cache.directory is None:
        return {"directory": None, "entries": 0, "bytes": 0, "limit": cache.max_bytes, "writable": False}
    entries = cache.entries()
    return {
        "directory": str(cache.directory),
        "entries": len(entries),
        "bytes": sum(size for _, size, _ in entries),
        "limit": cache.max_bytes,
        "writable": _is_writable(cache.directory),
    }


def _is_writable(directory: Path) -> bool:
    """Whether a file can be made there, or in the nearest directory above that exists."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def _check() -> dict[str, Any]:
    """Compile and run a small program and compare it with NumPy."""
    start = time.perf_counter()
    try:
        from tilewright.functions.creation import from_numpy

        x = np.linspace(-3, 3, 1000, dtype=np.float32).reshape(10, 100)
        found = (from_numpy(x).exp() * 2 + 1).sum(axis=1).numpy()
        close = bool(np.allclose(found, (np.exp(x) * 2 + 1).sum(axis=1), rtol=1e-5))
        problem = None if close else "a compiled program gives wrong numbers"
    except Exception as error:  # whatever is broken here is what the user asked about
        problem = f"{type(error).__name__}: {error}"
    return {"ok": problem is None, "problem": problem, "seconds": round(time.perf_counter() - start, 3)}


def render(report: dict[str, Any]) -> list[str]:
    """The report as aligned lines."""
    lines = []
    target = dict(report["target"])
    features = [word[1:] for word in target.pop("features").split(",") if word.startswith("+")]
    sections = {**report, "target": target}
    for title in ("software", "machine", "target", "cache", "settings"):
        lines.append(title)
        lines += [f"    {key:<18} {_show(key, value)}" for key, value in sections[title].items()]
        if title == "target":
            lines += _wrap("features", features)
    check = report["check"]
    verdict = (
        f"ok, a program was compiled and run in {check['seconds']:.2f} s" if check["ok"] else check["problem"]
    )
    return [*lines, "check", f"    {verdict}"]


_IN_BYTES = {"memory", "memory_available", "memory_limit", "bytes", "limit", "l1", "l2", "l3", "cache_size"}


def _show(key: str, value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key in _IN_BYTES:
        for unit, shift in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
            if value >= 1 << shift:
                return f"{value / (1 << shift):.4g} {unit}"
        return f"{value} bytes"
    return str(value)


def _wrap(title: str, words: list[str], width: int = 88) -> list[str]:
    rows = [""]
    for word in words:
        if len(rows[-1]) + len(word) > width:
            rows.append("")
        rows[-1] += f"{word} "
    return [f"    {title if n == 0 else '':<18} {row.rstrip()}" for n, row in enumerate(rows)]

"""Measure fresh processes: import, compilation with cold and with warm caches, the first trained step, memory.

    python -m bench.startup [--frameworks tilewright,torch-fused,jax] [--only NAME] [--repeat 3] [--json FILE]

A cold run gets empty directories for the caches of compiled code; warm runs follow in the same directories.
The files of Python and of the libraries are in the operating system's cache in both. Every run makes the data
too. Compilation is the first step less a later one. Peers are measured in one cold run, and a warm one.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.cases import SUITES
from bench.frameworks import FRAMEWORKS
from bench.harness import ROOT
from bench.machine import describe
from bench.report import write_json

CACHES = ("TW_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
COLUMNS = (
    ("import s", "warm", "import"),
    ("tensor class s", "warm", "ready"),
    ("compile s, cold", "cold", "compile"),
    ("compile s, warm", "warm", "compile"),
    ("first step s, cold", "cold", "first_step"),
    ("first step s, warm", "warm", "first_step"),
    ("peak MiB", "warm", "peak_mib"),
)


def run_once(framework: str, case: str, caches: Path) -> dict[str, float]:
    """Seconds from starting the process to the import and the first step being done; compilation; memory."""
    directories = {name: str(caches / name) for name in CACHES}
    began = time.monotonic()
    child = subprocess.run(
        [sys.executable, "-m", "bench.startup_child", framework, case],
        cwd=ROOT,
        env=os.environ | directories | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    times: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    started, imported, ready, stepped = (
        times.pop(key) for key in ("started", "imported", "ready", "stepped")
    )
    return {
        "interpreter": started - began,
        "import": imported - started,
        "ready": ready - started,
        "first_step": stepped - began,
        **times,
    }


def measure(framework: str, case: str, repeat: int) -> dict[str, Any]:
    cold, warm = [], []
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(prefix="startup-") as caches:
            cold.append(run_once(framework, case, Path(caches)))
            warm.append(run_once(framework, case, Path(caches)))
    return {"framework": framework, "case": case, "cold": median(cold), "warm": median(warm)}


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def measure_all(console: Console, frameworks: list[str], only: str, repeat: int) -> dict[str, Any]:
    began = datetime.now(UTC)
    results = []
    for case in (case.name for case in SUITES["training"] if only in case.name):
        table = Table(title=f"a fresh process: {case}")
        for column in ("framework", *(heading for heading, _, _ in COLUMNS)):
            table.add_column(column, justify="left" if column == "framework" else "right")
        for framework in frameworks:
            print(f"[fresh process] {case}: {framework}", file=sys.stderr, flush=True)
            try:
                times = repeat if framework == "tilewright" else 1
                result = measure(framework, case, times)
            except subprocess.CalledProcessError as error:
                console.print(f"not measured: {framework} ended with status {error.returncode}")
                continue
            results.append(result)
            table.add_row(framework, *(f"{result[when][key]:.3g}" for _, when, key in COLUMNS))
        console.print(table)
    return {
        "date": began.isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "bench.startup", *sys.argv[1:]]),
        "machine": describe(),
        "results": results,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frameworks", default="tilewright,torch-fused,jax", help=", ".join(FRAMEWORKS))
    parser.add_argument("--only", default="", metavar="TEXT", help="steps whose name contains it")
    parser.add_argument("--repeat", type=int, default=3, help="cold and warm runs of ours")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    content = measure_all(console, options.frameworks.split(","), options.only, options.repeat)
    path = (
        options.json or ROOT / "bench" / "results" / f"startup-{content['date'][:19].replace(':', '')}.json"
    )
    write_json(path, content)
    console.print(f"written: {path}", highlight=False)


if __name__ == "__main__":
    main()

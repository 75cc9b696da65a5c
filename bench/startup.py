"""Measure how long a fresh process needs until its first trained step, with cold and with warm caches.

    python -m bench.startup [--frameworks tilewright,torch,jax] [--case NAME] [--repeat 5] [--json FILE]

A cold run gets empty directories for the caches of compiled code; warm runs follow in the same directories.
The files of Python and of the libraries are in the operating system's cache in both. Every run makes the data
too.
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

from bench.frameworks import FRAMEWORKS
from bench.harness import ROOT
from bench.machine import describe
from bench.report import write_json

CACHES = ("TW_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")


def run_once(framework: str, case: str, caches: Path) -> dict[str, float]:
    """Seconds from starting the process to the interpreter, the import and the first step being done."""
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
    ended = time.monotonic()
    times: dict[str, float] = json.loads(child.stdout.splitlines()[-1])
    return {
        "interpreter": times["started"] - began,
        "import": times["imported"] - times["started"],
        "first_step": times["stepped"] - began,
        "exit": ended - began,
    }


def measure(framework: str, case: str, repeat: int) -> dict[str, Any]:
    cold, warm = [], []
    for _ in range(max(1, repeat // 2)):
        with tempfile.TemporaryDirectory(prefix="startup-") as caches:
            cold.append(run_once(framework, case, Path(caches)))
            warm += [run_once(framework, case, Path(caches)) for _ in range(2)]
    return {"framework": framework, "cold": median(cold), "warm": median(warm)}


def median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frameworks", default="tilewright,torch-fused,jax", help=", ".join(FRAMEWORKS))
    parser.add_argument("--case", default="MLP 784-128-10, N=64")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 160)
    began = datetime.now(UTC)
    table = Table(title=f"seconds from a fresh process to the first trained step: {options.case}")
    for column in ("framework", "import", "first step, cold", "first step, warm"):
        table.add_column(column, justify="left" if column == "framework" else "right")
    results = []
    for framework in options.frameworks.split(","):
        try:
            result = measure(framework, options.case, options.repeat)
        except subprocess.CalledProcessError as error:
            console.print(f"not measured: {framework} ended with status {error.returncode}")
            continue
        results.append(result)
        cells = (result["warm"]["import"], result["cold"]["first_step"], result["warm"]["first_step"])
        table.add_row(framework, *(f"{seconds:.2f}" for seconds in cells))
    console.print(table)
    path = options.json or ROOT / "bench" / "results" / f"startup-{began:%Y-%m-%dT%H%M%S}.json"
    content = {
        "date": began.isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "bench.startup", *sys.argv[1:]]),
        "case": options.case,
        "machine": describe(),
        "results": results,
    }
    write_json(path, content)
    console.print(f"written: {path}", highlight=False)


if __name__ == "__main__":
    main()

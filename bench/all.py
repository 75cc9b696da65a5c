"""Measure everything that goals are stated for, and say which are reached.

    python -m bench.all [--quick] [--threads 2,1] [--into DIRECTORY]

Runs the suites of `bench.run`, the training steps once more with one core kept busy, and `bench.startup`; writes one
JSON file each into the directory (default: bench/results/DATE) and prints the table of goals. `python -m
bench.markdown DIRECTORY/*.json --into docs/performance.md` puts the figures into the page.
"""

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import goals, run, startup
from bench.harness import ROOT
from bench.report import write_json

SUITES = ("kernels", "training", "inference", "eager", "epoch")
BUSY = ("MLP 784-128-10, N=64", "LeNet", "GPT 4x128")  # the steps that a busy core is tried on


def print_goals(console: Console, rows: list[goals.Row]) -> None:
    table = Table(title="goals")
    for column in ("what", "goal", "measured", "reached"):
        table.add_column(column)
    for row in rows:
        mark = "yes" if row.reached else "[bold red]no[/]"
        table.add_row(row.what, row.goal, row.measured, mark)
    console.print(table)
    console.print(f"{sum(row.reached for row in rows)} of {len(rows)} goals reached")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds")
    parser.add_argument("--threads", metavar="N,M", help="thread counts; default: all cores, and 1")
    parser.add_argument("--into", type=Path, metavar="DIRECTORY")
    parser.add_argument("--skip", default="", metavar="A,B", help=f"of {', '.join(SUITES)}, busy, startup")
    options = parser.parse_args()
    folder = options.into or ROOT / "bench" / "results" / f"{datetime.now(UTC):%Y-%m-%dT%H%M%S}"
    console = Console(width=None if sys.stdout.isatty() else 200)
    common = ["--quick"] * options.quick
    skipped = [name for name in options.skip.split(",") if name]
    known = [*SUITES, "busy", "startup"]
    for name in skipped:
        if name not in known:
            parser.error(f"argument --skip: {name!r} is none of {', '.join(known)}")

    runs = {suite: (suite, ["--threads", options.threads] if options.threads else []) for suite in SUITES}
    runs["busy"] = (
        "training",
        ["--busy", "1", "--only", ",".join(BUSY), "--frameworks", "tilewright,torch-fused"],
    )
    if options.threads:
        runs["busy"][1].extend(["--threads", options.threads.partition(",")[0]])
    for name, (suite, arguments) in runs.items():
        if name not in skipped:
            arguments = ["--suite", suite, *common, *arguments]
            chosen = run.parse(suite, arguments)
            content = run.measure(chosen, console, " ".join(["python", "-m", "bench.run", *arguments]))
            write_json(folder / f"{name}.json", content)
    if "startup" not in skipped:
        repeat = 1 if options.quick else 3
        frameworks = ["tilewright", "torch-fused", "jax"]
        write_json(folder / "startup.json", startup.measure_all(console, frameworks, "", repeat))
    files = sorted(folder.glob("*.json"))
    print_goals(console, goals.evaluate([json.loads(f.read_text(encoding="utf-8")) for f in files]))
    console.print(f"written: {folder}", highlight=False)


if __name__ == "__main__":
    main()

"""Measure training steps, or single kernels, in several frameworks side by side.

python -m bench.run                                  the five training steps, 2 threads and 1
python -m bench.run --only GPT --frameworks tilewright,torch --threads 2 --quick
python -m bench.run --suite kernels --only matmul    single operations
"""

import argparse
import os
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench.cases import SUITES
from bench.frameworks import FRAMEWORKS, MODES
from bench.harness import ROOT, Harness, Plan
from bench.machine import describe, measure_limits
from bench.report import (
    geometric_mean,
    print_agreement,
    print_losses,
    print_problems,
    print_times,
    write_json,
)

DEFAULTS = {
    "training": "tilewright,torch,torch-fused,torch-compile,jax",
    "kernels": "tilewright,torch,torch-compile,jax,numpy",
    "eager": "tilewright-eager,torch,torch-fused",
    "inference": "tilewright,torch,torch-compile,jax,onnxruntime",
    "epoch": "tilewright,torch,torch-fused,torch-compile,jax",
}


def parse(suite: str, arguments: list[str]) -> argparse.Namespace:
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=MODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suite", choices=list(SUITES), default=suite)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="cases whose name contains one of these (a,b)"
    )
    parser.add_argument("--group", default="", metavar="TEXT", help="the same for the case's group")
    parser.add_argument("--frameworks", metavar="A,B", help=f"of {', '.join(FRAMEWORKS)}")
    parser.add_argument("--threads", default="2,1" if cores > 1 else "1", metavar="N,M", help="thread counts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: bench/results/SUITE-DATE.json")
    parser.add_argument("--quick", action="store_true", help="shorter and fewer rounds, for a first look")
    parser.add_argument("--list", action="store_true", help="print the cases' names and stop")
    options = parser.parse_args(arguments)
    options.frameworks = (options.frameworks or DEFAULTS[options.suite]).split(",")
    for name in options.frameworks:
        if name not in FRAMEWORKS:
            parser.error(f"unknown framework {name!r}; choose from {', '.join(FRAMEWORKS)}")
    options.threads = [int(count) for count in options.threads.split(",")]
    if not all(0 < count <= cores for count in options.threads):
        parser.error(f"thread counts must lie between 1 and the {cores} usable cores")
    names, groups = options.only.split(","), options.group.split(",")
    options.cases = [
        case
        for case in SUITES[options.suite]
        if any(text in case.name for text in names) and any(text in case.group for text in groups)
    ]
    if not options.cases:
        parser.error(f"no case's name contains {options.only!r} ; --list names them")
    return options


def main(suite: str = "training", arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(suite, arguments)
    console = Console(width=None if sys.stdout.isatty() else 200)
    if options.list:
        for case in options.cases:
            console.print(case.name, highlight=False, markup=False)
        return
    began = datetime.now(UTC)
    machine = describe()
    limits = {count: measure_limits(count, options.quick) for count in options.threads}
    console.print(f"{machine['cpu']}, {machine['usable_cores']} cores, {machine['system']}", highlight=False)

    def progress(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    harness = Harness(Plan.quick() if options.quick else Plan(), progress)
    for count in options.threads:
        harness.measure(options.cases, options.frameworks, count)
    # Once more, and keep the larger: a limit that another process disturbed would flatter every share.
    for count in options.threads:
        again = measure_limits(count, options.quick)
        limits[count] = {name: max(value, again[name]) for name, value in limits[count].items()}
    harness.share_limits(limits, options.cases)
    for count, limit in limits.items():
        figures = ", ".join(f"{name} {value:.0f}" for name, value in limit.items())
        console.print(f"limits on {count} threads: {figures}", highlight=False)

    for count in options.threads:
        print_times(console, harness.results, count)
        if mean := geometric_mean(harness.results, count):
            console.print(f"geometric mean of best peer / ours, {count} threads: {mean:.2f}")
    print_agreement(console, harness.agreements)
    print_losses(console, harness.agreements, options.threads[0])
    print_problems(console, harness.results)
    path = options.json or ROOT / "bench" / "results" / f"{options.suite}-{began:%Y-%m-%dT%H%M%S}.json"
    command = shlex.join(["python", "-m", "bench.run", *arguments])
    heading = {"date": began.isoformat(timespec="seconds"), "command": command}
    write_json(path, heading | {"machine": machine, "limits": limits} | harness.to_json())
    console.print(f"\nwritten: {path}", highlight=False)


if __name__ == "__main__":
    main()

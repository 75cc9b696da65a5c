"""Measure training steps, kernels, inference or an epoch in several frameworks side by side.

python -m bench.run                                  the training steps, 2 threads and 1
python -m bench.run --only GPT --frameworks tilewright,torch --threads 2 --quick
python -m bench.run --suite kernels --group conv     single operations; also: eager, inference, epoch
python -m bench.run --busy 1                         the same while another process spins on one core
"""

import argparse
import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.cases import SUITES
from bench.frameworks import FRAMEWORKS, MODES
from bench.harness import ROOT, Harness, Plan
from bench.machine import describe, measure_limits
from bench.report import (
    print_agreement,
    print_means,
    print_problems,
    print_stalls,
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


def default_peers(suite: str, quick: bool) -> str:
    """A quick run leaves torch.compile out of the kernels: it would take most of the time, to compile them."""
    return DEFAULTS[suite].replace("torch-compile,", "") if quick and suite == "kernels" else DEFAULTS[suite]


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
    parser.add_argument("--busy", type=int, default=0, metavar="N", help="other processes spin on N cores")
    parser.add_argument("--list", action="store_true", help="print the cases' names and stop")
    options = parser.parse_args(arguments)
    options.frameworks = (options.frameworks or default_peers(options.suite, options.quick)).split(",")
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


@contextlib.contextmanager
def spinning(count: int) -> Iterator[None]:
    """That many processes that do nothing but use a core each, the first cores of those we may use."""
    loop = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"
    cores = sorted(os.sched_getaffinity(0))[:count]
    children = [subprocess.Popen([sys.executable, "-c", loop, str(core)]) for core in cores]
    try:
        yield
    finally:
        for child in children:
            child.kill()
            child.wait()


def measure(options: argparse.Namespace, console: Console, command: str) -> dict[str, Any]:
    """Run the suite, print its tables, and return what is written as JSON."""
    began = datetime.now(UTC)
    machine = describe()
    limits = {count: measure_limits(count, options.quick) for count in options.threads}
    console.print(f"{machine['cpu']}, {machine['usable_cores']} cores, {machine['system']}", highlight=False)

    def progress(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    harness = Harness(Plan.quick() if options.quick else Plan(), progress)
    with spinning(options.busy):
        for count in options.threads:
            everything = not options.quick or count == max(options.threads)
            harness.measure([c for c in options.cases if everything or not c.slow], options.frameworks, count)
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
        print_means(console, harness.results, count)
    if options.busy:
        print_stalls(console, harness.results)
    print_agreement(console, harness.agreements)
    print_problems(console, harness.results, options.busy)
    heading = {"date": began.isoformat(timespec="seconds"), "command": command, "suite": options.suite}
    return heading | {"busy": options.busy, "machine": machine, "limits": limits} | harness.to_json()


def main(suite: str = "training", arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(suite, arguments)
    console = Console(width=None if sys.stdout.isatty() else 200)
    if options.list:
        for case in options.cases:
            console.print(case.name, highlight=False, markup=False)
        return
    content = measure(options, console, shlex.join(["python", "-m", "bench.run", *arguments]))
    stamp = content["date"][:19].replace(":", "")
    path = options.json or ROOT / "bench" / "results" / f"{options.suite}-{stamp}.json"
    write_json(path, content)
    console.print(f"\nwritten: {path}", highlight=False)


if __name__ == "__main__":
    main()

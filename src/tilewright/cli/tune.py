"""`tw tune FILE`: measure parameters for the matrix products of a program's training step, and keep the best.

Later compiles on this machine use them: `tw show FILE --stage groups` says where. It trains nothing and needs no data.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from tilewright.cli.output import add_program_arguments
from tilewright.cli.show import compile_step
from tilewright.lang.build import check_supported
from tilewright.lang.check import check
from tilewright.lang.lock import check_sources
from tilewright.tuning import Progress, Tuned, store, tune


def configure(parser: argparse.ArgumentParser) -> None:
    add_program_arguments(parser)
    parser.add_argument(
        "--seconds", type=_positive, default=30.0, metavar="S", help="how long to search; default: 30"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return number


def run(args: argparse.Namespace) -> int:
    program = check(args.file, args.param)
    if args.locked:
        check_sources(program)
    check_supported(program)
    executable = compile_step(program.runs[0])
    with _progress(args.json) as progress:
        rows = tune(executable, args.seconds, progress)
    path = store(executable, rows)
    if args.json:
        found = [{**asdict(row), "gain": row.gain, "kept": row.kept} for row in rows]
        json.dump({"program": program.path, "database": path, "problems": found}, sys.stdout, indent=2)
        print()
    else:
        print("\n".join(tabulate(rows)))
        kept = sum(row.kept for row in rows)
        print(f"{kept} of {len(rows)} problems have a better choice than the model's; stored in {path}")
    return 0


def tabulate(rows: list[Tuned]) -> list[str]:
    """One line a problem: how often it occurs, how many choices were tried, times before and after, the gain, and the choice."""
    lines = [["occurs", "tried", "model, us", "best, us", "gain", "choice", "problem"]]
    for row in rows:
        choice = str(row.best) if row.kept else "the model's" if row.tried else "not searched: no time"
        before, after = (f"{1e6 * s:.1f}" for s in (row.before, row.after))
        gain = f"{row.gain:.2f}x" if row.kept else ""
        problem = row.label.partition(f" {row.model.variant} ")[0]
        lines.append([str(row.count), str(row.tried), before, after, gain, choice, problem])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    out = []
    for line in lines:
        cells = [
            c.ljust(w) if i > 4 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ]
        out.append("  ".join(cells).rstrip())
    return out


@contextmanager
def _progress(silent: bool) -> Iterator[Progress | None]:
    """A bar on a terminal; elsewhere nothing is said before the end."""
    if silent or not sys.stdout.isatty():
        yield None
        return
    with _bar() as bar:
        task = bar.add_task("tune", total=1.0, problem="")
        yield lambda share, text: bar.update(task, completed=share, problem=text[:60])


def _bar() -> Any:
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        BarColumn(),
        TextColumn("{task.percentage:.0f}%"),
        TextColumn("{task.fields[problem]}"),
        transient=True,
    )

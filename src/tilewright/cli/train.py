"""`tw train FILE`: check a program, train it, evaluate it on held-out rows, export it, and say how it went."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tilewright.cli.output import add_program_arguments, print_diagnostics
from tilewright.lang.check import check
from tilewright.lang.lock import check_data, check_sources, find_data_files
from tilewright.lang.program import Program
from tilewright.lang.vocabulary import DEVICES_HERE

if TYPE_CHECKING:
    from tilewright.lang.training import Outcome


def configure(parser: argparse.ArgumentParser) -> None:
    add_program_arguments(parser)
    parser.add_argument(
        "--device",
        type=_device,
        metavar="NAME",
        help=f"where to run, instead of the program's device: {_either(DEVICES_HERE)} in this version",
    )
    parser.add_argument(
        "--epochs", type=_positive, metavar="N", help="passes over the data, instead of the program's"
    )
    parser.add_argument(
        "--seed", type=_seed, metavar="N", help="start of all random numbers, instead of the program's"
    )
    parser.add_argument("--out", type=_directory, metavar="DIR", help="write everything into this directory")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _positive(text: str) -> int:
    number = _whole(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a positive number")
    return number


def _seed(text: str) -> int:
    number = _whole(text)
    if not 0 <= number < 2**63:
        raise argparse.ArgumentTypeError(f"{number} is not from 0 to 2**63 - 1")
    return number


def _device(text: str) -> str:
    if text not in DEVICES_HERE:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not supported; this version has {_either(DEVICES_HERE)}"
        )
    return text


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)


def _directory(text: str) -> str:
    if not text:  # an unset variable of a shell, not the working directory
        raise argparse.ArgumentTypeError("the name of the directory is empty; `.` is the working directory")
    return text


def run(args: argparse.Namespace) -> int:
    program = check(args.file, args.param)
    if args.locked:
        check_sources(program)
    print_diagnostics(program.warnings, program.texts)

    # The engine is imported when the program is known to be sound: a typing error is told at once.
    from tilewright.cli.progress import observer_for
    from tilewright.lang.build import check_supported
    from tilewright.lang.training import override, train_run

    program = override(program, device=args.device, epochs=args.epochs, seed=args.seed)
    check_supported(program)
    if args.locked:
        check_data(program, find_data_files(program))
    silent = args.quiet or args.json
    outcomes: list[Outcome] = []
    for number, point in enumerate(program.runs, 1):
        if not silent and program.axes:
            print(f"run {number} of {len(program.runs)}: {point.name}")
        with observer_for(point, silent) as observer:
            outcomes.append(train_run(program, point, args.out, observer))
        if not silent:
            print("\n".join(summarize(program, outcomes[-1])))
    if args.json:
        json.dump({"program": program.path, "runs": [o.to_dict() for o in outcomes]}, sys.stdout, indent=2)
        print()
    elif not args.quiet and program.axes:
        print("\n".join(tabulate(outcomes)))
    return 0


def summarize(program: Program, outcome: Outcome) -> list[str]:
    """The result of a run in a few lines."""
    train, history = outcome.run.train, outcome.history
    held_out = f", {outcome.held_out:,} held out" if outcome.held_out else ""
    lines = [
        f"{program.path}: {train.model.name} trained on {outcome.rows:,} rows of {train.data.name}{held_out}"
    ]
    epochs = f"{len(history.epochs)}, loss {history.epochs[-1].loss:.4g}"
    if history.resumed_at is not None:
        epochs += f", resumed after {history.resumed_at}"
    if history.stopped_early:
        epochs += ", stopped early"
    rate = (
        f" ({history.rows / history.seconds:,.0f} samples/s)" if history.seconds > 0 and history.rows else ""
    )
    total = sum(outcome.seconds.values())
    rows = [
        ("epochs", epochs),
        ("time", f"{total:.2f} s, of that training {outcome.seconds['train']:.2f} s{rate}"),
    ]
    rows += [(name, f"{value:.4f}") for name, value in outcome.metrics.items() if name != "loss"]
    if "loss" in outcome.metrics:
        rows.insert(2, ("held-out loss", f"{outcome.metrics['loss']:.4g}"))
    if outcome.places.model is not None:
        rows.append(("model", str(outcome.places.model)))
    rows.append(("manifest", str(outcome.places.manifest)))
    width = max(len(name) for name, _ in rows)
    return [*lines, *(f"    {name:<{width}}  {text}" for name, text in rows)]


def tabulate(outcomes: Sequence[Outcome]) -> list[str]:
    """A table of a sweep's runs, the best one marked."""
    from tilewright.lang.training import rank

    best = rank(outcomes)
    names = [name for name in outcomes[0].metrics if name != "loss"]
    axes = list(outcomes[0].run.point)
    rows = [["", *axes, "loss", *names]]
    for number, outcome in enumerate(outcomes):
        loss = outcome.metrics.get("loss", outcome.history.epochs[-1].loss)
        values = [f"{outcome.run.point[axis]}" for axis in axes]
        numbers = [f"{loss:.4g}", *(f"{outcome.metrics[name]:.4f}" for name in names)]
        rows.append(["*" if number == best else "", *values, *numbers])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return ["", *lines, "", f"best: {outcomes[best].run.name}"]

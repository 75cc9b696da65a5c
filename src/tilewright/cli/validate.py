"""`tw validate FILE`: check a program and say what it is. Reads no data, compiles nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from tilewright.cli.output import add_program_arguments, print_diagnostics
from tilewright.lang.check import check
from tilewright.lang.errors import KynError
from tilewright.lang.lock import check_sources
from tilewright.lang.program import Activation, Model, Program
from tilewright.lang.shapes import format_shape


def configure(parser: argparse.ArgumentParser) -> None:
    add_program_arguments(parser)
    parser.add_argument(
        "--json", action="store_true", help="print the resolved program or the errors as JSON"
    )


def run(args: argparse.Namespace) -> int:
    try:
        program = check(args.file, args.param)
        if args.locked:
            check_sources(program)
    except KynError as error:
        if not args.json:
            raise
        _print_json(
            {
                "valid": False,
                "error": type(error).__name__,
                "diagnostics": [d.to_dict() for d in error.diagnostics],
            }
        )
        return 1
    if args.json:
        _print_json({"valid": True, **program.to_dict()})
        return 0
    print_diagnostics(program.warnings, program.texts)
    print("\n".join(summarize(program)))
    return 0


def _print_json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    print()


def summarize(program: Program) -> Iterator[str]:
    """What a valid program is, in a few lines: its models with sizes, its sweep."""
    count = len(program.warnings)
    warnings = f", with {count} warning{'s' if count != 1 else ''}" if count else ""
    yield f"{program.path} is valid{warnings}"
    for model in program.runs[0].models.values():
        yield from ("", *_summarize_model(model))
    if program.axes:
        yield ""
        sizes = ", ".join(f"{name} ({len(values)})" for name, values in program.axes.items())
        yield f"sweep over {sizes}: {len(program.runs)} runs"


def _summarize_model(model: Model) -> Iterator[str]:
    yield f"model {model.name}: {model.parameters:,} parameters"
    rows = [("input", format_shape(model.input_shape), "")]
    for layer in model.layers:
        if isinstance(layer, Activation):
            name, shape, count = rows[-1]
            rows[-1] = (f"{name} {layer.name}", shape, count)
        else:
            rows.append(
                (
                    layer.kind,
                    format_shape(layer.output_shape),
                    f"{layer.parameters:,}" if layer.parameters else "",
                )
            )
    names, shapes = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
    for name, shape, count in rows:
        yield f"    {name:<{names}}  {shape:>{shapes}}  {count:>11}".rstrip()

"""What the sub-commands share: diagnostics on stderr, colour only where it is wanted, common arguments."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TextIO

from tilewright.core.diagnostics import Diagnostic, TilewrightError, render


def use_color(stream: TextIO) -> bool:
    """Whether to colour: on a terminal, unless NO_COLOR is set or TERM is dumb; FORCE_COLOR wins over
    both."""
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_diagnostics(diagnostics: Iterable[Diagnostic], texts: Mapping[str, str]) -> None:
    """Each diagnostic with its source lines on stderr, and a blank line after it."""
    color = use_color(sys.stderr)
    for diagnostic in diagnostics:
        print(render(diagnostic, texts, color), end="\n\n", file=sys.stderr)


def print_error(error: TilewrightError) -> None:
    """An error on stderr; several diagnostics are counted at the end."""
    if not error.diagnostics:
        style, reset = ("\x1b[1;31m", "\x1b[0m") if use_color(sys.stderr) else ("", "")
        print(f"{style}error{reset}: {error.message}", file=sys.stderr)
        return
    print_diagnostics(error.diagnostics, error.sources)
    errors = sum(d.is_error for d in error.diagnostics)
    code = error.diagnostic.code if error.diagnostic else ""
    count = f"{errors} error{'s' if errors != 1 else ''}"
    print(f"{count}; `tw explain {code}` says more" if code else count, file=sys.stderr)


def add_program_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every command that checks a program: FILE, `--param` and `--locked`."""
    parser.add_argument("file", metavar="FILE", help="the program, a .kyn file")
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="set a parameter of the program; may be repeated",
    )
    parser.add_argument(
        "--locked", action="store_true", help="stop unless sources and data are those of FILE.lock"
    )

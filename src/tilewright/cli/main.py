"""The front door of the command line.

It knows the sub-commands by name only and imports the one that is used, so that `tw fmt` and `tw validate`
start without NumPy. A sub-command is a module with two functions:

    configure(parser)   adds its arguments to an `argparse.ArgumentParser`
    run(args) -> int    does the work and returns the exit code

To add one, write the module and add one row to `COMMANDS`.

Exit codes: 0 done, 1 an error that is told on stderr, 2 a wrong command line, 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from tilewright.cli.output import print_error
from tilewright.core.diagnostics import TilewrightError, suggest
from tilewright.version import __version__

# Name -> what `tw --help` says. The module is `tilewright.cli.NAME`.
COMMANDS: dict[str, str] = {
    "train": "check a program, train it, evaluate it and export it",
    "validate": "check a program: names, values, types and shapes",
    "show": "print a stage of the compilation of a program's training step",
    "tune": "measure parameters for a program's matrix products on this machine and keep the best",
    "ast": "print the syntax tree of a program",
    "fmt": "rewrite programs in the canonical format",
    "lock": "record the digests of a program's sources and data",
    "explain": "say what an error code means",
    "doctor": "say what this machine has, what code is made for it, and whether it works",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. `argv` is without the program's name."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # the process is ours: warnings are one line for the user, not a place in the code
        warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
        # An output that cannot hold a character shows its number instead.
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
    command = next((word for word in words if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        near = suggest(command, COMMANDS)
        advice = f"did you mean `tw {near}`?" if near else "`tw --help` lists the commands"
        print_error(TilewrightError(f"there is no command `{command}`; {advice}"))
        return 2
    try:
        args = build_parser(command).parse_args(words)
        return int(importlib.import_module(f"tilewright.cli.{args.command}").run(args))
    except TilewrightError as error:
        print_error(error)
        return 1
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone
        else:
            reason = (error.strerror or str(error)).lower()
            print_error(TilewrightError(f"{error.filename}: {reason}" if error.filename else reason))
        return 1
    except MemoryError as error:
        print_error(
            TilewrightError(f"there is not enough memory: {error}" if str(error) else "out of memory")
        )
        return 1
    except KeyboardInterrupt as error:
        print("\n".join(["interrupted", *getattr(error, "__notes__", ())]), file=sys.stderr)
        return 130


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole command line; only `command` gets its own arguments, the others only a line."""
    parser = argparse.ArgumentParser(prog="tw", description="Machine learning that compiles to machine code.")
    parser.add_argument("--version", action="version", version=f"tilewright {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, line in COMMANDS.items():
        sub = commands.add_parser(name, help=line, description=line[0].upper() + line[1:] + ".")
        if name == command:
            importlib.import_module(f"tilewright.cli.{name}").configure(sub)
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""`tw lock FILE`: record the digests of a program's sources and data in FILE.lock, or check them."""

from __future__ import annotations

import argparse

from tilewright.cli.output import add_program_arguments
from tilewright.lang.check import check
from tilewright.lang.lock import check_data, check_sources, find_data_files, lock_path, write_lock


def configure(parser: argparse.ArgumentParser) -> None:
    add_program_arguments(parser)
    parser.add_argument(
        "--check", action="store_true", help="compare with the lock file instead of writing it"
    )


def run(args: argparse.Namespace) -> int:
    program = check(args.file, args.param)
    if args.check or args.locked:
        check_sources(program)
        check_data(program, find_data_files(program))
        print(f"{args.file} matches {lock_path(program)}")
    else:
        write_lock(program, find_data_files(program))
        print(f"wrote {lock_path(program)}")
    return 0

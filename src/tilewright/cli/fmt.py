"""`tw fmt FILE...`: rewrite programs in the canonical format, or check that they are in it.

A file is replaced as a whole or left as it was; one that does not parse is never touched.
"""

from __future__ import annotations

import argparse
import hashlib
import sys

from tilewright.cli.output import print_error
from tilewright.core.diagnostics import Diagnostic, TilewrightError
from tilewright.core.files import write_atomic
from tilewright.lang.errors import KynParseError
from tilewright.lang.format import format_text
from tilewright.lang.load import ReadError, decode, read_source


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="a .kyn file, or - for stdin to stdout")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file would change")


def run(args: argparse.Namespace) -> int:
    failed = changed = 0
    for path in args.files:
        try:
            changed += _format_stdin(args.check) if path == "-" else _format_file(path, args.check)
        except TilewrightError as error:
            print_error(error)
            failed += 1
    return 1 if failed or (args.check and changed) else 0


def _format_stdin(only_check: bool) -> bool:
    data = sys.stdin.buffer.read()
    try:
        text = decode(data)
    except ReadError as error:
        raise KynParseError(Diagnostic("KYN001", f"cannot read stdin: {error}")) from None
    formatted = format_text(text, "<stdin>")
    if not only_check:
        sys.stdout.write(formatted)
    return formatted.encode() != data


def _format_file(path: str, only_check: bool) -> bool:
    """Format one file; True if it was (or would be) changed."""
    try:
        text, digest = read_source(path)
    except ReadError as error:
        raise KynParseError(Diagnostic("KYN001", f"cannot read `{path}`: {error}")) from None
    formatted = format_text(text, path)
    data = formatted.encode()
    if hashlib.sha256(data).hexdigest() == digest:  # of the bytes: a byte order mark goes too
        return False
    if only_check:
        print(f"{path} would be reformatted")
    else:
        write_atomic(path, [data])
        print(f"{path} reformatted")
    return True

"""`tw ast FILE`: the syntax tree as it was read, before names and values are checked."""

from __future__ import annotations

import argparse
import json
import sys

from tilewright.core.diagnostics import Diagnostic, Reporter
from tilewright.lang.errors import KynParseError, error_for
from tilewright.lang.load import ReadError, read_source
from tilewright.lang.syntax import nodes
from tilewright.lang.syntax.parser import parse


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the program, a .kyn file")
    parser.add_argument("--json", action="store_true", help="print JSON instead of indented text")


def run(args: argparse.Namespace) -> int:
    try:
        text, _ = read_source(args.file)
    except ReadError as error:
        raise KynParseError(Diagnostic("KYN001", f"cannot read `{args.file}`: {error}")) from None
    report = Reporter()
    tree = parse(text, args.file, report)
    if report.has_errors:
        raise error_for(report.in_order(), {args.file: text})
    if args.json:
        json.dump(nodes.to_dict(tree), sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        print(nodes.dump(tree))
    return 0

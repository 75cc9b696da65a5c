"""`tw explain CODE`: the page of an error code, with text that breaks the rule and text that keeps it."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterator, Mapping

from tilewright.core.codes import CODES as PYTHON_CODES
from tilewright.core.diagnostics import Explanation, TilewrightError, suggest
from tilewright.data.codes import CODES as DATA_CODES
from tilewright.lang.codes import CODES as LANGUAGE_CODES

# Every part of the package that has codes of its own adds its table here.
PAGES: Mapping[str, Explanation] = {**LANGUAGE_CODES, **DATA_CODES, **PYTHON_CODES}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("code", metavar="CODE", nargs="?", help="such as KYN106; without one, all are listed")


def run(args: argparse.Namespace) -> int:
    if args.code is None:
        print("\n".join(f"{page.code}  {page.title}" for page in PAGES.values()))
        return 0
    page = PAGES.get(args.code.upper())
    if page is None:
        near = suggest(args.code, PAGES)
        advice = f"did you mean {near}?" if near else "`tw explain` lists all codes"
        raise TilewrightError(f"there is no code `{args.code}`; {advice}")
    print("\n".join(format_page(page)))
    return 0


def format_page(page: Explanation) -> Iterator[str]:
    """The page as lines of text."""
    yield f"{page.code}: {page.title}"
    yield ""
    yield from textwrap.wrap(page.text, 88)
    for title, example in (("Wrong", page.wrong), ("Right", page.right)):
        if example:
            yield from ("", f"{title}:", "", textwrap.indent(example, "    "))

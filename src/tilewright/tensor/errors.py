"""The exceptions tensors raise, and where in the user's own code they were caused.

Each is both a `TilewrightError` and the built-in exception a Python programmer would expect, so that
``except ValueError`` works. This file computes nothing with tensors.
"""

from __future__ import annotations

import linecache
import os
import sys
from types import FrameType

from tilewright.core.diagnostics import Diagnostic, GradientError, IndexingError, Label, Span, TilewrightError

__all__ = [
    "ArgumentError", "AxisError", "DTypeError", "GradientError", "IndexingError", "LeakedTensorError", "ShapeError",
    "TracedValueError", "located", "user_frame",
]  # fmt: skip

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class ArgumentError(TilewrightError, ValueError):
    """An argument has a value that the function does not take."""


class ShapeError(ArgumentError):
    """Shapes do not fit together."""


class AxisError(ArgumentError, IndexError):
    """An axis does not exist."""


class DTypeError(TilewrightError, TypeError):
    """An element type or a Python type does not fit."""


class TracedValueError(TilewrightError, RuntimeError):
    """A value inside ``tw.jit`` was read as a number; it has none while the function is traced."""


class LeakedTensorError(TilewrightError, RuntimeError):
    """A tensor made inside a traced function was kept and used after the trace ended."""


def user_frame() -> tuple[str, int, str] | None:
    """File, line and function of the innermost call that is not this package's own code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not frame.f_code.co_filename.startswith(_PACKAGE):
            return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back
    return None


def located(
    code: str, message: str, label: str, notes: tuple[str, ...], help: tuple[str, ...]
) -> tuple[Diagnostic, dict[str, str]]:
    """A diagnostic that points at the user's line, and the source text it points into."""
    place = user_frame()
    if place is None:
        return Diagnostic(code, message, (), notes, help), {}
    file, line, _ = place
    lines = linecache.getlines(file)
    text = lines[line - 1].rstrip("\n") if 0 < line <= len(lines) else ""
    start = len(text) - len(text.lstrip())
    span = Span(file, line, start + 1, line, max(len(text), start + 1) + 1)
    sources = {file: "".join(lines)} if lines else {}
    return Diagnostic(code, message, (Label(span, label, True),), notes, help), sources

"""The `.kyn` language: a model, its data and its training declared in one file, checked as a whole.

`check` reads a file and returns a `Program`; `format_text` prints it canonically. Nothing here imports NumPy,
except `lang.dataset`, which loads the data a program names.
"""

from tilewright.lang.check import check
from tilewright.lang.errors import KynError, KynParseError, KynSemanticError, KynShapeError, LockMismatchError
from tilewright.lang.format import format_text
from tilewright.lang.program import Program

__all__ = [
    "KynError",
    "KynParseError",
    "KynSemanticError",
    "KynShapeError",
    "LockMismatchError",
    "Program",
    "check",
    "format_text",
]

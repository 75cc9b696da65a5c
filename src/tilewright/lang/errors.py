"""The errors of the `.kyn` language, and how a list of diagnostics becomes one of them.

Codes are grouped by kind: `KYN0xx` text that cannot be parsed, `KYN1xx` names and values, `KYN2xx` shapes,
`KYN3xx` a lock file that does not match, `KYN4xx` warnings. `tw explain CODE` prints a code's page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tilewright.core.diagnostics import Diagnostic, TilewrightError


class KynError(TilewrightError):
    """Something is wrong with a `.kyn` program. `diagnostics` holds every problem that was found."""


class KynParseError(KynError):
    """The text does not follow the grammar, or cannot be read at all."""


class KynSemanticError(KynError):
    """A name or a value is wrong: unknown, missing, duplicate, of the wrong type or out of range."""


class KynShapeError(KynError):
    """Sizes do not fit: between layers, between a model and its loss, or between a model and its data."""


class LockMismatchError(KynError):
    """The sources or the data are not those that the lock file recorded."""


_KINDS: dict[str, type[KynError]] = {
    "KYN0": KynParseError,
    "KYN1": KynSemanticError,
    "KYN2": KynShapeError,
    "KYN3": LockMismatchError,
}


def error_for(diagnostics: Sequence[Diagnostic], sources: Mapping[str, str]) -> KynError:
    """The exception for these diagnostics: its class is the kind of the first error among them."""
    first = next(d for d in diagnostics if d.is_error)
    return _KINDS.get(first.code[:4], KynError)(diagnostics, sources)

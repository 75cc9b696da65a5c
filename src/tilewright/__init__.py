"""Tilewright: a machine-learning framework whose every step can be read.

Imported as `tw`. Names are loaded when they are first used (PEP 562), so that commands which need no arrays,
such as `tw fmt` and `tw validate`, start without NumPy or llvmlite. To make a name public, add one row below.
"""

from __future__ import annotations

import importlib
from typing import Any

from tilewright.version import __version__

# Public name -> module that defines it. A value that ends in ":" + name takes that attribute under another
# name.
_LAZY_NAMES: dict[str, str] = {
    "TilewrightError": "tilewright.core.diagnostics",
    "KynError": "tilewright.lang.errors",
}

# Sub-packages reachable as attributes: `tw.nn`, `tw.optim`, ...
_LAZY_MODULES: frozenset[str] = frozenset({"lang"})

__all__ = ["__version__"]
__all__ += [*sorted(_LAZY_NAMES), *sorted(_LAZY_MODULES)]  # noqa: PLE0604  (a computed list)


def __getattr__(name: str) -> Any:
    value: Any
    if name in _LAZY_NAMES:
        module, _, attribute = _LAZY_NAMES[name].partition(":")
        value = getattr(importlib.import_module(module), attribute or name)
    elif name in _LAZY_MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next use finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

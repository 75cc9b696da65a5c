"""Whole numbers that callers give: Python's and NumPy's are the same, and a truth value is none.

``len(x) // 2`` and ``labels.max() + 1`` differ in type where NumPy is involved; no function should care.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

__all__ = ["integer", "plain"]


def integer(x: Any) -> int:
    """``x`` as an ``int``. Raises ``TypeError`` for what is no integer, which True and False are not either.

    >>> integer(np.int64(3))
    3
    """
    if isinstance(x, (bool, np.bool_)):
        raise TypeError(f"{x!r} is a truth value, not an integer")
    return operator.index(x)


def plain(x: Any) -> Any:
    """``x`` itself, but an integer of NumPy as an ``int``: for arguments that may be something else as well."""
    return int(x) if isinstance(x, np.integer) else x

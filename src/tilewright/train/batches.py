"""Rows to mini-batches: the order of an epoch, and how it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["batch_sizes", "epoch_order"]


def epoch_order(rows: int, seed: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """A permutation of the row numbers that depends on `seed` and `epoch` alone, so that a resumed run
    repeats it.

    It sorts random words of PCG64, whose stream NumPy keeps the same between releases.
    """
    words = np.random.PCG64([seed, epoch]).random_raw(rows)
    return np.argsort(words, kind="stable").astype(np.int64)


def batch_sizes(rows: int, batch: int, smallest: int = 1) -> list[int]:
    """The sizes of the batches of an epoch: whole ones, then what is left.

    A rest of fewer than `smallest` rows (a batch norm needs two) is left out when there is a whole batch; the
    shuffle leaves out other rows in the next epoch.

    >>> batch_sizes(70, 32)
    [32, 32, 6]
    >>> batch_sizes(65, 32, smallest=2)
    [32, 32]
    """
    whole, rest = divmod(rows, batch)
    sizes = [batch] * whole
    if rest and (rest >= smallest or not whole):
        sizes.append(rest)
    return sizes

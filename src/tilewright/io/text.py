"""Tables of numbers as text: one row a line, like ``numpy.savetxt`` and ``loadtxt``.

For tables with names, words or missing values there is ``tilewright.data``.
"""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tilewright.core.diagnostics import printable
from tilewright.core.files import FileFormatError, write_atomic
from tilewright.functions.arguments import cast, dtype_of
from tilewright.functions.creation import from_numpy
from tilewright.io.npy import mapped
from tilewright.tensor import Tensor

__all__ = ["loadtxt", "savetxt"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


def _delimiter(path: str | os.PathLike[str], given: str | None) -> str | None:
    return given if given is not None else _DELIMITERS.get(Path(path).suffix.lower())


def loadtxt(
    path: str | os.PathLike[str],
    dtype: Any = "float64",
    delimiter: str | None = None,
    skiprows: int = 0,
    comments: str = "#",
    ndmin: Literal[0, 1, 2] = 0,
) -> Tensor:
    """A table of numbers: [rows, columns]; axes of size 1 are dropped down to ``ndmin`` axes, as NumPy does.

    ``delimiter`` is a comma for .csv, a tab for .tsv and any white space otherwise. ``skiprows`` lines at the top are not
    read, nor is what follows ``comments`` on a line. Raises ``FileFormatError`` naming the line that is no row of numbers.
    """
    source, kind = printable(str(path)), dtype_of(dtype, "loadtxt")
    if ndmin not in (0, 1, 2):
        raise FileFormatError(f"loadtxt: `ndmin` is 0, 1 or 2, got {ndmin!r}")
    try:
        lines = bytes(mapped(path)).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise FileFormatError(f"{source}: not text: byte {error.start} is not UTF-8") from None
    kept, numbers = [], []
    for number, line in enumerate(lines[skiprows:], skiprows + 1):
        text = line.split(comments, 1)[0] if comments else line
        if text.strip():
            kept.append(text)
            numbers.append(number)
    if not kept:
        raise FileFormatError(f"{source}: there are no numbers in it")
    read: Any = kind.numpy if kind.kind in "iufc" and kind.numpy.isbuiltin == 1 else np.dtype(np.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            array = np.loadtxt(
                kept, read, comments=None, delimiter=_delimiter(path, delimiter), ndmin=ndmin, encoding=None
            )
    except (ValueError, OverflowError, TypeError, Warning) as error:
        raise FileFormatError(f"{source}: {_reason(str(error), numbers)}") from None
    return cast(from_numpy(array), kind)


def _reason(message: str, numbers: list[int]) -> str:
    """NumPy's reason with the file's own line numbers."""
    row = re.search(r"row (\d+)", message)
    line = f"line {numbers[min(int(row[1]), len(numbers) - 1)]}: " if row else ""
    text = re.sub(r" at row \d+(, column (\d+))?\.?", lambda m: f" in column {m[2]}" if m[2] else "", message)
    text = text.partition("; use `usecols`")[0]  # which there is not here
    hint = "; a line of names at the top is left out with skiprows=1" if line == "line 1: " else ""
    return f"{line}{printable(text.splitlines()[0])[:200]}{hint}"


def savetxt(data: Any, path: str | os.PathLike[str], delimiter: str | None = None, header: str = "") -> None:
    """Write a tensor of rank 0 to 2 as text, one row a line, in digits that give the same numbers again.

    ``header`` is a first line, written as it is (put ``#`` in front if it is to be read as a comment).
    """
    source = printable(str(path))
    array = np.asarray(data.numpy() if isinstance(data, Tensor) else data)
    if array.ndim > 2:
        raise FileFormatError(f"{source}: text holds rows and columns, got an array of rank {array.ndim}")
    if array.dtype.kind == "b":
        array = array.astype(np.int64)
    if array.dtype.kind not in "iuf":
        if array.dtype.kind != "V":
            raise FileFormatError(f"{source}: text holds integers and real numbers, got {array.dtype}")
        array = array.astype(np.float32)  # bfloat16 and the storage types, which are exact in float32
    between = _delimiter(path, delimiter) or " "
    rows = array.reshape(-1, 1) if array.ndim < 2 else array
    lines = [between.join(row) for row in rows.astype(str).tolist()]
    text = "\n".join([header, *lines] if header else lines)
    write_atomic(path, [text.encode(), b"\n"])

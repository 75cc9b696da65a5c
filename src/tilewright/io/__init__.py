"""Files of arrays: ``save`` and ``load``, which decide by the extension, and a reader and writer for each format.

    .npy            one array, memory-mapped when read               npy
    .npz            named arrays                                     npz
    .txt .csv .tsv  a table of numbers                               text
    .safetensors    named tensors, memory-mapped                     interop.safetensors
    .png .jpg .jpeg an image, uint8 [height, width, channels]        image (needs tilewright[image])

Files are written whole or not at all. A file that is read is untrusted: it is checked before it is used, nothing in it
is executed or unpickled, and what is wrong is one ``FileFormatError``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tilewright.core.diagnostics import printable, suggest
from tilewright.core.elsewhere import FILES, advising
from tilewright.core.files import FileFormatError, FileWriteError, MissingFileError
from tilewright.interop import safetensors
from tilewright.io.image import read_image, write_image
from tilewright.io.npy import load_npy, save_npy
from tilewright.io.npz import load_npz, save_npz
from tilewright.io.text import loadtxt, savetxt

__all__ = [
    "FileFormatError", "FileWriteError", "load", "load_npy", "load_npz", "loadtxt", "read_image", "save", "save_npy",
    "save_npz", "savetxt", "write_image",
]  # fmt: skip


@dataclass(frozen=True)
class Format:
    """How files of an extension are read and written."""

    load: Callable[..., Any]
    save: Callable[..., None]


_TABLE = Format(loadtxt, savetxt)
_IMAGE = Format(read_image, write_image)
FORMATS: dict[str, Format] = {
    ".npy": Format(load_npy, save_npy),
    ".npz": Format(load_npz, save_npz),
    ".txt": _TABLE,
    ".csv": _TABLE,
    ".tsv": _TABLE,
    ".safetensors": Format(safetensors.load_tensors, safetensors.save_file),
    ".png": _IMAGE,
    ".jpg": _IMAGE,
    ".jpeg": _IMAGE,
}


def _format(path: str | os.PathLike[str], function: str) -> Format:
    suffix = Path(path).suffix.lower()
    if suffix in FORMATS:
        return FORMATS[suffix]
    if suffix in FILES:
        raise FileFormatError(
            f"{function}: {printable(str(path))}: {FILES[suffix]}; known: {', '.join(FORMATS)}"
        )
    near = suggest(suffix, FORMATS) if suffix else None
    hint = f"did you mean {near!r}? " if near else ""
    shown = f"the extension {printable(suffix)!r} is not known" if suffix else "it has no extension"
    raise FileFormatError(
        f"{function}: {printable(str(path))}: the extension says what a file holds, and {shown}; {hint}known:"
        f" {', '.join(FORMATS)}"
    )


def load(path: str | os.PathLike[str], **options: Any) -> Any:
    """What the file ``path`` holds: a tensor, or for .npz and .safetensors a dict of tensors by name.

    The extension decides; ``options`` are those of the format's own function (``loadtxt``, ``read_image``, ...). Raises
    ``FileFormatError`` for a file that cannot be opened or is not sound, naming it and what is wrong; for one that is not
    there it is a ``FileNotFoundError`` too.

    >>> import tempfile
    >>> from tilewright.functions.creation import arange
    >>> name = tempfile.mkdtemp() + "/a.npy"
    >>> save(arange(3), name)
    >>> load(name).tolist()
    [0, 1, 2]
    """
    found = _format(path, "load")
    if not os.path.exists(path):
        raise MissingFileError(f"cannot read {printable(os.fspath(path))}: No such file or directory")
    return found.load(path, **options)


def save(data: Any, path: str | os.PathLike[str], **options: Any) -> None:
    """Write a tensor, or a mapping of names to tensors, in the format of the extension of ``path``.

    The file is replaced in one step; when that fails what was there before stays, and nothing half-written is left. Raises
    ``FileFormatError`` for what the format cannot hold and ``FileWriteError`` when the disk refuses.
    """
    _format(path, "save").save(data, path, **options)


if not TYPE_CHECKING:
    __getattr__ = advising(__name__, __all__)

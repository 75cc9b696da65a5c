"""Images as tensors: uint8 [height, width, channels], as files hold them. Through Pillow, an optional extra.

Convolutions take [channels, height, width]: ``read_image(path).permute_dims(2, 0, 1)``.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tilewright.core.diagnostics import TilewrightError, printable
from tilewright.core.files import FileFormatError, write_atomic
from tilewright.functions.creation import from_numpy
from tilewright.io.npy import mapped
from tilewright.tensor import Tensor

__all__ = ["read_image", "write_image"]

MAX_PIXELS = 1 << 28
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise TilewrightError(
            "images are read and written by Pillow, which is not installed: pip install 'tilewright[image]'"
        ) from None
    return Image


def read_image(path: str | os.PathLike[str], channels: int | None = None) -> Tensor:
    """A PNG or JPEG file as uint8 [height, width, channels].

    ``channels`` 1 (grey), 3 (RGB) or 4 (RGBA) converts; by default grey images have 1, those with transparency 4 and all
    others 3. Raises ``FileFormatError`` for a file that is not a sound image or has more than 2^28 pixels.
    """
    source, image_module = printable(str(path)), _pillow()
    if channels is not None and channels not in _MODES:
        raise FileFormatError(f"read_image: `channels` is 1, 3 or 4, got {channels!r}")
    data = mapped(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bound is lower and only warns
            image = image_module.open(io.BytesIO(data), formats=("PNG", "JPEG"))
            if image.width * image.height > MAX_PIXELS:
                raise FileFormatError(
                    f"{source}: {image.width} x {image.height} pixels are more than {MAX_PIXELS}"
                )
            mode = _MODES[channels] if channels else _own_mode(image)
            array = np.array(image.convert(mode), np.uint8)
    except FileFormatError:
        raise
    except Exception as error:  # Pillow's decoders raise of many kinds for damaged files
        raise FileFormatError(
            f"{source}: not a sound PNG or JPEG image: {printable(str(error))[:200]}"
        ) from None
    return from_numpy(array.reshape(*array.shape[:2], -1))


def _own_mode(image: Any) -> str:
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        return "RGBA"
    return "L" if image.mode in ("1", "L") else "RGB"


def write_image(data: Any, path: str | os.PathLike[str], quality: int = 95) -> None:
    """Write uint8 [height, width] or [height, width, 1, 3 or 4] as PNG or JPEG, by the extension.

    ``quality`` is JPEG's, from 1 to 100. Raises ``FileFormatError`` for other shapes and types.
    """
    source, image_module = printable(str(path)), _pillow()
    array = np.asarray(data.numpy() if isinstance(data, Tensor) else data)
    kind = _FORMATS.get(Path(path).suffix.lower())
    if kind is None:
        raise FileFormatError(f"{source}: the extension of an image is .png, .jpg or .jpeg")
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in _MODES or 0 in array.shape:
        raise FileFormatError(
            f"{source}: an image is uint8 of shape (height, width) or (height, width, 1, 3 or 4), got {array.dtype} of shape"
            f" {array.shape}; numbers in [0, 1] become one by `(x * 255).round().astype('uint8')`"
        )
    if kind == "JPEG" and array.shape[-1] == 4:
        raise FileFormatError(f"{source}: JPEG has no transparency; write .png, or three channels")
    if kind == "JPEG" and max(array.shape) > 65535:
        raise FileFormatError(f"{source}: JPEG has at most 65,535 pixels a side, got {array.shape[:2]}")
    mode = _MODES[array.shape[-1]]
    image = image_module.frombytes(
        mode, (array.shape[1], array.shape[0]), np.ascontiguousarray(array).tobytes()
    )
    out = io.BytesIO()
    image.save(out, kind, **({"quality": quality, "subsampling": 0} if kind == "JPEG" else {}))
    write_atomic(path, [out.getbuffer()])

"""The Fourier extension of the array API standard, with NumPy's two-dimensional forms and SciPy's cosine and sine transforms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tilewright.core import dtype as dt
from tilewright.core.elsewhere import advising
from tilewright.functions import fft as transforms
from tilewright.functions.arguments import check_device
from tilewright.functions.fft import (
    fft,
    fft2,
    fftn,
    fftshift,
    hfft,
    ifft,
    ifft2,
    ifftn,
    ifftshift,
    ihfft,
    irfft,
    irfft2,
    irfftn,
    rfft,
    rfft2,
    rfftn,
)  # fmt: skip
from tilewright.functions.trigonometric import dct, dctn, dst, dstn, idct, idctn, idst, idstn
from tilewright.tensor import Tensor

__all__ = [
    "dct", "dctn", "dst", "dstn", "fft", "fft2", "fftfreq", "fftn", "fftshift", "hfft", "idct", "idctn", "idst", "idstn",
    "ifft", "ifft2", "ifftn", "ifftshift", "ihfft", "irfft", "irfft2", "irfftn", "rfft", "rfft2", "rfftfreq", "rfftn",
]  # fmt: skip


def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of ``fft`` for samples ``d`` apart: [n], zero first, then the positive ones."""
    check_device(device, "fftfreq")
    return transforms.fftfreq(n, d, dt.float32 if dtype is None else dtype)


def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Tensor:
    """The frequencies of ``rfft`` for samples ``d`` apart: [n // 2 + 1]."""
    check_device(device, "rfftfreq")
    return transforms.rfftfreq(n, d, dt.float32 if dtype is None else dtype)


if not TYPE_CHECKING:
    __getattr__ = advising(__name__, __all__)

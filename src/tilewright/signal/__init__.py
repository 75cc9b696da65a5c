"""Signal processing: convolution and correlation of any rank, windows, filters; names as in ``scipy.signal``.

Everything is lazy, differentiable, and runs inside ``tw.jit`` and under ``vmap``.

>>> from tilewright.tensor import Tensor
>>> convolve(Tensor([1.0, 2.0]), Tensor([1.0, 1.0])).tolist()
[1.0, 3.0, 2.0]
"""

from typing import TYPE_CHECKING

from tilewright.core.elsewhere import advising
from tilewright.signal.convolution import convolve, correlate, fftconvolve
from tilewright.signal.filters import firwin, gaussian_filter, gaussian_filter1d, lfilter, medfilt
from tilewright.signal.windows import (
    bartlett,
    blackman,
    blackmanharris,
    boxcar,
    cosine,
    flattop,
    gaussian,
    general_cosine,
    get_window,
    hamming,
    hann,
    kaiser,
    nuttall,
    triang,
    tukey,
)  # fmt: skip

__all__ = [
    "bartlett", "blackman", "blackmanharris", "boxcar", "convolve", "correlate", "cosine", "fftconvolve", "firwin", "flattop",
    "gaussian", "gaussian_filter", "gaussian_filter1d", "general_cosine", "get_window", "hamming", "hann", "kaiser", "lfilter",
    "medfilt", "nuttall", "triang", "tukey",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__ = advising(__name__, __all__)

"""Windows: weights that fade a finite piece of a signal in and out.

Each is a vector [M]. ``sym=True`` gives one that is symmetric, for designing filters; ``sym=False`` one period of a
periodic one, for spectra: the symmetric window of M + 1 points without its last. Formulas: Harris, "On the use of windows for
harmonic analysis with the discrete Fourier transform", 1978. Computed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.integers import plain
from tilewright.functions.arguments import cast, dtype_of
from tilewright.functions.elementwise import abs, cos, exp, maximum, sin, sqrt, where
from tilewright.special import i0e
from tilewright.tensor import ArgumentError, DTypeError, Tensor

__all__ = [
    "bartlett", "blackman", "blackmanharris", "boxcar", "cosine", "flattop", "gaussian", "general_cosine", "get_window",
    "hamming", "hann", "kaiser", "nuttall", "triang", "tukey",
]  # fmt: skip


def _window(function: str, M: int, sym: bool, dtype: Any, formula: Callable[[Tensor, int], Tensor]) -> Tensor:
    """``formula`` at places 0 ... N - 1 and N, where N is M, or M + 1 for a period."""
    M = plain(M)
    if isinstance(M, bool) or not isinstance(M, int) or M < 0:
        raise ArgumentError(f"{function}: `M` is an integer of at least 0, got {M!r}")
    kind = dtype_of(dtype, function)
    if not kind.is_float:
        raise DTypeError(f"{function}: a window has a floating type, got {kind}")
    if M < 2:
        return cast(Tensor(np.ones(M)), kind)
    count = M if sym else M + 1
    return cast(formula(Tensor(np.arange(M, dtype=np.float64)), count), kind)


def general_cosine(M: int, a: Sequence[float], sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """The sum of (-1)^k a[k] cos(2 pi k n / (M - 1)) over k."""

    def formula(n: Tensor, count: int) -> Tensor:
        total = n * 0.0 + a[0]
        for k, weight in enumerate(a[1:], 1):
            total = total + (-1.0) ** k * weight * cos(n * (2 * math.pi * k / (count - 1)))
        return total

    return _window("general_cosine", M, sym, dtype, formula)


def boxcar(M: int, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """Ones."""
    return _window("boxcar", M, sym, dtype, lambda n, count: n * 0.0 + 1.0)


def hann(M: int, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """(1 - cos(2 pi n / (M - 1))) / 2.

    >>> hann(4, sym=False).tolist()
    [0.0, 0.5, 1.0, 0.5]
    """
    return general_cosine(M, (0.5, 0.5), sym, dtype)


def hamming(M: int, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """0.54 - 0.46 cos(2 pi n / (M - 1))."""
    return general_cosine(M, (0.54, 0.46), sym, dtype)


def blackman(M: int, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """0.42 - 0.5 cos(2 pi n / (M - 1)) + 0.08 cos(4 pi n / (M - 1))."""
    return general_cosine(M, (0.42, 0.5, 0.08), sym, dtype)


def blackmanharris(M: int, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """Harris' four terms, whose side lobes are 92 dB down."""
    return general_cosine(M, (0.35875, 0.48829, 0.14128, 0.01168), sym, dtype)


def nuttall(M: int, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """Nuttall's four terms, 1981."""
    return general_cosine(M, (0.3635819, 0.4891775, 0.1365995, 0.0106411), sym, dtype)


def flattop(M: int, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """Five terms for measuring amplitudes (D'Antona & Ferrero, 2006)."""
    return general_cosine(M, (0.21557895, 0.41663158, 0.277263158, 0.083578947, 0.006947368), sym, dtype)


def bartlett(M: int, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """A triangle that is 0 at both ends."""
    return _window("bartlett", M, sym, dtype, lambda n, count: 1 - abs(n * (2 / (count - 1)) - 1))


def triang(M: int, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """A triangle that would be 0 one step (odd M) or half a step (even M) beyond its ends."""

    def formula(n: Tensor, count: int) -> Tensor:
        return 1 - abs(n * 2 - (count - 1)) * (1 / (count + 1 if count % 2 else count))

    return _window("triang", M, sym, dtype, formula)


def cosine(M: int, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """sin(pi (n + 1/2) / M)."""
    return _window("cosine", M, sym, dtype, lambda n, count: sin((n + 0.5) * (math.pi / count)))


def kaiser(M: int, beta: float | Tensor, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """I0(beta sqrt(1 - t^2)) / I0(beta) for t from -1 to 1; ``beta`` may be a tensor and has a derivative.

    >>> kaiser(3, 0.0).tolist()
    [1.0, 1.0, 1.0]
    """

    def formula(n: Tensor, count: int) -> Tensor:
        b = cast(beta, dt.float64) if isinstance(beta, Tensor) else Tensor(np.float64(beta))
        t = n * (2 / (count - 1)) - 1
        inside = 1 - t * t
        end = inside <= 0
        size = b * where(end, 0.0, sqrt(where(end, 1.0, inside)))
        return i0e(size) / i0e(b) * exp(abs(size) - abs(b))

    return _window("kaiser", M, sym, dtype, formula)


def gaussian(M: int, std: float, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """exp(-t^2 / 2 std^2), t the distance from the middle."""

    def formula(n: Tensor, count: int) -> Tensor:
        t = n - (count - 1) / 2
        return exp(t * t * (-0.5 / std**2))

    return _window("gaussian", M, sym, dtype, formula)


def tukey(M: int, alpha: float = 0.5, sym: bool = True, dtype: Any = dt.float32) -> Tensor:
    """Flat in the middle, with half a cosine over the outer ``alpha`` (0 to 1) of the points."""
    if alpha <= 0:
        return boxcar(M, sym, dtype)
    if alpha >= 1:
        return hann(M, sym, dtype)

    def formula(n: Tensor, count: int) -> Tensor:
        middle = (count - 1) / 2
        edge = alpha * middle
        over = maximum(abs(n - middle) - (middle - edge), 0.0) * (math.pi / edge)
        return (1 + cos(over)) * 0.5

    return _window("tukey", M, sym, dtype, formula)


_PLAIN: dict[str, Callable[..., Tensor]] = {
    "boxcar": boxcar, "rectangular": boxcar, "hann": hann, "hamming": hamming, "blackman": blackman, "nuttall": nuttall,
    "blackmanharris": blackmanharris, "flattop": flattop, "bartlett": bartlett, "triang": triang, "cosine": cosine,
    "tukey": tukey,
}  # fmt: skip
_WITH_NUMBER: dict[str, Callable[..., Tensor]] = {"kaiser": kaiser, "gaussian": gaussian, "tukey": tukey}


def get_window(
    window: str | float | tuple[Any, ...], Nx: int, fftbins: bool = True, dtype: Any = dt.float32
) -> Tensor:
    """A window by name, or (name, number) for "kaiser", "gaussian" and "tukey"; a number alone is the beta of ``kaiser``.

    Periodic, as spectra need it, unless ``fftbins`` is false.

    >>> get_window("hann", 2).tolist()
    [0.0, 1.0]
    """
    if isinstance(window, (int, float)):
        window = ("kaiser", window)
    if isinstance(window, tuple) and len(window) == 2 and window[0] in _WITH_NUMBER:
        return _WITH_NUMBER[window[0]](Nx, window[1], sym=not fftbins, dtype=dtype)
    if isinstance(window, str) and window in _PLAIN:
        return _PLAIN[window](Nx, sym=not fftbins, dtype=dtype)
    known = ", ".join(sorted({*_PLAIN, *_WITH_NUMBER}))
    raise ArgumentError(f"get_window: `window` is one of {known}, or (name, number), got {window!r}")

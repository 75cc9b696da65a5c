"""Convolution, windows and filters against SciPy; derivatives, transforms, errors."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
from numpy.testing import assert_allclose, assert_array_equal

import tilewright as tw
from tilewright import signal


def random(*shape: int, dtype: str = "float64", seed: int = 0) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(seed)
    if dtype.startswith("int"):
        return rng.integers(-5, 6, shape).astype(dtype)
    out = rng.standard_normal(shape)
    return (out + 1j * rng.standard_normal(shape) if "complex" in dtype else out).astype(dtype)


@pytest.mark.parametrize("dtype", ["int32", "float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("name", ["convolve", "correlate"])
def test_convolution(name: str, dtype: str) -> None:
    atol = 1e-5 if dtype in ("float32", "complex64") else 1e-12
    for first, second in (((7,), (3,)), ((3,), (7,)), ((1,), (1,)), ((4, 5), (2, 3)), ((2, 3, 4), (2, 1, 3))):
        a, b = random(*first, dtype=dtype), random(*second, dtype=dtype, seed=1)
        for mode in ("full", "same", "valid"):
            expected = getattr(scipy.signal, name)(a, b, mode=mode)
            for method in ("auto", "direct") if dtype == "int32" else ("auto", "direct", "fft"):
                found = getattr(signal, name)(tw.Tensor(a), tw.Tensor(b), mode=mode, method=method)
                assert found.dtype.name == dtype and found.shape == expected.shape
                assert_allclose(found.numpy(), expected, atol=atol)


def test_large_convolutions_go_through_transforms() -> None:
    a, b = random(3000), random(2500, seed=1)
    found = signal.convolve(tw.Tensor(a), tw.Tensor(b)).numpy()
    assert_allclose(found, np.convolve(a, b), atol=1e-10)
    assert_allclose(signal.fftconvolve(tw.Tensor([1, 2]), tw.Tensor([1, 1])).numpy(), [1, 3, 2], atol=1e-6)


NAMES = [
    "boxcar",
    "hann",
    "hamming",
    "blackman",
    "blackmanharris",
    "nuttall",
    "flattop",
    "bartlett",
    "triang",
    "cosine",
    "tukey",
]


@pytest.mark.parametrize("name", [*NAMES, ("kaiser", 8.6), ("gaussian", 2.5), ("tukey", 0.3), 14.0])
def test_windows(name: Any) -> None:
    for count in (1, 2, 3, 8, 33):
        for periodic in (True, False):
            found = signal.get_window(name, count, periodic, dtype="float64").numpy()
            assert_allclose(found, scipy.signal.get_window(name, count, periodic), atol=1e-14)
    assert signal.get_window(name, 5).dtype is tw.float32
    assert signal.get_window(name, 0).shape == (0,)


FILTERS = [
    ([1.0], [1.0]),
    ([0.5, 0.25], [2.0]),
    ([1.0], [1.0, -0.9]),
    ([0.1, 0.2, 0.3], [1.0, -0.5, 0.2, 0.1]),
]


@pytest.mark.parametrize("b, a", FILTERS)
def test_recursive_filters(b: list[float], a: list[float]) -> None:
    x = random(3, 20)
    for axis in (0, 1):
        expected = scipy.signal.lfilter(b, a, x, axis=axis)
        assert_allclose(signal.lfilter(b, a, tw.Tensor(x), axis=axis).numpy(), expected, atol=1e-6)
    state = random(3, max(len(a), len(b)) - 1, seed=2)
    found = signal.lfilter(np.array(b), np.array(a), tw.Tensor(x), zi=tw.Tensor(state))
    for one, other in zip(found, scipy.signal.lfilter(b, a, x, zi=state), strict=True):
        assert_allclose(one.numpy(), other, atol=1e-12)


def test_finite_filters() -> None:
    for count, low in ((9, True), (9, False), (12, True)):
        found = signal.firwin(count, 0.3, pass_zero=low, dtype="float64").numpy()
        assert_allclose(found, scipy.signal.firwin(count, 0.3, pass_zero=low), atol=1e-14)


@pytest.mark.parametrize("mode", ["reflect", "mirror", "nearest", "constant", "wrap"])
def test_smoothing(mode: str) -> None:
    for dtype in ("float32", "float64", "complex128"):
        x = random(6, 9, dtype=dtype)
        found = signal.gaussian_filter(tw.Tensor(x), (1.5, 0.7), mode=mode, cval=0.5)
        expected = scipy.ndimage.gaussian_filter(x, (1.5, 0.7), mode=mode, cval=0.5)
        assert found.dtype.name == dtype
        assert_allclose(found.numpy(), expected, atol=1e-5 if dtype == "float32" else 1e-12)
    for size in (1, 3, (3, 5)):
        assert_array_equal(
            signal.medfilt(tw.Tensor(x.real), size).numpy(), scipy.signal.medfilt(x.real, size)
        )


DIFFERENTIABLE: dict[str, Callable[..., Any]] = {
    "direct": lambda x, w: signal.convolve(x, w * w, "same", "direct"),
    "fft": lambda x, w: signal.convolve(x, w * w, "full", "fft"),
    "correlate": lambda x, w: signal.correlate(x, w * x[:3], "valid"),
    "lfilter": lambda x, w: signal.lfilter(w, w + 2.0, x),
    "gaussian": lambda x, w: signal.gaussian_filter(x * x, 1.0) * w[0],
    "medfilt": lambda x, w: signal.medfilt(x, 3) * w[1],
    "kaiser": lambda x, w: signal.kaiser(8, 3.0 + w[0], dtype="float64") * x,
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives_and_transforms(name: str) -> None:
    f = DIFFERENTIABLE[name]
    x, w = tw.Tensor(random(8)), tw.Tensor(random(3, seed=3))
    tw.check_grads(f, (x, w), order=2, atol=1e-4, rtol=1e-4)
    expected = f(x, w).numpy()
    assert_allclose(tw.jit(f)(x, w).numpy(), expected, atol=1e-13)
    many = tw.vmap(f, in_axes=(0, None))(tw.stack([x, 2 * x]), w).numpy()
    assert_allclose(many, np.stack([expected, f(2 * x, w).numpy()]), atol=1e-12)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: signal.convolve(tw.ones(3), tw.ones(2, 2)), "convolve: shapes .* have one rank"),
        (lambda: signal.convolve(tw.ones(3), tw.ones(0)), "no empty axis"),
        (lambda: signal.convolve(tw.ones(3), tw.ones(2), "half"), "convolve: `mode` is one of"),
        (lambda: signal.correlate(tw.ones(3), tw.ones(2), method="slow"), "correlate: `method`"),
        (lambda: signal.convolve(tw.ones(3, 1), tw.ones(2, 2), "valid"), "lies inside the other"),
        (lambda: signal.convolve(tw.Tensor([1]), tw.Tensor([1]), method="fft"), "takes floating-point elements"),
        (lambda: signal.get_window("hanning", 3), "get_window: `window` is one of"),
        (lambda: signal.hann(-1), "`M` is an integer"),
        (lambda: signal.lfilter([[1.0]], [1.0], tw.ones(3)), "lfilter: `b` is a vector"),
        (lambda: signal.lfilter([1.0], [1.0, 0.5], tw.ones(3), zi=tw.ones(2)), r"`zi` has shape \(1,\)"),
        (lambda: signal.firwin(4, 0.5, pass_zero=False), "odd `numtaps`"),
        (lambda: signal.medfilt(tw.ones(3), 2), "odd"),
        (lambda: signal.gaussian_filter1d(tw.ones(3), 1.0, mode="zero"), "`mode` is one of"),
    ],
)  # fmt: skip
def test_bad_arguments(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(tw.TilewrightError, match=message):
        call()

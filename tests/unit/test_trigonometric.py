"""Cosine and sine transforms against SciPy: types, norms, lengths, axes, derivatives."""

import numpy as np
import pytest
import scipy.fft
from numpy.testing import assert_allclose

import tilewright as tw

NAMES = ["dct", "idct", "dst", "idst"]


def random(*shape: int, dtype: str = "float64") -> np.ndarray:
    out = np.random.default_rng(0).standard_normal(shape)
    return (out + 1j * out[::-1]).astype(dtype) if "complex" in dtype else out.astype(dtype)


@pytest.mark.parametrize("type", [1, 2, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_values(name: str, type: int) -> None:
    for dtype, atol in (("float32", 1e-5), ("float64", 1e-12), ("complex128", 1e-12)):
        for shape in ((5, 1), (5, 2), (4, 3), (3, 8)):
            if min(shape[-1], 9) < 2 and type == 1 and "dct" in name:
                continue
            x = random(*shape, dtype=dtype)
            for norm in (None, "backward", "ortho", "forward"):
                found = getattr(tw.fft, name)(tw.Tensor(x), type, norm=norm)
                assert found.dtype.name == dtype
                assert_allclose(found.numpy(), getattr(scipy.fft, name)(x, type, norm=norm), atol=atol)
    x = random(4, 3)
    for n in (2, 7):
        found = getattr(tw.fft, name)(tw.Tensor(x), type, n=n, axis=0)
        assert_allclose(found.numpy(), getattr(scipy.fft, name)(x, type, n=n, axis=0), atol=1e-12)
    found = getattr(tw.fft, f"{name}n")(tw.Tensor(x), type, s=(3, 4))
    assert_allclose(found.numpy(), getattr(scipy.fft, f"{name}n")(x, type, s=(3, 4)), atol=1e-12)


@pytest.mark.parametrize("type", [1, 2, 3, 4])
@pytest.mark.parametrize("name", NAMES)
def test_derivatives_and_transforms(name: str, type: int) -> None:
    def f(x: tw.Tensor) -> tw.Tensor:
        return getattr(tw.fft, name)(x, type, norm="ortho") ** 2

    x = tw.Tensor(random(2, 4))
    tw.check_grads(f, (x,), order=2)
    assert_allclose(tw.jit(f)(x).numpy(), f(x).numpy(), atol=1e-14)
    assert_allclose(tw.vmap(f)(x).numpy(), f(x).numpy(), atol=1e-14)


def test_bad_arguments() -> None:
    with pytest.raises(tw.ArgumentError, match="dct: `type` is 1, 2, 3 or 4, got 5"):
        tw.fft.dct(tw.ones(3), 5)
    with pytest.raises(tw.ArgumentError, match="dst: `norm` is one of"):
        tw.fft.dst(tw.ones(3), norm="unit")
    with pytest.raises(tw.ArgumentError, match="dct: type 1 has more points"):
        tw.fft.dct(tw.ones(1), 1)
    with pytest.raises(tw.ShapeError, match="dctn: `s`"):
        tw.fft.dctn(tw.ones(3, 3), s=(2,), axes=(0, 1))

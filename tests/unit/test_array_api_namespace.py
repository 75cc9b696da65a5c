"""The array API namespace: what it holds, what its own functions add, and edges that the standard fixes."""

import math

import numpy as np
import pytest

import tilewright as tw
import tilewright.array_api as xp


def test_tensor_names_its_namespace() -> None:
    assert xp.asarray(1.0).__array_namespace__() is xp
    assert tw.linalg is xp.linalg and tw.fft is xp.fft
    assert [name for name in xp.__all__ if not hasattr(xp, name)] == []


def test_info_lists_the_standard_types() -> None:
    info = xp.__array_namespace_info__()
    assert set(info.dtypes(kind="complex floating")) == {"complex64", "complex128"}
    assert "bfloat16" not in info.dtypes()
    assert info.default_dtypes()["integral"] is tw.int64
    assert info.devices() == [info.default_device()] == ["cpu"]


def test_other_devices_are_refused() -> None:
    with pytest.raises(tw.ArgumentError, match="zeros: `device` is 'cpu'"):
        xp.zeros(3, device="gpu")
    with pytest.raises(tw.ArgumentError, match="to_device"):
        xp.zeros(3).to_device("gpu")


def test_complex_linspace_goes_along_a_line() -> None:
    found = xp.linspace(0, 2 + 4j, 3, dtype=xp.complex128)
    assert found.tolist() == [0, 1 + 2j, 2 + 4j]


def test_repeated_constants_survive_being_computed_on_their_own() -> None:
    for _ in range(2):  # the second round runs the first one's program
        assert xp.abs(xp.full((3,), 3 + 4j)).tolist() == [5, 5, 5]
        assert xp.full((3,), 3 + 4j).tolist() == [3 + 4j] * 3


def test_signs_of_zero_and_nan() -> None:
    assert not np.signbit(xp.sign(xp.asarray([-0.0, 0.0])).numpy()).any()
    assert xp.signbit(xp.asarray(-math.nan)).item() and not xp.signbit(xp.asarray(math.nan)).item()


def test_complex_sign_is_the_direction() -> None:
    assert xp.sign(xp.asarray([3 + 4j, 0j])).numpy() == pytest.approx(np.array([0.6 + 0.8j, 0]))


def test_floor_divide_of_infinities_is_the_rounded_quotient() -> None:
    left, right = xp.asarray([math.inf, -math.inf, 1.0, 7.0]), xp.asarray([2.0, 2.0, -math.inf, 2.0])
    found = xp.floor_divide(left, right).numpy()
    assert found.tolist() == [math.inf, -math.inf, 0.0, 3.0] and np.signbit(found[2])
    assert xp.floor_divide(xp.asarray([7, -7]), 2).tolist() == [3, -4]


def test_complex_expm1_is_precise_near_zero() -> None:
    small = xp.asarray([1e-12 + 1e-12j], dtype=xp.complex128)
    assert xp.expm1(small).numpy() == pytest.approx(small.numpy(), rel=1e-11)


def test_complex_logarithms_and_rounding() -> None:
    z = np.array([1 + 2j, -3 + 0.6j])
    assert xp.log2(xp.asarray(z)).numpy() == pytest.approx(np.log2(z))
    assert xp.log10(xp.asarray(z)).numpy() == pytest.approx(np.log10(z))
    assert xp.round(xp.asarray(z)).tolist() == np.round(z).tolist()


def test_masks_without_axes_or_elements() -> None:
    x = xp.asarray([1, 2])
    assert x[xp.asarray(True)].tolist() == [[1, 2]]
    assert x[xp.asarray(False)].shape == (0, 2)
    assert x[xp.zeros((0,), dtype=xp.bool)].shape == (0,)
    with pytest.raises(IndexError, match="does not fit"):
        x[xp.zeros((3,), dtype=xp.bool)]


def test_masks_without_axes_write_all_or_nothing() -> None:
    x = xp.asarray([1, 2])
    x[xp.asarray(False)] = xp.zeros((0, 2), dtype=xp.int64)
    assert x.tolist() == [1, 2]
    x[xp.asarray(True)] = xp.asarray([[3, 4]])
    assert x.tolist() == [3, 4]
    number = xp.asarray(5.0)
    number[xp.asarray(False)] = xp.zeros((0,))
    assert number.item() == 5.0


def test_dlpack_shares_memory_when_asked() -> None:
    x = xp.asarray([1.0, 2.0])
    assert np.from_dlpack(x).__array_interface__["data"][0] == x.numpy().__array_interface__["data"][0]
    with pytest.raises(BufferError, match="device"):
        x.__dlpack__(dl_device=(2, 0))

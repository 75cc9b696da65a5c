"""8-bit floats and 4-bit integers: conversion to and from every type, movement, files, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tilewright as tw
from tilewright.core import dtype as dt
from tilewright.core.scalar import cast_numpy
from tilewright.graph.ir import input_value, make
from tilewright.graph.reference import evaluate
from tilewright.interop.safetensors import load_file, save_file

FLOAT8 = (dt.float8_e4m3fn, dt.float8_e5m2)
REAL = [d for d in dt.ALL if not d.is_complex]


def every_byte(dtype: dt.DType) -> np.ndarray[Any, Any]:
    return np.arange(256, dtype=np.uint8).view(dtype.numpy)


def same(a: Any, b: Any) -> bool:
    """Equal bits; any NaN is as good as another."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    nan = np.isnan(a.astype(wide))
    return bool((nan == np.isnan(b.astype(wide))).all() and a[~nan].tobytes() == b[~nan].tobytes())


def awkward(dtype: dt.DType) -> np.ndarray[Any, Any]:
    """Numbers of a type around everything where rounding to a storage type decides something."""
    if dtype.is_bool:
        return np.array([False, True] * 20)
    if dtype.is_integer:
        info = np.iinfo(dtype.name)
        near = [n for n in range(-600, 601) if info.min <= n <= info.max]
        wide = [n for n in (57344, 61439, 61440, 65536, 2**24 + 1, 2**33) if n <= info.max]
        return np.array([*near, *wide, info.min, info.max], dtype.numpy)
    points: list[float] = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        1e30,
        -1e30,
        1e-30,
        464.0,
        465.0,
        61440.0,
        61439.0,
    ]
    for kind in FLOAT8:  # every number, every tie, and both sides of it
        numbers = np.sort(np.unique(every_byte(kind).astype(np.float64)))
        numbers = numbers[np.isfinite(numbers)]
        ties = (numbers[1:] + numbers[:-1]) / 2
        for x in (numbers, ties):
            points += [
                *x,
                *np.nextafter(x, np.inf),
                *np.nextafter(x, -np.inf),
                *(x * (1 + 1e-6)),
                *(x * (1 - 1e-6)),
            ]
    points += list(np.linspace(-20, 20, 161))
    with np.errstate(all="ignore"):
        return np.array(points, np.float64).astype(dtype.numpy)


@pytest.mark.parametrize("source", REAL, ids=str)
@pytest.mark.parametrize("to", dt.STORAGE, ids=str)
def test_into_storage(to: dt.DType, source: dt.DType) -> None:
    x = awkward(source)
    got = tw.asarray(x).astype(to)
    assert got.dtype is to
    assert same(got, cast_numpy(x, to))
    if to in FLOAT8:
        with np.errstate(all="ignore"):  # float64 is rounded twice by ml_dtypes; see the test of rounding
            x = x[x.astype(np.float32) == x] if source is dt.float64 else x
            got = tw.asarray(x).astype(to)
            exact = x.astype(np.float64).astype(to.numpy)
        assert same(got, exact)
    else:
        low, high = (-8, 7) if to is dt.int4 else (0, 15)
        if source.is_float:
            whole = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0, posinf=99, neginf=-99)).clip(
                low, high
            )
        else:
            whole = (x.astype(object) - low) % 16 + low
        assert got.numpy().astype(np.int8).tolist() == [int(v) for v in whole]
    assert (
        got.numpy().view(np.uint8).max() < 16 or to in FLOAT8
    )  # the upper half of a 4-bit integer's byte is 0


@pytest.mark.parametrize("to", [*dt.ALL, *dt.STORAGE], ids=str)
@pytest.mark.parametrize("source", dt.STORAGE, ids=str)
def test_out_of_storage(source: dt.DType, to: dt.DType) -> None:
    x = every_byte(source)
    exact = x.astype(np.int8 if source in (dt.int4, dt.uint4) else np.float32)
    if to is not source:
        assert same(tw.asarray(x).astype(to), cast_numpy(exact, to))
    if to is dt.float64:
        assert same(tw.asarray(x).astype(to), exact.astype(np.float64))


def test_rounding_of_8_bit_floats_is_to_nearest_even() -> None:
    """Against all numbers of the type, not another library's conversion."""
    for kind, largest in ((dt.float8_e4m3fn, 448.0), (dt.float8_e5m2, 57344.0)):
        numbers = np.unique(every_byte(kind).astype(np.float64))
        numbers = numbers[np.isfinite(numbers)]
        codes = numbers.astype(kind.numpy).view(np.uint8)
        x = np.random.default_rng(0).standard_normal(20_000) * np.exp2(
            np.random.default_rng(1).uniform(-18, 8, 20_000)
        )
        x = x[np.abs(x) <= largest]
        above = np.searchsorted(numbers, x).clip(1, len(numbers) - 1)
        low, high = numbers[above - 1], numbers[above]
        nearer_low = (x - low < high - x) | ((x - low == high - x) & (codes[above - 1] % 2 == 0))
        assert np.array_equal(
            tw.asarray(x).astype(kind).numpy().astype(np.float64), np.where(nearer_low, low, high)
        )


def test_movement_and_selection() -> None:
    x = (np.arange(24).reshape(4, 6) % 16 - 8).astype(np.float32)
    for kind in dt.STORAGE:
        q = tw.asarray(x).astype(kind)
        wide = q.astype("float32").numpy()
        back = q.T.reshape(3, 8)[:, ::2]
        assert np.array_equal(back.astype("float32").numpy(), wide.T.reshape(3, 8)[:, ::2])
        assert np.array_equal(
            tw.concat([q, q[:1]]).astype("float32").numpy(), np.concatenate([wide, wide[:1]])
        )
        assert np.array_equal(q[tw.tensor([2, 0])].astype("float32").numpy(), wide[[2, 0]])
        assert np.array_equal(
            tw.where(tw.asarray(x > 0), q, q[::-1]).astype("float32").numpy(),
            np.where(x > 0, wide, wide[::-1]),
        )
        assert np.array_equal(tw.pad(q, 1).astype("float32").numpy(), np.pad(wide, 1))
        assert np.array_equal(tw.zeros(2, 3, dtype=kind).astype("int8").numpy(), np.zeros((2, 3), np.int8))
        assert tw.full((2,), 3, dtype=kind).tolist() == [3, 3]
        assert q[0, 0].item() == wide[0, 0] and q.tolist() == wide.tolist()
        assert str(kind) in repr(q)
        assert same(tw.jit(lambda t: t.astype("float32") * 2)(q), wide * 2)
        assert tw.tensor([1.0, 2.0], dtype=kind).astype("float32").tolist() == [1.0, 2.0]
        assert q.nbytes == 24


def test_quantised_weights_are_converted_inside_a_product() -> None:
    rng = np.random.default_rng(0)
    w = tw.asarray(rng.standard_normal((40, 30)).astype(np.float32)).astype("float8_e4m3fn")
    x = tw.asarray(rng.standard_normal((7, 40)).astype(np.float32))
    product = tw.jit(lambda x, w: x @ w.astype("float32"))(x, w).numpy()
    assert product == pytest.approx(x.numpy() @ w.numpy().astype(np.float32), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("kind", dt.STORAGE, ids=str)
def test_reference_agrees(kind: dt.DType) -> None:
    x = input_value(kind, (256,))
    (out,) = evaluate([make("cast", (x,), dtype=dt.float32)], {x: every_byte(kind)})
    assert same(out, tw.asarray(every_byte(kind)).astype("float32"))


REFUSED = {
    "add": lambda q: q + q,
    "number": lambda q: q * 2,
    "mixed": lambda q: q + tw.ones(3),
    "compare": lambda q: q < q,
    "function": lambda q: tw.exp(q),
    "sum": lambda q: q.sum(),
    "mean": lambda q: q.mean(),
    "max": lambda q: q.max(),
    "product": lambda q: q @ q,
    "relu": lambda q: tw.relu(q),
    "sort": lambda q: tw.sort(q),
    "cumsum": lambda q: tw.cumsum(q),
}


@pytest.mark.parametrize("kind", dt.STORAGE, ids=str)
@pytest.mark.parametrize("name", REFUSED)
def test_computing_is_refused(name: str, kind: dt.DType) -> None:
    q = tw.tensor([1.0, 2.0, 3.0], dtype=kind)
    with pytest.raises(
        tw.DTypeError, match=rf"{kind} only stores numbers; convert before computing"
    ) as caught:
        REFUSED[name](q)
    assert "\n" not in str(caught.value)


def test_no_gradients() -> None:
    with pytest.raises(tw.DTypeError, match="no gradient"):
        tw.tensor([1.0], dtype="float8_e5m2").requires_grad_()


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    tensors = {str(k): tw.asarray(every_byte(k).reshape(2, 128)) for k in FLOAT8}
    tw.save(tensors, path)
    back = tw.load(path)
    for name, x in tensors.items():
        assert back[name].dtype is x.dtype and back[name].numpy().tobytes() == x.numpy().tobytes()
    raw = load_file(path).tensors
    assert raw["float8_e5m2"].dtype == np.dtype(ml_dtypes.float8_e5m2)


def test_4_bit_integers_are_packed_in_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "q.safetensors"
    for count in (0, 1, 7, 24):
        values = np.arange(count) % 16
        tensors = {
            "u": tw.asarray(values.astype(ml_dtypes.uint4)),
            "i": tw.asarray((values - 8).astype(ml_dtypes.int4)).reshape(1, count),
        }
        save_file(tensors, path, {"note": "hello"})
        assert load_file(path).metadata == {"note": "hello"}
        back = tw.load(path)
        assert back["i"].dtype is dt.int4 and back["i"].shape == (1, count)
        assert back["u"].tolist() == values.tolist() and back["i"].tolist() == [(values - 8).tolist()]
    assert path.stat().st_size < 400
    raw = path.read_bytes()
    for old, new in ((b"[24]", b"[26]"), (b"uint4", b"uint5"), (b"[1, 24]", b'[1,"24]')):
        assert old in raw
        path.write_bytes(raw.replace(old, new, 1))
        with pytest.raises(tw.FileFormatError, match=r"q\.safetensors"):
            tw.load(path)

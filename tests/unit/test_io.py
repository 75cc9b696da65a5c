"""Files of arrays: round trips in every format, and broken files, which give one error or the right answer."""

from __future__ import annotations

import io
import os
import random
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilewright as tw
from tilewright.core.files import FileFormatError, FileWriteError
from tilewright.io import npy, npz

NUMPY_TYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128",
]  # fmt: skip


def array_of(dtype: str, shape: tuple[int, ...], seed: int = 0, order: str = "C") -> np.ndarray:
    """Any bits that make a number of the type."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if dtype == "bool":
        made = rng.integers(0, 2, shape).astype(bool)
    else:
        count = int(np.prod(shape))
        made = np.frombuffer(rng.bytes(max(count, 1) * kind.itemsize), kind)[:count].reshape(shape)
    return np.array(made, order=order)  # type: ignore[call-overload]


def same(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


shapes = st.lists(st.integers(0, 4), max_size=4).map(tuple)


@given(dtype=st.sampled_from(NUMPY_TYPES), shape=shapes, order=st.sampled_from("CF"), seed=st.integers(0, 99))
def test_npy_and_npz_round_trips(dtype: str, shape: tuple[int, ...], order: str, seed: int) -> None:
    x = array_of(dtype, shape, seed, order)
    straight = np.array(x, order="C")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.npy")
        tw.save(tw.asarray(straight), path)
        buffer = io.BytesIO()
        np.save(buffer, straight)
        assert path.read_bytes() == buffer.getvalue()
        assert same(tw.load(path), straight)
        np.save(path, x)  # Fortran order, and foreign byte order below
        assert same(tw.load(path), x)
        np.save(path, x.astype(x.dtype.newbyteorder(">")))
        assert same(tw.load(path), x)
        for compressed in (False, True):
            tw.save({"x": x, "deep/y": x.T}, Path(folder, "a.npz"), compressed=compressed)
            back = tw.load(Path(folder, "a.npz"))
            assert list(back) == ["x", "deep/y"] and same(back["x"], x)
            theirs = np.load(Path(folder, "a.npz"), allow_pickle=False)
            assert same(theirs["deep/y"], x.T)
        np.savez_compressed(Path(folder, "b.npz"), x=x)
        assert same(tw.load(Path(folder, "b.npz"))["x"], x)


@given(
    dtype=st.sampled_from(["float16", "bfloat16", "float32", "float64", "int8", "uint64", "int64", "bool"]),
    shape=st.lists(st.integers(2, 4), min_size=1, max_size=2).map(tuple),
    suffix=st.sampled_from([".txt", ".csv", ".tsv"]),
    seed=st.integers(0, 99),
)
def test_text_round_trips(dtype: str, shape: tuple[int, ...], suffix: str, seed: int) -> None:
    x = array_of(dtype, shape, seed)
    x = np.where(np.isnan(x.astype(np.float64)), np.zeros((), x.dtype), x)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x" + suffix)
        tw.save(tw.asarray(x), path, header="# numbers")
        assert same(tw.load(path, dtype=dtype), x)


def test_text(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2.5\n\n3,nan # none\n")
    assert str(tw.load(path, skiprows=1).tolist()) == "[[1.0, 2.5], [3.0, nan]]"
    with pytest.raises(FileFormatError, match=r"t\.csv: line 1: could not convert string 'a'.*skiprows=1"):
        tw.load(path)
    path.write_text("1,2\n\n3\n")
    with pytest.raises(FileFormatError, match=r"t\.csv: line 3: .*number of columns"):
        tw.load(path)
    path.write_text("1,2\n3,x\n")
    with pytest.raises(FileFormatError, match=r"line 2: could not convert string 'x' to int64 in column 2"):
        tw.load(path, dtype="int64")
    path.write_text("\n# nothing\n")
    with pytest.raises(FileFormatError, match="there are no numbers"):
        tw.load(path)
    path.write_bytes(b"1,2\n\xff\xfe")
    with pytest.raises(FileFormatError, match="byte 4 is not UTF-8"):
        tw.load(path)
    tw.savetxt(tw.tensor([[0.1, 1 / 3]]), tmp_path / "u.txt")
    assert (tmp_path / "u.txt").read_text() == "0.1 0.33333334\n"
    assert tw.loadtxt(tmp_path / "u.txt", ndmin=2, dtype="float32").tolist() == [
        [np.float32(0.1), np.float32(1 / 3)]
    ]
    with pytest.raises(FileFormatError, match="rank 3"):
        tw.save(tw.zeros(1, 2, 3), tmp_path / "v.txt")
    with pytest.raises(FileFormatError, match="complex64"):
        tw.save(tw.zeros(2, dtype="complex64"), tmp_path / "v.txt")


def test_npy_is_memory_mapped_and_read_only(tmp_path: Path) -> None:
    x = np.arange(10_000, dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    loaded = tw.load(tmp_path / "x.npy")
    assert not loaded.numpy().flags.writeable and not loaded._buffer().owned
    loaded += 1
    assert same(loaded, x + 1) and same(np.load(tmp_path / "x.npy"), x)


def header(descr: str = "'<f4'", order: str = "False", shape: str = "(2, 3)", tail: str = ", }") -> str:
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}{tail}"


def npy_bytes(text: str, body: bytes = b"\0" * 24, version: tuple[int, int] = (1, 0)) -> bytes:
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text.encode("latin1") + body


BROKEN_NPY: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an .npy file"),
    "magic": (b"PK\x03\x04" + bytes(60), "not an .npy file"),
    "short": (b"\x93NUMPY\x01", "too few for a header"),
    "version": (npy_bytes(header(), version=(9, 1)), "version 9.1"),
    "cut header": (npy_bytes(header())[:40], "cut short: its header takes"),
    "huge header": (
        b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b" " * 100,
        "header would take 2147483648",
    ),
    "cut": (npy_bytes(header())[:-1], "cut short: shape \\(2, 3\\)"),
    "longer": (npy_bytes(header()) + b"x", "followed by bytes"),
    "pickle": (npy_bytes(header("'|O'")), "pickled Python objects, which are never loaded"),
    "bfloat16": (npy_bytes(header("'|V2'"), b"\0" * 12), "bfloat16 and float8"),
    "structured": (npy_bytes(header("[('a', '<f4')]")), "named fields"),
    "text": (npy_bytes(header("'<U3'")), "no elements of type '<U3'"),
    "dates": (npy_bytes(header("'<M8[s]'")), "no elements of type"),
    "long double": (npy_bytes(header("'<f16'")), "no elements of type '<f16'"),
    "bad type": (npy_bytes(header("'<f3'")), "no elements of type"),
    "code": (npy_bytes(header("__import__('os').system('true')")), "header is damaged|no elements of type"),
    "order": (npy_bytes(header(order="1")), "fortran_order"),
    "negative": (npy_bytes(header(shape="(-2, 3)")), "header is damaged"),
    "no tuple": (npy_bytes(header(shape="7")), "no tuple"),
    "overlong": (npy_bytes(header(shape="(99999999999, 99999999999)")), "no machine"),
    "overlong and empty": (npy_bytes(header(shape="(0, 9999999999999999999)"), b""), "no machine"),
    "rank": (npy_bytes(header(shape="(" + "1," * 70 + ")")), "70 axes"),
    "brackets": (npy_bytes("{" + "(" * 60000), "header is damaged"),
    "twice": (npy_bytes("{'descr': '<f4', 'descr': '<f4', 'shape': (2,3)}"), "header is damaged"),
    "missing": (npy_bytes("{'descr': '<f4', 'shape': (2,3)}"), "once each"),
    "more": (npy_bytes(header() + " x"), "nothing else"),
    "latin": (npy_bytes(header("'<f\xe9'")), "not ASCII"),
    "bools": (npy_bytes(header("'|b1'"), b"\x02" * 6), "bool elements are 0 or 1"),
}


@pytest.mark.parametrize("name", BROKEN_NPY)
def test_broken_npy(name: str, tmp_path: Path) -> None:
    data, message = BROKEN_NPY[name]
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match=message) as caught:
        tw.load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    archive = tmp_path / "a.npz"  # the same inside an archive
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("x.npy", data)
    with pytest.raises(FileFormatError):
        tw.load(archive)


def npz_with(path: Path, members: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as made:
        for name, data in members.items():
            made.writestr(zipfile.ZipInfo(name), data, kind)
    return path


GOOD = npy_bytes(header())


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../x.npy": GOOD}, "leads out of the archive"),
        ({"/etc/x.npy": GOOD}, "name that is none"),
        ({"a\\..\\x.npy": GOOD}, "name that is none|leads out"),
        ({"x/": b""}, "name that is none"),
        ({"x.txt": b"hello"}, "is no .npy file"),
        ({"x.pkl": b"\x80\x04."}, "is no .npy file"),
    ],
)
def test_archives_with_other_things_inside(members: dict[str, bytes], message: str, tmp_path: Path) -> None:
    path = npz_with(tmp_path / "a.npz", members)
    with pytest.raises(FileFormatError, match=message):
        tw.load(path)


def test_archives_that_lie_or_explode(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    zeros = npy_bytes(header("'|u1'", shape="(50000000,)"), b"\0" * 50_000_000)
    npz_with(path, {f"x{i}.npy": zeros for i in range(3)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(FileFormatError, match=r"take 150,000,222 bytes from a file of .*`max_bytes` allows"):
        tw.load(path, max_bytes=100_000_000)
    big = npy_bytes(
        header("'|u1'", shape="(4294967296000,)"), b"\0" * 1000
    )  # says terabytes, holds a kilobyte
    npz_with(path, {"x.npy": big})
    with pytest.raises(FileFormatError, match="takes 4294967296000 bytes, the archive says 1000"):
        tw.load(path)
    data = bytearray(npz_with(path, {"x.npy": GOOD}).read_bytes())
    for at in (data.find(b"PK\x01\x02") + 24, 22):  # both places of the uncompressed size
        data[at : at + 4] = struct.pack("<I", 0xF0000000)
    path.write_bytes(bytes(data))
    with pytest.raises(FileFormatError):
        tw.load(path)
    for flags, message in ((1, "encrypted"),):
        data = bytearray(npz_with(path, {"x.npy": GOOD}).read_bytes())
        data[data.find(b"PK\x01\x02") + 8] |= flags
        data[6] |= flags
        path.write_bytes(bytes(data))
        with pytest.raises(FileFormatError, match=message):
            tw.load(path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as made:
        made.writestr("x.npy", GOOD)
        made.writestr("x.npy", GOOD)
    with pytest.raises(FileFormatError, match="there twice"):
        tw.load(path)
    npz_with(path, {"x.npy": GOOD}, zipfile.ZIP_BZIP2)
    with pytest.raises(FileFormatError, match="in a way that NumPy does not write"):
        tw.load(path)
    assert npz.load_npz(npz_with(path, {})) == {}


def corpus(folder: Path) -> dict[str, Path]:
    """One sound file of each format."""
    x = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    paths = {s: folder / f"good{s}" for s in (".npy", ".npz", ".csv", ".txt", ".safetensors", ".png", ".jpg")}
    tw.save(x, paths[".npy"])
    tw.save({"a": x, "b": x.astype(np.int8)}, paths[".npz"], compressed=True)
    tw.save(x, paths[".csv"])
    tw.save(x.astype(np.float64), paths[".txt"])
    tw.save({"a": x, "b": x.astype(np.int8)}, paths[".safetensors"])
    image = np.random.default_rng(1).integers(0, 256, (9, 8, 3), dtype=np.uint8)
    for suffix in (".png", ".jpg"):
        tw.save(image, paths[suffix])
    return paths


def test_random_damage_gives_an_error_or_an_answer(tmp_path: Path) -> None:
    """Truncation, flipped and inserted bytes: never another exception, never an endless read."""
    pytest.importorskip("PIL")
    rng = random.Random(0)
    refused = 0
    for suffix, good in corpus(tmp_path).items():
        data = good.read_bytes()
        path = tmp_path / f"bad{suffix}"
        for n in range(150):
            broken = bytearray(data)
            if n % 3 == 0:
                broken = broken[: rng.randrange(len(broken))]
            for _ in range(rng.randrange(1, 4) if n % 3 else 0):
                at = rng.randrange(min(len(broken), 200) if n % 2 else len(broken))
                if n % 5 == 0:
                    broken[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
                else:
                    broken[at] ^= 1 << rng.randrange(8)
            path.write_bytes(bytes(broken))
            try:
                loaded = tw.load(path)
            except FileFormatError as error:
                refused += 1
                assert str(path) in str(error) and "\n" not in str(error)
            else:
                for tensor in loaded.values() if isinstance(loaded, dict) else [loaded]:
                    tensor.numpy().tobytes()  # memory that is really there
    assert refused > 400


def test_extensions(tmp_path: Path) -> None:
    with pytest.raises(
        FileFormatError, match=r"extension '\.nyp' is not known; did you mean '\.npy'\? known: \.npy, "
    ):
        tw.save(tw.zeros(2), tmp_path / "x.nyp")
    with pytest.raises(FileFormatError, match="it has no extension"):
        tw.load(tmp_path / "x")
    with pytest.raises(FileFormatError, match=r"cannot read .*none\.npy: No such file"):
        tw.load(tmp_path / "none.npy")
    with pytest.raises(FileFormatError, match=r"cannot read .*none\.npz: No such file"):
        tw.load(tmp_path / "none.npz")
    with pytest.raises(FileFormatError, match="cannot read"):
        tw.load(tmp_path / "\0.npy")
    (tmp_path / "dir.npy").mkdir()
    with pytest.raises(FileFormatError, match="cannot read"):
        tw.load(tmp_path / "dir.npy")
    with pytest.raises(FileFormatError, match="holds one array, not a mapping"):
        tw.save({"x": tw.zeros(1)}, tmp_path / "x.npy")
    with pytest.raises(FileFormatError, match="pass a mapping"):
        tw.save(tw.zeros(1), tmp_path / "x.npz")
    with pytest.raises(FileFormatError, match="cannot be the name"):
        tw.save({"../x": tw.zeros(1)}, tmp_path / "x.npz")
    for dtype in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        with pytest.raises(FileFormatError, match="no name for"):
            npy.save_npy(np.zeros(3, dtype), tmp_path / "x.npy")
    with pytest.raises(FileFormatError, match="tensors have no object"):
        tw.save(np.array([object()]), tmp_path / "x.npy")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dir.npy"]


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("PIL")
    x = np.zeros((20, 20, 3), np.uint8)

    def full(handle: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for name, data in {
        "x.npy": x,
        "x.npz": {"x": x},
        "x.csv": x[0],
        "x.png": x,
        "x.safetensors": {"x": x},
    }.items():
        with pytest.raises(FileWriteError, match="No space left on device; free some space"):
            tw.save(data, tmp_path / "new" / name)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_images(tmp_path: Path) -> None:
    pil = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for channels in (1, 3, 4):
        x = rng.integers(0, 256, (5, 7, channels), dtype=np.uint8)
        tw.save(tw.asarray(x), tmp_path / "x.png")
        assert same(tw.load(tmp_path / "x.png"), x)
    assert tw.load(tmp_path / "x.png", channels=1).shape == (5, 7, 1)
    tw.save(tw.asarray(x[:, :, 0]), tmp_path / "g.png")
    assert same(tw.load(tmp_path / "g.png"), x[:, :, :1])
    smooth = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None] * 3, (64, 64, 3))
    tw.save(smooth, tmp_path / "x.jpg")
    assert np.abs(tw.load(tmp_path / "x.jpg").numpy().astype(int) - smooth).max() <= 3
    pil.fromarray(x[:, :, 0]).convert("P").save(tmp_path / "p.png")
    assert tw.load(tmp_path / "p.png").shape == (5, 7, 3)
    assert tw.load(tmp_path / "x.png").permute_dims(2, 0, 1).shape == (4, 5, 7)
    for bad, message in (
        (tw.zeros(3, 3), "an image is uint8"),
        (tw.zeros(3, 3, 2, dtype="uint8"), "an image is uint8"),
        (tw.zeros(0, 3, dtype="uint8"), "an image is uint8"),
    ):
        with pytest.raises(FileFormatError, match=message):
            tw.save(bad, tmp_path / "y.png")
    with pytest.raises(FileFormatError, match="no transparency"):
        tw.save(x, tmp_path / "y.jpg")
    (tmp_path / "bomb.png").write_bytes(_png_header(100_000, 100_000))
    with pytest.raises(FileFormatError, match=r"100000 x 100000 pixels|decompression bomb"):
        tw.load(tmp_path / "bomb.png")
    (tmp_path / "no.png").write_text("hello")
    with pytest.raises(FileFormatError, match="not a sound PNG or JPEG"):
        tw.load(tmp_path / "no.png")


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", ihdr)
        + chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.txt", "a.safetensors", "a.png"])
def test_a_missing_file_is_what_python_calls_it(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"cannot read .*: No such file"):
        tw.load(tmp_path / name)
    with pytest.raises(tw.FileFormatError):
        tw.load(tmp_path / name)

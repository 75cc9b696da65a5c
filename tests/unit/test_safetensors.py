"""The safetensors reader and writer: against the format's own package, on hostile files, on failing disks."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

import tilewright as tw
from tilewright.core.files import FileWriteError, check_writable, write_atomic, write_json_atomic
from tilewright.interop.safetensors import SafetensorsError, load, load_file, save, save_file

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8"]


def examples() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    shapes = [(), (1,), (0, 3), (2, 3, 5), (7,)]
    return {
        f"{dtype}/{i}": np.asarray(rng.standard_normal(shape) * 50).astype(np.dtype(dtype))
        for dtype in DTYPES
        for i, shape in enumerate(shapes)
    }


def test_a_file_reads_back_equal(tmp_path: Path) -> None:
    tensors = examples()
    tensors["bf16"] = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    tensors["f8"] = np.arange(6).astype(ml_dtypes.float8_e4m3fn)
    save_file(tensors, tmp_path / "a.safetensors", {"epoch": "3", "é": "ü"})
    found = load_file(tmp_path / "a.safetensors")
    assert found.metadata == {"epoch": "3", "é": "ü"}
    assert found.tensors.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found.tensors[name].dtype == array.dtype
        np.testing.assert_array_equal(found.tensors[name], array, strict=True)
    assert load(save(tensors)).tensors.keys() == tensors.keys()


def test_the_reference_package_reads_our_files_and_we_read_its() -> None:
    tensors = {name: a for name, a in examples().items() if not name.startswith("c8")}
    theirs = safetensors.numpy.load(save(tensors, {"a": "b"}))
    ours = load(safetensors.numpy.save(tensors, {"a": "b"}))
    assert ours.metadata == {"a": "b"}
    for name, array in tensors.items():
        np.testing.assert_array_equal(theirs[name], array, strict=True)
        np.testing.assert_array_equal(ours.tensors[name], array, strict=True)


def test_strided_and_big_endian_arrays_are_stored_in_order() -> None:
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    found = load(save({"t": a.T, "big": a.astype(">f4"), "step": a[::2, ::-1]})).tensors
    np.testing.assert_array_equal(found["t"], a.T)
    np.testing.assert_array_equal(found["big"], a)
    np.testing.assert_array_equal(found["step"], a[::2, ::-1])


def test_tensors_are_read_only_and_aligned(tmp_path: Path) -> None:
    save_file(examples(), tmp_path / "a.safetensors")
    for array in load_file(tmp_path / "a.safetensors").tensors.values():
        assert array.flags.aligned and not array.flags.writeable


def file_of(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too few"),
        (b"1234567", "too few"),
        ((2**63).to_bytes(8, "little"), "cut short"),
        ((200_000_000).to_bytes(8, "little") + b"{}", "cut short"),
        (file_of(b"\xff\xfe{}"), "damaged"),
        (file_of(b"{"), "damaged"),
        (file_of(b"[" * 100_000), "damaged"),
        (file_of(b'{"a": NaN}'), "damaged"),
        (file_of(b'{"a": {"shape": [' + b"9" * 5000 + b"]}}"), "damaged"),
        (file_of([1]), "not a JSON object"),
        (file_of(b'{"a": 1, "a": 2}'), "occurs twice"),
        (file_of({"__metadata__": {"a": 1}}), "__metadata__"),
        (file_of({"__metadata__": "x"}), "__metadata__"),
        (file_of({"w": 3}), "not a JSON object"),
        (file_of({"w": {}}), "unknown dtype"),
        (file_of({"w": entry("F31")}, bytes(8)), "unknown dtype"),
        (file_of({"w": entry(["F32"])}, bytes(8)), "unknown dtype"),
        (file_of({"w": entry(shape=[-1])}, bytes(8)), "shape"),
        (file_of({"w": entry(shape=[True, 2])}, bytes(8)), "shape"),
        (file_of({"w": entry(shape=2)}, bytes(8)), "shape"),
        (file_of({"w": entry(shape=[1] * 65)}, bytes(8)), "shape"),
        (file_of({"w": entry(shape=[2.0])}, bytes(8)), "shape"),
        (file_of({"w": entry(shape=[2**62, 2**62])}, bytes(8)), "takes"),
        (file_of({"w": entry(shape=[2**62, 0], offsets=[0, 0])}), "address"),
        (file_of({"w": entry(offsets=[8, 0])}, bytes(8)), "takes"),
        (file_of({"w": entry(offsets=[0])}, bytes(8)), "data_offsets"),
        (file_of({"w": entry(offsets=[-8, 0])}, bytes(8)), "data_offsets"),
        (file_of({"w": entry()}, bytes(7)), "cut short"),
        (file_of({"w": entry()}, bytes(9)), "no tensor"),
        (file_of({"w": entry(offsets=[4, 12])}, bytes(12)), "gap"),
        (file_of({"v": entry(), "w": entry(offsets=[4, 12])}, bytes(12)), "overlaps"),
        (file_of({"v": entry(), "w": entry()}, bytes(8)), "overlaps"),
        (file_of({}, b"x"), "no tensor"),
    ],
)
def test_unsound_files_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(SafetensorsError, match=message):
        load(data)
    (tmp_path / "bad.safetensors").write_bytes(data)
    with pytest.raises(SafetensorsError, match=message):
        load_file(tmp_path / "bad.safetensors")


@given(st.data())
def test_damaged_files_never_do_anything_but_raise(data: st.DataObject) -> None:
    whole = bytearray(save({"a": np.arange(5, dtype=np.float32), "b": np.ones((2, 2), np.int8)}, {"k": "v"}))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = load(cut)
    except SafetensorsError:
        return
    assert sum(a.nbytes for a in found.tensors.values()) <= len(cut)


def test_loaded_tensors_are_never_written_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tw.save({"w": tw.ones(1000), "b": tw.tensor([1.5, 2.5]).astype("bfloat16")}, path)
    before = path.read_bytes()
    loaded = tw.load(path)
    assert loaded["b"].tolist() == [1.5, 2.5] and loaded["b"].dtype is tw.bfloat16
    w = loaded["w"]

    @tw.jit
    def grow() -> None:
        w.assign(w * 2)

    grow()
    grow()
    assert w.tolist() == [4.0] * 1000
    w += 1
    assert w.sum().item() == 5000 and path.read_bytes() == before
    save_file({"f8": np.zeros(2, ml_dtypes.float8_e5m2)}, path)
    assert tw.load(path)["f8"].dtype is tw.float8_e5m2


def test_a_missing_file_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SafetensorsError, match=r"cannot read .*none\.safetensors: No such file"):
        load_file(tmp_path / "none.safetensors")


def test_what_the_format_cannot_hold() -> None:
    with pytest.raises(SafetensorsError, match="no type for complex128"):
        save({"w": np.zeros(2, np.complex128)})
    with pytest.raises(SafetensorsError, match="no type for object"):
        save({"w": np.array([None])})
    with pytest.raises(SafetensorsError, match="cannot be the name"):
        save({"__metadata__": np.zeros(2)})
    with pytest.raises(SafetensorsError, match="table of strings"):
        save({}, {"a": 1})  # type: ignore[dict-item]
    with pytest.raises(SafetensorsError, match=r"holds named tensors: pass a mapping .* got ndarray"):
        save(np.zeros(2))  # type: ignore[arg-type]
    with pytest.raises(SafetensorsError, match=r"'state': a file holds one flat mapping .* got a dict"):
        save({"state": {"w": np.zeros(2)}})


# ---- files on failing disks --------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"w": np.zeros(4, np.float32)}, path)
    before = path.read_bytes()
    calls = 0

    def full(handle: int, data: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            return real(handle, data[:10])  # a short write, then no space
        raise OSError(28, "No space left on device")

    real = os.write
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(FileWriteError, match=r"cannot write .*w\.safetensors: No space left on device"):
        save_file({"w": np.ones(400, np.float32)}, path)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]


def test_the_system_refusing_bytes_for_real(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np\n"
        "from tilewright.core.files import FileWriteError\n"
        "from tilewright.interop.safetensors import save_file\n"
        "try:\n    save_file({'w': np.zeros(100_000)}, sys.argv[1])\n"
        "except FileWriteError as error:\n    print(error)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "w.safetensors")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert "cannot write" in run.stdout and "File too large" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileWriteError, match="cannot write"):
        write_atomic(tmp_path / "file" / "below.bin", [b"x"])
    with pytest.raises(FileWriteError, match="directory has this name"):
        write_atomic(tmp_path, [b"x"])
    with pytest.raises(FileWriteError, match=r"^cannot write \S*/file/below\.bin: "):
        check_writable(tmp_path / "file" / "below.bin")
    check_writable(tmp_path / "new" / "dir" / "out.bin")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file"]


def test_a_failed_write_leaves_no_new_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int, data: Any) -> int:
        raise OSError(28, "No space left on device")

    (tmp_path / "old").mkdir()
    monkeypatch.setattr(os, "write", full)
    for name in ("a.bin", "new/dir/a.bin", "old/a.bin", "old/new/a.bin"):
        with pytest.raises(FileWriteError, match="No space"):
            write_atomic(tmp_path / name, [b"x"])
    monkeypatch.undo()
    assert [p.relative_to(tmp_path).name for p in tmp_path.rglob("*")] == ["old"]
    write_atomic(tmp_path / "new" / "dir" / "a.bin", [b"x"])
    assert (tmp_path / "new" / "dir" / "a.bin").read_bytes() == b"x"


def test_json_is_written_whole_and_refuses_nan(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "a.json", {"é": 1.5})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": 1.5}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json_atomic(tmp_path / "a.json", {"loss": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"é": 1.5}

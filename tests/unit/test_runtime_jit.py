"""Compilation and its caches: what is compiled once, what survives on disk, and what damaged files do."""

import ctypes
import os
import stat
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from runtime_kernels import kernel_source

from tilewright.core.settings import settings
from tilewright.runtime.cache import MAGIC, DiskCache, TilewrightCacheWarning
from tilewright.runtime.jit import KernelCompileError, KernelLibrary, assembly, default_library, optimised
from tilewright.runtime.statistics import stats
from tilewright.runtime.target import Target

ANSWER = "define i32 @{name}() nounwind {{ ret i32 {value} }}"

UNDOMINATED = """
define i32 @bad(i1 %c) {
  br i1 %c, label %a, label %b
a:
  %x = add i32 1, 1
  br label %b
b:
  ret i32 %x
}
"""

VECTOR = """
define void @fma(ptr %a, ptr %b) nounwind "prefer-vector-width"="512" {
  %slot = alloca <16 x float>
  %x = load <16 x float>, ptr %a
  store <16 x float> %x, ptr %slot
  %y = load <16 x float>, ptr %slot
  %z = call <16 x float> @llvm.fma.v16f32(<16 x float> %x, <16 x float> %y, <16 x float> %y)
  store <16 x float> %z, ptr %b
  ret void
}
declare <16 x float> @llvm.fma.v16f32(<16 x float>, <16 x float>, <16 x float>)
"""


def library(directory: Path | None, max_bytes: int = 1 << 20) -> KernelLibrary:
    """A library with a memory cache of its own, as a new process has."""
    return KernelLibrary(cache=DiskCache(directory, max_bytes))


def call(address: int) -> int:
    result: int = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    return result


def answer(name: str, value: int) -> tuple[str, str, str]:
    return name, ANSWER.format(name=name, value=value), ""


def entries(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def test_kernels_compile_in_one_batch_and_are_found_in_memory_afterwards() -> None:
    kernels = library(None)
    items = [answer(f"number{value}", value) for value in range(20)]
    before = stats.snapshot()
    addresses = kernels.compile(items)
    assert [call(addresses[name]) for name, _, _ in items] == list(range(20))
    assert kernels.compile(items) == addresses
    gained = stats.since(before)
    assert (gained["kernels_compiled"], gained["memory_hits"]) == (20, 20)


def test_two_kernels_of_one_name_live_side_by_side_but_not_in_one_batch() -> None:
    kernels = library(None)
    first = kernels.compile([answer("same", 1)])["same"]
    second = kernels.compile([answer("same", 2)])["same"]
    assert (call(first), call(second)) == (1, 2)
    with pytest.raises(ValueError, match="two different kernels are called same"):
        kernels.compile([answer("same", 1), answer("same", 3)])


def test_a_new_process_loads_object_code_from_disk(tmp_path: Path) -> None:
    library(tmp_path).compile([answer("stored", 5)])
    before = stats.snapshot()
    assert call(library(tmp_path).compile([answer("stored", 5)])["stored"]) == 5
    gained = stats.since(before)
    assert (gained["kernels_compiled"], gained["cache_hits"]) == (0, 1)
    # and another content under the same name is not mistaken for it
    assert call(library(tmp_path).compile([answer("stored", 6)])["stored"]) == 6


def test_ir_is_made_only_when_no_cache_has_the_kernel(tmp_path: Path) -> None:
    made: list[str] = []

    def make() -> str:
        made.append("once")
        return answer("lazy", 8)[1]

    for _ in range(3):
        kernels = library(tmp_path)
        assert call(kernels.compile([("lazy", make, "content hash")])["lazy"]) == 8
    assert made == ["once"]
    assert "ret i32 8" in kernels.llvm_ir("lazy")
    with pytest.raises(ValueError, match="a content hash is needed"):
        kernels.compile([("lazy", make, "")])


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:5],
        lambda data: data[: len(data) // 2],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: data[:-40] + bytes([data[-40] ^ 1]) + data[-39:],
        lambda data: b"#!/bin/sh\n" + data,
        lambda data: MAGIC + bytes(len(data)),
    ],
)
def test_a_damaged_entry_is_rebuilt(tmp_path: Path, damage: object) -> None:
    assert callable(damage)
    library(tmp_path).compile([answer("damaged", 3)])
    (entry,) = entries(tmp_path)
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    before = stats.snapshot()
    assert call(library(tmp_path).compile([answer("damaged", 3)])["damaged"]) == 3
    gained = stats.since(before)
    assert (gained["cache_rejected"], gained["kernels_compiled"]) == (1, 1)
    assert entry.read_bytes() == whole
    assert entries(tmp_path) == [entry], "no temporary file stays behind"


def test_an_unusable_directory_warns_once_and_does_without(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    kernels = library(blocked)
    with pytest.warns(
        TilewrightCacheWarning, match=r"kernel cache .*file cannot be written.*TW_CACHE_DIR"
    ) as seen:
        assert call(kernels.compile([answer("one", 1), answer("two", 2)])["two"]) == 2
        assert call(kernels.compile([answer("three", 3)])["three"]) == 3
    assert len(seen) == 1
    assert seen[0].filename == __file__  # the user's own line, not one of the package
    assert blocked.read_text() == "not a directory"


def test_a_full_disk_leaves_no_partial_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    kernels = library(tmp_path)
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.warns(TilewrightCacheWarning, match="No space left on device"):
        assert call(kernels.compile([answer("full", 4)])["full"]) == 4
    assert entries(tmp_path) == []


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere"
)
def test_a_directory_without_permission_warns(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.warns(TilewrightCacheWarning, match="cannot be written"):
            library(tmp_path).compile([answer("denied", 1)])
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_without_a_directory_the_cache_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert call(library(None).compile([answer("quiet", 1)])["quiet"]) == 1
        assert DiskCache(None, 1 << 20).get("00") is None


def test_the_directory_keeps_to_its_bound_and_drops_the_oldest(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10_000)
    for number in range(30):
        cache.put(f"{number:04x}", bytes(900))
        path = cache.path(f"{number:04x}")
        assert path is not None
        os.utime(path, (number, number))
        if number >= 3:
            assert cache.get("0003") is not None  # used all the time, so never the oldest
    cache.evict()
    total = sum(path.stat().st_size for path in entries(tmp_path))
    assert total <= 10_000
    assert cache.get("0003") is not None
    assert cache.get("0001") is None
    assert cache.get("001d") is not None


def test_temporary_files_of_dead_writers_are_removed(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, 10_000)
    cache.put("abcd", b"x")
    old, young = tmp_path / "objects" / "ab" / ".tmp-old", tmp_path / "objects" / "ab" / ".tmp-young"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    assert [path.name for _, _, path in cache.entries()] == ["cd.o"]
    assert not old.exists()
    assert young.exists(), "its writer may still be at work"


def test_many_processes_share_a_directory(tmp_path: Path) -> None:
    script = (
        "import ctypes\n"
        "from tilewright.runtime.jit import default_library\n"
        "items = [(f'n{i}', f'define i32 @n{i}() {{ ret i32 {i} }}', '') for i in range(8)]\n"
        "found = default_library().compile(items)\n"
        "print(sum(ctypes.CFUNCTYPE(ctypes.c_int)(address)() for address in found.values()))\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    environment = {**os.environ, "PYTHONPATH": path, "TW_CACHE_DIR": str(tmp_path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", script], stdout=subprocess.PIPE, env=environment
        )
        for _ in range(3)
    ]
    assert [process.communicate(timeout=60)[0] for process in running] == [b"28\n"] * 3
    assert len(entries(tmp_path)) == 8


def test_threads_may_compile_at_the_same_time(tmp_path: Path) -> None:
    kernels = library(tmp_path)
    found: list[dict[str, int]] = []
    items = [answer(f"shared{value}", value) for value in range(6)]
    workers = [threading.Thread(target=lambda: found.append(kernels.compile(items))) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(found) == 4
    assert all(result == found[0] for result in found)


@pytest.mark.parametrize(
    ("ir", "complaint"),
    [
        ("define void @bad( {", "expected type"),
        ("define i32 @bad() {\n  ret i32 %x\n}", "undefined value '%x'"),
        ("define void @other() {\n  ret void\n}", "Symbols not found"),
        (UNDOMINATED, "does not dominate"),
    ],
)
def test_ir_that_llvm_refuses_is_an_error_that_names_the_kernel(ir: str, complaint: str) -> None:
    kernels = library(None)
    with pytest.raises(KernelCompileError, match=complaint) as caught:
        kernels.compile([("bad", ir, "")])
    assert "kernel bad" in str(caught.value)
    assert call(kernels.compile([answer("good", 1)])["good"]) == 1, "the library stays usable"


def test_accumulators_in_stack_slots_become_registers() -> None:
    text = assembly(VECTOR, Target.named("avx512"))
    assert "zmm" in text
    assert "rsp" not in text
    assert "alloca" not in optimised(VECTOR, Target.named("avx512"))


def test_the_target_decides_the_instructions() -> None:
    assert "ymm" in assembly(VECTOR, Target.named("avx2"))
    assert "zmm" not in assembly(VECTOR, Target.named("avx2"))
    assert "xmm" in assembly(VECTOR.replace("fma", "fmuladd"), Target.named("sse"))


def test_listings_of_a_compiled_kernel() -> None:
    kernels = library(None)
    source = kernel_source("increment")
    kernels.compile([("test_increment", source, "")])
    assert kernels.llvm_ir("test_increment") == source
    assert "test_increment:" in kernels.disassemble("test_increment")
    assert "@test_increment" in kernels.optimised("test_increment")
    with pytest.raises(KeyError, match="no kernel called nobody"):
        kernels.disassemble("nobody")


def test_the_default_library_follows_the_settings(tmp_path: Path) -> None:
    usual = default_library()
    assert default_library() is usual
    with settings.override(cache_dir=tmp_path):
        other = default_library()
        assert other is not usual
        other.compile([answer("elsewhere", 1)])
    assert len(entries(tmp_path)) == 1
    assert default_library() is usual

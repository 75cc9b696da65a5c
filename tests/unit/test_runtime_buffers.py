"""Buffers: who owns memory, who sees it, when it is reused; and exchange through DLPack."""

import gc
import os
import sys
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from platform_needs import fork

from tilewright.runtime.buffers import Buffer, MemoryPool, pool
from tilewright.runtime.dlpack import CPU_DEVICE, export_capsule, import_capsule
from tilewright.runtime.memory import Memory
from tilewright.runtime.team import State

DTYPES = ["float32", "float64", "float16", "int8", "uint64", "bool", "complex64"]


@pytest.mark.parametrize("dtype", [*DTYPES, ml_dtypes.bfloat16])
@pytest.mark.parametrize("count", [0, 1, 17, 5000])
def test_memory_is_aligned_and_round_trips(dtype: npt.DTypeLike, count: int) -> None:
    buffer = Buffer.allocate(count, dtype)
    assert buffer.address % 64 == 0
    values = np.arange(count).astype(dtype)
    buffer.to_numpy()[...] = values
    np.testing.assert_array_equal(buffer.to_numpy(), values)
    assert buffer.nbytes == count * np.dtype(dtype).itemsize
    np.testing.assert_array_equal(Buffer.zeros(count, dtype).to_numpy(), np.zeros(count, dtype))
    np.testing.assert_array_equal(buffer.copy().to_numpy(), values)


def test_a_contiguous_array_is_shared_and_others_are_copied() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    shared = Buffer.from_numpy(array)
    array[1, 1] = 50
    assert shared.to_numpy((3, 4))[1, 1] == 50
    assert shared.address == array.ctypes.data
    assert not shared.owned
    for other in (array.T, array[:, ::2], array.astype(">f4"), np.float32(3) * np.ones(())[None][:0]):
        copied = Buffer.from_numpy(other)
        assert copied.owned
        np.testing.assert_array_equal(copied.to_numpy(other.shape), other)
    assert Buffer.from_numpy(array, copy=True).owned


def test_an_unaligned_array_is_copied() -> None:
    raw = np.zeros(41, np.uint8)
    array = raw[1:].view(np.float32)
    assert Buffer.from_numpy(array).owned


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.array(["2020-01-01"], "M8[D]")])
def test_what_is_not_a_number_is_refused(array: npt.NDArray[Any]) -> None:
    with pytest.raises(TypeError, match="not numbers"):
        Buffer.from_numpy(array)


def test_a_read_only_array_gives_a_read_only_buffer() -> None:
    array = np.arange(4)
    array.flags.writeable = False
    buffer = Buffer.from_numpy(array)
    assert buffer.readonly
    assert buffer.view(8, 2).readonly
    assert not buffer.to_numpy().flags.writeable
    assert not Buffer.allocate(4, "i8").to_numpy(readonly=True).flags.writeable


def test_views_share_memory_and_stay_inside() -> None:
    buffer = Buffer.from_numpy(np.arange(8, dtype=np.int32))
    view = buffer.view(8, 3)
    view.to_numpy()[...] = -1
    np.testing.assert_array_equal(buffer.to_numpy(), [0, 1, -1, -1, -1, 5, 6, 7])
    assert buffer.view(16, 2, np.int64).count == 2
    assert buffer.view(32, 0).count == 0
    for offset, count in ((-4, 1), (0, 9), (32, 1), (28, 2)):
        with pytest.raises(ValueError, match="lie outside of a buffer of 32 bytes"):
            buffer.view(offset, count)
    with pytest.raises(ValueError, match="not aligned"):
        buffer.view(2, 1)
    with pytest.raises(ValueError, match="does not hold 8 elements"):
        buffer.to_numpy((3, 3))


@pytest.mark.parametrize(
    "make", [lambda: Buffer.allocate(0, "f4"), lambda: Buffer.from_numpy(np.zeros((0, 3)))]
)
def test_an_empty_buffer_has_an_address_to_read_from(make: Any) -> None:
    buffer = make()
    assert buffer.address != 0
    assert (np.ctypeslib.ctypes.c_char * 64).from_address(buffer.address).raw is not None
    assert buffer.view(0, 0).address != 0


def test_exclusive_means_nobody_else_sees_the_memory() -> None:
    buffer = Buffer.allocate(8, np.float32)
    assert buffer.exclusive
    view = buffer.view(0, 4)
    assert not buffer.exclusive
    assert not view.exclusive
    del view
    array = buffer.to_numpy()[2:3]
    assert not buffer.exclusive
    del array
    assert buffer.exclusive
    assert not Buffer.from_numpy(np.arange(3)).exclusive


def test_memory_outlives_the_buffer_while_an_array_sees_it() -> None:
    array = Buffer.from_numpy(np.arange(1000), copy=True).to_numpy()
    gc.collect()
    others = [Buffer.zeros(1000, np.int64) for _ in range(5)]
    np.testing.assert_array_equal(array, np.arange(1000))
    del others


def test_a_view_for_numpy_keeps_no_reference_to_none() -> None:
    buffer = Buffer.allocate(4, np.float32)
    before = sys.getrefcount(None)
    for _ in range(1000):
        buffer.to_numpy()
    assert abs(sys.getrefcount(None) - before) < 100


def test_freed_memory_is_reused_within_a_bound() -> None:
    pool = MemoryPool(limit=10_000)
    first = pool.take(4000)
    pool.give(first)
    assert pool.take(3900) is first
    blocks = [pool.take(4000) for _ in range(5)]
    for block in blocks:
        pool.give(block)
    assert pool.held_bytes <= 10_000
    large = pool.take(8000)
    pool.give(large)
    assert pool.take(8000) is large, "a full pool makes room for the sizes in use"
    pool.give(Memory(20_000))
    assert pool.held_bytes <= 10_000
    pool.clear()
    assert pool.held_bytes == 0
    assert pool.take(4000) not in blocks


def test_a_loop_of_allocations_stays_on_the_same_pages() -> None:
    addresses = set()
    for _ in range(20):
        buffer = Buffer.allocate(100_000, np.float32)
        addresses.add(buffer.address)
        del buffer
    assert len(addresses) == 1


@pytest.mark.parametrize("nbytes", [1, 300, 4097, 1_000_000, 5_000_001])
def test_size_classes_waste_at_most_a_quarter(nbytes: int) -> None:
    block = MemoryPool().take(nbytes)
    assert nbytes <= block.nbytes <= max(256, nbytes * 5 // 4)


def test_large_memory_is_page_aligned_and_writable_to_the_end() -> None:
    memory = Memory((9 << 20) + 8)
    assert memory.address % (2 << 20) == 0
    memory.words((9 << 20), 1)[0] = 7
    with pytest.raises(IndexError, match="lie outside"):
        memory.words((9 << 20) + 8, 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork, so no child shares memory")
def test_a_forked_child_writes_memory_of_its_own() -> None:
    memory = Memory(8 << 20)
    word = memory.words(0, 1)
    word[0] = 1
    child = fork()
    if child == 0:
        word[0] = 2
        os._exit(0)
    os.waitpid(child, 0)
    assert word[0] == 1


def test_a_large_arena_empties_the_pool() -> None:
    state = State()
    Buffer.allocate(1 << 20, np.uint8)  # and back at once
    held = pool.held_bytes
    assert held >= 1 << 20
    state.shared_arena(1 << 10)
    assert pool.held_bytes == held
    state.shared_arena(17 << 20)
    assert pool.held_bytes == 0


def test_more_memory_than_there_is_says_so() -> None:
    with pytest.raises(MemoryError):
        Buffer.allocate(1 << 60, np.uint8)
    with pytest.raises(ValueError, match="-1 elements"):
        Buffer.allocate(-1, np.uint8)


class Producer:
    """What a consumer of DLPack sees of a buffer."""

    def __init__(self, buffer: Buffer, shape: tuple[int, ...]) -> None:
        self.buffer, self.shape = buffer, shape

    def __dlpack__(self, **options: object) -> object:
        return export_capsule(self.buffer, self.shape)

    def __dlpack_device__(self) -> tuple[int, int]:
        return CPU_DEVICE


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_reads_an_export_without_copying(dtype: str) -> None:
    buffer = Buffer.zeros(6, dtype)
    array = np.from_dlpack(Producer(buffer, (2, 3)))
    assert array.dtype == dtype
    assert array.shape == (2, 3)
    buffer.to_numpy()[4] = 1
    assert array[1, 1] == 1
    assert not buffer.exclusive
    del array
    assert buffer.exclusive


def test_an_export_that_nobody_takes_is_released() -> None:
    buffer = Buffer.zeros(6, "f4")
    capsule = export_capsule(buffer, (6,))
    assert not buffer.exclusive
    del capsule
    assert buffer.exclusive


@pytest.mark.parametrize("dtype", [*DTYPES, ml_dtypes.bfloat16])
def test_an_export_can_be_imported(dtype: npt.DTypeLike) -> None:
    buffer = Buffer.zeros(6, dtype)
    imported, shape, strides = import_capsule(export_capsule(buffer, (2, 3)))
    assert (shape, strides, imported.dtype) == ((2, 3), (3, 1), np.dtype(dtype))
    assert imported.address == buffer.address
    del imported
    gc.collect()
    assert buffer.exclusive


def test_numpy_arrays_are_imported_with_their_strides() -> None:
    array = np.arange(24.0).reshape(4, 6)
    buffer, shape, strides = import_capsule(array[1:, ::2].__dlpack__())
    assert (shape, strides) == ((3, 3), (6, 2))
    assert buffer.address == array[1:].ctypes.data
    assert buffer.count == 17
    assert import_capsule(np.zeros((0, 3)).__dlpack__())[0].count == 0
    assert import_capsule(np.array(2.0).__dlpack__())[1:] == ((), ())
    fixed = np.arange(3.0)
    fixed.flags.writeable = False
    assert import_capsule(fixed.__dlpack__(max_version=(1, 0)))[0].readonly


def test_what_cannot_be_exchanged_is_refused() -> None:
    capsule = np.arange(3.0).__dlpack__()
    import_capsule(capsule)
    with pytest.raises(BufferError, match="not an unused DLPack capsule"):
        import_capsule(capsule)
    with pytest.raises(BufferError, match="negative strides"):
        import_capsule(np.arange(3.0)[::-1].__dlpack__())
    fixed = np.arange(3)
    fixed.flags.writeable = False
    with pytest.raises(BufferError, match="read-only"):
        export_capsule(Buffer.from_numpy(fixed), (3,))
    with pytest.raises(ValueError, match="does not hold"):
        export_capsule(Buffer.zeros(3, "f4"), (4,))
    with pytest.raises(BufferError, match="no name for elements"):
        export_capsule(Buffer.zeros(3, ml_dtypes.float8_e4m3fn), (3,))

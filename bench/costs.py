"""Measure what the runtime and the emitter cost by themselves: the tables of docs/runtime.md and docs/kernel.md.

    python -m bench.costs runs     microseconds of programs of empty kernels, as Python sees them
    python -m bench.costs tiles    GFLOP/s of register tiles on operands in the first-level cache, on one core

Prints Markdown rows. Nothing here asserts on time.
"""

import argparse
import ctypes
import statistics
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np

from tilewright.codegen.llvm import emit
from tilewright.kernel.text import parse_kernel
from tilewright.runtime.jit import KernelLibrary, default_library
from tilewright.runtime.program import Program
from tilewright.runtime.steps import Launch, Segment
from tilewright.runtime.target import Target, host_target
from tilewright.runtime.team import set_num_threads

EMPTY = """
define void @bench_empty(ptr %bufs, ptr %scratch, i64 %lo, i64 %hi, ptr %status) nounwind {
  ret void
}
"""
DEPTH, UNROLL = 64, 4  # products per element of a tile, and how many of them one iteration holds


def seconds(work: Callable[[], object], count: int, pause: float = 0.0) -> float:
    """Median time of one call, after a warm-up."""
    times = []
    for _ in range(count + count // 10):
        if pause:
            time.sleep(pause)
        began = time.perf_counter_ns()
        work()
        times.append(time.perf_counter_ns() - began)
    return statistics.median(times[count // 10 :]) / 1e9


def runs() -> Iterator[tuple[str, float]]:
    """(what is run, seconds)."""
    kernel = default_library().compile([("bench_empty", EMPTY, "")])["bench_empty"]

    def program(launches: int, chunks: int) -> Callable[[], object]:
        steps = [Launch(kernel, [Segment([(1, 0)], chunks, 1)], n - 1, f"{n}") for n in range(launches)]
        made, pointers = Program(steps, slots=2), np.zeros(1, np.uint64)
        return lambda: made.run(pointers)

    set_num_threads(1)
    ten, many = seconds(program(10, 1), 4000), seconds(program(210, 1), 2000)
    yield "run of 10 launches, calling thread only", ten
    yield "each further launch of 1 chunk, calling thread only", (many - ten) / 200
    set_num_threads(2)
    for chunks in (2, 8):
        yield (
            f"run of 10 dependent launches of {chunks} chunks, two threads, workers spinning",
            seconds(program(10, chunks), 4000),
        )
    ten, many = seconds(program(10, 8), 4000), seconds(program(210, 8), 2000)
    yield "each further dependent launch of 8 chunks, two threads", (many - ten) / 200
    yield "run of 10 launches after 2 ms of idleness, workers asleep", seconds(program(10, 8), 300, 0.002)


def tile_text(rows: int, vectors: int, lanes: int) -> str:
    """A tile of rows x (vectors * lanes) sums of products of packed panels, as docs/kernel.md shows it."""
    columns = vectors * lanes
    return f"""kernel tile_{rows}_{columns}_{lanes}(a: r float32, b: r float32, y: rw float32)
    for repeat in lo..hi:
        reg c: float32[{rows}, {vectors}] vector {lanes} = 0.0f32
        for k in 0..{DEPTH // UNROLL}:
            for u in 0..{UNROLL} unroll:
                for i in 0..{rows} unroll:
                    for j in 0..{vectors} unroll:
                        for v in j * {lanes}..j * {lanes} + {lanes} vector {lanes}:
                            c[i, j] := fma(a[(k * {UNROLL} + u) * {rows} + i], b[(k * {UNROLL} + u) * {columns} + v], c[i, j])
        for i in 0..{rows} unroll:
            for j in 0..{vectors} unroll:
                for v in j * {lanes}..j * {lanes} + {lanes} vector {lanes}:
                    y[i * {columns} + v] = y[i * {columns} + v] + c[i, j]
"""


def tile_rate(rows: int, vectors: int, target: Target) -> float:
    """GFLOP/s of one tile, kept in the first-level cache."""
    lanes = target.vector_bytes // 4
    kernel = parse_kernel(tile_text(rows, vectors, lanes))
    address = KernelLibrary(target).compile([(kernel.name, emit(kernel, target), "")])[kernel.name]
    columns, repeats = vectors * lanes, 200
    arrays = [np.ones(size, np.float32) for size in (DEPTH * rows, DEPTH * columns, rows * columns)]
    table = (ctypes.c_void_p * 3)(*(array.ctypes.data for array in arrays))
    status = ctypes.c_int32(0)
    kinds = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    call = ctypes.CFUNCTYPE(None, *kinds)(address)
    work = 2.0 * rows * columns * DEPTH * repeats
    return work / seconds(lambda: call(table, None, 0, repeats, ctypes.byref(status)), 300) / 1e9


def tiles() -> Iterator[tuple[str, float]]:
    """(tile and registers, GFLOP/s)."""
    host = host_target()
    for name, shapes in (("avx512", ((12, 2), (8, 3), (14, 2), (24, 1))), ("avx2", ((6, 2), (4, 3)))):
        if host.name not in ("avx512", name):
            continue
        target = host if host.name == name else Target.named(name)
        for rows, vectors in shapes:
            label = f"{rows} x {vectors * target.vector_bytes // 4} | {name}"
            yield label, tile_rate(rows, vectors, target)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("runs", "tiles"))
    what = parser.parse_args().what
    print(f"{datetime.now(UTC):%Y-%m-%d}, `python -m bench.costs {what}`\n")
    for label, value in runs() if what == "runs" else tiles():
        print(f"| {label} | {value * 1e6:.3g} |" if what == "runs" else f"| {label} | {value:.0f} |")


if __name__ == "__main__":
    main()

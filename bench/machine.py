"""What the machine is, and its limits as measured: peak arithmetic and memory bandwidth.

Peak arithmetic comes from a loop of fused multiply-adds that touches registers alone; bandwidth from a triad
over arrays far larger than the caches, with stores through the caches and past them, and from NumPy's copy. The
loops run as machine code made with llvmlite from the IR below, on one thread per core at the same time.
"""

import ctypes
import os
import platform
import threading
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np

ACCUMULATORS = 16  # more than latency x throughput of any current core, few enough for 16 registers to hold
PACKAGES = ("tilewright", "numpy", "llvmlite", "torch", "jax", "jaxlib", "onnxruntime")


def describe() -> dict[str, object]:
    """Describe the processor, the system and the versions of what is compared."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    fields = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    interesting = (
        "avx2",
        "fma",
        "avx512f",
        "avx512bf16",
        "avx512_bf16",
        "avx512_vnni",
        "amx_tile",
        "asimd",
        "sve",
    )
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    return {
        "cpu": fields.get("model name", platform.processor()),
        "architecture": platform.machine(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "features": [name for name in interesting if name in flags],
        "caches": caches(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := installed_version(name))},
    }


def installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def caches() -> dict[str, str]:
    """Read the first core's data caches, as in {'L1': '48K', 'L2': '1024K', 'L3': '32768K'}."""
    found = {}
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        if (index / "type").read_text().strip() != "Instruction":
            found["L" + (index / "level").read_text().strip()] = (index / "size").read_text().strip()
    return found


def vector_lanes() -> int:
    """How many f32 a vector register of this machine holds."""
    features = llvm.get_host_cpu_features()
    return 16 if features.get("avx512f") else 8 if features.get("avx2") else 4


def products(lanes: int) -> dict[str, tuple[str, str, str, int]]:
    """What a loop of products is made of, by operand type: accumulator, operand, instruction, operations per lane.

    Low-precision products count only where the processor has an instruction for them.
    """
    features = llvm.get_host_cpu_features()
    found = {"f32": (f"<{lanes} x float>", f"<{lanes} x float>", f"llvm.fma.v{lanes}f32", 2)}
    if features.get("avx512bf16"):
        found["bf16"] = ("<16 x float>", "<32 x bfloat>", "llvm.x86.avx512bf16.dpbf16ps.512", 4)
    if features.get("avx512vnni"):
        found["int8"] = ("<16 x i32>", "<64 x i8>", "llvm.x86.avx512.vpdpbusd.512", 8)
    return found


def peak_ir(name: str, accumulator: str, operand: str, instruction: str) -> str:
    """A loop of independent multiply-adds; the sum of the accumulators keeps them alive."""
    numbers = range(ACCUMULATORS)
    add = "add" if "i32" in accumulator else "fadd"
    phis = [f"%a{i} = phi {accumulator} [ %z, %entry ], [ %b{i}, %loop ]" for i in numbers]
    # the fused multiply-add takes the sum last, the dot products take it first
    orders = {True: "{operand} %x, {operand} %y, {sum} {a}", False: "{sum} {a}, {operand} %x, {operand} %y"}
    order = orders[instruction.startswith("llvm.fma")]
    body = [
        f"%b{i} = call {accumulator} @{instruction}("
        + order.format(operand=operand, sum=accumulator, a=f"%a{i}")
        + ")"
        for i in numbers
    ]
    sums = [f"%s{i} = {add} {accumulator} {'%b0' if i == 1 else f'%s{i - 1}'}, %b{i}" for i in numbers if i]
    types = order.format(operand=operand, sum=accumulator, a="").replace("%x", "").replace("%y", "")
    return "\n".join(
        [
            f"declare {accumulator} @{instruction}({types})",
            f"define void @peak_{name}(i64 %n, ptr %io) {{",
            "entry:",
            "%second = getelementptr i8, ptr %io, i64 64",
            f"%x = load {operand}, ptr %io, align 4",
            f"%y = load {operand}, ptr %second, align 4",
            f"%z = load {accumulator}, ptr %second, align 4",
            "br label %loop",
            "loop:",
            "%i = phi i64 [ 0, %entry ], [ %next, %loop ]",
            *phis,
            *body,
            "%next = add i64 %i, 1",
            "%more = icmp ult i64 %next, %n",
            "br i1 %more, label %loop, label %done",
            "done:",
            *sums,
            f"store {accumulator} %s{ACCUMULATORS - 1}, ptr %io, align 4",
            "ret void",
            "}",
        ]
    )


def triad_ir(lanes: int, name: str, store: str) -> str:
    """a[i] = b[i] + 3 c[i] over `n` elements, a whole number of vectors, `times` times over; `store` ends the store."""
    vector = f"<{lanes} x float>"
    three = "<" + ", ".join(["float 3.0"] * lanes) + ">"
    return f"""
        define void @{name}(i64 %n, ptr %a, ptr %b, ptr %c, i64 %times) {{
        entry:
          br label %pass
        pass:
          %time = phi i64 [ 0, %entry ], [ %later, %end ]
          br label %loop
        loop:
          %i = phi i64 [ 0, %pass ], [ %next, %loop ]
          %pa = getelementptr float, ptr %a, i64 %i
          %pb = getelementptr float, ptr %b, i64 %i
          %pc = getelementptr float, ptr %c, i64 %i
          %vb = load {vector}, ptr %pb, align 4
          %vc = load {vector}, ptr %pc, align 4
          %scaled = fmul {vector} %vc, {three}
          %sum = fadd {vector} %vb, %scaled
          store {vector} %sum, ptr %pa, {store}
          %next = add i64 %i, {lanes}
          %more = icmp ult i64 %next, %n
          br i1 %more, label %loop, label %end
        end:
          %later = add i64 %time, 1
          %again = icmp ult i64 %later, %times
          br i1 %again, label %pass, label %done
        done:
          ret void
        }}
        !0 = !{{i32 1}}"""


class Code:
    """The compiled loops, kept alive with their compiler."""

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self.lanes = vector_lanes()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
        )
        self.compiler = llvm.create_lljit_compiler(machine)
        builder = llvm.JITLibraryBuilder()
        self.products = products(self.lanes)
        builder.add_current_process()
        stores = {"triad": "align 4", "triad_past": f"align {4 * self.lanes}, !nontemporal !0"}
        for name, store in stores.items():
            builder.add_ir(triad_ir(self.lanes, name, store)).export_symbol(name)
        for name, (accumulator, operand, instruction, _) in self.products.items():
            builder.add_ir(peak_ir(name, accumulator, operand, instruction)).export_symbol(f"peak_{name}")
        self.linked = builder.link(self.compiler, "limits")
        pointer, count = ctypes.c_void_p, ctypes.c_int64
        peak = ctypes.CFUNCTYPE(None, count, pointer)
        self.peak = {name: peak(self.linked[f"peak_{name}"]) for name in self.products}
        triad = ctypes.CFUNCTYPE(None, count, pointer, pointer, pointer, count)
        self.triad, self.triad_past = (triad(self.linked[name]) for name in stores)


def best_time(work: Callable[[int], object], cores: list[int], repeats: int) -> float:
    """Run `work(thread number)` on each core at once; return the shortest time from first start to last."""
    ready = threading.Barrier(len(cores))
    spans: list[list[tuple[float, float]]] = [[] for _ in cores]

    def loop(number: int, core: int) -> None:
        os.sched_setaffinity(threading.get_native_id(), {core})
        for _ in range(repeats):
            ready.wait()
            began = time.perf_counter()
            work(number)
            spans[number].append((began, time.perf_counter()))

    threads = [threading.Thread(target=loop, args=pair, daemon=True) for pair in enumerate(cores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return min(
        max(end for _, end in each) - min(began for began, _ in each) for each in zip(*spans, strict=True)
    )


def aligned_ones(rows: int, columns: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """An array whose rows, of whole lines, begin at multiples of 64 bytes."""
    room = np.ones(rows * columns + 16, np.float32)
    start = -room.ctypes.data % 64 // 4
    return room[start : start + rows * columns].reshape(rows, columns)


def measure_limits(threads: int, quick: bool = False) -> dict[str, float]:
    """Measure peak GFLOP/s and GB/s of this many cores together.

    Products of bf16 and int8 count as the f32 peak where the processor has no instruction for them. The second-level
    bandwidth is a triad's over arrays that fill half of it, and `l2_bytes` its size on these cores.
    """
    code = Code()
    cores = sorted(os.sched_getaffinity(0))[:threads]
    repeats = 3 if quick else 7

    rounds = 5_000_000 if quick else 30_000_000
    peaks = {}
    for name, (_, _, _, operations) in code.products.items():
        seeds = [np.zeros(32, np.float32) for _ in cores]
        run = code.peak[name]
        seconds = best_time(lambda i, run=run, seeds=seeds: run(rounds, seeds[i].ctypes.data), cores, repeats)
        lanes = code.lanes if name == "f32" else 16
        peaks[name] = operations * lanes * ACCUMULATORS * rounds * threads / seconds / 1e9

    l2_bytes = threads * int(caches().get("L2", "1024K").removesuffix("K")) * 1024
    near = l2_bytes // threads // 24 // 64 * 64  # elements of each of three arrays a core
    small = np.zeros((threads, 3, near), np.float32)

    def resident(i: int) -> None:
        code.triad(near, *(row.ctypes.data for row in small[i]), 2000)

    l2_seconds = best_time(resident, cores, repeats) / 2000

    elements = (2**24 if quick else 2**25) // threads // 64 * 64  # per thread; 128 MiB an array in all
    a, b, c = (aligned_ones(threads, elements) for _ in range(3))

    def triad(i: int) -> None:
        code.triad(elements, a[i].ctypes.data, b[i].ctypes.data, c[i].ctypes.data, 1)

    def triad_past(i: int) -> None:
        code.triad_past(elements, a[i].ctypes.data, b[i].ctypes.data, c[i].ctypes.data, 1)

    triad_seconds = best_time(triad, cores, repeats)
    past_seconds = best_time(triad_past, cores, repeats)
    copy_seconds = best_time(lambda i: np.copyto(a[i], b[i]), cores, repeats)
    return {
        "peak_gflops": peaks["f32"],
        "bf16_gflops": peaks.get("bf16", peaks["f32"]),
        "int8_gops": peaks.get("int8", peaks["f32"]),
        "l2_bytes": l2_bytes,
        "l2_gbps": small.nbytes / l2_seconds / 1e9,
        "triad_gbps": 3.0 * a.nbytes / triad_seconds / 1e9,
        "past_gbps": 3.0 * a.nbytes / past_seconds / 1e9,
        "copy_gbps": 2.0 * a.nbytes / copy_seconds / 1e9,
    }


if __name__ == "__main__":
    print(describe())
    for count in range(1, len(os.sched_getaffinity(0)) + 1):
        print(count, {key: round(value, 1) for key, value in measure_limits(count).items()})

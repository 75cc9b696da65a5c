"""The machine code is generated for: instruction set, vector width, registers, caches, cores.

`host_target()` describes the CPU this process runs on, from LLVM's view of its features and the kernel's
view of its caches; `Target.named` gives fixed descriptions (x86-64 levels, AArch64) so that tests and
printed stages do not depend on the machine. Nothing here measures anything: bandwidth and peak arithmetic
are benchmarks' business.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path

from tilewright.core.diagnostics import TilewrightError
from tilewright.core.settings import settings

__all__ = ["Target", "TargetError", "available_cpus", "host_target"]


class TargetError(TilewrightError, RuntimeError):
    """The requested target cannot run on, or is not known to, this machine."""


@dataclass(frozen=True, slots=True)
class Target:
    """What the compiler may assume about the machine. Sizes are in bytes; `l1` and `l2` are per core.

    name           "avx512", "avx2", "sse", "neon" or "generic": the vector instruction set in words
    triple, cpu, features   what LLVM is told
    vector_bytes   widest vector register the code should use (64, 32 or 16)
    registers      vector registers of that width
    has_fma        a fused multiply-add instruction of that width
    has_masks      masked loads, stores and arithmetic without penalty (AVX-512)
    dots           packed element types that an instruction of that width multiplies and adds up (`kernel.ir.DOTS`):
                   "bfloat16.bfloat16" is vdpbf16ps, "uint8.int8" is vpdpbusd
    has_f16        conversion f16 <-> f32 in hardware
    fmas           multiplications of the widest vectors that a core begins in a cycle
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    l1: int = 32 << 10
    l2: int = 512 << 10
    l3: int = 8 << 20
    cores: int = 1
    has_fma: bool = False
    has_masks: bool = False
    has_f16: bool = False
    dots: frozenset[str] = frozenset()
    fmas: float = 2.0

    @property
    def key(self) -> str:
        """What of the target decides the generated machine code (part of the disk cache's key)."""
        return f"{self.triple}|{self.cpu}|{self.features}"

    @property
    def streams(self) -> bool:
        """Whether whole aligned vectors can be stored past the caches, without the read of a line that a store begins with."""
        return self.triple.startswith(("x86_64", "amd64")) and self.vector_bytes >= 32

    def lanes(self, itemsize: int) -> int:
        """How many elements of `itemsize` bytes one vector register holds (at least 1)."""
        return max(1, self.vector_bytes // itemsize)

    def __str__(self) -> str:
        rows = [(row.name, getattr(self, row.name)) for row in fields(self)]
        return "\n".join(f"{name:>13}  {_printed(name, value)}" for name, value in rows)

    @staticmethod
    def named(name: str) -> Target:
        """A fixed description of an instruction-set level: "avx512", "avx2", "sse", "neon" or "generic".

        The same on every machine: 32 KiB L1, 1 MiB L2, 32 MiB L3, 4 cores. Raises `TargetError` for another
        name.
        """
        try:
            return _NAMED[name]
        except KeyError:
            raise TargetError(f"no target is called {name!r}; known: {', '.join(_NAMED)}") from None


def _printed(name: str, value: object) -> str:
    if name in ("l1", "l2", "l3") and isinstance(value, int):
        return f"{value >> 10} KiB" if value < 1 << 20 else f"{value / (1 << 20):g} MiB"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, frozenset):
        return ", ".join(sorted(value)) or "none"
    return str(value)


def _level(name: str, cpu: str, vector_bytes: int, registers: int, has: str = "") -> Target:
    return Target(
        name,
        "x86_64-unknown-linux-gnu",
        cpu,
        "",
        vector_bytes,
        registers,
        32 << 10,
        1 << 20,
        32 << 20,
        4,
        has_fma="fma" in has,
        has_masks="masks" in has,
        has_f16="f16" in has,
    )


_NAMED = {
    "avx512": _level("avx512", "x86-64-v4", 64, 32, "fma masks f16"),
    "avx2": _level("avx2", "x86-64-v3", 32, 16, "fma f16"),
    "sse": _level("sse", "x86-64-v2", 16, 16),
    "generic": _level("generic", "x86-64", 16, 16),
    "neon": Target(
        "neon", "aarch64-unknown-linux-gnu", "generic", "+neon,+fp-armv8", 16, 32,
        32 << 10, 1 << 20, 32 << 20, 4, has_fma=True, has_f16=True,
    ),
}  # fmt: skip


def available_cpus() -> int:
    """CPUs this process may use: its affinity mask, lowered by a container's CPU quota; at least 1."""
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        count = os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, min(count, quota) if quota else count)


def _cpu_quota() -> int | None:
    """Whole CPUs of the control group's quota, rounded up; None when there is none."""
    try:
        limit, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()[:2]
        return None if limit == "max" else -(-int(limit) // int(period))
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _cache_sizes() -> dict[str, int]:
    """Data cache sizes by level ("l1", "l2", "l3"), those that the operating system states."""
    found: dict[str, int] = {}
    base = Path("/sys/devices/system/cpu/cpu0/cache")
    for index in range(8):
        try:
            folder = base / f"index{index}"
            kind = (folder / "type").read_text().strip()
            level = int((folder / "level").read_text())
            text = (folder / "size").read_text().strip()
        except (OSError, ValueError):
            continue
        if kind in ("Data", "Unified") and 1 <= level <= 3 and text[:-1].isdigit():
            found[f"l{level}"] = int(text[:-1]) << {"K": 10, "M": 20, "G": 30}.get(text[-1], 0)
    return {level: size for level, size in found.items() if size > 0}


def _instruction_set(triple: str, has: dict[str, bool]) -> tuple[str, int, int]:
    """(name, vector bytes, registers) of the widest instruction set among LLVM's host features."""
    if triple.startswith(("x86_64", "i686", "amd64")):
        if all(has.get(f"avx512{part}") for part in ("f", "bw", "dq", "vl")):
            return "avx512", 64, 32
        if has.get("avx2") and has.get("fma"):
            return "avx2", 32, 16
        if has.get("sse4.1"):
            return "sse", 16, 16
        return "generic", 16, 16
    if triple.startswith(("aarch64", "arm64")):
        return "neon", 16, 32
    return "generic", 16, 16


def _dot_products(name: str, has: dict[str, bool]) -> frozenset[str]:
    """Which packed elements the instruction set multiplies and adds up at its full width."""
    found = []
    if name == "avx512" and has.get("avx512bf16"):
        found.append("bfloat16.bfloat16")
    if (name == "avx512" and has.get("avx512vnni")) or (name == "avx2" and has.get("avxvnni")):
        found.append("uint8.int8")
    return frozenset(found)


# CPUs, by LLVM's names, whose units are half as wide as their vectors, or that have one of the full width.
_ONE_FMA = frozenset({"znver1", "znver4", "icelake-client", "tigerlake", "rocketlake", "cannonlake"})


@lru_cache(maxsize=1)
def _detect() -> Target:
    import llvmlite.binding as llvm  # 0.14 s: only when a machine description is needed

    triple: str = llvm.get_process_triple()
    cpu: str = llvm.get_host_cpu_name()
    try:
        features = llvm.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot ask this CPU; the base instruction set is always there
        features = llvm.FeatureMap()
    has = {name: bool(on) for name, on in features.items()}
    name, vector_bytes, registers = _instruction_set(triple, has)
    wide = name == "avx512"
    arm = name == "neon"
    return Target(
        name=name,
        triple=triple,
        cpu=cpu,
        features=features.flatten() if features else "",
        vector_bytes=vector_bytes,
        registers=registers,
        cores=available_cpus(),
        has_fma=arm or has.get("fma", False),
        has_masks=wide,
        has_f16=arm or has.get("f16c", False),
        dots=_dot_products(name, has),
        fmas=1.0 if cpu in _ONE_FMA else 2.0,
        **_cache_sizes(),
    )


_REQUIRES = {"avx512": ("avx512",), "avx2": ("avx512", "avx2"), "sse": ("avx512", "avx2", "sse")}


def host_target() -> Target:
    """The target code is compiled for: this machine, or the instruction set that `TW_TARGET` names on it.

    An override keeps the machine's caches and cores and replaces CPU, features and vector width. Raises
    `TargetError` when the machine lacks the instruction set asked for.
    """
    host = _detect()
    wanted = settings.target
    if wanted == "host":
        return host
    if not host.triple.startswith("x86_64"):
        if wanted == "generic":
            return replace(host, cpu="generic", features="", has_f16=False)
        raise TargetError(f"TW_TARGET={wanted} needs an x86-64 CPU; this is {platform.machine()}")
    if host.name not in _REQUIRES.get(wanted, (host.name,)):
        raise TargetError(f"TW_TARGET={wanted}: this CPU ({host.cpu}) offers {host.name} only")
    level = Target.named(wanted)
    return replace(level, triple=host.triple, l1=host.l1, l2=host.l2, l3=host.l3, cores=host.cores)

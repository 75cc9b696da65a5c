"""What the emitter's tests share: kernels run compiled and interpreted on every instruction set here, numbers, comparison."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tilewright.codegen.llvm import emit, scratch_bytes
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.kernel.interpret import run
from tilewright.kernel.ir import (
    HI,
    LO,
    Buf,
    Expr,
    Kernel,
    Loop,
    Store,
    var,
)  # fmt: skip
from tilewright.kernel.text import parse_kernel, print_kernel
from tilewright.kernel.verify import verify
from tilewright.runtime.jit import KernelLibrary
from tilewright.runtime.target import Target, host_target

Array = np.ndarray[Any, Any]
Arrays = dict[str, Array]

REAL = [d for d in dt.ALL if not d.is_complex]
FLOATS = [d for d in REAL if d.is_float]
HOST = host_target()
LEVELS = [HOST] + [
    replace(Target.named(name), triple=HOST.triple)
    for name in ("avx2", "generic")
    if HOST.triple.startswith("x86_64")
    and HOST.name in ("avx512", "avx2", "sse")[: 1 if name == "avx2" else 3]
]
LIBRARIES = {t.name: KernelLibrary(t) for t in LEVELS}
targets = pytest.mark.parametrize("target", LEVELS, ids=lambda t: t.name)
counter = iter(range(10**9))
x, i, j, k = var("x"), var("i"), var("j"), var("k")


def execute(
    kernel: Kernel, target: Target, arrays: Mapping[str, Array], lo: int, hi: int
) -> tuple[Arrays, int]:
    """Run a kernel compiled for ``target`` on copies; returns the copies and the code of a failed check (0: none)."""
    kernel = replace(kernel, name=f"{kernel.name}_{next(counter)}")
    verify(kernel)
    address = LIBRARIES[target.name].compile([(kernel.name, emit(kernel, target), "")])[kernel.name]
    copies = {name: a.copy() for name, a in arrays.items()}
    table = (ctypes.c_void_p * max(1, len(kernel.buffers)))(
        *(copies[b.name].ctypes.data for b in kernel.buffers)
    )
    scratch = np.full(scratch_bytes(kernel) + 64, 0xA5, np.uint8)
    aligned = scratch.ctypes.data + (-scratch.ctypes.data) % 64
    status = ctypes.c_int32(0)
    signature = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
    )
    signature(address)(table, aligned, lo, hi, ctypes.byref(status))
    return copies, status.value


def bits(a: Array) -> Array:
    """The array as integers, with every NaN the same."""
    if dt.from_numpy(a.dtype).is_float:
        with np.errstate(all="ignore"):  # signalling NaNs among bit patterns
            wide = a.astype(np.float64)
        out = a.view(f"u{a.dtype.itemsize}").copy()
        out[np.isnan(wide)] = np.iinfo(out.dtype).max
        out[wide == 0] = 0  # zeros of either sign
        return out
    return a.view(f"u{a.dtype.itemsize}")


def assert_equal(got: Array, expected: Array, ulps: int, what: str) -> None:
    if ulps and dt.from_numpy(got.dtype).is_float:
        a, b = got.astype(np.float64), expected.astype(np.float64)
        with np.errstate(all="ignore"):
            bound = (
                ulps * 2.0 ** -{2: 7, 4: 23, 8: 52}[got.dtype.itemsize] * np.abs(b)
                + np.finfo(np.float32).tiny
            )
            near = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= bound)
        assert near.all(), f"{what}: {got[~near][:5]} instead of {expected[~near][:5]}"
        return
    same = bits(got) == bits(expected)
    assert same.all(), (
        f"{what} at {np.flatnonzero(~same)[:5]}: {got[~same][:5]} instead of {expected[~same][:5]}"
    )


def compare(
    kernel: Kernel, target: Target, arrays: Mapping[str, Array], lo: int = 0, hi: int = 1, ulps: int = 0
) -> Arrays:
    """Print and parse, then run interpreted and compiled; all of memory and the checks must agree.

    Returns the memory afterwards.
    """
    assert parse_kernel(print_kernel(kernel)) == kernel
    expected = {name: a.copy() for name, a in arrays.items()}
    failed = run(kernel, expected, lo, hi)
    got, status = execute(kernel, target, arrays, lo, hi)
    for name in arrays:
        assert_equal(got[name], expected[name], ulps, f"{kernel.name}: {name}")
    assert (status in failed) if failed else status == 0
    return got


_RANDOM = np.random.default_rng(1)


def random() -> np.random.Generator:
    """The numbers of the test that runs."""
    return _RANDOM


def reseed(seed: int) -> None:
    global _RANDOM
    _RANDOM = np.random.default_rng(seed)


def sample(dtype: DType, n: int) -> Array:
    """Random values of a type with the awkward ones among them."""
    if dtype.is_bool:
        return _RANDOM.random(n) < 0.5
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)
        awkward = [0, 1, 2, info.max, info.min, info.max - 1, info.min + 1, info.max // 2]
        values = _RANDOM.integers(info.min, info.max, n, dtype=dtype.numpy, endpoint=True)
        small = _RANDOM.integers(max(info.min, -9), 10, n).astype(dtype.numpy)
        values = np.where(_RANDOM.random(n) < 0.5, values, small)
    else:
        awkward = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40, 6e-8, 65520.0, 127.6,
                   -129.0, 2147483648.0, -3e9, 1e19, 255.5]  # fmt: skip
        spread = _RANDOM.standard_normal(n) * 10.0 ** _RANDOM.integers(-3, 4, n)
        with np.errstate(all="ignore"):
            values = spread.astype(dtype.numpy)
    with np.errstate(all="ignore"):
        extra = np.array(awkward).astype(dtype.numpy)
    places = _RANDOM.permutation(n)[: len(extra)]
    values[places] = extra[: len(places)]
    return values.astype(dtype.numpy)


def element_kernel(name: str, inputs: Mapping[str, DType], outputs: Mapping[str, Expr], lanes: int) -> Kernel:
    """out[i] = expression over in[i], for lo <= i < hi."""
    buffers = [Buf(n, d, "r") for n, d in inputs.items()] + [Buf(n, e.dtype, "w") for n, e in outputs.items()]
    stores = tuple(Store(n, i, e) for n, e in outputs.items())
    return Kernel(tuple(buffers), (Loop("i", LO, HI, stores, "vector", lanes),), name=name)

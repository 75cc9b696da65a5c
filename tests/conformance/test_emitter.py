"""Compiled kernels against the interpreter: every operation and type, every shape of index, loop, mask and register.

Each case runs on the instruction sets this machine has. Exact results are compared bit for bit (any NaN equals any NaN); where a
mathematical function is involved, to a few units in the last place. How good the functions are is not this file's business.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conformance.emitting import (
    FLOATS,
    HOST,
    LEVELS,
    LIBRARIES,
    REAL,
    Array,
    Arrays,
    compare,
    counter,
    element_kernel,
    i,
    j,
    k,
    random,
    reseed,
    sample,
    targets,
    x,
)
from tilewright.codegen.llvm import emit, scratch_bytes
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.scalar import SCALAR_OPS
from tilewright.kernel.ir import (
    DOTS,
    HI,
    LO,
    Buf,
    Check,
    Expr,
    If,
    Kernel,
    Let,
    Loop,
    Reg,
    Scratch,
    Set,
    Stmt,
    Store,
    across,
    bitcast,
    cast,
    const,
    dotacc,
    fma,
    idiv,
    imod,
    index,
    load,
    op,
    rarely,
    reg,
    var,
)  # fmt: skip
from tilewright.runtime.jit import assembly
from tilewright.runtime.target import Target


@pytest.fixture(autouse=True)
def same_numbers_in_every_run(request: pytest.FixtureRequest) -> None:
    """Each test draws its own numbers, whichever tests ran before."""
    reseed(crc32(request.node.name.encode()))


# ---- products of packed elements ------------------------------------------------------------------------------------


@targets
@pytest.mark.parametrize("elements", DOTS)
def test_products_of_packed_elements(target: Target, elements: str) -> None:
    """Integers wrap; bfloat16 products are added last first, whatever instruction or arithmetic does it. Numbers whose products
    are subnormal are left out: an instruction may take them as zeros."""
    left, right, kind = DOTS[elements]
    n, flips = 67, const(0x80808080, dt.uint32)
    packed = {"a": left, "b": right}
    if kind is dt.float32:
        words = {
            name: random().standard_normal(2 * n).astype(t.numpy).view(np.uint32)
            for name, t in packed.items()
        }
        total: Array = random().standard_normal(n).astype(np.float32)
    else:
        words = {name: random().integers(0, 2**32, n, dtype=np.uint32) for name in packed}
        total = sample(dt.int32, n)
    a, b, c = load("a", i, dt.uint32), load("b", i, dt.uint32), load("c", i, kind)
    one = load("b", index(3), dt.uint32)
    results = {
        "plain": dotacc(elements, c, a, b), "spread": dotacc(elements, c, one, b),
        "flipped": dotacc(elements, c, op("bitxor", one, flips), b),
        "scalar": dotacc(elements, load("c", index(2), kind), one, load("a", index(5), dt.uint32)),
    }  # fmt: skip
    inputs = {"a": dt.uint32, "b": dt.uint32, "c": kind}
    for lanes in (1, 4, 5, 8, 16, 32):
        kernel = element_kernel("dots", inputs, results, lanes)
        arrays = {**words, "c": total, **{name: np.zeros(n, kind.numpy) for name in results}}
        compare(kernel, target, arrays, 0, n)


def test_packed_products_are_one_instruction_where_there_is_one() -> None:
    target = replace(
        Target.named("avx512"), features="+avx512bf16,+avx512vnni", dots=frozenset({"bfloat16.bfloat16", "uint8.int8"})
    )  # fmt: skip
    for elements, name in (("bfloat16.bfloat16", "vdpbf16ps"), ("uint8.int8", "vpdpbusd")):
        c = load("c", i, DOTS[elements][2])
        value = dotacc(elements, c, load("a", i, dt.uint32), load("b", i, dt.uint32))
        kernel = element_kernel("one", {"a": dt.uint32, "b": dt.uint32, "c": c.dtype}, {"o": value}, 16)
        assert name in assembly(emit(kernel, target), target)


@targets
@pytest.mark.parametrize("share", [0.0, 0.02, 1.0], ids=["never", "seldom", "always"])
def test_what_is_wanted_rarely_is_chosen_lane_by_lane(target: Target, share: float) -> None:
    n, rng = 331, np.random.default_rng(0)
    a, uniform = load("a", i, dt.float32), load("b", index(3), dt.float32)
    wanted = op("gt", a, const(1.0 - share, dt.float32))
    inner = rarely(op("lt", a, const(0.5, dt.float32)), op("neg", a), op("sqrt", a))
    results = {
        "lanes": rarely(wanted, op("div", const(1.0, dt.float32), a), op("mul", a, a)),
        "within": rarely(wanted, op("add", inner, a), inner),
        "uniform": rarely(op("gt", uniform, const(0.5, dt.float32)), a, uniform),
    }
    arrays = {name: rng.random(n).astype(np.float32) for name in ("a", "b")}
    for lanes in (1, 4, 16, 32):
        kernel = element_kernel("rare", {"a": dt.float32, "b": dt.float32}, results, lanes)
        compare(kernel, target, {**arrays, **{name: np.zeros(n, np.float32) for name in results}}, 0, n)


def test_what_is_wanted_rarely_stands_behind_a_branch() -> None:
    target, a = Target.named("avx512"), load("a", i, dt.float32)
    value = rarely(op("gt", a, const(1.0, dt.float32)), op("sqrt", a), a)
    text = emit(element_kernel("one", {"a": dt.float32}, {"o": value}, 16), target)
    start = text.index("vector.reduce.or")
    assert "br i1" in text[start : text.index("llvm.sqrt")]


# ---- every operation on every type --------------------------------------------------------------------------------

_INEXACT = {
    "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh",
    "asinh", "acosh", "atanh", "erf", "sigmoid", "pow", "atan2", "rsqrt",
}  # fmt: skip


def operations(dtype: DType) -> Iterator[tuple[str, Expr]]:
    """Every operation defined for a type, on elements of buffers a, b, c and condition p."""
    operands = [load(n, i, dtype) for n in "abc"]
    for name, row in SCALAR_OPS.items():
        if dtype.kind not in row.kinds or name == "complex":
            continue
        args = [load("p", i, dt.bool_), *operands[:2]] if name == "where" else operands[: row.arity]
        yield name, op(name, *args)
    if dtype.is_float:
        yield "fma", fma(*operands)
    for other in REAL:
        if other is not dtype:
            yield f"to_{other}", cast(operands[0], other)
        if other.bits == dtype.bits and other is not dtype and not other.is_bool:
            yield f"as_{other}", bitcast(operands[0], other)


@targets
@pytest.mark.parametrize("inexact", [False, True], ids=["exact", "functions"])
@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_every_operation(dtype: DType, inexact: bool, target: Target) -> None:
    outputs = {name: e for name, e in operations(dtype) if (name in _INEXACT and dtype.is_float) == inexact}
    if not outputs or (inexact and target is not HOST and dtype is not dt.float32):
        return  # other types of the functions add long compilations and no other instructions
    n = 83 if not inexact else 40
    arrays = {name: sample(dtype, n) for name in "abc"} | {"p": sample(dt.bool_, n)}
    if inexact:  # the functions' special cases are tested where the functions are
        arrays = {
            name: np.where(np.abs(a.astype(np.float64)) < 1e4, a, 1).astype(a.dtype)
            for name, a in arrays.items()
        }
    inputs = {"a": dtype, "b": dtype, "c": dtype, "p": dt.bool_}
    kernel = element_kernel(f"ops_{dtype}", inputs, {f"o_{m}": e for m, e in outputs.items()}, 16)
    arrays |= {f"o_{m}": np.zeros(n, e.dtype.numpy) for m, e in outputs.items()}
    compare(kernel, target, arrays, 3, n - 2, ulps=8 if inexact else 0)


@targets
def test_scalar_code_means_the_same(target: Target) -> None:
    """Outside vector loops the same operations run on single values."""
    for dtype in (dt.int16, dt.uint64, dt.float16, dt.bfloat16, dt.float32):
        outputs = {f"o_{m}": e for m, e in operations(dtype) if m not in _INEXACT or not dtype.is_float}
        vector = element_kernel(f"scalar_{dtype}", dict.fromkeys("abc", dtype) | {"p": dt.bool_}, outputs, 8)
        loop = vector.body[0]
        assert isinstance(loop, Loop)
        kernel = replace(vector, body=(Loop("i", LO, HI, loop.body),))
        arrays = {name: sample(dtype, 40) for name in "abc"} | {"p": sample(dt.bool_, 40)}
        arrays |= {name: np.zeros(40, e.dtype.numpy) for name, e in outputs.items()}
        compare(kernel, target, arrays, 0, 40)


@targets
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_maximum_with_a_constant_keeps_nan(dtype: DType, target: Target) -> None:
    a = load("a", i, dtype)
    outputs = {
        "right": op("maximum", a, const(0.0, dtype)), "left": op("maximum", const(0.0, dtype), a),
        "low": op("minimum", a, const(1.0, dtype)), "nan": op("maximum", a, const(float("nan"), dtype)),
    }  # fmt: skip
    arrays = {"a": sample(dtype, 50)} | {n: np.zeros(50, dtype.numpy) for n in outputs}
    compare(element_kernel("clamp", {"a": dtype}, outputs, 16), target, arrays, 0, 50)


# ---- loops --------------------------------------------------------------------------------------------------------


@targets
@pytest.mark.parametrize("lanes", [1, 4, 5, 16, 64])
@pytest.mark.parametrize("n", [0, 1, 3, 16, 64, 67, 130])
def test_vector_loops_of_every_length(n: int, lanes: int, target: Target) -> None:
    a = load("a", i, dt.float32)
    dynamic = element_kernel("dynamic", {"a": dt.float32}, {"o": op("add", a, const(1.0, dt.float32))}, lanes)
    arrays = {"a": sample(dt.float32, n + 7), "o": np.zeros(n + 7, np.float32)}
    compare(dynamic, target, arrays, 2, 2 + n)
    loop = dynamic.body[0]
    assert isinstance(loop, Loop)
    compare(replace(dynamic, body=(replace(loop, start=index(1), stop=index(n + 1)),)), target, arrays)


@targets
@pytest.mark.parametrize("dtype", REAL, ids=str)
def test_tails_of_every_type_leave_their_surroundings_alone(dtype: DType, target: Target) -> None:
    kernel = element_kernel("tail", {"a": dtype}, {"o": load("a", i + 1, dtype)}, 16)
    arrays = {"a": sample(dtype, 41), "o": sample(dtype, 41)}
    compare(kernel, target, arrays, 4, 4 + 21)
    static = replace(
        kernel,
        body=tuple(replace(s, start=index(5), stop=index(28)) for s in kernel.body if isinstance(s, Loop)),
    )
    compare(static, target, arrays)


def loops(*levels: tuple[str, int, str, int], body: tuple[Stmt, ...]) -> tuple[Stmt, ...]:
    """Nested loops from 0; each level is (name, extent, kind, lanes)."""
    for name, extent, kind, lanes in reversed(levels):
        body = (Loop(name, index(0), index(extent), body, kind, lanes),)
    return body


@targets
def test_serial_loops_with_bounds_from_outer_loops(target: Target) -> None:
    """A triangle: the inner loop may be empty, and what it reads must then not be read."""
    body = (
        Reg("s", dt.float32, const(0.0, dt.float32)),
        Loop("j", i * 3, index(20), (
            Set("s", op("add", reg("s", dt.float32), op("mul", load("a", j, dt.float32), load("b", i, dt.float32)))),
        )),
        Store("o", i, reg("s", dt.float32)),
    )  # fmt: skip
    kernel = Kernel(
        (Buf("a", dt.float32, "r"), Buf("b", dt.float32, "r"), Buf("o", dt.float32, "w")),
        (Loop("i", LO, HI, body),),
        name="tri",
    )
    arrays = {"a": sample(dt.float32, 20), "b": sample(dt.float32, 12), "o": np.zeros(12, np.float32)}
    compare(kernel, target, arrays, 0, 12)


@targets
def test_branches(target: Target) -> None:
    f = dt.float32
    body = (
        Reg("r", f, const(1.0, f)),
        If(op("lt", imod(i, 3), const(2)),
            (Let("y", load("a", i, f)), Set("r", op("mul", var("y", f), const(2.0, f))), Store("o", i, reg("r", f))),
            (Store("o", i, load("b", i, f)),)),
        If(op("eq", i, const(4)), (Set("r", const(7.0, f)),)),
        Store("p", i, reg("r", f)),
    )  # fmt: skip
    bufs = (Buf("a", f, "r"), Buf("b", f, "r"), Buf("o", f, "w"), Buf("p", f, "w"))
    arrays = {n: sample(f, 11) for n in "abop"}
    compare(Kernel(bufs, (Loop("i", LO, HI, body),), name="branch"), target, arrays, 0, 11)
    inside = (
        Loop(
            "j",
            index(0),
            index(10),
            (If(op("gt", i, const(3)), (Store("o", j, load("a", j, f)),)),),
            "vector",
            8,
        ),
    )
    compare(Kernel(bufs, (Loop("i", LO, HI, inside),), name="inside"), target, arrays, 0, 5)


# ---- memory -------------------------------------------------------------------------------------------------------

_INDICES: dict[str, Callable[[Expr], Expr]] = {
    "next": lambda v: v + 3,
    "same": lambda v: index(7),
    "reverse": lambda v: index(150) - v,
    "every_second": lambda v: v * 2 + 1,
    "every_third": lambda v: v * 3,
    "every_fourth_down": lambda v: index(199) - v * 4,
    "every_fifth": lambda v: v * 5,
    "divided": lambda v: idiv(v, 3),
    "divided_far": lambda v: idiv(v * 40 + 17, 21),
    "divided_down": lambda v: idiv(index(_N - 1) - v, 2),  # lanes after the end lie below zero
    "remainder_down": lambda v: imod(index(_N - 1) - v, 5),
    "divided_rounded": lambda v: idiv(v - imod(v, 4), 4),
    "repeated": lambda v: idiv(v, 2),
    "first_of_pair": lambda v: idiv(v, 2) * 2,
    "second_of_four": lambda v: idiv(v, 4) * 4 + 1,
    "pairs_apart": lambda v: imod(v, 2) * 11 + idiv(v, 2) + 3,
    "repeated_down": lambda v: index(100) - idiv(v, 8) * 3,
    "remainder": lambda v: imod(v + 5, 7),
    "remainder_wide": lambda v: imod(v, 48) * 2 + idiv(v, 48),
    "transposed": lambda v: imod(v, 5) * 9 + idiv(v, 5),
    "clamped": lambda v: op("minimum", op("maximum", v - 9, const(0)), const(20)),
    "chosen": lambda v: op("where", op("lt", v, const(11)), v + 2, index(40) - v),
    "table": lambda v: load("t", v, dt.int64) * 2,
    "narrow_table": lambda v: cast(load("u", v, dt.int32), dt.int64) + v,
    "table_divided": lambda v: idiv(load("t", v, dt.int64), 3) * 2 + imod(load("t", v, dt.int64), 3),
}  # fmt: skip
_N = 37


def _memory(dtype: DType) -> Arrays:
    return {
        "a": sample(dtype, 240), "o": sample(dtype, 240), "m": sample(dt.bool_, 240),
        "t": random().integers(0, 60, 64), "u": random().integers(0, 90, 64).astype(np.int32),
    }  # fmt: skip


_BUFFERS = (Buf("m", dt.bool_, "r"), Buf("t", dt.int64, "r"), Buf("u", dt.int32, "r"))


@targets
@pytest.mark.parametrize(
    "dtype", [dt.bool_, dt.int8, dt.uint16, dt.bfloat16, dt.float32, dt.int64, dt.float64], ids=str
)
def test_loads_at_every_kind_of_index(dtype: DType, target: Target) -> None:
    buffers = [Buf("a", dtype, "r"), *_BUFFERS]
    stores: list[Stmt] = []
    arrays = _memory(dtype)
    for name, at in _INDICES.items():
        for masked in (False, True):
            out = f"o_{name}_{masked}"
            buffers.append(Buf(out, dtype, "w"))
            arrays[out] = np.zeros(_N, dtype.numpy)
            mask = load("m", i, dt.bool_)
            value = load("a", at(i), dtype, mask, const(1, dtype)) if masked else load("a", at(i), dtype)
            stores.append(Store(out, i, value))
    static = Kernel(tuple(buffers), loops(("i", _N, "vector", 16), body=tuple(stores)), name=f"loads_{dtype}")
    compare(static, target, arrays)
    dynamic = replace(static, body=(Loop("i", LO, HI, tuple(stores), "vector", 16),))
    compare(dynamic, target, arrays, 2, _N)


@targets
@pytest.mark.parametrize("dtype", [dt.bool_, dt.float16, dt.float32, dt.int64], ids=str)
def test_stores_at_every_kind_of_index(dtype: DType, target: Target) -> None:
    for name, at in _INDICES.items():
        if name in (
            "same",
            "divided",
            "divided_far",
            "divided_down",
            "remainder_down",
            "divided_rounded",
            "remainder",
            "clamped",
            "chosen",
            "table",
            "narrow_table",
            "table_divided",
        ):
            continue  # lanes would store to one place
        for mask in (None, load("m", i, dt.bool_)):
            body = (Store("o", at(i), load("a", i, dtype), mask),)
            kernel = Kernel((Buf("a", dtype, "r"), Buf("o", dtype, "w"), *_BUFFERS), (Loop("i", LO, HI, body, "vector", 16),),
                            name=f"store_{name}")  # fmt: skip
            compare(kernel, target, _memory(dtype), 0, _N)


@targets
def test_masked_reads_touch_nothing_outside(target: Target) -> None:
    """Padding: the index leaves the buffer where the mask is false, in vectors and for one element."""
    f = dt.float32
    at = i * 2 - 5
    inside = op("bitand", op("ge", at, const(0)), op("lt", at, const(30)))
    uniform = op("lt", j, const(3))
    body = (
        Store("o", i, load("a", at, f, inside, const(-1.0, f))),
        Store("p", i, load("a", i + j * 100, f, uniform, const(2.0, f))),
        Store("q", i, load("a", j * 1000, f, op("lt", j + i, const(2)), cast(i, f))),
    )
    kernel = Kernel(
        (Buf("a", f, "r"), Buf("o", f, "w"), Buf("p", f, "w"), Buf("q", f, "w")),
        (Loop("j", LO, HI, (Loop("i", index(0), index(20), body, "vector", 8),)),), name="padding",
    )  # fmt: skip
    arrays = {
        "a": sample(f, 250)[:30],
        "o": np.zeros(20, f.numpy),
        "p": np.zeros(20, f.numpy),
        "q": np.zeros(20, f.numpy),
    }
    for part in (0, 1):
        wide = arrays | {"a": sample(f, 250)} if part == 0 else arrays
        lo, hi = (0, 3) if part == 0 else (4, 6)
        if part == 0:
            wide = arrays | {"a": np.resize(sample(f, 50), 3000)}
        compare(kernel, target, wide, lo, hi)


@targets
@pytest.mark.parametrize("dtype", [dt.bool_, dt.float32, dt.float64], ids=str)
def test_all_lanes_or_none(dtype: DType, target: Target) -> None:
    """A mask that is the same for every lane, for accesses that masks would make slow."""
    wanted = op("bitand", op("ge", j, const(2)), op("lt", j, const(5)))
    at = (i * 5 + j, i * 2 + 9 - j, imod(i, 3) * 7 + j, index(60) - i * 3, i + j)
    names = [f"o{n}" for n in range(len(at))]
    body = (
        *(Store(n, j * 19 + i, load("a", a, dtype, wanted, const(1, dtype))) for n, a in zip(names, at, strict=True)),
        Check(op("eq", load("a", i * 4, dtype, wanted, const(0, dtype)), load("a", i * 4, dtype, wanted, const(0, dtype))), 3),
        Loop("k", index(0), index(2), (Store("p", (j * 2 + k) * 19 + i, load("a", i * 4 + k, dtype, wanted, const(0, dtype))),)),
    )  # fmt: skip
    for lanes in (8, 16):
        inner = Loop("i", index(0), index(19), body, "vector", lanes)
        kernel = Kernel(
            (Buf("a", dtype, "r"), *(Buf(n, dtype, "w") for n in (*names, "p"))),
            (Loop("j", LO, HI, (inner,)),),
            name="guard",
        )
        arrays = {n: np.zeros(19 * 7, dtype.numpy) for n in names} | {"p": np.zeros(19 * 14, dtype.numpy)}
        values = random().integers(0, 2, 110).astype(dtype.numpy)
        expected = compare(kernel, target, arrays | {"a": values}, 3, 5)
        assert expected["p"].any()
        compare(kernel, target, arrays | {"a": values[:1]}, 0, 2)
        compare(kernel, target, arrays | {"a": values[:1]}, 5, 7)


@targets
def test_a_store_is_seen_by_later_loads(target: Target) -> None:
    """Loads of a buffer the kernel writes are neither hoisted nor shared across the store."""
    f = dt.float32
    step = (
        Let("before", load("a", i, f)),
        Store("a", i, op("add", var("before", f), const(1.0, f))),
        Store("o", i, op("mul", load("a", i, f), var("before", f))),
    )
    total = (
        Loop(
            "j",
            index(0),
            index(5),
            (Store("a", index(0), op("add", load("a", index(0), f), load("a", index(1), f))),),
        ),
    )
    kernel = Kernel(
        (Buf("a", f, "rw"), Buf("o", f, "w")),
        (Loop("k", index(0), index(3), (Loop("i", LO, HI, step, "vector", 8),)), *total), name="rw",
    )  # fmt: skip
    arrays = {"a": np.arange(21, dtype=np.float32), "o": np.zeros(21, np.float32)}
    compare(kernel, target, arrays, 0, 21)


@targets
def test_a_result_may_take_the_place_of_an_input(target: Target) -> None:
    f = dt.float32
    kernel = element_kernel("inplace", {"a": f}, {"o": op("mul", load("a", i, f), load("a", i, f))}, 64)
    for n in (5, 64, 200):
        memory = np.arange(n, dtype=np.float32)
        named = replace(kernel, name=f"inplace_{next(counter)}")
        address = LIBRARIES[target.name].compile([(named.name, emit(named, target), "")])[named.name]
        table = (ctypes.c_void_p * 2)(memory.ctypes.data, memory.ctypes.data)
        call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2, ctypes.c_void_p)(address)
        call(table, None, 0, n, None)
        assert (memory == np.arange(n, dtype=np.float32) ** 2).all()


@targets
def test_scratch_areas_are_apart(target: Target) -> None:
    f = dt.float32
    kernel = Kernel(
        (Buf("a", f, "r"), Buf("o", f, "w")),
        (
            *loops(("i", 21, "vector", 8), body=(Store("s", i, load("a", i, f)), Store("t", i, cast(i, dt.uint8)))),
            *loops(("i", 21, "vector", 8), body=(
                Store("o", i, op("add", load("s", index(20) - i, f), cast(load("t", i, dt.uint8), f))),
            )),
        ),
        (Scratch("s", f, 21), Scratch("t", dt.uint8, 21)),
    )  # fmt: skip
    assert scratch_bytes(kernel) == 128 + 64 + 64
    compare(kernel, target, {"a": sample(f, 21), "o": np.zeros(21, f.numpy)})


# ---- registers ----------------------------------------------------------------------------------------------------


def matmul(m: int, n: int, depth: int, lanes: int, unroll: int, dtype: DType) -> Kernel:
    """o[m, n] = a[depth, m]^T b[depth, n] in a register tile of m x ceil(n / lanes) vectors."""
    blocks = -(-n // lanes)
    start = j * lanes
    stop = op("minimum", start + lanes, index(n)) if n % lanes else start + lanes
    at = k * unroll + var("u")
    step = Set(
        "c", fma(load("a", at * m + i, dtype), load("b", at * n + x, dtype), reg("c", dtype, i, j)), (i, j)
    )

    def tile(body: Stmt) -> tuple[Stmt, ...]:
        vector = Loop("x", start, stop, (body,), "vector", lanes)
        return loops(("i", m, "unroll", 0), ("j", blocks, "unroll", 0), body=(vector,))

    inner = loops(("k", depth // unroll, "serial", 0), ("u", unroll, "unroll", 0), body=tile(step))
    body = (
        Reg("c", dtype, const(0, dtype), (m, blocks), lanes),
        *inner,
        *tile(Store("o", i * n + x, reg("c", dtype, i, j))),
    )
    return Kernel(
        (Buf("a", dtype, "r"), Buf("b", dtype, "r"), Buf("o", dtype, "w")),
        body,
        name=f"matmul_{m}_{n}_{lanes}",
    )


@targets
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64, dt.float16], ids=str)
@pytest.mark.parametrize(("m", "n", "lanes"), [(3, 16, 8), (2, 13, 8), (1, 3, 4)])
def test_register_tiles(m: int, n: int, lanes: int, dtype: DType, target: Target) -> None:
    kernel = matmul(m, n, 6, lanes, 2, dtype)
    arrays = {
        "a": random().standard_normal(6 * m).astype(dtype.numpy),
        "b": random().standard_normal(6 * n).astype(dtype.numpy),
    }
    compare(kernel, target, arrays | {"o": np.zeros(m * n, dtype.numpy)})


def transposing(dtype: DType, lanes: int, rows: int, columns: int, pitch: int) -> Kernel:
    """Copies ``rows`` rows of ``columns`` elements to lines of ``pitch`` elements, one for each column."""
    row, column = var("row"), var("column")
    moved = Store("o", column * pitch + row + 1, load("a", row * 40 + column, dtype) * const(2, dtype))
    inner = Loop("column", index(0), index(columns), (moved,), "vector", lanes)
    body = (Loop("row", index(0), index(rows), (inner,), "unroll"),)
    return Kernel((Buf("a", dtype, "r"), Buf("o", dtype, "w")), body, name="transposing")


@targets
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64, dt.int32, dt.float16], ids=str)
def test_squares_are_transposed(dtype: DType, target: Target) -> None:
    lanes = max(target.vector_bytes // dtype.itemsize, 2)
    for rows in (2, 3, lanes // 2, lanes - 1, lanes, lanes + 1):
        for columns in (2, lanes - 1, lanes, lanes + 3):
            for pitch in (
                2,
                max(rows - 1, 2),
                rows,
                rows + 3,
            ):  # lanes that lie closer than there are rows overlap
                kernel = transposing(dtype, lanes, rows, columns, pitch)
                arrays = {"a": sample(dtype, 40 * 40), "o": sample(dtype, (rows + 3) * (columns + 1))}
                compare(kernel, target, arrays)


def test_squares_are_transposed_in_registers() -> None:
    dtype = dt.float32
    lanes = HOST.vector_bytes // dtype.itemsize
    text = emit(transposing(dtype, lanes, lanes, lanes, lanes + 3), HOST)
    assert "scatter" not in text and text.count("shufflevector") > lanes
    # a square that is read while it is stored, or whose rows are no neighbours, is stored row by row
    far = transposing(dtype, lanes, lanes, lanes, lanes + 3)
    (rows,) = far.body
    assert isinstance(rows, Loop) and isinstance(rows.body[0], Loop)
    (store,) = rows.body[0].body
    assert isinstance(store, Store)
    for changed in (
        replace(store, index=store.index + var("row")),
        replace(store, value=load("o", store.index - 1, dtype)),
    ):
        loop = replace(rows, body=(replace(rows.body[0], body=(changed,)),))
        kernel = replace(far, buffers=(far.buffers[0], Buf("o", dtype, "rw")), body=(loop,))
        assert "scatter" in emit(kernel, HOST)
        arrays = {"a": sample(dtype, 40 * 40), "o": sample(dtype, (lanes + 3) * (lanes + 1))}
        compare(kernel, HOST, arrays)


@targets
@pytest.mark.parametrize("lanes", [1, 3, 8, 13, 64])
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("add", dt.float32), ("maximum", dt.float32), ("mul", dt.float64), ("minimum", dt.int32), ("add", dt.uint8),
     ("maximum", dt.bool_), ("add", dt.bfloat16)],
)  # fmt: skip
def test_lanes_are_combined_in_a_fixed_order(name: str, dtype: DType, lanes: int, target: Target) -> None:
    n = 3 * lanes + 1
    first = const(0 if name != "mul" else 1, dtype)
    step = Set("s", op(name, reg("s", dtype), load("a", i, dtype)))
    body = (
        Reg("s", dtype, first, (), lanes),
        Loop("i", LO, HI, (step,), "vector", lanes),
        Let("total", across(name, reg("s", dtype))),
        Store("o", index(0), var("total", dtype)),
        Loop("i", LO, HI, (Store("p", i, across(name, reg("s", dtype))),), "vector", 4),
    )
    kernel = Kernel((Buf("a", dtype, "r"), Buf("o", dtype, "w"), Buf("p", dtype, "w")), body, name="reduce")
    arrays = {"a": sample(dtype, n) if dtype.is_integer else random().standard_normal(n).astype(dtype.numpy)}
    compare(kernel, target, arrays | {"o": np.zeros(1, dtype.numpy), "p": np.zeros(n, dtype.numpy)}, 0, n)


@targets
@pytest.mark.parametrize("lanes", [2, 6, 16, 64])
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64], ids=str)
def test_an_extremum_of_lanes_is_nan_if_any_is(dtype: DType, lanes: int, target: Target) -> None:
    """Found once beside the tree of maxima, not in each step of it."""
    body = (
        Reg("s", dtype, const(0.0, dtype), (), lanes),
        Loop("i", index(0), index(lanes), (Set("s", load("a", LO * lanes + i, dtype)),), "vector", lanes),
        Store("o", index(0), across("minimum", reg("s", dtype))),
        Store("o", index(1), across("maximum", reg("s", dtype))),
    )
    kernel = Kernel((Buf("a", dtype, "r"), Buf("o", dtype, "w")), body, name="extremum")
    a = np.arange(1.0, lanes + 1, dtype=dtype.numpy) + np.zeros((lanes + 1, 1), dtype.numpy)
    a[range(lanes), range(lanes)] = np.nan
    for row in range(lanes + 1):
        got = compare(kernel, target, {"a": a.ravel(), "o": np.zeros(2, dtype.numpy)}, row, row + 1)["o"]
        np.testing.assert_array_equal(got, [1, lanes] if row == lanes else [np.nan, np.nan])
    text = emit(kernel, target)
    assert text.count("fcmp uno") == 2 and "llvm.maximum" not in text


@targets
def test_registers_private_to_an_iteration(target: Target) -> None:
    f = dt.float32
    body = (
        Reg("s", f, cast(i, f)),
        Loop("j", index(0), index(6), (Set("s", op("add", reg("s", f), load("a", j * 30 + i, f))),)),
        Loop("j", index(0), index(0), (Set("s", const(0.0, f)),)),
        Store("o", i, reg("s", f)),
    )
    kernel = Kernel(
        (Buf("a", f, "r"), Buf("o", f, "w")), (Loop("i", LO, HI, body, "vector", 16),), name="private"
    )
    compare(kernel, target, {"a": sample(f, 180), "o": np.zeros(30, f.numpy)}, 0, 30)


@targets
def test_names_are_bound_anew(target: Target) -> None:
    """The same names in sibling loops and unrolled copies: nothing remembered of one is used in the other."""
    f = dt.float32
    doubled = Let("y", op("mul", load("a", i + j, f), const(2.0, f)))
    use = Store("o", i * 4 + j, op("add", var("y", f), cast(i * j, f)))
    body = (
        *loops(("i", 3, "unroll", 0), ("j", 4, "vector", 4), body=(doubled, use)),
        *loops(
            ("i", 3, "serial", 0),
            ("j", 4, "unroll", 0),
            body=(Let("y", load("a", j, f)), Store("p", i * 4 + j, var("y", f))),
        ),
        *loops(
            ("i", 1, "serial", 0),
            ("j", 12, "vector", 8),
            body=(Let("y", load("a", j + i, f)), Store("q", j, var("y", f))),
        ),
    )
    kernel = Kernel((Buf("a", f, "r"), *(Buf(n, f, "w") for n in "opq")), body, name="names")
    compare(kernel, target, {"a": sample(f, 30), **{n: np.zeros(12, f.numpy) for n in "opq"}})


# ---- checks -------------------------------------------------------------------------------------------------------


@targets
@pytest.mark.parametrize("bad", [None, 0, 17, 36])
def test_checks(bad: int | None, target: Target) -> None:
    inside = op("lt", load("t", i, dt.int64), const(100))
    body = (Loop("i", LO, HI, (Check(inside, 7), Store("o", i, load("t", i, dt.int64))), "vector", 16),)
    kernel = Kernel((Buf("t", dt.int64, "r"), Buf("o", dt.int64, "w")), body, name="check")
    table = np.arange(60) % 90
    table[37:] = 1000  # outside the range, where missing lanes must not count
    if bad is not None:
        table[bad] = 100
    compare(kernel, target, {"t": table, "o": np.zeros(60, np.int64)}, 0, 37)
    scalar = replace(kernel, body=(Loop("i", LO, HI, (Check(inside, 9),)),))
    compare(scalar, target, {"t": table, "o": np.zeros(60, np.int64)}, 0, 37)


# ---- random expressions -------------------------------------------------------------------------------------------

_EXACT = [
    name for name in SCALAR_OPS if name not in _INEXACT and name not in ("complex", "real", "imag", "conj")
]


@st.composite
def expressions(draw: st.DrawFn, dtype: DType, depth: int) -> Expr:
    """A random expression of a type over buffers named after their types, the loop variables and constants."""
    choices = ["leaf", "leaf", "op", "op", "op", "cast", "load"] if depth else ["leaf"]
    choice = draw(st.sampled_from(choices))
    if choice == "leaf":
        if dtype is dt.int64 and draw(st.booleans()):
            return draw(st.sampled_from([i, j, i + j, i * 3 + j]))
        if draw(st.booleans()):
            return load(f"a_{dtype}", draw(st.sampled_from([i, i * 3, j, index(41) - i, i + j])), dtype)
        return const(draw(st.sampled_from([0, 1, 2, 5])), dtype)
    if choice == "cast":
        other = draw(st.sampled_from(REAL))
        return cast(draw(expressions(other, depth - 1)), dtype)
    if choice == "load":
        inner = draw(expressions(dt.int64, depth - 1))
        at = op("maximum", op("minimum", inner, const(40)), const(0))
        mask = draw(expressions(dt.bool_, depth - 1))
        if draw(st.booleans()):
            return load(f"a_{dtype}", at, dtype)
        return load(f"a_{dtype}", at, dtype, mask, draw(expressions(dtype, depth - 1)))
    if dtype.is_bool and draw(st.booleans()):
        name = draw(st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge"]))
        of = draw(st.sampled_from(REAL))
        return op(name, draw(expressions(of, depth - 1)), draw(expressions(of, depth - 1)))
    name = draw(
        st.sampled_from(
            [n for n in _EXACT if dtype.kind in SCALAR_OPS[n].kinds and SCALAR_OPS[n].result != "bool"]
        )
    )
    args = [draw(expressions(dtype, depth - 1)) for _ in range(SCALAR_OPS[name].arity - (name == "where"))]
    if name == "where":
        args.insert(0, draw(expressions(dt.bool_, depth - 1)))
    return op(name, *args)


@settings(max_examples=150)
@given(data=st.data())
def test_random_expressions(data: st.DataObject) -> None:
    target = data.draw(st.sampled_from(LEVELS), label="target")
    reseed(data.draw(st.integers(0, 99), label="seed"))
    buffers = [Buf(f"a_{d}", d, "r") for d in REAL]
    arrays = {f"a_{d}": sample(d, 150) for d in REAL}
    stores: list[Stmt] = []
    for n in range(data.draw(st.integers(1, 3))):
        dtype = data.draw(st.sampled_from(REAL))
        e = data.draw(expressions(dtype, 4))
        buffers.append(Buf(f"o{n}", dtype, "w"))
        arrays[f"o{n}"] = np.zeros(42 * 2, dtype.numpy)
        stores.append(Store(f"o{n}", j * 42 + i, e))
    lanes = data.draw(st.sampled_from([4, 8, 16, 32]))
    inner = Loop("i", index(0), index(data.draw(st.integers(1, 41))), tuple(stores), "vector", lanes)
    kernel = Kernel(tuple(buffers), (Loop("j", LO, HI, (inner,)),), name="random")
    compare(kernel, target, arrays, 0, 2)


@targets
def test_code_calls_nothing_but_the_c_library(target: Target) -> None:
    """No routine of a compiler's support library is needed, as conversions of half types otherwise do."""
    for dtype in FLOATS:
        outputs = {f"o_{m}": e for m, e in operations(dtype) if m not in _INEXACT}
        inputs = dict.fromkeys("abc", dtype) | {"p": dt.bool_}
        listing = assembly(emit(element_kernel("calls", inputs, outputs, 16), target), target)
        called = set(re.findall(r"\tcall\w*\t(?!tw\.)(\w+)", listing))
        assert called <= {f + s for f in ("floor", "ceil", "trunc", "rint", "fma") for s in ("", "f")}
        if target.has_fma:
            assert not called


@pytest.mark.parametrize("lanes", [4, 16])
def test_rare_branches_beside_integer_powers(lanes: int) -> None:
    """Both ask whether any lane is affected: what they call is declared once."""
    f, n = dt.float32, dt.int32
    stores = (
        Store("o", i, op("pow", load("a", i, f), load("b", i, f))),
        Store("p", i, op("pow", load("m", i, n), load("n", i, n))),
    )
    buffers = (
        Buf("a", f, "r"),
        Buf("b", f, "r"),
        Buf("m", n, "r"),
        Buf("n", n, "r"),
        Buf("o", f, "w"),
        Buf("p", n, "w"),
    )
    kernel = Kernel(buffers, (Loop("i", LO, HI, stores, "vector", lanes),), name="powers")
    arrays: Arrays = {name: np.linspace(0.5, 3, 64).astype(np.float32) for name in "abo"}
    arrays |= {name: np.arange(64, dtype=np.int32) % 7 for name in "mnp"}
    compare(kernel, HOST, arrays, 0, 64, ulps=4)

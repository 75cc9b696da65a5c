"""The kernel verifier: every rule has a kernel that breaks it, and the message says where and what."""

import re

import pytest

from tilewright.core import dtype as dt
from tilewright.kernel import ir
from tilewright.kernel.ir import (
    HI,
    LO,
    Buf,
    Check,
    Expr,
    If,
    Kernel,
    Let,
    Loop,
    Prefetch,
    Reg,
    Scratch,
    Set,
    Stmt,
    Store,
    across,
    const,
    index,
    load,
    op,
    reg,
    var,
)  # fmt: skip
from tilewright.kernel.verify import KernelError, verify

F, I64 = dt.float32, dt.int64
i, j = var("i"), var("j")
x, zero = load("x", i, F), const(0.0, F)
positive = op("gt", x, zero)


def vector(*body: Stmt, lanes: int = 8) -> Loop:
    return Loop("i", LO, HI, body, "vector", lanes)


def unchecked(name: str, args: tuple[Expr, ...], dtype: dt.DType, attr: object = None) -> Expr:
    """An expression that the constructors would not build."""
    return ir._make(name, args, dtype, attr)


def kernel(*body: Stmt) -> Kernel:
    return Kernel((Buf("x", F, "r"), Buf("y", F, "w"), Buf("n", I64, "r")), body, (Scratch("s", F, 10),), "k")


def test_a_kernel_that_keeps_the_rules() -> None:
    verify(kernel(
        Reg("acc", F, zero, (2,), 8),
        Reg("one", F, zero),
        Loop("u", index(0), index(2), (vector(
            Set("acc", op("add", reg("acc", F, var("u")), x), (var("u"),)),
            Reg("own", F, x),
            Loop("k", index(0), LO, (Set("own", op("add", reg("own", F), load("s", var("k"), F))),)),
            If(op("lt", LO, HI), (Store("y", i, reg("own", F), positive),)),
        ),), "unroll"),
        Set("one", across("add", reg("acc", F, index(1)))),
        Store("y", index(0), reg("one", F)),
        vector(Store("y", index(0), reg("one", F)), Check(positive, 1)),
        Loop("w", index(0), index(1), (Store("y", index(3), load("x", var("w"), F)),), "vector", 8),
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ((Store("o", index(0), zero),), "kernel k: store to o: there is no buffer or scratch area of this name"),
        ((Store("x", index(0), zero),), "store to x: the buffer is read-only"),
        ((Store("y", index(0), index(1)),), "store to y: the value must be float32, not int64"),
        ((Store("y", const(0, dt.int32), zero),), "the index must be int64, not int32"),
        ((Store("s", index(0), load("y", index(0), F)),), "load from y: the buffer is write-only"),
        ((Store("y", index(0), load("q", index(0), F)),), "load from q: there is no buffer or scratch area"),
        ((Store("y", index(0), load("n", index(0), F)),), "load n has the type int64, and float32 is stated"),
        ((Store("y", i, zero),), "store to y: the name i is not defined here"),
        ((Let("a", zero), Store("y", var("a"), zero)), "var a has the type float32, and int64 is stated"),
        ((Let("a", zero), Let("a", zero)), "let a: the name a is taken"),
        ((Let("x", zero),), "let x: the name x is taken"),
        ((Let("for", zero),), "'for' cannot be a name"),
        ((Let("a", const(0, dt.int64)), Loop("a", LO, HI, ())), "for a: the name a is taken"),
        ((vector(Loop("j", LO, HI, (), "vector", 4)),), "for i: for j: vector loops do not nest"),
        ((Loop("i", LO, HI, (), "vector"),), "a vector loop has lanes, and only a vector loop"),
        ((Loop("i", LO, HI, (), "serial", 8),), "a vector loop has lanes, and only a vector loop"),
        ((Loop("i", LO, HI, (), "parallel"),), "a loop is serial, vector or unroll, not 'parallel'"),
        ((vector(Loop("j", index(0), i, ())),), "the bounds must be the same in every lane"),
        ((vector(If(positive, ())),), "if: the condition must be the same in every lane"),
        ((vector(Let("a", op("gt", x, zero)), If(var("a", dt.bool_), ())),), "the condition must be the same in every lane"),
        ((Loop("u", index(0), LO, (), "unroll"),), "the bounds of an unrolled loop must be constants"),
        ((vector(Store("y", index(3), x)),), "lanes with different values would store to one element"),
        ((vector(Reg("r", F, zero, (), 8)),), "a register with lanes is declared outside vector loops"),
        ((Reg("r", F, zero, (0,)),), "a register tile has at least one element"),
        ((Reg("r", F, index(0)),), "the initial value must be float32, not int64"),
        ((Set("r", zero),), "set r: there is no register of this name here"),
        ((Reg("r", F, zero, (), 8), Set("r", zero)), "a register of 8 lanes is set in a vector loop of as many, not of 0"),
        ((Reg("r", F, zero, (), 8), vector(Set("r", zero), lanes=4)), "is set in a vector loop of as many, not of 4"),
        ((Reg("r", F, zero), vector(Set("r", zero))), "a register without lanes declared outside the vector loop"),
        ((Reg("r", F, zero, (), 8), Store("y", index(0), reg("r", F))), "is read in no vector loop; combine its lanes"),
        ((Reg("r", F, zero, (2,)), Set("r", zero)), "register r has the shape (2,), and 0 indices are given"),
        ((Reg("r", F, zero, (2,)), Set("r", zero, (index(2),))), "index 2 is outside the shape (2,) of register r"),
        ((Reg("r", F, zero, (2,)), Loop("j", LO, HI, (Set("r", zero, (j,)),))), "a register's indices must be constants"),
        ((Loop("j", LO, HI, (Reg("r", F, zero),)), Set("r", zero)), "there is no register of this name here"),
        ((Store("y", index(0), across("add", unchecked("reg", (), F, "q"))),), "across combines the lanes of a register"),
        ((Reg("r", F, zero, (), 8), Store("y", index(0), across("lt", reg("r", F)))), "across cannot combine float32 with lt"),
        ((Prefetch("nowhere", index(0)),), "prefetch of nowhere: there is no buffer or scratch area of this name"),
        ((Prefetch("x", zero),), "the index must be int64, not float32"),
        ((Prefetch("x", index(0), 3),), "a core has caches 1 and 2, got 3"),
        ((Check(zero, 1),), "check 1: the condition must be bool, not float32"),
        ((Check(op("lt", LO, HI), 0),), "the code must be a positive 32-bit integer"),
        ((Store("y", index(0), unchecked("add", (zero, LO), F)),), "add takes operands of one type, got float32 and int64"),
        ((Store("y", index(0), unchecked("frob", (zero,), F)),), "there is no operation frob"),
        ((Store("y", index(0), unchecked("bitcast", (LO,), F)),), "bitcast from int64 to float32: the widths differ"),
        ((Let("a", unchecked("idiv", (LO, HI), I64)),), "idiv takes an int64 and a positive constant"),
        (
            (Let("a", unchecked("dotacc", (LO, HI, HI), I64, "int8.uint8")),),
            "dotacc multiplies elements of bfloat16.bfloat16, int8.int8, uint8.int8, uint8.uint8, not of int8.uint8",
        ),
        (
            (Let("a", unchecked("dotacc", (LO, HI, HI), I64, "uint8.int8")),),
            "dotacc.uint8.int8 takes int32 and two uint32 words, got [int64, int64, int64]",
        ),
        ((Let("a", const(0.0, dt.complex64)),), "kernels have no complex values"),
        (("nothing",), "'nothing' is not a statement"),
    ],
)  # fmt: skip
def test_broken_rules(body: tuple[Stmt, ...], message: str) -> None:
    with pytest.raises(KernelError, match=re.escape(message)):
        verify(kernel(*body))


def test_buffers() -> None:
    with pytest.raises(KernelError, match="buffer b: access must be r, w or rw, not 'x'"):
        verify(Kernel((Buf("b", F, "x"),), ()))
    with pytest.raises(
        KernelError, match="buffer b: stores may pass the caches where a buffer is only written"
    ):
        verify(Kernel((Buf("b", F, "rw", stream=True),), ()))
    with pytest.raises(KernelError, match="two buffers are called b"):
        verify(Kernel((Buf("b", F, "r"), Buf("b", F, "r")), ()))
    with pytest.raises(KernelError, match="kernels have no complex elements"):
        verify(Kernel((Buf("b", dt.complex64, "r"),), ()))
    with pytest.raises(KernelError, match="its size must not be negative"):
        verify(Kernel((), (), (Scratch("s", F, -1),)))
    with pytest.raises(KernelError, match="'a b' is not an identifier"):
        verify(Kernel((), (), (), "a b"))

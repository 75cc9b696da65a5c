"""Kernel text: golden listings, exact round trips, and what its errors say."""

import re
import textwrap
from pathlib import Path

import pytest

from tilewright.core import dtype as dt
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
from tilewright.kernel.text import KernelSyntaxError, parse_kernel, print_expression, print_kernel
from tilewright.kernel.verify import verify

F, I64, BOOL = dt.float32, dt.int64, dt.bool_
i, j = var("i"), var("j")
x = load("x", i, F)

EVERYTHING = Kernel(
    (Buf("x", F, "r"), Buf("n", I64, "r"), Buf("y", F, "rw"), Buf("z", F, "w")),
    (
        Reg("c", F, const(float("-inf"), F), (2, 3), 8),
        Reg("best", F, const(0.0, F)),
        Loop("i", LO, HI, (
            Loop("k", index(0), index(2), (
                Loop("j", i * 8, op("minimum", i * 8 + 8, HI), (
                    Set("c", op("maximum", reg("c", F, var("k"), index(1)), load("x", j, F)), (var("k"), index(1))),
                ), "vector", 8),
            ), "unroll"),
            Set("best", across("maximum", reg("c", F, index(0), index(1)))),
            Check(op("ge", load("n", idiv(i, 4), I64), imod(i, 3)), 12),
            Prefetch("x", i + 64),
            Prefetch("x", i + 32, 1),
            If(op("lt", i, index(3)), (Let("half", op("mul", x, const(0.5, F))), Store("y", i, var("half", F))), (
                Store("y", i, const(float("nan"), F)),
            )),
            If(op("eq", i, index(3)), ()),
        )),
        Loop("i", LO, HI, (
            Store("s", i - LO, op("exp", op("neg", op("sub", op("sub", x, const(1.0, F)), op("sub", x, const(-2.5, F)))))),
            Store("z", i * 2, fma(x, x, reg("best", F)), op("gt", x, const(0.0, F))),
            Store("z", i * 2 + 1, load("y", i - 1, F, op("ge", i, index(1)), const(0.0, F))),
            Store("u", i, op("bitxor", bitcast(x, dt.uint32), cast(op("ne", x, x), dt.uint32))),
        ), "vector", 16),
    ),
    (Scratch("s", F, 100), Scratch("u", dt.uint32, 7)),
    "everything",
)  # fmt: skip

LISTING = """\
kernel everything(x: r float32, n: r int64, y: rw float32, z: w float32)
    scratch s: float32[100]
    scratch u: uint32[7]
    reg c: float32[2, 3] vector 8 = -inf.f32
    reg best: float32 = 0.0f32
    for i in lo..hi:
        for k in 0..2 unroll:
            for j in i * 8..minimum(i * 8 + 8, hi) vector 8:
                c[k, 1] := maximum(c[k, 1], x[j])
        best := across.maximum(c[0, 1])
        check n[i // 4] >= i % 3 else 12
        prefetch x[i + 64]
        prefetch x[i + 32] cache 1
        if i < 3:
            let half: float32 = x[i] * 0.5f32
            y[i] = half
        else:
            y[i] = nan.f32
        if i == 3:
            pass
    for i in lo..hi vector 16:
        s[i - lo] = exp(neg(x[i] - 1.0f32 - (x[i] - -2.5f32)))
        z[i * 2] = fma(x[i], x[i], best) if x[i] > 0.0f32
        z[i * 2 + 1] = (y[i - 1] if i >= 1 else 0.0f32)
        u[i] = bitcast.uint32(x[i]) ^ uint32(x[i] != x[i])
"""


def test_the_listing_of_every_construct() -> None:
    verify(EVERYTHING)
    assert print_kernel(EVERYTHING) == LISTING


def test_text_parses_back_to_an_equal_kernel() -> None:
    assert parse_kernel(LISTING) == EVERYTHING


def test_shared_parts_are_named_once() -> None:
    e: Expr = op("add", x, const(1.0, F))
    for _ in range(200):  # as a tree this has 2^200 nodes
        e = op("mul", e, e)
    kernel = Kernel((Buf("x", F, "r"), Buf("y", F, "w")), (Loop("i", LO, HI, (Store("y", i, e),)),))
    text = print_kernel(kernel)
    assert text.count("\n") == 203
    assert "        %0 = x[i] + 1.0f32\n        %1 = %0 * %0\n" in text
    assert parse_kernel(text) == kernel


def test_deep_expressions_print_and_parse() -> None:
    e: Expr = x
    for n in range(2000):
        e = op("sub", const(float(n), F), e)
    kernel = Kernel((Buf("x", F, "r"), Buf("y", F, "w")), (Loop("i", LO, HI, (Store("y", i, e),)),))
    assert parse_kernel(print_kernel(kernel)) == kernel


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (op("sub", i, op("sub", j, i)), "i - (j - i)"),
        (op("sub", op("sub", i, j), i), "i - j - i"),
        ((i + 1) * (j * 2), "(i + 1) * (j * 2)"),
        (op("bitand", op("lt", i, j), op("eq", i, index(0))), "(i < j) & (i == 0)"),
        (op("shl", const(-3, dt.int8), const(2, dt.int8)), "-3i8 << 2i8"),
        (const(1e-30, dt.float64), "1e-30f64"),
        (const(0.1, dt.bfloat16), "0.1bf16"),
        (const(-0.0, F), "-0.0f32"),
        (const(255, dt.uint8), "255u8"),
        (op("where", const(True, BOOL), i, j), "where(true, i, j)"),
        (op("floordiv", i, j), "floordiv(i, j)"),
        (idiv(imod(i, 7) + j, 3), "(i % 7 + j) // 3"),
        (cast(op("lt", i, j), dt.float16), "float16(i < j)"),
        (
            dotacc("uint8.int8", const(0, dt.int32), const(7, dt.uint32), const(9, dt.uint32)),
            "dotacc.uint8.int8(0i32, 7u32, 9u32)",
        ),
        (rarely(op("lt", i, j), i, j), "rarely(i < j, i, j)"),
    ],
)
def test_expressions(expression: Expr, text: str) -> None:
    assert print_expression(expression) == text
    loop = Loop("i", LO, HI, (Loop("j", LO, HI, (Let("v", expression),)),))
    assert parse_kernel(print_kernel(Kernel((), (loop,)))) == Kernel((), (loop,))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the text is empty; expected: kernel NAME(...)"),
        ("kernel k(x: r float33)", "line 1: there is no type float33, in: kernel k(x: r float33)"),
        ("kernel k()\n    for i in 0..3:\n", "line 2: expected an indented block below, in: for i in 0..3:"),
        ("kernel k()\n    let a: int64 = b", "line 2: b is not defined, in: let a: int64 = b"),
        ("kernel k()\n    let a: bool = 1", "line 2: a is declared bool, and its value is int64, in: let a: bool = 1"),
        ("kernel k()\n    let a: int64 = 1 $ 2", "line 2: cannot read '$ 2', in: let a: int64 = 1 $ 2"),
        ("kernel k()\n    let a: int64 = frob(1)", "line 2: there is no operation frob, in: let a: int64 = frob(1)"),
        ("kernel k()\n    let a: int64 = exp(1)", "line 2: exp: exp is not defined for int64; it takes float, complex elements"),
        ("kernel k()\n    let a: int64 = 1 1", "line 2: unexpected '1'"),
        ("kernel k()\n    let a: int64 = %3", "line 2: %3 is not defined"),
    ],
)  # fmt: skip
def test_errors_say_where_and_what(text: str, message: str) -> None:
    with pytest.raises(KernelSyntaxError) as caught:
        parse_kernel(text)
    assert str(caught.value).startswith(message)


def test_the_listings_of_the_documentation_are_kernels(repository: Path) -> None:
    page = (repository / "docs" / "kernel.md").read_text(encoding="utf-8")
    found = re.findall(r"^    kernel .*\n(?:    +.*\n)+", page, re.MULTILINE)
    assert found
    for listing in found:
        kernel = parse_kernel(textwrap.dedent(listing))
        verify(kernel)
        assert print_kernel(kernel) == textwrap.dedent(listing)

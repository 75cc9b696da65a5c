"""Contractions on every instruction set this machine has: any axes, any size, any type, with work before and after.

Each test compiles many contractions as one program; every kernel passes the verifier. Sums are compared within an error
bound in proportion to the magnitudes that are added, integers exactly.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import ml_dtypes
import numpy as np
import pytest
from compiled_steps import Array, native, run_in_random_order

import tilewright as tw
from tilewright import compiler
from tilewright.autodiff.vjp import vjp
from tilewright.compiler import Executable
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.settings import settings
from tilewright.core.shape import static
from tilewright.graph import build
from tilewright.graph.ir import Value, input_value, make, topological
from tilewright.graph.reference import evaluate
from tilewright.kernel.verify import verify
from tilewright.lower.read import Unsupported
from tilewright.recipes.contraction import Situation, choose, cycles
from tilewright.recipes.machine import Machine
from tilewright.runtime.target import host_target

HOST = host_target()
LEVELS = ["host"]
if HOST.triple.startswith("x86_64"):
    LEVELS += {"avx512": ["avx2", "sse", "generic"], "avx2": ["sse", "generic"], "sse": ["generic"]}.get(
        HOST.name, []
    )
TYPES = (dt.float32, dt.float64, dt.float16, dt.bfloat16, dt.int32, dt.int8)
machines = pytest.mark.parametrize("threads", [1, 2])
# every instruction set, and both numbers of threads
both = pytest.mark.parametrize(
    ("target", "threads"), [("host", 1), *((t, 1 + n % 2) for n, t in enumerate(LEVELS, 1))]
)
levels = pytest.mark.parametrize("target", LEVELS)


@dataclass
class Problem:
    """A value, and a bound of its error as a value of float64."""

    value: Value
    terms: int


def draw(rng: np.random.Generator, v: Value) -> Array:
    if v.dtype.is_integer:
        return rng.integers(-100, 100, v.shape).astype(v.dtype.numpy)
    return rng.uniform(-1, 1, v.shape).astype(v.dtype.numpy)


def wide(v: Value, magnitude: bool) -> Value:
    """The same computation in float64, or what its absolute values add up to."""
    new: dict[Value, Value] = {}
    for x in topological([v]):
        if x.op == "input":
            leaf = input_value(dt.float64, x.shape) if x.dtype.is_float else x
            new[x] = leaf
            WIDE[leaf] = x
            if magnitude and x.dtype.is_float:
                new[x] = build.unary("abs", leaf)
        else:
            attrs = {n: dt.float64 if isinstance(a, DType) and a.is_float else a for n, a in x.attrs}
            if x.op == "constant" and x.dtype.is_float:
                new[x] = make("cast", (x,), dtype=dt.float64)
            elif magnitude and x.op in ("sub", "neg"):
                operands = [new[i] for i in x.inputs]
                new[x] = operands[0] if x.op == "neg" else make("add", operands)
            else:
                new[x] = make(x.op, [new[i] for i in x.inputs], **attrs)
    return new[v]


WIDE: dict[Value, Value] = {}


def check(
    problems: Sequence[Problem], target: str, threads: int, seed: int = 0, shuffled: bool = False
) -> Executable:
    """Compile all problems for a target and compare; ``shuffled``: also chunk by chunk in random orders."""
    rng = np.random.default_rng(seed)
    outputs = list(dict.fromkeys(p.value for p in problems))
    terms = {p.value: p.terms for p in problems}
    leaves = [v for v in topological(outputs) if v.op == "input"]
    arrays = {v: draw(rng, v) for v in leaves}
    with settings.override(target=target, threads=threads):
        executable = compiler.compile(leaves, outputs)
        assert executable.fallbacks == []
        for kernel in executable.names:
            verify(kernel)
        runs = [native(executable, [arrays[v] for v in leaves])]
        if shuffled:
            runs.append(run_in_random_order(executable, [arrays[v] for v in leaves], rng))
    for n, v in enumerate(outputs):
        want, allowed = expected(v, arrays, terms[v])
        for results in runs:
            got = results[n]
            good = got == want if allowed is None else np.abs(got.astype(np.float64) - want) <= allowed
            assert np.all(good), (
                f"{v}: {np.sum(~good)} of {good.size} differ, first at {np.argwhere(~good)[0]}"
            )
    return executable


def expected(v: Value, arrays: dict[Value, Array], terms: int) -> tuple[Array, Array | None]:
    if not v.dtype.is_float:
        return evaluate([v], arrays)[0], None
    exact, size = wide(v, False), wide(v, True)
    bound = {
        x: arrays[WIDE.get(x, x)].astype(x.dtype.numpy) for x in topological([exact, size]) if x.op == "input"
    }
    want, magnitude = evaluate([exact, size], bound)
    kind = np.float32 if v.dtype.bits == 16 else v.dtype.numpy
    error = float(ml_dtypes.finfo(kind).eps) * (4 + 2 * np.sqrt(terms)) * np.abs(magnitude)
    return want, error + np.abs(want) * float(ml_dtypes.finfo(v.dtype.numpy).eps) + float(
        ml_dtypes.finfo(kind).tiny
    )


# ---- dot ---------------------------------------------------------------------------------------------------


def matmul(m: int, n: int, k: int, layout: int, dtype: DType) -> Problem:
    """One of the four transpositions."""
    a = input_value(dtype, (k, m) if layout & 1 else (m, k))
    b = input_value(dtype, (n, k) if layout & 2 else (k, n))
    return Problem(build.dot(a, b, ((0 if layout & 1 else 1,), (1 if layout & 2 else 0,))), k)


@both
def test_every_size_in_every_transposition(target: str, threads: int) -> None:
    problems = [matmul(s, 71 - s, 1 + 37 * s % 70, s, dt.float32) for s in range(1, 71)]
    problems += [
        matmul(s, s, s, s // 16, dt.float32) for s in (1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 48, 49, 64, 65)
    ]
    check(problems, target, threads, shuffled=threads == 2)


@levels
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_every_type(target: str, dtype: DType) -> None:
    sizes = [
        (1, 1, 1),
        (5, 7, 3),
        (17, 33, 9),
        (70, 3, 41),
        (3, 70, 64),
        (1, 40, 50),
        (40, 1, 50),
        (33, 35, 130),
    ]
    problems = [matmul(m, n, k, layout, dtype) for m, n, k in sizes for layout in range(4)]
    check(problems, target, 2)


@levels
@pytest.mark.parametrize("dtype", [dt.float16, dt.bfloat16, dt.int8], ids=str)
def test_results_of_a_wider_type(target: str, dtype: DType) -> None:
    result = dt.int32 if dtype.is_integer else dt.float32
    problems = []
    for m, n, k in ((5, 7, 3), (17, 33, 90), (64, 64, 64)):
        a, b = input_value(dtype, (m, k)), input_value(dtype, (n, k))
        problems.append(Problem(build.dot(a, b, ((1,), (1,)), dtype=result), k))
    check(problems, target, 1)


def general(rng: np.random.Generator) -> Problem:
    """A contraction as einsum writes them: up to two batch, two free and two contracted axes, in any order."""
    sizes = (1, 2, 3, 5, 7, 8, 11, 13, 16, 17)
    batch, contract = (int(rng.integers(0, 3)), int(rng.integers(0, 3)))
    free = [int(rng.integers(0, 3)) for _ in range(2)]
    shared = (
        [int(rng.choice(sizes[:6])) for _ in range(batch)],
        [int(rng.choice(sizes)) for _ in range(contract)],
    )
    operands, places = [], []
    for count in free:
        axes = [*shared[0], *shared[1], *(int(rng.choice(sizes)) for _ in range(count))]
        order = [int(i) for i in rng.permutation(len(axes))]
        operands.append(input_value(dt.float32, [axes[i] for i in order]))
        place = [order.index(i) for i in range(len(axes))]
        places.append((place[:batch], place[batch : batch + contract]))
    (lb, lc), (rb, rc) = places
    return Problem(build.dot(*operands, (lc, rc), (lb, rb)), prod(shared[1]))


@levels
@pytest.mark.parametrize("seed", range(3))
def test_any_axes_in_any_order(target: str, seed: int) -> None:
    rng = np.random.default_rng([seed, 5])
    problems = []
    while len(problems) < 30:
        p = general(rng)
        if p.value.type.size * p.terms <= 200_000:
            problems.append(p)
    check(problems, target, 1 + seed % 2, seed)


@both
def test_columns_over_several_axes_are_cut_at_whole_rows(target: str, threads: int) -> None:
    """Blocks of N are multiples of the trailing axes, and may be narrower than the register tile was meant to be."""
    problems = []
    for trailing in (3, 7, 9, 20):
        x = input_value(dt.float32, (97, 2, 100))
        y = input_value(dt.float32, (12, trailing, 97))
        problems.append(Problem(build.dot(x, y, ((0,), (2,))), 97))
    check(problems, target, threads)


def situations(sizes: Iterable[int]) -> Iterator[Situation]:
    for size, m, rows, unit, k in itertools.product(
        sizes, (1, 3, 5, 200), (1, 4, 9, 43), (1, 3, 7, 20, 33), (5, 97, 2000)
    ):
        for a, b, inner in (
            ("plain", "plain", False),
            ("along", "along", False),
            ("computed", "computed", True),
        ):
            yield Situation(
                "float", size, 3, m, rows * unit, k, a, b, inner, True, unit, unit, 0, inner, k, False
            )


def test_register_tiles_fit_into_their_blocks() -> None:
    for wide, threads, fmas in itertools.product((True, False), (1, 2, 8), (1.0, 2.0)):
        machine = Machine(64 if wide else 32, 32 if wide else 16, 32 << 10, 1 << 20, threads, fmas=fmas)
        for s in situations((4, 8)):
            tiling = choose(machine, s)
            columns = 1 if tiling.variant == "inner" else tiling.lanes
            assert (tiling.nr - 1) * columns < tiling.nc <= s.n
            assert tiling.mr <= tiling.mc <= s.m
            assert s.allows(tiling, machine)


def test_little_is_computed_twice() -> None:
    """Register tiles and blocks that overlap at the end of a range compute some elements again."""
    for m, n, k in ((64, 64, 64), (512, 512, 512), (256, 65, 128), (300, 80, 500), (128, 208, 96)):
        for fmas in (1.0, 2.0):
            machine = Machine(64, 32, 32 << 10, 1 << 20, 1, fmas=fmas)
            s = Situation("float32", 4, 1, m, n, k, "plain", "plain", False, True, 1, 1, 0, False, k, False)
            t = choose(machine, s)
            rows = -(-m // t.mc) * -(-t.mc // t.mr) * t.mr
            columns = -(-n // t.nc) * -(-t.nc // (t.nr * t.lanes)) * min(t.nr * t.lanes, -(-t.nc // 16) * 16)
            assert rows * columns <= 1.06 * m * -(-n // 16) * 16, (m, n, k, fmas, str(t))


def test_lanes_run_along_k_where_packing_costs_more() -> None:
    """One row times a matrix whose rows lie along k is read in place, whatever the size of L1."""
    for l1 in (16 << 10, 32 << 10, 48 << 10):
        s = Situation(
            "float32", 4, 1, 1, 4096, 1024, "plain", "computed", True, True, 1, 1, 0, False, 1024, False
        )
        assert choose(Machine(64, 32, l1, 1 << 20, 1), s).variant == "inner"


def test_a_row_times_laid_out_weights_waits_for_the_second_cache() -> None:
    """Sixteen vectors for sixteen products in each step: such a row is worth a second thread."""
    row = Situation(
        "float32",
        4,
        1,
        1,
        512,
        128,
        "plain",
        "computed",
        True,
        True,
        1,
        1,
        0,
        False,
        128,
        False,
        settled=True,
    )
    assert choose(Machine(64, 32, 48 << 10, 1 << 20, 2, fmas=2.0), row).nc == 256


def test_a_core_that_waits_for_rows_copies_them_or_cuts_them_shorter() -> None:
    """With two multiplications a cycle, rows along k that stay in L1 neither whole nor beside each other are waited for."""

    def situation(m: int, n: int, k: int) -> Situation:
        return Situation(
            "float32", 4, 1, m, n, k, "plain", "computed", True, True, 1, 1, 0, False, k, False
        )  # fmt: skip

    twice, once = (Machine(64, 32, l1, 1 << 20, 1, fmas=f) for l1, f in ((48 << 10, 2.0), (32 << 10, 1.0)))
    many = choose(twice, situation(64, 8192, 2048))
    assert many.variant == "columns" and many.pack_b
    # the other core has time to read rows again, as long as few read them
    assert choose(once, situation(16, 8192, 2048)).variant == "inner"
    few = situation(16, 2048, 1024)
    assert choose(twice, few).variant == "inner"
    assert cycles(twice, few, 2) < cycles(twice, situation(16, 2048, 2048), 1)


@machines
def test_long_contractions_run_in_pieces(threads: int) -> None:
    sizes = ((4, 6, 5000), (1, 1, 4096), (3, 17, 2003), (20, 16, 1536), (1, 300, 3000))
    problems = [matmul(m, n, k, layout, dt.float32) for m, n, k in sizes for layout in range(4)]
    a, b = input_value(dt.float32, (6, 500, 9)), input_value(dt.float32, (6, 500, 7))
    problems.append(Problem(build.dot(a, b, ((0, 1), (0, 1))), 3000))
    executable = check(problems, "host", threads, shuffled=True)
    assert "sum of pieces" in executable.stage_text("plan")


def test_phases_of_a_dilated_convolution_are_joined_in_whole_vectors() -> None:
    """A loop over one phase of a row would store every second element."""
    x, w = input_value(dt.float32, (2, 4, 16, 16)), input_value(dt.float32, (8, 4, 3, 3))
    y = make(
        "conv", (x, w), stride=(1, 1), padding=((1, 2), (1, 2)), lhs_dilation=(2, 2), rhs_dilation=(1, 1),
        groups=1, dtype=dt.float32,
    )  # fmt: skip
    executable = check([Problem(y, 36)], "host", 1)
    (joined,) = [str(line) for line in executable.stage_text("kernels").splitlines() if "where(int32" in line]
    assert re.match(r" *b4\[i2 \+ ", joined)


@machines
def test_operands_beyond_the_caches(threads: int) -> None:
    problems = [matmul(130, 700, 1024, layout, dt.float32) for layout in range(4)]
    assert "prefetch" in check(problems, "host", threads).stage_text("kernels")


def test_tiles_ask_for_what_is_read_next() -> None:
    """In place a tile asks for the next columns of its row of k, where B is copied for the rows of the next block."""
    here, _ = (
        check([matmul(64, 1050, 700, layout, dt.float32)], "host", 1).stage_text("kernels")
        for layout in (0, 2)
    )
    assert re.search(r"prefetch b\d+\[.*k0 \* 1050", here)
    for kind in (dt.float64, dt.bfloat16, dt.float16):
        problems = [matmul(m, 1050, 700, layout, kind) for m in (9, 40, 64) for layout in (0, 2)]
        check(problems, "host", 1)
    settled = np.random.default_rng(2).standard_normal((1050, 700)).astype(np.float32)
    for rows in (5, 13, 40, 130):
        x = np.random.default_rng(rows).standard_normal((rows, 700)).astype(np.float32)
        weight = tw.asarray(settled)
        product = tw.jit(lambda x, w=weight: x @ w.T)
        with tw.no_grad():
            np.testing.assert_allclose(product(tw.asarray(x)).numpy(), x @ settled.T, rtol=1e-4, atol=1e-4)


@levels
def test_tiles_ask_for_what_a_long_epilogue_meets(target: str) -> None:
    """Strips of rows, in equal tiles or in tiles that overlap; what is updated in place is updated once."""
    rng = np.random.default_rng(7)
    for m, n, k in ((1536, 512, 40), (1530, 520, 24), (1531, 514, 5)):
        x, w, h, moment = (input_value(dt.float32, shape) for shape in ((m, k), (k, n), (m, n), (m, n)))
        total = build.add(build.dot(x, w, ((1,), (0,))), h)
        bent = build.mul(build.unary("tanh", total), build.unary("exp", build.unary("neg", build.mul(h, h))))
        mixed = build.add(build.mul(moment, moment), build.mul(bent, bent))
        arrays = [rng.standard_normal(v.shape).astype(np.float32) for v in (x, w, h, moment)]
        with settings.override(target=target, threads=1):
            executable = compiler.compile([x, w, h, moment], [total, mixed], donated={3: 1})
            for kernel in executable.names:
                verify(kernel)
            found = native(executable, arrays)
        text = executable.stage_text("kernels")
        wide = [a.astype(np.float64) for a in arrays]
        sums = wide[0] @ wide[1] + wide[2]
        expected = sums, wide[3] ** 2 + (np.tanh(sums) * np.exp(-(wide[2] ** 2))) ** 2
        for got, want in zip(found, expected, strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)
        if (m, target) == (1536, "host"):
            assert re.search(r"for k0 in 0\.\.\d+:\n( +prefetch b\d+.*\n){3}", text)
            assert "for strip in" in text


def test_merged_heads_are_copied_along_their_features() -> None:
    """Rows of A that are made of heads far apart: a loop over heads, then vectors along each head's features."""
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 4, 24, 32)).astype(np.float32)
    w = rng.standard_normal((128, 40)).astype(np.float32)
    merged = tw.jit(lambda x, w: tw.permute(x, (0, 2, 1, 3)).reshape(2, 24, 128) @ w)
    got = merged(tw.asarray(x), tw.asarray(w)).numpy()
    np.testing.assert_allclose(got, x.transpose(0, 2, 1, 3).reshape(2, 24, 128) @ w, rtol=1e-4, atol=1e-4)
    text = merged.executable(tw.asarray(x), tw.asarray(w)).stage_text("kernels")
    assert "p0h" in text and "% 32" not in text


def test_idle_lanes_of_a_partial_vector_are_not_kept() -> None:
    executable = check([matmul(37, 10, 20, 0, dt.float32)], "host", 1)
    assert "select <" not in executable.stage_text("llvm")


@both
def test_one_row_and_a_matrix_beyond_the_caches(target: str, threads: int) -> None:
    sizes = ((1, 1203, 1003), (1, 1100, 3000), (1, 2061, 512))
    problems = [matmul(*size, layout, dt.float32) for size in sizes for layout in range(4)]
    problems += [matmul(1, 700, 601, 0, dt.float64), *around(np.random.default_rng(5), 1, 1300, 1001)]
    executable = check(problems, target, threads, shuffled=True)
    assert "rows 1x8" in executable.stage_text("plan")


# ---- work before and after -----------------------------------------------------------------------------------


def around(rng: np.random.Generator, m: int, n: int, k: int) -> list[Problem]:
    """A contraction of operands that are not simply stored, and with an epilogue."""

    def leaf(*shape: int, dtype: DType = dt.float32) -> Value:
        return input_value(dtype, shape)

    def linear(x: Value, w: Value) -> Value:
        return build.dot(x, w, ((1,), (0,)))

    zero = build.full(0, dt.float32, (m, n))
    x, w = leaf(m, k), leaf(k, n)
    bias, residual = leaf(n), leaf(m, n)
    padded = build.pad(leaf(m - 1, k), (1, 0), (0, 0), (0, 0), build.full(0, dt.float32, ()))
    sliced = build.slice_(leaf(2 * m + 1, k + 3), (1, 2), (2 * m + 1, k + 2), (2, 1))
    tokens = make("gather", (leaf(9, k), make("iota", (), shape=(m,), axis=0, dtype=dt.int32)), axes=(0,))
    values = [
        make("maximum", (build.add(linear(x, w), bias), zero)),
        build.add(build.mul(linear(x, w), 0.5), residual),
        linear(build.neg(x), build.permute(leaf(n, k), (1, 0))),
        linear(build.cast(leaf(m, k, dtype=dt.bfloat16), dt.float32), w),
        linear(padded, w),
        linear(sliced, make("flip", (w,), axes=(0,))),
        build.reshape(linear(build.reshape(leaf(k, m), (m, k)), w), (n, m)),
        build.add(linear(x, w), build.permute(leaf(n, m), (1, 0))),
    ]
    if m <= 9:
        values.append(linear(tokens, w))
    return [Problem(v, k) for v in values]


@levels
@pytest.mark.parametrize(("m", "n", "k"), [(5, 7, 3), (9, 40, 33), (33, 17, 64), (64, 130, 20)])
def test_prologues_and_epilogues(target: str, m: int, n: int, k: int) -> None:
    check(around(np.random.default_rng(m), m, n, k), target, 2, shuffled=True)


@levels
def test_a_long_epilogue(target: str) -> None:
    """More work per element than is unrolled over a register tile."""
    problems = []
    for m, n, k in ((5, 7, 3), (33, 47, 20), (2, 100, 64)):
        h = build.dot(input_value(dt.float64, (m, k)), input_value(dt.float64, (k, n)), ((1,), (0,)))
        for c in (0.3, 0.2, 0.1):
            h = build.unary("tanh", build.add(build.mul(h, 0.5), c))
        problems.append(h)
    leaves = [v for v in topological(problems) if v.op == "input"]
    arrays = [draw(np.random.default_rng(0), v) for v in leaves]
    with settings.override(target=target):
        executable = compiler.compile(leaves, problems)
        for kernel in executable.names:
            verify(kernel)
        results = native(executable, arrays)
    for got, want in zip(results, evaluate(problems, dict(zip(leaves, arrays, strict=True))), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-13)


@both
@pytest.mark.parametrize(
    ("m", "n", "k"), [(128, 784, 128), (130, 176, 150), (40, 48, 400), (1030, 272, 96), (16, 2048, 64)]
)
def test_a_long_epilogue_trails(target: str, threads: int, m: int, n: int, k: int) -> None:
    """A tile is finished in the next tile's steps of k: each vector once, whatever tiles and blocks share, and the last."""
    rng = np.random.default_rng(m)
    x, y = input_value(dt.float32, (k, m)), input_value(dt.float32, (k, n))
    p, first, second = (input_value(dt.float32, (m, n)) for _ in range(3))
    rate = input_value(dt.float32, ())
    g = build.dot(x, y, ((0,), (0,)))
    one = build.add(build.mul(first, 0.9), build.mul(g, 0.1))
    two = build.add(build.mul(second, 0.99), build.mul(build.mul(g, g), 0.01))
    step = build.div(one, build.add(build.mul(build.unary("sqrt", two), 1.5), 1e-4))
    new = build.sub(p, build.mul(build.broadcast(build.mul(rate, 0.1), (m, n)), step))
    leaves = [x, y, p, first, second, rate]
    arrays = [np.abs(rng.standard_normal(v.shape)).astype(np.float32) for v in leaves]
    with settings.override(target=target, threads=threads):
        executable = compiler.compile(leaves, [new, one, two], donated={2: 0, 3: 1, 4: 2})
        for kernel in executable.names:
            verify(kernel)
        found = native(executable, arrays)
        shuffled = run_in_random_order(executable, arrays, rng)
    a, b, w, u, v, r = (array.astype(np.float64) for array in arrays)
    sums = a.T @ b
    u, v = 0.9 * u + 0.1 * sums, 0.99 * v + 0.01 * sums**2
    for results in (found, shuffled):
        for got, want in zip(results, (w - 0.1 * r * u / (1.5 * np.sqrt(v) + 1e-4), u, v), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    if (
        target == "host" and HOST.name == "avx512" and threads == 1
    ):  # blocks of two threads may be a tile each
        text = executable.stage_text("kernels")
        assert re.search(r"for piece in 0\.\.\d+:\n +for k0 in piece", text), text
        assert "let fixed0: float32 = b" in text


@both
def test_columns_are_copied_in_turn(target: str, threads: int) -> None:
    """While a tile of columns multiplies, the next one is copied: from lines along either range, also where squares overlap."""
    sizes = ((128, 256, 784), (60, 100, 530), (256, 128, 784), (33, 70, 1001))
    for kind in (dt.float32, dt.float64):
        problems = [matmul(*size, layout, kind) for size in sizes for layout in (2, 3)]
        executable = check(problems, target, threads, shuffled=threads == 2)
        if target == "host" and threads == 1 and HOST.name == "avx512":
            assert "(nt + 1) % 2" in executable.stage_text("kernels")


def test_columns_that_are_copied_in_turn_spread_over_the_caches() -> None:
    """Lines a power of two apart would push out what is multiplied meanwhile."""
    for k in (784, 1024, 640):
        executable = check([matmul(128, 256, k, 2, dt.float32)], "host", 1)
        assert ("(nt + 1) % 2" in executable.stage_text("kernels")) <= (k not in (1024, 640))


@both
@pytest.mark.parametrize("layout", [0, 2])
def test_columns_that_are_laid_out_before_are_not_copied_in_turn(
    target: str, threads: int, layout: int
) -> None:
    """Weights that a program only reads lie in the order of the tiles: no tile writes there, nor takes them for two panels."""
    rng = np.random.default_rng(0)
    for size in ((256, 512, 528), (512, 512, 784), (200, 96, 1001)):
        problem = matmul(*size, layout, dt.float32)
        leaves = list(problem.value.inputs)
        arrays = {v: draw(rng, v) for v in leaves}
        with settings.override(target=target, threads=threads):
            executable = compiler.compile(leaves, [problem.value], settled=[1])
            for kernel in executable.names:
                verify(kernel)
            (found,) = native(executable, [arrays[v] for v in leaves])
        want, allowed = expected(problem.value, arrays, problem.terms)
        assert allowed is not None and np.all(np.abs(found - want) <= allowed)


# ---- convolution -----------------------------------------------------------------------------------------------


def convolution(rng: np.random.Generator, rank: int) -> Problem | None:
    def pick(*items: int) -> int:
        return int(rng.choice(items))

    groups = pick(1, 1, 1, 2, 3)
    channels, filters = groups * pick(1, 2, 3, 8), groups * pick(1, 2, 5, 16)
    places = [pick(1, 3, 5, 8, 11) for _ in range(rank)]
    kernel = [pick(1, 2, 3, 4) for _ in range(rank)]
    x = input_value(dt.float32, (pick(1, 2, 3), channels, *places))
    w = input_value(dt.float32, (filters, channels // groups, *kernel))
    try:
        v = make(
            "conv", (x, w), stride=tuple(pick(1, 1, 2, 3) for _ in places),
            padding=tuple((pick(0, 1, 2, -1), pick(0, 1, 2)) for _ in places),
            lhs_dilation=tuple(pick(1, 1, 2, 3) for _ in places), rhs_dilation=tuple(pick(1, 1, 2) for _ in places),
            groups=groups, dtype=dt.float32,
        )  # fmt: skip
    except ValueError:  # the kernel is larger than the image
        return None
    terms = channels // groups * prod(kernel)
    return Problem(v, terms) if 0 < v.type.size * terms < 100_000 else None


def convolutions(seed: int, count: int) -> list[Problem]:
    rng = np.random.default_rng([seed, 9])
    found: list[Problem] = []
    while len(found) < count:
        p = convolution(rng, 1 + len(found) % 3 if len(found) % 3 else 2)
        if p is not None:
            found.append(p)
    return found


@both
def test_convolutions(target: str, threads: int) -> None:
    check(convolutions(threads, 24), target, threads, shuffled=threads == 2)


@pytest.mark.parametrize("seed", range(2))
def test_convolutions_backward(seed: int) -> None:
    problems = []
    for p in convolutions(seed + 10, 8):
        g = input_value(dt.float32, p.value.shape)
        for v in vjp([p.value], [g], p.value.inputs):
            assert v is not None
            problems.append(Problem(v, p.value.type.size * p.terms))
    check(problems, "host", 1 + seed)


@levels
def test_convolutions_of_other_types(target: str) -> None:
    problems = []
    for dtype in (dt.float64, dt.bfloat16, dt.int32):
        x, w = input_value(dtype, (2, 3, 9, 7)), input_value(dtype, (4, 3, 3, 2))
        v = make(
            "conv", (x, w), stride=(2, 1), padding=((1, 1), (0, 1)), lhs_dilation=(1, 1), rhs_dilation=(1, 2),
            groups=1, dtype=dtype,
        )  # fmt: skip
        problems.append(Problem(v, 18))
    check(problems, target, 1)


# ---- edges -----------------------------------------------------------------------------------------------------


def test_nothing_to_add_and_nothing_to_compute() -> None:
    a, b = input_value(dt.float32, (3, 0)), input_value(dt.float32, (0, 4))
    c = input_value(dt.float32, (0, 5))
    outputs = [build.dot(a, b, ((1,), (0,))), build.dot(c, input_value(dt.float32, (5, 2)), ((1,), (0,)))]
    leaves = [v for v in topological(outputs) if v.op == "input"]
    executable = compiler.compile(leaves, outputs)
    zeros, empty = native(executable, [np.zeros(v.shape, np.float32) for v in leaves])
    np.testing.assert_array_equal(zeros, np.zeros((3, 4), np.float32))
    assert empty.shape == (0, 2)


@levels
def test_special_numbers_pass_through(target: str) -> None:
    """Padding and tiles that overlap bring no NaN in and lose none."""
    a, b = input_value(dt.float32, (19, 21)), input_value(dt.float32, (21, 23))
    x = np.ones((19, 21), np.float32)
    x[3, 4], x[7, 0], x[18, 20] = np.nan, np.inf, -np.inf
    with settings.override(target=target):
        (got,) = native(
            compiler.compile([a, b], [build.dot(a, b, ((1,), (0,)))]), [x, np.ones((21, 23), np.float32)]
        )
    np.testing.assert_array_equal(got, np.broadcast_to(x.sum(1, keepdims=True), (19, 23)))


def test_complex_contractions_are_not_native() -> None:
    z = input_value(dt.complex64, (3, 3))
    executable = compiler.compile([z], [build.dot(z, z, ((1,), (0,)))])
    assert [f.reason for f in executable.fallbacks] == ["complex elements"]
    assert issubclass(Unsupported, Exception)


def test_without_an_instruction_for_fma_products_are_rounded_first() -> None:
    """Emulating the single rounding of fma costs thirty times the product and the sum."""
    if not HOST.triple.startswith("x86_64"):
        pytest.skip("the level without fma is x86-64's")
    problems = [matmul(30, 40, 50, layout, kind) for layout in range(4) for kind in (dt.float32, dt.float64)]
    assert "fma(" not in check(problems, "generic", 1).stage_text("kernels")
    if HOST.has_fma:
        assert "fma(" in check(problems, "host", 1).stage_text("kernels")


# ---- packed elements ------------------------------------------------------------------------------------------------

PACKED = [
    (dt.bfloat16, dt.float32), (dt.bfloat16, dt.bfloat16), (dt.int8, dt.int32), (dt.int8, dt.int8), (dt.uint8, dt.int32),
    (dt.uint8, dt.uint32),
]  # fmt: skip


def packed_dots(element: DType, result: DType) -> list[Problem]:
    """Products of every orientation, of sizes at which words are whole, not whole, few and many."""
    out = []
    for m, n, k in (
        (1, 40, 64),
        (40, 1, 64),
        (5, 7, 9),
        (33, 65, 130),
        (3, 10, 784),
        (64, 10, 28),
        (17, 33, 6001),
        (2, 3, 8192),
    ):
        for ta, tb in itertools.product((0, 1), (0, 1)):
            a = input_value(element, (k, m) if ta else (m, k))
            b = input_value(element, (n, k) if tb else (k, n))
            v = build.dot(a, b, ((1 - ta,), (tb,)), dtype=result)
            if n % 2 == 0 and result is not dt.bfloat16:  # with an epilogue
                v = build.add(v, build.mul(v, v))
            out.append(Problem(v, k))
    batched = [input_value(element, s) for s in ((3, 9, 20), (3, 20, 21))]
    out.append(Problem(build.dot(*batched, ((2,), (1,)), ((0,), (0,)), dtype=result), 20))
    return out


@pytest.mark.parametrize(("element", "result"), PACKED, ids=str)
def test_packed_elements(element: DType, result: DType) -> None:
    executable = check(packed_dots(element, result), "host", 2)
    if f"{element}.{element}" in HOST.dots or (element is not dt.bfloat16 and HOST.dots & {"uint8.int8"}):
        text = executable.stage_text("kernels")
        assert "dotacc." in text and ": r uint32" in text


def test_packed_bytes_of_the_largest_magnitude_are_exact() -> None:
    """Every sum is as large as it gets, and so is what unsigned arithmetic on signed bytes has to be put right by."""
    for element in (dt.int8, dt.uint8):
        info = np.iinfo(element.numpy)
        for m, n, k in ((1, 16, 256), (24, 40, 256), (16, 4, 256)):
            for tb in (0, 1):
                a, b = input_value(element, (m, k)), input_value(element, (n, k) if tb else (k, n))
                v = build.dot(a, b, ((1,), (tb,)), dtype=dt.int32)
                executable = compiler.compile([a, b], [v])
                for x, y in itertools.product((info.min, info.max), repeat=2):
                    arrays = [np.full(static(i.shape), c, element.numpy) for i, c in ((a, x), (b, y))]
                    (got,) = native(executable, arrays)
                    assert np.all(got == k * int(x) * int(y))


def test_rows_whose_pieces_share_sets_are_copied() -> None:
    """A filter gradient over 16 images of 64 places: a row's pieces push each other out of L1 unless they are packed."""
    machine = Machine(64, 32, 48 << 10, 1 << 20, 1)
    s = Situation(
        "float32", 4, 1, 128, 576, 1024, "plain", "computed", True, True, 1, 9, 1024, True, 1024, False
    )
    assert not choose(machine, s).pack_a
    crowded = choose(machine, replace(s, apart=16))
    assert (crowded.variant, crowded.pack_a) == ("inner", True)
    assert s.allows(crowded, machine)

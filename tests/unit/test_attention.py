"""Attention that never holds the scores: its plan, its values at awkward sizes, its gradients, and when it is chosen.

Values are compared with plain NumPy in float64 at a tolerance that a float64 softmax meets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conformance.compare import run_compiled

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import compiler
from tilewright.autodiff.vjp import vjp
from tilewright.codegen import llvm
from tilewright.core import dtype as dt
from tilewright.core.settings import settings
from tilewright.functions import attention as functions
from tilewright.graph.attention import attention, decompose_attention
from tilewright.graph.build import permute, slice_
from tilewright.graph.ir import Value, input_value, make
from tilewright.graph.reference import evaluate
from tilewright.recipes.attention import choose_attention_tiling
from tilewright.recipes.machine import Machine
from tilewright.runtime.target import host_target

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(8)
BELOW = {"avx512": ["avx2", "sse", "generic"], "avx2": ["sse", "generic"], "sse": ["generic"]}
TARGETS = ["host", *BELOW.get(host_target().name, [])]


def leaves(*shape: int, keys: int | None = None, dtype: dt.DType = dt.float64) -> list[Value]:
    """Query, key, value and a cotangent."""
    *lead, t, d = shape
    return [input_value(dtype, (*lead, n, d)) for n in (t, keys or t, keys or t, t)]


def data(values: list[Value], scale: float = 1.0) -> list[Array]:
    return [(RNG.standard_normal(v.shape) * scale).astype(v.dtype.numpy) for v in values]  # type: ignore[arg-type]


def everything(operands: list[Value], scale: float, causal: bool) -> list[Value]:
    """The result, its log-sum-exp and all three gradients."""
    q, k, v, g = operands
    y = attention(q, k, v, scale, causal)
    found = vjp([y], [g], [q, k, v])
    assert None not in found
    return [y, attention(q, k, v, scale, causal, "lse"), *(x for x in found if x is not None)]


SIZES = [
    ((2, 3), 1, 1, 8), ((1,), 31, 33, 24), ((2,), 47, 200, 64), ((), 200, 47, 17), ((1, 2), 129, 257, 8),
    ((1,), 260, 260, 100), ((1,), 64, 64, 256), ((2,), 64, 64, 32), ((3,), 40, 56, 16), ((1,), 56, 24, 48),
]  # fmt: skip


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("lead", "t", "s", "d"), SIZES)
def test_values_and_gradients_at_awkward_sizes(
    lead: tuple[int, ...], t: int, s: int, d: int, causal: bool
) -> None:
    operands = leaves(*lead, t, d, keys=s)
    outputs = everything(operands, scale=0.3, causal=causal)
    arrays = data(operands)
    # the decomposition's gradients: another route than the recipe's and than the reference's
    q, k, v, g = operands
    plain = decompose_attention(outputs[0])
    want = evaluate([plain, decompose_attention(outputs[1])], dict(zip(operands, arrays, strict=True)))
    slopes = [x for x in vjp([plain], [g], [q, k, v]) if x is not None]
    want += evaluate(slopes, dict(zip(operands, arrays, strict=True)))
    for got, expected in zip(run_compiled(operands, outputs, arrays), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12 * (1 + t) * d)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("t", "s", "d"), [(64, 64, 32), (48, 80, 16), (24, 100, 40), (130, 66, 24)])
def test_float32_on_every_instruction_set(target: str, t: int, s: int, d: int) -> None:
    for causal in (False, True):
        operands = leaves(3, t, d, keys=s, dtype=dt.float32)
        arrays = data(operands)
        wide = leaves(3, t, d, keys=s)
        with settings.override(target=target):
            found = run_compiled(operands, everything(operands, 0.3, causal), arrays)
        exact = dict(zip(wide, [a.astype(np.float64) for a in arrays], strict=True))
        for got, want in zip(found, evaluate(everything(wide, 0.3, causal), exact), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-4, atol=2e-5 * np.abs(want).max())


def test_causal_sums_leave_out_what_a_tile_of_queries_does_not_see() -> None:
    """Values and cotangents that no query of a tile meets are not multiplied by weights of zero: 0 times NaN would be NaN."""
    operands = leaves(2, 64, 32, dtype=dt.float32)
    arrays = data(operands)
    q, k, v, g = operands
    y = attention(q, k, v, 0.2, True)
    dq, dv = vjp([y], [g], [q, v])
    assert dq is not None and dv is not None
    clean = run_compiled(operands, [y, dv], arrays)
    arrays[2][:, 48:] = np.nan
    (got,) = run_compiled(operands, [y], arrays)
    assert np.array_equal(got[:, :48], clean[0][:, :48]) and np.isnan(got[:, 48:]).all()
    arrays = [np.array(a) for a in data(operands)]
    (clean_dv,) = run_compiled(operands, [dv], arrays)
    arrays[3][:, :16] = np.nan
    (got_dv,) = run_compiled(operands, [dv], arrays)
    assert np.isnan(got_dv[:, :16]).all() and np.array_equal(got_dv[:, 16:], clean_dv[:, 16:])


@pytest.mark.parametrize("causal", [False, True])
def test_no_buffer_has_the_size_of_the_scores(causal: bool) -> None:
    heads, t, d = 2, 1024, 16
    operands = leaves(heads, t, d, dtype=dt.float32)
    outputs = everything(operands, scale=0.25, causal=causal)
    executable = compiler.compile(operands, outputs)
    scores = heads * t * t * 4
    assert executable.program is not None and executable.fallbacks == []
    assert executable.schedule.arena_bytes < scores / 10
    assert max(llvm.scratch_bytes(k) for k in executable.names) < scores / 10
    assert [g.kind for g in executable.groups].count("attention") == 2


def test_one_pass_gives_all_results_of_one_set_of_operands() -> None:
    operands = leaves(2, 64, 16)
    executable = compiler.compile(operands, everything(operands, scale=0.25, causal=True))
    held = [sorted(v.op for v in g.members) for g in executable.groups if g.kind == "attention"]
    assert held == [["attention"] * 2, ["attention_grad"] * 3]
    q, k, v = operands[:3]
    other = [attention(q, k, v, scale, True) for scale in (0.25, 0.5)]
    assert len(compiler.compile(operands, other).groups) == 2


@pytest.mark.parametrize(("b", "t", "h", "d"), [(2, 70, 3, 16), (24, 64, 4, 32)])
def test_heads_are_read_where_they_lie(b: int, t: int, h: int, d: int) -> None:
    packed = input_value(dt.float32, (b, t, 3, h, d))
    parts = []
    for i in range(3):
        part = slice_(packed, (0, 0, i, 0, 0), (b, t, i + 1, h, d))
        parts.append(make("reshape", (permute(part, (0, 2, 3, 1, 4)),), shape=(b, h, t, d)))
    out = attention(parts[0], parts[1], parts[2], 0.25, True)
    executable = compiler.compile([packed], [out])
    assert len(executable.schedule.steps) == 1 and executable.schedule.arena_bytes == 0
    # a head's rows lie apart: from beyond L2 they are asked for a task before
    beyond = 3 * parts[0].type.nbytes > executable.machine.l2 // 2
    assert ("prefetch" in executable.stage_text("kernels")) == beyond
    (array,) = data([packed])
    (got,), (want,) = run_compiled([packed], [out], [array]), evaluate([out], {packed: array})
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)


def test_large_scores_neither_overflow_nor_vanish() -> None:
    operands = leaves(1, 150, 16, dtype=dt.float32)
    arrays = data(operands, scale=30.0)  # scores up to many thousands
    outputs = everything(operands, scale=1.0, causal=False)
    wide = leaves(1, 150, 16)
    expected = evaluate(
        everything(wide, scale=1.0, causal=False),
        dict(zip(wide, [a.astype(np.float64) for a in arrays], strict=True)),
    )
    for got, want in zip(run_compiled(operands, outputs, arrays)[:2], expected[:2], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-2, atol=1e-2 * np.abs(want).max())


def test_nan_stays_in_its_row_and_masked_keys_are_not_seen() -> None:
    operands = leaves(1, 130, 16, dtype=dt.float32)
    arrays = data(operands)
    y = attention(operands[0], operands[1], operands[2], 0.25, True)
    (clean,) = run_compiled(operands[:3], [y], arrays[:3])
    arrays[0][0, 7] = np.nan
    (got,) = run_compiled(operands[:3], [y], arrays[:3])
    assert np.isnan(got[0, 7]).all() and np.array_equal(np.delete(got, 7, 1), np.delete(clean, 7, 1))
    arrays[0][0, 7] = 0
    arrays[1][0, 100:] = np.nan
    (got,) = run_compiled(operands[:3], [y], arrays[:3])
    assert np.isnan(got[0, 100:]).all()
    assert np.array_equal(np.delete(got[0, :100], 7, 0), np.delete(clean[0, :100], 7, 0))


@pytest.mark.parametrize("causal", [False, True])
def test_function_agrees_with_and_without_the_recipe(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = [RNG.standard_normal((2, 3, n, 24)) for n in (67, 67, 67)]

    def run() -> list[Array]:
        tensors = [tw.tensor(a, requires_grad=True) for a in arrays]
        out = F.scaled_dot_product_attention(tensors[0], tensors[1], tensors[2], is_causal=causal)
        (out * out).sum().backward()
        return [out.numpy(), *(x.grad.numpy() for x in tensors if x.grad is not None)]

    results = []
    for limit in (0, 1 << 60):
        monkeypatch.setattr(functions, "MIN_SCORES", limit)
        monkeypatch.setattr(functions, "MIN_CAUSAL_SCORES", limit)
        results.append(run())
    assert len(results[0]) == 4
    for tiled, plain in zip(*results, strict=True):
        np.testing.assert_allclose(tiled, plain, rtol=1e-10, atol=1e-12)


def test_leading_axes_broadcast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "MIN_SCORES", 0)
    q, k, v = (
        RNG.standard_normal((2, 3, 9, 8)),
        RNG.standard_normal((3, 9, 8)),
        RNG.standard_normal((1, 1, 9, 8)),
    )
    out = F.scaled_dot_product_attention(tw.tensor(q), tw.tensor(k), tw.tensor(v), scale=1.0).numpy()
    scores = q @ k.swapaxes(-1, -2)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(out, weights / weights.sum(-1, keepdims=True) @ v, rtol=1e-10)


def test_operands_that_do_not_fit_are_named() -> None:
    q, k = input_value(dt.float32, (2, 5, 8)), input_value(dt.float32, (2, 7, 4))
    with pytest.raises(ValueError, match=r"attention: query .*5, 8.* and key .*7, 4.* differ"):
        attention(q, k, k, 1.0, False)
    half = input_value(dt.float16, (2, 5, 8))
    with pytest.raises(TypeError, match="float32 and float64"):
        attention(half, half, half, 1.0, False)
    with pytest.raises(ValueError, match="not one of mix, lse"):
        attention(q, q, q, 1.0, False, "sum")


@pytest.mark.parametrize(
    "machine",
    [
        Machine(64, 32, 48 << 10, 1 << 20, 2),
        Machine(32, 16, 32 << 10, 1 << 18, 8),
        Machine(16, 32, 64 << 10, 1 << 20, 4),
        Machine(8, 16, 1 << 15, 1 << 18, 1),
    ],
)
@pytest.mark.parametrize("features", [1, 8, 40, 64, 80, 256])
def test_tiles_fit_registers_and_divide_panels(machine: Machine, features: int) -> None:
    for itemsize in (4, 8):
        for t, s in ((1, 1), (37, 1000), (4096, 4096)):
            x = choose_attention_tiling(machine, itemsize, 3, t, s, features)
            assert x.panel % x.rows == 0 and x.keys % x.key_rows == 0 and x.block % x.keys == 0
            for rows, vectors in ((x.keys, x.vectors), (x.rows, x.width), (x.key_rows, x.width)):
                assert rows * vectors + vectors + 1 <= machine.registers

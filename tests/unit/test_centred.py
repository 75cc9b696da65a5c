"""Sums of distances from a mean, block by block: compared with the reference, on every instruction set this machine can run."""

import numpy as np
import pytest
from compiled_steps import interpreted, native, run_in_random_order
from test_columns import agree, arrays_of
from test_rows_together import compiled, levels, text

from tilewright.autodiff.vjp import vjp
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.settings import settings
from tilewright.core.shape import Shape, static
from tilewright.graph import build
from tilewright.graph.distances import total_of
from tilewright.graph.ir import Value, input_value, make, topological
from tilewright.graph.reference import evaluate
from tilewright.lower import loops
from tilewright.lower.centred import block_length
from tilewright.passes.linear_sums import split_linear_sums
from tilewright.passes.pipeline import run_passes
from tilewright.recipes.machine import Machine
from tilewright.runtime.target import host_target

AXES = (0, 2, 3)


def moments(x: Value) -> tuple[Value, Value, Value]:
    """A channel's mean, its elements less the mean, and its variance."""
    shape = static(x.shape)
    share = shape[1] / float(np.prod(shape))
    mean = build.mul(build.reduce_sum(x, AXES), share)
    centred = build.sub(x, build.expand(mean, AXES, shape))
    return mean, centred, build.mul(build.reduce_sum(build.square(centred), AXES), share)


def batch_norm(x: Value, weight: Value, bias: Value) -> Value:
    shape = static(x.shape)
    _, centred, variance = moments(x)
    scale = build.mul(build.unary("rsqrt", build.add(variance, 1e-5)), weight)
    return build.add(build.mul(centred, build.expand(scale, AXES, shape)), build.expand(bias, AXES, shape))


def step(shape: Shape, dtype: DType = dt.float32) -> tuple[list[Value], list[Value]]:
    """A batch norm with all its gradients: leaves and outputs."""
    x, g = input_value(dtype, shape), input_value(dtype, shape)
    weight, bias = input_value(dtype, shape[1:2]), input_value(dtype, shape[1:2])
    y = batch_norm(x, weight, bias)
    return [x, g, weight, bias], [y, *[v for v in vjp([y], [g], [x, weight, bias]) if v is not None]]


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of any length in blocks of two steps."""
    monkeypatch.setattr(loops, "block_length", lambda nbytes, steps, machine: 2)


@levels
@pytest.mark.parametrize("shape", [(6, 3, 5, 7), (4, 2, 16, 16), (8, 5, 1, 33)], ids=str)
def test_a_batch_norm_and_its_gradients_by_blocks(target: str, shape: Shape, blocks: None) -> None:
    leaves, outputs = step(shape)
    with settings.override(cache_dir=None):
        executable = compiled(target, 1, leaves, outputs)
    assert "for part in" in text(executable)
    arrays = arrays_of(leaves)
    agree(native(executable, arrays), evaluate(outputs, dict(zip(leaves, arrays, strict=True))), 1e-4)


@pytest.mark.parametrize("dtype", [dt.float32, dt.float64], ids=str)
def test_blocks_stay_inside_their_memory(dtype: DType, blocks: None) -> None:
    leaves, outputs = step((4, 3, 3, 5), dtype)
    x = leaves[0]
    outputs.append(make("reduce_max", [x], axes=AXES))
    executable = compiled("host", 2, leaves, outputs)
    arrays = arrays_of(leaves)
    want = evaluate(outputs, dict(zip(leaves, arrays, strict=True)))
    for run in (native(executable, arrays), interpreted(executable, arrays)):
        agree(run, want, 1e-4)
    agree(run_in_random_order(executable, arrays, np.random.default_rng(0)), want, 1e-4)


@levels
@pytest.mark.parametrize("offset", [0.0, 1e3, -3e4, 1e6])
def test_a_variance_far_from_zero(target: str, offset: float, blocks: None) -> None:
    """As accurate as a pass that knows the mean, also where blocks lie far apart: no square of the mean is subtracted."""
    rng = np.random.default_rng(2)
    far = offset * np.linspace(1.0, 1.001, 16)[:, None, None, None]
    array = (rng.normal(size=(16, 2, 24, 24)) + far).astype(np.float32)
    x = input_value(dt.float32, array.shape)
    mean, centred, variance = moments(x)
    outputs = [mean, variance, build.reduce_sum(build.mul(centred, make("sin", [x])), AXES)]
    executable = compiled(target, 1, [x], outputs)
    assert "for part in" in text(executable)
    got = native(executable, [array])
    wide = array.astype(np.float64)
    exact = wide.var(axis=AXES)
    np.testing.assert_allclose(got[0], wide.mean(axis=AXES), rtol=3e-7, atol=1e-8)
    rounding = np.abs(wide).max() * 2.0**-24  # of the mean, which one pass with it has too
    assert np.all(np.abs(got[1] - exact) <= 1e-6 * exact + 2 * rounding**2)
    product = (wide - got[0][:, None, None].astype(np.float64)) * np.sin(wide)
    assert np.all(np.abs(got[2] - product.sum(axis=AXES)) <= 2e-6 * np.abs(product).sum(axis=AXES))


def test_special_numbers_come_out_as_without_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).normal(size=(8, 6, 4, 8)).astype(np.float32)
    array[0, 1, 0, 0], array[3, 2, 1, 1], array[1, 3], array[2, 4, 0, 0] = np.nan, np.inf, -np.inf, 1e30
    array[:, 5] = 7.0
    x = input_value(dt.float32, array.shape)
    outputs = list(moments(x)[::2])
    plain = native(compiled("host", 1, [x], outputs), [array])
    monkeypatch.setattr(loops, "block_length", lambda nbytes, steps, machine: 2)
    executable = compiled("host", 1, [x], outputs)
    assert "for part in" in text(executable)
    for got, want in zip(native(executable, [array]), plain, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


def test_long_rows_pass_in_blocks_and_back() -> None:
    """Rows that the second-level cache does not hold; what it holds at the end of a pass is read first in the next one."""
    l2 = host_target().l2
    leaves, outputs = step((3 * l2 // 4096, 32, 16, 16))
    executable = compiled("host", 1, leaves, outputs)
    assert "for part in" in text(executable)
    assert "for back in" in text(executable)
    arrays = arrays_of(leaves)
    agree(native(executable, arrays), evaluate(outputs, dict(zip(leaves, arrays, strict=True))), 1e-4)
    small = compiled("host", 1, *step((l2 // 4096, 32, 16, 16)))
    assert "for part in" not in text(small)


def test_lengths_of_blocks() -> None:
    machine = Machine(64, 32, 48 << 10, 1 << 20, 1)
    assert block_length(16 << 10, 32, machine) == 0  # the second-level cache holds the row
    assert block_length(16 << 10, 64, machine) == 1
    assert block_length(4 << 10, 256, machine) == 4
    assert block_length(784, 2048, machine) == 16
    assert block_length(784, 2039, machine) == 1
    assert block_length(100 << 10, 64, machine) == 1  # in the second-level cache
    assert block_length(500 << 10, 64, machine) == 0


# ---- sums of multiples -------------------------------------------------------------------------------------


def sums_over(outputs: list[Value]) -> list[str]:
    """What is summed, by the operation that gives it."""
    return sorted(v.inputs[0].op for v in topological(outputs) if v.op == "reduce_sum")


def test_a_batch_norm_s_mean_needs_no_pass_of_its_own() -> None:
    leaves, outputs = step((8, 3, 4, 4))
    assert "neg" in sums_over(outputs)
    # x, its gradient, distances, their squares, and their products with the gradient
    after = run_passes(outputs)
    assert sums_over(after) == ["input", "input", "mul", "mul", "sub"]
    arrays = arrays_of(leaves)
    values = dict(zip(leaves, arrays, strict=True))
    agree(evaluate(after, values), evaluate(outputs, values), 1e-5)


def test_sums_that_nobody_wants_stay_one() -> None:
    """Without a bias, and where the other term is no distance: terms may cancel one by one."""
    _, outputs = step((8, 3, 4, 4))
    assert sums_over(split_linear_sums(outputs[:3])) == sums_over(outputs[:3])
    x, y = (input_value(dt.float32, (64, 100)) for _ in range(2))
    a = build.expand(make("exp", [build.reduce_sum(x, (1,))]), (1,), (64, 100))
    outputs = [build.reduce_sum(v, (1,)) for v in (x, y, build.sub(build.mul(x, a), build.mul(y, a)))]
    assert split_linear_sums(outputs) == outputs


def test_half_types_are_summed_as_they_are() -> None:
    _, outputs = step((8, 3, 4, 4), dt.bfloat16)
    assert split_linear_sums(outputs) == outputs


def test_what_is_a_distance_from_a_mean() -> None:
    x = input_value(dt.float32, (64, 100))
    for factor, found in ((0.01, True), (0.02, False)):
        mean = build.mul(build.reduce_sum(x, (1,)), factor)
        total = total_of(build.sub(x, build.expand(mean, (1,), (64, 100))))
        assert (total is build.reduce_sum(x, (1,))) == found
    assert total_of(build.sub(build.square(x), build.expand(mean, (1,), (64, 100)))) is None

"""The whole pipeline: stages print and parse back, kernels keep the rules and mean what native code does, fallbacks say why."""

from __future__ import annotations

import re

import numpy as np
import pytest
from compiled_steps import equal_bits, interpreted, native
from fuzz.generator import random_graph
from small_models import MODELS, step

from tilewright import compiler
from tilewright.compiler import STAGES, Executable
from tilewright.core import dtype as dt
from tilewright.core.settings import settings
from tilewright.graph import build
from tilewright.graph.graph import Graph
from tilewright.graph.ir import Value, input_value, make
from tilewright.graph.reference import evaluate
from tilewright.kernel.digest import digest
from tilewright.kernel.text import parse_kernel, print_kernel
from tilewright.kernel.verify import verify
from tilewright.lower import lowering
from tilewright.runtime.statistics import stats
from tilewright.runtime.target import host_target

LEVELS = ["host", *(["generic"] if host_target().triple.startswith("x86_64") else [])]


@pytest.fixture(scope="module", params=list(MODELS))
def trained(request: pytest.FixtureRequest) -> Executable:
    """The executable of a training step."""
    function, arguments = step(request.param)
    executable = function.executable(*arguments)
    assert isinstance(executable, Executable)
    return executable


# ---- stages ----------------------------------------------------------------------------------------------------


def test_the_graph_of_a_step_parses_back(trained: Executable) -> None:
    text = trained.stage_text("graph")
    assert Graph.parse(text, trained.inputs) == Graph(trained.inputs, tuple(trained.final))
    assert Graph.parse(text).text() == text


def test_the_kernels_of_a_step_parse_back(trained: Executable) -> None:
    for kernel, name in trained.names.items():
        verify(kernel)
        assert parse_kernel(print_kernel(kernel)) == kernel
        assert name == f"k_{digest(kernel)}"
    listing = trained.stage_text("kernels")
    printed = [parse_kernel(text) for text in re.split(r"\n\n+(?=kernel )", listing)]
    assert [k.name for k in printed] == list(trained.names.values())
    assert [digest(k) for k in printed] == [digest(k) for k in trained.names]


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_something_of_every_kernel_or_value(trained: Executable, stage: str) -> None:
    text = trained.stage_text(stage)
    if stage in ("kernels", "llvm", "asm", "plan"):
        for name in trained.names.values():
            assert name in text
    if stage == "groups":
        assert text.count("group ") == len(trained.groups)
    if stage == "graph":
        assert text.startswith("graph(")
    if stage == "plan":
        assert "arena" in text.splitlines()[0]


def test_explain_shows_the_stages_before_machine_code(trained: Executable) -> None:
    text = trained.explain()
    for stage in ("graph", "groups", "plan", "kernels"):
        assert f"== {stage} ==\n{trained.stage_text(stage)}" in text


def test_an_unknown_stage_lists_the_known(trained: Executable) -> None:
    with pytest.raises(
        ValueError, match="unknown stage 'wgsl'; the stages are graph, groups, kernels, llvm, asm, plan"
    ):
        trained.stage_text("wgsl")


# ---- meaning ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "target"),
    [("mlp", "host"), ("cnn", "host"), ("mlp", LEVELS[-1])]
    + [pytest.param(*case, marks=pytest.mark.nightly) for case in (("gpt", "host"), ("cnn", LEVELS[-1]))],
)
def test_the_interpreter_the_reference_and_native_code_agree_on_a_step(name: str, target: str) -> None:
    """Three meanings of one step: the graph's, the kernels', the machine code's."""
    function, arguments = step(name)
    traced = function.executable(*arguments)
    with settings.override(target=target):
        executable = compiler.compile(traced.inputs, traced.outputs)
    rng = np.random.default_rng(0)
    arrays = []
    for v in traced.inputs:
        a = rng.uniform(0.1, 1, v.shape) if v.dtype.is_float else rng.integers(0, 5, v.shape)
        arrays.append(np.asarray(a).astype(v.dtype.numpy))
    with np.errstate(all="ignore"):
        wants = evaluate(traced.outputs, dict(zip(traced.inputs, arrays, strict=True)))
    for want, meant, got in zip(
        wants, interpreted(executable, arrays), native(executable, arrays), strict=True
    ):
        assert want.dtype == meant.dtype == got.dtype
        if want.dtype.kind == "f":
            np.testing.assert_allclose(got, meant, rtol=2e-5, atol=2e-5)
            np.testing.assert_allclose(got, want, rtol=2e-4, atol=2e-4)
        else:
            np.testing.assert_array_equal(got, meant)
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("seed", range(25))
def test_kernels_of_random_graphs_keep_the_rules(seed: int, target: str) -> None:
    case = random_graph(seed + 70_000, 15 + seed)
    with settings.override(target=target):
        executable = compiler.compile(case.inputs, case.outputs)
    for kernel in executable.names:
        verify(kernel)
        assert parse_kernel(print_kernel(kernel)) == kernel
    assert Graph.parse(executable.stage_text("graph")).text() == executable.stage_text("graph")


def test_the_interpreter_agrees_on_random_graphs() -> None:
    cases = (random_graph(seed + 80_000, 10) for seed in range(40))
    small = [c for c in cases if sum(v.type.size for v in c.arrays) <= 4_000]
    assert len(small) >= 10
    for case in small[:12]:
        executable = compiler.compile(case.inputs, case.outputs)
        arrays = [case.arrays[v] for v in case.inputs]
        for v, meant in zip(case.outputs, interpreted(executable, arrays), strict=True):
            want = case.arrays[v]
            kind = np.complex128 if want.dtype.kind == "c" else np.float64
            assert np.all(np.abs(meant.astype(kind) - want.astype(kind)) <= case.tolerance(v)), case.seed


# ---- one native call -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_jitted_step_is_one_native_call(name: str) -> None:
    function, arguments = step(name)
    function(*arguments)
    before = stats.snapshot()
    for _ in range(5):
        function(*arguments)
    since = stats.since(before)
    assert (since["native_calls"], since["host_calls"], since["kernels_compiled"]) == (5, 0, 0)


# ---- fallbacks -------------------------------------------------------------------------------------------------


def leaf(*shape: int, dtype: dt.DType = dt.float32) -> Value:
    return input_value(dtype, shape)


def complex_chain() -> tuple[Value, Value, Value]:
    """Native work, complex work, native work."""
    x, y = leaf(5, 4), leaf(5, 4)
    z = make("complex", (build.unary("exp", x), build.mul(x, y)))
    return x, y, build.reduce_sum(make("abs", (make("mul", (z, z)),)), (1,))


def test_complex_elements_fall_back_with_their_reason_and_the_right_result() -> None:
    x, y, out = complex_chain()
    executable = compiler.compile([x, y], [out])
    assert executable.fallbacks
    assert {f.reason for f in executable.fallbacks} == {"complex elements"}
    assert "complex elements" in executable.stage_text("plan")
    assert "# complex elements" in executable.stage_text("groups")
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((5, 4)).astype(np.float32) for _ in range(2))
    (got,) = native(executable, [a, b])
    z = np.exp(a) + 1j * (a * b)
    np.testing.assert_allclose(got, np.abs(z * z).sum(1), rtol=1e-5)
    before = stats.snapshot()
    native(executable, [a, b])
    assert stats.since(before)["host_calls"] == len(executable.fallbacks)


def test_a_fallback_alone() -> None:
    z = leaf(3, dtype=dt.complex64)
    executable = compiler.compile([z], [make("exp", (z,))])
    assert [f.reason for f in executable.fallbacks] == ["complex elements"]
    a = np.array([1 + 2j, -0.5j, 0], np.complex64)
    np.testing.assert_allclose(native(executable, [a])[0], np.exp(a), rtol=1e-6)


def test_an_error_of_the_reference_passes_through() -> None:
    x, i = leaf(4, dtype=dt.complex64), leaf(2, dtype=dt.int64)
    executable = compiler.compile([x, i], [make("gather", (x, i), axes=(0,))])
    good = native(executable, [np.arange(4).astype(np.complex64), np.array([3, 0])])[0]
    np.testing.assert_array_equal(good, [3, 0])
    with pytest.raises(IndexError):
        native(executable, [np.arange(4).astype(np.complex64), np.array([3, 4])])


def test_real_graphs_have_no_fallback(trained: Executable) -> None:
    assert trained.fallbacks == []


# ---- results ---------------------------------------------------------------------------------------------------


def test_outputs_that_only_move_an_input_share_its_memory() -> None:
    x = leaf(4, 6)
    executable = compiler.compile([x], [build.reshape(x, (24,)), build.permute(x, (1, 0))])
    a = np.arange(24, dtype=np.float32).reshape(4, 6)
    flat, turned = native(executable, [a])
    assert equal_bits(flat, a.reshape(24))
    assert equal_bits(turned, np.ascontiguousarray(a.T))
    assert len(executable.schedule.fresh) == 1


def test_empty_results() -> None:
    x = leaf(0, 3)
    outputs = [build.unary("exp", x), build.reduce_sum(x, (0,)), make("concat", (x, x), axis=0)]
    a, b, c = native(compiler.compile([x], outputs), [np.zeros((0, 3), np.float32)])
    assert a.shape == c.shape == (0, 3)
    np.testing.assert_array_equal(b, np.zeros(3, np.float32))


def test_deterministic_compilation_fixes_the_number_of_threads() -> None:
    """With the setting, the same kernels come out for any number of threads."""
    x, w = leaf(64, 300), leaf(300, 200)
    out = build.dot(x, w, ((1,), (0,)))
    texts = set()
    for threads in (1, 2, 7):
        with settings.override(deterministic=True, threads=threads):
            texts.add(compiler.compile([x, w], [out]).stage_text("plan"))
    assert len(texts) == 1


# ---- equal groups ------------------------------------------------------------------------------------------------


def layers(count: int) -> tuple[list[Value], list[Value]]:
    """A product with a residual, a gather and a reduction, so many times."""
    x = input_value(dt.float32, (24, 32))
    inputs, out = [x], x
    for _ in range(count):
        w, rows = input_value(dt.float32, (32, 32)), input_value(dt.int64, (24,))
        inputs += [w, rows]
        out = build.add(out, build.unary("tanh", build.dot(out, w, ((1,), (0,)))))
        out = build.sub(
            make("gather", (out, rows), axes=(0,)), build.broadcast(build.reduce_sum(out, (0,)), (24, 32))
        )
    return inputs, [out]


def test_equal_layers_are_lowered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    lower = lowering._lower
    monkeypatch.setattr(lowering, "_lower", lambda group, *rest: calls.append(group) or lower(group, *rest))
    compiler.compile(*layers(3))
    few = len(calls)
    inputs, outputs = layers(8)
    executable = compiler.compile(inputs, outputs)
    assert len(calls) == 2 * few
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(24, size=v.shape)
        if v.dtype is dt.int64
        else rng.normal(0, 0.2, v.shape).astype(np.float32)
        for v in inputs
    ]
    (want,) = evaluate(outputs, dict(zip(inputs, arrays, strict=True)))
    np.testing.assert_allclose(native(executable, arrays)[0], want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_groups_lowered_once_are_those_lowered_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = random_graph(seed + 90_000, 40)
    texts = []
    for _ in range(2):
        executable = compiler.compile(case.inputs, case.outputs)
        calls = [(c.inplace, c.grid, c.chunk, c.label) for s in executable.schedule.steps for c in s.calls]
        texts.append(f"{executable.stage_text('plan')}{executable.stage_text('kernels')}{calls}")
        monkeypatch.setattr(lowering, "_lower_once", lambda known, *rest: lowering._lower(*rest))
    assert texts[0] == texts[1]

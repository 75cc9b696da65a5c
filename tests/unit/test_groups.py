"""Fusion groups: documented graphs before -> after, and the rules every grouping keeps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from fuzz.generator import random_graph
from small_models import MODELS, step

from tilewright.autodiff.vjp import vjp
from tilewright.core import dtype as dt
from tilewright.core.shape import static
from tilewright.graph import build
from tilewright.graph.ir import Value, constant, input_value, make, topological
from tilewright.kernel.text import print_kernel
from tilewright.lower.groups import Group, form_groups, is_leaf
from tilewright.lower.lowering import lower_groups
from tilewright.lower.order import visiting_order
from tilewright.passes.pipeline import run_passes
from tilewright.recipes.machine import Machine


def leaf(*shape: int) -> Value:
    return input_value(dt.float32, shape)


def shown(outputs: Sequence[Value]) -> list[str]:
    """Groups as ``[kind: members -> outputs]``."""
    groups = form_groups(run_passes(outputs))
    return [
        f"[{g.kind}: {' '.join(v.op for v in g.members)} -> {' '.join(v.op for v in g.outputs)}]"
        for g in groups
    ]


def softmax(x: Value) -> Value:
    top = build.expand(make("reduce_max", (x,), axes=(1,)), (1,), x.shape)
    e = build.unary("exp", build.sub(x, top))
    return build.div(e, build.expand(build.reduce_sum(e, (1,)), (1,), x.shape))


def normalised(x: Value, axes: tuple[int, ...], weight: Value, bias: Value) -> Value:
    """(x - mean) * rsqrt(variance + eps) * weight + bias, with statistics over ``axes``."""
    shape = static(x.shape)
    count = 1
    for a in axes:
        count *= shape[a]
    mean = build.mul(build.reduce_sum(x, axes), 1 / count)
    centred = build.sub(x, build.expand(mean, axes, shape))
    variance = build.mul(build.reduce_sum(build.square(centred), axes), 1 / count)
    scale = build.expand(build.unary("rsqrt", build.add(variance, 1e-5)), axes, shape)
    return build.add(build.mul(build.mul(centred, scale), weight), bias)


def relu(x: Value) -> Value:
    return make("maximum", (x, build.zeros_like(x)))


def layer(x: Value, units: int) -> Value:
    return relu(build.add(build.dot(x, leaf(static(x.shape)[1], units), ((1,), (0,))), leaf(units)))


def test_the_page_s_own_example() -> None:
    z = layer(leaf(32, 100), 50)
    m = build.expand(make("reduce_max", (z,), axes=(1,)), (1,), z.shape)
    e = build.unary("exp", build.sub(z, m))
    s = build.reduce_sum(e, (1,))
    assert shown([s, e]) == [
        "[dot: dot add maximum -> maximum]",
        "[row: reduce_max sub exp reduce_sum -> exp reduce_sum]",
    ]


def test_elementwise_work_is_one_group() -> None:
    x, y = leaf(6, 8), leaf(6, 8)
    a = build.mul(build.unary("exp", x), y)
    assert shown([a, build.add(a, x)]) == ["[map: mul add -> mul add]"]


def test_maps_that_read_the_same_are_one_though_neither_reads_the_other() -> None:
    z = build.dot(leaf(256, 100), leaf(100, 400), ((1,), (0,)))
    gates = [build.unary("sigmoid", build.slice_(z, (0, at), (256, at + 100))) for at in (0, 100, 200, 300)]
    assert shown(gates) == [
        "[dot: dot -> dot]",
        "[map: sigmoid sigmoid sigmoid sigmoid -> sigmoid sigmoid sigmoid sigmoid]",
    ]


def test_small_maps_are_one_and_large_ones_of_different_values_are_not() -> None:
    for rows, groups in ((16, 1), (1600, 2)):
        assert (
            len(shown([build.unary("exp", leaf(rows, 100)), build.unary("exp", leaf(rows, 100))])) == groups
        )


def test_what_follows_from_an_operand_and_statistics_is_not_stored() -> None:
    """Batch norm, its activation and pooling, and their gradients: of the size of the image, only the image's own gradient is
    stored. A pooled element's share, which four places of the image read, is."""
    x, w, b, g = leaf(4, 8, 16, 16), leaf(8), leaf(8), leaf(4, 8, 8, 8)
    weight, bias = (build.expand(v, (0, 2, 3), x.shape) for v in (w, b))
    y = relu(normalised(x, (0, 2, 3), weight, bias))
    windows = make("window", (y,), axes=(2, 3), size=(2, 2), stride=(2, 2), dilation=(1, 1))
    z = make("reduce_max", (windows,), axes=(4, 5))
    results = run_passes([z, *(v for v in vjp([z], [g], [x, w, b]) if v is not None)])
    groups = form_groups(results)
    stored = [v for group in groups for v in group.outputs]
    assert [v for v in stored if v.type.size == x.type.size] == [results[1]]
    assert [v.op for v in stored if v.type.size == z.type.size] == ["reduce_max", "div"]


def test_softmax_is_one_row_program() -> None:
    assert shown([softmax(leaf(32, 100))]) == ["[row: reduce_max sub exp reduce_sum div -> div]"]


def test_softmax_backward_joins_the_rows() -> None:
    x, g = leaf(32, 100), leaf(32, 100)
    (group,) = form_groups(run_passes([v for v in vjp([softmax(x)], [g], [x]) if v is not None]))
    assert group.kind == "row"
    assert group.reduced == {1}


def test_layer_norm_is_one_row_program() -> None:
    x = leaf(32, 100)
    (group,) = form_groups(run_passes([normalised(x, (1,), leaf(100), leaf(100))]))
    assert (group.kind, group.reduced) == ("row", {1})
    assert [v.op for v in group.reductions] == ["reduce_sum", "reduce_sum"]


def test_layer_norm_backward_is_rows_and_two_sums_over_columns() -> None:
    x, w, b, g = leaf(32, 100), leaf(100), leaf(100), leaf(32, 100)
    grads = [v for v in vjp([normalised(x, (1,), w, b)], [g], [x, w, b]) if v is not None]
    groups = form_groups(run_passes(grads))
    assert [(g.kind, sorted(g.reduced)) for g in groups] == [("row", [1]), ("row", [0]), ("row", [0])]


def test_batch_norm_is_one_row_program_per_channel() -> None:
    x, w, b, g = leaf(4, 8, 6, 6), leaf(8), leaf(8), leaf(4, 8, 6, 6)
    weight, bias = (build.expand(v, (0, 2, 3), x.shape) for v in (w, b))
    y = normalised(x, (0, 2, 3), weight, bias)
    for outputs in ([y], [v for v in vjp([y], [g], [x, w, b]) if v is not None]):
        (group,) = form_groups(run_passes(outputs))
        assert (group.kind, group.reduced) == ("row", {0, 2, 3})


def test_movement_is_read_through() -> None:
    x = leaf(6, 8)
    moved = make("flip", (build.permute(build.reshape(x, (8, 6)), (1, 0)),), axes=(0,))
    assert shown([build.unary("neg", moved)]) == ["[map: neg -> neg]"]
    assert shown([build.dot(moved, leaf(8, 5), ((1,), (0,)))]) == ["[dot: dot -> dot]"]


def test_cheap_work_before_a_contraction_is_computed_where_it_is_read() -> None:
    x, w = leaf(6, 8), leaf(8, 5)
    assert shown([build.dot(build.neg(x), w, ((1,), (0,)))]) == ["[dot: dot -> dot]"]
    assert shown([build.dot(build.unary("tanh", x), w, ((1,), (0,)))]) == [
        "[map: tanh -> tanh]",
        "[dot: dot -> dot]",
    ]


def test_several_functions_of_one_value_are_computed_again_from_it() -> None:
    """GELU and its slope: the backward pass reads the operand, not the three factors made of it."""
    h = build.dot(leaf(64, 32), leaf(32, 48), ((1,), (0,)))
    half, power = build.mul(h, 0.5), build.add(build.unary("erf", h), 1.0)
    y = build.mul(half, power)
    z = build.dot(y, leaf(48, 16), ((1,), (0,)))
    bell = build.unary("exp", build.mul(h, h))
    gradient = build.dot(z, leaf(16, 48), ((1,), (0,)))
    back = build.add(build.mul(gradient, power), build.mul(build.mul(gradient, half), bell))
    forward, *_ = form_groups(run_passes([z, back]))
    assert [v.op for v in forward.outputs] == ["dot", "mul"]
    assert forward.outputs[0] is forward.anchor
    # what is read by two groups, or is a result itself, is stored as it is
    forward, *_ = form_groups(run_passes([z, back, half]))
    assert [v.op for v in forward.outputs] == ["mul", "add", "mul", "exp"]


def test_the_slope_of_an_activation_is_one_number_stored_where_its_operand_is() -> None:
    """The backward pass of GELU multiplies a contraction by the slope, which the forward pass stores instead of the operand."""
    x, inner, outer = leaf(64, 32), leaf(32, 48), leaf(48, 16)
    h = build.dot(x, inner, ((1,), (0,)))
    y = build.mul(build.mul(h, 0.5), build.add(build.unary("erf", build.mul(h, 0.7)), 1.0))
    z = build.dot(y, outer, ((1,), (0,)))
    (slope,) = vjp([z], [z], [inner])
    assert slope is not None
    forward, _, back, *_ = form_groups(run_passes([z, slope]))
    assert [v.op for v in forward.outputs] == ["mul", "add"]
    assert [v.op for v in back.members] == ["dot", "mul"]


def test_powers_of_a_contraction_are_not_taken_apart() -> None:
    """Squares of squares have exponentially many factors."""
    (x,) = leaves = [leaf(8, 8)]
    y = build.dot(x, x, ((1,), (0,)))
    for _ in range(60):
        y = build.mul(y, y)
    (found,) = vjp([y], [y], leaves)
    assert found is not None


def test_a_reduction_over_other_axes_is_a_group_of_its_own() -> None:
    e = build.unary("exp", leaf(32, 100))
    assert shown([build.reduce_sum(e, (0,)), build.reduce_sum(e, (1,))]) == [
        "[row: exp reduce_sum -> exp reduce_sum]",
        "[row: reduce_sum -> reduce_sum]",
    ]


def test_an_epilogue_that_reads_elsewhere_stays_out_of_the_contraction() -> None:
    h = build.dot(leaf(6, 8), leaf(8, 6), ((1,), (0,)))
    assert shown([build.add(h, build.permute(h, (1, 0)))]) == ["[dot: dot -> dot]", "[map: add -> add]"]
    flipped = make("flip", (leaf(6, 6),), axes=(0,))
    assert shown([build.add(h, flipped)]) == ["[dot: dot -> dot]", "[map: add -> add]"]


def test_max_pooling_is_written_out() -> None:
    x = leaf(2, 3, 8, 8)
    w = make("window", (build.unary("exp", x),), axes=(2, 3), size=(2, 2), stride=(2, 2), dilation=(1, 1))
    pooled = make("reduce_max", (w,), axes=(4, 5))
    assert shown([pooled])[-1] == "[map: reduce_max -> reduce_max]"


def test_an_mlp_training_step() -> None:
    """Forward, backward and update: each weight's gradient, momentum and update lie in its contraction's epilogue."""
    function, arguments = step("mlp")
    groups = function.executable(*arguments).groups
    kinds = [g.kind for g in groups]
    assert kinds.count("dot") == 5  # two forward, one backward to the hidden layer, two weights
    assert len(groups) <= 11
    first = next(g for g in groups if g.kind == "dot")
    assert [v.op for v in first.members] == ["dot", "add", "le", "where"]  # linear, bias, relu
    weights = [g for g in groups if g.kind == "dot" and any(v.op == "sub" for v in g.members)]
    assert [static(g.anchor.shape) for g in weights] == [(16, 20), (5, 16)]
    losses = [g for g in groups if any(v.op == "log" for v in g.members)]
    assert len(losses) == 1  # the whole log-softmax
    assert losses[0].kind == "row"
    assert losses[0].outputs[-1].op == "add"  # and its gradient: how many labels count was found before


def test_short_sums_over_inputs_are_visited_first() -> None:
    """The gradient of a mean over labels that count joins the rows of the loss; nothing else is visited out of order."""
    x, labels, other = leaf(64, 100), leaf(64), leaf(64, 100)
    count = build.reduce_sum(labels, (0,))
    rows = build.reduce_sum(build.unary("exp", x), (1,))
    scaled = build.mul(build.div(labels, rows), build.broadcast(count, (64,)))
    outputs = [rows, build.mul(build.unary("exp", x), build.expand(scaled, (1,), (64, 100)))]
    assert [g.kind for g in form_groups(outputs)] == ["row", "row"]
    order = visiting_order(outputs)
    assert order.index(count) < order.index(x)
    long = [build.reduce_sum(x, (1,)), build.reduce_sum(other, (1,))]
    assert visiting_order(long) == topological(long)


@pytest.mark.parametrize("name", MODELS)
def test_real_steps_need_no_host(name: str) -> None:
    function, arguments = step(name)
    executable = function.executable(*arguments)
    assert executable.fallbacks == []
    assert all(g.kind != "host" for g in executable.groups)


def test_complex_elements_are_the_host_s() -> None:
    z = input_value(dt.complex64, (4,))
    (group,) = form_groups([make("mul", (z, z))])
    assert (group.kind, group.reason) == ("host", "complex elements")


def test_numbers_and_counters_as_results() -> None:
    c, i = constant(2.0, dt.float32), make("iota", (), shape=(3,), axis=0, dtype=dt.int32)
    x = leaf(3)
    groups = form_groups([i, x, c])
    assert [g.anchor for g in groups] == [i, c]


def check(groups: Sequence[Group], outputs: Sequence[Value]) -> None:
    """Every result is computed once, from inputs and older groups' outputs."""
    home = {v: g for g in groups for v in g.outputs}
    for v in outputs:
        assert v.op == "input" or v in home
    known: set[Value] = set()
    for group in groups:
        assert group.outputs
        assert set(group.outputs) <= set(group.members)
        seen: set[Value] = set()
        stack = [x for v in group.outputs for x in (v, *v.inputs)]
        while stack:
            x = stack.pop()
            if x in seen or is_leaf(x):
                continue
            seen.add(x)
            if x in home and home[x] is not group:
                assert x in known, f"group {group.number} reads {x} before it is computed"
            else:
                stack.extend(x.inputs)
        known.update(group.outputs)


@pytest.mark.parametrize("seed", range(60))
def test_groups_of_random_graphs_only_read_older_ones(seed: int) -> None:
    outputs = run_passes(random_graph(seed + 90_000, 10 + seed).outputs)
    groups = form_groups(outputs)
    check(groups, outputs)
    assert [(g.kind, list(g.members)) for g in form_groups(outputs)] == [
        (g.kind, list(g.members)) for g in groups
    ]


@pytest.mark.parametrize(
    ("functions", "one_fma", "two_fmas"),
    [
        (("sqrt",), 2, 2),
        (("tanh",), 2, 4),
        (("exp",), 2, 8),
        (("exp", "tanh"), 2, 8),
        (("exp", "tanh", "sin", "erf"), 4, 8),
        (("pow",), 2, 4),
        (("exp", "pow"), 2, 4),
    ],
)
def test_long_chains_run_several_vectors_side_by_side(
    functions: Sequence[str], one_fma: int, two_fmas: int
) -> None:
    """The more, the sooner the processor is through with the instructions that it has in view."""
    y = x = leaf(64, 1024)
    for name in functions:
        y = make(name, (y, x)) if name == "pow" else build.unary(name, y)
    for fmas, vectors in ((1.0, one_fma), (2.0, two_fmas)):
        machine = Machine(64, 32, 32 << 10, 1 << 20, 1, fmas=fmas)
        (lowered,) = lower_groups(form_groups(run_passes([y])), machine)
        assert f"vector {16 * vectors}:" in print_kernel(lowered.calls[0].kernel)

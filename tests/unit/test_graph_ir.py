"""Values, graphs and the verifier: interning, type rules and their messages, canonical form, identity."""

from __future__ import annotations

import doctest
import gc
import math
import subprocess
import sys
import weakref
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from tilewright.autodiff import vjp
from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.shape import Size
from tilewright.graph import build, graph, reference, text
from tilewright.graph.graph import Graph, rebuild, signature
from tilewright.graph.ir import OPS, TensorType, Value, constant, input_value, make, topological
from tilewright.graph.reference import evaluate
from tilewright.graph.verify import GraphError, problems, verify


def leaf(*shape: Any, dtype: DType = dt.float32) -> Value:
    return input_value(dtype, shape)


# ---- interning ---------------------------------------------------------------------------------------------


def test_the_same_operation_is_the_same_value() -> None:
    x = leaf(3)
    assert make("exp", (x,)) is make("exp", (x,))
    assert make("exp", (x,)) is not make("exp", (leaf(3),))
    assert input_value(dt.float32, (3,), id=5) is input_value(dt.float32, (3,), id=5)
    assert input_value(dt.float32, (3,), id=5) is not input_value(dt.float32, (4,), id=5)


def test_a_fresh_leaf_is_never_a_numbered_one() -> None:
    x = leaf(2)
    assert input_value(dt.float32, (2,), id=x["id"]) is not x


def test_unused_values_are_freed() -> None:
    x = leaf(3)
    gc.collect()
    ref = weakref.ref(make("exp", (make("neg", (x,)),)))
    gc.collect()
    assert ref() is None


def test_a_long_chain_is_built_walked_and_freed() -> None:
    x = y = leaf(2)
    for _ in range(100_000):
        y = make("neg", (make("exp", (y,)),))
    assert len(topological([y])) == 200_001
    assert y is not x
    del y


@pytest.mark.parametrize(
    ("value", "dtype", "held"),
    [
        (0.1, dt.float32, float(np.float32(0.1))),
        (0.1, dt.float64, 0.1),
        (1e300, dt.float32, math.inf),
        (1, dt.float16, 1.0),
        (True, dt.int32, 1),
        (2.0, dt.int8, 2),
        (5, dt.bool_, True),
        (0.5, dt.complex64, 0.5 + 0j),
    ],
)
def test_constants_hold_what_their_type_holds(value: Any, dtype: DType, held: Any) -> None:
    made = constant(value, dtype)
    assert made["value"] == held and type(made["value"]) is type(held)
    assert made is constant(held, dtype)


def test_constants_are_keyed_by_bits() -> None:
    assert constant(0.0, dt.float32) is not constant(-0.0, dt.float32)
    assert constant(math.nan, dt.float32) is constant(-math.nan, dt.float32)
    assert constant(1, dt.float32) is not constant(1, dt.float64)
    assert constant(0.1, dt.float32) is constant(float(np.float32(0.1)), dt.float32)


@pytest.mark.parametrize(
    ("value", "dtype", "error", "message"),
    [
        (300, dt.uint8, OverflowError, "300 is outside the range of uint8"),
        (-1, dt.uint64, OverflowError, "-1 is outside the range of uint64"),
        (2.5, dt.int32, TypeError, "2.5 is not a whole number, as int32 needs"),
        (1j, dt.float32, TypeError, "the complex number 1j is not a float32"),
    ],
)
def test_constants_that_do_not_fit(value: Any, dtype: DType, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        constant(value, dtype)


# ---- type rules and their messages -------------------------------------------------------------------------

F, I, B, C = dt.float32, dt.int64, dt.bool_, dt.complex64
DOT = {"lhs_contract": (1,), "rhs_contract": (0,), "lhs_batch": (), "rhs_batch": (), "dtype": F}
CONV = {
    "stride": (1, 1), "padding": ((0, 0), (0, 0)), "lhs_dilation": (1, 1), "rhs_dilation": (1, 1), "groups": 1,
    "dtype": F,
}  # fmt: skip
WINDOW = {"axes": (0,), "size": (2,), "stride": (1,), "dilation": (1,)}

MISTAKES: list[tuple[str, list[tuple[DType, tuple[int, ...]]], dict[str, Any], str]] = [
    ("nonsense", [(F, ())], {}, "unknown graph operation 'nonsense'"),
    ("exp", [(F, ()), (F, ())], {}, "exp takes 1 operands, got 2"),
    ("exp", [(I, ())], {}, "exp is not defined for int64; it takes float, complex elements"),
    ("add", [(F, (2,)), (F, (3,))], {}, r"add: shapes \(2,\) and \(3,\) differ; broadcast them first"),
    ("add", [(F, (2,)), (dt.float64, (2,))], {}, "add takes operands of one type, got float32 and float64"),
    ("where", [(F, ()), (F, ()), (F, ())], {}, "where takes a bool condition, got float32"),
    ("cumsum", [(F, (2,))], {"axis": 1, "reverse": False}, "cumsum: axis 1 is out of range for rank 1"),
    ("cumsum", [(F, (2,))], {"axis": 0}, r"cumsum takes the attributes \('axis', 'reverse'\), got \('axis',\)"),
    ("reshape", [(F, (2, 3))], {"shape": (4,)}, r"6 elements of shape \(2, 3\) do not fill shape \(4,\)"),
    ("reshape", [(F, (2, 3))], {"shape": (-2, -3)}, "reshape: a size is not negative"),
    ("permute", [(F, (2, 3))], {"axes": (0, 0)}, r"permute: \(0, 0\) is not an order of the 2 axes"),
    ("broadcast", [(F, (2,))], {"shape": (3,)}, r"broadcast: shape \(2,\) does not broadcast to \(3,\)"),
    ("slice", [(F, (3,))], {"start": (1,), "stop": (4,), "step": (1,)}, "slice: 1:4:1 does not lie in an axis of size 3"),
    ("slice", [(F, (3,))], {"start": (), "stop": (3,), "step": (1,)}, "slice: start has 0 entries for 1 axes"),
    ("pad", [(F, (3,)), (I, ())], {"low": (1,), "high": (0,), "interior": (0,)}, r"pad: the fill value is float32\[\]"),
    ("pad", [(F, (3,)), (F, ())], {"low": (-1,), "high": (0,), "interior": (0,)}, "pad: widths are not negative"),
    ("flip", [(F, (3,))], {"axes": (0, 0)}, r"flip: an axis repeats in \(0, 0\)"),
    ("concat", [(F, (2, 3)), (F, (2, 4))], {"axis": 0}, r"shapes \(2, 3\) and \(2, 4\) differ off axis 0"),
    ("concat", [], {"axis": 0}, "concat: needs at least one operand"),
    ("window", [(F, (1,))], WINDOW, "window: 2 elements with dilation 1 do not fit in an axis of size 1"),
    ("fold", [(F, (3, 2))], {**WINDOW, "size": (5,)}, "fold: size 5 does not give 3 windows of 2"),
    ("reduce_max", [(F, (0, 2))], {"axes": (0,)}, "reduce_max: an axis of size 0 has no maximum"),
    ("reduce_sum", [(B, (2,))], {"axes": (0,)}, "reduce_sum is not defined for bool"),
    ("argmax", [(C, (2,))], {"axis": 0}, "not defined for complex elements"),
    ("gather", [(F, (3, 4)), (F, (2,))], {"axes": (0,)}, r"gather: indices are integers of one shape, got float32\[2\]"),
    ("gather", [(F, (3, 4))], {"axes": (0,)}, "gather: 1 axes need as many index operands, got 0"),
    ("scatter", [(F, (3,)), (F, (3,)), (I, (2,))], {"axes": (0,), "mode": "set"}, r"updates are float32\[2\], got"),
    ("scatter", [(F, (3,)), (F, (2,)), (I, (2,))], {"axes": (0,), "mode": "mul"}, "mode 'mul' is not one of set, add"),
    ("scatter", [(B, (3,)), (B, (2,)), (I, (2,))], {"axes": (0,), "mode": "add"}, "mode add is not defined for bool"),
    ("dot", [(F, (2, 3)), (F, (4, 5))], DOT, r"contracted axes \(1,\) of float32\[2, 3\] and \(0,\) of .* do not match"),
    ("dot", [(F, (2, 3)), (F, (3, 5))], {**DOT, "dtype": I}, "operands of type float32 do not give int64"),
    ("conv", [(F, (1, 3, 5, 5)), (F, (2, 2, 3, 3))], CONV, "3 input and 2 output channels in 1 groups do not match"),
    ("conv", [(F, (1, 3, 2, 5)), (F, (2, 3, 3, 3))], CONV, "a kernel of span 3 does not fit in a padded axis of size 2"),
    ("bitcast", [(F, (2,))], {"dtype": I}, "bitcast: float32 and int64 do not have the same width"),
    ("iota", [], {"shape": (3,), "axis": 0, "dtype": F}, "iota gives integers, got float32; cast its result"),
    ("random_bits", [(I, (2,)), (I, (2,))], {"shape": (3,), "word": 0}, r"random_bits: a key is uint32\[2\], got int64\[2\]"),
    ("complex", [(dt.float16, ()), (dt.float16, ())], {}, "complex takes float32 or float64 parts, got float16"),
    ("constant", [], {"value": 1, "dtype": F}, r"build a constant with constant\(\)"),
    ("input", [], {"id": 1, "dtype": F, "shape": ()}, r"build a input with input_value\(\)"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "operands", "attrs", "message"), MISTAKES, ids=[f"{m[0]}-{n}" for n, m in enumerate(MISTAKES)]
)
def test_mistakes_are_named(
    op: str, operands: list[tuple[DType, tuple[int, ...]]], attrs: dict[str, Any], message: str
) -> None:
    values = [input_value(d, s) for d, s in operands]
    with pytest.raises((TypeError, ValueError), match=message):
        make(op, values, **attrs)


def test_symbolic_sizes_pass_through() -> None:
    n = Size("N", 1, 64)
    x, w = leaf(n, 3), leaf(3, 4)
    y = build.dot(x, w, ((1,), (0,)))
    assert y.shape == (n, 4)
    assert build.reduce_sum(build.add(y, leaf(4)), (0,)).shape == (4,)
    with pytest.raises(ValueError, match="differ"):
        make("add", (x, leaf(Size("M", 1, 64), 3)))


# ---- graphs ------------------------------------------------------------------------------------------------


def layer(x: Value, w: Value, b: Value) -> Value:
    return build.unary("tanh", build.add(build.dot(x, w, ((1,), (0,))), b))


def test_graph_of_finds_its_inputs_in_order_of_use() -> None:
    x, w, b = leaf(2, 3), leaf(3, 4), leaf(4)
    graph = Graph.of([layer(x, w, b)])
    assert graph.inputs == (x, w, b)
    assert graph.count == 4  # dot, broadcast, add, tanh
    assert len(graph.nodes()) == 7


def test_graph_of_stops_where_told() -> None:
    x, w, b = leaf(2, 3), leaf(3, 4), leaf(4)
    hidden = layer(x, w, b)
    graph = Graph.of([build.neg(hidden)], stop=lambda v: v is hidden)
    assert graph.inputs == (hidden,) and graph.count == 1


def test_a_graph_needs_its_leaves() -> None:
    x, y = leaf(2), leaf(2)
    with pytest.raises(ValueError, match="is not among the graph's inputs"):
        Graph((x,), (make("add", (x, y)),))
    with pytest.raises(ValueError, match="each input once"):
        Graph((x, x), (x,))


def test_equal_computations_share_canonical_form_hash_and_signature() -> None:
    one, two = (Graph.of([layer(leaf(2, 3), leaf(3, 4), leaf(4))]) for _ in range(2))
    other = Graph.of([layer(leaf(5, 3), leaf(3, 4), leaf(4))])
    assert one != two and one.canonical == two.canonical
    assert one.content_hash == two.content_hash != other.content_hash
    assert signature(one.outputs)[0] == signature(two.outputs)[0] != signature(other.outputs)[0]
    assert hash(signature(one.outputs)[0]) == hash(signature(two.outputs)[0])


def test_the_order_of_inputs_and_outputs_is_part_of_a_graph() -> None:
    x, y = leaf(2), leaf(2)
    d = make("sub", (x, y))
    assert Graph((x, y), (d,)).content_hash != Graph((y, x), (d,)).content_hash
    assert Graph((x, y), (d, x)).content_hash != Graph((x, y), (x, d)).content_hash


def test_a_signature_tells_numbers_apart() -> None:
    x = leaf(2)
    keys = [signature([build.mul(x, n)])[0] for n in (0.0, -0.0, math.nan, 1.0)]
    assert len(set(keys)) == 4
    assert signature([build.mul(x, math.nan)])[0] == keys[2]


def test_marks_are_numbered_by_use() -> None:
    a, b = (Graph.of([make("mark", (leaf(2),), id=n)]) for n in (17, 99))
    assert a.canonical == b.canonical and a.content_hash == b.content_hash


def test_rebuild_replaces_values() -> None:
    x, y = leaf(2), leaf(2)
    hidden = make("exp", (x,))
    (out,) = rebuild([make("neg", (hidden,))], {hidden: y})
    assert out is make("neg", (y,))


def test_the_content_hash_is_the_same_in_every_process() -> None:
    program = (
        "from tilewright.core import dtype as dt\n"
        "from tilewright.graph.graph import Graph\n"
        "from tilewright.graph.ir import input_value, make\n"
        "print(Graph.of([make('exp', (input_value(dt.float32, (2, 3)),))]).content_hash)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == Graph.of([make("exp", (leaf(2, 3),))]).content_hash


# ---- builders ----------------------------------------------------------------------------------------------


def test_movement_that_changes_nothing_is_left_out() -> None:
    x = leaf(2, 3)
    assert build.broadcast(x, (2, 3)) is x
    assert build.reshape(x, (2, 3)) is x
    assert build.permute(x, (0, 1)) is x
    assert build.slice_(x, (0, 0), (2, 3)) is x
    assert build.pad(x, (0, 0), (0, 0)) is x
    assert build.cast(x, dt.float32) is x
    assert build.reduce_sum(x, ()) is x


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
@pytest.mark.parametrize("shape", [(4,), (1,), (3, 1), (1, 4), ()])
def test_the_sum_of_a_broadcast(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = input_value(dt.float64, shape)
    data = np.arange(1.0, 1 + np.prod(shape, dtype=int)).reshape(shape)
    (out,) = evaluate([build.reduce_sum(build.broadcast(x, (2, 3, 4)), axes)], {x: data})
    np.testing.assert_allclose(out, np.broadcast_to(data, (2, 3, 4)).sum(axes))


@pytest.mark.parametrize(
    ("padding", "dilation", "expected"),
    [
        ((1, 2), 1, [0, 1, 2, 3, 0, 0]),
        ((0, 0), 3, [1, 0, 0, 2, 0, 0, 3]),
        ((-1, 0), 2, [0, 2, 0, 3]),
        ((-4, 6), 1, [0, 0, 0, 0, 0]),
        ((2, -4), 2, [0, 0, 1]),
    ],
)
def test_spread(padding: tuple[int, int], dilation: int, expected: list[float]) -> None:
    x = input_value(dt.float32, (1, 1, 3))
    out = build.spread(x, (padding,), (dilation,))
    (array,) = evaluate([out], {x: np.array([[[1, 2, 3]]], np.float32)})
    assert array[0, 0].tolist() == expected


# ---- the verifier ------------------------------------------------------------------------------------------


def forged(op: str, inputs: tuple[Value, ...], attrs: dict[str, Any], type: TensorType) -> Value:
    """A value built around ``make``."""
    value = Value.__new__(Value)
    value.op, value.inputs, value.attrs, value.type, value.buffer = (
        op,
        inputs,
        tuple(attrs.items()),
        type,
        None,
    )
    return value


def test_a_sound_graph_has_no_problems() -> None:
    graph = Graph.of([layer(leaf(2, 3), leaf(3, 4), leaf(4))])
    assert problems(graph.outputs, graph.inputs) == []
    verify(graph.outputs, graph.inputs)


@pytest.mark.parametrize(
    ("op", "attrs", "type", "problem"),
    [
        (
            "exp",
            {},
            TensorType(dt.float32, (3,)),
            r"the type is float32\[3\] and should be float32\[2\], at %1 = exp %0",
        ),
        (
            "exp",
            {"axis": 0},
            TensorType(dt.float32, (2,)),
            r"the static arguments are \('axis',\) and not \(\)",
        ),
        ("exq", {}, TensorType(dt.float32, (2,)), "there is no operation 'exq', at %1 = exq %0"),
        ("add", {}, TensorType(dt.float32, (2,)), "there are 1 operands and not 2"),
        ("flip", {"axes": (4,)}, TensorType(dt.float32, (2,)), "flip: axis 4 is out of range for rank 1"),
        ("exp", {}, TensorType(dt.float32, (2,)), "built around make"),
    ],
)
def test_problems_are_found_and_placed(
    op: str, attrs: dict[str, Any], type: TensorType, problem: str
) -> None:
    x = leaf(2)
    twin = make("exp", (x,))
    bad = forged(op, (x,), attrs, type)
    with pytest.raises(GraphError, match=problem) as caught:
        verify([bad], after="fold constants")
    assert str(caught.value).startswith("the graph is not well formed after fold constants:")
    assert twin is not bad


def test_a_leaf_from_nowhere_is_a_problem() -> None:
    x, y = leaf(2), leaf(2)
    (found,) = problems([make("add", (x, y))], [x])
    assert found.startswith("this leaf is not among the graph's inputs")


def test_every_row_of_the_op_table_is_complete() -> None:
    for name, row in OPS.items():
        assert row.name == name and row.doc and len(set(row.attrs)) == len(row.attrs)


@pytest.mark.parametrize("module", [graph, reference, text, vjp], ids=lambda m: str(m.__name__))
def test_examples_in_docstrings_run(module: ModuleType) -> None:
    failed, _ = doctest.testmod(module)
    assert not failed

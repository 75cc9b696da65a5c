"""The text of graphs: what it looks like, what it parses back to, and what a broken text is told."""

from __future__ import annotations

import pytest

from tilewright.autodiff.vjp import vjp
from tilewright.core import dtype as dt
from tilewright.core.shape import Size
from tilewright.graph import build
from tilewright.graph.graph import Graph
from tilewright.graph.ir import Value, constant, input_value, make

LINEAR = """\
graph(%x: float32[8, 3], %weight: float32[3, 4], %bias: float32[4], %3: float32[8, 4]) {
    %4 = dot %x, %weight lhs_contract=[1] rhs_contract=[0] lhs_batch=[] rhs_batch=[] dtype=float32 : float32[8, 4]
    %5 = broadcast %bias shape=[8, 4] : float32[8, 4]
    %6 = add %4, %5 : float32[8, 4]
    %7 = tanh %6 : float32[8, 4]
    %8 = constant 1.0 : float32[]
    %9 = broadcast %8 shape=[8, 4] : float32[8, 4]
    %10 = mul %7, %7 : float32[8, 4]
    %11 = sub %9, %10 : float32[8, 4]
    %12 = mul %3, %11 : float32[8, 4]
    %13 = dot %12, %x lhs_contract=[0] rhs_contract=[0] lhs_batch=[] rhs_batch=[] dtype=float32 : float32[4, 3]
    %14 = permute %13 axes=[1, 0] : float32[3, 4]
    %15 = reduce_sum %12 axes=[0] : float32[4]
    return %7, %14, %15
}
"""


def linear() -> tuple[Graph, dict[Value, str]]:
    x, weight, bias, g = (input_value(dt.float32, s) for s in ((8, 3), (3, 4), (4,), (8, 4)))
    y = build.unary("tanh", build.add(build.dot(x, weight, ((1,), (0,))), bias))
    grads = [v for v in vjp([y], [g], [weight, bias]) if v is not None]
    return Graph((x, weight, bias, g), (y, *grads)), {x: "x", weight: "weight", bias: "bias"}


def test_a_layer_and_its_gradient() -> None:
    graph, names = linear()
    assert graph.text(names) == LINEAR
    assert Graph.parse(LINEAR, graph.inputs) == graph


def test_a_text_without_given_inputs_gets_numbered_leaves() -> None:
    graph, _ = linear()
    assert Graph.parse(LINEAR) == graph.canonical
    assert Graph.parse(LINEAR).content_hash == graph.content_hash


CORNERS = """\
graph(%0: float32[N:1..64, 0], %1: int64[3]) {
    %2 = constant nan : float32[]
    %3 = constant -inf : float64[]
    %4 = constant -0.0 : float16[]
    %5 = constant 0.1 : float32[]
    %6 = constant 1e-30 : float64[]
    %7 = constant -0-2.5j : complex64[]
    %8 = constant true : bool[]
    %9 = constant -128 : int8[]
    %10 = constant 18446744073709551615 : uint64[]
    %11 = iota shape=[2, 3] axis=1 dtype=int32 : int32[2, 3]
    %12 = cast %11 dtype=bool : bool[2, 3]
    %13 = broadcast %0 shape=[2, N:1..64, 0] : float32[2, N:1..64, 0]
    return %2, %3, %4, %5, %6, %7, %8, %9, %10, %12, %13
}
"""


def test_corners_of_the_syntax() -> None:
    graph = Graph.parse(CORNERS)
    assert str(graph) == CORNERS
    assert graph.inputs[0].shape == (Size("N", 1, 64), 0)


def test_every_kind_of_argument_round_trips() -> None:
    x = input_value(dt.float32, (2, 4, 9, 9))
    w = input_value(dt.float32, (6, 2, 3, 3))
    i = input_value(dt.int64, (3,))
    y = make(
        "conv", (x, w), stride=(2, 1), padding=((1, -1), (0, 2)), lhs_dilation=(1, 2), rhs_dilation=(1, 1), groups=2,
        dtype=dt.float32,
    )  # fmt: skip
    gathered = make("gather", (y, i), axes=(1,))
    spread = make("scatter", (y, gathered, i), axes=(1,), mode="max")
    padded = make(
        "pad", (spread, constant(-1.5, dt.float32)), low=(0, 0, 1, 0), high=(0,) * 4, interior=(0, 0, 0, 2)
    )
    graph = Graph((x, w, i), (make("cumsum", (padded,), axis=3, reverse=True), make("mark", (y,), id=3)))
    assert Graph.parse(str(graph), graph.inputs) == graph


MISTAKES = [
    ("", "line 1: a graph begins with"),
    ("graph(%0: float32[2]) {\n    return %0\n", r"line 2: a graph ends with 'return \.\.\.' and '}'"),
    ("graph(%0: float99[2]) {\n    return %0\n}", "line 1: no data type is called 'float99'"),
    ("graph(%0: float32[2], %0: float32[2]) {\n    return %0\n}", "line 1: %0 is defined twice"),
    ("graph() {\n    return %7\n}", "line 2: %7 is not defined above"),
    (
        "graph(%0: float32[2]) {\n    %1 = exq %0 : float32[2]\n    return %1\n}",
        "line 2: unknown graph operation 'exq'",
    ),
    (
        "graph(%0: float32[2]) {\n    %1 = exp %0 : float32[3]\n    return %1\n}",
        r"line 2: the type is float32\[2\], not float32\[3\]",
    ),
    (
        "graph(%0: float32[2]) {\n    %1 = add %0 : float32[2]\n    return %1\n}",
        "line 2: add takes 2 operands, got 1",
    ),
    (
        "graph(%0: float32[2]) {\n    %1 = flip %0 axes=[0 : float32[2]\n    return %1\n}",
        "line 2: expected ',', found 'the end'",
    ),
    (
        "graph(%0: float32[2]) {\n    %1 = flip %0 axes=! : float32[2]\n    return %1\n}",
        "line 2: cannot read '!'",
    ),
    (
        "graph() {\n    %1 = constant maybe : bool[]\n    return %1\n}",
        "line 2: a bool is true or false, not 'maybe'",
    ),
    (
        "graph() {\n    %1 = constant 300 : uint8[]\n    return %1\n}",
        "line 2: 300 is outside the range of uint8",
    ),
    (
        "graph(%0: float32[2]) {\n    return %0\n    %1 = exp %0 : float32[2]\n}",
        "line 3: only '}' follows the return",
    ),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_broken_texts(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graph.parse(text)


def test_given_inputs_must_fit() -> None:
    text = "graph(%0: float32[2]) {\n    return %0\n}"
    with pytest.raises(ValueError, match="no such value is given"):
        Graph.parse(text, [input_value(dt.float32, (3,))])
    with pytest.raises(ValueError, match="2 values are given for 1 inputs"):
        Graph.parse(text, [input_value(dt.float32, (2,)), input_value(dt.float32, (2,))])


@pytest.mark.parametrize("name", ["7", "a b", "", "%x"])
def test_names_are_words(name: str) -> None:
    x = input_value(dt.float32, (2,))
    with pytest.raises(ValueError, match="cannot name"):
        Graph((x,), (x,)).text({x: name})


def test_names_are_unique_and_for_inputs() -> None:
    x, y = (input_value(dt.float32, (2,)) for _ in range(2))
    with pytest.raises(ValueError, match="'a' cannot name"):
        Graph((x, y), (x,)).text({x: "a", y: "a"})
    with pytest.raises(ValueError, match="'b' cannot name"):
        Graph((x,), (x,)).text({y: "b"})

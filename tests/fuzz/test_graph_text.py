"""Random graphs through their text, their canonical form, their signature and the verifier."""

from __future__ import annotations

import pytest

from fuzz.generator import random_graph
from tilewright.graph.graph import Graph, signature
from tilewright.graph.verify import problems


@pytest.mark.parametrize("batch", range(10))
def test_text_parses_back_to_the_same_values(batch: int) -> None:
    for seed in range(batch * 20, batch * 20 + 20):
        case = random_graph(seed, 25)
        graph = case.graph()
        names = {v: f"x.{n}" for n, v in enumerate(graph.inputs) if n % 2}
        again = Graph.parse(graph.text(names), graph.inputs)
        assert again == graph  # the very same values
        canonical = graph.canonical
        assert Graph.parse(str(canonical)) == canonical
        assert problems(graph.outputs, graph.inputs) == []


@pytest.mark.parametrize("batch", range(5))
def test_a_graph_built_again_has_the_same_identity(batch: int) -> None:
    seen: dict[str, int] = {}
    for seed in range(batch * 20, batch * 20 + 20):
        first, second = (random_graph(seed, 15).graph() for _ in range(2))
        assert first != second or not first.inputs  # other leaves
        assert first.canonical == second.canonical
        assert first.content_hash == second.content_hash
        assert signature(first.outputs)[0] == signature(second.outputs)[0]
        assert seen.setdefault(first.content_hash, seed) == seed

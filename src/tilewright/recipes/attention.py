"""Parameters of the attention recipe, chosen from the machine's description and the shapes.

Scores live transposed, ``[keys, queries]``, with lanes along queries: the statistics of a row of the softmax are then plain
vectors, keys and values are read as single broadcast elements or whole rows, and only queries are ever transposed.
A *panel* is as many queries as the register tile of scores is wide; a *block* of keys is what meets a panel at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.recipes.machine import Machine

__all__ = ["AttentionTiling", "choose_attention_tiling"]

BLOCK_ELEMENTS = 1 << 13  # of a block of keys: with its values and scores it stays in L2, mostly in L1
MAX_PANELS = 4  # more would share the copies of keys and values further, which cost little by then
SMALL_FLOPS = 4e6  # work not worth a second pass over partial sums


@dataclass(frozen=True, slots=True)
class AttentionTiling:
    """How the scores of one task are cut.

    ``lanes`` elements of a vector; scores in register tiles of ``keys`` rows by ``vectors`` vectors of queries; sums over keys
    in tiles of ``rows`` queries by ``width`` vectors of features, sums over queries in tiles of ``key_rows`` keys. ``panels``
    panels of queries share one copy of a block of ``block`` keys. Sums over queries are cut into ``pieces`` where the heads
    alone are too few tasks.
    """

    lanes: int
    keys: int
    vectors: int
    rows: int
    key_rows: int
    width: int
    panels: int
    block: int
    pieces: int

    @property
    def panel(self) -> int:
        """Queries of a panel."""
        return self.lanes * self.vectors

    @property
    def queries(self) -> int:
        """Queries of a block of panels."""
        return self.panel * self.panels

    def __str__(self) -> str:
        return (
            f"{self.keys}x{self.vectors}x{self.lanes} scores, {self.rows}x{self.width}x{self.lanes} sums, "
            f"block {self.queries}x{self.block}"
        )


def _passes(vectors: int, most: int) -> int:
    """Vectors of one pass over a row of ``vectors``: as even a cut as possible with at most ``most`` in each."""
    count = -(-vectors // most)
    return -(-vectors // count)


def _divisor(n: int, most: int) -> int:
    return next(d for d in range(min(n, most), 0, -1) if n % d == 0)


def choose_attention_tiling(
    machine: Machine, itemsize: int, heads: int, queries: int, keys: int, features: int
) -> AttentionTiling:
    """The tiling for ``heads`` times ``queries`` x ``keys`` scores of ``features`` each."""
    lanes = max(1, machine.vector_bytes // itemsize)
    wide = machine.registers >= 32
    registers = 24 if wide else 12  # of a tile; the rest hold what meets it
    vectors, key_tile = 2, 8 if wide else 6
    panel = vectors * lanes
    width = _passes(-(-features // lanes), 4 if wide else 2)
    block = max(BLOCK_ELEMENTS // max(features, 32) // key_tile, 4) * key_tile
    panels = max(1, min(MAX_PANELS, -(-queries // panel)))
    while panels > 1 and heads * -(-queries // (panel * panels)) < 4 * machine.threads:
        panels -= 1
    shared = machine.threads > 1 and 10.0 * heads * queries * keys * features > SMALL_FLOPS
    return AttentionTiling(
        lanes, key_tile, vectors, _divisor(panel, min(registers // width, lanes)), _divisor(key_tile, registers // width), width,
        panels, min(block, -(-keys // key_tile) * key_tile),
        max(1, -(-2 * machine.threads // max(heads, 1))) if shared else 1,
    )  # fmt: skip

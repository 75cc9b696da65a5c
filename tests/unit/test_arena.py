"""Arena planning: blocks that live at the same time never share memory, and reuse waits for the last user."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tilewright.lower.arena import ALIGNMENT, LARGE, ArenaPlan, Block, by_size, by_time, plan_arena

STEPS = 12


@st.composite
def blocks(draw: st.DrawFn) -> list[Block]:
    sizes = st.one_of(st.integers(0, 300), st.sampled_from((0, 1, 64, 65, 128, 4096, 100_000)))
    out = []
    for _ in range(draw(st.integers(0, 25))):
        first = draw(st.integers(0, STEPS))
        out.append(Block(draw(sizes), first, draw(st.integers(first, STEPS))))
    return out


def room(block: Block) -> int:
    """The bytes a block takes: whole lines, at least one."""
    return max(-(-block.nbytes // ALIGNMENT), 1) * ALIGNMENT


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return a[0] < b[1] and b[0] < a[1]


@given(blocks())
def test_live_blocks_never_overlap_and_waits_cover_earlier_users(given_blocks: list[Block]) -> None:
    for planner in (plan_arena, by_time, by_size):
        check(planner(given_blocks), given_blocks)


def check(plan: ArenaPlan, given_blocks: list[Block]) -> None:
    spans = [(o, o + room(b)) for o, b in zip(plan.offsets, given_blocks, strict=True)]
    for i, a in enumerate(given_blocks):
        assert plan.offsets[i] % ALIGNMENT == 0
        assert spans[i][0] >= 0
        assert spans[i][1] <= plan.nbytes
        assert -1 <= plan.waits[i] < a.first
        for j, b in enumerate(given_blocks):
            if i == j or not overlap(spans[i], spans[j]):
                continue
            assert a.last < b.first or b.last < a.first, "both are needed at one step"
            if b.last < a.first:  # b used the memory before a
                assert plan.waits[i] >= b.last
    at_once = max(
        (sum(room(b) for b in given_blocks if b.first <= s <= b.last) for s in range(STEPS + 1)), default=0
    )
    assert at_once <= plan.nbytes <= sum(map(room, given_blocks))


def test_a_chain_of_values_takes_two_places() -> None:
    """Each step reads one block and writes the next: the memory of the last but one is free again."""
    plan = plan_arena([Block(1000, n, n + 1) for n in range(20)])
    assert plan.nbytes == 2 * 1024
    assert plan.offsets == [0, 1024] * 10
    assert plan.waits == [-1, -1, *range(1, 19)]


def test_the_smallest_hole_that_fits_is_taken() -> None:
    big, small = Block(4096, 0, 1), Block(128, 0, 1)
    plan = plan_arena([big, Block(3000, 0, 9), small, Block(64, 0, 9), Block(100, 3, 4)])
    assert plan.offsets[4] == plan.offsets[2]
    assert plan.waits[4] == 1


def test_neighbouring_holes_are_one() -> None:
    plan = plan_arena([Block(64, 0, 0), Block(64, 0, 1), Block(64, 0, 5), Block(128, 3, 4)])
    first = sorted(plan.offsets[:2])
    assert plan.offsets[3] == first[0]
    assert plan.waits[3] == 1
    assert plan.nbytes == 192


def test_the_last_hole_grows() -> None:
    plan = plan_arena([Block(64, 0, 0), Block(640, 1, 2)])
    assert plan.offsets == [0, 0]
    assert plan.nbytes == 640
    assert plan.waits == [-1, 0]


def test_nothing_to_place() -> None:
    assert plan_arena([]).nbytes == 0


def test_a_large_arena_is_planned_in_the_better_of_two_ways() -> None:
    """Every second of eight small blocks stays, and a large one does not fit between them."""
    small = [Block(LARGE // 8, 0, 1 if n % 2 else 9) for n in range(8)]
    given_blocks = [*small, Block(LARGE, 2, 3)]
    assert by_time(given_blocks).nbytes > by_size(given_blocks).nbytes == plan_arena(given_blocks).nbytes

"""Parameters of the recipe for convolutions whose lanes are images, and what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from tilewright.core.shape import product
from tilewright.recipes.machine import Machine

__all__ = ["GAIN", "Convolution", "Panels", "choose_panels"]

# Cycles of a core that begins two vector multiplications in each; one that begins fewer takes so much longer.
COPY_CYCLES = 0.3  # to transpose one element of the image, or of a result
STORE_CYCLES = 1.75  # to begin, finish and store one register of a tile
LOADS = 1.01  # of two loads in a cycle: some cross a line
SUMS = 10.0  # that have to be under way for two multiplications in each cycle
LOAD_CYCLES = 0.3  # for each vector in a step that comes from L2
RUN_CYCLES = 8.0  # to begin a run of taps along the last axis
START_CYCLES = 2000.0  # to begin a task, and to lay out its part of the filters
L1_SHARE = 0.93  # of L1 that what a tile reads again may fill
L2_SHARE = 0.5  # of L2 that a block of images and its results may fill
GAIN = 1.1  # by how much the estimate has to be better than that of lanes along places
_MOST = {1: 16, 2: 12, 3: 8, 4: 6}  # filters of a register tile by its vectors, with 32 registers and with 16
_MOST_FEW = {1: 10, 2: 6, 3: 4}


@dataclass(frozen=True, slots=True)
class Convolution:
    """Sizes of a direct sum. Each axis: its size, taps, results, stride, and zeros before it."""

    itemsize: int
    images: int
    channels: int
    filters: int
    axes: tuple[tuple[int, int, int, int, int], ...]

    @property
    def places(self) -> int:
        return product([size for size, *_ in self.axes])

    @property
    def results(self) -> int:
        return product([results for _, _, results, _, _ in self.axes])

    @property
    def taps(self) -> int:
        return product([taps for _, taps, *_ in self.axes])

    @property
    def meetings(self) -> int:
        """How often a tap meets an element of the image, not a zero around it."""
        return product([_meetings(*axis) for axis in self.axes])


def _meetings(size: int, taps: int, results: int, stride: int, before: int) -> int:
    return sum(0 <= o * stride + t - before < size for o in range(results) for t in range(taps))


@dataclass(frozen=True, slots=True)
class Panels:
    """``vectors`` of images are a block; ``mr`` filters meet them in a register tile."""

    vectors: int
    mr: int


def choose_panels(machine: Machine, s: Convolution) -> tuple[float, Panels] | None:
    """The parameters that take the fewest cycles, and these; None where a vector or the caches do not hold what is needed."""
    lanes = machine.vector_bytes // s.itemsize
    slower = 2.0 / machine.fmas
    best: tuple[float, Panels] | None = None
    for vectors, most in (_MOST if machine.registers >= 32 else _MOST_FEW).items():
        width = vectors * lanes
        block = s.places * s.channels * width * s.itemsize
        for mr in range(min(most, s.filters), 0, -1):
            results = s.results * mr * width * s.itemsize
            if width > s.images or block + results > L2_SHARE * machine.l2:
                continue
            panels = -(-s.filters // mr)
            step = max(mr * vectors * slower, LOADS * (mr + vectors), SUMS) / 2.0
            near = s.taps * s.channels * (width + mr) * s.itemsize <= L1_SHARE * machine.l1
            step += 0.0 if near else LOAD_CYCLES * vectors
            runs = s.results * s.taps / s.axes[-1][1] * RUN_CYCLES
            tiles = s.meetings * s.channels * step + s.results * STORE_CYCLES * mr * vectors * slower + runs
            tiles += s.places * s.channels * vectors * LOAD_CYCLES  # v comes from L2 for each panel
            copied = (s.places * s.channels + s.results * s.filters) * width * COPY_CYCLES * slower
            blocks = -(-s.images // width)
            cost = -(-blocks // machine.threads) * (START_CYCLES + panels * tiles + copied)
            if best is None or cost < best[0]:
                best = cost, Panels(vectors, mr)
    return best

"""Overlapping windows: one packed copy of an operand serves several positions of a window's taps.

A window at place o reads, for its tap t, the element step*o + spread*t of an axis. Written with t = step*q + r that is
step*(o + spread*q) + spread*r: packed as P[r][o + spread*q], every element is copied once instead of once per q, and what
the taps read are runs of P that start ``spread`` rows apart. A 3x3 convolution thus copies its image three times, not nine.

    before   packed[c, ky, kx][oy, ox] = x[c, oy + ky, ox + kx]
    after    packed[c, kx][uy, ox]     = x[c, uy, ox + kx], and tap ky begins at row ky

What it does not do: build loops; ``contraction.py`` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tilewright.kernel.ir import var
from tilewright.lower.affine import Affine, Space, mentions
from tilewright.lower.problem import Analysis

__all__ = ["Halo", "find_halo"]


@dataclass(frozen=True, slots=True)
class Halo:
    """``place`` and ``tap`` number the ranges within their sides of the problem: N and K, or K and N."""

    place: int
    tap: int
    taps: int
    step: int
    spread: int

    @property
    def phases(self) -> int:
        """How many copies: remainders of taps by the step."""
        return min(self.step, self.taps)

    @property
    def reach(self) -> int:
        """Rows packed beyond the places."""
        return (self.taps - 1) // self.step * self.spread

    def start(self, space: Space, tap: Affine, line: int, row: int) -> Affine:
        """Where the run of a tap begins: ``line`` elements between copies, ``row`` elements between rows."""
        q, r = space.divmod(tap, self.step)
        return r * line + q * (self.spread * row)


def find_halo(look: Analysis, places_in: str) -> Halo | None:
    """The ranges of places and taps of B's windows. ``places_in``: "n" (lanes along N, taps in K) or "k"."""
    p = look.problem
    places, taps = (p.n, p.k) if places_in == "n" else (p.k, p.n)
    space = Space()
    reader = look.reader(space)
    batch = [space.loop(f"z{i}", e) for i, e in enumerate(p.batch)]
    n = [space.loop(f"n{i}", e) for i, e in enumerate(p.n)]
    k = [space.loop(f"k{i}", e) for i, e in enumerate(p.k)]
    p.b(reader, batch, n, k)
    other = "k" if places_in == "n" else "n"
    for tap, count in enumerate(taps):
        for place, extent in enumerate(places):
            if not isinstance(count, int) or not isinstance(extent, int):
                continue  # known at run time only
            if count == 1 or extent < count:  # more places than taps: otherwise the two trade names
                continue
            names = var(f"{places_in}{place}"), var(f"{other}{tap}")
            strides = {tuple(x.position.coefficient(v) for v in names) for x in reader.accesses}
            for a, b in strides:
                if a <= 0 or b <= 0:
                    continue
                g = math.gcd(a, b)
                halo = Halo(place, tap, count, a // g, b // g)
                overlaps = 4 * halo.phases * (extent + halo.reach) <= 3 * extent * count
                if overlaps and _holds(look, halo, places_in):
                    return halo
    return None


def _holds(look: Analysis, halo: Halo, places_in: str) -> bool:
    """Whether B's element depends on place and tap only through place + spread * (tap // step) and tap % step."""
    p = look.problem
    space = Space()
    reader = look.reader(space)
    batch = [space.loop(f"z{i}", e) for i, e in enumerate(p.batch)]
    n = [space.loop(f"n{i}", e) for i, e in enumerate(p.n)]
    k = [space.loop(f"k{i}", e) for i, e in enumerate(p.k)]
    places, taps = (n, k) if places_in == "n" else (k, n)
    extent = (p.n if places_in == "n" else p.k)[halo.place]
    assert isinstance(extent, int)
    row = space.loop("u", extent + halo.reach)
    q = space.loop("q", (halo.taps - 1) // halo.step + 1)
    r = space.loop("r", halo.phases)
    places[halo.place] = row - q * halo.spread
    taps[halo.tap] = q * halo.step + r
    expr = p.b(reader, batch, n, k)
    return not reader.checks and not mentions(expr, {var("q")})

"""A convolution of an image with zeros between its elements becomes one dense convolution for each phase of the result.

The gradient of a convolution with stride s (and every transposed convolution) is such a convolution: of the products with
the dilated image only one in s is not with a zero along each axis. Result o = s*i + p meets, of the taps t of a kernel, those for
which p + t*spread - padding is a multiple of s: every (s / gcd(s, spread))-th tap. The phases are laid between each other:

    before   conv(x: [n, c, h], w: [f, c, 3], lhs_dilation=2, padding=(1, 2)) : [n, f, 2*h]
    after    even = conv(x, w[:, :, 1:2]); odd = conv(x, w[:, :, 0::2])
             where(parity == 0, repeat(even), repeat(odd)) : [n, f, 2*h]

(Shi et al., "Is the deconvolution layer the same as a convolutional layer?", 2016.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tilewright.core import dtype as dt
from tilewright.core.shape import is_static, static
from tilewright.graph.ir import Value, constant, make, topological

__all__ = ["split_dilated_convolutions"]

MAX_PHASES = 16


@dataclass(frozen=True, slots=True)
class _Phase:
    """One axis of one phase: taps ``first``, ``first + step``... of the kernel, ``spread`` apart, over a padded image."""

    first: int
    step: int
    spread: int
    padding: tuple[int, int]
    stride: int


def _phases(v: Value, axis: int) -> list[_Phase | None]:
    """What every phase of a spatial axis computes; None where no tap meets an element."""
    x, w = v.inputs
    (size,), (taps,), (out,) = (static(y.shape[2 + axis : 3 + axis]) for y in (x, w, v))
    low, high = v["padding"][axis]
    s, spread, stride = v["lhs_dilation"][axis], v["rhs_dilation"][axis], v["stride"][axis]
    if s == 1:
        return [_Phase(0, 1, spread, (low, high), stride)]
    step = s // math.gcd(s, spread)
    phases: list[_Phase | None] = []
    for p in range(s):
        first = next((t for t in range(min(step, taps)) if (p + t * spread - low) % s == 0), None)
        if first is None:
            phases.append(None)
            continue
        before = -((p + first * spread - low) // s)
        reach = (-(-(taps - first) // step) - 1) * (step * spread // s)
        phases.append(
            _Phase(first, step, step * spread // s, (before, -(-out // s) - size - before + reach), 1)
        )
    return phases


def _dense(v: Value, phases: Sequence[_Phase | None]) -> Value | None:
    """The convolution of one phase."""
    x, w = v.inputs
    along = [p for p in phases if p is not None]
    if len(along) < len(phases):
        return None
    taps = make(
        "slice", [w], start=(0, 0, *(p.first for p in along)), stop=w.shape, step=(1, 1, *(p.step for p in along))
    )  # fmt: skip
    return make(
        "conv", [x, taps], stride=tuple(p.stride for p in along), padding=tuple(p.padding for p in along),
        lhs_dilation=(1,) * len(along), rhs_dilation=tuple(p.spread for p in along), groups=v["groups"],
        dtype=v.dtype,
    )  # fmt: skip


def _split(v: Value) -> Value:
    if (
        v.op != "conv"
        or max(v["lhs_dilation"], default=1) == 1
        or not all(is_static(x.shape) for x in (*v.inputs, v))
    ):
        return v
    if v.type.size == 0 or any(s > 1 and t > 1 for s, t in zip(v["lhs_dilation"], v["stride"], strict=True)):
        return v
    spatial = range(len(v.shape) - 2)
    steps, shape = v["lhs_dilation"], static(v.shape)
    axes = [_phases(v, a) for a in spatial]
    if math.prod(sum(p is not None for p in axis) for axis in axes) > MAX_PHASES:
        return v
    places = [-(-n // s) for n, s in zip(shape[2:], steps, strict=True)]
    between = (*shape[:2], *itertools.chain(*zip(places, steps, strict=True)))  # [n, f, h, s, w, s]
    whole = (*shape[:2], *(n * s for n, s in zip(places, steps, strict=True)))

    def joined(x: Value) -> Value:
        """Selections run over whole rows: where they ran over [.., w, s], each phase would store every s-th element."""
        return make("reshape", [make("broadcast", [x], shape=between)], shape=whole)

    def laid(chosen: tuple[int, ...]) -> Value:
        """The result for given phases of the first axes, over all phases of the others."""
        axis = len(chosen)
        if axis < len(steps):
            total = laid((*chosen, 0))
            for p in range(1, steps[axis]):
                number = joined(make("iota", [], shape=between, axis=3 + 2 * axis, dtype=dt.int32))
                mine = make("eq", [number, joined(constant(p, dt.int32))])
                total = make("where", [mine, laid((*chosen, p)), total])
            return total
        dense = _dense(v, [axes[a][p] for a, p in enumerate(chosen)])
        if dense is None:
            return joined(constant(0, v.dtype))
        apart = (*shape[:2], *itertools.chain(*((n, 1) for n in places)))
        return joined(make("reshape", [dense], shape=apart))

    out = laid(())
    if whole == shape:
        return out
    return make("slice", [out], start=(0,) * len(shape), stop=shape, step=(1,) * len(shape))


def split_dilated_convolutions(outputs: Sequence[Value]) -> list[Value]:
    """The outputs with convolutions over dilated images taken apart."""
    done: dict[Value, Value] = {}
    for v in topological(outputs):
        inputs = tuple(done[x] for x in v.inputs)
        done[v] = _split(v if inputs == v.inputs else make(v.op, inputs, **dict(v.attrs)))
    return [done[v] for v in outputs]

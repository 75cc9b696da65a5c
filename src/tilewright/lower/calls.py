"""Kernel calls: what lowering hands to the compiler, a kernel with the memory each of its arguments names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from tilewright.core.dtype import DType
from tilewright.core.shape import Extent, Size, upper
from tilewright.graph.ir import Value
from tilewright.kernel.ir import Buf, Check, Expr, Kernel, Scratch, Stmt
from tilewright.lower.affine import Affine

__all__ = ["Arg", "Builder", "Call", "Temporary", "inplace_pairs", "take_checks"]


@dataclass(frozen=True, slots=True, eq=False)
class Temporary:
    """Memory that only the calls of one group share (packed panels, partial sums)."""

    dtype: DType
    size: int

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


Place = Value | Temporary


class Checked(Protocol):
    """What collects bounds checks: a ``Reader``."""

    checks: list[tuple[Expr, int]]


@dataclass(frozen=True, slots=True)
class Arg:
    """A kernel argument: the place it lies in, how it is used, and from which element on."""

    place: Place
    access: str
    offset: int = 0


@dataclass(slots=True)
class Call:
    """One launch: the kernel runs over ``range(grid)``, handed out in pieces of at least ``chunk``.

    ``inplace`` lists (output, input) argument pairs that may be the same memory: every element is read before it is written.
    """

    kernel: Kernel
    args: list[Arg]
    grid: Extent
    chunk: int
    inplace: list[tuple[int, int]] = field(default_factory=list)
    label: str = ""
    flops: int = 0
    # What its bounds checks look at, and whether at every element: (indices, axis size). None: anything
    checked: dict[tuple[Value, int], bool] | None = None
    when: list[tuple[Size, int, int]] = field(
        default_factory=list
    )  # it runs where these sizes are in these ranges


def inplace_pairs(call: Call, positions: Mapping[Value, set[Affine]]) -> list[tuple[int, int]]:
    """(output, input) arguments that may share memory, among the values in ``positions``: where a call accesses each of them."""
    pairs = []
    for o, out in enumerate(call.args):
        if out.access != "w" or not isinstance(out.place, Value) or out.place not in positions:
            continue
        for i, arg in enumerate(call.args):
            if arg.access != "r" or not isinstance(arg.place, Value) or arg.place.type != out.place.type:
                continue
            if positions.get(arg.place) == positions[out.place]:
                pairs.append((o, i))
    return pairs


class Builder:
    """Collects the buffers, scratch areas and bounds checks of one kernel under canonical names."""

    def __init__(self) -> None:
        self.places: dict[tuple[Place, DType], tuple[str, DType, str, int]] = {}
        self.scratch: list[Scratch] = []
        self.streamed: set[Place] = set()  # results that stores need not leave in the caches

    def buffer(self, place: Place, access: str, offset: int = 0, view: DType | None = None) -> str:
        """The argument name of a place. ``view``: its bytes as elements of another type, an argument of its own."""
        dtype = view or place.dtype
        known = self.places.get((place, dtype))
        if known is not None:
            name, _, before, offset = known
            if before != access:
                access = "rw"
        else:
            name = f"b{len(self.places)}"
        self.places[place, dtype] = (name, dtype, access, offset)
        return name

    def area(self, dtype: DType, size: int) -> str:
        """A fresh scratch area."""
        name = f"s{len(self.scratch)}"
        self.scratch.append(Scratch(name, dtype, size))
        return name

    def call(self, body: tuple[Stmt, ...], grid: Extent, chunk: int, label: str, flops: int = 0) -> Call:
        """The finished call."""
        bufs = tuple(
            Buf(name, dtype, access, access == "w" and place in self.streamed)
            for (place, _), (name, dtype, access, _) in self.places.items()
        )
        args = [Arg(place, access, offset) for (place, _), (_, _, access, offset) in self.places.items()]
        return Call(
            Kernel(bufs, body, tuple(self.scratch)),
            args,
            grid,
            max(1, min(chunk, upper(grid))),
            label=label,
            flops=flops,
        )


def take_checks(reader: Checked) -> list[Stmt]:
    """The bounds checks collected since the last call, as statements. The code is the axis size + 1."""
    out: list[Stmt] = [Check(good, min(size, 2**31 - 2) + 1) for good, size in dict.fromkeys(reader.checks)]
    reader.checks.clear()
    return out

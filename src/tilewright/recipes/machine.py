"""What recipes know of the machine: vector width, registers, caches, threads. Never assumed, always described."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tilewright.kernel.ir import Expr, fma, op

if TYPE_CHECKING:
    from tilewright.recipes.tuned import Choices

__all__ = ["Machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes in bytes, ``l3`` what cores share; ``registers``: vector registers; ``threads``: how many run a program; ``dots``:
    packed element types that one instruction multiplies and adds up (``kernel.ir.DOTS``); ``has_fma``: a*b + c in one
    instruction; ``fmas``: how many multiplications of whole vectors begin in a cycle; ``tuned``: choices measured before;
    ``watch`` is shown every contraction that is lowered."""

    vector_bytes: int
    registers: int
    l1: int
    l2: int
    threads: int
    dots: frozenset[str] = frozenset()
    has_fma: bool = True
    fmas: float = 2.0
    l3: int = 32 << 20
    tuned: Choices | None = field(default=None, compare=False)
    watch: Callable[[Any], None] | None = field(default=None, compare=False)

    def accumulate(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """c + a*b, rounded once for floats where the machine has an instruction for that, twice where it would be emulated."""
        return fma(a, b, c) if c.dtype.is_float and self.has_fma else op("add", op("mul", a, b), c)

"""What recipes know of the machine: vector width, registers, caches, threads. Never assumed, always described."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilewright.recipes.tuned import Choices

__all__ = ["Machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes in bytes; ``registers``: vector registers; ``threads``: how many run a program; ``dots``: packed element types that
    one instruction multiplies and adds up (``kernel.ir.DOTS``); ``tuned``: choices measured before; ``watch`` is shown every
    contraction that is lowered."""

    vector_bytes: int
    registers: int
    l1: int
    l2: int
    threads: int
    dots: frozenset[str] = frozenset()
    tuned: Choices | None = field(default=None, compare=False)
    watch: Callable[[Any], None] | None = field(default=None, compare=False)

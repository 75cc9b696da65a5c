"""What recipes know of the machine: vector width, registers, caches, threads. Never assumed, always described."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Sizes in bytes; ``registers``: vector registers; ``threads``: how many run a program; ``dots``: packed element types that
    one instruction multiplies and adds up (``kernel.ir.DOTS``)."""

    vector_bytes: int
    registers: int
    l1: int
    l2: int
    threads: int
    dots: frozenset[str] = frozenset()

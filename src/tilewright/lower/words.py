"""Several elements of K in one 32-bit word: what instructions for dot products multiply and add up at once.

A contraction of bfloat16 pairs neighbours of its last k range, one of bytes takes them in fours. Its loops then run over words;
register tiles and cost model see a contraction of 32-bit elements over a K that is as many times shorter.

    words of A    where elements lie side by side along k, the operand's own memory read as words; otherwise packed
    words of B    the same; along n, whole rows of k are shifted into place while packing

x86 multiplies unsigned bytes with signed ones. For operands of one sign, 128 is added to (taken from) every byte of A by
flipping its highest bit, and the sums of B's columns, 128 times too much (too little), are put right at the end:

    sum (a ± 128) b = sum a b ± 128 sum b

Sums wrap, so that all of this is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.graph.ir import Value
from tilewright.kernel.ir import DOTS, Expr, bitcast, cast, const, dotacc, load, op
from tilewright.lower.affine import Affine
from tilewright.lower.read import Access, Reader, accumulator
from tilewright.recipes.machine import Machine

__all__ = ["Words", "packed_words", "words_of"]

_FLIP = 0x80808080
_ONES = 0x01010101


@dataclass(frozen=True, slots=True)
class Words:
    """``element``: the operands' type, ``size`` of which are one word; ``dots``: what the instruction takes; ``total``: its sum's
    type; ``correction``: what the sum of a column of B is multiplied with and added (0: nothing to put right)."""

    element: DType
    size: int
    dots: str
    total: DType
    correction: int = 0

    def flipped(self, a: Expr) -> Expr:
        """A word of A as the instruction takes it."""
        return op("bitxor", a, const(_FLIP, dt.uint32)) if self.correction else a

    def multiply(self, a: Expr, b: Expr, c: Expr) -> Expr:
        """c plus the products of two words, that of A flipped."""
        if self.correction > 0:  # unsigned bytes: A's have become signed
            a, b = b, a
        return dotacc(self.dots, c, a, b)

    def column(self, b: Expr, c: Expr) -> Expr:
        """c plus the elements of a word of B."""
        return self.multiply(const(_ONES, dt.uint32), b, c)


def words_of(anchor: Value, machine: Machine) -> Words | None:
    """How ``anchor``'s operands are packed on this machine, if they are."""
    if anchor.op != "dot" or not anchor["lhs_contract"]:
        return None
    element, result = anchor.inputs[0].dtype, anchor.dtype
    same = f"{element}.{element}"
    if element is dt.bfloat16 and same in machine.dots and accumulator(result) is dt.float32:
        return Words(element, 2, same, dt.float32)
    if element not in (dt.int8, dt.uint8) or result.bits > 32:
        return None
    if same in machine.dots:
        return Words(element, 4, same, DOTS[same][2])
    if "uint8.int8" in machine.dots:
        return Words(element, 4, "uint8.int8", dt.int32, -128 if element is dt.int8 else 128)
    return None


def packed_words(
    reader: Reader,
    words: Words,
    read: Callable[[int], Expr],
    count: int,
    view: Callable[[Value], str],
) -> Expr:
    """The word of elements ``read(0)``, ``read(1)`` ... of which ``count`` exist: read as a whole from the buffer ``view(value)``
    where they lie side by side at a multiple of the word's size, otherwise put together."""
    elements: list[Expr] = []
    accesses: list[Access] = []
    before, reader.accesses = reader.accesses, accesses
    for j in range(count):
        reader.forget()  # what is remembered is not counted as an access
        elements.append(read(j))
    reader.accesses = before
    whole = _lie_together(words, elements, accesses) if count == words.size else None
    if whole is not None:
        before.append(whole)
        return load(view(whole.value), whole.position.expr(), dt.uint32)
    before += accesses
    total: Expr | None = None
    for j, e in enumerate(elements):
        unsigned = {8: dt.uint8, 16: dt.uint16}[e.dtype.bits]
        part = cast(bitcast(e, unsigned), dt.uint32)
        part = op("shl", part, const(j * e.dtype.bits, dt.uint32)) if j else part
        total = part if total is None else op("bitor", total, part)
    assert total is not None
    return total


def _lie_together(words: Words, elements: Sequence[Expr], accesses: Sequence[Access]) -> Access | None:
    """The access of a whole word, where plain loads read neighbouring elements from a multiple of the word's size on."""
    if len(accesses) != words.size or any(e.op != "load" or len(e.args) != 1 for e in elements):
        return None
    first = accesses[0]
    if any(a.value is not first.value or a.position != first.position + j for j, a in enumerate(accesses)):
        return None
    size, at = words.size, first.position
    if at.constant % size or any(c % size for c in at.terms.values()):
        return None
    return Access(first.value, Affine({t: c // size for t, c in at.terms.items()}, at.constant // size))

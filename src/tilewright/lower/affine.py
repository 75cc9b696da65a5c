"""Index algebra: affine forms over loop variables with known ranges, and their exact division and remainder.

A movement operation rewrites indices; reshape needs ``//`` and ``%`` by constants. Over ranges these mostly vanish:
with ``0 <= j < 28``, ``(28*i + j) // 28`` is ``i`` and ``(28*i + j) % 28`` is ``j``. What does not vanish becomes an opaque
atom (``idiv``/``imod`` of the kernel IR) with a known range, and ``c*b*(e // c) + b*(e % c)`` is recombined to ``b*e``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from tilewright.core.shape import Extent, is_static, total, upper
from tilewright.kernel.ir import Expr, const, idiv, imod, op, var

__all__ = ["Affine", "Space", "Unsupported"]


class Unsupported(Exception):
    """This value has no native lowering; the reason is reported and the value is computed by the reference."""


class Affine:
    """``sum(coefficient * atom) + constant``; atoms are int64 kernel expressions. Immutable and hashable."""

    __slots__ = ("_hash", "constant", "terms")

    def __init__(self, terms: dict[Expr, int], constant: int = 0) -> None:
        self.terms = {a: c for a, c in terms.items() if c}
        self.constant = constant
        self._hash = hash((frozenset(self.terms.items()), constant))

    @staticmethod
    def of(value: int) -> Affine:
        return Affine({}, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Affine) and self.constant == other.constant and self.terms == other.terms

    def __hash__(self) -> int:
        return self._hash

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.terms, self.constant + other)
        terms = dict(self.terms)
        for atom, c in other.terms.items():
            terms[atom] = terms.get(atom, 0) + c
        return Affine(terms, self.constant + other.constant)

    def __sub__(self, other: Affine | int) -> Affine:
        return self + (-other if isinstance(other, int) else other * -1)

    def __mul__(self, factor: int) -> Affine:
        return Affine({a: c * factor for a, c in self.terms.items()}, self.constant * factor)

    def coefficient(self, atom: Expr) -> int:
        return self.terms.get(atom, 0)

    def expr(self) -> Expr:
        """The kernel expression of this form."""
        total: Expr | None = None
        for atom, c in self.terms.items():
            term = op("mul", atom, const(c))
            total = term if total is None else op("add", total, term)
        if total is None:
            return const(self.constant)
        return op("add", total, const(self.constant)) if self.constant else total

    def __repr__(self) -> str:
        return " + ".join([f"{c}*{a!r}" for a, c in self.terms.items()] + [str(self.constant)])


class Space:
    """The loop variables of a kernel and the inclusive range of every atom made from them."""

    def __init__(self) -> None:
        self.ranges: dict[Expr, tuple[int, int]] = {}
        self.extents: dict[Expr, Extent] = {}  # of loop variables
        self._split: dict[Expr, tuple[str, Affine, int]] = {}  # atom -> (idiv|imod, operand, divisor)

    def loop(self, name: str, extent: Extent) -> Affine:
        """A fresh loop variable ``0 <= name < extent``; a size-1 range is the constant 0."""
        if extent == 1:
            return Affine.of(0)
        atom = var(name)
        self.ranges[atom] = (0, max(upper(extent) - 1, 0))
        self.extents[atom] = extent
        return Affine({atom: 1})

    def atom(self, expr: Expr, low: int, high: int) -> Affine:
        """An opaque index expression with a known range."""
        if expr.op == "const":
            return Affine.of(expr.attr)
        self.ranges[expr] = (low, high)
        return Affine({expr: 1})

    def range(self, a: Affine) -> tuple[int, int]:
        """Smallest and largest value."""
        low = high = a.constant
        for atom, c in a.terms.items():
            lo, hi = self.ranges[atom]
            low += min(c * lo, c * hi)
            high += max(c * lo, c * hi)
        return low, high

    def divmod(self, a: Affine, c: int) -> tuple[Affine, Affine]:
        """Floor division and remainder by a positive constant."""
        if c <= 1:  # nothing runs over an empty range
            return a, Affine.of(0)
        quotient = Affine({t: k // c for t, k in a.terms.items() if k % c == 0}, a.constant // c)
        rest = Affine({t: k for t, k in a.terms.items() if k % c}, a.constant % c)
        low, high = self.range(rest)
        if low >= 0 and high < c:
            return quotient, rest
        # take terms with a common factor g of c apart from smaller ones that stay below g: (g*A + B) // c = A // (c/g)
        for g in sorted({math.gcd(k, c) for k in rest.terms.values()}, reverse=True):
            if g == 1:
                continue
            big = Affine({t: k // g for t, k in rest.terms.items() if k % g == 0}, rest.constant // g)
            small = Affine({t: k for t, k in rest.terms.items() if k % g}, rest.constant % g)
            lo, hi = self.range(small)
            if lo >= 0 and hi < g:
                if c // g == 1:
                    return quotient + big, small
                q, r = self._opaque(big, c // g)
                return quotient + q, r * g + small
        q, r = self._opaque(rest, c)
        return quotient + q, r

    def _opaque(self, a: Affine, c: int) -> tuple[Affine, Affine]:
        low, high = self.range(a)
        if low >= 0 and high < c:
            return Affine.of(0), a
        shift = 0 if low >= 0 else -(low // c)  # the kernel's idiv/imod take non-negative operands
        moved = a + shift * c
        low, high = low + shift * c, high + shift * c
        expr = moved.expr()
        q, r = idiv(expr, c), imod(expr, c)
        if q not in self.ranges:
            self.ranges[q] = (low // c, high // c)
            self.ranges[r] = (0, c - 1)
            self._split[q] = ("idiv", moved, c)
            self._split[r] = ("imod", moved, c)
        return Affine({q: 1}, -shift), Affine({r: 1})

    def recombine(self, a: Affine) -> Affine:
        """``c*b*(e // c) + b*(e % c)`` -> ``b*e``."""
        for atom, k in a.terms.items():
            kind, operand, c = self._split.get(atom, ("", a, 1))
            if kind != "imod":
                continue
            for other, j in a.terms.items():
                kind2, operand2, c2 = self._split.get(other, ("", a, 1))
                if kind2 == "idiv" and c2 == c and operand2 == operand and j == k * c:
                    rest = Affine(
                        {t: v for t, v in a.terms.items() if t is not atom and t is not other}, a.constant
                    )
                    return self.recombine(rest + operand * k)
        return a

    def linear(self, index: Sequence[Affine], shape: Sequence[Extent]) -> Affine:
        """Row-major position of an index. Raises ``Unsupported`` where a stride is a symbolic size."""
        total = Affine.of(0)
        stride: Extent = 1
        for i, size in zip(reversed(index), reversed(shape), strict=True):
            if isinstance(stride, int):
                total = total + i * stride
            elif i.terms or i.constant:
                raise Unsupported(f"an axis outside the symbolic size {stride}")
            stride = stride * size
        return self.recombine(total)

    def unravel(self, flat: Affine, shape: Sequence[Extent]) -> list[Affine]:
        """The index of a row-major position. Raises ``Unsupported`` where it takes a division by a symbolic size."""
        out: list[Affine] = []
        for k in range(len(shape) - 1, 0, -1):
            size = shape[k]
            if isinstance(size, int):
                flat, digit = self.divmod(flat, max(size, 1))
            elif all(s == 1 for s in shape[:k]):
                flat, digit = Affine.of(0), flat
            else:
                raise Unsupported(f"an axis outside the symbolic size {size}")
            out.append(digit)
        if shape:
            out.append(flat)
        return out[::-1]

    def covers(self, index: Sequence[Affine], shape: Sequence[Extent]) -> bool:
        """Whether the loops that an index is made from visit every place of a shape."""
        if not is_static((*shape, *self.extents.values())):
            return False
        flat, reached = self.linear(index, shape), 1
        for atom, c in sorted(flat.terms.items(), key=lambda term: term[1]):
            if c != reached or atom not in self.extents:
                return False
            reached = c * upper(self.extents[atom])
        return flat.constant == 0 and reached == total(shape)

    def depends(self, a: Affine, names: Iterable[Expr]) -> bool:
        """Whether any of the variables occurs, also inside atoms."""
        wanted = set(names)
        return any(mentions(atom, wanted) for atom in a.terms)

    def is_plain(self, a: Affine) -> bool:
        """Whether every atom is a loop variable."""
        return all(atom.op == "var" for atom in a.terms)


def mentions(e: Expr, names: set[Expr]) -> bool:
    """Whether an expression contains one of the given sub-expressions."""
    stack, seen = [e], set()
    while stack:
        x = stack.pop()
        if x in names:
            return True
        if x in seen:
            continue
        seen.add(x)
        stack.extend(x.args)
    return False

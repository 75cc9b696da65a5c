"""Symbolic sizes: integers that are known to lie in a range and get their number at run time.

A ``Size`` is a polynomial with integer coefficients over named sizes (``Size("batch", 1, 4096)``) and whole quotients of such
polynomials by a number. Arithmetic gives sizes again, or an ``int`` where the result does not depend on any of them.

Nothing about a size is ever guessed. A comparison that holds for every number in the range is true, one that holds for none is
false, and any other raises ``SymbolicSizeError``, as does every use as a plain number (``range(n)``, ``float(n)``). ``==`` is one
exception: inside this package it means "known to be equal", so that two sizes are the same in a shape only when they always are.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from tilewright.core.diagnostics import TilewrightError
from tilewright.core.integers import plain

__all__ = ["Size", "SymbolicSizeError", "bind", "narrowed", "parse_size", "spell"]

_PACKAGE: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_GENERATED: Final = ("<string>", "<frozen")  # methods that dataclasses write


class SymbolicSizeError(TilewrightError, RuntimeError):
    """A symbolic size was used where its number is needed. ``inside``: by this package, not by the caller's own code."""

    def __init__(self, message: str, inside: bool) -> None:
        super().__init__(message)
        self.inside = inside


class SizeError(TilewrightError, ValueError):
    """A symbolic size with a name or bounds that it cannot have."""


# A quotient is (numerator, divisor); a named size is (name, low, high). Monomials are sorted tuples of atoms.
Atom = tuple[Any, ...]
Monomial = tuple[Atom, ...]


def _order(atom: Atom) -> tuple[str, ...]:
    return tuple(map(str, atom))


class Size:
    """A size with a name and inclusive bounds, or an expression of such.

    >>> n = Size("batch", 1, 64)
    >>> 3 * n + 2, (3 * n + 2).low, (3 * n + 2).high
    (3*batch + 2, 5, 194)
    >>> n > 0, n == n + 1
    (True, False)
    """

    __slots__ = ("_hash", "high", "low", "terms")

    terms: dict[Monomial, int]
    low: int
    high: int

    def __init__(self, name: str, low: int, high: int) -> None:
        if not isinstance(name, str) or not name.isidentifier():
            raise SizeError(f"a size is named by an identifier such as 'batch', not {name!r}")
        low, high = plain(low), plain(high)
        for bound in (low, high):
            if isinstance(bound, bool) or not isinstance(bound, int):
                raise SizeError(f"the bounds of size {name!r} are integers, got {bound!r}")
        if not 1 <= low <= high < 1 << 48:
            raise SizeError(f"the bounds of size {name!r} are 1 <= low <= high, got {low} and {high}")
        self._fill({((name, low, high),): 1})

    def _fill(self, terms: dict[Monomial, int]) -> None:
        self.terms = terms
        self.low, self.high = _range(terms)
        self._hash = hash(frozenset(terms.items()))

    @property
    def name(self) -> str:
        """The name of a named size; the expression otherwise."""
        return repr(self)

    @property
    def is_named(self) -> bool:
        """Whether it is a named size itself and not an expression."""
        return len(self.terms) == 1 and all(
            k == 1 and len(m) == 1 and len(m[0]) == 3 for m, k in self.terms.items()
        )

    def names(self) -> dict[str, Size]:
        """The named sizes in the expression."""
        found: dict[str, Size] = {}
        for monomial in self.terms:
            for atom in monomial:
                if len(atom) == 3:
                    found[atom[0]] = Size(*atom)
                else:
                    found.update(_named_below(atom))
        return found

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return _write(self.terms, lambda atom: str(atom[0]), " + ")

    # ---- arithmetic -----------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        return _made(_sum(self.terms, terms))

    __radd__ = __add__

    def __neg__(self) -> Any:
        return _made({m: -k for m, k in self.terms.items()})

    def __pos__(self) -> Size:
        return self

    def __sub__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        return _made(_sum(self.terms, {m: -k for m, k in terms.items()}))

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __mul__(self, other: Any) -> Any:
        terms = _terms(other)
        if terms is None:
            return NotImplemented
        out: dict[Monomial, int] = {}
        for m, k in self.terms.items():
            for n, j in terms.items():
                both = tuple(sorted((*m, *n), key=_order))
                out[both] = out.get(both, 0) + k * j
        return _made(out)

    __rmul__ = __mul__

    def __floordiv__(self, other: Any) -> Any:
        return _divide(self, other)[0]

    def __mod__(self, other: Any) -> Any:
        return _divide(self, other)[1]

    def __divmod__(self, other: Any) -> Any:
        return _divide(self, other)

    def __rfloordiv__(self, other: Any) -> Any:
        return _divide_number(other, self)[0]

    def __rmod__(self, other: Any) -> Any:
        return _divide_number(other, self)[1]

    def __pow__(self, power: Any) -> Any:
        if not isinstance(power, int) or power < 0:
            return NotImplemented
        out: Any = 1
        for _ in range(power):
            out = out * self
        return out

    # ---- comparison -----------------------------------------------------------------------------------------------

    def __eq__(self, other: object) -> bool:
        terms = _terms(other)
        if terms is None:
            return False
        if terms == self.terms:
            return True
        low, high = _range(_sum(self.terms, {m: -k for m, k in terms.items()}))
        if low > 0 or high < 0 or _called_inside(sys._getframe(1).f_code.co_filename):
            return False
        raise _refused(f"whether {self} equals {other} depends on {_ranges(self, other)}")

    def __ne__(self, other: object) -> bool:
        terms = _terms(other)
        if terms is None or terms == self.terms:
            return terms is None
        low, high = _range(_sum(self.terms, {m: -k for m, k in terms.items()}))
        if low > 0 or high < 0 or _called_inside(sys._getframe(1).f_code.co_filename):
            return True
        raise _refused(f"whether {self} equals {other} depends on {_ranges(self, other)}")

    def __lt__(self, other: Any) -> bool:
        return self._below(other, 0, "less than")

    def __le__(self, other: Any) -> bool:
        return self._below(other, 1, "at most")

    def __gt__(self, other: Any) -> bool:
        return not self._below(other, 1, "at most")

    def __ge__(self, other: Any) -> bool:
        return not self._below(other, 0, "less than")

    def _below(self, other: Any, more: int, words: str) -> bool:
        """Whether self - other < more over the whole range."""
        if isinstance(other, float) and other in (float("inf"), float("-inf")):
            return other > 0
        terms = _terms(other)
        if terms is None:
            raise TypeError(f"the symbolic size {self} and {other!r} cannot be compared")
        low, high = _range(_sum(self.terms, {m: -k for m, k in terms.items()}))
        if high < more:
            return True
        if low >= more:
            return False
        raise _refused(f"whether {self} is {words} {other} depends on {_ranges(self, other)}")

    def __bool__(self) -> bool:
        return not self._below(1, 0, "less than")

    # ---- what needs the number ------------------------------------------------------------------------------------

    def __index__(self) -> int:
        raise _refused(f"the size {self} has no number while the function is traced")

    def __int__(self) -> int:
        raise _refused(f"the size {self} has no number while the function is traced")

    def __float__(self) -> float:
        raise _refused(f"the size {self} has no number while the function is traced")

    def __truediv__(self, other: Any) -> Any:
        if hasattr(type(other), "__rtruediv__") and _terms(other) is None and not isinstance(other, float):
            return NotImplemented
        raise _refused(f"the quotient {self} / {other} has no number while the function is traced")

    def __rtruediv__(self, other: Any) -> Any:
        raise _refused(f"the quotient {other} / {self} has no number while the function is traced")


# ---- terms ----------------------------------------------------------------------------------------------------------


def _terms(x: Any) -> dict[Monomial, int] | None:
    if isinstance(x, Size):
        return x.terms
    if isinstance(x, int):
        return {(): int(x)} if x else {}
    return None


def _made(terms: dict[Monomial, int]) -> Any:
    """A size, or an integer where no name is left."""
    terms = {m: k for m, k in terms.items() if k}
    if not terms or (len(terms) == 1 and () in terms):
        return terms.get((), 0)
    size = Size.__new__(Size)
    size._fill(terms)
    return size


def _sum(a: dict[Monomial, int], b: dict[Monomial, int]) -> dict[Monomial, int]:
    out = dict(a)
    for m, k in b.items():
        total = out.get(m, 0) + k
        if total:
            out[m] = total
        else:
            out.pop(m, None)
    return out


def _bounds(atom: Atom) -> tuple[int, int]:
    if len(atom) == 3:
        return atom[1], atom[2]
    low, high = _range(dict(atom[0]))
    return low // atom[1], high // atom[1]


def _range(terms: dict[Monomial, int]) -> tuple[int, int]:
    """Bounds of a polynomial whose atoms are not negative, term by term."""
    low = high = 0
    for monomial, k in terms.items():
        least = most = 1
        for atom in monomial:
            a, b = _bounds(atom)
            least, most = least * max(a, 0), most * b
        low += k * (least if k > 0 else most)
        high += k * (most if k > 0 else least)
    return low, high


def _named_below(atom: Atom) -> dict[str, Size]:
    inner = _made(dict(atom[0]))
    return inner.names() if isinstance(inner, Size) else {}


def _divide(x: Any, y: Any) -> tuple[Any, Any]:
    """Whole quotient and remainder of a size that is not negative by a positive number, or by a size that divides it."""
    terms = _terms(y)
    if terms is None:
        raise TypeError(f"the symbolic size {x} cannot be divided by {y!r}")
    if isinstance(y, Size):
        exact = _exact(x.terms, y.terms)
        if exact is None:
            raise _refused(f"the whole quotient {x} // {y} depends on {_ranges(x, y)}")
        return _made(exact), 0
    if y == 0:
        raise ZeroDivisionError(f"the symbolic size {x} divided by zero")
    if y < 0:
        q, r = _divide(-x, -y)
        return q, r * -1
    whole = {m: k // y for m, k in x.terms.items() if k % y == 0}
    rest = {m: k for m, k in x.terms.items() if k % y}
    if not rest:
        return _made(whole), 0
    if rest.keys() == {()}:
        return _made(_sum(whole, {(): rest[()] // y})), rest[()] % y
    if all(k < 0 for m, k in rest.items() if m):  # -(-n // y) is (n + y - 1) // y
        up, _ = _divide(_made(_sum({m: -k for m, k in rest.items()}, {(): y - 1})), y)
        quotient = _sum(whole, {m: -k for m, k in (_terms(up) or {}).items()})
        return _made(quotient), x - _made(quotient) * y
    for m in list(rest):  # coefficients between 0 and the divisor, so that the numerator is not negative
        q, rest[m] = divmod(rest[m], y)
        whole = _sum(whole, {m: q})
    rest = {m: k for m, k in rest.items() if k}
    low, high = _range(rest)
    if low // y == high // y:
        q = low // y
        return _made(_sum(whole, {(): q})), _made(_sum(rest, {(): -q * y}))
    atom: Atom = (tuple(sorted(rest.items(), key=lambda i: [_order(a) for a in i[0]])), y)
    quotient = {(atom,): 1}
    remainder = _made(_sum(rest, {(atom,): -y}))
    return _made(_sum(whole, quotient)), remainder


def _divide_number(x: Any, y: Size) -> tuple[Any, Any]:
    """A number divided by a size: only where the quotient is one number over the whole range."""
    if not isinstance(x, int):
        raise TypeError(f"{x!r} cannot be divided by the symbolic size {y}")
    if y.low > 0 and x // y.low == x // y.high:
        q = x // y.low
        return q, x - y * q
    raise _refused(f"the whole quotient {x} // {y} depends on {_ranges(y)}")


def _exact(x: dict[Monomial, int], y: dict[Monomial, int]) -> dict[Monomial, int] | None:
    """The quotient of two polynomials where the second is one term that divides every term of the first, or a multiple."""
    if len(y) > 1:
        (m, k) = next(iter(y.items()))
        ratio = x.get(m, 0) // k if k else 0
        return {(): ratio} if ratio and {n: j * ratio for n, j in y.items()} == x else None
    ((divisor, by),) = y.items()
    out: dict[Monomial, int] = {}
    for monomial, k in x.items():
        left = list(monomial)
        for atom in divisor:
            if atom not in left:
                return None
            left.remove(atom)
        if k % by:
            return None
        out[tuple(left)] = k // by
    return out


# ---- errors ---------------------------------------------------------------------------------------------------------


def _called_inside(file: str) -> bool:
    return file.startswith((_PACKAGE, *_GENERATED))


def _refused(what: str) -> SymbolicSizeError:
    """The error for a question that has no one answer, with the line that asked."""
    frame = sys._getframe(1)
    own = os.path.abspath(__file__)
    while frame.f_back is not None and frame.f_code.co_filename == own:
        frame = frame.f_back
    file = frame.f_code.co_filename
    inside = _called_inside(file)
    where = "" if inside else f" (at {os.path.basename(file)}:{frame.f_lineno})"
    return SymbolicSizeError(
        f"{what}{where}; one program serves the whole range, so nothing may depend on the number. Use the size in shapes,"
        " or in arithmetic with tensors; or leave it out of `dynamic=`, so that each size is compiled for itself",
        inside,
    )


def _ranges(*sizes: Any) -> str:
    found: dict[str, Size] = {}
    for size in sizes:
        if isinstance(size, Size):
            found.update(size.names())
    return ", ".join(f"{n}, which is from {s.low} to {s.high}" for n, s in sorted(found.items()))


# ---- numbers --------------------------------------------------------------------------------------------------------


def bind(size: Any, numbers: Mapping[str, int]) -> int:
    """The number of a size where its names have these numbers; an integer is itself."""
    if not isinstance(size, Size):
        return int(size)
    return _evaluate(size.terms.items(), numbers)


def _evaluate(terms: Any, numbers: Mapping[str, int]) -> int:
    total = 0
    for monomial, k in terms:
        for atom in monomial:
            k *= numbers[atom[0]] if len(atom) == 3 else _evaluate(atom[0], numbers) // atom[1]
        total += k
    return int(total)


def narrowed(size: Any, ranges: Mapping[str, tuple[int, int]]) -> Any:
    """The same expression where some names have narrower bounds; a name with one number left is that number."""
    if not isinstance(size, Size):
        return size
    return _narrowed(size.terms.items(), ranges)


def _narrowed(terms: Any, ranges: Mapping[str, tuple[int, int]]) -> Any:
    total: Any = 0
    for monomial, k in terms:
        term: Any = k
        for atom in monomial:
            if len(atom) == 3:
                low, high = ranges.get(atom[0], (atom[1], atom[2]))
                term = term * (low if low == high else Size(atom[0], low, high))
            else:
                term = term * (_narrowed(atom[0], ranges) // atom[1])
        total = total + term
    return total


# ---- text -----------------------------------------------------------------------------------------------------------


def _write(terms: Any, name: Any, plus: str) -> str:
    pieces = []
    for monomial, k in sorted(dict(terms).items(), key=lambda i: (not i[0], [_order(a) for a in i[0]])):
        factors = [name(a) if len(a) == 3 else f"(({_write(a[0], name, plus)})//{a[1]})" for a in monomial]
        pieces.append("*".join([str(k), *factors] if k != 1 or not factors else factors))
    return plus.join(pieces)


def spell(size: Size) -> str:
    """The text of a size with the bounds of its names, without spaces: ``3*batch:1..64+2``."""
    return _write(size.terms, lambda a: f"{a[0]}:{a[1]}..{a[2]}", "+")


_TOKEN = re.compile(r"[A-Za-z_]\w*:\d+\.\.\d+|-?\d+|//|[*+()]")


def parse_size(text: str) -> Any:
    """The size that ``spell`` wrote. Raises ``ValueError`` for other text."""
    tokens = _TOKEN.findall(text)
    if "".join(tokens) != text or not tokens:
        raise ValueError(f"cannot read the size {text!r}")
    tokens.append("")

    def operand() -> Any:
        token = tokens.pop(0)
        if token == "(":
            inner = total()
            if tokens[0] == "//":
                tokens.pop(0)
                inner = inner // int(tokens.pop(0))
            if tokens.pop(0) != ")":
                raise ValueError(f"cannot read the size {text!r}")
            return inner
        if ":" in token:
            name, low, high = re.split(r":|\.\.", token)
            return Size(name, int(low), int(high))
        try:
            return int(token)
        except ValueError:
            raise ValueError(f"cannot read the size {text!r}") from None

    def product() -> Any:
        out = operand()
        while tokens[0] == "*":
            tokens.pop(0)
            out = out * operand()
        return out

    def total() -> Any:
        out = product()
        while tokens[0] == "+":
            tokens.pop(0)
            out = out + product()
        return out

    found = total()
    if tokens != [""]:
        raise ValueError(f"cannot read the size {text!r}")
    return found

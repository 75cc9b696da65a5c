"""Index algebra against brute force: every form is evaluated at every value of its loop variables.

Operands of the kernel's ``idiv`` and ``imod`` must never be negative; the evaluation here checks that too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright.kernel.ir import Expr, const, imod, op, var
from tilewright.lower.affine import Affine, Space, mentions

Point = Mapping[str, int]
INT = {"add": int.__add__, "sub": int.__sub__, "mul": int.__mul__, "minimum": min, "maximum": max}


def value(e: Expr, point: Point) -> int:
    """What an index expression is at a point of its variables."""
    if e.op == "const":
        return int(e.attr)
    if e.op == "var":
        return point[e.attr]
    a, b = (value(x, point) for x in e.args)
    if e.op in ("idiv", "imod"):
        assert a >= 0, f"{e.op} of {a}"
        return a // b if e.op == "idiv" else a % b
    return INT[e.op](a, b)


def at(a: Affine, point: Point) -> int:
    """The form's value, which its kernel expression must have too."""
    total = a.constant + sum(c * value(atom, point) for atom, c in a.terms.items())
    assert value(a.expr(), point) == total
    return total


def points(extents: Mapping[str, int]) -> Iterator[Point]:
    for values in itertools.product(*map(range, extents.values())):
        yield dict(zip(extents, values, strict=True))


@st.composite
def forms(draw: st.DrawFn, low: int = -40) -> tuple[Space, Affine, dict[str, int]]:
    """A space of up to three loop variables and a form over them."""
    space = Space()
    extents = {f"i{k}": draw(st.integers(1, 6)) for k in range(draw(st.integers(1, 3)))}
    form = Affine.of(draw(st.integers(low, 40)))
    for name, extent in extents.items():
        factor = draw(st.one_of(st.integers(low and -12, 12), st.sampled_from((1, 2, 4, 6, 12, 24))))
        form = form + space.loop(name, extent) * factor
    return space, form, extents


@given(forms(), st.integers(1, 30))
def test_division_and_remainder_by_a_constant(case: tuple[Space, Affine, dict[str, int]], c: int) -> None:
    space, form, extents = case
    quotient, rest = space.divmod(form, c)
    for point in points(extents):
        assert (at(quotient, point), at(rest, point)) == divmod(at(form, point), c)


@given(forms(), st.integers(2, 12), st.integers(2, 6))
def test_digits_of_digits(case: tuple[Space, Affine, dict[str, int]], b: int, c: int) -> None:
    """Divisions nest: the quotient and remainder are forms like any other."""
    space, form, extents = case
    quotient, rest = space.divmod(form, b)
    again, digit = space.divmod(quotient, c)
    mixed, last = space.divmod(rest * 3 + quotient, c)
    for point in points(extents):
        q, r = divmod(at(form, point), b)
        assert (at(again, point), at(digit, point)) == divmod(q, c)
        assert (at(mixed, point), at(last, point)) == divmod(3 * r + q, c)


@given(forms(), st.integers(2, 30))
def test_ranges_hold_every_value(case: tuple[Space, Affine, dict[str, int]], c: int) -> None:
    space, form, extents = case
    for a in (form, *space.divmod(form, c)):
        low, high = space.range(a)
        values = [at(a, p) for p in points(extents)]
        assert low <= min(values)
        assert max(values) <= high
    low, high = space.range(form)
    assert (low, high) == (
        min(at(form, p) for p in points(extents)),
        max(at(form, p) for p in points(extents)),
    )


@given(forms(), st.integers(2, 30), st.integers(-5, 5))
def test_a_number_is_made_of_its_digits(
    case: tuple[Space, Affine, dict[str, int]], c: int, factor: int
) -> None:
    space, form, extents = case
    quotient, rest = space.divmod(form, c)
    whole = space.recombine((quotient * c + rest) * factor)
    assert whole == form * factor
    for point in points(extents):
        assert at(whole, point) == at(form, point) * factor


shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@given(shapes, shapes)
def test_positions_and_indices_are_inverse(shape: tuple[int, ...], other: tuple[int, ...]) -> None:
    """An index to its row-major position, read as an index of another shape of as many elements, and back."""
    count = prod(shape)
    other = (count,) if prod(other) != count else other
    space = Space()
    extents = {f"i{k}": n for k, n in enumerate(shape)}
    index = [space.loop(name, n) for name, n in extents.items()]
    flat = space.linear(index, shape)
    moved = space.unravel(flat, other)
    back = space.linear(moved, other)
    for number, point in enumerate(points(extents)):
        assert at(flat, point) == number
        rest = number
        for digit, size in reversed(list(zip(moved, other, strict=True))):
            assert at(digit, point) == rest % size
            rest //= size
        assert at(back, point) == number
    assert back == flat
    assert space.unravel(flat, shape) == index


@given(st.permutations(range(4)), st.lists(st.sampled_from((1, 2, 3, 4)), min_size=4, max_size=4))
def test_a_reshape_of_a_transposed_array_reads_every_element_once(axes: list[int], sizes: list[int]) -> None:
    """What no affine form can say becomes opaque digits, and stays right."""
    space = Space()
    count = prod(sizes)
    flat = space.loop("e", count)
    stored = [sizes[a] for a in axes]  # the array after the permutation
    digits = space.unravel(flat, stored)
    index = [Affine.of(0)] * 4
    for digit, axis in zip(digits, axes, strict=True):
        index[axis] = digit
    position = space.linear(index, sizes)
    assert sorted(at(position, {"e": e}) for e in range(count)) == list(range(count))
    if list(axes) == [0, 1, 2, 3]:
        assert position == flat


def test_known_ranges_make_division_vanish() -> None:
    space = Space()
    i, j = space.loop("i", 10), space.loop("j", 28)
    assert space.divmod(i * 28 + j, 28) == (i, j)
    assert space.divmod(i * 56 + j, 28) == (i * 2, j)
    assert space.divmod(i * 28 + j + 28 * 3, 28) == (i + 3, j)
    assert space.divmod(i * 4, 8) == tuple(
        part * factor for part, factor in zip(space.divmod(i, 2), (1, 4), strict=True)
    )


def test_a_loop_of_one_is_a_constant_and_an_empty_one_has_a_range() -> None:
    space = Space()
    assert space.loop("i", 1) == Affine.of(0)
    empty = space.loop("j", 0)
    assert space.range(empty) == (0, 0)
    assert space.divmod(empty, 0) == (empty, Affine.of(0))


def test_forms_are_equal_by_content() -> None:
    i, j = var("i"), var("j")
    assert Affine({i: 2, j: 0}, 1) == Affine({i: 2}, 1) == Affine({i: 1}) + Affine({i: 1}, 1)
    assert hash(Affine({i: 2, j: 3})) == hash(Affine({j: 3, i: 2}))
    assert Affine({i: 2}) - Affine({i: 2}) == Affine.of(0)
    assert Affine({i: 1}) != Affine({j: 1})
    assert Affine.of(3).expr() is const(3)


def test_variables_inside_atoms_are_seen() -> None:
    space = Space()
    i, j = space.loop("i", 7), space.loop("j", 5)
    _, digit = space.divmod(i * 3 + j, 4)
    (atom,) = digit.terms
    assert atom is imod(op("add", op("mul", var("i"), const(3)), var("j")), 4)
    assert mentions(atom, {var("j")})
    assert not mentions(atom, {var("k")})
    assert space.depends(digit, [var("i")])
    assert not space.is_plain(digit)
    assert space.is_plain(i + j * 2)


@pytest.mark.parametrize(("low", "high"), [(0, 9), (3, 4)])
def test_an_atom_keeps_its_range(low: int, high: int) -> None:
    space = Space()
    inside = space.atom(op("minimum", var("n"), const(high)), low, high)
    assert space.range(inside * 2 + 1) == (2 * low + 1, 2 * high + 1)
    assert space.atom(const(5), 0, 9) == Affine.of(5)

"""Loop bounds that are known at run time only: symbolic sizes as kernel expressions, and where kernels find their numbers.

Lowering writes ``extent(size)`` wherever a loop ends: a constant, or an expression over variables ``size.<name>``. When a
kernel is finished, ``bind_sizes`` gives each of these a value: one element loaded from the leaf that holds the size's number.

    for i in 0..size.batch * 28          ->      let size.batch: i64 = n0[0];  for i in 0..size.batch * 28
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from tilewright.core import dtype as dt
from tilewright.core.shape import Extent, product, upper
from tilewright.core.size import Atom, Size
from tilewright.graph.ir import Value
from tilewright.kernel.ir import (
    Buf,
    Check,
    Expr,
    If,
    Kernel,
    Let,
    Loop,
    Prefetch,
    Reg,
    Set,
    Stmt,
    Store,
    const,
    idiv,
    imod,
    load,
    op,
    var,
    walk,
)  # fmt: skip
from tilewright.lower.affine import Unsupported
from tilewright.lower.calls import Arg, Call

__all__ = ["bind_sizes", "digits", "extent"]

PREFIX = "size."


def extent(size: Extent) -> Expr:
    """A size as an int64 expression."""
    if not isinstance(size, Size):
        return const(size)
    total: Expr | None = None
    for monomial, factor in size.terms.items():
        term: Expr = const(factor)
        for atom in monomial:
            term = op("mul", _atom(atom), term)
        total = term if total is None else op("add", total, term)
    assert total is not None
    return total


def _atom(atom: Atom) -> Expr:
    if len(atom) == 3:
        return var(PREFIX + str(atom[0]))
    total: Expr = const(0)
    for monomial, factor in atom[0]:
        term: Expr = const(factor)
        for inner in monomial:
            term = op("mul", _atom(inner), term)
        total = op("add", total, term)
    return idiv(total, atom[1])


def digits(names: Sequence[str], extents: Sequence[Extent]) -> list[Stmt]:
    """The index over some ranges that the task number ``g`` stands for, as ``Let``s; a range of one element has none.

    A symbolic range leads, so that every divisor is a constant. Raises ``Unsupported`` for two of them.
    """
    symbolic = [p for p, e in enumerate(extents) if isinstance(e, Size)]
    if len(symbolic) > 1:
        raise Unsupported("work shared out over several symbolic ranges")
    order = [*symbolic, *(p for p in range(len(extents)) if p not in symbolic)]
    order = [p for p in order if extents[p] != 1]
    lets: dict[int, Stmt] = {}
    for number, position in enumerate(order):
        digit = idiv(var("g"), product(max(upper(extents[p]), 1) for p in order[number + 1 :]))
        digit = digit if number == 0 else imod(digit, max(upper(extents[position]), 1))
        lets[position] = Let(names[position], digit)
    return [lets[position] for position in sorted(lets)]


def bind_sizes(call: Call, leaves: Mapping[str, Value]) -> None:
    """Let a finished call's kernel load the sizes that it uses from the leaves that hold their numbers."""
    names = sorted(_sizes_in(call.kernel.body))
    if not names:
        return
    bufs, lets = [], []
    for number, name in enumerate(names):
        bufs.append(Buf(f"n{number}", dt.int64, "r"))
        lets.append(Let(name, load(f"n{number}", 0, dt.int64)))
        call.args.append(Arg(leaves[name.removeprefix(PREFIX)], "r"))
    k = call.kernel
    call.kernel = Kernel((*k.buffers, *bufs), (*lets, *k.body), k.scratch, k.name)


def _sizes_in(body: Sequence[Stmt]) -> set[str]:
    found: set[str] = set()
    seen: set[Expr] = set()
    stack = [e for s in walk(body) for e in _expressions(s)]
    while stack:
        e = stack.pop()
        if e in seen:
            continue
        seen.add(e)
        if e.op == "var" and e.attr.startswith(PREFIX):
            found.add(e.attr)
        stack.extend(e.args)
    return found


def _expressions(s: Stmt) -> Iterator[Expr]:
    own: Iterable[Expr | None] = ()
    if isinstance(s, Loop):
        own = (s.start, s.stop)
    elif isinstance(s, Store):
        own = (s.index, s.value, s.mask)
    elif isinstance(s, Prefetch):
        own = (s.index,)
    elif isinstance(s, Let):
        own = (s.value,)
    elif isinstance(s, Reg):
        own = (s.init,)
    elif isinstance(s, Set):
        own = (s.value, *s.at)
    elif isinstance(s, (Check, If)):
        own = (s.condition,)
    return (e for e in own if e is not None)

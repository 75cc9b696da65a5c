"""Derivatives and batches of loops: what each transform of the body makes of the loop around it.

Every rule is a loop again, over a body that the transform of one iteration gives, so that rules apply to their own
results. Letters: c constants, h carries, x and y what is sliced and stacked, h' a new carry; an index names a result:
a last carry, then a stacked y. A carry is *moving* when a derivative (or a difference between examples) can reach it: on
the first iteration or, through the body, on a later one.

    forward    h', y = f(c, h, x)                          reverse    dh, dc, dx = pull f at (c, h, x) of (dh', dy)
    tangent    (h', th'), (y, ty) = push f along (tc, th, tx)         summing dc, from the last iteration to the first

Reverse mode reads the carries before every iteration and the results of the body's contractions and reductions, which
the forward loop then stacks too; what lies between is computed anew. The forward loop stays one loop: a pass merges it
with the one that was there. Where the gradient of a constant is a product of small factors (a weight's), the loop stacks
the factors instead of summing, and one contraction over all iterations follows it.

A ``while_loop`` has forward mode and batches, in which examples that are done keep their carries until all are; its
number of iterations is not known, so there is nowhere to keep what reverse mode would read.

This file knows the transforms of one iteration only as functions that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

from tilewright.graph.body import Body, besides
from tilewright.graph.build import add, broadcast, dot, permute, reshape, where, zeros_like
from tilewright.graph.ir import Value, input_value, make, topological

__all__ = ["KEPT", "batched", "pulled", "pushed", "scan", "while_loop"]

Dependent = Callable[[Sequence[Value], Sequence[Value]], Container[Value]]
Pull = Callable[[Sequence[Value], Sequence[Value | None], Sequence[Value]], Sequence[Value | None]]
Push = Callable[[Sequence[Value], Sequence[Value], Sequence[Value]], Sequence[Value | None]]
Batch = Callable[[Sequence[Value], Mapping[Value, Value], int], Sequence[Value | None]]

# What is cheaper to keep for the backward pass than to compute anew. The functions among them are those whose derivative is
# written with their result: where it is kept, the operand is needed no more.
KEPT = frozenset(
    ("dot", "conv", "reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "cumsum", "scatter", "fold", "scan",
     "while_loop", "switch", "attention", "attention_grad", "exp", "tanh", "sigmoid")
)  # fmt: skip


def scan(
    body: Body,
    consts: Sequence[Value],
    init: Sequence[Value],
    xs: Sequence[Value],
    length: int,
    reverse: bool,
) -> list[Value]:
    """The results of a loop: the last carries, then what the iterations give, stacked along a first axis.

    Iteration i takes the slice i of ``xs`` and gives the slice i of the results; ``reverse`` begins with the last.
    """
    return [
        make("scan", (*consts, *init, *xs), body=body, length=length, reverse=reverse, consts=len(consts),
             carries=len(init), index=index)
        for index in range(len(body.outputs))
    ]  # fmt: skip


def while_loop(body: Body, consts: Sequence[Value], init: Sequence[Value]) -> list[Value]:
    """The last carries of a loop that runs while the first of them, a bool, is true."""
    return [
        make("while_loop", (*consts, *init), body=body, consts=len(consts), carries=len(init), index=index)
        for index in range(len(init))
    ]


@dataclass
class _Loop:
    """A loop taken apart, its body over fresh leaves: ``leaves`` are those of constants, carries and slices in order."""

    consts: Sequence[Value]
    init: Sequence[Value]
    xs: Sequence[Value]
    length: int | None  # None: a while_loop
    reverse: bool
    body: Body
    leaves: list[Value]
    new: list[Value]
    ys: list[Value]

    @classmethod
    def of(cls, v: Value) -> _Loop:
        first, past, body = v["consts"], v["consts"] + v["carries"], v["body"]
        leaves = body.leaves()
        results = body.apply(leaves)
        new, ys = results[: v["carries"]], results[v["carries"] :]
        inputs = v.inputs
        return cls(
            inputs[:first],
            inputs[first:past],
            inputs[past:],
            v["length"] if v.op == "scan" else None,
            v.op == "scan" and v["reverse"],
            body,
            leaves,
            new,
            ys,
        )

    def again(
        self, body: Body, consts: Sequence[Value], init: Sequence[Value], xs: Sequence[Value]
    ) -> list[Value]:
        """The results of a loop of the same kind over another body."""
        if self.length is None:
            return while_loop(body, consts, init)
        return scan(body, consts, init, xs, self.length, self.reverse)

    @property
    def c(self) -> list[Value]:
        return self.leaves[: len(self.consts)]

    @property
    def h(self) -> list[Value]:
        return self.leaves[len(self.consts) : len(self.consts) + len(self.init)]

    @property
    def x(self) -> list[Value]:
        return self.leaves[len(self.consts) + len(self.init) :]

    def moving(
        self, given: Sequence[bool], reached: Callable[[list[Value]], Container[Value]]
    ) -> list[Value]:
        """The leaves that move when those that are ``given`` do; ``reached(leaves)`` holds the results that then move."""
        chosen = {leaf for leaf, moves in zip(self.leaves, given, strict=True) if moves}
        while True:
            found = reached([v for v in self.leaves if v in chosen])
            more = {leaf for leaf, new in zip(self.h, self.new, strict=True) if new in found} - chosen
            if not more:
                return [v for v in self.leaves if v in chosen]
            chosen |= more


@dataclass(frozen=True)
class _Product:
    """A contraction in the body of a loop, its axes moved by ``moves``: the gradient of a constant in one iteration."""

    contraction: Value
    moves: tuple[tuple[int, ...], ...]  # of permutations, the innermost first

    @property
    def factors(self) -> tuple[Value, ...]:
        return self.contraction.inputs

    def summed(self, stacks: Mapping[Value, Value]) -> Value:
        """The sum over all iterations, from the stacked factors: the iterations are one more axis to contract."""
        one = self.contraction
        lhs, rhs = (stacks[f] for f in one.inputs)
        out = dot(
            lhs, rhs, ([0, *(a + 1 for a in one["lhs_contract"])], [0, *(a + 1 for a in one["rhs_contract"])]),
            ([a + 1 for a in one["lhs_batch"]], [a + 1 for a in one["rhs_batch"]]), one["dtype"],
        )  # fmt: skip
        for axes in self.moves:
            out = permute(out, axes)
        return out


def _product(gradient: Value | None, stored: Container[Value]) -> _Product | None:
    """The contraction that ``gradient`` is, when its factors, those that are not ``stored`` for every iteration anyway, are
    smaller than itself: reading and writing a sum of its size in every iteration takes longer than keeping them."""
    moves = list[tuple[int, ...]]()
    v = gradient
    while v is not None and v.op == "permute":
        moves.append(v["axes"])
        (v,) = v.inputs
    if v is None or v.op != "dot":
        return None
    new = [f for f in dict.fromkeys(v.inputs) if f not in stored]
    if not all(isinstance(d, int) for f in (v, *new) for d in f.shape):
        return None
    if sum(f.type.nbytes for f in new) >= v.type.nbytes:
        return None
    return _Product(v, tuple(reversed(moves)))


def _of_carries(loop: _Loop, cotangents: Mapping[int, Value]) -> dict[int, Value]:
    """The cotangents with those of stacked carries of which only the last is read as cotangents of the last carries: zeros
    for all other iterations are neither stored nor added."""
    found = dict(cotangents)
    for j, y in enumerate(loop.ys):
        number = len(loop.init) + j
        if number not in found or y not in loop.new:
            continue
        one = _of_last(loop, found[number])
        if one is not None:
            del found[number]
            k = loop.new.index(y)
            found[k] = add(found[k], one) if k in found else one
    return found


def _of_last(loop: _Loop, cotangent: Value) -> Value | None:
    """The last iteration's slice of a stack's cotangent that is zero elsewhere, as a slice leaves it."""
    axes: Sequence[int] = range(cotangent.type.rank)
    x = cotangent
    if x.op == "permute":
        axes, (x,) = x["axes"], x.inputs
    if x.op != "pad" or x.inputs[1].op != "constant" or x.inputs[1]["value"] != 0 or any(x["interior"]):
        return None
    given, along = x.inputs[0], axes[0]
    low, high = ([0] * len(axes) for _ in range(2))
    assert loop.length is not None
    (high if loop.reverse else low)[along] = loop.length - 1
    if given.shape[along] != 1 or list(x["low"]) != low or list(x["high"]) != high:
        return None
    return reshape(permute(given, axes), cotangent.shape[1:])


def pulled(
    v: Value, cotangents: Mapping[int, Value], needed: Sequence[bool], pull: Pull, dependent: Dependent
) -> list[Value | None]:
    """The cotangents of a loop's operands (of those that are ``needed``), from those of its results by index."""
    loop = _Loop.of(v)
    assert loop.length is not None
    cotangents = _of_carries(loop, cotangents)
    wanted = [n and leaf.dtype.is_inexact for n, leaf in zip(needed, loop.leaves, strict=True)]
    moving = loop.moving(wanted, lambda leaves: dependent([*loop.new, *loop.ys], leaves))
    path = dependent([*loop.new, *loop.ys], moving)

    # One iteration backwards: dh' and dy come in, dh, dc and dx go out.
    carries = [k for k, leaf in enumerate(loop.h) if leaf in moving]
    stacked = [
        j for j, y in enumerate(loop.ys) if len(loop.init) + j in cotangents and y in path
    ]  # those with a cotangent
    seeds = [_leaf_like(loop.h[k]) for k in carries]
    slices = [_leaf_like(loop.ys[j]) for j in stacked]
    results = [*(loop.new[k] for k in carries), *(loop.ys[j] for j in stacked)]
    found = dict(zip(moving, pull(results, [*seeds, *slices], moving), strict=True))

    # What it reads of the forward iteration.
    varying = _depending([*loop.new, *loop.ys], [*loop.h, *loop.x])
    kept = {y for y in varying if y.op in KEPT}
    stored = {*kept, *loop.h, *loop.x, *slices}

    products = {c: p for c in loop.c if (p := _product(found.get(c), stored)) is not None}
    inner_consts = [c for c in loop.c if found.get(c) is not None and c not in products]
    sums = [_leaf_like(c) for c in inner_consts]
    outer_xs = [x for x in loop.x if found.get(x) is not None]
    gives = [found[loop.h[k]] or zeros_like(loop.h[k]) for k in carries]
    gives += [add(s, _there(found[c])) for s, c in zip(sums, inner_consts, strict=True)]
    gives += [_there(found[x]) for x in outer_xs]
    factors = list(dict.fromkeys(f for p in products.values() for f in p.factors))
    gives += [f for f in factors if f not in stored]
    read = topological([*gives, *factors], stop=kept.__contains__)
    saved = [y for y in read if y in kept or y in loop.h]
    forward = Body.of(loop.leaves, [*loop.new, *loop.ys, *saved])
    results = scan(forward, loop.consts, loop.init, loop.xs, loop.length, loop.reverse)
    residuals = results[len(loop.new) + len(loop.ys) :]
    consts = [(c, outer) for c, outer in zip(loop.c, loop.consts, strict=True) if c in read]
    xs = [(x, outer) for x, outer in zip(loop.x, loop.xs, strict=True) if x in read]

    own = [*(c for c, _ in consts), *seeds, *sums, *(x for x, _ in xs), *saved, *slices]
    more = besides(gives, own)
    body = Body.of([*more, *own], gives)
    init = [cotangents.get(k) or zeros_like(loop.init[k]) for k in carries]
    outer_of = dict(zip(loop.leaves, v.inputs, strict=True))
    init += [zeros_like(outer_of[c]) for c in inner_consts]
    given = [cotangents[len(loop.init) + j] for j in stacked]
    outs = scan(
        body,
        [*more, *(o for _, o in consts)],
        init,
        [*(o for _, o in xs), *residuals, *given],
        loop.length,
        not loop.reverse,
    )
    order = [*(loop.h[k] for k in carries), *inner_consts, *outer_xs]
    by_leaf = dict(zip(order, outs[: len(order)], strict=True))
    stacks = dict(zip([f for f in factors if f not in stored], outs[len(order) :], strict=True))
    stacks |= {
        **dict(xs),
        **dict(zip(saved, residuals, strict=True)),
        **dict(zip(slices, given, strict=True)),
    }
    by_leaf |= {c: p.summed(stacks) for c, p in products.items()}
    return [by_leaf.get(leaf) if want else None for leaf, want in zip(loop.leaves, wanted, strict=True)]


def pushed(v: Value, tangents: Sequence[Value | None], push: Push, dependent: Dependent) -> dict[int, Value]:
    """The tangents of a loop's results by index, from those of its operands."""
    loop = _Loop.of(v)
    outputs = [*loop.new, *loop.ys]
    moving = loop.moving([t is not None for t in tangents], lambda leaves: dependent(outputs, leaves))
    along = {leaf: _leaf_like(leaf) for leaf in moving}
    moved = push(outputs, moving, [along[leaf] for leaf in moving])
    new, ys = moved[: len(loop.new)], moved[len(loop.new) :]
    carries = [k for k, leaf in enumerate(loop.h) if leaf in along]
    stacked = [j for j, t in enumerate(ys) if t is not None]
    given = dict(zip(loop.leaves, tangents, strict=True))
    consts = [c for c in loop.c if c in along]
    slices = [x for x in loop.x if x in along]
    own = [*loop.c, *(along[c] for c in consts), *loop.h, *(along[loop.h[k]] for k in carries), *loop.x,
           *(along[x] for x in slices)]  # fmt: skip
    gives = [
        *loop.new,
        *(new[k] or zeros_like(loop.new[k]) for k in carries),
        *(_there(ys[j]) for j in stacked),
    ]
    more = besides(gives, own)
    outs = loop.again(
        Body.of([*more, *own], gives),
        [*more, *loop.consts, *(_there(given[c]) for c in consts)],
        [*loop.init, *(given[loop.h[k]] or zeros_like(loop.init[k]) for k in carries)],
        [*loop.xs, *(_there(given[x]) for x in slices)],
    )[len(loop.new) :]
    indices = [*carries, *(len(loop.new) + j for j in stacked)]
    return dict(zip(indices, outs, strict=True))


def batched(v: Value, operands: Sequence[tuple[Value, bool]], size: int, batch: Batch) -> Value:
    """The result ``v`` of a loop for ``size`` examples at once, with the examples' axis first."""
    loop = _Loop.of(v)
    outputs = [*loop.new, *loop.ys]

    def mapped(leaves: list[Value]) -> tuple[dict[Value, Value], list[Value | None]]:
        every = {leaf: input_value(leaf.dtype, (size, *leaf.shape)) for leaf in leaves}
        return every, list(batch(outputs, every, size))

    def reached(leaves: list[Value]) -> set[Value]:
        return {one for one, all in zip(outputs, mapped(leaves)[1], strict=True) if all is not None}

    moving = loop.moving([m for _, m in operands], reached)
    if loop.length is None and loop.h[0] in moving:
        index: int = v["index"]
        return _batched_while(loop, operands, size, batch)[index]
    every, found = mapped(moving)
    carries = len(loop.init)
    results = []
    for index, (one, all) in enumerate(zip(outputs, found, strict=True)):
        must = index < carries and loop.h[index] in every
        results.append(_spread(one, size) if all is None and must else all or one)
    body = Body.of([every.get(leaf, leaf) for leaf in loop.leaves], results)
    given = []
    for number, (leaf, (operand, is_mapped)) in enumerate(zip(loop.leaves, operands, strict=True)):
        is_x = number >= len(loop.consts) + carries
        if is_mapped and is_x:
            operand = permute(operand, [1, 0, *range(2, operand.type.rank)])
        elif leaf in every and not is_mapped:
            operand = _spread(operand, size)
        given.append(operand)
    first, past = len(loop.consts), len(loop.consts) + carries
    outs = loop.again(body, given[:first], given[first:past], given[past:])
    out = outs[v["index"]]
    if out.type.rank == v.type.rank:  # the same for every example
        return _spread(out, size)
    return out if v["index"] < carries else permute(out, [1, 0, *range(2, out.type.rank)])


def _batched_while(
    loop: _Loop, operands: Sequence[tuple[Value, bool]], size: int, batch: Batch
) -> list[Value]:
    """Examples that end at different times: the loop runs while any goes on, and those that are done keep their carries."""
    first = len(loop.consts)
    mapped = [m or n >= first for n, (_, m) in enumerate(operands)]
    leaves = [
        input_value(v.dtype, (size, *v.shape)) if m else v for v, m in zip(loop.leaves, mapped, strict=True)
    ]
    every = {one: all for one, all, m in zip(loop.leaves, leaves, mapped, strict=True) if m}
    goes, kept = leaves[first], list[Value]()
    for old, one, new in zip(leaves[first:], loop.new, batch(loop.new, every, size), strict=True):
        chosen = broadcast(reshape(goes, (size, *[1] * one.type.rank)), old.shape)
        kept.append(where(chosen, new or _spread(one, size), old))
    kept[0] = make("bitand", (goes, kept[0]))
    any_goes = input_value(goes.dtype, ())
    body = Body.of(
        [*leaves[:first], any_goes, *leaves[first:]], [make("reduce_max", (kept[0],), axes=(0,)), *kept]
    )
    init = [v if m else _spread(v, size) for v, m in operands[first:]]
    start = make("reduce_max", (init[0],), axes=(0,))
    return while_loop(body, [v for v, _ in operands[:first]], [start, *init])[1:]


def _leaf_like(v: Value) -> Value:
    return input_value(v.dtype, v.shape)


def _there(v: Value | None) -> Value:
    assert v is not None
    return v


def _spread(v: Value, size: int) -> Value:
    return broadcast(v, (size, *v.shape))


def _depending(outputs: Sequence[Value], leaves: Sequence[Value]) -> set[Value]:
    """The values below ``outputs`` that depend on ``leaves``."""
    found: set[Value] = set(leaves)
    for v in topological(outputs):
        if any(x in found for x in v.inputs):
            found.add(v)
    return found - set(leaves)

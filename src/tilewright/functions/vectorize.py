"""``vmap``: a function of one example as a function of many, without a loop.

The function runs once, with stand-ins for one example; what it recorded is then batched, operation by operation
(``autodiff.batching``). It composes with derivatives, with itself and with ``jit``.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tilewright.autodiff.batching import batch, spread_over
from tilewright.core import dtype as dt
from tilewright.core.integers import plain
from tilewright.core.trees import Structure, flatten, unflatten
from tilewright.functions.arguments import as_tensor, axis_of
from tilewright.functions.movement import moveaxis, reshape
from tilewright.graph import build
from tilewright.graph.ir import Value, make, topological
from tilewright.tensor import (
    ArgumentError,
    AxisError,
    DTypeError,
    ShapeError,
    Tensor,
    from_value,
    lazy,
    modes,
    operand_value,
)
from tilewright.tensor.standins import StandIns

__all__ = ["apply_along_axis", "vmap"]


def vmap(
    fun: Callable[..., Any],
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_size: int | None = None,
    randomness: str = "different",
) -> Callable[..., Any]:
    """The function applied to every example along an axis of its arguments, all at once.

    ``in_axes`` says along which axis each positional argument holds the examples: one integer for all, or a sequence
    with an integer, None (the same for every example) or a tree of them for each argument. Keyword arguments hold
    examples along axis 0. ``out_axes`` says where the results get the examples' axis; None is for results that are
    the same for every example. ``axis_size`` is the number of examples, needed only when no argument has any.

    Inside, a tensor has the shape of one example and no elements: reading them raises ``TracedValueError``.

    ``randomness`` is about numbers drawn inside from a generator: "different" for each example (the key is folded with the
    example's number), the "same" for all, or an "error". Numbers drawn with a key are those of the key, as in a loop.

    >>> vmap(lambda x, y: (x * y).sum(), in_axes=(0, None))(Tensor([[1.0, 2.0], [3.0, 4.0]]), Tensor([1.0, 10.0])).tolist()
    [21.0, 43.0]
    """
    name = getattr(fun, "__name__", "function")
    if randomness not in ("different", "same", "error"):
        raise ArgumentError(f"vmap: `randomness` is 'different', 'same' or 'error', got {randomness!r}")

    @functools.wraps(fun)
    def batched(*args: Any, **kwargs: Any) -> Any:
        leaves, structure = flatten((args, kwargs))
        axes = _argument_axes(in_axes, structure)
        given, size = _examples(leaves, axes, axis_size, name)
        trace = StandIns(f"vmap({name})")
        with trace:
            ones, stands = _stand_ins(trace, given, leaves)
            call_args, call_kwargs = unflatten(structure, ones)
            with _numbered(trace, stands, size, randomness):
                results, out_structure = flatten(fun(*call_args, **call_kwargs))
            found = [_result(x, name) for x in results]
            values = [operand_value(t) for t in found]
        places = _spread(out_axes, out_structure, "out_axes")
        mapped = batch(values, stands, size)
        nodes = 1 + len(topological(values, stop=stands.__contains__)) // max(1, len(values))
        operands = [t for t, _ in given if t is not None]
        outs = []
        for tensor, value, every, place in zip(found, values, mapped, places, strict=True):
            whole = _placed(value, every, place, size, name)
            outs.append(from_value(whole, operands, tensor._requires_grad and modes.grad, nodes))
        return unflatten(out_structure, outs)

    return batched


@contextlib.contextmanager
def _numbered(trace: StandIns, stands: dict[Value, Value], size: int, randomness: str) -> Iterator[None]:
    """Let generators know the number of the example, which stands for 0, 1, ..., size - 1."""
    before = modes.examples
    if randomness == "different":
        one = trace.stand_in(dt.int64, ())
        stands[one] = make("iota", shape=(size,), axis=0, dtype=dt.int64)
        modes.examples = (*before, from_value(one))
    elif randomness == "error":
        modes.examples = (*before, None)
    try:
        yield
    finally:
        modes.examples = before


def _argument_axes(in_axes: Any, structure: Structure) -> list[int | None]:
    """The axis of every leaf of ``(args, kwargs)``."""
    positional, keywords = structure.children
    in_axes = tuple(in_axes) if isinstance(in_axes, list) else plain(in_axes)
    if not (in_axes is None or isinstance(in_axes, (int, tuple))):
        raise DTypeError(
            f"vmap: `in_axes` is an integer, None or a sequence of them, got {type(in_axes).__name__}"
        )
    return _spread(in_axes, positional, "in_axes") + _spread(0, keywords, "in_axes")


def _spread(axes: Any, structure: Structure, name: str) -> list[int | None]:
    """A tree of axes, or one axis for a whole subtree, as one axis per leaf."""
    axes = plain(axes)
    if structure.kind == "leaf":
        if axes is not None and (isinstance(axes, bool) or not isinstance(axes, int)):
            raise DTypeError(f"vmap: `{name}` has {axes!r} where a tensor needs an integer or None")
        return [axes]
    if axes is None or isinstance(axes, int):
        return [axis for child in structure.children for axis in _spread(axes, child, name)]
    if isinstance(axes, (tuple, list)) and (
        structure.kind in (tuple, list) or hasattr(structure.kind, "_fields")
    ):
        parts: Sequence[Any] = axes
    elif isinstance(axes, dict):
        if set(axes) != set(structure.keys):
            raise ArgumentError(
                f"vmap: `{name}` has the keys {list(axes)}, the tree it is for {list(structure.keys)}"
            )
        parts = [axes[key] for key in structure.keys]
    elif isinstance(axes, structure.kind):
        parts = [getattr(axes, key) for key in structure.keys]
    else:
        raise ArgumentError(f"vmap: `{name}` has {type(axes).__name__} for {structure.kind.__name__}")
    if len(parts) != len(structure.children):
        raise ArgumentError(f"vmap: `{name}` has {len(parts)} entries for {len(structure.children)}")
    return [
        axis
        for part, child in zip(parts, structure.children, strict=True)
        for axis in _spread(part, child, name)
    ]


Given = tuple[Tensor | None, Value | None]  # a mapped argument, and its value with the examples first


def _examples(
    leaves: Sequence[Any], axes: Sequence[int | None], axis_size: int | None, name: str
) -> tuple[list[Given], int]:
    """The mapped arguments and the number of examples."""
    given: list[Given] = []
    sizes: dict[int, int] = {}  # size -> the first argument leaf that has it
    for number, (leaf, axis) in enumerate(zip(leaves, axes, strict=True)):
        if axis is None:
            given.append((None, None))
            continue
        tensor = as_tensor(leaf, "vmap", f"argument {number}")
        if tensor.ndim == 0:
            raise AxisError(
                f"vmap: argument leaf {number} of `{name}` has rank 0 and no axis of examples; give it None in `in_axes`"
            )
        place = axis_of(axis, tensor.ndim, "vmap", "in_axes")
        sizes.setdefault(tensor.shape[place], number)
        order = (place, *(a for a in range(tensor.ndim) if a != place))
        given.append((tensor, build.permute(operand_value(tensor), order)))
    if axis_size is not None:
        sizes.setdefault(axis_size, -1)
    if not sizes:
        raise ArgumentError(
            "vmap: no argument has an axis of examples; give one in `in_axes`, or `axis_size`"
        )
    if len(sizes) > 1:
        shown = " and ".join(
            f"{s} ({'`axis_size`' if n < 0 else f'argument leaf {n}'})" for s, n in sizes.items()
        )
        raise ShapeError(f"vmap: the arguments of `{name}` have different numbers of examples: {shown}")
    return given, next(iter(sizes))


def _stand_ins(
    trace: StandIns, given: Sequence[Given], leaves: Sequence[Any]
) -> tuple[list[Any], dict[Value, Value]]:
    """The arguments for one example, and what the stand-ins among them stand for."""
    ones: list[Any] = []
    stands: dict[Value, Value] = {}
    for (tensor, value), leaf in zip(given, leaves, strict=True):
        if tensor is None or value is None:
            ones.append(leaf)
            continue
        one = trace.stand_in(value.dtype, value.shape[1:])
        stands[one] = value
        recorded = tensor._requires_grad and modes.grad
        example = from_value(one, (), recorded)
        if recorded:  # so that derivatives inside know that somebody outside may want theirs
            lazy.register_role(one, example)
        ones.append(example)
    return ones, stands


def _result(leaf: Any, name: str) -> Tensor:
    if isinstance(leaf, (str, bytes)) or leaf is None:
        raise DTypeError(f"vmap: `{name}` returns tensors, got {type(leaf).__name__} among them")
    return as_tensor(leaf, "vmap", "result")


def _placed(value: Value, every: Value | None, place: int | None, size: int, name: str) -> Value:
    """A result with the examples' axis where ``out_axes`` wants it."""
    if place is None:
        if every is not None:
            raise ArgumentError(
                f"vmap: a result of `{name}` differs between examples; `out_axes` must not be None for it"
            )
        return value
    whole = spread_over(value, size) if every is None else every
    rank = whole.type.rank
    if not -rank <= place < rank:
        raise AxisError(f"vmap: `out_axes` {place} is out of range for a result of rank {rank}")
    order = list(range(1, rank))
    order.insert(place % rank, 0)
    return build.permute(whole, order)


def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: Any, *args: Any, **kwargs: Any) -> Any:
    """What ``func1d(line, *args, **kwargs)`` gives for every line of ``arr`` along ``axis``; its axes take the place of ``axis``.

    All lines are computed at once by ``vmap``, so ``func1d`` is called once, with a traced vector.

    >>> from tilewright.functions import sort, tensor
    >>> apply_along_axis(lambda line: line[0] + line[-1], 0, tensor([[1, 2], [3, 4]])).tolist()
    [4, 6]
    """
    x = as_tensor(arr, "apply_along_axis", "arr")
    at = axis_of(axis, x.ndim, "apply_along_axis")
    lead = (*x.shape[:at], *x.shape[at + 1 :])
    lines = reshape(moveaxis(x, at, -1), (math.prod(lead), x.shape[at]))
    out = vmap(lambda line: func1d(line, *args, **kwargs))(lines)
    rest = out.shape[1:]
    found = reshape(out, (*lead, *rest))
    return moveaxis(found, list(range(len(lead), found.ndim)), list(range(at, at + len(rest))))

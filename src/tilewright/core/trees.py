"""Trees: nested tuples, lists, dicts, named tuples and dataclasses of leaves, as jit and the transforms see them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

__all__ = ["Structure", "flatten", "map_leaves", "paths", "unflatten"]


@dataclass(frozen=True, slots=True)
class Structure:
    """The shape of a tree without its leaves. ``kind`` is ``leaf`` or the container's type; hashable and comparable."""

    kind: Any
    keys: tuple[Any, ...] = ()
    children: tuple[Structure, ...] = ()


LEAF = Structure("leaf")
_NONE = Structure(type(None))


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """Leaves of ``tree`` from left to right (dict entries in insertion order) and its structure. ``None`` has no leaves."""
    leaves: list[Any] = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list[Any]) -> Structure:
    if tree is None:
        return _NONE
    kind = type(tree)
    if kind is tuple or kind is list:
        return Structure(kind, (), tuple(_flatten(t, leaves) for t in tree))
    if kind is dict:
        return Structure(kind, tuple(tree), tuple(_flatten(t, leaves) for t in tree.values()))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return Structure(kind, tuple(tree._fields), tuple(_flatten(t, leaves) for t in tree))
    if is_dataclass(tree) and not isinstance(tree, type):
        names = tuple(f.name for f in fields(tree))
        return Structure(kind, names, tuple(_flatten(getattr(tree, n), leaves) for n in names))
    leaves.append(tree)
    return LEAF


def unflatten(structure: Structure, leaves: Iterable[Any]) -> Any:
    """The tree of this structure over the given leaves; the inverse of ``flatten``."""
    return _unflatten(structure, iter(leaves))


def _unflatten(structure: Structure, leaves: Any) -> Any:
    kind = structure.kind
    if kind == "leaf":
        return next(leaves)
    if kind is type(None):
        return None
    children = [_unflatten(c, leaves) for c in structure.children]
    if kind is tuple or kind is list:
        return kind(children)
    if kind is dict:
        return dict(zip(structure.keys, children, strict=True))
    return kind(**dict(zip(structure.keys, children, strict=True)))


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """A tree of the same structure with ``function`` applied to every leaf."""
    leaves, structure = flatten(tree)
    return unflatten(structure, [function(leaf) for leaf in leaves])


def paths(structure: Structure, root: str = "") -> list[str]:
    """Where each leaf of a tree of this structure lies, as Python would reach it.

    >>> paths(flatten({"a": [1, 2]})[1], "state")
    ["state['a'][0]", "state['a'][1]"]
    """
    if structure.kind == "leaf":
        return [root]
    named = structure.keys and structure.kind is not dict
    found: list[str] = []
    for n, child in enumerate(structure.children):
        key = structure.keys[n] if structure.keys else n
        found += paths(child, f"{root}.{key}" if named else f"{root}[{key!r}]")
    return found

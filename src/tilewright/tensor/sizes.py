"""What ``dynamic=`` of ``tw.jit`` says: which axes of which arguments have symbolic sizes, and whether a call keeps to it.

An argument is named by its parameter, by its position, or by a path into it: ``"x"``, ``0``, ``"batch.images"``,
``"pair[1]"``. What is said of a container holds for every tensor in it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tilewright.core.integers import plain
from tilewright.core.size import Size
from tilewright.core.trees import Structure
from tilewright.tensor.errors import ArgumentError, ShapeError
from tilewright.tensor.handle import Tensor

__all__ = ["Axes", "DynamicSizes"]

Axes = Mapping[int, Size | None] | Sequence[Size | None]
Axis = tuple[int, str, int, int, Size]  # axis, and the name, bounds and self of its size


class DynamicSizes:
    """The symbolic axes of a function's arguments."""

    def __init__(self, function: Callable[..., Any], dynamic: Any, name: str) -> None:
        self.function = name
        if not isinstance(dynamic, Mapping):
            raise ArgumentError(
                f"jit: `dynamic` maps arguments to {{axis: tw.Dim(...)}}, got {type(dynamic).__name__}"
            )
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):  # a function that does not say what it takes: positions only
            parameters = {}  # type: ignore[assignment]
        kinds = inspect.Parameter
        self._names: list[str] = []  # of the positional parameters
        self._rest = "args"
        for key, parameter in parameters.items():
            if parameter.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD):
                self._names.append(key)
            elif parameter.kind is kinds.VAR_POSITIONAL:
                self._rest = key
        self.sizes: dict[str, Size] = {}
        self._axes: dict[str, dict[int, Size]] = {}
        for key, axes in dynamic.items():
            path = self._positional(key) if isinstance(key, int) and not isinstance(key, bool) else key
            if not isinstance(path, str):
                raise ArgumentError(
                    f"jit: `dynamic` names an argument by parameter, position or path such as 'batch.x', got {key!r}"
                )
            self._axes[path] = self._read(path, axes)
        self._by_structure: dict[Any, list[tuple[str, list[Axis]] | None]] = {}

    def _positional(self, position: int) -> str:
        if position < len(self._names):
            return self._names[position]
        return f"{self._rest}[{position - len(self._names)}]"

    def _read(self, path: str, axes: Any) -> dict[int, Size]:
        if isinstance(axes, Size):
            raise ArgumentError(
                f"jit: `dynamic` of {path!r} says which axis: {{0: {axes.name}}} instead of {axes.name}"
            )
        items = axes.items() if isinstance(axes, Mapping) else enumerate(axes)
        found: dict[int, Size] = {}
        for axis, size in items:
            if size is None:
                continue
            if not isinstance(size, Size) or not size.is_named or not isinstance(plain(axis), int):
                raise ArgumentError(
                    f"jit: `dynamic` of {path!r} maps axes (integers) to sizes such as tw.Dim('batch', 1, 64), got"
                    f" {axis!r}: {size!r}"
                )
            if self.sizes.setdefault(size.name, size) != size:
                raise ArgumentError(f"jit: `dynamic` gives the size {size.name!r} two different ranges")
            found[plain(axis)] = size
        return found

    def __call__(
        self, leaves: Sequence[Any], structure: Any
    ) -> tuple[list[tuple[Any, ...] | None], dict[str, int]]:
        """For every leaf its shape with symbolic sizes (None: it has none), and the sizes' numbers in this call.

        Raises ``ShapeError`` for a size outside its range and for two that should agree and do not.
        """
        known = self._by_structure.get(structure)
        if known is None:
            known = self._by_structure[structure] = self._match(structure)
        shapes: list[tuple[Any, ...] | None] = []
        numbers: dict[str, int] = {}
        for leaf, entry in zip(leaves, known, strict=True):
            if entry is None:
                shapes.append(None)
                continue
            path, axes = entry
            if not isinstance(leaf, (Tensor, np.ndarray, np.generic)):
                raise ArgumentError(
                    f"{self.function}: `dynamic` speaks of `{path}`, which is no tensor but {type(leaf).__name__}"
                )
            shape = list(leaf.shape)
            for axis, name, low, high, size in axes:
                if not -len(shape) <= axis < len(shape):
                    raise ShapeError(
                        f"{self.function}: argument `{path}` of shape {tuple(shape)} has no axis {axis}, which `dynamic`"
                        f" calls {name}"
                    )
                actual: int = leaf.shape[axis]
                if not low <= actual <= high:
                    raise ShapeError(
                        f"{self.function}: axis {axis} of argument `{path}` has size {actual}, outside the range of"
                        f" {name}, {low} to {high}"
                    )
                before = numbers.setdefault(name, actual)
                if before != actual:
                    first = next(
                        f"axis {a} of `{p}`"
                        for p, entries in filter(None, known)
                        for a, n, *_ in entries
                        if n == name
                    )
                    raise ShapeError(
                        f"{self.function}: {first} and axis {axis} of `{path}` are both {name}, and have the sizes {before} and"
                        f" {actual}"
                    )
                shape[axis] = size
            shapes.append(tuple(shape))
        return shapes, numbers

    def _match(self, structure: Any) -> list[tuple[str, list[Axis]] | None]:
        """What is said of each leaf of calls of one structure."""
        if isinstance(structure, int):
            paths = [self._positional(i) for i in range(structure)]
        else:
            positional, named = structure.children
            paths = []
            for i, child in enumerate(positional.children):
                _paths(child, self._positional(i), paths)
            for key, child in zip(named.keys, named.children, strict=True):
                _paths(child, str(key), paths)
        found: list[tuple[str, list[Axis]] | None] = []
        used: set[str] = set()
        for path in paths:
            fitting = [k for k in self._axes if path == k or path.startswith((k + ".", k + "["))]
            used.update(fitting)
            best = max(fitting, key=len, default=None)
            axes = (
                [(a, s.name, s.low, s.high, s) for a, s in self._axes[best].items()]
                if best is not None
                else []
            )
            found.append((path, axes) if axes else None)
        for key in self._axes:
            if key not in used:
                raise ArgumentError(
                    f"{self.function}: `dynamic` names {key!r}, and the call has no such argument; its arguments are"
                    f" {', '.join(paths) or 'none'}"
                )
        return found


def _paths(structure: Structure, path: str, out: list[str]) -> None:
    """The paths of a structure's leaves, from left to right."""
    if structure.kind == "leaf":
        out.append(path)
        return
    for i, child in enumerate(structure.children):
        inner = f"{path}.{structure.keys[i]}" if structure.keys else f"{path}[{i}]"
        _paths(child, inner, out)

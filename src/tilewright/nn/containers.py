"""Modules that hold modules: in sequence, in a list, in a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, overload

from tilewright.nn.module import Module

__all__ = ["ModuleDict", "ModuleList", "Sequential"]


class _Ordered(Module):
    """Children under the names "0", "1", ...: what `Sequential` and `ModuleList` share."""

    def _list(self) -> list[Module]:
        self._used()
        return [module for module in self._modules.values() if module is not None]

    def _replace(self, modules: Iterable[Module]) -> None:
        modules = list(modules)
        self._modules.clear()
        self._changed()
        for index, module in enumerate(modules):
            self.register_module(str(index), module)

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{type(self).__name__} has {len(self)} modules, so there is no index {index}")
        return index % len(self)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._list())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> _Ordered: ...
    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            part = type(self)()
            for name, module in list(self._modules.items())[index]:
                part.register_module(name if isinstance(self, Sequential) else str(len(part)), module)
            return part
        return self._list()[self._position(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        self.register_module(list(self._modules)[self._position(index)], module)

    def __delitem__(self, index: int) -> None:
        kept = self._list()
        del kept[self._position(index)]
        self._replace(kept)

    def append(self, module: Module) -> _Ordered:
        """Add a module at the end."""
        self.register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> _Ordered:
        """Add several modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> _Ordered:
        """Put a module before the one at `index`."""
        kept = self._list()
        kept.insert(index, module)
        self._replace(kept)
        return self


class Sequential(_Ordered):
    """Applies its modules one after the other.

    Takes the modules themselves, named "0", "1", ..., or one dictionary of named modules.

    >>> net = Sequential(Module(), Module())
    >>> len(net)
    2
    """

    def __init__(self, *args: Module | Mapping[str, Module]) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], Mapping):
            for name, module in args[0].items():
                self.register_module(name, module)
            return
        for index, item in enumerate(args):
            if not isinstance(item, Module):
                raise TypeError(f"Sequential takes modules, argument {index} is a {type(item).__name__}")
            self.register_module(str(index), item)

    def forward(self, x: Any) -> Any:
        for module in self._list():
            x = module(x)
        return x


class ModuleList(_Ordered):
    """A list of modules. It computes nothing itself; the module that owns it says how they are used."""

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        self.extend(modules or ())


class ModuleDict(Module):
    """A table of modules by name. It computes nothing itself."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        super().__init__()
        self.update(modules or {})

    def update(self, modules: Mapping[str, Module]) -> None:
        """Add or replace modules."""
        for name, module in modules.items():
            self.register_module(name, module)

    def __getitem__(self, name: str) -> Module:
        self._used()
        module = self._modules[name]
        assert module is not None
        return module

    def __setitem__(self, name: str, module: Module) -> None:
        self.register_module(name, module)

    def __delitem__(self, name: str) -> None:
        del self._modules[name]
        self._changed()

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        self._used()
        return iter(self._modules)

    def __contains__(self, name: object) -> bool:
        return name in self._modules

    def keys(self) -> Iterable[str]:
        """The names."""
        self._used()
        return self._modules.keys()

    def values(self) -> Iterable[Module]:
        """The modules."""
        return [self[name] for name in self]

    def items(self) -> Iterable[tuple[str, Module]]:
        """Names with their modules."""
        return [(name, self[name]) for name in self]

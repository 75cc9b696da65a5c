"""`Module`: a tree of named parameters, buffers and sub-modules with a `forward`.

Assigning a `Parameter` or a `Module` to an attribute registers it under that name; a buffer is a tensor that
is part of the state but not trained (batch statistics). The names, joined by dots, are those of the state
dictionary.

What it does not do: lazily sized parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.diagnostics import TilewrightError, join_names, suggest
from tilewright.core.dtype import DType
from tilewright.core.elsewhere import ABSENT_FROM_MODULES
from tilewright.core.integers import plain
from tilewright.nn.parameter import Parameter
from tilewright.tensor import Tensor, modes, no_grad
from tilewright.tensor.hooks import HookHandle

__all__ = ["IncompatibleKeys", "Module", "StateDictError"]

Self = TypeVar("Self", bound="Module")
T = TypeVar("T")


class StateDictError(TilewrightError):
    """A state dictionary does not fit the module: names are missing or unknown, or shapes differ."""


class IncompatibleKeys(NamedTuple):
    """What `load_state_dict(strict=False)` passed over: names the module has and the dictionary lacks, and
    the reverse.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]


class _Hooks:
    """The hooks of a module, each with whether it takes keyword arguments."""

    def __init__(self) -> None:
        self.before: dict[int, tuple[Callable[..., Any], bool]] = {}
        self.after: dict[int, tuple[Callable[..., Any], bool]] = {}

    def register(
        self, module: Module, when: str, hook: Callable[..., Any], prepend: bool, with_kwargs: bool
    ) -> HookHandle:
        table: dict[int, Any] = getattr(self, when)
        others = dict(table)
        module._changed()
        handle = HookHandle(table, (hook, with_kwargs), module._changed)
        if prepend:
            for key in others:  # to the end
                table[key] = table.pop(key)
        return handle

    def run(self, module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        for hook, whole in tuple(self.before.values()):
            changed = hook(module, args, kwargs) if whole else hook(module, args)
            if changed is None:
                continue
            if whole:
                if not isinstance(changed, tuple) or len(changed) != 2:
                    raise TypeError(
                        f"register_forward_pre_hook: with `with_kwargs` a hook returns None or (args, kwargs), got"
                        f" {type(changed).__name__}"
                    )
                args, kwargs = changed
            else:
                args = changed if isinstance(changed, tuple) else (changed,)
        output = module.forward(*args, **kwargs)
        for hook, whole in tuple(self.after.values()):
            changed = hook(module, args, kwargs, output) if whole else hook(module, args, output)
            output = output if changed is None else changed
        return output


class Module:
    """Base of all layers and models. Subclasses assign their parts in `__init__` and compute in `forward`.

    >>> class Net(Module):
    ...     def __init__(self) -> None:
    ...         super().__init__()
    ...         self.scale = Parameter([2.0, 3.0])
    ...     def forward(self, x: Tensor) -> Tensor:
    ...         return x * self.scale
    >>> [name for name, _ in Net().named_parameters()]
    ['scale']
    """

    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _transient: set[str]
    _hooks: _Hooks | None
    _training: bool
    _version: int  # counts changes of parts and attributes; a jitted function that used the module watches it

    def __init__(self) -> None:
        tables: dict[str, Any] = {"_parameters": {}, "_buffers": {}, "_modules": {}, "_transient": set()}
        for name, table in tables.items():
            object.__setattr__(self, name, table)
        object.__setattr__(self, "_hooks", None)
        object.__setattr__(self, "_training", True)
        object.__setattr__(self, "_version", 0)

    @property
    def training(self) -> bool:
        """Whether the module is in training or in evaluation. A jitted function that reads it has a program
        for each.
        """
        if modes.trace is not None:
            modes.trace.watch(self, "_training")
        return self._training

    @training.setter
    def training(self, mode: bool) -> None:
        object.__setattr__(self, "_training", mode)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The computation; each subclass has its own."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._used()
        if self._hooks is None:
            return self.forward(*args, **kwargs)
        return self._hooks.run(self, args, kwargs)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call ``hook(module, args)`` before each ``forward``; what it returns, unless None, are the arguments instead (a
        tuple, or the only one).

        ``with_kwargs``: the hook takes ``(module, args, kwargs)`` and returns None or a pair of both. ``prepend`` puts it
        before the hooks there are. ``remove()`` of the result takes it away. In a jitted function hooks run while it is
        traced; registering or removing one traces it anew.
        """
        return self._hooked().register(self, "before", hook, prepend, with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> HookHandle:
        """Call ``hook(module, args, output)`` after each ``forward``; what it returns, unless None, is the output instead.

        ``with_kwargs``: the hook takes ``(module, args, kwargs, output)``. See ``register_forward_pre_hook`` for the rest.

        >>> from tilewright.nn import ReLU
        >>> layer = ReLU()
        >>> with layer.register_forward_hook(lambda module, args, output: output * 10):
        ...     layer(Tensor([1.0])).tolist()
        [10.0]
        """
        return self._hooked().register(self, "after", hook, prepend, with_kwargs)

    def _hooked(self) -> _Hooks:
        if self._hooks is None:
            object.__setattr__(self, "_hooks", _Hooks())
        assert self._hooks is not None
        return self._hooks

    def _used(self) -> None:
        """Let a function being traced know that it depends on the parts and attributes of this module."""
        if modes.trace is not None:
            modes.trace.watch(self, "_version")

    def _changed(self) -> None:
        """Note that a part or an attribute is another one. What a trace itself assigns is not part of later calls."""
        if modes.trace is None:
            object.__setattr__(self, "_version", self._version + 1)

    # ---- registration --------------------------------------------------------------------------------------

    def __setattr__(self, name: str, value: Any) -> None:
        tables = self.__dict__
        if "_parameters" not in tables:
            raise AttributeError(f"call super().__init__() before assigning {type(self).__name__}.{name}")
        if name != "training":  # watched by itself: going back and forth selects among programs
            self._changed()
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self.register_module(name, value)
        elif name in self._parameters:
            if value is not None:
                raise TypeError(
                    f"{type(self).__name__}.{name} is a parameter; assign an nn.Parameter or None"
                )
            self._parameters[name] = None
        elif name in self._modules:
            if value is not None:
                raise TypeError(f"{type(self).__name__}.{name} is a module; assign an nn.Module or None")
            self._modules[name] = None
        elif name in self._buffers:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(f"{type(self).__name__}.{name} is a buffer; assign a Tensor or None")
            self._buffers[name] = value
        else:
            object.__setattr__(self, name, plain(value))

    def __getattr__(self, name: str) -> Any:  # only when normal lookup found nothing
        for table in ("_parameters", "_buffers", "_modules"):
            entries = self.__dict__.get(table)
            if entries is not None and name in entries:
                self._used()
                return entries[name]
        instead = ABSENT_FROM_MODULES.get(name)
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}{f'; {instead}' if instead else ''}"
        )

    def __delattr__(self, name: str) -> None:
        self._changed()
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._transient.discard(name)
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters, *self._buffers, *self._modules})

    def _free_name(self, name: str, table: Mapping[str, Any]) -> None:
        """Make `name` available for `table`: it leaves the other tables and the plain attributes."""
        if not name or "." in name:
            raise KeyError(
                f"{name!r} cannot be the name of a part of {type(self).__name__}: it is empty or has a dot"
            )
        self._changed()
        self.__dict__.pop(name, None)
        for other in (self._parameters, self._buffers, self._modules):
            if other is not table:
                other.pop(name, None)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Make `param` a trained part under `name`; None keeps the name without a value."""
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(f"parameter {name!r}: expected nn.Parameter or None, got {type(param).__name__}")
        self._free_name(name, self._parameters)
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Make `tensor` an untrained part of the state; `persistent=False` leaves it out of the state
        dictionary.
        """
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(f"buffer {name!r}: expected Tensor or None, got {type(tensor).__name__}")
        self._free_name(name, self._buffers)
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Make `module` a child under `name`."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"module {name!r}: expected nn.Module or None, got {type(module).__name__}")
        self._free_name(name, self._modules)
        self._modules[name] = module

    add_module = register_module

    # ---- traversal -----------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct sub-modules with their names; one that is shared comes once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def children(self) -> Iterator[Module]:
        """The direct sub-modules."""
        return (module for _, module in self.named_children())

    def named_modules(self, memo: set[int] | None = None, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below it with their dotted names; one that is shared comes once."""
        seen = set() if memo is None else memo
        if id(self) in seen:
            return
        seen.add(id(self))
        self._used()
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(seen, f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all below it."""
        return (module for _, module in self.named_modules())

    def _named(self, table: str, prefix: str, recurse: bool, unique: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        if unique:
            modules = list(self.named_modules(prefix=prefix)) if recurse else [(prefix, self)]
        else:
            modules = list(self._walk(prefix)) if recurse else [(prefix, self)]
        for path, module in modules:
            for name, tensor in getattr(module, table).items():
                if tensor is None or (unique and id(tensor) in seen):
                    continue
                seen.add(id(tensor))
                yield (f"{path}.{name}" if path else name), tensor

    def _walk(self, prefix: str) -> Iterator[tuple[str, Module]]:
        """As `named_modules`, but a shared module comes under each of its names."""
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module._walk(f"{prefix}.{name}" if prefix else name)

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """All parameters with their dotted names; a shared one comes once, under its first name."""
        return self._named("_parameters", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """All parameters; what an optimizer is given."""
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """All buffers with their dotted names."""
        return self._named("_buffers", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """All buffers."""
        return (b for _, b in self.named_buffers(recurse=recurse))

    def get_submodule(self, target: str) -> Module:
        """The sub-module under a dotted name; `""` is this one."""
        module = self
        for name in filter(None, target.split(".")):
            child = module._modules.get(name)
            if child is None:
                raise AttributeError(
                    f"{type(self).__name__} has no sub-module {target!r}: {name!r} is not there"
                )
            module = child
        return module

    def get_parameter(self, target: str) -> Parameter:
        """The parameter under a dotted name."""
        path, _, name = target.rpartition(".")
        param = self.get_submodule(path)._parameters.get(name)
        if param is None:
            raise AttributeError(f"{type(self).__name__} has no parameter {target!r}")
        return param

    # ---- state ---------------------------------------------------------------------------------------------

    def state_dict(self, prefix: str = "") -> dict[str, Tensor]:
        """Parameters and persistent buffers by dotted name. The tensors are the module's own: a later step
        changes them.
        """
        state: dict[str, Tensor] = {}
        for path, module in self._walk(prefix.removesuffix(".")):
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is not None and not (table is module._buffers and name in module._transient):
                        state[f"{path}.{name}" if path else name] = tensor
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> IncompatibleKeys:
        """Copy values (tensors or NumPy arrays) into the parameters and buffers of the same names.

        Values are converted to the type that the module's tensor has. Nothing is copied when something does
        not fit: `StateDictError` names every missing and unknown name (with `strict`) and every shape that
        differs.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"load_state_dict takes a table of tensors by name, got {type(state_dict).__name__}"
            )
        own = self.state_dict()
        missing = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        problems = []
        if strict and missing:
            problems.append(f"missing: {join_names(missing)}")
        if strict and unexpected:
            problems.append("unknown: " + ", ".join(_with_guess(name, missing) for name in unexpected))
        values: dict[str, Any] = {}
        for name in own.keys() & state_dict.keys():
            given = state_dict[name]
            found = tuple(given.shape) if hasattr(given, "shape") else np.shape(given)
            if found != tuple(own[name].shape):
                problems.append(f"`{name}` has shape {found}, the module's has {tuple(own[name].shape)}")
        if problems:
            lines = "\n  ".join(problems)
            raise StateDictError(f"the state does not fit {type(self).__name__}:\n  {lines}")
        for name in own:
            if name in state_dict:
                value = state_dict[name]
                if isinstance(value, Tensor):
                    values[name] = value.detach()
                else:
                    values[name] = array = np.asarray(value)
                    Tensor(np.empty(0, array.dtype))  # raises for what holds no numbers
        with no_grad():
            for (
                name,
                value,
            ) in values.items():  # one after another, so that each takes the memory of the one before
                own[name].assign(value)
        return IncompatibleKeys(missing, unexpected)

    # ---- modes and conversion ------------------------------------------------------------------------------

    def train(self: Self, mode: bool = True) -> Self:
        """Switch this module and all below it to training (dropout on, batch statistics) or, with False, to
        evaluation.
        """
        if not isinstance(mode, bool):
            raise TypeError(f"train takes True or False, got {mode!r}")
        for module in self.modules():
            module.training = mode
        return self

    def eval(self: Self) -> Self:
        """Switch to evaluation: `train(False)`."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Switch gradients of all parameters on or off; off freezes them."""
        for param in self.parameters():
            param.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients; with `set_to_none=False` those that are there become zeros."""
        for param in self.parameters():
            if param.grad is not None:
                param.grad = None if set_to_none else param.grad * 0

    def apply(self: Self, fn: Callable[[Module], object]) -> Self:
        """Call `fn` with every module, children first."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def to(
        self: Self,
        target: DType | str | None = None,
        /,
        *,
        dtype: DType | str | None = None,
        device: str | None = None,
    ) -> Self:
        """Convert floating-point parameters and buffers to a data type, in place; the only device is "cpu".

        Make the optimizer after the conversion, so that its state has the same type.
        """
        for word in (target, device):
            if isinstance(word, str) and word not in dt.BY_NAME and word != "cpu":
                raise ValueError(
                    f"no device or data type is called {word!r}; the device is 'cpu': there is no GPU support"
                )
        if target is not None and target != "cpu":
            dtype = target
        if dtype is None:
            return self
        wanted = dt.from_numpy(dtype)
        if not wanted.is_inexact:
            raise TypeError(f"a module's parameters are floating point; it cannot be converted to {wanted}")
        for module in self.modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    if tensor is not None and tensor.dtype.is_inexact and tensor.dtype is not wanted:
                        value = tensor.detach().astype(wanted)
                        if isinstance(tensor, Parameter):
                            module._parameters[name] = Parameter(value, tensor.requires_grad)
                        else:
                            module._buffers[name] = value
                        module._changed()
        return self

    def cpu(self: Self) -> Self:
        """The module itself: it is on the CPU already."""
        return self

    def float(self: Self) -> Self:
        """Convert to float32."""
        return self.to(dt.float32)

    def double(self: Self) -> Self:
        """Convert to float64."""
        return self.to(dt.float64)

    def half(self: Self) -> Self:
        """Convert to float16."""
        return self.to(dt.float16)

    def bfloat16(self: Self) -> Self:
        """Convert to bfloat16."""
        return self.to(dt.bfloat16)

    # ---- printing ------------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """What a layer says of itself between the brackets of its `repr`."""
        return ""

    def __repr__(self) -> str:
        head = f"{type(self).__name__}({self.extra_repr()}"
        if not self._modules:
            return head + ")"
        lines = [f"  ({name}): {_indent(repr(module))}" for name, module in self._modules.items()]
        return "\n".join([head, *lines, ")"])


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")


def _with_guess(name: str, candidates: list[str]) -> str:
    near = suggest(name, candidates)
    return f"`{name}`" + (f" (did you mean `{near}`?)" if near else "")

"""`Optimizer` and its parameter groups: state that lives in tensors, so that a jitted step captures and
writes it back.

The learning rate, the step count and the moments are tensors made with the optimizer. Changing the learning
rate changes a tensor, not the program. The other hyperparameters are Python numbers and constants of the
program: a jitted step is compiled again when one of them changes.

An update is an elementwise expression over tensors of the parameter's shape and rank-0 scalars, so that the
compiler runs the updates of all parameters as one kernel. The step count is that of the group: PyTorch, whose
formulas and state names these are, counts for each parameter, which differs only for a parameter that gets no
gradient in some steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.diagnostics import TilewrightError
from tilewright.core.dtype import DType
from tilewright.jit import Jitted, jit
from tilewright.tensor import Tensor, modes, no_grad, realize_tensors, suspend_trace

__all__ = ["Optimizer", "OptimizerStateError", "ParamGroup", "Scalar", "non_negative", "share"]

Scalar = float | Tensor


class OptimizerStateError(TilewrightError):
    """A saved optimizer state does not fit the optimizer."""


class ParamGroup(dict[str, Any]):
    """Parameters that share hyperparameters: `group["params"]`, `group["lr"]`, ... as in PyTorch.

    `group["lr"] = x` may be written at any time. `step` is the rank-0 float32 count of steps taken.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.version = 0  # of the hyperparameters that are constants of a program
        self._scalars: dict[str, Tensor] = {}
        self.step = _scalar(0.0)
        self.make_dynamic("lr")

    def __setitem__(self, key: str, value: Any) -> None:
        if key in self._scalars:
            value = float(value)
            with no_grad():
                self._scalars[key].assign(_scalar(value))
        elif key == "betas" and "beta1" in self._scalars:
            with no_grad():
                self._scalars["beta1"].assign(_scalar(value[0]))
            self.version += value[1] != self["betas"][1]
        elif key not in self or not _same(self[key], value):
            self.version += 1
        super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Set several, as `dict.update` does."""
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def make_dynamic(self, key: str) -> None:
        """Keep a hyperparameter in a tensor from now on, so that it may change from step to step. "beta1" is
        `betas[0]`.
        """
        if key not in self._scalars:
            self._scalars[key] = _scalar(float(self["betas"][0] if key == "beta1" else self[key]))
            self.version += 1

    def scalar(self, key: str) -> Scalar:
        """A hyperparameter as an update uses it: a rank-0 float32 tensor when it is dynamic, else a Python
        number.
        """
        if key in self._scalars:
            return self._scalars[key]
        return float(self["betas"][0] if key == "beta1" else self[key])

    def advance(self) -> Tensor:
        """Count one step and return the new count."""
        self.step.assign(self.step + 1.0)
        return self.step

    def tensors(self) -> dict[str, Tensor]:
        """The group's own tensors by name: the step count and the dynamic hyperparameters."""
        return {"step": self.step, **self._scalars}


def _scalar(value: float) -> Tensor:
    with suspend_trace():
        return Tensor(np.asarray(value, np.float32))


def _same(a: Any, b: Any) -> bool:
    return a is b or (isinstance(a, int | float | bool | tuple | str) and type(a) is type(b) and a == b)


class Optimizer(ABC):
    """Base of the optimizers. A subclass says what state a parameter needs and how a group of them is
    updated.

    `compiled` says whether `step` runs the updates as one compiled program. The class that defines `_update` says so:
    then `_update` keeps all its state in tensors and reads no elements, as a function under `tw.jit`.
    """

    compiled: ClassVar[bool] = False
    _program: Jitted[[], None] | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "_update" in cls.__dict__ and "compiled" not in cls.__dict__:
            cls.compiled = False

    def __init__(
        self, params: Iterable[Tensor] | Iterable[Mapping[str, Any]], defaults: Mapping[str, Any]
    ) -> None:
        if isinstance(params, Tensor):
            raise TypeError("an optimizer takes several parameters: pass [tensor], or module.parameters()")
        if not isinstance(params, Iterable):
            raise TypeError(
                f"an optimizer takes parameters, got {type(params).__name__}; for a module pass module.parameters()"
            )
        self.defaults = dict(defaults)
        self.param_groups: list[ParamGroup] = []
        self.state: dict[Tensor, dict[str, Tensor]] = {}
        given = list(params)
        if not given:
            raise ValueError("an optimizer needs at least one parameter, got none")
        groups: list[Mapping[str, Any]]
        if isinstance(given[0], Mapping):
            groups = given  # type: ignore[assignment]
        else:
            groups = [{"params": given}]
        for group in groups:
            self.add_param_group(group)

    @abstractmethod
    def _initial_state(self, group: ParamGroup, param: Tensor) -> dict[str, Tensor]:
        """The tensors that the optimizer keeps for one parameter."""

    @abstractmethod
    def _update(self, group: ParamGroup, pairs: list[tuple[Tensor, Tensor]]) -> None:
        """Take one step: `pairs` are the group's parameters that have a gradient, with it."""

    def _check(self, group: ParamGroup) -> None:
        """Raise `ValueError` for a hyperparameter out of range."""
        non_negative(group, "lr", "weight_decay", "eps")

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add parameters with hyperparameters of their own; those left out are the optimizer's defaults."""
        options = {**self.defaults, **param_group}
        given = options["params"]
        params = [given] if isinstance(given, Tensor) else list(given)
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(
                    f"an optimizer updates tensors, got {type(param).__name__}; for a module pass module.parameters()"
                )
            if not param.is_leaf:
                raise ValueError(
                    "a tensor that was computed from others cannot be optimized; pass a leaf such as nn.Parameter"
                )
            if not param.dtype.is_float:
                raise ValueError(
                    f"a tensor of {param.dtype} cannot be optimized; parameters are floating point"
                )
            if param in self.state or sum(p is param for p in params) > 1:
                raise ValueError("a parameter appears in more than one parameter group, or twice in one")
        if modes.trace is None:
            realize_tensors(params)  # initial values of all parameters in one program instead of one each
        group = ParamGroup({**options, "params": params, "lr": number("lr", options["lr"])})
        self._check(group)
        for param in params:
            self.state[param] = self._initial_state(group, param)
        self.param_groups.append(group)

    @property
    def _layout(self) -> tuple[tuple[int, int], ...]:
        """Which groups there are, and how many parameters each has."""
        return tuple((id(group), len(group["params"])) for group in self.param_groups)

    def _used(self) -> None:
        """Let a function being traced know that it depends on the groups."""
        if modes.trace is not None:
            modes.trace.watch(self, "_layout")

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters; with `set_to_none=False` those that are there become zeros."""
        self._used()
        for group in self.param_groups:
            for param in group["params"]:
                if set_to_none:
                    param.grad = None
                elif param.grad is not None:
                    param.grad = param.grad.detach() * 0

    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """Update all parameters that have a gradient. `closure` computes the loss and the gradients first; it
        is returned.
        """
        loss = None if closure is None else closure()
        with no_grad():
            if modes.trace is None and self.compiled:
                # Outside a jitted step the update is a program of its own: recording it anew would cost more than
                # forward and backward pass together.
                if self._program is None:
                    self._program = jit(self._update_groups)
                self._program()
            else:
                self._update_groups()
        return loss

    def _update_groups(self) -> None:
        """Take one step for every group."""
        self._used()
        with no_grad():
            for group in self.param_groups:
                if modes.trace is not None:
                    modes.trace.watch(group, "version")
                pairs = [(p, g) for p in group["params"] if (g := p.grad) is not None]
                if pairs:
                    if group.get("maximize"):
                        pairs = [(p, -g) for p, g in pairs]
                    self._update(group, pairs)

    # ---- state ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """`{"state": {index: {name: tensor}}, "param_groups": [...]}` with parameters as indices, in
        PyTorch's layout.
        """
        state: dict[int, dict[str, Tensor]] = {}
        groups = []
        index = 0
        for group in self.param_groups:
            indices = []
            for param in group["params"]:
                state[index] = {"step": group.step, **self.state[param]}
                indices.append(index)
                index += 1
            groups.append({**group, "params": indices})
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over a state from `state_dict()`, of this optimizer or of PyTorch's of the same name.

        Tensors are copied into the optimizer's own. Raises `OptimizerStateError`, before anything is changed,
        when the groups, the parameters or the shapes differ.
        """
        saved_groups, saved = state_dict["param_groups"], state_dict["state"]
        ours, theirs = [len(g["params"]) for g in self.param_groups], [len(g["params"]) for g in saved_groups]
        if ours != theirs:
            raise OptimizerStateError(
                f"the state is of groups of {theirs} parameters, the optimizer has groups of {ours}"
            )
        copies: list[tuple[Tensor, Any]] = []
        for group, saved_group in zip(self.param_groups, saved_groups, strict=True):
            for position, (param, index) in enumerate(
                zip(group["params"], saved_group["params"], strict=True)
            ):
                entries = saved.get(index, saved.get(str(index), {}))
                own = dict(self.state[param])
                if position == 0 and "step" in entries:  # some of PyTorch's optimizers do not count
                    own["step"] = group.step
                copies += [
                    (tensor, _saved(entries, name, tensor, index)) for name, tensor in own.items() if entries
                ]
        with no_grad():
            for tensor, value in copies:  # one after another, so that each takes the memory of the one before
                tensor.assign(value)
        for group, saved_group in zip(self.param_groups, saved_groups, strict=True):
            for key, value in saved_group.items():
                if key != "params" and key in group:
                    group[key] = tuple(value) if isinstance(value, list) else value

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {key}: {value}" for key, value in sorted(group.items()) if key != "params"]
        return "\n".join([*lines, ")"])


def _saved(entries: Mapping[str, Any], name: str, own: Tensor, index: int) -> Any:
    """A tensor, or an array to copy."""
    if name not in entries:
        raise OptimizerStateError(
            f"the state of parameter {index} has no {name!r}; it is of another optimizer"
        )
    value = entries[name]
    shape = tuple(np.shape(value) if not hasattr(value, "shape") else value.shape)
    if shape != own.shape and not (name == "step" and math.prod(shape) == 1):
        raise OptimizerStateError(
            f"{name!r} of parameter {index} has shape {shape}, the optimizer's has {own.shape}"
        )
    if isinstance(value, Tensor):
        return value.detach()
    return np.asarray(value, own.dtype.numpy).reshape(own.shape)


# ---- what updates are written with -------------------------------------------------------------------------


def zeros_for(param: Tensor) -> Tensor:
    """Zeros of the parameter's shape and type: the start of a moment."""
    with suspend_trace():
        return Tensor(np.zeros(param.shape, param.dtype.numpy))


def working_dtype(param: Tensor) -> DType:
    """The type an update is computed in: float32 for the half types, else the parameter's own."""
    return dt.float32 if param.dtype.bits < 32 else param.dtype


def cast(value: Scalar, dtype: DType) -> Any:
    """A scalar in the type of an update; Python numbers take on any type."""
    return value.astype(dtype) if isinstance(value, Tensor) and value.dtype is not dtype else value


def number(name: str, value: Any) -> float:
    """A hyperparameter as a float. Raises `TypeError` for what is no number."""
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is a number, got {value!r}") from None


def non_negative(group: ParamGroup, *names: str) -> None:
    """Raise `ValueError` for a hyperparameter below 0 or NaN."""
    for name in names:
        if name in group and not number(name, group[name]) >= 0:
            raise ValueError(f"{name} must not be negative, got {group[name]}")


def share(name: str, value: float) -> None:
    """Raise `ValueError` unless 0 <= value < 1."""
    if not 0 <= number(name, value) < 1:
        raise ValueError(f"{name} must be at least 0 and below 1, got {value}")

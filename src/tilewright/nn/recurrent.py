"""Recurrent layers: RNN, LSTM (Hochreiter and Schmidhuber, 1997) and GRU (Cho et al., 2014), over ``scan``.

Shapes: T time, B batch, I inputs, H hidden, P projected (H without a projection), L layers, D directions, G gates.

Each direction of a layer is one native loop; what does not depend on the hidden state, the inputs' share of the gates, is one
contraction over all times before it. Packed sequences are not supported.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.integers import integer
from tilewright.functions.arguments import check_device
from tilewright.functions.control import scan
from tilewright.functions.creation import zeros
from tilewright.functions.elementwise import tanh
from tilewright.functions.movement import concat, stack
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter, empty_parameter
from tilewright.tensor import Tensor

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]

Weights = Sequence[
    Parameter | None
]  # weight_ih [G H, I], weight_hh [G H, P], bias_ih [G H], bias_hh [G H], weight_hr [P, H]
State = tuple[Tensor, ...]  # h [B, P], and for LSTM c [B, H]
Step = Callable[[Tensor, State, Weights], State]  # inputs' share [B, G H], state, weights -> the next state


def _tanh_step(x: Tensor, state: State, weights: Weights) -> State:
    return (tanh(x + F.linear(state[0], _there(weights[1]))),)


def _relu_step(x: Tensor, state: State, weights: Weights) -> State:
    return (F.relu(x + F.linear(state[0], _there(weights[1]))),)


def _lstm_step(x: Tensor, state: State, weights: Weights) -> State:
    """Gates in, forget, cell, out: c' = f c + i g, h' = o tanh c', projected where there is a projection."""
    h, c = state
    width = c.shape[-1]
    gates = x + F.linear(h, _there(weights[1]))
    i, f, g, o = (gates[..., n * width : (n + 1) * width] for n in range(4))
    c = F.sigmoid(f) * c + F.sigmoid(i) * tanh(g)
    h = F.sigmoid(o) * tanh(c)
    return (h if weights[4] is None else F.linear(h, weights[4])), c


def _gru_step(x: Tensor, state: State, weights: Weights) -> State:
    """Gates reset, update, new: n = tanh(x + r (W h + b)), h' = (1 - z) n + z h."""
    (h,) = state
    width = h.shape[-1]
    mine = F.linear(h, _there(weights[1]), weights[3])
    r = F.sigmoid(x[..., :width] + mine[..., :width])
    z = F.sigmoid(x[..., width : 2 * width] + mine[..., width : 2 * width])
    n = tanh(x[..., 2 * width :] + r * mine[..., 2 * width :])
    return (n + z * (h - n),)


def _there(weight: Parameter | None) -> Parameter:
    assert weight is not None
    return weight


def _share(x: Tensor, weights: Weights, joint: bool) -> Tensor:
    """The inputs' share of the gates; with ``joint`` both biases, which are added anyway, go into it."""
    bias = weights[2]
    if joint and bias is not None and weights[3] is not None:
        bias = bias + weights[3]  # type: ignore[assignment]
    return F.linear(x, _there(weights[0]), bias)


_STEPS: dict[str, tuple[int, Step]] = {
    "tanh": (1, _tanh_step), "relu": (1, _relu_step), "lstm": (4, _lstm_step), "gru": (3, _gru_step),
}  # fmt: skip
_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")


class _Recurrent(Module):
    """What the three layers share; ``mode`` names the step."""

    def __init__(
        self, mode: str, input_size: int, hidden_size: int, num_layers: int, bias: bool, batch_first: bool,
        dropout: float, bidirectional: bool, proj_size: int, dtype: DType,
    ) -> None:  # fmt: skip
        super().__init__()
        name = type(self).__name__
        try:
            num_layers = integer(num_layers)
        except TypeError:
            raise ValueError(f"{name}: the number of layers is an integer, got {num_layers!r}") from None
        if min(input_size, hidden_size, num_layers) < 1:
            raise ValueError(f"{name}: sizes and the number of layers are at least 1")
        if not 0 <= dropout <= 1:
            raise ValueError(f"{name}: dropout is between 0 and 1, got {dropout}")
        if proj_size and not (mode == "lstm" and 0 < proj_size < hidden_size):
            raise ValueError(f"{name}: proj_size is for LSTM and below hidden_size, got {proj_size}")
        self.mode = mode
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        width, out = _STEPS[mode][0] * hidden_size, proj_size or hidden_size
        for layer in range(num_layers):
            inputs = input_size if layer == 0 else out * (1 + bidirectional)
            for suffix in self._suffixes(layer):
                shapes = [(width, inputs), (width, out), *([(width,)] * 2 if bias else [None] * 2)]
                shapes.append((proj_size, hidden_size) if proj_size else None)
                for weight, shape in zip(_NAMES, shapes, strict=True):
                    if shape is not None:
                        self.register_parameter(weight + suffix, empty_parameter(shape, dtype))
        self.reset_parameters()

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: 1 + self.bidirectional]

    def _weights(self, suffix: str) -> Weights:
        return [getattr(self, name + suffix, None) for name in _NAMES]

    def reset_parameters(self) -> None:
        """Draw new initial values, evenly from ±1/√H."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _run(self, input: Tensor, hx: Any) -> tuple[Tensor, State]:
        """The output and the last states, [L D, B, ...] each."""
        name = type(self).__name__
        if input.ndim not in (2, 3) or input.shape[-1] != self.input_size:
            form = "[B, T, I]" if self.batch_first else "[T, B, I]"
            raise ValueError(
                f"{name}: the input is {form} or [T, I] with I = {self.input_size}, got {input.shape}"
            )
        batched = input.ndim == 3
        x = input if batched else input.reshape((input.shape[0], 1, input.shape[1]))
        if batched and self.batch_first:
            x = x.permute_dims((1, 0, 2))
        first = self._first(hx, x.shape[1], batched, x.dtype)
        last: list[State] = []
        for layer in range(self.num_layers):
            ends = [
                self._direction(x, tuple(s[len(last) + n] for s in first), suffix, reverse=n == 1)
                for n, suffix in enumerate(self._suffixes(layer))
            ]
            last += [state for _, state in ends]
            x = ends[0][0] if len(ends) == 1 else concat([y for y, _ in ends], axis=-1)
            if self.dropout and self.training and layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, training=True)
        states = tuple(stack(list(parts)) for parts in zip(*last, strict=True))
        if not batched:
            return x[:, 0], tuple(s[:, 0] for s in states)
        return (x.permute_dims((1, 0, 2)) if self.batch_first else x), states

    def _first(self, hx: Any, batch: int, batched: bool, dtype: DType) -> State:
        """The first states of all layers and directions: those given, or zeros."""
        count = self.num_layers * (1 + self.bidirectional)
        widths = [self.proj_size or self.hidden_size, *([self.hidden_size] if self.mode == "lstm" else [])]
        if hx is None:
            return tuple(zeros((count, batch, width), dtype=dtype) for width in widths)
        given = tuple(hx) if self.mode == "lstm" else (hx,)
        for state, width in zip(given, widths, strict=True):
            want = (count, batch, width) if batched else (count, width)
            if state.shape != want:
                raise ValueError(
                    f"{type(self).__name__}: a first state has the shape {want}, got {state.shape}"
                )
        return tuple(s.reshape((count, batch, w)) for s, w in zip(given, widths, strict=True))

    def _direction(self, x: Tensor, first: State, suffix: str, reverse: bool) -> tuple[Tensor, State]:
        """One layer in one direction: [T, B, I] to [T, B, P], and its last state."""
        weights, step = self._weights(suffix), _STEPS[self.mode][1]

        def body(state: State, share: Tensor) -> tuple[State, Tensor]:
            state = step(share, state, weights)
            return state, state[0]

        last, ys = scan(body, first, _share(x, weights, self.mode != "gru"), reverse=reverse)
        return ys, last

    def extra_repr(self) -> str:
        parts = [f"{self.input_size}, {self.hidden_size}"]
        for name, usual in (
            ("num_layers", 1), ("bias", True), ("batch_first", False), ("dropout", 0.0), ("bidirectional", False),
            ("proj_size", 0),
        ):  # fmt: skip
            if getattr(self, name) != usual:
                parts.append(f"{name}={getattr(self, name)}")
        return ", ".join(parts)


class RNN(_Recurrent):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu: [T, B, I] to the output [T, B, D H] and the last h [L D, B, H].

    The input is [B, T, I] with ``batch_first=True``, and may come without the batch axis. ``hx`` is the first h
    (zeros by default). Layers after the first take the output of the one before, with ``dropout`` between them in
    training; with ``bidirectional`` a second pass from the end is put beside the first.

    >>> from tilewright.functions import ones
    >>> output, last = RNN(3, 5, num_layers=2)(ones((7, 2, 3)))
    >>> output.shape, last.shape
    ((7, 2, 5), (2, 2, 5))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh", bias: bool = True,
        batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, *,
        device: str | None = None, dtype: DType = dt.float32,
    ) -> None:  # fmt: skip
        check_device(device, type(self).__name__)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNN: nonlinearity is 'tanh' or 'relu', got {nonlinearity!r}")
        sizes = (input_size, hidden_size, num_layers)
        super().__init__(nonlinearity, *sizes, bias, batch_first, dropout, bidirectional, 0, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, (last,) = self._run(input, hx)
        return output, last


class LSTM(_Recurrent):
    """Long short-term memory: [T, B, I] to the output [T, B, D P] and (h [L D, B, P], c [L D, B, H]).

    The gates are stacked in the order in, forget, cell, out. ``hx`` is the pair of first states (zeros by default).
    With ``proj_size`` the hidden state is projected to that size. The rest is as in ``RNN``.

    >>> from tilewright.functions import ones
    >>> output, (h, c) = LSTM(3, 5, batch_first=True, bidirectional=True)(ones((2, 7, 3)))
    >>> output.shape, h.shape, c.shape
    ((2, 7, 10), (2, 2, 5), (2, 2, 5))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0, *,
        device: str | None = None, dtype: DType = dt.float32,
    ) -> None:  # fmt: skip
        check_device(device, type(self).__name__)
        sizes = (input_size, hidden_size, num_layers)
        super().__init__("lstm", *sizes, bias, batch_first, dropout, bidirectional, proj_size, dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output, (h, c) = self._run(input, hx)
        return output, (h, c)


class GRU(_Recurrent):
    """Gated recurrent unit: [T, B, I] to the output [T, B, D H] and the last h [L D, B, H].

    The gates are stacked in the order reset, update, new; the rest is as in ``RNN``.

    >>> from tilewright.functions import ones
    >>> output, last = GRU(3, 5)(ones((7, 3)))
    >>> output.shape, last.shape
    ((7, 5), (1, 5))
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True, batch_first: bool = False,
        dropout: float = 0.0, bidirectional: bool = False, *,
        device: str | None = None, dtype: DType = dt.float32,
    ) -> None:  # fmt: skip
        check_device(device, type(self).__name__)
        sizes = (input_size, hidden_size, num_layers)
        super().__init__("gru", *sizes, bias, batch_first, dropout, bidirectional, 0, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        output, (last,) = self._run(input, hx)
        return output, last


class _Cell(Module):
    """One step of a recurrent layer."""

    def __init__(self, mode: str, input_size: int, hidden_size: int, bias: bool, dtype: DType) -> None:
        super().__init__()
        if min(input_size, hidden_size) < 1:
            raise ValueError(f"{type(self).__name__}: sizes are at least 1")
        self.mode, self.input_size, self.hidden_size, self.bias = mode, input_size, hidden_size, bias
        width = _STEPS[mode][0] * hidden_size
        self.weight_ih = empty_parameter((width, input_size), dtype)
        self.weight_hh = empty_parameter((width, hidden_size), dtype)
        self.register_parameter("bias_ih", empty_parameter((width,), dtype) if bias else None)
        self.register_parameter("bias_hh", empty_parameter((width,), dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values, evenly from ±1/√H."""
        bound = 1 / math.sqrt(self.hidden_size)
        for parameter in self.parameters():
            init.uniform_(parameter, -bound, bound)

    def _step(self, input: Tensor, hx: Any) -> State:
        if input.shape[-1:] != (self.input_size,):
            raise ValueError(
                f"{type(self).__name__}: the input is [B, I] or [I] with I = {self.input_size}, got {input.shape}"
            )
        if hx is None:
            zero = zeros((*input.shape[:-1], self.hidden_size), dtype=input.dtype)
            hx = (zero, zero) if self.mode == "lstm" else zero
        state = tuple(hx) if self.mode == "lstm" else (hx,)
        weights: Weights = [self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh, None]
        return _STEPS[self.mode][1](_share(input, weights, self.mode != "gru"), state, weights)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}{'' if self.bias else ', bias=False'}"


class RNNCell(_Cell):
    """One step of ``RNN``: ([B, I], [B, H]) to [B, H]."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh", *,
        device: str | None = None, dtype: DType = dt.float32,
    ) -> None:  # fmt: skip
        check_device(device, type(self).__name__)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"RNNCell: nonlinearity is 'tanh' or 'relu', got {nonlinearity!r}")
        super().__init__(nonlinearity, input_size, hidden_size, bias, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(input, hx)[0]


class LSTMCell(_Cell):
    """One step of ``LSTM``: ([B, I], (h, c)) to (h, c), both [B, H]."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:  # fmt: skip
        check_device(device, type(self).__name__)
        super().__init__("lstm", input_size, hidden_size, bias, dtype)

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        h, c = self._step(input, hx)
        return h, c


class GRUCell(_Cell):
    """One step of ``GRU``: ([B, I], [B, H]) to [B, H]."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, *, device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:  # fmt: skip
        check_device(device, type(self).__name__)
        super().__init__("gru", input_size, hidden_size, bias, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        return self._step(input, hx)[0]

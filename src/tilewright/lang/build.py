"""From a checked run to what trains: modules, loss, optimizer, schedule.

Nothing here reads a file. What the language can say and this version cannot do is refused by
`check_supported`, before any work begins.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

import tilewright.nn.functional as F
from tilewright import metrics as measures
from tilewright import nn, optim
from tilewright.core.diagnostics import Diagnostic, Label, Reporter, Span
from tilewright.lang import program as lang
from tilewright.lang.errors import error_for
from tilewright.lang.syntax.parser import parse
from tilewright.lang.vocabulary import DEVICES_HERE
from tilewright.optim import lr_scheduler
from tilewright.tensor import Tensor
from tilewright.train import EarlyStop

__all__ = [
    "build_early_stop",
    "build_loss",
    "build_metrics",
    "build_model",
    "build_optimizer",
    "build_scheduler",
    "build_scores",
    "check_supported",
]

PRECISIONS = ("fp32", "bf16", "fp16")
FORMATS = ("safetensors",)


def check_supported(program: lang.Program) -> None:
    """Raise `KynSemanticError` for a device, precision or export format that this version does not have."""
    problems: dict[tuple[str, str, str], Diagnostic] = {}
    for run in program.runs:
        wishes = [
            ("train", "device", run.train.device, DEVICES_HERE, run.train.span),
            ("train", "precision", run.train.precision, PRECISIONS, run.train.span),
        ]
        if run.export is not None:
            wishes.append(("export", "format", run.export.format, FORMATS, run.export.span))
        for block, key, value, supported, span in wishes:
            if value not in supported:
                problems[block, key, value] = Diagnostic(
                    "KYN123",
                    f"{key} `{value}` is not supported",
                    (Label(_place(program, block, key) or span, "asked for here", True),),
                    (f"this version has {' and '.join(f'`{word}`' for word in supported)}",),
                    (f"write `{key} = {supported[0]}`",),
                )
    if problems:
        raise error_for(list(problems.values()), program.texts)


def _place(program: lang.Program, block: str, key: str) -> Span | None:
    """Where the value of a key is written in the main file."""
    source = program.sources[0]
    for node in parse(source.text, source.path, Reporter()).blocks(block):
        for entry in node.body:
            if getattr(getattr(entry, "key", None), "name", None) == key:
                return entry.span
    return None


# ---- models ------------------------------------------------------------------------------------------------


class Reshape(nn.Module):
    """The same values of each row under another shape: [B, ...] to [B, *shape]."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, input: Tensor) -> Tensor:
        return input.reshape((input.shape[0], *self.shape))

    def extra_repr(self) -> str:
        return str(self.shape)


class SameConv2d(nn.Conv2d):
    """A convolution with more cells of zeros below and to the right than above and to the left."""

    def __init__(self, *args: Any, padding_end: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        assert isinstance(self.padding, tuple)
        self.extra = tuple(end - start for start, end in zip(self.padding, padding_end, strict=True))

    def forward(self, input: Tensor) -> Tensor:
        down, right = self.extra
        return super().forward(F.pad(input, (0, right, 0, down)))


def build_model(model: lang.Model) -> nn.Sequential:
    """The model as modules in sequence, with fresh parameters from the default random generator.

    The names of the state are positions: `0.weight`, `0.bias`, `2.weight`, ...; activations count as
    positions.
    """
    return nn.Sequential(*(_build_layer(layer) for layer in model.layers))


def _build_layer(layer: lang.Layer) -> nn.Module:
    match layer:
        case lang.Dense():
            return nn.Linear(layer.in_features, layer.out_features, bias=layer.bias)
        case lang.Conv2d():
            return _build_conv(layer)
        case lang.MaxPool():
            return nn.MaxPool2d(layer.kernel, layer.stride, layer.padding)
        case lang.AvgPool():
            return nn.AvgPool2d(layer.kernel, layer.stride, layer.padding)
        case lang.BatchNorm():
            kind = nn.BatchNorm2d if len(layer.input_shape) == 3 else nn.BatchNorm1d
            return kind(layer.features, eps=layer.eps, momentum=layer.momentum)
        case lang.LayerNorm():
            return nn.LayerNorm(layer.features, eps=layer.eps)
        case lang.Dropout():
            return nn.Dropout(layer.p)
        case lang.Flatten():
            return nn.Flatten()
        case lang.Reshape():
            return Reshape(layer.output_shape)
        case lang.Embedding():
            return nn.Embedding(layer.num, layer.dim)
        case lang.Activation():
            return _build_activation(layer)
        case _:
            raise NotImplementedError(f"layer {layer.kind}")


def _build_conv(layer: lang.Conv2d) -> nn.Module:
    sizes: dict[str, Any] = {
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "groups": layer.groups,
        "bias": layer.bias,
    }
    if layer.padding_end != layer.padding:
        sizes["padding_end"] = layer.padding_end
        return SameConv2d(layer.in_channels, layer.out_channels, layer.kernel, **sizes)
    return nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel, **sizes)


_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
}


def _build_activation(layer: lang.Activation) -> nn.Module:
    axis = layer.axis + 1 if layer.axis >= 0 else layer.axis  # the batch comes first
    if layer.name == "softmax":
        return nn.Softmax(dim=axis)
    if layer.name == "log_softmax":
        return nn.LogSoftmax(dim=axis)
    return _ACTIVATIONS[layer.name]()


# ---- training ----------------------------------------------------------------------------------------------


def build_loss(loss: lang.Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss as a function of the model's output and the targets, giving the mean over the batch."""
    options: dict[str, Any] = dict(loss.options)
    match loss.name:
        case "mse":
            return F.mse_loss
        case "l1":
            return F.l1_loss
        case "huber":
            return functools.partial(F.huber_loss, delta=options["delta"])
        case "bce":
            return F.binary_cross_entropy_with_logits if loss.from_logits else F.binary_cross_entropy
        case "cross_entropy":
            return F.cross_entropy
        case "nll":
            return F.nll_loss
        case _:
            raise NotImplementedError(f"loss {loss.name}")


def build_optimizer(choice: lang.Component, model: nn.Module) -> optim.Optimizer:
    """The optimizer over all parameters of the model."""
    kinds: dict[str, Callable[..., optim.Optimizer]] = {
        "adam": optim.Adam,
        "adamw": optim.AdamW,
        "sgd": optim.SGD,
        "rmsprop": optim.RMSprop,
    }
    return kinds[choice.name](model.parameters(), **dict(choice.options))


def build_scheduler(
    choice: lang.Component | None, optimizer: optim.Optimizer, epochs: int, steps_per_epoch: int
) -> tuple[lr_scheduler.LRScheduler | None, str]:
    """The schedule and what it is stepped by: "epoch", or "step" for `onecycle`, whose cycle is the whole
    training.
    """
    if choice is None:
        return None, "epoch"
    match choice.name:
        case "step":
            return lr_scheduler.StepLR(optimizer, choice["step_size"], choice["gamma"]), "epoch"
        case "cosine":
            return lr_scheduler.CosineAnnealingLR(optimizer, choice["t_max"] or epochs), "epoch"
        case "onecycle":
            total = epochs * steps_per_epoch
            return lr_scheduler.OneCycleLR(optimizer, choice["max_lr"], total_steps=total), "step"
        case _:
            raise NotImplementedError(f"scheduler {choice.name}")


def build_early_stop(choice: lang.Component | None) -> EarlyStop | None:
    """When to stop early, if at all."""
    if choice is None:
        return None
    return EarlyStop(choice["patience"], choice["mode"], choice["monitor"], choice["min_delta"])


Array = np.ndarray[Any, np.dtype[Any]]


def build_metrics(run: lang.Run) -> dict[str, Callable[[Array, Array], float]]:
    """The metrics to evaluate, and the one that early stopping watches, by name; they take scores and
    targets.
    """
    names = list(run.evaluate.metrics) if run.evaluate is not None else []
    stop = run.train.early_stop
    if stop is not None and stop["monitor"] != "loss" and stop["monitor"] not in names:
        names.append(stop["monitor"])
    return {name: getattr(measures, name) for name in names}


def build_scores(run: lang.Run) -> Callable[[Array], Array]:
    """What turns the model's output into what metrics look at: probabilities of classes, or the values
    themselves.
    """
    loss = run.train.loss
    if loss.name == "cross_entropy":
        return _softmax
    if loss.name == "nll":
        return np.exp
    if loss.name == "bce" and loss.from_logits:
        return _sigmoid
    return np.asarray


def _softmax(scores: Array) -> Array:
    wide = scores.astype(np.float64)
    powers = np.exp(wide - wide.max(axis=1, keepdims=True))
    shares: Array = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _sigmoid(scores: Array) -> Array:
    return 0.5 * (1.0 + np.tanh(0.5 * scores.astype(np.float64)))

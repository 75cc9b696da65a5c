"""The checked, resolved program: what training, showing and exporting read.

`check` turns source text into a `Program`. Nothing here can fail any more: every name is looked up, every
default filled in, every size inferred. A program holds one `Run` for each point of its sweep (exactly one
without a sweep); a run is complete in itself. Shapes leave out the batch axis: `(10,)` is a vector of ten
features, `(C, H, W)` a feature map, `(T, D)` a sequence.

    program = check("examples/digits/digits.kyn")
    for run in program.runs:
        for layer in run.train.model.layers:
            match layer:
                case Dense(in_features=i, out_features=o, bias=bias): ...

All classes are immutable. Spans point back into the sources, for errors that only the data can reveal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, Union

from tilewright.core.diagnostics import Diagnostic, Span

Shape: TypeAlias = tuple[int, ...]
Value: TypeAlias = Union[int, float, bool, str, tuple["Value", ...], "Component", None]


@dataclass(frozen=True)
class Component:
    """Something named with options, all filled in: `adam(lr=0.1)` has `lr`, `betas`, `eps`,
    `weight_decay`."""

    name: str
    options: Mapping[str, Value]
    span: Span = field(compare=False)

    def __getitem__(self, key: str) -> Any:
        return self.options[key]


# --- layers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """A step of a model. `input_shape` and `output_shape` are without the batch axis."""

    input_shape: Shape
    output_shape: Shape
    span: Span = field(compare=False)

    @property
    def kind(self) -> str:
        """The layer's word in the language: `dense`, `conv2d`, ..."""
        return type(self).__name__.lower()

    @property
    def parameters(self) -> int:
        """How many trained numbers the layer holds."""
        return 0


@dataclass(frozen=True)
class Dense(Layer):
    """`y = x @ W.T + b` over the last axis."""

    in_features: int
    out_features: int
    bias: bool

    @property
    def parameters(self) -> int:
        return self.out_features * (self.in_features + self.bias)


@dataclass(frozen=True)
class Conv2d(Layer):
    """2-D convolution of a `(C, H, W)` map. Pairs are (height, width); `padding` is in cells on every side,
    except after `padding=same` with an even extent, where `padding_end` holds the larger bottom and right."""

    in_channels: int
    out_channels: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    padding_end: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    bias: bool

    @property
    def parameters(self) -> int:
        return self.out_channels * (self.in_channels // self.groups * math.prod(self.kernel) + self.bias)


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maximum over windows of a `(C, H, W)` map; padded cells never win."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


@dataclass(frozen=True)
class AvgPool(Layer):
    """Mean over windows of a `(C, H, W)` map; padded cells count as zeros."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Batch normalisation of each feature of `(D,)` or each channel of `(C, H, W)`, with scale and shift."""

    features: int
    eps: float
    momentum: float

    @property
    def parameters(self) -> int:
        return 2 * self.features


@dataclass(frozen=True)
class LayerNorm(Layer):
    """Layer normalisation over the last axis, with scale and shift."""

    features: int
    eps: float

    @property
    def parameters(self) -> int:
        return 2 * self.features


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, zeroes each value with probability `p` and scales the others by `1 / (1 - p)`."""

    p: float


@dataclass(frozen=True)
class Flatten(Layer):
    """All axes but the batch to one, the last axis fastest."""


@dataclass(frozen=True)
class Reshape(Layer):
    """The same values, in row-major order, as `output_shape`."""


@dataclass(frozen=True)
class Embedding(Layer):
    """Integer indices `(T,)` to rows of a `(num, dim)` table: `(T, dim)`."""

    num: int
    dim: int

    @property
    def parameters(self) -> int:
        return self.num * self.dim


@dataclass(frozen=True)
class Activation(Layer):
    """An elementwise function, or `softmax` / `log_softmax` over `axis` (counted without the batch axis)."""

    name: str
    axis: int

    @property
    def kind(self) -> str:
        return self.name


@dataclass(frozen=True)
class Model:
    """A sequence of layers. An activation word on a line is a layer of its own here; `linear` is none.

    `span` is the model's name, `input_span` its `input` line, `output_span` the line that gives the output.
    """

    name: str
    input_shape: Shape
    layers: tuple[Layer, ...]
    span: Span = field(compare=False)
    input_span: Span = field(compare=False)
    output_span: Span = field(compare=False)

    @property
    def output_shape(self) -> Shape:
        return self.layers[-1].output_shape if self.layers else self.input_shape

    @property
    def output_activation(self) -> str:
        """What the outputs are: the name of the last activation, or `linear`.

        Flattening and reshaping do not count. A pool or dropout after an activation gives its own name: its
        output is no longer what the activation promises.
        """
        layers = [layer for layer in self.layers if not isinstance(layer, Flatten | Reshape)]
        blurred = [layer for layer in layers if not isinstance(layer, MaxPool | AvgPool | Dropout)]
        if not blurred or not isinstance(blurred[-1], Activation):
            return "linear"
        return layers[-1].kind

    @property
    def reads_indices(self) -> bool:
        """Whether the inputs are integer indices, because the first layer is an embedding."""
        return bool(self.layers) and isinstance(self.layers[0], Embedding)

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)


# --- the other blocks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dataset:
    """Where the data comes from and how it is prepared. `directory` is that of the file which declares it."""

    name: str
    source: Component
    target: str
    split: float
    normalize: bool
    shuffle: bool
    num_workers: int
    pin_memory: bool
    prefetch: int
    directory: str = field(compare=False)
    span: Span = field(compare=False)
    target_span: Span = field(compare=False)


@dataclass(frozen=True)
class Loss:
    """What is minimised.

    `name` is one of `mse`, `l1`, `huber`, `bce`, `cross_entropy`, `nll` (`mae` is `l1`). `from_logits` says
    that the loss applies the last function itself, to the model's raw output: always for `cross_entropy`; for
    `bce` when the model ends without `sigmoid`.
    """

    name: str
    options: Mapping[str, Value]
    from_logits: bool
    span: Span = field(compare=False)

    @property
    def target(self) -> Literal["classes", "values"]:
        """`classes`: int64 class indices of shape (B,). `values`: float32 of shape (B, 1)."""
        return "classes" if self.name in ("cross_entropy", "nll") else "values"


@dataclass(frozen=True)
class Train:
    """The `train` block. `scheduler` counts in epochs; absent parts are None."""

    model: Model
    data: Dataset
    loss: Loss
    optimizer: Component
    epochs: int
    batch: int
    device: str
    scheduler: Component | None
    early_stop: Component | None
    checkpoint: Component | None
    precision: str
    compile: bool
    seed: int
    deterministic: bool
    span: Span = field(compare=False)


@dataclass(frozen=True)
class Evaluate:
    """The metrics to compute on the held-out rows, in the order written."""

    metrics: tuple[str, ...]
    span: Span = field(compare=False)


@dataclass(frozen=True)
class Export:
    """What to write after training. `input_shape` includes the batch axis; `opset` is set for `onnx` only."""

    format: str
    path: str
    input_shape: Shape
    opset: int | None
    span: Span = field(compare=False)


@dataclass(frozen=True)
class Run:
    """One point of the sweep, complete. `point` holds the swept parameters, `params` all of them."""

    point: Mapping[str, Value]
    params: Mapping[str, Value]
    datasets: Mapping[str, Dataset]
    models: Mapping[str, Model]
    train: Train
    evaluate: Evaluate | None
    export: Export | None

    @property
    def name(self) -> str:
        """A short name of the point, such as `lr=0.01,hidden=64`; empty without a sweep."""
        return ",".join(f"{key}={plain(value)}" for key, value in self.point.items())


@dataclass(frozen=True)
class SourceFile:
    """A file the program was read from: the main one first, then its imports."""

    path: str
    text: str
    sha256: str


@dataclass(frozen=True)
class Program:
    """A checked program.

    `axes` are the swept parameters with their values; `warnings` did not stop the check.
    """

    path: str
    sources: tuple[SourceFile, ...]
    axes: Mapping[str, tuple[Value, ...]]
    runs: tuple[Run, ...]
    warnings: tuple[Diagnostic, ...]

    @property
    def texts(self) -> dict[str, str]:
        """File name -> text, for rendering diagnostics."""
        return {source.path: source.text for source in self.sources}

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, without source texts and spans."""
        return {
            "path": self.path,
            "sources": [{"path": s.path, "sha256": s.sha256} for s in self.sources],
            "axes": plain(self.axes),
            "runs": [plain(run) for run in self.runs],
            "warnings": [d.to_dict() for d in self.warnings],
        }


def plain(value: Any) -> Any:
    """A part of a program as dictionaries, lists and scalars, without spans."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, Train):
        flat = {item.name: getattr(value, item.name) for item in fields(value) if item.name != "span"}
        return plain({**flat, "model": value.model.name, "data": value.data.name})
    if isinstance(value, Layer | Model | Component | Dataset | Loss | Evaluate | Export | Run):
        kind = {"kind": value.kind} if isinstance(value, Layer) else {}
        hidden = {"span", "input_span", "output_span", "target_span", "directory"}
        shown = {item.name: getattr(value, item.name) for item in fields(value) if item.name not in hidden}
        return {**kind, **plain(shown)}
    return value

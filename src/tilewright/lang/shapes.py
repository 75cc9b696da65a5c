"""Every shape rule of the language on one page: a layer's options and its input shape give the resolved
layer.

Shapes are without the batch axis. `(D,)` is a vector, `(T, D)` a sequence, `(C, H, W)` a feature map. A rule
that does not hold raises `ShapeProblem`; the checker adds the place.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from tilewright.core.diagnostics import Span
from tilewright.lang.program import (
    Activation,
    AvgPool,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Embedding,
    Flatten,
    Layer,
    LayerNorm,
    MaxPool,
    Reshape,
    Shape,
)

Options: TypeAlias = Mapping[str, Any]
Rule: TypeAlias = Callable[[Options, Shape, Span], Layer]
Pair: TypeAlias = tuple[int, int]

MAX_ELEMENTS: Final = 2**40  # no layer may be larger; catches a slipped digit before it costs memory


class ShapeProblem(Exception):
    """A shape rule that does not hold: code, message, help, and the option it is about ("" for the layer)."""

    def __init__(self, code: str, message: str, help: str = "", option: str = "") -> None:
        super().__init__(message)
        self.code, self.message, self.help, self.option = code, message, help, option


def format_shape(shape: Shape) -> str:
    """A shape as it is written on an `input` line: `1 8 8`."""
    return " ".join(str(size) for size in shape)


def dense(options: Options, shape: Shape, span: Span) -> Layer:
    if len(shape) > 2:
        raise ShapeProblem(
            "KYN203",
            f"`dense` needs a vector, the layer before gives {format_shape(shape)}",
            "put `flatten` before it",
        )
    outputs = options["out_features"]
    return Dense(shape, (*shape[:-1], outputs), span, shape[-1], outputs, options["bias"])


def conv2d(options: Options, shape: Shape, span: Span) -> Layer:
    channels, height, width = _feature_map("conv2d", shape)
    outputs, groups = options["out_channels"], options["groups"]
    for what, count in (("input", channels), ("output", outputs)):
        if count % groups:
            raise ShapeProblem(
                "KYN209", f"{groups} groups do not divide {count} {what} channels", option="groups"
            )
    kernel, stride, dilation = options["kernel"], options["stride"], options["dilation"]
    extent = (dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1)
    if options["padding"] == "same":
        if stride != (1, 1):
            raise ShapeProblem("KYN121", "`padding=same` needs a stride of 1", option="padding")
        before: Pair = ((extent[0] - 1) // 2, (extent[1] - 1) // 2)
        after: Pair = (extent[0] // 2, extent[1] // 2)
    else:
        before = after = options["padding"]
    rows = _slide("conv2d", "height", height, extent[0], stride[0], before[0] + after[0])
    cols = _slide("conv2d", "width", width, extent[1], stride[1], before[1] + after[1])
    out = (outputs, rows, cols)
    bias = options["bias"]
    return Conv2d(shape, out, span, channels, outputs, kernel, stride, before, after, dilation, groups, bias)


def maxpool(options: Options, shape: Shape, span: Span) -> Layer:
    return MaxPool(shape, _pooled("maxpool", options, shape), span, *_window(options))


def avgpool(options: Options, shape: Shape, span: Span) -> Layer:
    return AvgPool(shape, _pooled("avgpool", options, shape), span, *_window(options))


def _window(options: Options) -> tuple[Pair, Pair, Pair]:
    return options["kernel"], options["stride"] or options["kernel"], options["padding"]


def _pooled(name: str, options: Options, shape: Shape) -> Shape:
    channels, height, width = _feature_map(name, shape)
    kernel, stride, padding = _window(options)
    if padding[0] * 2 > kernel[0] or padding[1] * 2 > kernel[1]:
        raise ShapeProblem(
            "KYN204", f"the padding of `{name}` is more than half its kernel", option="padding"
        )
    rows = _slide(name, "height", height, kernel[0], stride[0], 2 * padding[0])
    cols = _slide(name, "width", width, kernel[1], stride[1], 2 * padding[1])
    return channels, rows, cols


def _feature_map(name: str, shape: Shape) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise ShapeProblem(
            "KYN203",
            f"`{name}` needs channels, height and width, the layer before gives {format_shape(shape)}",
            "write `input C H W`, or put `reshape C H W` before it",
        )
    return shape[0], shape[1], shape[2]


def _slide(name: str, axis: str, size: int, extent: int, stride: int, padding: int) -> int:
    """How many places a window of `extent` cells finds along an axis of `size` cells."""
    if extent > size + padding:
        padded = f" ({size + padding} with padding)" if padding else ""
        raise ShapeProblem(
            "KYN204",
            f"the window of `{name}` covers {extent} cells, the {axis} is {size}{padded}",
            "use a smaller kernel, more padding, or fewer pooling layers before it",
        )
    return (size + padding - extent) // stride + 1


def batchnorm(options: Options, shape: Shape, span: Span) -> Layer:
    if len(shape) not in (1, 3):
        raise ShapeProblem(
            "KYN203",
            f"`batchnorm` needs a vector or a feature map, the layer before gives {format_shape(shape)}",
            "use `layernorm` for sequences",
        )
    features = _checked_size("batchnorm", options, shape[0])
    return BatchNorm(shape, shape, span, features, options["eps"], options["momentum"])


def layernorm(options: Options, shape: Shape, span: Span) -> Layer:
    features = _checked_size("layernorm", options, shape[-1])
    return LayerNorm(shape, shape, span, features, options["eps"])


def _checked_size(name: str, options: Options, actual: int) -> int:
    given = options["features"]
    if given is not None and given != actual:
        raise ShapeProblem(
            "KYN202",
            f"`{name}` is given size {given}, the layer before has {actual}",
            "leave the size out: it is inferred",
            "features",
        )
    return actual


def dropout(options: Options, shape: Shape, span: Span) -> Layer:
    return Dropout(shape, shape, span, options["p"])


def flatten(options: Options, shape: Shape, span: Span) -> Layer:
    return Flatten(shape, (math.prod(shape),), span)


def reshape(options: Options, shape: Shape, span: Span) -> Layer:
    sizes: tuple[int, ...] = options["sizes"]
    total, known = math.prod(shape), math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) > 1:
        raise ShapeProblem("KYN205", "`reshape` can infer one size only", "write `-1` at most once")
    if -1 in sizes and total % known == 0:
        sizes = tuple(total // known if size == -1 else size for size in sizes)
    if math.prod(sizes) != total:
        raise ShapeProblem(
            "KYN205",
            f"cannot reshape {format_shape(shape)} ({total} values) to {format_shape(options['sizes'])}",
            "the sizes must multiply to the number of values; one of them may be `-1`",
        )
    return Reshape(shape, sizes, span)


def embedding(options: Options, shape: Shape, span: Span) -> Layer:
    if len(shape) != 1:
        raise ShapeProblem(
            "KYN203", f"`embedding` needs a list of indices, `input` gives {format_shape(shape)}"
        )
    return Embedding(shape, (*shape, options["dim"]), span, options["num"], options["dim"])


RULES: Final[Mapping[str, Rule]] = {
    "dense": dense,
    "conv2d": conv2d,
    "maxpool": maxpool,
    "avgpool": avgpool,
    "batchnorm": batchnorm,
    "layernorm": layernorm,
    "dropout": dropout,
    "flatten": flatten,
    "reshape": reshape,
    "embedding": embedding,
}


def infer(name: str, options: Options, shape: Shape, span: Span) -> Layer:
    """The resolved layer `name` over an input of `shape`.

    Raises `ShapeProblem` when the shape rule of the layer does not hold.
    """
    layer = RULES[name](options, shape, span)
    if math.prod(layer.output_shape) > MAX_ELEMENTS or layer.parameters > MAX_ELEMENTS:
        raise ShapeProblem("KYN120", f"`{name}` would be larger than 2^40 values")
    return layer


def activate(name: str, shape: Shape, span: Span) -> Activation:
    """The activation `name`. Softmax runs over the features: channels of a map, else the last axis."""
    return Activation(shape, shape, span, name, 0 if len(shape) == 3 else len(shape) - 1)

"""Convolutions and pooling over one or two spatial axes.

Shapes: N images, C channels in, O channels out, L length, H height, W width, k kernel. Sizes after a layer:
floor((H + 2 padding - dilation (k - 1) - 1) / stride) + 1.
"""

from __future__ import annotations

import math

from tilewright.core import dtype as dt
from tilewright.core.dtype import DType
from tilewright.core.integers import integer
from tilewright.functions.arguments import check_device
from tilewright.nn import functional as F
from tilewright.nn import init
from tilewright.nn.module import Module
from tilewright.nn.parameter import Parameter, empty_parameter
from tilewright.tensor import Tensor

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool1d",
    "AvgPool2d",
    "Conv1d",
    "Conv2d",
    "ConvTranspose2d",
    "MaxPool1d",
    "MaxPool2d",
]

Sizes = int | tuple[int, ...]


def per_axis(name: str, value: Sizes, axes: int, least: int = 0) -> tuple[int, ...]:
    """One number for each spatial axis, none below ``least``; a single number stands for all."""
    try:
        sizes = tuple(map(integer, value if isinstance(value, (tuple, list)) else (value,) * axes))
    except TypeError:
        sizes = ()
    if len(sizes) != axes:
        raise ValueError(f"{name}: expected one integer or {axes}, got {value!r}")
    if min(sizes) < least:
        raise ValueError(f"{name}: at least {least}, got {value!r}")
    return sizes


class _Convolution(Module):
    """What the convolutions share: their numbers, their parameters and how these begin."""

    axes: int
    transposed = False
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes,
        padding: Sizes | str,
        dilation: Sizes,
        groups: int,
        bias: bool,
        dtype: DType,
    ) -> None:
        super().__init__()
        kind = type(self).__name__
        in_channels, out_channels, groups = per_axis(
            f"{kind}: channels and groups", (in_channels, out_channels, groups), 3
        )
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{kind}: {in_channels} input and {out_channels} output channels do not divide into {groups} groups"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = per_axis(f"{kind}: kernel_size", kernel_size, self.axes, 1)
        self.stride = per_axis(f"{kind}: stride", stride, self.axes, 1)
        self.dilation = per_axis(f"{kind}: dilation", dilation, self.axes, 1)
        self.groups = groups
        self.padding: tuple[int, ...] | str
        if isinstance(padding, str):
            if padding not in ("same", "valid"):
                raise ValueError(f"{kind}: padding is a number of cells, 'same' or 'valid', got {padding!r}")
            if padding == "same" and any(s != 1 for s in self.stride):
                raise ValueError(f"{kind}: padding='same' needs stride 1, got {self.stride}")
            self.padding = padding
        else:
            self.padding = per_axis(f"{kind}: padding", padding, self.axes)
        channels = (out_channels, in_channels // groups)
        if self.transposed:
            channels = (in_channels, out_channels // groups)
        self.weight = empty_parameter((*channels, *self.kernel_size), dtype)
        self.register_parameter("bias", empty_parameter((out_channels,), dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new initial values: weight and bias evenly spread over ±1/√(fan in)."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init.fans(self.weight)
            bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
            init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        words = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        if isinstance(self.padding, str) or any(self.padding):
            words += f", padding={self.padding!r}"
        if any(d != 1 for d in self.dilation):
            words += f", dilation={self.dilation}"
        if self.groups != 1:
            words += f", groups={self.groups}"
        return words + ("" if self.bias is not None else ", bias=False")


class Conv1d(_Convolution):
    """Cross-correlation of [N, C, L] with `weight` [O, C/groups, k]; `bias` is [O]. Gives [N, O, L']."""

    axes = 1

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype
        )

    def forward(self, input: Tensor) -> Tensor:
        return F.conv1d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class Conv2d(_Convolution):
    """Cross-correlation of [N, C, H, W] with `weight` [O, C/groups, kh, kw]; `bias` is [O]. Gives [N, O, H',
    W'].

    `padding` adds cells of zeros on every side; "same" keeps the size, "valid" adds none.
    """

    axes = 2

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype
        )

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ConvTranspose2d(_Convolution):
    """The adjoint of `Conv2d` with the same numbers: [N, C, H, W] to [N, O, H', W'].

    `weight` is [C, O/groups, kh, kw]. H' = (H - 1) stride - 2 padding + dilation (kh - 1) + output_padding +
    1.
    """

    axes = 2
    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        *,
        device: str | None = None,
        dtype: DType = dt.float32,
    ) -> None:
        check_device(device, type(self).__name__)
        extra = per_axis("ConvTranspose2d: output_padding", output_padding, 2)
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, dtype
        )
        self.output_padding = extra

    def forward(self, input: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)
        return F.conv_transpose2d(
            input, self.weight, self.bias, self.stride, self.padding, self.output_padding, self.groups, self.dilation
        )  # fmt: skip


class _Pool(Module):
    """What the pools share: window, step (default: the window) and padding."""

    axes: int

    def __init__(self, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, ceil_mode: bool) -> None:
        super().__init__()
        kind = type(self).__name__
        self.kernel_size = per_axis(f"{kind}: kernel_size", kernel_size, self.axes, 1)
        self.stride = per_axis(f"{kind}: stride", kernel_size if stride is None else stride, self.axes, 1)
        self.padding = per_axis(f"{kind}: padding", padding, self.axes)
        if any(2 * p > k for p, k in zip(self.padding, self.kernel_size, strict=True)):
            raise ValueError(f"{kind}: padding {padding} is more than half of the window {kernel_size}")
        self.ceil_mode = ceil_mode

    def extra_repr(self) -> str:
        words = f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"
        return words + (", ceil_mode=True" if self.ceil_mode else "")


class _MaxPool(_Pool):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        *,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.dilation = per_axis(f"{type(self).__name__}: dilation", dilation, self.axes, 1)


class MaxPool1d(_MaxPool):
    """Maximum over windows of [N, C, L]; padded cells never win."""

    axes = 1

    def forward(self, input: Tensor) -> Tensor:
        return F.max_pool1d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class MaxPool2d(_MaxPool):
    """Maximum over windows of [N, C, H, W]; padded cells never win. The step is the window unless given."""

    axes = 2

    def forward(self, input: Tensor) -> Tensor:
        return F.max_pool2d(input, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class _AvgPool(_Pool):
    def __init__(
        self,
        kernel_size: Sizes,
        stride: Sizes | None = None,
        padding: Sizes = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(kernel_size, stride, padding, ceil_mode)
        self.count_include_pad = count_include_pad


class AvgPool1d(_AvgPool):
    """Mean over windows of [N, C, L]."""

    axes = 1

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool1d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )  # fmt: skip


class AvgPool2d(_AvgPool):
    """Mean over windows of [N, C, H, W]; padded cells count as zeros unless `count_include_pad=False`."""

    axes = 2

    def forward(self, input: Tensor) -> Tensor:
        return F.avg_pool2d(
            input, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )  # fmt: skip


class AdaptiveAvgPool2d(Module):
    """Mean over windows chosen so that the result is [N, C, *output_size]; 1 is the mean of every channel."""

    def __init__(self, output_size: Sizes) -> None:
        super().__init__()
        self.output_size = per_axis("AdaptiveAvgPool2d: output_size", output_size, 2)

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}"

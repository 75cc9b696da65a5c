"""Convolutions and pooling over [N, C, spatial...], with PyTorch's argument names and layouts.

A convolution is one graph operation. Pooling is a window movement and a reduction, so its derivative follows from theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.functions.arguments import TensorLike, as_tensor, cast, float_tensor, pair
from tilewright.functions.elementwise import add, divide, multiply
from tilewright.functions.movement import flip, permute_dims, reshape, stack
from tilewright.functions.reductions import max as maximum_over
from tilewright.functions.reductions import mean
from tilewright.functions.reductions import sum as sum_over
from tilewright.tensor import ArgumentError, ShapeError, Tensor, apply
from tilewright.tensor.composite import composite
from tilewright.tensor.modes import modes

__all__ = [
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_max_pool1d", "adaptive_max_pool2d", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "max_pool1d",
    "max_pool2d", "max_pool3d", "unfold",
]  # fmt: skip

Sizes = int | Sequence[int]


def _convolve(
    name: str, n: int, x: TensorLike, weight: TensorLike, bias: TensorLike | None, stride: Sizes, padding: Sizes | str,
    dilation: Sizes, groups: int,
) -> Tensor:  # fmt: skip
    x, weight = _operands(name, n, x, weight)
    unbatched = x.ndim == n + 1
    if unbatched:
        x = reshape(x, (1, *x.shape))
    strides, dilations = pair(stride, n, name, "stride"), pair(dilation, n, name, "dilation")
    if min(strides) < 1 or min(dilations) < 1:
        raise ArgumentError(f"{name}: `stride` and `dilation` are at least 1, got {strides} and {dilations}")
    if x.shape[1] != weight.shape[1] * groups:
        raise ShapeError(
            f"{name}: `x` of shape {x.shape} has {x.shape[1]} channels; `weight` of shape {weight.shape} with"
            f" {groups} group{'s' if groups != 1 else ''} takes {weight.shape[1] * groups}"
        )
    if weight.shape[0] % groups:
        raise ShapeError(f"{name}: {weight.shape[0]} output channels do not divide into {groups} groups")
    widths = _padding(name, n, padding, weight.shape[2:], strides, dilations)
    for size, k, d, (low, high) in zip(x.shape[2:], weight.shape[2:], dilations, widths, strict=True):
        if size + low + high < (k - 1) * d + 1:
            raise ShapeError(
                f"{name}: a kernel spanning {(k - 1) * d + 1} does not fit into an axis of size {size}"
                f" padded by {low + high}"
            )
    out = apply(
        "conv", _rounded(x), _rounded(weight), stride=strides, padding=widths, lhs_dilation=(1,) * n,
        rhs_dilation=dilations, groups=groups, dtype=x.dtype,
    )  # fmt: skip
    return _with_bias(name, out, bias, unbatched)


def _rounded(x: Tensor) -> Tensor:
    """An operand in the type that products are computed in."""
    return cast(x, modes.products) if modes.products is not None and x.dtype is dt.float32 else x


def _operands(name: str, n: int, x: TensorLike, weight: TensorLike) -> tuple[Tensor, Tensor]:
    x, weight = float_tensor(x, name), float_tensor(weight, name, "weight")
    if weight.ndim != n + 2:
        raise ShapeError(
            f"{name}: `weight` has {n + 2} axes (out, in / groups, {n} of the kernel), got shape {weight.shape}"
        )
    if x.ndim not in (n + 1, n + 2):
        raise ShapeError(
            f"{name}: `x` has {n + 2} axes (N, C, {n} spatial) or {n + 1} without N, got shape {x.shape}"
        )
    kind = dt.promote(x.dtype, weight.dtype)
    return cast(x, kind), cast(weight, kind)


def _with_bias(name: str, out: Tensor, bias: TensorLike | None, unbatched: bool) -> Tensor:
    if bias is not None:
        bias = as_tensor(bias, name, "bias")
        if bias.shape != (out.shape[1],):
            raise ShapeError(
                f"{name}: `bias` has shape ({out.shape[1]},), one per output channel, got {bias.shape}"
            )
        out = add(out, reshape(bias, (1, bias.size, *(1,) * (out.ndim - 2))))
    return reshape(out, out.shape[1:]) if unbatched else out


def _padding(
    name: str,
    n: int,
    padding: Sizes | str,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[tuple[int, int], ...]:
    if padding == "valid":
        return ((0, 0),) * n
    if padding == "same":
        if max(strides) != 1:
            raise ArgumentError(
                f"{name}: `padding='same'` keeps the size only with stride 1, got stride {tuple(strides)}"
            )
        total = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
        return tuple((t // 2, t - t // 2) for t in total)
    if isinstance(padding, str):
        raise ArgumentError(f"{name}: `padding` is a number, numbers, 'same' or 'valid', got {padding!r}")
    widths = pair(padding, n, name, "padding")
    if min(widths) < 0:
        raise ArgumentError(f"{name}: `padding` is not negative, got {widths}")
    return tuple((w, w) for w in widths)


@composite
def conv1d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Sizes = 1, padding: Sizes | str = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of [N, C, L] with weight [O, C / groups, K], plus bias [O]."""
    return _convolve("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


@composite
def conv2d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Sizes = 1, padding: Sizes | str = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of [N, C, H, W] with weight [O, C / groups, KH, KW], plus bias [O].

    >>> conv2d(Tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), Tensor([[[[1.0, 1.0]]]])).tolist()
    [[[[3.0], [7.0]]]]
    """
    return _convolve("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


@composite
def conv3d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Sizes = 1, padding: Sizes | str = 0,
    dilation: Sizes = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Cross-correlation of [N, C, D, H, W] with weight [O, C / groups, KD, KH, KW], plus bias [O]."""
    return _convolve("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


def _transposed(
    name: str, n: int, x: TensorLike, weight: TensorLike, bias: TensorLike | None, stride: Sizes, padding: Sizes,
    output_padding: Sizes, groups: int, dilation: Sizes,
) -> Tensor:  # fmt: skip
    """The adjoint of a convolution: one with the input spread out by the stride and the kernel turned round."""
    x, weight = _operands(name, n, x, weight)
    unbatched = x.ndim == n + 1
    if unbatched:
        x = reshape(x, (1, *x.shape))
    if x.shape[1] != weight.shape[0] or weight.shape[0] % groups:
        raise ShapeError(
            f"{name}: `x` of shape {x.shape} has {x.shape[1]} channels; `weight` of shape {weight.shape}"
            f" (in, out / groups, ...) takes {weight.shape[0]} in {groups} groups"
        )
    strides, dilations = pair(stride, n, name, "stride"), pair(dilation, n, name, "dilation")
    widths, extra = pair(padding, n, name, "padding"), pair(output_padding, n, name, "output_padding")
    per_in, per_out, kernel = weight.shape[0] // groups, weight.shape[1], weight.shape[2:]
    apart = reshape(weight, (groups, per_in, per_out, *kernel))
    swapped = permute_dims(apart, (0, 2, 1, *range(3, n + 3)))
    turned = flip(reshape(swapped, (groups * per_out, per_in, *kernel)), tuple(range(2, n + 2)))
    around = tuple(
        (d * (k - 1) - p, d * (k - 1) - p + e)
        for k, d, p, e in zip(kernel, dilations, widths, extra, strict=True)
    )
    out = apply(
        "conv", _rounded(x), _rounded(turned), stride=(1,) * n, padding=around, lhs_dilation=strides,
        rhs_dilation=dilations, groups=groups, dtype=x.dtype,
    )  # fmt: skip
    return _with_bias(name, out, bias, unbatched)


@composite
def conv_transpose1d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The adjoint of ``conv1d``: [N, C, L] with weight [C, O / groups, K]."""
    return _transposed(
        "conv_transpose1d", 1, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


@composite
def conv_transpose2d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The adjoint of ``conv2d``: [N, C, H, W] with weight [C, O / groups, KH, KW]."""
    return _transposed(
        "conv_transpose2d", 2, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


@composite
def conv_transpose3d(
    x: TensorLike, weight: TensorLike, bias: TensorLike | None = None, stride: Sizes = 1, padding: Sizes = 0,
    output_padding: Sizes = 0, groups: int = 1, dilation: Sizes = 1,
) -> Tensor:  # fmt: skip
    """The adjoint of ``conv3d``: [N, C, D, H, W] with weight [C, O / groups, KD, KH, KW]."""
    return _transposed(
        "conv_transpose3d", 3, x, weight, bias, stride, padding, output_padding, groups, dilation
    )


# ---- pooling ------------------------------------------------------------------------------------------------------


def _windows(
    name: str, n: int, x: Tensor, kernel: tuple[int, ...], strides: tuple[int, ...], padding: tuple[int, ...],
    dilations: tuple[int, ...], ceil_mode: bool, fill: float,
) -> Tensor:  # fmt: skip
    """[..., out sizes, kernel sizes]: every window of the last n axes, padded with ``fill``."""
    lead = x.ndim - n
    low, high = [0] * x.ndim, [0] * x.ndim
    for i, (size, k, s, p, d) in enumerate(
        zip(x.shape[lead:], kernel, strides, padding, dilations, strict=True)
    ):
        if k < 1 or s < 1 or d < 1 or p < 0:
            raise ArgumentError(
                f"{name}: `kernel_size`, `stride` and `dilation` are at least 1, `padding` is not negative"
            )
        if 2 * p > (k - 1) * d + 1:
            raise ArgumentError(f"{name}: `padding` {p} is more than half of the kernel {k}")
        span = (k - 1) * d + 1
        room = size + 2 * p - span
        if room < 0:
            raise ShapeError(
                f"{name}: a window of {span} does not fit into axis {lead + i} of shape {x.shape} padded by {p}"
            )
        extra = 0
        if ceil_mode and room % s and (room // s + 1) * s < size + p:  # a last window that starts inside
            extra = s - room % s
        low[lead + i], high[lead + i] = p, p + extra
    if any(low) or any(high):
        x = apply("pad", x, Tensor(fill, x.dtype), low=tuple(low), high=tuple(high), interior=(0,) * x.ndim)
    return apply(
        "window", x, axes=tuple(range(lead, lead + n)), size=kernel, stride=strides, dilation=dilations
    )


def _pool_input(name: str, n: int, x: TensorLike) -> Tensor:
    image = as_tensor(x, name)
    if image.ndim not in (n + 1, n + 2):
        raise ShapeError(
            f"{name}: `x` has {n + 2} axes (N, C, {n} spatial) or {n + 1} without N, got shape {image.shape}"
        )
    return image


def _max_pool(
    name: str,
    n: int,
    x: TensorLike,
    kernel_size: Sizes,
    stride: Sizes | None,
    padding: Sizes,
    dilation: Sizes,
    ceil_mode: bool,
) -> Tensor:
    x = _pool_input(name, n, x)
    kernel = pair(kernel_size, n, name, "kernel_size")
    strides = kernel if stride is None else pair(stride, n, name, "stride")
    fill = -math.inf if x.dtype.is_float else int(np.iinfo(x.dtype.numpy).min)
    widths, dilations = pair(padding, n, name, "padding"), pair(dilation, n, name, "dilation")
    windows = _windows(name, n, x, kernel, strides, widths, dilations, ceil_mode, fill)
    return maximum_over(windows, tuple(range(x.ndim, x.ndim + n)))


@composite
def max_pool1d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Largest element of every window of [N, C, L]; the stride is the kernel's size by default."""
    return _max_pool("max_pool1d", 1, x, kernel_size, stride, padding, dilation, ceil_mode)


@composite
def max_pool2d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Largest element of every window of [N, C, H, W]; the stride is the kernel's size by default.

    >>> max_pool2d(Tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), 2).tolist()
    [[[[4.0]]]]
    """
    return _max_pool("max_pool2d", 2, x, kernel_size, stride, padding, dilation, ceil_mode)


@composite
def max_pool3d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, dilation: Sizes = 1,
    ceil_mode: bool = False,
) -> Tensor:  # fmt: skip
    """Largest element of every window of [N, C, D, H, W]."""
    return _max_pool("max_pool3d", 3, x, kernel_size, stride, padding, dilation, ceil_mode)


def _avg_pool(
    name: str, n: int, x: TensorLike, kernel_size: Sizes, stride: Sizes | None, padding: Sizes, ceil_mode: bool,
    count_include_pad: bool, divisor_override: int | None,
) -> Tensor:  # fmt: skip
    x = float_tensor(_pool_input(name, n, x), name)
    kernel = pair(kernel_size, n, name, "kernel_size")
    strides = kernel if stride is None else pair(stride, n, name, "stride")
    widths, ones = pair(padding, n, name, "padding"), (1,) * n
    axes = tuple(range(x.ndim, x.ndim + n))
    total = sum_over(_windows(name, n, x, kernel, strides, widths, ones, ceil_mode, 0.0), axes)
    if divisor_override is not None:
        return divide(total, float(divisor_override))
    if not any(widths) and not ceil_mode:
        return multiply(total, 1.0 / math.prod(kernel))
    counts = _window_counts(n, x.shape[-n:], total.shape[-n:], kernel, strides, widths, count_include_pad)
    return divide(total, Tensor(counts.astype(x.dtype.numpy)))


def _window_counts(
    n: int, sizes: tuple[int, ...], outs: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...],
    widths: tuple[int, ...], include: bool,
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:  # fmt: skip
    """How many elements each window averages over: those of the input, with the padding when that counts."""
    counts = np.ones((1,) * n)
    for axis, (size, out, k, s, p) in enumerate(zip(sizes, outs, kernel, strides, widths, strict=True)):
        start = np.arange(out) * s - p
        low, high = (-p, size + p) if include else (0, size)
        along = np.minimum(start + k, high) - np.maximum(start, low)
        counts = counts * along.reshape([-1 if i == axis else 1 for i in range(n)])
    return counts


@composite
def avg_pool1d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """Mean of every window of [N, C, L]."""
    return _avg_pool("avg_pool1d", 1, x, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


@composite
def avg_pool2d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Mean of every window of [N, C, H, W]."""
    return _avg_pool(
        "avg_pool2d", 2, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


@composite
def avg_pool3d(
    x: TensorLike, kernel_size: Sizes, stride: Sizes | None = None, padding: Sizes = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """Mean of every window of [N, C, D, H, W]."""
    return _avg_pool(
        "avg_pool3d", 3, x, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def _adaptive(
    name: str, n: int, x: TensorLike, output_size: int | Sequence[int | None], largest: bool
) -> Tensor:
    """Windows from floor(i * size / out) to ceil((i + 1) * size / out), axis by axis."""
    pooled = _pool_input(name, n, x)
    if not largest:
        pooled = float_tensor(pooled, name)
    wanted: tuple[Any, ...] = (
        tuple(output_size) if isinstance(output_size, (tuple, list)) else (output_size,) * n
    )
    if len(wanted) != n:
        raise ArgumentError(f"{name}: `output_size` is one number or {n} of them, got {output_size!r}")
    for i, out in enumerate(wanted):
        axis = pooled.ndim - n + i
        size = pooled.shape[axis]
        out = size if out is None else int(out)
        if out < 1:
            raise ArgumentError(f"{name}: `output_size` is at least 1, got {output_size!r}")
        reduce = maximum_over if largest else mean
        if size % out == 0:
            pooled = reduce(
                reshape(pooled, (*pooled.shape[:axis], out, size // out, *pooled.shape[axis + 1 :])), axis + 1
            )
        else:
            lead = (slice(None),) * axis
            parts = [pooled[(*lead, slice(j * size // out, -(-(j + 1) * size // out)))] for j in range(out)]
            pooled = stack([reduce(p, axis) for p in parts], axis)
    return pooled


@composite
def adaptive_avg_pool1d(x: TensorLike, output_size: int | Sequence[int | None]) -> Tensor:
    """Means that bring [N, C, L] to length ``output_size``."""
    return _adaptive("adaptive_avg_pool1d", 1, x, output_size, False)


@composite
def adaptive_avg_pool2d(x: TensorLike, output_size: int | Sequence[int | None]) -> Tensor:
    """Means that bring [N, C, H, W] to ``output_size`` (a number, or two with None for "as it is")."""
    return _adaptive("adaptive_avg_pool2d", 2, x, output_size, False)


@composite
def adaptive_max_pool1d(x: TensorLike, output_size: int | Sequence[int | None]) -> Tensor:
    """Maxima that bring [N, C, L] to length ``output_size``."""
    return _adaptive("adaptive_max_pool1d", 1, x, output_size, True)


@composite
def adaptive_max_pool2d(x: TensorLike, output_size: int | Sequence[int | None]) -> Tensor:
    """Maxima that bring [N, C, H, W] to ``output_size``."""
    return _adaptive("adaptive_max_pool2d", 2, x, output_size, True)


@composite
def unfold(
    x: TensorLike, kernel_size: Sizes, dilation: Sizes = 1, padding: Sizes = 0, stride: Sizes = 1
) -> Tensor:
    """The windows of [N, C, H, W] as columns: [N, C * KH * KW, number of windows]."""
    x = _pool_input("unfold", 2, x)
    if x.ndim != 4:
        raise ShapeError(f"unfold: `x` has shape [N, C, H, W], got {x.shape}")
    kernel = pair(kernel_size, 2, "unfold", "kernel_size")
    strides, widths = pair(stride, 2, "unfold", "stride"), pair(padding, 2, "unfold", "padding")
    windows = _windows(
        "unfold", 2, x, kernel, strides, widths, pair(dilation, 2, "unfold", "dilation"), False, 0.0
    )
    n, c, h, w = windows.shape[:4]
    return reshape(permute_dims(windows, (0, 1, 4, 5, 2, 3)), (n, c * math.prod(kernel), h * w))

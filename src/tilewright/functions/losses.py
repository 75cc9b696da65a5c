"""Loss functions, with PyTorch's names, arguments and defaults.

``reduction`` is "mean", "sum" or "none". N examples, C classes; further axes of the input come after the classes.

The element of a row that a class target names is picked by comparing the class axis with the target, not by a gather: the
comparison fuses into the loop that reads the row anyway, and so does its derivative, at any number of classes.
"""

from __future__ import annotations

import math

from tilewright.core import dtype as dt
from tilewright.functions.activations import folded, log_softmax
from tilewright.functions.arguments import (
    TensorLike,
    as_tensor,
    broadcast_to_shape,
    cast,
    common_shape,
    count_of,
    float_tensor,
)
from tilewright.functions.creation import iota
from tilewright.functions.elementwise import abs as absolute
from tilewright.functions.elementwise import (
    add,
    bitwise_and,
    divide,
    equal,
    exp,
    greater_equal,
    less,
    less_equal,
    log,
    log1p,
    maximum,
    multiply,
    negative,
    not_equal,
    subtract,
    where,
)
from tilewright.functions.movement import expand_dims, reshape
from tilewright.functions.reductions import max as maximum_over
from tilewright.functions.reductions import mean
from tilewright.functions.reductions import sum as sum_over
from tilewright.tensor import ArgumentError, DTypeError, ShapeError, Tensor, modes
from tilewright.tensor.composite import composite

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cross_entropy", "huber_loss", "kl_div", "l1_loss", "mse_loss",
    "nll_loss", "smooth_l1_loss",
]  # fmt: skip


def _reduced(loss: Tensor, reduction: str, function: str) -> Tensor:
    if reduction == "mean":
        return mean(loss)
    if reduction == "sum":
        return sum_over(loss)
    if reduction == "none":
        return loss
    raise ArgumentError(f"{function}: `reduction` is 'mean', 'sum' or 'none', got {reduction!r}")


def _examples(shape: tuple[int, ...], loss: Tensor) -> float | Tensor:
    """How many examples a loss is divided by: at least one."""
    count = count_of(shape, loss.dtype)
    return count if isinstance(count, Tensor) else float(max(count, 1))


def _pair(input: TensorLike, target: TensorLike, function: str) -> tuple[Tensor, Tensor]:
    x = float_tensor(input, function, "input")
    t = as_tensor(target, function, "target", x.dtype)
    if x.shape != t.shape:
        common_shape(function, [x.shape, t.shape])
        raise ShapeError(
            f"{function}: `input` has shape {x.shape} and `target` {t.shape}; give both one shape"
            " (broadcasting them would average over pairs that do not belong together)"
        )
    return x, t if t.dtype.is_float else cast(t, x.dtype)


@composite
def mse_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """(input - target)^2.

    >>> mse_loss(Tensor([1.0, 3.0]), Tensor([1.0, 1.0])).item()
    2.0
    """
    x, t = _pair(input, target, "mse_loss")
    difference = subtract(x, t)
    return _reduced(multiply(difference, difference), reduction, "mse_loss")


@composite
def l1_loss(input: TensorLike, target: TensorLike, reduction: str = "mean") -> Tensor:
    """|input - target|."""
    x, t = _pair(input, target, "l1_loss")
    return _reduced(absolute(subtract(x, t)), reduction, "l1_loss")


@composite
def huber_loss(input: TensorLike, target: TensorLike, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Half the square of the difference up to ``delta``, then linear."""
    x, t = _pair(input, target, "huber_loss")
    if delta <= 0:
        raise ArgumentError(f"huber_loss: `delta` is positive, got {delta}")
    near, distance, close = _near(x, t, delta)
    far = multiply(subtract(distance, 0.5 * delta), delta)
    return _reduced(where(close, multiply(near, 0.5), far), reduction, "huber_loss")


def _near(x: Tensor, t: Tensor, border: float) -> tuple[Tensor, Tensor, Tensor]:
    """The squared difference where it is inside ``border`` and 0 elsewhere, the distance, and which of them are inside.

    The square is of the difference, not of the distance, which has no second derivative at 0.
    """
    difference = subtract(x, t)
    distance = absolute(difference)
    close = less(distance, border)
    inside = where(close, difference, 0)
    return multiply(inside, inside), distance, close


@composite
def smooth_l1_loss(
    input: TensorLike, target: TensorLike, reduction: str = "mean", beta: float = 1.0
) -> Tensor:
    """Half the square of the difference divided by ``beta`` up to ``beta``, then the difference less half of ``beta``."""
    if beta < 0:
        raise ArgumentError(f"smooth_l1_loss: `beta` is not negative, got {beta}")
    if beta == 0:
        return l1_loss(input, target, reduction)
    x, t = _pair(input, target, "smooth_l1_loss")
    near, distance, close = _near(x, t, beta)
    far = subtract(distance, 0.5 * beta)
    return _reduced(where(close, multiply(near, 0.5 / beta), far), reduction, "smooth_l1_loss")


_SATURATED = 1e-12  # probabilities below have a logarithm whose slope is limited


def _limited_log(p: Tensor) -> Tensor:
    """The logarithm of a probability below ``_SATURATED``: not under -100, and with the slope it has at that border."""
    fixed = p.detach()
    return add(maximum(log(fixed), -100.0), multiply(subtract(p, fixed), 1.0 / _SATURATED))


@composite
def binary_cross_entropy(
    input: TensorLike, target: TensorLike, weight: TensorLike | None = None, reduction: str = "mean"
) -> Tensor:
    """-(t log x + (1 - t) log(1 - x)) for probabilities x.

    As in PyTorch, logarithms are limited to -100 and their slopes to 1e12: a probability that has reached 0 or 1, as
    sigmoid does in float32 from 17 on, has a finite loss and a finite gradient.
    """
    x, t = _pair(input, target, "binary_cross_entropy")
    kind = x.dtype
    if kind.bits == 16:  # these slopes are beyond half precision
        x, t = cast(x, dt.float32), cast(t, dt.float32)
    rest = subtract(1.0, x)
    no_yes, no_no = less(x, _SATURATED), less(rest, _SATURATED)
    log_yes = where(no_yes, _limited_log(x), log(where(no_yes, 1.0, x)))
    log_no = where(no_no, _limited_log(rest), log1p(negative(where(no_no, 0.0, x))))
    loss = negative(add(multiply(t, log_yes), multiply(subtract(1.0, t), log_no)))
    loss = loss if loss.dtype is kind else cast(loss, kind)
    if weight is not None:
        loss = multiply(loss, as_tensor(weight, "binary_cross_entropy", "weight"))
    return _reduced(loss, reduction, "binary_cross_entropy")


@composite
def binary_cross_entropy_with_logits(
    input: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    reduction: str = "mean",
    pos_weight: TensorLike | None = None,
) -> Tensor:
    """``binary_cross_entropy`` of sigmoid(input), without overflow. ``pos_weight`` multiplies the positive part."""
    name = "binary_cross_entropy_with_logits"
    x, t = _pair(input, target, name)
    soft, low = log1p(exp(folded(x))), less_equal(x, 0)
    if pos_weight is None:
        loss = add(subtract(where(low, 0, x), multiply(x, t)), soft)
    else:
        factor = add(multiply(subtract(as_tensor(pos_weight, name, "pos_weight"), 1.0), t), 1.0)
        loss = add(multiply(subtract(1.0, t), x), multiply(factor, add(soft, where(low, negative(x), 0))))
    if weight is not None:
        loss = multiply(loss, as_tensor(weight, name, "weight"))
    return _reduced(loss, reduction, name)


@composite
def kl_div(
    input: TensorLike, target: TensorLike, reduction: str = "mean", log_target: bool = False
) -> Tensor:
    """target * (log target - input) for log-probabilities ``input``; "batchmean" divides the sum by the first axis."""
    x, t = _pair(input, target, "kl_div")
    if log_target:
        loss = multiply(exp(t), subtract(t, x))
    else:
        safe = where(equal(t, 0), 1.0, t)
        loss = multiply(t, subtract(log(safe), x))
    if reduction == "batchmean":
        return divide(sum_over(loss), _examples(x.shape[:1], loss))
    return _reduced(loss, reduction, "kl_div")


# ---- class targets ------------------------------------------------------------------------------------------------


def _class_axis(x: Tensor, target: Tensor, function: str) -> int:
    """Axis of the classes; checks that an integer target of the remaining shape belongs to the input."""
    if not x.ndim:
        raise ShapeError(f"{function}: `input` has shape [C] or [N, C, ...], got a tensor of rank 0")
    axis = 0 if x.ndim == 1 else 1
    rest = x.shape[:axis] + x.shape[axis + 1 :]
    if not target.dtype.is_integer:
        raise DTypeError(f"{function}: `target` holds class numbers (integers), got {target.dtype}")
    if target.shape != rest:
        hint = ""
        if target.shape == (*rest, 1):
            hint = "; drop the last axis with `target.squeeze(-1)`"
        elif target.shape == x.shape:
            hint = "; a target of one-hot rows goes through `.argmax(1)` (or as floats, as probabilities)"
        raise ShapeError(
            f"{function}: `target` has shape {rest} for `input` of shape {x.shape}, got {target.shape}{hint}"
        )
    return axis


def _check_classes(target: Tensor, classes: int, ignore_index: int, function: str) -> None:
    """Report a class out of range at once when the targets lie in memory; elsewhere it makes the loss NaN."""
    buffer = target._value.buffer
    if buffer is None or modes.trace is not None or target.size == 0:
        return
    numbers = buffer.to_numpy()
    if numbers.view(f"u{numbers.itemsize}").max() < classes:  # as unsigned numbers, negative ones are large
        return
    bad = numbers[((numbers < 0) | (numbers >= classes)) & (numbers != ignore_index)]
    if bad.size:
        raise ArgumentError(
            f"{function}: target {int(bad[0])} is not a class; there are {classes} classes, 0 to {classes - 1}"
            f" (and `ignore_index` {ignore_index})"
        )


def _class_mask(x: Tensor, target: Tensor, axis: int) -> Tensor:
    classes = iota(x.shape, axis, dt.int64)
    return equal(classes, broadcast_to_shape(expand_dims(cast(target, dt.int64), axis), x.shape))


def nll_loss(
    input: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Minus the log-probability of the target class: input [N, C, ...] of log-probabilities, target [N, ...] of classes.

    Targets equal to ``ignore_index`` do not count; "mean" divides by the number (or weight) of those that do.
    """
    x, t = float_tensor(input, "nll_loss", "input"), as_tensor(target, "nll_loss", "target")
    axis = _class_axis(x, t, "nll_loss")
    _check_classes(t, x.shape[axis], ignore_index, "nll_loss")
    return _nll_loss(x, t, weight, axis, ignore_index, reduction)


@composite
def _nll_loss(
    x: Tensor, t: Tensor, weight: TensorLike | None, axis: int, ignore_index: int, reduction: str
) -> Tensor:
    picked = sum_over(where(_class_mask(x, t, axis), x, 0.0), axis)
    return _class_loss(negative(picked), x, t, axis, weight, ignore_index, reduction, "nll_loss")


def _class_loss(
    loss: Tensor, x: Tensor, t: Tensor, axis: int, weight: TensorLike | None, ignore_index: int, reduction: str, function: str,
    weighted: bool = True,
) -> Tensor:  # fmt: skip
    """Weigh, mask and reduce the losses of examples. A target that is no class gives NaN. ``weighted``: the class weights
    still have to be multiplied in."""
    inside = bitwise_and(greater_equal(t, 0), less(t, x.shape[axis]))
    counts = not_equal(t, ignore_index)
    if 0 <= ignore_index < x.shape[axis]:
        inside = bitwise_and(inside, counts)
    weights: Tensor | None = None
    if weight is not None:
        weights = _target_weights(weight, x, t, axis, function)
        if weighted:
            loss = multiply(loss, weights)
    loss = where(inside, loss, where(counts, math.nan, cast(counts, x.dtype)))
    if reduction != "mean":
        return _reduced(loss, reduction, function)
    share = cast(counts, x.dtype) if weights is None else where(counts, weights, 0.0)
    return divide(sum_over(loss), sum_over(share))


def _target_weights(weight: TensorLike, x: Tensor, t: Tensor, axis: int, function: str) -> Tensor:
    w = cast(as_tensor(weight, function, "weight"), x.dtype)
    if w.shape != (x.shape[axis],):
        raise ShapeError(
            f"{function}: `weight` has one element for each of the {x.shape[axis]} classes, got shape {w.shape}"
        )
    wide = reshape(w, (w.size, *(1,) * (x.ndim - axis - 1)))
    return sum_over(where(_class_mask(x, t, axis), wide, 0.0), axis)


def cross_entropy(
    input: TensorLike,
    target: TensorLike,
    weight: TensorLike | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """-log softmax(input)[target]: input [N, C, ...] of logits, target [N, ...] of classes or [N, C, ...] of probabilities.

    Integer targets equal to ``ignore_index`` do not count. Raises ``ShapeError`` when the shapes do not belong together.

    >>> round(cross_entropy(Tensor([[2.0, 0.0]]), Tensor([0])).item(), 4)
    0.1269
    """
    x = float_tensor(input, "cross_entropy", "input")
    t = as_tensor(target, "cross_entropy", "target")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ArgumentError(f"cross_entropy: `label_smoothing` is from 0 to 1, got {label_smoothing}")
    if t.dtype.is_float:
        return _soft_cross_entropy(x, t, weight, reduction, label_smoothing)
    axis = _class_axis(x, t, "cross_entropy")
    _check_classes(t, x.shape[axis], ignore_index, "cross_entropy")
    return _hard_cross_entropy(x, t, weight, axis, ignore_index, reduction, label_smoothing)


@composite
def _hard_cross_entropy(
    x: Tensor, t: Tensor, weight: TensorLike | None, axis: int, ignore_index: int, reduction: str, label_smoothing: float,
) -> Tensor:  # fmt: skip
    """Targets are class numbers."""
    shifted = subtract(x, maximum_over(x, axis, keepdims=True).detach())
    total = log(sum_over(exp(shifted), axis))
    if label_smoothing == 0.0:
        picked = sum_over(where(_class_mask(x, t, axis), shifted, 0.0), axis)
        return _class_loss(
            subtract(total, picked), x, t, axis, weight, ignore_index, reduction, "cross_entropy"
        )
    logs = subtract(shifted, expand_dims(total, axis))
    near = negative(sum_over(where(_class_mask(x, t, axis), logs, 0.0), axis))
    if weight is None:
        spread = negative(sum_over(logs, axis))
    else:
        w = cast(as_tensor(weight, "cross_entropy", "weight"), x.dtype)
        near = multiply(near, _target_weights(weight, x, t, axis, "cross_entropy"))
        spread = negative(sum_over(multiply(logs, reshape(w, (w.size, *(1,) * (x.ndim - axis - 1)))), axis))
    loss = add(multiply(near, 1.0 - label_smoothing), multiply(spread, label_smoothing / x.shape[axis]))
    return _class_loss(loss, x, t, axis, weight, ignore_index, reduction, "cross_entropy", weighted=False)


@composite
def _soft_cross_entropy(
    x: Tensor, t: Tensor, weight: TensorLike | None, reduction: str, smoothing: float
) -> Tensor:
    """Targets are probabilities of the classes; "mean" divides by the number of examples."""
    if t.shape != x.shape:
        raise ShapeError(
            f"cross_entropy: a float `target` holds probabilities in the shape {x.shape} of `input`, got {t.shape}"
            f" of {t.dtype}; class numbers are integers, e.g. `target.astype(tw.int64)`"
        )
    axis = 0 if x.ndim == 1 else 1
    if smoothing:
        t = add(multiply(t, 1.0 - smoothing), smoothing / x.shape[axis])
    logs = log_softmax(x, axis)
    if weight is not None:
        w = as_tensor(weight, "cross_entropy", "weight")
        logs = multiply(logs, reshape(w, (w.size, *(1,) * (x.ndim - axis - 1))))
    loss = negative(sum_over(multiply(logs, t), axis))
    if reduction == "mean":
        return divide(sum_over(loss), _examples(loss.shape, loss))
    return _reduced(loss, reduction, "cross_entropy")

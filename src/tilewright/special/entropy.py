"""Products with logarithms that are 0 at 0, logistic functions, and the normalised sine; native, differentiable."""

from __future__ import annotations

import math

from tilewright.functions.activations import log_sigmoid, log_softmax, logsumexp, sigmoid, softmax
from tilewright.functions.arguments import TensorLike
from tilewright.functions.elementwise import floor, isnan, log, log1p, sin, where
from tilewright.special.arguments import rounded
from tilewright.tensor import Tensor

__all__ = [
    "entr", "expit", "kl_div", "log_expit", "log_softmax", "logit", "logsumexp", "rel_entr", "sinc", "softmax", "xlog1py",
    "xlogy",
]  # fmt: skip

expit = sigmoid
log_expit = log_sigmoid


def _xlogy(x: Tensor, y: Tensor) -> Tensor:
    zero = (x == 0) & ~isnan(y)
    return where(zero, 0.0, x * log(where(zero, 1.0, y)))


def xlogy(x: TensorLike, y: TensorLike) -> Tensor:
    """x log(y), elementwise; 0 where x is 0 and y any number.

    >>> xlogy(Tensor([0.0, 2.0]), Tensor([0.0, 1.0])).tolist()
    [0.0, 0.0]
    """
    return rounded("xlogy", ("x", "y"), (x, y), _xlogy)


def xlog1py(x: TensorLike, y: TensorLike) -> Tensor:
    """x log(1 + y), elementwise; 0 where x is 0 and y any number."""

    def compute(x: Tensor, y: Tensor) -> Tensor:
        zero = (x == 0) & ~isnan(y)
        return where(zero, 0.0, x * log1p(where(zero, 0.0, y)))

    return rounded("xlog1py", ("x", "y"), (x, y), compute)


def entr(x: TensorLike) -> Tensor:
    """-x log(x), elementwise; 0 at 0 and -inf below.

    >>> entr(Tensor([0.0, 1.0])).tolist()
    [0.0, -0.0]
    """

    def compute(x: Tensor) -> Tensor:
        inside = (x > 0) | isnan(x)
        return where(inside, -x * log(where(inside, x, 1.0)), where(x == 0, 0.0, -math.inf))

    return rounded("entr", ("x",), (x,), compute)


def _rel_entr(x: Tensor, y: Tensor) -> Tensor:
    both = (x > 0) & (y > 0)
    known = where(both, x, 1.0)
    out = known * log(known / where(both, y, 1.0))
    unknown = isnan(x) | isnan(y)
    return where(both, out, where(unknown, math.nan, where((x == 0) & (y >= 0), 0.0, math.inf)))


def rel_entr(x: TensorLike, y: TensorLike) -> Tensor:
    """x log(x / y), elementwise; 0 where x is 0 and y is not negative, inf outside."""
    return rounded("rel_entr", ("x", "y"), (x, y), _rel_entr)


def kl_div(x: TensorLike, y: TensorLike) -> Tensor:
    """x log(x / y) - x + y, elementwise, which is never negative; inf outside x >= 0, y >= 0."""

    def compute(x: Tensor, y: Tensor) -> Tensor:
        out = _rel_entr(x, y)
        return where(out == math.inf, math.inf, out - where(out == math.inf, 0.0, x - y))

    return rounded("kl_div", ("x", "y"), (x, y), compute)


def logit(x: TensorLike) -> Tensor:
    """log(x / (1 - x)), elementwise: the inverse of ``expit``. 0 and 1 give -inf and inf, what is outside NaN.

    >>> logit(Tensor(0.5)).item()
    0.0
    """

    def compute(x: Tensor) -> Tensor:
        central = (x > 0.3) & (x < 0.65)
        middle = where(central, x, 0.5)
        away = log1p((middle - 0.5) * 2 / (1 - middle))  # x / (1 - x) = 1 + (2x - 1) / (1 - x)
        outer = where(central, 0.25, x)
        return where(central, away, log(outer / (1 - outer)))

    return rounded("logit", ("x",), (x,), compute)


def sinc(x: TensorLike) -> Tensor:
    """sin(pi x) / (pi x), elementwise; 1 at 0.

    >>> sinc(Tensor([0.0, 1.0])).tolist()
    [1.0, 0.0]
    """

    def compute(x: Tensor) -> Tensor:
        near = (x < 1e-4) & (x > -1e-4)  # a series, so that derivatives at 0 exist
        square = x * x * math.pi**2
        z = where(near, 1.0, x)
        whole = floor(z + 0.5)
        value = sin((z - whole) * math.pi)
        value = where(whole - 2 * floor(whole * 0.5) == 1, -value, value)
        series = 1 - square * (1 / 6) * (1 - square * (1 / 20))
        return where(near, series, value / (z * math.pi))

    return rounded("sinc", ("x",), (x,), compute)

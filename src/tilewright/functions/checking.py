"""``check_grads``: derivatives of a function against finite differences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilewright.core import dtype as dt
from tilewright.core.trees import flatten, unflatten
from tilewright.functions.transforms import jvp, vjp
from tilewright.tensor import DTypeError, GradientError, Tensor

__all__ = ["check_grads"]

Array = np.ndarray[Any, Any]
_STEP = {dt.float64: 1e-6, dt.complex128: 1e-6}
_TOLERANCE = {dt.float64: 1e-5, dt.complex128: 1e-5}


def check_grads(
    f: Callable[..., Any],
    args: Sequence[Any],
    order: int,
    modes: Sequence[str] = ("fwd", "rev"),
    atol: float | None = None,
    rtol: float | None = None,
    eps: float | None = None,
) -> None:
    """Raise ``GradientError`` when derivatives of ``f`` at ``args`` up to ``order`` differ from central differences.

    ``args`` and the result of ``f`` are floating-point tensors (or trees of them); float64 gives sharp checks. Each order is
    checked along random directions, in forward mode (``fwd``) and reverse mode (``rev``); higher orders mix the modes.
    ``eps`` is the step of the differences, ``atol`` and ``rtol`` the tolerances.

    >>> check_grads(lambda x: x.sin().sum(), (Tensor([0.5, 1.0]).astype("float64"),), order=2)
    """
    if unknown := set(modes) - {"fwd", "rev"}:
        raise GradientError(
            f"check_grads: `modes` are 'fwd' and 'rev', got {', '.join(sorted(map(repr, unknown)))}"
        )
    if order < 1:
        raise GradientError(f"check_grads: `order` is at least 1, got {order}")
    leaves = list(flatten(tuple(args))[0])
    for leaf in leaves:
        if not isinstance(leaf, Tensor) or not leaf.dtype.is_inexact:
            got = str(leaf.dtype) if isinstance(leaf, Tensor) else type(leaf).__name__
            raise DTypeError(f"check_grads: `args` are floating-point tensors, got {got}")
    kinds = [x.dtype for x in leaves]
    checker = _Checker(
        atol if atol is not None else max((_TOLERANCE.get(k, 1e-2) for k in kinds), default=1e-2),
        rtol if rtol is not None else max((_TOLERANCE.get(k, 1e-2) for k in kinds), default=1e-2),
        eps if eps is not None else max((_STEP.get(k, 1e-2) for k in kinds), default=1e-2),
    )
    checker.check(f, tuple(args), order, tuple(modes), "")


class _Checker:
    def __init__(self, atol: float, rtol: float, eps: float) -> None:
        self.atol, self.rtol, self.eps = atol, rtol, eps
        self.rng = np.random.default_rng(0)

    def check(
        self, f: Callable[..., Any], args: tuple[Any, ...], order: int, modes: tuple[str, ...], path: str
    ) -> None:
        leaves, structure = flatten(args)
        from_leaves = _of_leaves(f, structure)
        moves = [self._like(x) for x in leaves]
        outs = flatten(from_leaves(*leaves))[0]
        weights = [self._like(y) for y in outs]
        if "fwd" in modes:
            found = flatten(jvp(from_leaves, leaves, moves)[1])[0]
            self._compare(from_leaves, leaves, moves, found, f"{path}fwd")
            if order > 1:
                tangent = lambda *a: jvp(from_leaves, a, moves)[1]  # noqa: E731
                self.check(tangent, tuple(leaves), order - 1, modes, f"{path}fwd, ")
        if "rev" in modes:
            scalar = _weighted(from_leaves, weights)
            pulled = vjp(scalar, *leaves)[1](Tensor(1.0).astype(_real(weights[0].dtype)))
            slope = sum(_inner(g, t) for g, t in zip(pulled, moves, strict=True))
            self._compare(scalar, leaves, moves, [Tensor(np.float64(slope))], f"{path}rev")
            if order > 1:
                gradient = lambda *a: vjp(from_leaves, *a)[1](_cotangent(from_leaves, a, weights))  # noqa: E731
                self.check(gradient, tuple(leaves), order - 1, modes, f"{path}rev, ")

    def _like(self, x: Tensor) -> Tensor:
        drawn = self.rng.uniform(-1, 1, x.shape)
        if x.dtype.is_complex:
            drawn = drawn + 1j * self.rng.uniform(-1, 1, x.shape)
        return Tensor(np.asarray(drawn).astype(x.dtype.numpy))

    def _compare(
        self,
        f: Callable[..., Any],
        args: Sequence[Tensor],
        moves: Sequence[Tensor],
        found: Sequence[Tensor],
        path: str,
    ) -> None:
        """The tangents against the difference of two values of the function."""
        near = []
        for sign in (1, -1):
            moved = [
                Tensor((x.numpy() + sign * self.eps * t.numpy()).astype(x.dtype.numpy))
                for x, t in zip(args, moves, strict=True)
            ]
            near.append([np.asarray(y.numpy()) for y in flatten(f(*moved))[0]])
        for n, (high, low, tangent) in enumerate(zip(*near, found, strict=True)):
            wide = np.complex128 if high.dtype.kind == "c" else np.float64
            measured = (high.astype(wide) - low.astype(wide)) / (2 * self.eps)
            computed = np.asarray(tangent.numpy()).astype(wide)
            error = np.abs(measured - computed)
            allowed = self.atol + self.rtol * np.abs(measured)
            if not np.all(error <= allowed):
                worst = np.unravel_index(
                    int(np.argmax(np.where(np.isnan(error), np.inf, error - allowed))), error.shape
                )
                raise GradientError(
                    f"check_grads: the derivative ({path}) of result {n} is {computed[worst]} at {list(map(int, worst))},"
                    f" its difference quotient {measured[worst]}"
                )


def _of_leaves(f: Callable[..., Any], structure: Any) -> Callable[..., Any]:
    return lambda *leaves: f(*unflatten(structure, leaves))


def _cotangent(f: Callable[..., Any], args: Sequence[Tensor], weights: Sequence[Tensor]) -> Any:
    return unflatten(flatten(f(*args))[1], weights)


def _weighted(f: Callable[..., Any], weights: Sequence[Tensor]) -> Callable[..., Tensor]:
    """The real inner product of the function's results with constant weights."""

    def scalar(*leaves: Tensor) -> Tensor:
        total: Any = 0.0
        for y, w in zip(flatten(f(*leaves))[0], weights, strict=True):
            product = y * w.conj() if y.dtype.is_complex else y * w
            total = (product.real if y.dtype.is_complex else product).sum() + total
        return total  # type: ignore[no-any-return]

    return scalar


def _real(kind: dt.DType) -> dt.DType:
    return {dt.complex64: dt.float32, dt.complex128: dt.float64}.get(kind, kind)


def _inner(g: Tensor, t: Tensor) -> float:
    return float(np.sum(np.real(np.conj(g.numpy().astype(np.complex128)) * t.numpy())))

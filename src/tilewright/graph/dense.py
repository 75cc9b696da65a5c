"""Algorithms on stacks of dense matrices that NumPy lacks: triangular solving, LU factors, the exponential.

They work in blocks, so that nearly all arithmetic is NumPy's matrix product. Shapes: [..., M, N]; all matrices of a stack
go through every step together.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

__all__ = ["lu_factor", "matrix_exp", "solve_triangular"]

Array = np.ndarray[Any, Any]
_BLOCK = 32


def solve_triangular(a: Array, b: Array, upper: bool, unit: bool) -> Array:
    """The X with T @ X = b, where T is a triangle of a (with ones on the diagonal if ``unit``).

    Raises ``LinAlgError`` when a number on the diagonal is 0.
    """
    t = np.triu(a) if upper else np.tril(a)
    n = a.shape[-1]
    if unit:
        t[..., np.arange(n), np.arange(n)] = 1
    elif np.any(np.diagonal(t, axis1=-2, axis2=-1) == 0):
        raise np.linalg.LinAlgError("Singular matrix")
    out = np.array(np.broadcast_to(b, (*np.broadcast_shapes(t.shape[:-2], b.shape[:-2]), *b.shape[-2:])))
    starts = range(0, n, _BLOCK)
    for start in reversed(starts) if upper else starts:
        block = slice(start, min(start + _BLOCK, n))
        rest = slice(0, start) if upper else slice(block.stop, n)
        out[..., block, :] = np.linalg.solve(t[..., block, block], out[..., block, :])
        out[..., rest, :] -= t[..., rest, block] @ out[..., block, :]
    return out


def lu_factor(x: Array) -> tuple[Array, Array]:
    """L (below the diagonal, with ones on it) and U in one matrix, and the permutation with x[permutation] = L @ U.

    Rows are exchanged for the largest pivot. A column of zeros gives a zero pivot and is passed over.
    """
    m, n = x.shape[-2:]
    stack = np.array(x).reshape(math.prod(x.shape[:-2]), m, n)
    order = np.broadcast_to(np.arange(m), (len(stack), m)).copy()
    each = np.arange(len(stack))
    for start in range(0, min(m, n), _BLOCK):
        stop = min(start + _BLOCK, m, n)
        for j in range(start, stop):
            column = stack[:, j:, j]  # LAPACK's size of a complex number, so that its pivots are ours
            sizes = np.abs(column.real) + np.abs(column.imag)
            pivot = j + np.argmax(sizes, axis=1)
            for rows in (stack, order):
                rows[each, j], rows[each, pivot] = rows[each, pivot].copy(), rows[each, j].copy()
            divisor = stack[:, j, j, None]
            below = stack[:, j + 1 :, j]
            below /= np.where(divisor == 0, 1, divisor)
            stack[:, j + 1 :, j + 1 : stop] -= below[:, :, None] * stack[:, j, None, j + 1 : stop]
        if stop < n:
            diagonal = stack[:, start:stop, start:stop]
            right = solve_triangular(diagonal, stack[:, start:stop, stop:], False, True)
            stack[:, start:stop, stop:] = right
            stack[:, stop:, stop:] -= stack[:, stop:, start:stop] @ right
    return stack.reshape(x.shape), order.reshape(*x.shape[:-2], m)


# Numerators of the diagonal Pade approximant of exp of order 13, and the norm up to which it is exact to double precision.
_PADE = (
    64764752532480000, 32382376266240000, 7771770303897600, 1187353796428800, 129060195264000, 10559470521600,
    670442572800, 33522128640, 1323241920, 40840800, 960960, 16380, 182, 1,
)  # fmt: skip
_THETA = 5.371920351148152


def matrix_exp(x: Array) -> Array:
    """The exponential by scaling and squaring (Higham, 2005, "The scaling and squaring method ... revisited").

    Computed in double precision: squaring s times would lose s digits in base 2.
    """
    n = x.shape[-1]
    wide = np.complex128 if x.dtype.kind == "c" else np.float64
    stack = np.asarray(x, wide).reshape(math.prod(x.shape[:-2]), n, n)
    norms = np.abs(stack).sum(axis=-2).max(axis=-1, initial=0.0)
    finite = np.isfinite(norms)
    ratios = np.where(finite, norms, 0.0) / _THETA
    steps = np.ceil(np.log2(np.maximum(ratios, 1.0))).astype(np.int64)
    a = np.where(finite[:, None, None], stack, 0) * np.exp2(-steps.astype(np.float64))[:, None, None]
    b = [float(c) for c in _PADE]
    identity = np.eye(n)
    a2 = a @ a
    a4 = a2 @ a2
    a6 = a4 @ a2
    odd = a6 @ (b[13] * a6 + b[11] * a4 + b[9] * a2) + b[7] * a6 + b[5] * a4 + b[3] * a2 + b[1] * identity
    u = a @ odd
    v = a6 @ (b[12] * a6 + b[10] * a4 + b[8] * a2) + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * identity
    out = np.linalg.solve(v - u, v + u)
    for step in range(int(steps.max(initial=0))):
        again = steps > step
        out[again] = out[again] @ out[again]
    out[~finite] = np.nan
    return out.reshape(x.shape).astype(x.dtype)

"""The linear algebra extension of the array API standard, with what NumPy, SciPy and PyTorch have besides."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilewright.core.elsewhere import advising
from tilewright.functions.decompositions import (
    EighResult,
    EigResult,
    LUFactors,
    LUResult,
    QRResult,
    SVDResult,
    cholesky,
    eig,
    eigh,
    eigvals,
    eigvalsh,
    lu,
    lu_factor,
    qr,
    svd,
    svdvals,
)  # fmt: skip
from tilewright.functions.linalg import matmul, outer, tensordot, vecdot
from tilewright.functions.linear_algebra import block_diag, cross, diagonal, kron, multi_dot, toeplitz, trace
from tilewright.functions.matrix_functions import matrix_exp, matrix_power
from tilewright.functions.movement import matrix_transpose
from tilewright.functions.norms import cond, matrix_norm, norm, vector_norm
from tilewright.functions.solving import (
    LstsqResult,
    SlogdetResult,
    cholesky_solve,
    det,
    inv,
    lstsq,
    lu_solve,
    matrix_rank,
    pinv,
    slogdet,
)  # fmt: skip
from tilewright.functions.systems import solve, solve_triangular

__all__ = [
    "EigResult", "EighResult", "LUFactors", "LUResult", "LstsqResult", "QRResult", "SVDResult", "SlogdetResult", "block_diag",
    "cholesky", "cholesky_solve", "cond", "cross", "det", "diagonal", "eig", "eigh", "eigvals", "eigvalsh", "inv", "kron",
    "lstsq", "lu", "lu_factor", "lu_solve", "matmul", "matrix_exp", "matrix_norm", "matrix_power", "matrix_rank",
    "matrix_transpose", "multi_dot", "norm", "outer", "pinv", "qr", "slogdet", "solve", "solve_triangular", "svd", "svdvals",
    "tensordot", "toeplitz", "trace", "vecdot", "vector_norm",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__ = advising(__name__, __all__)

"""Decompositions, solving and functions of matrices: against NumPy and SciPy, and derivatives against differences."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from numpy.testing import assert_allclose, assert_array_equal

import tilewright as tw
from tilewright import linalg

DTYPES = ["float32", "float64", "complex64", "complex128"]
LEADS: list[tuple[int, ...]] = [(), (2,), (2, 0)]
Array = np.ndarray[Any, Any]


def random(*shape: int, dtype: str = "float64", seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    out = rng.standard_normal(shape)
    if dtype.startswith("complex"):
        out = out + 1j * rng.standard_normal(shape)
    return out.astype(dtype)


def definite(*shape: int, dtype: str = "float64", seed: int = 0) -> Array:
    x = random(*shape, dtype=dtype, seed=seed)
    return (x @ np.conj(np.swapaxes(x, -1, -2)) + 3 * np.eye(shape[-1])).astype(dtype)


def tolerance(dtype: str) -> float:
    return 2e-4 if dtype in ("float32", "complex64") else 1e-11


def close(found: tw.Tensor, expected: Any, dtype: str = "float64") -> None:
    assert found.shape == np.shape(expected)
    assert_allclose(found.numpy(), expected, atol=tolerance(dtype), rtol=tolerance(dtype))


# ---- values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("size", [(1, 1), (3, 3), (40, 40), (5, 2), (2, 5), (70, 40), (0, 0), (3, 0), (0, 2)])
def test_lu(size: tuple[int, int], lead: tuple[int, ...], dtype: str) -> None:
    array = random(*lead, *size, dtype=dtype)
    p, l, u = linalg.lu(tw.Tensor(array))
    k = min(size)
    assert (
        p.shape == (*lead, size[0], size[0])
        and l.shape == (*lead, size[0], k)
        and u.shape == (*lead, k, size[1])
    )
    close(p @ l @ u, array, dtype)
    assert_array_equal(p.numpy().sum(-1), np.ones((*lead, size[0])))
    if k and math.prod(lead):
        expected = scipy.linalg.lu(array)
        for found, part in zip((p, l, u), expected, strict=True):
            close(found, part, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 4, 33, 70])
def test_solving_from_factors(size: int, dtype: str) -> None:
    array, right = definite(2, size, size, dtype=dtype), random(2, size, 3, dtype=dtype, seed=1)
    a, b = tw.Tensor(array), tw.Tensor(right)
    expected = np.linalg.solve(array, right)
    close(linalg.cholesky_solve(linalg.cholesky(a), b), expected, dtype)
    close(linalg.cholesky_solve(linalg.cholesky(a, upper=True), b, upper=True), expected, dtype)
    general = random(2, size, size, dtype=dtype, seed=5) + 2 * size**0.5 * np.eye(size, dtype=dtype)[::-1]
    factors = linalg.lu_factor(tw.Tensor(general))
    for trans, turned in enumerate((general, general.mT, general.mT.conj())):
        close(linalg.lu_solve(factors, b, trans=trans), np.linalg.solve(turned, right), dtype)
    for upper in (True, False):
        triangle = np.triu(array) if upper else np.tril(array)
        close(linalg.solve_triangular(a, b, upper=upper), np.linalg.solve(triangle, right), dtype)
        close(
            linalg.solve_triangular(a, b.mT, upper=upper, left=False).mT,
            np.linalg.solve(triangle.mT, right),
            dtype,
        )
        small = 0.1 / size * array
        ones = (np.triu(small, 1) if upper else np.tril(small, -1)) + np.eye(size, dtype=dtype)
        found = linalg.solve_triangular(tw.Tensor(small), b[0, :, 0], upper=upper, unitriangular=True)
        assert_allclose(
            (ones @ found.numpy()[..., None])[..., 0], np.broadcast_to(right[0, :, 0], (2, size)), atol=1e-2
        )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(4, 4), (6, 3), (3, 6), (1, 1), (5, 0), (0, 3)])
def test_least_squares(size: tuple[int, int], dtype: str) -> None:
    array, right = random(*size, dtype=dtype), random(size[0], 2, dtype=dtype, seed=1)
    found = linalg.lstsq(tw.Tensor(array), tw.Tensor(right))
    solution, residuals, rank, values = np.linalg.lstsq(array, right)
    close(found.solution, solution, dtype)
    assert found.rank.item() == rank
    close(found.singular_values, values, dtype)
    if size[1]:
        close(found.residuals, residuals if size[0] > size[1] else np.zeros(0), dtype)
        close(linalg.lstsq(tw.Tensor(array), tw.Tensor(right[:, 0])).solution, solution[:, 0], dtype)
    stacked = linalg.lstsq(tw.Tensor(np.stack([array, array])), tw.Tensor(right)).solution
    close(stacked, np.stack([solution, solution]), dtype)


def test_least_squares_without_full_rank_gives_the_shortest_solution() -> None:
    array = np.outer([1.0, 2.0, 3.0], [1.0, 1.0])
    close(linalg.lstsq(tw.Tensor(array), tw.Tensor([1.0, 2.0, 4.0]).astype("float64")).solution,
          np.linalg.lstsq(array, [1.0, 2.0, 4.0])[0])  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 3, 3), (0, 3, 3), (0, 0)])
def test_general_eigenvalues(shape: tuple[int, ...], dtype: str) -> None:
    array = random(*shape, dtype=dtype)
    x = tw.Tensor(array)
    values, vectors = linalg.eig(x)
    assert values.dtype.is_complex and values.shape == shape[:-1] and vectors.shape == shape
    assert_allclose(
        (x @ vectors).numpy(), (vectors * values[..., None, :]).numpy(), atol=10 * tolerance(dtype)
    )
    assert_allclose(linalg.eigvals(x).sum(-1).numpy(), np.trace(array, axis1=-2, axis2=-1), atol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 10.0])
def test_matrix_exp(scale: float, dtype: str) -> None:
    array = (scale * random(3, 4, 4, dtype=dtype)).astype(dtype)
    array[1] *= 0.01
    expected = scipy.linalg.expm(array.astype("complex128"))
    found = linalg.matrix_exp(tw.Tensor(array)).numpy()
    sizes = np.abs(expected).max((-2, -1), keepdims=True)
    rtol = (1e-4 if dtype in ("float32", "complex64") else 1e-12) * max(1.0, scale)
    assert found.dtype == dtype
    assert np.all(np.abs(found - expected) <= rtol * sizes)
    assert np.isnan(linalg.matrix_exp(tw.Tensor([[math.inf]])).item())
    assert linalg.matrix_exp(tw.zeros(2, 0, 0)).shape == (2, 0, 0)


@pytest.mark.parametrize("p", [None, 2, -2, 1, -1, math.inf, -math.inf, "fro", "nuc"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_condition_numbers(p: Any, dtype: str) -> None:
    array = random(2, 3, 3, dtype=dtype)
    assert_allclose(linalg.cond(tw.Tensor(array), p).numpy(), np.linalg.cond(array, p), rtol=1e-3)
    singular = np.stack([np.zeros((2, 2)), 2 * np.eye(2)])
    expected = [math.inf, {"fro": 2, "nuc": 4}.get(p, 1)]
    assert_allclose(linalg.cond(tw.Tensor(singular), p).numpy(), expected)


@pytest.mark.parametrize("axis", [None, 1, -1, (0, 2), (2, 1)])
@pytest.mark.parametrize("keepdims", [False, True])
def test_norm(axis: Any, keepdims: bool) -> None:
    for dtype in ("float64", "complex128"):
        array = random(2, 3, 4, dtype=dtype)
        x = tw.Tensor(array)
        close(
            linalg.norm(x, axis=axis, keepdims=keepdims), np.linalg.norm(array, axis=axis, keepdims=keepdims)
        )
        orders: list[Any] = [] if axis is None else [1, 2, math.inf, -math.inf, -1, -2]
        orders += ["fro", "nuc"] if isinstance(axis, tuple) else [] if axis is None else [0, 3, 0.5]
        for ord in orders:
            close(linalg.norm(x, ord, axis, keepdims), np.linalg.norm(array, ord, axis, keepdims))
    close(linalg.norm(x[0], 1), np.linalg.norm(array[0], 1))
    close(linalg.norm(x[0, 0], 1), np.linalg.norm(array[0, 0], 1))


def test_products() -> None:
    a, b, c, d = random(2, 9), random(9, 3), random(3, 7), random(7)
    close(linalg.multi_dot([tw.Tensor(m) for m in (a, b, c, d)]), np.linalg.multi_dot([a, b, c, d]))
    close(linalg.multi_dot([tw.Tensor(m) for m in (a[0], b, c, d)]), np.linalg.multi_dot([a[0], b, c, d]))
    for left, right in ((a, b), (a[0], b), (a, random(2, 3, 4)), (np.float64(2.0), a)):
        close(linalg.kron(tw.Tensor(left), tw.Tensor(right)), np.kron(left, right))
    for parts in ((a, b, d), (a,), (random(0, 2), a)):
        close(linalg.block_diag(*map(tw.Tensor, parts)), scipy.linalg.block_diag(*parts))
    close(linalg.toeplitz(tw.Tensor(d), tw.Tensor(a[0])), scipy.linalg.toeplitz(d, a[0]))
    z = random(3, dtype="complex128")
    close(linalg.toeplitz(tw.Tensor(z)), scipy.linalg.toeplitz(z))


# ---- derivatives ---------------------------------------------------------------------------------------------------


def symmetric(x: tw.Tensor) -> tw.Tensor:
    return x + x.mT.conj()


def spd(x: tw.Tensor) -> tw.Tensor:
    return x @ x.mT.conj() + tw.eye(x.shape[-1], dtype=x.dtype)


def phaseless_eig(x: tw.Tensor) -> Any:
    w, v = linalg.eig(x)
    return w, v[..., :, None, :] * v[..., None, :, :].conj()


ANY: dict[str, Callable[[tw.Tensor], Any]] = {
    "qr": lambda x: tuple(linalg.qr(x)),
    "lu": lambda x: tuple(linalg.lu(x))[1:],
    "pinv": linalg.pinv,
    "svdvals": linalg.svdvals,
    "lstsq": lambda x: linalg.lstsq(x, tw.ones(x.shape[-2], 2, dtype=x.dtype))[:2],
    "norm 2": lambda x: linalg.norm(x, 2, axis=(-2, -1)),
    "nuc": lambda x: linalg.matrix_norm(x, ord="nuc"),
    "fro": lambda x: linalg.matrix_norm(x),
    "inf": lambda x: linalg.matrix_norm(x, ord=math.inf),
    "p": lambda x: linalg.vector_norm(x, ord=3, axis=-1),
    "cond": linalg.cond,
    "kron": lambda x: linalg.kron(x, x),
}
SQUARE: dict[str, Callable[[tw.Tensor], Any]] = {
    "slogdet": lambda x: tuple(linalg.slogdet(x)),
    "det": linalg.det,
    "inv": linalg.inv,
    "exp": linalg.matrix_exp,
    "eigvals": linalg.eigvals,
    "eig": phaseless_eig,
    "triangular": lambda x: linalg.solve_triangular(x, x @ x, upper=True),
    "unit": lambda x: linalg.solve_triangular(x, x.mT, upper=False, left=False, unitriangular=True),
    "cholesky": lambda x: linalg.cholesky(spd(x)),
    "cholesky_solve": lambda x: linalg.cholesky_solve(linalg.cholesky(spd(x)), x),
    "lu_solve": lambda x: linalg.lu_solve(linalg.lu_factor(x), x @ x),
    "lu_solve H": lambda x: linalg.lu_solve(linalg.lu_factor(x), x @ x, trans=2),
    "eigvalsh": lambda x: linalg.eigvalsh(symmetric(x)),
    "cond 1": lambda x: linalg.cond(x, 1),
}


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", SQUARE)
def test_derivatives_of_square_matrices(name: str, dtype: str) -> None:
    x = random(2, 3, 3, dtype=dtype, seed=3)
    x[1, 0, 0] += 2
    tw.check_grads(SQUARE[name], (tw.Tensor(x),), order=2, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("size", [(4, 2), (2, 4), (3, 3)])
@pytest.mark.parametrize("name", ANY)
def test_derivatives_of_any_matrices(name: str, size: tuple[int, int], dtype: str) -> None:
    x = random(2, *size, dtype=dtype, seed=4)
    order = 2 if size == (4, 2) else 1
    tw.check_grads(ANY[name], (tw.Tensor(x),), order=order, atol=2e-4, rtol=2e-4)


def test_derivatives_where_singular_values_are_equal() -> None:
    x = tw.eye(3, dtype="float64")
    tw.check_grads(linalg.pinv, (x,), order=2)
    tw.check_grads(lambda m: linalg.lstsq(m, m @ m).solution, (x,), order=1)
    deficient = np.outer([1.0, 2.0], [1.0, 1.0])

    def of_rank_one(u: tw.Tensor) -> tw.Tensor:
        return linalg.pinv(u[:, None] * tw.Tensor(deficient[0]), rtol=1e-8)

    tw.check_grads(of_rank_one, (tw.Tensor(deficient[:, 0]),), order=2)


def test_derivatives_of_norms_at_zero() -> None:
    zero = tw.zeros(3, dtype="float64")
    assert tw.grad(linalg.vector_norm)(zero).tolist() == [0, 0, 0]
    assert tw.grad(linalg.norm)(zero).tolist() == [0, 0, 0]


# ---- transforms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ANY | SQUARE if name != "kron"])  # which has no stacks
def test_jit_and_vmap_agree_with_eager(name: str) -> None:
    f = (ANY | SQUARE)[name]
    x = tw.Tensor(random(2, 3, 3, seed=3))

    def flat(y: Any) -> list[Array]:
        return [t.numpy() for t in (y if isinstance(y, tuple) else (y,))]

    expected = flat(f(x))
    for found in (flat(tw.jit(f)(x)), flat(tw.vmap(f)(x))):
        for one, other in zip(found, expected, strict=True):
            assert_allclose(one, other, atol=1e-12)

    def slope(m: tw.Tensor) -> tw.Tensor:
        y = f(m)
        parts = y if isinstance(y, tuple) else (y,)
        return sum(((abs(t) if t.dtype.is_complex else t) ** 2).sum() for t in parts)  # type: ignore[return-value]

    each = np.stack([tw.grad(slope)(m).numpy() for m in x])
    assert_allclose(tw.vmap(tw.grad(slope))(x).numpy(), each, rtol=1e-9, atol=1e-9)
    assert_allclose(tw.jit(tw.grad(slope))(x).numpy(), each, rtol=1e-9, atol=1e-9)


# ---- errors ----------------------------------------------------------------------------------------------------------


def test_singular_matrices_are_named() -> None:
    stack = tw.Tensor(np.stack([np.eye(2), np.zeros((2, 2))]))
    for compute in (linalg.inv, tw.jit(linalg.inv)):
        with pytest.raises(
            ValueError, match=r"inv: singular matrix \(matrix \[1\] of the stack\); `linalg.lstsq`"
        ):
            compute(stack).numpy()
    with pytest.raises(ValueError, match="solve_triangular: singular"):
        linalg.solve_triangular(tw.zeros(2, 2), tw.ones(2), upper=True).numpy()
    with pytest.raises(ValueError, match="solve_triangular: singular"):
        linalg.lu_solve(linalg.lu_factor(tw.ones(2, 2)), tw.ones(2)).numpy()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: linalg.eig(tw.ones(2, 3)), "eig: `x` has square matrices"),
        (lambda: linalg.lstsq(tw.ones(2, 3), tw.ones(3)), "lstsq: shapes .* as many rows"),
        (lambda: linalg.solve_triangular(tw.eye(2), tw.ones(1, 3), upper=True, left=False), "as many columns"),
        (lambda: linalg.multi_dot([tw.ones(2, 3)]), "two matrices or more"),
        (lambda: linalg.multi_dot([tw.ones(2, 3), tw.ones(2, 3)]), "do not multiply"),
        (lambda: linalg.multi_dot([tw.ones(2, 3), tw.ones(3), tw.ones(3)]), "the ends may be vectors"),
        (lambda: linalg.block_diag(tw.ones(1, 2, 3)), "block_diag"),
        (lambda: linalg.toeplitz(tw.ones(1, 2)), "toeplitz: `c` is a vector"),
        (lambda: linalg.norm(tw.ones(2, 2, 2), 1), "needs an `axis`"),
        (lambda: linalg.norm(tw.ones(2), "fro"), "`ord` of vectors is a number"),
        (lambda: linalg.lu_solve(linalg.lu_factor(tw.eye(2)), tw.ones(2), trans=3), "`trans` is 0, 1 or 2"),
        (lambda: linalg.cond(tw.zeros(0, 2)), "without elements"),
    ],
)  # fmt: skip
def test_bad_operands(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(tw.TilewrightError, match=message):
        call()


def test_triangles_are_named_by_upper_or_by_lower() -> None:
    a, b = tw.tensor([[2.0, 1.0], [1.0, 4.0]]), tw.tensor([2.0, 4.0])
    for lower in (True, False):
        named = tw.linalg.solve_triangular(a, b, lower=lower)
        assert named.tolist() == tw.linalg.solve_triangular(a, b, upper=not lower).tolist()
    for wrong in ({}, {"upper": True, "lower": False}):
        with pytest.raises(ValueError, match="solve_triangular: give one of `upper` and `lower`"):
            tw.linalg.solve_triangular(a, b, **wrong)


def test_norms_of_half_types_fit_where_their_squares_do_not() -> None:
    x = tw.tensor([[3e4, 4e4]], dtype=tw.float16)
    for norm in (linalg.norm(x), linalg.vector_norm(x), linalg.matrix_norm(x), linalg.vector_norm(x, ord=2)):
        assert norm.dtype is tw.float16 and norm.item() == np.float16(5e4)
    assert linalg.vector_norm(x, ord=3).item() == pytest.approx(4.498e4, rel=1e-3)
    np.testing.assert_allclose(tw.grad(linalg.norm)(x).numpy(), [[0.6, 0.8]], rtol=1e-3)

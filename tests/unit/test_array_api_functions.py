"""Sorting, sets, running products, differences, linear algebra and Fourier transforms against NumPy and their definitions."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tilewright as tw
from tilewright import fft, linalg

RNG = np.random.default_rng(7)


def tensor(*shape: int, dtype: str = "float64") -> tuple[np.ndarray, tw.Tensor]:
    array = RNG.standard_normal(shape)
    if dtype.startswith("complex"):
        array = array + 1j * RNG.standard_normal(shape)
    array = array.astype(dtype)
    return array, tw.from_numpy(array)


# ---- order --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", ["float32", "int16", "float16", "bfloat16"])
def test_sort_orders_every_line(axis: int, dtype: str) -> None:
    x = tw.tensor(RNG.integers(-5, 5, (4, 6))).astype(dtype)
    expected = np.sort(x.astype("float32").numpy(), axis=axis)
    assert_array_equal(tw.sort(x, axis=axis).astype("float32").numpy(), expected)
    backwards = tw.sort(x, axis=axis, descending=True).astype("float32").numpy()
    assert_array_equal(backwards, np.flip(expected, axis))


def test_argsort_keeps_the_order_of_equals() -> None:
    x = tw.tensor([1, 0, 1, 0])
    assert tw.argsort(x).tolist() == [1, 3, 0, 2]
    assert tw.argsort(x, descending=True).tolist() == [0, 2, 1, 3]


def test_sort_gives_gradients_back_to_where_elements_came_from() -> None:
    x = tw.tensor([3.0, 1.0, 2.0], requires_grad=True)
    (tw.sort(x) * tw.tensor([10.0, 20.0, 30.0])).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [30.0, 10.0, 20.0]


def test_sort_refuses_complex_numbers() -> None:
    with pytest.raises(tw.DTypeError, match="sort: complex64 elements have no order"):
        tw.sort(tw.tensor([1j]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted(side: str) -> None:
    line, wanted = np.array([5, 1, 3, 3]), np.array([[0, 3], [4, 9]])
    order = np.argsort(line)
    found = tw.searchsorted(tw.tensor(line), tw.tensor(wanted), side=side, sorter=tw.tensor(order))
    assert_array_equal(found.numpy(), np.searchsorted(line[order], wanted, side=side))  # type: ignore[call-overload]


def test_unique_describes_every_element() -> None:
    x = tw.tensor([[2.0, math.nan], [1.0, 2.0], [math.nan, 1.0]])
    values, first, inverse, counts = tw.unique_all(x)
    assert counts.tolist() == [2, 2, 1, 1]
    assert_array_equal(x.numpy().reshape(-1)[first.numpy()], values.numpy())
    assert_array_equal(values.numpy()[inverse.numpy()], x.numpy())
    assert tw.unique_values(tw.tensor([3, 1, 3])).tolist() == [1, 3]


# ---- neighbours ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 7, 8])
def test_cumulative_prod(size: int) -> None:
    array, x = tensor(3, size)
    assert_allclose(tw.cumulative_prod(x, axis=1).numpy(), np.cumprod(array, axis=1), rtol=1e-14)
    longer = tw.cumulative_prod(x, axis=1, include_initial=True)
    assert longer.shape == (3, size + 1) and longer[:, 0].tolist() == [1.0] * 3
    assert tw.cumprod(tw.tensor([2, 3], dtype="int8")).dtype is tw.int64


def test_diff_joins_and_repeats() -> None:
    array, x = tensor(3, 5)
    assert_array_equal(tw.diff(x, n=2).numpy(), np.diff(array, n=2))
    ends = np.diff(array, axis=0, prepend=array[:1], append=array[:2])
    assert_array_equal(tw.diff(x, axis=0, prepend=x[:1], append=x[:2]).numpy(), ends)
    assert tw.diff(tw.tensor([True, True, False])).tolist() == [False, True]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nextafter_steps_by_one_number(dtype: str) -> None:
    ends = np.array([0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 3.4e38, 1e-45], dtype)
    a, b = (g.reshape(-1) for g in np.meshgrid(ends, ends))
    found = tw.nextafter(tw.tensor(a), tw.tensor(b)).numpy()
    assert_array_equal(found, np.nextafter(a, b))


# ---- linear algebra -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_decompositions_give_the_matrix_back(dtype: str) -> None:
    array, x = tensor(2, 4, 3, dtype=dtype)
    tolerance = 1e-4 if dtype in ("float32", "complex64") else 1e-11
    q, r = linalg.qr(x)
    assert_allclose((q @ r).numpy(), array, atol=tolerance)
    u, s, vh = linalg.svd(x, full_matrices=False)
    assert s.dtype is (tw.float32 if tolerance == 1e-4 else tw.float64)
    assert_allclose(((u * s[..., None, :]) @ vh).numpy(), array, atol=tolerance)
    square = x.mT.conj() @ x
    values, vectors = linalg.eigh(square)
    assert_allclose((square @ vectors).numpy(), (vectors * values[..., None, :]).numpy(), atol=40 * tolerance)
    lower = linalg.cholesky(square)
    assert_allclose((lower @ lower.mT.conj()).numpy(), square.numpy(), atol=10 * tolerance)
    assert_allclose((linalg.pinv(x) @ x).numpy(), np.broadcast_to(np.eye(3), (2, 3, 3)), atol=10 * tolerance)


@pytest.mark.parametrize("shape", [(0, 2, 2), (2, 0, 3), (2, 0, 0)])
def test_decompositions_of_nothing(shape: tuple[int, ...]) -> None:
    x = tw.zeros(shape)
    q, r = linalg.qr(x)
    u, s, vh = linalg.svd(x, full_matrices=False)
    assert (q @ r).numpy().shape == ((u * s[..., None, :]) @ vh).numpy().shape == shape


def test_solving() -> None:
    matrices, a = tensor(2, 3, 3)
    vector, b = tensor(3)
    assert_allclose(linalg.solve(a, b).numpy(), np.linalg.solve(matrices, vector[:, None])[..., 0])
    assert_allclose(linalg.inv(a).numpy(), np.linalg.inv(matrices))
    assert_allclose(linalg.det(a).numpy(), np.linalg.det(matrices))
    assert_allclose(linalg.slogdet(a).logabsdet.numpy(), np.linalg.slogdet(matrices)[1])
    assert_allclose(linalg.matrix_power(a, -3).numpy(), np.linalg.matrix_power(matrices, -3), rtol=1e-6)
    assert linalg.matrix_rank(tw.ones(4, 4)).item() == 1


def test_what_cannot_be_solved_says_so() -> None:
    with pytest.raises(ValueError, match="inv: singular matrix"):
        linalg.inv(tw.zeros(2, 2)).numpy()
    with pytest.raises(tw.TilewrightError, match="cholesky: matrix is not positive definite"):
        linalg.cholesky(-tw.eye(2)).numpy()
    with pytest.raises(tw.ShapeError, match="det: `x` has square matrices"):
        linalg.det(tw.ones(2, 3))
    with pytest.raises(tw.ShapeError, match="as many rows"):
        linalg.solve(tw.eye(3), tw.ones(2))


@pytest.mark.parametrize("order", ["fro", "nuc", 1, -1, 2, -2, math.inf, -math.inf])
def test_matrix_norms(order: float | str) -> None:
    array, x = tensor(2, 3, 4)
    expected = np.linalg.norm(array, ord=order, axis=(-2, -1), keepdims=True)  # type: ignore[arg-type]
    assert_allclose(linalg.matrix_norm(x, ord=order, keepdims=True).numpy(), expected)


@pytest.mark.parametrize("order", [0, 1, 2, 3.5, -1, math.inf, -math.inf])
def test_vector_norms(order: float) -> None:
    array, x = tensor(3, 4)
    assert_allclose(
        linalg.vector_norm(x, axis=1, ord=order).numpy(), np.linalg.norm(array, ord=order, axis=1)
    )
    assert linalg.vector_norm(x, ord=order).shape == ()


@pytest.mark.parametrize("offset", [-4, -2, 0, 1, 5])
def test_diagonals(offset: int) -> None:
    array, x = tensor(2, 3, 5)
    assert_array_equal(linalg.diagonal(x, offset=offset).numpy(), np.diagonal(array, offset, -2, -1))
    assert_allclose(linalg.trace(x, offset=offset).numpy(), np.trace(array, offset, -2, -1))


def test_cross_products_broadcast() -> None:
    (left, a), (right, b) = tensor(3, 1, 4), tensor(3, 2, 1)
    assert_allclose(linalg.cross(a, b, axis=0).numpy(), np.cross(left, right, axis=0))


def hermitian(x: tw.Tensor) -> tw.Tensor:
    return (x + x.mT.conj()) * 0.5


DIFFERENTIABLE = {
    "inv": linalg.inv,
    "det": linalg.det,
    "slogdet": lambda x: linalg.slogdet(x).logabsdet,
    "cholesky": lambda x: linalg.cholesky(x @ x.mT.conj() + tw.eye(3, dtype=x.dtype)),
    "upper": lambda x: linalg.cholesky(x @ x.mT.conj() + tw.eye(3, dtype=x.dtype), upper=True),
    "eigvalsh": lambda x: linalg.eigvalsh(hermitian(x)),
    "projector": lambda x: (lambda v: v[..., :1] @ v[..., :1].mT.conj())(linalg.eigh(hermitian(x))[1]),
    "svdvals": linalg.svdvals,
    "nuclear": lambda x: linalg.matrix_norm(x, ord="nuc"),
    "power": lambda x: linalg.matrix_power(x, -2),
}


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives_of_decompositions(name: str) -> None:
    _, x = tensor(2, 3, 3)
    tw.check_grads(DIFFERENTIABLE[name], (x,), order=2, modes=("rev", "fwd"))


@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (2, 5)])
def test_derivatives_of_singular_vectors(shape: tuple[int, int]) -> None:
    _, x = tensor(*shape)

    def squared(x: tw.Tensor) -> tw.Tensor:
        u, s, vh = linalg.svd(x, full_matrices=False)
        return (u * s * s) @ vh

    tw.check_grads(squared, (x,), order=2, modes=("rev", "fwd"))
    tw.check_grads(linalg.pinv, (x,), order=1)


@pytest.mark.parametrize("name", ["det", "cholesky", "projector", "svdvals", "polar"])
def test_derivatives_at_complex_matrices(name: str) -> None:
    (_, re), (_, im) = tensor(3, 3), tensor(3, 3)

    def polar(z: tw.Tensor) -> tw.Tensor:
        u, _, vh = linalg.svd(z)
        return u @ vh

    def parts(re: tw.Tensor, im: tw.Tensor) -> tw.Tensor:
        z = re.astype(tw.complex128) + im.astype(tw.complex128) * 1j
        y = {**DIFFERENTIABLE, "polar": polar}[name](z)
        return tw.real(y) * 2 + tw.imag(y) if y.dtype.is_complex else y

    tw.check_grads(parts, (re, im), order=1, modes=("rev",))


def test_derivatives_of_solve_reach_both_sides() -> None:
    (_, a), (_, b) = tensor(3, 3), tensor(2, 3, 2)
    tw.check_grads(linalg.solve, (a, b), order=2, modes=("rev", "fwd"))


def test_vectors_that_are_any_basis_have_no_derivative() -> None:
    x = tw.tensor([[1.0, 0.0], [2.0, 1.0], [0.0, 3.0]], requires_grad=True)
    for compute in (linalg.svd, lambda m: linalg.qr(m, mode="complete")):
        with pytest.raises(tw.GradientError, match="has no derivative"):
            compute(x)
        assert compute(x.detach())[0].shape == (3, 3)


def test_host_algorithms_run_inside_jit_and_under_vmap() -> None:
    array, x = tensor(4, 3, 3)
    step = tw.jit(lambda m: linalg.solve(m, tw.sort(m, axis=-1)).sum())
    expected = np.linalg.solve(array, np.sort(array, axis=-1)).sum()
    assert step(x).item() == pytest.approx(expected)
    each = tw.vmap(lambda m: linalg.inv(m))(x)
    assert_allclose(each.numpy(), np.linalg.inv(array))
    lines, y = tensor(4, 5)
    found = tw.vmap(lambda line: tw.searchsorted(tw.sort(line), line))(y)
    assert_array_equal(found.numpy(), np.argsort(np.argsort(lines, axis=1), axis=1))


# ---- Fourier ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["fft", "ifft", "rfft", "irfft", "hfft", "ihfft"])
@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
def test_transforms_along_an_axis(name: str, norm: str) -> None:
    array, x = tensor(4, 5, dtype="float64" if name in ("rfft", "ihfft") else "complex128")
    for n in (None, 3, 8):
        expected = getattr(np.fft, name)(array, n=n, axis=0, norm=norm)
        assert_allclose(getattr(fft, name)(x, n=n, axis=0, norm=norm).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn", "fft2", "rfft2"])
def test_transforms_over_several_axes(name: str) -> None:
    array, x = tensor(3, 4, 5, dtype="float64" if name[0] == "r" else "complex128")
    assert_allclose(getattr(fft, name)(x).numpy(), getattr(np.fft, name)(array), atol=1e-12)
    expected = getattr(np.fft, name)(array, s=(6, 2), axes=(0, 2))
    assert_allclose(getattr(fft, name)(x, s=(6, 2), axes=(0, 2)).numpy(), expected, atol=1e-12)


TRANSFORMS = {
    "fft": lambda x: fft.fft(x, n=6),
    "ifft": lambda x: fft.ifft(x, n=3, norm="ortho"),
    "rfft": lambda x: fft.rfft(x, n=7),
    "rfft even": lambda x: fft.rfft(x, n=4, norm="forward"),
    "irfft": lambda x: fft.irfft(fft.fft(x), n=6),
    "irfft odd": lambda x: fft.irfft(fft.fft(x), n=5),
    "hfft": lambda x: fft.hfft(fft.fft(x)),
    "ihfft": fft.ihfft,
    "fftn": lambda x: fft.fftn(x, s=(4, 3)),
    "rfftn": lambda x: fft.rfftn(x, axes=(1, 0)),
    "irfftn": lambda x: fft.irfftn(fft.fft(x), s=(4, 4)),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_derivatives_of_transforms(name: str) -> None:
    _, x = tensor(3, 5)

    def real_parts(x: tw.Tensor) -> tw.Tensor:
        y = TRANSFORMS[name](x)
        return tw.real(y) * 2 + tw.imag(y) if y.dtype.is_complex else y

    tw.check_grads(real_parts, (x,), order=2, modes=("rev", "fwd"))


def test_single_precision_stays() -> None:
    assert fft.fft(tw.ones(4)).dtype is tw.complex64
    assert fft.irfft(fft.rfft(tw.ones(4))).dtype is tw.float32


@pytest.mark.parametrize("n", [1, 4, 7])
def test_frequencies_and_shifts(n: int) -> None:
    assert_allclose(fft.fftfreq(n, d=0.5, dtype=tw.float64).numpy(), np.fft.fftfreq(n, 0.5))
    assert_allclose(fft.rfftfreq(n, dtype=tw.float64).numpy(), np.fft.rfftfreq(n))
    x = tw.arange(n)
    assert_array_equal(fft.fftshift(x).numpy(), np.fft.fftshift(np.arange(n)))
    assert fft.ifftshift(fft.fftshift(x)).tolist() == list(range(n))


def test_transforms_refuse_what_they_do_not_take() -> None:
    with pytest.raises(tw.DTypeError, match="rfft: takes real elements, got complex64; use `fft`"):
        fft.rfft(tw.tensor([1j]))
    with pytest.raises(tw.ArgumentError, match="fft: a transform has at least 1 point"):
        fft.fft(tw.ones(3), n=0)
    with pytest.raises(tw.ArgumentError, match="fft: `norm` is one of"):
        fft.fft(tw.ones(3), norm="unit")

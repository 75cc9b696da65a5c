"""PyTorch's spellings, sizes given for `tw.jit`, and functions that only PyTorch or JAX has, by their definitions."""

import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import tilewright as tw
import tilewright.nn.functional as F

RNG = np.random.default_rng(11)
X = RNG.standard_normal((3, 4))
TIES = np.array([[2.0, 1.0, 2.0, 3.0], [0.0, 0.0, np.nan, 1.0]])
N = RNG.integers(0, 5, 9)

# ---- names of arguments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["sum", "mean", "prod", "any", "all", "argmax", "argmin", "std", "var", "logsumexp", "nanmean"]
)
def test_dim_and_keepdim_are_axis_and_keepdims(name: str) -> None:
    x = tw.tensor(X)
    want = getattr(tw, name)(x, axis=1, keepdims=True)
    for got in (getattr(tw, name)(x, dim=1, keepdim=True), getattr(x, name)(dim=1, keepdim=True)):
        assert_array_equal(got.numpy(), want.numpy())


def test_every_function_with_an_axis_takes_dim() -> None:
    for name in tw.__all__:
        found = getattr(tw, name)
        if (
            inspect.isfunction(found)
            and "axis" in inspect.signature(found).parameters
            and name not in ("scan", "vmap")
        ):
            with pytest.raises(tw.ArgumentError, match="`axis` is given twice"):
                found(axis=0, dim=0)


def test_other_names() -> None:
    x = tw.tensor(X)
    assert_allclose(x.var(dim=0, unbiased=True).numpy(), X.var(axis=0, ddof=1))
    assert_allclose(x.std(ddof=1).numpy(), X.std(ddof=1))
    assert tw.cat([x, x], dim=1).shape == (3, 8) and tw.stack([x, x], dim=2).shape == (3, 4, 2)
    assert F.softmax(x, dim=0).shape == (3, 4) and x.unsqueeze(dim=0).shape == (1, 3, 4)
    assert tw.roll(x, shifts=1, dims=0)[0, 0].item() == X[-1, 0]
    assert x.flip(dims=(0,))[0, 0].item() == X[-1, 0]
    assert x.transpose(0, 1).shape == x.t().shape == (4, 3)


@pytest.mark.parametrize("name", ["max", "min", "sort", "median"])
@pytest.mark.parametrize("array", [X, TIES])
def test_dim_asks_for_pairs(name: str, array: np.ndarray) -> None:
    x = tw.tensor(array)
    found = getattr(x, name)(dim=1)
    again = getattr(tw, name)(x, dim=1)
    assert_array_equal(found.values.numpy(), again[0].numpy())
    kept = found if name == "sort" else getattr(x, name)(dim=-1, keepdim=True)
    assert_array_equal(tw.take_along_axis(x, kept.indices, 1).numpy(), kept.values.numpy())
    if name in ("max", "min", "sort"):
        assert_array_equal(found.values.numpy(), getattr(np, name)(array, axis=1))
    else:
        lower = np.sort(array, axis=1)[:, 1]
        assert_array_equal(found.values.numpy(), np.where(np.isnan(array).any(1), np.nan, lower))


def test_pairs_have_derivatives_of_what_was_chosen() -> None:
    x = tw.tensor([[1.0, 5.0, 5.0]], requires_grad=True)
    x.max(dim=1).values.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[0.0, 1.0, 0.0]]


def test_sizes() -> None:
    x = tw.zeros(2, 3)
    assert x.size == 6 and x.size() == (2, 3) and x.size(-1) == 3 and x.numel() == 6 and x.dim() == 2
    assert isinstance(x.size, int)
    with pytest.raises(tw.AxisError, match="size: `dim` 2 is out of range for a tensor of rank 2"):
        x.size(2)


def test_methods_of_newcomers() -> None:
    x = tw.tensor([[1.5, -2.5]])
    assert x.float().dtype is tw.float32 and x.long().dtype is tw.int64 and x.byte().dtype is tw.uint8
    assert x.type_as(tw.ones(1, dtype="int8")).tolist() == [[1, -2]]
    assert x.new_zeros(2, 2).dtype is x.dtype and x.new_full((2,), 7).tolist() == [7.0, 7.0]
    assert x.new_ones((1, 2), dtype="int32").dtype is tw.int32 and x.new_tensor([1]).dtype is tw.float32
    assert x.contiguous() is x and x.is_contiguous() and x.cpu() is x and x.is_floating_point()
    assert x.expand(3, -1).shape == x.expand_as(tw.ones(3, 2)).shape == (3, 2)
    assert x.view(-1).shape == (2,) and x.view_as(tw.ones(2, 1)).shape == (2, 1) and x.element_size() == 4
    assert x.norm(p=1, dim=1).tolist() == [4.0] and x.norm().item() == pytest.approx(math.hypot(1.5, 2.5))
    assert x.where(x > 0, 0).tolist() == [[1.5, 0.0]]
    assert x.clone().fill_(3).tolist() == [[3.0, 3.0]] and x.clone().zero_().tolist() == [[0.0, 0.0]]
    assert x.clone().add_(1).mul_(2).clamp_(min=0).tolist() == [[5.0, 0.0]]
    assert x.clone().copy_([1.0, 2.0]).tolist() == [[1.0, 2.0]]
    assert x.clone().masked_fill_(x > 0, 0).tolist() == [[0.0, -2.5]]
    assert x.tolist() == [[1.5, -2.5]], "only copies were written to"


def test_type_checkers_know_every_method() -> None:
    page = Path(tw.__file__).with_name("tensor") / "signatures.pyi"
    declared = set(re.findall(r"def (\w+)\(", page.read_text(encoding="utf-8")))
    methods = {n for n, f in vars(tw.Tensor).items() if inspect.isfunction(f) and not n.startswith("_")}
    own = {n for n in methods if inspect.unwrap(vars(tw.Tensor)[n]).__module__ == "tilewright.tensor.handle"}
    assert methods - own <= declared


# ---- sizes given ---------------------------------------------------------------------------------------------------

SIZED: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "nonzero": (lambda x: list(tw.nonzero(x > 1, size=12, fill_value=-1)), [np.nonzero(N > 1)[0]]),
    "argwhere": (lambda x: [tw.argwhere(x > 1, size=12, fill_value=-1)], [np.argwhere(N > 1)]),
    "flatnonzero": (lambda x: [tw.flatnonzero(x, size=12, fill_value=-1)], [np.flatnonzero(N)]),
    "compress": (lambda x: [tw.compress(x > 1, x, size=12, fill_value=-1)], [N[N > 1]]),
    "extract": (lambda x: [tw.extract(x > 1, x, size=12, fill_value=-1)], [N[N > 1]]),
    "masked_select": (lambda x: [tw.masked_select(x, x > 1, size=12, fill_value=-1)], [N[N > 1]]),
    "unique": (lambda x: [tw.unique(x, size=12, fill_value=-1)], [np.unique(N)]),
    "union1d": (lambda x: [tw.union1d(x, x + 3, size=12, fill_value=-1)], [np.union1d(N, N + 3)]),
    "intersect1d": (lambda x: [tw.intersect1d(x, x + 3, size=12, fill_value=-1)], [np.intersect1d(N, N + 3)]),
    "setdiff1d": (lambda x: [tw.setdiff1d(x, x + 3, size=12, fill_value=-1)], [np.setdiff1d(N, N + 3)]),
    "setxor1d": (lambda x: [tw.setxor1d(x, x + 3, size=12, fill_value=-1)], [np.setxor1d(N, N + 3)]),
}


@pytest.mark.parametrize("name", SIZED)
def test_sizes_given(name: str) -> None:
    function, expected = SIZED[name]
    x = tw.tensor(N)
    batched = tw.vmap(lambda x: tuple(function(x)))(tw.tensor(np.stack([N, N])))
    for found in (function(x), tw.jit(function)(x), [b[1] for b in batched]):
        for got, want in zip(found, expected, strict=True):
            count = len(want)
            assert got.shape[0] == 12
            assert_array_equal(got.numpy()[:count], want)
            assert (got.numpy()[count:] == -1).all()


def test_sizes_that_are_too_small_cut() -> None:
    x = tw.tensor([0, 3, 0, 4, 5])
    assert tw.nonzero(x, size=2)[0].tolist() == [1, 3]
    assert tw.unique(x, size=2).tolist() == [0, 3]
    values, inverse, counts = tw.unique(x, return_inverse=True, return_counts=True, size=6)
    assert counts.tolist() == [2, 1, 1, 1, 0, 0] and inverse.tolist() == [0, 1, 0, 2, 3]
    assert values.tolist() == [0, 3, 4, 5, 0, 0]
    assert tw.bincount(x, length=4).tolist() == [2, 0, 0, 1]
    assert tw.jit(lambda x: tw.bincount(x, x * 0.5, length=6))(x).tolist() == [0.0, 0.0, 0.0, 1.5, 2.0, 2.5]


def test_repeats_given_by_a_tensor() -> None:
    x, counts = np.arange(8.0).reshape(4, 2), np.array([0, 3, 0, 2])
    step = tw.jit(lambda x, n: tw.repeat(x, n, axis=0, total_repeat_length=5))
    assert_array_equal(step(tw.tensor(x), tw.tensor(counts)).numpy(), np.repeat(x, counts, axis=0))
    assert tw.repeat(tw.tensor([1, 2]), [1, 1], total_repeat_length=4).tolist() == [1, 2, 2, 2]
    assert tw.repeat(tw.tensor([1, 2]), [3, 1], total_repeat_length=2).tolist() == [1, 1]
    with pytest.raises(tw.TracedValueError, match="total_repeat_length="):
        tw.jit(lambda x, n: tw.repeat(x, n, axis=0))(tw.tensor(x), tw.tensor(counts))


def test_the_cube_root_is_steep_at_0() -> None:
    slope = tw.grad(lambda x: tw.cbrt(x))
    assert slope(tw.tensor(0.0)).item() == math.inf and slope(tw.tensor(math.inf)).item() == 0.0
    assert slope(tw.tensor(-8.0)).item() == pytest.approx(1 / 12)


READ = {
    "nonzero": lambda x: tw.nonzero(x), "argwhere": lambda x: tw.argwhere(x), "unique": lambda x: tw.unique(x),
    "compress": lambda x: tw.compress(x > 1, x), "masked_select": lambda x: tw.masked_select(x, x > 1),
    "union1d": lambda x: tw.union1d(x, x), "intersect1d": lambda x: tw.intersect1d(x, x),
    "setdiff1d": lambda x: tw.setdiff1d(x, x),
    "setxor1d": lambda x: tw.setxor1d(x, x), "bincount": lambda x: tw.bincount(x), "one_hot": lambda x: tw.one_hot(x),
    "unique_all": lambda x: tw.unique_all(x).values, "extract": lambda x: tw.extract(x > 1, x),
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
@pytest.mark.parametrize("transform", [tw.jit, tw.vmap])
def test_shapes_that_depend_on_elements_are_refused_while_tracing(name: str, transform: Any) -> None:
    argument = {"bincount": "length", "one_hot": "num_classes"}.get(name, "size")
    x = tw.tensor(N) if transform is tw.jit else tw.tensor(np.stack([N, N]))
    with pytest.raises(tw.TracedValueError, match=f"depends on the elements of x.*`{argument}=`"):
        transform(READ[name])(x)


# ---- what NumPy does not have ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("array", [X, TIES, np.zeros((0, 3)), np.zeros((2, 1))])
@pytest.mark.parametrize("axis", [0, 1])
def test_running_extremes(array: np.ndarray, axis: int) -> None:
    for name, ufunc in (("cummax", np.maximum), ("cummin", np.minimum)):
        values, indices = getattr(tw, name)(tw.tensor(array), axis)
        assert_array_equal(values.numpy(), ufunc.accumulate(array, axis=axis))
        if array.size:
            assert_array_equal(np.take_along_axis(array, indices.numpy(), axis), values.numpy())


def test_derivatives_of_running_functions() -> None:
    x = tw.tensor(X)
    for function in (
        lambda x: tw.cummax(x, 1).values,
        lambda x: tw.logcumsumexp(x, 0),
        lambda x: tw.cumprod(x, 1),
    ):
        tw.check_grads(function, (x,), order=1, modes=("rev", "fwd"))
    assert_allclose(tw.logcumsumexp(x, 1).numpy(), np.logaddexp.accumulate(X, axis=1), rtol=1e-13)
    big = tw.logcumsumexp(tw.tensor([1000.0, 1000.0, -math.inf]))
    assert_allclose(big.numpy(), [1000.0, 1000.0 + math.log(2), 1000.0 + math.log(2)])


@pytest.mark.parametrize("largest", [True, False])
def test_topk_and_kthvalue(largest: bool) -> None:
    values, indices = tw.topk(tw.tensor(X), 2, dim=1, largest=largest)
    order = np.argsort(-X if largest else X, axis=1)[:, :2]
    assert_array_equal(indices.numpy(), order)
    assert_array_equal(values.numpy(), np.take_along_axis(X, order, 1))
    assert_array_equal(tw.kthvalue(tw.tensor(X), 3, dim=0).values.numpy(), np.sort(X, 0)[2])
    assert tw.topk(tw.tensor(X), 0).values.shape == (3, 0)
    tw.check_grads(lambda x: tw.topk(x, 2, 0).values, (tw.tensor(X),), order=1)


def test_mode_is_the_smallest_of_the_most_frequent() -> None:
    x = np.array([[3, 1, 3, 1, 2], [5, 5, 4, 4, 4]])
    values, indices = tw.mode(tw.tensor(x))
    assert values.tolist() == [1, 4] and indices.tolist() == [3, 4]
    assert tw.mode(tw.tensor(x), dim=0).values.tolist() == [3, 1, 3, 1, 2]


def test_gather_and_scatter_are_pytorchs() -> None:
    index = RNG.integers(0, 3, (2, 3))
    gathered = tw.gather(tw.tensor(X), 0, tw.tensor(index))
    scattered, added = np.zeros((3, 4)), X.copy()
    source = RNG.standard_normal((2, 4))
    for i in range(2):
        for j in range(3):
            assert gathered[i, j].item() == X[index[i, j], j]
            scattered[index[i, j], j] = source[i, j]
            added[index[i, j], j] += source[i, j]
    assert_array_equal(
        tw.scatter(tw.zeros(3, 4, dtype="float64"), 0, tw.tensor(index), tw.tensor(source)).numpy(), scattered
    )
    assert_allclose(tw.tensor(X).scatter_add(0, tw.tensor(index), tw.tensor(source)).numpy(), added)
    for f in (
        lambda x, s: tw.scatter(x, 0, tw.tensor([[0, 2, 1]]), s),
        lambda x, s: tw.scatter_add(x, 0, tw.tensor(index), s),
        lambda x, s: tw.index_add(x, 1, tw.tensor([0, 0]), s[:1, :1].expand(3, 2), alpha=2.0),
        lambda x, s: tw.put_along_axis(x, tw.tensor([[1], [0], [3]]), s[0, :1], 1),
    ):
        tw.check_grads(f, (tw.tensor(X), tw.tensor(source)), order=1, modes=("rev", "fwd"))


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(
    ("reduce", "combine"), [("sum", np.sum), ("amax", np.max), ("amin", np.min), ("mean", np.mean)]
)
def test_scatter_reduce(include: bool, reduce: str, combine: Any) -> None:
    x, index, source = np.array([1.0, 2.0, 3.0]), np.array([0, 0, 2, 0]), np.array([5.0, -4.0, 7.0, 1.0])
    expected = [
        combine([*([x[i]] if include or not (index == i).any() else []), *source[index == i]])
        for i in range(3)
    ]
    found = tw.scatter_reduce(
        tw.tensor(x), 0, tw.tensor(index), tw.tensor(source), reduce, include_self=include
    )
    assert_allclose(found.numpy(), expected)


def test_index_functions() -> None:
    x = tw.tensor(X)
    assert_array_equal(x.index_select(1, tw.tensor([3, 0])).numpy(), X[:, [3, 0]])
    assert_array_equal(tw.index_fill(x, 0, [1], 9.0).numpy()[1], [9.0] * 4)
    assert_array_equal(tw.index_copy(x, 0, [2, 0], tw.zeros(2, 4, dtype="float64")).numpy()[1], X[1])
    assert_array_equal(x.unfold(1, 2, 2).numpy(), X.reshape(3, 2, 2))
    assert_array_equal(x.narrow(1, 1, 2).numpy(), X[:, 1:3])
    assert [c.shape for c in x.chunk(3, dim=1)] == [(3, 2), (3, 2)]
    assert [c.shape for c in x.unbind(dim=1)] == [(3,)] * 4
    assert_array_equal(tw.put(x, [0, -1], [7.0, 8.0]).numpy().ravel()[[0, -1]], [7.0, 8.0])
    placed = X.copy()
    np.place(placed, X > 0, [1.0, 2.0])
    assert_array_equal(tw.place(x, x > 0, [1.0, 2.0]).numpy(), placed)
    masked = X.copy()
    np.putmask(masked, X > 0, [1.0, 2.0, 3.0])
    assert_array_equal(tw.putmask(x, x > 0, [1.0, 2.0, 3.0]).numpy(), masked)
    filled = np.zeros((5, 2))
    np.fill_diagonal(filled, [1.0, 2.0], wrap=True)
    assert_array_equal(tw.fill_diagonal(tw.zeros(5, 2), [1.0, 2.0], wrap=True).numpy(), filled)
    along = X.copy()
    np.put_along_axis(along, np.array([[1], [0], [-1]]), 9.0, 1)
    assert_array_equal(tw.put_along_axis(x, [[1], [0], [-1]], 9.0, 1).numpy(), along)


def test_small_functions() -> None:
    a, b = tw.tensor(X), tw.tensor(X[::-1].copy())
    assert_allclose(tw.lerp(a, b, 0.3).numpy(), X + 0.3 * (X[::-1] - X))
    assert_allclose(tw.addcmul(a, a, b, value=2.0).numpy(), X + 2 * X * X[::-1])
    assert_allclose(tw.addcdiv(a, a, b).numpy(), X + X / X[::-1])
    spread, middle = tw.var_mean(a, dim=0, correction=1)
    assert_allclose(spread.numpy(), X.var(axis=0, ddof=1))
    assert_allclose(middle.numpy(), X.mean(axis=0))
    assert_allclose(tw.std_mean(a)[0].numpy(), X.std())
    assert tw.unique_consecutive(tw.tensor([1, 1, 2, 1]), return_counts=True)[1].tolist() == [2, 1, 1]
    assert_allclose(tw.cumulative_trapezoid(a).numpy()[:, -1], np.trapezoid(X))
    assert_allclose(tw.frac(tw.tensor([-1.25])).numpy(), [-0.25])
    assert_array_equal(tw.diag_embed(tw.ones(2, 3), -1).numpy(), np.stack([np.eye(4, k=-1)] * 2))
    assert tw.one_hot(tw.tensor([0, 2])).shape == (2, 3)
    assert tw.copy(a) is not a and tw.broadcast_shapes((2, 1), 3) == (2, 3)
    lines = tw.apply_along_axis(lambda line: tw.cumsum(line)[::2], 0, a)
    assert_allclose(lines.numpy(), np.cumsum(X, 0)[::2])


def test_bytes_are_read_as_numbers() -> None:
    raw = np.arange(4, dtype=np.float32).tobytes()
    assert tw.frombuffer(raw).tolist() == [0.0, 1.0, 2.0, 3.0]
    assert tw.frombuffer(raw, "uint8", count=2, offset=6).tolist() == list(raw[6:8])
    assert tw.frombuffer(b"\x00\x02\x01", bool).tolist() == [False, True, True]
    for arguments in ({"offset": 1}, {"count": 5}, {"offset": 17}):
        with pytest.raises(tw.ArgumentError, match="frombuffer"):
            tw.frombuffer(raw, **arguments)
    assert tw.fromiter((i * i for i in range(4)), "int32", 3).tolist() == [0, 1, 4]


@pytest.mark.parametrize(
    ("mode", "numpys"), [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")]
)
def test_padding_as_in_pytorch(mode: str, numpys: Any) -> None:
    found = F.pad(tw.tensor(X), (1, 2, 0, 1), mode=mode)
    assert_array_equal(found.numpy(), np.pad(X, ((0, 1), (1, 2)), mode=numpys))
    with pytest.raises(ValueError, match="pad: `mode` is one of"):
        F.pad(tw.tensor(X), (1, 1), mode="edge")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_types(dtype: str) -> None:
    """Computed in float32 and rounded once, the result has the type of the argument."""
    x = tw.tensor([0.5, -1.5, 2.25, 3.0], dtype=dtype)
    wide = x.astype("float32")
    for function in (
        tw.cbrt, tw.sinc, tw.median, tw.nanmean, tw.ptp, lambda x: tw.fmod(x, 2), lambda x: tw.quantile(x, 0.3),
        lambda x: tw.frexp(x)[0],
        lambda x: tw.cummax(x).values, lambda x: tw.pad(x, 2, mode="reflect"), lambda x: tw.ldexp(x, 2), tw.trapezoid, tw.var,
        lambda x: tw.topk(x, 2).values, lambda x: tw.logaddexp2(x, 1.0), tw.gradient, tw.average,
        lambda x: tw.interp(x, x, x),
    ):  # fmt: skip
        found = function(x)
        assert found.dtype is x.dtype
        assert_allclose(found.astype("float32").numpy(), function(wide).numpy(), rtol=2e-2, atol=1e-2)


# ---- types and shapes ---------------------------------------------------------------------------------------------

ANY_SHAPE: dict[str, Callable[[Any, Any], Any]] = {
    "ravel": lambda xp, x: xp.ravel(x), "sort": lambda xp, x: xp.sort(x, axis=None), "cumsum": lambda xp, x: xp.cumsum(x),
    "cumprod": lambda xp, x: xp.cumprod(x), "atleast_3d": lambda xp, x: xp.atleast_3d(x), "append": lambda xp, x: xp.append(x, x),
    "nansum": lambda xp, x: xp.nansum(x), "unique": lambda xp, x: xp.unique(x), "isin": lambda xp, x: xp.isin(x, [1, 2]),
    "histogram": lambda xp, x: xp.histogram(x, 3, (-2, 2))[0], "full_like": lambda xp, x: xp.full_like(x, 1),
    "clip": lambda xp, x: xp.clip(x, 0, 2), "argwhere": lambda xp, x: xp.argwhere(x),
    "resize": lambda xp, x: xp.resize(x, (2, 2)),
    "pad": lambda xp, x: xp.pad(x, 1), "trapezoid": lambda xp, x: xp.trapezoid(xp.ravel(x)), "fmax": lambda xp, x: xp.fmax(x, 1),
    "ediff1d": lambda xp, x: xp.ediff1d(x), "heaviside": lambda xp, x: xp.heaviside(x, 1),
    "count_nonzero": lambda xp, x: xp.count_nonzero(x),
    "transpose": lambda xp, x: xp.transpose(x), "delete": lambda xp, x: xp.delete(x, []),
    "interp": lambda xp, x: xp.interp(x, [0, 1], [2, 3]),
    "masked": lambda xp, x: x[x > 0], "select": lambda xp, x: xp.select([x > 0], [x]), "isclose": lambda xp, x: xp.isclose(x, x),
    "nanmean": lambda xp, x: xp.nanmean(x), "nan_to_num": lambda xp, x: xp.nan_to_num(x), "repeat": lambda xp, x: xp.repeat(x, 2),
    "fmod": lambda xp, x: xp.fmod(x, 2), "divmod": lambda xp, x: xp.divmod(x, 2)[0], "square": lambda xp, x: xp.square(x),
}  # fmt: skip
SHAPES = [(), (0,), (1,), (0, 3), (3, 0), (2, 1, 3)]


@pytest.mark.parametrize("name", ANY_SHAPE)
@pytest.mark.parametrize("dtype", ["float64", "float32", "int32", "uint8", "int64"])
def test_odd_shapes_and_types(name: str, dtype: str) -> None:
    for shape in SHAPES:
        if name == "nanmean" and 0 in shape:
            continue
        array = (RNG.uniform(-3, 3, shape) if dtype[0] != "u" else RNG.uniform(0, 5, shape)).astype(dtype)
        for given in (array, array[::-1] if array.ndim else array, array.T):
            want = np.asarray(ANY_SHAPE[name](np, given))
            got = ANY_SHAPE[name](tw, tw.tensor(given))
            assert got.shape == want.shape, (name, shape)
            assert_allclose(got.numpy(), want, rtol=1e-6, atol=1e-6)
            if dtype == "float64" or want.dtype.kind in "biu":
                assert got.numpy().dtype == want.dtype, (name, shape, dtype)

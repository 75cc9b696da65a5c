"""Array functions against NumPy: values, shapes and types over element types and awkward shapes."""

import doctest
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import functions as F

RNG = np.random.default_rng(0)
SHAPES = [(), (1,), (0,), (3, 0), (7,), (2, 3), (3, 1, 5), (2, 1, 1, 2, 1, 3)]
FLOATS = ["float32", "float64"]
NUMBERS = ["int8", "uint8", "int32", "int64", "float32", "float64"]


def data(shape: tuple[int, ...], dtype: str, low: float = -3, high: float = 3) -> np.ndarray:
    x = RNG.uniform(low, high, shape)
    if np.dtype(dtype).kind == "u":
        x = np.abs(x)
    return np.asarray(x * (10 if np.dtype(dtype).kind in "iu" else 1)).astype(dtype)


def same(ours: tw.Tensor, theirs: Any, rtol: float = 2e-6) -> None:
    theirs = np.asarray(theirs)
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize("module", [
    "functions.activations", "functions.arguments", "functions.attention", "functions.contraction", "functions.convolution",
    "functions.creation", "functions.elementwise", "functions.indexing", "functions.linalg", "functions.losses",
    "functions.movement", "functions.normalization", "functions.reductions", "functions.transforms", "functions.types", "jit",
    "random", "tensor.handle", "tensor.modes",
])  # fmt: skip
def test_examples_in_docstrings(module: str) -> None:
    loaded = importlib.import_module(f"tilewright.{module}")
    assert doctest.testmod(loaded, extraglobs={"Tensor": tw.Tensor}).failed == 0


def test_every_public_name_loads() -> None:
    for name in tw.__all__:
        assert getattr(tw, name) is not None or name == "newaxis"


# ---- elementwise ----------------------------------------------------------------------------------------------

UNARY = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "sin": np.sin, "cos": np.cos, "tan": np.tan, "atan": np.arctan,
    "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh, "asinh": np.arcsinh, "floor": np.floor, "ceil": np.ceil,
    "trunc": np.trunc, "round": np.round, "sign": np.sign, "abs": np.abs, "negative": np.negative, "square": np.square,
    "isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite, "signbit": np.signbit, "logical_not": np.logical_not,
    "positive": np.positive, "reciprocal": np.reciprocal,
}  # fmt: skip
DOMAINS = {"log": np.log, "log2": np.log2, "log10": np.log10, "log1p": np.log1p, "sqrt": np.sqrt, "asin": np.arcsin,
           "acos": np.arccos, "atanh": np.arctanh}  # fmt: skip
BINARY = {
    "add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide, "maximum": np.maximum,
    "minimum": np.minimum, "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal,
    "greater": np.greater, "greater_equal": np.greater_equal, "atan2": np.arctan2, "copysign": np.copysign,
    "hypot": np.hypot, "logaddexp": np.logaddexp, "floor_divide": np.floor_divide, "remainder": np.remainder,
    "logical_and": np.logical_and, "logical_or": np.logical_or, "logical_xor": np.logical_xor,
}  # fmt: skip


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("dtype", FLOATS)
def test_unary(name: str, dtype: str) -> None:
    for shape in ((), (7,), (3, 0), (2, 3)):
        x = data(shape, dtype)
        x = np.where(np.abs(x) < 0.1, np.asarray(0.5, dtype), x)
        out = getattr(F, name)(tw.tensor(x))
        same(out, UNARY[name](x))
        assert out.numpy().dtype == np.asarray(UNARY[name](x)).dtype


@pytest.mark.parametrize("name", DOMAINS)
def test_unary_with_a_domain(name: str) -> None:
    x = data((11,), "float64", 0.05, 0.95)
    same(getattr(F, name)(tw.tensor(x)), DOMAINS[name](x), rtol=1e-12)


@pytest.mark.parametrize("name", BINARY)
def test_binary_broadcasts(name: str) -> None:
    for a, b in [((), (3,)), ((2, 1), (1, 3)), ((0,), (1,)), ((5, 1, 2), (4, 1)), ((3,), (3,))]:
        x, y = data(a, "float64", 0.2), data(b, "float64", 0.3)
        same(getattr(F, name)(tw.tensor(x), tw.tensor(y)), BINARY[name](x, y), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_integers_by_zero_and_negative(dtype: str) -> None:
    x = np.array([7, 100, 3, 0, 1], dtype)
    y = np.array([2, 3, 0, 5, 0], dtype)
    if np.dtype(dtype).kind == "i":
        x = x * np.array([1, -1, 1, -1, -1], dtype)
    with np.errstate(all="ignore"):
        assert (tw.tensor(x) // tw.tensor(y)).tolist() == (x // y).tolist()
        assert (tw.tensor(x) % tw.tensor(y)).tolist() == (x % y).tolist()


def test_promotion() -> None:
    i8, u8, i64 = tw.zeros(1, dtype="int8"), tw.zeros(1, dtype="uint8"), tw.zeros(1, dtype="int64")
    f16, bf16, f32, f64 = (tw.zeros(1, dtype=d) for d in ("float16", "bfloat16", "float32", "float64"))
    mask = f32 > 0
    assert (i8 + u8).dtype is tw.int16
    assert (f16 + bf16).dtype is tw.float32
    assert (i64 + f16).dtype is tw.float16
    assert (f32 + f64).dtype is tw.float64
    assert (f16 + 1.5).dtype is tw.float16
    assert (i8 + 1).dtype is tw.int8
    assert (i8 + 1.5).dtype is tw.float32
    assert (i8 / i8).dtype is tw.float32
    assert (f32 * 1j).dtype is tw.complex64
    assert (mask + mask).dtype is tw.bool
    assert (mask + 1).dtype is tw.int64
    assert (mask * f64).dtype is tw.float64
    assert (f16 + np.float64(1)).dtype is tw.float16
    assert (i8 + np.int64(1)).dtype is tw.int64
    assert tw.tensor(np.float64(1)).dtype is tw.float64
    assert tw.exp(i64).dtype is tw.float32
    assert tw.result_type(i8, tw.float16, 1.0) is tw.float16
    assert tw.can_cast(tw.int8, tw.int16)
    assert not tw.can_cast(tw.float32, tw.int64)
    assert tw.isdtype(tw.int8, "integral")
    assert tw.isdtype(tw.float32, ("bool", "real floating"))
    assert tw.finfo(tw.bfloat16).eps == 2**-7
    assert tw.iinfo("uint8").max == 255


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(tw.ArgumentError, match="300"):
        tw.zeros(1, dtype="uint8") + 300
    with pytest.raises(tw.DTypeError, match=r"0\.5"):
        tw.full((2,), 0.5, dtype="int32")


@pytest.mark.parametrize("power", [0, 1, 2, 3, 5, 8, 9, -1, -2, 0.5, -0.5, 1.5, -3.5])
def test_powers(power: float) -> None:
    x = data((9,), "float64", 0.3, 2)
    same(tw.tensor(x) ** power, x**power, rtol=1e-12)
    same(2.0 ** tw.tensor(x), 2.0**x, rtol=1e-12)
    if isinstance(power, int) and power >= 0:
        i = np.array([-2, 0, 1, 3])
        assert (tw.tensor(i) ** power).tolist() == (i**power).tolist()


def test_bits_and_shifts() -> None:
    x = np.array([0, 1, -7, 100], np.int32)
    t = tw.tensor(x)
    assert (t & 6).tolist() == (x & 6).tolist()
    assert (t | 6).tolist() == (x | 6).tolist()
    assert (t ^ 6).tolist() == (x ^ 6).tolist()
    assert (~t).tolist() == (~x).tolist()
    assert (t << 3).tolist() == (x << 3).tolist()
    assert (t >> 2).tolist() == (x >> 2).tolist()
    assert (t << 40).tolist() == [0] * 4
    assert (1 << tw.tensor([1, 2])).tolist() == [2, 4]


def test_where_and_clip() -> None:
    x = tw.tensor([-2.0, math.nan, 3.0])
    assert tw.where(x > 0, x, 0).tolist() == [0.0, 0.0, 3.0]
    assert tw.where(tw.tensor([[True], [False]]), [1, 2], 9).tolist() == [[1, 2], [9, 9]]
    assert x.clip(-1, 1).tolist()[::2] == [-1.0, 1.0]
    assert math.isnan(x.clip(-1, 1)[1].item())
    assert x.clip(max=0).tolist()[::2] == [-2.0, 0.0]
    assert math.isnan(F.relu(x)[1].item())
    with pytest.raises(tw.DTypeError, match="condition"):
        tw.where(x, x, x)


def test_casts_saturate() -> None:
    x = tw.tensor([300.7, -5.0, math.nan, math.inf])
    assert x.astype("uint8").tolist() == [255, 0, 0, 255]
    assert x.astype("int8").tolist() == [127, -5, 0, 127]
    assert tw.tensor([0.0, -2.0]).bool().tolist() == [False, True]
    assert tw.tensor([1.7]).int().dtype is tw.int32
    assert tw.bitcast(tw.tensor([1.0]), "uint32").item() == 0x3F800000


def test_complex() -> None:
    z = np.array([1 + 2j, -3j], np.complex64)
    t = tw.tensor(z)
    assert t.real.tolist() == [1.0, 0.0]
    assert t.imag.tolist() == [2.0, -3.0]
    same(tw.conj(t) * t, np.conj(z) * z)
    same(tw.abs(t), np.abs(z))


# ---- reductions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sum", "prod", "mean", "var", "std", "max", "min", "any", "all"])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (-2,), ()])
def test_reductions(name: str, axis: Any) -> None:
    for dtype in ("float64", "int32", "bool"):
        if (dtype != "float64" and name in ("var", "std")) or (axis == () and name in ("var", "std")):
            continue
        x = data((3, 4, 5), dtype)
        for keepdims in (False, True):
            ours = getattr(tw, name)(tw.tensor(x), axis, keepdims=keepdims)
            theirs = getattr(np, name)(x, axis=axis, keepdims=keepdims)
            same(ours, theirs, rtol=1e-6 if name == "mean" and dtype != "float64" else 1e-12)


def test_reductions_of_nothing() -> None:
    empty = tw.zeros(0, 3)
    assert tw.sum(empty).item() == 0.0
    assert tw.prod(empty, 0).tolist() == [1.0] * 3
    assert tw.any(empty, 0).tolist() == [False] * 3
    assert tw.all(empty).item() is True
    assert math.isnan(tw.mean(empty).item())
    with pytest.raises(tw.ShapeError, match="empty"):
        tw.max(empty)
    with pytest.raises(tw.ShapeError, match="argmax"):
        tw.argmax(empty, 0)


def test_sums_of_narrow_integers_do_not_wrap() -> None:
    assert tw.sum(tw.full((100,), 100, dtype="int8")).item() == 10_000
    assert tw.sum(tw.ones(3, dtype="uint8")).dtype is tw.uint64
    assert tw.sum(tw.ones(3, dtype="bool")).item() == 3
    assert tw.sum(tw.ones(3, dtype="int8"), dtype="int8").dtype is tw.int8


def test_half_types_accumulate_wide() -> None:
    x = tw.full((4096,), 1.0, dtype="float16")
    assert x.sum().item() == 4096.0
    assert x.mean().item() == 1.0
    assert tw.ones(1000, dtype="bfloat16").sum().item() == 1000.0


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_searches(axis: int | None) -> None:
    x = np.array([[1.0, 5.0, 5.0], [7.0, -1.0, 7.0]])
    for name in ("argmax", "argmin"):
        ours = getattr(tw, name)(tw.tensor(x), axis)
        assert ours.dtype is tw.int64
        assert ours.tolist() == getattr(np, name)(x, axis).tolist()
    assert tw.argmax(tw.tensor(x), axis, keepdims=True).ndim == 2
    assert tw.count_nonzero(tw.tensor(x > 1), axis).tolist() == np.count_nonzero(x > 1, axis=axis).tolist()


def test_running_sums() -> None:
    x = data((3, 4), "float64")
    same(tw.cumulative_sum(tw.tensor(x), 1), np.cumsum(x, 1), rtol=1e-12)
    assert tw.cumulative_sum(tw.tensor([1, 2]), include_initial=True).tolist() == [0, 1, 3]
    with pytest.raises(tw.ShapeError, match="axis"):
        tw.cumulative_sum(tw.tensor(x))


# ---- movement -------------------------------------------------------------------------------------------------

X = np.arange(24.0).reshape(2, 3, 4)
MOVES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "reshape": (lambda x: x.reshape(4, -1), lambda x: x.reshape(4, -1)),
    "permute": (lambda x: x.permute_dims((2, 0, 1)), lambda x: x.transpose(2, 0, 1)),
    "T": (lambda x: x.T, lambda x: x.T),
    "mT": (lambda x: x.mT, lambda x: x.swapaxes(-1, -2)),
    "moveaxis": (lambda x: tw.moveaxis(x, (0, 1), (2, 0)), lambda x: np.moveaxis(x, (0, 1), (2, 0))),
    "flip": (lambda x: tw.flip(x, (0, 2)), lambda x: np.flip(x, (0, 2))),
    "flip all": (lambda x: tw.flip(x), lambda x: np.flip(x)),
    "roll": (lambda x: tw.roll(x, (1, -2), (0, 2)), lambda x: np.roll(x, (1, -2), (0, 2))),
    "roll flat": (lambda x: tw.roll(x, 5), lambda x: np.roll(x, 5)),
    "tile": (lambda x: tw.tile(x, (2, 1, 1, 3)), lambda x: np.tile(x, (2, 1, 1, 3))),
    "repeat": (lambda x: tw.repeat(x, 2, 1), lambda x: np.repeat(x, 2, 1)),
    "repeats": (lambda x: tw.repeat(x, [1, 0, 3], 1), lambda x: np.repeat(x, [1, 0, 3], 1)),
    "expand": (lambda x: tw.expand_dims(x, (0, -1)), lambda x: np.expand_dims(x, (0, -1))),
    "squeeze": (lambda x: tw.squeeze(x[:1], 0), lambda x: x[0]),
    "concat": (lambda x: tw.concat([x, x[:, :1]], 1), lambda x: np.concatenate([x, x[:, :1]], 1)),
    "concat flat": (lambda x: tw.concat([x, x], None), lambda x: np.concatenate([x, x], None)),
    "stack": (lambda x: tw.stack([x, x + 1], -1), lambda x: np.stack([x, x + 1], -1)),
    "unstack": (lambda x: tw.unstack(x, 1)[2], lambda x: x[:, 2]),
    "split": (lambda x: tw.split(x, 3, 2)[1], lambda x: x[:, :, 3:]),
    "split sizes": (lambda x: tw.split(x, [1, 3], 2)[1], lambda x: x[:, :, 1:]),
    "pad": (lambda x: tw.pad(x, ((0, 1), (2, 0), (1, 1)), constant_values=7),
            lambda x: np.pad(x, ((0, 1), (2, 0), (1, 1)), constant_values=7)),
    "broadcast": (lambda x: tw.broadcast_to(x[:, :1], (5, 2, 3, 4)), lambda x: np.broadcast_to(x[:, :1], (5, 2, 3, 4))),
    "flatten": (lambda x: tw.flatten(x, 1), lambda x: x.reshape(2, 12)),
    "unflatten": (lambda x: tw.unflatten(x, 2, (2, -1)), lambda x: x.reshape(2, 3, 2, 2)),
    "tril": (lambda x: tw.tril(x, 1), lambda x: np.tril(x, 1)),
    "triu": (lambda x: tw.triu(x, -1), lambda x: np.triu(x, -1)),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVES)
def test_movement(name: str) -> None:
    ours, theirs = MOVES[name]
    same(ours(tw.tensor(X)), theirs(X))
    pending = tw.tensor(X) + 0
    same(ours(pending) * 2, theirs(X) * 2)


def test_creation() -> None:
    assert tw.arange(5).tolist() == [0, 1, 2, 3, 4]
    assert tw.arange(5, 0, -2).tolist() == [5, 3, 1]
    assert tw.arange(0, 1, 0.25).dtype is tw.float32
    same(tw.arange(0.5, 3, 0.7, dtype="float64"), np.arange(0.5, 3, 0.7), rtol=1e-15)
    assert tw.arange(3, 3).shape == (0,)
    same(tw.linspace(0, 1, 7, dtype="float64"), np.linspace(0, 1, 7), rtol=1e-15)
    same(tw.linspace(2, 5, 4, endpoint=False), np.linspace(2, 5, 4, endpoint=False))
    assert tw.linspace(0, 0.3, 4, dtype="float64")[-1].item() == 0.3
    assert tw.linspace(3, 4, 1).tolist() == [3.0]
    same(tw.eye(3, 4, k=1), np.eye(3, 4, 1))
    for ours, theirs in zip(
        tw.meshgrid(tw.arange(2), tw.arange(3)), np.meshgrid(range(2), range(3)), strict=True
    ):
        same(ours, theirs)
    for ours, theirs in zip(
        tw.meshgrid(tw.arange(2), tw.arange(3), indexing="ij"),
        np.meshgrid(range(2), range(3), indexing="ij"),
        strict=True,
    ):
        same(ours, theirs)
    assert tw.zeros_like(tw.ones(2, dtype="int8")).dtype is tw.int8
    assert tw.full((2,), 3).dtype is tw.int64
    assert tw.tensor([[1, 2], [3, 4.5]]).dtype is tw.float32
    assert tw.tensor([np.float64(1), 2]).dtype is tw.float64
    assert tw.tensor([tw.ones(2), tw.zeros(2)]).tolist() == [[1.0, 1.0], [0.0, 0.0]]
    assert tw.one_hot(tw.tensor([1, 5]), 3).tolist() == [[0.0, 1.0, 0.0], [0.0] * 3]


# ---- products -------------------------------------------------------------------------------------------------

MATMULS = [((3,), (3,)), ((2, 3), (3,)), ((3,), (3, 4)), ((3,), (2, 3, 4)), ((2, 5, 3), (3, 4)), ((2, 1, 5, 3), (6, 3, 4)),
           ((5, 3), (2, 3, 4)), ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((1, 1), (1, 1))]  # fmt: skip


@pytest.mark.parametrize("shapes", MATMULS)
def test_matmul(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    a, b = (data(s, "float64") for s in shapes)
    same(tw.tensor(a) @ tw.tensor(b), a @ b, rtol=1e-12)


EINSUMS = [
    ("ij,jk->ik", (3, 4), (4, 5)), ("bij,bjk", (2, 3, 4), (2, 4, 5)), ("...ij,...jk->...ik", (2, 1, 3, 4), (5, 4, 3)),
    ("ii->i", (4, 4)), ("ii", (4, 4)), ("ij->j", (3, 4)), ("ijk,k,j->i", (2, 3, 4), (4,), (3,)), ("ij,ij->", (3, 4), (3, 4)),
    ("i,j->ji", (3,), (4,)), ("iij,jk->ik", (3, 3, 4), (4, 2)), ("abc->cab", (2, 3, 4)), ("ba", (2, 3)),
    ("ab,bc,cd,de->ae", (2, 3), (3, 4), (4, 5), (5, 2)), ("...i,i->...", (2, 3, 4), (4,)), ("iii->i", (3, 3, 3)),
    ("ij,ik->ijk", (2, 3), (2, 4)), ("i->", (5,)), ("...->...", (2, 3)),
]  # fmt: skip


@pytest.mark.parametrize("case", EINSUMS, ids=lambda c: c[0])
def test_einsum(case: Any) -> None:
    subscripts, *shapes = case
    arrays = [data(s, "float64") for s in shapes]
    same(tw.einsum(subscripts, *map(tw.tensor, arrays)), np.einsum(subscripts, *arrays), rtol=1e-11)


def test_tensordot_and_vecdot() -> None:
    a, b = data((2, 3, 4), "float64"), data((3, 4, 5), "float64")
    same(tw.tensordot(tw.tensor(a), tw.tensor(b)), np.tensordot(a, b), rtol=1e-12)
    same(tw.tensordot(tw.tensor(a), tw.tensor(b), ([1], [0])), np.tensordot(a, b, ([1], [0])), rtol=1e-12)
    same(tw.vecdot(tw.tensor(a), tw.tensor(a[:1])), (a * a[:1]).sum(-1), rtol=1e-12)
    assert tw.outer(tw.tensor([1, 2]), tw.tensor([3, 4])).tolist() == [[3, 4], [6, 8]]


def test_hypot_of_an_infinity_is_infinite() -> None:
    x, y = np.meshgrid(
        np.array([np.inf, -np.inf, np.nan, 0, 3], "f4"), np.array([np.inf, np.nan, 0, 4], "f4")
    )
    np.testing.assert_array_equal(tw.hypot(tw.asarray(x), tw.asarray(y)).numpy(), np.hypot(x, y))

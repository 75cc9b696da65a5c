"""Indexing against NumPy: reading and writing with every kind of index, on computed and on pending tensors."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import compiler

X = np.arange(120.0).reshape(4, 5, 6)
I1 = np.array([[0, -1], [2, 3]])
I2 = np.array([1, 4])
MASK = (np.arange(20).reshape(4, 5) % 3) == 0

INDICES: dict[str, Any] = {
    "integer": 1, "negative": (-1, ..., 0), "all integers": (1, 2, 3), "slice": (slice(1, 3), slice(None, None, 2)),
    "negative step": (slice(None, None, -1), slice(4, 0, -2)), "empty slice": slice(3, 1), "out of range slice": slice(-99, 99),
    "new axes": (None, slice(None), None, 2), "ellipsis": (..., 1), "nothing": (), "one": (slice(2, 3),),
    "step beyond": (slice(0, 4, 7),), "array": I1, "list": [0, 2], "two arrays": (I1, I2),
    "middle": (slice(None), I2, slice(1, None)),
    "apart": (I1, slice(None), I2), "integer and array": (0, slice(None), I2), "array and integer": (slice(None), I2, 3),
    "array and new axis": (I2[:1], None, slice(1, 3)), "mask": MASK, "mask of one axis": (slice(None), MASK[0]),
    "mask and slice": (MASK, slice(1, 3)), "full mask": X > 50, "empty array": np.zeros(0, np.int64), "empty list": [],
    "numpy integer": np.int64(2), "unsigned": np.array([1, 3], np.uint8), "rank 0 array": np.array(2),
}  # fmt: skip


@pytest.mark.parametrize("name", INDICES)
def test_reading(name: str) -> None:
    index = INDICES[name]
    expected = X[index]
    for x in (tw.tensor(X), tw.tensor(X) + 0.0, tw.tensor(X, requires_grad=True)):
        out = x[index]
        assert out.shape == expected.shape
        assert np.array_equal(out.numpy(), expected)


@pytest.mark.parametrize("name", [n for n in INDICES if n not in ("nothing",)])
def test_writing(name: str) -> None:
    index = INDICES[name]
    shape = X[index].shape
    value = -1.0 - np.arange(np.prod(shape)).reshape(shape)
    for new in (value, -7.0):
        expected = X.copy()
        expected[index] = new
        x = tw.tensor(X)
        before = x + 0.0
        x[index] = tw.tensor(new) if isinstance(new, np.ndarray) else new
        assert np.array_equal(x.numpy(), expected)
        assert np.array_equal(before.numpy(), X)
        assert np.array_equal(tw.tensor(X).at[index].set(new).numpy(), expected)


@pytest.mark.parametrize("name", [n for n in INDICES if n not in ("nothing",)])
@pytest.mark.parametrize(("mode", "ufunc"), [("add", np.add), ("max", np.maximum), ("min", np.minimum)])
def test_combining(name: str, mode: str, ufunc: Any) -> None:
    index = INDICES[name]
    shape = X[index].shape
    value = np.linspace(-100.0, 200.0, int(np.prod(shape))).reshape(shape)
    expected = X.copy()
    ufunc.at(expected, index, value)
    out = getattr(tw.tensor(X).at[index], mode)(tw.tensor(value))
    np.testing.assert_allclose(out.numpy(), expected)


def test_tensors_as_indices() -> None:
    x = tw.tensor(X)
    for kind in ("int32", "int64", "uint8"):
        index = np.abs(I1).astype(kind)
        assert np.array_equal(x[tw.tensor(index)].numpy(), X[index])
    assert np.array_equal(x[tw.tensor(2)].numpy(), X[2])
    assert np.array_equal(x[tw.tensor(I1), tw.tensor(I2)].numpy(), X[I1, I2])
    assert np.array_equal(x[x > 50].numpy(), X[X > 50])
    assert np.array_equal(x[tw.tensor([-1, 0])].numpy(), X[[-1, 0]])


def test_repeated_indices() -> None:
    x = tw.zeros(3)
    index = tw.tensor([1, 1, 2])
    assert x.at[index].add(1.0).tolist() == [0.0, 2.0, 1.0]
    assert x.at[index].set([5.0, 6.0, 7.0]).tolist() == [0.0, 6.0, 7.0]


def test_taking() -> None:
    x = tw.tensor(X)
    assert np.array_equal(tw.take(x, I2, 1).numpy(), np.take(X, I2, 1))
    assert np.array_equal(tw.take(x, I1).numpy(), np.take(X, I1))
    order = np.argsort(-X, 1)
    assert np.array_equal(tw.take_along_axis(x, order, 1).numpy(), np.take_along_axis(X, order, 1))
    for ours, theirs in zip(tw.nonzero(x > 50), np.nonzero(X > 50), strict=True):
        assert np.array_equal(ours.numpy(), theirs)


def gradient(index: Any) -> np.ndarray:
    x = tw.tensor(X, requires_grad=True)
    part = x[index]
    (part * tw.arange(part.size, dtype="float64").reshape(part.shape)).sum().backward()
    return x.grad.numpy()


SIZES = (3, 1, 4)
ARRAY = np.arange(12.0).reshape(SIZES)
EDGES = st.none() | st.integers(-6, 6)
SLICES = st.builds(slice, EDGES, EDGES, st.sampled_from([None, 1, 2, 3, -1, -2, -5]))


@st.composite
def indices(draw: st.DrawFn) -> tuple[Any, ...]:
    """Integers, slices, new axes, an ellipsis, integer arrays that broadcast together, and masks, for the axes of ARRAY."""
    shape = draw(st.sampled_from([(), (2,), (2, 1), (1, 3), (0,)]))
    items: list[Any] = []
    axis = 0
    while axis < len(SIZES) and draw(st.booleans() if axis else st.just(True)):
        size = SIZES[axis]
        kind = draw(st.sampled_from(["integer", "slice", "array", "mask", "flat mask", "new"]))
        if kind == "integer":
            items.append(draw(st.integers(-size, size - 1)))
        elif kind == "slice":
            items.append(draw(SLICES))
        elif kind == "array":
            items.append(
                np.array(
                    draw(
                        st.lists(
                            st.integers(-size, size - 1),
                            min_size=int(np.prod(shape)),
                            max_size=int(np.prod(shape)),
                        )
                    ),
                    np.int64,
                ).reshape(shape)
            )
        elif kind == "new":
            items.append(None)
            continue
        elif kind == "mask" or axis + 1 == len(SIZES):
            items.append(np.array(draw(st.lists(st.booleans(), min_size=size, max_size=size))))
        else:
            whole = SIZES[axis : axis + 2]
            items.append(
                np.array(
                    draw(st.lists(st.booleans(), min_size=whole[0] * whole[1], max_size=whole[0] * whole[1]))
                ).reshape(whole)
            )
            axis += 1
        axis += 1
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), ...)
    return tuple(items)


@settings(max_examples=150, deadline=None)
@given(indices(), st.booleans())
def test_any_mixture_of_indices(index: tuple[Any, ...], pending: bool) -> None:
    x = tw.tensor(ARRAY) + 0.0 if pending else tw.tensor(ARRAY)
    ours = tuple(tw.tensor(i) if isinstance(i, np.ndarray) else i for i in index)
    try:
        expected = ARRAY[index]
    except IndexError:  # masks and arrays whose sizes do not fit together
        with pytest.raises(IndexError):
            x[ours].numpy()
        return
    assert np.array_equal(x[ours].numpy(), expected)
    new = -1.0 - np.arange(expected.size).reshape(expected.shape)
    for value in (new, -7.0):
        written = ARRAY.copy()
        written[index] = value
        x = tw.tensor(ARRAY) + 0.0 if pending else tw.tensor(ARRAY)
        x[ours] = tw.tensor(value) if isinstance(value, np.ndarray) else value
        assert np.array_equal(x.numpy(), written)
    added = ARRAY.copy()
    np.add.at(added, index, new)
    assert np.array_equal(tw.tensor(ARRAY).at[ours].add(tw.tensor(new)).numpy(), added)


@pytest.mark.parametrize("name", ["middle", "mask", "slice", "integer", "unsigned"])
def test_functional_updates(name: str) -> None:
    x, index = tw.tensor(X), INDICES[name]
    for update, ufunc in (
        ("subtract", np.subtract),
        ("multiply", np.multiply),
        ("divide", np.divide),
        ("power", np.power),
    ):
        expected = X.copy()
        expected[index] = ufunc(X[index], 3.0)
        np.testing.assert_allclose(getattr(x.at[index], update)(3.0).numpy(), expected, rtol=1e-14)
    expected = X.copy()
    expected[index] = np.sqrt(X[index])
    np.testing.assert_allclose(x.at[index].apply(tw.sqrt).numpy(), expected, rtol=1e-14)


def test_masked_updates_are_traced() -> None:
    step = tw.jit(lambda x: x.at[x > 50].multiply(0.5))
    assert np.array_equal(step(tw.tensor(X)).numpy(), np.where(X > 50, X * 0.5, X))
    with pytest.raises(
        tw.TracedValueError,
        match=r"x\[mask\] depends on the elements of the mask.*tw.nonzero\(mask, size=n\)",
    ):
        tw.jit(lambda x: x[x > 50])(tw.tensor(X))


@pytest.mark.parametrize("name", [n for n, i in INDICES.items() if X[i].size])
def test_gradients_of_reading(name: str) -> None:
    index = INDICES[name]
    expected = np.zeros_like(X)
    shape = X[index].shape
    np.add.at(expected, index, np.arange(np.prod(shape), dtype=float).reshape(shape))
    assert np.array_equal(gradient(index), expected)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (4, "4 is out of range for axis 0 of size 4"),
        ((0, -6), "-6 is out of range for axis 1"),
        ((0, 0, 0, 0), "4 indices for a tensor of rank 3"),
        ((..., ...), "only once"),
        (1.5, "float is not an index"),
        ("a", "str is not an index"),
        (True, "single bool"),
        (np.array([1.5]), "integers or bools"),
        (np.array([9]), "9 is out of range for axis 0 of size 4"),
        (np.array([True, False]), "mask of shape (2,)"),
        ((I1, np.array([1, 2, 3])), "do not broadcast"),
        (slice(0, 3, 0), "step of a slice is not 0"),
    ],
)
def test_bad_indices(index: Any, message: str) -> None:
    with pytest.raises(IndexError) as error:
        tw.tensor(X)[index]
    if "only once" in message:
        message = "only once"
        assert "once" in str(error.value)
    else:
        assert message in str(error.value)


def test_a_tensor_index_out_of_range_is_an_error_when_it_runs() -> None:
    index = tw.tensor([0, 9]) + 0
    with pytest.raises(
        tw.IndexingError,
        match=r"gather .*: 9 is out of range for an axis of size 4 \(it takes -4 to 3\), axis 0 of .* \(4, 5, 6\)",
    ):
        tw.tensor(X)[index].numpy()
    with pytest.raises(tw.IndexingError, match=r"scatter .*: -5 is out of range for an axis of size 4"):
        tw.tensor(X).at[index - 5].add(1.0).numpy()


@pytest.mark.parametrize("bad", [-1, 4])
def test_rows_of_a_table_are_not_counted_from_the_end(bad: int) -> None:
    table = tw.tensor(X[:, :, 0])
    index = tw.tensor([0, bad])
    for read in (F.embedding, tw.jit(F.embedding)):
        with pytest.raises(
            tw.IndexingError, match=f"{bad} is out of range for an axis of size 4 .it takes 0 to 3"
        ):
            read(index, table).numpy()


def test_a_value_that_does_not_fit() -> None:
    x = tw.tensor(X)
    with pytest.raises(tw.ShapeError, match="does not fit the indexed part"):
        x[0] = tw.zeros(7)


def test_rows_of_a_tensor_in_memory_are_views() -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    x = tw.tensor(array)
    for index in (0, 3, -1, -4, slice(1, 3), slice(None), slice(-2, None), slice(0, 99), slice(3, 4)):
        part = x[index]
        np.testing.assert_array_equal(part.numpy(), array[index])
        assert np.shares_memory(part.numpy(), x.numpy())
    for index in (slice(2, 2), slice(3, 1), slice(None, None, 2), slice(None, None, -1), slice(9, 12)):
        np.testing.assert_array_equal(x[index].numpy(), array[index])
    np.testing.assert_array_equal(tw.tensor(array[:, :0])[1].numpy(), array[1, :0])
    for wrong in (4, -5):
        with pytest.raises(tw.IndexingError, match=f"{wrong} is out of range for axis 0 of size 4"):
            x[wrong]
    with pytest.raises(tw.IndexingError, match="not integers"):
        x[slice("a", None)]
    with pytest.raises(tw.IndexingError, match="1 indices for a tensor of rank 0"):
        tw.tensor(1.0)[0]
    x.requires_grad = True
    x[1:3].sum().backward()
    assert x.grad is not None and x.grad.numpy().sum() == 12
    with tw.no_grad():
        assert not x[2].requires_grad


def test_parts_of_a_tensor_in_memory_compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    x = tw.tensor(array)
    monkeypatch.setattr(compiler, "compile", None)
    indices: tuple[Any, ...] = (
        (1, 2), (1, 2, 1), (slice(None), 1), (..., 0), (None, 2), (slice(1, 3), slice(None, None, -1)), (2, ..., None, 1),
        (slice(2, 2), 1), (slice(None),) * 3, (-1, -1, -1), (), None,
    )  # fmt: skip
    for index in indices:
        part = x[index]
        assert part.shape == array[index].shape
        np.testing.assert_array_equal(part.numpy(), array[index])
        lies_together = array[index].size and np.asarray(array[index]).flags.c_contiguous
        assert np.shares_memory(part.numpy(), x.numpy()) == bool(lies_together)
    with pytest.raises(tw.IndexingError, match="7 is out of range for axis 1 of size 3"):
        x[:, 7]
    with pytest.raises(tw.IndexingError, match="4 indices for a tensor of rank 3"):
        x[0, 0, 0, 0]
    with pytest.raises(tw.IndexingError, match="may stand only once"):
        x[..., 0, ...]
    with pytest.raises(tw.IndexingError, match="a single bool"):
        x[True, 0]

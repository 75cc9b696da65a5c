"""The reference against a second, independent statement of what every operation means."""

from __future__ import annotations

import numpy as np
import pytest

from conformance.cases import TABLE, Case, cases, dtypes
from conformance.compare import Array, mismatch
from conformance.independent import ELEMENTWISE, INDEPENDENT
from conformance.tolerance import ACCUMULATING, ULPS, tolerance
from tilewright.core import dtype as dt
from tilewright.graph.ir import input_value, make
from tilewright.graph.reference import evaluate, threefry2x32

PAIRS = [(op, d.name) for op in TABLE if op in INDEPENDENT for d in dtypes(op)]


@pytest.mark.parametrize(("op", "name"), PAIRS, ids=[f"{op}-{name}" for op, name in PAIRS])
def test_reference_matches_independent_expression(op: str, name: str) -> None:
    wrong = []
    for case in cases(op, dt.BY_NAME[name]):
        if case.layout != "straight":
            continue
        leaves, arrays, value = case.build()
        (actual,) = evaluate([value], dict(zip(leaves, arrays, strict=True)))
        found = _difference(case, actual, INDEPENDENT[op](case.arrays, case.attrs))
        if found:
            wrong.append(f"{case}: {found}")
    assert not wrong, "\n".join(wrong[:5])


def _difference(case: Case, actual: Array, said: Array) -> str | None:
    """Compare with what an expression says: exact numbers as objects, or an array; None in it is not
    compared.
    """
    said = np.asarray(said)
    if said.shape != actual.shape:
        return f"shape {actual.shape} instead of {said.shape}"
    if said.dtype == object:
        known = np.array([v is not None for v in said.ravel().tolist()], bool).reshape(said.shape)
        said = np.where(known, said, 0)
        actual = np.where(known, actual, np.zeros((), actual.dtype))
    with np.errstate(all="ignore"):
        if said.dtype == object and actual.dtype.kind in "iu":
            bits = 8 * actual.dtype.itemsize
            numbers = [(int(v) + (1 << 64)) % (1 << bits) for v in said.ravel().tolist()]
            want = np.array(numbers, np.uint64).astype(f"u{bits // 8}").view(actual.dtype).reshape(said.shape)
        elif said.dtype == object:
            wide = np.complex128 if actual.dtype.kind == "c" else np.float64
            want = said.astype(bool if actual.dtype == np.bool_ else wide).astype(actual.dtype)
        else:
            want = said.astype(actual.dtype)
    allowed = tolerance(case, dt.from_numpy(actual.dtype))
    if case.op in ULPS or case.op in (*ACCUMULATING, "expm1", "log1p"):
        allowed["ulps"] = max(allowed.get("ulps", 0.0), 4.0)  # NumPy's own error in float32
    if case.op in ("expm1", "log1p") and actual.dtype.kind == "c":
        allowed["slack"] = np.asarray(2.0**-20 if actual.dtype == np.complex64 else 2.0**-48)
    allowed.pop("signed_zero", None) if case.op in ELEMENTWISE else None
    return mismatch(actual, want, **allowed)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_gives_the_published_words(
    counter: tuple[int, int], key: tuple[int, int], words: tuple[int, int]
) -> None:
    low, high = (np.array([c], np.uint32) for c in counter)
    first, second = threefry2x32(np.array(key, np.uint32), low, high)
    assert (int(first[0]), int(second[0])) == words


def test_half_types_accumulate_in_float32() -> None:
    x = input_value(dt.float16, (4096,))
    ones = np.ones(4096, np.float16)
    total, last = evaluate(
        [make("reduce_sum", (x,), axes=(0,)), make("cumsum", (x,), axis=0, reverse=False)], {x: ones}
    )
    assert total == 4096 and last[-1] == 4096  # in float16, 2048 + 1 is 2048


def test_results_are_new_contiguous_arrays() -> None:
    x = input_value(dt.float32, (2, 3))
    array = np.ones((2, 3), np.float32)
    same, turned = evaluate([x, make("permute", (x,), axes=(1, 0))], {x: array})
    assert not np.shares_memory(same, array)
    assert turned.flags.c_contiguous and turned.shape == (3, 2)


def test_symbolic_sizes_come_from_the_bound_arrays() -> None:
    from tilewright.core.shape import Size

    n = Size("N", 1, 8)
    x = input_value(dt.float32, (n, 2))
    doubled = make("broadcast", (make("reduce_sum", (x,), axes=(1,)),), shape=(2, n))
    (out,) = evaluate([doubled], {x: np.ones((5, 2), np.float32)})
    assert out.shape == (2, 5) and np.all(out == 2)
    with pytest.raises(ValueError, match="cannot take"):
        evaluate([doubled], {x: np.ones((9, 2), np.float32)})


@pytest.mark.parametrize("array", [np.ones((2, 2), np.float32), np.ones((2, 3)), [1.0]])
def test_a_binding_of_another_type_is_an_error(array: Array) -> None:
    x = input_value(dt.float32, (2, 3))
    with pytest.raises(ValueError, match=r"float32\[2, 3\] cannot take"):
        evaluate([x], {x: array})


def test_an_unbound_input_is_an_error() -> None:
    x = input_value(dt.float32, (2, 3))
    with pytest.raises(ValueError, match="no array is given"):
        evaluate([make("exp", (x,))], {})


def test_an_interior_value_may_be_bound() -> None:
    x = input_value(dt.float32, (2,))
    y = make("exp", (x,))
    (out,) = evaluate([make("neg", (y,))], {y: np.array([3, 4], np.float32)})
    assert out.tolist() == [-3, -4]


@pytest.mark.parametrize("bad", [3, -1])
@pytest.mark.parametrize("op", ["gather", "scatter"])
def test_index_out_of_range_names_index_axis_and_size(op: str, bad: int) -> None:
    x = input_value(dt.float32, (4, 3))
    i = input_value(dt.int64, (2,))
    u = input_value(dt.float32, (2, 4))
    value = (
        make("gather", (x, i), axes=(1,))
        if op == "gather"
        else make("scatter", (x, u, i), axes=(1,), mode="set")
    )
    arrays = {x: np.ones((4, 3), np.float32), u: np.ones((2, 4), np.float32), i: np.array([0, bad])}
    with pytest.raises(IndexError, match=f"{op}: index {bad} is out of range for axis 1 of size 3"):
        evaluate([value], arrays)

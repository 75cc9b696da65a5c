"""The kernel interpreter: worked examples whose results are known, exact fused arithmetic, and its faults."""

import numpy as np
import pytest

from tilewright.core import dtype as dt
from tilewright.kernel.interpret import KernelFault, fused, run
from tilewright.kernel.ir import (
    HI,
    LO,
    Buf,
    Check,
    Kernel,
    Let,
    Loop,
    Reg,
    Scratch,
    Set,
    Store,
    across,
    const,
    index,
    load,
    op,
    reg,
    var,
)  # fmt: skip
from tilewright.kernel.text import parse_kernel

F = dt.float32
i = var("i")


def test_a_row_program() -> None:
    kernel = parse_kernel(
        """\
kernel softmax(x: r float32, y: w float32)
    scratch e: float32[5]
    for row in lo..hi:
        reg best: float32 vector 4 = -inf.f32
        reg total: float32 vector 4 = 0.0f32
        for i in 0..5 vector 4:
            best := maximum(best, x[row * 5 + i])
        let top: float32 = across.maximum(best)
        for i in 0..5 vector 4:
            let z: float32 = exp(x[row * 5 + i] - top)
            e[i] = z
            total := total + z
        for i in 0..5 vector 4:
            y[row * 5 + i] = e[i] / across.add(total)
"""
    )
    x = np.random.default_rng(1).standard_normal((3, 5)).astype(np.float32)
    y = np.zeros(15, np.float32)
    assert run(kernel, {"x": x.ravel(), "y": y}, 1, 3) == []
    expected = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    np.testing.assert_allclose(y.reshape(3, 5)[1:], expected[1:], rtol=1e-6)
    assert (y[:5] == 0).all()


def test_lane_positions_are_separate() -> None:
    kernel = Kernel(
        (Buf("x", F, "r"), Buf("y", F, "w")),
        (
            Reg("s", F, const(0.0, F), (), 4),
            Loop("i", index(0), index(6), (Set("s", op("add", reg("s", F), load("x", i, F))),), "vector", 4),
            Loop("i", index(0), index(4), (Store("y", i, reg("s", F)),), "vector", 4),
            Store("y", index(4), across("add", reg("s", F))),
        ),
    )
    y = np.zeros(5, np.float32)
    run(kernel, {"x": np.arange(6, dtype=np.float32), "y": y}, 0, 1)
    assert y.tolist() == [0 + 4, 1 + 5, 2, 3, 15]


def test_lanes_combine_as_a_tree() -> None:
    """With three lanes: (0 with 1), then with the odd last one. The order shows in float32."""
    kernel = Kernel(
        (Buf("x", F, "r"), Buf("y", F, "w")),
        (
            Reg("s", F, const(0.0, F), (), 3),
            Loop("i", index(0), index(3), (Set("s", load("x", i, F)),), "vector", 3),
            Store("y", index(0), across("add", reg("s", F))),
        ),
    )
    for x, expected in (([1e8, -1e8, 1.0], 1.0), ([1.0, 1e8, -1e8], 0.0)):
        y = np.zeros(1, np.float32)
        run(kernel, {"x": np.array(x, np.float32), "y": y}, 0, 1)
        assert y[0] == expected


def test_failed_checks_are_collected_and_execution_goes_on() -> None:
    body = (Check(op("lt", i, index(2)), 5), Store("y", i, const(1.0, F)))
    y = np.zeros(4, np.float32)
    assert run(Kernel((Buf("y", F, "w"),), (Loop("i", LO, HI, body, "vector", 2),)), {"y": y}, 0, 4) == [5, 5]
    assert y.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("a", "b", "c", "expected"),
    [
        (1 + 2.0**-12, 1 + 2.0**-12, -1.0, 2.0**-11 + 2.0**-24),  # the product's last bit would be lost
        (
            1 + 2.0**-23,
            1 + 2.0**-23,
            2.0**-60,
            1 + 2.0**-22,
        ),  # rounding in double first would be wrong a bit later
        (float("inf"), 0.0, 1.0, float("nan")),
        (-1.0, 0.0, 0.0, 0.0),
        (3e38, 3e38, 0.0, float("inf")),
        (1e-30, 1e-30, 0.0, 0.0),
    ],
)
def test_fused_multiply_add_rounds_once(a: float, b: float, c: float, expected: float) -> None:
    got = fused(F, *(np.float32(v) for v in (a, b, c)))
    np.testing.assert_equal(got, np.float32(expected))


def test_double_rounding_is_avoided() -> None:
    # a*b + c lies just above the middle between two float32 numbers, by less than double can hold.
    a, b, c = np.float32(1 + 2.0**-23), np.float32(2.0**-24), np.float32(1.0)
    tiny = np.float32(2.0**-50)
    assert fused(F, a, b, c) == np.float32(1 + 2.0**-23)
    assert fused(F, tiny, tiny, np.float32(1.0)) == 1


def test_faults() -> None:
    bufs = (Buf("x", F, "r"), Buf("y", F, "w"))
    x, y = np.zeros(3, np.float32), np.zeros(3, np.float32)
    with pytest.raises(KernelFault, match="access to element 3 of x, which has 3"):
        run(Kernel(bufs, (Store("y", index(0), load("x", index(3), F)),)), {"x": x, "y": y}, 0, 1)
    with pytest.raises(KernelFault, match="access to element -1 of y"):
        run(Kernel(bufs, (Store("y", index(-1), const(0.0, F)),)), {"x": x, "y": y}, 0, 1)
    with pytest.raises(KernelFault, match="a is not defined here"):
        body = (Loop("i", LO, HI, (Let("a", load("x", i, F)),)), Store("y", index(0), var("a", F)))
        run(Kernel(bufs, body), {"x": x, "y": y}, 0, 1)
    with pytest.raises(KernelFault, match="buffer x must be a flat array of float32, got float64"):
        run(Kernel(bufs, ()), {"x": x.astype(np.float64), "y": y}, 0, 1)


def test_unwritten_scratch_shows() -> None:
    y = np.zeros(1, np.float32)
    run(
        Kernel((Buf("y", F, "w"),), (Store("y", index(0), load("s", index(0), F)),), (Scratch("s", F, 1),)),
        {"y": y},
        0,
        1,
    )
    assert np.isnan(y[0])

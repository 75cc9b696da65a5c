"""``einsum`` against NumPy: patterns, list form, orders of many operands, their text, derivatives."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import tilewright as tw

PATTERNS = [
    ("ij,jk,kl", (2, 3), (3, 4), (4, 2)), ("ii->i", (3, 3)), ("iij->j", (3, 3, 2)), ("ij->", (2, 3)), ("ba", (2, 3)),
    ("...ij,...jk->...ik", (2, 1, 2, 3), (4, 3, 2)), ("i...->...", (2, 3, 4)), ("a,b,c,d->dbca", (2,), (3,), (2,), (3,)),
    ("ab,bc,cd,de,ef,fg,gh,hi->ai", *[(2, 3), (3, 2)] * 4), ("ab,bc,cd,de,ef,fg,gh,hi,ij->aj", *[(2, 3), (3, 2)] * 4, (2, 3)),
    ("ab,ab,ab->ab", (2, 3), (2, 3), (2, 3)), ("i,i,i->", (3,), (3,), (3,)), ("ij,ij->i", (0, 3), (0, 3)),
    (",ij->ji", (), (2, 3)),
]  # fmt: skip


def arrays(shapes: tuple[tuple[int, ...], ...], dtype: str = "float64") -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.uniform(-2, 2, s).astype(dtype) for s in shapes]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p[0])
def test_patterns(pattern: tuple) -> None:
    text, *shapes = pattern
    for dtype in ("int32", "float64", "complex128"):
        parts = arrays(tuple(shapes), dtype)
        found = tw.einsum(text, *map(tw.Tensor, parts))
        assert_allclose(found.numpy(), np.einsum(text, *parts), atol=1e-12)


def test_list_form() -> None:
    a, b = arrays(((2, 3), (3, 4)))
    x, y = tw.Tensor(a), tw.Tensor(b)
    assert_allclose(tw.einsum(x, [0, 1], y, [1, 2], [2, 0]).numpy(), (a @ b).T)
    assert_allclose(tw.einsum(x, [30, 2], y, [2, 5]).numpy(), np.einsum(a, [30, 2], b, [2, 5]))
    assert_allclose(tw.einsum(x, [..., 0]).numpy(), np.einsum(a, [..., 0]))
    with pytest.raises(tw.ArgumentError, match="operands each followed by a list of integers"):
        tw.einsum(x, ["i", "j"], y, [1, 2])


def test_the_best_order_is_found() -> None:
    shapes = ((50, 2), (2, 60), (60, 3), (3, 70))
    path, text = tw.einsum_path("ab,bc,cd,de->ae", *(tw.zeros(s) for s in shapes))
    assert path[0] == "einsum_path" and len(path) == 4
    best = 2 * 60 * 3 + min(50 * 2 * 3 + 50 * 3 * 70, 2 * 3 * 70 + 50 * 2 * 70)
    assert f"{best} multiplications two at a time" in text
    assert tw.einsum_path("ij->ji", tw.zeros(2, 3))[0] == ["einsum_path"]


def test_derivatives_and_transforms() -> None:
    x, y = map(tw.Tensor, arrays(((3, 3), (3, 2))))
    f = lambda a, b: tw.einsum("ii,ij,kj->ik", a, b, b)  # noqa: E731
    tw.check_grads(f, (x, y), order=2)
    assert_allclose(tw.jit(f)(x, y).numpy(), f(x, y).numpy())
    assert_allclose(tw.vmap(f, in_axes=(0, None))(tw.stack([x, x]), y)[1].numpy(), f(x, y).numpy())

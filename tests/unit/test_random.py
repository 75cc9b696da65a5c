"""Random tensors: repeatable streams, and the distributions they are drawn from."""

import numpy as np
import pytest

import tilewright as tw
from tilewright import random


def test_a_seed_fixes_the_stream() -> None:
    def draw() -> list[np.ndarray]:
        return [
            tw.rand(5).numpy(), tw.randn(2, 3).numpy(), random.randint(0, 100, (4,)).numpy(), random.permutation(10).numpy(),
            random.bernoulli(0.5, (8,)).numpy(), random.uniform(-1, 1, (3,), "float64").numpy(),
        ]  # fmt: skip

    tw.manual_seed(11)
    first = draw()
    second = draw()
    tw.manual_seed(11)
    again = draw()
    for a, b, c in zip(first, again, second, strict=True):
        assert np.array_equal(a, b)
        assert not np.array_equal(a, c)
    tw.manual_seed(12)
    assert not np.array_equal(draw()[0], first[0])


def test_generators_are_independent() -> None:
    one, two = random.Generator(1), random.Generator(1)
    tw.rand(3)
    a = tw.rand(3, generator=one)
    assert a.tolist() == tw.rand(3, generator=two).tolist()
    assert a.tolist() != tw.rand(3, generator=two).tolist()


def test_lazy_draws_do_not_depend_on_the_order_of_reading() -> None:
    tw.manual_seed(3)
    a, b = tw.rand(4), tw.rand(4)
    second_first = b.numpy(), a.numpy()
    tw.manual_seed(3)
    a, b = tw.rand(4), tw.rand(4)
    assert np.array_equal(second_first[1], a.numpy())
    assert np.array_equal(second_first[0], b.numpy())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_uniform_stays_in_its_range(dtype: str) -> None:
    tw.manual_seed(0)
    x = tw.rand(20_000, dtype=dtype)
    values = x.numpy().astype(np.float64)
    assert str(x.dtype) == dtype
    assert values.min() >= 0.0
    assert values.max() < 1.0
    assert values.mean() == pytest.approx(0.5, abs=0.01)
    assert values.var() == pytest.approx(1 / 12, rel=0.03)


def test_normal_moments() -> None:
    tw.manual_seed(0)
    x = random.normal(3.0, 2.0, (40_000,)).numpy().astype(np.float64)
    z = (x - 3) / 2
    assert np.isfinite(x).all()
    assert z.mean() == pytest.approx(0, abs=0.02)
    assert z.std() == pytest.approx(1, abs=0.02)
    assert (z**3).mean() == pytest.approx(0, abs=0.06)
    assert (z**4).mean() == pytest.approx(3, abs=0.15)


@pytest.mark.parametrize(("low", "high"), [(0, 2), (-5, 5), (10, 11), (0, 2**40), (-(2**62), 2**62)])
def test_integers_cover_their_range(low: int, high: int) -> None:
    tw.manual_seed(1)
    x = random.randint(low, high, (5_000,)).numpy()
    assert x.min() >= low
    assert x.max() < high
    if high - low <= 10:
        assert set(x.tolist()) == set(range(low, high))
    else:
        assert float(np.mean(x.astype(np.float64))) == pytest.approx(
            (low + high) / 2, abs=0.03 * (high - low)
        )


def test_permutation_is_one() -> None:
    tw.manual_seed(2)
    order = random.permutation(1000).numpy()
    assert sorted(order.tolist()) == list(range(1000))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1
    rows = tw.arange(12).reshape(6, 2)
    assert sorted(random.permutation(rows).tolist()) == rows.tolist()
    tw.manual_seed(2)
    assert tw.jit(lambda: random.permutation(1000))().tolist() == order.tolist()
    key = random.key(1)
    inside = tw.jit(lambda x, k: random.permutation(x, key=k))(rows, key)
    assert np.array_equal(inside.numpy(), random.permutation(rows, key=key).numpy())
    columns = random.permutation(tw.arange(600).reshape(2, 300), axis=1, independent=True).numpy()
    assert sorted(columns[1].tolist()) == list(range(300, 600))
    assert not np.array_equal(columns[0], columns[1] - 300)


def test_dropout() -> None:
    tw.manual_seed(4)
    x = tw.ones(10_000, requires_grad=True)
    out = random.dropout(x, 0.25)
    values = out.numpy()
    assert set(np.unique(values)) == {0.0, np.float32(1 / 0.75)}
    assert (values == 0).mean() == pytest.approx(0.25, abs=0.02)
    out.sum().backward()
    assert np.array_equal(x.grad.numpy(), values)
    assert random.dropout(x, 0.5, training=False) is x
    assert random.dropout(x, 1.0).numpy().sum() == 0.0


def test_bernoulli_of_probabilities() -> None:
    tw.manual_seed(5)
    p = tw.tensor(np.repeat([0.0, 0.2, 1.0], 4000))
    drawn = random.bernoulli(p).numpy().reshape(3, -1).mean(1)
    assert drawn[0] == 0.0
    assert drawn[1] == pytest.approx(0.2, abs=0.02)
    assert drawn[2] == 1.0


def test_bad_arguments() -> None:
    with pytest.raises(tw.DTypeError, match="seed is an integer"):
        tw.manual_seed(1.5)
    with pytest.raises(tw.ArgumentError, match="0 integers"):
        random.randint(3, 3)
    with pytest.raises(tw.ArgumentError, match=r"`high` is an integer, got \(2,\)"):
        random.randint(3, (2,), (2,))
    with pytest.raises(tw.DTypeError, match="floating"):
        tw.rand(2, dtype="int32")
    with pytest.raises(tw.ArgumentError, match="probability"):
        random.dropout(tw.ones(1), 1.5)


def test_one_bound_and_a_shape() -> None:
    x = random.randint(3, (500,)).numpy()
    assert x.shape == (500,) and set(x) == {0, 1, 2}

"""Every distribution against SciPy's: the distribution function (Kolmogorov-Smirnov), moments and range, at fixed seeds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import random

stats = pytest.importorskip("scipy.stats")

COUNT = 20_000
FLOATS = ("float16", "bfloat16", "float32", "float64")
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 0.0, "float64": 0.0}

# name -> (draw, SciPy's distribution)
CONTINUOUS: dict[str, tuple[Callable[..., tw.Tensor], Any]] = {
    "uniform": (lambda **k: random.uniform(-1.0, 3.0, **k), stats.uniform(-1, 4)),
    "normal": (lambda **k: random.normal(1.0, 2.0, **k), stats.norm(1, 2)),
    "truncated_normal": (lambda **k: random.truncated_normal(-1.0, 2.5, 0.5, 2.0, **k), stats.truncnorm(-0.75, 1, 0.5, 2)),
    "truncated_normal far": (lambda **k: random.truncated_normal(8.0, 9.0, **k), stats.truncnorm(8, 9)),
    "truncated_normal left": (lambda **k: random.truncated_normal(-math.inf, -6.0, **k), stats.truncnorm(-np.inf, -6)),
    "exponential": (lambda **k: random.exponential(0.5, **k), stats.expon(scale=2)),
    "laplace": (lambda **k: random.laplace(-1.0, 2.0, **k), stats.laplace(-1, 2)),
    "gumbel": (lambda **k: random.gumbel(1.0, 0.5, **k), stats.gumbel_r(1, 0.5)),
    "logistic": (lambda **k: random.logistic(1.0, 2.0, **k), stats.logistic(1, 2)),
    "cauchy": (lambda **k: random.cauchy(1.0, 2.0, **k), stats.cauchy(1, 2)),
    "gamma": (lambda **k: random.gamma(3.5, 2.0, **k), stats.gamma(3.5, scale=0.5)),
    "gamma small": (lambda **k: random.gamma(0.3, **k), stats.gamma(0.3)),
    "gamma one": (lambda **k: random.gamma(1.0, **k), stats.gamma(1)),
    "gamma large": (lambda **k: random.gamma(400.0, **k), stats.gamma(400)),
    "beta": (lambda **k: random.beta(2.0, 0.7, **k), stats.beta(2, 0.7)),
    "beta small": (lambda **k: random.beta(0.4, 0.5, **k), stats.beta(0.4, 0.5)),
    "dirichlet": (lambda shape, **k: random.dirichlet(tw.tensor([1.5, 2.0, 3.0]), shape, **k)[:, 0], stats.beta(1.5, 5)),
    "orthogonal": (lambda shape, **k: random.orthogonal(2, shape, **k)[:, 0, 0], stats.arcsine(-1, 2)),
    "multivariate_normal": (
        lambda shape, **k: random.multivariate_normal(
            tw.tensor([1.0, 2.0]), tw.tensor([[2.0, 1.0], [1.0, 3.0]]), shape, **k
        )[:, 1],
        stats.norm(2, 3**0.5),
    ),
}  # fmt: skip

OF_THREE = stats.rv_discrete(values=([0, 1, 2], [0.1, 0.2, 0.7]))
DISCRETE: dict[str, tuple[Callable[..., tw.Tensor], Any]] = {
    "bernoulli": (lambda **k: random.bernoulli(0.3, **k), stats.bernoulli(0.3)),
    "geometric": (lambda **k: random.geometric(0.2, **k), stats.geom(0.2)),
    "poisson": (lambda **k: random.poisson(3.5, **k), stats.poisson(3.5)),
    "poisson rare": (lambda **k: random.poisson(0.01, **k), stats.poisson(0.01)),
    "poisson ten": (lambda **k: random.poisson(10.0, **k), stats.poisson(10)),
    "poisson large": (lambda **k: random.poisson(250.5, **k), stats.poisson(250.5)),
    "poisson huge": (lambda **k: random.poisson(1e8, **k), stats.poisson(1e8)),
    "binomial": (lambda **k: random.binomial(12, 0.3, **k), stats.binom(12, 0.3)),
    "binomial often": (lambda **k: random.binomial(40, 0.9, **k), stats.binom(40, 0.9)),
    "binomial large": (lambda **k: random.binomial(500, 0.37, **k), stats.binom(500, 0.37)),
    "binomial rare": (lambda **k: random.binomial(10**7, 2e-7, **k), stats.binom(10**7, 2e-7)),
    "randint": (lambda **k: random.randint(-3, 9, **k), stats.randint(-3, 9)),
    "categorical": (lambda **k: random.categorical(tw.tensor([0.1, 0.2, 0.7]).log(), **k), OF_THREE),
    "choice": (lambda **k: random.choice(3, p=[1, 2, 7], **k), OF_THREE),
}  # fmt: skip


def key_for(*names: str) -> tw.Tensor:
    """A key of its own for each test, the same in every run."""
    return random.key(sum(ord(c) * 31**i for i, c in enumerate(":".join(names))))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("name", CONTINUOUS)
def test_continuous(name: str, dtype: str) -> None:
    draw, expected = CONTINUOUS[name]
    drawn = draw(shape=(COUNT,), dtype=dtype, key=key_for(name))
    assert str(drawn.dtype) == dtype
    x = drawn.numpy().astype(np.float64)
    assert not np.isnan(x).any()
    # What rounding does to the distribution function: the density times half a step, over the bulk of the numbers.
    rounding = ROUNDING[dtype]
    if rounding:
        at = expected.ppf(np.linspace(0.02, 0.98, 97))
        rounding *= float(np.max(expected.pdf(at) * np.maximum(np.abs(at), 1e-3)))
    assert stats.kstest(x, expected.cdf).statistic < 1.7 / COUNT**0.5 + rounding
    low, high = expected.support()
    assert x.min() >= (low - 2 * ROUNDING[dtype] * abs(low) if np.isfinite(low) else low)
    assert x.max() <= (high + 2 * ROUNDING[dtype] * abs(high) if np.isfinite(high) else high)
    if name != "cauchy":
        spread = expected.std()
        assert abs(x.mean() - expected.mean()) < 5 * spread / COUNT**0.5 + ROUNDING[dtype] * abs(
            expected.mean()
        )
        kurtosis = float(expected.stats(moments="k"))
        allowed = (
            5 * ((kurtosis + 2) / COUNT) ** 0.5
            + 4 * ROUNDING[dtype] * (1 + abs(expected.mean()) / spread) ** 2
        )
        assert x.var() == pytest.approx(expected.var(), rel=allowed)


@pytest.mark.parametrize("name", DISCRETE)
def test_discrete(name: str) -> None:
    draw, expected = DISCRETE[name]
    x = draw(shape=(COUNT,), key=key_for(name)).numpy().astype(np.float64)
    spread = expected.std()
    assert abs(x.mean() - expected.mean()) < 5 * spread / COUNT**0.5
    kurtosis = float(expected.stats(moments="k"))
    assert x.var() == pytest.approx(expected.var(), rel=5 * ((kurtosis + 2) / COUNT) ** 0.5)
    low, high = expected.support()
    assert low <= x.min() and x.max() <= high
    # chi-squared over bins of at least twenty expected counts
    edges = np.unique(expected.ppf(np.linspace(0.005, 0.995, 60)))
    bins = np.concatenate([[-np.inf], edges, [np.inf]])
    wanted = np.diff(np.concatenate([[0.0], expected.cdf(edges), [1.0]])) * COUNT
    found = np.histogram(-x, -bins[::-1])[0][::-1]  # bins (a, b], as distribution functions count
    keep = wanted > 20
    found = np.append(found[keep], found[~keep].sum())
    wanted = np.append(wanted[keep], wanted[~keep].sum())
    found, wanted = found[wanted > 0], wanted[wanted > 0]
    if len(found) > 1:
        assert stats.chisquare(found, wanted * found.sum() / wanted.sum()).pvalue > 1e-3


@pytest.mark.parametrize("dtype", FLOATS)
def test_uniform_never_returns_its_upper_bound(dtype: str) -> None:
    key = random.key(3)
    for low, high in ((0.0, 1.0), (1.0, 2.0), (-3.0, 1e-3), (100.0, 101.0), (5.0, 5.0), (0.1, 0.3)):
        x = random.uniform(low, high, (200_000,), dtype, key=key).numpy().astype(np.float64)
        y = (
            random.uniform(tw.tensor(low), tw.tensor(high), (200_000,), dtype, key=key)
            .numpy()
            .astype(np.float64)
        )
        first, last = (
            float(np.asarray(v, x.dtype).astype(tw.zeros((), dtype=dtype).numpy().dtype)) for v in (low, high)
        )
        for drawn in (x, y):
            assert drawn.min() >= first
            assert drawn.max() < last or first == last == drawn.max()


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_of_whole_types(dtype: str) -> None:
    info = np.iinfo(dtype)
    span = int(info.max) - int(info.min) + 1
    for low, high in (
        (info.min, int(info.max) + 1),
        (info.min, info.max),
        (int(info.min) + 1, int(info.max) + 1),
        (info.max // 3, info.max),
    ):
        x = random.randint(int(low), int(high), (COUNT,), dtype, key=random.key(7)).numpy()
        assert str(x.dtype) == dtype
        exact = [int(v) for v in x]
        assert min(exact) >= int(low) and max(exact) < int(high)
        share = np.array([(v - int(low)) / (int(high) - int(low)) for v in exact])
        assert stats.kstest(share, "uniform").statistic < 1.7 / COUNT**0.5 + 1.0 / (int(high) - int(low))
    if span <= 1 << 16:
        assert (
            len(
                set(
                    random.randint(
                        int(info.min),
                        int(info.max) + 1,
                        (40 * span if span < 300 else 20 * span,),
                        dtype,
                        key=random.key(1),
                    ).tolist()
                )
            )
            == span
        )


def test_a_range_above_half_of_64_bits_is_not_biased() -> None:
    """A remainder of 64 bits would give numbers below 2^62 twice as often."""
    x = random.randint(0, 3 << 62, (COUNT,), "uint64", key=random.key(5)).numpy()
    assert abs((x < 1 << 62).mean() - 1 / 3) < 5 * (2 / 9 / COUNT) ** 0.5


def test_integers_between_tensors() -> None:
    low, high = tw.tensor([[-5], [10]]), tw.tensor([-4, 20, 2**62])
    x = random.randint(low, high, (4000, 2, 3), key=random.key(2)).numpy()
    assert (x >= low.numpy()).all() and (x < high.numpy()).sum() == x.size - 4000  # [10, -4) is empty: low
    assert (x[:, 0, 0] == -5).all()
    assert set(x[:, 1, 1].tolist()) == set(range(10, 20))
    assert x[:, 0, 2].mean(dtype=np.float64) == pytest.approx(2**61, rel=0.05)


def test_rare_events_have_their_probability() -> None:
    """A uniform float32 has steps of 2^-24: it would be below 1e-8 six times too often, and below 1e-9 sixty times."""
    assert random.bernoulli(1e-8, (1 << 24,), key=random.key(0)).sum().item() <= 3
    g = random.gumbel(shape=(1 << 22,), key=random.key(1)).numpy()
    assert g.max() > 13.0


def test_half_types_of_large_range() -> None:
    x = random.gamma(0.01, shape=(COUNT,), dtype="float64", key=random.key(3)).numpy()
    assert (x >= 0).all() and stats.kstest(x, stats.gamma(0.01).cdf).statistic < 1.7 / COUNT**0.5
    y = random.dirichlet(tw.full((5,), 0.01), (200,), key=random.key(4)).numpy()
    assert np.isfinite(y).all()
    assert y.sum(-1) == pytest.approx(1.0, abs=1e-5)


def test_matrices() -> None:
    q = random.orthogonal(5, (3,), "float64", key=random.key(0)).numpy()
    assert np.allclose(q @ q.transpose(0, 2, 1), np.eye(5))
    cov = np.array([[2.0, -1.0], [-1.0, 3.0]])
    x = random.multivariate_normal(
        tw.zeros(2, dtype="float64"), tw.tensor(cov), (COUNT,), key=random.key(1)
    ).numpy()
    assert np.cov(x.T) == pytest.approx(cov, abs=0.12)
    d = random.dirichlet(tw.tensor([1.0, 2.0, 5.0]), (COUNT,), key=random.key(2)).numpy()
    assert d.mean(0) == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=0.01)


def test_permutations_are_equally_likely() -> None:
    orders = tw.vmap(lambda k: random.permutation(3, key=k))(random.split(random.key(0), 6000)).numpy()
    counts = np.unique(orders @ [9, 3, 1], return_counts=True)[1]
    assert len(counts) == 6 and stats.chisquare(counts).pvalue > 1e-3


def test_choice_without_replacement() -> None:
    assert sorted(
        random.choice(6, (2, 3), replace=False, key=random.key(0)).numpy().ravel().tolist()
    ) == list(range(6))
    p = [0.5, 0.3, 0.2, 0.0]
    drawn = tw.vmap(lambda k: random.choice(4, (2,), False, p, key=k))(
        random.split(random.key(1), 6000)
    ).numpy()
    assert drawn.max() == 2 and (drawn[:, 0] != drawn[:, 1]).all()
    assert np.bincount(drawn[:, 0]) / 6000 == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    after = drawn[drawn[:, 0] == 0, 1]  # what is left is chosen in proportion
    assert (after == 1).mean() == pytest.approx(0.6, abs=0.04)
    rows = tw.arange(12).reshape(3, 4)
    assert random.choice(rows, (5, 2), axis=1, key=random.key(2)).shape == (3, 5, 2)


# ---- gradients with respect to parameters ------------------------------------------------------------------------

PATHS: dict[str, tuple[Callable[..., tw.Tensor], list[float]]] = {
    "uniform": (random.uniform, [-1.0, 2.0]),
    "normal": (random.normal, [1.0, 2.0]),
    "exponential": (random.exponential, [0.7]),
    "laplace": (random.laplace, [1.0, 2.0]),
    "gumbel": (random.gumbel, [1.0, 2.0]),
    "logistic": (random.logistic, [1.0, 2.0]),
    "cauchy": (random.cauchy, [1.0, 2.0]),
    "truncated_normal": (random.truncated_normal, [-1.0, 2.0, 0.5, 1.5]),
    "truncated_normal far": (random.truncated_normal, [6.0, 9.0, 0.0, 1.0]),
}


@pytest.mark.parametrize("name", PATHS)
def test_gradients_of_reparameterised_draws(name: str) -> None:
    draw, values = PATHS[name]
    key = random.key(11)

    def f(*parameters: tw.Tensor) -> tw.Tensor:
        return draw(*parameters, shape=(50,), dtype="float64", key=key)

    tw.check_grads(f, [tw.tensor(v, dtype="float64") for v in values], order=1)


@pytest.mark.parametrize("concentration", [0.05, 0.4, 1.0, 2.5, 12.0, 29.0, 31.0, 200.0])
def test_implicit_gradients_of_gamma(concentration: float) -> None:
    """Against the quantile function: x = F^-1(F(x; a); a + h)."""
    special = pytest.importorskip("scipy.special")
    key = random.key(5)
    a = tw.full((300,), concentration, dtype="float64").requires_grad_()
    x = random.gamma(a, key=key)
    x.sum().backward()
    drawn, h = x.numpy(), 1e-5 * concentration
    u, keep = special.gammainc(concentration, drawn), special.gammaincc(concentration, drawn)
    up, down = (
        np.where(u < 0.5, special.gammaincinv(c, u), special.gammainccinv(c, keep))
        for c in (concentration + h, concentration - h)
    )
    expected = (up - down) / (2 * h)
    fine = drawn > 1e-250
    assert a.grad.numpy()[fine] == pytest.approx(
        expected[fine], rel=2e-4 if concentration < 30 else 2e-3, abs=1e-7
    )


def test_gradients_of_beta_and_dirichlet() -> None:
    """The mean of beta(a, b) numbers is a / (a + b); so is the mean of their gradients its derivative."""
    a, b = (tw.full((40_000,), v).requires_grad_() for v in (2.0, 3.0))
    random.beta(a, b, key=random.key(1)).sum().backward()
    assert a.grad.numpy().mean() == pytest.approx(3 / 25, rel=0.03)
    assert b.grad.numpy().mean() == pytest.approx(-2 / 25, rel=0.03)
    c = tw.tensor([1.0, 2.0, 3.0], requires_grad=True)
    random.dirichlet(c, (40_000,), key=random.key(2))[:, 0].mean().backward()
    assert c.grad.numpy() == pytest.approx([5 / 36, -1 / 36, -1 / 36], abs=0.005)

"""Special functions: accuracy against mpmath, edges and everyday arguments against SciPy, derivatives, transforms."""

import math
from collections.abc import Callable
from typing import Any

import mpmath as mp
import numpy as np
import pytest
import scipy.special
from numpy.testing import assert_allclose, assert_array_equal

import tilewright as tw
from tilewright import special

Array = np.ndarray[Any, Any]


def spread(low: float, high: float, count: int = 150, seed: int = 0) -> Array:
    """Numbers between two, half of them evenly and half by their logarithms."""
    rng = np.random.default_rng(seed)
    even = rng.uniform(low, high, count)
    if low <= 0:
        return even
    return np.concatenate([even, np.exp(rng.uniform(math.log(low), math.log(high), count))])


BOTH = np.concatenate([spread(1e-10, 5.0), -spread(1e-10, 5.0)])

# Function, its true value, arguments, and the largest error in units of the last place (float64) that is promised.
ACCURACY: dict[str, tuple[Callable[..., tw.Tensor], Callable[..., Any], Array, float]] = {
    "gammaln": (special.gammaln, mp.loggamma, spread(1e-12, 500.0), 5),
    "gammaln large": (special.gammaln, mp.loggamma, spread(500.0, 1e300), 5),
    "gamma": (special.gamma, mp.gamma, spread(1e-12, 171.0), 8),
    "gamma negative": (special.gamma, mp.gamma, -spread(1e-12, 20.0), 12),
    "rgamma": (special.rgamma, mp.rgamma, spread(1e-12, 171.0), 9),
    "digamma": (special.digamma, mp.digamma, spread(1e-12, 1e6), 8),
    "digamma near its zero": (special.digamma, mp.digamma, spread(1.44, 1.48), 8),
    "trigamma": (lambda x: special.polygamma(1, x), lambda x: mp.polygamma(1, x), spread(1e-12, 1e6), 10),
    "polygamma 4": (lambda x: special.polygamma(4, x), lambda x: mp.polygamma(4, x), spread(1e-3, 1e4), 15),
    "erfc": (special.erfc, mp.erfc, np.concatenate([BOTH, spread(0.5, 26.0)]), 6),
    "erfcx": (
        special.erfcx,
        lambda x: mp.exp(x * x) * mp.erfc(x),
        np.concatenate([BOTH, spread(0.1, 1e3)]),
        8,
    ),
    "erfinv": (special.erfinv, mp.erfinv, np.concatenate([spread(1e-12, 1.0), -spread(0.5, 1.0)]), 6),
    "ndtr": (special.ndtr, mp.ncdf, np.concatenate([BOTH, -spread(5.0, 37.0)]), 8),
    "i0": (special.i0, lambda x: mp.besseli(0, x), spread(1e-8, 700.0), 10),
    "i1": (special.i1, lambda x: mp.besseli(1, x), spread(1e-8, 700.0), 10),
    "i0e": (special.i0e, lambda x: mp.exp(-x) * mp.besseli(0, x), spread(1e-8, 700.0), 10),
    "i1e": (special.i1e, lambda x: mp.exp(-x) * mp.besseli(1, x), spread(1e-8, 700.0), 10),
    "zeta": (special.zeta, mp.zeta, spread(1.001, 60.0), 6),
    "logit": (special.logit, lambda p: mp.log(p / (1 - p)), spread(1e-12, 1.0), 5),
    "sinc": (special.sinc, mp.sincpi, spread(1e-12, 30.0), 6),
    "entr": (special.entr, lambda x: -x * mp.log(x), spread(1e-12, 1e3), 4),
}


def ulps(found: Array, truth: list[Any]) -> float:
    worst = 0.0
    for one, true in zip(found.astype(np.float64).tolist(), truth, strict=True):
        true = mp.re(true)
        unit = float(np.spacing(found.dtype.type(abs(float(true)))))
        worst = max(worst, float(abs(mp.mpf(one) - true)) / unit)
    return worst


def measured(name: str, dtype: str) -> float:
    function, true, points, _ = ACCURACY[name]
    with np.errstate(over="ignore"):
        points = points.astype(dtype)
    points = points[np.isfinite(points)]
    with mp.workdps(40):
        truth = [true(mp.mpf(float(p))) for p in points.astype(np.float64)]
    found = function(tw.Tensor(points)).numpy()
    sizes = [abs(mp.re(t)) for t in truth]
    normal = np.array([float(np.finfo(dtype).tiny) < t < float(np.finfo(dtype).max) for t in sizes])
    return ulps(found[normal], [t for t, n in zip(truth, normal, strict=True) if n])


@pytest.mark.parametrize("name", ACCURACY)
def test_accuracy(name: str) -> None:
    assert measured(name, "float64") <= ACCURACY[name][3]
    assert measured(name, "float32") <= 0.51


def test_inverses_in_the_tails() -> None:
    p = np.exp(-spread(0.8, 700.0))
    with mp.workdps(40):
        truth = []
        for one, start in zip(p.tolist(), special.ndtri(tw.Tensor(p)).tolist(), strict=True):
            x = mp.mpf(start)
            for _ in range(2):
                x -= (mp.ncdf(x) - mp.mpf(one)) / mp.npdf(x)
            truth.append(x)
    assert ulps(special.ndtri(tw.Tensor(p)).numpy(), truth) <= 8
    x = -spread(1e-3, 1e8)
    with mp.workdps(40):
        logs = [mp.log(mp.erfc(-mp.mpf(v) / mp.sqrt(2)) / 2) for v in x.tolist()]
    assert ulps(special.log_ndtr(tw.Tensor(x)).numpy(), logs) <= 8


EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    -2.0,
    0.5,
    -0.5,
    -1.5,
    2.0,
    3.0,
    10.0,
    150.0,
    1e10,
    1e300,
    5e-324,
    math.inf,
    -math.inf,
    math.nan,
]
ONE = [
    "gamma", "gammaln", "gammasgn", "rgamma", "digamma", "erfc", "erfcx", "erfinv", "ndtr", "log_ndtr", "ndtri", "erfcinv", "i0",
    "i0e", "i1", "i1e", "entr", "logit", "expit",
]  # fmt: skip


# Where SciPy gives something else: NaN for I(inf), -inf for gammaln(-inf), the sign of a pole, digits of a subnormal probability.
ELSEWHERE: dict[str, tuple[float, ...]] = {
    "digamma": (0.0,), "gammaln": (-math.inf,), "gammasgn": (-math.inf,), "i0": (math.inf, -math.inf),
    "i1": (math.inf, -math.inf, 5e-324), "ndtri": (5e-324,),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE)
def test_edges_are_scipys(name: str) -> None:
    points = np.array(EDGES)
    points = points[~np.isin(points, ELSEWHERE.get(name, ()))]
    with np.errstate(all="ignore"):
        expected = getattr(scipy.special, name)(points)
    found = getattr(special, name)(tw.Tensor(points)).numpy()
    assert_allclose(found, expected, rtol=1e-13, atol=1e-300)


def test_negative_arguments() -> None:
    x = -spread(0.01, 30.0)
    assert_allclose(special.gammaln(tw.Tensor(x)).numpy(), scipy.special.gammaln(x), rtol=1e-11, atol=1e-12)
    assert_allclose(special.digamma(tw.Tensor(x)).numpy(), scipy.special.digamma(x), rtol=1e-10, atol=1e-10)
    for n in range(1, 5):
        with mp.workdps(30):
            truth = [float(mp.polygamma(n, mp.mpf(v))) for v in x.tolist()]
        assert_allclose(special.polygamma(n, tw.Tensor(x)).numpy(), truth, rtol=1e-9)
    assert_array_equal(
        special.polygamma(1, tw.Tensor([0.0, -2.0, math.inf])).numpy(), [math.inf, math.inf, 0.0]
    )


TWO: dict[str, tuple[Array, Array]] = {
    "beta": (spread(0.01, 300.0), spread(0.01, 300.0, seed=1)),
    "betaln": (spread(0.01, 100.0), spread(0.01, 100.0, seed=1)),
    "zeta": (spread(1.01, 30.0), spread(0.01, 1e3, seed=1)),
    "xlogy": (spread(0.1, 9.0), spread(0.1, 9.0, seed=1)),
    "xlog1py": (spread(0.1, 9.0), spread(-0.9, 9.0, 300, seed=1)),
    "rel_entr": (spread(0.1, 9.0), spread(0.1, 9.0, seed=1)),
    "kl_div": (spread(0.1, 9.0), spread(20.0, 90.0, seed=1)),
    "poch": (spread(0.1, 200.0), spread(0.1, 30.0, seed=1)),
    "comb": (spread(30.0, 90.0), spread(0.1, 29.0, seed=1)),
    "perm": (spread(30.0, 90.0), spread(0.1, 29.0, seed=1)),
    "gammainc": (spread(0.1, 90.0), spread(0.1, 90.0, seed=1)),
    "gammaincc": (spread(0.1, 90.0), spread(0.1, 90.0, seed=1)),
}


@pytest.mark.parametrize("name", TWO)
def test_functions_of_two_arguments(name: str) -> None:
    a, b = TWO[name]
    expected = getattr(scipy.special, name)(a, b)
    assert_allclose(getattr(special, name)(tw.Tensor(a), tw.Tensor(b)).numpy(), expected, rtol=2e-12)
    found = getattr(special, name)(
        tw.Tensor(a[:3].astype("float32"))[:, None], tw.Tensor(b[:4].astype("float32"))
    )
    assert found.dtype is tw.float32 and found.shape == (3, 4)


def test_betaln_of_large_arguments() -> None:
    a, b = spread(0.01, 1e8, 60), spread(0.01, 1e8, 60, seed=1)
    with mp.workdps(60):
        pairs = [(mp.mpf(p), mp.mpf(q)) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
        truth = [float(mp.loggamma(p) + mp.loggamma(q) - mp.loggamma(p + q)) for p, q in pairs]
    assert_allclose(special.betaln(tw.Tensor(a), tw.Tensor(b)).numpy(), truth, rtol=1e-14)


def test_edges_of_two_arguments() -> None:
    points = np.array([0.0, 1.0, -1.0, 2.5, math.inf, math.nan])
    a, b = np.meshgrid(points, points)
    for name in ("xlogy", "xlog1py", "rel_entr"):
        with np.errstate(all="ignore"):
            expected = getattr(scipy.special, name)(a, b)
        assert_allclose(getattr(special, name)(tw.Tensor(a), tw.Tensor(b)).numpy(), expected)


def test_whole_numbers_are_exact() -> None:
    n = np.arange(23)
    assert_array_equal(
        special.factorial(tw.Tensor(n.astype("float64"))).numpy(), [math.factorial(k) for k in n]
    )
    assert special.factorial(tw.Tensor([-1.0, math.nan])).tolist()[0] == 0
    top, chosen = np.meshgrid(np.arange(40.0), np.arange(40.0))
    expected = [[math.comb(int(i), int(j)) for i in range(40)] for j in range(40)]
    assert_array_equal(special.comb(tw.Tensor(top), tw.Tensor(chosen)).numpy(), expected)
    assert special.comb(tw.Tensor([5, 6]), 2).tolist() == [10.0, 15.0]
    a = np.array([3.0, 9.5])
    expected = [scipy.special.multigammaln(v, 4) for v in a]
    assert_allclose(special.multigammaln(tw.Tensor(a), 4).numpy(), expected, rtol=1e-13)


def test_incomplete_beta() -> None:
    x = np.linspace(0, 1, 9)
    expected = scipy.special.betainc(2.0, 3.5, x)
    assert_allclose(special.betainc(2.0, 3.5, tw.Tensor(x)).numpy(), expected, rtol=1e-14)
    tw.check_grads(lambda v: special.betainc(2.0, 3.5, v), (tw.Tensor(x[1:-1]),), order=2)
    with pytest.raises(tw.GradientError, match="betainc with respect to `a` or `b`"):
        tw.grad(lambda a: special.betainc(a, 3.5, 0.5))(tw.tensor(2.0))


INSIDE = np.array([0.2, 0.9, 1.3, 3.3, 9.7])
RIGHT = [
    "gamma",
    "gammaln",
    "rgamma",
    "digamma",
    "erfc",
    "erfcx",
    "ndtr",
    "log_ndtr",
    "i0e",
    "i1e",
    "entr",
    "expit",
    "sinc",
]
LEFT = ["gamma", "gammaln", "digamma", "erfc", "erfcx", "ndtr", "log_ndtr", "i0", "i1", "sinc"]
UNIT = ["erfinv", "ndtri", "erfcinv", "logit"]
PAIRS = ["beta", "betaln", "xlogy", "xlog1py", "rel_entr", "kl_div", "gammainc", "gammaincc", "poch"]
DIFFERENTIABLE: dict[str, tuple[Callable[..., tw.Tensor], tuple[Array, ...]]] = {
    **{name: (getattr(special, name), (INSIDE,)) for name in RIGHT},
    **{f"{name} left": (getattr(special, name), (0.5 - 0.35 * INSIDE,)) for name in LEFT},
    **{name: (getattr(special, name), (np.array([0.01, 0.3, 0.5, 0.9]),)) for name in UNIT},
    **{name: (getattr(special, name), (INSIDE, INSIDE[::-1].copy())) for name in PAIRS},
    "polygamma": (lambda x: special.polygamma(2, x), (INSIDE,)),
    "factorial": (special.factorial, (np.array([0.2, 1.0, 2.5, 4.0]),)),
    "zeta": (special.zeta, (1.2 + INSIDE[:3], INSIDE[:3])),
    "comb": (special.comb, (np.array([5.0, 6.5]), np.array([2.0, 2.5]))),
    "bessel at 0": (special.i1, (np.array([0.0, 7.9, 8.1]),)),
    "sinc at 0": (special.sinc, (np.array([0.0, 1e-5]),)),
}  # fmt: skip


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_derivatives(name: str) -> None:
    function, points = DIFFERENTIABLE[name]

    def scaled(*args: tw.Tensor) -> tw.Tensor:
        return function(*args) * scale

    scale = 1 / max(1.0, float(np.abs(function(*map(tw.Tensor, points)).numpy()).max()))
    tw.check_grads(scaled, tuple(map(tw.Tensor, points)), order=2, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_jit_and_vmap_agree_with_eager(name: str) -> None:
    function, points = DIFFERENTIABLE[name]
    args = tuple(map(tw.Tensor, points))
    expected = function(*args).numpy()
    assert_allclose(tw.jit(function)(*args).numpy(), expected, rtol=1e-14)
    assert_allclose(tw.vmap(function)(*args).numpy(), expected, rtol=1e-14)
    slopes = tw.vmap(tw.grad(function))(*args).numpy()
    assert_allclose(
        slopes, [tw.grad(function)(*each).item() for each in zip(*args, strict=True)], rtol=1e-11, atol=1e-13
    )


@pytest.mark.parametrize("shape", [(), (0,), (1, 1), (2, 0, 3)])
def test_odd_shapes_and_types(shape: tuple[int, ...]) -> None:
    for name in ONE:
        found = getattr(special, name)(tw.full(shape, 0.5, dtype="float16"))
        assert found.shape == shape and found.dtype is tw.float16
        assert_allclose(found.numpy(), np.full(shape, getattr(scipy.special, name)(0.5)), rtol=1e-3)


def test_bad_operands() -> None:
    with pytest.raises(tw.DTypeError, match="gamma: takes real elements, got complex64"):
        special.gamma(tw.Tensor([1j]))
    with pytest.raises(tw.ArgumentError, match="polygamma: `n` is an integer from 0"):
        special.polygamma(-1, tw.Tensor(1.0))
    with pytest.raises(tw.ShapeError, match="beta: shapes"):
        special.beta(tw.ones(2), tw.ones(3))


def test_scipy_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r'gammainc: needs SciPy: `pip install "tilewright\[scipy\]"`'):
        special.gammainc(1.0, tw.Tensor(1.0))

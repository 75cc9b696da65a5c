"""Keys and streams: the generator's published answers, and equal numbers eager, jitted, batched, looped, at any thread count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import random
from tilewright.graph.ir import input_value, make
from tilewright.graph.reference import evaluate

# name -> a draw of a shape with a key
DRAWS: dict[str, Callable[..., tw.Tensor]] = {
    "bits": random.bits,
    "uniform": lambda s, **k: random.uniform(-1.0, 2.0, s, **k),
    "uniform64": lambda s, **k: random.uniform(shape=s, dtype="float64", **k),
    "normal": lambda s, **k: random.normal(shape=s, **k),
    "normal64": lambda s, **k: random.normal(shape=s, dtype="float64", **k),
    "truncated_normal": lambda s, **k: random.truncated_normal(shape=s, **k),
    "exponential": lambda s, **k: random.exponential(shape=s, **k),
    "laplace": lambda s, **k: random.laplace(shape=s, **k),
    "gumbel": lambda s, **k: random.gumbel(shape=s, **k),
    "logistic": lambda s, **k: random.logistic(shape=s, **k),
    "cauchy": lambda s, **k: random.cauchy(shape=s, **k),
    "gamma": lambda s, **k: random.gamma(0.7, shape=s, **k),
    "beta": lambda s, **k: random.beta(0.7, 2.0, shape=s, **k),
    "dirichlet": lambda s, **k: random.dirichlet(tw.tensor([1.0, 2.0]), s, **k),
    "multivariate_normal": lambda s, **k: random.multivariate_normal(tw.zeros(2), tw.eye(2), s, **k),
    "orthogonal": lambda s, **k: random.orthogonal(2, s, **k),
    "randint": lambda s, **k: random.randint(-7, 1000, s, **k),
    "randint wide": lambda s, **k: random.randint(-(2**62), 2**62 + 5, s, **k),
    "bernoulli": lambda s, **k: random.bernoulli(0.3, s, **k),
    "rademacher": random.rademacher,
    "geometric": lambda s, **k: random.geometric(0.1, s, **k),
    "poisson": lambda s, **k: random.poisson(tw.tensor([3.0, 40.0, 0.5, 12.0, 7.0]), s, **k),
    "binomial": lambda s, **k: random.binomial(60, 0.4, s, **k),
    "categorical": lambda s, **k: random.categorical(tw.tensor([0.0, 1.0, 2.0]), shape=s, **k),
    "choice": lambda s, **k: random.choice(30, s, replace=False, **k),
    "choice weighted": lambda s, **k: random.choice(4, s, p=[1, 2, 3, 4], **k),
    "permutation": lambda s, **k: random.permutation(tw.arange(10).reshape(2, 5), axis=1, independent=True, **k),
    "dropout": lambda s, **k: random.dropout(tw.ones(s), 0.4, **k),
}  # fmt: skip
SHAPE = (4, 5)


def same(a: Any, b: Any) -> bool:
    """Bit for bit."""
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_published_answers_of_threefry(counter: Any, key: Any, expected: Any) -> None:
    """The vectors of Salmon et al.'s Random123 for Threefry-2x32 with 20 rounds."""
    k, start = (tw.tensor(np.array(v, np.uint32)) for v in (key, counter))
    words = [tw.tensor([0], dtype="uint32") * 0 + _block(k, start, word) for word in (0, 1)]
    assert [w.item() for w in words] == list(expected)


def _block(key: tw.Tensor, start: tw.Tensor, word: int) -> tw.Tensor:
    from tilewright.tensor import from_value, operand_value

    value = make("random_bits", (operand_value(key), operand_value(start)), shape=(1,), word=word)
    leaves = [input_value(t.dtype, t.shape) for t in (key, start)]
    again = make("random_bits", leaves, shape=(1,), word=word)
    (reference,) = evaluate([again], dict(zip(leaves, (key.numpy(), start.numpy()), strict=True)))
    out = from_value(value, (key, start))
    assert same(out, reference)
    return out


def test_seeds_have_the_numbers_they_always_had() -> None:
    """Saved seeds must go on giving the same numbers."""
    key = random.key(2024)
    assert key.tolist() == [4170116309, 2674757612]
    assert random.split(key)[1].tolist() == [2093177143, 2554910213]
    assert random.bits(2, key=key).tolist() == [2273869586, 4274073910]
    assert random.uniform(shape=3, key=key).tolist() == [
        0.5294265151023865,
        0.9951353669166565,
        0.8493839502334595,
    ]
    assert random.randint(0, 1000, (4,), key=key).tolist() == [529, 995, 849, 666]
    assert random.split(key, 3).numpy()[2].tolist() == random.fold_in(key, 2).tolist()


@pytest.mark.parametrize("name", DRAWS)
def test_one_stream_eager_jitted_and_batched(name: str) -> None:
    draw = DRAWS[name]
    keys = random.split(random.key(9), 3)
    alone = [draw(SHAPE, key=k).numpy() for k in keys]
    jitted = tw.jit(lambda k: draw(SHAPE, key=k))
    batched = tw.vmap(lambda k: draw(SHAPE, key=k))
    at_once = batched(keys).numpy()
    compiled = tw.jit(batched)(keys).numpy()
    for n, expected in enumerate(alone):
        assert same(jitted(keys[n]), expected)
        assert same(at_once[n], expected)
        assert same(compiled[n], expected)
    assert not same(alone[0], alone[1])


@pytest.mark.parametrize("name", DRAWS)
def test_the_default_generator_draws_as_its_key_does(name: str) -> None:
    tw.manual_seed(3)
    first, second = DRAWS[name](SHAPE).numpy(), DRAWS[name](SHAPE).numpy()
    generator = random.Generator(3)
    assert same(first, DRAWS[name](SHAPE, key=generator.next_key()))
    assert same(second, DRAWS[name](SHAPE, generator=generator))
    tw.manual_seed(3)
    jitted = tw.jit(lambda: DRAWS[name](SHAPE))
    assert same(first, jitted())
    assert same(second, jitted())


def test_draws_do_not_depend_on_the_number_of_threads() -> None:
    before = tw.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            tw.set_num_threads(threads)
            found.append([draw((300, 5) if name != "choice" else SHAPE, key=random.key(1)).numpy().tobytes()
                          for name, draw in DRAWS.items()])  # fmt: skip
    finally:
        tw.set_num_threads(before)
    assert found[0] == found[1] == found[2]


def test_keys_in_loops() -> None:
    key = random.key(4)
    _, drawn = tw.scan(
        lambda c, i: (c, random.normal(shape=(3,), key=random.fold_in(key, i))), tw.zeros(()), tw.arange(5)
    )
    for i in range(5):
        assert same(drawn[i], random.normal(shape=(3,), key=random.fold_in(key, i)))

    def chained(carry: tw.Tensor, _: Any) -> tuple[tw.Tensor, tw.Tensor]:
        now, later = random.split(carry)
        return later, random.uniform(shape=(2,), key=now)

    last, ys = tw.scan(chained, key, length=3)
    for y in ys:
        now, key = random.split(key)
        assert same(y, random.uniform(shape=(2,), key=now))
    assert same(last, key)


def test_streams_do_not_depend_on_shape() -> None:
    key = random.key(8)
    assert same(random.bits(100, key=key)[:60], random.bits((3, 20), key=key).reshape(60))
    assert same(random.uniform(shape=60, key=key), random.uniform(shape=(3, 20), key=key).reshape(60))


@pytest.mark.parametrize("name", ["uniform", "normal", "bits"])
def test_split_streams_are_unrelated(name: str) -> None:
    """Correlations of a thousand numbers between streams of one key, of near seeds and of near numbers."""
    draw, n = DRAWS[name], 4000
    key = random.key(0)
    keys = [
        key,
        *random.split(key, 6),
        random.fold_in(key, 10**6),
        random.fold_in(random.split(key)[0], 0),
        random.key(1),
        random.key(2),
        random.key(-1),
    ]
    x = np.stack([draw((n,), key=k).numpy().astype(np.float64) for k in keys])
    assert len({tuple(k.tolist()) for k in keys}) == len(keys)
    correlation = np.corrcoef(np.concatenate([x, np.roll(x, 1, axis=1)])) - np.eye(2 * len(keys))
    assert np.abs(correlation).max() < 5.5 / n**0.5
    squares = np.corrcoef((x - x.mean(1, keepdims=True)) ** 2) - np.eye(len(keys))
    assert np.abs(squares).max() < 5.5 / n**0.5


def test_bits_are_balanced() -> None:
    for dtype in ("uint8", "int16", "uint32", "int64", "bool"):
        x = random.bits((8000,), dtype, key=random.key(6))
        assert str(x.dtype) == dtype
        ones = np.unpackbits(x.numpy().view(np.uint8).reshape(8000, -1), axis=1)
        share = ones[:, -1:].mean(0) if dtype == "bool" else ones.mean(0)
        assert np.abs(share - 0.5).max() < 5 * 0.5 / 8000**0.5
    assert random.fold_in(random.key(0), 2**40 + 1).tolist() != random.fold_in(random.key(0), 1).tolist()
    assert (
        random.fold_in(random.key(0), tw.tensor(2**40 + 1)).tolist()
        == random.fold_in(random.key(0), 2**40 + 1).tolist()
    )


# ---- the default generator inside vmap -----------------------------------------------------------------------------


def test_randomness_inside_vmap() -> None:
    x = tw.zeros(5)
    f = lambda v: v + random.rand()  # noqa: E731
    tw.manual_seed(0)
    different = tw.vmap(f)(x).numpy()
    assert len(set(different.tolist())) == 5
    tw.manual_seed(0)
    key = random.default_generator.next_key()
    expected = [random.rand(key=random.fold_in(key, i)).item() for i in range(5)]
    assert different.tolist() == expected
    same_ = tw.vmap(f, randomness="same")(x).numpy()
    assert len(set(same_.tolist())) == 1
    with pytest.raises(tw.ArgumentError, match="randomness='error'"):
        tw.vmap(f, randomness="error")(x)
    with pytest.raises(tw.ArgumentError, match="'different', 'same' or 'error'"):
        tw.vmap(f, randomness="maybe")
    assert tw.vmap(f)(x).tolist() != different.tolist()  # the state moves on


def test_randomness_inside_nested_vmap_and_jit_and_scan() -> None:
    inner = tw.vmap(lambda v: v + random.rand())
    both = tw.vmap(inner)(tw.zeros(3, 4)).numpy()
    assert len(set(both.ravel().tolist())) == 12
    shared = tw.vmap(tw.vmap(lambda v: v + random.rand(), randomness="same"))(tw.zeros(3, 4)).numpy()
    assert len(set(shared.ravel().tolist())) == 3 and (shared == shared[:, :1]).all()
    jitted = tw.jit(lambda x: inner(x))
    tw.manual_seed(1)
    a, b = jitted(tw.zeros(4)).numpy(), jitted(tw.zeros(4)).numpy()
    tw.manual_seed(1)
    assert same(a, inner(tw.zeros(4))) and not same(a, b)
    looped = tw.vmap(lambda v: tw.scan(lambda c, _: (c, random.rand()), v, length=3)[1])(tw.zeros(2)).numpy()
    assert len(set(looped.ravel().tolist())) == 6


def test_dropout_masks_of_per_sample_gradients_differ() -> None:
    g = tw.vmap(tw.grad(lambda w, x: (random.dropout(w * x, 0.5)).sum()), in_axes=(None, 0))(
        tw.ones(40), tw.ones(6, 40)
    )
    assert len({row.tobytes() for row in g.numpy()}) == 6


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (
            lambda: random.uniform(key=7),
            tw.DTypeError,
            "uniform: a key is a uint32 tensor of shape \\(2,\\), got int",
        ),
        (lambda: random.normal(key=tw.zeros(2)), tw.DTypeError, "got a tensor of float32"),
        (lambda: random.normal(key=random.split(random.key(0), 3)), tw.ShapeError, "with tw.vmap"),
        (
            lambda: random.normal(key=random.key(0), generator=random.Generator(0)),
            tw.ArgumentError,
            "not both",
        ),
        (lambda: random.key(0.5), tw.DTypeError, "key: a seed is an integer, got float"),
        (lambda: random.split(random.key(0), -1), tw.ArgumentError, "number of keys"),
        (lambda: random.fold_in(random.key(0), 0.5), tw.DTypeError, "`data` is an integer"),
        (lambda: random.normal(0.0, -1.0), tw.ArgumentError, "`std` is not negative, got -1.0"),
        (lambda: random.gamma(0.0), tw.ArgumentError, "gamma: `concentration` is positive"),
        (
            lambda: random.normal(tw.zeros(3), shape=(2,)),
            tw.ShapeError,
            "normal: the shape \\(2,\\) does not hold the parameters",
        ),
        (lambda: random.normal(tw.zeros(3), tw.zeros(2)), tw.ShapeError, "do not broadcast"),
        (lambda: random.randint(0, 300, dtype="uint8"), tw.ArgumentError, "uint8 holds 0 to 255"),
        (lambda: random.randint(0.5, 3), tw.DTypeError, "`low` is an integer"),
        (lambda: random.bernoulli(1.5), tw.ArgumentError, "probability"),
        (lambda: random.choice(3, (4,), replace=False), tw.ArgumentError, "4 of 3 elements"),
        (lambda: random.choice(3, p=[0.5, 0.5]), tw.ShapeError, "one probability for each of 3"),
        (
            lambda: random.categorical(tw.zeros(2, 3), shape=(5,)),
            tw.ShapeError,
            "does not end in the other axes",
        ),
        (lambda: random.truncated_normal(2.0, 1.0), tw.ArgumentError, "`low` is below `high`"),
        (lambda: random.bits(3, "float32"), tw.DTypeError, "hold bits"),
        (lambda: random.uniform(dtype="int32"), tw.DTypeError, "floating type"),
    ],
)
def test_bad_arguments(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()

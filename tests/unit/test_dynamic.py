"""Symbolic sizes: the algebra, and ``tw.jit(dynamic=...)`` against ordinary compilation over many sizes."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn, optim
from tilewright.core.size import Size, SymbolicSizeError, bind, parse_size, spell
from tilewright.runtime.statistics import stats

N, T = Size("n", 1, 64), Size("t", 2, 9)
EDGES = (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 61, 64, 65, 96)


# ---- the algebra ---------------------------------------------------------------------------------------------------

expressions: st.SearchStrategy[Callable[[Any, Any], Any]] = st.recursive(
    st.sampled_from([lambda n, t: n, lambda n, t: t, lambda n, t: 3, lambda n, t: 7]),
    lambda inner: st.tuples(st.sampled_from("+*-/%c"), inner, inner).map(
        lambda p: (
            lambda n, t: {
                "+": lambda a, b: a + b,
                "-": lambda a, b: a - b,
                "*": lambda a, b: a * b,
                "/": lambda a, b: a // 4,
                "%": lambda a, b: a % 5,
                "c": lambda a, b: -(-a // 3),
            }[p[0]](p[1](n, t), p[2](n, t))
        )
    ),
    max_leaves=6,
)


@given(expressions, st.integers(1, 64), st.integers(2, 9))
def test_a_size_has_the_number_that_integers_give(expression: Any, n: int, t: int) -> None:
    size = expression(N, T)
    number = bind(size, {"n": n, "t": t})
    assert number == expression(n, t)
    if isinstance(size, Size):
        assert size.low <= number <= size.high
        assert parse_size(spell(size)) == size and hash(parse_size(spell(size))) == hash(size)


def test_what_holds_for_the_whole_range_is_known() -> None:
    assert N > 0 and N <= 64 and not N > 64 and N + 1 > 1 and bool(N)
    assert N + T == T + N and 2 * N != 2 * N + 1 and (N * T * 6) // (2 * T) == 3 * N
    assert (4 * N) % 4 == 0 and (4 * N + 3) // 4 == N and N - N == 0


@pytest.mark.parametrize(
    "question",
    [
        lambda: N > 5,
        lambda: N == 5,
        lambda: N != T,
        lambda: range(N),
        lambda: float(N),
        lambda: int(N),
        lambda: N / 2,
        lambda: 1.0 / N,
        lambda: 100 // N,
        lambda: N // T,
        lambda: np.zeros(N),
        lambda: [0] * N,
    ],
)
def test_what_depends_on_the_number_is_an_error(question: Any) -> None:
    with pytest.raises(SymbolicSizeError, match=r"n, which is from 1 to 64|no number|numb"):
        question()


# ---- programs ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    tw.set_num_threads(request.param)
    yield request.param
    tw.set_num_threads(None)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(20, 32), nn.GELU(), nn.Dropout(0.25), nn.LayerNorm(32), nn.Linear(32, 10))


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 8, 5), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 10),
    )  # fmt: skip


class Mixer(nn.Module):
    """Embeddings, attention, and positions from the size of an axis."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(20, 16), nn.Embedding(6, 16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 10)

    def forward(self, x: tw.Tensor) -> tw.Tensor:
        b, t = x.shape
        x = self.tokens(x) + self.places(tw.arange(t))
        q, k, v = (z.reshape(b, t, 2, 8).permute_dims((0, 2, 1, 3)) for z in self.qkv(x).split(16, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(mixed.permute_dims((0, 2, 1, 3)).reshape(b, t, 16).mean(1))


def training(make: Callable[[], nn.Module], dynamic: Any) -> tuple[Any, nn.Module]:
    tw.manual_seed(0)
    model = make()
    optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def step(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return tw.jit(step, dynamic=dynamic), model


@pytest.mark.parametrize(
    ("make", "shape", "sizes"),
    [(mlp, (20,), EDGES), (lenet, (1, 12, 12), (2, 3, 8, 17, 33, 96)), (Mixer, (6,), (1, 2, 3, 9, 32, 96))],
)
def test_one_program_trains_at_every_size(make: Any, shape: Any, sizes: Any, threads: int) -> None:
    batch = tw.Dim("batch", 2 if make is lenet else 1, 96)
    dynamic, model = training(make, {"x": {0: batch}, 1: (batch,)})
    static, other = training(make, None)
    rng = np.random.default_rng(0)
    for n in sizes:
        x = (
            rng.standard_normal((n, *shape)).astype(np.float32)
            if make is not Mixer
            else rng.integers(0, 20, (n, *shape))
        )
        y = rng.integers(0, 10, n)
        tw.manual_seed(n)
        loss = dynamic(x, y).item()
        tw.manual_seed(n)
        np.testing.assert_allclose(loss, static(x, y).item(), rtol=1e-4)
    for (name, a), b in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-3, atol=1e-4, err_msg=name)
    assert dynamic.traces == 1 and not dynamic.specialised
    assert static.traces == len(sizes)


def test_another_size_compiles_nothing_and_is_one_native_call() -> None:
    batch = tw.Dim("batch", 1, 96)
    dynamic, _ = training(mlp, {"x": {0: batch}, "y": {0: batch}})
    x, y = np.zeros((96, 20), np.float32), np.zeros(96, np.int64)
    dynamic(x, y)
    before = stats.kernels_compiled, stats.native_calls
    for n in EDGES:
        dynamic(x[:n], y[:n])
    assert (stats.kernels_compiled, stats.native_calls) == (before[0], before[1] + len(EDGES))


def test_results_are_differentiable_afterwards() -> None:
    layer = nn.Linear(4, 3)
    call = tw.jit(lambda x: layer(x).mean(), dynamic={0: {0: tw.Dim("rows", 1, 9)}})
    for n in (9, 2, 5):
        x = np.random.default_rng(n).standard_normal((n, 4)).astype(np.float32)
        layer.zero_grad()
        call(x).backward()
        np.testing.assert_allclose(layer.weight.grad.numpy(), np.tile(x.mean(0) / 3, (3, 1)), rtol=1e-5)
    assert call.traces == 1 and not call.specialised


def test_several_sizes_and_expressions_of_them() -> None:
    a, b = tw.Dim("a", 1, 9), tw.Dim("b", 2, 7)

    @tw.jit(dynamic={"x": {0: a}, "rest": {0: b}})
    def call(x: tw.Tensor, rest: dict[str, tw.Tensor]) -> list[tw.Tensor]:
        y = rest["y"]
        n, m = x.shape[0], y.shape[0]
        return [
            x.sum() + y.sum(),
            tw.zeros((2 * n + m, 2)) + tw.arange(2 * n + m).reshape(-1, 1) * (n - m),
            tw.tensor(n * m) // 2,
        ]

    for n, m in ((9, 7), (1, 2), (3, 5)):
        total, grid, product = call(tw.ones(n, 2), {"y": tw.ones(m, 3)})
        assert total.item() == 2 * n + 3 * m and product.item() == n * m // 2
        assert grid.tolist() == [[i * (n - m)] * 2 for i in range(2 * n + m)]
    assert call.traces == 1 and not call.specialised


def test_state_and_arguments_are_written_at_the_size_of_the_call() -> None:
    total = tw.zeros(3)

    @tw.jit(dynamic={"x": {0: tw.Dim("rows", 1, 8)}})
    def add(x: tw.Tensor) -> tw.Tensor:
        total.assign(total + x.sum(0))
        x.assign(x * 2)
        return x + 0

    for n in (2, 8, 1):
        x = tw.ones(n, 3)
        assert add(x).shape == (n, 3) and x.tolist() == [[2.0] * 3] * n
    assert total.tolist() == [11.0] * 3 and add.traces == 1


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (lambda x: tw.sort(x, 0), "host"),
        (lambda x: tw.flip(x, 0), "lowering"),
        (lambda x: x.T + 0, "lowering"),
        (lambda x: tw.concat(tw.split(x, 1), 0) + 1, "trace"),
        (lambda x: tw.scan(lambda c, v: (c + v, c * v), tw.zeros(4), x)[1], "loop"),
    ],
)
def test_what_needs_the_number_is_compiled_for_it(function: Any, code: str) -> None:
    call = tw.jit(function, dynamic={0: {0: tw.Dim("rows", 1, 9)}})
    for n in (3, 9, 1):
        x = tw.tensor(np.random.default_rng(n).standard_normal((n, 4)).astype(np.float32))
        np.testing.assert_allclose(call(x).numpy(), function(x).numpy(), rtol=1e-6)
        assert f"rows = {n} alone [{code}]" in call.explain(x)
    assert [c for c, _ in call.specialised.values()] == [code]


def test_python_decisions_on_a_size_are_errors_of_the_caller() -> None:
    @tw.jit(dynamic={"x": {0: tw.Dim("rows", 1, 9)}})
    def loop(x: tw.Tensor) -> tw.Tensor:
        return sum((x[i] for i in range(x.shape[0])), tw.zeros(3))

    with pytest.raises(SymbolicSizeError, match=r"the size rows has no number .*test_dynamic.py:\d+"):
        loop(tw.ones(3, 3))


def test_explain_and_show_print_sizes() -> None:
    call = tw.jit(lambda x: (x * 2).mean(0), dynamic={0: {0: tw.Dim("rows", 1, 9)}})
    text = call.explain(np.ones((3, 4), np.float32))
    assert "rows: 1 to 9, one program" in text and "float32[rows:1..9, 4]" in text and "size.rows" in text


@pytest.mark.parametrize("function", [lambda x: x * 1, lambda x: x.reshape(-1), lambda x: (x, x[None])])
def test_a_program_without_steps_serves_every_size(function: Any) -> None:
    """Results that are an operand's elements need no kernel."""
    jitted = tw.jit(function, dynamic={0: {0: tw.Dim("n", 1, 9)}})
    for n in (4, 1, 9):
        x = tw.arange(3 * n).reshape(n, 3)
        got, want = (r if isinstance(r, tuple) else (r,) for r in (jitted(x), function(x)))
        assert [r.tolist() for r in got] == [r.tolist() for r in want]
    assert jitted.traces == 1


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tw.linspace(0, 1, x.shape[0]),
        lambda x: tw.random.permutation(x.shape[0], key=tw.random.key(1)),
        lambda x: tw.nn.functional.one_hot(tw.tensor([0, 2]), x.shape[0]),
    ],
)
def test_a_size_is_a_number_of_elements_everywhere(function: Any) -> None:
    jitted = tw.jit(function, dynamic={0: {0: tw.Dim("n", 3, 9)}})
    for n in (4, 3, 9):
        np.testing.assert_array_equal(jitted(tw.ones(n)).numpy(), function(tw.ones(n)).numpy())

"""`tw.jit`: specialisation, capture by handle, write-back, gradients, leaks, errors in tracing, and the price of a call."""

import copy
import pickle
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn
from tilewright.tensor import modes, suspend_trace

F32 = np.float32


def test_traces_once_per_kind_of_arguments() -> None:
    @tw.jit
    def f(x, k=2):
        return x * k

    assert f(tw.tensor([1.0, 2.0])).tolist() == [2.0, 4.0]
    assert f(tw.tensor([5.0, 2.0])).tolist() == [10.0, 4.0]
    assert f.traces == 1
    assert f(tw.tensor([1.0])).tolist() == [2.0]
    assert f(tw.tensor([1, 2])).dtype is tw.int64
    assert f(tw.tensor([1.0, 2.0]), 3).tolist() == [3.0, 6.0]
    assert f(tw.tensor([1.0, 2.0]), k=3).tolist() == [3.0, 6.0]
    assert f.traces == 5
    f(tw.tensor([7.0, 2.0]), 3)
    assert f.traces == 5


def test_static_values_of_different_types_are_told_apart() -> None:
    @tw.jit
    def f(x, flag):
        return x + 1 if flag is True else x - 1

    x = tw.tensor([1.0])
    assert f(x, True).item() == 2.0
    assert f(x, 1).item() == 0.0
    assert f(x, -0.0).item() == 0.0
    assert f(x, 0.0).item() == 0.0
    assert f.traces == 4


def test_arrays_are_arguments_not_constants() -> None:
    @tw.jit
    def f(x, scale):
        return x * scale

    for i in range(3):
        out = f(np.full(3, i, F32), F32(i))
        assert out.tolist() == [i * i] * 3
    assert f.traces == 1


Point = namedtuple("Point", "x y")


@dataclass
class Pair:
    a: object
    b: object


def test_nested_arguments_and_results() -> None:
    @tw.jit
    def f(tree, scale):
        return {"sum": tree["p"].x + tree["q"][0], "pair": Pair(tree["p"].y * scale, "static"), "none": None}

    out = f({"p": Point(tw.tensor([1.0]), tw.tensor([2.0])), "q": [tw.tensor([3.0])]}, scale=4)
    assert out["sum"].tolist() == [4.0]
    assert isinstance(out["pair"], Pair)
    assert out["pair"].a.tolist() == [8.0]
    assert out["pair"].b == "static"
    assert out["none"] is None


def test_captured_tensors_are_bound_by_handle() -> None:
    w = tw.tensor([1.0, 2.0])

    @tw.jit
    def f(x):
        return x * w

    x = tw.tensor([10.0, 10.0])
    assert f(x).tolist() == [10.0, 20.0]
    w.assign([3.0, 4.0])
    assert f(x).tolist() == [30.0, 40.0]
    w += 1  # pending when the call begins
    assert f(x).tolist() == [40.0, 50.0]
    assert f.traces == 1


def test_a_captured_tensor_of_another_type_is_traced_again() -> None:
    w = tw.tensor([1.0, 2.0])

    @tw.jit
    def f():
        return w.sum()

    assert f().item() == 3.0
    w._rebind(tw.tensor([1.0, 2.0, 3.0]), "test")
    assert f().item() == 6.0
    assert f.traces == 2


def test_assigned_tensors_are_written_back() -> None:
    count, total = tw.zeros(()), tw.zeros(2)

    @tw.jit
    def f(x):
        count.assign(count + 1)
        total[...] = total + x
        return total * 1

    for i in range(1, 4):
        assert f(tw.ones(2)).tolist() == [i, i]
    assert count.item() == 3.0
    assert total.tolist() == [3.0, 3.0]
    assert f.traces == 1


def test_an_argument_written_in_place_is_written_back() -> None:
    @tw.jit
    def f(x):
        x += 1
        return x

    x = tw.zeros(2)
    assert f(x) is x
    f(x)
    assert x.tolist() == [2.0, 2.0]
    assert f.traces == 1


def test_write_back_never_changes_what_others_hold() -> None:
    w = tw.tensor([1.0, 2.0])

    @tw.jit
    def step():
        w.assign(w * 2)

    step()
    view = w.numpy()
    pending = w + 0
    alias = w.detach()
    other = w[0:1]
    step()
    step()
    assert w.tolist() == [8.0, 16.0]
    assert view.tolist() == [2.0, 4.0]
    assert pending.tolist() == [2.0, 4.0]
    assert alias.tolist() == [2.0, 4.0]
    assert other.tolist() == [2.0]


def test_write_back_reuses_memory_that_nobody_else_holds() -> None:
    w = tw.tensor(np.arange(1000, dtype=F32))

    @tw.jit
    def step():
        w.assign(w + 1)

    step()
    step()
    address = w._value.buffer.address
    leaf = w._value
    del leaf
    for _ in range(4):
        step()
    assert w._value.buffer.address == address
    assert w.tolist() == [float(i + 6) for i in range(1000)]


def test_swapping_two_tensors() -> None:
    a, b = tw.tensor([1.0]), tw.tensor([2.0])

    @tw.jit
    def swap():
        old = a.detach()
        a.assign(b)
        b.assign(old)

    swap()
    assert (a.item(), b.item()) == (2.0, 1.0)
    swap()
    assert (a.item(), b.item()) == (1.0, 2.0)


def test_an_argument_that_is_also_captured_or_passed_twice() -> None:
    w = tw.tensor([1.0])

    @tw.jit
    def f(x, y):
        x += 1
        w.assign(w + y)
        return x + y + w

    def eager(x, y, w):
        x += 1
        w.assign(w + y)
        return x + y + w

    x = tw.tensor([5.0])
    f(x, tw.tensor([1.0]))
    v = tw.tensor([2.0])
    assert w.item() == 2.0
    assert f(x, x).tolist() == eager(tx := tw.tensor([6.0]), tx, v).tolist()
    assert w.tolist() == v.tolist()
    assert f(w, w).tolist() == eager(v, v, v).tolist()
    assert w.tolist() == v.tolist()


def training(jit: Callable, seed: int = 0):
    tw.manual_seed(seed)
    rng = np.random.default_rng(seed)
    params = [
        tw.tensor(rng.standard_normal((8, 5)).astype(F32) * 0.3, requires_grad=True),
        tw.zeros(8, requires_grad=True),
        tw.tensor(rng.standard_normal((3, 8)).astype(F32) * 0.3, requires_grad=True),
    ]
    moments = [tw.zeros(p.shape) for p in params]
    x = tw.tensor(rng.standard_normal((16, 5)).astype(F32))
    t = tw.tensor(rng.integers(0, 3, 16))
    from tilewright import functions as F
    from tilewright.random import dropout

    @jit
    def step(x, t):
        for p in params:
            p.grad = None
        h = dropout(F.relu(F.linear(x, params[0], params[1])), 0.1)
        loss = F.cross_entropy(F.linear(h, params[2]), t)
        loss.backward()
        with tw.no_grad():
            for p, m in zip(params, moments, strict=True):
                m.assign(m * 0.9 + p.grad)
                p -= 0.05 * m
        return loss

    losses = [step(x, t).item() for _ in range(25)]
    return losses, [p.numpy().copy() for p in params], params, step


def test_eager_and_jitted_training_agree() -> None:
    eager, p0, _, _ = training(lambda f: f)
    jitted, p1, params, step = training(tw.jit)
    again, p2, _, _ = training(tw.jit)
    assert step.traces == 1
    assert jitted == pytest.approx(eager, rel=1e-5)
    assert eager[-1] < eager[0] * 0.8
    for a, b, c in zip(p0, p1, p2, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
        assert np.array_equal(b, c)
    assert jitted == again
    assert all(p.grad is None for p in params)


def test_gradients_are_dropped_unless_kept() -> None:
    w = tw.tensor([1.0, 2.0], requires_grad=True)

    def f():
        loss = (w * w).sum()
        loss.backward()
        return loss

    assert tw.jit(f)().item() == 5.0
    assert w.grad is None
    kept = tw.jit(keep_grads=True)(f)
    kept()
    assert w.grad.tolist() == [2.0, 4.0]
    kept()
    kept()
    assert w.grad.tolist() == [6.0, 12.0]
    assert kept.traces == 2  # without and with a gradient to add to
    w.grad = None
    kept()
    assert kept.traces == 2
    assert w.grad.tolist() == [2.0, 4.0]


def test_a_gradient_left_outside_is_used_inside() -> None:
    w = tw.tensor([1.0, 2.0], requires_grad=True)

    @tw.jit
    def update():
        with tw.no_grad():
            w.assign(w - w.grad)

    (w * 3).sum().backward()
    update()
    assert w.tolist() == [-2.0, -1.0]
    w.grad = tw.tensor([1.0, 1.0])
    update()
    assert w.tolist() == [-3.0, -2.0]
    assert update.traces == 1


def test_results_that_need_gradients_outside_keep_them() -> None:
    w = tw.tensor([1.0, 2.0], requires_grad=True)

    @tw.jit
    def f(x):
        return (x * w).sum()

    out = f(tw.tensor([3.0, 4.0]))
    assert out.requires_grad
    out.backward()
    assert w.grad.tolist() == [3.0, 4.0]
    assert f.traces == 1
    loss = f(tw.tensor([1.0, 0.0])) * f(tw.tensor([0.0, 1.0]))  # w0 * w1
    with tw.no_grad():
        w += 10  # the results keep what they were computed from
    w.grad = None
    loss.backward()
    assert w.grad.tolist() == [2.0, 1.0]
    assert f.traces == 1
    with tw.no_grad():
        w -= 10
    w.grad = None
    (f(tw.tensor([1.0, 0.0])) ** 3).backward(create_graph=True)
    first = w.grad
    w.grad = None
    first.sum().backward()
    assert w.grad.tolist() == [6.0, 0.0]
    x = tw.tensor([1.0, 1.0], requires_grad=True)
    (f(x * 2) * 2).backward()
    assert x.grad.tolist() == [4.0, 8.0]
    with tw.no_grad():
        assert not f(tw.tensor([1.0, 1.0])).requires_grad
    assert tw.grad(f)(tw.tensor([5.0, 5.0])).tolist() == [1.0, 2.0]


def test_statistics_beside_a_trained_loss_do_not_stop_compilation() -> None:
    w = tw.tensor([1.0, 2.0], requires_grad=True)

    @tw.jit
    def step(x):
        loss = ((x * w) ** 2).sum()
        size = (w * w).sum()
        w.grad = None
        loss.backward()
        with tw.no_grad():
            w.assign(w - 0.1 * w.grad)
        return loss * 10, size

    scaled, size = step(tw.ones(2))
    assert not scaled.requires_grad or scaled.item() == 50.0
    assert size.item() == 5.0
    size.backward()
    assert w.grad.tolist() == [2.0, 4.0]  # at the parameters of the time
    step(tw.ones(2))
    assert step.traces == 1 or w.grad is None


def test_grad_inside_jit_and_jit_inside_jit() -> None:
    @tw.jit
    def inner(x):
        return (x**3).sum()

    @tw.jit
    def outer(x):
        return tw.grad(inner)(x)

    assert outer(tw.tensor([1.0, 2.0])).tolist() == [3.0, 12.0]
    assert inner.traces == 0


def test_reading_a_traced_value_is_one_clear_error() -> None:
    w = tw.tensor([1.0])

    @tw.jit
    def f(x):
        w.assign(w + x)
        if x.sum() > 0:
            return x
        return -x

    with pytest.raises(tw.TracedValueError) as error:
        f(tw.tensor([1.0]))
    text = str(error.value)
    assert "if x.sum() > 0:" in text
    assert "tw.where" in text
    assert "test_jit.py" in text
    # everything is as before the failed trace
    assert modes.trace is None
    assert w.tolist() == [1.0]
    assert (w + 1).tolist() == [2.0]


@pytest.mark.parametrize(
    "read", [float, int, bool, np.asarray, lambda x: x.tolist(), lambda x: x[x > 0], lambda x: x.item()]
)
def test_every_way_of_reading_is_refused(read: Callable) -> None:
    with pytest.raises(tw.TracedValueError):
        tw.jit(lambda x: read(x))(tw.tensor(1.0).reshape(1))


def test_constants_made_inside_can_be_read() -> None:
    @tw.jit
    def f(x):
        table = tw.arange(3).tolist()
        return x * table[2] + tw.tensor([1.0, 2.0])

    assert f(tw.tensor([1.0, 1.0])).tolist() == [3.0, 4.0]
    assert f(tw.tensor([2.0, 2.0])).tolist() == [5.0, 6.0]


def test_printing_a_traced_tensor_shows_its_type() -> None:
    seen = []
    tw.jit(lambda x: seen.append(repr(x)))(tw.ones(2, 3))
    assert seen == ["Tensor(shape=(2, 3), dtype=float32, traced)"]


def test_a_leaked_tensor_is_an_error_that_says_so() -> None:
    kept = []

    @tw.jit
    def leaky(x):
        kept.append(x + 1)
        return x * 2

    leaky(tw.ones(2))
    for use in (lambda t: t + 1, lambda t: t.numpy(), lambda t: t[0], lambda t: tw.jit(lambda: t * 1)()):
        with pytest.raises(tw.LeakedTensorError, match="leaky"):
            use(kept[0])


def test_an_exception_in_the_function_restores_everything() -> None:
    w = tw.tensor([1.0], requires_grad=True)
    w.grad = tw.tensor([5.0])

    @tw.jit
    def f(x):
        w.grad = None
        (w * x).sum().backward()
        with tw.no_grad():
            w.assign(w * 2)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        f(tw.ones(1))
    assert w.tolist() == [1.0]
    assert w.grad.tolist() == [5.0]
    assert tw.is_grad_enabled()
    (w * 3).sum().backward()
    assert w.grad.tolist() == [8.0]


def test_state_made_on_the_first_run_outside_the_trace() -> None:
    state: dict[str, tw.Tensor] = {}

    @tw.jit
    def f(x):
        if "sum" not in state:
            with suspend_trace():
                state["sum"] = tw.zeros(x.shape)
        state["sum"].assign(state["sum"] + x)
        return state["sum"] * 1

    assert f(tw.ones(2)).tolist() == [1.0, 1.0]
    assert f(tw.ones(2)).tolist() == [2.0, 2.0]
    assert state["sum"].tolist() == [2.0, 2.0]


def test_watched_attributes_select_a_trace() -> None:
    class Layer:
        training = True

        def __call__(self, x):
            if modes.trace is not None:
                modes.trace.watch(self, "training")
            return x * 2 if self.training else x

    layer = Layer()
    f = tw.jit(lambda x: layer(x))
    x = tw.ones(1)
    assert f(x).item() == 2.0
    layer.training = False
    assert f(x).item() == 1.0
    layer.training = True
    assert f(x).item() == 2.0
    assert f.traces == 2


def test_methods_can_be_jitted() -> None:
    class Model:
        def __init__(self, scale: float) -> None:
            self.scale = tw.tensor(scale)

        @tw.jit
        def run(self, x):
            return x * self.scale

    assert Model(2.0).run(tw.ones(1)).item() == 2.0
    assert Model(3.0).run(tw.ones(1)).item() == 3.0


def test_random_numbers_continue_the_eager_stream() -> None:
    draw = tw.jit(lambda: (tw.rand(3), tw.randn(2)))
    tw.manual_seed(5)
    jitted = [draw() for _ in range(2)] + [(tw.rand(3), tw.randn(2))]
    tw.manual_seed(5)
    eager = [(tw.rand(3), tw.randn(2)) for _ in range(3)]
    for (a, b), (c, d) in zip(jitted, eager, strict=True):
        assert np.array_equal(a.numpy(), c.numpy())
        assert b.numpy() == pytest.approx(d.numpy(), rel=1e-6, abs=1e-7)


def test_unhashable_arguments_are_named() -> None:
    with pytest.raises(tw.DTypeError, match="set"):
        tw.jit(lambda x, s: x)(tw.ones(1), {1, 2})


def test_explain_shows_the_program() -> None:
    f = tw.jit(lambda x: (x * 2).sum())
    assert "mul" in f.explain(tw.ones(3))
    w = tw.ones(3, requires_grad=True)
    assert "mul" in tw.jit(lambda: w * 2).explain()
    assert "lazy" in tw.jit(lambda x: x * 2).explain(w * 3)


def test_results_are_new_tensors_each_call() -> None:
    f = tw.jit(lambda x: x + 1)
    a = f(tw.tensor([1.0]))
    b = f(tw.tensor([2.0]))
    assert (a.item(), b.item()) == (2.0, 3.0)


def test_an_array_argument_is_never_written() -> None:
    @tw.jit
    def f(x):
        x += 1
        return x, x * 2

    array = np.arange(4, dtype=F32)
    for _ in range(3):
        shifted, doubled = f(array)
        assert array.tolist() == [0, 1, 2, 3]
        assert shifted.tolist() == [1, 2, 3, 4]
        assert doubled.tolist() == [2, 4, 6, 8]


def test_freezing_a_parameter_traces_again() -> None:
    w = tw.tensor([2.0], requires_grad=True)
    v = tw.tensor([3.0], requires_grad=True)
    optimizer = tw.optim.SGD([w, v], lr=0.1)

    @tw.jit
    def step(x):
        optimizer.zero_grad()
        (w * v * x).sum().backward()
        optimizer.step()

    x = tw.ones((1,))
    step(x)
    frozen, moving = w.item(), v.item()
    w.requires_grad = False
    step(x)
    assert w.item() == frozen
    assert v.item() != moving
    w.requires_grad = True
    step(x)
    assert w.item() != frozen
    assert step.traces == 2


def test_other_parts_and_attributes_of_a_module_trace_again() -> None:
    nn = tw.nn
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.ModuleDict({"a": nn.Linear(2, 2)})["a"])
    f = tw.jit(lambda x: net(x))
    x = tw.ones((3, 2))
    f(x)
    f(x)
    assert f.traces == 1

    def check() -> None:
        with tw.no_grad():
            np.testing.assert_allclose(f(x).numpy(), net(x).numpy(), rtol=1e-6)

    net[1].p = 0.0
    check()
    net[0].weight = nn.Parameter(tw.zeros((2, 2)))
    check()
    net[0].bias = None
    check()
    net[2] = nn.Linear(2, 5)
    check()
    net.append(nn.ReLU())
    check()
    net.double()
    x = tw.ones((3, 2), dtype=tw.float64)
    check()
    del net[0]
    check()
    traces = f.traces
    check()
    assert f.traces == traces


def test_results_do_not_share_memory_with_an_array_argument() -> None:
    f = tw.jit(lambda x: (x, x.reshape((-1,)), x + 1))
    array = np.zeros((2, 2), F32)
    results = f(array)
    array[...] = 9
    assert [r.numpy().max() for r in results] == [0, 0, 1]


def test_other_parameter_groups_trace_again() -> None:
    a = tw.tensor([1.0], requires_grad=True)
    b = tw.tensor([1.0], requires_grad=True)
    optimizer = tw.optim.SGD([a], lr=0.1)

    @tw.jit
    def step():
        optimizer.zero_grad()
        (a * b).sum().backward()
        optimizer.step()

    step()
    assert (round(a.item(), 5), b.item()) == (0.9, 1.0)
    optimizer.add_param_group({"params": [b], "lr": 0.5})
    step()
    assert (round(a.item(), 5), round(b.item(), 5)) == (0.8, 0.55)
    del optimizer.param_groups[0]
    step()
    assert (round(a.item(), 5), round(b.item(), 5)) == (0.8, 0.15)
    assert step.traces == 3


def test_repeated_calls_notice_what_differs() -> None:
    """A call like the last one is found without a key; everything a key holds must still be told apart."""
    seen: list[object] = []

    @tw.jit
    def f(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        seen.append((x.shape, x.dtype, y.dtype, tw.is_grad_enabled()))
        return x * 2 + y

    a, b = tw.tensor([1.0, 2.0]), tw.tensor([3.0, 4.0])
    for _ in range(3):
        assert f(a, b).tolist() == [5.0, 8.0]
    assert len(seen) == 1
    assert f(a, a).tolist() == [3.0, 6.0]
    assert f(tw.tensor([1.0, 2.0]), b + 1).tolist() == [6.0, 9.0]  # a pending argument
    assert len(seen) == 1
    assert f(a.astype(tw.float64), b).dtype is tw.float64
    assert f(tw.ones(3), tw.ones(3)).shape == (3,)
    assert f(a, y=b).tolist() == [5.0, 8.0]
    assert f(a, np.array([3.0, 4.0], np.float32)).tolist() == [5.0, 8.0]
    with tw.no_grad():
        assert f(a, b).tolist() == [5.0, 8.0]
    w = tw.tensor([1.0, 2.0], requires_grad=True)
    assert f(w, b).requires_grad
    assert f(a, b).tolist() == [5.0, 8.0]
    with pytest.raises(TypeError):
        f(a)  # type: ignore[call-arg]
    total = tw.jit(lambda x: f(x, x))(a)
    assert total.tolist() == [3.0, 6.0]


def test_repeated_calls_of_a_model_notice_what_changed() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).eval()
    f = tw.jit(model)
    x = tw.ones(4, 3)
    with tw.no_grad():
        for _ in range(3):
            wanted = model(x).numpy()
            np.testing.assert_array_equal(f(x).numpy(), wanted)
        model[0].bias.assign(model[0].bias + 1)
        np.testing.assert_allclose(f(x).numpy(), wanted + 1, rtol=1e-6)
        model[0].weight.assign(tw.zeros(2, 3) + 0.5)
        np.testing.assert_allclose(f(x).numpy(), model(x).numpy(), rtol=1e-6)
        model.train()
        assert (f(tw.ones(400, 3)).numpy() == 0).any()
        assert f(x).shape == (4, 2)
        model.eval()
        np.testing.assert_allclose(f(x).numpy(), model(x).numpy(), rtol=1e-6)
    loss = f(x).sum()
    assert loss.requires_grad
    loss.backward()
    assert model[0].bias.grad.tolist() == [4.0, 4.0]


def test_only_functions_are_compiled() -> None:
    with pytest.raises(tw.DTypeError, match="jit: a function is compiled, got int"):
        tw.jit(3)  # type: ignore[call-overload]


def test_a_copy_of_a_called_function_is_compiled_anew() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(tw.tensor([2.0]))
            self.fast = tw.jit(self.forward)

        def forward(self, x):
            return x * self.scale

    model = Scaled()
    for _ in range(3):
        assert model.fast(tw.tensor([1.0])).tolist() == [2.0]
    other = copy.deepcopy(model)
    with tw.no_grad():
        model.scale.assign(tw.tensor([5.0]))
    assert model.fast(tw.tensor([1.0])).tolist() == [5.0]
    assert other.fast(tw.tensor([1.0])).tolist() == [2.0]
    again = copy.copy(model.fast)
    assert (again(tw.tensor([1.0])).tolist(), again.traces) == ([5.0], 1)


@tw.jit
def _doubled(x: tw.Tensor) -> tw.Tensor:
    return x * 2


def test_a_jitted_function_goes_to_other_processes_by_its_name() -> None:
    assert pickle.loads(pickle.dumps(_doubled)) is _doubled  # noqa: S301
    local = tw.jit(lambda x: x)
    with pytest.raises((pickle.PicklingError, AttributeError), match="<lambda>"):
        pickle.dumps(local)


@pytest.mark.parametrize("write", [False, True])
def test_a_gradient_may_be_another_tensor_that_is_used_in_one_call_and_not_in_the_next(write: bool) -> None:
    w, u = (tw.tensor([1.0, 2.0], requires_grad=True) for _ in range(2))
    other = tw.zeros(2).realize()

    def differences() -> tuple[tw.Tensor, ...]:
        with tw.no_grad():
            if write:
                w.grad += 1
            return other * 1 - w.grad, w.grad - u.grad * 0.5, w.grad

    jitted = tw.jit(differences)
    for pair in ((0, 0), (0, 0), (0, 1), (1, 0), (1, 2), (2, 2), (0, 1), (2, 1), (2, 1)):
        found = []
        for function in (jitted, differences):
            other[...] = 5.0
            tensors = [other, *(tw.full((2,), n).realize() for n in (7.0, 9.0))]
            w.grad, u.grad = (tensors[i] for i in pair)
            results = function()
            assert results[2] is tensors[pair[0]]
            found.append([t.tolist() for t in (*results, *tensors)])
        assert found[0] == found[1], pair


def test_a_gradient_with_a_history_at_a_later_call_is_differentiated() -> None:
    w = tw.tensor([3.0], requires_grad=True)
    jitted = tw.jit(lambda: w.grad * 2)
    w.grad = tw.tensor([1.0])
    assert not jitted().requires_grad
    w.grad = w * w
    result = jitted()
    w.grad = None
    result.sum().backward()
    assert w.grad is not None and w.grad.tolist() == [12.0]

"""The lazy tensor: what is computed when, sharing, reading, writing in place, and long loops."""

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import pytest

import tilewright as tw
from tilewright import compiler
from tilewright.tensor import execute, lazy


class Counter:
    """Counts compiled programs and runs."""

    def __init__(self) -> None:
        self.compiled = 0
        self.runs = 0
        self.outputs: list[int] = []


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    count = Counter()
    real = compiler.compile
    saved = execute._programs.copy()
    execute._programs.clear()
    execute._written_out.clear()

    def counting(inputs, outputs, *rest):
        count.compiled += 1
        count.outputs.append(len(outputs))
        executable = real(inputs, outputs, *rest)
        compute = executable.compute

        class Counted:
            record = 0  # of runs that would not come here

            def compute(self, buffers):
                count.runs += 1
                return compute(buffers)

        return Counted()

    monkeypatch.setattr(compiler, "compile", counting)
    yield count
    execute._programs.clear()
    execute._programs.update(saved)


def test_nothing_runs_until_it_is_read(counter: Counter) -> None:
    x = tw.tensor([1.0, 2.0])
    y = (x * 3 + 1).sum()
    assert counter.runs == 0
    assert y.item() == 11.0
    assert counter.runs == 1
    assert y.item() == 11.0
    assert counter.runs == 1


def test_one_structure_compiles_once(counter: Counter) -> None:
    for i in range(5):
        x = tw.tensor(np.full(7, i, np.float32))
        assert (x * x + 1).sum().item() == 7 * (i * i + 1)
    assert counter.compiled == 1
    assert counter.runs == 5


def test_a_float_that_changes_does_not_compile_again(counter: Counter) -> None:
    x = tw.ones(3).realize()
    counter.compiled = 0
    for i in range(6):
        assert (x * (0.1 + 0.01 * i)).numpy() == pytest.approx(0.1 + 0.01 * i)
    assert counter.compiled == 1


def test_special_floats_are_kept_apart() -> None:
    x = tw.tensor([1.0, -1.0])
    assert np.signbit((x * 0.0 + -0.0).numpy()).tolist() == [False, True]
    assert np.signbit(tw.full((2,), -0.0).numpy()).all()
    assert not np.signbit(tw.full((2,), 0.0).numpy()).any()
    assert np.isnan((x + float("nan")).numpy()).all()
    assert (x + float("inf")).tolist() == [float("inf")] * 2


def test_reading_one_tensor_computes_all_that_are_held_with_it(counter: Counter) -> None:
    x = tw.tensor([1.0, 2.0, 3.0])
    a = x * 2
    b = a + 1
    c = (a - 1).sum()
    assert b.tolist() == [3.0, 5.0, 7.0]
    assert counter.runs == 1
    assert c.item() == 9.0
    assert a.tolist() == [2.0, 4.0, 6.0]
    assert counter.runs == 1


def test_a_tensor_nobody_holds_is_not_computed(counter: Counter) -> None:
    x = tw.tensor([1.0, 2.0])
    a = x * 2
    b = a + 1
    del a
    b.realize()
    assert counter.outputs == [1]


def test_independent_work_stays_pending(counter: Counter) -> None:
    a = tw.tensor([1.0]) + 1
    b = tw.tensor([2.0]) + 1
    a.realize()
    assert b._value.buffer is None
    assert counter.outputs == [1]


def test_realize_computes_several_in_one_program(counter: Counter) -> None:
    a = tw.tensor([1.0]) + 1
    b = tw.tensor([2.0]) * 3
    assert tw.realize(a, {"b": [b]})[0] is a
    assert counter.runs == 1
    assert (a.item(), b.item()) == (2.0, 6.0)


def test_a_realized_tensor_lets_its_graph_go() -> None:
    x = tw.tensor([1.0])
    y = (x + 1) * x
    inner = weakref.ref(y._value.packed[1][0])
    y.realize()
    gc.collect()
    assert inner() is None


def test_a_training_step_is_two_programs_and_updates_are_computed_once(counter: Counter) -> None:
    rng = np.random.default_rng(0)
    w = tw.tensor(rng.standard_normal((4, 3)), requires_grad=True)
    x = tw.tensor(rng.standard_normal((5, 3)))
    losses = []
    for _ in range(5):
        w.grad = None
        loss = (x @ w.T).square().mean()
        loss.backward()
        with tw.no_grad():
            w -= 0.1 * w.grad
        losses.append(loss.item())
    w.realize()
    assert counter.runs == 10  # forward and backward pass, and the update
    assert counter.compiled == 2
    assert losses == sorted(losses, reverse=True)


def test_a_training_loop_that_reads_nothing_stays_bounded(counter: Counter) -> None:
    w = tw.tensor([1.0, 2.0], requires_grad=True)
    for _ in range(40):
        w.grad = None
        (w * w).sum().backward()
        with tw.no_grad():
            w -= 0.125 * w.grad
        assert lazy.find(w._group).nodes < 100
    assert counter.compiled <= 3
    assert w.numpy() == pytest.approx(np.array([1.0, 2.0]) * 0.75**40)


def test_a_running_sum_neither_grows_nor_compiles_again(counter: Counter) -> None:
    total = tw.tensor(0.0)
    one = tw.tensor(1.0).realize()
    for _ in range(6_000):
        total = total + one
    assert total._group is None or lazy.find(total._group).nodes <= lazy.NODE_LIMIT
    compiled = counter.compiled
    assert compiled <= 3
    for _ in range(2_000):
        total = total + one
    assert counter.compiled == compiled
    assert total.item() == 8_000.0


def test_a_loop_over_new_leaves_frees_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "BYTE_LIMIT", 1 << 20)
    total = tw.zeros(())
    kept = []
    for i in range(40):
        batch = tw.tensor(np.full(50_000, i, np.float32))
        kept.append(weakref.ref(batch._value))
        total = total + batch.max()
    del batch
    gc.collect()
    assert sum(r() is not None for r in kept) < 12
    assert total.item() == sum(range(40))


def test_a_failing_companion_does_not_fail_the_tensor_that_was_read() -> None:
    x = tw.tensor([1.0, 2.0, 3.0])
    index = tw.tensor([7])
    good = x + 1
    bad = good[index + 0]
    with pytest.raises(IndexError):
        bad.numpy()
    assert good.tolist() == [2.0, 3.0, 4.0]


# ---- reading --------------------------------------------------------------------------------------------------


def test_numpy_is_a_read_only_view() -> None:
    x = tw.tensor([1.0, 2.0])
    view = x.numpy()
    assert not view.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 5.0
    assert np.shares_memory(view, x.numpy())
    copied = np.array(x)
    copied[0] = 5.0
    assert x.tolist() == [1.0, 2.0]


def test_conversions_to_python() -> None:
    assert tw.tensor(3).item() == 3
    assert isinstance(tw.tensor(3).item(), int)
    assert float(tw.tensor(2.5)) == 2.5
    assert int(tw.tensor(2.5)) == 2
    assert bool(tw.tensor([[0.0]])) is False
    assert complex(tw.tensor(1 + 2j)) == 1 + 2j
    assert [10, 20, 30][tw.tensor(1)] == 20
    assert f"{tw.tensor(1.5):.2f}" == "1.50"
    assert len(tw.zeros(3, 2)) == 3
    assert [row.tolist() for row in tw.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]


def test_printing() -> None:
    assert repr(tw.tensor([1.0, 2.5])) == "Tensor([1. , 2.5], dtype=float32)"
    assert repr(tw.ones(1, requires_grad=True)) == "Tensor([1.], dtype=float32, requires_grad=True)"


def test_from_numpy_shares_and_tensor_copies() -> None:
    array = np.array([1.0, 2.0], np.float32)
    shared, copied = tw.from_numpy(array), tw.tensor(array)
    array[0] = 9.0
    assert shared.tolist() == [9.0, 2.0]
    assert copied.tolist() == [1.0, 2.0]
    assert np.shares_memory(array, tw.asarray(array, copy=False).numpy())
    assert tw.from_numpy(np.arange(6).reshape(2, 3).T).tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8", "bool", "complex64"])
def test_dlpack_both_ways(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    ours = tw.tensor(array)
    assert np.array_equal(np.from_dlpack(ours), array)
    assert tw.from_dlpack(array).numpy().dtype == array.dtype
    assert np.array_equal(tw.from_dlpack(array).numpy(), array)
    assert np.array_equal(tw.from_dlpack(array.T).numpy(), array.T)
    shared = tw.from_dlpack(array)
    assert np.shares_memory(shared.numpy(), array)


def test_numpy_operators_defer_to_the_tensor() -> None:
    out = np.array([1.0, 2.0], np.float32) * tw.tensor([3.0, 4.0])
    assert isinstance(out, tw.Tensor)
    assert out.tolist() == [3.0, 8.0]


# ---- writing in place -----------------------------------------------------------------------------------------


def test_in_place_binds_the_handle_only() -> None:
    x = tw.tensor([1.0, 2.0])
    y = x
    shared = x + 0
    x += 1
    x[0] = 7.0
    assert y is x
    assert x.tolist() == [7.0, 3.0]
    assert shared.tolist() == [1.0, 2.0]


def test_in_place_keeps_gradients_of_interior_tensors() -> None:
    w = tw.tensor([1.0, 2.0, 3.0], requires_grad=True)
    h = w * 2
    h[1] = 0.0
    h *= 3
    h.sum().backward()
    assert w.grad.tolist() == [6.0, 0.0, 6.0]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: +x, lambda x: x.clone(), lambda x: x.reshape(2, 1), lambda x: x.astype("float32"), lambda x: x.squeeze(0),
        lambda x: x.permute_dims(0, 1), lambda x: x.flip(()), lambda x: x.broadcast_to((2, 1)), lambda x: x[...],
        lambda x: x.detach(), lambda x: x.data, lambda x: tw.tensor(x),
    ],
)  # fmt: skip
def test_results_are_handles_of_their_own(function) -> None:
    x = tw.tensor([[1.0], [2.0]])
    y = function(x) if "squeeze" not in function.__code__.co_names else function(x[None])
    y += 1
    assert x.tolist() == [[1.0], [2.0]]
    assert y.tolist() == [[2.0], [3.0]]


def test_data_reads_and_writes_past_gradients() -> None:
    w = tw.ones(2, requires_grad=True)
    assert not w.data.requires_grad
    w.data = [3.0, 4.0]
    assert w.requires_grad
    assert w.tolist() == [3.0, 4.0]


def test_a_leaf_with_gradients_is_written_under_no_grad_only() -> None:
    w = tw.tensor([1.0], requires_grad=True)
    with pytest.raises(tw.GradientError, match="no_grad"):
        w += 1
    with pytest.raises(tw.GradientError, match="no_grad"):
        w[0] = 1.0
    with tw.no_grad():
        w += 1
    assert w.requires_grad
    assert w.is_leaf
    assert w.tolist() == [2.0]


def test_assign_casts_and_broadcasts_to_the_tensor() -> None:
    x = tw.zeros(2, 3, dtype="float64")
    x.assign([1, 2, 3])
    assert x.dtype is tw.float64
    assert x.tolist() == [[1.0, 2.0, 3.0]] * 2
    with pytest.raises(tw.ShapeError, match="assign"):
        x.assign(tw.zeros(4))


def test_in_place_does_not_change_the_type() -> None:
    x = tw.tensor([1, 2])
    with pytest.raises(tw.DTypeError, match="in-place"):
        x += 0.5
    x += 2
    assert x.tolist() == [3, 4]


def test_slices_of_a_computed_tensor_are_views_and_compile_nothing(counter: Counter) -> None:
    x = tw.tensor(np.arange(1000, dtype=np.float32).reshape(100, 10))
    for i in range(0, 100, 10):
        part = x[i : i + 10]
        assert np.shares_memory(part.numpy(), x.numpy())
        assert part.tolist()[0][0] == i * 10
        assert x[:, 3][i].item() == i * 10 + 3
    assert counter.compiled == 0


def test_deepcopy_is_independent() -> None:
    import copy

    w = tw.tensor([1.0, 2.0], requires_grad=True)
    other = copy.deepcopy(w)
    with tw.no_grad():
        w += 1
    assert other.tolist() == [1.0, 2.0]
    assert other.requires_grad
    assert other.is_leaf


def test_tensors_are_never_pickled() -> None:
    import pickle

    model = tw.nn.Linear(2, 2)
    generator = tw.random.Generator(0)
    for item in (tw.ones(1), model, model.state_dict(), tw.optim.Adam(model.parameters()), generator):
        with pytest.raises(TypeError, match=r"not pickled: write them to a file with `tw.save\(x, path\)`"):
            pickle.dumps(item)


def test_realize_keeps_nothing_alive() -> None:
    """Memory comes back at once, not when cycles are next collected."""
    gc.disable()
    try:
        x = tw.ones(3) + 1
        tw.realize(x, [{"a": x * 2}])
        gone = weakref.ref(x)
        del x
        assert gone() is None
    finally:
        gc.enable()

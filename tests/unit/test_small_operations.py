"""Un-jitted small operations: the builtins that record and repeat them do what the Python code beside them does."""

import gc
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from platform_needs import needs_builtins

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import compiler, nn
from tilewright.core.settings import settings
from tilewright.functions import indexing, movement
from tilewright.runtime import brief
from tilewright.runtime.profiler import profile
from tilewright.tensor import Tensor, composite, execute, lazy

pytestmark = needs_builtins


@pytest.fixture(autouse=True)
def warm() -> None:
    """A program has run several times and a function was called since, so the builtins are there."""
    for _ in range(4):
        (tw.tensor([1.0]) + 1).numpy()
    assert composite._known and execute._repeated


def array(*shape: int) -> np.ndarray[Any, Any]:
    return np.linspace(-1, 2, int(np.prod(shape)), dtype=np.float32).reshape(shape)


X, M, W = tw.tensor(array(6)), tw.tensor(array(3, 4)), tw.tensor(array(4, 3))
P = nn.Parameter(tw.tensor(array(6)))
G = tw.tensor(array(6), requires_grad=True)
D, ROW, ROWS, MASK = P.detach(), M[0], M[:2], tw.tensor(array(6) > 0)


@composite.composite
def scaled(x: Tensor, numbers: Any) -> Tensor:
    return x * numbers[0][0] + numbers[0][1]


CALLS: dict[str, Callable[[], Tensor]] = {
    "two tensors": lambda: X + D,
    "one twice": lambda: X * X,
    "an integer": lambda: X + 1,
    "a bool": lambda: X + True,
    "a float": lambda: X * 0.5,
    "zero": lambda: X + 0.0,
    "minus zero": lambda: X + -0.0,
    "a number that varies": lambda: X * 1.37,
    "on the left": lambda: 1.37 - X,
    "named arguments": lambda: tw.sum(M, axis=1, keepdims=True),
    "a word": lambda: F.gelu(X, "tanh"),
    "axes": lambda: M.sum(axis=(0, 1)),
    "a shape": lambda: X.reshape((2, 3)),
    "a slice": lambda: indexing._move(X, (slice(1, 3),)),
    "slices": lambda: indexing._move(W, (slice(1, None), None, slice(None, None, -2))),
    "nested": lambda: scaled(X, ((2, 0.3), (None, "a", ()))),
    "several joined": lambda: movement._concat(0, M, ROWS, M),
    "a product": lambda: M @ W,
    "gradients": lambda: G * X,
    "a parameter": lambda: P * X,
    "a function of nn": lambda: F.relu(G),
    "broadcast": lambda: M + ROW,
    "cut off": lambda: tw.where(MASK, G, 0.0),
}


def facts(made: Tensor) -> tuple[Any, ...]:
    """All that is known of a pending tensor."""
    packed, group = made._value.packed, made._group
    assert packed is not None and group is not None
    names = made._value.names
    return (
        type(made), packed, made._value.type, [r() is made for r in names] if names else names, made._requires_grad,
        made._chain, made._leaf, made._grad, made._trace, made._hooks, group.nodes, group.nbytes, group.limit,
        [r() is made for r in group.members], group.parent,
    )  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("grad", (True, False))
def test_a_call_is_recorded_as_python_does(name: str, grad: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with tw.set_grad_enabled(grad):
        for _ in range(3):
            CALLS[name]()  # now its kind is known
        made = CALLS[name]()
        monkeypatch.setattr(composite, "_known", [])
        monkeypatch.setattr(composite, "_install", lambda: None)
        wanted = CALLS[name]()
        assert facts(made) == facts(wanted)
        np.testing.assert_array_equal(made.numpy(), wanted.numpy())


def test_calls_of_a_known_kind_run_no_python(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        (X * X + 1).sum().numpy()
    for module, name in (
        (composite, "_describe"),
        (composite, "from_value"),
        (execute, "plan"),
        (execute, "program"),
    ):
        monkeypatch.setattr(module, name, None)
    monkeypatch.setattr(compiler.Executable, "compute", None)
    assert (X * X + 1).sum().item() == pytest.approx(float((array(6) ** 2 + 1).sum()))


def test_groups_are_joined_and_limits_hold() -> None:
    a, b = X + 1, X * 2
    assert a._group is not b._group
    c = a * b
    assert a._group is not None and b._group is not None and c._group is not None
    assert lazy.find(a._group) is lazy.find(b._group) is lazy.find(c._group)


def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    def lengths() -> list[int]:
        x, found = X, []
        for _ in range(lazy.CHAIN_LIMIT + 20):
            x = x * 0.5 + X
            found.append(x._chain)
        return found

    lengths()
    fast = lengths()
    assert 0 in fast and max(fast) <= lazy.CHAIN_LIMIT + 2
    kept = [X + 1]
    for _ in range(200):  # more than a group has room for, at first
        kept.append(kept[0] * 0.5)
    assert lazy.find(kept[0]._group or lazy.Group()).limit > 64
    np.testing.assert_array_equal(kept[-1].numpy(), (array(6) + 1) * np.float32(0.5))
    assert all(t._value.buffer is not None for t in kept)
    monkeypatch.setattr(composite, "_known", [])
    monkeypatch.setattr(composite, "_install", lambda: None)
    assert fast == lengths()


def test_a_call_inside_a_trace_is_recorded_there() -> None:
    f = tw.jit(lambda x: x * X + 1)
    for _ in range(3):
        np.testing.assert_allclose(f(X).numpy(), array(6) ** 2 + 1, rtol=1e-6)
    leaked: list[Tensor] = []
    tw.jit(lambda x: leaked.append(x) or x + 1)(X)
    with pytest.raises(tw.LeakedTensorError):
        leaked[0] + 1


def test_errors_are_those_of_the_call() -> None:
    for _ in range(3):
        with pytest.raises(tw.ShapeError, match="do not broadcast"):
            X + M
        with pytest.raises(TypeError):
            X + "a"
        with pytest.raises(tw.AxisError):
            X.sum(axis=3)


def graphs() -> dict[str, list[Tensor]]:
    a = X * 1.5
    shared = a + X
    deep = M
    for _ in range(120):
        deep = (deep @ W) @ M * 0.001
    return {
        "a chain": [(X * 2 + 1).sum()],
        "several": [shared, shared * a, a],
        "one value twice": [X * X, X + X],
        "a number that varies": [X * 1.37 + 0.31],
        "a constant that does not": [X + tw.tensor(2.0)],
        "computed on the way": [(X + 1).realize() * X],
        "deep": [deep],
        "of no packed values": [tw.zeros(3), (G * 2).detach()],
    }


@pytest.mark.parametrize("name", graphs())
def test_what_was_computed_before_is_computed_again_from_the_same_program(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Any] = []
    first = [b.to_numpy() for b in execute.evaluate([t._value for t in graphs()[name]])]
    for _ in range(2):  # in one builtin from then on, where that can be
        execute.evaluate([t._value for t in graphs()[name]])
    compile = compiler.compile
    monkeypatch.setattr(compiler, "compile", lambda *args: compiled.append(args) or compile(*args))
    again = [b.to_numpy() for b in execute.evaluate([t._value for t in graphs()[name]])]
    monkeypatch.setattr(execute, "_repeated", [])
    slowly = [b.to_numpy() for b in execute.evaluate([t._value for t in graphs()[name]])]
    assert not compiled
    for one, two, three in zip(first, again, slowly, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)


def test_a_profile_sees_small_operations_too() -> None:
    for _ in range(4):
        (X + X).numpy()
    with profile() as timings:
        (X + X).numpy()
    assert len(timings) == 1
    (X + X).numpy()
    assert len(timings) == 1


def test_an_index_out_of_range_is_found_in_a_repeated_run() -> None:
    x = tw.tensor(array(5))
    places = [tw.tensor([0, 4]), tw.tensor([3, 9])]
    for _ in range(4):
        assert tw.take(x, places[0]).tolist() == x.numpy()[[0, 4]].tolist()
    for _ in range(2):
        with pytest.raises(tw.IndexingError, match="9"):
            tw.take(x, places[1]).numpy()
    good, bad = tw.take(x, places[0]) + 1, tw.take(x, places[1])
    assert good.tolist() == (x.numpy()[[0, 4]] + 1).tolist()
    with pytest.raises(tw.IndexingError, match="9"):
        bad.numpy()


def test_a_brief_run_takes_nothing_but_what_it_was_made_for() -> None:
    run = brief.function()
    assert run is not None
    for _ in range(3):
        (X * X + 0.5).numpy()
    value = (X * X + 0.5)._value
    ready = execute.program(execute.plan([value]))
    assert ready.record
    buffer = X._buffer()
    made = run(ready.record, [buffer])
    assert made is not None
    np.testing.assert_array_equal(made[0].to_numpy(), array(6) ** 2 + np.float32(0.5))
    assert run(ready.record, []) is run(ready.record, [buffer, buffer]) is None
    assert run(ready.record, [7]) is None  # type: ignore[list-item]
    with settings.override(debug=1):
        assert run(ready.record, [buffer]) is None
    with pytest.raises(SystemError):
        run(ready.record)  # type: ignore[call-arg]


def test_nothing_is_kept_of_small_operations() -> None:
    def work() -> None:
        ((X * 1.37 + P) @ W[:, 0].reshape((4,))[:1].broadcast_to((6,))).item()
        with pytest.raises(tw.ShapeError):
            X + M
        for _ in range(lazy.CHAIN_LIMIT + 2):
            G * 2 + 1

    watched = [Tensor, X, X._value, X._value.type.shape, X.dtype, P._value, "input", float]
    for _ in range(30):
        work()
    gc.collect()
    before, objects = [sys.getrefcount(o) for o in watched], len(gc.get_objects())
    for _ in range(100):
        work()
    gc.collect()
    after = [sys.getrefcount(o) for o in watched]
    assert all(abs(a - b) < 20 for a, b in zip(after, before, strict=True))
    assert len(gc.get_objects()) < objects + 100


def test_a_computed_tensor_is_a_leaf_that_forgets_what_it_was_made_of() -> None:
    y = X + 1
    z = y * 2
    below = weakref.ref(y._value)
    pending = z + 1
    del y
    assert z.realize()._value.op == "input" and z._value.inputs == ()
    assert below() is None
    assert pending._value.buffer is not None  # somebody holds it
    np.testing.assert_array_equal(pending.numpy(), (array(6) + 1) * 2 + 1)


def test_a_detached_tensor_shares_the_memory_of_a_computed_one() -> None:
    y = (G * 2).realize()
    alone = y.detach()
    assert not alone.requires_grad and alone._value.buffer is y._value.buffer
    alone += 1
    np.testing.assert_array_equal(y.numpy(), array(6) * 2)
    y.sum().backward()
    assert G.grad is not None
    np.testing.assert_array_equal(G.grad.numpy(), np.full(6, 2.0))
    G.grad = None


def test_programs_that_were_not_used_for_long_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = execute._programs.copy()
    execute._programs.clear()
    monkeypatch.setattr(execute, "CACHE_LIMIT", 4)
    try:
        often = tw.tensor(array(2))
        for size in range(3, 12):
            (tw.tensor(array(size)) * 2).numpy()
            (often * 2).numpy()
            assert len(execute._programs) <= 4
            assert any(ready.inputs[0].shape == (2,) for ready in execute._programs.values())
    finally:
        execute._programs.clear()
        execute._programs.update(saved)


def test_many_and_deep_arguments_leave_the_stack_alone() -> None:
    nested: Any = ()
    for _ in range(20_000):
        nested = (nested,)
    one = tw.tensor(np.ones((1, 1), np.float32))
    found: list[Any] = []

    def calls() -> None:
        with pytest.raises(RecursionError):
            X.sum(axis=nested)
        for count, depth in ((200_000, 1), (3000, 100)):
            for _ in range(3):
                made = X[0:1].reshape((1, 1))
                for _ in range(depth):
                    made = movement._concat(0, made, *[one] * count).sum(axis=0, keepdims=True)
                found.append(execute._repeated[0]([made._value]))

    size = threading.stack_size(1 << 20)
    try:
        thread = threading.Thread(target=calls)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(size)
    assert len(found) == 6


def test_an_interruption_while_operands_are_looked_for_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(4):
        (X * 1.37).numpy()
    leaf_buffer, calls = execute.leaf_buffer, []

    def interrupted(leaf: Any) -> Any:
        calls.append(leaf)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return leaf_buffer(leaf)

    monkeypatch.setattr(execute, "leaf_buffer", interrupted)
    made = X * 1.37
    with pytest.raises(KeyboardInterrupt):
        made.numpy()
    np.testing.assert_array_equal(made.numpy(), array(6) * np.float32(1.37))

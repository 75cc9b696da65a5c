"""Ctrl-C, and other signals whose handlers raise, while native code runs: a call has happened as a whole, or not at all."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from platform_needs import needs_builtins

import tilewright as tw
from tilewright.lower.schedule import may_fail
from tilewright.runtime.buffers import Buffer, pool
from tilewright.tensor import modes
from tilewright.train.ctrl_c import ctrl_c_noted

pytestmark = [
    pytest.mark.skipif(
        not hasattr(signal, "setitimer"),
        reason="setitimer, which sends the signal during a call, exists on POSIX systems only",
    ),
    pytest.mark.usefixtures("ctrl_c_raises"),
]


class _Interrupted(Exception):
    """What the handler raises."""


@contextmanager
def signalled(seconds: float) -> Iterator[None]:
    """A signal after so many seconds, and the exception of its handler."""

    def handler(*_: Any) -> None:
        raise _Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    try:
        with pytest.raises(_Interrupted):
            signal.setitimer(signal.ITIMER_REAL, seconds)
            yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("how", ["array", "host step", "tensor"])
def test_an_interrupted_call_writes_all_or_nothing(how: str) -> None:
    """One write goes over the old memory, others into new: half of them would be a state that no step leads to."""
    count, square, mean = tw.zeros((4,)), tw.zeros((3, 3)), tw.zeros(())
    eye = tw.eye(3)

    @tw.jit
    def step(x: tw.Tensor) -> tw.Tensor:
        y = x
        for _ in range(30):
            y = y @ x
        count.assign(count + 1)
        square.assign((square + 1) @ eye)
        mean.assign(square.mean())
        return y.sum() + (tw.sort(y[0])[0] if how == "host step" else 0)

    data = np.full((600, 600), 1e-3, np.float32)
    x: Any = data if how == "array" else tw.tensor(data)
    for _ in range(3):
        step(x)
    held: list[Any] = []
    for _ in range(5):
        held = [square._value, mean._value]  # the builtin then rebinds these through Python
        with signalled(0.005):
            while True:
                step(x)
        assert count.tolist() == [square.tolist()[0][0]] * 4 == [mean.item()] * 4
    assert len(held) == 2 and count.tolist()[0] >= 3


# Iterations of loops that a test stops after a moment. They end by themselves after a minute or two: a test fails then.
LONG = 10**10  # of a counter
MANY = 3 * 10**6  # of small products


@contextmanager
def ctrl_c(seconds: float) -> Iterator[None]:
    """Ctrl-C after so many seconds, which has to come out of the block well before its end."""
    timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
    started = time.monotonic()
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            yield
            time.sleep(10)  # where the signal came late
    finally:
        timer.cancel()
        timer.join()
    assert time.monotonic() - started < seconds + 5


@pytest.fixture(params=[1, 2, 4])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    tw.set_num_threads(request.param)
    yield request.param
    tw.set_num_threads(None)


@needs_builtins
@pytest.mark.parametrize("nested", ["", "scan", "switch"])
def test_a_loop_in_native_code_stops_for_ctrl_c(threads: int, nested: str) -> None:
    """What comes before, in and after the loop has not happened, and the next call is right."""
    count, total, weights = tw.zeros((4,)), tw.zeros(()), tw.ones((64, 64)) * 0.01

    def loop(limit: tw.Tensor, x: tw.Tensor) -> tw.Tensor:
        more = lambda c: c[0] < limit  # noqa: E731
        return tw.while_loop(more, lambda c: (c[0] + 1, tw.tanh(c[1] @ weights)), (tw.tensor(0), x))[1]

    @tw.jit
    def step(limit: tw.Tensor, x: tw.Tensor) -> tw.Tensor:
        count.assign(count + 1)  # in front of the loop
        if nested == "scan":
            x = tw.scan(lambda c, _: (loop(limit, c), None), x, length=2)[0]
        elif nested == "switch":
            x = tw.cond(limit > 0, lambda: loop(limit, x), lambda: x)
        else:
            x = loop(limit, x)
        total.assign(total + x.sum())
        return x

    x = tw.ones((512, 64))
    few, endless = tw.tensor(3), tw.tensor(MANY)
    for _ in range(3):
        result = step(few, x).numpy().copy()
    for _ in range(2):
        before = [t.numpy().copy() for t in (count, total, x)]
        with ctrl_c(0.2):
            step(endless, x)
        for tensor, old in zip((count, total, x), before, strict=True):
            np.testing.assert_array_equal(tensor.numpy(), old)
        np.testing.assert_array_equal(step(few, x).numpy(), result)
    assert count.tolist() == [5.0] * 4


@needs_builtins
def test_an_epoch_in_one_call_leaves_the_weights_it_began_with(threads: int) -> None:
    weights, moments = tw.ones((64, 64)) * 0.01, tw.zeros((64, 64))
    x = tw.ones((32, 64))

    @tw.jit
    def epoch(steps: int) -> tw.Tensor:
        def step(_: int, state: tuple[tw.Tensor, tw.Tensor]) -> tuple[tw.Tensor, tw.Tensor]:
            w, m = state
            m = 0.9 * m + tw.grad(lambda w: ((x @ w - 1) ** 2).mean())(w)
            return w - 0.01 * m, m

        w, m = tw.fori_loop(0, steps, step, (weights, moments))
        weights.assign(w)
        moments.assign(m)
        return ((x @ w - 1) ** 2).mean()

    epoch.executable(MANY)
    first = epoch(5).item()
    for _ in range(2):
        before = weights.numpy().copy(), moments.numpy().copy()
        with ctrl_c(0.2):
            epoch(MANY)
        for tensor, old in zip((weights, moments), before, strict=True):
            np.testing.assert_array_equal(tensor.numpy(), old)
        assert epoch(5).item() < first


@needs_builtins
def test_eager_loops_stop_and_can_be_computed_later() -> None:
    limit = tw.tensor(LONG)
    pending = tw.while_loop(lambda n: n < limit, lambda n: n + 1, tw.tensor(0))
    with ctrl_c(0.2):
        pending.item()
    with ctrl_c(0.2):  # it is still pending
        pending.item()
    assert (tw.ones(3) + 1).tolist() == [2.0] * 3


@needs_builtins
def test_a_handler_of_the_program_itself_waits_for_the_end() -> None:
    """It could run anything, a program over the same memory too."""
    seen: list[float] = []
    loop = tw.jit(lambda limit: tw.while_loop(lambda n: n < limit, lambda n: n + 1, tw.tensor(0)))
    loop(tw.tensor(10))
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(loop(tw.tensor(7)).item()))
    timer = threading.Timer(0.15, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        assert loop(tw.tensor(40_000_000)).item() == 40_000_000
        timer.join()
        for _ in range(500):
            if not seen:
                time.sleep(0.01)
        assert seen == [7]
    finally:
        signal.signal(signal.SIGINT, before)


@needs_builtins
def test_the_trainers_handler_lets_a_loop_stop() -> None:
    loop = tw.jit(lambda limit: tw.while_loop(lambda n: n < limit, lambda n: n + 1, tw.tensor(0)))
    with ctrl_c(0.2), ctrl_c_noted():
        loop(tw.tensor(LONG))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@needs_builtins
def test_a_loop_on_another_thread_goes_on() -> None:
    """Signals are the main thread's."""
    results: list[float] = []
    loop = tw.jit(lambda limit: tw.while_loop(lambda n: n < limit, lambda n: n + 1, tw.tensor(0)))
    loop(tw.tensor(10))
    done = threading.Event()

    def work() -> None:
        results.append(loop(tw.tensor(40_000_000)).item())
        done.set()

    with ctrl_c(0.15):
        threading.Thread(target=work).start()
        done.wait()  # not `join`: interrupted once, that takes the thread for ended
    assert done.wait(60) and results == [40_000_000]


def test_short_loops_are_not_asked() -> None:
    """Asking costs memory: what such a loop follows is not written over in place."""
    short = tw.jit(lambda x: tw.scan(lambda c, x: (tw.tanh(c + x), c), tw.ones(64), x)[0])
    executable = short.executable(tw.ones((100, 64)))
    assert executable is not None
    (nest,) = [s.nest for s in executable.schedule.steps if s.nest is not None]
    assert not nest.stops  # type: ignore[union-attr]
    assert not any(may_fail(executable.schedule.steps))


@needs_builtins
def test_no_python_code_runs_where_memory_is_given_back() -> None:
    """A signal's handler raises between two steps of Python code: in a destructor that would be printed, and lost."""
    (tw.ones(3) + 1).realize()  # there is native code
    seen: list[str] = []

    def note(frame: Any, event: str, _: Any) -> Any:
        if event == "call":
            seen.append(frame.f_code.co_qualname)
        return note

    blocks = [Buffer.of_size(size, size, np.dtype(np.uint8)) for size in (1024, 1024, 1 << 22)]
    held = pool.held_bytes
    sys.setprofile(note)
    try:
        blocks.clear()
    finally:
        sys.setprofile(None)
    assert seen == []
    assert pool.held_bytes == held + 2048 + (1 << 22)
    for _ in range(2):  # the same memory again, and what is in the way stays what it is
        with pytest.raises(_Interrupted):
            block = Buffer.of_size(1024, 1024, np.dtype(np.uint8))
            assert block.nbytes == 1024 and pool.held_bytes == held + 1024 + (1 << 22)
            raise _Interrupted
        del block
    assert pool.held_bytes == held + 2048 + (1 << 22)


@needs_builtins
def test_no_ctrl_c_is_lost_in_a_loop_of_python_code() -> None:
    """Many small buffers come and go, so that most of the time is spent where one goes."""
    (tw.ones(3) + 1).realize()

    def spin() -> (
        None
    ):  # a function, since the jump back of a loop in a `with` block is outside of it in Python 3.13
        started = time.monotonic()
        while time.monotonic() - started < 5:
            Buffer.of_size(1024, 1024, np.dtype(np.uint8))

    for _ in range(200):
        with signalled(0.005):
            spin()


@needs_builtins
def test_blocks_of_modes_are_left_without_python_code() -> None:
    """An `__exit__` that Ctrl-C interrupts has put nothing back."""
    x = tw.ones(3)
    (x + 1).realize()
    seen: list[str] = []

    def note(frame: Any, event: str, _: Any) -> Any:
        if event == "call":
            seen.append(frame.f_code.co_name)
        return note

    sys.setprofile(note)
    try:
        with tw.no_grad():
            with tw.enable_grad(), tw.autocast(tw.bfloat16):
                assert modes.grad and modes.products is tw.bfloat16
            assert not modes.grad and modes.products is None
    finally:
        sys.setprofile(None)
    assert modes.grad
    assert "__exit__" not in seen
    with pytest.raises(_Interrupted), tw.no_grad():
        raise _Interrupted
    assert modes.grad

"""Tensors and jitted functions in several Python threads and in a forked child, as servers and data loaders use them.

What threads must not do, use the tensors that another one is tracing a function with outside of jitted functions, is an error
that says so.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import nn
from tilewright.tensor import execute

THREADS, ROUNDS = 6, 20


def in_threads(work: Callable[[int], None]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(work, range(THREADS)))  # raises what a thread raised


def test_threads_compute_with_tensors_of_their_own() -> None:
    def work(number: int) -> None:
        for size in range(90, 90 + ROUNDS):  # every thread meets every new program
            values = np.arange(size, dtype=np.float32) + number
            assert (tw.Tensor(values) * 2 + 1).sum().item() == (values * 2 + 1).sum()

    in_threads(work)


def test_threads_read_shared_tensors() -> None:
    shared = tw.arange(1000, dtype=tw.float32) * 3  # pending until some thread reads it

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            assert (shared + number)[number].item() == 4 * number

    in_threads(work)


def test_threads_call_one_jitted_function() -> None:
    @tw.jit
    def product(a: tw.Tensor, b: tw.Tensor) -> tw.Tensor:
        return (a @ b).sum()

    def work(number: int) -> None:
        for _ in range(ROUNDS):
            a = tw.full((8, 8), float(number))
            assert product(a, a).item() == 8**3 * number**2

    in_threads(work)


def test_threads_call_a_model_for_the_first_time_together() -> None:
    for _ in range(5):
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
        infer, x = tw.jit(model), tw.ones(4, 8).realize()
        start = threading.Barrier(THREADS)

        def work(
            number: int,
            infer: Callable[..., tw.Tensor] = infer,
            x: tw.Tensor = x,
            start: threading.Barrier = start,
        ) -> None:
            start.wait()
            for _ in range(ROUNDS):
                assert infer(x).numpy().shape == (4, 1)

        in_threads(work)


def test_new_sizes_arrive_while_others_call() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    infer, x = tw.jit(model), tw.ones(64, 8).realize()
    with tw.no_grad():
        wanted = infer(x).numpy().copy()

    def work(number: int) -> None:
        with tw.no_grad():
            for size in range(1, ROUNDS):
                if number == 0:
                    assert infer(tw.ones(size, 8)).shape == (size, 1)
                for _ in range(20):
                    np.testing.assert_array_equal(infer(x).numpy(), wanted)

    in_threads(work)


@pytest.mark.parametrize("returned", ["state", "other"])
def test_state_is_updated_in_turns(returned: str) -> None:
    """Reading, computing and writing back are one change, in calls with and without Python code."""
    count = tw.zeros(()).realize()

    @tw.jit
    def add(x: tw.Tensor) -> tw.Tensor:
        count.assign(count + x)
        return count if returned == "state" else x * 2

    one = tw.ones(()).realize()

    def work(number: int) -> None:
        for _ in range(300):
            add(one)

    in_threads(work)
    assert count.item() == THREADS * 300


def test_gradients_are_recorded_per_thread() -> None:
    def work(number: int) -> None:
        for _ in range(ROUNDS):
            w = tw.Tensor(float(number), requires_grad=True)
            if number % 2:
                with tw.no_grad():
                    assert not (w * w).requires_grad
            else:
                (w * w).backward()
                assert w.grad is not None and w.grad.item() == 2 * number

    in_threads(work)


def _child(answer: multiprocessing.queues.SimpleQueue[float]) -> None:
    a = tw.ones((300, 300))
    answer.put((a @ a).sum().item())


@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this system has no fork, so there is no child to look at"
)
def test_a_forked_child_computes() -> None:
    a = tw.ones((200, 200))
    assert (a @ a).sum().item() == 200**3  # the parent's threads are running
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.queues.SimpleQueue[float] = context.SimpleQueue()
    child = context.Process(target=_child, args=(answer,))
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python warns of any fork of a process with threads
        child.start()
    child.join(60)
    assert child.exitcode == 0
    assert answer.get() == 300**3
    assert (a @ a).sum().item() == 200**3


@pytest.mark.skipif(
    not hasattr(os, "fork"), reason="this system has no fork, so there is no child to look at"
)
def test_a_child_does_not_wait_for_a_program_that_another_thread_compiled_at_the_fork(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiling, go_on = threading.Event(), threading.Event()
    compile = execute._compile

    def slow(*args: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            compiling.set()
            go_on.wait(60)
        return compile(*args)

    monkeypatch.setattr(execute, "_compile", slow)
    other = threading.Thread(target=lambda: tw.ones((3, 7)).cumulative_sum(axis=1).numpy())
    other.start()
    assert compiling.wait(60)
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.queues.SimpleQueue[float] = context.SimpleQueue()
    child = context.Process(target=_child, args=(answer,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child.start()
    child.join(20)
    child.kill()
    go_on.set()
    other.join()
    assert child.exitcode == 0


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="with one CPU, or where affinity cannot be asked for, workers are not placed",
)
def test_workers_stay_off_the_callers_cpu() -> None:
    """Wherever the caller is moved to: a worker on the caller's CPU would wait for it while others are idle."""
    cpus = sorted(os.sched_getaffinity(0))
    x = tw.ones((400, 400))
    product = tw.jit(lambda x: x @ x)
    try:
        for cpu in (cpus[0], cpus[1], cpus[0]):
            os.sched_setaffinity(0, {cpu})  # of this thread
            product(x).numpy()
            workers = [t for t in threading.enumerate() if t.name.startswith("tilewright-worker-")]
            assert workers
            for worker in workers:
                assert worker.native_id is not None
                assert os.sched_getaffinity(worker.native_id) == set(cpus) - {cpu}
    finally:
        os.sched_setaffinity(0, cpus)


def test_using_the_tensors_of_another_threads_trace_is_an_error_that_says_so() -> None:
    weight = tw.ones(4)
    tracing, tried = threading.Event(), threading.Event()
    said: list[str] = []

    @tw.jit
    def scaled(x: tw.Tensor) -> tw.Tensor:
        y = x * weight
        tracing.set()
        assert tried.wait(30)
        return y

    def other() -> None:
        assert tracing.wait(30)
        for use in (lambda: (weight * 2).tolist(), lambda: weight.assign(tw.zeros(4))):
            try:
                use()
            except tw.TracedValueError as error:
                said.append(str(error))
        assert (tw.ones(4) * 2).tolist() == [2.0] * 4  # its own tensors are nobody else's concern
        tried.set()

    thread = threading.Thread(target=other)
    thread.start()
    assert scaled(tw.ones(4)).tolist() == [1.0] * 4
    thread.join()
    assert len(said) == 2 and all("another thread traces" in text and "scaled" in text for text in said)
    assert weight.tolist() == [1.0] * 4

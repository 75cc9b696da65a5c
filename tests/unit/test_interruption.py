"""Ctrl-C, and other signals whose handlers raise, while native code runs: a call has happened as a whole, or not at all."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import tilewright as tw

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "setitimer"),
    reason="setitimer, which sends the signal during a call, exists on POSIX systems only",
)


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

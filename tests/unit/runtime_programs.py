"""Launches of small kernels, their operands, and the state of the team, for the runtime's tests."""

import time
from typing import Any

import numpy as np
import numpy.typing as npt
from runtime_kernels import kernel

from tilewright.runtime.steps import Launch, Segment
from tilewright.runtime.team import Team

Array = npt.NDArray[np.int64]
N = 1024


def zeros(count: int = N) -> Array:
    return np.zeros(count, np.int64)


def launch(name: str, a: int, b: int, grid: int = N, chunk: int = 100, wait_for: int = -1) -> Launch:
    return Launch(kernel(name), [Segment([(a, 0), (b, 0)], grid, chunk)], wait_for, name)


def addresses(*arrays: npt.NDArray[Any]) -> list[int]:
    return [array.ctypes.data for array in arrays]


def wait_for_sleep(team: Team) -> None:
    deadline = time.monotonic() + 5
    while team.sleepers < team.size - 1:
        assert time.monotonic() < deadline, "idle workers do not sleep"
        time.sleep(0.001)

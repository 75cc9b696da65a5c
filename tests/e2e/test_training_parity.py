"""Training gives the same bits in another process and on another number of threads, eager and jitted, and holds its memory.

That eager and jitted losses agree within one process is in ``test_training_equivalence``.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import MODELS

import tilewright as tw
import tilewright.nn.functional as F
from tilewright.runtime.statistics import stats
from tilewright.tensor import lazy

STEPS = 100
TRAIN = """
import hashlib, json, sys
import numpy as np
import tilewright as tw
import tilewright.nn.functional as F
from small_models import MODELS

name, jitted, steps = sys.argv[1], sys.argv[2] == "jit", int(sys.argv[3])
build, data, make_optimizer = MODELS[name]
tw.manual_seed(7)
model = build()
optimizer = make_optimizer(model.parameters())
rng = np.random.default_rng(3)
batches = [tuple(tw.tensor(a) for a in data(rng)) for _ in range(8)]

def step(x, y):
    optimizer.zero_grad()
    logits = model(x)
    loss = F.cross_entropy(logits.reshape((-1, logits.shape[-1])), y.reshape((-1,)))
    loss.backward()
    optimizer.step()
    return loss

run = tw.jit(step) if jitted else step
losses = [run(*batches[n % 8]).item() for n in range(steps)]
state = hashlib.sha256()
for key, value in sorted(model.state_dict().items()):
    state.update(key.encode() + np.ascontiguousarray(value.numpy()).tobytes())
print(json.dumps({"losses": losses, "state": state.hexdigest()}))
"""


def train(name: str, how: str, **environment: str) -> dict[str, object]:
    """Losses and a hash of the final parameters and buffers, from a process of its own."""
    tests = Path(__file__).resolve().parent.parent
    source = Path(tw.__file__).resolve().parent.parent
    env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join((str(source), str(tests)))}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, name, how, str(STEPS)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_training_is_the_same_in_every_process_and_way(name: str) -> None:
    """One seed: two processes with different hash seeds agree bit for bit, and eager training agrees to tolerance."""
    first = train(name, "jit", PYTHONHASHSEED="1")
    second = train(name, "jit", PYTHONHASHSEED="2")
    assert first == second
    eager = train(name, "eager")
    assert eager == train(name, "eager", PYTHONHASHSEED="3")
    losses = np.array(first["losses"])
    np.testing.assert_allclose(losses, eager["losses"], rtol=2e-3, atol=1e-5)
    assert losses[-10:].mean() < 0.5 * losses[:10].mean()


@pytest.mark.parametrize("name", MODELS)
def test_deterministic_training_is_the_same_on_any_number_of_threads(name: str) -> None:
    runs = [train(name, "jit", TW_DETERMINISTIC="1", TW_THREADS=threads) for threads in ("1", "2")]
    assert runs[0] == runs[1]


def test_one_number_of_threads_repeats_bit_for_bit() -> None:
    assert train("mlp", "jit", TW_THREADS="2") == train("mlp", "jit", TW_THREADS="2")


def resident() -> int:
    """Bytes of memory that this process occupies."""
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the system does not say")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_a_running_sum_of_many_steps_holds_its_memory() -> None:
    """A sum that is never read: pending work is cut, memory is used again, nothing is compiled anew."""
    total = tw.zeros((64, 64))
    one = tw.ones((64, 64)).realize()

    def run(count: int) -> None:
        nonlocal total
        for _ in range(count):
            total = total + one

    run(4_000)
    before, compiled = resident(), stats.kernels_compiled
    run(20_000)
    assert resident() - before < 8 << 20
    assert stats.kernels_compiled == compiled
    assert total._group is None or lazy.find(total._group).nodes <= lazy.NODE_LIMIT
    np.testing.assert_array_equal(total.numpy(), np.full((64, 64), 24_000, np.float32))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_a_jitted_loop_holds_its_memory() -> None:
    build, data, make_optimizer = MODELS["mlp"]
    model = build()
    optimizer = make_optimizer(model.parameters())
    x, y = (tw.tensor(a) for a in data(np.random.default_rng(0)))

    @tw.jit
    def step(x: tw.Tensor, y: tw.Tensor) -> tw.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    for _ in range(200):
        step(x, y)
    before, counted = resident(), stats.snapshot()
    for _ in range(3_000):
        step(x, y)
    since = stats.since(counted)
    assert (since["native_calls"], since["host_calls"]) == (3_000, 0)
    assert since["bytes_allocated"] < 1 << 20
    assert resident() - before < 8 << 20

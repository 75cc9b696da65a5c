"""What only changes rarely is computed once: weights across calls, constants of loops before them."""

import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright import nn, optim
from tilewright.compiler import Executable
from tilewright.core import interpreter
from tilewright.interop.safetensors import load_tensors, save_file
from tilewright.kernel.verify import verify
from tilewright.runtime.buffers import CHANGES, Buffer, stamp

ROWS, WIDE, NARROW = 16, 70, 33


def model() -> nn.Module:
    tw.manual_seed(3)
    return nn.Sequential(nn.Linear(WIDE, NARROW), nn.ReLU(), nn.Linear(NARROW, 40))


def data(seed: int = 0) -> tw.Tensor:
    return tw.tensor(np.random.default_rng(seed).normal(size=(ROWS, WIDE)).astype(np.float32))


def plan(function: object, *args: object) -> str:
    return function.executable(*args).stage_text("plan")  # type: ignore[attr-defined]


def addresses(net: nn.Module) -> list[int]:
    return [p._buffer().address for p in net.parameters() if p.ndim == 1]


def prepared(function: object) -> list[Buffer]:
    (variants,) = function._variants.values()  # type: ignore[attr-defined]
    return variants[0]._prepared[1]


def expected(net: nn.Module, x: tw.Tensor) -> np.ndarray:
    (_, first), _, (_, last) = net.named_children()
    hidden = np.maximum(x.numpy() @ first.weight.numpy().T + first.bias.numpy(), 0)
    return hidden @ last.weight.numpy().T + last.bias.numpy()


def test_weights_are_laid_out_once() -> None:
    net, x = model(), data()
    call = tw.jit(net)
    with tw.no_grad():
        text = plan(call, x)
        once, each = text.split("arena")
        assert once.count("lay out") == 2 and "lay out" not in each
        np.testing.assert_allclose(call(x).numpy(), expected(net, x), rtol=1e-5, atol=1e-5)
        kept = prepared(call)
        np.testing.assert_allclose(call(data(1)).numpy(), expected(net, data(1)), rtol=1e-5, atol=1e-5)
        assert prepared(call) is kept


def test_training_between_calls_is_seen() -> None:
    """A jitted step writes over the parameters' memory: the same buffers with other elements."""
    net, x = model(), data()
    call, opt = tw.jit(net), optim.SGD(net.parameters(), lr=0.1)

    @tw.jit
    def step(x: tw.Tensor) -> tw.Tensor:
        opt.zero_grad()
        loss = (net(x) ** 2).mean()
        loss.backward()
        opt.step()
        return loss

    for _ in range(4):
        with tw.no_grad():
            np.testing.assert_allclose(call(x).numpy(), expected(net, x), rtol=1e-5, atol=1e-5)
        step(x)
        biases = [p for p in net.parameters() if p.ndim == 1]
        written = [p._buffer().address for p in biases]
        step(x)  # what is kept does not stop results from taking over donated memory
        if interpreter.reason() is None:
            assert [p._buffer().address for p in biases] == written


def test_a_call_of_another_thread_before_the_run_keeps_no_old_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    net, x = model(), data()
    call, weight = tw.jit(net), net[0].weight  # type: ignore[index]

    @tw.jit
    def double() -> None:
        weight.data = weight * 2

    with tw.no_grad():
        call(x)
    double()
    run, step = Executable.run, double.executable()

    def late(self: Executable, *args: Any) -> Any:  # as when another thread has the lock first
        if self is step:
            with tw.no_grad():
                call(x)
        return run(self, *args)

    place = weight._buffer().address
    monkeypatch.setattr(Executable, "run", late)
    double.__class__._call(double)  # type: ignore[attr-defined]
    if interpreter.reason() is None:  # elsewhere nothing is written over
        assert weight._buffer().address == place
    with tw.no_grad():
        np.testing.assert_allclose(call(x).numpy(), expected(net, x), rtol=1e-5, atol=1e-5)


def test_assigned_and_loaded_weights_are_seen() -> None:
    net, x = model(), data()
    call = tw.jit(net)
    with tw.no_grad():
        call(x)
        net[0].weight.assign(net[0].weight * 2)  # type: ignore[index]
        np.testing.assert_allclose(call(x).numpy(), expected(net, x), rtol=1e-5, atol=1e-5)
        state = {k: np.asarray(v) + 1 for k, v in net.state_dict().items()}
        net.load_state_dict(state)
        np.testing.assert_allclose(call(x).numpy(), expected(net, x), rtol=1e-5, atol=1e-5)


def test_equal_models_do_not_share_what_is_kept() -> None:
    """One compiled program serves both."""
    nets, x = [model(), model()], data()
    nets[1][0].weight.data = nets[1][0].weight * 3  # type: ignore[index]
    calls = [tw.jit(net) for net in nets]
    with tw.no_grad():
        for _ in range(2):
            for net, call in zip(nets, calls, strict=True):
                np.testing.assert_allclose(call(x).numpy(), expected(net, x), rtol=1e-5, atol=1e-5)
    assert calls[0].executable(x) is calls[1].executable(x)


def test_memory_that_others_may_write_is_read_anew() -> None:
    w = np.ones((WIDE, NARROW), np.float32)
    shared, exported = tw.from_numpy(w), tw.ones((WIDE, NARROW)) * 1.0
    view = tw.from_dlpack(_Old(exported))._buffer().to_numpy((WIDE, NARROW))

    @tw.jit
    def call(x: tw.Tensor) -> tw.Tensor:
        return x @ shared + x @ exported

    x = data()
    assert "lay out" in plan(call, x)
    for factor in (1.0, 2.0):
        w[:] = factor
        view[:] = 3 * factor
        want = x.numpy() @ w + x.numpy() @ view
        np.testing.assert_allclose(call(x).numpy(), want, rtol=1e-5, atol=1e-5)


def test_memory_that_was_exchanged_is_read_anew() -> None:
    """Read-only memory, but there are consumers that write to it."""
    w, x = tw.ones((WIDE, NARROW)) * 1.0, data()
    call = tw.jit(lambda x: x @ w)
    assert "lay out" in plan(call, x)
    for _ in range(3):
        call(x)
    capsule = w.__dlpack__(max_version=(1, 0))
    for factor in (2.0, 3.0):
        written = Buffer(None, w._buffer().address, w.size, np.dtype(np.float32)).to_numpy(w.shape)
        written[:] = factor
        np.testing.assert_allclose(call(x).numpy(), x.numpy() @ written, rtol=1e-5, atol=1e-5)
    del capsule


class _Old:
    """A tensor as a consumer of the old protocol sees it that asks for the memory itself."""

    def __init__(self, tensor: tw.Tensor) -> None:
        self.tensor = tensor

    def __dlpack__(self, **_: object) -> object:
        return self.tensor.__dlpack__(copy=False)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


def test_versions() -> None:
    own = Buffer.allocate(4, np.float32)
    assert own.version == 0
    assert stamp(own) == stamp(own) != stamp(Buffer.allocate(4, np.float32))
    array = np.zeros(4, np.float32)
    assert Buffer.from_numpy(array).version == CHANGES
    array.flags.writeable = False
    assert Buffer.from_numpy(array).version == CHANGES  # whoever made it can make it writable again
    for constant in (bytes(16), memoryview(bytes(16))):
        assert Buffer.from_numpy(np.frombuffer(constant, np.float32)).version == 0
    read_only = memoryview(bytearray(16)).toreadonly()
    assert Buffer.from_numpy(np.frombuffer(read_only, np.float32)).version == CHANGES


def test_a_file_mapped_for_reading_is_constant(tmp_path: Path) -> None:
    save_file({"w": tw.ones((WIDE, NARROW))}, tmp_path / "w.safetensors")
    w = load_tensors(tmp_path / "w.safetensors")["w"]

    @tw.jit
    def call(x: tw.Tensor) -> tw.Tensor:
        return x @ w

    x = data()
    np.testing.assert_allclose(call(x).numpy(), x.numpy() @ w.numpy(), rtol=1e-5, atol=1e-5)
    kept = prepared(call)
    call(x)
    assert prepared(call) is kept
    with (tmp_path / "w.safetensors").open("r+b") as file:
        writable = np.frombuffer(mmap.mmap(file.fileno(), 0), np.uint8)
        assert Buffer.from_numpy(writable).version == CHANGES


@pytest.mark.parametrize("dtype", [tw.bfloat16, tw.float64])
def test_other_types(dtype: object) -> None:
    net, x = model(), data()
    for p in net.parameters():
        p.data = p.astype(dtype)  # type: ignore[arg-type]
    w = net[0].weight.detach()  # type: ignore[index]
    call = tw.jit(lambda x: x @ w.T)
    x = x.astype(dtype)  # type: ignore[arg-type]
    want = x.numpy().astype(np.float64) @ w.numpy().astype(np.float64).T
    with tw.no_grad():
        assert "lay out" in plan(call, x)
        np.testing.assert_allclose(call(x).numpy().astype(np.float64), want, rtol=0.02, atol=0.05)


def test_quantized_weights_keep_their_column_sums() -> None:
    rng = np.random.default_rng(1)
    a = tw.tensor(rng.integers(-128, 128, (ROWS, WIDE)).astype(np.int8))
    w = tw.tensor(rng.integers(-128, 128, (NARROW, WIDE)).astype(np.int8))
    call = tw.jit(lambda a: tw.matmul(a, w.T, dtype=tw.int32))
    want = a.numpy().astype(np.int32) @ w.numpy().astype(np.int32).T
    for _ in range(2):
        assert np.array_equal(call(a).numpy(), want)


def test_long_sums_and_batches() -> None:
    rng = np.random.default_rng(2)
    long = tw.tensor(rng.normal(size=(2500, 50)).astype(np.float32))
    many = tw.tensor(rng.normal(size=(3, 40, 37)).astype(np.float32))
    x = tw.tensor(rng.normal(size=(12, 2500)).astype(np.float32))
    y = tw.tensor(rng.normal(size=(3, 9, 40)).astype(np.float32))
    call = tw.jit(lambda x, y: (x @ long, y @ many))
    for _ in range(2):
        a, b = call(x, y)
        np.testing.assert_allclose(a.numpy(), x.numpy() @ long.numpy(), rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(b.numpy(), y.numpy() @ many.numpy(), rtol=1e-5, atol=1e-4)


def test_what_weights_alone_decide_is_computed_once() -> None:
    scale, w = tw.tensor(np.arange(1.0, 41, dtype=np.float32)), tw.ones((40, 40)) * 0.5

    @tw.jit
    def call(x: tw.Tensor) -> tw.Tensor:
        return x + F.softmax(w * scale, dim=-1).sum(axis=0)

    x = tw.ones((3, 40))
    once, each = plan(call, x).split("arena")
    assert "row" in once and "row" not in each
    np.testing.assert_allclose(call(x).numpy(), call(x).numpy())
    want = np.exp(0.5 * (scale.numpy() - 40))
    np.testing.assert_allclose(call(x).numpy(), 1 + np.tile(40 * want / want.sum(), (3, 1)), rtol=1e-5)


def test_a_settled_result_is_new_memory_in_every_call() -> None:
    w = tw.ones((8,)) * 2.0
    call = tw.jit(lambda x: (x + w, w * 3.0))
    first = call(tw.ones((8,)))[1]
    second = call(tw.ones((8,)))[1]
    assert first.tolist() == second.tolist() == [6.0] * 8
    assert first._buffer().address != second._buffer().address


def test_an_index_out_of_range_is_found_in_every_call() -> None:
    table, index = tw.ones((5, 3)), tw.tensor([0, 7])
    call = tw.jit(lambda x: x + table[index])
    for _ in range(2):
        with pytest.raises(IndexError, match="out of range"):
            call(tw.ones((2, 3))).numpy()


@pytest.mark.parametrize("length", [0, 1, 5])
def test_loop_constants_are_laid_out_before_the_loop(length: int) -> None:
    rng = np.random.default_rng(4)
    weights = [tw.tensor((rng.normal(size=(24, 24)) / 5).astype(np.float32)) for _ in range(2)]
    xs = tw.tensor(rng.normal(size=(length, 8, 24)).astype(np.float32))

    def layer(xs: tw.Tensor, w: tw.Tensor) -> tw.Tensor:
        def step(h: tw.Tensor, x: tw.Tensor) -> tuple[tw.Tensor, tw.Tensor]:
            h = tw.tanh(x + h @ w)
            return h, h

        return tw.scan(step, tw.zeros((8, 24)), xs)[1]

    def two_layers(xs: tw.Tensor, a: tw.Tensor, b: tw.Tensor) -> tw.Tensor:
        return layer(layer(xs, a), b)  # equal bodies with other constants

    want = xs.numpy()
    for w in weights:
        h, out = np.zeros((8, 24), np.float32), []
        for x in want:
            h = np.tanh(x + h @ w.numpy())
            out.append(h)
        want = np.array(out, np.float32).reshape(length, 8, 24)
    call = tw.jit(two_layers)
    if length > 1:
        lines = plan(call, xs, *weights).splitlines()
        assert sum("lay out" in line and not line.startswith("     ") for line in lines) == 2
        assert not any("lay out" in line for line in lines if line.startswith("     "))
    np.testing.assert_allclose(call(xs, *weights).numpy(), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        tw.jit(lambda xs: two_layers(xs, *weights))(xs).numpy(), want, rtol=1e-4, atol=1e-5
    )


def test_while_loop_and_nested_loops() -> None:
    rng = np.random.default_rng(5)
    w = tw.tensor((rng.normal(size=(20, 20)) / 5).astype(np.float32))
    x = tw.tensor(rng.normal(size=(6, 20)).astype(np.float32))

    def repeated(x: tw.Tensor, w: tw.Tensor) -> tw.Tensor:
        def outer(i: tw.Tensor, h: tw.Tensor) -> tw.Tensor:
            return tw.while_loop(
                lambda s: s[0] < 2, lambda s: (s[0] + 1, tw.tanh(s[1] @ w)), (tw.tensor(0), h)
            )[1]

        return tw.fori_loop(0, 3, outer, x)

    want = x.numpy()
    for _ in range(6):
        want = np.tanh(want @ w.numpy())
    call = tw.jit(repeated)
    np.testing.assert_allclose(call(x, w).numpy(), want, rtol=1e-4, atol=1e-5)
    top = [line for line in plan(call, x, w).splitlines() if "lay out" in line]
    assert len(top) == 1 and not top[0].startswith("     ")


@pytest.mark.parametrize("element", ["int8", "uint8", "bfloat16", "float32"])
def test_what_lays_out_declares_what_it_reads(element: str) -> None:
    """The sums of packed columns of bytes are of what the same call has stored before."""
    rng = np.random.default_rng(0)
    w = tw.tensor(rng.integers(0, 100, (300, NARROW)).astype(np.int8)).astype(element)
    x = tw.tensor(rng.integers(0, 100, (64, 300)).astype(np.int8)).astype(element)
    call = tw.jit(lambda x: tw.matmul(x, w))
    found = call.executable(x)
    assert found is not None and found.preparation is not None
    for kernel in found.names:
        verify(kernel)
    for step in found.preparation.steps:
        for c in step.calls:
            assert [a.access for a in c.args] == [b.access for b in c.kernel.buffers]
    wanted = tw.matmul(x.astype("float64"), w.astype("float64")).astype(element)
    if element in ("int8", "uint8"):
        wanted = tw.tensor((x.numpy().astype(np.int64) @ w.numpy().astype(np.int64)).astype(element))
    np.testing.assert_allclose(call(x).astype("float64").numpy(), wanted.astype("float64").numpy(), rtol=1e-2)

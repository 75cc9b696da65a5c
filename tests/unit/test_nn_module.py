"""Modules as trees: registration, names, state, modes, printing."""

import math
from pathlib import Path

import numpy as np
import pytest

from tilewright import nn, random
from tilewright.core import dtype as dt
from tilewright.interop.safetensors import load_file, save_file
from tilewright.jit import jit
from tilewright.runtime.buffers import pool
from tilewright.tensor import ArgumentError, Tensor, no_grad


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.middle = nn.Sequential(nn.ReLU(), nn.Linear(4, 4, bias=False))
        self.scale = nn.Parameter([1.0])
        self.register_buffer("seen", Tensor(0))
        self.register_buffer("scratch", Tensor(0), persistent=False)
        self.width = 4

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.middle(self.first(x)) * self.scale
        return out


def test_assignment_registers_parts_under_dotted_names() -> None:
    net = Net()
    names = ["scale", "first.weight", "first.bias", "middle.1.weight"]
    assert [name for name, _ in net.named_parameters()] == names
    assert [name for name, _ in net.named_buffers()] == ["seen", "scratch"]
    assert list(net.state_dict()) == ["scale", "seen", "first.weight", "first.bias", "middle.1.weight"]
    assert [name for name, _ in net.named_modules()] == ["", "first", "middle", "middle.0", "middle.1"]
    assert [name for name, _ in net.named_children()] == ["first", "middle"]
    assert net.get_parameter("middle.1.weight") is net.middle[1].weight
    assert net.get_submodule("middle.1") is net.middle[1]
    assert net.width == 4 and "scale" in dir(net)


def test_replacing_and_deleting_parts() -> None:
    net = Net()
    net.first = nn.Identity()
    assert not [name for name, _ in net.named_parameters() if name.startswith("first")]
    net.first = None
    assert net.first is None
    del net.middle
    with pytest.raises(AttributeError, match="has no attribute 'middle'"):
        _ = net.middle
    net.plain = 3
    net.plain = nn.Parameter([1.0])
    assert [name for name, _ in net.named_parameters()] == ["scale", "plain"]
    net.seen = Tensor(5)
    assert net.state_dict()["seen"].item() == 5


def test_misuse_is_named() -> None:
    net = Net()
    with pytest.raises(TypeError, match=r"Net\.scale is a parameter"):
        net.scale = 3.0
    with pytest.raises(TypeError, match=r"Net\.first is a module"):
        net.first = Tensor([1.0])
    with pytest.raises(TypeError, match=r"Net\.seen is a buffer"):
        net.seen = 3
    with pytest.raises(KeyError, match="has a dot"):
        net.register_parameter("a.b", nn.Parameter([1.0]))
    with pytest.raises(AttributeError, match="no sub-module 'nope'"):
        net.get_submodule("nope")
    with pytest.raises(NotImplementedError, match="Module has no forward"):
        nn.Module()(1)

    class Early(nn.Module):
        def __init__(self) -> None:
            self.weight = nn.Parameter([1.0])

    with pytest.raises(AttributeError, match=r"call super\(\).__init__\(\) before"):
        Early()


def test_shared_parts_are_counted_once_and_saved_under_both_names() -> None:
    net = nn.Module()
    net.a = nn.Linear(2, 2, bias=False)
    net.b = net.a
    net.c = nn.Linear(2, 2, bias=False)
    net.c.weight = net.a.weight
    assert [name for name, _ in net.named_parameters()] == ["a.weight"]
    assert list(net.state_dict()) == ["a.weight", "b.weight", "c.weight"]


def test_a_state_loads_by_name_and_in_the_modules_type(tmp_path: Path) -> None:
    random.manual_seed(0)
    source, target = Net(), Net()
    assert source.first.weight.tolist() != target.first.weight.tolist()
    save_file(source.state_dict(), tmp_path / "net.safetensors")
    state = dict(load_file(tmp_path / "net.safetensors").tensors)
    state["first.bias"] = state["first.bias"].astype(np.float64)
    own = target.first.weight
    assert target.load_state_dict(state) == ([], [])
    assert target.first.weight is own  # copied into, not replaced: an optimizer keeps its parameter
    for name, tensor in source.state_dict().items():
        np.testing.assert_array_equal(target.state_dict()[name].numpy(), tensor.numpy(), strict=True)


def test_loading_needs_room_for_one_more_tensor_not_for_all() -> None:
    net = nn.Sequential(*(nn.Linear(256, 256, bias=False) for _ in range(6)))
    state = {name: np.full(p.shape, k, np.float32) for k, (name, p) in enumerate(net.state_dict().items())}
    net.load_state_dict(state)
    pool.clear()
    net.load_state_dict(state)
    assert pool.held_bytes < 2 * 256 * 256 * 4
    for k, p in enumerate(net.parameters()):
        np.testing.assert_array_equal(p.numpy(), k)


def test_a_state_that_does_not_fit_is_told_whole_and_changes_nothing() -> None:
    net = Net()
    before = {name: np.array(t.numpy()) for name, t in net.state_dict().items()}
    state = {name: array + 1 for name, array in before.items()}
    state["frist.bias"] = state.pop("first.bias")
    state["scale"] = np.zeros(3, np.float32)
    with pytest.raises(nn.StateDictError) as caught:
        net.load_state_dict(state)
    text = str(caught.value)
    assert "missing: `first.bias`" in text
    assert "unknown: `frist.bias` (did you mean `first.bias`?)" in text
    assert "`scale` has shape (3,), the module's has (1,)" in text
    for name, array in before.items():
        np.testing.assert_array_equal(net.state_dict()[name].numpy(), array)
    del state["scale"]
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["scale", "first.bias"], ["frist.bias"])
    np.testing.assert_array_equal(net.first.weight.numpy(), before["first.weight"] + 1)


def test_modes_reach_every_module_and_select_a_program() -> None:
    net = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    assert net.eval() is net
    assert not any(m.training for m in net.modules())
    forward = jit(lambda x: net(x))
    x = np.ones((100,), np.float32)
    with no_grad():
        assert forward(x).tolist() == [1.0] * 100
        net.train()
        assert forward(x).tolist() != [1.0] * 100  # not the program of the evaluation
        net.eval()
        assert forward(x).tolist() == [1.0] * 100
    assert forward.traces == 2


def test_conversion_and_freezing() -> None:
    net = Net().double()
    assert {p.dtype for p in net.parameters()} == {dt.float64} and net.seen.dtype is dt.int64
    assert net.to("bfloat16").scale.dtype is dt.bfloat16
    assert net.to("cpu").to(dtype=dt.float32).scale.dtype is dt.float32
    with pytest.raises(ValueError, match="'cuda'"):
        net.to("cuda")
    with pytest.raises(ArgumentError, match="no device or data type is called 'cuda'"):
        net.scale.to("cuda")
    assert net.scale.to("cpu").tolist() == net.scale.tolist()
    assert net.scale.to("float64").dtype is dt.float64
    with pytest.raises(TypeError, match="int64"):
        net.to(dt.int64)
    net.requires_grad_(False)
    assert not any(p.requires_grad for p in net.parameters())


def test_gradients_are_forgotten_and_functions_applied() -> None:
    net = Net()
    net(Tensor([[1.0, 2.0, 3.0]])).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    net.zero_grad(set_to_none=False)
    assert net.scale.grad is not None and net.scale.grad.tolist() == [0.0]
    net.zero_grad()
    assert all(p.grad is None for p in net.parameters())
    seen: list[str] = []
    net.apply(lambda m: seen.append(type(m).__name__))
    assert seen == ["Linear", "ReLU", "Linear", "Sequential", "Net"]


def test_printing_shows_the_tree() -> None:
    assert repr(Net()) == (
        "Net(\n"
        "  (first): Linear(in_features=3, out_features=4, bias=True)\n"
        "  (middle): Sequential(\n"
        "    (0): ReLU()\n"
        "    (1): Linear(in_features=4, out_features=4, bias=False)\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Conv2d(1, 2, 3, padding="same")) == (
        "Conv2d(1, 2, kernel_size=(3, 3), stride=(1, 1), padding='same')"
    )
    assert repr(nn.Parameter([1.0])).startswith("Parameter containing:\nTensor([1.]")


def test_containers() -> None:
    net = nn.Sequential({"a": nn.Identity(), "b": nn.ReLU()})
    assert list(net.state_dict()) == [] and isinstance(net.b, nn.ReLU) and len(net) == 2
    assert isinstance(net[-1], nn.ReLU) and isinstance(net[:1], nn.Sequential) and len(net[:1]) == 1
    layers = nn.ModuleList([nn.ReLU()])
    layers.append(nn.Tanh()).insert(0, nn.Identity())
    layers[1] = nn.Sigmoid()
    assert [type(m).__name__ for m in layers] == ["Identity", "Sigmoid", "Tanh"]
    del layers[0]
    assert [name for name, _ in layers.named_children()] == ["0", "1"]
    with pytest.raises(IndexError, match="2 modules"):
        layers[2]
    table = nn.ModuleDict({"x": nn.ReLU()})
    table["y"] = nn.Linear(1, 1)
    assert list(table) == ["x", "y"] and "x" in table and len(list(table.values())) == 2
    del table["x"]
    assert [name for name, _ in table.named_parameters()] == ["y.weight", "y.bias"]
    with pytest.raises(TypeError, match="argument 1 is a function"):
        nn.Sequential(nn.ReLU(), lambda x: x)  # type: ignore[arg-type]


def test_initial_values_have_the_stated_spread() -> None:
    random.manual_seed(0)
    layer = nn.Linear(100, 200)
    for values in (layer.weight.numpy(), layer.bias.numpy()):
        assert np.abs(values).max() <= 0.1 and np.abs(values).max() > 0.095
        assert abs(values.mean()) < 0.01 and abs(values.std() - 0.1 / np.sqrt(3)) < 0.006
    conv = nn.Conv2d(4, 8, 5)
    assert np.abs(conv.weight.numpy()).max() <= 0.1
    weight = nn.Parameter(np.zeros((300, 200), np.float32))
    nn.init.xavier_normal_(weight)
    assert weight.numpy().std() == pytest.approx(np.sqrt(2 / 500), rel=0.02)
    nn.init.kaiming_normal_(weight, mode="fan_out", nonlinearity="relu")
    assert weight.numpy().std() == pytest.approx(np.sqrt(2 / 300), rel=0.02)
    nn.init.trunc_normal_(weight, std=2.0, a=-1.0, b=3.0)
    assert weight.numpy().min() >= -1.0 and weight.numpy().max() <= 3.0
    density = [math.exp(-x * x / 2) / math.sqrt(2 * math.pi) for x in (-0.5, 1.5)]
    share = (math.erf(1.5 / math.sqrt(2)) + math.erf(0.5 / math.sqrt(2))) / 2
    assert weight.numpy().mean() == pytest.approx(2.0 * (density[0] - density[1]) / share, abs=0.02)
    nn.init.constant_(weight, 7.0)
    assert (weight.numpy() == 7).all() and weight.requires_grad
    with pytest.raises(ValueError, match="two axes"):
        nn.init.kaiming_uniform_(layer.bias)
    with pytest.raises(ValueError, match="no gain"):
        nn.init.calculate_gain("step")


def test_one_seed_gives_one_network() -> None:
    random.manual_seed(3)
    first = [p.numpy() for p in Net().parameters()]
    random.manual_seed(3)
    for a, b in zip(first, Net().parameters(), strict=True):
        np.testing.assert_array_equal(a, b.numpy())

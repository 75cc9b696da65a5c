"""The front door `import tilewright as tw`: what works before anything else was touched, and what a typo gets."""

from __future__ import annotations

import functools
import importlib
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

import tilewright as tw
from tilewright.core.elsewhere import ABSENT_FROM_MODULES, ABSENT_FROM_TENSORS, ELSEWHERE


@pytest.mark.parametrize(
    "line",
    [
        "print((tw.Tensor(2.0) ** 3).item())",  # nothing but the class was asked for, and it has its operators
        "x = tw.Tensor(2.0, requires_grad=True); (x * x * 2).backward(); print(x.grad.item() + 0)",
        "from tilewright import Tensor; print(Tensor([2.0, 6.0]).sum().item())",
        "print(tw.jit(lambda x: x + x)(tw.Tensor(4.0)).item())",
        "import numpy as np; print(tw.jit(lambda x: x.sum() * 2)(np.ones(4)).item())",  # no tensor was made before
    ],
)
def test_the_first_line_of_a_program(line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import tilewright as tw\n" + line],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("8.0\n", "")


def test_a_misspelt_name_gets_a_suggestion() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'softmx'; did you mean 'softmax'"):
        tw.softmx  # noqa: B018
    assert not hasattr(tw, "_softmax")


def test_names_of_other_libraries_get_what_there_is_instead() -> None:
    """And what is named instead is there."""
    x, layer = tw.tensor([1.0]), tw.nn.Linear(2, 3)
    tables: list[tuple[object, dict[str, str]]] = [
        *((importlib.import_module(module), table) for module, table in ELSEWHERE.items()),
        (x, ABSENT_FROM_TENSORS),
        (layer, ABSENT_FROM_MODULES),
    ]
    for owner, table in tables:
        for name, text in table.items():
            assert not hasattr(owner, name)
            with pytest.raises(AttributeError, match=f"has no attribute '{name}'; {re.escape(text)}$"):
                getattr(owner, name)
            for path in re.findall(r"`tw\.([\w.]+)", text):
                assert functools.reduce(getattr, path.split("."), tw) is not None
            for path in re.findall(r"`x\.(\w+)", text):
                assert hasattr(x, path)


@pytest.mark.parametrize(
    "name", ["random", "nn", "nn.functional", "optim", "metrics", "io", "special", "signal"]
)
def test_names_with_a_slip_get_the_nearest(name: str) -> None:
    module = importlib.import_module(f"tilewright.{name}")
    for meant in module.__all__:
        if len(meant) > 5 and not hasattr(module, meant + "s"):
            with pytest.raises(AttributeError, match="did you mean"):
                getattr(module, meant + "s")


@pytest.mark.parametrize(
    "call",
    [
        lambda device: tw.tensor([1.0], device=device),
        lambda device: tw.zeros(3, device=device),
        lambda device: tw.arange(3, device=device),
        lambda device: tw.full((2,), 1.0, device=device),
        lambda device: tw.linspace(0, 1, 3, device=device),
        lambda device: tw.eye(3, device=device),
        lambda device: tw.ones_like(tw.zeros(2), device=device),
        lambda device: tw.randn(3, device=device),
        lambda device: tw.random.randint(0, 3, (2,), device=device),
        lambda device: tw.zeros(2).to(device),
        lambda device: tw.zeros(2).to(device=device, dtype="float64"),
        lambda device: tw.nn.Linear(2, 3, device=device),
        lambda device: tw.nn.LSTM(2, 3, device=device),
        lambda device: tw.nn.Linear(2, 3).to(device),
    ],
)
def test_there_is_one_device(call: Callable[[str], object]) -> None:
    call("cpu")
    with pytest.raises(ValueError, match=r"'cuda:0'.*there is no GPU support"):
        call("cuda:0")


def test_conversions_as_in_pytorch() -> None:
    x = tw.tensor([1.5])
    assert x.to("cpu", tw.float64).dtype is x.to(dtype="float64").dtype is tw.float64
    assert x.to(tw.zeros(2, dtype="int64")).tolist() == [1]
    assert x.to("float64", False).dtype is tw.float64


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.ckpt", "a.PKL"])
def test_pickles_are_refused_with_what_to_do(name: str) -> None:
    with pytest.raises(tw.io.FileFormatError, match=r"pickle.*never done here; use \.safetensors"):
        tw.load(name)
    with pytest.raises(tw.io.FileFormatError, match=r"safetensors\.torch\.save_file"):
        tw.save({"a": tw.zeros(2)}, name)


def test_completion_lists_the_public_names_alone() -> None:
    names = set(dir(tw))
    assert {"tensor", "jit", "set_num_threads", "nn", "linalg", "float32", "__version__"} <= names
    assert not {"sys", "importlib", "Any", "annotations", "core", "graph"} & names


@pytest.mark.parametrize("count", [0, 1.5, "2"])
def test_a_wrong_number_of_threads_is_refused(count: object) -> None:
    with pytest.raises(ValueError, match="an integer from 1 to"):
        tw.set_num_threads(count)  # type: ignore[arg-type]

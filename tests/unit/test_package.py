"""The front door `import tilewright as tw`: what works before anything else was touched, and what a typo gets."""

from __future__ import annotations

import functools
import re
import subprocess
import sys

import pytest

import tilewright as tw
from tilewright.core.elsewhere import ELSEWHERE


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
    assert not set(ELSEWHERE) & set(dir(tw))
    for name, text in ELSEWHERE.items():
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'; {re.escape(text)}$"):
            getattr(tw, name)
        for path in re.findall(r"`tw\.([\w.]+)`", text):
            assert functools.reduce(getattr, path.split("."), tw) is not None


def test_completion_lists_the_public_names_alone() -> None:
    names = set(dir(tw))
    assert {"tensor", "jit", "set_num_threads", "nn", "linalg", "float32", "__version__"} <= names
    assert not {"sys", "importlib", "Any", "annotations", "core", "graph"} & names


@pytest.mark.parametrize("count", [0, 1.5, "2"])
def test_a_wrong_number_of_threads_is_refused(count: object) -> None:
    with pytest.raises(ValueError, match="an integer from 1 to"):
        tw.set_num_threads(count)  # type: ignore[arg-type]

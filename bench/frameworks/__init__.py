"""One file per framework, each with `prepare(case, mode) -> Runner`; a worker process imports one of them."""

from importlib import import_module
from typing import Protocol

from bench.cases.base import Case

# The name on the command line -> (module, mode). A mode is a way to use the same framework.
FRAMEWORKS: dict[str, tuple[str, str]] = {
    "tilewright": ("bench.frameworks.ours", "jit"),
    "tilewright-eager": ("bench.frameworks.ours", "eager"),
    "torch": ("bench.frameworks.pytorch", "eager"),
    "torch-fused": ("bench.frameworks.pytorch", "fused"),
    "torch-compile": ("bench.frameworks.pytorch", "compile"),
    "jax": ("bench.frameworks.jax", "jit"),
    "onnxruntime": ("bench.frameworks.onnx", "eager"),
    "numpy": ("bench.frameworks.numpy", "eager"),
}

MODES = """\
tilewright        @tw.jit on the whole step
tilewright-eager  the same step without @tw.jit
torch             PyTorch eager, optimizer with its defaults
torch-fused       PyTorch eager, optimizer with fused=True
torch-compile     torch.compile on model and loss, optimizer with fused=True
jax               jax.jit on the whole step, donated state
onnxruntime       ONNX Runtime (inference only)
numpy             NumPy (kernels only)"""


class Runner(Protocol):
    """One case, ready to run in one framework."""

    def reset(self) -> None:
        """Return to the initial parameters, so that every round starts from the same state."""

    def run(self) -> object:
        """Do one step (or one call of the kernel) and return once its result is computed."""

    def fingerprint(self) -> list[float]:
        """Numbers that agree between frameworks: the first steps' losses, or sums over a kernel's result."""


class Unsupported(Exception):
    """The framework has no way to express the case; the table shows a dash and the reason."""


def prepare(framework: str, case: Case) -> Runner:
    if framework in case.skip:
        raise Unsupported(case.skip[framework])
    module, mode = FRAMEWORKS[framework]
    runner: Runner = import_module(module).prepare(case, mode)
    return runner

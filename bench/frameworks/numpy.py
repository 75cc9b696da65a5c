"""NumPy, as the baseline of element work, reductions and matrix products."""

from collections.abc import Callable
from functools import partial

import numpy as np

from bench.cases.base import Case
from bench.cases.kernels import kernel_fingerprint
from bench.frameworks import Runner, Unsupported


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(1e-5)) * w + b


def batch_norm(x: np.ndarray, w: np.ndarray, b: np.ndarray) -> np.ndarray:
    centred = x - x.mean((0, 2, 3), keepdims=True)
    scale = w[:, None, None] / np.sqrt((centred**2).mean((0, 2, 3), keepdims=True) + np.float32(1e-5))
    return centred * scale + b[:, None, None]


def chain(x: np.ndarray) -> np.ndarray:
    for _ in range(5):
        x = np.tanh(x * np.float32(1.1) + np.float32(0.3)) - np.float32(0.2)
    return x


KERNELS: dict[str, Callable[..., Callable[..., np.ndarray]]] = {
    "matmul": lambda ta=False, tb=False: lambda a, b: (a.mT if ta else a) @ (b.mT if tb else b),
    "linear_relu": lambda: lambda x, w, b: np.maximum(x @ w.T + b, 0),
    "softmax": lambda: softmax,
    "layer_norm": lambda: layer_norm,
    "batch_norm": lambda: batch_norm,
    "exp": lambda: np.exp,
    "add": lambda: np.add,
    "chain": lambda: chain,
    "sum": lambda axis: lambda x: x.sum(axis),
    "argmax": lambda axis: lambda x: x.argmax(axis),
    **{name: partial(lambda f: f, getattr(np, name)) for name in ("log", "tanh", "sin", "cos", "tan")},
    "pow": lambda: np.power,
}


class KernelRunner:
    """One operation on fixed operands."""

    def __init__(self, case: Case) -> None:
        if case.kind not in KERNELS or case.options.get("backward") or "dtype" in case.options:
            raise Unsupported("NumPy has no such operation")
        self.operands = list(case.make().values())
        self.call = KERNELS[case.kind](**case.options)

    def reset(self) -> None:
        pass

    def run(self) -> object:
        return self.call(*self.operands)

    def fingerprint(self) -> list[float]:
        return kernel_fingerprint([np.asarray(self.run())])


def prepare(case: Case, mode: str) -> Runner:
    if case.suite != "kernels":
        raise Unsupported("NumPy does not train")
    return KernelRunner(case)

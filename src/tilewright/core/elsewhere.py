"""What names of PyTorch and JAX that are none here correspond to, for the error that somebody who tries one gets.

Tables of text, and what shows a row: `advising` for the names of a module, `Absent` for attributes of a class. A name that
becomes one here leaves its table (a test holds that).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from tilewright.core.diagnostics import suggest

__all__ = ["ABSENT_FROM_MODULES", "ABSENT_FROM_TENSORS", "ELSEWHERE", "FILES", "Absent", "advice", "advising"]

_NO_GPU = "there is no GPU support; everything runs on the CPU"
_TYPES = "the default is float32, and each function takes a `dtype`"

# Module -> name -> what there is instead.
ELSEWHERE: dict[str, dict[str, str]] = {
    "tilewright": {
        "DataLoader": "batches are slices of arrays: see `tw.train.Trainer`",
        "Variable": "a tensor takes `requires_grad=True` itself",
        "amp": "use `tw.autocast`",
        "backends": _NO_GPU,
        "bernoulli": "it is `tw.random.bernoulli`",
        "block_until_ready": "`tw.realize` computes pending tensors",
        "compile": "a function is compiled by `tw.jit`",
        "cuda": _NO_GPU,
        "device": "the device is always the CPU, called 'cpu'",
        "device_put": "the device is always the CPU; `tw.asarray` makes a tensor of an array",
        "distributed": "one process on one CPU is all there is",
        "float": "the type is `tw.float32`, and `x.float()` converts",
        "get_default_dtype": _TYPES,
        "inference_mode": "use `tw.no_grad`",
        "is_tensor": "use `isinstance(x, tw.Tensor)`",
        "jacobian": "use `tw.jacrev` or `tw.jacfwd`",
        "lax": "`scan`, `fori_loop`, `while_loop`, `cond` and `switch` are functions of `tw` itself",
        "long": "the type is `tw.int64`, and `x.long()` converts",
        "map": "use `tw.vmap`, or `tw.scan` for one example at a time",
        "normal": "it is `tw.random.normal`",
        "numel": "use `x.numel()`",
        "numpy": "NumPy's functions are functions of `tw` itself",
        "pmap": "there is one device; use `tw.vmap`",
        "randperm": "use `tw.random.permutation`",
        "seed": "use `tw.manual_seed`",
        "set_default_dtype": _TYPES,
        "tree_map": "functions such as `tw.grad` and `tw.vmap` take trees of tensors as they are",
        "use_deterministic_algorithms": "set TW_DETERMINISTIC=1, or `deterministic = true` in a .kyn file",
        "utils": "batches are slices of arrays: see `tw.train.Trainer`",
    },
    "tilewright.random": {
        "PRNGKey": "it is `tw.random.key`",
        "default_rng": "it is `tw.random.Generator`",
        "random": "it is `tw.random.rand`",
        "random_sample": "it is `tw.random.rand`",
        "seed": "use `tw.manual_seed`",
        "shuffle": "use `tw.random.permutation`, which gives a new tensor",
        "standard_normal": "it is `tw.random.randn`",
    },
    "tilewright.nn": {
        "DataParallel": "one process uses all cores by itself",
        "Dense": "it is `tw.nn.Linear`",
        "MultiHeadAttention": "it is `tw.nn.MultiheadAttention`",
    },
    "tilewright.data": {"DataLoader": "batches are slices of arrays: see `tw.train.Trainer`"},
    "tilewright.io": {
        "read_csv": "`tw.load` reads a table of numbers, and .kyn programs read tables with types"
    },
}

ABSENT_FROM_TENSORS: dict[str, str] = {
    "apply_": "use functions of whole tensors",
    "block_until_ready": "`x.realize()` computes what is pending",
    "cuda": _NO_GPU,
    "get_device": "`x.device` is always 'cpu'",
    "is_cuda": _NO_GPU,
    "ndimension": "it is `x.ndim`",
    "pin_memory": _NO_GPU,
    "share_memory_": "give `x.numpy()` to other processes",
    "type": "use `x.astype(dtype)`, or read `x.dtype`",
}

ABSENT_FROM_MODULES: dict[str, str] = {
    "compile": "use `tw.jit(model)`, or a training step under `tw.jit`",
    "cuda": _NO_GPU,
    "fit": "see `tw.train.Trainer`",
}

_PICKLES = (
    "such a file is a pickle, and reading one runs code from it, which is never done here; use .safetensors (in PyTorch:"
    " safetensors.torch.save_file(model.state_dict(), 'model.safetensors')) or .npz"
)
# What there is instead of files of an extension.
FILES: dict[str, str] = {
    **dict.fromkeys((".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle", ".joblib"), _PICKLES),
    **dict.fromkeys(
        (".h5", ".hdf5", ".keras", ".onnx", ".gguf", ".msgpack"),
        "this format is neither read nor written; use .safetensors or .npz",
    ),
}


def advice(module: str, name: str, names: Iterable[str]) -> str:
    """What follows "has no attribute": what there is instead, or the nearest of the names there are."""
    instead = ELSEWHERE.get(module, {}).get(name)
    if instead is not None:
        return f"; {instead}"
    near = suggest(name, list(names))
    return f"; did you mean {near!r}?" if near else ""


def advising(module: str, names: Iterable[str]) -> Callable[[str], NoReturn]:
    """The `__getattr__` of a module with these public names: it raises, and says what there is instead."""

    def missing(name: str) -> NoReturn:
        text = "" if name.startswith("_") else advice(module, name, names)
        raise AttributeError(f"module {module!r} has no attribute {name!r}{text}")

    return missing


class Absent:
    """An attribute that a class does not have, as `hasattr` says; who tries it learns what there is instead."""

    def __init__(self, name: str, instead: str) -> None:
        self.name = name
        self.instead = instead

    def __get__(self, instance: Any, owner: type) -> NoReturn:
        raise AttributeError(f"{owner.__name__!r} object has no attribute {self.name!r}; {self.instead}")

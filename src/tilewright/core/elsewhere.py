"""What names of PyTorch and JAX that are none here correspond to, for the error that somebody who tries one gets.

Text only; `tilewright.__getattr__` shows a row. A name that becomes one here leaves the table (a test holds that).
"""

from __future__ import annotations

__all__ = ["ELSEWHERE"]

# `tw.NAME` -> what there is instead.
ELSEWHERE: dict[str, str] = {
    "bernoulli": "it is `tw.random.bernoulli`",
    "compile": "a function is compiled by `tw.jit`",
    "cuda": "there is no GPU support; everything runs on the CPU",
    "device": "the device is always the CPU, called 'cpu'",
    "get_default_dtype": "the default is float32, and each function takes a `dtype`",
    "inference_mode": "use `tw.no_grad`",
    "jacobian": "use `tw.jacrev` or `tw.jacfwd`",
    "lax": "`scan`, `fori_loop`, `while_loop`, `cond` and `switch` are functions of `tw` itself",
    "map": "use `tw.vmap`, or `tw.scan` for one example at a time",
    "normal": "it is `tw.random.normal`",
    "numel": "use `x.numel()`",
    "numpy": "NumPy's functions are functions of `tw` itself",
    "pmap": "there is one device; use `tw.vmap`",
    "randperm": "use `tw.random.permutation`",
    "set_default_dtype": "the default is float32, and each function takes a `dtype`",
    "tree_map": "functions such as `tw.grad` and `tw.vmap` take trees of tensors as they are",
    "utils": "batches are slices of arrays: see `tw.train.Trainer`",
}

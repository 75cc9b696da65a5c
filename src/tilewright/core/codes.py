"""What the codes of errors in Python programs mean: pages of `tw explain CODE`, which needs no NumPy for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tilewright.core.diagnostics import Explanation

_PAGES: Final = (
    Explanation(
        "TW301",
        "a traced tensor was read as a number",
        "tw.jit, and the transforms, run a function once with stand-ins for its tensors, to record what it does. These "
        "have shapes and types but no elements, so nothing may depend on an element: no `if`, `while`, `float()`, "
        "`.item()` or `.numpy()`. Choose between tensors with `tw.where` or `tw.cond`, loop with `tw.while_loop`, or "
        "return the number and read it outside. The same code is given when a thread uses a tensor of a function "
        "that another thread is tracing.",
        "@tw.jit\ndef step(x):\n    if x.sum() > 10:\n        x = x / 2\n    return x",
        "@tw.jit\ndef step(x):\n    return tw.where(x.sum() > 10, x / 2, x)",
    ),
)

CODES: Final[Mapping[str, Explanation]] = {page.code: page for page in _PAGES}

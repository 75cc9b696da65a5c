"""What NumPy's own elementwise functions do with tensors: ``np.sin(x)``, ``array * x``, ``np.isnan(x)``.

A plain call becomes the function of the same name here: lazy, differentiable, recorded by ``tw.jit``. Anything else that a
NumPy function object can do (``out=``, ``where=``, ``reduce``, functions that are not here) is done by NumPy on the elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tilewright.tensor import Tensor

__all__: list[str] = []


def handler(names: Mapping[str, Any]) -> Callable[..., Any]:
    """``Tensor.__array_ufunc__`` (NumPy's protocol, NEP 13) with the functions of a namespace."""

    def array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        function = names.get(ufunc.__name__)
        if method == "__call__" and function is not None and not options:
            return function(*inputs)
        for target in options.get("out", ()):
            if isinstance(target, Tensor):
                raise TypeError(
                    f"numpy.{ufunc.__name__} cannot write to a tensor (`out`): write `x[...] = ...` instead"
                )
        arrays = [x.numpy() if isinstance(x, Tensor) else x for x in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    return array_ufunc

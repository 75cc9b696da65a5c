"""Tilewright: a machine-learning framework whose every step can be read.

Imported as `tw`. Names are loaded when they are first used (PEP 562), so that commands which need no arrays,
such as `tw fmt` and `tw validate`, start without NumPy or llvmlite. To make a name public, add one row below.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from math import e, inf, nan, pi
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tilewright.core.interpreter import without_lock as _without_lock
from tilewright.version import __version__

if TYPE_CHECKING:  # so that type checkers and editors know the names that are loaded lazily
    from tilewright.core.dtype import bfloat16 as bfloat16
    from tilewright.core.dtype import complex64 as complex64
    from tilewright.core.dtype import complex128 as complex128
    from tilewright.core.dtype import float8_e4m3fn as float8_e4m3fn
    from tilewright.core.dtype import float8_e5m2 as float8_e5m2
    from tilewright.core.dtype import float16 as float16
    from tilewright.core.dtype import float32 as float32
    from tilewright.core.dtype import float64 as float64
    from tilewright.core.dtype import int4 as int4
    from tilewright.core.dtype import int8 as int8
    from tilewright.core.dtype import int16 as int16
    from tilewright.core.dtype import int32 as int32
    from tilewright.core.dtype import int64 as int64
    from tilewright.core.dtype import uint4 as uint4
    from tilewright.core.dtype import uint8 as uint8
    from tilewright.core.dtype import uint16 as uint16
    from tilewright.core.dtype import uint32 as uint32
    from tilewright.core.dtype import uint64 as uint64
    from tilewright.core.size import Size
    from tilewright.core.size import SymbolicSizeError as SymbolicSizeError
    from tilewright.functions import *  # noqa: F403
    from tilewright.jit import jit as jit
    from tilewright.random import manual_seed as manual_seed
    from tilewright.random import rand as rand
    from tilewright.random import randint as randint
    from tilewright.random import randn as randn
    from tilewright.runtime.team import get_num_threads as get_num_threads
    from tilewright.runtime.team import set_num_threads as set_num_threads
    from tilewright.tensor import *  # noqa: F403

    Dim = Size

if _without_lock():
    raise ImportError(
        "tilewright's threads rely on Python's global lock, which is off in this process: start Python with"
        " PYTHON_GIL=1 in the environment or with `-X gil=1`, or use a build of Python that is not free-threaded"
    )

# Public name -> module that defines it. A value that ends in ":" + name takes that attribute under another
# name.
_LAZY_NAMES: dict[str, str] = {
    "TilewrightError": "tilewright.core.diagnostics",
    "KynError": "tilewright.lang.errors",
    "Dim": "tilewright.core.size:Size",
    "SymbolicSizeError": "tilewright.core.size",
    "Tensor": "tilewright.functions.methods",  # where the class gets its operators and methods
    "autograd": "tilewright.functions",
    "fft": "tilewright.array_api",
    "get_num_threads": "tilewright.runtime.team",
    "linalg": "tilewright.array_api",
    "bool": "tilewright.core.dtype:bool_",
    "jit": "tilewright.jit",
    "FileFormatError": "tilewright.core.files",
    "FileWriteError": "tilewright.core.files",
    "load": "tilewright.io",
    "loadtxt": "tilewright.io",
    "manual_seed": "tilewright.random",
    "rand": "tilewright.random",
    "randn": "tilewright.random",
    "randint": "tilewright.random",
    "save": "tilewright.io",
    "savetxt": "tilewright.io",
    "set_num_threads": "tilewright.runtime.team",
}


def _rows(module: str, names: str) -> None:
    _LAZY_NAMES.update(dict.fromkeys(names.split(), module))


_rows(
    "tilewright.core.dtype",
    """bfloat16 complex128 complex64 float16 float32 float64 float8_e4m3fn float8_e5m2 int16 int32 int4 int64 int8 uint16
    uint32 uint4 uint64 uint8""",
)
_rows(
    "tilewright.tensor",
    """autocast enable_grad is_grad_enabled no_grad set_grad_enabled ArgumentError AxisError DTypeError GradientError
    IndexingError LeakedTensorError ShapeError TracedValueError""",
)
_rows(
    "tilewright.functions",
    """arange asarray empty empty_like eye from_dlpack from_numpy full full_like linspace meshgrid one_hot ones
    ones_like realize tensor tril triu zeros zeros_like
    abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_invert bitwise_left_shift bitwise_or
    bitwise_right_shift bitwise_xor ceil clip conj copysign cos cosh divide equal erf exp exp2 expm1 floor
    floor_divide greater greater_equal hypot imag isfinite isinf isnan less less_equal log log10 log1p log2
    logaddexp logical_and logical_not logical_or logical_xor maximum minimum multiply negative not_equal
    positive pow real reciprocal remainder round rsqrt sign signbit sin sinh sqrt square subtract tan tanh
    trunc where
    all any argmax argmin count_nonzero cumulative_sum cumsum max mean min prod std sum var
    broadcast_arrays broadcast_to concat expand_dims flatten flip matrix_transpose moveaxis pad permute_dims
    repeat reshape roll split squeeze stack swapaxes tile unflatten unstack
    nonzero take take_along_axis
    dot matmul outer tensordot vecdot
    log_softmax logsumexp relu sigmoid silu softmax gelu
    cumprod cumulative_prod diff nextafter
    argsort searchsorted sort unique_all unique_counts unique_inverse unique_values
    astype bitcast can_cast finfo iinfo isdtype result_type einsum einsum_path
    addcdiv addcmul allclose angle array_equal array_equiv bitwise_count cbrt deg2rad divmod fabs float_power fmax fmin fmod
    frac frexp gcd heaviside isclose iscomplex isneginf isposinf isreal lcm ldexp lerp logaddexp2 modf nan_to_num rad2deg
    real_if_close sinc spacing
    absolute amax amin arccos arccosh arcsin arcsinh arctan arctan2 arctanh around array as_tensor bitwise_not cat clamp
    concatenate conjugate degrees div eq fix ge gt invert le left_shift lt mm mod movedim mul ne neg permute power radians
    repeat_interleave right_shift rint sub swapdims true_divide unsqueeze
    cumulative_trapezoid ediff1d gradient interp polyadd polyder polyfit polyint polymul polysub polyval trapezoid unwrap
    diag diag_embed diag_indices diag_indices_from diagflat fill_diagonal fromfunction fromiter frombuffer geomspace identity
    indices ix_ logspace mgrid ogrid tri tril_indices tril_indices_from triu_indices triu_indices_from vander
    bincount histogram histogram2d histogram_bin_edges histogramdd
    append apply_along_axis array_split atleast_1d atleast_2d atleast_3d block broadcast_shapes
    chunk column_stack copy delete dsplit dstack expand fliplr flipud
    hsplit hstack insert narrow ravel resize rollaxis rot90 transpose trim_zeros unbind vsplit vstack
    cummax cummin logcumsumexp
    argwhere choose compress extract flatnonzero gather index_add index_copy index_fill index_select masked_fill masked_select
    piecewise place put put_along_axis putmask ravel_multi_index scatter scatter_add scatter_reduce select sliding_window_view
    unravel_index
    in1d intersect1d isin setdiff1d setxor1d union1d unique unique_consecutive
    argpartition digitize kthvalue lexsort msort partition topk
    average corrcoef cov median mode nanargmax nanargmin nancumprod nancumsum nanmax nanmean nanmedian nanmin nanpercentile
    nanprod nanquantile nanstd nansum nanvar percentile ptp quantile std_mean var_mean
    cond fori_loop scan switch while_loop
    associative_scan check_grads checkpoint checkpoint_policies custom_jvp custom_vjp grad hessian hvp jacfwd jacrev jvp
    linearize stop_gradient value_and_grad vjp vmap""",
)

# Sub-packages reachable as attributes: `tw.nn`, `tw.optim`, ...
_LAZY_MODULES: frozenset[str] = frozenset(
    {
        "array_api",
        "data",
        "interop",
        "io",
        "lang",
        "metrics",
        "nn",
        "optim",
        "random",
        "signal",
        "special",
        "train",
    }
)

newaxis = None
__all__ = ["__version__", "e", "inf", "nan", "newaxis", "pi"]
__all__ += [*sorted(_LAZY_NAMES), *sorted(_LAZY_MODULES)]  # noqa: PLE0604  (a computed list)


def __getattr__(name: str) -> Any:
    value: Any
    if name in _LAZY_NAMES:
        module, _, attribute = _LAZY_NAMES[name].partition(":")
        value = getattr(importlib.import_module(module), attribute or name)
    elif name in _LAZY_MODULES:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{_advice(name)}")
    globals()[name] = value  # the next use finds it without coming here
    return value


def _advice(name: str) -> str:
    # names that tools and `from tilewright import submodule` ask for before they look elsewhere
    if name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return ""
    from tilewright.core.elsewhere import advice

    return advice(__name__, name, __all__)


class _Front(ModuleType):
    """The package's own class: importing the module `tilewright.jit` must not hide the function `tw.jit`.

    Python binds an imported submodule to its name in the package; where a function has the name, it keeps it.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _LAZY_NAMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Front


def __dir__() -> list[str]:
    """The public names, also those that are not imported yet; not what this file itself imports."""
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})

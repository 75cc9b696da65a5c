"""The tables of `docs/numpy.md` name every public function of NumPy: ours, or why there is none.

With TW_UPDATE_SPECS=1 the tables are rewritten. A function that NumPy gets and the page does not know makes the test fail.
"""

from __future__ import annotations

import inspect
import os
import re
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import tilewright as tw

PAGE = Path(__file__).parents[2] / "docs" / "numpy.md"
TABLE = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)

# NumPy's name -> what to write here, where it is not the function `tw.name`
ELSEWHERE = {
    "asanyarray": "`tw.asarray`",
    "array_repr": "`repr(x)`", "array_str": "`str(x)`", "array2string": "`np.array2string(x.numpy())`",
    "common_type": "`tw.result_type`", "promote_types": "`tw.result_type`", "min_scalar_type": "`tw.result_type`",
    "cross": "`tw.linalg.cross`", "diagonal": "`tw.linalg.diagonal`", "trace": "`tw.linalg.trace`", "kron": "`tw.linalg.kron`",
    "inner": "`tw.tensordot(x, y, ((-1,), (-1,)))`", "vdot": "`tw.vecdot(x.ravel(), y.ravel())`",
    "matvec": "`(a @ x[..., None])[..., 0]`", "vecmat": "`(x[..., None, :].conj() @ a)[..., 0, :]`",
    "iscomplexobj": "`x.dtype.is_complex`", "isrealobj": "`not x.dtype.is_complex`", "issubdtype": "`tw.isdtype`",
    "isscalar": "`isinstance(x, (int, float, complex))`", "iterable": "Python's `iter(x)`",
    "ndim": "`x.ndim`", "shape": "`x.shape`", "size": "`x.size`, `x.size(axis)`",
    "row_stack": "`tw.vstack`", "roots": "`tw.linalg.eigvals` of the companion matrix",
    "mask_indices": "`tw.nonzero(mask(tw.ones(n, n)))`",
    "typename": "`x.dtype.name`",
    "bartlett": "`tw.signal.bartlett`", "blackman": "`tw.signal.blackman`", "hamming": "`tw.signal.hamming`",
    "hanning": "`tw.signal.hann`", "kaiser": "`tw.signal.kaiser`", "i0": "`tw.special.i0`",
    "convolve": "`tw.signal.convolve`", "correlate": "`tw.signal.correlate(a, v, mode=\"valid\")`",
}  # fmt: skip

# functions whose name here means something else, or more than in NumPy
NOTES = {
    "split": "sizes of the parts, as in PyTorch; NumPy's meaning is `tw.array_split`, `tw.hsplit`, `tw.vsplit`",
    "where": "three arguments; for one, `tw.nonzero`",
    "fill_diagonal": "gives a new tensor", "place": "gives a new tensor", "put": "gives a new tensor",
    "put_along_axis": "gives a new tensor", "putmask": "gives a new tensor",
    "nanargmax": "-1 where all are NaN", "nanargmin": "-1 where all are NaN",
    "nonzero": "`size=` in `tw.jit`", "argwhere": "`size=` in `tw.jit`", "flatnonzero": "`size=` in `tw.jit`",
    "unique": "`size=` in `tw.jit`", "union1d": "`size=` in `tw.jit`", "intersect1d": "`size=` in `tw.jit`",
    "setdiff1d": "`size=` in `tw.jit`", "setxor1d": "`size=` in `tw.jit`", "compress": "`size=` in `tw.jit`",
    "extract": "`size=` in `tw.jit`", "bincount": "`length=` in `tw.jit`",
    "floor_divide": "infinities as the array API standard says", "trim_zeros": "not in `tw.jit`",
    "piecewise": "every function is computed everywhere",
    "partition": "sorts everything", "argpartition": "sorts everything",
    "isin": "not for complex elements",
    "repeat": "`total_repeat_length=` in `tw.jit`", "allclose": "a tensor of one bool", "array_equal": "a tensor of one bool",
    "frombuffer": "copies", "load": "chooses the format by the file's ending",
    "save": "chooses the format by the file's ending", "clip": "keeps the type of x", "reciprocal": "float32 of integers",
    "rint": "keeps integers as they are", "histogram": "without `range`, edges are NaN where x has NaN",
    "quantile": "infinite between an infinite and a finite number", "percentile": "as `quantile`", "dot": "vectors and matrices",
}  # fmt: skip

_HOST = "host code: files, printing and settings are Python's and NumPy's; `x.numpy()` gives the array"
_DATES = "no dates or strings among the element types"
_LAYOUT = "tensors have no strides or memory order that a program sees"
ABSENT_TOGETHER = {
    _HOST: """base_repr binary_repr format_float_positional format_float_scientific fromfile fromregex fromstring genfromtxt
        get_include get_printoptions getbufsize geterr geterrcall info loadtxt printoptions savetxt savez savez_compressed
        set_printoptions setbufsize seterr seterrcall show_config show_runtime test""",
    _DATES: "busday_count busday_offset datetime_as_string datetime_data is_busday isnat",
    _LAYOUT: "ascontiguousarray asfortranarray isfortran may_share_memory nested_iters require shares_memory",
    "NumPy itself advises against `matrix`": "asmatrix bmat",
}
ABSENT = {
    "apply_over_axes": "reductions take several axes",
    "asarray_chkfinite": "`tw.isfinite(x).all()`",
    "copyto": "`x[...] = y`, `x.copy_(y)`",
    "einsum_path": "`tw.einsum` chooses an order itself",
    "frompyfunc": "Python functions of tensors are traced: `tw.vmap`, `tw.jit`",
    "mintypecode": "there are no type characters",
    "packbits": "shifts and sums of bits",
    "unpackbits": "`(x[..., None] >> tw.arange(7, -1, -1)) & 1`",
    "poly": "`tw.polymul` of the factors",
    "polydiv": "the length of the remainder depends on the elements",
    "sort_complex": "complex elements have no order",
    **{name: reason for reason, names in ABSENT_TOGETHER.items() for name in names.split()},
}


# functions that the oldest NumPy of the supported ones has and newer ones have no more
REMOVED = ("row_stack",)


def numpy_functions() -> list[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [n for n in dir(np) if not n.startswith("_")]
        functions = {n for n in found if callable(getattr(np, n)) and not inspect.isclass(getattr(np, n))}
        return sorted(functions.union(REMOVED))


def same() -> Iterator[str]:
    """Functions under NumPy's own name."""
    yield "| NumPy and Tilewright | remark |"
    yield "|---|---|"
    plain = []
    for name in numpy_functions():
        if hasattr(tw, name) and name not in ELSEWHERE:
            if name in NOTES:
                yield f"| `{name}` | {NOTES[name]} |"
            else:
                plain.append(f"`{name}`")
    yield ""
    yield from textwrap.wrap(f"Without a remark: {', '.join(plain)}.", 118)


def elsewhere() -> Iterator[str]:
    yield "| NumPy | Tilewright |"
    yield "|---|---|"
    for name in numpy_functions():
        if name in ELSEWHERE:
            yield f"| `{name}` | {ELSEWHERE[name]} |"


def absent() -> Iterator[str]:
    yield "| NumPy | why not |"
    yield "|---|---|"
    reasons: dict[str, list[str]] = {}
    for name in numpy_functions():
        if not hasattr(tw, name) and name not in ELSEWHERE:
            reasons.setdefault(ABSENT[name], []).append(f"`{name}`")
    for reason, names in reasons.items():
        yield f"| {' '.join(names)} | {reason} |"


TABLES = {"same": same, "elsewhere": elsewhere, "absent": absent}


def test_tables_are_what_the_code_says() -> None:
    text = PAGE.read_text(encoding="utf-8")
    want = TABLE.sub(lambda m: m[1] + "\n".join(TABLES[m[2]]()) + "\n" + m[4], text)
    assert {m[2] for m in TABLE.finditer(text)} == set(TABLES)
    if os.environ.get("TW_UPDATE_SPECS"):
        PAGE.write_text(want, encoding="utf-8")
    else:
        assert text == want, "run this test with TW_UPDATE_SPECS=1"


def test_every_function_named_on_the_page_exists() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name in re.findall(r"`tw\.([a-z_0-9]+(?:\.[a-z_0-9]+)?)", text):
        target: object = tw
        for part in name.split("."):
            assert hasattr(target, part), f"the page names tw.{name}"
            target = getattr(target, part)
    for name in re.findall(r"`x\.([a-z_0-9]+)\b", text):
        assert hasattr(tw.Tensor, name), f"the page names x.{name}"


def test_no_reason_is_given_for_what_exists() -> None:
    functions = set(numpy_functions())
    assert set(NOTES) <= {n for n in functions if hasattr(tw, n)}
    assert set(ELSEWHERE) | set(ABSENT) <= functions

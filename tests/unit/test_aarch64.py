"""Code for AArch64 from its description alone: what the inner loop of a matrix product looks like, and that kernels compute
what they should where a cross compiler and an emulator are at hand (Debian: ``gcc-aarch64-linux-gnu``, ``libc6-dev-arm64-cross``,
``qemu-user``)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
import tilewright.nn.functional as F
from tilewright.codegen.llvm import emit, scratch_bytes
from tilewright.core import dtype as dt
from tilewright.core.shape import product, static
from tilewright.graph import build
from tilewright.graph.ir import Value, input_value, make
from tilewright.graph.reference import evaluate
from tilewright.lower.calls import Call
from tilewright.lower.groups import form_groups
from tilewright.lower.lowering import lower_groups
from tilewright.passes.pipeline import run_passes
from tilewright.recipes.machine import Machine
from tilewright.runtime.jit import assembly
from tilewright.runtime.target import Target

NEON = Target.named("neon")
MACHINE = Machine(NEON.vector_bytes, NEON.registers, NEON.l1, NEON.l2, 1, NEON.dots, NEON.has_fma)
COMPILER, EMULATOR = shutil.which("aarch64-linux-gnu-gcc"), shutil.which("qemu-aarch64")
needs_emulator = pytest.mark.skipif(
    not (COMPILER and EMULATOR), reason="needs aarch64-linux-gnu-gcc and qemu-aarch64 to run AArch64 code"
)


def calls_of(outputs: Sequence[Value]) -> list[Call]:
    steps = lower_groups(form_groups(run_passes(outputs)), MACHINE)
    assert all(s.calls for s in steps)
    return [call for step in steps for call in step.calls]


def test_register_tiles_stay_in_registers() -> None:
    """The loop over k holds a tile of 13 x 8 sums, reads each operand once and touches no stack."""
    a, b = (input_value(dt.float32, (256, 256)) for _ in "ab")
    (call,) = calls_of([build.dot(a, b, ((1,), (0,)))])
    text = assembly(emit(call.kernel, NEON), NEON)
    blocks = (block.partition(":\n") for block in re.split(r"^(?=\.LBB)", text, flags=re.MULTILINE))
    loops = [body.partition(f"\t{label}\n")[0] for label, _, body in blocks if f"\t{label}\n" in body]
    inner = max(loops, key=lambda body: body.count("fmla"))
    assert inner.count("fmla") == 26 and "[sp" not in inner
    assert len(re.findall(r"\tld", inner)) <= 15


DRIVER = """\
#include <stdio.h>
#include <stdlib.h>
%(declarations)s
static void *block(long bytes) { return aligned_alloc(64, (bytes + 127) / 64 * 64); }
int main(int count, char **names) {
    FILE *in = fopen(names[1], "rb"), *out = fopen(names[2], "wb");
    long sizes[] = {%(sizes)s};
    char *p[%(count)d];
    int status = 0;
    for (int i = 0; i < %(count)d; i++) p[i] = block(sizes[i]);
    for (int i = 0; i < %(inputs)d; i++) if (fread(p[i], 1, sizes[i], in) != sizes[i]) return 2;
    void *scratch = block(%(scratch)d);
%(calls)s
    for (int i = 0; i < %(count)d; i++) fwrite(p[i], 1, sizes[i], out);
    fclose(out);
    return status;
}
"""


def emulate(outputs: Sequence[Value], arrays: dict[Value, np.ndarray[Any, Any]], folder: Path) -> list[Any]:
    """The outputs as AArch64 code computes them: every call in order, on one thread."""
    assert COMPILER and EMULATOR
    calls = calls_of(outputs)
    places: list[Any] = [*arrays]
    for call in calls:
        places += [a.place for a in call.args if a.place not in places]
    number = {place: i for i, place in enumerate(places)}
    sizes = [(p.type.size if isinstance(p, Value) else p.size) * p.dtype.itemsize for p in places]
    lines, files = [], []
    for i, call in enumerate(calls):
        args = [f"p[{number[a.place]}] + {a.offset * a.place.dtype.itemsize}" for a in call.args]
        lines.append(
            f"    {{ void *b[] = {{{', '.join(args)}}}; k{i}(b, scratch, 0, {call.grid}, &status); }}"
        )
        file = folder / f"k{i}.s"
        file.write_text(assembly(emit(replace(call.kernel, name=f"k{i}"), NEON), NEON))
        files.append(str(file))
    values = {
        "declarations": "\n".join(f"void k{i}(void **, void *, long, long, int *);" for i in range(len(calls))),
        "sizes": ", ".join(map(str, sizes)), "count": len(places), "inputs": len(arrays),
        "scratch": max(scratch_bytes(c.kernel) for c in calls) + 64, "calls": "\n".join(lines),
    }  # fmt: skip
    (folder / "main.c").write_text(DRIVER % values)
    (folder / "in").write_bytes(b"".join(a.tobytes() for a in arrays.values()))
    program = str(folder / "main")
    subprocess.run(
        [COMPILER, "-O1", "-static", "-o", program, str(folder / "main.c"), *files, "-lm"], check=True
    )
    subprocess.run([EMULATOR, program, str(folder / "in"), str(folder / "out")], check=True, timeout=120)
    data, at, found = (folder / "out").read_bytes(), 0, {}
    for place, size in zip(places, sizes, strict=True):
        if isinstance(place, Value):
            array = np.frombuffer(data[at : at + size], place.dtype.numpy)
            found[place] = array.reshape(static(place.shape))
        at += size
    return [found[v].reshape(static(v.shape)) for v in run_passes(outputs)]


@needs_emulator
def test_kernels_compute_the_same_under_emulation(tmp_path: Path) -> None:
    f32 = dt.float32
    outputs: list[Value] = []
    for m, n, k, tb in ((37, 45, 70, 0), (37, 45, 70, 1), (1, 40, 64, 1), (6, 5, 3000, 0)):
        a, b = input_value(f32, (m, k)), input_value(f32, (n, k) if tb else (k, n))
        outputs.append(build.unary("tanh", build.dot(a, b, ((1,), (tb,)))))
    for element, result in ((dt.bfloat16, f32), (dt.float16, f32), (dt.int8, dt.int32)):
        a, b = input_value(element, (9, 33)), input_value(element, (33, 21))
        outputs.append(build.dot(a, b, ((1,), (0,)), dtype=result))
    image, kernel = input_value(f32, (2, 3, 9, 8)), input_value(f32, (5, 3, 3, 3))
    outputs.append(
        make(
            "conv", (image, kernel), stride=(1, 1), padding=((1, 1), (1, 1)), lhs_dilation=(1, 1), rhs_dilation=(1, 1), groups=1,
            dtype=f32,
        )
    )  # fmt: skip
    x = input_value(f32, (7, 50))
    total = make("reduce_sum", (build.unary("exp", x),), axes=(1,))
    outputs.append(build.unary("log", total))
    outputs.append(build.unary("sin", x))
    leaves = list(dict.fromkeys(i for v in outputs for i in leaves_of(v)))
    rng = np.random.default_rng(0)
    arrays = {
        v: rng.integers(-100, 100, static(v.shape)).astype(v.dtype.numpy)
        if v.dtype.is_integer
        else rng.uniform(-1, 1, static(v.shape)).astype(v.dtype.numpy)
        for v in leaves
    }
    want = evaluate(outputs, arrays)
    for v, got, expected in zip(outputs, emulate(outputs, arrays, tmp_path), want, strict=True):
        assert product(v.shape) == got.size
        np.testing.assert_allclose(got, expected, rtol=2e-4, atol=2e-5, err_msg=str(v))


def cubed(function: Callable[..., Any], *arrays: Any) -> Any:
    """The gradients of a function's sum of cubes with respect to all its arguments."""
    return tw.grad(lambda *a: (function(*a) ** 3).sum(), argnums=tuple(range(len(arrays))))(*arrays)


def convolve(**options: Any) -> Callable[..., Any]:
    return lambda x, w: F.conv2d(x, w, **options)


def attend(q: Any, k: Any, v: Any) -> Any:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


# One case for each way to lower what the name says: a function and the shapes of its arguments.
WAYS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "3x3 convolution": (convolve(padding=1), [(2, 33, 13, 15), (17, 33, 3, 3)]),
    "many small images": (convolve(), [(64, 6, 14, 14), (16, 6, 5, 5)]),
    "depthwise convolution": (convolve(padding=1, groups=16), [(2, 16, 9, 9), (16, 1, 3, 3)]),
    "strided convolution": (convolve(padding=1, stride=2), [(2, 16, 17, 16), (32, 16, 3, 3)]),
    "attention": (attend, [(2, 3, 65, 32)] * 3),
    "short rows": (lambda x: F.softmax(x, -1), [(37, 65)]),
    "long rows": (lambda x: F.layer_norm(x, (1024,)), [(9, 1024)]),
    "product with packed operands": (lambda a, b: F.gelu(a @ b.T), [(130, 513), (129, 513)]),
}


@needs_emulator
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_compute_is_right_under_emulation(way: str, tmp_path: Path) -> None:
    """Forward and the gradients of all arguments."""
    function, shapes = WAYS[way]
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-1, 1, shape).astype(np.float32) for shape in shapes]
    for name, whole in (("forward", function), ("backward", lambda *a: cubed(function, *a))):
        executable = tw.jit(whole).executable(*map(tw.asarray, arrays))
        given = dict(zip(executable.inputs, arrays, strict=True))
        folder = tmp_path / name
        folder.mkdir()
        results = emulate(executable.outputs, given, folder)
        for got, want in zip(results, evaluate(executable.outputs, given), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max(), err_msg=name)


@needs_emulator
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", [(9, 65), (9, 1024)])
def test_argmax_is_right_under_emulation(shape: tuple[int, int], axis: int, tmp_path: Path) -> None:
    """The first of equal maxima, and the first NaN."""
    x = np.random.default_rng(0).integers(0, 9, shape).astype(np.float32)
    x[2, 40:50] = np.nan
    executable = tw.jit(lambda x: x.argmax(axis)).executable(tw.asarray(x))
    (got,) = emulate(executable.outputs, {executable.inputs[0]: x}, tmp_path)
    np.testing.assert_array_equal(got, x.argmax(axis))


def leaves_of(v: Value) -> list[Value]:
    return [v] if v.op == "input" else [x for i in v.inputs for x in leaves_of(i)]

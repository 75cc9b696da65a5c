"""The messages of bad tensor calls, word for word.

Each case is a call that must fail; `tensor_messages.txt` holds what it says. After a deliberate change run the tests
with `TW_UPDATE_SNAPSHOTS=1` and read the difference.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilewright as tw
from tilewright import functions as F
from tilewright import random

SNAPSHOT = Path(__file__).with_name("tensor_messages.txt")
zeros = tw.zeros


def integers() -> tw.Tensor:
    return tw.tensor([0, 1])


def leaf() -> tw.Tensor:
    return tw.ones(2, requires_grad=True)


def traced() -> Any:
    @tw.jit
    def step(x):
        if x.sum() > 0:
            return x
        return -x

    return step(zeros(2))


def leaked() -> Any:
    kept = []
    tw.jit(lambda x: kept.append(x + 1))(zeros(2))
    return kept[0] + 1


def freed() -> Any:
    loss = (leaf() * 2).sum()
    loss.backward()
    loss.backward()


def register(how: str, hook: Any) -> Any:
    h = leaf() * 2
    getattr(h, how)(hook)
    h.sum().backward()


def sized(function: Callable[..., Any], dynamic: Any) -> Callable[..., Any]:
    return tw.jit(function, dynamic=dynamic)


def rows(x):
    return x * 2


def repeated(x):
    return [x] * x.shape[0]


ROWS = tw.Dim("rows", 2, 8)
CASES: dict[str, Callable[[], Any]] = {
    "size out of range": lambda: sized(rows, {"x": {0: ROWS}})(zeros(9, 3)),
    "sizes that disagree": lambda: sized(lambda a, b: a.sum() + b.sum(), {"a": {0: ROWS}, "b": {1: ROWS}})(
        zeros(3, 2), zeros(3, 4)
    ),
    "size of no such axis": lambda: sized(rows, {"x": {2: ROWS}})(zeros(3, 3)),
    "size of no such argument": lambda: sized(rows, {"y": {0: ROWS}})(zeros(3, 3)),
    "size of no tensor": lambda: sized(rows, {"x": {0: ROWS}})(3.0),
    "size without an axis": lambda: sized(rows, {"x": ROWS}),
    "size with two ranges": lambda: sized(rows, {"x": (ROWS, tw.Dim("rows", 1, 9))}),
    "size bounds": lambda: tw.Dim("rows", 0, 8),
    "size name": lambda: tw.Dim("the rows", 1, 8),
    "size as a number": lambda: sized(repeated, {"x": {0: ROWS}})(zeros(3, 3)),
    "size compared": lambda: sized(lambda x: x if x.shape[0] == 4 else -x, {0: {0: ROWS}})(zeros(3, 3)),
    "size against a number": lambda: sized(lambda x: x + zeros(3, 1), {0: {0: ROWS}})(zeros(3, 3)),
    "broadcast": lambda: zeros(2, 3) + zeros(4),
    "matmul inner": lambda: zeros(3, 4) @ zeros(5, 6),
    "matmul transposed": lambda: zeros(3, 4) @ zeros(5, 4),
    "matmul scalar": lambda: zeros(3, 4) @ zeros(()),
    "reshape": lambda: zeros(2, 3).reshape(4, 2),
    "reshape two -1": lambda: zeros(2, 3).reshape(-1, -1),
    "axis": lambda: zeros(2, 3).sum(2),
    "axis twice": lambda: zeros(2, 3).sum((0, -2)),
    "axis type": lambda: zeros(2, 3).sum("a"),
    "rank 0 axis": lambda: zeros(()).sum(0),
    "permute": lambda: zeros(2, 3).permute_dims(0, 0),
    "squeeze": lambda: zeros(2, 3).squeeze(0),
    "concat": lambda: tw.concat([zeros(2, 3), zeros(2, 4)]),
    "concat nothing": lambda: tw.concat([]),
    "stack": lambda: tw.stack([zeros(2), zeros(3)]),
    "dtype": lambda: zeros(2, dtype="float31"),
    "operand type": lambda: tw.exp("a"),
    "object array": lambda: tw.tensor([1, "a"]),
    "ragged": lambda: tw.tensor([[1, 2], [3]]),
    "bool product": lambda: (zeros(2) > 0) - (zeros(2) > 0),
    "shift float": lambda: zeros(2) << 1,
    "where": lambda: tw.where(zeros(2), 1, 2),
    "uint8 range": lambda: zeros(2, dtype="uint8") + 300,
    "index range": lambda: zeros(2, 3)[5],
    "index count": lambda: zeros(2, 3)[0, 0, 0],
    "index type": lambda: zeros(2, 3)[1.0],
    "mask": lambda: zeros(2, 3)[np.array([True])],
    "assign": lambda: zeros(2, 3).assign(zeros(5)),
    "setitem": lambda: zeros(2, 3).__setitem__(0, zeros(5)),
    "truth": lambda: bool(zeros(2)),
    "item": lambda: zeros(2).item(),
    "len": lambda: len(zeros(())),
    "index of float": lambda: [1, 2][zeros(())],
    "in place type": lambda: integers().__iadd__(0.5),
    "leaf in place": lambda: leaf().__iadd__(1),
    "backward without leaf": lambda: zeros(2).sum().backward(),
    "backward of a vector": lambda: (leaf() * 2).backward(),
    "gradient shape": lambda: (leaf() * 2).backward(zeros(3)),
    "requires_grad of integers": lambda: integers().requires_grad_(),
    "grad function value": lambda: tw.grad(lambda x: x)(zeros(2)),
    "grad of integers": lambda: tw.grad(lambda x: x.sum())(integers()),
    "pad mode": lambda: tw.pad(zeros(2), 1, mode="mirror"),
    "pad widths": lambda: tw.pad(zeros(2, 3), [(1, 2), (3, 4), (5, 6)]),
    "pad nothing to reflect": lambda: tw.pad(zeros(0), 1, mode="reflect"),
    "hsplit": lambda: tw.hsplit(zeros(2, 3), 2),
    "insert": lambda: tw.insert(zeros(3), 5, 1.0),
    "narrow": lambda: tw.narrow(zeros(3), 0, 2, 2),
    "quantile": lambda: tw.quantile(zeros(3), 1.5),
    "quantile method": lambda: tw.quantile(zeros(3), 0.5, method="best"),
    "topk": lambda: tw.topk(zeros(3), 4),
    "gather": lambda: tw.gather(zeros(2, 3), 0, integers()),
    "scatter": lambda: tw.scatter(zeros(2, 3), 0, tw.zeros(1, 3, dtype="int64"), zeros(1, 2)),
    "unravel_index": lambda: tw.unravel_index(6, (2, 3)),
    "bincount": lambda: tw.bincount(tw.tensor([1, -1])),
    "histogram": lambda: tw.histogram(zeros(3), 0),
    "interp": lambda: tw.interp(zeros(2), zeros(3), zeros(4)),
    "gradient": lambda: tw.gradient(zeros(1)),
    "average": lambda: tw.average(zeros(2, 3), axis=0, weights=zeros(3)),
    "gcd": lambda: tw.gcd(zeros(2), 3),
    "fmod of complex": lambda: tw.fmod(tw.tensor([1j]), 2),
    "dim and axis": lambda: zeros(2, 3).sum(axis=0, dim=1),
    "where of one": lambda: tw.where(zeros(2) > 0),
    "nonzero in jit": lambda: tw.jit(lambda x: tw.nonzero(x)[0])(zeros(2)),
    "mask in jit": lambda: tw.jit(lambda x: x[x > 0])(zeros(2)),
    "bincount in jit": lambda: tw.jit(lambda x: tw.bincount(x))(integers()),
    "frombuffer": lambda: tw.frombuffer(b"abc"),
    "size of an axis": lambda: zeros(2).size(1),
    "computed index": lambda: (zeros(2, 3)[integers() + 1]).numpy(),
    "row of a table": lambda: F.embedding(integers() - 1, zeros(2, 3)).numpy(),
    "linear": lambda: F.linear(zeros(2, 3), zeros(4, 5)),
    "linear bias": lambda: F.linear(zeros(2, 3), zeros(4, 3), zeros(3)),
    "cross_entropy shape": lambda: F.cross_entropy(zeros(4, 3), zeros(4, 1, dtype="int64")),
    "cross_entropy one-hot integers": lambda: F.cross_entropy(zeros(4, 3), zeros(4, 3, dtype="int64")),
    "cross_entropy float classes": lambda: F.cross_entropy(zeros(4, 3), zeros(4)),
    "cross_entropy class": lambda: F.cross_entropy(zeros(2, 3), tw.tensor([0, 3])),
    "mse shapes": lambda: F.mse_loss(zeros(4, 1), zeros(4)),
    "reduction": lambda: F.mse_loss(zeros(4), zeros(4), "avg"),
    "conv channels": lambda: F.conv2d(zeros(1, 3, 8, 8), zeros(4, 1, 3, 3)),
    "conv rank": lambda: F.conv2d(zeros(3, 8), zeros(4, 3, 3, 3)),
    "conv kernel": lambda: F.conv2d(zeros(1, 3, 2, 2), zeros(4, 3, 3, 3)),
    "conv padding": lambda: F.conv2d(zeros(1, 3, 8, 8), zeros(4, 3, 3, 3), padding="full"),
    "pool window": lambda: F.max_pool2d(zeros(1, 1, 2, 2), 3),
    "layer norm": lambda: F.layer_norm(zeros(2, 3), 4),
    "batch norm": lambda: F.batch_norm(zeros(2, 3, 4), zeros(3), zeros(3), zeros(4)),
    "embedding": lambda: F.embedding(zeros(2), zeros(3, 4)),
    "attention": lambda: F.scaled_dot_product_attention(zeros(2, 3), zeros(2, 4), zeros(2, 4)),
    "einsum size": lambda: tw.einsum("ij,jk->ik", zeros(2, 3), zeros(4, 5)),
    "einsum count": lambda: tw.einsum("ij,jk->ik", zeros(2, 3)),
    "einsum label": lambda: tw.einsum("ij->ik", zeros(2, 3)),
    "einsum axes": lambda: tw.einsum("ijk->i", zeros(2, 3)),
    "max of nothing": lambda: zeros(0, 3).max(),
    "randint": lambda: random.randint(3, 3),
    "gelu": lambda: F.gelu(zeros(2), "fast"),
    "traced value": traced,
    "leaked tensor": leaked,
    "freed graph": freed,
    "cond pred": lambda: tw.cond(zeros(3) > 0, tw.sin, tw.cos, zeros(3)),
    "cond structure": lambda: tw.cond(True, lambda x: (x, x), lambda x: {"a": x}, zeros(3)),
    "cond shape": lambda: tw.cond(True, lambda x: {"a": x}, lambda x: {"a": x[1:]}, zeros(3)),
    "cond dtype": lambda: tw.cond(True, lambda x: x > 0, tw.sin, zeros(3)),
    "switch index": lambda: tw.switch(1.5, [tw.sin, tw.cos], zeros(3)),
    "while condition": lambda: tw.while_loop(lambda c: c, tw.sin, zeros(3)),
    "while carry": lambda: tw.while_loop(lambda c: c["n"] > 0, lambda c: {"n": c["n"] > 0}, {"n": zeros(())}),
    "while reverse": lambda: tw.grad(lambda x: tw.while_loop(lambda y: y < 9, lambda y: y * x, x))(
        tw.ones(())
    ),
    "scan carry": lambda: tw.scan(lambda c, x: ((c[0], c[1] + x), x), (zeros(()), zeros(())), zeros(3, 2)),
    "hook type": lambda: register("register_hook", lambda g: g.sum()),
    "hook of no leaf": lambda: (leaf() * 2).register_post_accumulate_grad_hook(print),
}


def snapshot() -> dict[str, str]:
    text = SNAPSHOT.read_text(encoding="utf-8") if SNAPSHOT.exists() else ""
    blocks = re.split(r"^## ", text, flags=re.M)[1:]
    return {name.strip(): body.strip("\n") for name, _, body in (b.partition("\n") for b in blocks)}


def message(case: Callable[[], Any]) -> str:
    with pytest.raises(tw.TilewrightError) as caught:
        case()
    error = caught.value
    kinds = [c.__name__ for c in type(error).__mro__ if c.__module__ == "builtins"]
    text = re.sub(r"\S*test_tensor_messages\.py:\d+(:\d+)?", "FILE", str(error))
    text = re.sub(r"^ *\d+ \|", "   N |", text, flags=re.M)
    return f"{type(error).__name__} ({kinds[0]})\n{text}"


@pytest.mark.parametrize("name", CASES)
def test_message(name: str) -> None:
    found = message(CASES[name])
    if os.environ.get("TW_UPDATE_SNAPSHOTS"):
        everything = {**snapshot(), name: found}
        kept = {n: everything[n] for n in CASES if n in everything}
        SNAPSHOT.write_text("".join(f"## {n}\n{t}\n\n" for n, t in kept.items()), encoding="utf-8")
    assert snapshot().get(name) == found


def test_the_snapshot_holds_no_other_case() -> None:
    assert set(snapshot()) == set(CASES)

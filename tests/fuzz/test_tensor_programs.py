"""Random programs over a few tensors, against the same program on NumPy arrays that share nothing.

What it is after: laziness and sharing. Whatever is read when, written in place, viewed, detached, or updated inside a
jitted function, every tensor must hold what its array holds, and gradients must be those of an eager replay.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import tilewright as tw

SIZE = 6
Step = tuple[str, int, int, int]
ACTIONS = [
    "add",
    "mul",
    "copy",
    "iadd",
    "imul",
    "assign",
    "write",
    "view",
    "read",
    "detach",
    "jit",
    "swap",
    "new",
    "sum",
    "drop",
]
steps = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.integers(0, 9), st.integers(0, 9), st.integers(0, SIZE - 1)),
    min_size=3,
    max_size=25,
)


@tw.jit
def update(target: tw.Tensor, source: tw.Tensor) -> tw.Tensor:
    old = target * 1
    target.assign(target * 0.5 + source)
    return old - source


@dataclass
class World:
    """Tensors and what they must hold."""

    tensors: list[tw.Tensor] = field(default_factory=list)
    arrays: list[np.ndarray[Any, Any]] = field(default_factory=list)
    views: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = field(default_factory=list)

    def push(self, tensor: tw.Tensor, array: np.ndarray[Any, Any]) -> None:
        self.tensors.append(tensor)
        self.arrays.append(np.array(array))

    def run(self, step: Step) -> None:
        action, i, j, k = step
        n = len(self.tensors)
        i, j = i % n, j % n
        a, b, x, y = self.tensors[i], self.tensors[j], self.arrays[i], self.arrays[j]
        if action == "add":
            self.push(a + b, x + y)
        elif action == "mul":
            self.push(a * 0.5 * b, x * 0.5 * y)
        elif action == "copy":
            self.push(a.clone(), x)
        elif action == "iadd":
            a += b
            self.arrays[i] = x + y
        elif action == "imul":
            a *= 0.25
            self.arrays[i] = x * 0.25
        elif action == "assign":
            a.assign(b)
            self.arrays[i] = y.copy()
        elif action == "write":
            a[k:] = b[: SIZE - k]
            self.arrays[i] = np.concatenate([x[:k], y[: SIZE - k]])
        elif action == "view":
            part = a[k:]
            self.push(tw.concat([part, tw.zeros(k, dtype="float64")]), np.concatenate([x[k:], np.zeros(k)]))
        elif action == "read":
            view = a.numpy()
            self.views.append((view, x.copy()))
        elif action == "detach":
            self.push(a.detach(), x)
        elif action == "jit":
            out = update(a, b)
            self.push(out, x - y)
            self.arrays[i] = x * 0.5 + y
            if i == j:
                self.arrays[-1] = x - (x * 0.5 + x)  # the source was written too before it was subtracted
        elif action == "swap":
            self.tensors[i], self.tensors[j] = b, a
            self.arrays[i], self.arrays[j] = y, x
        elif action == "new":
            self.push(tw.full((SIZE,), float(k), dtype="float64"), np.full(SIZE, float(k)))
        elif action == "sum":
            self.push(a.sum() * 0.1 + b, x.sum() * 0.1 + y)
        elif action == "drop" and n > 2:
            del self.tensors[i], self.arrays[i]

    def check(self) -> None:
        for tensor, array in zip(self.tensors, self.arrays, strict=True):
            np.testing.assert_allclose(tensor.numpy(), array, rtol=1e-12, atol=1e-12)
        for view, expected in self.views:  # what was read once never changes
            np.testing.assert_array_equal(view, view.copy())
            np.testing.assert_allclose(view, expected, rtol=1e-12, atol=1e-12)


@given(steps)
def test_tensors_hold_what_independent_arrays_hold(program: list[Step]) -> None:
    world = World()
    world.push(tw.tensor(np.linspace(-1, 1, SIZE)), np.linspace(-1, 1, SIZE))
    world.push(tw.tensor(np.linspace(2, 1, SIZE)), np.linspace(2, 1, SIZE))
    for step in program:
        world.run(step)
    world.check()


def loss_of(program: list[Step], w: tw.Tensor, reads: bool) -> tw.Tensor:
    """A differentiable program over one leaf; ``reads`` computes intermediate tensors on the way."""
    pool = [w * 1.0, w * w]
    for action, i, j, k in program:
        a, b = pool[i % len(pool)], pool[j % len(pool)]
        if action in ("add", "sum", "jit"):
            pool.append(a + b * 0.5)
        elif action in ("mul", "imul"):
            pool.append(tw.tanh(a) * b)
        elif action in ("write", "assign"):
            c = a.clone()
            c[k:] = b[: SIZE - k]
            pool.append(c)
        elif action == "detach":
            pool.append(a.detach() + b)
        elif action == "iadd":
            a += b * 0.1
        elif action == "view":
            pool.append(a[::-1])
        elif action == "read" and reads:
            a.numpy()
    return sum((p.sum() for p in pool), start=tw.tensor(0.0, dtype="float64"))


@given(steps)
def test_gradients_do_not_depend_on_when_tensors_are_read(program: list[Step]) -> None:
    start = np.linspace(-0.9, 1.1, SIZE)

    def gradient(reads: bool) -> np.ndarray[Any, Any]:
        w = tw.tensor(start, requires_grad=True)
        loss = loss_of(program, w, reads)
        if reads:
            loss.realize()
        loss.backward()
        return w.grad.numpy()  # type: ignore[union-attr]

    lazy, read = gradient(False), gradient(True)
    np.testing.assert_allclose(lazy, read, rtol=1e-10, atol=1e-10)
    functional = tw.jit(tw.grad(lambda w: loss_of(program, w, False)))(tw.tensor(start))
    np.testing.assert_allclose(lazy, functional.numpy(), rtol=1e-10, atol=1e-10)

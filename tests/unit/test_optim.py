"""The optimizers against their published update rules, written out in NumPy float64."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tilewright import nn, optim
from tilewright.jit import jit
from tilewright.nn import Parameter
from tilewright.optim import Optimizer, OptimizerStateError
from tilewright.tensor import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
SHAPES = [(3, 4), (5,), ()]
STEPS = 6


def start() -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in SHAPES]


def gradients(step: int) -> list[Array]:
    rng = np.random.default_rng(100 + step)
    return [
        np.asarray(rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 2)).astype(np.float32)
        for shape in SHAPES
    ]


def sgd(p: Array, g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Array:
    g = g + o.get("weight_decay", 0.0) * p
    if o.get("momentum"):
        b = g if t == 1 else o["momentum"] * s["b"] + (1 - o.get("dampening", 0.0)) * g
        s["b"] = b
        g = g + o["momentum"] * b if o.get("nesterov") else b
    return p - o["lr"] * g


def adam(p: Array, g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Array:
    b1, b2 = o.get("betas", (0.9, 0.999))
    if o.get("decoupled"):
        p = p * (1 - o["lr"] * o["weight_decay"])
    else:
        g = g + o.get("weight_decay", 0.0) * p
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g**2
    s["top"] = np.maximum(s.get("top", 0.0), s["v"])
    v = s["top"] if o.get("amsgrad") else s["v"]
    return p - o["lr"] / (1 - b1**t) * s["m"] / (np.sqrt(v / (1 - b2**t)) + o.get("eps", 1e-8))


def rmsprop(p: Array, g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Array:
    alpha = o.get("alpha", 0.99)
    g = g + o.get("weight_decay", 0.0) * p
    s["v"] = alpha * s.get("v", 0.0) + (1 - alpha) * g**2
    v = s["v"]
    if o.get("centered"):
        s["mean"] = alpha * s.get("mean", 0.0) + (1 - alpha) * g
        v = v - s["mean"] ** 2
    d = g / (np.sqrt(v) + o.get("eps", 1e-8))
    if o.get("momentum"):
        s["b"] = d = o["momentum"] * s.get("b", 0.0) + d
    return p - o["lr"] * d


def adagrad(p: Array, g: Array, s: dict[str, Any], t: int, o: dict[str, Any]) -> Array:
    g = g + o.get("weight_decay", 0.0) * p
    s["sum"] = s.get("sum", o.get("initial_accumulator_value", 0.0)) + g**2
    return p - o["lr"] / (1 + (t - 1) * o.get("lr_decay", 0.0)) * g / (
        np.sqrt(s["sum"]) + o.get("eps", 1e-10)
    )


CASES: list[tuple[Any, Callable[..., Array], dict[str, Any]]] = [
    (optim.SGD, sgd, {"lr": 0.1}),
    (optim.SGD, sgd, {"lr": 0.1, "weight_decay": 0.01}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    (optim.SGD, sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    (optim.Adam, adam, {"lr": 1e-2}),
    (optim.Adam, adam, {"lr": 1e-2, "betas": (0.0, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    (optim.Adam, adam, {"lr": 1e-2, "betas": (0.5, 0.99), "amsgrad": True}),
    (optim.AdamW, adam, {"lr": 1e-2, "weight_decay": 0.1, "decoupled": True}),
    (optim.RMSprop, rmsprop, {"lr": 1e-2}),
    (optim.RMSprop, rmsprop, {"lr": 1e-2, "alpha": 0.9, "momentum": 0.9, "weight_decay": 0.1}),
    (optim.RMSprop, rmsprop, {"lr": 1e-2, "centered": True, "eps": 1e-4}),
    (optim.Adagrad, adagrad, {"lr": 1e-1}),
    (
        optim.Adagrad,
        adagrad,
        {"lr": 1e-1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.1},
    ),
]


def optimize(optimizer: Optimizer, parameters: list[Parameter], steps: range) -> None:
    """Steps with the prepared gradients, each through one jitted function."""

    @jit
    def step(grads: list[Tensor]) -> None:
        optimizer.zero_grad()
        for p, g in zip(parameters, grads, strict=True):
            (p * g).sum().backward()
        optimizer.step()

    for number in steps:
        step([Tensor(g) for g in gradients(number)])


@pytest.mark.parametrize(("kind", "rule", "options"), CASES, ids=lambda c: getattr(c, "__name__", None))
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_updates_follow_the_published_rule(
    kind: Any, rule: Callable[..., Array], options: dict[str, Any], jitted: bool
) -> None:
    expected = [p.astype(np.float64) for p in start()]
    states: list[dict[str, Any]] = [{} for _ in expected]
    for t in range(1, STEPS + 1):
        expected = [
            rule(p, g.astype(np.float64), s, t, options)
            for p, g, s in zip(expected, gradients(t), states, strict=True)
        ]
    parameters = [Parameter(p) for p in start()]
    optimizer = kind(parameters, **{k: v for k, v in options.items() if k != "decoupled"})
    if jitted:
        optimize(optimizer, parameters, range(1, STEPS + 1))
    else:
        for t in range(1, STEPS + 1):
            for p, g in zip(parameters, gradients(t), strict=True):
                p.grad = Tensor(g)
            optimizer.step()
    for p, wanted in zip(parameters, expected, strict=True):
        np.testing.assert_allclose(p.numpy(), wanted, rtol=2e-5, atol=2e-6)


def test_the_first_adam_steps_are_exact_to_float32() -> None:
    """1 - beta**t in float32 would be wrong in the fifth digit for beta = 0.999."""
    p = Parameter(np.array([1.0], np.float32))
    optimizer = optim.Adam([p], lr=1.0, eps=0.0)
    p.grad = Tensor([0.25])
    optimizer.step()
    np.testing.assert_allclose(p.numpy(), [0.0], atol=5e-7)  # the first step is lr * sign(g)


def test_changing_the_rate_does_not_compile_again_and_other_options_do() -> None:
    p = Parameter([1.0, 2.0])
    optimizer = optim.SGD([p], lr=0.5, weight_decay=0.0)

    @jit
    def step() -> None:
        optimizer.zero_grad()
        (p * 2.0).sum().backward()
        optimizer.step()

    step()
    assert p.tolist() == [0.0, 1.0]
    optimizer.param_groups[0]["lr"] = 0.0
    step()
    assert p.tolist() == [0.0, 1.0]
    assert step.traces == 1
    optimizer.param_groups[0].update(lr=1.0)
    optimizer.param_groups[0]["weight_decay"] = 1.0
    step()
    assert p.tolist() == [-2.0, -2.0]
    assert step.traces == 2


def test_parameters_without_gradient_stay() -> None:
    a, b = Parameter([1.0]), Parameter([1.0])
    optimizer = optim.Adam([a, b], lr=0.1)
    a.grad = Tensor([1.0])
    optimizer.step()
    assert a.item() != 1.0 and b.item() == 1.0
    optimizer.zero_grad()
    assert a.grad is None
    before = a.item()
    optimizer.step()
    assert a.item() == before


def test_groups_have_hyperparameters_of_their_own() -> None:
    a, b = Parameter([1.0]), Parameter([1.0])
    optimizer = optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.5}], lr=0.1)
    a.grad, b.grad = Tensor([1.0]), Tensor([1.0])
    optimizer.step()
    np.testing.assert_allclose([a.item(), b.item()], [0.9, 0.5], rtol=1e-6)


def test_half_precision_parameters_are_updated_in_float32() -> None:
    p = Parameter(Tensor([1.0, -1.0]).astype("bfloat16"))
    optimizer = optim.AdamW([p], lr=0.125, weight_decay=0.0)
    p.grad = Tensor([3.0, -3.0]).astype("bfloat16")
    optimizer.step()
    assert p.dtype.name == "bfloat16" and p.tolist() == [0.875, -0.875]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(optim.SGD, {"momentum": 0.9}), (optim.Adam, {"amsgrad": True}), (optim.RMSprop, {"centered": True})],
)
def test_a_restored_state_continues_exactly(kind: Any, options: dict[str, Any]) -> None:
    whole = [Parameter(p) for p in start()]
    optimize(kind(whole, lr=0.01, **options), whole, range(1, 7))

    first = [Parameter(p) for p in start()]
    optimizer = kind(first, lr=0.01, **options)
    optimize(optimizer, first, range(1, 4))
    saved = optimizer.state_dict()
    frozen = {
        "state": {
            i: {k: np.array(t.numpy()) for k, t in entries.items()} for i, entries in saved["state"].items()
        },
        "param_groups": [dict(group) for group in saved["param_groups"]],
    }
    second = [Parameter(np.array(p.numpy())) for p in first]
    resumed = kind(second, lr=99.0, **options)
    resumed.load_state_dict(frozen)
    assert resumed.param_groups[0]["lr"] == 0.01
    optimize(resumed, second, range(4, 7))
    for p, q in zip(whole, second, strict=True):
        np.testing.assert_array_equal(p.numpy(), q.numpy())


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    p = Parameter([1.0, 2.0])
    adam_state = optim.Adam([p]).state_dict()
    with pytest.raises(OptimizerStateError, match="no 'momentum_buffer'"):
        optim.SGD([Parameter([1.0, 2.0])], momentum=0.9).load_state_dict(adam_state)
    with pytest.raises(OptimizerStateError, match="groups of"):
        optim.Adam([Parameter([1.0, 2.0]), Parameter([1.0])]).load_state_dict(adam_state)
    with pytest.raises(OptimizerStateError, match=r"'exp_avg' of parameter 0 has shape \(2,\)"):
        optim.Adam([Parameter([1.0, 2.0, 3.0])]).load_state_dict(adam_state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD([]), "at least one parameter"),
        (lambda: optim.SGD(Parameter([1.0])), "several parameters"),
        (lambda: optim.SGD([3.0]), "updates tensors"),
        (lambda: optim.SGD(nn.Linear(2, 2)), r"got Linear; for a module pass module\.parameters\(\)"),
        (lambda: optim.SGD(nn.Sequential(nn.ReLU())), r"got ReLU; for a module pass module\.parameters\(\)"),
        (lambda: optim.SGD([Tensor([1])]), "int64"),
        (lambda: optim.SGD([Parameter([1.0]) * 2]), "computed from others"),
        (lambda: optim.SGD([Parameter([1.0])], lr=-1.0), "lr must not be negative"),
        (lambda: optim.SGD([Parameter([1.0])], lr=math.nan), "lr must not be negative"),
        (lambda: optim.SGD([Parameter([1.0])], nesterov=True), "nesterov needs a momentum"),
        (lambda: optim.Adam([Parameter([1.0])], betas=(0.9, 1.0)), r"betas\[1\]"),
        (lambda: optim.Adam([Parameter([1.0])], eps=-1.0), "eps must not be negative"),
    ],
)
def test_wrong_arguments_are_named(make: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_a_parameter_belongs_to_one_group() -> None:
    p = Parameter([1.0])
    with pytest.raises(ValueError, match="more than one parameter group"):
        optim.SGD([{"params": [p]}, {"params": [p]}])


@pytest.mark.parametrize("norm_type", [2.0, 1.0, math.inf])
def test_gradients_are_clipped_by_their_joint_norm(norm_type: float) -> None:
    a, b = Parameter([0.0, 0.0]), Parameter([0.0])
    a.grad, b.grad = Tensor([3.0, 0.0]), Tensor([-4.0])
    before = {2.0: 5.0, 1.0: 7.0, math.inf: 4.0}[norm_type]
    norm = optim.clip_grad_norm_([a, b], 1.0, norm_type)
    assert norm.item() == pytest.approx(before)
    assert a.grad is not None and b.grad is not None
    np.testing.assert_allclose(
        [*a.grad.tolist(), *b.grad.tolist()], [3 / before, 0.0, -4 / before], rtol=1e-5
    )
    optim.clip_grad_norm_([a, b], 100.0, norm_type)
    np.testing.assert_allclose(b.grad.tolist(), [-4 / before], rtol=1e-5)


def test_clipping_runs_inside_jit() -> None:
    p = Parameter([0.0])
    optimizer = optim.SGD([p], lr=1.0)

    @jit
    def step() -> Tensor:
        optimizer.zero_grad()
        (p * 10.0).sum().backward()
        norm = optim.clip_grad_norm_([p], 1.0)
        optimizer.step()
        return norm

    assert step().item() == pytest.approx(10.0)
    assert p.item() == pytest.approx(-1.0, rel=1e-5)


def test_an_infinite_norm_can_be_an_error() -> None:
    p = Parameter([0.0])
    p.grad = Tensor([math.inf])
    with pytest.raises(RuntimeError, match="inf"):
        optim.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)

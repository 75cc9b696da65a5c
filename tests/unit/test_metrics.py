"""The metrics against their definitions, computed the slow way."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilewright import metrics


def test_errors_of_regression() -> None:
    p, t = [1.0, 2.0, 4.0], [1.0, 4.0, 1.0]
    assert metrics.mae(p, t) == pytest.approx(5 / 3)
    assert metrics.mse(p, t) == pytest.approx(13 / 3)
    assert metrics.rmse(np.array(p, np.float32)[:, None], t) == pytest.approx(math.sqrt(13 / 3))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_macro_scores_equal_their_definitions(pairs: list[tuple[int, int]]) -> None:
    predicted, actual = [p for p, _ in pairs], [a for _, a in pairs]
    classes = [1] if max(predicted + actual) <= 1 else sorted({*predicted, *actual})
    precisions, recalls, f1s = [], [], []
    for k in classes:
        hit = sum(p == a == k for p, a in pairs)
        guessed, there = predicted.count(k), actual.count(k)
        p, r = hit / guessed if guessed else 0.0, hit / there if there else 0.0
        precisions.append(p)
        recalls.append(r)
        f1s.append(2 * p * r / (p + r) if p + r else 0.0)
    assert metrics.accuracy(predicted, actual) == pytest.approx(sum(p == a for p, a in pairs) / len(pairs))
    assert metrics.precision(predicted, actual) == pytest.approx(np.mean(precisions))
    assert metrics.recall(predicted, actual) == pytest.approx(np.mean(recalls))
    assert metrics.f1(predicted, actual) == pytest.approx(np.mean(f1s))


def test_scores_become_classes() -> None:
    assert metrics.accuracy(np.eye(3)[[0, 1, 2, 2]], np.array([0, 1, 1, 2])) == 0.75
    assert metrics.accuracy(np.array([[0.2], [0.7]]), np.array([0.0, 1.0])) == 1.0
    assert metrics.accuracy(np.array([-3.0, 0.2]), np.array([0, 1]), threshold=0.0) == 1.0


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30))
def test_auc_counts_ordered_pairs(samples: list[tuple[int, bool]]) -> None:
    high = [s for s, label in samples if label]
    low = [s for s, label in samples if not label]
    scores, labels = [float(s) for s, _ in samples], [int(label) for _, label in samples]
    if not high or not low:
        with pytest.raises(ValueError, match="auc"):
            metrics.auc(scores, labels)
        return
    pairs = [(h > s) + 0.5 * (h == s) for h in high for s in low]
    assert metrics.auc(scores, labels) == pytest.approx(np.mean(pairs))


def test_auc_of_several_classes_is_the_mean_against_the_rest() -> None:
    rng = np.random.default_rng(0)
    scores, labels = rng.random((50, 3)), rng.integers(0, 3, 50)
    each = [metrics.auc(scores[:, k], (labels == k).astype(int)) for k in range(3)]
    assert metrics.auc(scores, labels) == pytest.approx(np.mean(each))
    assert metrics.auc(scores[:, :2], labels > 0) == metrics.auc(scores[:, 1], labels > 0)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"mae: predictions of shape \(2,\) and targets of shape \(3,\)"):
        metrics.mae([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="no samples"):
        metrics.mse([], [])
    with pytest.raises(ValueError, match="not whole numbers"):
        metrics.accuracy([0, 1], [0.5, 1.0])
    with pytest.raises(ValueError, match="count from 0"):
        metrics.f1([0, -1], [0, 1])

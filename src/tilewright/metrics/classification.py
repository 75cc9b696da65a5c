"""Measures of classifiers, from predicted classes or from scores.

`predictions` are either classes, int[N], or scores: float[N, C] with the largest in a row as the prediction,
or float[N] / float[N, 1] for two classes, where class 1 is predicted above `threshold`. `targets` are
classes, [N], as integers or as floats with whole values. Precision, recall and F1 are those of class 1 when
every class is 0 or 1 and the unweighted mean over the classes that occur otherwise ("macro").
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilewright.metrics.arrays import Array, as_array, same_shape

__all__ = ["accuracy", "auc", "f1", "precision", "recall"]


def accuracy(predictions: Any, targets: Any, *, threshold: float = 0.5) -> float:
    """Share of samples whose predicted class is the target.

    >>> accuracy([[0.1, 0.9], [0.8, 0.2]], [1, 1])
    0.5
    """
    predicted, actual, _ = _classes("accuracy", predictions, targets, threshold)
    return float(np.mean(predicted == actual))


def precision(predictions: Any, targets: Any, *, threshold: float = 0.5) -> float:
    """Of the samples predicted as a class, the share that are of it; 0 where none was predicted."""
    hits, predicted, _ = _counts("precision", predictions, targets, threshold)
    return float(np.mean(_ratio(hits, predicted)))


def recall(predictions: Any, targets: Any, *, threshold: float = 0.5) -> float:
    """Of the samples of a class, the share that were found; 0 where there are none."""
    hits, _, actual = _counts("recall", predictions, targets, threshold)
    return float(np.mean(_ratio(hits, actual)))


def f1(predictions: Any, targets: Any, *, threshold: float = 0.5) -> float:
    """Harmonic mean of precision and recall: 2 hits / (predicted + actual), per class."""
    hits, predicted, actual = _counts("f1", predictions, targets, threshold)
    return float(np.mean(_ratio(2 * hits, predicted + actual)))


def auc(scores: Any, targets: Any) -> float:
    """Area under the ROC curve: the chance that a sample of the class scores above one that is not; ties
    count half.

    `scores` is float[N] or [N, 1] for two classes, or [N, C], which gives the mean over the classes that
    occur, each against the rest (with C = 2: of column 1). Raises `ValueError` when the targets are all of
    one class.

    >>> auc([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    """
    values, labels = as_array(scores).astype(np.float64), _labels("auc", targets)
    if values.ndim == 2 and values.shape[1] == 2:
        values = values[:, 1]
    if values.ndim == 2 and values.shape[1] > 2:
        if len(values) != len(labels):
            raise ValueError(f"auc: {len(values)} scores and {len(labels)} targets do not match")
        present = np.unique(labels)
        if len(present) < 2:
            raise ValueError("auc: the targets are all of one class, so there is no curve")
        return float(np.mean([_binary_auc(values[:, k], labels == k) for k in present]))
    values, labels = same_shape("auc", values, labels)
    if len(np.unique(labels)) != 2:
        raise ValueError(f"auc: scores for two classes, but the targets hold {len(np.unique(labels))}")
    return _binary_auc(values, labels == labels.max())


def _binary_auc(scores: Array, positive: Array) -> float:
    """Mann-Whitney U over mid-ranks, divided by the number of pairs."""
    if np.isnan(scores).any():
        return float("nan")
    distinct, group, count = np.unique(scores, return_inverse=True, return_counts=True)
    assert len(distinct) == len(count)
    last = np.cumsum(count)
    mid_rank = last - (count - 1) / 2  # ranks count from 1; equal scores share their mean rank
    positives = int(positive.sum())
    negatives = len(positive) - positives
    u = mid_rank[group][positive].sum() - positives * (positives + 1) / 2
    return float(u / (positives * negatives))


def _labels(name: str, targets: Any) -> Array:
    labels = as_array(targets)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise ValueError(f"{name}: targets are classes of shape [N], got {labels.shape}")
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.rint(labels)):
        raise ValueError(f"{name}: targets are classes, but some are not whole numbers")
    return labels.astype(np.int64)


def _classes(name: str, predictions: Any, targets: Any, threshold: float) -> tuple[Array, Array, int]:
    """Predicted classes, target classes, and the number of classes that the scores have columns for (0:
    unknown).
    """
    values, labels = as_array(predictions), _labels(name, targets)
    columns = 0
    if values.ndim == 2 and values.shape[1] > 1:
        columns = values.shape[1]
        values = values.argmax(axis=1)
    elif values.dtype.kind not in "iub":
        columns = 2
        values = values > threshold
    predicted, labels = same_shape(name, values, labels)
    return predicted.astype(np.int64), labels, columns


def _counts(name: str, predictions: Any, targets: Any, threshold: float) -> tuple[Array, Array, Array]:
    """Per class: correct predictions, predictions, samples. Two classes: of class 1 only."""
    predicted, actual, columns = _classes(name, predictions, targets, threshold)
    if min(predicted.min(), actual.min()) < 0:
        raise ValueError(f"{name}: classes count from 0")
    size = int(max(columns, 2, predicted.max() + 1, actual.max() + 1))
    hits = np.bincount(actual[predicted == actual], minlength=size)
    guesses, samples = np.bincount(predicted, minlength=size), np.bincount(actual, minlength=size)
    keep = np.array([1]) if size == 2 else np.flatnonzero(guesses + samples)
    return hits[keep], guesses[keep], samples[keep]


def _ratio(part: Array, whole: Array) -> Array:
    return part / np.maximum(whole, 1)

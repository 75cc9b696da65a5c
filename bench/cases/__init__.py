"""What is measured, described with NumPy alone, so that every framework starts from the same numbers."""

from bench.cases import inference, kernels, training
from bench.cases.base import Case

SUITES: dict[str, list[Case]] = {
    "kernels": kernels.CASES,
    "training": training.CASES,
    "eager": training.EAGER,
    "inference": inference.CASES,
    "epoch": training.EPOCH,
}


def find(suite: str, name: str) -> Case:
    return next(case for case in SUITES[suite] if case.name == name)

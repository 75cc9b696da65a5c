"""The examples' data is what its README says, and their programs are in the canonical format.

Training them is left to the end-to-end tests.
"""

import csv
import re
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.rglob("*.kyn"))


def read_csv(path: Path) -> tuple[list[str], np.ndarray]:
    with path.open(encoding="utf-8", newline="") as file:
        names, *rows = csv.reader(file)
    return names, np.array(rows, np.float64)


def test_digits_are_scikit_learns() -> None:
    names, values = read_csv(EXAMPLES / "digits" / "digits.csv")
    digits = load_digits()
    assert names == [*digits.feature_names, "digit"]
    np.testing.assert_array_equal(values, np.column_stack([digits.data, digits.target]))


def test_diabetes_is_scikit_learns() -> None:
    names, values = read_csv(EXAMPLES / "diabetes" / "diabetes.csv")
    diabetes = load_diabetes(scaled=False)
    assert names == [*diabetes.feature_names, "progression"]
    np.testing.assert_array_equal(values, np.column_stack([diabetes.data, diabetes.target]))


def test_every_example_is_there() -> None:
    assert {path.name for path in PROGRAMS} >= {"digits.kyn", "digits_cnn.kyn", "diabetes.kyn"}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_outputs_land_where_git_ignores_them(path: Path) -> None:
    written = re.findall(r'^ +path = "([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE)
    assert written and all(place.startswith("models/") for place in written)

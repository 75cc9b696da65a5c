"""Write diabetes.csv: the 442 patients of the diabetes study that scikit-learn carries, in original units.

Run once, from any directory, with scikit-learn installed; the result is committed beside this file. One row
is one patient: ten measurements, then `progression`, the disease's progression a year later. README.md names
the source.
"""

import csv
from pathlib import Path

from sklearn.datasets import load_diabetes

DESTINATION = Path(__file__).with_name("diabetes.csv")


def main() -> None:
    diabetes = load_diabetes(scaled=False)
    with DESTINATION.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*diabetes.feature_names, "progression"])
        for measurements, progression in zip(diabetes.data, diabetes.target, strict=True):
            writer.writerow([f"{value:g}" for value in (*measurements, progression)])


if __name__ == "__main__":
    main()

"""Write digits.csv: the 1,797 handwritten digits of 8x8 pixels that scikit-learn carries.

Run once, from any directory, with scikit-learn installed; the result is committed beside this file. One row
is one image: 64 pixels, row by row, each an integer from 0 (blank) to 16, then the digit it shows. README.md
names source and licence.
"""

import csv
from pathlib import Path

from sklearn.datasets import load_digits

DESTINATION = Path(__file__).with_name("digits.csv")


def main() -> None:
    digits = load_digits()
    with DESTINATION.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*digits.feature_names, "digit"])
        for pixels, digit in zip(digits.data.astype(int), digits.target, strict=True):
            writer.writerow([*pixels, digit])


if __name__ == "__main__":
    main()

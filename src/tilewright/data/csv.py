"""A CSV file to arrays: read, checked cell by cell, encoded, split and normalised.

The first line names the columns. A column is numbers if at least half of its cells are, else text; a cell of
a number column that is no number, and every missing cell, is an error that names its row and column. Text
columns are one-hot encoded, categories in sorted order. The target column is taken out first. Nothing is
guessed and no value is made up.

What it does not do: it streams nothing (the whole file is in memory), knows no dates and no `.kyn` programs.

Shapes: N rows, F features.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NoReturn, TypeAlias

import numpy as np
import numpy.typing as npt

from tilewright.core.diagnostics import (
    Diagnostic,
    Label,
    Span,
    TilewrightError,
    join_names,
    printable,
    suggest,
)

FloatArray: TypeAlias = npt.NDArray[np.float32]
IntArray: TypeAlias = npt.NDArray[np.int64]
TargetKind: TypeAlias = Literal["values", "classes", "binary"]

MAX_CATEGORIES: Final = 1000
FAST_CHARACTERS: Final = 2_000_000  # from here on, importing polars costs less than it saves
_MISSING_WORDS: Final = frozenset({"na", "n/a", "nan", "null", "none", "?", "-"})


class DataError(TilewrightError):
    """A data file that cannot be used. The diagnostic names the file, the row and the column."""


@dataclass(frozen=True)
class Column:
    """A feature column. `categories` is empty for numbers; a text column gives one feature per category."""

    name: str
    categories: tuple[str, ...] = ()

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the features: the column's own, or `name=category`."""
        return tuple(f"{self.name}={category}" for category in self.categories) or (self.name,)


@dataclass(frozen=True)
class Schema:
    """What a table holds. `classes` are the labels behind the class indices; None for a numeric target."""

    columns: tuple[Column, ...]
    target: str
    classes: tuple[str, ...] | None

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the F features, in the order of the arrays."""
        return tuple(name for column in self.columns for name in column.features)


@dataclass(frozen=True)
class Table:
    """A whole file. `x`: float64 (N, F). `y`: int64 (N,) class indices, or float32 (N, 1)."""

    path: str
    sha256: str
    schema: Schema
    x: npt.NDArray[np.float64]
    y: FloatArray | IntArray


@dataclass(frozen=True)
class Data:
    """A table ready for training.

    `x_train`, `x_test`: float32 (N, F). `y_train`, `y_test`: int64 (N,) class indices, or float32 (N, 1).
    `mean`, `scale`: float64 (F,); the features are `(raw - mean) / scale` (0 and 1 where nothing was done).
    `sha256` is that of the file's bytes.
    """

    path: str
    sha256: str
    schema: Schema
    x_train: npt.NDArray[Any]
    y_train: FloatArray | IntArray
    x_test: npt.NDArray[Any]
    y_test: FloatArray | IntArray
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]


def load_csv(
    path: str,
    target: str,
    *,
    kind: TargetKind = "values",
    delimiter: str = ",",
    split: float = 0.8,
    shuffle: bool = True,
    normalize: bool = False,
    seed: int = 0,
) -> Data:
    """Read, check, encode, split and normalise a CSV file.

    `target` names the column to predict. `kind` says what it holds: `values` are numbers, `classes` are
    labels (whole numbers or text) that become indices in sorted order, `binary` are numbers from 0 to 1 or
    two labels. `split` is the share of rows that train, the rest is held out. `shuffle` orders the rows by
    `seed` before the split; otherwise the first rows train. `normalize` takes each number column to mean 0
    and deviation 1 over the training rows; constant columns become 0, one-hot features stay as they are.

    Raises `DataError` with a code, the line and the cell.

    >>> load_csv("houses.csv", "price", normalize=True).x_train.shape     # doctest: +SKIP
    (353, 10)
    """
    table = read_table(path, target, kind=kind, delimiter=delimiter)
    train, test = split_rows(len(table.x), split, shuffle=shuffle, seed=seed)
    if not len(train) or (split < 1.0 and not len(test)):
        message = f"{len(table.x)} row{'s' if len(table.x) != 1 else ''} cannot be split at {split:g}"
        raise DataError(Diagnostic("DAT011", message, notes=(f"in {path}",)))
    mean, scale = _scaling(table, train, normalize)
    x = table.x
    if normalize:
        x = (x - mean) / scale
    x32 = x.astype(np.float32)
    return Data(
        table.path,
        table.sha256,
        table.schema,
        x32[train],
        table.y[train],
        x32[test],
        table.y[test],
        mean,
        scale,
    )


def split_rows(count: int, split: float, *, shuffle: bool, seed: int) -> tuple[IntArray, IntArray]:
    """The numbers of the training rows and of the held-out rows, of `count` rows.

    With at least two rows and `split` below 1, neither part is empty. The order depends on `seed` alone: it
    sorts random words of PCG64, whose stream NumPy keeps the same between releases.
    """
    order = np.arange(count, dtype=np.int64)
    if shuffle:
        order = np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable").astype(np.int64)
    first = round(count * split)
    if split < 1.0:
        first = min(max(first, 1), count - 1)
    return order[: max(first, 0)], order[max(first, 0) :]


def _scaling(
    table: Table, train: IntArray, normalize: bool
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and deviation of each feature over the training rows; 0 and 1 where nothing is to be done."""
    features = table.x.shape[1]
    mean, scale = np.zeros(features), np.ones(features)
    if normalize:
        is_number = np.array([not c.categories for c in table.schema.columns for _ in c.features])
        rows = table.x[train]
        mean[is_number] = rows.mean(axis=0)[is_number]
        scale[is_number] = rows.std(axis=0)[is_number]
        # A constant column has no deviation but rounding.
        tiny = scale <= 1e-12 * np.maximum(np.abs(mean), 1e-300)
        scale[tiny] = 1.0
    return mean, scale


def read_table(path: str, target: str, *, kind: TargetKind = "values", delimiter: str = ",") -> Table:
    """Read and encode a whole CSV file. See `load_csv` for the arguments; raises `DataError`."""
    try:
        with open(path, "rb") as stream:
            data = stream.read()
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise DataError(Diagnostic("DAT001", f"cannot read `{path}`: {reason}")) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"`{path}` is not UTF-8: byte 0x{data[error.start]:02x} in line {line}"
        raise DataError(Diagnostic("DAT003", message, help=("save the file as UTF-8",))) from None
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _Reader(path, text, delimiter).read(target, kind, hashlib.sha256(data).hexdigest())


@dataclass(frozen=True)
class _Cells:
    """A column as read: its texts, and its numbers if every cell is one."""

    index: int
    name: str
    texts: Sequence[str]
    numbers: npt.NDArray[np.float64] | None


class _Reader:
    """One file being read. Errors find their place again in the text.

    Large files without quotes are taken apart by polars, which is some ten times faster. It only finds the
    cells: whatever it stumbles over, and every error, is left to the exact reading, so that both mean the
    same.
    """

    def __init__(self, path: str, text: str, delimiter: str) -> None:
        self.path, self.text, self.delimiter = path, text, delimiter
        self.has_underscore = "_" in text
        self.header_line = 1
        self.rows: list[list[str]] = []
        self.lines: list[int] = []  # the line on which each row ends

    def read(self, target: str, kind: TargetKind, sha256: str) -> Table:
        columns = self.read_fast() if len(self.text) >= FAST_CHARACTERS else None
        if columns is not None:
            with contextlib.suppress(DataError):
                return self.encode(columns, target, kind, sha256)
        return self.encode(self.read_exactly(), target, kind, sha256)

    def encode(self, columns: list[_Cells], target: str, kind: TargetKind, sha256: str) -> Table:
        self.check_header([column.name for column in columns], target)
        y, classes = self.encode_target(next(c for c in columns if c.name == target), kind)
        encoded = [self.encode_feature(c) for c in columns if c.name != target]
        if not encoded:
            self.fail(
                "DAT012",
                f"no column but the target `{printable(target)}`",
                self.cell_span(self.header_line, 0),
            )
        x = np.concatenate([values for _, values in encoded], axis=1)
        schema = Schema(tuple(column for column, _ in encoded), target, classes)
        return Table(self.path, sha256, schema, x, y)

    def read_exactly(self) -> list[_Cells]:
        """The columns, read row by row with a check of each."""
        header = self.read_rows()
        return [
            _Cells(i, name, texts, self.read_numbers(texts))
            for i, (name, texts) in enumerate(zip(header, zip(*self.rows, strict=True), strict=True))
        ]

    def read_fast(self) -> list[_Cells] | None:
        """The columns, found by polars; None when the file has anything but plain, complete rows."""
        first, _, body = self.text.partition("\n")
        plain = '"' not in self.text and f"{self.delimiter} " not in self.text
        if not plain or not first.strip():
            return None
        try:
            import polars
        except ImportError:
            return None
        try:
            frame = polars.read_csv(
                body.encode(), has_header=False, separator=self.delimiter, quote_char=None, infer_schema=False
            )
        except (polars.exceptions.PolarsError, ValueError):
            return None
        header = [name.strip() for name in first.split(self.delimiter)]
        if frame.width != len(header) or not frame.height or any(frame.null_count().row(0)):
            return None
        columns: list[_Cells] = []
        for index, (name, series) in enumerate(zip(header, frame.iter_columns(), strict=True)):
            cast = series.cast(polars.Float64, strict=False)
            numbers = None if cast.null_count() else cast.to_numpy()
            if numbers is not None and np.isfinite(numbers).all():
                columns.append(_Cells(index, name, (), numbers))
            else:
                texts = series.to_list()
                columns.append(_Cells(index, name, texts, self.read_numbers(texts)))
        return columns

    # --- rows --------------------------------------------------------------------------------------------

    def read_rows(self) -> list[str]:
        """Fill `rows` and `lines`; returns the header. Blank lines are skipped."""
        reader = csv.reader(
            io.StringIO(self.text, newline=""), delimiter=self.delimiter, strict=True, skipinitialspace=True
        )
        header: list[str] = []
        try:
            for row in reader:
                if not row:
                    continue
                if not header:
                    header = [name.strip() for name in row]
                    self.header_line = reader.line_num
                    continue
                if len(row) != len(header):
                    self.fail_ragged(row, header, reader.line_num)
                self.rows.append(row)
                self.lines.append(reader.line_num)
        except csv.Error as error:
            line = max(1, reader.line_num)
            if "field limit" in str(error):
                most = f"{csv.field_size_limit():,}"
                self.fail("DAT013", f"a cell of more than {most} characters", Span(self.path, line, 1, line, 1),
                          help="a quote that is never closed makes one cell of all that follows")  # fmt: skip
            advice = 'a quoted cell ends with `"`, and a quote inside it is doubled'
            self.fail("DAT013", f"wrong quotes: {error}", Span(self.path, line, 1, line, 1), help=advice)
        if not self.rows:
            what = "has no rows below its header" if header else "is empty"
            message = f"`{self.path}` {what}"
            raise DataError(Diagnostic("DAT002", message, help=("a header line and rows are needed",)))
        return header

    def fail_ragged(self, row: list[str], header: list[str], line: int) -> NoReturn:
        few = len(row) < len(header)
        advice = "" if few else f"a cell that contains `{self.delimiter}` is written in double quotes"
        width = len(self.text_line(line))
        cells = f"{len(row)} cell{'s' if len(row) != 1 else ''}"
        message = f"row {len(self.rows) + 1} has {cells}, the header has {len(header)}"
        self.fail("DAT004", message, Span(self.path, line, 1, line, width + 1), help=advice)

    def check_header(self, header: list[str], target: str) -> None:
        seen: set[str] = set()
        for index, name in enumerate(header):
            if not name:
                advice = "name it, or remove it if it is an index"
                self.fail(
                    "DAT005",
                    f"column {index + 1} has no name",
                    self.cell_span(self.header_line, index),
                    help=advice,
                )
            if name in seen:
                self.fail(
                    "DAT005",
                    f"two columns are named `{printable(name)}`",
                    self.cell_span(self.header_line, index),
                )
            seen.add(name)
        if target in header:
            return
        near = suggest(target, header)
        advice = f"did you mean `{printable(near)}`?" if near else ""
        if len(header) == 1 and (other := next((c for c in ";\t|" if c in header[0]), None)):
            advice = f'is the delimiter another one? `csv("...", delimiter="{printable(other)}")`'
        shown = [printable(name) for name in header[:20]]
        note = f"columns are {join_names(shown)}{' and more' if len(header) > 20 else ''}"
        self.fail(
            "DAT006", f"there is no column `{printable(target)}`", Span(self.path, 1, 1, 1, 1), note, advice
        )

    # --- columns -----------------------------------------------------------------------------------------

    def read_numbers(self, texts: Sequence[str]) -> npt.NDArray[np.float64] | None:
        """The cells as float64, or None if one of them is no finite number."""
        try:
            values = np.array(list(map(float, texts)), dtype=np.float64)
        except ValueError:
            return None
        # `float` also reads digit groups, which no CSV writer means.
        if not np.isfinite(values).all() or (self.has_underscore and any("_" in text for text in texts)):
            return None
        return values

    def encode_feature(self, cells: _Cells) -> tuple[Column, npt.NDArray[np.float64]]:
        """The column and its float64 (N, width) block of features."""
        numbers = cells.numbers
        if numbers is None and self.mostly_numbers(cells):
            self.fail_cell(cells)
        if numbers is not None:
            huge = np.abs(numbers) > np.finfo(np.float32).max
            if huge.any():
                self.fail_at(int(huge.argmax()), cells, "DAT008", "is too large for float32")
            return Column(cells.name), numbers[:, None]
        labels, indices = self.encode_labels(cells)
        if len(labels) > MAX_CATEGORIES:
            name, count = printable(cells.name), len(labels)
            message = f"column `{name}` has {count} different texts, at most {MAX_CATEGORIES} are allowed"
            self.fail(
                "DAT010", message, self.cell_span(self.header_line, cells.index), help="remove the column"
            )
        block = np.zeros((len(indices), len(labels)))
        block[np.arange(len(indices)), indices] = 1.0
        return Column(cells.name, labels), block

    def mostly_numbers(self, cells: _Cells) -> bool:
        """Whether at least half of the cells that hold something are numbers."""
        present = [text for text in cells.texts if not _is_missing(text)]
        return 2 * sum(_is_number(text) for text in present) >= len(present)

    def encode_labels(self, cells: _Cells) -> tuple[tuple[str, ...], IntArray]:
        """The different texts in sorted order, and the index of each row's."""
        texts = [text.strip() for text in cells.texts]
        if "" in texts:
            self.fail_at(texts.index(""), cells, "DAT007", "")
        labels = tuple(sorted(set(texts)))
        index = {label: i for i, label in enumerate(labels)}
        return labels, np.array([index[text] for text in texts], dtype=np.int64)

    def encode_target(
        self, cells: _Cells, kind: TargetKind
    ) -> tuple[FloatArray | IntArray, tuple[str, ...] | None]:
        """The target and its labels, if it has any."""
        numbers = cells.numbers
        if kind == "classes":
            return self.encode_classes(cells)
        if kind == "binary" and numbers is None and not self.mostly_numbers(cells):
            labels, indices = self.encode_labels(cells)
            if len(labels) != 2:
                message = f"`bce` needs two classes, column `{printable(cells.name)}` has {len(labels)}"
                self.fail(
                    "DAT009",
                    message,
                    self.cell_span(self.header_line, cells.index),
                    help="use `cross_entropy`",
                )
            return indices.astype(np.float32)[:, None], labels
        if numbers is None:
            self.fail_cell(cells)
        outside = (numbers < 0.0) | (numbers > 1.0)
        if kind == "binary" and outside.any():
            self.fail_at(int(outside.argmax()), cells, "DAT009", "is not between 0 and 1, as `bce` needs")
        huge = np.abs(numbers) > np.finfo(np.float32).max
        if huge.any():
            self.fail_at(int(huge.argmax()), cells, "DAT008", "is too large for float32")
        return numbers.astype(np.float32)[:, None], None

    def encode_classes(self, cells: _Cells) -> tuple[IntArray, tuple[str, ...]]:
        """Class indices: whole numbers in numeric order, or texts in sorted order."""
        numbers = cells.numbers
        if numbers is None:
            labels, indices = self.encode_labels(cells)
            return indices, labels
        fractional = numbers != np.rint(numbers)
        if fractional.any():
            self.fail_at(int(fractional.argmax()), cells, "DAT009", "is no class: it is not a whole number")
        values, inverse = np.unique(numbers, return_inverse=True)
        return inverse.reshape(-1).astype(np.int64), tuple(str(int(value)) for value in values)

    # --- errors ------------------------------------------------------------------------------------------

    def fail_cell(self, cells: _Cells) -> NoReturn:
        """Report the first cell of a number column that is no number."""
        row = next(i for i, text in enumerate(cells.texts) if _is_missing(text) or not _is_number(text))
        if _is_missing(cells.texts[row]):
            self.fail_at(row, cells, "DAT007", "")
        self.fail_at(row, cells, "DAT008", "is not a number")

    def fail_at(self, row: int, cells: _Cells, code: str, problem: str) -> NoReturn:
        if not self.lines:
            raise DataError("found by the fast reading")  # told in full by the exact one
        place = f"row {row + 1}, column `{printable(cells.name)}`"
        text = printable(cells.texts[row].strip()[:40])
        message = f'"{text}" {problem} ({place})' if problem else f"missing value ({place})"
        advice = "fill it or remove the row" if code == "DAT007" else ""
        self.fail(code, message, self.cell_span(self.lines[row], cells.index), help=advice)

    def fail(self, code: str, message: str, span: Span, note: str = "", help: str = "") -> NoReturn:
        labels = (Label(span, "", True),)
        diagnostic = Diagnostic(code, message, labels, (note,) if note else (), (help,) if help else ())
        raise DataError(diagnostic, {self.path: self.text})

    def text_line(self, line: int) -> str:
        return self.text.split("\n", line)[line - 1]

    def cell_span(self, line: int, index: int) -> Span:
        """Where a cell stands in its line.

        A row that runs over several lines gets its last line as a whole.
        """
        text = self.text_line(line)
        start = count = 0
        quoted = False
        for position, char in enumerate([*text, self.delimiter]):
            if char == '"':
                quoted = not quoted
            elif char == self.delimiter and not quoted:
                if count == index:
                    end = max(position, start + 1)  # an empty cell is shown as one character
                    return Span(self.path, line, start + 1, line, end + 1)
                start, count = position + 1, count + 1
        return Span(self.path, line, 1, line, len(text) + 1)


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text))) and "_" not in text
    except ValueError:
        return False


def _is_missing(text: str) -> bool:
    """Whether a cell of a number column stands for no value."""
    word = text.strip().lower()
    return not word or word in _MISSING_WORDS

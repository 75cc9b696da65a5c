"""What every code of a data error means: the pages of `tw explain CODE`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tilewright.core.diagnostics import Explanation

_PAGES: Final = (
    Explanation(
        "DAT001",
        "a data file cannot be read",
        "It does not exist, or may not be read.",
    ),
    Explanation(
        "DAT002",
        "a table without rows",
        "A CSV file has a header line with the names of the columns and at least one row below it.",
    ),
    Explanation(
        "DAT003",
        "text that is not UTF-8",
        "Save the file as UTF-8; a byte order mark is accepted.",
    ),
    Explanation(
        "DAT004",
        "ragged rows",
        "Every row has as many cells as the header. A cell that contains the delimiter is written "
        "in double quotes.",
        "name,price\nrow house,large,120",
        'name,price\n"row house,large",120',
    ),
    Explanation(
        "DAT005",
        "column names that are missing or double",
        "Every column has a name of its own. A file written with an index column has an empty first name.",
        ",rooms,rooms\n0,3,4",
        "rooms,bedrooms\n3,4",
    ),
    Explanation(
        "DAT006",
        "no target column",
        "The `target` of the data set names a column of the header.",
    ),
    Explanation(
        "DAT007",
        "missing value",
        "A cell is empty (or, in a column of numbers, one of NA, NaN, null, none, ?). Fill it or "
        "remove the row: no value is made up.",
    ),
    Explanation(
        "DAT008",
        "cell that is not a number",
        "Most cells of the column are numbers, so this one is probably a mistake. A column of which "
        "fewer than half are numbers is text, and is one-hot encoded.",
    ),
    Explanation(
        "DAT009",
        "target that does not suit the loss",
        "`cross_entropy` and `nll` need whole numbers or text as classes; `bce` needs numbers from "
        "0 to 1, or two different texts; the other losses need numbers.",
    ),
    Explanation(
        "DAT010",
        "too many categories",
        "A text column becomes one input for each different text, at most 1,000. A column of names "
        "or identifiers says nothing that can be learned: remove it.",
    ),
    Explanation(
        "DAT011",
        "too few rows",
        "After the split, at least one row trains and one is held out.",
    ),
    Explanation(
        "DAT012",
        "no feature columns",
        "The table has no column but the target.",
    ),
    Explanation(
        "DAT013",
        "wrong quotes",
        "A quoted cell ends with a double quote; a quote inside is doubled. A cell has at most 131,072 "
        "characters: one that is longer has most likely a quote that is never closed.",
    ),
    Explanation(
        "DAT014",
        "indices that do not suit the embedding",
        "The first layer is an `embedding`: every feature is a whole number from 0 to below its size.",
    ),
)

CODES: Final[Mapping[str, Explanation]] = {page.code: page for page in _PAGES}

"""The data a program names, loaded, checked against its model, and shaped for its input.

The only part of the language that imports NumPy.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilewright.core.diagnostics import Diagnostic, Label, join_names
from tilewright.data.csv import Data, DataError, Schema, TargetKind, load_csv
from tilewright.lang.errors import KynSemanticError, error_for
from tilewright.lang.lock import find_data
from tilewright.lang.program import Dataset, Embedding, Program, Run
from tilewright.lang.shapes import format_shape


def load_dataset(program: Program, run: Run | None = None) -> Data:
    """The training data of a run (the first one by default), ready for its model.

    Features come as float32 (N, *input_shape), or as int64 when the model begins with an `embedding`; targets
    as int64 (N,) class indices or float32 (N, 1). Raises `DataError` for a file that cannot be used,
    `KynShapeError` for one that does not fit the model, `KynSemanticError` for one that is not there.
    """
    run = run or program.runs[0]
    dataset = run.train.data
    try:
        path = find_data(dataset)
    except KynSemanticError as error:
        raise KynSemanticError(error.diagnostics, program.texts) from None
    try:
        data = load_csv(
            path,
            dataset.target,
            kind=target_kind(run),
            delimiter=dataset.source["delimiter"],
            split=dataset.split,
            shuffle=dataset.shuffle,
            normalize=dataset.normalize,
            seed=run.train.seed,
        )
    except DataError as error:
        raise _point_at_program(error, dataset, program) from None
    check_schema(program, run, data.schema)
    return replace(
        data,
        x_train=_shape_input(program, run, data.x_train, data),
        x_test=_shape_input(program, run, data.x_test, data),
    )


def _point_at_program(error: DataError, dataset: Dataset, program: Program) -> DataError:
    """The same error, with the line of the program that asked for what is not there."""
    asked = {"DAT006": dataset.target_span, "DAT011": dataset.span}
    diagnostics = [
        replace(d, labels=(*d.labels, Label(asked[d.code], "asked for here"))) if d.code in asked else d
        for d in error.diagnostics
    ]
    return DataError(diagnostics, {**program.texts, **error.sources})


def target_kind(run: Run) -> TargetKind:
    """What the loss of a run needs in the target column."""
    if run.train.loss.target == "classes":
        return "classes"
    return "binary" if run.train.loss.name == "bce" else "values"


def check_schema(program: Program, run: Run, schema: Schema) -> None:
    """Raise `KynShapeError` unless the table has as many features and classes as the model takes and
    gives."""
    train = run.train
    model, source = train.model, Label(train.data.source.span, "the data")
    problems: list[Diagnostic] = []
    wanted, found = math.prod(model.input_shape), len(schema.features)
    if wanted != found:
        sizes = format_shape(model.input_shape)
        product = f" ({wanted} values)" if len(model.input_shape) > 1 else ""
        encoded = [f"`{c.name}` as {len(c.categories)}" for c in schema.columns if c.categories]
        notes = (f"text columns are one-hot encoded: {', '.join(encoded)}",) if encoded else ()
        problems.append(
            Diagnostic(
                "KYN211",
                f"the data has {found} features, model `{model.name}` takes {sizes}{product}",
                (Label(model.input_span, f"takes {wanted}", True), source),
                notes,
                (f"write `input {found}`",) if len(model.input_shape) == 1 else (),
            )
        )
    outputs = model.output_shape[0]
    if train.loss.target == "classes" and schema.classes is not None and len(schema.classes) != outputs:
        shown = join_names(schema.classes[:12]) + (" and more" if len(schema.classes) > 12 else "")
        count = f"{len(schema.classes)} class{'es' if len(schema.classes) != 1 else ''}"
        problems.append(
            Diagnostic(
                "KYN212",
                f"the target `{schema.target}` has {count}, model `{model.name}` gives {outputs} outputs",
                (
                    Label(model.output_span, f"gives {outputs}", True),
                    Label(train.data.target_span, "the target"),
                ),
                (f"classes are {shown}",),
            )
        )
    if problems:
        raise error_for(problems, program.texts)


def _shape_input(program: Program, run: Run, x: npt.NDArray[Any], data: Data) -> npt.NDArray[Any]:
    """The flat features as the model's `input` shape, row-major; whole numbers for an embedding."""
    model = run.train.model
    shaped = x.reshape(len(x), *model.input_shape)
    if not isinstance(first := model.layers[0] if model.layers else None, Embedding):
        return shaped
    wrong = (shaped != np.rint(shaped)) | (shaped < 0) | (shaped >= first.num)
    if wrong.any():
        feature = data.schema.features[int(np.argwhere(wrong)[0][1])]
        value = shaped[wrong][0]
        message = (
            f"feature `{feature}` holds {value:g}, `embedding` takes whole numbers from 0 to {first.num - 1}"
        )
        diagnostic = Diagnostic(
            "DAT014", message, (Label(first.span, "read here", True),), (f"in {data.path}",)
        )
        raise DataError(diagnostic, program.texts)
    return shaped.astype(np.int64)

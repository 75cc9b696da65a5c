"""`tw show FILE --stage STAGE`: a stage of the compilation of a program's training step, as text.

The step is forward, backward and optimizer on one whole batch. It is compiled, but neither data nor a result
is needed.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from tilewright.cli.output import add_program_arguments
from tilewright.compiler import STAGES, Executable
from tilewright.core.diagnostics import TilewrightError
from tilewright.jit import Jitted
from tilewright.lang.build import build_loss, build_model, build_optimizer, check_supported
from tilewright.lang.check import check
from tilewright.lang.lock import check_sources
from tilewright.lang.program import Run
from tilewright.train import Trainer


def configure(parser: argparse.ArgumentParser) -> None:
    add_program_arguments(parser)
    parser.add_argument(
        "--stage", choices=STAGES, default="graph", help="which stage to print; default: graph"
    )


def run(args: argparse.Namespace) -> int:
    program = check(args.file, args.param)
    if args.locked:
        check_sources(program)
    check_supported(program)
    print(compile_step(program.runs[0]).stage_text(args.stage))
    return 0


def compile_step(run: Run) -> Executable:
    """The compiled training step of a run, for one whole batch."""
    train = run.train
    model = build_model(train.model)
    trainer = Trainer(
        model, build_loss(train.loss), build_optimizer(train.optimizer, model), batch=train.batch
    )
    assert isinstance(trainer.train_step, Jitted)
    executable = trainer.train_step.executable(*example_batch(run))
    if executable is None:
        raise TilewrightError(
            f"the training step of model `{train.model.name}` computes nothing, so there is nothing to show"
        )
    return executable


def example_batch(run: Run) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Zeros of the shapes and types of a batch: inputs [B, *I], targets int64 [B] or float32 [B, 1]."""
    train = run.train
    kind = np.int64 if train.model.reads_indices else np.float32
    x = np.zeros((train.batch, *train.model.input_shape), kind)
    if train.loss.target == "classes":
        return x, np.zeros(train.batch, np.int64)
    return x, np.zeros((train.batch, *train.model.output_shape), np.float32)

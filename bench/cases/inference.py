"""Inference: the training suite's models without gradients, batch 1 and 64, weights fixed, logits read."""

from dataclasses import replace
from functools import partial

from bench.cases import training
from bench.cases.base import Case

GPT2_TOKENS = {1: 256, 64: 16}  # 64 sequences of 256 tokens would be 4 TFLOP and 3.3 GB of logits


def forward_flops(case: Case, batch: int) -> float:
    """Two for each weight that meets each row: a third of a training step whose every layer has an input gradient."""
    if case.kind == "mlp":
        return 2.0 * batch * sum(k * n for k, n in training.pairwise(case.options["widths"]))
    if case.kind == "lenet":
        return batch * 2.0 * (28 * 28 * 6 * 25 + 100 * 16 * 150 + 400 * 120 + 120 * 84 + 840)
    if case.kind == "cnn":
        return batch * 2.0 * (32 * 32 * 3 * 32 * 9 + 16 * 16 * 32 * 64 * 9 + 8 * 8 * 64 * 128 * 9 + 20480)
    sizes = {**case.options, "batch": batch}
    if case.kind == "gpt":
        return training.gpt_flops(**sizes) / 3
    return batch * 2.0 * (4 * sizes["steps"] * sizes["width"] * (sizes["inputs"] + sizes["width"]))


def inference(name: str, case: Case, batch: int) -> Case:
    """The case's model on `batch` samples."""
    options, make = dict(case.options), case.make
    if case.kind in ("gpt", "lstm"):
        options["batch"] = batch
        if case.options.get("tied"):
            options["tokens"] = GPT2_TOKENS[batch]
            name += f", {options['tokens']} tokens"
        maker = {"gpt": training.make_gpt, "lstm": training.make_lstm}[case.kind]
        make = partial(maker, **options)
    elif case.kind == "mlp":
        make = partial(training.make_mlp, batch, case.options["widths"])
    else:
        make = partial({"lenet": training.make_lenet, "cnn": training.make_cnn}[case.kind], batch)
    sized = replace(case, options=options)
    return replace(
        sized,
        name=f"{name}, N={batch}",
        suite="inference",
        make=make,
        flops=forward_flops(sized, batch),
        skip={},
    )


MODELS = {
    "MLP 784-128-10": "MLP 784-128-10, N=64",
    "MLP 784-256-128-10": "MLP 784-256-128-10, N=128",
    "LeNet-5": "LeNet-5, N=64",
    "CNN 3 conv + BN": "CNN 3 conv + BN, 32x3x32x32",
    "GPT 4x128, 64 tokens": "GPT 4x128, 12x64 tokens",
    "GPT-2 124M": "GPT-2 124M, 1x256 tokens",
    "LSTM 128, 64 steps": "LSTM 128, 64 steps, N=32",
}
CASES = [
    inference(name, next(case for case in training.CASES if case.name == of), batch)
    for name, of in MODELS.items()
    for batch in (1, 64)
]

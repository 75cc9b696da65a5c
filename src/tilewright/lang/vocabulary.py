"""Every word of the language: blocks and their keys, layers, activations, losses, optimizers and the rest.

The checker, the formatter and the reference read these tables. The order of the fields is the canonical
order, and the defaults are those that the formatter leaves out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tilewright.core.diagnostics import Span
from tilewright.lang.program import Component
from tilewright.lang.types import (
    BoolType,
    ChoiceType,
    ComponentType,
    Field,
    FloatType,
    IntType,
    ListType,
    NameType,
    OptionalType,
    PairType,
    Signature,
    StringType,
)

ACTIVATIONS: Final = (
    "relu",
    "leaky_relu",
    "gelu",
    "sigmoid",
    "tanh",
    "softmax",
    "log_softmax",
    "silu",
    "linear",
)

_POSITIVE: Final = FloatType(0.0, open_low=True)
_NOT_NEGATIVE: Final = FloatType(0.0)
_SHARE: Final = FloatType(0.0, 1.0, open_high=True)
_SIZE: Final = IntType(1, 2**31 - 1)
_NO_SPAN: Final = Span("", 1, 1, 1, 1)

# --- layers -------------------------------------------------------------------------------------------------

_POOL: Final = Signature(
    (
        Field("kernel", PairType(), doc="the side of the window, or `[height, width]`"),
        Field("stride", OptionalType(PairType()), None, "step of the window; default: the kernel"),
        Field("padding", PairType(0), (0, 0), "cells added on every side"),
    ),
    positional=1,
)

# `input` and `reshape` take any number of sizes; `lang.shapes` reads those.
LAYERS: Final[Mapping[str, Signature]] = {
    "input": Signature(),
    "dense": Signature(
        (
            Field("out_features", _SIZE, doc="how many outputs the layer has"),
            Field("bias", BoolType(), True, "add a trained offset"),
        ),
        positional=1,
    ),
    "conv2d": Signature(
        (
            Field("out_channels", _SIZE, doc="how many channels the layer gives"),
            Field("kernel", PairType(), doc="the side of the window, or `[height, width]`"),
            Field("stride", PairType(), (1, 1), "step of the window"),
            Field("padding", PairType(0, word="same"), (0, 0), "cells of zeros on every side, or `same`"),
            Field("dilation", PairType(), (1, 1), "distance between the cells of the window"),
            Field("groups", _SIZE, 1, "independent groups of channels"),
            Field("bias", BoolType(), True, "add a trained offset per channel"),
        ),
        positional=1,
    ),
    "maxpool": _POOL,
    "avgpool": _POOL,
    "batchnorm": Signature(
        (
            Field("features", OptionalType(_SIZE), None, "checked against the layer before"),
            Field("eps", _POSITIVE, 1e-5, "added to the variance"),
            Field("momentum", FloatType(0.0, 1.0), 0.1, "share of the new batch in the running statistics"),
        ),
        positional=1,
    ),
    "layernorm": Signature(
        (
            Field("features", OptionalType(_SIZE), None, "checked against the layer before"),
            Field("eps", _POSITIVE, 1e-5, "added to the variance"),
        ),
        positional=1,
    ),
    "dropout": Signature((Field("p", _SHARE, 0.5, "share of values that are zeroed"),), positional=1),
    "flatten": Signature(),
    "reshape": Signature(),
    "embedding": Signature(
        (
            Field("num", _SIZE, doc="how many different indices there are"),
            Field("dim", _SIZE, doc="the length of the vector for each index"),
        ),
        positional=2,
    ),
}
VARIADIC_LAYERS: Final = frozenset({"input", "reshape"})
LAYER_NAMES: Final = (*LAYERS, "repeat", *(name for name in ACTIVATIONS if name != "linear"))

# --- components ---------------------------------------------------------------------------------------------

SOURCES: Final[Mapping[str, Signature]] = {
    "csv": Signature(
        (
            Field("path", StringType(), doc="the file, relative to the `.kyn` file"),
            Field("delimiter", StringType(length=1), ",", "what separates the cells"),
        ),
        positional=1,
    ),
}

LOSSES: Final[Mapping[str, Signature]] = {
    "mse": Signature(),
    "bce": Signature(),
    "cross_entropy": Signature(),
    "huber": Signature((Field("delta", _POSITIVE, 1.0, "where the square turns into a line"),)),
    "l1": Signature(),
    "mae": Signature(alias_of="l1"),
    "nll": Signature(),
}

_BETAS: Final = ListType(_SHARE, 2, 2)

OPTIMIZERS: Final[Mapping[str, Signature]] = {
    "adam": Signature(
        (
            Field("lr", _NOT_NEGATIVE, 1e-3, "learning rate"),
            Field("betas", _BETAS, (0.9, 0.999), "decay of the two moments"),
            Field("eps", _POSITIVE, 1e-8, "added to the denominator"),
            Field("weight_decay", _NOT_NEGATIVE, 0.0, "L2 penalty"),
        )
    ),
    "adamw": Signature(
        (
            Field("lr", _NOT_NEGATIVE, 1e-3, "learning rate"),
            Field("betas", _BETAS, (0.9, 0.999), "decay of the two moments"),
            Field("eps", _POSITIVE, 1e-8, "added to the denominator"),
            Field("weight_decay", _NOT_NEGATIVE, 1e-2, "decoupled decay of the weights"),
        )
    ),
    "sgd": Signature(
        (
            Field("lr", _NOT_NEGATIVE, 1e-3, "learning rate"),
            Field("momentum", _NOT_NEGATIVE, 0.0, "share of the last step that is kept"),
            Field("nesterov", BoolType(), False, "look ahead along the momentum"),
            Field("weight_decay", _NOT_NEGATIVE, 0.0, "L2 penalty"),
        )
    ),
    "rmsprop": Signature(
        (
            Field("lr", _NOT_NEGATIVE, 1e-2, "learning rate"),
            Field("alpha", _SHARE, 0.99, "decay of the squared gradients"),
            Field("eps", _POSITIVE, 1e-8, "added to the denominator"),
            Field("momentum", _NOT_NEGATIVE, 0.0, "share of the last step that is kept"),
            Field("weight_decay", _NOT_NEGATIVE, 0.0, "L2 penalty"),
        )
    ),
}

SCHEDULERS: Final[Mapping[str, Signature]] = {
    "step": Signature(
        (
            Field("step_size", IntType(1), doc="after how many epochs the rate drops"),
            Field("gamma", _POSITIVE, 0.1, "factor at each drop"),
        )
    ),
    "cosine": Signature((Field("t_max", OptionalType(IntType(1)), None, "length in epochs; default: all"),)),
    "onecycle": Signature((Field("max_lr", _POSITIVE, doc="the highest learning rate"),)),
}

METRICS: Final = ("mae", "mse", "rmse", "accuracy", "precision", "recall", "f1", "auc")
REGRESSION_METRICS: Final = frozenset({"mae", "mse", "rmse"})

EARLY_STOP: Final[Mapping[str, Signature]] = {
    "early_stop": Signature(
        (
            Field("patience", IntType(1), doc="epochs without improvement before it stops"),
            Field("mode", ChoiceType("mode", ("min", "max")), "min", "whether lower or higher is better"),
            Field(
                "monitor",
                ChoiceType("metric", ("loss", *METRICS)),
                "loss",
                "what is watched on held-out rows",
            ),
            Field("min_delta", _NOT_NEGATIVE, 0.0, "the least change that counts"),
        )
    )
}

CHECKPOINT: Final[Mapping[str, Signature]] = {
    "checkpoint": Signature(
        (
            Field("every_n", IntType(1), 1, "epochs between two checkpoints"),
            Field("path", StringType(), doc="where checkpoints are written, without a suffix"),
            Field("async_save", BoolType(), False, "write while training goes on"),
        )
    )
}

DEVICES: Final = ("auto", "cpu", "cuda", "webgpu")
DEVICES_HERE: Final = ("auto", "cpu")  # those that this version runs on
PRECISIONS: Final = ("fp32", "fp16", "bf16")
FORMATS: Final = ("safetensors", "torch", "onnx", "torchscript", "stablehlo")

# --- blocks -------------------------------------------------------------------------------------------------

_ADAM: Final = Component("adam", {f.name: f.default for f in OPTIMIZERS["adam"].fields}, _NO_SPAN)

BLOCKS: Final[Mapping[str, tuple[Field, ...]]] = {
    "dataset": (
        Field("source", ComponentType("source", SOURCES), doc='the data, such as `csv("data.csv")`'),
        Field("target", StringType(), doc='the column to predict, such as `"price"`'),
        Field("split", FloatType(0.0, 1.0, open_low=True), 0.8, "share of rows that train"),
        Field("normalize", BoolType(), False, "z-score of the features, from the training rows only"),
        Field(
            "shuffle", BoolType(), True, "shuffle the rows, by the seed, before the split and in every epoch"
        ),
        Field("num_workers", IntType(0), 0, "threads that prepare batches"),
        Field("pin_memory", BoolType(), False, "stage batches in page-locked memory"),
        Field("prefetch", IntType(0), 2, "batches prepared ahead"),
    ),
    "train": (
        Field("model", NameType("model"), doc="the model to train, such as `Net`"),
        Field("data", NameType("dataset"), doc="the data set to train on, such as `Houses`"),
        Field("loss", ComponentType("loss", LOSSES), doc="what to minimise, such as `mse`"),
        Field("optimizer", ComponentType("optimizer", OPTIMIZERS), _ADAM, "how the parameters are updated"),
        Field("epochs", IntType(1), 10, "passes over the training rows"),
        Field("batch", IntType(1), 32, "rows in one step"),
        Field("device", ChoiceType("device", DEVICES), "auto", "where it runs"),
        Field(
            "scheduler",
            OptionalType(ComponentType("scheduler", SCHEDULERS)),
            None,
            "learning rate over epochs",
        ),
        Field(
            "early_stop", OptionalType(ComponentType("early stop", EARLY_STOP)), None, "when to stop early"
        ),
        Field(
            "checkpoint",
            OptionalType(ComponentType("checkpoint", CHECKPOINT)),
            None,
            "saved states to resume",
        ),
        Field(
            "precision", ChoiceType("precision", PRECISIONS), "fp32", "the type that products are computed in"
        ),
        Field("compile", BoolType(), True, "the whole step as one program"),
        Field("seed", IntType(0, 2**63 - 1), 0, "start of all random numbers"),
        Field("deterministic", BoolType(), False, "bitwise equal at any thread count"),
    ),
    "evaluate": (
        Field("metrics", ListType(ChoiceType("metric", METRICS), 1, unique=True), doc="what to measure"),
    ),
    "export": (
        Field("format", ChoiceType("format", FORMATS), doc="the kind of file, such as `safetensors`"),
        Field("path", StringType(), doc="the file to write"),
        Field(
            "input_shape", OptionalType(ListType(_SIZE, 1)), None, "with the batch axis; default: inferred"
        ),
        Field("opset", IntType(7, 30), 17, "version of the operator set, for `onnx`"),
    ),
}

"""A whole program checked: names, values, types and shapes, every problem reported at once.

`check` is the front door of the language: text in, `Program` out, or one `KynError` with all diagnostics. It
looks at no data; `lang.dataset` does, with the program in hand.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tilewright.core.diagnostics import Label, Reporter, Span, join_names, suggest
from tilewright.lang import params as parameters
from tilewright.lang.errors import error_for
from tilewright.lang.format import format_value
from tilewright.lang.load import Sources, load
from tilewright.lang.model import check_model
from tilewright.lang.program import (
    Activation,
    BatchNorm,
    Component,
    Dataset,
    Evaluate,
    Export,
    Loss,
    Model,
    Program,
    Run,
    SourceFile,
    Train,
    Value,
)
from tilewright.lang.shapes import format_shape
from tilewright.lang.syntax import nodes
from tilewright.lang.types import COMMAND_LINE, Scope, nearest
from tilewright.lang.vocabulary import BLOCKS, REGRESSION_METRICS


def check(path: str | os.PathLike[str], overrides: Sequence[str] = (), *, text: str | None = None) -> Program:
    """Read and check the program at `path`.

    `overrides` are `key=value` strings, as given to `--param`. With `text`, that is checked instead of the
    file's content; `path` then names it in messages and is where imports start.

    Returns the resolved `Program`; its `warnings` did not stop the check. Raises `KynError` (the kind of its
    first problem) with every diagnostic and the source texts.

    >>> from tilewright.lang.check import check
    >>> check("net.kyn", ["lr=0.1"]).runs[0].train.optimizer["lr"]     # doctest: +SKIP
    0.1
    """
    name = os.fspath(path)
    report = Reporter()
    sources = load(name, report, text)
    texts = sources.texts
    if report.has_errors:
        raise error_for(report.in_order(), texts)
    params = parameters.gather(sources, overrides, report)
    if params.command_line:
        texts[COMMAND_LINE] = params.command_line
    _check_blocks(sources, report)
    used: set[str] = set()
    runs: list[Run] = []
    for number, point in enumerate(params.points()):
        # Points after the first say in which run they fail: the others were fine there.
        where = ", ".join(f"{name}={format_value(value)}" for name, value in point.items())
        own_report = Reporter(notes=(f"in the run {where}",) if number else ())
        run = _RunChecker(sources, Scope(own_report, {**params.fixed, **point}, used)).run(point)
        report.extend(d for d in own_report.diagnostics if d.is_error or not number)
        report.dropped += own_report.dropped
        if run is None:
            break
        runs.append(run)
    if not report.has_errors:
        own = {
            name: entry for name, entry in sources.params.items() if entry.span.file == sources.files[0].path
        }
        parameters.report_unused(params, used, own, report)
    if report.has_errors:
        raise error_for(report.in_order(), texts)
    axes = {name: tuple(_literal(value) for value in values) for name, values in params.axes.items()}
    files = tuple(sources.files)
    if params.command_line:
        files = (*files, SourceFile(COMMAND_LINE, params.command_line, ""))
    return Program(name, files, axes, tuple(runs), tuple(report.in_order()))


def _check_blocks(sources: Sources, report: Reporter) -> None:
    """A program has at least one data set, at least one model, and one `train`."""
    assert sources.main is not None
    start = Span(sources.files[0].path, 1, 1, 1, 1)
    examples = {"dataset": "dataset Name:", "model": "model Name:", "train": "train:"}
    for kind, example in examples.items():
        if not sources.named.get(kind) and kind not in sources.single:
            what = "no `train` block" if kind == "train" else f"no `{kind}`"
            report.add("KYN102", f"the program has {what}", start, help=[f"add a `{example}` block"])


def _literal(node: nodes.Value) -> Value:
    match node:
        case nodes.Int() | nodes.Float() | nodes.Bool() | nodes.String():
            return node.value
        case nodes.Name() | nodes.Param():
            return node.name
        case nodes.List():
            return tuple(_literal(item) for item in node.items)
        case nodes.Call():
            options = {option.key.name: _literal(option.value) for option in node.options}
            return Component(node.name.name, options, node.span)


@dataclass
class _Body:
    """The values of a block's keys.

    Missing ones have their default; wrong ones are absent and `ok` is false.
    """

    values: dict[str, Any]
    spans: dict[str, Span]
    ok: bool

    def span(self, key: str, block: nodes.Block) -> Span:
        return self.spans.get(key, block.span)


class _RunChecker:
    """Checks a program at one point of its sweep."""

    def __init__(self, sources: Sources, scope: Scope) -> None:
        self.sources, self.scope, self.report = sources, scope, scope.report

    def run(self, point: dict[str, nodes.Value]) -> Run | None:
        """The resolved run, or None after problems went to the reporter."""
        datasets = {name: self.check_dataset(b) for name, b in self.sources.named["dataset"].items()}
        models = {name: check_model(b, self.scope) for name, b in self.sources.named["model"].items()}
        train = self.check_train(
            {k: v for k, v in datasets.items() if v}, {k: v for k, v in models.items() if v}
        )
        evaluate = self.check_evaluate(train)
        export = self.check_export(train)
        if self.report.has_errors or train is None:
            return None
        return Run(
            point={name: _literal(value) for name, value in point.items()},
            params={name: _literal(value) for name, value in self.scope.params.items()},
            datasets={name: item for name, item in datasets.items() if item},
            models={name: item for name, item in models.items() if item},
            train=train,
            evaluate=evaluate,
            export=export,
        )

    # --- blocks of `key = value` -------------------------------------------------------------------------

    def read_body(self, block: nodes.Block) -> _Body:
        fields = {field.name: field for field in BLOCKS[block.kind]}
        body = _Body({}, {}, True)
        keys: dict[str, Span] = {}
        for entry in block.body:
            assert isinstance(entry, nodes.Entry)
            key = entry.key.name
            if first := keys.get(key):
                self.report.add(
                    "KYN101", f"key `{key}` is given twice", entry.key.span, more=[Label(first, "first here")]
                )
                body.ok = False
            elif key not in fields:
                self.report_unknown_key(block, entry)
                body.ok = False
            else:
                keys[key] = entry.key.span
                body.spans[key] = entry.value.span
                value = fields[key].type.read(entry.value, f"`{key}`", self.scope)
                if value is None:
                    body.ok = False
                else:
                    body.values[key] = value
        for name, field in fields.items():
            if name in keys:
                continue
            if field.is_required:
                self.report.add(
                    "KYN103", f"`{block.kind}` needs `{name}`", block.span, help=[f"`{name}`: {field.doc}"]
                )
                body.ok = False
            else:
                body.values[name] = field.default
        return body

    def report_unknown_key(self, block: nodes.Block, entry: nodes.Entry) -> None:
        key = entry.key.name
        known = [field.name for field in BLOCKS[block.kind]]
        near = nearest(key, known)
        advice = f"did you mean `{near}`?" if near else None
        if advice is None:
            homes = [kind for kind, fields in BLOCKS.items() if any(field.name == key for field in fields)]
            advice = f"`{key}` belongs in `{homes[0]}`" if homes else None
            if key == "lr":
                advice = "the learning rate belongs to the optimizer: `optimizer = adam(lr=1e-3)`"
        self.report.add(
            "KYN105",
            f"unknown key `{key}` in `{block.kind}`",
            entry.key.span,
            notes=[f"known keys: {join_names(known)}"],
            help=[advice],
        )

    def check_dataset(self, block: nodes.Block) -> Dataset | None:
        assert block.name is not None
        body = self.read_body(block)
        if not body.ok:
            return None
        directory = os.path.dirname(block.span.file)
        target_span = body.span("target", block)
        return Dataset(
            block.name.name, **body.values, directory=directory, span=block.name.span, target_span=target_span
        )

    # --- train -------------------------------------------------------------------------------------------

    def check_train(self, datasets: dict[str, Dataset], models: dict[str, Model]) -> Train | None:
        block = self.sources.single.get("train")
        if block is None:
            return None
        body = self.read_body(block)
        model = self.look_up("model", "model", body, models)
        data = self.look_up("data", "dataset", body, datasets)
        loss = body.values.get("loss")
        resolved = self.check_loss(loss, model, body.span("loss", block)) if loss and model else None
        self.check_combinations(block, body, model, data)
        if not body.ok or model is None or data is None or resolved is None:
            return None
        values = {**body.values, "model": model, "data": data, "loss": resolved}
        scheduler: Component | None = values["scheduler"]
        if scheduler and scheduler.name == "cosine" and scheduler["t_max"] is None:
            values["scheduler"] = Component("cosine", {"t_max": values["epochs"]}, scheduler.span)
        return Train(**values, span=block.span)

    def look_up(self, key: str, kind: str, body: _Body, table: dict[str, Any]) -> Any | None:
        """The model or data set that a key names.

        One that exists but is wrong was reported where it stands.
        """
        name = body.values.get(key)
        known = self.sources.named[kind]
        if name is not None and name not in known:
            near = suggest(name, known)
            note = f"known: {join_names(known)}" if known else f"the program has no {kind}"
            self.report.add(
                "KYN112",
                f"there is no {kind} `{name}`",
                body.spans[key],
                notes=[note],
                help=[f"did you mean `{near}`?" if near else None],
            )
        return table.get(name) if name is not None else None

    def check_loss(self, loss: Component, model: Model, span: Span) -> Loss | None:
        """The loss with what it is applied to; None after the model's output does not suit it."""
        if not self.check_output_size(loss, model, span):
            return None
        last = model.output_activation
        from_logits = loss.name == "cross_entropy" or (loss.name == "bce" and last == "linear")
        output = Label(model.output_span, f"the output is given by `{last}`")
        if loss.name == "bce" and last not in ("sigmoid", "linear"):
            self.report.add(
                "KYN119",
                f"`bce` cannot be computed on the output of `{last}`",
                span,
                more=[output],
                help=["end the model with `sigmoid`, or without an activation"],
            )
            return None
        if loss.name == "nll" and (last != "log_softmax" or not _covers_outputs(model)):
            self.report.add(
                "KYN119",
                f"`nll` needs log-probabilities, the output is `{last}`",
                span,
                more=[output],
                help=["end the model with `log_softmax`, or use `cross_entropy`"],
            )
            return None
        if loss.name == "cross_entropy" and last in ("softmax", "log_softmax"):
            self.report.warn(
                "KYN401",
                f"`cross_entropy` after `{last}`",
                span,
                more=[output],
                notes=["`cross_entropy` applies log_softmax itself"],
                help=[f"remove `{last}` from the last layer"],
            )
        return Loss(loss.name, loss.options, from_logits, span)

    def check_output_size(self, loss: Component, model: Model, span: Span) -> bool:
        shape = model.output_shape
        outputs = shape[0]
        count = f"{outputs} output{'s' if outputs != 1 else ''}"
        code = advice = ""
        if len(shape) != 1:
            code, message = "KYN208", f"the model gives {format_shape(shape)}, `{loss.name}` needs a vector"
            advice = "put `flatten` and `dense` at the end"
        elif loss.name == "bce" and outputs != 1:
            code, message = "KYN206", f"`bce` needs exactly one output, the model gives {outputs}"
            advice = "end the model with `dense 1 sigmoid`, or use `cross_entropy`"
        elif loss.name in ("cross_entropy", "nll") and outputs < 2:
            code, message = "KYN207", f"`{loss.name}` needs at least two outputs, the model gives {outputs}"
            advice = "give the last layer one output per class, or use `bce`"
        elif loss.name in ("mse", "l1", "huber") and outputs != 1:
            code, message = "KYN208", f"`{loss.name}` needs one output, the model gives {outputs}"
            advice = "the data has one target column: end the model with `dense 1`"
        if not code:
            return True
        gives = count if len(shape) == 1 else f"gives {format_shape(shape)}"
        self.report.add(
            code, message, model.output_span, gives, more=[Label(span, "the loss")], help=[advice]
        )
        return False

    def check_combinations(
        self, block: nodes.Block, body: _Body, model: Model | None, data: Dataset | None
    ) -> None:
        """Values that are fine alone and wrong together."""
        optimizer: Component | None = body.values.get("optimizer")
        if optimizer and optimizer.name == "sgd" and optimizer["nesterov"] and not optimizer["momentum"]:
            self.report.add(
                "KYN121",
                "`nesterov` needs `momentum`",
                optimizer.span,
                help=["write `sgd(momentum=0.9, nesterov=true)`"],
            )
        if model and not model.parameters:
            self.report.add(
                "KYN121",
                f"model `{model.name}` has nothing to train",
                model.span,
                help=["add a layer with weights, such as `dense`"],
            )
        if model and body.values.get("batch") == 1:
            alone = (
                x for x in model.layers if isinstance(x, BatchNorm) and math.prod(x.input_shape[1:]) == 1
            )
            for layer in alone:
                self.report.add(
                    "KYN121",
                    "`batchnorm` cannot train on batches of one row",
                    body.spans["batch"],
                    more=[Label(layer.span, "there is one value of each feature to normalise")],
                    help=["use a larger `batch`, or `layernorm`"],
                )
        if model and data and model.reads_indices and data.normalize:
            self.report.add(
                "KYN121",
                "`normalize` cannot be used with `embedding`",
                data.span,
                more=[Label(model.layers[0].span, "indices are read here")],
            )
        stop: Component | None = body.values.get("early_stop")
        if not stop:
            return
        monitor = stop["monitor"]
        loss: Component | None = body.values.get("loss")
        gives_classes = loss is not None and loss.name in ("cross_entropy", "nll", "bce")
        if monitor == "loss" and stop["mode"] == "max":
            self.report.warn(
                "KYN403",
                "`mode=max` stops when the loss no longer rises",
                stop.span,
                help=["watch a metric: `monitor=accuracy`" if gives_classes else "write `mode=min`"],
            )
        if monitor != "loss" and loss:
            self.check_metric(monitor, loss, stop.span, body.span("loss", block))
        self.check_held_out(data, "early_stop", stop.span)

    def check_held_out(self, data: Dataset | None, what: str, span: Span) -> None:
        if data and data.split == 1.0:
            self.report.add(
                "KYN121",
                f"`{what}` needs held-out rows, `split` keeps none",
                span,
                more=[Label(data.span, "this data set trains on every row")],
                help=["use a `split` below 1"],
            )

    def check_metric(self, metric: str, loss: Component | Loss, span: Span, loss_span: Span) -> bool:
        """Whether a metric can be computed from what the model is trained to give."""
        needs_values = metric in REGRESSION_METRICS
        gives_classes = loss.name in ("cross_entropy", "nll", "bce")
        gives_values = loss.name not in ("cross_entropy", "nll")
        if (needs_values and gives_values) or (not needs_values and gives_classes):
            return True
        what = "a number to predict" if needs_values else "classes to predict"
        fitting = (
            ("mae", "mse", "rmse") if not gives_classes else ("accuracy", "precision", "recall", "f1", "auc")
        )
        self.report.add(
            "KYN118",
            f"metric `{metric}` needs {what}, the loss is `{loss.name}`",
            span,
            more=[Label(loss_span, "the loss")],
            help=[f"metrics for `{loss.name}`: {join_names(fitting)}"],
        )
        return False

    # --- evaluate, export --------------------------------------------------------------------------------

    def check_evaluate(self, train: Train | None) -> Evaluate | None:
        block = self.sources.single.get("evaluate")
        if block is None:
            return None
        body = self.read_body(block)
        if not body.ok:
            return None
        metrics: tuple[str, ...] = body.values["metrics"]
        if train:
            for metric, span in zip(metrics, _item_spans(block, len(metrics)), strict=True):
                self.check_metric(metric, train.loss, span, train.loss.span)
            self.check_held_out(train.data, "evaluate", block.span)
        return Evaluate(metrics, block.span)

    def check_export(self, train: Train | None) -> Export | None:
        block = self.sources.single.get("export")
        if block is None:
            return None
        body = self.read_body(block)
        if not body.ok or train is None:
            return None
        values = body.values
        if "opset" in body.spans and values["format"] != "onnx":
            self.report.add(
                "KYN121",
                f"`opset` has no meaning for `{values['format']}`",
                body.spans["opset"],
                help=["remove it, or use `format = onnx`"],
            )
        opset = values["opset"] if values["format"] == "onnx" else None
        inferred = (1, *train.model.input_shape)
        shape = values["input_shape"] or inferred
        if shape[1:] != inferred[1:]:
            message = f"`input_shape` is {list(shape)}, the model takes {list(inferred)}"
            self.report.add(
                "KYN210",
                message,
                body.spans["input_shape"],
                more=[Label(train.model.input_span, "the input is here")],
                help=["leave it out: it is inferred"],
            )
        return Export(values["format"], values["path"], tuple(shape), opset, block.span)


def _covers_outputs(model: Model) -> bool:
    """Whether the last softmax ran over all outputs at once, and not over the channels of a map."""
    last = next(layer for layer in reversed(model.layers) if isinstance(layer, Activation))
    return last.output_shape[last.axis] == model.output_shape[0]


def _item_spans(block: nodes.Block, count: int) -> Iterable[Span]:
    """The spans of the metrics in their list; that of the whole value when they come from a parameter."""
    entry = next(e for e in block.body if isinstance(e, nodes.Entry) and e.key.name == "metrics")
    if isinstance(entry.value, nodes.List):
        return [item.span for item in entry.value.items]
    return [entry.value.span] * count

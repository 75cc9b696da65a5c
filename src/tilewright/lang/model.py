"""A `model` block to a resolved `Model`: names and values of the layers, and the sizes between them.

After a layer that is wrong, the names and values of the later ones are still checked, but not their sizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tilewright.core.diagnostics import Label, Span, join_names
from tilewright.lang import shapes
from tilewright.lang.program import Activation, Layer, Model, Shape
from tilewright.lang.syntax import nodes
from tilewright.lang.types import IntType, Scope, Signature, nearest, read_arguments, unknown_word
from tilewright.lang.vocabulary import ACTIVATIONS, LAYER_NAMES, LAYERS, VARIADIC_LAYERS

MAX_LAYERS: Final = 10_000
MAX_RANK: Final = 6
_ALL_ACTIVATIONS: Final = frozenset(ACTIVATIONS)


def check_model(block: nodes.Block, scope: Scope) -> Model | None:
    """The resolved model, or None after its problems went to the scope's reporter."""
    return _ModelChecker(block, scope).run()


class _ModelChecker:
    def __init__(self, block: nodes.Block, scope: Scope) -> None:
        assert block.name is not None
        self.block, self.scope, self.report = block, scope, scope.report
        self.name = block.name
        self.layers: list[Layer] = []
        self.shape: Shape | None = (
            None  # the output of the last layer; None before `input` and after an error
        )
        self.ok = True

    def run(self) -> Model | None:
        inputs = [layer for layer in _layers(self.block) if layer.name.name == "input"]
        self.check_input_place(inputs)
        for statement in self.block.body:
            if isinstance(statement, nodes.Repeat):
                self.read_repeat(statement)
            elif isinstance(statement, nodes.Layer):
                self.read_layer(statement)
        if not self.ok or not inputs or not self.layers:
            if self.ok and inputs:
                self.fail("KYN201", f"model `{self.name.name}` has no layer after `input`", inputs[0].span)
            return None
        span = inputs[0].span
        return Model(
            self.name.name,
            self.layers[0].input_shape,
            tuple(self.layers),
            self.name.span,
            span,
            self.output_span,
        )

    @property
    def output_span(self) -> Span:
        shaped = (layer for layer in reversed(self.layers) if not isinstance(layer, Activation))
        return next(shaped, self.layers[-1]).span

    def check_input_place(self, inputs: list[nodes.Layer]) -> None:
        if not inputs:
            self.fail(
                "KYN201",
                f"model `{self.name.name}` has no `input`",
                self.name.span,
                help="start with `input N`: the sizes of the other layers follow from it",
            )
            return
        for extra in inputs[1:]:
            self.fail("KYN201", "second `input`", extra.span, more=[Label(inputs[0].span, "first here")])
        first = self.block.body[0]
        if first is not inputs[0]:
            word = first.name.name if isinstance(first, nodes.Layer) else "repeat"
            self.fail(
                "KYN201",
                f"`{word}` stands before `input`",
                first.span,
                more=[Label(inputs[0].span, "the input is here")],
                help="move `input` to the top of the model",
            )

    def read_repeat(self, repeat: nodes.Repeat) -> None:
        count = IntType(1, MAX_LAYERS).read(repeat.count, "the count of `repeat`", self.scope)
        if count is None:
            self.ok = False
        for _ in range(count or 1):
            if len(self.layers) + len(repeat.body) > MAX_LAYERS:
                self.fail("KYN120", f"the model has more than {MAX_LAYERS} layers", repeat.span)
            for layer in repeat.body:
                self.read_layer(layer)
            if not self.ok:
                return

    def read_layer(self, layer: nodes.Layer) -> None:
        name = layer.name.name
        args, activation = self.split_activation(layer)
        if name not in LAYERS:
            if name in ACTIVATIONS and name != "linear":
                self.read_activation_layer(layer, args, activation)
            else:
                self.report_unknown(layer)
            self.check_activation(activation, layer)
            return
        signature = LAYERS[name]
        sizes: tuple[int, ...] | None = None
        if name in VARIADIC_LAYERS:
            sizes = self.read_sizes(layer, args)
            args = ()
        options = read_arguments(name, signature, args, layer.options, layer.name.span, self.scope)
        word = self.check_activation(activation, layer)
        if options is None or (name in VARIADIC_LAYERS and sizes is None):
            self.ok, self.shape = False, None
        elif name == "input":
            self.shape = sizes if self.ok else None
        elif self.shape is not None:
            self.append(name, layer, {**options, "sizes": sizes}, self.shape)
        if word not in (None, "linear") and self.shape is not None:
            assert word is not None
            self.layers.append(
                shapes.activate(word, self.shape, activation.span if activation else layer.span)
            )

    def append(self, name: str, layer: nodes.Layer, options: shapes.Options, shape: Shape) -> None:
        if name == "embedding" and self.layers:
            self.fail("KYN203", "`embedding` must come right after `input`: it reads indices", layer.span)
            return
        try:
            resolved = shapes.infer(name, options, shape, layer.span)
        except shapes.ShapeProblem as problem:
            before = self.layers[-1].span if self.layers else next(_layers(self.block)).span
            more = [] if before == layer.span else [Label(before, f"gives {shapes.format_shape(shape)}")]
            at = _find_option(layer, problem.option)
            self.fail(problem.code, str(problem), at, more=more, help=problem.help)
            return
        self.layers.append(resolved)
        self.shape = resolved.output_shape

    def split_activation(self, layer: nodes.Layer) -> tuple[tuple[nodes.Value, ...], nodes.Value | None]:
        """Positional values and activation. A last `$name` that is a word and no needed value is the activation."""
        if layer.activation is None and layer.args and isinstance(last := layer.args[-1], nodes.Param):
            value = self.scope.params.get(last.name)
            signature = LAYERS.get(layer.name.name, Signature())
            needed = sum(field.is_required for field in signature.fields[: signature.positional])
            if layer.name.name in VARIADIC_LAYERS:
                needed = 1
            if isinstance(value, nodes.Name | nodes.String) and len(layer.args) > needed:
                return layer.args[:-1], last
        return layer.args, layer.activation

    def check_activation(self, word: nodes.Value | None, layer: nodes.Layer) -> str | None:
        """The activation's name, or None if there is none or it is wrong."""
        site = self.scope.resolve(word) if word is not None else None
        if site is None or not isinstance(site.node, nodes.Name | nodes.String):
            return None
        name = site.node.name if isinstance(site.node, nodes.Name) else site.node.value
        if layer.name.name == "input":
            self.fail("KYN121", "`input` takes no activation", site.span)
        elif name not in _ALL_ACTIVATIONS:
            self.ok = False
            unknown_word(site, "activation", name, ACTIVATIONS, self.scope, "KYN107")
        else:
            return name
        return None

    def read_sizes(self, layer: nodes.Layer, args: tuple[nodes.Value, ...]) -> tuple[int, ...] | None:
        """The sizes of `input` and `reshape`."""
        name = layer.name.name
        if not 1 <= len(args) <= MAX_RANK:
            advice = "write `input 10` or `input 1 8 8`" if name == "input" else "write `reshape 1 8 8`"
            found = "none" if not args else str(len(args))
            self.fail(
                "KYN113", f"`{name}` needs 1 to {MAX_RANK} sizes, found {found}", layer.span, help=advice
            )
            return None
        low = -1 if name == "reshape" else 1
        sizes = [IntType(low, 2**31 - 1).read(arg, f"a size of `{name}`", self.scope) for arg in args]
        if 0 in sizes:
            self.fail("KYN111", f"a size of `{name}` must not be 0", args[sizes.index(0)].span)
            return None
        given = tuple(size for size in sizes if size is not None)
        return given if len(given) == len(sizes) else None

    def read_activation_layer(
        self, layer: nodes.Layer, args: tuple[nodes.Value, ...], activation: nodes.Value | None
    ) -> None:
        name = layer.name.name
        options = read_arguments(name, Signature(), args, layer.options, layer.name.span, self.scope)
        if options is None:
            self.ok, self.shape = False, None
        elif activation is not None:
            self.fail("KYN121", f"`{name}` is an activation already", activation.span)
        elif self.shape is not None:
            self.layers.append(shapes.activate(name, self.shape, layer.span))

    def report_unknown(self, layer: nodes.Layer) -> None:
        name = layer.name.name
        note, advice = f"known: {join_names(LAYER_NAMES)}", None
        if name == "linear":
            advice = "a layer with weights is `dense N`; `linear` is the activation that changes nothing"
        else:
            near = nearest(name, LAYER_NAMES)
            advice = f"did you mean `{near}`?" if near else None
        self.fail("KYN106", f"unknown layer `{name}`", layer.name.span, note=note, help=advice)

    def fail(
        self,
        code: str,
        message: str,
        span: Span,
        *,
        more: list[Label] | None = None,
        note: str | None = None,
        help: str | None = None,
    ) -> None:
        self.ok, self.shape = False, None
        notes = [note] if note else []
        self.report.add(code, message, span, more=more or [], notes=notes, help=[help])


def _layers(block: nodes.Block) -> Iterator[nodes.Layer]:
    for statement in block.body:
        if isinstance(statement, nodes.Repeat):
            yield from statement.body
        elif isinstance(statement, nodes.Layer):
            yield statement


def _find_option(layer: nodes.Layer, name: str) -> Span:
    """The span of the option a problem is about, of the first value for a size, else of the whole line."""
    for option in layer.options:
        if option.key.name == name:
            return option.span
    return layer.args[0].span if name == "features" and layer.args else layer.span

"""Types of values: how a written value becomes a checked Python value.

A `Type` reads a syntax node within a `Scope` (the parameters in force and the reporter) and returns a Python
value, or None after it reported what is wrong. Types know no keys or layers; `lang.vocabulary` does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tilewright.core.diagnostics import Label, Reporter, Span, join_names, printable, suggest
from tilewright.lang.program import Component
from tilewright.lang.syntax import nodes
from tilewright.lang.syntax.tokens import quote

COMMAND_LINE: Final = "<command line>"  # the file name of spans inside `--param` arguments


@dataclass
class Scope:
    """The parameters that `$name` means, who looks at them, and where problems go."""

    report: Reporter
    params: Mapping[str, nodes.Value]
    used: set[str] = field(default_factory=set)

    def resolve(self, node: nodes.Value) -> Site | None:
        """The value itself, or what its parameter stands for; None after an undefined parameter."""
        if not isinstance(node, nodes.Param):
            return Site(node, node.span)
        self.used.add(node.name)
        value = self.params.get(node.name)
        if value is not None:
            return Site(value, node.span, node.name)
        near = suggest(node.name, self.params)
        known = f"known parameters: {join_names(self.params)}" if self.params else "there are no parameters"
        advice = f"did you mean `${near}`?" if near else f"define it: `params:` with `{node.name} = ...`"
        self.report.add(
            "KYN104", f"undefined parameter `${node.name}`", node.span, notes=[known], help=[advice]
        )
        return None


@dataclass(frozen=True)
class Site:
    """A value where it is used. `param` is set when the value came through `$param`."""

    node: nodes.Value
    span: Span
    param: str | None = None

    @property
    def is_word(self) -> bool:
        """Text from the command line, which may stand for a name or a truth value too."""
        return isinstance(self.node, nodes.String) and self.node.span.file == COMMAND_LINE

    @property
    def context(self) -> list[Label]:
        """The label that shows where a parameter got its value."""
        if self.param is None:
            return []
        return [Label(self.node.span, f"`${self.param}` is set here")]


def describe(node: nodes.Value) -> str:
    """What a value is, for messages: "the string "abc"", "a list"."""
    match node:
        case nodes.Int() | nodes.Float():
            return f"the {'integer' if isinstance(node, nodes.Int) else 'number'} {node.text}"
        case nodes.Bool():
            return f"`{str(node.value).lower()}`"
        case nodes.String():
            return f"the string {printable(quote(node.value))}"
        case nodes.Name():
            return f"the name `{node.name}`"
        case nodes.List():
            return "a list"
        case nodes.Call():
            return f"the call `{node.name.name}(...)`"
        case nodes.Param():
            return f"`${node.name}`"


class Type(Protocol):
    """Reads one value for `subject` (how messages name it)."""

    @property
    def expected(self) -> str: ...

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> Any | None: ...


def mismatch(site: Site, subject: str, expected: str, scope: Scope, help: Iterable[str | None] = ()) -> None:
    """Report a value of the wrong type."""
    message = f"{subject} needs {expected}, found {describe(site.node)}"
    scope.report.add("KYN110", message, site.span, f"expected {expected}", more=site.context, help=help)


def out_of_range(site: Site, subject: str, rule: str, scope: Scope) -> None:
    """Report a value of the right type that is not allowed."""
    found = describe(site.node).rpartition(" ")[2]
    scope.report.add("KYN111", f"{subject} must be {rule}, found {found}", site.span, more=site.context)


@dataclass(frozen=True)
class IntType:
    low: int = 0
    high: int | None = None

    @property
    def expected(self) -> str:
        return "an integer"

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> int | None:
        site = scope.resolve(node)
        if site is None:
            return None
        if not isinstance(site.node, nodes.Int):
            mismatch(site, subject, self.expected, scope)
            return None
        if site.node.value < self.low or (self.high is not None and site.node.value > self.high):
            rule = f"at least {self.low}" if self.high is None else f"between {self.low} and {self.high}"
            out_of_range(site, subject, rule, scope)
            return None
        return site.node.value


@dataclass(frozen=True)
class FloatType:
    """A number; integers are accepted. Limits are included unless `open_low` / `open_high`."""

    low: float | None = None
    high: float | None = None
    open_low: bool = False
    open_high: bool = False

    @property
    def expected(self) -> str:
        return "a number"

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> float | None:
        site = scope.resolve(node)
        if site is None:
            return None
        if not isinstance(site.node, nodes.Int | nodes.Float):
            mismatch(site, subject, self.expected, scope)
            return None
        value = float(site.node.value)
        below = self.low is not None and (value < self.low or (self.open_low and value == self.low))
        above = self.high is not None and (value > self.high or (self.open_high and value == self.high))
        if below or above:
            out_of_range(site, subject, self._rule(), scope)
            return None
        return value

    def _rule(self) -> str:
        parts = []
        if self.low is not None:
            parts.append(f"{'greater than' if self.open_low else 'at least'} {self.low:g}")
        if self.high is not None:
            parts.append(f"{'less than' if self.open_high else 'at most'} {self.high:g}")
        return " and ".join(parts)


@dataclass(frozen=True)
class BoolType:
    @property
    def expected(self) -> str:
        return "`true` or `false`"

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> bool | None:
        site = scope.resolve(node)
        if site is None:
            return None
        if isinstance(site.node, nodes.Bool):
            return site.node.value
        if isinstance(site.node, nodes.String) and site.is_word and site.node.value in ("true", "false"):
            return site.node.value == "true"
        mismatch(site, subject, self.expected, scope)
        return None


@dataclass(frozen=True)
class StringType:
    length: int | None = None

    @property
    def expected(self) -> str:
        return "a string"

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> str | None:
        site = scope.resolve(node)
        if site is None:
            return None
        if not isinstance(site.node, nodes.String):
            advice = f'write "{site.node.name}"' if isinstance(site.node, nodes.Name) else None
            mismatch(site, subject, self.expected, scope, [advice])
            return None
        if not site.node.value:
            out_of_range(site, subject, "a non-empty string", scope)
            return None
        if self.length is not None and len(site.node.value) != self.length:
            out_of_range(site, subject, "a single character", scope)
            return None
        return site.node.value


def read_word(site: Site, subject: str, expected: str, scope: Scope) -> str | None:
    """A bare word, or text from the command line or a parameter that stands for one."""
    if isinstance(site.node, nodes.Name):
        return site.node.name
    if isinstance(site.node, nodes.String) and site.param is not None:
        return site.node.value
    advice = f"write {site.node.value} without quotes" if isinstance(site.node, nodes.String) else None
    mismatch(site, subject, expected, scope, [advice])
    return None


@dataclass(frozen=True)
class NameType:
    """Any bare word, such as the name of a model."""

    what: str

    @property
    def expected(self) -> str:
        return f"the name of a {self.what}"

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> str | None:
        site = scope.resolve(node)
        return read_word(site, subject, self.expected, scope) if site else None


def nearest(word: str, names: Sequence[str]) -> str | None:
    """The name that a word most likely meant: what other tools call so, else the nearest spelling."""
    alias = ALIASES.get(word.lower().replace("-", "_"))
    return alias if alias in names else suggest(word, names)


def unknown_word(site: Site, what: str, word: str, known: Iterable[str], scope: Scope, code: str) -> None:
    """Report a word that is not among the known ones, with the nearest spelling."""
    names = list(known)
    near = nearest(word, names)
    scope.report.add(
        code,
        f"unknown {what} `{printable(word)}`",
        site.span,
        more=site.context,
        notes=[f"known: {join_names(names)}"],
        help=[f"did you mean `{near}`?" if near else None],
    )


# Words that users of other tools try first.
ALIASES: Final[Mapping[str, str]] = {
    "fc": "dense",
    "fully_connected": "dense",
    "affine": "dense",
    "conv": "conv2d",
    "convolution": "conv2d",
    "max_pool2d": "maxpool",
    "maxpool2d": "maxpool",
    "avg_pool2d": "avgpool",
    "avgpool2d": "avgpool",
    "pool": "maxpool",
    "batchnorm1d": "batchnorm",
    "batchnorm2d": "batchnorm",
    "batch_norm": "batchnorm",
    "bn": "batchnorm",
    "embed": "embedding",
    "view": "reshape",
    "swish": "silu",
    "none": "linear",
    "identity": "linear",
    "crossentropy": "cross_entropy",
    "categorical_crossentropy": "cross_entropy",
    "ce": "cross_entropy",
    "binary_crossentropy": "bce",
    "binary_cross_entropy": "bce",
    "bce_with_logits": "bce",
    "mean_squared_error": "mse",
    "smooth_l1": "huber",
    "gpu": "cuda",
    "float32": "fp32",
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "pytorch": "torch",
    "acc": "accuracy",
    "roc_auc": "auc",
    "f1_score": "f1",
    "batch_size": "batch",
    "learning_rate": "lr",
    "dataset": "data",
    "kernel_size": "kernel",
    "steplr": "step",
    "cosine_annealing": "cosine",
    "one_cycle": "onecycle",
}


@dataclass(frozen=True)
class ChoiceType:
    """One word out of a few."""

    what: str
    names: tuple[str, ...]
    code: str = "KYN108"

    @property
    def expected(self) -> str:
        return f"{'an' if self.what[0] in 'aeiou' else 'a'} {self.what}"

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> str | None:
        site = scope.resolve(node)
        word = read_word(site, subject, self.expected, scope) if site else None
        if site is None or word is None or word in self.names:
            return word
        unknown_word(site, self.what, word, self.names, scope, self.code)
        return None


@dataclass(frozen=True)
class ListType:
    """A list of `item`; read as a tuple."""

    item: Type
    min_length: int = 0
    max_length: int | None = None
    unique: bool = False

    @property
    def expected(self) -> str:
        return "a list"

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> tuple[Any, ...] | None:
        site = scope.resolve(node)
        if site is None:
            return None
        if not isinstance(site.node, nodes.List):
            mismatch(site, subject, self.expected, scope, ["write `[a, b]`"])
            return None
        items = site.node.items
        if len(items) < self.min_length or (self.max_length is not None and len(items) > self.max_length):
            count = (
                str(self.max_length) if self.max_length == self.min_length else f"at least {self.min_length}"
            )
            noun = "value" if count == "at least 1" else "values"
            message = f"{subject} needs a list of {count} {noun}, found {len(items)}"
            scope.report.add("KYN111", message, site.span, more=site.context)
            return None
        values = [self.item.read(item, subject, scope) for item in items]
        if any(value is None for value in values):
            return None
        if self.unique:
            for position, value in enumerate(values):
                if value in values[:position]:
                    message = f"`{value}` stands twice in {subject}"
                    scope.report.add("KYN101", message, items[position].span)
                    return None
        return tuple(values)


@dataclass(frozen=True)
class PairType:
    """One integer for both axes, or `[height, width]`; read as a pair. `word` is accepted as it is."""

    low: int = 1
    word: str | None = None

    @property
    def expected(self) -> str:
        return f"an integer or `[height, width]`{f' or `{self.word}`' if self.word else ''}"

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> tuple[int, int] | str | None:
        site = scope.resolve(node)
        if site is None:
            return None
        if self.word is not None and isinstance(site.node, nodes.Name) and site.node.name == self.word:
            return self.word
        integer = IntType(self.low)
        if isinstance(site.node, nodes.List):
            pair = ListType(integer, 2, 2).read(node, subject, scope)
            return (pair[0], pair[1]) if pair else None
        if not isinstance(site.node, nodes.Int):
            mismatch(site, subject, self.expected, scope)
            return None
        value = integer.read(node, subject, scope)
        return None if value is None else (value, value)


@dataclass(frozen=True)
class OptionalType:
    """A type whose default is None, which cannot be written."""

    inner: Type

    @property
    def expected(self) -> str:
        return self.inner.expected

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> Any | None:
        return self.inner.read(node, subject, scope)


class _Required:
    def __repr__(self) -> str:
        return "required"


REQUIRED: Final = _Required()


@dataclass(frozen=True)
class Field:
    """A key, an option or a positional value: its name, type, default, and a line for the reference."""

    name: str
    type: Type
    default: Any = REQUIRED
    doc: str = ""

    @property
    def is_required(self) -> bool:
        return self.default is REQUIRED


@dataclass(frozen=True)
class Signature:
    """What may follow a name: the first `positional` fields by position, all others by `key=value`."""

    fields: tuple[Field, ...] = ()
    positional: int = 0
    alias_of: str | None = None

    @property
    def options(self) -> tuple[Field, ...]:
        return self.fields[self.positional :]


@dataclass(frozen=True)
class ComponentType:
    """A name from a table, alone or called with options: `adam` or `adam(lr=0.1)`. Read as a `Component`."""

    what: str
    table: Mapping[str, Signature]

    @property
    def expected(self) -> str:
        return f"{'an' if self.what[0] in 'aeiou' else 'a'} {self.what}"

    def read(self, node: nodes.Value, subject: str, scope: Scope) -> Component | None:
        site = scope.resolve(node)
        if site is None:
            return None
        if isinstance(site.node, nodes.Call):
            word: str | None = site.node.name.name
            at = Site(site.node, site.span if site.param else site.node.name.span, site.param)
            args, options = site.node.args, site.node.options
        else:
            word, at, args, options = self.read_alone(site, subject, scope), site, (), ()
        if word is None:
            return None
        signature = self.table.get(word)
        if signature is None:
            unknown_word(at, self.what, word, self.table, scope, "KYN108")
            return None
        values = read_arguments(word, signature, args, options, at.span, scope)
        return None if values is None else Component(signature.alias_of or word, values, site.span)

    def read_alone(self, site: Site, subject: str, scope: Scope) -> str | None:
        """The name of a component without options."""
        called = next((name for name, signature in self.table.items() if signature.positional), None)
        if called and isinstance(site.node, nodes.String) and site.param is None:
            advice = f"write `{called}({quote(site.node.value)})`"
            mismatch(site, subject, f"`{called}(...)`", scope, [advice])
            return None
        return read_word(site, subject, self.expected, scope)


def read_arguments(
    name: str,
    signature: Signature,
    args: tuple[nodes.Value, ...],
    options: tuple[nodes.Option, ...],
    span: Span,
    scope: Scope,
) -> dict[str, Any] | None:
    """The values of a call or a layer line, defaults filled in, in the order of the signature."""
    ok = True
    values: dict[str, Any] = {}
    positional = signature.fields[: signature.positional]
    if len(args) > len(positional):
        takes = f"takes {len(positional) or 'no'} positional value{'s' if len(positional) != 1 else ''}"
        named = [f.name for f in signature.options]
        advice = f"options are written `{named[0]}=value`" if named else None
        extra = args[len(positional)].span.to(args[-1].span)
        scope.report.add("KYN113", f"`{name}` {takes}, found {len(args)}", extra, help=[advice])
        ok = False
    for item, arg in zip(positional, args, strict=False):
        values[item.name] = item.type.read(arg, f"`{item.name}` of `{name}`", scope)
        ok &= values[item.name] is not None
    ok &= _read_options(name, signature, options, values, scope)
    for item in signature.fields:
        if item.name in values:
            continue
        if item.is_required:
            is_positional = item in positional
            shape = f"{name} ... {item.name.upper()}" if is_positional else f"{item.name}=value"
            advice = f"`{item.name}`: {item.doc}" if item.doc else f"write `{shape}`"
            missing = f"`{name}` needs {'a value for ' if is_positional else ''}`{item.name}`"
            scope.report.add("KYN103", missing, span, help=[advice])
            ok = False
        values[item.name] = item.default
    return {item.name: values[item.name] for item in signature.fields} if ok else None


def _read_options(
    name: str,
    signature: Signature,
    options: tuple[nodes.Option, ...],
    values: dict[str, Any],
    scope: Scope,
) -> bool:
    ok = True
    known = {item.name: item for item in signature.options}
    seen: dict[str, Span] = {}
    for option in options:
        key, span = option.key.name, option.key.span
        if key in seen:
            scope.report.add(
                "KYN101", f"option `{key}` is given twice", span, more=[Label(seen[key], "first here")]
            )
            ok = False
        elif key in known:
            seen[key] = span
            values[key] = known[key].type.read(option.value, f"`{key}` of `{name}`", scope)
            ok &= values[key] is not None
        else:
            report_unknown_option(name, signature, option, scope)
            ok = False
    return ok


def report_unknown_option(name: str, signature: Signature, option: nodes.Option, scope: Scope) -> None:
    key = option.key.name
    known = [item.name for item in signature.options]
    near = nearest(key, known)
    advice = f"did you mean `{near}`?" if near else None
    if key in (item.name for item in signature.fields[: signature.positional]):
        advice = f"`{key}` is written by position, without its name"
    note = f"known options: {join_names(known)}" if known else f"`{name}` has no options"
    scope.report.add(
        "KYN109", f"unknown option `{key}` of `{name}`", option.key.span, notes=[note], help=[advice]
    )

"""Parameters: defaults from `params`, overrides from the command line, and the points of a sweep.

A value given with `--param key=value` is an integer if it reads as one, else a float, else a string. It also
pins a swept parameter: that axis then has no other points.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tilewright.core.diagnostics import Label, Reporter, Span, join_names, suggest
from tilewright.lang.load import Sources
from tilewright.lang.syntax import nodes
from tilewright.lang.types import COMMAND_LINE, describe

MAX_RUNS: Final = 1000
_OPTION: Final = "--param "


@dataclass
class Parameters:
    """What `$name` can mean: fixed values, and the values of each swept axis."""

    fixed: dict[str, nodes.Value] = field(default_factory=dict)
    axes: dict[str, tuple[nodes.Value, ...]] = field(default_factory=dict)
    overrides: dict[str, Span] = field(default_factory=dict)
    command_line: str = ""

    def points(self) -> Iterator[dict[str, nodes.Value]]:
        """The product of the axes, the last axis fastest; one empty point without axes."""
        for values in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))


def gather(sources: Sources, overrides: Sequence[str], report: Reporter) -> Parameters:
    """The parameters of a program. Each override is `key=value`; problems go to `report`."""
    params = Parameters()
    for name, entry in sources.params.items():
        if _is_plain(entry.value, f"parameter `{name}`", report):
            params.fixed[name] = entry.value
    block = sources.single.get("sweep")
    for statement in block.body if block else ():
        if isinstance(statement, nodes.Entry):
            _read_axis(statement, params, report)
    _read_overrides(overrides, params, report)
    runs = math.prod(len(values) for values in params.axes.values())
    if runs > MAX_RUNS and block:
        sizes = " x ".join(str(len(values)) for values in params.axes.values())
        report.add("KYN120", f"the sweep has {runs} runs, at most {MAX_RUNS} are allowed", block.span, sizes)
        params.axes = {name: values[:1] for name, values in params.axes.items()}
    return params


def _is_plain(value: nodes.Value, subject: str, report: Reporter) -> bool:
    """Whether a value refers to no parameter itself."""
    match value:
        case nodes.Param():
            report.add(
                "KYN110",
                f"{subject} needs a plain value, found `${value.name}`",
                value.span,
                help=["a parameter cannot be defined by another one"],
            )
            return False
        case nodes.List():
            return _are_plain(value.items, subject, report)
        case nodes.Call():
            inner = [*value.args, *(option.value for option in value.options)]
            return _are_plain(inner, subject, report)
        case _:
            return True


def _are_plain(values: Sequence[nodes.Value], subject: str, report: Reporter) -> bool:
    checked = [_is_plain(value, subject, report) for value in values]  # a list: every problem is reported
    return all(checked)


def _read_axis(entry: nodes.Entry, params: Parameters, report: Reporter) -> None:
    name, value = entry.key.name, entry.value
    if name in params.axes:
        report.add("KYN101", f"sweep axis `{name}` is defined twice", entry.key.span)
    elif not isinstance(value, nodes.List):
        report.add(
            "KYN117",
            f"sweep axis `{name}` needs a list, found {describe(value)}",
            value.span,
            help=[f"write `{name} = [a, b]`"],
        )
    elif not value.items:
        report.add("KYN117", f"sweep axis `{name}` has no values", value.span)
    elif _are_plain(value.items, f"sweep axis `{name}`", report):
        params.axes[name] = value.items


def _read_overrides(overrides: Sequence[str], params: Parameters, report: Reporter) -> None:
    known = [*params.fixed, *(name for name in params.axes if name not in params.fixed)]
    params.command_line = "\n".join(f"{_OPTION}{text}" for text in overrides)
    for line, text in enumerate(overrides, 1):
        key, equals, value = text.partition("=")
        start = len(_OPTION) + 1
        whole = Span(COMMAND_LINE, line, start, line, start + max(1, len(text)))
        if not equals or not key:
            report.add("KYN116", "a parameter is given as key=value", whole)
        elif key not in known:
            near = suggest(key, known)
            note = f"known parameters: {join_names(known)}" if known else "the program has no parameters"
            at = whole._replace(end_col=start + len(key))
            report.add(
                "KYN116",
                f"unknown parameter `{key}`",
                at,
                notes=[note],
                help=[f"did you mean `{near}`?" if near else None],
            )
        else:
            at = whole._replace(col=start + len(key) + 1, end_col=start + max(len(text), len(key) + 2))
            params.axes.pop(key, None)
            params.fixed[key] = parse_word(value, at)
            params.overrides[key] = at


def parse_word(text: str, span: Span) -> nodes.Value:
    """The value of a command-line word: an integer, else a finite float, else a string."""
    try:
        return nodes.Int(span, int(text), text)
    except ValueError:
        pass
    try:
        if math.isfinite(number := float(text)):
            return nodes.Float(span, number, text)
    except ValueError:
        pass
    return nodes.String(span, text)


def report_unused(
    params: Parameters, used: set[str], own: Mapping[str, nodes.Entry], report: Reporter
) -> None:
    """Report parameters that nothing refers to: overrides and axes as errors, defaults as warnings.

    `own` are the defaults that the main file defines; those of an import may serve other programs.
    """
    for name, span in params.overrides.items():
        if name not in used:
            report.add(
                "KYN116",
                f"parameter `{name}` is not used",
                span,
                "this would change nothing",
                help=[f"refer to it as `${name}`"],
            )
    for name, values in params.axes.items():
        if name not in used:
            near = suggest(name, used - set(params.axes))
            more = [Label(own[name].key.span, "the default is here")] if name in own else []
            report.add(
                "KYN117",
                f"sweep axis `{name}` is not used",
                values[0].span.to(values[-1].span),
                f"nothing refers to `${name}`, all runs would be the same",
                more=more,
                help=[f"did you mean `{near}`?" if near else f"refer to it as `${name}`"],
            )
    for name, entry in own.items():
        if name not in used and name not in params.axes and name not in params.overrides:
            report.warn(
                "KYN402",
                f"parameter `{name}` is not used",
                entry.key.span,
                help=[f"refer to it as `${name}`, or remove it"],
            )

"""Every operation of the op table has a place in every table that must know it."""

from __future__ import annotations

from conformance.cases import TABLE, cases, dtypes
from conformance.independent import INDEPENDENT
from tilewright.autodiff.vjp import NOT_DIFFERENTIABLE, RULES
from tilewright.graph.ir import OPS
from tilewright.graph.reference import MEANING


def test_every_operation_has_a_meaning() -> None:
    assert set(MEANING) == set(OPS) - {"input"}  # an input's meaning is the array that is bound to it


def test_every_operation_has_cases() -> None:
    assert set(TABLE) == set(OPS)
    assert [op for op in OPS if not all(cases(op, d) for d in dtypes(op))] == []


def test_every_operation_has_an_independent_expression() -> None:
    assert set(INDEPENDENT) == set(OPS) - {"input", "stop_gradient", "mark", "barrier", "custom", "host_call"}


def test_every_operation_has_a_derivative_or_a_reason_for_none() -> None:
    assert set(RULES) | set(NOT_DIFFERENTIABLE) == set(OPS)
    assert set(RULES) & set(NOT_DIFFERENTIABLE) == set()


def test_every_operation_says_what_it_does() -> None:
    assert [op for op, row in OPS.items() if not row.doc] == []

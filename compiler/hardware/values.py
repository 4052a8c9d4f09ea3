"""Operators and values as the tables of this folder see them."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.ir import Op, TensorType, Value


def short_name(op: Op) -> str:
    """The operator's name without its dialect, as the tables spell it."""
    return op.name.partition(".")[2]


def activations(op: Op) -> Iterator[tuple[Value, TensorType]]:
    """The tensors that flow through an operator: results and operands that are not known at compile time."""
    for value in (*op.operands, *op.results):
        if value is not None and isinstance(value.type, TensorType) and not is_parameter(value):
            yield value, value.type


def is_parameter(value: Value) -> bool:
    """Whether a value is a constant, plain or compressed, and so lies in the package, not in working memory."""
    op = value.op
    return op is not None and (op.defn.constant is not None or "constexpr_" in op.name)

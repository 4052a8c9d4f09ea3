"""Functions of upgrade.rules."""

from __future__ import annotations

from typing import Any

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import dims


def only_axis(x: Value, axis: int) -> int:
    """The one dimension of ``x``, from ``axis`` on, that is not 1; the last if all are 1, and -1 if there are several.

    A row that starts at ``axis`` then lies along that dimension alone.
    """
    shape = dims(x)
    first = axis + len(shape) if axis < 0 else axis
    wide = [i for i in range(first, len(shape)) if shape[i] != 1]
    if len(wide) > 1 or not shape:
        return -1
    return wide[0] if wide else len(shape) - 1


def split_sizes(b: RuleBuilder, m: Bindings) -> Any:
    """A Split whose sizes are an operand, with as many results as the old one has."""
    return b.op("onnx.Split", [m.x, tuple(m.s)], {"axis": m.a}, len(m.ys))

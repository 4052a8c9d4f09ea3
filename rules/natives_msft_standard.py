"""Operators of com.microsoft as a few standard ones.

Source: onnxruntime's docs/ContribOperators.md.
"""

from __future__ import annotations

import numpy as np

from compiler.ir import TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline


def scaled_silu(b: RuleBuilder, m: Bindings) -> Value:
    """A factor of more than one element is none that the operator takes."""
    scaled = b.op("onnx.Mul", [m.x, m.k if m.k is not None else np.asarray(m.a, m.x.type.dtype.numpy)])
    result: Value = b.op("onnx.Mul", [scaled, b.op("onnx.Sigmoid", [scaled])])
    return result


def distances(b: RuleBuilder, m: Bindings) -> Value:
    """The differences themselves, so that near rows keep their digits."""
    apart = b.op(
        "onnx.Sub", [b.op("onnx.Unsqueeze", [m.a, np.array([1])]), b.op("onnx.Unsqueeze", [m.b, np.array([0])])]
    )
    reduction = {"sqeuclidean": "onnx.ReduceSumSquare", "euclidean": "onnx.ReduceL2"}.get(m.m)
    if reduction is None:
        raise Decline(f"the metric is {m.m}")
    result: Value = b.op(reduction, [apart, np.array([2])], {"keepdims": 0})
    return result


def unfold(b: RuleBuilder, m: Bindings) -> Value:
    shape = m.x.type.shape if isinstance(m.x.type, TensorType) else None
    if shape is None:
        raise Decline("the rank is not known")
    axis = m.d % len(shape)
    length = shape[axis]
    if not isinstance(length, int):
        raise Decline("the length of the axis is not known")
    starts = np.arange(0, length - m.n + 1, m.s)
    windows = b.op("onnx.Gather", [m.x, starts[:, None] + np.arange(m.n)], {"axis": axis})
    last = [*range(axis + 1), *range(axis + 2, len(shape) + 1), axis + 1]
    result: Value = b.op("onnx.Transpose", [windows], {"perm": last})
    return result

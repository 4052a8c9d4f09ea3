"""Lowering of products and reductions to metal.*, where a rule in one line will not do.

Builders get what a rule matched and give what replaces it; see compiler/rewrite/build.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline, axis, shape
from rules.natives_metal import constant_of, made_by, number, reshaped, with_last_two_swapped


def matmul_of_vectors(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.MatMul where an operand is a vector: a row on the left, a column on the right."""
    a, c = m.a, m.b
    a = reshaped(b, a, (1, *shape(a))) if len(shape(a)) == 1 else a
    c = reshaped(b, c, (*shape(c), 1)) if len(shape(c)) == 1 else c
    return reshaped(b, b.op("metal.matmul", [a, c]), shape(m.y))


def gemm(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Gemm: a product, scaled, with a summand."""
    y = gemm_without_bias(b, m)
    if m.c is None:
        return y
    c = m.c if m.t == 1.0 else b.op("metal.mul", [m.c, number(b, m.t, m.c)])
    out: Value = b.op("metal.add", [y, c])
    return out


def gemm_without_bias(b: RuleBuilder, m: Bindings) -> Value:
    """``s · a · b``, each transposed if its attribute says so."""
    a = with_last_two_swapped(b, m.a) if m.ta else m.a
    c = with_last_two_swapped(b, m.b) if m.tb else m.b
    y: Value = b.op("metal.matmul", [a, c])
    return y if m.s == 1.0 else b.op("metal.mul", [y, number(b, m.s, y)])


def conv_transpose(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.ConvTranspose; the pads before follow from the shape of the result (operator documentation)."""
    n = len(shape(m.x)) - 2
    attributes = m.y.op.attributes
    strides = m.s or (1,) * n
    dilations = m.d or (1,) * n
    extra = attributes.get("output_padding") or (0,) * n
    pads = list(attributes.get("pads") or (0,) * (2 * n))
    if m.a in ("SAME_UPPER", "SAME_LOWER") or attributes.get("output_shape"):
        for i in range(n):
            full = strides[i] * (shape(m.x)[2 + i] - 1) + extra[i] + (shape(m.w)[2 + i] - 1) * dilations[i] + 1
            total = max(0, full - shape(m.y)[2 + i])
            pads[i] = total // 2 if m.a == "SAME_UPPER" else total - total // 2
    operands = [m.x, m.w, m.b] if m.b is not None else [m.x, m.w]
    how = {"strides": tuple(strides), "pads": tuple(pads[:n]), "dilations": tuple(dilations), "group": m.g}
    out: Value = b.op("metal.conv_transpose", operands, how, replaced=(m.y,))
    return out


def attention(b: RuleBuilder, m: Bindings) -> Value:
    """``softmax(scale · q · kᵀ + mask) · v``, where nobody else uses the weights."""
    weights, mask, scale = m.l, None, 1.0
    if _only_use(m.y.op.operands[0]) and made_by(weights, "metal.add") and _only_use(weights):
        first, second = weights.op.operands
        inner = first if _is_product(first) else second
        mask = second if inner is first else first
        weights = inner
    if made_by(weights, "metal.mul") or made_by(weights, "metal.div"):
        x, k = weights.op.operands
        factor = k.constant
        if factor is not None and factor.size == 1 and _only_use(weights):
            scale = float(factor.reshape(-1)[0])
            scale = scale if made_by(weights, "metal.mul") else 1.0 / scale
            weights = x
    if not (made_by(weights, "metal.matmul") and _only_use(weights) and _only_use(m.y.op.operands[0])):
        raise Decline("the weights are no product of queries and keys, or are used elsewhere")
    q, keys = weights.op.operands
    if shape(q)[:-2] != shape(m.y)[:-2] or shape(keys)[:-2] != shape(m.v)[:-2] or shape(keys)[:-2] != shape(q)[:-2]:
        raise Decline("heads are broadcast")
    if max(shape(q)[-1], shape(m.v)[-1]) > 256 or shape(q)[-2] == 1:
        raise Decline("heads are too large to be held in registers, or there is one query")
    operands = [q, with_last_two_swapped(b, keys), m.v, *([mask] if mask is not None else [])]
    out: Value = b.op("metal.attention", operands, {"scale": scale, "causal": False}, replaced=(m.y,))
    return out


def _is_product(value: Value) -> bool:
    if made_by(value, "metal.matmul"):
        return True
    return (made_by(value, "metal.mul") or made_by(value, "metal.div")) and made_by(
        value.op.operands[0], "metal.matmul"
    )


def _only_use(value: Value) -> bool:
    return value.use_count == 1


def _reduced(b: RuleBuilder, x: Value, kind: str, axes: Sequence[int], to: Value) -> Value:
    if not axes:
        return x
    y = b.op("metal.reduce", [x], {"kind": kind, "axes": tuple(sorted(set(axes)))})
    return reshaped(b, y, shape(to))


def reduce(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Reduce…: over all dimensions if no axes are given, unless that is to mean none."""
    rank = len(shape(m.x))
    axes = () if m.a is None else tuple(axis(int(i), rank) for i in np.asarray(constant_of(m.a, "axes")).reshape(-1))
    if not axes and not m.n:
        axes = tuple(range(rank))
    return _reduced(b, m.x, m.y.op.name.removeprefix("onnx.Reduce").lower(), axes, m.y)


def global_pool(b: RuleBuilder, m: Bindings) -> Value:
    """A reduction over all spatial dimensions."""
    kind = "mean" if "Average" in m.y.op.name else "max"
    return _reduced(b, m.x, kind, range(2, len(shape(m.x))), m.y)


def arg_max(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.ArgMax."""
    return _arg(b, m, "max")


def arg_min(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.ArgMin."""
    return _arg(b, m, "min")


def _arg(b: RuleBuilder, m: Bindings, kind: str) -> Value:
    dims = shape(m.x)
    a = axis(m.a, len(dims))
    attributes = {"kind": kind, "axis": a, "last": bool(m.l)}
    y = b.op("metal.arg_reduce", [m.x], attributes)
    return reshaped(b, y, shape(m.y))


def group_norm(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.GroupNormalization: a normalization of each group of channels."""
    dims = shape(m.x)
    x = reshaped(b, m.x, (dims[0], m.k, dims[1] // m.k, *dims[2:]))
    axes = tuple(range(2, len(dims) + 1))
    z = reshaped(b, b.op("metal.normalize", [x], {"axes": axes, "epsilon": m.e, "center": True}), dims)
    per_channel = (dims[1], *(1,) * (len(dims) - 2))
    scaled = b.op("metal.mul", [z, reshaped(b, m.g, per_channel)])
    out: Value = b.op("metal.add", [scaled, reshaped(b, m.b, per_channel)])
    return out

"""Operators of com.microsoft with branches, in onnx.* operators.

Source: onnxruntime's docs/ContribOperators.md, and its CPU kernels where that is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import I32, TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline, may_broadcast_to

#: What hides a key from the queries before it: far below any score, and no infinity.
HIDDEN = -1e30

#: The same for keys that a mask hides, where the model does not say.
MASKED = -10000.0


def _statistics_unused(m: Bindings) -> None:
    if any(y.use_count for y in m.ys[1:3]):
        raise Decline("the statistics are asked for")


def used_results(m: Bindings, *made: Value | None) -> tuple[Value, ...]:
    """What stands for the results; one that nobody uses stays."""
    return tuple(old if new is None or not old.use_count else new for old, new in zip(m.ys, made))


def _skipped(b: RuleBuilder, m: Bindings) -> Value:
    """x + skip + bias."""
    if not may_broadcast_to(m.skip, m.x):
        raise Decline("skip is larger than what it is added to")
    total: Value = b.op("onnx.Add", [m.x, m.skip])
    return total if m.bias is None else b.op("onnx.Add", [total, m.bias])


def skip_layer_norm(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """The fourth result is the sum before normalization."""
    _statistics_unused(m)
    total = _skipped(b, m)
    y = b.op("onnx.LayerNormalization", [total, m.scale, m.beta], {"axis": -1, "epsilon": m.e})
    return used_results(m, y, None, None, total)


def skip_rms_norm(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    _statistics_unused(m)
    total = _skipped(b, m)
    y = b.op("onnx.RMSNormalization", [total, m.scale], {"axis": -1, "epsilon": m.e})
    return used_results(m, y, None, None, total)


def embed_layer_norm(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """Without position ids, the positions are those in the sequence. The second result is how many tokens of the mask
    are one, zero without a mask."""
    for ids in (m.segments, m.mask, m.positions):
        if ids is not None and ids.type.shape != m.ids.type.shape:
            raise Decline("not one number for each token")
    total = b.op("onnx.Gather", [m.word, m.ids], {"axis": 0})
    if m.positions is not None:
        at = b.op("onnx.Gather", [m.position, m.positions], {"axis": 0})
    else:
        shape = m.ids.type.shape if isinstance(m.ids.type, TensorType) else None
        if shape is None or not isinstance(shape[-1], int):
            raise Decline("the length of the sequence is not known")
        at = b.op("onnx.Gather", [m.position, np.arange(shape[-1])], {"axis": 0})
    total = b.op("onnx.Add", [total, at])
    if m.segment is not None and m.segments is not None:
        total = b.op("onnx.Add", [total, b.op("onnx.Gather", [m.segment, m.segments], {"axis": 0})])
    y = b.op("onnx.LayerNormalization", [total, m.gamma, m.beta], {"axis": -1, "epsilon": m.e})
    count = None
    if len(m.ys) > 1 and m.ys[1].use_count:
        if m.mask is None:
            counted = b.op("onnx.Mul", [m.ids, np.int32(0)])
        else:
            counted = b.op("onnx.Cast", [b.op("onnx.Equal", [m.mask, np.int32(1)])], {"to": I32})
        count = b.op("onnx.ReduceSum", [counted, np.array([1])], {"keepdims": 0})
    return used_results(m, y, count, total)


def attention(b: RuleBuilder, m: Bindings) -> Value:
    """Self-attention of one projection, without a cache. A mask of (batch, keys) is positive for what may be
    seen."""
    a = m.a
    if m.past is not None or a.get("do_rotary"):
        raise Decline("a cache, or rotary positions")
    heads = a.get("num_heads")
    widths = m.w.type.shape if isinstance(m.w.type, TensorType) else None
    if not heads or widths is None or not isinstance(widths[1], int):
        raise Decline("the number of heads is not known")
    sizes = list(a.get("qkv_hidden_sizes") or [widths[1] // 3] * 3)
    projected = b.op("onnx.MatMul", [m.x, m.w])
    if m.bias is not None:
        projected = b.op("onnx.Add", [projected, m.bias])
    parts = b.op("onnx.Split", [projected, np.array(sizes)], {"axis": 2}, results=3)
    q, k, v = (
        b.op("onnx.Transpose", [b.op("onnx.Reshape", [p, np.array([0, 0, heads, s // heads])])], {"perm": (0, 2, 1, 3)})
        for p, s in zip(parts, sizes)
    )
    dtype = m.x.type.dtype.numpy
    # The mask behind what is added, as in onnxruntime: beside −10⁴ numbers of single precision are 2⁻¹⁰ apart, and
    # where a whole row is hidden the order of sums shows. A mask of one element stands for none (attention_base.cc).
    summands: list[Any] = [m.add]
    if m.mask is not None and m.mask.type.shape != (1, 1):
        if m.mask.type.rank != 2:
            raise Decline("a mask of another form than (batch, keys)")
        summands.append(hidden_keys(b, m.mask, dtype, a.get("mask_filter_value")))
    if a.get("unidirectional"):
        shape = m.x.type.shape
        if shape is None or not isinstance(shape[1], int):
            raise Decline("the length of the sequence is not known")
        summands.append(np.triu(np.full((shape[1], shape[1]), max(HIDDEN, float(np.finfo(dtype).min)), dtype), 1))
    seen = attend(b, q, k, v, a.get("scale") or (sizes[0] // heads) ** -0.5, summands)
    joined = b.op("onnx.Transpose", [seen], {"perm": (0, 2, 1, 3)})
    result: Value = b.op("onnx.Reshape", [joined, np.array([0, 0, sizes[2]])])
    return result


def attend(
    b: RuleBuilder, q: Value, k: Value, v: Value, scale: float, summands: Sequence[Any], cap: float = 0.0
) -> Value:
    """``softmax(scale · q kᵀ + summands) v`` of (batch, heads, length, size); a summand may be None, for none. Scores
    beyond ``cap``, if it is not zero, are bent to it before anything is added: ``cap · tanh(x / cap)``."""
    dtype = q.type.dtype.numpy  # type: ignore[union-attr]
    keys = b.op("onnx.Transpose", [k], {"perm": (0, 1, 3, 2)})
    scores = b.op("onnx.Mul", [b.op("onnx.MatMul", [q, keys]), dtype.type(scale)])
    if cap:
        scores = b.op("onnx.Mul", [b.op("onnx.Tanh", [b.op("onnx.Div", [scores, dtype.type(cap)])]), dtype.type(cap)])
    for one in summands:
        if one is not None:
            scores = b.op("onnx.Add", [scores, one])
    return b.op("onnx.MatMul", [b.op("onnx.Softmax", [scores], {"axis": -1}), v])  # type: ignore[no-any-return]


def hidden_keys(b: RuleBuilder, mask: Value, dtype: Any, hidden: float | None) -> Value:
    """What to add to scores of (batch, heads, queries, keys) for a mask that is positive for what may be seen: of
    (batch, keys), or (batch, queries, keys)."""
    axes = {2: [1, 2], 3: [1]}.get(mask.type.rank or 0) if isinstance(mask.type, TensorType) else None
    if axes is None:
        raise Decline("a mask of another form than (batch, keys) or (batch, queries, keys)")
    seen = b.op("onnx.Greater", [mask, np.array(0, mask.type.dtype.numpy)])  # type: ignore[union-attr]
    lifted = b.op("onnx.Unsqueeze", [seen, np.array(axes)])
    result: Value = b.op("onnx.Where", [lifted, dtype.type(0), dtype.type(MASKED if hidden is None else hidden)])
    return result


def fused_conv(b: RuleBuilder, m: Bindings) -> Value:
    attributes = {
        "auto_pad": m.p, "dilations": m.d, "group": m.g, "kernel_shape": m.k, "pads": m.q, "strides": m.s,
    }  # fmt: skip
    y = b.op("onnx.Conv", [m.x, m.w, m.b], attributes)
    if m.z is not None:
        y = b.op("onnx.Add", [y, m.z])
    return _activated(b, y, m.f, [float(v) for v in m.c or ()])


def fused_gemm(b: RuleBuilder, m: Bindings) -> Value:
    y = b.op("onnx.Gemm", [m.a, m.b, m.c], {"alpha": m.s, "beta": m.t, "transA": m.p, "transB": m.q})
    return _activated(b, y, m.f, [])


def _activated(b: RuleBuilder, y: Value, name: str | None, c: list[float]) -> Value:
    """An activation by its name and its parameters."""
    match name:
        case None | "":
            return y
        case "Relu" | "Tanh" | "Sigmoid":
            return b.op(f"onnx.{name}", [y])  # type: ignore[no-any-return]
        case "LeakyRelu" if len(c) == 1:
            return b.op("onnx.LeakyRelu", [y], {"alpha": c[0]})  # type: ignore[no-any-return]
        case "HardSigmoid" if len(c) == 2:
            return b.op("onnx.HardSigmoid", [y], {"alpha": c[0], "beta": c[1]})  # type: ignore[no-any-return]
        case "Clip" if len(c) == 2:
            bounds = [np.asarray(v, y.type.dtype.numpy) for v in c]  # type: ignore[union-attr]
            return b.op("onnx.Clip", [y, *bounds])  # type: ignore[no-any-return]
    raise Decline(f"the activation is {name}")

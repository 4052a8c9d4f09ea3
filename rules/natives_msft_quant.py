"""Quantized operators of com.microsoft in onnx.* operators.

Source: onnxruntime's docs/ContribOperators.md, and its CPU kernels where that is silent.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler import ir
from compiler.ir import F32, TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline


def concat(b: RuleBuilder, m: Bindings) -> Value:
    """Behind scale and zero point of the result, each part has its own."""
    parts = [m.a, m.sa, m.za, m.b, m.sb, m.zb, *m.more]
    if len(parts) % 3:
        raise Decline("a part has no scale or no zero point")
    floats = [b.op("onnx.DequantizeLinear", parts[i : i + 3]) for i in range(0, len(parts), 3)]
    joined = b.op("onnx.Concat", floats, {"axis": m.axis})
    return b.op("onnx.QuantizeLinear", [joined, m.s, m.z])  # type: ignore[no-any-return]


def _product(b: RuleBuilder, left: list[Value | None], right: list[Value | None], scales: list[Value]) -> Value:
    """The product of integers, each with its zero point, as a float, times scales."""
    total = b.op("onnx.MatMulInteger", [left[0], right[0], left[1], right[1]])
    y: Value = b.op("onnx.Cast", [total], {"to": F32})
    factor = b.op("onnx.Mul", scales) if len(scales) == 2 else scales[0]
    return b.op("onnx.Mul", [y, factor])  # type: ignore[no-any-return]


def _scale_fits(scale: Value, columns: Value) -> None:
    """Raises Decline unless there is one scale, or one for each column of (inner, columns)."""
    one, many = scale.type, columns.type
    sizes = one.shape if isinstance(one, TensorType) else None
    count = many.shape[-1] if isinstance(many, TensorType) and many.shape else None
    if sizes is None or len(sizes) > 1 or (sizes and sizes[0] not in (1, count)):
        raise Decline("scales that are neither one nor one a column")


def _with_bias(b: RuleBuilder, y: Value, bias: Value | None) -> Value:
    """The sum with one number for each column.

    Raises:
        Decline: the bias has another form.
    """
    if bias is None:
        return y
    if bias.type.shape != y.type.shape[-1:]:  # type: ignore[union-attr, index]
        raise Decline("a bias that is not one number a column")
    return b.op("onnx.Add", [y, bias])  # type: ignore[no-any-return]


def matmul_to_float(b: RuleBuilder, m: Bindings) -> Value:
    _scale_fits(m.sb, m.b)
    if m.sa.type.shape not in ((), (1,)):
        raise Decline("a scale for each row")
    return _with_bias(b, _product(b, [m.a, m.za], [m.b, m.zb], [m.sa, m.sb]), m.bias)


def dynamic_matmul(b: RuleBuilder, m: Bindings) -> Value:
    _scale_fits(m.sb, m.b)
    a, scale, zero = b.op("onnx.DynamicQuantizeLinear", [m.a], results=3)
    return _with_bias(b, _product(b, [a, zero], [m.b, m.zb], [scale, m.sb]), m.bias)


def gemm(b: RuleBuilder, m: Bindings) -> Value:
    if 0 in m.a.type.shape or 0 in m.b.type.shape:
        raise Decline("there is nothing to multiply")
    a = b.op("onnx.Transpose", [m.a], {"perm": (1, 0)}) if m.p else m.a
    w = b.op("onnx.Transpose", [m.b], {"perm": (1, 0)}) if m.q else m.b
    total = b.op("onnx.MatMulInteger", [a, w, m.za, m.zb])
    if m.c is not None:
        total = b.op("onnx.Add", [total, m.c])
    scale = b.op("onnx.Mul", [b.op("onnx.Mul", [m.sa, m.sb]), np.float32(m.k)])
    y: Value = b.op("onnx.Mul", [b.op("onnx.Cast", [total], {"to": F32}), scale])
    return y if m.s is None else b.op("onnx.QuantizeLinear", [y, m.s, m.z])  # type: ignore[no-any-return]


def matmul_of_bits(b: RuleBuilder, m: Bindings) -> Value:
    """MatMulNBits: a row of packed weights for each column of the result, in blocks along the inner dimension."""
    if m.bits not in (4, 8):
        raise Decline(f"weights of {m.bits} bits")
    if m.g is not None:
        raise Decline("blocks in another order")
    if m.K % m.block:
        raise Decline("a last block that is not whole")
    blocks = m.K // m.block
    packed, scale = m.w.constant, m.s.constant
    if packed.size * 8 != m.N * m.K * m.bits or scale.size != m.N * blocks:
        raise Decline("weights or scales of another size than K, N and the blocks say")
    scale = scale.reshape(m.N, blocks)
    rows = unpacked(packed.reshape(m.N, blocks, -1), m.bits).reshape(m.N, m.K)
    zero = np.full((m.N, blocks), 1 << (m.bits - 1), np.uint8)
    if m.z is not None:
        given = m.z.constant
        if given.dtype.kind == "f":
            raise Decline("zero points that are floats")
        zero = unpacked(given.reshape(m.N, -1), m.bits)[:, :blocks]
    dtype = ir.dtype(f"u{m.bits}").numpy
    held = [b.constant(np.ascontiguousarray(one), "onnx") for one in (rows.astype(dtype), scale, zero.astype(dtype))]
    weights = b.op("onnx.DequantizeLinear", held, {"axis": 1, "block_size": m.block})
    y: Value = b.op("onnx.MatMul", [m.x, b.op("onnx.Transpose", [weights], {"perm": (1, 0)})])
    return y if m.bias is None else b.op("onnx.Add", [y, m.bias])  # type: ignore[no-any-return]


def unpacked(array: Any, bits: int) -> Any:
    """Bytes as numbers of so many bits along the last dimension, the lower half of a byte first."""
    if bits == 8:
        return array
    return np.stack([array & 15, array >> 4], -1).reshape(*array.shape[:-1], -1)

"""Lowering of what is stored quantized to metal.dequantize, constants as they are stored.

Builders get what a rule matched and give what replaces it; see compiler/rewrite/build.py.
"""

from __future__ import annotations

import numpy as np

from compiler import ir
from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline, axis, shape
from rules.natives_metal import Array, constant_of
from rules.natives_msft_quant import unpacked


def stored_quantized(b: RuleBuilder, x: Value, scale: Array, zero: Array | None, axis_: int, block: int) -> Value:
    """A constant that is brought back where it is read, its scale and zero point as onnx.DequantizeLinear has them."""
    if scale.size == 1:
        scale, block = scale.reshape(()), 0
    operands = [x, b.constant(scale, "metal")]
    if zero is not None and zero.any():
        operands.append(b.constant(zero.astype(np.float32).reshape(scale.shape), "metal"))
    out: Value = b.op("metal.dequantize", operands, {"axis": axis_, "block": block})
    return out


def transposed_weights(b: RuleBuilder, m: Bindings) -> Value:
    """The transpose of a constant that is stored quantized: of what is stored."""
    if not m.p:
        raise Decline("there is nothing to transpose")
    x = b.constant(np.ascontiguousarray(constant_of(m.w, "the weights").transpose(m.p)), "metal")
    scale = constant_of(m.s, "the scales")
    zero = None if m.z is None else constant_of(m.z, "the zero points")
    if m.k:
        scale, zero = scale.transpose(m.p), None if zero is None else zero.transpose(m.p)
    return stored_quantized(b, x, scale, zero, m.p.index(m.a), m.k)


def matmul_of_bits(b: RuleBuilder, m: Bindings) -> Value:
    """msft.MatMulNBits: weights of 4 or 8 bits in blocks along the inner dimension, a row for each of the columns."""
    if m.bits not in (4, 8):
        raise Decline(f"weights of {m.bits} bits")
    blocks = -(-m.K // m.block)
    packed, scale = constant_of(m.w, "the weights"), constant_of(m.s, "the scales").reshape(m.N, blocks)
    rows = unpacked(packed.reshape(m.N, blocks, -1), m.bits).reshape(m.N, blocks * m.block)[:, : m.K]
    zero = np.full((m.N, blocks), 1 << (m.bits - 1), np.uint8)
    if m.z is not None:
        given = constant_of(m.z, "the zero points")
        if given.dtype.kind == "f":
            raise Decline("zero points that are floats")
        zero = unpacked(given.reshape(m.N, -1), m.bits)[:, :blocks]
    dtype = ir.dtype(f"u{m.bits}").numpy
    x = b.constant(np.ascontiguousarray(rows.T.astype(dtype)), "metal")
    weights = stored_quantized(b, x, np.ascontiguousarray(scale.T), np.ascontiguousarray(zero.T), 0, m.block)
    y: Value = b.op("metal.matmul", [m.x, weights])
    return y


def dequantize(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.DequantizeLinear per tensor or per axis: ``(x − z) · s``; constants stay as they are stored."""
    rank, to = len(shape(m.x)), m.y.type.dtype
    scale = constant_of(m.s, "the scale")
    zero = None if m.z is None else constant_of(m.z, "the zero point")
    if zero is not None and not zero.any():
        zero = None
    if m.x.constant is not None:
        x = m.x
        a = axis(m.a, rank) if rank else 0
        if zero is not None and zero.dtype.itemsize > 2:  # a float does not hold it, but may hold the difference
            x, zero = b.constant(_difference(x.constant, zero, a, m.k), "metal"), None
        if m.s.type.dtype is not to:
            scale = scale.astype(np.float32)
        out = stored_quantized(b, x, scale, zero, a, m.k)
    else:
        if m.k:
            raise Decline("blocks of what is computed at run time")

        def along(array: Array) -> Array:
            if array.size == 1:
                return array.reshape(())
            return array.reshape([-1 if i == axis(m.a, rank) else 1 for i in range(rank)])

        x = m.x
        if zero is not None and zero.dtype.itemsize > 2:
            x, zero = b.op("metal.sub", [x, b.constant(along(zero), "metal")]), None
        x = b.op("metal.cast", [x], {"to": ir.F32})
        if zero is not None:
            x = b.op("metal.sub", [x, b.constant(along(zero).astype(np.float32), "metal")])
        out = b.op("metal.mul", [x, b.constant(along(scale).astype(np.float32), "metal")])
    return out if out.type.dtype is to else b.op("metal.cast", [out], {"to": to})  # type: ignore[no-any-return]


def _difference(x: Array, zero: Array, axis_: int, block: int) -> Array:
    """What is left of integers of 32 bits without their zero points."""
    if zero.size > 1 and block:
        zero = np.repeat(zero, block, axis_)[tuple(map(slice, x.shape))]
    elif zero.size > 1:
        zero = zero.reshape([-1 if i == axis_ else 1 for i in range(x.ndim)])
    left = x.astype(np.int64) - (zero.reshape(()) if zero.size == 1 else zero)
    if np.abs(left).max(initial=0) >= 2**31:
        raise Decline("differences to zero points that 32 bits do not hold")
    return np.asarray(left.astype(x.dtype))

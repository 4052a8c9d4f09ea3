"""Quantized numbers: quantizing and dequantizing, Core ML's compressed weights among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import F16, F32, DType, TensorType, Value
from compiler.ir.dtypes import F8E8M0
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_narrow import rounded

Array = np.ndarray[Any, Any]
Made = Any  # a value, or an array that becomes a constant

#: Weights of fewer elements are written as floats: there is nothing to be gained from compressing a bias.
LEAST_COMPRESSED = 1024


def tensor_type(v: Value) -> TensorType:
    """The type of a value that must be a tensor."""
    if not isinstance(v.type, TensorType):
        raise Decline("not a tensor")
    return v.type


def rank_of(v: Value) -> int:
    """The rank of a value, which must be known."""
    rank = tensor_type(v).rank
    if rank is None:
        raise Decline("rank not known")
    return rank


def made(v: Value | None) -> Made | None:
    """A constant as its array, another value as it is."""
    return v if v is None or v.constant is None else v.constant


def _range(dtype: DType) -> tuple[int, int]:
    if not dtype.is_integer:
        raise Decline("quantized to floats")
    if dtype.is_signed:
        return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1
    return 0, (1 << dtype.bits) - 1


def _spread(b: RuleBuilder, v: Value | None, shape: Sequence[int]) -> Made | None:
    """A scale or zero point with one element for each block of a tensor of ``shape``, repeated to that shape."""
    if v is None or v.constant is not None:
        return None if v is None else blocked(v.constant, shape)
    have, out = list(tensor_type(v).static_shape) if tensor_type(v).is_static else [], v
    if len(have) != len(shape):
        raise Decline("blocks of a size that is not known")
    for axis, want in enumerate(shape):
        if have[axis] == want:
            continue
        if have[axis] == 0 or want % have[axis]:
            raise Decline("blocks do not fill the tensor")
        rest = have[axis + 1 :]
        column = b.op("mil.reshape", [out, np.array([math.prod(have[: axis + 1]), 1, math.prod(rest)], np.int32)])
        rows = b.op("mil.tile", [column, np.array([1, want // have[axis], 1], np.int32)])
        have[axis] = want
        out = b.op("mil.reshape", [rows, np.array(have, np.int32)])
    return out


def is_small_float(dtype: DType) -> bool:
    """Whether numbers of the type are rounded to fewer digits than Core ML computes with, and hold signs."""
    return dtype.is_float and dtype.bits <= 8 and dtype is not F8E8M0


def _ios(b: RuleBuilder) -> int:
    return getattr(b.target, "ios", None) or 0


def as_float(b: RuleBuilder, x: Made, dtype: DType = F32) -> Made:
    """``x`` in ``dtype``, by a cast unless it has it."""
    if isinstance(x, Value):
        return (
            x if tensor_type(x).dtype is dtype else b.op("mil.cast", [x], {"dtype": "fp16" if dtype is F16 else "fp32"})
        )
    return x.astype(dtype.numpy)


def shaped(b: RuleBuilder, v: Made, rank: int, axis: int) -> Made:
    """A scale or zero point, to be broadcast against a tensor of ``rank``."""
    shape = v.type.shape if isinstance(v, Value) else v.shape  # type: ignore[union-attr]
    if shape is None:
        raise Decline("the shape of a scale is not known")
    if len(shape) == 0:
        return v
    if len(shape) != 1:
        raise Decline("a scale for each block")
    to = [1] * rank
    if shape[0] == 1:
        if rank == 0 and isinstance(v, Value):
            return b.op("mil.squeeze", [v], {"axes": (0,)})
        to = []
    else:
        if rank == 0:
            raise Decline("scales along an axis of a number")
        to[axis % rank] = -1
    return v.reshape(to) if not isinstance(v, Value) else b.op("mil.reshape", [v, np.array(to or [1], np.int32)])


def blocked(array: Array, shape: Sequence[int]) -> Array:
    """An array with one element for each block of a tensor, repeated to the tensor's shape."""
    for axis, (have, want) in enumerate(zip(array.shape, shape, strict=True)):
        if have != want:
            if have == 0 or want % have:
                raise Decline("blocks do not fill the tensor")
            array = np.repeat(array, want // have, axis)
    return array


def lower_quantize(b: RuleBuilder, m: Bindings) -> Value:
    """clip(round(x / scale) + zero point), half to even; the zero point of narrow floats is 0."""
    to = tensor_type(m.y).dtype
    if is_small_float(to) and m.zp is not None and m.zp.constant is not None and np.any(m.zp.constant):
        raise Decline("floats that are moved by a zero point, which ONNX does not have")
    rank = rank_of(m.x)
    if m.block:
        if not tensor_type(m.x).is_static:
            raise Decline("the shape of what is quantized in blocks is not known")
        shape = tensor_type(m.x).static_shape
        scale: Made = _spread(b, m.scale, shape)
        zero: Made = _spread(b, m.zp, shape)
    else:
        if m.p is None and _is_stored(b, m, to):
            each = m.scale.constant.ndim == 1 and m.scale.constant.size != 1
            attributes = {"output_dtype": "int8" if to.is_signed else "uint8", "axis": m.a % rank if each else None}
            zero = None if m.zp is None else m.zp.constant
            scale = m.scale.constant
            if not each:
                scale, zero = scale.reshape(()), None if zero is None else zero.reshape(())
            return b.op("mil.quantize", [m.x, zero, scale], attributes, replaced=(m.y,))  # type: ignore[no-any-return]
        scale, zero = shaped(b, made(m.scale), rank, m.a), None
        if m.zp is not None:
            zero = shaped(b, made(m.zp), rank, m.a)
    if m.p not in (None, F16, F32):
        raise Decline("the quotient is computed in a type that the target does not have")
    halves = (m.p or tensor_type(m.scale).dtype) is F16  # what the quotient is rounded to decides ties
    x, scale = (_in_halves(b, v) if halves else v for v in (m.x, scale))
    x = b.op("mil.real_div", [as_float(b, x), as_float(b, scale)])
    if halves:
        x = as_float(b, _in_halves(b, x))
    if is_small_float(to):
        return rounded(b, x, to, bool(m.s) or to.bits < 8)
    return requantized(b, x, zero, to, m.y)


def _in_halves(b: RuleBuilder, v: Made) -> Made:
    """``v`` rounded to half."""
    return as_float(b, v, F16)


def requantized(b: RuleBuilder, x: Value, zero: Made | None, to: DType, y: Value) -> Value:
    """Float ``x`` rounded, moved by the zero point, and cut to the range of ``to``."""
    low, high = _range(to)
    rounded = b.op("mil.round", [x])
    if zero is not None and (isinstance(zero, Value) or np.any(zero)):
        rounded = b.op("mil.add", [rounded, as_float(b, zero)])
    inside = b.op("mil.clip", [rounded, float(low), float(high)])
    result: Value = b.op("mil.cast", [inside], {"dtype": "int32"}, replaced=(y,))
    return result


def _is_stored(b: RuleBuilder, m: Bindings, to: DType) -> bool:
    """Whether the result is only dequantized again, so that Core ML's own pair of operators can do it."""
    if _ios(b) < 17 or to.name not in ("i8", "u8") or m.scale.constant is None:
        return False
    if tensor_type(m.x).dtype is not tensor_type(m.scale).dtype or (m.zp is not None and m.zp.constant is None):
        return False
    return all(
        u.name == "onnx.DequantizeLinear" and u.operands[0] is m.y and not u.attributes.get("block_size")
        and all(v is None or v.constant is not None for v in u.operands[1:])
        and u.operands[1].type.dtype in (F16, F32)
        for u in m.y.users
    )  # fmt: skip


def lower_dequantize(b: RuleBuilder, m: Bindings) -> Value:
    """(x − zero point) scale: compressed weights for constants, mil.dequantize for what mil.quantize gave, else
    arithmetic."""
    have = tensor_type(m.x).dtype
    if not is_small_float(have):
        _range(have)  # declines floats
    to = tensor_type(m.y).dtype
    if to not in (F16, F32):
        raise Decline(f"dequantized to {to}")
    rank = rank_of(m.x)
    if m.x.constant is not None and m.scale.constant is not None and (m.zp is None or m.zp.constant is not None):
        return _dequantized_constant(b, m, to)
    if m.block:
        if not tensor_type(m.x).is_static:
            raise Decline("the shape of what is quantized in blocks is not known")
        shape = tensor_type(m.x).static_shape
        scale: Made = _spread(b, m.scale, shape)
        zero: Made = _spread(b, m.zp, shape)
    else:
        if m.x.op is not None and m.x.op.name == "mil.quantize":
            each = m.scale.constant.ndim == 1 and m.scale.constant.size != 1
            scale, zero = m.scale.constant, None if m.zp is None else m.zp.constant
            if not each:
                scale, zero = scale.reshape(()), None if zero is None else zero.reshape(())
            return b.op(  # type: ignore[no-any-return]
                "mil.dequantize", [m.x, zero, scale], {"axis": m.a % rank if each else None}, replaced=(m.y,)
            )
        scale = shaped(b, made(m.scale), rank, m.a)
        zero = None if m.zp is None else shaped(b, made(m.zp), rank, m.a)
    x = as_float(b, m.x, to)
    if zero is not None and (isinstance(zero, Value) or np.any(zero)):
        x = b.op("mil.sub", [x, as_float(b, zero, to)])
    result: Value = b.op("mil.mul", [x, as_float(b, scale, to)])
    return result


def _dequantized_constant(b: RuleBuilder, m: Bindings, to: DType) -> Value:
    data: Array = m.x.constant
    scale: Array = m.scale.constant
    zero: Array | None = None if m.zp is None else m.zp.constant
    have = tensor_type(m.x).dtype
    if scale.size == 1:
        scale, zero = scale.reshape(()), None if zero is None else zero.reshape(())
    compressed = data.size >= LEAST_COMPRESSED and scale.dtype == to.numpy
    if compressed and have.name in ("i8", "u8") and scale.ndim <= 1 and _ios(b) >= 16 and not m.block:
        if zero is None:
            zero = np.zeros(scale.shape, data.dtype)
        axis = m.a % data.ndim if scale.ndim else 0
        return b.op(  # type: ignore[no-any-return]
            "mil.constexpr_affine_dequantize", [data, zero, scale], {"axis": np.asarray(axis, np.int32)},
            replaced=(m.y,),
        )  # fmt: skip
    if scale.ndim == 1 and not m.block:
        to_shape = [1] * data.ndim
        to_shape[m.a % data.ndim] = -1
        scale, zero = scale.reshape(to_shape), None if zero is None else zero.reshape(to_shape)
    if compressed and have.name in ("i4", "u4", "i8", "u8") and _ios(b) >= 18:
        scale = scale.reshape((1,) * data.ndim) if scale.ndim == 0 else scale
        if zero is not None:
            zero = zero.reshape(scale.shape)
        if all(s and d % s == 0 for s, d in zip(scale.shape, data.shape)):
            operands = [data, scale, zero]
            return b.op("mil.constexpr_blockwise_shift_scale", operands, {}, replaced=(m.y,))  # type: ignore[no-any-return]
    if m.block:
        scale, zero = blocked(scale, data.shape), None if zero is None else blocked(zero, data.shape)
    plain = data.astype(np.float32)
    if zero is not None:
        plain = plain - zero.astype(np.float32)
    result: Value = b.constant((plain * scale.astype(np.float32)).astype(to.numpy), "mil")
    return result


def lower_dynamic_quantize(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """x in the 256 steps of its own range, the size of a step, and where 0 lies."""
    y, scale, zero = m.ys
    x = as_float(b, m.x)
    if rank_of(m.x) == 0:
        raise Decline("a scalar")
    inside, step, at = in_its_range(b, x, rank_of(m.x), (scale,))
    quantized = b.op("mil.cast", [inside], {"dtype": "int32"}, replaced=(y,))
    return quantized, step, b.op("mil.cast", [at], {"dtype": "int32"}, replaced=(zero,))


def in_its_range(
    b: RuleBuilder, x: Value, rank: int, scale: tuple[Value, ...] | None = None
) -> tuple[Value, Value, Value]:
    """The range of x, widened to hold 0, mapped to 0 … 255 (onnxruntime's GetQuantizationParameter).

    Args:
        scale: what the size of a step will stand for, if it does.

    Returns:
        The whole numbers as floats, the size of a step, and where 0 lies.
    """
    axes = list(range(rank))
    low = b.op("mil.minimum", [b.op("mil.reduce_min", [x], {"axes": axes, "keep_dims": False}), np.float32(0)])
    high = b.op("mil.maximum", [b.op("mil.reduce_max", [x], {"axes": axes, "keep_dims": False}), np.float32(0)])
    step = b.op("mil.real_div", [b.op("mil.sub", [high, low]), np.float32(255)])
    # All zeros: any scale will do, and onnxruntime's is 1.
    step = b.op("mil.select", [b.op("mil.equal", [high, low]), np.float32(1), step], replaced=scale)
    at = b.op("mil.real_div", [b.op("mil.sub", [np.float32(0), low]), step])
    at = b.op("mil.round", [b.op("mil.clip", [at, 0.0, 255.0])])
    moved = b.op("mil.add", [b.op("mil.round", [b.op("mil.real_div", [x, step])]), at])
    return b.op("mil.clip", [moved, 0.0, 255.0]), step, at

"""Quantized numbers: ONNX's operators on them, and Core ML's compressed weights.

Where Core ML has no operator for it, quantized arithmetic is done on the integers themselves, held in i32 or, where
that is exact, in f32; what f32 holds exactly are integers up to 2²⁴.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import F16, F32, DType, TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline

Array = np.ndarray[Any, Any]
Made = Any  # a value, or an array that becomes a constant

#: Weights of fewer elements are written as floats: there is nothing to be gained from compressing a bias.
LEAST_COMPRESSED = 1024
#: Integers up to this one are exact in f32.
_EXACT = 1 << 24


def _type(v: Value) -> TensorType:
    if not isinstance(v.type, TensorType):
        raise Decline("not a tensor")
    return v.type


def _rank(v: Value) -> int:
    rank = _type(v).rank
    if rank is None:
        raise Decline("rank not known")
    return rank


def _made(v: Value | None) -> Made | None:
    """A constant as its array, another value as it is."""
    return v if v is None or v.constant is None else v.constant


def _range(dtype: DType) -> tuple[int, int]:
    if not dtype.is_integer:
        raise Decline("quantized to floats")
    if dtype.is_signed:
        return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1
    return 0, (1 << dtype.bits) - 1


def _ios(b: RuleBuilder) -> int:
    return getattr(b.target, "ios", None) or 0


def _float(b: RuleBuilder, x: Made, dtype: DType = F32) -> Made:
    if isinstance(x, Value):
        return x if _type(x).dtype is dtype else b.op("mil.cast", [x], {"dtype": "fp16" if dtype is F16 else "fp32"})
    return x.astype(dtype.numpy)


def _int(b: RuleBuilder, x: Made) -> Made:
    if isinstance(x, Value):
        return x if _type(x).dtype.name == "i32" else b.op("mil.cast", [x], {"dtype": "int32"})
    return x.astype(np.int32)


_NUMPY = {"mil.add": np.add, "mil.sub": np.subtract, "mil.mul": np.multiply, "mil.real_div": np.divide}


def _compute(b: RuleBuilder, name: str, x: Made, y: Made) -> Made:
    if not isinstance(x, Value) and not isinstance(y, Value):
        return _NUMPY[name](x, y)
    return b.op(name, [x, y])


def _shaped(b: RuleBuilder, v: Made, rank: int, axis: int) -> Made:
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


def _blocked(array: Array, shape: Sequence[int]) -> Array:
    """An array with one element for each block of a tensor, repeated to the tensor's shape."""
    for axis, (have, want) in enumerate(zip(array.shape, shape, strict=True)):
        if have != want:
            if have == 0 or want % have:
                raise Decline("blocks do not fill the tensor")
            array = np.repeat(array, want // have, axis)
    return array


# ---- quantize and dequantize


def lower_quantize(b: RuleBuilder, m: Bindings) -> Value:
    """clip(round(x / scale) + zero point), half to even."""
    to = _type(m.y).dtype
    _range(to)  # declines where the result is a float
    rank = _rank(m.x)
    if m.block:
        if m.scale.constant is None or (m.zp is not None and m.zp.constant is None) or not _type(m.x).is_static:
            raise Decline("scales of blocks are computed")
        shape = _type(m.x).static_shape
        scale: Made = _blocked(m.scale.constant, shape)
        zero: Made = None if m.zp is None else _blocked(m.zp.constant, shape)
    else:
        if _is_stored(b, m, to):
            each = m.scale.constant.ndim == 1 and m.scale.constant.size != 1
            attributes = {"output_dtype": "int8" if to.is_signed else "uint8", "axis": m.a % rank if each else None}
            zero = None if m.zp is None else m.zp.constant
            scale = m.scale.constant
            if not each:
                scale, zero = scale.reshape(()), None if zero is None else zero.reshape(())
            return b.op("mil.quantize", [m.x, zero, scale], attributes, replaced=(m.y,))  # type: ignore[no-any-return]
        scale, zero = _shaped(b, _made(m.scale), rank, m.a), None
        if m.zp is not None:
            zero = _shaped(b, _made(m.zp), rank, m.a)
    if to.bits > 8 and _type(m.scale).dtype is F16 and m.p is not F32:
        raise Decline("the quotient is rounded to half, which 16 bits show")
    x = b.op("mil.real_div", [_float(b, m.x), _float(b, scale)])
    return requantized(b, x, zero, to, m.y)


def requantized(b: RuleBuilder, x: Value, zero: Made | None, to: DType, y: Value) -> Value:
    """Float ``x`` rounded, moved by the zero point, and cut to the range of ``to``."""
    low, high = _range(to)
    rounded = b.op("mil.round", [x])
    if zero is not None and (isinstance(zero, Value) or np.any(zero)):
        rounded = b.op("mil.add", [rounded, _float(b, zero)])
    inside = b.op("mil.clip", [rounded, float(low), float(high)])
    result: Value = b.op("mil.cast", [inside], {"dtype": "int32"}, replaced=(y,))
    return result


def _is_stored(b: RuleBuilder, m: Bindings, to: DType) -> bool:
    """Whether the result is only dequantized again, so that Core ML's own pair of operators can do it."""
    if _ios(b) < 17 or to.name not in ("i8", "u8") or m.scale.constant is None:
        return False
    if _type(m.x).dtype is not _type(m.scale).dtype or (m.zp is not None and m.zp.constant is None):
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
    have = _type(m.x).dtype
    _range(have)
    to = _type(m.y).dtype
    if to not in (F16, F32):
        raise Decline(f"dequantized to {to}")
    rank = _rank(m.x)
    if m.x.constant is not None and m.scale.constant is not None and (m.zp is None or m.zp.constant is not None):
        return _dequantized_constant(b, m, to)
    if m.block:
        if m.scale.constant is None or (m.zp is not None and m.zp.constant is None) or not _type(m.x).is_static:
            raise Decline("scales of blocks are computed")
        shape = _type(m.x).static_shape
        scale: Made = _blocked(m.scale.constant, shape)
        zero: Made = None if m.zp is None else _blocked(m.zp.constant, shape)
    else:
        if m.x.op is not None and m.x.op.name == "mil.quantize":
            each = m.scale.constant.ndim == 1 and m.scale.constant.size != 1
            scale, zero = m.scale.constant, None if m.zp is None else m.zp.constant
            if not each:
                scale, zero = scale.reshape(()), None if zero is None else zero.reshape(())
            return b.op(  # type: ignore[no-any-return]
                "mil.dequantize", [m.x, zero, scale], {"axis": m.a % rank if each else None}, replaced=(m.y,)
            )
        scale = _shaped(b, _made(m.scale), rank, m.a)
        zero = None if m.zp is None else _shaped(b, _made(m.zp), rank, m.a)
    x = _float(b, m.x, to)
    if zero is not None and (isinstance(zero, Value) or np.any(zero)):
        x = b.op("mil.sub", [x, _float(b, zero, to)])
    result: Value = b.op("mil.mul", [x, _float(b, scale, to)])
    return result


def _dequantized_constant(b: RuleBuilder, m: Bindings, to: DType) -> Value:
    data: Array = m.x.constant
    scale: Array = m.scale.constant
    zero: Array | None = None if m.zp is None else m.zp.constant
    have = _type(m.x).dtype
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
        scale, zero = _blocked(scale, data.shape), None if zero is None else _blocked(zero, data.shape)
    plain = data.astype(np.float32)
    if zero is not None:
        plain = plain - zero.astype(np.float32)
    result: Value = b.constant((plain * scale.astype(np.float32)).astype(to.numpy), "mil")
    return result


def lower_dynamic_quantize(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """x in the 256 steps of its own range, the size of a step, and where 0 lies."""
    y, scale, zero = m.ys
    x = _float(b, m.x)
    if _rank(m.x) == 0:
        raise Decline("a scalar")
    inside, step, at = in_its_range(b, x, _rank(m.x), (scale,))
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


# ---- products of integers


def _centered(b: RuleBuilder, x: Value, zero: Value | None, rank: int, axis: int) -> Made:
    """x − zero point in i32; an array if both are constant."""
    out = _int(b, _made(x))
    if zero is None:
        return out
    shaped = _shaped(b, _made(zero), rank, axis)
    return _compute(b, "mil.sub", out, _int(b, shaped))


def lower_matmul_integer(b: RuleBuilder, m: Bindings) -> Value:
    """The product of integers, in i32."""
    left = _centered(b, m.a, m.az, _rank(m.a), -2)
    right = _centered(b, m.b, m.bz, _rank(m.b), -1)
    if min(_rank(m.a), _rank(m.b)) < 2:
        raise Decline("a vector")
    return b.op("mil.matmul", [left, right], {}, replaced=(m.y,))  # type: ignore[no-any-return]


def _real(b: RuleBuilder, v: Value, rank: int, axis: int) -> Made:
    return _float(b, _shaped(b, _made(v), rank, axis))


def lower_qlinear_matmul(b: RuleBuilder, m: Bindings) -> Value:
    """round(a b · sₐ s_b / s_y) + z_y on the integers a − zₐ and b − z_b."""
    ranks = _rank(m.a), _rank(m.b)
    if min(ranks) < 2:
        raise Decline("a vector")
    product = b.op("mil.matmul", [_centered(b, m.a, m.az, ranks[0], -2), _centered(b, m.b, m.bz, ranks[1], -1)], {})
    factor = _compute(b, "mil.mul", _real(b, m.sa, ranks[0], -2), _real(b, m.sb, ranks[1], -1))
    factor = _compute(b, "mil.real_div", factor, _real(b, m.sy, max(ranks), -2))
    x = b.op("mil.mul", [_float(b, product), factor])
    return requantized(b, x, _shaped(b, _made(m.zy), max(ranks), -2), _type(m.y).dtype, m.y)


def _integer_conv(b: RuleBuilder, m: Bindings, bias: Made | None) -> Value:
    """The convolution of centered integers, in f32, where no sum exceeds what f32 holds exactly."""
    rank = _rank(m.x)
    weights = _centered(b, m.w, m.wz, rank, 0)
    reach = 255
    if isinstance(weights, Value):
        sizes = _type(m.w).shape
        if sizes is None or not all(isinstance(s, int) for s in sizes[1:]):
            raise Decline("the size of the weights is not known")
        bound = 255 * reach * int(np.prod(sizes[1:]))
    else:
        sums = np.abs(weights.astype(np.int64)).sum(axis=tuple(range(1, weights.ndim)))
        bound = reach * int(sums.max(initial=0))
    if bound >= _EXACT:
        raise Decline("sums may exceed what f32 holds exactly")
    operands = [_float(b, _centered(b, m.x, m.xz, rank, 1)), _float(b, weights), bias]
    return b.op("onnx.Conv", operands, m.conv)  # type: ignore[no-any-return]


def lower_conv_integer(b: RuleBuilder, m: Bindings) -> Value:
    """Convolution of integers, exact in f32."""
    if getattr(b.target, "precision", None) == "fp16":
        raise Decline("half precision does not hold the integers")
    return b.op("mil.cast", [_integer_conv(b, m, None)], {"dtype": "int32"}, replaced=(m.y,))  # type: ignore[no-any-return]


def lower_qlinear_conv(b: RuleBuilder, m: Bindings) -> Value:
    """round(x ⋆ w · sₓ s_w / s_y) + z_y on the integers x − zₓ and w − z_w; in half precision on the numbers that they
    stand for, which stay small."""
    rank = _rank(m.x)
    sx, sw, sy = _real(b, m.sx, rank, 1), _real(b, m.sw, rank, 1), _real(b, m.sy, rank, 1)
    zero = _shaped(b, _made(m.zy), rank, 1)
    bias = _made(m.bias)
    factor = _compute(b, "mil.mul", sx, sw)
    if getattr(b.target, "precision", None) == "fp16":
        weights = _float(b, _centered(b, m.w, m.wz, rank, 0))
        weights = _compute(b, "mil.mul", weights, _real(b, m.sw, rank, 0))
        if bias is not None:
            each = _compute(b, "mil.mul", _real(b, m.sx, 1, 0), _real(b, m.sw, 1, 0))
            bias = _compute(b, "mil.mul", _float(b, bias), each)
        x = _compute(b, "mil.mul", _float(b, _centered(b, m.x, m.xz, rank, 1)), sx)
        sums = b.op("onnx.Conv", [x, weights, bias], m.conv)
        return requantized(b, b.op("mil.real_div", [sums, sy]), zero, _type(m.y).dtype, m.y)
    sums = _integer_conv(b, m, None if bias is None else _float(b, bias))
    scaled = b.op("mil.mul", [sums, _compute(b, "mil.real_div", factor, sy)])
    return requantized(b, scaled, zero, _type(m.y).dtype, m.y)


def lower_dynamic_quantize_lstm(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """LSTM with the weights that the integers stand for. onnxruntime also rounds the input and the hidden state to 8
    bits at each step; that noise is left out."""

    def weights(v: Value, scale: Value, zero: Value) -> Array:
        if v.constant is None or scale.constant is None or zero.constant is None:
            raise Decline("weights are computed")
        array = v.constant.astype(np.float32)
        s, z = (a.constant.reshape((len(array), 1, -1)).astype(np.float32) for a in (scale, zero))
        return np.ascontiguousarray(((array - z) * s).transpose(0, 2, 1))

    operands = [m.x, weights(m.w, m.sw, m.zw), weights(m.r, m.sr, m.zr), m.bias, m.lens, m.h, m.c, m.p]
    made = b.op("onnx.LSTM", operands, dict(m.a), results=len(m.ys))
    return made if isinstance(made, tuple) else (made,)


# ---- what Core ML means


def _array(v: Value | None) -> Array:
    if v is None or v.constant is None:
        raise Decline("compressed data is computed")
    return v.constant


def _plain(v: Value | None) -> Array:
    """Packed integers as ones that NumPy computes with."""
    array = _array(v)
    return array if array.dtype.isbuiltin == 1 else array.astype(np.int8)


def mean_affine_dequantize(b: RuleBuilder, m: Bindings) -> Value:
    """scale (data − zero point), the vectors along one axis."""
    data, zero, scale = _plain(m.data), _plain(m.zero), _array(m.scale)
    to = [1] * data.ndim
    to[int(m.axis) % data.ndim] = -1
    zero, spread = (v.reshape(to) if v.ndim else v for v in (zero, scale))
    plain = data.astype(np.float32) - zero.astype(np.float32)
    plain *= spread.astype(np.float32)
    return b.constant(plain.astype(scale.dtype), "onnx")


def _unpacked(data: Array, bits: int, count: int) -> Array:
    """Indices that are packed from the lowest bit of each byte on."""
    if bits == 8:
        return data[:count]
    flat = np.unpackbits(data.astype(np.uint8), bitorder="little")[: bits * count]
    weights = (1 << np.arange(bits)).astype(np.uint8)
    return flat.reshape(count, bits) @ weights


def mean_lut_to_dense(b: RuleBuilder, m: Bindings) -> Value:
    """The entries of a look-up table that the indices name."""
    indices, lut = _array(m.indices), _array(m.lut)
    if m.shape is not None:  # iOS 16: one table, packed indices
        shape = tuple(int(d) for d in np.asarray(m.shape).reshape(-1))
        bits = int(lut.size).bit_length() - 1
        return b.constant(lut[_unpacked(indices, bits, int(np.prod(shape)))].reshape(shape), "onnx")
    return b.constant(looked_up(indices, lut, m.axis), "onnx")


def looked_up(indices: Array, lut: Array, vector_axis: Any) -> Array:
    """iOS 18's form: a table for each block (the leading dimensions of ``lut``), whose entries are vectors along
    ``vector_axis`` of the result."""
    indices = indices.astype(np.uint8)
    size = lut.shape[-1]
    tables = _blocked(lut, (*indices.shape, *lut.shape[-2:]))
    found = np.take_along_axis(tables, indices[..., None, None].astype(np.intp), axis=-2)[..., 0, :]
    if size == 1:
        return found[..., 0]
    axis = int(vector_axis) % indices.ndim
    beside = np.moveaxis(found, -1, axis + 1)
    shape = list(indices.shape)
    shape[axis] *= size
    return beside.reshape(shape)


def mean_sparse_to_dense(b: RuleBuilder, m: Bindings) -> Value:
    """The data where the mask is set, zero elsewhere."""
    data, mask = _array(m.data), _array(m.mask).astype(np.uint8)
    if m.shape is not None:  # iOS 16: bits, packed from the lowest on
        shape = tuple(int(d) for d in np.asarray(m.shape).reshape(-1))
        mask = np.unpackbits(mask, bitorder="little")[: int(np.prod(shape))].reshape(shape)
    return b.constant(scattered(data, mask), "onnx")


def scattered(data: Array, mask: Array) -> Array:
    """A tensor of the mask's shape with ``data`` where it is set."""
    out = np.zeros(mask.shape, data.dtype)
    out[mask != 0] = data
    return out


def shifted_and_scaled(data: Array, scale: Array, offset: Array | None) -> Array:
    """scale (data − offset), each element of scale and offset for a block."""
    spread = _blocked(scale, data.shape).astype(np.float32)
    plain = data.astype(np.float32)
    if offset is not None:
        plain = plain - _blocked(offset, data.shape).astype(np.float32)
    return (plain * spread).astype(scale.dtype)


def mean_blockwise_shift_scale(b: RuleBuilder, m: Bindings) -> Value:
    offset = None if m.offset is None else _plain(m.offset)
    return b.constant(shifted_and_scaled(_plain(m.data), _array(m.scale), offset), "onnx")


def _mask(b: RuleBuilder, mask: Array, old: Value, new: Value) -> Value:
    """What stands for the mask ``new``: the one that there was, or one of its type, which ONNX may not have."""
    if mask.shape == _array(old).shape:
        return old
    made: Value = b.op("mil.const", [], {"val": mask.astype(_type(old).dtype.numpy)}, replaced=(new,))
    return made


def mean_lut_to_sparse(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """The mask, widened along the vectors' axis, and the entries that the indices name where it is set."""
    mask, lut = _array(m.mask).astype(np.uint8), _array(m.lut)
    dense = looked_up(scattered(_array(m.indices).astype(np.uint8), mask), lut, m.axis)
    if lut.shape[-1] > 1:
        mask = np.repeat(mask, lut.shape[-1], axis=int(m.axis) % mask.ndim)
    return _mask(b, mask, m.mask, m.ys[0]), b.constant(dense[mask != 0], "onnx")


def mean_sparse_blockwise_shift_scale(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    mask = _array(m.mask).astype(np.uint8)
    offset = None if m.offset is None else _plain(m.offset)
    dense = shifted_and_scaled(scattered(_plain(m.data), mask), _array(m.scale), offset)
    return _mask(b, mask, m.mask, m.ys[0]), b.constant(dense[mask != 0], "onnx")


def mean_quantize(b: RuleBuilder, m: Bindings) -> Value:
    """QuantizeLinear; without a zero point the output type says the type."""
    to = {"int8": np.int8, "uint8": np.uint8}.get(m.to)
    if to is None:
        raise Decline(f"quantized to {m.to}")
    scale = _array(m.scale)
    zero = np.zeros(scale.shape, to) if m.zero is None else _array(m.zero)
    attributes = {"axis": None if m.axis is None else int(m.axis)}
    return b.op("onnx.QuantizeLinear", [m.x, scale, zero], attributes)  # type: ignore[no-any-return]


def mean_dequantize(b: RuleBuilder, m: Bindings) -> Value:
    attributes = {"axis": None if m.axis is None else int(m.axis)}
    return b.op("onnx.DequantizeLinear", [m.x, m.scale, m.zero], attributes)  # type: ignore[no-any-return]

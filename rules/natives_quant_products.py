"""Products of quantized numbers: ONNX's operators on integers.

Where Core ML has no operator for it, quantized arithmetic is done on the integers themselves, held in i32 or, where
that is exact, in f32; what f32 holds exactly are integers up to 2²⁴.
"""

from __future__ import annotations

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_quant import Array, Made, as_float, made, rank_of, requantized, shaped, tensor_type

#: Integers up to this one are exact in f32.
_EXACT = 1 << 24

_NUMPY = {"mil.add": np.add, "mil.sub": np.subtract, "mil.mul": np.multiply, "mil.real_div": np.divide}


def _int(b: RuleBuilder, x: Made) -> Made:
    if isinstance(x, Value):
        return x if tensor_type(x).dtype.name == "i32" else b.op("mil.cast", [x], {"dtype": "int32"})
    return x.astype(np.int32)


def _compute(b: RuleBuilder, name: str, x: Made, y: Made) -> Made:
    if not isinstance(x, Value) and not isinstance(y, Value):
        return _NUMPY[name](x, y)
    return b.op(name, [x, y])


def _centered(b: RuleBuilder, x: Value, zero: Value | None, rank: int, axis: int) -> Made:
    """x − zero point in i32; an array if both are constant."""
    out = _int(b, made(x))
    if zero is None:
        return out
    return _compute(b, "mil.sub", out, _int(b, shaped(b, made(zero), rank, axis)))


def lower_matmul_integer(b: RuleBuilder, m: Bindings) -> Value:
    """The product of integers, in i32."""
    left = _centered(b, m.a, m.az, rank_of(m.a), -2)
    right = _centered(b, m.b, m.bz, rank_of(m.b), -1)
    if min(rank_of(m.a), rank_of(m.b)) < 2:
        raise Decline("a vector")
    return b.op("mil.matmul", [left, right], {}, replaced=(m.y,))  # type: ignore[no-any-return]


def _real(b: RuleBuilder, v: Value, rank: int, axis: int) -> Made:
    return as_float(b, shaped(b, made(v), rank, axis))


def lower_qlinear_matmul(b: RuleBuilder, m: Bindings) -> Value:
    """round(a b · sₐ s_b / s_y) + z_y on the integers a − zₐ and b − z_b."""
    ranks = rank_of(m.a), rank_of(m.b)
    if min(ranks) < 2:
        raise Decline("a vector")
    product = b.op("mil.matmul", [_centered(b, m.a, m.az, ranks[0], -2), _centered(b, m.b, m.bz, ranks[1], -1)], {})
    factor = _compute(b, "mil.mul", _real(b, m.sa, ranks[0], -2), _real(b, m.sb, ranks[1], -1))
    factor = _compute(b, "mil.real_div", factor, _real(b, m.sy, max(ranks), -2))
    x = b.op("mil.mul", [as_float(b, product), factor])
    return requantized(b, x, shaped(b, made(m.zy), max(ranks), -2), tensor_type(m.y).dtype, m.y)


def _integer_conv(b: RuleBuilder, m: Bindings, bias: Made | None) -> Value:
    """The convolution of centered integers, in f32, where no sum exceeds what f32 holds exactly."""
    rank = rank_of(m.x)
    weights = _centered(b, m.w, m.wz, rank, 0)
    reach = 255
    if isinstance(weights, Value):
        sizes = tensor_type(m.w).shape
        if sizes is None or not all(isinstance(s, int) for s in sizes[1:]):
            raise Decline("the size of the weights is not known")
        bound = 255 * reach * int(np.prod(sizes[1:]))
    else:
        sums = np.abs(weights.astype(np.int64)).sum(axis=tuple(range(1, weights.ndim)))
        bound = reach * int(sums.max(initial=0))
    if bound >= _EXACT:
        raise Decline("sums may exceed what f32 holds exactly")
    operands = [as_float(b, _centered(b, m.x, m.xz, rank, 1)), as_float(b, weights), bias]
    return b.op("onnx.Conv", operands, m.conv)  # type: ignore[no-any-return]


def lower_conv_integer(b: RuleBuilder, m: Bindings) -> Value:
    """Convolution of integers, exact in f32."""
    if getattr(b.target, "precision", None) == "fp16":
        raise Decline("half precision does not hold the integers")
    return b.op("mil.cast", [_integer_conv(b, m, None)], {"dtype": "int32"}, replaced=(m.y,))  # type: ignore[no-any-return]


def lower_qlinear_conv(b: RuleBuilder, m: Bindings) -> Value:
    """round(x ⋆ w · sₓ s_w / s_y) + z_y on the integers x − zₓ and w − z_w; in half precision on the numbers that they
    stand for, which stay small."""
    rank = rank_of(m.x)
    sx, sw, sy = _real(b, m.sx, rank, 1), _real(b, m.sw, rank, 1), _real(b, m.sy, rank, 1)
    zero = shaped(b, made(m.zy), rank, 1)
    bias = made(m.bias)
    factor = _compute(b, "mil.mul", sx, sw)
    if getattr(b.target, "precision", None) == "fp16":
        weights = as_float(b, _centered(b, m.w, m.wz, rank, 0))
        weights = _compute(b, "mil.mul", weights, _real(b, m.sw, rank, 0))
        if bias is not None:
            each = _compute(b, "mil.mul", _real(b, m.sx, 1, 0), _real(b, m.sw, 1, 0))
            bias = _compute(b, "mil.mul", as_float(b, bias), each)
        x = _compute(b, "mil.mul", as_float(b, _centered(b, m.x, m.xz, rank, 1)), sx)
        sums = b.op("onnx.Conv", [x, weights, bias], m.conv)
        return requantized(b, b.op("mil.real_div", [sums, sy]), zero, tensor_type(m.y).dtype, m.y)
    sums = _integer_conv(b, m, None if bias is None else as_float(b, bias))
    scaled = b.op("mil.mul", [sums, _compute(b, "mil.real_div", factor, sy)])
    return requantized(b, scaled, zero, tensor_type(m.y).dtype, m.y)


#: The largest weight of an LSTM whose state may be left unrounded: half a step of 8 bits, 1/255 of a state between -1
#: and 1, moves what a gate adds up by as many 255ths.
_LARGEST = 8.0


def lower_dynamic_quantize_lstm(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """LSTM with the weights that the integers stand for. onnxruntime also rounds the input and the hidden state to 8
    bits at each step; that noise is left out."""

    def weights(v: Value, scale: Value, zero: Value) -> Array:
        if v.constant is None or scale.constant is None or zero.constant is None:
            raise Decline("weights are computed")
        array = v.constant.astype(np.float32)
        s, z = (a.constant.reshape((len(array), 1, -1)).astype(np.float32) for a in (scale, zero))
        large = (array - z) * s
        if not large.size or np.abs(large).max() > _LARGEST:
            raise Decline("no weights, or so large that the rounding of the state decides what gates do")
        return np.ascontiguousarray(large.transpose(0, 2, 1))

    operands = [m.x, weights(m.w, m.sw, m.zw), weights(m.r, m.sr, m.zr), m.bias, m.lens, m.h, m.c, m.p]
    results = b.op("onnx.LSTM", operands, dict(m.a), results=len(m.ys))
    return results if isinstance(results, tuple) else (results,)

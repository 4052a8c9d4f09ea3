"""Builders of lowering rules whose result is a computation with branches: integers, reductions, Gemm."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import BOOL, I32, DType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import axis_of, constant_ints, dtype_of, rank_of, shape_of

Array = np.ndarray[Any, Any]


# ---- integers


def _int32(b: RuleBuilder, x: Value) -> Value:
    value: Value = x if dtype_of(x) is I32 else b.op("mil.cast", [x], {"dtype": "int32"})
    return value


def wrap(b: RuleBuilder, x: Value, dtype: DType) -> Value:
    """What an i32 ``x`` is once cut to the bits of ``dtype``: x mod 2ⁿ, for signed types moved by 2ⁿ⁻¹ on the way."""
    n = 1 << dtype.bits
    if not dtype.is_signed:
        unsigned: Value = b.op("mil.mod", [x, np.int32(n)])
        return unsigned
    half = np.int32(n // 2)
    signed: Value = b.op("mil.sub", [b.op("mil.mod", [b.op("mil.add", [x, half]), np.int32(n)]), half])
    return signed


def cast_to_narrow(b: RuleBuilder, m: Bindings) -> Value:
    x = _int32(b, m.x)
    to, source = dtype_of(m.y), dtype_of(m.x)
    fits = source is BOOL or (source.is_integer and source.bits < to.bits and not source.is_signed)
    return b.op("mil.identity", [x]) if fits or source is to else wrap(b, x, to)


def wrapping(b: RuleBuilder, m: Bindings) -> Value:
    name = {"onnx.Add": "mil.add", "onnx.Sub": "mil.sub", "onnx.Mul": "mil.mul"}[m.y.op.name]
    return wrap(b, b.op(name, [_int32(b, m.a), _int32(b, m.b)]), dtype_of(m.y))


def divide_integers(b: RuleBuilder, m: Bindings) -> Value:
    divisor = constant_ints(m.b)
    if not dtype_of(m.a).is_signed or (is_natural(m.a) and divisor is not None and min(divisor, default=0) > 0):
        floor: Value = b.op("mil.floor_div", [m.a, m.b])
        return floor
    quotient = b.op("mil.floor_div", [b.op("mil.abs", [m.a]), b.op("mil.abs", [m.b])])
    sign = b.op("mil.mul", [b.op("mil.sign", [m.a]), b.op("mil.sign", [m.b])])
    signed: Value = b.op("mil.mul", [sign, quotient])
    return signed


#: Operators whose results are never negative.
_NATURAL = frozenset(
    {
        "onnx.Shape", "onnx.Size", "onnx.ArgMax", "onnx.ArgMin", "onnx.NonZero", "onnx.Abs",
        "mil.shape", "mil.reduce_argmax", "mil.reduce_argmin", "mil.non_zero", "mil.abs", "mil.argsort",
    }
)  # fmt: skip
#: Operators whose results are not negative if none of their operands is.
_KEEPS_NATURAL = frozenset(
    {
        "onnx.Reshape", "onnx.Squeeze", "onnx.Unsqueeze", "onnx.Transpose", "onnx.Concat", "onnx.Add", "onnx.Mul",
        "onnx.Cast", "onnx.Identity", "onnx.Gather", "onnx.Slice", "onnx.Expand", "onnx.Tile", "mil.reshape",
        "mil.squeeze", "mil.expand_dims", "mil.transpose", "mil.concat", "mil.add", "mil.mul", "mil.cast", "mil.gather",
        "mil.slice_by_index", "mil.tile", "mil.mod", "mil.floor_div", "onnx.Mod",
    }
)  # fmt: skip
_DATA_FIRST = frozenset({"onnx.Reshape", "onnx.Squeeze", "onnx.Unsqueeze", "onnx.Gather", "onnx.Slice", "onnx.Expand",
                         "onnx.Tile", "mil.reshape", "mil.gather", "mil.slice_by_index", "mil.tile"})  # fmt: skip


def is_natural(x: Value, depth: int = 6) -> bool:
    """Whether no element of ``x`` is negative, as far as a few operators back tell."""
    array = x.constant
    if array is not None:
        return array.size == 0 or array.dtype.kind == "b" or bool(array.min() >= 0)
    if dtype_of(x) is BOOL or not dtype_of(x).is_signed:
        return True
    op = x.op
    if op is None or depth == 0:
        return False
    if op.name in _NATURAL or (op.name in ("onnx.TopK", "mil.topk") and x is op.results[1]):
        return True
    if op.name not in _KEEPS_NATURAL:
        return False
    operands = op.operands[:1] if op.name in _DATA_FIRST else op.operands
    return all(v is None or is_natural(v, depth - 1) for v in operands)


def bitwise(b: RuleBuilder, m: Bindings) -> Value:
    """Bit k of x is ⌊x / 2ᵏ⌋ mod 2, also of a negative x in two's complement; the sign is its highest bit."""
    dtype = dtype_of(m.y)
    if max(rank_of(m.a), rank_of(m.b)) > 4:
        raise Decline("Core ML has no tensors of rank 6")
    bits = min(dtype.bits, 31)
    powers = np.array([1 << k for k in range(bits)], np.int32)

    def spread(x: Value) -> Value:
        column = b.op("mil.expand_dims", [_int32(b, x)], {"axes": (-1,)})
        low = b.op("mil.mod", [b.op("mil.floor_div", [column, powers]), np.int32(2)])
        if dtype.bits < 32:
            return low
        high = b.op("mil.cast", [b.op("mil.less", [column, np.int32(0)])], {"dtype": "int32"})
        both: Value = b.op("mil.concat", [low, high], {"axis": -1})
        return both

    left, right = spread(m.a), spread(m.b)
    name = m.y.op.name
    if name == "onnx.BitwiseXor":
        out = b.op("mil.cast", [b.op("mil.not_equal", [left, right])], {"dtype": "int32"})
    else:
        out = b.op("mil.mul" if name == "onnx.BitwiseAnd" else "mil.maximum", [left, right])
    weights = powers if dtype.bits < 32 else np.append(powers, np.int32(-(1 << 31)))
    total: Value = b.op("mil.reduce_sum", [b.op("mil.mul", [out, weights])], {"axes": (-1,), "keep_dims": False})
    return wrap(b, total, dtype) if dtype.bits < 32 and dtype.is_signed else total


def bit_shift(b: RuleBuilder, m: Bindings) -> Value:
    dtype = dtype_of(m.y)
    power = b.op("mil.pow", [np.int32(2), _int32(b, m.b)])
    if m.d == "RIGHT":
        right: Value = b.op("mil.floor_div", [_int32(b, m.a), power])
        return right
    left: Value = b.op("mil.mul", [_int32(b, m.a), power])
    return wrap(b, left, dtype) if dtype.bits < 32 else left


# ---- any number of operands


def _fold(b: RuleBuilder, xs: tuple[Value, ...], name: str) -> Value:
    out = xs[0]
    for x in xs[1:]:
        out = b.op(name, [out, x])
    return out


def fold_sum(b: RuleBuilder, m: Bindings) -> Value:
    return _fold(b, m.xs, "mil.add")


def fold_max(b: RuleBuilder, m: Bindings) -> Value:
    return _fold(b, m.xs, "mil.maximum")


def fold_min(b: RuleBuilder, m: Bindings) -> Value:
    return _fold(b, m.xs, "mil.minimum")


def fold_mean(b: RuleBuilder, m: Bindings) -> Value:
    total = _fold(b, m.xs, "mil.add")
    return b.op("mil.real_div", [total, float(len(m.xs))]) if len(m.xs) > 1 else total


# ---- reductions

_REDUCE = {
    "onnx.ReduceSum": "mil.reduce_sum",
    "onnx.ReduceMean": "mil.reduce_mean",
    "onnx.ReduceMax": "mil.reduce_max",
    "onnx.ReduceMin": "mil.reduce_min",
    "onnx.ReduceProd": "mil.reduce_prod",
    "onnx.ReduceL1": "mil.reduce_l1_norm",
    "onnx.ReduceL2": "mil.reduce_l2_norm",
    "onnx.ReduceSumSquare": "mil.reduce_sum_square",
    "onnx.ReduceLogSum": "mil.reduce_log_sum",
    "onnx.ReduceLogSumExp": "mil.reduce_log_sum_exp",
}
#: Reductions that give back what they get where there is nothing to reduce.
_NEUTRAL = {"onnx.ReduceSum", "onnx.ReduceMean", "onnx.ReduceMax", "onnx.ReduceMin", "onnx.ReduceProd"}
#: Reductions whose result over integers is cut to one by ONNX, and is not defined by Core ML.
_FLOAT_ONLY = {"onnx.ReduceMean", "onnx.ReduceL2", "onnx.ReduceLogSum", "onnx.ReduceLogSumExp"}


def reduce(b: RuleBuilder, m: Bindings) -> Value:
    name = m.y.op.name
    rank = rank_of(m.x)
    dtype = dtype_of(m.x)
    axes = () if m.axes is None else constant_ints(m.axes)
    if axes is None:
        raise Decline("axes not known at compile time")
    if (not axes and m.noop) or rank == 0:
        if name not in _NEUTRAL:
            raise Decline("what it does to a tensor that it does not reduce is not settled in ONNX")
        unchanged: Value = m.x
        return unchanged
    if name in _FLOAT_ONLY and not dtype.is_float:
        raise Decline("Core ML does not say what it is on integers")
    x = m.x
    if dtype is BOOL:
        x = _int32(b, x)
    attributes = {
        "axes": tuple(sorted({axis_of(a, rank) for a in axes})) if axes else tuple(range(rank)),
        "keep_dims": bool(m.k),
    }
    out: Value = b.op(_REDUCE[name], [x], attributes)
    return b.op("mil.cast", [out], {"dtype": "bool"}) if dtype is BOOL else out


def arg(b: RuleBuilder, m: Bindings) -> Value:
    axis = axis_of(m.a, rank_of(m.x))
    name = "mil.reduce_argmax" if m.y.op.name == "onnx.ArgMax" else "mil.reduce_argmin"
    attributes = {"axis": axis, "keep_dims": bool(m.k)}
    if not m.last:
        first: Value = b.op(name, [m.x], attributes)
        return first
    # The last of several is the first from behind.
    length = shape_of(m.x)[axis]
    found = b.op(name, [b.op("mil.reverse", [m.x], {"axes": (axis,)})], attributes)
    last: Value = b.op("mil.sub", [np.int32(length - 1), found])
    return last


# ---- sums of products


def gemm(b: RuleBuilder, m: Bindings) -> Value:
    """alpha · A · B + beta · C; a linear layer where B and C are constant."""
    dtype = dtype_of(m.y)
    if not dtype.is_float and (m.alpha != 1.0 or m.beta != 1.0):
        raise Decline("a scaled product of integers is computed in floats and cut")
    weight = m.b.constant
    if weight is not None and not m.p and dtype.is_float:
        if not m.q:
            weight = weight.T
        if m.alpha != 1.0:
            weight = weight * weight.dtype.type(m.alpha)
        bias, rest = _vector(m.c, weight.shape[0], m.beta)
        out = b.op("mil.linear", [m.a, weight, bias])
        return _plus(b, out, rest, m.beta)
    out = b.op("mil.matmul", [m.a, m.b], {"transpose_x": bool(m.p), "transpose_y": bool(m.q)})
    if m.alpha != 1.0:
        out = b.op("mil.mul", [out, m.alpha])
    return _plus(b, out, m.c, m.beta)


def _vector(c: Value | None, size: int, beta: float) -> tuple[Array | None, Value | None]:
    """``c`` as the bias of a linear layer, or, where it is no constant vector, as what is left to add."""
    array = c.constant if c is not None else None
    if array is None or array.size not in (1, size) or (array.size > 1 and array.shape[-1] != size):
        return None, c
    vector = np.broadcast_to(array.reshape(-1), (size,))
    return (vector if beta == 1.0 else vector * vector.dtype.type(beta)), None


def _plus(b: RuleBuilder, out: Value, c: Value | None, beta: float) -> Value:
    if c is None or beta == 0.0:
        return out
    added: Value = b.op("mil.add", [out, c if beta == 1.0 else b.op("mil.mul", [c, beta])])
    return added

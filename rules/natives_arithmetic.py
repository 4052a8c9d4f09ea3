"""Builders of lowering rules whose result is a computation with branches: integers, reductions, Gemm."""

from __future__ import annotations

import itertools
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
    return b.op("mil.cast", [x], {"dtype": "int32"}) if fits or source is to else wrap(b, x, to)


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
        return bool(array.size == 0 or array.dtype.kind == "b" or array.min() >= 0)
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
    """Multiplies or divides by 2ⁿ, in two steps, as 2³¹ is no 32-bit integer. What is shifted far enough is gone."""
    dtype = dtype_of(m.y)
    width = min(dtype.bits, 32)
    x, n = _int32(b, m.a), b.op("mil.minimum", [_int32(b, m.b), np.int32(width)])
    if dtype.is_signed and not is_natural(m.b):
        # A negative number of bits counts as a great one.
        n = b.op("mil.select", [b.op("mil.less", [n, np.int32(0)]), np.int32(width), n])
    first = b.op("mil.minimum", [n, np.int32(width // 2)])
    steps = [b.op("mil.pow", [np.int32(2), k]) for k in (first, b.op("mil.sub", [n, first]))]
    for factor in steps:
        x = b.op("mil.floor_div" if m.d == "RIGHT" else "mil.mul", [x, factor])
    return wrap(b, x, dtype) if dtype.bits < 32 and m.d == "LEFT" else x


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
    if axes is None and (name not in _FLOAT_ONLY or dtype.is_float):
        return _reduce_along_computed(b, m)
    if axes is None:
        raise Decline("axes not known at compile time")
    if not axes and m.noop not in (0, 1):
        raise Decline("noop_with_empty_axes is neither 0 nor 1")
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
        "keep_dims": m.k == 1,
    }
    out: Value = b.op(_REDUCE[name], [x], attributes)
    return b.op("mil.cast", [out], {"dtype": "bool"}) if dtype is BOOL else out


#: How many reductions may be computed where it is only known at run time which of them is asked for.
_MOST_CANDIDATES = 4


def _reduce_along_computed(b: RuleBuilder, m: Bindings) -> Value:
    """The shape of the result leaves few sets of axes; all are reduced, and the one that is asked for is chosen."""
    have, want = shape_of(m.x), shape_of(m.y)
    rank = len(have)
    if shape_of(m.axes) == (0,):
        raise Decline("Core ML has no empty tensors")

    def left(axes: tuple[int, ...]) -> tuple[int, ...]:
        if m.k == 1:
            return tuple(1 if i in axes else d for i, d in enumerate(have))
        return tuple(d for i, d in enumerate(have) if i not in axes)

    count = shape_of(m.axes)[0]
    candidates = [axes for axes in itertools.combinations(range(rank), count) if left(axes) == want]
    if not 0 < len(candidates) <= _MOST_CANDIDATES:
        raise Decline("axes not known at compile time")
    x = _int32(b, m.x) if dtype_of(m.x) is BOOL else m.x
    name = _REDUCE[m.y.op.name]
    made = [b.op(name, [x], {"axes": axes, "keep_dims": m.k == 1}) for axes in candidates]
    out: Value = _chosen(b, m.axes, candidates, made, rank)
    return b.op("mil.cast", [out], {"dtype": "bool"}) if dtype_of(m.x) is BOOL else out


def _chosen(b: RuleBuilder, axes: Value, candidates: list[tuple[int, ...]], made: list[Value], rank: int) -> Value:
    """Of ``made``, the one whose candidate is the set of axes that ``axes`` holds at run time."""
    out = made[-1]
    if len(made) == 1:
        return out
    flat = axes if rank_of(axes) else b.op("mil.expand_dims", [axes], {"axes": (0,)})
    front = b.op("mil.mod", [flat, rank])
    for candidate, value in zip(candidates[-2::-1], made[-2::-1]):
        # All that is asked for lies in the candidate, which has as many axes.
        inside = b.op("mil.equal", [b.op("mil.expand_dims", [front], {"axes": (1,)}), np.array(candidate, np.int32)])
        hits = b.op("mil.reduce_max", [b.op("mil.cast", [inside], {"dtype": "int32"})], {"axes": (1,)})
        all_in = b.op("mil.cast", [b.op("mil.reduce_min", [hits], {"axes": (0,)})], {"dtype": "bool"})
        out = b.op("mil.select", [all_in, value, out])
    return out


def cumsum(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.x)
    if not 0 < rank <= _MOST_CANDIDATES:
        raise Decline("axis not known at compile time")
    attributes = {"exclusive": bool(m.e), "reverse": bool(m.r)}
    made = [b.op("mil.cumsum", [m.x], {"axis": i, **attributes}) for i in range(rank)]
    return _chosen(b, m.a, [(i,) for i in range(rank)], made, rank)


def cumprod(b: RuleBuilder, m: Bindings) -> Value:
    shape = shape_of(m.x)
    rank = len(shape)
    if not 0 < rank <= _MOST_CANDIDATES or dtype_of(m.x) is BOOL:
        raise Decline("Core ML has no tensors of rank 6")
    known = constant_ints(m.a)
    axes = [axis_of(known[0], rank)] if known else list(range(rank))
    one = np.ones((), dtype_of(m.x).numpy)
    made = []
    for axis in axes:
        n = shape[axis]
        kept = np.tril(np.ones((n, n), bool), -1 if m.e else 0)
        kept = kept.T if m.r else kept
        # Row i of a new axis before the old one holds what goes into element i.
        rows = b.op("mil.expand_dims", [m.x], {"axes": (axis,)})
        mask = kept.reshape([1] * axis + [n, n] + [1] * (rank - axis - 1))
        chosen = b.op("mil.select", [mask, rows, one])
        made.append(b.op("mil.reduce_prod", [chosen], {"axes": (axis + 1,), "keep_dims": False}))
    return made[0] if known else _chosen(b, m.a, [(i,) for i in axes], made, rank)


def arg(b: RuleBuilder, m: Bindings) -> Value:
    axis = axis_of(m.a, rank_of(m.x))
    name = "mil.reduce_argmax" if m.y.op.name == "onnx.ArgMax" else "mil.reduce_argmin"
    attributes = {"axis": axis, "keep_dims": m.k == 1}
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

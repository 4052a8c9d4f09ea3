"""Lowering of movements to metal.*, where a rule in one line will not do, and what all such builders share.

Builders get what a rule matched and give what replaces it; see compiler/rewrite/build.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline, axis, shape
from rules.natives_window import explicit_pads, separated

Array = np.ndarray[Any, Any]


def all_pads(
    auto_pad: str,
    pads: Sequence[int] | None,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """The pads of a window operator in ONNX's order: before each spatial dimension, then behind each."""
    return separated(explicit_pads(auto_pad, pads, sizes, kernel, strides, dilations))


def constant_of(value: Value | None, what: str) -> Array:
    """The array of a value that must be constant."""
    array = value.constant if value is not None else None
    if array is None:
        raise Decline(f"{what} is not constant")
    return array


def reshaped(b: RuleBuilder, x: Value, to: Sequence[int]) -> Value:
    """``x`` in another shape; ``x`` itself if it has it."""
    if shape(x) == tuple(to):
        return x
    out: Value = b.op("metal.reshape", [x], {"shape": tuple(int(d) for d in to)})
    return out


def transposed(b: RuleBuilder, x: Value, perm: Sequence[int]) -> Value:
    """``x`` with its dimensions in another order; ``x`` itself if the order is theirs."""
    if tuple(perm) == tuple(range(len(perm))):
        return x
    out: Value = b.op("metal.transpose", [x], {"perm": tuple(perm)})
    return out


def with_last_two_swapped(b: RuleBuilder, x: Value) -> Value:
    """``x`` with its last two dimensions exchanged; a constant stays one."""
    if x.constant is not None:
        return b.constant(np.ascontiguousarray(x.constant.swapaxes(-1, -2)), "metal")
    r = len(shape(x))
    return transposed(b, x, (*range(r - 2), r - 1, r - 2))


def made_by(value: Value, name: str) -> bool:
    """Whether an operator called ``name`` gives the value."""
    return value.op is not None and value.op.name == name


def number(b: RuleBuilder, value: float, like: Value) -> Value:
    """A constant scalar of the element type of ``like``."""
    assert isinstance(like.type, TensorType)
    return b.constant(np.array(value, like.type.dtype.numpy), "metal")


def part(b: RuleBuilder, x: Value, starts: Sequence[int], steps: Sequence[int], sizes: Sequence[int]) -> Value:
    """Elements ``starts + steps · i`` for ``i`` in ``sizes``, along every dimension."""
    if tuple(sizes) == shape(x) and all(s == 1 for s in steps):
        return x
    attributes = {"starts": tuple(starts), "steps": tuple(steps), "shape": tuple(sizes)}
    out: Value = b.op("metal.slice", [x], attributes)
    return out


def slice_(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Slice with constant bounds."""
    dims = shape(m.x)
    rest = [None if v is None else constant_of(v, "a bound of the slice").reshape(-1) for v in m.y.op.operands[1:]]
    begin, end = rest[0], rest[1]
    axes = rest[2] if len(rest) > 2 and rest[2] is not None else np.arange(len(begin))
    steps = rest[3] if len(rest) > 3 and rest[3] is not None else np.ones(len(begin), np.int64)
    starts, strides, sizes = [0] * len(dims), [1] * len(dims), list(dims)
    for low, high, a, step in zip(begin, end, axes, steps, strict=True):
        d = axis(int(a), len(dims))
        # Python's slices clamp as ONNX's do.
        chosen = range(*slice(int(low), int(high), int(step)).indices(dims[d]))
        if not chosen:
            raise Decline("the slice is empty")
        starts[d], strides[d], sizes[d] = chosen.start, chosen.step, len(chosen)
    return part(b, m.x, starts, strides, sizes)


def split(b: RuleBuilder, m: Bindings) -> list[Value]:
    """onnx.Split: as many slices."""
    dims, d = shape(m.x), axis(m.a, len(shape(m.x)))
    out, at = [], 0
    for y in m.ys:
        sizes = shape(y)
        starts = [at if i == d else 0 for i in range(len(dims))]
        out.append(part(b, m.x, starts, [1] * len(dims), sizes))
        at += sizes[d]
    return out


def pad(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Pad with constant pads, negative ones being slices."""
    operands = m.y.op.operands
    dims = shape(m.x)
    pads = constant_of(operands[1], "pads").reshape(-1)
    fill = operands[2] if len(operands) > 2 else None
    axes = constant_of(operands[3], "axes") if len(operands) > 3 and operands[3] is not None else np.arange(len(dims))
    before, after = [0] * len(dims), [0] * len(dims)
    for i, a in enumerate(np.asarray(axes).reshape(-1)):
        before[axis(int(a), len(dims))] = int(pads[i])
        after[axis(int(a), len(dims))] = int(pads[len(pads) // 2 + i])
    cut = [max(0, -p) for p in before]
    sizes = [n - c - max(0, -q) for n, c, q in zip(dims, cut, after, strict=True)]
    x = part(b, m.x, cut, [1] * len(dims), sizes)
    value = 0.0 if fill is None else float(constant_of(fill, "the fill value").reshape(-1)[0])
    attributes = {
        "before": tuple(max(0, p) for p in before),
        "after": tuple(max(0, p) for p in after),
        "mode": m.m,
        "value": value,
    }
    if not any(attributes["before"]) and not any(attributes["after"]):
        return x
    out: Value = b.op("metal.pad", [x], attributes)
    return out


def frames(b: RuleBuilder, m: Bindings) -> Value:
    """Stretches of one signal side by side, each where the one before ends: overlapping frames of the signal."""
    source: Value | None = None
    dims = shape(m.y)
    start = step = None
    for part_ in m.xs:
        x = part_.op.operands[0] if made_by(part_, "metal.reshape") else part_
        if not made_by(x, "metal.slice") or sum(n > 1 for n in shape(x.op.operands[0])) != 1:
            raise Decline("a part is no stretch of a signal")
        if any(s != 1 for s in x.op.attributes["steps"]) or source not in (None, x.op.operands[0]):
            raise Decline("a part is not contiguous, or of another signal")
        source = x.op.operands[0]
        sizes = shape(part_)
        strides = tuple(math.prod(sizes[d + 1 :]) for d in range(len(sizes)))
        if start is None:
            start, step, expected = sum(x.op.attributes["starts"]), strides, sum(x.op.attributes["starts"])
        if strides != step or sum(x.op.attributes["starts"]) != expected:
            raise Decline("parts do not follow one another")
        expected += sizes[m.a] * strides[m.a]
    out: Value = b.op("metal.strided", [source], {"start": start, "strides": step, "shape": dims})
    return out


def tile(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Tile: a broadcast along a new dimension before each."""
    dims, repeats = shape(m.x), [int(r) for r in constant_of(m.r, "repeats").reshape(-1)]
    x = reshaped(b, m.x, [d for n in dims for d in (1, n)])
    x = b.op("metal.broadcast", [x], {"shape": tuple(d for n, r in zip(dims, repeats, strict=True) for d in (r, n))})
    return reshaped(b, x, shape(m.y))


def depth_to_space(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.DepthToSpace in its two orders of depth."""
    n, c, h, w = shape(m.x)
    s = m.b
    if m.m == "DCR":
        x = transposed(b, reshaped(b, m.x, (n, s, s, c // s**2, h, w)), (0, 3, 4, 1, 5, 2))
    else:
        x = transposed(b, reshaped(b, m.x, (n, c // s**2, s, s, h, w)), (0, 1, 4, 2, 5, 3))
    return reshaped(b, x, shape(m.y))


def space_to_depth(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.SpaceToDepth."""
    n, c, h, w = shape(m.x)
    s = m.b
    x = transposed(b, reshaped(b, m.x, (n, c, h // s, s, w // s, s)), (0, 3, 5, 1, 2, 4))
    return reshaped(b, x, shape(m.y))


def trilu(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Trilu: a choice by a constant mask."""
    rows, columns = shape(m.x)[-2:]
    k = 0 if m.k is None else int(constant_of(m.k, "k").reshape(-1)[0])
    mask = np.triu(np.ones((rows, columns), bool), k) if m.u else np.tril(np.ones((rows, columns), bool), k)
    out: Value = b.op("metal.select", [b.constant(mask, "metal"), m.x, number(b, 0, m.x)])
    return out


def constant_of_shape(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.ConstantOfShape: one number, broadcast."""
    value = np.asarray(m.v).reshape(())
    dtype = m.y.type.dtype.numpy
    out: Value = b.op("metal.broadcast", [b.constant(value.astype(dtype), "metal")], {"shape": shape(m.y)})
    return out


def range_(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Range of constants."""
    first, end, step = (constant_of(v, "a bound of the range").reshape(-1)[0].item() for v in (m.a, m.b, m.c))
    count = max(math.ceil((end - first) / step), 0)
    return b.constant((first + step * np.arange(count)).astype(m.y.type.dtype.numpy), "metal")


def shape_(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Shape of a known shape."""
    return b.constant(np.array(shape(m.x)[m.s : m.e], np.int64), "metal")

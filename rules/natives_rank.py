"""Operators on tensors of more than five axes: neighbours that are treated alike become one, and return behind."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import axis_of, constant_ints, rank_of, shape_of

#: The highest rank that Core ML's tensors have.
_MOST = 5


def elementwise(b: RuleBuilder, m: Bindings) -> Value:
    """Axes merge where each operand either has both in full or repeats itself along both.

    Raises:
        Decline: more than five are left.
    """
    op = m.y.op
    want = shape_of(m.y)
    rank = len(want)
    present = [x for x in m.xs if x is not None]
    shapes = [(1,) * (rank - rank_of(x)) + shape_of(x) for x in present]
    groups: list[list[int]] = []
    for i in range(rank):
        if groups and all((s[i] == 1) == (s[groups[-1][0]] == 1) or want[i] == 1 for s in shapes):
            groups[-1].append(i)
        else:
            groups.append([i])
    if len(groups) > _MOST:
        raise Decline("more than five axes are left")
    # A scalar (a bound of Clip) stays one.
    low = iter(
        [_reshaped(b, x, [_product(s, g) for g in groups]) if rank_of(x) else x for x, s in zip(present, shapes)]
    )
    xs = [None if x is None else next(low) for x in m.xs]
    return _reshaped(b, b.op(op.name, xs, op.attributes), want)


def reduce(b: RuleBuilder, m: Bindings) -> Value:
    """Neighbours that are both reduced, or both kept, merge."""
    op = m.y.op
    shape = shape_of(m.x)
    rank = len(shape)
    axes = constant_ints(m.axes) if m.axes is not None else tuple(range(rank))
    if not axes:
        raise Decline("axes not known at compile time")
    reduced = {axis_of(a, rank) for a in axes}
    groups: list[list[int]] = []
    for i in range(rank):
        if groups and (i in reduced) == (groups[-1][0] in reduced):
            groups[-1].append(i)
        else:
            groups.append([i])
    if len(groups) > _MOST:
        raise Decline("more than five axes are left")
    x = _reshaped(b, m.x, [_product(shape, g) for g in groups])
    places = np.array([k for k, g in enumerate(groups) if g[0] in reduced], np.int64)
    return _reshaped(b, b.op(op.name, [x, places], {"keepdims": 1}), shape_of(m.y))


def along_axis(b: RuleBuilder, m: Bindings) -> Value:
    """What works along one axis keeps that; those before merge, and those behind."""
    op = m.y.op
    shape = shape_of(m.x)
    axis = axis_of(m.a, len(shape))
    before, behind = range(axis), range(axis + 1, len(shape))
    x = _reshaped(b, m.x, [_product(shape, before), shape[axis], _product(shape, behind)])
    return _reshaped(b, b.op(op.name, [x], {**op.attributes, "axis": 1}), shape_of(m.y))


def concat(b: RuleBuilder, m: Bindings) -> Value:
    want = shape_of(m.y)
    axis = axis_of(m.a, len(want))
    before, behind = range(axis), range(axis + 1, len(want))
    xs = [_reshaped(b, x, [_product(s, before), s[axis], _product(s, behind)]) for x in m.xs for s in [shape_of(x)]]
    return _reshaped(b, b.op("onnx.Concat", xs, {"axis": 1}), want)


def _product(shape: Any, axes: Any) -> int:
    n = 1
    for a in axes:
        n *= shape[a]
    return n


def _reshaped(b: RuleBuilder, x: Value, shape: Any) -> Value:
    if shape_of(x) == tuple(shape):
        return x
    if 0 in shape:
        raise Decline("there is nothing in it")  # and a Reshape to 0 keeps a size
    if x.constant is not None:
        constant: Value = b.constant(x.constant.reshape(shape), "onnx")
        return constant
    out: Value = b.op("onnx.Reshape", [x, np.array(shape, np.int64)])
    return out

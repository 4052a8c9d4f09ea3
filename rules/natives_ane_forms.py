"""Builders of the rules that write what the Neural Engine has no operator for in operators that it has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import rank_of, shape_of
from rules.natives_ane import pays, summed

#: The deepest contraction that the unit takes on every chip (A, C, K).
DEEPEST = 16384

#: Runs of rows that a gather is cut into at most.
MOST_CUTS = 16


def deep_linear(b: RuleBuilder, m: Bindings) -> Value:
    """x wᵀ + b as a sum over parts of the columns."""
    weight = m.w.constant
    edges = _edges(weight.shape[1])
    parts: list[Value] = []
    for x, (first, last) in zip(_parts(b, m.x, rank_of(m.x) - 1, edges), itertools.pairwise(edges)):
        part = b.constant(weight[:, first:last], "mil")
        parts.append(b.op("mil.linear", [x, part, m.b if first == 0 else None]))
    return summed(b, parts)


def deep_matmul(b: RuleBuilder, m: Bindings) -> Value:
    """x y as a sum over parts of what is contracted."""
    at_x = rank_of(m.x) - (2 if m.s else 1)
    at_y = rank_of(m.y) - (1 if m.t else 2)
    edges = _edges(shape_of(m.x)[at_x])
    pairs = zip(_parts(b, m.x, at_x, edges), _parts(b, m.y, at_y, edges))
    return summed(b, [b.op("mil.matmul", [x, y], {"transpose_x": m.s, "transpose_y": m.t}) for x, y in pairs])


def cumsum(b: RuleBuilder, m: Bindings) -> Value:
    """x times a triangle of ones: the sum of what is not behind (before, if reversed), or strictly before."""
    rank, n = rank_of(m.x), shape_of(m.x)[m.a]
    axis = m.a % rank
    triangle = np.tril(np.ones((n, n), np.float32), -1 if m.e else 0)
    weight = b.constant(np.ascontiguousarray(triangle.T if m.r else triangle), "mil")
    perm = (*(i for i in range(rank) if i != axis), axis)
    x = m.x if axis == rank - 1 else b.op("mil.transpose", [m.x], {"perm": perm})
    if rank == 1:
        x = b.op("mil.expand_dims", [x], {"axes": (0,)})
    out: Value = b.op("mil.linear", [x, weight])
    if rank == 1:
        out = b.op("mil.squeeze", [out], {"axes": (0,)})
    pays(b, m.y.op)
    if axis == rank - 1:
        return out
    back: Value = b.op("mil.transpose", [out], {"perm": tuple(int(i) for i in np.argsort(perm))})
    return back


def product_of_few(b: RuleBuilder, m: Bindings) -> Value:
    """The product along a short axis, in the order of the elements."""
    axis = m.a[0] % rank_of(m.x)
    n = shape_of(m.x)[axis]
    parts = b.op("mil.split", [m.x], {"num_splits": n, "axis": axis}, results=n)
    total: Value = parts[0]
    for part in parts[1:]:
        total = b.op("mil.mul", [total, part])
    return total if m.k else _squeezed(b, total, axis)


def gather_as_cuts(b: RuleBuilder, m: Bindings) -> Value:
    """x[…, indices, …] as cuts of runs of indices in equal steps, joined.

    Raises:
        Decline: there are more than :data:`MOST_CUTS` runs, or an index is out of range.
    """
    rank = rank_of(m.x)
    axis = m.a % rank
    shape = shape_of(m.x)
    n = shape[axis]
    indices = np.asarray(m.i.constant).reshape(-1).astype(np.int64)
    if (indices < -n).any() or (indices >= n).any():
        raise Decline("an index is out of range")
    runs = _runs([int(i) for i in np.where(indices < 0, indices + n, indices)])
    if len(runs) > MOST_CUTS:
        raise Decline("too many cuts")
    cuts = []
    for first, step, count in runs:
        begin, end, stride = [0] * rank, list(shape), [1] * rank
        begin[axis], end[axis], stride[axis] = first, first + step * (count - 1) + 1, step
        attributes = {"stride": tuple(stride)} if step > 1 else {}
        cuts.append(b.op("mil.slice_by_index", [m.x, np.array(begin, np.int32), np.array(end, np.int32)], attributes))
    joined: Value = cuts[0] if len(cuts) == 1 else b.op("mil.concat", cuts, {"axis": axis})
    where = np.shape(m.i.constant)
    if not where:
        return _squeezed(b, joined, axis)
    if len(where) == 1:
        return joined
    out: Value = b.op("mil.reshape", [joined, np.array((*shape[:axis], *where, *shape[axis + 1 :]), np.int32)])
    return out


def _runs(indices: Sequence[int]) -> list[tuple[int, int, int]]:
    """Indices as runs that rise in equal steps: first, step, how many."""
    runs: list[tuple[int, int, int]] = []
    at = 0
    while at < len(indices):
        step = indices[at + 1] - indices[at] if at + 1 < len(indices) else 1
        last = at
        while step > 0 and last + 1 < len(indices) and indices[last + 1] - indices[last] == step:
            last += 1
        runs.append((indices[at], max(step, 1) if last > at else 1, last - at + 1))
        at = last + 1
    return runs


def _edges(depth: int) -> list[int]:
    count = -(-depth // DEEPEST)
    return [depth * i // count for i in range(count + 1)]


def _parts(b: RuleBuilder, x: Value, axis: int, edges: Sequence[int]) -> Sequence[Value]:
    sizes = tuple(last - first for first, last in itertools.pairwise(edges))
    parts: Sequence[Value] = b.op("mil.split", [x], {"split_sizes": sizes, "axis": axis}, results=len(sizes))
    return parts


def _squeezed(b: RuleBuilder, x: Value, axis: int) -> Value:
    if rank_of(x) == 1:
        out: Value = b.op("mil.squeeze", [x])
        return out
    out = b.op("mil.squeeze", [x], {"axes": (axis,)})
    return out

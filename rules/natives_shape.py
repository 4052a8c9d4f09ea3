"""Builders of lowering rules that deal with shapes: reshapes, slices, pads, transposes of any rank.

Shapes are known at compile time for the most part; what is left open becomes -1, or is computed at run time.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compiler.ir import BOOL, TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import axis_of, constant_ints, dtype_of, permuted, rank_of, shape_of
from rules.natives_grid import affine_base

Array = np.ndarray[Any, Any]

#: The highest rank that Core ML's tensors have.
MOST_AXES = 5


def ints(values: Any) -> Array:
    """A constant vector of 32-bit integers.

    Raises:
        Decline: one does not fit.
    """
    try:
        return np.asarray(values, np.int32).reshape(-1)
    except OverflowError:
        raise Decline("a number does not fit into 32 bits") from None


def dims_of(x: Value) -> tuple[int | str, ...]:
    """The dimensions of ``x``, names included.

    Raises:
        Decline: the rank is not known.
    """
    if not isinstance(x.type, TensorType) or x.type.shape is None:
        raise Decline("rank not known")
    return x.type.shape


def target_of(y: Value) -> Array | None:
    """The shape of ``y`` as Reshape takes it, with -1 for one open dimension; None if more are open or it is empty."""
    dims = dims_of(y)
    if sum(not isinstance(d, int) for d in dims) > 1:
        return None
    if any(d == 0 for d in dims):
        return None
    return ints([d if isinstance(d, int) else -1 for d in dims])


def to_shape(b: RuleBuilder, x: Value, shape: Array) -> Value:
    """``x`` reshaped; a tensor without axes is made and taken apart by squeezing and expanding."""
    if dims_of(x) == tuple(shape):
        return x
    if not shape.size:
        out: Value = b.op("mil.squeeze", [x], {"axes": tuple(range(rank_of(x)))})
        return out
    if rank_of(x) == 0:
        out = b.op("mil.expand_dims", [x], {"axes": tuple(range(shape.size))})
        return out
    out = b.op("mil.reshape", [x, shape])
    return out


def reshape(b: RuleBuilder, m: Bindings) -> Value:
    target = target_of(m.y) if isinstance(m.y.type, TensorType) and m.y.type.shape is not None else None
    if target is not None:
        return to_shape(b, m.x, target)
    given = constant_ints(m.s)
    if given is None:
        out: Value = b.op("mil.reshape", [m.x, m.s])
        return out
    if m.z and 0 in given:
        raise Decline("Core ML has no empty tensors")
    known = dims_of(m.x)
    if any(d == 0 for d in known):
        raise Decline("Core ML has no empty tensors")
    kept = [known[i] if d == 0 and isinstance(known[i], int) else d for i, d in enumerate(given)]
    if kept.count(0) == 1 and -1 not in kept:
        kept[kept.index(0)] = -1
    # Core ML takes over a dimension, which 0 stands for, only between shapes of one rank.
    if 0 not in kept or len(kept) == len(known):
        out = b.op("mil.reshape", [m.x, ints(kept)])
        return out
    sizes = b.op("mil.shape", [m.x])
    parts = [b.constant(ints([d]), "mil") if d else _slice_of(b, sizes, i) for i, d in enumerate(kept)]
    out = b.op("mil.reshape", [m.x, b.op("mil.concat", parts, {"axis": 0})])
    return out


def _slice_of(b: RuleBuilder, vector: Value, i: int) -> Value:
    """Element ``i`` of a vector, as a vector of one."""
    out: Value = b.op("mil.slice_by_index", [vector, ints([i]), ints([i + 1])])
    return out


def flatten(b: RuleBuilder, m: Bindings) -> Value:
    target = target_of(m.y)
    if target is not None:
        return to_shape(b, m.x, target)
    rank = rank_of(m.x)
    if not rank:
        raise Decline("a scalar has a known shape")
    out: Value = b.op("mil.flatten2d", [m.x], {"axis": m.a + rank if m.a < 0 else m.a})
    return out


def squeeze(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.x)
    if m.a is None:
        axes = tuple(i for i, d in enumerate(shape_of(m.x)) if d == 1)
    else:
        given = constant_ints(m.a)
        if given is None and (target := target_of(m.y)) is not None:
            return to_shape(b, m.x, target)
        if given is None:
            raise Decline("axes not known at compile time")
        axes = tuple(sorted(axis_of(a, rank) for a in given))
    if not axes:
        unchanged: Value = m.x
        return unchanged
    if rank > MOST_AXES and (target := target_of(m.y)) is not None:
        return to_shape(b, m.x, target)
    out: Value = b.op("mil.squeeze", [m.x], {"axes": axes})
    return out


def unsqueeze(b: RuleBuilder, m: Bindings) -> Value:
    given = constant_ints(m.a)
    rank = rank_of(m.x) + len(given or ())
    if (given is None or rank > MOST_AXES) and (target := target_of(m.y)) is not None:
        return to_shape(b, m.x, target)
    if given is None:
        raise Decline("axes not known at compile time")
    axes = tuple(sorted(axis_of(a, rank) for a in given))
    out: Value = b.op("mil.expand_dims", [m.x], {"axes": axes}) if axes else m.x
    return out


# ---- transposes


def transpose(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.x)
    perm = tuple(range(rank))[::-1] if m.p is None else tuple(p % rank for p in m.p) if rank else ()
    if not permuted(perm):
        unchanged: Value = m.x
        return unchanged
    if rank <= MOST_AXES:
        out: Value = b.op("mil.transpose", [m.x], {"perm": perm})
        return out
    shape = shape_of(m.x)
    return to_shape(b, permute(b, m.x, shape, perm), ints([shape[p] for p in perm]))


def permute(b: RuleBuilder, x: Value, shape: tuple[int, ...], perm: tuple[int, ...]) -> Value:
    """Permutes axes of a tensor of any rank; the result has the right order of elements, and some shape.

    Axes that stay neighbours count as one. If more than five are left, one axis after the other is carried to its
    place, which takes three axes at a time: those before, the one, and those it passes.
    """
    sizes, order = merged(shape, perm)
    if len(sizes) <= MOST_AXES:
        out: Value = to_shape(b, x, ints(sizes))
        return b.op("mil.transpose", [out], {"perm": order}) if permuted(order) else out
    axes = list(range(len(sizes)))
    value = x
    for i, wanted in enumerate(order):
        at = axes.index(wanted)
        if at == i:
            continue
        before, passed = _size(sizes, axes[:i]), _size(sizes, axes[i:at])
        rest = _size(sizes, axes[at + 1 :])
        value = to_shape(b, value, ints([before, passed, sizes[wanted], rest]))
        value = b.op("mil.transpose", [value], {"perm": (0, 2, 1, 3)})
        axes.insert(i, axes.pop(at))
    return value


def _size(sizes: list[int], axes: list[int]) -> int:
    n = 1
    for a in axes:
        n *= sizes[a]
    return n


def merged(shape: tuple[int, ...], perm: tuple[int, ...]) -> tuple[list[int], tuple[int, ...]]:
    """A smaller permutation that orders elements alike: axes of size 1 dropped, axes that stay neighbours merged."""
    runs: list[list[int]] = []
    kept = [p for p in perm if shape[p] != 1]
    place = {a: i for i, a in enumerate(a for a in range(len(shape)) if shape[a] != 1)}
    for p in kept:
        if runs and place[runs[-1][-1]] + 1 == place[p]:
            runs[-1].append(p)
        else:
            runs.append([p])
    by_source = sorted(runs)
    sizes = [_size(list(shape), run) for run in by_source]
    return sizes, tuple(by_source.index(run) for run in runs)


# ---- joining, splitting, repeating


def concat(b: RuleBuilder, m: Bindings) -> Value:
    """Empty tensors, of which Core ML has none, add nothing and are left out."""
    axis = axis_of(m.a, rank_of(m.y))
    xs = [x for x in m.xs if dims_of(x)[axis] != 0]
    if not xs:
        raise Decline("Core ML has no empty tensors")
    out: Value = b.op("mil.concat", xs, {"axis": axis}) if len(xs) > 1 else xs[0]
    return out


def split(b: RuleBuilder, m: Bindings) -> tuple[Value | None, ...]:
    count = len(m.ys)
    if count == 1:
        return (m.x,)
    axis = axis_of(m.a, rank_of(m.x))
    sizes = constant_ints(m.s)
    if sizes is None and all(isinstance(dims_of(y)[axis], int) for y in m.ys):
        sizes = tuple(int(dims_of(y)[axis]) for y in m.ys)
    if sizes is None:
        raise Decline("sizes not known at compile time")
    full = [i for i, n in enumerate(sizes) if n]
    if len({sizes[i] for i in full}) == 1:
        attributes: dict[str, Any] = {"axis": axis, "num_splits": len(full)}
    else:
        attributes = {"axis": axis, "split_sizes": tuple(sizes[i] for i in full)}
    replaced = tuple(m.ys[i] for i in full)
    made = b.op("mil.split", [m.x], attributes, results=len(full), replaced=replaced) if len(full) > 1 else (m.x,)
    placed = dict(zip(full, made))
    # What is empty stands for itself until a concatenation leaves it out.
    return tuple(placed[i] if i in placed else _empty(b, y) for i, y in enumerate(m.ys))


def _empty(b: RuleBuilder, y: Value) -> Value | None:
    if not y.use_count:
        return None
    nothing: Value = b.constant(np.zeros(shape_of(y), dtype_of(y).numpy), "mil")
    return nothing


def expand(b: RuleBuilder, m: Bindings) -> Value:
    """Known shapes are tiled; unknown ones come from multiplying by ones of that shape."""
    x: Value = m.x
    target = dims_of(m.y)
    have = (1,) * (len(target) - rank_of(x)) + tuple(dims_of(x))
    if all(isinstance(t, int) and t > 0 and isinstance(d, int) for d, t in zip(have, target)):
        reps = [int(t) // int(d) for d, t in zip(have, target)]
        x = to_shape(b, x, ints(have))
        tiled: Value = b.op("mil.tile", [x, ints(reps)]) if any(r != 1 for r in reps) else x
        return tiled
    dtype = dtype_of(x)
    ones = b.op("mil.fill", [m.s], {"value": np.ones((), dtype.numpy)})
    out: Value = b.op("mil.logical_and" if dtype is BOOL else "mil.mul", [x, ones])
    return out


def trilu(b: RuleBuilder, m: Bindings) -> Value:
    dtype = dtype_of(m.x)
    given = (0,) if m.k is None else constant_ints(m.k)
    if given is None:
        rows, columns = shape_of(m.x)[-2:]
        right = ints(np.arange(columns)[None, :] - np.arange(rows)[:, None]).reshape(rows, columns)
        diagonal = b.op("mil.squeeze", [m.k], {"axes": (0,)}) if rank_of(m.k) else m.k
        compare = "mil.less_equal" if m.u else "mil.greater_equal"
        chosen: Value = b.op("mil.select", [b.op(compare, [diagonal, right]), m.x, np.zeros((), dtype.numpy)])
        return chosen
    k = given[0]
    if m.u and k <= 0:
        out: Value = b.op("mil.band_part", [m.x], {"lower": -k, "upper": -1})
        return out
    if not m.u and k >= 0:
        out = b.op("mil.band_part", [m.x], {"lower": -1, "upper": k})
        return out
    rows, columns = shape_of(m.x)[-2:]
    kept = np.triu(np.ones((rows, columns), bool), k) if m.u else np.tril(np.ones((rows, columns), bool), k)
    out = b.op("mil.select", [kept, m.x, np.zeros((), dtype.numpy)])
    return out


#: The points of a grid, as a constant of two or three coordinates and a one each: more would take gigabytes.
_MOST_POINTS = 2**27


def affine_grid(b: RuleBuilder, m: Bindings) -> Value:
    """The homogeneous coordinates (x, y, [z,] 1) of all points, last axis of the image first, times theta's rows."""
    batch, *space, _ = shape_of(m.y)
    if max(math.prod(space), *space) > _MOST_POINTS:
        raise Decline("a grid of so many points does not fit into a constant")
    if m.corners and 1 in space:
        raise Decline("where the corner of a single point lies is not settled")
    base = affine_base(space, m.corners).astype(dtype_of(m.theta).numpy)
    flat = b.op("mil.matmul", [base, m.theta], {"transpose_y": True})
    return to_shape(b, flat, ints([batch, *space, len(space)]))


# ---- tensors made of shapes and numbers


def shape(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.x)
    start, stop, _ = slice(m.s, m.e).indices(rank)
    if stop <= start:
        raise Decline("Core ML has no empty tensors")
    whole: Value = b.op("mil.shape", [m.x])
    if (start, stop) == (0, rank):
        return whole
    out: Value = b.op("mil.slice_by_index", [whole, ints([start]), ints([stop])])
    return out


def constant_of_shape(b: RuleBuilder, m: Bindings) -> Value:
    value = np.zeros(1, np.float32) if m.v is None else m.v
    scalar = value.reshape(-1)[0]
    known = constant_ints(m.s)
    if known is not None and len(known) == 0:
        single: Value = b.constant(value.reshape(()), "mil")
        return single
    if known is not None:
        if 0 in known:
            raise Decline("Core ML has no empty tensors")
        spread: Value = b.constant(np.broadcast_to(value.reshape(()), known), "mil")
        return spread
    if m.y.type.shape is None:
        raise Decline("the number of dimensions is not known")
    out: Value = b.op("mil.fill", [m.s], {"value": np.asarray(scalar)})
    return out


def eye_like(b: RuleBuilder, m: Bindings) -> Value:
    rows, columns = shape_of(m.x)
    eye: Value = b.constant(np.eye(rows, columns, k=m.k, dtype=dtype_of(m.y).numpy), "mil")
    return eye

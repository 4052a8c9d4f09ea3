"""Builders of meaning rules: what mil's shape and index operators are, in onnx.*.

Indices and shapes are 32 bits or narrower in MIL and 64 bits in ONNX: constants are converted, other values cast.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import BOOL, F32, F64, I32, I64, DType, TensorType, Value, from_numpy
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import axis_of, dtype_of, permuted, rank_of, shape_of

Array = np.ndarray[Any, Any]

#: An end beyond any tensor, and one before.
_LAST = np.iinfo(np.int64).max
_FIRST = np.iinfo(np.int64).min + 1


def _i64(b: RuleBuilder, v: Value) -> Any:
    """``v`` as 64-bit integers: data if it is constant."""
    array = v.constant
    if array is not None:
        return np.asarray(array).astype(np.int64)
    return v if dtype_of(v) is I64 else b.op("onnx.Cast", [v], {"to": I64})


def _index(b: RuleBuilder, v: Value) -> Any:
    """Indices of a type that ONNX takes."""
    return v if v.constant is None and dtype_of(v) in (I32, I64) else _i64(b, v)


def _vector(values: Any) -> Array:
    return np.asarray(values, np.int64).reshape(-1)


def reshape(b: RuleBuilder, m: Bindings) -> Value:
    """Zeros take over dimensions, between shapes of one rank only."""
    shape = _i64(b, m.s)
    if isinstance(shape, np.ndarray) and 0 in shape and shape.size != rank_of(m.x):
        raise Decline("what 0 stands for between shapes of different rank is not defined")
    out: Value = b.op("onnx.Reshape", [m.x, shape])
    return out


def reverse(b: RuleBuilder, m: Bindings) -> Value:
    axes = list(m.a) if m.a is not None else list(range(rank_of(m.x)))
    n = len(axes)
    ends = _vector([_FIRST] * n)
    out: Value = b.op("onnx.Slice", [m.x, _vector([_LAST] * n), ends, _vector(axes), _vector([-1] * n)])
    return out


def reverse_sequence(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.x)
    batch, time = axis_of(m.b, rank), axis_of(m.s, rank)
    if batch == time:
        raise Decline("one axis is both batch and sequence")
    perm = [batch, time, *(i for i in range(rank) if i not in (batch, time))]
    x = b.op("onnx.Transpose", [m.x], {"perm": tuple(perm)}) if permuted(perm) else m.x
    out: Value = b.op("onnx.ReverseSequence", [x, _i64(b, m.n)], {"batch_axis": 0, "time_axis": 1})
    back = tuple(int(i) for i in np.argsort(perm))
    return b.op("onnx.Transpose", [out], {"perm": back}) if permuted(perm) else out


# ---- joining and splitting


def concat(b: RuleBuilder, m: Bindings) -> Value:
    xs = list(m.xs)
    rank = rank_of(xs[0])
    if rank == 0:
        xs = [b.op("onnx.Unsqueeze", [x, _vector([0])]) for x in xs]
        rank = 1
    axis = axis_of(m.a, rank)
    if not m.i or len(xs) == 1:
        joined: Value = b.op("onnx.Concat", xs, {"axis": axis})
        return joined
    # Interleaved: neighbours along a new axis, which then becomes one with the old.
    shape = list(shape_of(xs[0]))
    shape[axis] *= len(xs)
    between = b.op("onnx.Concat", [b.op("onnx.Unsqueeze", [x, _vector([axis + 1])]) for x in xs], {"axis": axis + 1})
    interleaved: Value = b.op("onnx.Reshape", [between, _vector(shape)])
    return interleaved


def split(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    count = len(m.ys)
    axis = axis_of(m.a, rank_of(m.x))
    sizes: list[int] | None
    if m.s is not None:
        sizes = list(m.s)
    else:
        size = shape_at(m.x, axis)
        if size is not None and size % count:
            raise Decline("the axis cannot be split evenly")
        sizes = None if size is None else [size // count] * count
    if sizes is None:
        made = b.op("onnx.Split", [m.x], {"axis": axis, "num_outputs": count}, results=count)
    else:
        made = b.op("onnx.Split", [m.x, _vector(sizes)], {"axis": axis}, results=count)
    return tuple(made) if count > 1 else (made,)


def shape_at(x: Value, axis: int) -> int | None:
    """The size of one dimension; None where it is not known."""
    assert isinstance(x.type, TensorType)
    d = x.type.shape[axis] if x.type.shape is not None else None
    return d if isinstance(d, int) else None


def tile(b: RuleBuilder, m: Bindings) -> Value:
    out: Value = b.op("onnx.Tile", [m.x, _i64(b, m.r)])
    return out


def pad(b: RuleBuilder, m: Bindings) -> Value:
    """MIL pads the last axes and lists (before, after) for each; ONNX lists all befores, then all afters."""
    rank = rank_of(m.x)
    mode = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}.get(m.mode)
    if mode is None:
        raise Decline(f"MIL has no padding mode '{m.mode}'")
    value = np.asarray(m.v).astype(dtype_of(m.x).numpy).reshape(()) if mode == "constant" else None
    amounts = _i64(b, m.p)
    if isinstance(amounts, np.ndarray):
        pairs = np.zeros((rank, 2), np.int64)
        n = amounts.size // 2
        pairs[rank - n :] = amounts.reshape(n, 2)
        amounts = pairs.T.reshape(-1)
    else:
        pairs_by_axis = b.op("onnx.Reshape", [amounts, _vector([rank, 2])])
        amounts = b.op("onnx.Reshape", [b.op("onnx.Transpose", [pairs_by_axis], {"perm": (1, 0)}), _vector([-1])])
    out: Value = b.op("onnx.Pad", [m.x, amounts, value], {"mode": mode})
    return out


def sliding_windows(b: RuleBuilder, m: Bindings) -> Value:
    axis = axis_of(m.a, rank_of(m.x))
    starts = np.arange((shape_of(m.x)[axis] - m.n) // m.s + 1) * m.s
    windows = (starts[:, None] + np.arange(m.n)[None, :]).astype(np.int64)
    out: Value = b.op("onnx.Gather", [m.x, windows], {"axis": axis})
    return out


# ---- slices


def slice_by_index(b: RuleBuilder, m: Bindings) -> Value:
    """NumPy's slices. A masked bound is as far as the stride's direction goes; a squeezed axis is one element."""
    rank = rank_of(m.x)
    none = (False,) * rank
    strides = tuple(m.stride) if m.stride is not None else (1,) * rank
    begin_mask, end_mask, squeeze = (tuple(k) if k is not None else none for k in (m.bm, m.em, m.sm))
    steps = [1 if q else s for s, q in zip(strides, squeeze)]
    begins, ends = _i64(b, m.begin), _i64(b, m.end)
    # A squeezed axis counts as masked at its begin only where the begin is.
    low = [(0 if s > 0 else _LAST) if k else None for s, k in zip(steps, begin_mask)]
    high = [(_LAST if s > 0 else _FIRST) if k and not q else None for s, k, q in zip(steps, end_mask, squeeze)]
    starts = _masked(b, begins, low)
    if isinstance(starts, np.ndarray):
        after = np.where(starts == -1, _LAST, starts + 1)
    elif any(squeeze):
        after = b.op(
            "onnx.Where",
            [b.op("onnx.Equal", [starts, np.int64(-1)]), np.int64(_LAST), b.op("onnx.Add", [starts, np.int64(1)])],
        )
    stops = _masked(b, ends, high)
    if any(squeeze):
        chosen = np.array(squeeze)
        if isinstance(after, np.ndarray) and isinstance(stops, np.ndarray):
            stops = np.where(chosen, after, stops)
        else:
            stops = b.op("onnx.Where", [chosen, after, stops])
    out: Value = b.op("onnx.Slice", [m.x, starts, stops, _vector(range(rank)), _vector(steps)])
    axes = [i for i, q in enumerate(squeeze) if q]
    return b.op("onnx.Squeeze", [out, _vector(axes)]) if axes else out


def _masked(b: RuleBuilder, values: Any, masked: list[Any]) -> Any:
    """``values`` with those replaced that ``masked`` gives a number for."""
    if all(v is None for v in masked):
        return values
    mask = np.array([v is not None for v in masked])
    fixed = np.array([0 if v is None else v for v in masked], np.int64)
    if isinstance(values, np.ndarray):
        return np.where(mask, fixed, values)
    return fixed if mask.all() else b.op("onnx.Where", [mask, fixed, values])


def slice_by_size(b: RuleBuilder, m: Bindings) -> Value:
    """A size of -1 reaches to the end. From a begin before the end it has no meaning here: coremltools infers that
    there are more elements than it takes."""
    begins, sizes = _i64(b, m.begin), _i64(b, m.n)
    if isinstance(begins, np.ndarray) and isinstance(sizes, np.ndarray):
        if ((begins < 0) & (sizes == -1)).any():
            raise Decline("begins before the end and reaches to it")
        ends: Any = np.where((sizes == -1) | ((begins < 0) & (begins + sizes >= 0)), _LAST, begins + sizes)
    else:
        last = np.int64(_LAST)
        total = b.op("onnx.Add", [begins, sizes])
        # From a begin before the end, a slice may end at 0, which is the end of the tensor.
        wraps = b.op("onnx.Equal", [total, np.int64(0)])
        open_ = b.op("onnx.Or", [b.op("onnx.Equal", [sizes, np.int64(-1)]), wraps])
        from_end = b.op("onnx.And", [open_, b.op("onnx.Not", [b.op("onnx.Equal", [sizes, np.int64(0)])])])
        ends = b.op("onnx.Where", [from_end, last, total])
    out: Value = b.op("onnx.Slice", [m.x, begins, ends, _vector(range(rank_of(m.x)))])
    return out


def slice_update(b: RuleBuilder, m: Bindings) -> Value:
    shape = shape_of(m.x)
    rank = len(shape)
    none = (False,) * rank
    strides = tuple(m.stride) if m.stride is not None else (1,) * rank
    begin_mask, end_mask, squeeze = (tuple(k) if k is not None else none for k in (m.bm, m.em, m.sm))
    places = []
    for i in range(rank):
        begin = None if begin_mask[i] else int(m.begin.constant[i])
        if squeeze[i]:
            places.append(np.arange(shape[i])[[begin or 0]])
        else:
            places.append(np.arange(shape[i])[begin : None if end_mask[i] else int(m.end.constant[i]) : strides[i]])
    grid = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).astype(np.int64)
    update = b.op("onnx.Reshape", [m.u, _vector(grid.shape[:-1])])
    out: Value = b.op("onnx.ScatterND", [m.x, grid, update])
    return out


# ---- gathers and scatters


def gather(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.x)
    axis = axis_of(m.a, rank)
    n = m.n
    if n == 0:
        plain: Value = b.op("onnx.Gather", [m.x, _index(b, m.i)], {"axis": axis})
        return plain
    # The leading n axes are shared; what lies between them and the axis goes before the indices' own axes.
    between, behind = list(range(n, axis)), list(range(axis + 1, rank))
    perm = [*range(n), axis, *between, *behind]
    x = b.op("onnx.Transpose", [m.x], {"perm": tuple(perm)}) if permuted(perm) else m.x
    column = b.op("onnx.Unsqueeze", [_i64(b, m.i), _vector([-1])])
    out: Value = b.op("onnx.GatherND", [x, column], {"batch_dims": n})
    own = rank_of(m.i) - n
    first = n + own
    order = [*range(n), *range(first, first + len(between)), *range(n, first)]
    order += range(first + len(between), first + len(between) + len(behind))
    return b.op("onnx.Transpose", [out], {"perm": tuple(order)}) if permuted(order) else out


def gather_along_axis(b: RuleBuilder, m: Bindings) -> Value:
    out: Value = b.op("onnx.GatherElements", [m.x, _index(b, m.i)], {"axis": m.a})
    return out


def gather_nd(b: RuleBuilder, m: Bindings) -> Value:
    out: Value = b.op("onnx.GatherND", [m.x, _i64(b, m.i)], {"batch_dims": m.n})
    return out


def _mode(b: RuleBuilder, mode: str, updates: Value) -> tuple[str, Value]:
    """ONNX's name of a scatter's mode, and the updates that go with it."""
    match mode:
        case "update":
            return "none", updates
        case "add" | "mul" | "max" | "min":
            return mode, updates
        case "sub":
            return "add", b.op("onnx.Neg", [updates])
        case "div" if dtype_of(updates).is_float:
            return "mul", b.op("onnx.Reciprocal", [updates])
    raise Decline(f"there is no scatter mode '{mode}' here")


def scatter(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.x)
    axis = axis_of(m.a, rank)
    reduction, updates = _mode(b, m.mode, m.u)
    indices = _i64(b, m.i)
    if axis == 0:
        column = b.op("onnx.Unsqueeze", [indices, _vector([-1])])
        rows: Value = b.op("onnx.ScatterND", [m.x, column, updates], {"reduction": reduction})
        return rows
    along = b.op("onnx.Reshape", [indices, _vector([-1 if i == axis else 1 for i in range(rank)])])
    spread = b.op("onnx.Expand", [along, b.op("onnx.Shape", [updates])])
    attributes = {"axis": axis, "reduction": reduction}
    out: Value = b.op("onnx.ScatterElements", [m.x, spread, updates], attributes)
    return out


def scatter_along_axis(b: RuleBuilder, m: Bindings) -> Value:
    reduction, updates = _mode(b, m.mode, m.u)
    attributes = {"axis": m.a, "reduction": reduction}
    out: Value = b.op("onnx.ScatterElements", [m.x, _index(b, m.i), updates], attributes)
    return out


def scatter_nd(b: RuleBuilder, m: Bindings) -> Value:
    reduction, updates = _mode(b, m.mode, m.u)
    out: Value = b.op("onnx.ScatterND", [m.x, _i64(b, m.i), updates], {"reduction": reduction})
    return out


def band_part(b: RuleBuilder, m: Bindings) -> Value:
    rows, columns = shape_of(m.x)[-2:]
    below = np.arange(rows)[:, None] - np.arange(columns)[None, :]
    kept = ((m.l < 0) | (below <= m.l)) & ((m.u < 0) | (-below <= m.u))
    if dtype_of(m.x) is BOOL:
        flags: Value = b.op("onnx.And", [kept, m.x])
        return flags
    out: Value = b.op("onnx.Where", [kept, m.x, np.zeros((), dtype_of(m.x).numpy)])
    return out


# ---- tensors made of shapes and numbers


def _filled_dtype(value: Any, y: Value) -> DType:
    """The element type of what a number fills: its own if it has one, else the result's where that is known."""
    if isinstance(value, (np.ndarray, np.generic)):
        return from_numpy(value.dtype)
    if isinstance(value, bool):
        return BOOL
    known = y.type if isinstance(y.type, TensorType) and y.type.shape is not None else None
    if isinstance(value, int):
        return known.dtype if known is not None else I32
    return known.dtype if known is not None and known.dtype.is_float else F32


def fill(b: RuleBuilder, m: Bindings) -> Value:
    value = np.asarray(m.v).astype(_filled_dtype(m.v, m.y).numpy).reshape(1)
    out: Value = b.op("onnx.ConstantOfShape", [_i64(b, m.s)], {"value": value})
    return out


def fill_like(b: RuleBuilder, m: Bindings) -> Value:
    value = np.asarray(m.v).astype(_filled_dtype(m.v, m.y).numpy).reshape(1)
    out: Value = b.op("onnx.ConstantOfShape", [b.op("onnx.Shape", [m.x])], {"value": value})
    return out


def range_1d(b: RuleBuilder, m: Bindings) -> Value:
    """Of floats, each element from its number: onnxruntime adds step upon step, and is off by as many roundings."""
    start, end, step = (b.op("onnx.Squeeze", [v]) if rank_of(v) else v for v in (m.start, m.end, m.step))
    dtype = m.start.type.dtype
    if not dtype.is_float:
        out: Value = b.op("onnx.Range", [start, end, step])
        return out
    known = [v.constant for v in (m.start, m.end, m.step)]
    if all(v is not None for v in known):
        first, last, by = (float(np.asarray(v).reshape(-1)[0]) for v in known)
        if by == 0 or not np.isfinite([first, last, by]).all():
            raise Decline("a range without an end")
        count = max(int(np.ceil((last - first) / by)), 0)
        return b.constant((first + by * np.arange(count)).astype(dtype.numpy), "onnx")
    wide = [b.op("onnx.Cast", [v], {"to": F64}) for v in (start, end, step)]
    length = b.op("onnx.Ceil", [b.op("onnx.Div", [b.op("onnx.Sub", [wide[1], wide[0]]), wide[2]])])
    numbers = b.op("onnx.Range", [np.float64(0), length, np.float64(1)])
    places = b.op("onnx.Add", [b.op("onnx.Mul", [numbers, wide[2]]), wide[0]])
    made: Value = b.op("onnx.Cast", [places], {"to": dtype})
    return made


def one_hot(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.i) + 1
    axis = m.a + rank if m.a < 0 else m.a
    indices = _i64(b, m.i)
    column = b.op("onnx.Unsqueeze", [indices, _vector([axis])])
    size = m.n.constant
    tail = tuple(range(1, rank - axis))
    if size is not None:
        places: Any = np.arange(int(np.asarray(size).reshape(-1)[0])).reshape(-1, *(1 for _ in tail))
    else:
        depth = b.op("onnx.Squeeze", [_i64(b, m.n)]) if rank_of(m.n) else _i64(b, m.n)
        places = b.op("onnx.Range", [np.int64(0), depth, np.int64(1)])
        if tail:
            places = b.op("onnx.Unsqueeze", [places, _vector(tail)])
    dtype = _filled_dtype(m.on, m.y)
    if dtype is I32 and isinstance(m.off, float):
        dtype = F32
    on, off = (np.asarray(v).astype(dtype.numpy).reshape(()) for v in (m.on, m.off))
    hit = b.op("onnx.Equal", [column, places])
    if dtype is BOOL:
        lit: Value = b.op("onnx.Or", [b.op("onnx.And", [hit, on]), b.op("onnx.And", [b.op("onnx.Not", [hit]), off])])
        return lit
    out: Value = b.op("onnx.Where", [hit, on, off])
    return out

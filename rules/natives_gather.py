"""Builders of lowering rules for gathers and scatters.

ONNX counts negative indices from the end. So did Core ML's gather before iOS 17; from then on they are undefined, and
for the other operators they never were defined. Indices that may be negative are therefore brought to the front here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from compiler.ir import BOOL, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import axis_of, dtype_of, rank_of, shape_of
from rules.natives_arithmetic import is_natural
from rules.natives_shape import dims_of, ints, to_shape

Array = np.ndarray[Any, Any]

_MODES = {"none": "update", "add": "add", "mul": "mul", "max": "max", "min": "min"}


def _from_front(b: RuleBuilder, indices: Value, size: Any) -> Any:
    """``indices`` without negative ones.

    Args:
        size: how many there are to choose from; a vector where each last-axis element of ``indices`` has its own.
    """
    array = indices.constant
    if array is not None and not isinstance(size, Value):
        if not array.size or array.min() >= 0:
            return indices
        return np.where(array < 0, array + size, array).astype(array.dtype)
    if is_natural(indices):
        return indices
    wrapped = b.op("mil.add", [indices, size])
    return b.op("mil.select", [b.op("mil.greater_equal", [indices, 0]), indices, wrapped])


def _size(b: RuleBuilder, x: Value, axis: int, like: Value) -> Any:
    """The size of an axis: a number, or where it is not known at compile time, a value that fits ``like``."""
    d = dims_of(x)[axis]
    if isinstance(d, int):
        return d
    value = b.op("mil.gather", [b.op("mil.shape", [x]), np.int32(axis)], {"axis": 0})
    # All integers are of one width once the module is narrowed; until then those that meet must agree.
    value.type = value.type.with_dtype(dtype_of(like))
    return value


def _as_numbers(b: RuleBuilder, x: Value, compute: Callable[[Value], Value]) -> Value:
    """``compute`` on bools goes by way of integers, as Core ML gathers and scatters numbers only."""
    if dtype_of(x) is not BOOL:
        return compute(x)
    out: Value = b.op("mil.cast", [compute(b.op("mil.cast", [x], {"dtype": "int32"}))], {"dtype": "bool"})
    return out


def gather(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.x)
    axis = axis_of(m.a, rank)
    index = m.i.constant
    size = dims_of(m.x)[axis]
    if index is not None and index.ndim == 0 and rank > 1:
        return _element(b, m.x, axis, int(index) % size if isinstance(size, int) else int(index))
    negative = getattr(b.target, "ios", None)
    indices = m.i if negative == 16 else _from_front(b, m.i, _size(b, m.x, axis, m.i))
    return _as_numbers(b, m.x, lambda x: b.op("mil.gather", [x, indices], {"axis": axis}))


def _element(b: RuleBuilder, x: Value, axis: int, index: int) -> Value:
    """One element of an axis: a slice, which unlike a gather runs on the Neural Engine."""
    rank = rank_of(x)
    here = [i == axis for i in range(rank)]
    others = tuple(not h for h in here)
    # The end of a squeezed axis is not looked at.
    begin, end = ints([index if h else 0 for h in here]), ints([index + 1 if h else 0 for h in here])
    attributes = {"begin_mask": others, "end_mask": others, "squeeze_mask": tuple(here)}
    out: Value = b.op("mil.slice_by_index", [x, begin, end], attributes)
    return out


def gather_elements(b: RuleBuilder, m: Bindings) -> Value:
    """ONNX's indices may cover a corner of the data; Core ML's cover all of it but for the axis."""
    rank = rank_of(m.x)
    axis = axis_of(m.a, rank)
    have, want = dims_of(m.x), dims_of(m.i)
    x = m.x
    if any(h != w for k, (h, w) in enumerate(zip(have, want)) if k != axis):
        if not all(isinstance(d, int) for d in (*have, *want)):
            raise Decline("shapes not known")
        end = [h if k == axis else w for k, (h, w) in enumerate(zip(have, want))]
        x = b.op("mil.slice_by_index", [x, ints([0] * rank), ints(end)])
    indices = _from_front(b, m.i, _size(b, m.x, axis, m.i))
    return _as_numbers(b, x, lambda v: b.op("mil.gather_along_axis", [v, indices], {"axis": axis}))


def _sizes(b: RuleBuilder, x: Value, first: int, count: int, like: Value) -> Any:
    """The sizes of several axes: a vector, or where one is not known at compile time, a value."""
    dims = dims_of(x)[first : first + count]
    if all(isinstance(d, int) for d in dims):
        return np.array(dims, np.int64)
    value = b.op("mil.slice_by_index", [b.op("mil.shape", [x]), ints([first]), ints([first + count])])
    value.type = value.type.with_dtype(dtype_of(like))
    return value


def gather_nd(b: RuleBuilder, m: Bindings) -> Value:
    depth = shape_of_last(m.i)
    indices = m.i if is_natural(m.i) else _from_front(b, m.i, _sizes(b, m.x, m.n, depth, m.i))
    return _as_numbers(b, m.x, lambda x: b.op("mil.gather_nd", [x, indices], {"batch_dims": m.n}))


def shape_of_last(indices: Value) -> int:
    """The size of the last axis."""
    last = dims_of(indices)[-1]
    if not isinstance(last, int):
        raise Decline("the depth of the indices is not known")
    return last


def _check_mode(x: Value, mode: str) -> None:
    """
    Raises:
        Decline: Core ML cannot combine elements of that type in that mode as ONNX does.
    """
    dtype = dtype_of(x)
    if dtype is BOOL and mode != "update":
        raise Decline("bools are only replaced")
    if dtype.is_integer and dtype.bits < 32 and mode in ("add", "mul"):
        raise Decline("what is added up would have to wrap around")


def scatter_elements(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.x)
    axis = axis_of(m.a, rank)
    mode = _MODES[m.r]
    have, want = dims_of(m.x), dims_of(m.i)
    _check_mode(m.x, mode)
    indices = _from_front(b, m.i, _size(b, m.x, axis, m.i))
    updates = m.u if dtype_of(m.u) is not BOOL else b.op("mil.cast", [m.u], {"dtype": "int32"})
    if all(h == w for k, (h, w) in enumerate(zip(have, want)) if k != axis):
        attributes = {"axis": axis, "mode": mode}
        return _as_numbers(b, m.x, lambda x: b.op("mil.scatter_along_axis", [x, indices, updates], attributes))
    return _scatter_corner(b, m, indices, updates, axis, mode)


def tensor_scatter(b: RuleBuilder, m: Bindings) -> Value:
    """A cache with an update written into it, for each batch from its own place on."""
    shape, count = shape_of(m.x), shape_of(m.u)
    rank = len(shape)
    axis = axis_of(m.a, rank)
    if axis == 0 or dtype_of(m.x) is BOOL:
        raise Decline("batches are written one after the other")
    whole = dtype_of(m.at).numpy if m.at is not None else np.dtype(np.int32)
    places = np.arange(shape[axis], dtype=whole).reshape([-1] + [1] * (rank - 1 - axis))
    since: Any = places.reshape([1] * axis + [*places.shape])
    if m.at is None:
        since = b.constant(since, "mil")
    else:
        since = b.op("mil.sub", [since, b.op("mil.reshape", [m.at, ints([-1] + [1] * (rank - 1))])])
        if m.mode == "circular":
            since = b.op("mil.mod", [since, np.asarray(shape[axis], whole)])
    written = b.op(
        "mil.logical_and", [b.op("mil.greater_equal", [since, 0]), b.op("mil.less", [since, int(count[axis])])]
    )
    source = b.op("mil.minimum", [b.op("mil.maximum", [since, 0]), int(count[axis]) - 1])
    repeats = [1 if k == axis or (k == 0 and m.at is not None) else n for k, n in enumerate(shape)]
    picked = b.op("mil.gather_along_axis", [m.u, b.op("mil.tile", [source, ints(repeats)])], {"axis": axis})
    out: Value = b.op("mil.select", [written, picked, m.x])
    return out


def _scatter_corner(b: RuleBuilder, m: Bindings, indices: Any, updates: Value, axis: int, mode: str) -> Value:
    """Updates that cover a corner of the data only: each gets all its coordinates."""
    shape = shape_of(m.i)
    grids = np.meshgrid(*(np.arange(n, dtype=np.int32) for n in shape), indexing="ij")
    own = indices.constant if isinstance(indices, Value) else indices
    dtype = dtype_of(m.i).numpy
    columns: list[Any] = [g.reshape(-1, 1).astype(dtype) for g in grids]
    if own is not None:
        columns[axis] = np.asarray(own).reshape(-1, 1)
        places: Any = np.concatenate(columns, axis=1)
    else:
        columns = [b.constant(c, "mil") for c in columns]
        columns[axis] = b.op("mil.reshape", [indices, ints([-1, 1])])
        places = b.op("mil.concat", columns, {"axis": 1})
    flat = b.op("mil.reshape", [updates, ints([-1])]) if rank_of(updates) != 1 else updates
    return _as_numbers(b, m.x, lambda x: b.op("mil.scatter_nd", [x, places, flat], {"mode": mode}))


def scatter_nd(b: RuleBuilder, m: Bindings) -> Value:
    mode = _MODES[m.r]
    _check_mode(m.x, mode)
    indices = m.i if is_natural(m.i) else _from_front(b, m.i, _sizes(b, m.x, 0, shape_of_last(m.i), m.i))
    updates = m.u if dtype_of(m.u) is not BOOL else b.op("mil.cast", [m.u], {"dtype": "int32"})
    return _as_numbers(b, m.x, lambda x: b.op("mil.scatter_nd", [x, indices, updates], {"mode": mode}))


def compress(b: RuleBuilder, m: Bindings) -> Value:
    """The places where the condition holds are gathered; how many they are is only known at run time."""
    x: Value = m.x
    axis = 0
    if m.a is None:
        x = to_shape(b, x, ints([int(np.prod(shape_of(x)))]))
    else:
        axis = axis_of(m.a, rank_of(x))
    if rank_of(m.c) != 1:
        raise Decline("the condition is no vector")
    long, size = dims_of(m.c)[0], dims_of(x)[axis]
    if isinstance(long, int) and isinstance(size, int) and long > size:
        raise Decline("the condition is longer than what it chooses from")
    places = b.op("mil.squeeze", [b.op("mil.non_zero", [m.c])], {"axes": (1,)})
    return _as_numbers(b, x, lambda v: b.op("mil.gather", [v, places], {"axis": axis}))


def one_hot(b: RuleBuilder, m: Bindings) -> Value:
    """Each place along the new axis is compared with the index: what lies out of range is off everywhere."""
    rank = rank_of(m.i) + 1
    axis = axis_of(m.a, rank)
    n = dims_of(m.y)[axis]
    if not isinstance(n, int):
        raise Decline("depth not known at compile time")
    indices = m.i
    if not dtype_of(indices).is_integer or not is_natural(indices):
        if dtype_of(indices).is_float:
            indices = b.op("mil.cast", [indices], {"dtype": "int32"})
        indices = _from_front(b, indices, n)
    places = np.arange(n, dtype=np.int32).reshape([-1 if i == axis else 1 for i in range(rank)])
    column = b.op("mil.expand_dims", [indices], {"axes": (axis,)})
    places = places.astype(dtype_of(column).numpy)
    hit = b.op("mil.equal", [column, places])
    values = m.values.constant
    if values is not None:
        off, on = (np.asarray(v) for v in values.reshape(-1))
        if values.dtype == np.bool_ and not off and on:
            plain: Value = hit
            return plain
    else:
        off, on = b.op("mil.split", [m.values], {"axis": 0, "num_splits": 2}, results=2)
        off, on = (b.op("mil.squeeze", [v], {"axes": (0,)}) for v in (off, on))
    out: Value = b.op("mil.select", [hit, on, off])
    return out

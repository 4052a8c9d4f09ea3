"""Builders that cut and pad tensors of any rank."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import BOOL, I32, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import axis_of, constant_ints, dtype_of, rank_of, shape_of
from rules.natives_shape import MOST_AXES, dims_of, ints

_LAST = np.iinfo(np.int32).max


def pad(b: RuleBuilder, m: Bindings) -> Value:
    rank = rank_of(m.x)
    amounts = constant_ints(m.p) or ()
    axes = constant_ints(m.axes) if m.axes is not None else tuple(range(rank))
    if axes is None:
        raise Decline("axes not known at compile time")
    n = len(axes)
    before, after = [0] * rank, [0] * rank
    for k, a in enumerate(axes):
        before[axis_of(a, rank)] += amounts[k]
        after[axis_of(a, rank)] += amounts[n + k]
    x = _cut(b, m.x, before, after)
    before, after = [max(v, 0) for v in before], [max(v, 0) for v in after]
    if not any(before) and not any(after):
        return x
    padded = [i for i in range(rank) if before[i] or after[i]]
    if m.mode == "constant":
        return _pad_by_constant(b, m, x, before, after, padded)
    native = {"reflect": "reflect", "edge": "replicate"}.get(m.mode)
    if native is not None and dtype_of(x).is_float and rank <= MOST_AXES and min(padded) >= rank - 2:
        pairs = [v for i in range(max(rank - 2, 0), rank) for v in (before[i], after[i])]
        out: Value = b.op("mil.pad", [x, ints(pairs)], {"mode": native})
        return out
    return _pad_by_gathers(b, x, m.mode, before, after, padded)


def _pad_by_constant(
    b: RuleBuilder, m: Bindings, x: Value, before: list[int], after: list[int], padded: list[int]
) -> Value:
    dtype = dtype_of(x)
    value = 0 if m.v is None else m.v.constant
    if value is None:
        return _pad_by_computed(b, m, x, before, after)
    scalar = np.asarray(value).reshape(-1)[0] if np.asarray(value).size else 0
    if dtype.is_float:
        pairs = [v for i in range(min(padded), len(before)) for v in (before[i], after[i])]
        out: Value = b.op("mil.pad", [x, ints(pairs)], {"constant_val": float(scalar)})
        return out
    for axis in padded:
        shape = list(shape_of(x))
        parts: list[Any] = []
        for amount in (before[axis], after[axis]):
            shape[axis] = amount
            parts.append(b.constant(np.full(shape, scalar, dtype.numpy), "mil") if amount else None)
        x = b.op("mil.concat", [v for v in (parts[0], x, parts[1]) if v is not None], {"axis": axis})
    return x


def _pad_by_computed(b: RuleBuilder, m: Bindings, x: Value, before: list[int], after: list[int]) -> Value:
    """Zeros all around, then what is computed in their place."""
    dtype = dtype_of(x)
    zero = Bindings(["v"], [b.constant(np.zeros((), dtype.numpy), "mil")])
    wide = _pad_by_constant(b, zero, x, before, after, [i for i, n in enumerate(before) if n or after[i]])
    inside = np.pad(np.ones(shape_of(x), bool), list(zip(before, after)))
    out: Value = b.op("mil.select", [inside, wide, m.v])
    return out


def _pad_by_gathers(
    b: RuleBuilder, x: Value, mode: str, before: list[int], after: list[int], padded: list[int]
) -> Value:
    kinds = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    if mode not in kinds or dtype_of(x) is BOOL:
        raise Decline(f"no padding mode {mode}")
    shape = shape_of(x)
    for axis in padded:
        places = np.pad(np.arange(shape[axis]), (before[axis], after[axis]), mode=kinds[mode])  # type: ignore[call-overload]
        x = b.op("mil.gather", [x, ints(places)], {"axis": axis})
    return x


def _cut(b: RuleBuilder, x: Value, before: list[int], after: list[int]) -> Value:
    """Negative amounts of padding take away."""
    if all(v >= 0 for v in (*before, *after)):
        return x
    begin = [max(-v, 0) for v in before]
    end = [d - max(-v, 0) for d, v in zip(shape_of(x), after)]
    if any(e <= s for s, e in zip(begin, end)):
        raise Decline("Core ML has no empty tensors")
    out: Value = b.op("mil.slice_by_index", [x, ints(begin), ints(end)])
    return out


def slice_by_constants(b: RuleBuilder, m: Bindings) -> Value:
    """Bounds are brought into the tensor where its size is known, and become masks where they lie beyond any size."""
    dims = dims_of(m.x)
    rank = len(dims)
    starts, ends = constant_ints(m.starts) or (), constant_ints(m.ends) or ()
    axes = constant_ints(m.axes) or tuple(range(len(starts)))
    steps = constant_ints(m.steps) or (1,) * len(starts)
    begin, end, stride = [0] * rank, [0] * rank, [1] * rank
    begin_mask, end_mask = [True] * rank, [True] * rank
    for start, stop, axis, step in zip(starts, ends, axes, steps, strict=True):
        i = axis_of(axis, rank)
        size = dims[i]
        stride[i] = max(min(step, _LAST), -_LAST)
        if isinstance(size, int):
            low, high, _ = slice(start, stop, step).indices(size)
            if not range(low, high, step):
                raise Decline("Core ML has no empty tensors")
            begin[i], begin_mask[i] = low, low == (0 if step > 0 else size - 1)
            end[i], end_mask[i] = max(high, 0), high == (size if step > 0 else -1)
        else:
            begin[i], begin_mask[i] = _bound(start, step > 0, first=True)
            end[i], end_mask[i] = _bound(stop, step > 0, first=False)
    if all(begin_mask) and all(end_mask) and all(s == 1 for s in stride):
        unchanged: Value = m.x
        return unchanged
    for i, d in enumerate(dims):
        if isinstance(d, int):
            end[i] = end[i] if not end_mask[i] else d if stride[i] > 0 else 0
    return _sliced(b, m.x, begin, end, stride, begin_mask, end_mask)


def _sliced(
    b: RuleBuilder, x: Value, begin: Any, end: Any, stride: list[int], begin_mask: list[bool], end_mask: list[bool]
) -> Value:
    attributes: dict[str, Any] = {}
    if any(s != 1 for s in stride):
        attributes["stride"] = tuple(stride)
    if any(begin_mask):
        attributes["begin_mask"] = tuple(begin_mask)
    if any(end_mask):
        attributes["end_mask"] = tuple(end_mask)
    begin = begin if isinstance(begin, Value) else ints(begin)
    end = end if isinstance(end, Value) else ints(end)
    out: Value = b.op("mil.slice_by_index", [x, begin, end], attributes)
    return out


def _bound(value: int, forward: bool, first: bool) -> tuple[int, bool]:
    """A bound of an axis of unknown size, and whether it lies beyond: then it is masked."""
    if first:
        beyond = value == 0 if forward else value >= _LAST or value == -1
    else:
        beyond = value >= _LAST if forward else value <= -_LAST
    return (0 if beyond else max(min(value, _LAST), -_LAST)), beyond


def slice_by_values(b: RuleBuilder, m: Bindings) -> Value:
    """Bounds that are computed at run time, for the axes that are named; the others are masked."""
    if (
        m.starts.constant is not None
        and m.ends.constant is not None
        and (m.axes is None or m.axes.constant is not None)
    ):
        raise Decline("bounds known at compile time have been tried")
    axes_given, steps_given = constant_ints(m.axes), constant_ints(m.steps)
    if (m.axes is not None and axes_given is None) or (m.steps is not None and steps_given is None):
        return _slice_by_places(b, m)
    rank = rank_of(m.x)
    count = shape_of(m.starts)[0]
    axes = [axis_of(a, rank) for a in (axes_given or range(count))]
    steps = steps_given or (1,) * count
    stride = [1] * rank
    for a, s in zip(axes, steps):
        stride[a] = s
    masked = [i not in axes for i in range(rank)]
    begin = _placed(b, m.starts, axes, rank)
    # An end beyond any tensor stands for its end, and is known at compile time if it is there.
    fixed = constant_ints(m.ends)
    end_mask = list(masked)
    if fixed is not None:
        for a, v in zip(axes, fixed):
            end_mask[a] = v >= _LAST or v <= -_LAST
        end = ints([0 if end_mask[i] else dict(zip(axes, fixed))[i] for i in range(rank)])
    else:
        end = _placed(b, m.ends, axes, rank)
    return _sliced(b, m.x, begin, end, stride, masked, end_mask)


def _placed(b: RuleBuilder, values: Value, axes: list[int], rank: int) -> Any:
    """A vector with one element for each axis, from one for each of ``axes``; zero elsewhere."""
    known = constant_ints(values)
    if known is not None:
        placed = [0] * rank
        for a, v in zip(axes, known):
            placed[a] = max(min(v, _LAST), -_LAST)
        return ints(placed)
    if axes == list(range(rank)):
        return values
    zero = b.constant(np.zeros(1, dtype_of(values).numpy), "mil")
    if len(axes) == 1:
        return b.op("mil.concat", [values if i in axes else zero for i in range(rank)], {"axis": 0})
    whole = b.op("mil.concat", [values, zero], {"axis": 0})
    return b.op("mil.gather", [whole, ints([axes.index(i) if i in axes else len(axes) for i in range(rank)])])


def _int32(b: RuleBuilder, v: Value) -> Value:
    out: Value = b.constant(np.clip(v.constant, -_LAST, _LAST).astype(np.int32), "mil") if v.constant is not None else v
    return out if dtype_of(out) is I32 else b.op("mil.cast", [out], {"dtype": "int32"})


def _summed(b: RuleBuilder, v: Value) -> Value:
    out: Value = b.op("mil.reduce_sum", [v], {"axes": (0,), "keep_dims": False})
    return out


def _slice_by_places(b: RuleBuilder, m: Bindings) -> Value:
    """A slice of which only the result's shape is known: along each axis, the places first + step · i are gathered."""
    have, want = shape_of(m.x), shape_of(m.y)
    rank = len(have)
    count = shape_of(m.starts)[0]
    first, step, given = (v if v is None else _int32(b, v) for v in (m.starts, m.steps, m.axes))
    axes = b.op("mil.mod", [given, np.int32(rank)]) if given is not None else ints(range(count))
    x = _gathered(b, m.x)
    for i in range(rank):
        named = _named(b, axes, i)
        own = _summed(b, b.op("mil.mul", [first, named]))
        stride: Any = np.int32(1)
        if step is not None:
            less = b.op("mil.sub", [step, np.int32(1)])
            stride = b.op("mil.add", [_summed(b, b.op("mil.mul", [less, named])), np.int32(1)])
        own = b.op("mil.select", [b.op("mil.less", [own, np.int32(0)]), b.op("mil.add", [own, np.int32(have[i])]), own])
        own = b.op("mil.minimum", [b.op("mil.maximum", [own, np.int32(0)]), np.int32(have[i] - 1)])
        places = b.op("mil.add", [b.op("mil.mul", [ints(range(want[i])), stride]), own])
        x = b.op("mil.gather", [x, places], {"axis": i})
    return x if dtype_of(m.x) is not BOOL else b.op("mil.cast", [x], {"dtype": "bool"})


def _gathered(b: RuleBuilder, x: Value) -> Value:
    """``x`` as Core ML gathers it: bools as integers."""
    return b.op("mil.cast", [x], {"dtype": "int32"}) if dtype_of(x) is BOOL else x  # type: ignore[no-any-return]


def _named(b: RuleBuilder, axes: Any, axis: int) -> Any:
    """Which of ``axes``, a value or numbers, is ``axis``: ones and zeros."""
    if not isinstance(axes, Value):
        return (np.asarray(axes) == axis).astype(np.int32)
    return b.op("mil.cast", [b.op("mil.equal", [axes, np.int32(axis)])], {"dtype": "int32"})


def center_crop_pad(b: RuleBuilder, m: Bindings) -> Value:
    """What is too long loses as much on both sides, what is too short gains zeros; what is odd is left for behind."""
    have, want = shape_of(m.x), shape_of(m.y)
    first = [max(d - w, 0) // 2 for d, w in zip(have, want)]
    kept = [min(d, w) for d, w in zip(have, want)]
    before = [(w - k) // 2 for w, k in zip(want, kept)]
    after = [w - k - n for w, k, n in zip(want, kept, before)]
    x: Value = m.x
    if kept != list(have):
        x = b.op("onnx.Slice", [x, np.array(first), np.add(first, kept), np.arange(len(have))])
    if any(before) or any(after):
        x = b.op("onnx.Pad", [x, np.array([*before, *after])], {"mode": "constant"})
    return x


def pad_by_values(b: RuleBuilder, m: Bindings) -> Value:
    """A padding of which only the result's shape is known: along each axis, places from ``-before`` on are gathered."""
    have, want = shape_of(m.x), shape_of(m.y)
    rank = len(have)
    count = shape_of(m.p)[0] // 2
    amounts = _int32(b, m.p)
    before = b.op("mil.slice_by_index", [amounts, ints([0]), ints([count])])
    axes = constant_ints(m.axes) if m.axes is not None else tuple(range(count))
    if axes is not None:
        given: Any = [axis_of(a, rank) for a in axes]
    else:
        given = b.op("mil.mod", [_int32(b, m.axes), np.int32(rank)])
    x = _gathered(b, m.x)
    fill: Any = np.zeros((), dtype_of(x).numpy)
    if m.v is not None:
        fill = _gathered(b, m.v)
        fill = b.op("mil.reshape", [fill, ints([1] * rank)]) if rank_of(fill) else fill
    for i in range(rank):
        if axes is not None and i not in given:
            continue
        first = _summed(b, b.op("mil.mul", [before, _named(b, given, i)]))
        places = b.op("mil.sub", [ints(range(want[i])), first])
        x = b.op("mil.gather", [x, _inside(b, places, m.mode, first, have[i], want[i])], {"axis": i})
        if m.mode == "constant":
            beyond = b.op("mil.logical_or", [b.op("mil.less", [places, np.int32(0)]),
                                             b.op("mil.greater_equal", [places, np.int32(have[i])])])  # fmt: skip
            column = b.op("mil.reshape", [b.op("mil.cast", [beyond], {"dtype": "int32"}),
                                          ints([-1 if k == i else 1 for k in range(rank)])])  # fmt: skip
            x = b.op("mil.select", [b.op("mil.cast", [column], {"dtype": "bool"}), fill, x])
    return x if dtype_of(m.x) is not BOOL else b.op("mil.cast", [x], {"dtype": "bool"})


def _inside(b: RuleBuilder, places: Value, mode: str, first: Value, have: int, want: int) -> Value:
    """Places brought into a tensor that has ``have`` along their axis and loses what its padding takes away.

    Args:
        first: how many are put in front; a negative number of them is taken away.
    """
    if mode in ("constant", "edge"):
        last = np.int32(have - 1)
        return b.op("mil.minimum", [b.op("mil.maximum", [places, np.int32(0)]), last])  # type: ignore[no-any-return]
    if mode not in ("wrap", "reflect"):
        raise Decline(f"no padding mode {mode}")
    low = b.op("mil.maximum", [b.op("mil.mul", [first, np.int32(-1)]), np.int32(0)])
    cut = b.op("mil.maximum", [b.op("mil.sub", [first, np.int32(want - have)]), np.int32(0)])
    size = b.op("mil.sub", [np.int32(have), b.op("mil.add", [low, cut])])
    own = b.op("mil.sub", [places, low])
    if mode == "wrap":
        return b.op("mil.add", [b.op("mil.mod", [own, size]), low])  # type: ignore[no-any-return]
    last = b.op("mil.sub", [size, np.int32(1)])
    period = b.op("mil.maximum", [b.op("mil.mul", [last, np.int32(2)]), np.int32(1)])
    turned = b.op("mil.abs", [b.op("mil.sub", [b.op("mil.mod", [own, period]), last])])
    return b.op("mil.add", [b.op("mil.sub", [last, turned]), low])  # type: ignore[no-any-return]

"""What canonicalize and fuse compute in Python: facts about values, axes and slices, constants along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.dialects.onnx_infer import broadcast
from compiler.ir import Dim, DType, InferenceError, TensorType, Value
from compiler.rewrite import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline

Array = np.ndarray[Any, Any]

#: How far :func:`nonnegative` and :func:`keeps_a_number` look upwards.
_FAR = 6
_ALWAYS_NONNEGATIVE = frozenset(
    {
        *("onnx.Abs", "onnx.Exp", "onnx.Relu", "onnx.Sigmoid", "onnx.Softmax", "onnx.Softplus", "onnx.HardSigmoid"),
        *("onnx.Sqrt", "onnx.ReduceL1", "onnx.ReduceL2", "onnx.ReduceSumSquare"),
    }
)
#: Not negative where their first operand is not.
_FOLLOWS_FIRST = frozenset(
    {
        *("onnx.ReduceMean", "onnx.ReduceSum", "onnx.ReduceMax", "onnx.ReduceMin", "onnx.ReduceProd"),
        *("onnx.MaxPool", "onnx.AveragePool", "onnx.GlobalAveragePool", "onnx.GlobalMaxPool"),
        *("onnx.Reshape", "onnx.Transpose", "onnx.Slice", "onnx.Squeeze", "onnx.Unsqueeze", "onnx.Flatten"),
        *("onnx.Expand", "onnx.Tile", "onnx.Gather", "onnx.Identity", "onnx.Floor", "onnx.Ceil", "onnx.Round"),
    }
)
_FOLLOWS_BOTH = frozenset({"onnx.Add", "onnx.Mul", "onnx.Div", "onnx.Min"})


# ---- facts about values


def constant_first(y: Value) -> bool:
    """Whether the first operand of the operator that makes ``y`` is a constant, and the second none."""
    assert y.op is not None
    first, second = y.op.operands
    return first is not None and second is not None and first.constant is not None and second.constant is None


def nonnegative(x: Value | Array, far: int = _FAR) -> bool:
    """Whether ``x`` is provably never below zero (it may be NaN)."""
    if not isinstance(x, Value):
        return bool(np.all(x >= 0))
    if x.constant is not None:
        return bool(np.all(x.constant >= 0))
    op = x.op
    if op is None or far == 0:
        return False
    name, operands = op.name, op.operands
    if name in _ALWAYS_NONNEGATIVE:
        return True
    if name == "onnx.Mul" and operands[0] is operands[1]:
        return True
    if name in _FOLLOWS_FIRST:
        return operands[0] is not None and nonnegative(operands[0], far - 1)
    if name in _FOLLOWS_BOTH:
        return all(v is not None and nonnegative(v, far - 1) for v in operands)
    if name == "onnx.Max":
        return any(v is not None and nonnegative(v, far - 1) for v in operands)
    if name == "onnx.Clip":
        low, high = (*operands[1:], None, None)[:2]  # the upper bound wins where it is below the lower one
        return low is not None and nonnegative(low, 1) and (high is None or nonnegative(high, 1))
    return False


def keeps_a_number(x: Value, far: int = _FAR) -> bool:
    """Whether every row of ``x`` along its last axis provably has an element above −∞ and none at +∞.

    Of products of variables it is assumed: a network whose scores overflow is broken. What counts is the mask.
    """
    array = x.constant
    if array is not None:
        if array.dtype.kind != "f" or array.ndim == 0:
            return bool(np.all(np.isfinite(array)))
        return not bool(np.any(np.isnan(array) | (array == np.inf))) and bool(np.all(np.any(array > -np.inf, axis=-1)))
    op = x.op
    if op is None or far == 0:
        return False
    match op.name:
        case "onnx.MatMul" | "onnx.Gemm" | "onnx.Conv":
            return True
        case "onnx.Mul" | "onnx.Div" | "onnx.Reshape" | "onnx.Transpose" | "onnx.Unsqueeze" | "onnx.Squeeze":
            a, b = (*op.operands, None)[:2]
            if op.name in ("onnx.Mul", "onnx.Div") and not (b is not None and _is_finite_number(b)):
                return False
            return a is not None and _is_finite(a, far - 1)
        case "onnx.Add" | "onnx.Sub":
            a, b = op.operands
            assert a is not None
            assert b is not None
            return (_is_finite(a, far - 1) and keeps_a_number(b, far - 1)) or (
                op.name == "onnx.Add" and _is_finite(b, far - 1) and keeps_a_number(a, far - 1)
            )
        case _:
            return _is_finite(x, far)


def _is_finite_number(x: Value) -> bool:
    return x.constant is not None and bool(np.all(np.isfinite(x.constant))) and bool(np.all(x.constant != 0))


def _is_finite(x: Value, far: int) -> bool:
    """Whether all elements of ``x`` are finite, in the sense of :func:`keeps_a_number`."""
    if x.constant is not None:
        return bool(np.all(np.isfinite(x.constant)))
    op = x.op
    if op is None or far == 0:
        return False
    match op.name:
        case "onnx.MatMul" | "onnx.Gemm" | "onnx.Conv" | "onnx.Softmax" | "onnx.Sigmoid" | "onnx.Tanh":
            return True
        case "onnx.Where":
            return all(v is not None and _is_finite(v, far - 1) for v in op.operands[1:])
        case "onnx.Add" | "onnx.Sub" | "onnx.Mul":
            return all(v is not None and _is_finite(v, far - 1) for v in op.operands)
        case "onnx.Div":
            a, b = op.operands
            return a is not None and b is not None and _is_finite(a, far - 1) and _is_finite_number(b)
        case "onnx.Cast":
            source = op.operands[0]
            assert source is not None
            return isinstance(source.type, TensorType) and not source.type.dtype.is_float
        case "onnx.Reshape" | "onnx.Transpose" | "onnx.Unsqueeze" | "onnx.Squeeze" | "onnx.Expand" | "onnx.Slice":
            return op.operands[0] is not None and _is_finite(op.operands[0], far - 1)
        case _:
            return False


def holds_all(wide: DType, narrow: DType) -> bool:
    """Whether every value of the type ``narrow`` is one of ``wide``."""
    if wide is narrow:
        return True
    if narrow.name == "bool":
        return wide.is_float or wide.is_integer
    if wide.is_float and narrow.is_float:
        # bf16 and f16 hold neither all of the other.
        return wide.bits > narrow.bits and wide.bits >= 32 and narrow.bits >= 16
    if wide.is_integer and narrow.is_integer:
        signs = (wide.kind == "int") - (narrow.kind == "int")
        return wide.bits > narrow.bits if signs == 1 else signs == 0 and wide.bits >= narrow.bits
    mantissa = {"f16": 11, "bf16": 8, "f32": 24, "f64": 53}.get(wide.name, 0)
    return narrow.is_integer and narrow.bits <= mantissa


def used_only_by(x: Value, name: str) -> bool:
    """Whether all operators that use ``x`` are of one kind."""
    return all(u.name == name for u in x.users)


def joined(*values: Value | Array) -> tuple[Dim, ...]:
    """The shape to which ``values`` broadcast together; where it is not known, the rule does not apply."""
    shape: tuple[Dim, ...] = ()
    for v in values:
        own = v.shape
        if own is None:
            raise Decline("rank not known")
        try:
            shape = broadcast(shape, own)
        except InferenceError as e:
            raise Decline(str(e)) from None
    return shape


# ---- shapes and axes


def reshape_target(x: Value, y: Value) -> tuple[int, ...]:
    """What to give Reshape so that ``x`` gets the shape of ``y`` whatever the sizes that are not known.

    Raises:
        Decline: more than one dimension is neither known nor stays in its place, or the tensor is or may be empty.
    """
    source, shape = x.shape, y.shape
    if shape is None or 0 in shape:
        raise Decline("shape not known, or empty")
    out = [d if isinstance(d, int) else -1 for d in shape]
    open_ = [i for i, d in enumerate(out) if d == -1]
    if len(open_) > 1:
        for i in open_:
            if source is not None and i < len(source) and shape[i] == source[i] != "?":
                out[i] = 0
        if out.count(-1) > 1:
            raise Decline("several dimensions are not known")
    return tuple(out)


def unit_axes(x: Value) -> tuple[int, ...]:
    """The axes of ``x`` of size 1."""
    assert x.shape is not None
    return tuple(i for i, d in enumerate(x.shape) if d == 1)


def squeezed_axes(rank: int, a: Array, b: Array) -> tuple[int, ...]:
    """The axes of a tensor of ``rank`` that squeezing ``a``, then ``b`` of what is left, takes away."""
    first = {int(i) % rank for i in a.reshape(-1)}
    left = [i for i in range(rank) if i not in first]
    return tuple(sorted(first | {left[int(i)] for i in b.reshape(-1)}))


def unsqueezed_axes(rank: int, a: Array, b: Array) -> tuple[int, ...]:
    """The axes of a result of ``rank`` that inserting ``a``, then ``b`` into that, has inserted."""
    second = {int(i) % rank for i in b.reshape(-1)}
    left = [i for i in range(rank) if i not in second]
    return tuple(sorted(second | {left[int(i)] for i in a.reshape(-1)}))


def permutation_through(x: Value, r: Value, perm: Sequence[int], y: Value) -> tuple[int, ...]:
    """How to transpose ``x`` to get ``y``, its reshape ``r`` transposed by ``perm`` and reshaped.

    Raises:
        Decline: a shape is not known or empty, or a reshape does more than to drop and add axes of size 1.
    """
    shapes = [v.type.static_shape if isinstance(v.type, TensorType) and v.type.is_static else None for v in (x, r, y)]
    source, middle, last = shapes
    if source is None or middle is None or last is None or len(source) != len(last) or 0 in source:
        raise Decline("shapes not known, or empty")
    long = [i for i, d in enumerate(source) if d != 1]
    if [source[i] for i in long] != [d for d in middle if d != 1]:
        raise Decline("the reshape joins or splits axes")
    order = iter([long[sum(middle[j] != 1 for j in range(p))] for p in perm if middle[p] != 1])
    short = iter([i for i, d in enumerate(source) if d == 1])
    if [middle[p] for p in perm if middle[p] != 1] != [d for d in last if d != 1]:
        raise Decline("the reshape joins or splits axes")
    return tuple(next(short) if d == 1 else next(order) for d in last)


# ---- slices


def split_sizes(size: int, *cuts: Sequence[int]) -> tuple[int, ...]:
    """The sizes of consecutive cuts, pairs of begin and end, of an axis of ``size``.

    Raises:
        Decline: they leave something out or overlap.
    """
    ranges = [range(size)[b:e] for b, e in cuts]
    if any(r.start != at for r, at in zip(ranges, [0, *(r.stop for r in ranges)])) or ranges[-1].stop != size:
        raise Decline("not one behind the other")
    if any(not len(r) for r in ranges):
        raise Decline("an empty part")
    return tuple(len(r) for r in ranges)


def progression(indices: Array) -> tuple[int, int, int]:
    """First, last and step of indices that ascend in equal steps.

    Raises:
        Decline: they do not, or count from the end.
    """
    i = indices.reshape(-1)
    if i.size == 0 or int(i[0]) < 0:
        raise Decline("no indices from the front")
    step = int(i[1] - i[0]) if i.size > 1 else 1
    if step < 1 or not np.array_equal(i, np.arange(i[0], int(i[-1]) + 1, step)):
        raise Decline("no ascending progression")
    return int(i[0]), int(i[-1]), step


Cut = tuple[int, int, int]


def merged_slices(x: Value, *parts: Array | None) -> tuple[list[int], ...]:
    """Starts, ends, axes and steps of the one Slice that two in a row amount to.

    Args:
        parts: starts, ends, axes and steps of the first, then of the second; steps may be None.

    Raises:
        Decline: both cut the same axis, and its size is not known or the step is negative.
    """
    if x.shape is None:
        raise Decline("rank not known")
    rank = len(x.shape)
    first, second = (_cuts(rank, *parts[i : i + 4]) for i in (0, 4))
    for axis, (start, end, step) in second.items():
        if axis not in first:
            first[axis] = (start, end, step)
            continue
        size = x.shape[axis]
        if not isinstance(size, int) or step < 0 or first[axis][2] < 0:
            raise Decline("two cuts of one axis that cannot be joined")
        outer = range(size)[slice(*first[axis])]
        inner = outer[start:end:step]
        first[axis] = (inner.start, inner.stop, inner.step)
    axes = sorted(first)
    return [first[a][0] for a in axes], [first[a][1] for a in axes], axes, [first[a][2] for a in axes]


def _cuts(rank: int, starts: Any, ends: Any, axes: Any, steps: Any) -> dict[int, Cut]:
    count = starts.size
    steps = np.ones(count, np.int64) if steps is None else steps
    return {int(a) % rank: (int(s), int(e), int(p)) for s, e, a, p in zip(starts, ends, axes, steps, strict=True)}


# ---- constants along an axis


def along(k: Array, axis: int, rank: int, size: int) -> Array:
    """The vector of ``size`` numbers that ``k`` amounts to where it is broadcast to a tensor of ``rank``.

    Half precision becomes single, so that what is computed with it is rounded once.

    Raises:
        Decline: ``k`` varies along another axis than ``axis``, or makes the result larger.
    """
    axis %= rank
    if k.ndim > rank:
        raise Decline("the constant has more axes")
    shape = (1,) * (rank - k.ndim) + k.shape
    if any(d != 1 and not (i == axis and d == size) for i, d in enumerate(shape)):
        raise Decline("the constant is not constant along the other axes")
    return np.broadcast_to(wide(k).reshape(-1), (size,))


def wide(k: Array) -> Array:
    """``k`` in an element type to compute with: single precision instead of half."""
    return k.astype(np.float32) if k.dtype.kind == "V" or k.dtype.itemsize < 4 else k


def filters_by_input(k: Array, filters: Array, group: int) -> Array:
    """``k``, one number for each input channel, in the shape in which it multiplies the filters of a convolution.

    Args:
        filters: [outputs, inputs / group, …].

    Returns:
        [outputs, inputs / group, 1, …].
    """
    outputs, inputs = filters.shape[:2]
    each = np.repeat(k.reshape(group, inputs), outputs // group, axis=0)
    return each.reshape(outputs, inputs, *(1,) * (filters.ndim - 2))


def transposed_filters(k: Array, filters: Array, group: int) -> Array:
    """``k``, one number for each output channel, in the shape in which it multiplies those of a transposed convolution.

    Args:
        filters: [inputs, outputs / group, …].

    Returns:
        [inputs, outputs / group, 1, …].
    """
    inputs, outputs = filters.shape[:2]
    each = np.repeat(k.reshape(group, outputs), inputs // group, axis=0)
    return each.reshape(inputs, outputs, *(1,) * (filters.ndim - 2))


def shifted_bias(k: Array, filters: Array, group: int) -> Array:
    """What a convolution without padding makes of an input that is ``k`` on each channel: one number for an output."""
    each: Array = (filters * filters_by_input(k, filters, group)).sum(axis=tuple(range(1, filters.ndim)))
    return each


def joined_pads(pads: Sequence[int] | None, padding: Array, axes: Array | None, rank: int) -> tuple[int, ...]:
    """The padding of a convolution that includes that of the Pad before it.

    Args:
        pads: of the convolution, begins then ends, of the axes behind the first two.
        padding: of the Pad, begins then ends, of ``axes`` or of all.

    Raises:
        Decline: the Pad cuts something off, or pads batch or channels.
    """
    at = np.arange(rank) if axes is None else axes.reshape(-1) % rank
    begins, ends = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    begins[at], ends[at] = padding[: at.size], padding[at.size :]
    if begins[:2].any() or ends[:2].any() or (begins < 0).any() or (ends < 0).any():
        raise Decline("not only around the spatial axes")
    own = np.asarray(pads if pads is not None else [0] * (2 * (rank - 2)))
    return tuple(int(p) for p in own + np.concatenate([begins[2:], ends[2:]]))


def within(k: Array, scale: Array) -> Array:
    """``k`` as a factor of or a term beside ``scale``, which lies along the last axes of what both belong to.

    Raises:
        Decline: it varies along other axes, or its shape does not broadcast to that of ``scale``.
    """
    extra = k.ndim - scale.ndim
    if extra > 0:
        if any(d != 1 for d in k.shape[:extra]):
            raise Decline("the constant varies along axes that are not normalized")
        k = k.reshape(k.shape[extra:])
    if any(d not in (1, e) for d, e in zip(reversed(k.shape), reversed(scale.shape))):
        raise Decline("the constant does not broadcast to the scale")
    return wide(k)


def repeated(k: Array, times: int) -> Array:
    """Each element of ``k``, so many times in a row."""
    return np.repeat(k, times)


# ---- builders


def gemm_as_matmul(b: RuleBuilder, m: Bindings) -> Value:
    """α · a · b + β · c as MatMul, Mul and Add, with a Transpose where an operand is transposed."""

    def turned(x: Value, turn: int) -> Any:
        if not turn:
            return x
        return np.transpose(x.constant) if x.constant is not None else b.op("onnx.Transpose", [x], {"perm": (1, 0)})

    y: Value = b.op("onnx.MatMul", [turned(m.a, m.ta), turned(m.b, m.tb)])
    if m.alpha != 1:
        y = b.op("onnx.Mul", [y, m.alpha])
    if m.c is None or m.beta == 0:
        return y
    c = m.c if m.beta == 1 else b.op("onnx.Mul", [m.c, m.beta])
    return b.op("onnx.Add", [y, c])  # type: ignore[no-any-return]

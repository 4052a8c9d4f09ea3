"""Rows whose number a suppression finds at run time, in tensors of fixed size: as many as there can be, and a count.

What is computed from ``onnx.NonMaxSuppression`` row by row may as well be computed for all rows there can be; those
behind the last are cut off where a value leaves the function. So the types of such values are made static, and outputs
get a ``metal.trim``. An operator that looks at several rows at once would see rows that are not there: it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler import ir
from compiler.dialects import onnx_infer
from compiler.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class _Rows:
    """Which axis of a value counts the rows of which suppression."""

    of: ir.Op
    axis: int


Found = dict[ir.Value, _Rows]


def fix(module: ir.Module) -> list[int]:
    """Gives what suppressions find, and what is computed from it, static types.

    Returns:
        Which outputs of the main function hold such rows.

    Raises:
        UnsupportedError: nobody knows how many rows there can be, an operator does not keep them apart, or an output
            does not have them first.
    """
    found: Found = {}
    for op in list(module.main.block.ops):
        if op.name == "onnx.NonMaxSuppression":
            most = _most(op)
            if not most:
                raise UnsupportedError(
                    f"{op.name}{_at(op)} has no limit, or chooses among boxes whose number is only known at run time",
                    "a constant limit above 0, --shape for every open dimension, or --target gpu",
                )
            op.result.type = ir.TensorType(ir.I64, (most, 3))
            found[op.result] = _Rows(op, 0)
        elif not op.defn.terminator and any(v in found for v in op.operands if v is not None):
            rows = _kept(op, found)
            if rows is None:
                raise UnsupportedError(
                    f"{op.name}{_at(op)} does not keep apart the boxes that a suppression finds, whose number is only "
                    "known at run time",
                    "--target gpu, or an output in front of it",
                )
            types = onnx_infer.infer(op.defn, op.operands, op.attributes, op.regions, len(op.results))
            for result, type_ in zip(op.results, types, strict=True):
                result.type = type_
                found[result] = rows
    marked = []
    for i, (name, value) in enumerate(zip(module.main.output_names, module.main.outputs, strict=True)):
        if value in found:
            if found[value].axis:
                raise UnsupportedError(
                    f"the boxes that a suppression finds lie along axis {found[value].axis} of output '{name}', and "
                    "kernels count what comes first",
                    "--target gpu, or an output in front of the transpose",
                )
            marked.append(i)
    return marked


def cut(module: ir.Module, marked: Sequence[int]) -> None:
    """Puts ``metal.trim`` behind the outputs that :func:`fix` named, and takes it away where it came before."""
    main, end = module.main, module.main.block.terminator
    assert end is not None
    b = ir.Builder(main.block, end)
    given = list(end.operands)
    trims = {}
    for i in marked:
        value = given[i]
        assert value is not None
        trims[i] = _behind(value)
    for i, trim in trims.items():
        if given[i] is not trim.result:
            given[i] = b.op("metal.trim", [given[i], trim.operands[1]]).result
    end.operands = tuple(given)
    for trim in dict.fromkeys(trims.values()):
        rows = trim.operands[0]
        assert rows is not None
        for user in [u for u in trim.result.users if not u.defn.terminator]:
            user.operands = tuple(rows if v is trim.result else v for v in user.operands)


def _behind(value: ir.Value) -> ir.Op:
    """The trim whose rows a value holds: the only one that it depends on."""
    seen: set[ir.Value] = set()
    stack = [value]
    while stack:
        at = stack.pop()
        if at in seen or at.op is None:
            continue
        seen.add(at)
        if at.op.name == "metal.trim":
            return at.op
        stack += [v for v in at.op.operands if v is not None]
    raise AssertionError("rows come from a suppression")


def _most(op: ir.Op) -> int | None:
    """How many rows a suppression finds at most; None where its sizes, or its limit, are not constant."""
    _, scores, limit = (*op.operands, None)[:3]
    assert scores is not None
    if not isinstance(scores.type, ir.TensorType) or not scores.type.is_static:
        return None
    if limit is None or limit.constant is None:
        return None
    batches, classes, count = scores.type.static_shape
    return batches * classes * min(count, max(0, int(limit.constant.reshape(-1)[0])))


def _at(op: ir.Op) -> str:
    return f" at node '{op.loc.nodes[0]}'" if op.loc.nodes else ""


def _kept(op: ir.Op, found: Found) -> _Rows | None:
    """The rows of what an operator gives, if it computes each from that row of its operands alone."""
    rule = _RULES.get(op.name)
    given = {found[v].of for v in op.operands if v is not None and v in found}
    axis = rule(op, {v: found[v].axis for v in op.operands if v is not None and v in found}) if rule else None
    return None if axis is None or len(given) > 1 else _Rows(next(iter(given)), axis)


Axes = dict[ir.Value, int]


def _rank(value: ir.Value | None) -> int:
    return len(value.shape or ()) if value is not None else 0


def _ints(op: ir.Op, place: int) -> list[int] | None:
    value = op.operands[place] if place < len(op.operands) else None
    return None if value is None or value.constant is None else [int(i) for i in value.constant.reshape(-1)]


def _pointwise(op: ir.Op, axes: Axes) -> int | None:
    rank = max(map(_rank, op.operands))
    places = {rank - _rank(v) + axis for v, axis in axes.items()}
    if len(places) > 1:
        return None
    (place,) = places
    for v in op.operands:
        shape = v.shape if v is not None else ()
        own = place - rank + len(shape or ())
        if v not in axes and own >= 0 and (shape or ())[own] != 1:
            return None
    return place


def _gather(op: ir.Op, axes: Axes) -> int | None:
    data, indices = op.operands
    axis = op.attributes["axis"] % max(1, _rank(data))
    if indices in axes:
        return None if data in axes else axis + axes[indices]
    assert data is not None
    rows = axes[data]
    return None if rows == axis else rows if rows < axis else rows + _rank(indices) - 1


def _gather_nd(op: ir.Op, axes: Axes) -> int | None:
    data, indices = op.operands
    if data in axes or indices not in axes or op.attributes["batch_dims"]:
        return None
    return axes[indices] if axes[indices] < _rank(indices) - 1 else None


def _squeeze(op: ir.Op, axes: Axes) -> int | None:
    gone = _ints(op, 1)
    x = op.operands[0]
    if gone is None or x not in axes:
        return None
    gone = [g % _rank(x) for g in gone]
    return None if axes[x] in gone else axes[x] - sum(g < axes[x] for g in gone)


def _unsqueeze(op: ir.Op, axes: Axes) -> int | None:
    new, x = _ints(op, 1), op.operands[0]
    if new is None or x not in axes:
        return None
    rank = _rank(x) + len(new)
    kept = [d for d in range(rank) if d not in [n % rank for n in new]]
    return kept[axes[x]]


def _concat(op: ir.Op, axes: Axes) -> int | None:
    first = next(iter(axes.values()))
    alike = all(v is not None and axes.get(v) == first for v in op.operands)
    return first if alike and op.attributes["axis"] % _rank(op.operands[0]) != first else None


def _slice(op: ir.Op, axes: Axes) -> int | None:
    x, cut_axes = op.operands[0], _ints(op, 3)
    if x not in axes or cut_axes is None:
        return None
    return None if axes[x] in [a % _rank(x) for a in cut_axes] else axes[x]


def _transpose(op: ir.Op, axes: Axes) -> int | None:
    (x,) = axes
    perm = op.attributes.get("perm") or tuple(reversed(range(_rank(x))))
    return list(perm).index(axes[x])


def _reduce(op: ir.Op, axes: Axes) -> int | None:
    x = op.operands[0]
    over = _ints(op, 1)
    if x not in axes or over is None:
        return None
    return _without(axes[x], [a % _rank(x) for a in over], bool(op.attributes["keepdims"]))


def _arg_reduce(op: ir.Op, axes: Axes) -> int | None:
    (x,) = axes
    return _without(axes[x], [op.attributes["axis"] % _rank(x)], bool(op.attributes["keepdims"]))


def _without(axis: int, over: Sequence[int], kept: bool) -> int | None:
    if axis in over:
        return None
    return axis if kept else axis - sum(a < axis for a in over)


def _along(op: ir.Op, axes: Axes) -> int | None:
    """What works along one axis, and keeps all."""
    (x,) = axes
    return None if x is not op.operands[0] or op.attributes["axis"] % _rank(x) == axes[x] else axes[x]


def _reshape(op: ir.Op, axes: Axes) -> int | None:
    """Rows stay first where what is behind them keeps its size."""
    x, wanted = op.operands[0], _ints(op, 1)
    if x not in axes or axes[x] != 0 or not wanted or x is None:
        return None
    first, *rest = wanted
    dims = [int(d) for d in (x.shape or ())[1:]]
    rest = [dims[i] if n == 0 and i < len(dims) else n for i, n in enumerate(rest)]
    return 0 if first in (-1, 0) and -1 not in rest and math.prod(rest) == math.prod(dims) else None


_POINTWISE = (
    *("Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Erf", "Exp", "Floor", "Greater", "GreaterOrEqual"),
    *("HardSigmoid", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mod", "Mul", "Neg", "Not"),
    *("Or", "Pow", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sqrt", "Sub", "Tanh", "Where", "Xor"),
)

_REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum")

_RULES: dict[str, Callable[[ir.Op, Axes], int | None]] = {
    **{f"onnx.{n}": _pointwise for n in _POINTWISE},
    **{f"onnx.{n}": _reduce for n in _REDUCTIONS},
    **dict.fromkeys(("onnx.ArgMax", "onnx.ArgMin"), _arg_reduce),
    **dict.fromkeys(("onnx.Softmax", "onnx.LogSoftmax", "onnx.Split"), _along),
    "onnx.Gather": _gather,
    "onnx.GatherND": _gather_nd,
    "onnx.Squeeze": _squeeze,
    "onnx.Unsqueeze": _unsqueeze,
    "onnx.Concat": _concat,
    "onnx.Slice": _slice,
    "onnx.Transpose": _transpose,
    "onnx.Reshape": _reshape,
}

"""What keeps channels apart: element by element, position by position, or normalized one by one or group by group."""

from __future__ import annotations

import math

from compiler.ir import Op
from passes.prune.channels import Channels, Keep
from passes.prune.state import Analysis, Shape, follows, handles, replace


@handles(
    *("Abs", "Cast", "Ceil", "Celu", "Clip", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish"),
    *("Identity", "LeakyRelu", "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid"),
    *("Sign", "Sin", "Softplus", "Softsign", "Sqrt", "Swish", "Tanh", "ThresholdedRelu"),
    *("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
)
def _pass(a: Analysis, op: Op) -> bool:
    x = a.known(op.operands[0])
    if any(a.known(v) is not None for v in op.operands[1:]):
        return False
    if x is not None:
        for result in op.results:
            a.of[result] = x
    return True


@handles("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "PRelu", "Where")
def _binary(a: Analysis, op: Op) -> bool:
    rank = len(op.result.shape or ())
    found: Channels | None = None
    for v in op.operands:
        known = a.known(v)
        if known is None or v is None or v.shape is None:
            continue
        here = Channels(known.axis + rank - len(v.shape), known.ids)
        if found is None:
            found = here
        elif found.axis != here.axis or len(found.ids) != len(here.ids):
            return False
        else:
            a.classes.join(found.ids, here.ids)
    if found is None:
        return True
    for i, v in enumerate(op.operands):
        if v is None or a.known(v) is not None:
            continue
        shape = v.shape
        if shape is None:
            return False
        axis = found.axis - rank + len(shape)
        if axis < 0 or shape[axis] == 1:
            continue
        if v.constant is None or shape[axis] != len(found.ids):
            return False
        a.classes.cut(op, i, axis, found.ids, "each")
    a.of[op.result] = found
    return True


@follows("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL2")
def _reduce(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    axes_value = op.operands[1] if len(op.operands) > 1 else None
    if axes_value is None or axes_value.constant is None:
        return False
    axes = {int(i) % len(before) for i in axes_value.constant.reshape(-1)}
    if x.axis in axes:
        return False
    moved = 0 if op.attributes["keepdims"] else sum(i < x.axis for i in axes)
    a.of[op.result] = Channels(x.axis - moved, x.ids)
    return True


@follows("Softmax")
def _softmax(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    return op.attributes["axis"] % len(before) != x.axis and _pass(a, op)


@follows("BatchNormalization")
def _batchnormalization(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    return x.axis == 1 and len(op.results) == 1 and _each(a, op, x, (1, 2, 3, 4))


@follows("InstanceNormalization")
def _instancenormalization(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    return x.axis == 1 and _each(a, op, x, (1, 2))


@follows("LayerNormalization")
def _layernormalization(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    return x.axis < op.attributes["axis"] % len(before) and _pass(a, op)


@follows("GroupNormalization")
def _group_normalization(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    """Groups go as a whole: what is left of one would have another mean."""
    groups = op.attributes["num_groups"]
    if x.axis != 1 or len(x.ids) % groups or not _each(a, op, x, (1, 2)):
        return False
    rows = x.ids.reshape(groups, -1)
    for column in rows.T[1:]:
        a.classes.join(rows[:, 0], column)
    a.classes.fixups.append(lambda keep: op.attributes.update(num_groups=int(keep(rows[:, 0]).sum())))
    return True


@follows("RMSNormalization")
def _rms_normalization(a: Analysis, op: Op, x: Channels, before: Shape) -> bool:
    """Channels that are silent add nothing to the sum of squares, so that of n channels k can stay: with
    ε′ = ε·n/k and γ′ = γ·√(n/k), γ′·x / √(Σx²/k + ε′) is γ·x / √(Σx²/n + ε).
    """
    scale, rank = op.operands[1], len(before)
    axis = op.attributes["axis"] % rank
    if x.axis < axis:
        return _pass(a, op)
    if x.axis != axis or axis != rank - 1 or scale is None or scale.constant is None or scale.shape != (len(x.ids),):
        return False
    a.classes.cut(op, 1, 0, x.ids, "each")
    a.classes.sums.append((op, x))

    def rescale(keep: Keep) -> None:
        kept = int(keep(x.ids).sum())
        held = op.operands[1]
        assert held is not None
        assert held.constant is not None
        if kept != len(x.ids):
            op.attributes["epsilon"] *= len(x.ids) / kept
            replace(op, 1, held.constant * held.constant.dtype.type(math.sqrt(len(x.ids) / kept)))

    a.classes.fixups.append(rescale)
    a.of[op.results[0]] = x
    return True


def _each(a: Analysis, op: Op, x: Channels, operands: tuple[int, ...]) -> bool:
    if any(v is None or v.constant is None for v in (op.operands[i] for i in operands)):
        return False
    for i in operands:
        a.classes.cut(op, i, 0, x.ids, "each")
    a.of[op.results[0]] = x
    return True

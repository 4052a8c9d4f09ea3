"""What operators demand of their operands' shapes and of attributes that ONNX's inference lets pass.

Sources: the operators' definitions (https://onnx.ai/onnx/operators/), and what onnxruntime's kernels refuse when they
run (onnxruntime/core/providers/cpu: math/clip.cc, math/cumsum.cc, nn/pool.cc, nn/instance_norm_helper.h,
tensor/grid_sample.cc; contrib_ops/cpu/cdist.cc). Rules need not ask for it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compiler import ir

#: Operands that are one number: of rank 0, or lists of one.
_NUMBERS = {"onnx.Clip": (1, 2), "onnx.CumSum": (1,)}
#: The least and the greatest rank of operands.
_RANKS: dict[str, dict[int, tuple[int, int | None]]] = {
    "onnx.GlobalAveragePool": {0: (3, None)},
    "onnx.GlobalMaxPool": {0: (3, None)},
    "onnx.InstanceNormalization": {0: (3, None)},
    "onnx.GridSample": {0: (4, 5), 1: (4, 5)},
    "onnx.NonZero": {0: (1, None)},  # of a number ONNX says no row, onnxruntime one
    "msft.CDist": {0: (2, 2), 1: (2, 2)},
}


def check(defn: ir.OpDef, operands: Sequence[ir.Value | None], attributes: Mapping[str, Any]) -> None:
    """
    Raises:
        InferenceError: an operand's shape, as far as it is known, is none that the operator takes.
    """
    name = defn.name.partition("@")[0]
    for i in _NUMBERS.get(name, ()):
        shape = _shape(operands, i)
        if shape is not None and (len(shape) > 1 or (shape[:1] not in ((), (1,)) and type(shape[0]) is int)):
            raise _refused(defn, operands, i, "one number")
    for i, (least, most) in _RANKS.get(name, {}).items():
        shape = _shape(operands, i)
        if shape is not None and not least <= len(shape) <= (len(shape) if most is None else most):
            what = f"of rank {least}" if most == least else f"of rank {least} or more" if most is None else None
            raise _refused(defn, operands, i, what or f"of rank {least} to {most}")
    if name == "onnx.Attention":
        ranks = {len(shape) for shape in (_shape(operands, i) for i in range(3)) if shape is not None}
        if len(ranks) > 1:
            raise _refused(defn, operands, 0, "of the same rank as keys and values")
    if name == "onnx.GroupNormalization":
        groups, shape = attributes["num_groups"], _shape(operands, 0)
        channels = shape[1] if shape is not None and len(shape) > 1 else None
        if groups < 1 or (type(channels) is int and channels % groups):
            raise ir.InferenceError(f"{defn.name}: num_groups is {groups}, of {channels} channels")
    if name == "onnx.PRelu":
        x, slope = _shape(operands, 0), _shape(operands, 1)
        if x is not None and slope is not None and not _may_broadcast(slope, x):
            raise _refused(defn, operands, 1, f"one that broadcasts to {operands[0].type if operands[0] else None}")


def _shape(operands: Sequence[ir.Value | None], i: int) -> tuple[ir.Dim, ...] | None:
    v = operands[i] if i < len(operands) else None
    return v.type.shape if v is not None and isinstance(v.type, ir.TensorType) else None


def _may_broadcast(shape: tuple[ir.Dim, ...], to: tuple[ir.Dim, ...]) -> bool:
    """Whether ``shape`` may broadcast to ``to``, as far as both are known."""
    if len(shape) > len(to):
        return False
    pairs = zip(reversed(shape), reversed(to))
    return all(a in (1, b) or type(a) is not int or type(b) is not int for a, b in pairs)


def _refused(defn: ir.OpDef, operands: Sequence[ir.Value | None], i: int, wanted: str) -> ir.InferenceError:
    label = defn.operands[min(i, len(defn.operands) - 1)].name
    v = operands[i]
    return ir.InferenceError(f"{defn.name}: {label} is {v.type if v is not None else None}; it has to be {wanted}")

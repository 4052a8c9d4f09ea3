"""Constants of a layer held by two halves each, with no operator more: what half precision loses of them are weights of
units that the layer before gives twice, and of one that is always one.

``W relu(V x + c) + b`` becomes ``[half(W), W - half(W), b - half(b)] relu([V, V, 0] x + [c, c, 1]) + half(b)``. It pays
where a result must be known to all digits of a half, as a position in a picture, and the layers are small.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from compiler.ir import Op, TensorType, Value

Array = np.ndarray[Any, Any]


def run(ops: Iterable[Op]) -> int:
    """Splits the constants of those of ``ops`` where that can be, in place, in f32.

    Returns:
        How many.
    """
    return sum(map(_split, list(ops)))


def _split(op: Op) -> bool:
    between = _between(op)
    before = between[-1].op if between else None
    if before is None:
        return False
    constants = [v.constant if v is not None else None for v in (*before.operands[1:], *op.operands[1:])]
    if any(a is None or a.dtype != np.float32 for a in constants):
        return False
    inner, inner_bias, weight, bias = (np.asarray(a) for a in constants)
    held, held_bias = _half(weight), _half(bias)
    if not np.isfinite(held).all() or not np.isfinite(held_bias).all():
        return False
    one = np.ones(1, np.float32)
    _give(before, np.concatenate([inner, inner, np.zeros_like(inner[:1])]), np.concatenate([inner_bias] * 2 + [one]))
    _give(op, np.concatenate([held, weight - held, (bias - held_bias)[:, None]], 1), held_bias)
    for value in between:
        assert isinstance(value.type, TensorType)
        assert value.type.shape
        value.type = value.type.with_shape((*value.type.shape[:-1], 2 * len(inner) + 1))
        value.name = ""  # it is no value of the model any more
    return True


def _between(op: Op) -> list[Value]:
    """The values between a linear layer and the one before, the nearest first, if nothing else uses them; else none."""
    found: list[Value] = []
    here: Op | None = op
    while here is not None and (here is op or here.name == "mil.relu"):
        value = here.operands[0]
        if value is None or value.use_count != 1 or not isinstance(value.type, TensorType) or not value.type.shape:
            return []
        found.append(value)
        here = value.op
    layers = (op, here)
    return found if all(o is not None and o.name == "mil.linear" and len(o.operands) == 3 for o in layers) else []


def _half(array: Array) -> Array:
    with np.errstate(over="ignore"):
        rounded: Array = array.astype(np.float16).astype(np.float32)
    return rounded


def _give(op: Op, weight: Array, bias: Array) -> None:
    """Replaces the constants of a linear layer."""
    olds, operands = op.operands[1:], [op.operands[0]]
    for old, array in zip(olds, (weight, bias)):
        assert old is not None
        assert old.op is not None
        assert old.op.defn.constant is not None
        assert isinstance(old.type, TensorType)
        attributes = {**old.op.attributes, old.op.defn.constant: np.ascontiguousarray(array)}
        made = Op(old.op.defn, (), [old.type.with_shape(array.shape)], attributes, loc=old.op.loc)
        assert op.block is not None
        op.block.insert_before(op, made)
        operands.append(made.result)
    op.operands = tuple(operands)
    for old in olds:
        if old is not None and old.op is not None and not old.use_count:
            old.op.erase()

"""What mixes channels: products and convolutions, where the channels of inputs end and new ones begin."""

from __future__ import annotations

import numpy as np

from compiler.ir import Op, Value
from passes.prune.channels import Channels
from passes.prune.state import Analysis, handles, size


@handles("Conv")
def _conv(a: Analysis, op: Op) -> bool:
    x, w = op.operands[0], op.operands[1]
    groups = op.attributes["group"]
    held = w.constant if w is not None else None
    if x is None or held is None or not isinstance(size(x, 1), int):
        return False
    taken = a.taken(x, 1)
    made = a.classes.fresh(len(held))
    if groups == 1:
        a.classes.cut(op, 1, 1, taken, "in")
    elif held.shape[1] == 1:
        # Depthwise: each channel goes on as one or more of its own.
        made = np.repeat(taken, len(held) // groups)
        a.classes.fixups.append(lambda keep: op.attributes.update(group=int(keep(taken).sum())))
    else:
        # The same channels go in every group, so that groups stay equally large.
        for ids in (taken.reshape(groups, -1), made.reshape(groups, -1)):
            for row in ids[1:]:
                a.classes.join(ids[0], row)
        a.classes.cut(op, 1, 1, taken[: held.shape[1]], "in")
    a.classes.cut(op, 1, 0, made, "out")
    a.bias(op, 2, made)
    a.of[op.result] = Channels(1, made)
    return True


@handles("ConvTranspose")
def _convtranspose(a: Analysis, op: Op) -> bool:
    x, w = op.operands[0], op.operands[1]
    held = w.constant if w is not None else None
    if x is None or held is None or op.attributes["group"] != 1 or not isinstance(size(x, 1), int):
        return False
    made = a.classes.fresh(held.shape[1])
    a.classes.cut(op, 1, 0, a.taken(x, 1), "in")
    a.classes.cut(op, 1, 1, made, "out")
    a.bias(op, 2, made)
    a.of[op.result] = Channels(1, made)
    return True


@handles("Gemm")
def _gemm(a: Analysis, op: Op) -> bool:
    x, w = op.operands[0], op.operands[1]
    held = w.constant if w is not None else None
    if x is None or held is None or op.attributes["transA"]:
        return False
    bias = op.operands[2] if len(op.operands) > 2 else None
    if bias is not None and bias.constant is None:
        return False
    turned = bool(op.attributes["transB"])
    made = a.classes.fresh(held.shape[0 if turned else 1])
    a.classes.cut(op, 1, 1 if turned else 0, a.taken(x, 1), "in")
    a.classes.cut(op, 1, 0 if turned else 1, made, "out")
    if bias is not None and bias.shape and bias.shape[-1] == len(made):
        a.classes.cut(op, 2, len(bias.shape) - 1, made, "each")
    a.of[op.result] = Channels(1, made)
    return True


@handles("MatMul")
def _matmul(a: Analysis, op: Op) -> bool:
    x, w = op.operands
    if x is None or w is None or x.shape is None or w.shape is None:
        return False
    held = w.constant
    if held is None:
        return _product(a, op, x, w)
    if held.ndim != 2 or len(x.shape) < 2 or not isinstance(x.shape[-1], int):
        return False
    made = a.classes.fresh(held.shape[1])
    a.classes.cut(op, 1, 0, a.taken(x, len(x.shape) - 1), "in")
    a.classes.cut(op, 1, 1, made, "out")
    a.of[op.result] = Channels(len(x.shape) - 1, made)
    return True


def _product(state: Analysis, op: Op, x: Value, y: Value) -> bool:
    """The product of two computed values, whose channels may be what it is computed for each of: heads."""
    assert x.shape is not None
    assert y.shape is not None
    a, b = state.known(x), state.known(y)
    if a is None and b is None:
        return True
    rank = len(x.shape)
    if a is None or b is None or len(y.shape) != rank or a.axis != b.axis or a.axis >= rank - 2:
        return False
    if len(a.ids) != len(b.ids):
        return False
    state.classes.join(a.ids, b.ids)
    state.of[op.result] = a
    return True


@handles("Gather")
def _gather(a: Analysis, op: Op) -> bool:
    """Rows of a table have new channels; elements along another axis have those that were there."""
    table, indices = op.operands[0], op.operands[1]
    if table is None or indices is None or table.shape is None or op.result.shape is None:
        return False
    axis = op.attributes["axis"] % len(table.shape)
    if a.known(indices) is not None:
        return False
    held = table.constant
    if held is not None:
        if axis == 0 and held.ndim > 1 and held.dtype.kind == "f":
            made = a.classes.fresh(held.shape[-1])
            a.classes.cut(op, 0, held.ndim - 1, made, "out")
            a.of[op.result] = Channels(len(op.result.shape) - 1, made)
        return True
    x = a.known(table)
    if x is None:
        return True
    if axis == x.axis or indices.shape is None:
        return False
    a.of[op.result] = Channels(x.axis + (len(indices.shape) - 1 if axis < x.axis else 0), x.ids)
    return True

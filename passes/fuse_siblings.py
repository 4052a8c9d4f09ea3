"""Siblings: convolutions that look at one tensor through the same window, and products of one matrix, become one.

What they read is then read once, and one kernel computes them all: the weights stand side by side, and slices of the
result stand for the results. Those of which something is computed together stay apart: the second takes that along.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import numpy as np

from compiler import ir
from compiler.dialects.metal import POINTWISE
from compiler.ir import TensorType

Array = np.ndarray[Any, Any]

#: How many may become one: their results are buffers of one kernel.
MOST = 8


def merge(block: ir.Block, taken: Container[ir.Op]) -> set[ir.Op]:
    """Merges the siblings of a block, but for those that are ``taken``.

    Returns:
        The operators that stand for several; every user of their results is a slice that is one of their parts.
    """
    made: set[ir.Op] = set()
    families: dict[Any, list[ir.Op]] = {}
    for op in block.ops:
        key = None if op in taken else _family(op)
        if key is not None:
            families.setdefault(key, []).append(op)
    for family in families.values():
        chosen = _apart(family)[:MOST]
        if len(chosen) > 1:
            made.add(_merged(chosen))
    return made


def _family(op: ir.Op) -> Any:
    """What siblings have in common; None of an operator that has no weights to set beside others'."""
    if op.name not in ("metal.conv", "metal.matmul"):
        return None
    x, w, *bias = op.operands
    if w is None or w.constant is None or not isinstance(w.type, TensorType) or not w.type.dtype.is_float:
        return None
    if any(b is not None and b.constant is None for b in bias):
        return None
    shape = w.constant.shape
    if op.name == "metal.matmul":
        return (op.name, x, shape[0]) if len(shape) == 2 else None
    group = op.attributes["group"]
    if group > 1 and group != shape[0]:
        return None
    return (op.name, x, shape[1:], *(tuple(op.attributes[a]) for a in ("strides", "pads", "dilations")), group)


def _apart(family: Sequence[ir.Op]) -> list[ir.Op]:
    """Those of a family of whose results no function of one element computes something together."""
    chosen: list[ir.Op] = []
    reached: set[ir.Op] = set()
    for op in family:
        own = _reach(op)
        if not own & reached:
            chosen.append(op)
            reached |= own
    return chosen


def _reach(op: ir.Op) -> set[ir.Op]:
    """The operators that follow element by element, other renamings of the index than those that join aside."""
    found: set[ir.Op] = set()
    stack = [op]
    while stack:
        for user in stack.pop().result.users:
            if user not in found and (user.name in POINTWISE or user.name in ("metal.reshape", "metal.transpose")):
                found.add(user)
                stack.append(user)
    return found


def _merged(ops: Sequence[ir.Op]) -> ir.Op:
    first = ops[0]
    assert first.block is not None
    x = first.operands[0]
    weights = [_array(op, 1) for op in ops]
    b = ir.Builder(first.block, first, ir.Location.fuse((op.loc for op in ops), "fuse_siblings"))
    product = first.name == "metal.matmul"
    interleaved = not product and first.attributes["group"] > 1
    axis = len(first.result.shape or ()) - 1 if product else 1

    def beside(arrays: Sequence[Array]) -> ir.Value:
        """Arrays side by side along the channels; those of a channel of the input together where each has its own."""
        if interleaved:
            stacked = np.stack(arrays, 1)
            return b.constant(stacked.reshape(-1, *stacked.shape[2:]), "metal")
        return b.constant(np.concatenate(arrays, -1 if product else 0), "metal")

    operands: list[ir.Value | None] = [x, beside(weights)]
    if any(len(op.operands) > 2 and op.operands[2] is not None for op in ops):
        operands.append(beside([_bias(op, w) for op, w in zip(ops, weights, strict=True)]))
    elif len(first.operands) > 2:
        operands.append(None)
    sizes = [w.shape[-1] if product else w.shape[0] for w in weights]
    assert isinstance(first.result.type, TensorType)
    dims = list(first.result.type.static_shape)
    dims[axis] = sum(sizes)
    whole = b.op(first.name, operands, dict(first.attributes), [first.result.type.with_shape(tuple(dims))])
    at = 0
    for k, (op, size) in enumerate(zip(ops, sizes, strict=True)):
        start, step = (k, len(ops)) if interleaved else (at, 1)
        part = b.op(
            "metal.slice",
            [whole.result],
            {
                "starts": tuple(start if d == axis else 0 for d in range(len(dims))),
                "steps": tuple(step if d == axis else 1 for d in range(len(dims))),
                "shape": tuple(size if d == axis else n for d, n in enumerate(dims)),
            },
        )
        part.result.name = op.result.name
        at += size
        op.result.replace_all_uses_with(part.result)
    for op in ops:
        op.erase()
    return whole


def _array(op: ir.Op, place: int) -> Array:
    value = op.operands[place]
    assert value is not None
    assert value.constant is not None
    return value.constant


def _bias(op: ir.Op, weights: Array) -> Array:
    if len(op.operands) > 2 and op.operands[2] is not None:
        return _array(op, 2)
    return np.zeros(weights.shape[0], weights.dtype)

"""The work in an operator: operations, bytes, and of what kind, whatever unit does it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from compiler.hardware.facts import costs
from compiler.hardware.values import activations, is_parameter, short_name
from compiler.ir import Op, TensorType, Value


@dataclass(frozen=True, slots=True)
class Work:
    """What an operator has to do. Open dimensions count as 1.

    Attributes:
        kind: ``window``, ``dense``, ``unary``, ``binary`` or ``copy``, as in ``costs.toml``.
        flops: multiplications and additions; 0 where moving bytes is all that counts.
        macs: multiplications that are added up.
        reuse: how often each weight or input is used on chip: below a limit, the ``vector`` rate binds.
        moved: bytes of activations read and written.
        weights: bytes of constants as they are stored.
        eight_bit: whether activations and weights of a product are 8-bit integers.
    """

    kind: str
    flops: int = 0
    macs: int = 0
    reuse: int = 1
    moved: int = 0
    weights: int = 0
    eight_bit: bool = False


@cache
def kinds() -> Mapping[str, str]:
    """The kind of each operator that is no copy, by its name without dialect."""
    table = costs()["kinds"]
    return {name: kind for kind in table if kind != "layout" for name in table[kind]}


def work(op: Op) -> Work:
    """The work of ``op``; of one with regions, what its operators do, as often as :func:`trips` says."""
    moved = sum(_moved(v, t, op) for v, t in activations(op))
    weights = sum(stored(v) for v in dict.fromkeys(op.operands) if v is not None and is_parameter(v))
    kind = kinds().get(short_name(op), "copy")
    match kind:
        case "conv":
            return _narrowed(_conv(op, moved, weights), op)
        case "matmul":
            return _narrowed(_product(_extents(op), moved, weights), op)
        case "quantize" | "dequantize":
            kind = "copy"
        case "attention":
            return _attention(op, moved, weights)
        case "recurrent":
            return _recurrent(op, moved, weights)
        case "binary" if _one_flows(op):
            kind = "copy"
    if op.regions:
        parts, times = [work(o) for o in inner(op)], trips(op)
        return Work(
            "dense" if any(w.macs for w in parts) else "copy",
            times * sum(w.flops for w in parts),
            times * sum(w.macs for w in parts),
            1,
            moved + times * sum(w.moved for w in parts),
            weights + sum(w.weights for w in parts),
        )
    return Work(kind, moved=moved, weights=weights)


def inner(op: Op) -> Iterator[Op]:
    """The operators of a region operator's regions that compute something."""
    for region in op.regions:
        for o in region.ops:
            if not o.defn.terminator and not any(is_parameter(r) for r in o.results):
                yield o


def trips(op: Op) -> int:
    """How often a loop runs where its condition is ``less(counter, constant)`` and it counts from 0; else 1."""
    if short_name(op) != "while_loop" or not op.regions:
        return 1
    terminator = op.regions[0].terminator
    condition = terminator.operands[0] if terminator is not None and terminator.operands else None
    while condition is not None and condition.op is not None and short_name(condition.op) == "logical_and":
        condition = condition.op.operands[0]
    if condition is None or condition.op is None or short_name(condition.op) != "less":
        return 1
    bound = condition.op.operands[1]
    limit = bound.constant if bound is not None else None
    return max(1, int(limit.reshape(-1)[0])) if limit is not None and limit.size == 1 else 1


def size(type_: TensorType) -> int:
    """The bytes of a tensor, open dimensions taken as 1."""
    return math.prod(d if isinstance(d, int) else 1 for d in type_.shape or ()) * max(type_.dtype.bits, 8) // 8


def stored(value: Value) -> int:
    """The bytes of a constant in the package: of a compressed one, those of what it is made from."""
    op = value.op
    if op is None:
        return 0
    if op.defn.constant is not None:
        return int(op.attributes[op.defn.constant].nbytes) if not _sub_byte(value) else _packed(value)
    arrays = sum(a.nbytes for a in op.attributes.values() if isinstance(a, np.ndarray))
    return arrays + sum(stored(v) for v in op.operands if v is not None)


def contraction(op: Op) -> int:
    """How many products are summed for each element of a matrix product; 0 if it is none."""
    return _extents(op)[3] if kinds().get(short_name(op)) == "matmul" else 0


def _sub_byte(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype.bits < 8


def _packed(value: Value) -> int:
    assert isinstance(value.type, TensorType)
    return math.prod(d for d in value.type.shape or () if isinstance(d, int)) * value.type.dtype.bits // 8


def _dims(value: Value | None) -> tuple[int, ...]:
    shape = value.shape if value is not None else None
    return tuple(d if isinstance(d, int) else 1 for d in shape or ())


def _conv(op: Op, moved: int, weights: int) -> Work:
    x, weight, y = _dims(op.operands[0]), _dims(op.operands[1]), _dims(op.results[0])
    groups = op.attributes["groups"]
    # A transposed convolution holds its weight as (in, out/groups, …) and scatters each input instead of each output.
    transposed = short_name(op) == "conv_transpose"
    per_group = weight[1] if transposed else weight[0] // groups
    inputs = weight[0] // groups if transposed else weight[1]
    window = math.prod(weight[2:])
    positions = math.prod(x[2:]) * x[0] if transposed else math.prod(y[2:]) * y[0]
    channels = x[1] if transposed else y[1]
    each = (per_group if transposed else inputs) * window
    macs = positions * channels * each
    wide = costs()["wide"]
    kind = "window" if window > 1 and inputs >= wide and per_group >= wide else "dense"
    return Work(kind, 2 * macs + positions * channels, macs, min(positions, per_group), moved, weights)


def _extents(op: Op) -> tuple[int, int, int, int]:
    """Batch, rows, columns and contraction of a matrix product."""
    name = short_name(op)
    if name == "einsum":
        return _einsum_extents(op)
    x, y = _dims(op.operands[0]), _dims(op.operands[1])
    if name != "matmul":
        return 1, math.prod(x[:-1]), y[0], x[-1]
    deep = x[-2] if op.attributes["transpose_x"] and len(x) > 1 else x[-1] if x else 1
    columns = (y[-2] if op.attributes["transpose_y"] else y[-1]) if len(y) > 1 else 1
    out = math.prod(_dims(op.results[0]))
    rows = (x[-1] if op.attributes["transpose_x"] else x[-2]) if len(x) > 1 else 1
    return max(1, out // max(1, rows * columns)), rows, columns, deep


def _einsum_extents(op: Op) -> tuple[int, int, int, int]:
    left, _, result = op.attributes["equation"].replace(" ", "").partition("->")
    first, _, second = left.partition(",")
    length: dict[str, int] = {}
    for letters, value in zip((first, second), op.operands):
        length.update(zip(letters, _dims(value)))
    batch = math.prod(n for c, n in length.items() if c in first and c in second and c in result)
    rows = math.prod(n for c, n in length.items() if c in first and c not in second)
    columns = math.prod(n for c, n in length.items() if c in second and c not in first)
    deep = math.prod(n for c, n in length.items() if c not in result)
    return batch, rows, columns, deep


def _product(extents: tuple[int, int, int, int], moved: int, weights: int) -> Work:
    batch, rows, columns, deep = extents
    macs = batch * rows * columns * deep
    return Work("dense", 2 * macs, macs, min(rows, columns), moved, weights)


def _moved(value: Value, type_: TensorType, op: Op) -> int:
    """The bytes that an operator reads or writes of a value: 8-bit ones where steps from or to 8 bits stand there."""
    if value.op is op:
        near = list(value.users) if kinds().get(short_name(op)) != "dequantize" else []
        narrow = bool(near) and all(kinds().get(short_name(u)) == "quantize" for u in near)
    else:
        narrow = value.op is not None and kinds().get(short_name(value.op)) == "dequantize"
    return size(type_) * 8 // max(type_.dtype.bits, 8) if narrow else size(type_)


def _narrowed(done: Work, op: Op) -> Work:
    """The work of a product, in 8 bits if its activations were dequantized and its weights are stored in 8 bits."""
    x, w = op.operands[0], op.operands[1]
    if x is None or w is None or x.op is None or kinds().get(short_name(x.op)) != "dequantize" or not is_parameter(w):
        return done
    # Scales of an 8-bit weight take less than half a byte an element; half precision takes two bytes.
    return replace(done, eight_bit=True) if stored(w) < 1.5 * math.prod(_dims(w)) else done


def _attention(op: Op, moved: int, weights: int) -> Work:
    query, key, value = (_dims(op.operands[i]) for i in range(3))
    batch, rows, deep = math.prod(query[:-2]), query[-2], query[-1]
    macs = batch * rows * key[-2] * (deep + value[-1])
    return Work("dense", 2 * macs, macs, min(rows, key[-2]), moved, weights)


def _recurrent(op: Op, moved: int, weights: int) -> Work:
    x = _dims(op.operands[0])  # (steps, batch, features)
    parameters = sum(math.prod(_dims(v)) for v in op.operands if v is not None and is_parameter(v))
    macs = x[0] * x[1] * parameters
    return Work("dense", 2 * macs, macs, x[1], moved, weights)


def _one_flows(op: Op) -> bool:
    """Whether at most one operand is a tensor of the result's size that is not a constant."""
    whole = max((size(r.type) for r in op.results if isinstance(r.type, TensorType)), default=0)
    full = [t for v, t in activations(op) if v.op is not op and size(t) * 2 > whole]
    return len(full) < 2

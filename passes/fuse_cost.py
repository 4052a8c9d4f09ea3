"""What it costs to compute something where it is read, against the trip through memory that it spares.

How often an operand's element is read (:func:`reads`) and what an operator costs (:func:`cost`) are all that fusion
knows about operators; their roles come from the dialect.
"""

from __future__ import annotations

import math

from compiler import ir
from compiler.dialects.metal import MOVEMENT, POINTWISE
from passes.fuse_groups import SIDE, Group, size_of

#: Arithmetic may be repeated up to this many operations for each element before it is better done once and stored.
REPEATED = 16

#: In front of a convolution it is worth it for as long as it takes less time than the trip through memory that it
#: spares: operations that a GPU does while it moves a byte (an A15: 1.6 Tflops by 34 GB/s), or while it starts a
#: kernel.
PER_BYTE = 48
PER_KERNEL = 3_000_000

#: The bytes of the trip: an element is written and read, as a float.
TRIP = 8

#: How many elements of a window a thread computes one after another.
WINDOW = 16

#: How many multiplications a thread of a convolution makes with an element that it has loaded.
PER_LOAD = 4

_EXPENSIVE = frozenset(
    f"metal.{n}" for n in ("exp", "log", "pow", "erf", "tanh", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
                           "cosh", "asinh", "acosh", "atanh", "remainder", "floor_mod")
)  # fmt: skip

_RENAMES = frozenset(
    f"metal.{n}" for n in ("reshape", "transpose", "broadcast", "slice", "pad", "strided", "dequantize")
)


def cost(op: ir.Op) -> int:
    """Operations for one element of the result, a transcendental function counting as eight."""
    if op.name == "metal.pool":
        return 2 * int(math.prod(op.attributes["kernel"]))
    if op.name in MOVEMENT:
        return 1 if op.name.startswith("metal.gather") else len(op.operands) - 1
    return 8 if op.name in _EXPENSIVE else 1


def only_renames(op: ir.Op) -> bool:
    """Whether reading an element costs no more than a load; what is stored quantized is even cheaper to read so."""
    return op.name in _RENAMES


def reads(group: Group, place: int, value: ir.Value) -> float:
    """How often a kernel reads each element of ``value``, which feeds operand ``place`` of its anchor."""
    size = max(1, size_of(value))
    anchor = group.anchor
    if anchor is None or place == SIDE:
        return max(1.0, sum(map(size_of, group.roots)) / size)
    operand = anchor.operands[place]
    assert operand is not None
    repeated = size_of(operand) / size
    result = anchor.results[0].shape or ()
    match anchor.name:
        case "metal.reduce" | "metal.arg_reduce" | "metal.scan" | "metal.picture":
            again = 1.0
        case "metal.softmax" | "metal.normalize":
            again = 2.0
        case "metal.matmul" if place == 0:
            again = max(1.0, int(result[-1]) / 32)
        case "metal.matmul":
            again = max(1.0, int(result[-2]) / 32)
        case "metal.pool":
            again = math.prod(anchor.attributes["kernel"]) / math.prod(anchor.attributes["strides"])
        case "metal.resize":
            again = 4.0
        case _:
            again = math.inf
    return repeated * again


def affordable(op: ir.Op, group: Group, place: int) -> bool:
    """Whether an operator may be computed anew at each of a kernel's reads."""
    anchor = group.anchor
    if place == 0 and anchor is not None and anchor.name == "metal.conv":
        if op.name in POINTWISE or op.name in ("metal.pool", "metal.concat"):
            loads = size_of(anchor.result) * _taps(anchor) // PER_LOAD
            return cost(op) * loads <= TRIP * size_of(op.result) * PER_BYTE + PER_KERNEL
    elif op.name == "metal.pool":
        return False
    return cost(op) * reads(group, place, op.result) <= REPEATED


def pools_in_place(conv: ir.Op, pool: ir.Op) -> bool:
    """Whether a convolution is better computed once more for each window of a pool behind it that it is in, than
    stored and loaded."""
    a, before, after = pool.attributes, conv.result.shape or (), pool.result.shape or ()
    kernel, strides = a["kernel"], a["strides"]
    sizes = zip(before[2:], after[2:], kernel, strides, a["dilations"], strict=True)
    over = any((int(o) - 1) * s + (k - 1) * d + 1 > int(n) for n, o, k, s, d in sizes)
    if math.prod(kernel) > WINDOW or (a["kind"] == "mean" and (over or any(a["pads"]))):
        return False
    again: float = math.prod(k / s for k, s in zip(kernel, strides, strict=True) if k > s)
    extra = 2 * _taps(conv) * max(0.0, again - 1.0) * size_of(conv.result)
    return extra <= TRIP * size_of(conv.result) * PER_BYTE


def _taps(conv: ir.Op) -> int:
    """Multiplications for one element of a convolution."""
    w = conv.operands[1]
    assert w is not None
    return size_of(w) // int((w.shape or (1,))[0])

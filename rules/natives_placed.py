"""Operators that pick or place single elements, as gathers, scatters and sums over known windows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import dtype_of, shape_of
from rules.natives_window import require_few_places, window_pads

Array = np.ndarray[Any, Any]


def col2im(b: RuleBuilder, m: Bindings) -> Value:
    """Overlapping blocks added up: a transposed convolution of each channel with one kernel for each place in the
    block, which is one there and zero elsewhere."""
    batch, rows, columns = shape_of(m.x)
    image, block = ([int(v) for v in a.constant.reshape(-1)] for a in (m.image, m.block))
    n = len(image)
    strides, dilations, pads = m.s or (1,) * n, m.d or (1,) * n, m.p or (0,) * (2 * n)
    spare = [i + pads[a] + pads[a + n] - (block[a] - 1) * dilations[a] - 1 for a, i in enumerate(image)]
    counts = [s // t + 1 for s, t in zip(spare, strides)]
    size = math.prod(block)
    if math.prod(counts) != columns or rows % size or min(spare) < 0:
        raise Decline("its blocks are not those of a convolution over the image")
    kernels = np.zeros((rows // size, size, 1, size), dtype_of(m.x).numpy)
    kernels[:, range(size), 0, range(size)] = 1
    attributes = {
        "group": rows // size, "strides": strides, "dilations": dilations, "pads": pads,
        "output_padding": [s % t for s, t in zip(spare, strides)],
    }  # fmt: skip
    blocks = b.op("onnx.Reshape", [m.x, np.array([batch, rows, *counts])])
    result: Value = b.op("onnx.ConvTranspose", [blocks, kernels.reshape(rows, 1, *block)], attributes)
    return result


def _flat_steps(sizes: Sequence[int], columns_first: bool) -> list[int]:
    """How far apart neighbours along each dimension are, in elements."""
    n = len(sizes)
    return [math.prod(sizes[:a]) if columns_first else math.prod(sizes[a + 1 :]) for a in range(n)]


def max_pool_with_indices(b: RuleBuilder, m: Bindings) -> tuple[Value, Value]:
    """The maximum over the places in the window of what each place sees, and the first place where it is."""
    require_few_places(m.k)
    shape, result = shape_of(m.x), shape_of(m.y)
    n = len(m.k)
    strides, dilations = m.s or (1,) * n, m.d or (1,) * n
    if m.a.startswith("SAME") and any(d != 1 for d in dilations):
        raise Decline("onnxruntime pads for windows that are not dilated")
    pads = window_pads(m.a, m.c, m.p, shape[2:], result[2:], m.k, strides, dilations)
    x = m.x
    if any(pads):
        around = np.array([0, 0, *pads[0::2], 0, 0, *pads[1::2]])
        x = b.op("onnx.Pad", [x, around, np.asarray(-math.inf, dtype_of(x).numpy)], {"mode": "constant"})
    steps = _flat_steps(shape[2:], m.o == 1)
    best: Value | None = None
    offset: Any = None
    for place in itertools.product(*map(range, m.k)):
        begin = np.array([o * d for o, d in zip(place, dilations)])
        end = begin + (np.array(result[2:]) - 1) * strides + 1
        part = b.op("onnx.Slice", [x, begin, end, np.arange(2, n + 2), np.array(strides)])
        here = np.array(int(begin @ steps))
        if best is None:
            best, offset = part, here
            continue
        greater = b.op("onnx.Greater", [part, best])
        best = b.op("onnx.Where", [greater, part, best])
        offset = b.op("onnx.Where", [greater, here, offset])
    assert best is not None
    first = [(np.arange(r) * s - p) * t for r, s, p, t in zip(result[2:], strides, pads[0::2], steps)]
    planes = np.arange(shape[0] * shape[1]).reshape(shape[:2]) * math.prod(shape[2:])
    start = planes.reshape(*shape[:2], *[1] * n)
    for a, line in enumerate(first):
        start = start + line.reshape([-1 if i == a + 2 else 1 for i in range(n + 2)])
    return best, b.op("onnx.Add", [start, offset])


def max_unpool(b: RuleBuilder, m: Bindings) -> Value:
    """Zeros, and each element where its index says, counted through the whole result."""
    shape, n = shape_of(m.x), len(m.k)
    strides, pads = m.s or (1,) * n, m.p or (0,) * (2 * n)
    plain = [(i - 1) * s + k - pads[a] - pads[a + n] for a, (i, s, k) in enumerate(zip(shape[2:], strides, m.k))]
    result = [*shape[:2], *plain]
    if m.shape is not None and m.shape.constant.reshape(-1).tolist() != result:
        raise Decline("indices do not count through an output of the shape that is asked for")
    zeros = np.zeros(math.prod(result), dtype_of(m.x).numpy)
    places, values = (b.op("onnx.Reshape", [v, np.array([-1])]) for v in (m.i, m.x))
    placed = b.op("onnx.ScatterElements", [zeros, places, values], {"axis": 0})
    unpooled: Value = b.op("onnx.Reshape", [placed, np.array(result)])
    return unpooled


def determinant(b: RuleBuilder, m: Bindings) -> Value:
    """Of matrices of up to three rows, by the rule of Sarrus and its smaller kin."""
    rows = [b.op("onnx.Gather", [m.x, np.array(i)], {"axis": -2}) for i in range(m.n)]

    def at(i: int, j: int) -> Value:
        return b.op("onnx.Gather", [rows[i], np.array(j)], {"axis": -1})  # type: ignore[no-any-return]

    def times(x: Value, y: Value) -> Value:
        return b.op("onnx.Mul", [x, y])  # type: ignore[no-any-return]

    def minor(j: int, k: int) -> Value:
        """Of the last two rows and columns ``j`` and ``k``."""
        i = m.n - 2
        return b.op("onnx.Sub", [times(at(i, j), at(i + 1, k)), times(at(i, k), at(i + 1, j))])  # type: ignore[no-any-return]

    if m.n == 1:
        return at(0, 0)
    if m.n == 2:
        return minor(0, 1)
    outer = [times(at(0, j), minor((j + 1) % 3, (j + 2) % 3)) for j in range(3)]
    result: Value = b.op("onnx.Add", [b.op("onnx.Add", outer[:2]), outer[2]])
    return result

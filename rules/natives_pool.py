"""Builders of pooling where Core ML's own operators compute something else. Pads are in Core ML's order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import F32, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline, dims
from rules.natives import dtype_of, shape_of
from rules.natives_window import explicit_pads, pad_type, require_few_places, window_pads, windows_start_inside

Array = np.ndarray[Any, Any]


def lower_integer_max_pool(b: RuleBuilder, m: Bindings) -> Value:
    """In f32, where the pool has a meaning there."""
    a = m.pool
    k = a["kernel_shape"]
    ones = (1,) * len(k)
    if windows_start_inside(a["auto_pad"], dims(m.x)[2:], k, a.get("strides") or ones, a.get("dilations") or ones):
        raise Decline("windows lie so far apart that pads would be negative")
    pooled = b.op("onnx.MaxPool", [b.op("onnx.Cast", [m.x], {"to": F32})], dict(a))
    return b.op("mil.cast", [pooled], {"dtype": "int32"}, replaced=(m.y,))  # type: ignore[no-any-return]


def lower_dilated_max_pool(b: RuleBuilder, m: Bindings) -> Value:
    """The maximum over the places in the window of what each place sees: a strided slice of the padded input."""
    if m.a.startswith("SAME"):
        raise Decline("onnxruntime pads for windows that are not dilated")
    require_few_places(m.k)
    shape, result = shape_of(m.x), shape_of(m.y)
    strides = m.s or (1,) * len(m.k)
    pads = window_pads(m.a, m.c, m.p, shape[2:], result[2:], m.k, strides, m.d)
    x = m.x
    if any(pads):
        x = b.op("mil.pad", [x, list(pads)], {"mode": "constant", "constant_val": -math.inf})
    best: Value | None = None
    for place in itertools.product(*map(range, m.k)):
        begin = [0, 0, *(o * d for o, d in zip(place, m.d))]
        end = [*shape[:2], *(o + (r - 1) * s + 1 for o, r, s in zip(begin[2:], result[2:], strides))]
        part = b.op("mil.slice_by_index", [x, begin, end], {"stride": (1, 1, *strides)})
        best = part if best is None else b.op("mil.maximum", [best, part])
    assert best is not None
    return best


def window_sizes(
    sizes: Sequence[int], results: Sequence[int], kernel: Sequence[int], strides: Sequence[int],
    dilations: Sequence[int], heads: Sequence[int], counted: Sequence[tuple[int, int]],
) -> Array:  # fmt: skip
    """How many places of each window count.

    Args:
        heads: the pads before each dimension: where the first window begins.
        counted: how many of the places before and behind each dimension count.
    """
    total = np.ones((), np.int64)
    for size, out, k, s, d, head, (before, behind) in zip(sizes, results, kernel, strides, dilations, heads, counted):
        at = np.arange(out)[:, None] * s + np.arange(k)[None, :] * d - head
        total = total[..., None] * ((at >= -before) & (at < size + behind)).sum(1)
    return total


def lower_average_pool(b: RuleBuilder, m: Bindings) -> Value:
    """AveragePool; where Core ML's divides by another number, the sum of each window divided by ONNX's."""
    kernel, n = m.k, len(m.k)
    strides, dilations = m.s or (1,) * n, m.d or (1,) * n
    shape, result = dims(m.x), dims(m.y)
    given = explicit_pads(m.a, m.p, shape[2:], kernel, strides, dilations)
    pads = window_pads(m.a, m.c, m.p, shape[2:], result[2:], kernel, strides, dilations)
    if all(d == 1 for d in dilations) and (pads == given or not m.i):
        return b.op(
            "mil.avg_pool",
            [m.x],
            {
                "kernel_sizes": kernel,
                "strides": strides,
                "pad_type": pad_type(m.a, m.x, strides),
                "pad": pads,
                "exclude_padding_from_average": not m.i,
                "ceil_mode": False,
            },
        )
    sizes, results = shape_of(m.x), shape_of(m.y)
    counted = [*zip(given[0::2], given[1::2])] if m.i else [(0, 0)] * n
    count = window_sizes(sizes[2:], results[2:], kernel, strides, dilations, pads[0::2], counted)
    total = window_sum(b, m.x, kernel, strides, dilations, pads)
    count = np.maximum(count, 1)  # of a window that sees nothing the sum is 0
    return b.op("mil.mul", [total, (1.0 / count).astype(dtype_of(m.x).numpy)])


def window_sum(
    b: RuleBuilder, x: Value, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int],
    pads: Sequence[int],
) -> Value:  # fmt: skip
    """The sum of each window: a depthwise convolution with ones."""
    channels = dims(x)[1]
    if not isinstance(channels, int):
        raise Decline("the number of channels is not known")
    ones = np.ones((channels, 1, *kernel), dtype_of(x).numpy)
    attributes = {"strides": strides, "dilations": dilations, "groups": channels, "pad_type": "custom", "pad": pads}
    result: Value = b.op("mil.conv", [x, ones], attributes)
    return result


def lower_lp_pool(b: RuleBuilder, m: Bindings) -> Value:
    """LpPool: the root of the sum of powers of each window."""
    n = len(m.k)
    strides, dilations = m.s or (1,) * n, m.d or (1,) * n
    if m.a.startswith("SAME") and any(d != 1 for d in dilations):
        raise Decline("onnxruntime pads for windows that are not dilated")
    pads = window_pads(m.a, m.c, m.p, dims(m.x)[2:], dims(m.y)[2:], m.k, strides, dilations)
    if pad_type(m.a, m.x, strides) not in ("custom", "valid"):
        raise Decline("the pads are not known")
    match m.e:
        case 1:
            powers = b.op("mil.abs", [m.x])
        case 2:
            powers = b.op("mil.mul", [m.x, m.x])
        case _:
            powers = b.op("mil.pow", [b.op("mil.abs", [m.x]), float(m.e)])
    total = window_sum(b, powers, m.k, strides, dilations, pads)
    match m.e:
        case 1:
            return total
        case 2:
            result: Value = b.op("mil.sqrt", [total])
        case _:
            result = b.op("mil.pow", [total, 1.0 / m.e])
    return result

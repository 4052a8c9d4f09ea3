"""Builders of the rules that make wide windows of narrow ones, for the Neural Engine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import shape_of
from rules.natives_ane import pays, summed
from rules.natives_window import explicit_pads

#: The widest kernel and pool that every chip takes (source C: 13 before the A16 generation; pools 29 on the M1).
WIDEST_KERNEL = 13
WIDEST_POOL = 29


@dataclass(frozen=True, slots=True)
class _Window:
    """A convolution on (B, C, H, W): its weight, and along height and width strides, dilations and pads."""

    x: Value
    weight: np.ndarray[Any, Any]
    bias: Value | None
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int, int, int]
    groups: int
    out: tuple[int, ...]


def _window(m: Bindings) -> _Window:
    strides, dilations = tuple(m.s or (1, 1)), tuple(m.d or (1, 1))
    weight = m.w.constant
    if m.t == "custom":
        pads = tuple(m.p or (0, 0, 0, 0))
    else:
        auto = {"valid": "VALID", "same": "SAME_UPPER", "same_lower": "SAME_LOWER"}[m.t]
        pads = explicit_pads(auto, None, shape_of(m.x)[2:], weight.shape[2:], strides, dilations)
    return _Window(m.x, weight, m.b, strides, dilations, pads, m.g, shape_of(m.y))  # type: ignore[arg-type]


def conv_in_phases(b: RuleBuilder, m: Bindings) -> Value:
    """A convolution at a stride of s along the width, or along both axes: the input's s phases (s² of a picture) become
    channels, and the kernel, filled up with zeros to a multiple of s, an s-th as wide."""
    v = _window(m)
    n, c, h, w = v.weight.shape
    stride = v.strides[1]
    both = v.strides[0] == stride and v.dilations == (1, 1) and h > 1
    steps = (stride, stride) if both else (1, stride)
    full = [-(-k // s) * s for k, s in zip((h, w), steps)]
    weight = np.zeros((n, c, *full), v.weight.dtype)
    weight[:, :, :h, :w] = v.weight
    apart = weight.reshape(n, c, full[0] // steps[0], steps[0], full[1] // steps[1], steps[1])
    kernel = apart.transpose(0, 1, 3, 5, 2, 4).reshape(
        n, c * steps[0] * steps[1], *(f // s for f, s in zip(full, steps))
    )
    # So much of the input is looked at, from the first pad on.
    reach = [(o - 1) * s + f for o, s, f in zip(v.out[2:], steps, full)]
    x = _cut(b, v.x, v.pads, (reach[0] if both else None, reach[1]))
    batch, channels, height, width = shape_of(x)
    if both:
        x = b.op("mil.pixel_unshuffle", [x], {"downscale_factor": stride})
    elif channels == height == 1:
        x = b.op("mil.reshape", [x, np.array([batch, 1, width // stride, stride], np.int32)])
        x = b.op("mil.transpose", [x], {"perm": (0, 3, 1, 2)})
    else:
        x = b.op("mil.reshape", [x, np.array([batch, channels, height, width // stride, stride], np.int32)])
        x = b.op("mil.transpose", [x], {"perm": (0, 1, 4, 2, 3)})
        x = b.op("mil.reshape", [x, np.array([batch, channels * stride, height, width // stride], np.int32)])
    kept = (0, 0, 0, 0) if both else (v.pads[0], v.pads[1], 0, 0)
    return _conv(b, x, kernel, v.bias, (1 if both else v.strides[0], 1), (1 if both else v.dilations[0], 1), kept, v)


def conv_in_parts(b: RuleBuilder, m: Bindings) -> Value:
    """A convolution as the sum of convolutions with parts of the kernel, each of which starts further to the right."""
    v = _window(m)
    n = v.weight.shape[3]
    count = -(-n // WIDEST_KERNEL)
    edges = [n * i // count for i in range(count + 1)]
    width, (stride, dilation) = shape_of(v.x)[3], (v.strides[1], v.dilations[1])
    parts: list[Value] = []
    for first, last in itertools.pairwise(edges):
        before = v.pads[2] - first * dilation
        behind = (v.out[3] - 1) * stride + (last - first - 1) * dilation + 1 - before - width
        x = v.x
        if before < 0 or behind < 0:
            cut = (max(0, -before), width - max(0, -behind))
            if cut[0] >= cut[1]:
                raise Decline("a part of the kernel never meets the input")
            x = _slice(b, x, cut)
        pads = (v.pads[0], v.pads[1], max(0, before), max(0, behind))
        part = np.ascontiguousarray(v.weight[..., first:last])
        bias = v.bias if first == 0 else None
        parts.append(_conv(b, x, part, bias, v.strides, v.dilations, pads, v))
    total = summed(b, parts)
    pays(b, m.y.op)
    return total


def pool_factors(kernel: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """For each axis whose kernel is wider than :data:`WIDEST_POOL`: the largest window not wider that divides both
    kernel and stride; 1 elsewhere."""
    out = []
    for k, s in zip(kernel, strides):
        common = math.gcd(k, s)
        out.append(max(d for d in range(1, WIDEST_POOL + 1) if common % d == 0) if k > WIDEST_POOL else 1)
    return tuple(out)


def _conv(
    b: RuleBuilder,
    x: Value,
    weight: np.ndarray[Any, Any],
    bias: Value | None,
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    v: _Window,
) -> Value:
    attributes = {"strides": strides, "dilations": dilations, "groups": v.groups, "pad_type": "custom", "pad": pads}
    out: Value = b.op("mil.conv", [x, b.constant(weight, "mil"), bias], attributes)
    return out


def _cut(b: RuleBuilder, x: Value, pads: Sequence[int], reach: tuple[int | None, int]) -> Value:
    """The input with zeros around, as long as ``reach`` along height and width; where that is None, as it is."""
    before, behind, begin, end = [0] * 4, [0] * 4, [0] * 4, list(shape_of(x))
    for i, wanted in enumerate(reach):
        if wanted is None:
            continue
        before[2 + i] = pads[2 * i]
        more = wanted - pads[2 * i] - end[2 + i]
        behind[2 + i] = max(0, more)
        end[2 + i] += min(0, more)
        if end[2 + i] <= 0:
            raise Decline("the kernel meets zeros only")
    if end != list(shape_of(x)):
        x = b.op("mil.slice_by_index", [x, np.array(begin, np.int32), np.array(end, np.int32)])
    if any(before) or any(behind):
        x = b.op("mil.pad", [x, np.array([p for pair in zip(before, behind) for p in pair], np.int32)])
    return x


def _slice(b: RuleBuilder, x: Value, columns: tuple[int, int]) -> Value:
    begin, end = [0] * 4, list(shape_of(x))
    begin[3], end[3] = columns
    out: Value = b.op("mil.slice_by_index", [x, np.array(begin, np.int32), np.array(end, np.int32)])
    return out

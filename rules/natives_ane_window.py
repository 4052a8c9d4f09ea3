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
from rules.natives_ane import pays
from rules.natives_window import explicit_pads

#: The widest kernel and pool that every chip takes (source C: 13 before the A16 generation; pools 29 on the M1).
WIDEST_KERNEL = 13
WIDEST_POOL = 29

#: Numbers of shifted copies: products of 2 and 3, of which the unit makes dilations (A; D, chapter 13: 2, 3, 4, 8), and
#: no more than the widest kernel.
_SMOOTH = (2, 3, 4, 6, 8, 9, 12)


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


def conv_in_shifts(b: RuleBuilder, m: Bindings) -> Value:
    """A convolution on copies of the input, each shifted further to the left, as channels: what was k taps is one tap
    of k channels. The copies are made by kernels of a single one, which half precision keeps as they are.

    Raises:
        Decline: no number of shifts goes with the stride, or the CPU does it sooner.
    """
    v = _window(m)
    weight, stride, dilation = v.weight, v.strides[1], v.dilations[1]
    before, x = v.pads[2], v.x
    while weight.shape[3] > WIDEST_KERNEL or stride > 1:
        shifts = _shifts(weight.shape[3], stride, dilation)
        n, c, h, taps = weight.shape
        fewer = -(-taps // shifts)
        padded = np.zeros((n, c, h, fewer * shifts), weight.dtype)
        padded[..., :taps] = weight
        apart = padded.reshape(n, c, h, fewer, shifts).transpose(0, 1, 4, 2, 3)
        weight = np.ascontiguousarray(apart.reshape(n, c * shifts, h, fewer))
        farther = shifts * dilation // stride
        # So many places of the copies are looked at: those of the output, and behind them those of the other taps.
        places = v.out[3] + (fewer - 1) * farther
        channels, width = shape_of(x)[1], shape_of(x)[3]
        behind = (places - 1) * stride + (shifts - 1) * dilation + 1 - before - width
        if width + min(0, behind) <= 0:
            raise Decline("the kernel meets zeros only")
        if behind < 0:
            x = _slice(b, x, (0, width + behind))
        ones = np.tile(np.eye(shifts, dtype=weight.dtype), (channels, 1)).reshape(channels * shifts, 1, 1, shifts)
        attributes = {"strides": (1, stride), "dilations": (1, dilation), "groups": channels, "pad_type": "custom"}
        x = b.op("mil.conv", [x, b.constant(ones, "mil")], {**attributes, "pad": (0, 0, before, max(0, behind))})
        before, stride, dilation = 0, 1, farther
    pads = (v.pads[0], v.pads[1], 0, 0)
    out = _conv(b, x, weight, v.bias, (v.strides[0], 1), (v.dilations[0], dilation), pads, v)
    pays(b, m.y.op)
    return out


def _shifts(taps: int, stride: int, dilation: int) -> int:
    """How many shifted copies bring ``taps`` nearer to :data:`WIDEST_KERNEL`, of :data:`_SMOOTH`: if two rounds are
    needed, each about the same number.

    Raises:
        Decline: with none does the stride divide the distance from one tap to the next.
    """
    wanted = -(-taps // WIDEST_KERNEL)
    rounds = next(r for r in itertools.count(1) if _SMOOTH[-1] ** r >= wanted)
    fitting = [k for k in _SMOOTH if k * dilation % stride == 0]
    if not fitting:
        raise Decline("the stride is too large for shifts")
    least = math.ceil(wanted ** (1 / rounds) - 1e-9)
    return next((k for k in fitting if k >= least), fitting[-1])


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

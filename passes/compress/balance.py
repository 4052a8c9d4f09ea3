"""Rounding that keeps sums: of a layer's weight some elements are rounded the other way, so that errors cancel.

What neighbours see is much alike, and behind most activations the mean of a channel is not 0. So what a layer's output
loses to rounding is for the most part the sum of the losses over each kernel, and over all kernels of an output
channel. As in SQuant (Guo et al. 2022), whose Hessian is that of such inputs, elements are turned to their other
neighbour, those first that lie nearest to it, until the sum over each kernel is off by half a step at most, and then
one of a kernel until that over the channel is. It needs no data, and no element is off by more than a step.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from compiler.ir import Op
from passes.compress import windows
from passes.compress.linear import Quantized, bounds, spread
from passes.compress.schemes import Linear

Array = np.ndarray[Any, Any]


def balance(layer: Op, weight: Array, made: Quantized, scheme: Linear) -> Quantized:
    """The integers of a layer's weight, balanced; scales and zero points stay.

    Args:
        weight: what ``made`` was rounded from.
    """
    rows = windows.rows(layer, made.data)
    kernel = math.prod(weight.shape[2:]) if layer.name == "mil.conv" else 1
    channels = rows.shape[2] // kernel
    block = scheme.block if scheme.granularity == "block" else channels
    integers = rows.reshape(-1, block, kernel).astype(np.float32)
    exact = windows.rows(layer, _steps(weight, made)).reshape(integers.shape)
    found = balanced(exact, integers, *bounds(scheme))
    return replace(made, data=windows.back(layer, found.reshape(rows.shape).astype(made.data.dtype), weight.shape))


def _steps(weight: Array, made: Quantized) -> Array:
    """The weight in steps of its scale, above the zero point; the integers themselves where a scale is 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        steps = weight.astype(np.float32) / spread(made.scale, weight.shape).astype(np.float32)
    if made.offset is not None:
        steps += spread(made.offset, weight.shape)
    return steps if made.scale.all() else np.where(np.isfinite(steps), steps, made.data)


def balanced(exact: Array, integers: Array, low: int, high: int) -> Array:
    """Integers near ``exact`` whose sums are.

    Args:
        exact: (rows, kernels, elements), in steps.
        integers: the nearest ones within ``low`` and ``high``.
    """
    out = integers.copy()
    lost = out - exact
    if lost.shape[2] > 1:
        of_kernel = lost.sum(axis=2, keepdims=True)
        _turn(out, lost, _chosen(_room(out, lost, of_kernel, low, high), of_kernel), of_kernel)
    of_row = lost.sum(axis=(1, 2), keepdims=True)
    room = _room(out, lost, of_row, low, high)
    best = room.argmax(axis=2, keepdims=True)
    # Of each kernel that is off in the direction of the row the best element may turn.
    of_kernel = lost.sum(axis=2, keepdims=True)
    useful = (of_kernel * of_row > 0) & (np.take_along_axis(room, best, axis=2) > 0)
    kernels = _chosen(np.where(useful, np.abs(of_kernel), 0)[:, :, 0], of_row[:, :, 0])
    turned = np.zeros(lost.shape, np.bool_)
    np.put_along_axis(turned, best, kernels[:, :, None], axis=2)
    _turn(out, lost, turned, of_row)
    return out


def _room(integers: Array, lost: Array, total: Array, low: int, high: int) -> Array:
    """How far elements were rounded in the direction of ``total``; 0 where not, or where there is no integer left."""
    turned = integers - np.sign(total)
    return np.where((lost * total > 0) & (turned >= low) & (turned <= high), np.abs(lost), 0)


def _chosen(room: Array, total: Array) -> Array:
    """As many elements along the last axis as ``total`` has steps: those with most room, the first of equals, none
    without."""
    count = np.round(np.abs(total)).astype(np.intp)
    rising = np.sort(room, axis=-1)
    least = np.take_along_axis(rising, np.clip(room.shape[-1] - count, 0, room.shape[-1] - 1), axis=-1)
    more, equal = room > least, room == least
    left = count - more.sum(axis=-1, keepdims=True)
    found: Array = (more | (equal & (np.cumsum(equal, axis=-1) <= left))) & (room > 0)
    return found


def _turn(integers: Array, lost: Array, which: Array, total: Array) -> None:
    """Moves elements by a step against ``total``."""
    step = which * np.sign(total)
    integers -= step
    lost -= step

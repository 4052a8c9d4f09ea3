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
        steps = weight.astype(np.float32) / spread(made.scale.astype(np.float32), weight.shape)
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
    size = lost.shape[2]
    if size == 1:
        _turn(out[:, :, 0], lost[:, :, 0], lost.sum(axis=(1, 2)), low, high)
        return out
    flat, off = out.reshape(-1, size), lost.reshape(-1, size)
    _turn(flat, off, np.einsum("ke->k", off), low, high)
    # Of each kernel that is off in the direction of its row the best element may turn.
    of_row = lost.sum(axis=(1, 2))
    sign = np.sign(of_row)
    of_kernel = np.maximum(np.einsum("rke->rk", lost) * sign[:, None], 0)
    signs = np.repeat(sign, lost.shape[1])[:, None]
    at_bound = np.flatnonzero(out == _bound(sign, low, high)[:, None, None]) // size
    of_kernel.reshape(-1)[at_bound] *= (_room(flat[at_bound], off[at_bound], signs[at_bound], low, high) > 0).any(
        axis=1
    )
    kernels = np.flatnonzero(_chosen(of_kernel, _steps_of(of_row)))
    best = _room(flat[kernels], off[kernels], signs[kernels], low, high).argmax(axis=1)
    flat[kernels, best] -= signs[kernels, 0]
    return out


def _steps_of(total: Array) -> Array:
    """How many whole steps sums are off."""
    steps: Array = np.rint(np.abs(total)).astype(np.intp)
    return steps


def _turn(integers: Array, lost: Array, total: Array, low: int, high: int) -> None:
    """Moves as many elements of each row by a step against its ``total`` as that has steps: those with most room."""
    count = _steps_of(total)
    which = np.flatnonzero(count)  # the others, about half of all small kernels, need no further look
    if not len(which):
        return
    sign = np.sign(total)
    room = _room(integers.take(which, axis=0), lost.take(which, axis=0), sign[which, None], low, high)
    rows, columns = np.divmod(np.flatnonzero(_chosen(room, count[which])), room.shape[1])
    rows = which[rows]
    integers[rows, columns] -= sign[rows]
    lost[rows, columns] -= sign[rows]


def _room(integers: Array, lost: Array, sign: Array, low: int, high: int) -> Array:
    """How far elements were rounded in the direction of ``sign``; 0 where not, or where there is no integer left."""
    room: Array = np.maximum(lost * sign, 0)
    room *= integers != _bound(sign, low, high)
    return room


def _bound(sign: Array, low: int, high: int) -> Array:
    """The integer that has no neighbour against ``sign``."""
    return np.where(sign > 0, np.float32(low), np.float32(high))


def _chosen(room: Array, count: Array) -> Array:
    """So many elements of each row: those with most room, the first of equals, none without."""
    length = room.shape[1]
    count = np.minimum(count, length)
    most = min(int(count.max(initial=0)) + 1, length)
    top = np.sort(room if 2 * most > length else np.partition(room, length - most, axis=1)[:, length - most :], axis=1)
    # Where in each sorted row the least that is chosen lies, and what comes before it.
    at = np.arange(1, len(top) + 1) * top.shape[1] - np.maximum(count, 1)
    least = top.take(at)
    bound = np.where(count > 0, np.maximum(least, np.finfo(np.float32).smallest_subnormal), np.float32(np.inf))
    found: Array = room >= bound[:, None]
    tied = np.flatnonzero((top.take(np.maximum(at - 1, 0)) == least) & (least > 0) & (count < length))
    if len(tied):
        least = least[tied, None]
        more, equal = room[tied] > least, room[tied] == least
        left = count[tied, None] - more.sum(axis=1, keepdims=True)
        found[tied] &= more | (equal & (np.cumsum(equal, axis=1) <= left))
    return found

"""Palettes: each element of a tensor becomes an index into a small table.

Tables of mode ``kmeans`` are optimal: one-dimensional k-means has an exact solution in O(kn) (Wu 1991; Grønlund et al.
2017), which library kmeans1d computes; coremltools brings a copy that takes weights. Equal elements are counted and
clustered once, so a half-precision tensor of any size costs no more than 65 536 points. f32 tensors of more values are
clustered on a grid of as many points, and their tables hold the means of the elements themselves.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.machinery
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compiler.errors import UserError
from passes.compress.linear import Quantized, quantize
from passes.compress.schemes import PALETTE_BITS, Linear, Palette

Array = np.ndarray[Any, Any]

#: Floats are clustered in so many parts for each entry of a table, of as many elements each and again of as wide a step
#: of their range; for no fewer than so many entries.
_PARTS, _LEAST_ENTRIES = 64, 16
_MOST_MOVES = 100
#: What an element of no importance counts, in shares of the mean.
_LEAST_MASS = 1e-4


@dataclass(frozen=True, slots=True)
class Palettized:
    """A tensor as indices.

    Attributes:
        indices: u8, of the tensor's shape.
        bits: of an index.
        table: (…, 2^bits, 1): before those, the number of tables along each axis of the tensor.
        scale: by which output channels are multiplied, of the tensor's rank; None for 1.
        stored_table: the table as integers, if it is stored so; ``table`` is what they stand for.
    """

    indices: Array
    bits: int
    table: Array
    scale: Array | None = None
    stored_table: Quantized | None = None

    def dense(self) -> Array:
        """The tensor that it stands for."""
        out = look_up(self.indices, self.table)
        if self.scale is not None:
            out = (out.astype(np.float32) * self.scale.astype(np.float32)).astype(self.table.dtype)
        return out


def palettize(weight: Array, scheme: Palette, output: int, importance: Array | None = None) -> Palettized | None:
    """Palettizes ``weight`` (f16 or f32).

    Args:
        output: the axis of output channels, along which groups share a table.
        importance: of each element, broadcast to the tensor; k-means then minimizes the weighted error.

    Returns:
        None if groups do not fill the axis, or in mode ``unique`` if there are more values than entries.

    Raises:
        UserError: a library is missing.
    """
    channels = weight.shape[output]
    group = scheme.group or channels
    if channels % group:
        return None
    scale = None
    if scheme.channel_scale:
        across = tuple(i for i in range(weight.ndim) if i != output)
        scale = np.max(np.abs(weight), axis=across, keepdims=True)
        scale[scale == 0] = 1
        weight = weight / scale
    moved = np.swapaxes(weight, 0, output)
    parts = moved.reshape(channels // group, -1)
    counted = None
    if importance is not None:
        # Shares of the mean, so that elements of no importance have some mass left.
        share = importance / (importance.mean() or 1.0) + _LEAST_MASS
        counted = np.swapaxes(np.broadcast_to(share, weight.shape), 0, output).reshape(parts.shape)
    bits = scheme.bits
    if scheme.mode == "unique":
        values = [_distinct(p) for p in parts]
        most = max(len(v[0]) for v in values)
        bits = next((b for b in PALETTE_BITS if most <= 1 << b <= 1 << bits), 0)
        if not bits:
            return None
        made = [(np.pad(v, (0, (1 << bits) - len(v))), inverse.astype(np.uint8)) for v, inverse, _ in values]
    elif scheme.mode == "uniform":
        made = [_uniform(p, 1 << bits) for p in parts]
    else:
        weights = [None] * len(parts) if counted is None else list(counted)
        # The library lets go of the interpreter while it computes.
        with ThreadPoolExecutor() as pool:
            made = list(pool.map(_clustered, parts, [1 << bits] * len(parts), weights))
    tables = np.stack([m[0] for m in made])
    indices = np.stack([m[1] for m in made]).reshape(moved.shape)
    shape = [1] * weight.ndim
    shape[output] = len(tables)
    indices = np.ascontiguousarray(np.swapaxes(indices, 0, output))
    tables = tables.reshape(*shape, -1, 1)
    if not scheme.quantized:
        return Palettized(indices, bits, tables, scale)
    stored = quantize(tables, Linear(granularity="tensor"), [0] * tables.ndim)
    return Palettized(indices, bits, stored.dense(), scale, stored)


def look_up(indices: Array, table: Array) -> Array:
    """The entries that indices name. ``table``: (number of tables along each axis …, entries, 1)."""
    counts = table.shape[:-2]
    split = [x for size, n in zip(indices.shape, counts) for x in (n, size // n)]
    parts = indices.reshape(split).transpose([*range(0, len(split), 2), *range(1, len(split), 2)])
    rows = parts.reshape(int(np.prod(counts)), -1)
    dense = np.take_along_axis(table.reshape(len(rows), -1), rows.astype(np.intp), axis=1).reshape(parts.shape)
    order = [x for i in range(len(counts)) for x in (i, len(counts) + i)]
    return dense.transpose(order).reshape(indices.shape)


def _uniform(part: Array, size: int) -> tuple[Array, Array]:
    """A table of evenly spaced entries from the least element to the greatest, and the index of each element."""
    least, greatest = np.amin(part), np.amax(part)
    if least == greatest:
        return np.full(size, least), np.zeros(part.shape, np.uint8)
    step = (greatest - least) / (size - 1)
    indices = np.round((part - least) / (greatest - least) * (size - 1)).astype(np.uint8)
    return (np.arange(size) * step + least).astype(part.dtype), indices


def _clustered(part: Array, size: int, importance: Array | None) -> tuple[Array, Array]:
    """The table of the least error for the elements of one group, and the index of each element."""
    values, inverse, counts = _distinct(part)
    mass = counts if importance is None else np.bincount(inverse, importance, len(values))
    # Halves are few enough for the best there is; of floats there may be as many as elements.
    many = part.dtype != np.float16 and len(values) > 2 * _parts(size)
    labels, centres = (_nearly_best if many else clusters)(values, size, mass)
    table = np.zeros(size)
    table[: len(centres)] = centres
    return table.astype(part.dtype), labels[inverse].astype(np.uint8)


def _distinct(part: Array) -> tuple[Array, Array, Array]:
    """Distinct values in order, the index of each element's value, and how often each value occurs."""
    if part.dtype != np.float16 or part.size < 1 << 12:
        values, inverse, counts = np.unique(part, return_inverse=True, return_counts=True)
        return values, inverse.reshape(-1), counts
    # Halves are few: count their bit patterns, reordered so that integers stand in the order of the floats they spell.
    bits = (part + np.float16(0)).view(np.uint16)  # −0 + 0 is 0
    keys = np.where(bits & 0x8000, ~bits, bits | 0x8000)
    count = np.bincount(keys, minlength=1 << 16)
    present = np.flatnonzero(count)
    rank = np.zeros(1 << 16, np.int32)
    rank[present] = np.arange(len(present), dtype=np.int32)
    spelled = present.astype(np.uint16)
    back = np.where(spelled & 0x8000, spelled & 0x7FFF, ~spelled).astype(np.uint16)
    return back.view(np.float16), rank[keys], count[present]


def _parts(entries: int) -> int:
    return _PARTS * max(entries, _LEAST_ENTRIES)


def _nearly_best(values: Array, count: int, weights: Array) -> tuple[Array, Array]:
    """As :func:`clusters`, of neighbours that are taken together at first, and then moved to what is nearest until they
    stay (Lloyd 1982), which for sorted values takes but sums up to each."""
    values, n = values.astype(np.float64), len(values)
    # As many of the values in each, but none wider than a step of their range, so that what lies far out is alone.
    parts = _parts(count)
    even = np.searchsorted(values, np.linspace(values[0], values[-1], parts))
    starts = np.unique(np.concatenate([np.arange(parts) * n // parts, even[even < n]]))
    mass = np.add.reduceat(weights.astype(np.float64), starts)
    _, centres = clusters(np.add.reduceat(values * weights, starts) / mass, count, mass)
    masses, sums = (np.concatenate([[0.0], np.cumsum(a)]) for a in (weights.astype(np.float64), values * weights))
    ends = np.zeros(0, np.intp)
    for _ in range(_MOST_MOVES):
        before, ends = ends, np.searchsorted(values, (centres[1:] + centres[:-1]) / 2)
        if np.array_equal(before, ends):
            break
        bounds = np.concatenate([[0], ends, [n]])
        held = np.diff(masses[bounds])
        centres = np.where(held > 0, np.diff(sums[bounds]) / np.where(held > 0, held, 1), centres)
    return np.repeat(np.arange(len(centres)), np.diff(np.concatenate([[0], ends, [n]]))), centres


def clusters(values: Array, count: int, weights: Array) -> tuple[Array, Array]:
    """The optimal clusters of sorted distinct ``values``: the label of each, and the centres.

    Args:
        weights: how much each value counts.

    Raises:
        UserError: the library is missing.
    """
    n, k = len(values), min(count, len(values))
    labels, centres = np.empty(n, np.uintp), np.empty(k)
    values, weights = np.ascontiguousarray(values, np.float64), np.ascontiguousarray(weights, np.float64)
    double, index = ctypes.POINTER(ctypes.c_double), ctypes.POINTER(ctypes.c_ulong)
    # The library's own wrapper goes through Python lists, which takes longer than the clustering.
    _library().cluster_with_weights(
        values.ctypes.data_as(double), weights.ctypes.data_as(double), ctypes.c_ulong(n), ctypes.c_ulong(k),
        labels.ctypes.data_as(index), centres.ctypes.data_as(double),
    )  # fmt: skip
    return labels.astype(np.intp), centres


@functools.cache
def _library() -> Any:
    """kmeans1d as coremltools brings it, found without running coremltools' ``__init__``, which takes a second."""
    spec = importlib.machinery.PathFinder.find_spec("coremltools")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        for path in sorted(Path(folder, "_deps", "kmeans1d").glob("_core*")):
            return ctypes.CDLL(str(path))
    raise UserError("palettes need the library kmeans1d of coremltools, which it lacks here", "coremltools 9 or later")

"""One weight under one scheme: what it becomes, how far that is from it, and how many bits it takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from passes.compress import linear
from passes.compress.linear import Quantized
from passes.compress.palette import Palettized, palettize
from passes.compress.schemes import Linear, Palette, Scheme, Sparse
from passes.compress.sparse import Sparsified, zeroed

Array = np.ndarray[Any, Any]
Encoded = Quantized | Palettized | Sparsified

#: The part of a weight's norm that may lie in channels whose scales have lost digits.
_NEGLIGIBLE = 1e-3
#: A scale of at least so many of its precision's smallest steps is exact to 0.4 %, as good as the integers it scales.
_FEWEST_STEPS = 128
_PIECE = 1 << 16


class NotCompressibleError(Exception):
    """A weight cannot take a form; the message says why."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The axes of output and input channels of a weight."""

    output: int
    input: int


def encode(weight: Array, scheme: Scheme, axes: Axes, importance: Array | None = None) -> Encoded:
    """What ``weight`` (f16 or f32) becomes under ``scheme``.

    Args:
        importance: how much each element counts, broadcast to the weight; for palettes and sparsity.

    Raises:
        NotCompressibleError: blocks, groups or patterns do not fit it, or its numbers do not survive.
    """
    if not _finite(weight):
        raise NotCompressibleError("it holds inf or NaN")
    if isinstance(scheme, Sparse):
        chosen = None if importance is None else np.square(weight.astype(np.float64)) * importance
        thinned = zeroed(weight, scheme, axes.input if scheme.axis else axes.output, chosen)
        if thinned is None:
            raise NotCompressibleError(f"{scheme} does not fit {weight.shape}")
        values = thinned if scheme.values is None else encode(thinned, scheme.values, axes, importance)
        assert not isinstance(values, Sparsified)
        return Sparsified(values, (thinned != 0).astype(np.uint8))
    if isinstance(scheme, Palette):
        made = palettize(weight, scheme, axes.output, importance)
        if made is None:
            raise NotCompressibleError(f"{scheme} does not fit {weight.shape}")
        return made
    return quantized(weight, scheme, axes)


def quantized(weight: Array, scheme: Linear, axes: Axes) -> Quantized:
    """See :func:`encode`."""
    blocks = linear.block_sizes(weight.shape, scheme, axes.output, axes.input)
    if blocks is None:
        raise NotCompressibleError(f"blocks of {scheme.block} do not fill {weight.shape}")
    made = linear.quantize(weight, scheme, blocks)
    vanishing = made.scale < _FEWEST_STEPS * np.finfo(made.scale.dtype).smallest_subnormal
    if vanishing.any():
        # Such a scale has lost its digits. That matters unless it is of channels that are as good as dead.
        lost = np.where(linear.spread(vanishing, weight.shape), weight, 0)
        if _squares(lost) > _NEGLIGIBLE**2 * _squares(weight):
            raise NotCompressibleError("its scales vanish in half precision")
    return made


def bits(encoded: Encoded) -> int:
    """How many bits it takes in a package, tables and scales included, names and alignment not."""
    if isinstance(encoded, Quantized):
        offset = 0 if encoded.offset is None else encoded.offset.size * encoded.dtype.bits
        return encoded.data.size * encoded.dtype.bits + encoded.scale.nbytes * 8 + offset
    if isinstance(encoded, Palettized):
        scale = 0 if encoded.scale is None else encoded.scale.nbytes * 8
        table = encoded.table.nbytes * 8 if encoded.stored_table is None else bits(encoded.stored_table)
        return encoded.indices.size * encoded.bits + table + scale
    stored = int(np.count_nonzero(encoded.mask))
    if isinstance(encoded.values, np.ndarray):
        return encoded.mask.size + stored * int(encoded.values.dtype.itemsize) * 8
    rest = encoded.mask.size - stored
    width = encoded.values.dtype.bits if isinstance(encoded.values, Quantized) else encoded.values.bits
    return encoded.mask.size + bits(encoded.values) - rest * width


def error(weight: Array, dense: Array) -> float:
    """‖ŵ − w‖ / ‖w‖; 0 for a weight of zeros that stayed so."""
    lost = whole = 0.0
    for w, d in zip(_pieces(weight), _pieces(dense), strict=True):
        exact = w.astype(np.float64)
        lost += float(np.square(d - exact).sum())
        whole += float(np.square(exact, out=exact).sum())
    return math.sqrt(lost / whole) if whole else float(lost > 0)


def _finite(array: Array) -> bool:
    """Whether all elements are finite; of halves this is told by their bits, with which NumPy is ten times as fast."""
    if array.dtype != np.float16:
        return bool(np.isfinite(array).all())
    return not ((array.view(np.uint16) & 0x7C00) == 0x7C00).any()


def _squares(array: Array) -> float:
    """The sum of all squares, by NumPy itself: a norm takes a dot product, whose threads cost more than they save."""
    return sum(float(np.square(piece, dtype=np.float64).sum()) for piece in _pieces(array))


def _pieces(array: Array) -> Iterator[Array]:
    """The elements piece by piece: what is computed of a piece fits into memory that is at hand."""
    flat = array.reshape(-1)
    return (flat[i : i + _PIECE] for i in range(0, flat.size, _PIECE))

"""Linear quantization of arrays, in the weights' own precision, bit for bit as coremltools does it.

The formulas are those of ``coremltools.optimize._utils.quantize_weight_by_dtype``: for a block with least element a and
greatest b, symmetric m = max(|a|, |b|), s = 2m / (qmax − qmin); affine a ← min(a, 0), b ← max(b, 0),
s = (b − a) / (qmax − qmin), z = round((qmin b − qmax a) / (b − a)); q = clip(round(w / s) + z, qmin, qmax).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler import ir
from passes.compress.schemes import Linear

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Quantized:
    """A tensor as integers.

    Attributes:
        data: the integers, in NumPy's int8 or uint8 whatever their width.
        dtype: the element type that they are stored in.
        scale: one for each block: of the rank of ``data``, each dimension the number of blocks along it.
        offset: the zero points, in the shape of ``scale``; None where they are 0.
    """

    data: Array
    dtype: ir.DType
    scale: Array
    offset: Array | None

    def dense(self) -> Array:
        """What it stands for: s (q − z), computed in f32 and rounded to the scale's precision."""
        return dequantize(self.data, self.scale, self.offset)


def bounds(scheme: Linear) -> tuple[int, int]:
    """The least and greatest integer in use; a symmetric range leaves one out, so that it is symmetric."""
    size = 1 << scheme.bits
    if scheme.signed:
        return -size // 2 + scheme.symmetric, size // 2 - 1
    return 0, size - 1 - scheme.symmetric


def block_sizes(shape: Sequence[int], scheme: Linear, output: int, input_: int) -> tuple[int, ...] | None:
    """How many elements along each axis share a scale; 0 for all of them. None if blocks do not fill the tensor.

    Args:
        output, input_: the axes of output and input channels.
    """
    sizes = [0] * len(shape)
    if scheme.granularity != "tensor":
        sizes[output] = 1
    if scheme.granularity == "block":
        if shape[input_] % scheme.block:
            return None
        sizes[input_] = scheme.block
    return tuple(sizes)


def quantize(weight: Array, scheme: Linear, blocks: Sequence[int]) -> Quantized:
    """Quantizes ``weight`` (f16 or f32).

    Args:
        blocks: how many elements along each axis share a scale, 0 for all.
    """
    # As f32 from here on: NumPy is slow with halves, and what they give does not depend on it but where it is rounded.
    wide = weight.astype(np.promote_types(weight.dtype, np.float32), copy=False)
    scale, zero = parameters(wide, scheme, blocks, weight.dtype)
    data = integers(wide, scale, zero, scheme)
    narrow = np.int8 if scheme.signed else np.uint8
    offset = None if zero is None else zero.astype(narrow)
    dtype = ir.dtype({"int": "i", "uint": "u"}[scheme.dtype[:-1]] + scheme.dtype[-1])
    return Quantized(data.astype(narrow), dtype, scale, offset)


def integers(wide: Array, scale: Array, zero: Array | None, scheme: Linear) -> Array:
    """clip(round(w / s) + z) as floats, where w / s is rounded to the precision of the weight, which is the scale's."""
    low, high = bounds(scheme)
    # A block of zeros has scale 0: 0/0 is NaN, which stands for the integer 0.
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        data = wide / spread(scale.astype(wide.dtype), wide.shape)
    if scale.dtype == np.float16:
        _round_to_half(data)
    np.rint(data, out=data)
    if zero is not None:
        data += spread(zero, wide.shape)
    np.clip(data, low, high, out=data)
    return data if scale.all() else np.nan_to_num(data, copy=False, nan=0.0)


def _round_to_half(array: Array) -> None:
    """Rounds f32 to eleven digits in place, to even between two, as converting to half does but for what a half cannot
    hold: that is too large stays, and too small keeps digits."""
    digits = array.view(np.uint32)
    last = (digits >> 13) & 1
    digits += last
    digits += 0xFFF
    digits &= 0xFFFFE000


def parameters(wide: Array, scheme: Linear, blocks: Sequence[int], dtype: Any) -> tuple[Array, Array | None]:
    """Scales (in the weight's precision, ``dtype``) and zero points (f64, whole numbers; None if 0) of all blocks."""
    split, counts = _split(wide.shape, blocks)
    inside = tuple(range(1, 2 * wide.ndim, 2))
    parts = wide.reshape(split)
    least, greatest = np.amin(parts, axis=inside, keepdims=True), np.amax(parts, axis=inside, keepdims=True)
    least, greatest = least.astype(dtype), greatest.astype(dtype)
    low, high = bounds(scheme)
    if scheme.symmetric:
        greatest = np.maximum(np.abs(least), np.abs(greatest))
        least = -greatest
    else:
        least, greatest = np.minimum(0.0, least), np.maximum(0.0, greatest)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scale = (greatest - least) / (high - low)
        zero = None
        if scheme.symmetric and not scheme.signed:
            zero = np.full(least.shape, high // 2, np.float64)
        elif not scheme.symmetric:
            zero = np.clip(np.round((low * greatest - high * least) / (greatest - least)), low, high)
            zero = np.nan_to_num(zero, nan=0.0)
    return scale.astype(dtype).reshape(counts), None if zero is None else zero.reshape(counts)


def dequantize(data: Array, scale: Array, offset: Array | None) -> Array:
    """s (q − z) in f32, rounded to the precision of ``scale``; scale and offset are repeated over their blocks."""
    dense = data.astype(np.float32)
    if offset is not None:
        dense -= spread(offset.astype(np.float32), data.shape)
    dense *= spread(scale.astype(np.float32), data.shape)
    return dense.astype(scale.dtype, copy=False)


def spread(of_blocks: Array, shape: Sequence[int]) -> Array:
    """An array with one element for each block, repeated to the tensor's shape (broadcast where one block fills it)."""
    for axis, (have, want) in enumerate(zip(of_blocks.shape, shape, strict=True)):
        if have not in (1, want):
            of_blocks = np.repeat(of_blocks, want // have, axis)
    return of_blocks if of_blocks.shape == tuple(shape) else np.broadcast_to(of_blocks, shape)


def _split(shape: Sequence[int], blocks: Sequence[int]) -> tuple[list[int], list[int]]:
    """The shape with each axis split into (blocks, elements of a block), and the number of blocks along each axis."""
    counts = [size // block if block else 1 for size, block in zip(shape, blocks, strict=True)]
    return [x for size, n in zip(shape, counts) for x in (n, size // n)], counts

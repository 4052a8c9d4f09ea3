"""What Core ML's compressed weights and quantized numbers mean, in ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_quant import Array, blocked, tensor_type


def _array(v: Value | None) -> Array:
    if v is None or v.constant is None:
        raise Decline("compressed data is computed")
    return v.constant


def _plain(v: Value | None) -> Array:
    """Packed integers as ones that NumPy computes with."""
    array = _array(v)
    return array if array.dtype.isbuiltin == 1 else array.astype(np.int8)


def mean_affine_dequantize(b: RuleBuilder, m: Bindings) -> Value:
    """scale (data − zero point), the vectors along one axis."""
    data, zero, scale = _plain(m.data), _plain(m.zero), _array(m.scale)
    to = [1] * data.ndim
    to[int(m.axis) % data.ndim] = -1
    zero, spread = (v.reshape(to) if v.ndim else v for v in (zero, scale))
    plain = data.astype(np.float32) - zero.astype(np.float32)
    plain *= spread.astype(np.float32)
    return b.constant(plain.astype(scale.dtype), "onnx")


def _unpacked(data: Array, bits: int, count: int) -> Array:
    """Indices that are packed from the lowest bit of each byte on."""
    if bits == 8:
        return data[:count]
    flat = np.unpackbits(data.astype(np.uint8), bitorder="little")[: bits * count]
    weights = (1 << np.arange(bits)).astype(np.uint8)
    return flat.reshape(count, bits) @ weights


def mean_lut_to_dense(b: RuleBuilder, m: Bindings) -> Value:
    """The entries of a look-up table that the indices name."""
    indices, lut = _array(m.indices), _array(m.lut)
    if m.shape is not None:  # iOS 16: one table, packed indices
        shape = tuple(int(d) for d in np.asarray(m.shape).reshape(-1))
        bits = int(lut.size).bit_length() - 1
        return b.constant(lut[_unpacked(indices, bits, int(np.prod(shape)))].reshape(shape), "onnx")
    return b.constant(looked_up(indices, lut, m.axis), "onnx")


def looked_up(indices: Array, lut: Array, vector_axis: Any) -> Array:
    """iOS 18's form: a table for each block (the leading dimensions of ``lut``), whose entries are vectors along
    ``vector_axis`` of the result."""
    indices = indices.astype(np.uint8)
    size = lut.shape[-1]
    tables = blocked(lut, (*indices.shape, *lut.shape[-2:]))
    found = np.take_along_axis(tables, indices[..., None, None].astype(np.intp), axis=-2)[..., 0, :]
    if size == 1:
        return found[..., 0]
    axis = int(vector_axis) % indices.ndim
    beside = np.moveaxis(found, -1, axis + 1)
    shape = list(indices.shape)
    shape[axis] *= size
    return beside.reshape(shape)


def mean_sparse_to_dense(b: RuleBuilder, m: Bindings) -> Value:
    """The data where the mask is set, zero elsewhere."""
    data, mask = _array(m.data), _array(m.mask).astype(np.uint8)
    if m.shape is not None:  # iOS 16: bits, packed from the lowest on
        shape = tuple(int(d) for d in np.asarray(m.shape).reshape(-1))
        mask = np.unpackbits(mask, bitorder="little")[: int(np.prod(shape))].reshape(shape)
    return b.constant(scattered(data, mask), "onnx")


def scattered(data: Array, mask: Array) -> Array:
    """A tensor of the mask's shape with ``data`` where it is set."""
    out = np.zeros(mask.shape, data.dtype)
    out[mask != 0] = data
    return out


def shifted_and_scaled(data: Array, scale: Array, offset: Array | None) -> Array:
    """scale (data − offset), each element of scale and offset for a block."""
    spread = blocked(scale, data.shape).astype(np.float32)
    plain = data.astype(np.float32)
    if offset is not None:
        plain = plain - blocked(offset, data.shape).astype(np.float32)
    return (plain * spread).astype(scale.dtype)


def mean_blockwise_shift_scale(b: RuleBuilder, m: Bindings) -> Value:
    offset = None if m.offset is None else _plain(m.offset)
    return b.constant(shifted_and_scaled(_plain(m.data), _array(m.scale), offset), "onnx")


def _mask(b: RuleBuilder, mask: Array, old: Value, new: Value) -> Value:
    """What stands for the mask ``new``: the one that there was, or one of its type, which ONNX may not have."""
    if mask.shape == _array(old).shape:
        return old
    made: Value = b.op("mil.const", [], {"val": mask.astype(tensor_type(old).dtype.numpy)}, replaced=(new,))
    return made


def mean_lut_to_sparse(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    """The mask, widened along the vectors' axis, and the entries that the indices name where it is set."""
    mask, lut = _array(m.mask).astype(np.uint8), _array(m.lut)
    dense = looked_up(scattered(_array(m.indices).astype(np.uint8), mask), lut, m.axis)
    if lut.shape[-1] > 1:
        mask = np.repeat(mask, lut.shape[-1], axis=int(m.axis) % mask.ndim)
    return _mask(b, mask, m.mask, m.ys[0]), b.constant(dense[mask != 0], "onnx")


def mean_sparse_blockwise_shift_scale(b: RuleBuilder, m: Bindings) -> tuple[Value, ...]:
    mask = _array(m.mask).astype(np.uint8)
    offset = None if m.offset is None else _plain(m.offset)
    dense = shifted_and_scaled(scattered(_plain(m.data), mask), _array(m.scale), offset)
    return _mask(b, mask, m.mask, m.ys[0]), b.constant(dense[mask != 0], "onnx")


def mean_quantize(b: RuleBuilder, m: Bindings) -> Value:
    """QuantizeLinear; without a zero point the output type says the type."""
    to = {"int8": np.int8, "uint8": np.uint8}.get(m.to)
    if to is None:
        raise Decline(f"quantized to {m.to}")
    scale = _array(m.scale)
    zero = np.zeros(scale.shape, to) if m.zero is None else _array(m.zero)
    attributes = {"axis": None if m.axis is None else int(m.axis)}
    return b.op("onnx.QuantizeLinear", [m.x, scale, zero], attributes)  # type: ignore[no-any-return]


def mean_dequantize(b: RuleBuilder, m: Bindings) -> Value:
    attributes = {"axis": None if m.axis is None else int(m.axis)}
    return b.op("onnx.DequantizeLinear", [m.x, m.scale, m.zero], attributes)  # type: ignore[no-any-return]

"""Compressed weights as the constexpr operators of a release, in the place of the constants that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler import ir
from compiler.errors import UnsupportedError
from compiler.ir import Op, TensorType, Value
from passes.compress.encode import Encoded
from passes.compress.linear import Quantized
from passes.compress.palette import Palettized
from passes.compress.sparse import Sparsified

Array = np.ndarray[Any, Any]


def replace(const: Op, encoded: Encoded, ios: int) -> Op:
    """Puts the constexpr operators of ``encoded`` in the place of ``const``, which goes.

    Args:
        ios: the release, which decides between iOS 16's forms and iOS 18's.

    Returns:
        The operator that gives the weight.

    Raises:
        UnsupportedError: the release has no form for it.
    """
    emitter = _Emitter(const, ios)
    if isinstance(encoded, Sparsified):
        made = emitter.sparse(encoded)
    elif isinstance(encoded, Palettized):
        made = emitter.palette(encoded)
    else:
        made = emitter.linear(encoded)
    made.result.name = const.result.name
    const.result.replace_all_uses_with(made.result)
    const.erase()
    return made


class _Emitter:
    def __init__(self, const: Op, ios: int) -> None:
        self.const = const
        self.new = ios >= 18
        assert isinstance(const.result.type, TensorType)
        self.type = const.result.type

    def linear(self, q: Quantized) -> Op:
        data = self._constant(q.data, q.dtype)
        if self.new:
            offset = None if q.offset is None else self._constant(q.offset, q.dtype)
            operands = [data, self._constant(q.scale), offset]
            return self._op("mil.constexpr_blockwise_shift_scale", operands, [self.type])
        wide = [i for i, n in enumerate(q.scale.shape) if n > 1]
        if q.dtype.bits < 8 or len(wide) > 1:
            raise UnsupportedError("weights of 4 bits or in blocks need iOS 18", "--os ios18")
        zero = np.zeros(q.scale.shape, q.data.dtype) if q.offset is None else q.offset
        axis = np.asarray(wide[0] if wide else 0, np.int32)
        operands = [data, self._constant(np.squeeze(zero), q.dtype), self._constant(np.squeeze(q.scale))]
        return self._op("mil.constexpr_affine_dequantize", operands, [self.type], {"axis": axis})

    def palette(self, p: Palettized) -> Op:
        if not self.new:
            if any(n > 1 for n in p.table.shape[:-2]) or p.scale is not None or p.bits == 3:
                raise UnsupportedError("grouped, scaled and 3-bit palettes need iOS 18", "--os ios18")
            shape = np.asarray(p.indices.shape, np.uint32)
            indices = self._constant(_packed(p.indices, p.bits), ir.U8)
            operands = [indices, self._constant(p.table.reshape(-1))]
            return self._op("mil.constexpr_lut_to_dense", operands, [self.type], {"shape": shape})
        indices = self._constant(p.indices, ir.dtype(f"u{p.bits}"))
        made = self._op("mil.constexpr_lut_to_dense", [indices, self._table(p)], [self.type])
        if p.scale is None:
            return made
        return self._op(
            "mil.constexpr_blockwise_shift_scale", [made.result, self._constant(p.scale), None], [self.type]
        )

    def _table(self, p: Palettized) -> Value:
        q = p.stored_table
        if q is None:
            return self._constant(p.table)
        operands = [self._constant(q.data, q.dtype), self._constant(q.scale), None]
        type_ = TensorType(self.type.dtype, p.table.shape)
        return self._op("mil.constexpr_blockwise_shift_scale", operands, [type_]).result

    def sparse(self, s: Sparsified) -> Op:
        kept = s.mask != 0
        count = TensorType(self.type.dtype, (int(np.count_nonzero(kept)),))
        if not self.new:
            if not isinstance(s.values, np.ndarray):
                raise UnsupportedError("sparse weights that are quantized as well need iOS 18", "--os ios18")
            shape = np.asarray(s.mask.shape, np.uint32)
            operands = [self._constant(s.values[kept]), self._constant(_packed(s.mask, 1), ir.U8)]
            return self._op("mil.constexpr_sparse_to_dense", operands, [self.type], {"shape": shape})
        mask: Value = self._constant(s.mask, ir.U1)
        if isinstance(s.values, np.ndarray):
            values: Value = self._constant(s.values[kept])
        elif isinstance(s.values, Quantized):
            q = s.values
            offset = None if q.offset is None else self._constant(q.offset, q.dtype)
            data = self._constant(q.data[kept], q.dtype)
            made = self._op(
                "mil.constexpr_sparse_blockwise_shift_scale",
                [mask, data, self._constant(q.scale), offset],
                [mask.type, count],
            )
            values = made.results[1]
        else:
            p = s.values
            if p.scale is not None:
                raise UnsupportedError("palettes scaled by channel have no sparse form in Core ML", "palettes without")
            indices = self._constant(p.indices[kept], ir.dtype(f"u{p.bits}"))
            operands = [mask, indices, self._table(p)]
            made = self._op("mil.constexpr_lut_to_sparse", operands, [mask.type, count])
            mask, values = made.results
        return self._op("mil.constexpr_sparse_to_dense", [values, mask], [self.type])

    def _constant(self, array: Array, dtype: ir.DType | None = None) -> Value:
        dtype = dtype or ir.from_numpy(array.dtype)
        held = np.ascontiguousarray(array.astype(dtype.numpy, copy=False)).reshape(array.shape)
        return self._op("mil.const", [], [TensorType(dtype, array.shape)], {"val": held}).result

    def _op(
        self,
        name: str,
        operands: Sequence[Value | None],
        types: Sequence[ir.Type],
        attributes: dict[str, Any] | None = None,
    ) -> Op:
        defn = ir.lookup(name)
        op = Op(defn, operands, types, {**defn.defaults(), **(attributes or {})}, loc=self.const.loc)
        assert self.const.block is not None
        self.const.block.insert_before(self.const, op)
        return op


def _packed(elements: Array, bits: int) -> Array:
    """Elements of less than a byte close together, the first in the lowest bits."""
    spread = np.unpackbits(elements.reshape(-1, 1).astype(np.uint8), axis=1, count=bits, bitorder="little")
    return np.packbits(spread, bitorder="little")

"""Constants between NumPy and MIL's protobuf: what stands in the program itself, not in the weight file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from codegen.mil.proto import NUMBER_OF
from compiler import ir
from compiler.errors import UnsupportedError, UserError
from compiler.ir import DType, TensorType

Array = np.ndarray[Any, Any]

# Elements unpacked at a time, a multiple of 8 so that each part starts at a byte.
_CHUNK = 1 << 18

# Which field of TensorValue holds which element type, as coremltools' IMMEDIATE_VALUE_TYPES_IN_BYTES and
# _tensor_field_by_type have it: Core ML reads those of a type from its one field only.
_FIELD: dict[DType, str] = {
    ir.BOOL: "bools",
    ir.STRING: "strings",
    ir.F32: "floats",
    ir.F64: "doubles",
    ir.I16: "ints",
    ir.U16: "ints",
    ir.I32: "ints",
    ir.I64: "longInts",
    ir.U64: "longInts",
    **dict.fromkeys([ir.F16, ir.I8, ir.U8, ir.U32, ir.I4, ir.U1, ir.U2, ir.U3, ir.U4, ir.U6], "bytes"),
}


def set_immediate(proto: Any, array: Array, dtype: DType) -> None:
    """Makes the ``Value`` message hold ``array`` (elements of ``dtype``) in itself.

    Raises:
        UnsupportedError: MIL has no immediate values of that type.
    """
    field = _FIELD.get(dtype)
    if field is None:
        raise UnsupportedError(f"Core ML takes no constant of element type {dtype}")
    tensor_type = proto.type.tensorType
    tensor_type.dataType = NUMBER_OF[dtype]
    tensor_type.rank = array.ndim
    for d in array.shape:
        tensor_type.dimensions.add().constant.size = d
    holder = getattr(proto.immediateValue.tensor, field)
    holder.SetInParent()
    if not array.size:
        return
    if field == "bytes":
        holder.values = pack(array, dtype).tobytes()
    else:
        holder.values.extend(array.reshape(-1).tolist())


def set_list(proto: Any, values: tuple[Any, ...]) -> None:
    """Makes the ``Value`` message hold a list of scalars: all strings, or integers, which a MIL list holds as i64."""
    dtype = ir.STRING if values and isinstance(values[0], str) else ir.I64
    list_type = proto.type.listType
    list_type.type.tensorType.dataType = NUMBER_OF[dtype]
    list_type.length.constant.size = len(values)
    items = proto.immediateValue.list
    items.SetInParent()
    for v in values:
        set_immediate(items.values.add(), np.asarray(v, dtype.numpy), dtype)


def pack(array: Array, dtype: DType) -> Array:
    """The bytes of ``array``; elements of less than a byte stand close together, the first in the lowest bits."""
    array = np.ascontiguousarray(array)
    if dtype.bits >= 8:
        return array
    wide = array.reshape(-1, 1).astype(np.int8 if dtype.is_signed else np.uint8).view(np.uint8)
    return np.packbits(np.unpackbits(wide, axis=1, count=dtype.bits, bitorder="little"), bitorder="little")


def unpack(packed: Array, dtype: DType, count: int) -> Array:
    """The first ``count`` elements of ``dtype`` that stand close together in the bytes ``packed``."""
    out = np.empty(count, dtype.numpy)
    for start in range(0, count, _CHUNK):
        n = min(_CHUNK, count - start)
        part = packed[start * dtype.bits // 8 :]
        bits = np.unpackbits(part[: byte_count(dtype, n)], count=n * dtype.bits, bitorder="little").reshape(n, -1)
        if dtype.is_signed:
            # The sign bit, repeated, fills the byte.
            bits = np.concatenate([bits, np.repeat(bits[:, -1:], 8 - dtype.bits, axis=1)], axis=1)
        whole = np.packbits(bits, axis=1, bitorder="little").reshape(-1)
        out[start : start + n] = whole.view(np.int8) if dtype.is_signed else whole
    return out


def byte_count(dtype: DType, count: int) -> int:
    """How many bytes ``count`` elements take in a package."""
    return (count * dtype.bits + 7) // 8


def immediate_tensor(proto: Any, type_: TensorType, what: str) -> Array:
    """The array that an immediate ``TensorValue`` message holds.

    Args:
        type_: its type; the shape is known.
        what: the name of the constant, for errors.

    Raises:
        UserError: the number of elements does not fit the type.
    """
    shape = type_.static_shape
    count = math.prod(shape)
    dtype = type_.dtype
    field = proto.WhichOneof("value")
    if field is None:
        raise UserError(f"the package is broken: constant '{what}' has no value")
    values = getattr(proto, field).values
    if field == "bytes":
        raw = np.frombuffer(values, np.uint8)
        if raw.size != byte_count(dtype, count):
            raise UserError(f"the package is broken: constant '{what}' of {type_} has {raw.size} bytes")
        array = unpack(raw, dtype, count) if dtype.bits < 8 else raw.view(dtype.numpy)
    else:
        if len(values) != count:
            raise UserError(f"the package is broken: constant '{what}' of {type_} has {len(values)} elements")
        if (field == "strings") != (dtype is ir.STRING):
            raise UserError(f"the package is broken: constant '{what}' of {type_} holds {field}")
        try:
            array = np.array(list(values), dtype.numpy)
        except (OverflowError, ValueError) as e:
            raise UserError(f"the package is broken: constant '{what}' of {type_} holds other values") from e
    return array.reshape(shape)

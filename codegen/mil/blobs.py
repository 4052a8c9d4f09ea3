"""The weight file of a package: written with coremltools' own blob writer, read through a memory map."""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from codegen.mil.proto import blob
from codegen.mil.values import byte_count, unpack
from compiler import ir
from compiler.errors import UserError
from compiler.ir import DType, TensorType

Array = np.ndarray[Any, Any]

# What the blob writer takes for an element type: its method, and the NumPy type of one element (a byte for what is
# smaller than one; half precision goes in as its bits).
_METHOD: dict[DType, tuple[str, Any]] = {
    ir.F32: ("write_float_data", np.float32),
    ir.F16: ("write_fp16_data", np.uint16),
    ir.I32: ("write_int32_data", np.int32),
    ir.U32: ("write_uint32_data", np.uint32),
    ir.I16: ("write_int16_data", np.int16),
    ir.U16: ("write_uint16_data", np.uint16),
    ir.I8: ("write_int8_data", np.int8),
    ir.U8: ("write_uint8_data", np.uint8),
    ir.I4: ("write_int4_data", np.int8),
    ir.U6: ("write_uint6_data", np.uint8),
    ir.U4: ("write_uint4_data", np.uint8),
    ir.U3: ("write_uint3_data", np.uint8),
    ir.U2: ("write_uint2_data", np.uint8),
    ir.U1: ("write_uint1_data", np.uint8),
}

# coremltools' should_use_weight_file: fewer elements stand in the program, and before iOS 18 (specification 9) wider
# integers do too.
_LEAST_ELEMENTS = 10
_SINCE_IOS18 = frozenset({ir.I32, ir.U32, ir.I16, ir.U16})


def goes_to_weight_file(dtype: DType, size: int, specification: int) -> bool:
    """Whether a constant of ``size`` elements stands in the weight file rather than in the program."""
    return size >= _LEAST_ELEMENTS and dtype in _METHOD and (specification >= 9 or dtype not in _SINCE_IOS18)


class WeightWriter:
    """Writes tensors one after the other, 64-byte aligned, equal ones once."""

    def __init__(self, path: Path) -> None:
        """Nothing is created before the first tensor comes."""
        self._path = path
        self._writer: Any = None
        self._known: dict[tuple[DType, int, int], list[tuple[Array, int]]] = {}
        self._digest = hashlib.sha256()
        self.tensors = 0

    def add(self, array: Array, dtype: DType) -> int:
        """Writes ``array`` (elements of ``dtype``) unless an equal one stands there; gives its offset in the file.

        Raises:
            OSError: it cannot be written.
        """
        flat = np.ascontiguousarray(array).reshape(-1)
        checksum = zlib.crc32(flat.view(np.uint8).data)
        key = (dtype, flat.nbytes, checksum)
        twins = self._known.setdefault(key, [])
        for other, offset in twins:
            same = np.ascontiguousarray(other).reshape(-1)
            if np.array_equal(same.view(np.uint8), flat.view(np.uint8)):
                return offset
        method, stored = _METHOD[dtype]
        data = flat.astype(stored) if dtype.bits < 8 else flat.view(stored)
        try:
            if self._writer is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = blob._BlobStorageWriter(str(self._path))
            offset = int(getattr(self._writer, method)(data))
        except RuntimeError as e:  # the C++ writer's only error; it does not say which
            raise OSError(f"the weight file could not be written ({e})") from e
        twins.append((array, offset))
        self._digest.update(f"{dtype} {flat.nbytes} {checksum} {offset};".encode())
        self.tensors += 1
        return offset

    def close(self) -> bytes:
        """Ends writing; gives a digest of all that was written."""
        self._writer = None
        return self._digest.digest()


_SENTINEL = 0xDEADBEEF
# MIL/Blob/StorageFormat.hpp: sentinel, element type, bytes, offset of the data, bits of padding.
_METADATA = struct.Struct("<IIQQQ")


class WeightFile:
    """A weight file, mapped; arrays are views into it."""

    def __init__(self, path: Path) -> None:
        """Raises UserError if the file cannot be read."""
        self._name = path.name
        try:
            with path.open("rb") as f:
                size = os.fstat(f.fileno()).st_size
                self._map: Any = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except OSError as e:
            raise UserError(f"cannot read the weights '{path.name}' of the package: {e.strerror}") from e

    def read(self, offset: int, type_: TensorType, what: str) -> Array:
        """The tensor whose metadata stands at ``offset``: read-only, not copied unless its elements are below a byte.

        Raises:
            UserError: no tensor of that type stands there.
        """
        shape = type_.static_shape
        count = math.prod(shape)
        need = byte_count(type_.dtype, count)
        if offset + _METADATA.size > len(self._map):
            raise UserError(self._broken(what, f"starts at {offset}, behind the end of the file"))
        sentinel, _, stored, start, _ = _METADATA.unpack_from(self._map, offset)
        if sentinel != _SENTINEL:
            raise UserError(self._broken(what, f"does not start at {offset}"))
        if stored != need or type_.dtype is ir.STRING:
            raise UserError(self._broken(what, f"of {type_} needs {need} bytes, but {stored} are stored"))
        if start + need > len(self._map):
            raise UserError(self._broken(what, f"ends at {start + need}, behind the end of the file"))
        if type_.dtype.bits < 8:
            packed = np.frombuffer(self._map, np.uint8, need, start)
            return unpack(packed, type_.dtype, count).reshape(shape)
        return np.frombuffer(self._map, type_.dtype.numpy, count, start).reshape(shape)

    def _broken(self, what: str, why: str) -> str:
        return f"the package is broken: tensor '{what}' in {self._name} {why}"

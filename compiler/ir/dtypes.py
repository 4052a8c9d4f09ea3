"""Element types: the union of what ONNX and Core ML's MIL can name.

A :class:`DType` is a singleton; compare with ``is``. Its short name (``f16``, ``i4`` …) is the spelling of the textual
IR and of rule files. Every element type has a NumPy dtype that holds it, which ``ml_dtypes`` supplies where NumPy has
none; only u1, u3 and u6 share the storage of u8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import ml_dtypes
import numpy as np

Kind = Literal["float", "int", "uint", "bool", "string", "complex"]


@dataclass(frozen=True, eq=False, slots=True)
class DType:
    """An element type: its short name, its width in bits, its kind and the NumPy dtype that holds it."""

    name: str
    bits: int
    kind: Kind
    numpy: np.dtype[Any]

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers, not for bool."""
        return self.kind in ("int", "uint")

    @property
    def is_signed(self) -> bool:
        return self.kind in ("int", "float", "complex")

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[Any, ...]:
        return (dtype, (self.name,))


def _make(name: str, bits: int, kind: Kind, np_type: Any) -> DType:
    return DType(name, bits, kind, np.dtype(np_type))


F16 = _make("f16", 16, "float", np.float16)
F32 = _make("f32", 32, "float", np.float32)
F64 = _make("f64", 64, "float", np.float64)
BF16 = _make("bf16", 16, "float", ml_dtypes.bfloat16)
F8E4M3FN = _make("f8e4m3fn", 8, "float", ml_dtypes.float8_e4m3fn)
F8E4M3FNUZ = _make("f8e4m3fnuz", 8, "float", ml_dtypes.float8_e4m3fnuz)
F8E5M2 = _make("f8e5m2", 8, "float", ml_dtypes.float8_e5m2)
F8E5M2FNUZ = _make("f8e5m2fnuz", 8, "float", ml_dtypes.float8_e5m2fnuz)
F8E8M0 = _make("f8e8m0", 8, "float", ml_dtypes.float8_e8m0fnu)
F4E2M1 = _make("f4e2m1", 4, "float", ml_dtypes.float4_e2m1fn)
I2 = _make("i2", 2, "int", ml_dtypes.int2)
U1 = _make("u1", 1, "uint", np.uint8)  # no NumPy type of its own: one value a byte, as coremltools stores it
U2 = _make("u2", 2, "uint", ml_dtypes.uint2)
U3 = _make("u3", 3, "uint", np.uint8)
U6 = _make("u6", 6, "uint", np.uint8)
I4 = _make("i4", 4, "int", ml_dtypes.int4)
U4 = _make("u4", 4, "uint", ml_dtypes.uint4)
I8 = _make("i8", 8, "int", np.int8)
U8 = _make("u8", 8, "uint", np.uint8)
I16 = _make("i16", 16, "int", np.int16)
U16 = _make("u16", 16, "uint", np.uint16)
I32 = _make("i32", 32, "int", np.int32)
U32 = _make("u32", 32, "uint", np.uint32)
I64 = _make("i64", 64, "int", np.int64)
U64 = _make("u64", 64, "uint", np.uint64)
BOOL = _make("bool", 8, "bool", np.bool_)
STRING = _make("string", 0, "string", np.object_)
C64 = _make("c64", 64, "complex", np.complex64)
C128 = _make("c128", 128, "complex", np.complex128)

DTYPES: dict[str, DType] = {d.name: d for d in list(globals().values()) if isinstance(d, DType)}

_SHARED_STORAGE = (U1, U3, U6)
_BY_NUMPY: dict[np.dtype[Any], DType] = {d.numpy: d for d in DTYPES.values() if d not in _SHARED_STORAGE}


def dtype(name: str) -> DType:
    """The element type spelled ``name``.

    Raises:
        KeyError: no element type has that name.
    """
    return DTYPES[name]


def from_numpy(np_dtype: Any) -> DType:
    """The element type that a NumPy array of ``np_dtype`` carries. Any string dtype is ``string``.

    Raises:
        TypeError: no element type is stored that way.
    """
    np_dtype = np.dtype(np_dtype)
    found = _BY_NUMPY.get(np_dtype)
    if found is not None:
        return found
    if np_dtype.kind in "US":
        return STRING
    raise TypeError(f"no IR element type for NumPy dtype {np_dtype}")

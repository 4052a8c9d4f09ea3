"""Between ONNX's protobuf messages and the IR's types, arrays and attribute values. No operator is known here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, TypeProto, helper, numpy_helper

from compiler import ir

Array = np.ndarray[Any, Any]


def _element_types() -> dict[int, ir.DType]:
    """The element types that both ONNX and the IR have, by ONNX's number; they meet in NumPy's."""
    out: dict[int, ir.DType] = {TensorProto.STRING: ir.dtype("string")}
    for number in TensorProto.DataType.values():
        if number not in (TensorProto.UNDEFINED, TensorProto.STRING):
            try:
                out[number] = ir.from_numpy(helper.tensor_dtype_to_np_dtype(number))
            except (TypeError, KeyError):  # an element type that the IR does not have, such as the 6-bit floats
                continue
    return out


ELEMENT_TYPES: dict[int, ir.DType] = _element_types()
ENUM: dict[ir.DType, int] = {d: n for n, d in ELEMENT_TYPES.items()}
#: ONNX's spelling of element types in type strings, ``tensor(float)``.
BY_SPELLING: dict[str, ir.DType] = {TensorProto.DataType.Name(n).lower(): d for n, d in ELEMENT_TYPES.items()}


class ProtoError(ValueError):
    """A message says something that has no meaning, or none that the IR can hold; the text completes "it …"."""


def element_type(number: int) -> ir.DType:
    """The element type with ONNX's ``number``.

    Raises:
        ProtoError: there is none.
    """
    found = ELEMENT_TYPES.get(number)
    if found is None:
        names = TensorProto.DataType
        what = names.Name(number) if number in names.values() else str(number)
        raise ProtoError(f"has the element type {what}, which is not supported")
    return found


def _dim_from_proto(dim: Any) -> ir.Dim:
    kind = dim.WhichOneof("value")
    if kind == "dim_value":
        value: int = dim.dim_value
        return value if value >= 0 else ir.UNKNOWN  # some exporters write -1 for "unknown"
    name: str = dim.dim_param if kind == "dim_param" else ""
    if type(name) is not str:
        raise ProtoError("has a dimension whose name is not UTF-8")
    return name or ir.UNKNOWN


def type_from_proto(proto: TypeProto, rename: Callable[[str], ir.Dim] | None = None) -> ir.Type | None:
    """The IR's type for an ONNX type; None where it says nothing. ``rename`` maps names of dimensions.

    Raises:
        ProtoError: maps, sparse tensors and element types that the IR does not have.
    """
    kind = proto.WhichOneof("value")
    if kind is None:
        return None
    if kind == "tensor_type":
        tensor = proto.tensor_type
        if tensor.elem_type == TensorProto.UNDEFINED:
            return None
        dtype = element_type(tensor.elem_type)
        if not tensor.HasField("shape"):
            return ir.TensorType(dtype, None)
        dims = (_dim_from_proto(d) for d in tensor.shape.dim)
        if rename is not None:
            dims = (rename(d) if type(d) is str and d != ir.UNKNOWN else d for d in dims)
        return ir.TensorType(dtype, dims)
    if kind in ("sequence_type", "optional_type"):
        element = type_from_proto(getattr(proto, kind).elem_type, rename)
        if element is None:
            return None
        made: ir.Type = ir.SequenceType(element) if kind == "sequence_type" else ir.OptionalType(element)
        return made
    raise ProtoError(f"is a {kind.removesuffix('_type').replace('_', ' ')}, which is not supported")


_TYPE_PROTOS: dict[ir.Type, TypeProto] = {}


def type_to_proto(type_: ir.Type) -> TypeProto:
    """The ONNX type for an IR type. Shared between calls: not to be changed."""
    proto = _TYPE_PROTOS.get(type_)
    if proto is None:
        proto = _TYPE_PROTOS[type_] = TypeProto()
        if isinstance(type_, ir.TensorType):
            proto.tensor_type.elem_type = ENUM[type_.dtype]
            if type_.shape is not None:
                shape = proto.tensor_type.shape
                shape.SetInParent()
                for d in type_.shape:
                    dim = shape.dim.add()
                    if type(d) is int:
                        dim.dim_value = d
                    elif d != ir.UNKNOWN:
                        dim.dim_param = d
        elif isinstance(type_, ir.SequenceType):
            proto.sequence_type.elem_type.CopyFrom(type_to_proto(type_.element))
        elif isinstance(type_, ir.OptionalType):
            proto.optional_type.elem_type.CopyFrom(type_to_proto(type_.element))
        else:
            raise ProtoError(f"is a {type_}, which ONNX cannot say")
    return proto


def array_from_proto(tensor: TensorProto) -> Array:
    """The array a tensor message holds, in any of ONNX's encodings; external data must have been resolved.

    Raises:
        ProtoError: the data does not fit the shape or the element type.
    """
    dtype = element_type(tensor.data_type)
    shape = tuple(tensor.dims)
    if any(d < 0 for d in shape):
        raise ProtoError(f"has the shape {list(shape)}")
    if dtype.name == "string":
        strings = [decode(s) for s in tensor.string_data]
        if len(strings) != int(np.prod(shape, dtype=object)):
            raise ProtoError(f"holds {len(strings)} strings for the shape {list(shape)}")
        out = np.empty(len(strings), dtype=object)
        out[:] = strings
        return out.reshape(shape)
    if tensor.HasField("raw_data"):
        return array_from_bytes(tensor.raw_data, dtype, shape)
    try:
        array = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as e:
        raise ProtoError(f"does not hold what its shape {list(shape)} of {dtype} needs ({e})") from None
    return np.asarray(array, dtype.numpy)


def array_from_bytes(data: Any, dtype: ir.DType, shape: tuple[int, ...]) -> Array:
    """A view of ``data``, little-endian and densely packed as ONNX's ``raw_data``; sub-byte elements are unpacked.

    Raises:
        ProtoError: ``data`` has another size than ``shape`` needs.
    """
    count = 1
    for d in shape:
        count *= d
    need = (count * dtype.bits + 7) // 8
    have = len(data)
    if have != need:
        raise ProtoError(f"holds {have} bytes where its shape {list(shape)} of {dtype} needs {need}")
    if dtype.bits >= 8:
        return np.frombuffer(data, dtype.numpy).reshape(shape)
    if count == 0:
        return np.empty(shape, dtype.numpy)
    packed = TensorProto(data_type=ENUM[dtype], dims=shape, raw_data=bytes(data))
    return np.asarray(numpy_helper.to_array(packed))


def array_to_proto(array: Array, name: str = "") -> TensorProto:
    """A tensor message with a copy of ``array``."""
    if array.dtype.kind in "OUS":
        flat = [encode(str(s)) for s in array.ravel()]
        return TensorProto(name=name, data_type=TensorProto.STRING, dims=array.shape, string_data=flat)
    dtype = ir.from_numpy(array.dtype)
    if dtype.bits < 8:
        return numpy_helper.from_array(array, name)
    data = np.ascontiguousarray(array).tobytes()
    return TensorProto(name=name, data_type=ENUM[dtype], dims=array.shape, raw_data=data)


def decode(text: bytes | str) -> str:
    """ONNX's byte string as text; bytes that are no UTF-8 survive the way back through :func:`encode`."""
    return text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The inverse of :func:`decode`."""
    return text.encode("utf-8", "surrogateescape")


def shortest(value: float) -> float:
    """The shortest decimal that is the same single: ONNX stores 1e-5 as 9.99999974e-06, rules say 1e-5."""
    return float(str(np.float32(value)))


#: Reads a tensor message; the front end's knows where external data lies.
Reader = Callable[[TensorProto], Array]

_KIND_OF_LEGACY = (("f", 1), ("i", 2), ("s", 3), ("t", 4), ("floats", 6), ("ints", 7), ("strings", 8))


def attribute_from_proto(proto: AttributeProto, kind: str, read: Reader = array_from_proto) -> Any:
    """The IR's value of an attribute that its definition says is of ``kind``; not for graphs. ``read`` reads tensors.

    Raises:
        ProtoError: it holds something of another kind, or a reference that has not been resolved.
    """
    T = AttributeProto  # noqa: N806
    if proto.ref_attr_name:
        raise ProtoError(f"refers to the attribute '{proto.ref_attr_name}' outside a function")
    held: int = proto.type
    if held == T.UNDEFINED:  # files of IR version 1 leave the type out
        held = next((n for f, n in _KIND_OF_LEGACY if (getattr(proto, f) if "s" in f[1:] else proto.HasField(f))), 0)
    if held == T.INT:
        if kind == "type":
            return element_type(proto.i) if proto.i else None
        if kind == "float":
            return float(proto.i)
        return _checked(int(proto.i), "int", kind)
    if held == T.FLOAT:
        return _checked(shortest(proto.f), "float", kind)
    if held == T.STRING:
        return _checked(decode(proto.s), "string", kind)
    if held == T.INTS:
        return _checked(tuple(proto.ints), "ints", kind, empty=not proto.ints)
    if held == T.FLOATS:
        return _checked(tuple(shortest(v) for v in proto.floats), "floats", kind, empty=not proto.floats)
    if held == T.STRINGS:
        return _checked(tuple(decode(s) for s in proto.strings), "strings", kind, empty=not proto.strings)
    if held == T.TENSOR:
        return _checked(read(proto.t), "tensor", kind)
    if held == T.SPARSE_TENSOR:
        return _checked(dense_from_sparse(proto.sparse_tensor, read), "tensor", kind)
    if held == T.TYPE_PROTO:
        return _checked(type_from_proto(proto.tp), "type", kind)
    raise ProtoError("holds no value" if held == T.UNDEFINED else f"holds a {T.AttributeType.Name(held)}")


def _checked(value: Any, held: str, kind: str, empty: bool = False) -> Any:
    if held != kind and kind != "any" and not (empty and kind in ("ints", "floats", "strings")):
        raise ProtoError(f"holds a value of kind {held} where {kind} is needed")
    return value


def attribute_to_proto(name: str, value: Any, kind: str) -> AttributeProto:
    """The message for an attribute of ``kind``.

    Raises:
        ProtoError: ``value`` is nothing that an ONNX attribute can be.
    """
    T = AttributeProto  # noqa: N806
    if kind == "ints" or (kind == "any" and isinstance(value, tuple) and all(type(v) is int for v in value)):
        return T(name=name, type=T.INTS, ints=value)
    if isinstance(value, tuple):
        if all(isinstance(v, str) for v in value) and kind != "floats":
            return T(name=name, type=T.STRINGS, strings=[encode(v) for v in value])
        return T(name=name, type=T.FLOATS, floats=value)
    if isinstance(value, ir.DType):
        return T(name=name, type=T.INT, i=ENUM[value])
    if isinstance(value, ir.Type):
        return T(name=name, type=T.TYPE_PROTO, tp=type_to_proto(value))
    if isinstance(value, np.ndarray):
        return T(name=name, type=T.TENSOR, t=array_to_proto(value))
    if isinstance(value, str):
        return T(name=name, type=T.STRING, s=encode(value))
    if kind == "float" or isinstance(value, float):
        return T(name=name, type=T.FLOAT, f=value)
    if isinstance(value, int):
        return T(name=name, type=T.INT, i=int(value))
    raise ProtoError(f"attribute '{name}' cannot be {value!r}")


def constant_from_attributes(attributes: Mapping[str, AttributeProto], read: Reader = array_from_proto) -> Array:
    """The array of a Constant node, whichever of its attributes holds it.

    Raises:
        ProtoError: none does, or several do.
    """
    if len(attributes) != 1:
        raise ProtoError(f"has {len(attributes)} attributes where exactly one must hold its value")
    ((name, proto),) = attributes.items()
    if name == "value":
        return read(proto.t)
    if name == "sparse_value":
        return dense_from_sparse(proto.sparse_tensor, read)
    if name in ("value_float", "value_floats"):
        return np.array(proto.f if name == "value_float" else list(proto.floats), np.float32)
    if name in ("value_int", "value_ints"):
        return np.array(proto.i if name == "value_int" else list(proto.ints), np.int64)
    if name in ("value_string", "value_strings"):
        strings = [decode(proto.s)] if name == "value_string" else [decode(s) for s in proto.strings]
        out = np.empty(len(strings), object)
        out[:] = strings
        return out.reshape(()) if name == "value_string" else out
    raise ProtoError(f"has no attribute '{name}'")


def dense_from_sparse(sparse: onnx.SparseTensorProto, read: Reader = array_from_proto) -> Array:
    """A sparse tensor, spelled out. Its indices are linear, or one row of coordinates per value.

    Raises:
        ProtoError: indices and shape do not fit, or the dense array would be larger than 2 GB.
    """
    shape = tuple(sparse.dims)
    values, indices = read(sparse.values), read(sparse.indices)
    count = int(np.prod(shape, dtype=object))
    if any(d < 0 for d in shape) or count * values.itemsize > 1 << 31:
        raise ProtoError(f"is a sparse tensor of shape {list(shape)}, too large to spell out")
    out = np.zeros(shape, values.dtype)
    try:
        if indices.ndim == 1:
            out.reshape(-1)[indices] = values
        else:
            out[tuple(indices.T)] = values
    except (IndexError, ValueError) as e:
        raise ProtoError(f"is a sparse tensor whose indices do not fit its shape {list(shape)} ({e})") from None
    return out

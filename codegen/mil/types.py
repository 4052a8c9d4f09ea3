"""Types between the IR and MIL's protobuf."""

from __future__ import annotations

from typing import Any

from codegen.mil.proto import DTYPE_OF, NUMBER_OF, mil_pb
from compiler.dialects.mil_types import DictType
from compiler.errors import UnsupportedError, UserError
from compiler.ir import UNKNOWN, SequenceType, StateType, TensorType, Type


class TypeWriter:
    """MIL types of IR types, each made once."""

    def __init__(self) -> None:
        self._made: dict[Type, Any] = {}

    def __call__(self, type_: Type) -> Any:
        """The ``ValueType`` message, to be copied from.

        Raises:
            UnsupportedError: MIL has no such type.
        """
        proto = self._made.get(type_)
        if proto is None:
            proto = self._made[type_] = mil_pb.ValueType()
            _fill(proto, type_)
        return proto


def _fill(proto: Any, type_: Type) -> None:
    if isinstance(type_, TensorType):
        number = NUMBER_OF.get(type_.dtype)
        if number is None:
            raise UnsupportedError(f"Core ML has no element type {type_.dtype} ({type_})")
        proto.tensorType.dataType = number
        if type_.shape is None:
            proto.tensorType.rank = -1
            proto.tensorType.dimensions.add().unknown.variadic = True
            return
        proto.tensorType.rank = len(type_.shape)
        for d in type_.shape:
            dim = proto.tensorType.dimensions.add()
            if isinstance(d, int):
                dim.constant.size = d
            else:
                dim.unknown.variadic = False
    elif isinstance(type_, SequenceType):
        _fill(proto.listType.type, type_.element)
        # The IR does not count the elements of a sequence; coremltools writes the same for a list that grows.
        proto.listType.length.unknown.variadic = False
    elif isinstance(type_, StateType):
        _fill(proto.stateType.wrappedType, type_.element)
    elif isinstance(type_, DictType):
        _fill(proto.dictionaryType.keyType, type_.key)
        _fill(proto.dictionaryType.valueType, type_.value)
    else:
        raise UnsupportedError(f"Core ML has no type {type_}")


class TypeReader:
    """IR types of MIL types, each made once."""

    def __init__(self) -> None:
        self._made: dict[bytes, Type] = {}

    def __call__(self, proto: Any) -> Type:
        """The IR type of a ``ValueType`` message; an unknown dimension is ``"?"``.

        Raises:
            UserError: the message contradicts itself.
            UnsupportedError: it names a type that the IR does not have.
        """
        key = proto.SerializeToString()
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = _read(proto)
        return found


def _read(proto: Any) -> Type:
    which = proto.WhichOneof("type")
    if which == "tensorType":
        return _read_tensor(proto.tensorType)
    made: Type
    if which == "listType":
        made = SequenceType(_read(proto.listType.type))
        return made
    if which == "stateType":
        made = StateType(_read(proto.stateType.wrappedType))
        return made
    if which == "dictionaryType":
        return DictType(_read(proto.dictionaryType.keyType), _read(proto.dictionaryType.valueType))
    raise UnsupportedError(f"the package has a value of type {which or 'nothing'}, which has no place in the IR")


def _read_tensor(proto: Any) -> TensorType:
    dtype = DTYPE_OF.get(proto.dataType)
    if dtype is None:
        raise UnsupportedError(f"the package has a tensor of element type {proto.dataType}, which is not known")
    shape: list[int | str] = []
    for dim in proto.dimensions:
        if dim.WhichOneof("dimension") == "constant":
            shape.append(dim.constant.size)
        elif dim.unknown.variadic:
            return TensorType(dtype, None)
        else:
            shape.append(UNKNOWN)
    if proto.rank != len(shape):
        raise UserError(f"the package is broken: a tensor of rank {proto.rank} has {len(shape)} dimensions")
    return TensorType(dtype, shape)

"""The model description: which features a package takes and gives, as its users see them.

What the IR's types do not say stands in attributes of the function, NAME being an input or output:

- ``range.NAME``: for each dimension a pair (least, greatest), -1 for no upper bound; ``default.NAME`` is the shape to
  assume when none is given, by default the least.
- ``shapes.NAME``: the shapes that are allowed; the first, or ``default.NAME``, is the default.
- ``image.NAME``: the feature is an image: ``RGB``, ``BGR``, ``GRAYSCALE`` or ``GRAYSCALE_FLOAT16``.
- ``optional.NAME``: the input may be left out; the value that every element then has, or true if none is said.
- ``doc.NAME``: one line for the user.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from codegen.mil.proto import feature_pb
from compiler import ir
from compiler.dialects.mil_types import DictType
from compiler.errors import UnsupportedError, UserError
from compiler.ir import DType, Function, StateType, TensorType, Type

_Array = feature_pb.ArrayFeatureType

#: Element types of multi-arrays: Core ML's number, the specification version that introduced it, and its release.
_ARRAY_TYPES: dict[DType, tuple[int, int, str]] = {
    ir.F32: (_Array.FLOAT32, 6, "ios15"),
    ir.I32: (_Array.INT32, 6, "ios15"),
    ir.F16: (_Array.FLOAT16, 7, "ios16"),
    ir.I8: (_Array.INT8, 10, "ios26"),
}


def describe(proto: Any, function: Function, inputs: Sequence[str], outputs: Sequence[str], specification: int) -> None:
    """Fills the inputs, outputs and states of a ModelDescription or FunctionDescription message.

    Args:
        inputs, outputs: the names of the features in the package, in the function's order.
        specification: Core ML's specification version.

    Raises:
        UnsupportedError: Core ML has no feature of a type.
        UserError: an input has an open dimension and the function does not say in which range.
    """
    for argument, name in zip(function.inputs, inputs, strict=True):
        holder = proto.state if isinstance(argument.type, StateType) else proto.input
        _feature(holder.add(), function, argument.name, name, argument.type, specification, is_input=True)
    for value, own, name in zip(function.outputs, function.output_names, outputs, strict=True):
        _feature(proto.output.add(), function, own, name, value.type, specification, is_input=False)


def _feature(
    proto: Any, function: Function, own: str, name: str, type_: Type, specification: int, is_input: bool
) -> None:
    attributes = function.attributes
    proto.name = name
    proto.shortDescription = attributes.get(f"doc.{own}", "")
    if isinstance(type_, StateType) and isinstance(type_.element, TensorType):
        _array(proto.type.stateType.arrayType, type_.element, own, specification, "state")
    elif isinstance(type_, DictType):
        key = type_.key.dtype if isinstance(type_.key, TensorType) else None
        kind = "stringKeyType" if key is ir.STRING else "int64KeyType"
        getattr(proto.type.dictionaryType, kind).SetInParent()
    elif not isinstance(type_, TensorType):
        raise UnsupportedError(f"'{own}' is a {type_}, which no feature of a Core ML model can be")
    elif type_.rank == 0 and type_.dtype is ir.STRING:
        proto.type.stringType.SetInParent()
    elif type_.rank == 0 and type_.dtype is ir.I64:
        proto.type.int64Type.SetInParent()
    elif f"image.{own}" in attributes:
        _image(proto.type.imageType, type_, attributes, own)
    elif is_input:
        _array(proto.type.multiArrayType, type_, own, specification, "input")
        _flexible(proto.type.multiArrayType, type_, attributes, own)
        _optional(proto.type, attributes.get(f"optional.{own}"))
    else:
        _array(proto.type.multiArrayType, type_, own, specification, "output")


def _array(proto: Any, type_: TensorType, own: str, specification: int, role: str) -> None:
    known = _ARRAY_TYPES.get(type_.dtype)
    if known is None:
        raise UnsupportedError(
            f"{role} '{own}' has element type {type_.dtype}, which no feature of a Core ML model can have",
            f"one of {', '.join(d.name for d in _ARRAY_TYPES)}",
        )
    number, since, release = known
    if specification < since:
        raise UnsupportedError(f"{role} '{own}' of element type {type_.dtype} needs {release}", f"--os {release}")
    proto.dataType = number
    if type_.shape is not None and type_.is_static:
        # coremltools describes a scalar input as a vector of one element, and leaves the shape of a scalar output open.
        proto.shape.extend(type_.static_shape or ((1,) if role == "input" else ()))


def _flexible(proto: Any, type_: TensorType, attributes: Mapping[str, Any], own: str) -> None:
    ranges = attributes.get(f"range.{own}")
    shapes = attributes.get(f"shapes.{own}")
    if type_.is_static and not ranges and not shapes:
        return
    if shapes:
        default = attributes.get(f"default.{own}", shapes[0])
        # Core ML wants the default of an array first, as coremltools' flexible_shape_utils has it. A shape can stand
        # there several times: the lists of several inputs run in parallel.
        first = shapes.index(default) if default in shapes else None
        for shape in [default, *(s for i, s in enumerate(shapes) if i != first)]:
            proto.enumeratedShapes.shapes.add().shape.extend(shape)
    elif ranges:
        default = attributes.get(f"default.{own}", tuple(low for low, _ in ranges))
        for low, high in ranges:
            proto.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    else:
        dims = ", ".join(map(str, type_.shape)) if type_.shape is not None else "…"
        raise UserError(f"input '{own}' has open dimensions ({dims})", f"--shape {own}=… with a number for each")
    proto.ClearField("shape")
    proto.shape.extend(default)


def _optional(proto: Any, value: Any) -> None:
    if value is None:
        return
    proto.isOptional = True
    if isinstance(value, bool):
        return
    if proto.multiArrayType.dataType == _Array.INT32:
        proto.multiArrayType.intDefaultValue = value
    else:
        proto.multiArrayType.floatDefaultValue = value


def _image(proto: Any, type_: TensorType, attributes: Mapping[str, Any], own: str) -> None:
    color = attributes[f"image.{own}"]
    proto.colorSpace = feature_pb.ImageFeatureType.ColorSpace.Value(color)
    shapes = attributes.get(f"shapes.{own}")
    ranges = attributes.get(f"range.{own}")
    if shapes:
        default = attributes.get(f"default.{own}", shapes[0])
        for shape in shapes:
            proto.enumeratedSizes.sizes.add(height=shape[-2], width=shape[-1])
    elif ranges:
        default = attributes.get(f"default.{own}", tuple(low for low, _ in ranges))
        for field, (low, high) in (("heightRange", ranges[-2]), ("widthRange", ranges[-1])):
            getattr(proto.imageSizeRange, field).lowerBound = low
            getattr(proto.imageSizeRange, field).upperBound = high
    elif type_.is_static:
        default = type_.static_shape
    else:
        raise UserError(f"image '{own}' has open dimensions and no range", f"--shape {own}=… with a number for each")
    proto.height, proto.width = default[-2], default[-1]


def function_attributes(proto: Any, function: Function) -> dict[str, Any]:
    """What a ModelDescription or FunctionDescription message says beyond the types, as attributes of the function."""
    out: dict[str, Any] = {}
    types = {a.name: a.type for a in function.inputs}
    types |= dict(zip(function.output_names, [v.type for v in function.outputs], strict=True))
    for feature in [*proto.input, *proto.output, *proto.state]:
        name = feature.name
        if feature.shortDescription:
            out[f"doc.{name}"] = feature.shortDescription
        which = feature.type.WhichOneof("Type")
        if which == "multiArrayType":
            _read_array(feature.type.multiArrayType, name, out)
        elif which == "imageType":
            _read_image(feature.type.imageType, name, types.get(name), out)
        if feature.type.isOptional:
            default = feature.type.multiArrayType.WhichOneof("defaultOptionalValue")
            out[f"optional.{name}"] = getattr(feature.type.multiArrayType, default) if default else True
    return out


def _read_array(proto: Any, name: str, out: dict[str, Any]) -> None:
    flexibility = proto.WhichOneof("ShapeFlexibility")
    if flexibility == "enumeratedShapes":
        out[f"shapes.{name}"] = tuple(tuple(s.shape) for s in proto.enumeratedShapes.shapes)
    elif flexibility == "shapeRange":
        out[f"range.{name}"] = tuple((r.lowerBound, r.upperBound) for r in proto.shapeRange.sizeRanges)
    if flexibility is not None:
        out[f"default.{name}"] = tuple(proto.shape)


def _read_image(proto: Any, name: str, type_: Type | None, out: dict[str, Any]) -> None:
    out[f"image.{name}"] = feature_pb.ImageFeatureType.ColorSpace.Name(proto.colorSpace)
    head = type_.shape[:-2] if isinstance(type_, TensorType) and type_.shape else (1, 3)
    flexibility = proto.WhichOneof("SizeFlexibility")
    if flexibility == "enumeratedSizes":
        out[f"shapes.{name}"] = tuple((*head, s.height, s.width) for s in proto.enumeratedSizes.sizes)
    elif flexibility == "imageSizeRange":
        ranges = proto.imageSizeRange
        sides = [(r.lowerBound, r.upperBound) for r in (ranges.heightRange, ranges.widthRange)]
        out[f"range.{name}"] = (*((d, d) for d in head), *sides)
    if flexibility is not None:
        out[f"default.{name}"] = (*head, proto.height, proto.width)

"""What a file says of the types of values (value_info, outputs), beside what is inferred from the operators.

Inference wins. The file is believed where inference does not know, and named where it contradicts.
"""

from __future__ import annotations

from onnx import TypeProto

from compiler import ir
from compiler.dialects import onnx_proto

#: Operators whose result has as many elements as its operands' numbers ask for. A number that a file gives for that is
#: what came out once.
_SIZED_BY_DATA = frozenset({"onnx.Compress", "onnx.NonMaxSuppression", "onnx.NonZero", "onnx.Unique"})

#: Operators whose result has the shape of their first operand, and as many numbers.
_NUMBER_BY_NUMBER = frozenset(
    "onnx." + name
    for name in (
        "Abs", "Cast", "CastLike", "Ceil", "Cos", "Erf", "Exp", "Floor", "Identity", "Log", "LogSoftmax", "Neg", "Not",
        "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softmax", "Sqrt", "Tanh",
    )
)  # fmt: skip


def merged(op: ir.Op, inferred: ir.Type, declared: ir.Type | None) -> ir.Type:
    """What inference and the file say together of a result of ``op``.

    A size in the file does not replace a dimension that inference gave a name: exporters write down the sizes of the
    example that they were shown.
    """
    if op.name in _SIZED_BY_DATA:
        return inferred
    if not isinstance(inferred, ir.TensorType) or not isinstance(declared, ir.TensorType):
        return (declared and ir.type_meet(inferred, declared)) or inferred
    if declared.shape is None or declared.dtype is not inferred.dtype or not _holds_as_many(op, declared):
        return inferred
    if inferred.shape is None:
        return declared
    if len(inferred.shape) != len(declared.shape):
        return inferred
    return inferred.with_shape(d if i == ir.UNKNOWN else i for i, d in zip(inferred.shape, declared.shape))


def told_by_results(block: ir.Block) -> None:
    """Gives values of unknown shape the one of what is computed from them number by number, the last first."""
    for op in reversed(list(block.ops)):
        source = op.operands[0] if op.name in _NUMBER_BY_NUMBER else None
        if source is None or source.op is None or source.op.name in _SIZED_BY_DATA:
            continue
        have, told = source.type, op.results[0].type
        if not isinstance(have, ir.TensorType) or not isinstance(told, ir.TensorType):
            continue
        if told.is_static and not have.is_static and have.rank in (None, told.rank):
            source.type = have.with_shape(told.static_shape)


def _holds_as_many(op: ir.Op, declared: ir.TensorType) -> bool:
    """Whether the result of a Reshape could be of that shape."""
    source = op.operands[0].type if op.name == "onnx.Reshape" and op.operands[0] is not None else None
    if not isinstance(source, ir.TensorType) or not source.is_static or not declared.is_static:
        return True
    return source.size == declared.size


def element_type(inferred: ir.Type, proto: TypeProto) -> ir.DType | None:
    """The element type in the file, where it is not the one that was inferred."""
    if not isinstance(inferred, ir.TensorType) or proto.WhichOneof("value") != "tensor_type":
        return None
    said = proto.tensor_type.elem_type
    return onnx_proto.element_type(said) if said and said != onnx_proto.ENUM[inferred.dtype] else None


def shape(inferred: ir.Type, proto: TypeProto) -> str | None:
    """The shape in the file as text, where its rank or a size is not what was inferred."""
    if not isinstance(inferred, ir.TensorType) or inferred.shape is None or not proto.tensor_type.HasField("shape"):
        return None
    dims = proto.tensor_type.shape.dim
    if len(dims) == len(inferred.shape) and not any(
        d.HasField("dim_value") and type(i) is int and d.dim_value != i for d, i in zip(dims, inferred.shape)
    ):
        return None
    return "[" + ", ".join(str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in dims) + "]"

"""ONNX files without their weights: large tensors are cut out of the protobuf and left where they lie.

Protobuf's parser copies every byte it reads, several times for a nested message. So a file is first walked on the wire
format, over a memory map, and the payload of every large tensor is replaced by a reference to its place; what is left
is small and goes to the parser. The encoding is described at https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

from typing import Any, Literal

from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto

#: Payloads shorter than this stay in the message.
THRESHOLD = 1024
#: Marks the entry of ``external_data`` that holds the number of a payload that was cut out.
SLICE_KEY = "\x00slice"
#: Messages nested deeper than this are refused, as protobuf does.
_DEPTH = 100

Kind = Literal["model", "graph", "node", "attribute", "sparse", "function", "tensor"]


class WireError(ValueError):
    """The bytes are no protobuf message; the text says what is wrong with them."""


def _field(message: Any, name: str) -> int:
    number: int = message.DESCRIPTOR.fields_by_name[name].number
    return number


#: The fields through which a message leads to tensors, by number.
_PATHS: dict[Kind, dict[int, Kind]] = {
    "model": {_field(ModelProto, "graph"): "graph", _field(ModelProto, "functions"): "function"},
    "graph": {
        _field(GraphProto, "node"): "node",
        _field(GraphProto, "initializer"): "tensor",
        _field(GraphProto, "sparse_initializer"): "sparse",
    },
    "node": {_field(NodeProto, "attribute"): "attribute"},
    "attribute": {
        _field(AttributeProto, "t"): "tensor",
        _field(AttributeProto, "tensors"): "tensor",
        _field(AttributeProto, "g"): "graph",
        _field(AttributeProto, "graphs"): "graph",
        _field(AttributeProto, "sparse_tensor"): "sparse",
    },
    "sparse": {_field(SparseTensorProto, "values"): "tensor", _field(SparseTensorProto, "indices"): "tensor"},
    "function": {_field(FunctionProto, "node"): "node"},
}
_RAW = _field(TensorProto, "raw_data")
_FLOATS = _field(TensorProto, "float_data")
_DATA_TYPE = _field(TensorProto, "data_type")


def strip(data: memoryview) -> tuple[bytes, list[memoryview]]:
    """A ModelProto without its large payloads.

    Returns:
        The bytes of the message, and the payloads that were cut out of it, as views of ``data``. In the message, such
        a tensor is external, with its payload's number under the key :data:`SLICE_KEY`.

    Raises:
        WireError: the bytes are not a protobuf message, or end early.
    """
    slices: list[memoryview] = []
    pieces: list[bytes | memoryview] = []
    _copy(data, 0, len(data), "model", pieces, slices, 0)
    return b"".join(pieces), slices


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends."""
    value = shift = 0
    while at < end:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise WireError("a number in it is too long")
    raise WireError("it ends in the middle of a number")


def encode_varint(value: int) -> bytes:
    """Protobuf's encoding of a non-negative number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _skip(data: memoryview, at: int, end: int, tag: int) -> tuple[int, int]:
    """Where the content of the field behind ``tag`` starts and ends."""
    wire_type = tag & 7
    start = at
    if wire_type == 2:
        length, start = _varint(data, at, end)
        at = start + length
    elif wire_type == 0:
        _, at = _varint(data, at, end)
    elif wire_type == 5:
        at += 4
    elif wire_type == 1:
        at += 8
    else:
        raise WireError(f"it has a field of wire type {wire_type}")
    if at > end:
        raise WireError(f"it ends {at - end} bytes too early")
    if tag < 8:
        raise WireError("it has a field without a number")
    return start, at


def _copy(
    data: memoryview, at: int, end: int, kind: Kind, out: list[bytes | memoryview], slices: list[memoryview], depth: int
) -> int:
    """Appends the message in ``data[at:end]`` to ``out``, without its payloads; gives its new length."""
    if depth > _DEPTH:
        raise WireError("its messages are nested too deep")
    if kind == "tensor":
        return _copy_tensor(data, at, end, out, slices)
    paths = _PATHS[kind]
    copied, length = at, 0
    while at < end:
        field_start = at
        tag = data[at]
        at += 1
        if tag > 0x7F:
            tag, at = _varint(data, field_start, end)
        # The common case by hand: a short length-delimited field.
        if tag & 7 == 2 and tag > 7 and at < end and data[at] < 0x80:
            start = at + 1
            at = start + data[at]
            if at > end:
                raise WireError(f"it ends {at - end} bytes too early")
            continue
        start, at = _skip(data, at, end, tag)
        inner = paths.get(tag >> 3) if tag & 7 == 2 and at - start >= THRESHOLD else None
        if inner is None:
            continue
        pieces: list[bytes | memoryview] = []
        inner_length = _copy(data, start, at, inner, pieces, slices, depth + 1)
        head = encode_varint(tag) + encode_varint(inner_length)
        out += [data[copied:field_start], head, *pieces]
        length += field_start - copied + len(head) + inner_length
        copied = at
    out.append(data[copied:end])
    return length + end - copied


def _copy_tensor(data: memoryview, at: int, end: int, out: list[bytes | memoryview], slices: list[memoryview]) -> int:
    """As :func:`_copy`, for a TensorProto; ``float_data`` of a float tensor is laid out as ``raw_data`` is."""
    fields: dict[int, list[tuple[int, int, int]]] = {}
    begin, data_type = at, 0
    while at < end:
        field_start = at
        tag, at = _varint(data, at, end)
        start, at = _skip(data, at, end, tag)
        if tag >> 3 == _DATA_TYPE and tag & 7 == 0:
            data_type, _ = _varint(data, start, end)
        if tag >> 3 in (_RAW, _FLOATS):
            fields.setdefault(tag, []).append((field_start, start, at))
    payloads = fields.get(_RAW << 3 | 2) or (data_type == TensorProto.FLOAT and fields.get(_FLOATS << 3 | 2)) or []
    if len(fields) == 1 and len(payloads) == 1 and payloads[0][2] - payloads[0][1] >= THRESHOLD:
        field_start, start, stop = payloads[0]
        mark = TensorProto(data_location=TensorProto.EXTERNAL)
        mark.external_data.add(key=SLICE_KEY, value=str(len(slices)))
        slices.append(data[start:stop])
        tail = mark.SerializeToString()
        out += [data[begin:field_start], data[stop:end], tail]
        return field_start - begin + end - stop + len(tail)
    out.append(data[begin:end])
    return end - begin

"""ML Programs as plain data that two equal programs share: names gone, constants in place, whatever wrote them.

Reads the protobuf by itself, with coremltools' own blob reader, so that it can judge our reader and writer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from coremltools.libmilstoragepython import _BlobStorageReader
from coremltools.proto import MIL_pb2, Model_pb2

DataType = MIL_pb2.DataType
_NAMES = ("INT32", "UINT32", "INT16", "UINT16", "INT8", "UINT8", "INT4", "UINT6", "UINT4", "UINT3", "UINT2", "UINT1")
_READ = {
    DataType.FLOAT32: "read_float_data",
    DataType.FLOAT16: "read_fp16_data",
    **{DataType.Value(n): f"read_{n.lower()}_data" for n in _NAMES},
}


def load(package: Path) -> Any:
    model = Model_pb2.Model()
    model.ParseFromString((package / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
    return model


def program(package: Path) -> dict[str, Any]:
    """The functions of a package's program."""
    model = load(package)
    out = {}
    for name, function in model.mlProgram.functions.items():
        reader = _Canonical(package / "Data/com.apple.CoreML/weights/weight.bin")
        inputs = [(i.name, type_of(i.type)) for i in function.inputs]
        reader.number([i.name for i in function.inputs])
        block = function.block_specializations[function.opset]
        out[name] = (function.opset, inputs, reader.block(block), list(block.outputs))
    return out


def type_of(proto: Any) -> str:
    """A type; the length of a list, which our IR does not keep, is left out."""
    copy = MIL_pb2.ValueType()
    copy.CopyFrom(proto)
    if copy.WhichOneof("type") == "listType":
        copy.listType.ClearField("length")
    return str(copy)


class _Canonical:
    def __init__(self, weights: Path) -> None:
        self._weights = weights
        self._blobs: Any = None
        self._ids: dict[str, Any] = {}  # a number for what is computed, the value of what is constant
        self._count = 0

    def number(self, names: list[str]) -> list[int]:
        for name in names:
            self._ids[name] = self._count
            self._count += 1
        return [self._ids[n] for n in names]

    def block(self, proto: Any) -> Any:
        operations = []
        for op in proto.operations:
            if op.type == "const":
                self._ids[op.outputs[0].name] = self.value(op.attributes["val"])
                continue
            inputs = {k: [self.binding(b) for b in a.arguments] for k, a in op.inputs.items()}
            attributes = {k: self.value(v) for k, v in op.attributes.items() if k != "name"}
            blocks = []
            for b in op.blocks:
                arguments = [(n, type_of(i.type)) for n, i in zip(self.number([i.name for i in b.inputs]), b.inputs)]
                blocks.append((arguments, self.block(b)))
            self.number([o.name for o in op.outputs])
            operations.append((op.type, inputs, attributes, blocks, [type_of(o.type) for o in op.outputs]))
        return operations, [self._ids[n] for n in proto.outputs]

    def binding(self, proto: Any) -> Any:
        return self._ids[proto.name] if proto.WhichOneof("binding") == "name" else self.value(proto.value)

    def value(self, proto: Any) -> Any:
        if proto.WhichOneof("value") != "blobFileValue":
            return str(type_of(proto.type)), proto.immediateValue.SerializeToString(deterministic=True)
        if self._blobs is None:
            self._blobs = _BlobStorageReader(str(self._weights))
        read = getattr(self._blobs, _READ[proto.type.tensorType.dataType])
        return type_of(proto.type), np.ascontiguousarray(read(proto.blobFileValue.offset)).tobytes()

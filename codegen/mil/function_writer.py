"""One function of a mil module → MIL's protobuf.

Attributes become ``const`` operators, as in the programs that coremltools writes; equal ones are one ``const``. Bound
directly, as literals, is only what coremltools binds so: lists, tuples of scalars, and the inputs of ``constexpr_*``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from codegen.mil.blobs import WeightWriter, goes_to_weight_file
from codegen.mil.names import Names
from codegen.mil.package import MODEL_PATH, WEIGHT_FILE
from codegen.mil.proto import NUMBER_OF
from codegen.mil.types import TypeWriter
from codegen.mil.values import set_immediate, set_list
from compiler.dialects import mil
from compiler.dialects.mil_forms import Form, Input, Release, form
from compiler.errors import UnsupportedError
from compiler.ir import BOOL, I32, NOWHERE, STRING, Block, DType, Function, Op, TensorType, Value

_BLOB_NAME = f"{MODEL_PATH}/weights/{WEIGHT_FILE}"
#: Operators between two calls of ``progress``.
_STEP = 1000


class FunctionWriter:
    """Writes one function. ``names`` is where its inputs and outputs must take their names from beforehand."""

    def __init__(
        self, at: Release, weights: WeightWriter, types: TypeWriter, progress: Callable[[int], None] | None
    ) -> None:
        self.names = Names()
        self.operators = 0
        self._at = at
        self._weights = weights
        self._types = types
        self._progress = progress
        self._name_of: dict[Value, str] = {}
        # Constants that attributes have become, by content; one table for each block around the one being written,
        # since an inner block sees what stands before it in the outer ones.
        self._constants: list[dict[Any, str]] = []

    def write(self, function: Function, inputs: Sequence[str], outputs: Sequence[str], proto: Any) -> None:
        """Fills the ``Function`` message.

        Args:
            inputs, outputs: the names of inputs and outputs, already taken.

        Raises:
            UnsupportedError: the release does not take an operator, or MIL a type.
        """
        proto.opset = self._at.opset
        for argument, name in zip(function.inputs, inputs, strict=True):
            self._name_of[argument] = name
            proto.inputs.add(name=name).type.CopyFrom(self._types(argument.type))
        # An output is named by naming the value; a value that has a name already goes through an identity.
        copies = []
        for value, name in zip(function.outputs, outputs, strict=True):
            if self._name_of.setdefault(value, name) != name:
                copies.append((value, name))
        block = proto.block_specializations[self._at.opset]
        self._block(function.block, block)
        for value, name in copies:
            op = block.operations.add(type="identity")
            op.inputs["x"].arguments.add().name = self._name_of[value]
            self._finish(op, name, [(name, value)])
        del block.outputs[:]
        block.outputs.extend(outputs)

    def _block(self, block: Block, proto: Any) -> None:
        self._constants.append({})
        operations = proto.operations
        for op in block.ops:
            name = op.name
            if name == "mil.const":
                self._const(op, operations)
            elif name == "ir.return":
                proto.outputs.extend(self._name_of[v] for v in op.operands if v is not None)
            else:
                self._op(op, operations)
                self.operators += 1
                if self._progress is not None and self.operators % _STEP == 0:
                    self._progress(self.operators)
        self._constants.pop()

    def _result_name(self, op: Op, index: int = 0) -> str:
        value = op.results[index]
        name = self._name_of.get(value)
        if name is None:
            name = self._name_of[value] = self.names.take(value.name or op.name.removeprefix("mil."))
        return name

    def _finish(self, proto: Any, name: str, results: Sequence[tuple[str, Value]]) -> None:
        """Sets the results, and the name that Core ML's tools show for the operator."""
        for result, value in results:
            out = proto.outputs.add()
            out.name = result
            out.type.CopyFrom(self._types(value.type))
        attribute = proto.attributes["name"]
        attribute.type.tensorType.dataType = _STRING_NUMBER
        attribute.immediateValue.tensor.strings.values.append(name)

    # Constants

    def _const(self, op: Op, operations: Any) -> None:
        result = op.results[0]
        if not result._uses or all(_holds_literals(user) for user in result.users):
            return
        name = self._result_name(op)
        proto = operations.add()
        proto.type = "const"
        self._value(proto.attributes["val"], op.attributes["val"], _dtype(result), op)
        self._finish(proto, name, [(name, result)])

    def _value(self, proto: Any, array: np.ndarray[Any, Any], dtype: DType, op: Op) -> None:
        """Makes a ``Value`` message hold ``array``, in itself or in the weight file."""
        if goes_to_weight_file(dtype, array.size, self._at.specification):
            proto.type.CopyFrom(self._types(TensorType(dtype, array.shape)))
            proto.blobFileValue.fileName = _BLOB_NAME
            proto.blobFileValue.offset = self._weights.add(array, dtype)
            return
        try:
            set_immediate(proto, array, dtype)
        except UnsupportedError as e:
            raise UnsupportedError(f"{e.message}{_where(op)}", e.remedy) from None

    def _parameter(self, op: Op, spec: Input, value: Any, dtype: DType, operations: Any) -> str:
        """The name of a ``const`` that holds the value of an attribute."""
        key = _key(value, dtype)
        for table in self._constants:
            found = table.get(key)
            if found is not None:
                return found
        base = self._name_of.get(op.results[0], "") if op.results else ""
        name = self.names.take(f"{base or op.name.removeprefix('mil.')}_{spec.name}_0")
        proto = operations.add()
        proto.type = "const"
        array = value if isinstance(value, np.ndarray) else np.array(value, dtype.numpy)
        self._value(proto.attributes["val"], array, dtype, op)
        out = proto.outputs.add()
        out.name = name
        out.type.CopyFrom(self._types(TensorType(dtype, array.shape)))
        attribute = proto.attributes["name"]
        attribute.type.tensorType.dataType = _STRING_NUMBER
        attribute.immediateValue.tensor.strings.values.append(name)
        self._constants[-1][key] = name
        return name

    # Operators

    def _op(self, op: Op, operations: Any) -> None:
        if op.defn.dialect != "mil":
            raise UnsupportedError(f"{op.name} has no form in Core ML{_where(op)}", "a rule of stage lower for it")
        reason = mil.legal(op, self._at.name)
        if reason is not None:
            raise UnsupportedError(f"{reason}{_where(op)}", _remedy(op, self._at))
        at = form(op.name, self._at.name)
        assert at is not None
        if op.name == "mil.coreml_update_state":
            self._update_state(op, operations)
            return
        names = [self._result_name(op, i) for i in range(len(op.results))]
        if op.name.startswith("mil.constexpr_"):
            proto = self._constexpr(op, at, operations)
        else:
            proto = self._generic(op, at, operations)
        self._finish(proto, names[0] if names else op.name.removeprefix("mil."), list(zip(names, op.results)))

    def _generic(self, op: Op, at: Form, operations: Any) -> Any:
        parameters = [
            (name, spec, value) for name, value in op.attributes.items() if (spec := at.inputs.get(name)) is not None
        ]
        consts = [
            (name, self._parameter(op, spec, value, mil.written_dtype(op, name, value, at), operations))
            for name, spec, value in parameters
            if spec.kind == "tensor"
        ]
        proto = operations.add()
        proto.type = op.name[4:]
        inputs = proto.inputs
        name_of = self._name_of
        specs = op.defn.operands
        last = len(specs) - 1
        for i, operand in enumerate(op.operands):
            if operand is not None:
                inputs[specs[i if i < last else last].name].arguments.add().name = name_of[operand]
        for name, const in consts:
            inputs[name].arguments.add().name = const
        for name, spec, value in parameters:
            if spec.kind == "list":
                set_list(inputs[name].arguments.add().value, value)
            elif spec.kind == "tuple":
                for element in value:
                    dtype = mil.written_dtype(op, name, element, at)
                    set_immediate(inputs[name].arguments.add().value, np.array(element, dtype.numpy), dtype)
        for region in op.regions:
            self._region(region, proto.blocks.add())
        return proto

    def _region(self, region: Block, proto: Any) -> None:
        for argument in region.arguments:
            name = self._name_of[argument] = self.names.take(argument.name or "argument")
            proto.inputs.add(name=name).type.CopyFrom(self._types(argument.type))
        self._block(region, proto)

    def _constexpr(self, op: Op, at: Form, operations: Any) -> Any:
        """A compressed constant: literals as attributes up to iOS 17's forms, as bindings from iOS 18's on."""
        proto = operations.add()
        proto.type = op.name[4:]
        as_attributes = at.since in ("ios15", "ios16", "ios17")
        for spec, operand in zip(op.defn.operands, op.operands):
            if operand is None:
                continue
            array = operand.constant
            if array is not None:
                place = proto.attributes[spec.name] if as_attributes else proto.inputs[spec.name].arguments.add().value
                self._value(place, array, _dtype(operand), op)
            elif as_attributes:
                raise UnsupportedError(f"{op.name} takes only a plain constant for '{spec.name}'{_where(op)}")
            else:
                proto.inputs[spec.name].arguments.add().name = self._name_of[operand]
        for name, value in op.attributes.items():
            if name in at.inputs:
                dtype = mil.written_dtype(op, name, value, at)
                place = proto.attributes[name] if as_attributes else proto.inputs[name].arguments.add().value
                self._value(place, np.asarray(value, dtype.numpy), dtype, op)
        return proto

    def _update_state(self, op: Op, operations: Any) -> None:
        """``coreml_update_state`` is a write, and a read if the new content is used, as coremltools has it."""
        state, value = op.operands
        assert state is not None
        assert value is not None
        result = op.results[0]
        name = self._result_name(op)
        proto = operations.add(type="write_state")
        proto.inputs["input"].arguments.add().name = self._name_of[state]
        proto.inputs["data"].arguments.add().name = self._name_of[value]
        self._finish(proto, f"{name}_write_state", [])
        if result._uses:
            proto = operations.add(type="read_state")
            proto.inputs["input"].arguments.add().name = self._name_of[state]
            self._finish(proto, name, [(name, result)])


_STRING_NUMBER = NUMBER_OF[STRING]


def _holds_literals(op: Op) -> bool:
    return op.name.startswith("mil.constexpr_")


def _dtype(value: Value) -> DType:
    assert isinstance(value.type, TensorType)
    return value.type.dtype


def _key(value: Any, dtype: DType) -> Any:
    """What two attribute values must share to be one constant: the same bits of the same type and shape."""
    if isinstance(value, np.ndarray):
        return dtype, value.shape, tuple(value.flat) if dtype is STRING else value.tobytes()
    if dtype is I32 or dtype is BOOL or dtype is STRING:
        return dtype, value
    # Zeros of either sign are equal, and so are 1 and 1.0.
    return dtype, tuple(struct.pack("<d", v) for v in value) if isinstance(value, tuple) else struct.pack("<d", value)


def _where(op: Op) -> str:
    return "" if op.loc is NOWHERE or not op.loc.nodes else f" (from {op.loc})"


def _remedy(op: Op, at: Release) -> str | None:
    since = mil.since(op.name)
    return f"--os {since}" if since is not None and not mil.supports(op.name, at.name) else None

"""One function of a mil module → MIL's protobuf.

Attributes become ``const`` operators, as in the programs that coremltools writes; equal ones are one ``const``. Bound
directly, as literals, is only what coremltools binds so: lists, tuples of scalars, and the inputs of ``constexpr_*``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codegen.mil.blobs import WeightWriter, goes_to_weight_file
from codegen.mil.names import Names
from codegen.mil.package import MODEL_PATH, WEIGHT_FILE
from codegen.mil.proto import mil_pb
from codegen.mil.types import TypeWriter
from codegen.mil.values import set_immediate, set_list
from compiler.dialects import mil
from compiler.dialects.mil_forms import Form, Release, form, release
from compiler.errors import UnsupportedError
from compiler.ir import BOOL, I32, NOWHERE, STRING, Block, DType, Function, Op, TensorType, Type, Value

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
        self._plans: dict[Any, _Plan] = {}
        # Filled and copied for each operator: filling a fresh message takes four times as many calls.
        self._name_value = mil_pb.Value()
        set_immediate(self._name_value, np.array("", STRING.numpy), STRING)
        self._name_text = self._name_value.immediateValue.tensor.strings.values

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
            self._finish(op, name, [(name, value.type)])
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

    def _finish(self, proto: Any, name: str, results: Sequence[tuple[str, Type]]) -> None:
        """Sets the results, and the name that Core ML's tools show for the operator."""
        for result, type_ in results:
            out = proto.outputs.add()
            out.name = result
            out.type.CopyFrom(self._types(type_))
        self._name_text[0] = name
        proto.attributes["name"].CopyFrom(self._name_value)

    # Constants

    def _const(self, op: Op, operations: Any) -> None:
        result = op.results[0]
        if not result._uses or all(_holds_literals(user) for user in result.users):
            return
        name = self._result_name(op)
        proto = operations.add()
        proto.type = "const"
        self._value(proto.attributes["val"], op.attributes["val"], _dtype(result), op)
        self._finish(proto, name, [(name, result.type)])

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

    def _parameter(self, op: Op, parameter: str, value: Any, dtype: DType, key: Any, operations: Any) -> str:
        """The name of a ``const`` that holds the value of an attribute; ``key`` if it is known already."""
        if key is None:
            key = _key(value, dtype)
        for table in self._constants:
            found = table.get(key)
            if found is not None:
                return found
        base = self._name_of[op.results[0]] if op.results else op.name.removeprefix("mil.")
        name = self.names.take(f"{base}_{parameter}_0")
        proto = operations.add()
        proto.type = "const"
        array = _array(value, dtype, f"'{parameter}' of {op.name}{_where(op)}")
        self._value(proto.attributes["val"], array, dtype, op)
        self._finish(proto, name, [(name, TensorType(dtype, array.shape))])
        self._constants[-1][key] = name
        return name

    # Operators

    def _op(self, op: Op, operations: Any) -> None:
        plan = self._plan(op)
        results = op.results
        names = [self._result_name(op, i) for i in range(len(results))]
        name = names[0] if names else plan.kind
        if plan.kind == "coreml_update_state":
            self._update_state(op, name, operations)
            return
        if plan.constexpr:
            self._finish(self._constexpr(op, plan, operations), name, [(n, r.type) for n, r in zip(names, results)])
            return
        # Before the template is touched: a new constant may be written on the way.
        attributes = op.attributes
        consts = [self._parameter(op, n, attributes[n], dtype, key, operations) for n, dtype, key in plan.parameters]
        template = plan.template
        name_of = self._name_of
        for slot, operand in zip(template.operands, op.operands):
            if operand is not None:
                slot.name = name_of[operand]
        for slot, const in zip(template.parameters, consts):
            slot.name = const
        for slot, result in zip(template.results, names):
            slot.name = result
        template.name[0] = name
        operations.append(template.proto)
        for region in op.regions:
            self._region(region, operations[-1].blocks.add())

    def _plan(self, op: Op) -> _Plan:
        """What operators that differ in names only share: worked out, and checked, for the first one."""
        try:
            key = _signature(op)
            found = self._plans.get(key)
        except TypeError:  # an attribute that does not hash: an array
            return self._new_plan(op)
        if found is None:
            found = self._plans[key] = self._new_plan(op)
        return found

    def _new_plan(self, op: Op) -> _Plan:
        if op.defn.dialect != "mil":
            raise UnsupportedError(f"{op.name} has no form in Core ML{_where(op)}", "a rule of stage lower for it")
        reason = mil.legal(op, self._at.name)
        if reason is not None:
            raise UnsupportedError(f"{reason}{_where(op)}", _remedy(op, self._at))
        at = form(op.name, self._at.name)
        assert at is not None
        parameters = []
        for name, value in op.attributes.items():
            # What the release does not know, legal has found to be the default.
            if name in at.inputs and at.inputs[name].kind == "tensor":
                dtype = mil.written_dtype(op, name, value, at)
                parameters.append((name, dtype, _key(value, dtype) if dtype in _PLAIN_KEYS else None))
        specs = op.defn.operands
        operands = [specs[min(i, len(specs) - 1)].name for i in range(len(op.operands))]
        kind = op.name.removeprefix("mil.")
        template = self._template(op, kind, at, operands, [n for n, _, _ in parameters])
        return _Plan(kind, at, kind.startswith("constexpr_"), operands, parameters, template)

    def _template(self, op: Op, kind: str, at: Form, operands: list[str], parameters: list[str]) -> _Template:
        proto = mil_pb.Operation(type=kind)
        inputs = proto.inputs
        for name, operand in zip(operands, op.operands):
            if operand is not None:
                inputs[name].arguments.add()
        for name in parameters:
            inputs[name].arguments.add()
        for name, value in op.attributes.items():
            spec = at.inputs.get(name)
            if spec is not None and spec.kind == "list":
                set_list(inputs[name].arguments.add().value, value)
            elif spec is not None and spec.kind == "tuple":
                for element in value:
                    dtype = mil.written_dtype(op, name, element, at)
                    set_immediate(inputs[name].arguments.add().value, np.array(element, dtype.numpy), dtype)
        self._finish(proto, "", [("", r.type) for r in op.results])
        # Handles are taken last, when nothing is added any more.
        seen: dict[str, int] = {}
        slots = []
        for name, operand in zip(operands, op.operands):
            i = seen.get(name, 0)
            slots.append(inputs[name].arguments[i] if operand is not None else None)
            seen[name] = i + 1
        return _Template(
            proto,
            slots,
            [inputs[n].arguments[0] for n in parameters],
            list(proto.outputs),
            proto.attributes["name"].immediateValue.tensor.strings.values,
        )

    def _region(self, region: Block, proto: Any) -> None:
        with self.names.inner():
            for argument in region.arguments:
                name = self._name_of[argument] = self.names.take(argument.name or "argument")
                proto.inputs.add(name=name).type.CopyFrom(self._types(argument.type))
            self._block(region, proto)

    def _constexpr(self, op: Op, plan: _Plan, operations: Any) -> Any:
        """A compressed constant: literals as attributes up to iOS 17's forms, as bindings from iOS 18's on."""
        proto = operations.add()
        proto.type = plan.kind
        as_attributes = release(plan.at.since).specification < 9

        def place(name: str) -> Any:
            return proto.attributes[name] if as_attributes else proto.inputs[name].arguments.add().value

        for name, operand in zip(plan.operands, op.operands):
            if operand is None:
                continue
            array = operand.constant
            if array is not None:
                self._value(place(name), array, _dtype(operand), op)
            elif as_attributes:
                raise UnsupportedError(f"{op.name} takes only a plain constant for '{name}'{_where(op)}")
            else:
                proto.inputs[name].arguments.add().name = self._name_of[operand]
        for name, dtype, _ in plan.parameters:
            array = _array(op.attributes[name], dtype, f"'{name}' of {op.name}{_where(op)}")
            self._value(place(name), array, dtype, op)
        return proto

    def _update_state(self, op: Op, name: str, operations: Any) -> None:
        """``coreml_update_state`` is a write, and a read if the new content is used, as coremltools has it."""
        state, value = op.operands
        assert state is not None
        assert value is not None
        result = op.results[0]
        proto = operations.add(type="write_state")
        proto.inputs["input"].arguments.add().name = self._name_of[state]
        proto.inputs["data"].arguments.add().name = self._name_of[value]
        self._finish(proto, f"{name}_write_state", [])
        if result._uses:
            proto = operations.add(type="read_state")
            proto.inputs["input"].arguments.add().name = self._name_of[state]
            self._finish(proto, name, [(name, result.type)])


@dataclass(frozen=True, slots=True)
class _Template:
    """An ``Operation`` message to fill with names and copy, which takes a quarter of the time of making each anew.

    The other fields are handles into ``proto``: the bindings of operands (None where one is absent) and parameters,
    the results, and the text of the name.
    """

    proto: Any
    operands: list[Any]
    parameters: list[Any]
    results: list[Any]
    name: Any


@dataclass(frozen=True, slots=True)
class _Plan:
    """How an operator is written.

    Attributes:
        kind: its name in MIL.
        at: its definition in the release.
        constexpr: it is a compressed constant, whose inputs are literals; these do not use the template.
        operands: the input that each operand is.
        parameters: attributes that become constants, with their element type, and their :func:`_key` if equal
            attributes always have an equal one.
    """

    kind: str
    at: Form
    constexpr: bool
    operands: list[str]
    parameters: list[tuple[str, DType, Any]]
    template: _Template


def _signature(op: Op) -> Any:
    """Equal for operators that can share a plan. A bool equals an int in Python, so the types of attributes count."""
    attributes = op.attributes
    return (
        op.defn,
        tuple([v and (v.type, mil.is_compile_time(v)) for v in op.operands]),
        tuple(attributes.items()),
        tuple(map(type, attributes.values())),
        tuple([r.type for r in op.results]),
    )


_PLAIN_KEYS = (I32, BOOL, STRING)


def _holds_literals(op: Op) -> bool:
    return op.name.startswith("mil.constexpr_")


def _dtype(value: Value) -> DType:
    assert isinstance(value.type, TensorType)
    return value.type.dtype


def _key(value: Any, dtype: DType) -> Any:
    """What two attribute values must share to be one constant: the same bits of the same type and shape."""
    if isinstance(value, np.ndarray):
        return dtype, value.shape, tuple(value.flat) if dtype is STRING else value.tobytes()
    if dtype in _PLAIN_KEYS:
        return dtype, value
    # Zeros of either sign are equal, and so are 1 and 1.0.
    return dtype, tuple(struct.pack("<d", v) for v in value) if isinstance(value, tuple) else struct.pack("<d", value)


def _array(value: Any, dtype: DType, what: str) -> np.ndarray[Any, Any]:
    """The value of an attribute as it is stored; raises UnsupportedError if ``dtype`` cannot hold it."""
    if isinstance(value, np.ndarray):
        return value
    try:
        with np.errstate(over="ignore"):
            array = np.array(value, dtype.numpy)
    except OverflowError:
        raise UnsupportedError(f"{what} is {value}, which {dtype} cannot hold") from None
    if dtype.is_float and not np.array_equal(np.isfinite(array), np.isfinite(np.array(value, np.float64))):
        raise UnsupportedError(f"{what} is {value}, which {dtype} cannot hold", "--precision fp32")
    return array


def _where(op: Op) -> str:
    return "" if op.loc is NOWHERE or not op.loc.nodes else f" (from {op.loc})"


def _remedy(op: Op, at: Release) -> str | None:
    since = mil.since(op.name)
    return f"--os {since}" if since is not None and not mil.supports(op.name, at.name) else None

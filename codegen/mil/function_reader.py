"""One function of an ML Program → mil ops.

A ``const`` that only parameters use becomes attributes; one that is data, or is given out, becomes ``mil.const``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from codegen.mil.blobs import WeightFile
from codegen.mil.package import weight_path
from codegen.mil.types import TypeReader
from codegen.mil.values import immediate_tensor
from compiler.dialects import mil
from compiler.dialects.mil_forms import Form, form, registered
from compiler.errors import UnsupportedError, UserError
from compiler.ir import (
    BOOL,
    I32,
    STRING,
    Block,
    Function,
    Location,
    Op,
    OpDef,
    SequenceType,
    StateType,
    TensorType,
    Type,
    Value,
    lookup,
)

Array = np.ndarray[Any, Any]


class Weights:
    """The weight files that a program names, each mapped once."""

    def __init__(self, model: Path) -> None:
        self._model = model
        self._files: dict[str, WeightFile] = {}

    def file(self, name: str) -> WeightFile:
        found = self._files.get(name)
        if found is None:
            found = self._files[name] = WeightFile(weight_path(self._model, name))
        return found


class FunctionReader:
    """Reads the body of one function."""

    def __init__(self, weights: Weights, types: TypeReader, os: str) -> None:
        """``os`` is the release that the package is for."""
        self._weights = weights
        self._types = types
        self._os = os
        # What each name in sight stands for, and what the names that the block at hand has given hid.
        self._scope: dict[str, Value | _Constant] = {}
        self._hidden: dict[str, Value | _Constant | None] = {}
        self._data: set[str] = set()

    def read(self, function: Function, proto: Any) -> dict[str, Value]:
        """Fills the block of ``function`` from a ``Block`` message; gives the values of its outputs by name."""
        self._data = set(_names_of_data(proto))
        for argument in function.inputs:
            self._bind(argument.name, argument)
        self._operations(function.block, proto.operations)
        return {name: self._value(name, "the outputs") for name in proto.outputs}

    def _operations(self, block: Block, operations: Any) -> None:
        following = iter(operations)
        waiting = next(following, None)
        while waiting is not None:
            proto, waiting = waiting, next(following, None)
            kind = proto.type
            if kind == "const":
                self._const(block, proto)
            elif kind == "write_state":
                if self._write_state(block, proto, waiting):
                    waiting = next(following, None)
            else:
                self._operation(block, proto)

    # Names

    def _bind(self, name: str, value: Value | _Constant) -> None:
        if name in self._hidden:
            raise UserError(f"the package is broken: two values are called '{name}'")
        self._hidden[name] = self._scope.get(name)
        self._scope[name] = value

    def _value(self, name: str, user: Any) -> Value:
        """The value called ``name``; ``user``, an operator's message or a phrase, is who asks."""
        found = self._scope.get(name)
        if isinstance(found, Value):
            return found
        raise UserError(f"the package is broken: {_spelled(user)} uses '{name}', which nothing before gives")

    # Constants

    def _const(self, block: Block, proto: Any) -> None:
        if len(proto.outputs) != 1 or "val" not in proto.attributes:
            raise UserError("the package is broken: a const needs one result and a value")
        name = proto.outputs[0].name
        type_, value = self._literal(proto.attributes["val"], name)
        if name in self._data:
            self._bind(name, self._constant_op(block, type_, value, name, _location(proto)))
        else:
            self._bind(name, _Constant(type_, value))

    def _constant_op(self, block: Block, type_: Type, value: Any, name: str, loc: Location) -> Value:
        if not isinstance(value, np.ndarray):
            raise UnsupportedError(f"constant '{name}' of the package is a list, which no operand can be")
        result = block.append(Op(_CONST, (), [type_], {"val": value}, loc=loc)).results[0]
        result.name = name
        return result

    def _literal(self, proto: Any, what: str) -> tuple[Type, Any]:
        """The type and the value of a ``Value`` message: an array, or a tuple for a list."""
        type_ = self._types(proto.type)
        if isinstance(type_, SequenceType):
            return type_, tuple(self._literal(v, what)[1].item() for v in proto.immediateValue.list.values)
        if not isinstance(type_, TensorType) or not type_.is_static:
            raise UnsupportedError(f"constant '{what}' of the package is a {type_}")
        if proto.WhichOneof("value") == "blobFileValue":
            file = proto.blobFileValue
            return type_, self._weights.file(file.fileName).read(file.offset, type_, what)
        return type_, immediate_tensor(proto.immediateValue.tensor, type_, what)

    # Operators

    def _operation(self, block: Block, proto: Any) -> None:
        defn = _definition(proto.type)
        bindings = {name: list(argument.arguments) for name, argument in proto.inputs.items()}
        literals = {name: value for name, value in proto.attributes.items() if name != "name"}
        for name in (*bindings, *literals):
            if name not in defn.attributes and defn.operand_index(name) is None:
                raise UnsupportedError(
                    f"{_spelled(proto)} of the package has an input '{name}' that coremltools does not know"
                )
        operands: list[Value | None] = []
        for spec in defn.operands:
            given: list[Value] = [self._operand(block, b, proto) for b in bindings.get(spec.name, ())]
            if spec.name in literals:
                given.append(self._literal_operand(block, literals[spec.name], f"{_name(proto)}_{spec.name}"))
            if spec.arity == "variadic":
                operands.extend(given)
            elif len(given) > 1:
                raise UserError(f"the package is broken: {_spelled(proto)} has {len(given)} values for '{spec.name}'")
            elif not given and spec.arity == "required":
                raise UserError(f"the package is broken: {_spelled(proto)} has no '{spec.name}'")
            else:
                operands.append(given[0] if given else None)
        while operands and operands[-1] is None:
            operands.pop()
        if len(proto.blocks) != len(defn.regions):
            count = f"{len(proto.blocks)} blocks, not {len(defn.regions)}"
            raise UserError(f"the package is broken: {_spelled(proto)} has {count}")
        regions = [self._region(b) for b in proto.blocks]
        result_types = [self._types(o.type) for o in proto.outputs]
        op = Op(defn, operands, result_types, None, regions, _location(proto))
        op.attributes = self._attributes(op, bindings, literals, proto)
        block.append(op)
        for result, output in zip(op.results, proto.outputs):
            result.name = output.name
            self._bind(output.name, result)

    def _operand(self, block: Block, binding: Any, proto: Any) -> Value:
        if binding.WhichOneof("binding") == "value":
            return self._literal_operand(block, binding.value, _name(proto))
        return self._value(binding.name, proto)

    def _literal_operand(self, block: Block, proto: Any, name: str) -> Value:
        type_, value = self._literal(proto, name)
        return self._constant_op(block, type_, value, name, Location())

    def _attributes(self, op: Op, bindings: dict[str, Any], literals: dict[str, Any], proto: Any) -> dict[str, Any]:
        """The attributes of ``op``: Python values; arrays where those would be written with another element type."""
        at = self._form(op, [*bindings, *literals])
        given: dict[str, Any] = {}
        for name in op.defn.attributes:
            if name in literals:
                given[name] = self._literal(literals[name], name)
            elif name in bindings:
                values = [self._parameter(b, name, proto) for b in bindings[name]]
                if at.inputs[name].kind == "tuple":
                    given[name] = None, tuple(_plain(v) for _, v in values)
                elif len(values) == 1:
                    given[name] = values[0]
                else:
                    raise UserError(f"the package is broken: {_spelled(proto)} has {len(values)} values for '{name}'")
        out = op.attributes = op.defn.defaults()
        out.update({name: _plain(value) for name, (_, value) in given.items()})
        exact = {
            name: value
            for name, (type_, value) in given.items()
            if isinstance(type_, TensorType)
            and not (type_.dtype in _NATURAL and not at.inputs[name].variable)
            and mil.written_dtype(op, name, out[name], at) is not type_.dtype
        }
        return out | exact

    def _form(self, op: Op, given: Iterable[str]) -> Form:
        """The definition that says how attributes are typed; the newest if the release ought not to have them."""
        name = op.name.removeprefix("mil.")
        found = form(name, self._os)
        if found is None or any(n not in found.inputs for n in given):
            known = registered(name)
            assert known is not None
            return known.forms[-1]
        return found

    def _parameter(self, binding: Any, name: str, proto: Any) -> tuple[Type, Any]:
        if binding.WhichOneof("binding") == "value":
            return self._literal(binding.value, name)
        found = self._scope.get(binding.name)
        if isinstance(found, _Constant):
            return found.type, found.value
        if isinstance(found, Value) and found.constant is not None:
            return found.type, found.constant
        if found is None:
            raise UserError(
                f"the package is broken: {_spelled(proto)} uses '{binding.name}', which nothing before gives"
            )
        raise UnsupportedError(
            f"{_spelled(proto)} of the package computes '{name}' at run time, which must be constant"
        )

    def _region(self, proto: Any) -> Block:
        outer, self._hidden = self._hidden, {}
        region = Block([self._types(i.type) for i in proto.inputs], [i.name for i in proto.inputs])
        for argument in region.arguments:
            self._bind(argument.name, argument)
        self._operations(region, proto.operations)
        region.append(Op("ir.return", [self._value(n, "a block") for n in proto.outputs]))
        for name, before in self._hidden.items():
            if before is None:
                del self._scope[name]
            else:
                self._scope[name] = before
        self._hidden = outer
        return region

    def _write_state(self, block: Block, proto: Any, following: Any) -> bool:
        """Makes ``mil.coreml_update_state`` of a write; true if ``following`` reads back what was written."""
        where = f"write_state '{_name(proto)}'"
        state, data = (self._value(b, where) for b in _only_names(proto, ("input", "data"), where))
        if not isinstance(state.type, StateType):
            raise UserError(f"the package is broken: {where} writes to a {state.type}")
        op = Op("mil.coreml_update_state", [state, data], [state.type.element], {}, loc=_location(proto))
        block.append(op)
        if following is None or following.type != "read_state" or len(following.outputs) != 1:
            return False
        (read,) = _only_names(following, ("input",), where)
        if self._value(read, where) is not state:
            return False
        op.results[0].name = following.outputs[0].name
        self._bind(following.outputs[0].name, op.results[0])
        op.loc = _location(following)
        return True


class _Constant:
    """A constant that has not become an operator."""

    __slots__ = ("type", "value")

    def __init__(self, type_: Type, value: Any) -> None:
        self.type = type_
        self.value = value


_CONST = lookup("mil.const")
#: Python values of these types are written as such, where no type variable says otherwise.
_NATURAL = (I32, BOOL, STRING)


def _definition(kind: str) -> OpDef:
    if kind.startswith("coreml_") or registered(kind) is None:
        raise UnsupportedError(f"the package has an operator '{kind}' that coremltools' registry does not know")
    return lookup(f"mil.{kind}")


def _names_of_data(block: Any) -> Iterator[str]:
    """The names that operands and block outputs refer to, at any depth."""
    yield from block.outputs
    for op in block.operations:
        if op.type != "const" and op.inputs:
            attributes = () if op.type == "write_state" else _definition(op.type).attributes
            for name, argument in op.inputs.items():
                if name not in attributes:
                    for binding in argument.arguments:
                        yield binding.name
        for inner in op.blocks:
            yield from _names_of_data(inner)


def _plain(value: Any) -> Any:
    """A scalar or vector as Python values; anything else as it is."""
    if not isinstance(value, np.ndarray) or value.ndim > 1:
        return value
    return tuple(value.tolist()) if value.ndim else value.item()


def _only_names(proto: Any, inputs: Iterable[str], where: str) -> list[str]:
    out = []
    for name in inputs:
        arguments = list(proto.inputs[name].arguments) if name in proto.inputs else []
        if len(arguments) != 1:
            raise UserError(f"the package is broken: {where} needs one '{name}'")
        out.append(arguments[0].name)
    return out


def _spelled(who: Any) -> str:
    return who if isinstance(who, str) else f"{who.type} '{_name(who)}'"


def _name(proto: Any) -> str:
    if "name" in proto.attributes:
        values = proto.attributes["name"].immediateValue.tensor.strings.values
        if values:
            return str(values[0])
    return proto.outputs[0].name if proto.outputs else ""


def _location(proto: Any) -> Location:
    name = _name(proto)
    return Location((name,)) if name else Location()

"""From the IR to text. docs/ir.md describes the form; :mod:`compiler.ir.parser` reads it back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from typing import Any

import numpy as np

from compiler.ir.core import Block, BlockArgument, Op, Value
from compiler.ir.dtypes import from_numpy
from compiler.ir.module import Function, Module
from compiler.ir.spelling import (
    blob_key,
    quote,
    same_array,
    same_attribute,
    spell_array,
    spell_key,
    spell_name,
    spell_scalar,
)
from compiler.ir.types import TensorType, Type

Array = np.ndarray[Any, Any]

#: How many elements of a constant are written out unless the caller says otherwise. Splats always are.
INLINE = 16


def print_module(
    module: Module, *, blobs: dict[str, Array] | None = None, inline: int | None = INLINE, locations: bool = False
) -> str:
    """The text of a module, which ends in a newline.

    Args:
        blobs: filled with the constants that the text leaves out, by the reference that stands in their place. They are
            the module's own arrays, not copies. ``np.savez`` can store it, and ``parse_module`` reads it.
        inline: the most elements a constant may have to be written out; None writes out all.
        locations: whether each operator's source stands behind it as a comment.

    Raises:
        TypeError: an attribute is of a kind that the IR does not have; the message names the operator.
    """
    printer = _Printer(blobs, inline, locations)
    printer.module(module)
    return "\n".join(printer.lines) + "\n"


def print_function(function: Function, *, inline: int | None = INLINE, locations: bool = False) -> str:
    """The text of a function, as it stands in that of its module."""
    printer = _Printer(None, inline, locations)
    printer.function(function, "")
    return "\n".join(printer.lines) + "\n"


def print_op(op: Op, *, inline: int | None = INLINE) -> str:
    """The text of one operator, its regions included, with values named by their hints. For messages."""
    printer = _Printer(None, inline, locations=False)
    printer.op(op, "")
    return "\n".join(printer.lines)


class _Printer:
    def __init__(self, blobs: dict[str, Array] | None, inline: int | None, locations: bool) -> None:
        self.lines: list[str] = []
        self._blobs = blobs
        self._inline = inline
        self._locations = locations
        self._names: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._next_suffix: dict[str, int] = {}
        self._count = 0
        self._types: dict[Type, str] = {}

    def module(self, module: Module) -> None:
        attributes = f" {{{self._pairs(module.attributes)}}}" if module.attributes else ""
        self.lines.append(f"module @{spell_name(module.name)}{attributes} {{")
        for function in module.functions.values():
            self.function(function, "  ")
        self.lines.append("}")

    def function(self, function: Function, indent: str) -> None:
        self._names.clear()
        self._taken.clear()
        self._next_suffix.clear()
        self._count = 0
        end = function.block.terminator
        outputs = [
            f"%{spell_name(name)}" + (f": {self._type(value.type)}" if value is not None else "")
            for name, value in zip_longest(function.output_names, end.operands if end else (), fillvalue=None)
            if name is not None
        ]
        attributes = f" {{{self._pairs(function.attributes)}}}" if function.attributes else ""
        self.lines.append(
            f"{indent}func @{spell_name(function.name)}({self._arguments(function.inputs)})"
            f" -> ({', '.join(outputs)}){attributes} {{"
        )
        self._body(function.block, indent + "  ")
        self.lines.append(indent + "}")

    def _body(self, block: Block, indent: str) -> None:
        for op in block.ops:
            self.op(op, indent)

    def op(self, op: Op, indent: str) -> None:
        name = op.name
        # Operands first: what an operator uses has its number before what it makes.
        operands = ", ".join([self._name(v) if v is not None else "_" for v in op.operands])
        if name == "ir.return":
            self.lines.append(f"{indent}return {operands}".rstrip() + self._location(op))
            return
        head = indent
        results = op.results
        if results:
            head += ", ".join([self._name(r) if r._uses or r.name else "_" for r in results]) + " = "
        head += f"{name}({operands})"
        if op.attributes:
            pairs = self._op_attributes(op)
            if pairs:
                head += f" {{{pairs}}}"
        if op.regions:
            head = self._regions(op, head, indent)
        if len(results) == 1:
            head += f" : {self._type(results[0].type)}"
        elif results:
            head += f" : ({', '.join([self._type(r.type) for r in results])})"
        self.lines.append(head + self._location(op))

    def _regions(self, op: Op, head: str, indent: str) -> str:
        """Appends the lines of an operator's regions, and gives the beginning of the line that follows them."""
        for name, region in zip_longest(op.defn.regions, op.regions):
            if region is None:
                continue
            head += f" {name or '_'} {{"
            if region.arguments:
                head += f" ^({self._arguments(region.arguments)})"
            self.lines.append(head)
            self._body(region, indent + "  ")
            head = indent + "}"
        return head

    def _location(self, op: Op) -> str:
        if not self._locations:
            return ""
        text = str(op.loc)
        if not text:
            return ""
        return f"  // {text if text.isprintable() else quote(text)}"

    def _arguments(self, arguments: Iterable[BlockArgument]) -> str:
        return ", ".join([f"{self._name(a)}: {self._type(a.type)}" for a in arguments])

    def _type(self, type_: Type) -> str:
        text = self._types.get(type_)
        if text is None:
            text = self._types[type_] = str(type_)
        return text

    def _name(self, value: Value) -> str:
        """The name of a value with its sigil: its hint made unique, or a number."""
        text = self._names.get(value)
        if text is None:
            hint = value.name
            if not hint:
                text = f"%{self._count}"
                self._count += 1
            else:
                name, n = hint, self._next_suffix.get(hint, 1)
                while name in self._taken:
                    name = f"{hint}_{n}"
                    n += 1
                self._next_suffix[hint] = n
                self._taken.add(name)
                text = "%" + spell_name(name)
            self._names[value] = text
        return text

    def _op_attributes(self, op: Op) -> str:
        """The attributes in the definition's order, without those that have their default."""
        known, given = op.defn.attributes, op.attributes
        out = []
        for key, spec in known.items():
            value = given.get(key)
            if value is None or (spec.default is not None and same_attribute(value, spec.default)):
                continue
            out.append(f"{spell_key(key)} = {self._value(value, op, key)}")
        for key, value in given.items():
            if key not in known:
                out.append(f"{spell_key(key)} = {self._value(value, op, key)}")
        return ", ".join(out)

    def _pairs(self, attributes: Mapping[str, Any]) -> str:
        return ", ".join([f"{spell_key(k)} = {self._value(v)}" for k, v in attributes.items()])

    def _value(self, value: Any, op: Op | None = None, key: str = "") -> str:
        text = spell_scalar(value)
        if text is not None:
            return text
        if isinstance(value, tuple):
            return f"[{', '.join([self._value(v, op, key) for v in value])}]"
        if isinstance(value, Type):
            return self._type(value)
        if isinstance(value, np.ndarray):
            return self._dense(value, op, key)
        where = f" '{key}' of {op.name} at {op.loc}" if op else ""
        raise TypeError(f"attribute{where} is of type {type(value).__name__}, which the IR does not have")

    def _dense(self, array: Array, op: Op | None, key: str) -> str:
        text = f"dense<{spell_array(array, self._inline) or self._reference(array)}>"
        # A constant's type stands behind it anyway.
        if op is not None and op.defn.constant == key and len(op.results) == 1:
            type_ = op.results[0].type
            if isinstance(type_, TensorType) and type_.shape == array.shape and _stores(type_, array):
                return text
        return f"{text}: {self._type(TensorType(from_numpy(array.dtype), array.shape))}"

    def _reference(self, array: Array) -> str:
        key = blob_key(array)
        if self._blobs is not None and not same_array(self._blobs.setdefault(key, array), array):
            raise ValueError(f"two different constants have the key {key}")
        return quote(key)


def _stores(type_: TensorType, array: Array) -> bool:
    return type_.dtype.numpy == array.dtype or (type_.dtype.kind == "string" and array.dtype.kind in "US")

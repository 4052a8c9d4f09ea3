"""From text to the IR. docs/ir.md describes the form, :mod:`compiler.ir.printer` writes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from lark import Token

from compiler.ir.core import Block, Op, Value
from compiler.ir.dtypes import DType
from compiler.ir.module import Function, Module
from compiler.ir.opdef import OpDef, UnknownOperatorError, lookup, suggest
from compiler.ir.spelling import BLOB_REFERENCE, read_elements
from compiler.ir.syntax import (
    ArgumentSyntax,
    AttributeSyntax,
    DenseSyntax,
    FunctionSyntax,
    ModuleSyntax,
    OpSyntax,
    ParseError,
    SourceError,
    read,
    unquote,
)
from compiler.ir.types import TensorType, Type

__all__ = ["ParseError", "parse_attributes", "parse_module", "parse_type"]

Array = np.ndarray[Any, Any]


def parse_module(text: str, *, blobs: Mapping[str, Array] | None = None, file: str = "<text>") -> Module:
    """The module that ``text`` describes: well-formed, while only ``verify`` says whether it is valid.

    Args:
        blobs: the constants that the text leaves out, as ``print_module`` collected them. They are not copied.
        file: what to call the text in messages.

    Raises:
        ParseError: with line, column and what was expected.
    """
    tree: ModuleSyntax = read("module", text, file)
    try:
        return _Reader(blobs or {}).module(tree)
    except SourceError as e:
        raise ParseError(e.sentence, text, file, e.line, e.column) from None


def parse_type(text: str, *, file: str = "<text>") -> Type:
    """The type that ``text`` spells, as in ``parse_type("tensor<batch x 3xf32>")``.

    Raises:
        ParseError: it is none.
    """
    type_: Type = read("type", text, file)
    return type_


def parse_attributes(text: str, *, file: str = "<text>") -> dict[str, Any]:
    """The attributes in ``{name = value, …}``.

    Raises:
        ParseError: it is no such list, or a name appears twice.
    """
    tree: list[AttributeSyntax] = read("attributes", text, file)
    try:
        return _Reader({}).attributes(tree)
    except SourceError as e:
        raise ParseError(e.sentence, text, file, e.line, e.column) from None


class _Reader:
    """Builds the IR that a syntax tree describes."""

    def __init__(self, blobs: Mapping[str, Array]) -> None:
        self._blobs = blobs
        self._scopes: list[dict[str, Value]] = []
        self._later: dict[str, Token] = {}

    def module(self, tree: ModuleSyntax) -> Module:
        module = Module(unquote(tree.token), self.attributes(tree.attributes))
        for each in tree.functions:
            if unquote(each.token) in module.functions:
                raise SourceError(f"the module already has a function {each.token}", each.token)
            module.add(self._function(each))
        return module

    def _function(self, tree: FunctionSyntax) -> Function:
        function = Function(unquote(tree.token), attributes=self.attributes(tree.attributes))
        function.output_names = [_hint(o.token) for o in tree.outputs]
        self._later = {str(t): t for op in _walk(tree.statements) for t in op.results}
        self._block(function.block, tree.arguments, tree.statements)
        end = function.block.terminator
        if end is not None:
            if len(end.operands) != len(tree.outputs):
                raise SourceError(
                    f"{tree.token} has {len(tree.outputs)} outputs, but returns {len(end.operands)} values", tree.token
                )
            for output, value in zip(tree.outputs, end.operands, strict=True):
                if output.type is not None and value is not None and value.type is not output.type:
                    raise SourceError(
                        f"output {output.token} is declared as {output.type}, but {value.type} is returned",
                        output.token,
                    )
        return function

    def _block(self, block: Block, arguments: Sequence[ArgumentSyntax], statements: Sequence[OpSyntax]) -> None:
        self._scopes.append({})
        for argument in arguments:
            assert argument.type is not None
            self._define(argument.token, block.add_argument(argument.type, _hint(argument.token)))
        for statement in statements:
            self._op(statement, block)
        self._scopes.pop()

    def _op(self, tree: OpSyntax, block: Block) -> None:
        try:
            defn = lookup(tree.name)
        except UnknownOperatorError as e:
            raise SourceError(str(e), tree.token) from None
        operands = [None if t == "_" else self._use(t) for t in tree.operands]
        if len(tree.results) != len(tree.types):
            raise SourceError(f"{len(tree.results)} results, but {len(tree.types)} result types", tree.token)
        regions = []
        for i, region in enumerate(tree.regions):
            expected = defn.regions[i] if i < len(defn.regions) else None
            if region.token != expected:
                what = f"region {i + 1} is called '{expected}'" if expected else f"it has {len(defn.regions)} regions"
                raise SourceError(f"'{region.token}' is no region of {tree.name} here: {what}", region.token)
            inner = Block()
            self._block(inner, region.arguments, region.statements)
            regions.append(inner)
        attributes = defn.defaults()
        attributes.update(self.attributes(tree.attributes, defn, tree.types))
        op = Op(defn, operands, tree.types, attributes, regions)
        for token, result in zip(tree.results, op.results, strict=True):
            if token != "_":
                result.name = _hint(token)
                self._define(token, result)
        block.append(op)

    def _define(self, token: Token, value: Value) -> None:
        if any(token in scope for scope in self._scopes):
            raise SourceError(f"{token} is defined twice", token)
        self._scopes[-1][str(token)] = value

    def _use(self, token: Token) -> Value:
        for scope in reversed(self._scopes):
            value = scope.get(token)
            if value is not None:
                return value
        later = self._later.get(token)
        if later is not None:
            raise SourceError(f"{token} is not defined here, but in line {later.line}", token)
        known = [name for scope in self._scopes for name in scope]
        raise SourceError(f"{token} is not defined{suggest(token, known)}", token)

    def attributes(
        self, trees: Sequence[AttributeSyntax], defn: OpDef | None = None, result_types: Sequence[Type] = ()
    ) -> dict[str, Any]:
        """The attributes' values; those of an operator are checked against its definition's names."""
        out: dict[str, Any] = {}
        for tree in trees:
            if tree.name in out:
                raise SourceError(f"attribute '{tree.name}' is given twice", tree.token)
            kind = "any"
            if defn is not None:
                spec = defn.attributes.get(tree.name)
                if spec is None:
                    raise SourceError(
                        f"{defn.name} has no attribute '{tree.name}'{suggest(tree.name, defn.attributes)}", tree.token
                    )
                kind = spec.kind
            # A constant's payload has the type of the result unless it says otherwise.
            implied = result_types[0] if defn is not None and defn.constant == tree.name and result_types else None
            value = self._value(tree.value, implied)
            if kind == "float" and type(value) is int:
                value = float(value)
            elif kind == "floats" and isinstance(value, tuple):
                value = tuple(float(v) if type(v) is int else v for v in value)
            out[tree.name] = value
        return out

    def _value(self, value: Any, implied: Type | None) -> Any:
        if isinstance(value, DenseSyntax):
            return self._array(value, implied)
        if type(value) is tuple:
            return tuple(self._value(v, None) for v in value)
        return value

    def _array(self, tree: DenseSyntax, implied: Type | None) -> Array:
        type_ = tree.type or implied
        if not isinstance(type_, TensorType) or not type_.is_static:
            raise SourceError("a constant needs a type of known shape behind it: dense<…>: tensor<2x3xf32>", tree.token)
        shape, dtype, payload = type_.static_shape, type_.dtype, tree.payload
        if isinstance(payload, str) and (dtype.kind != "string" or BLOB_REFERENCE.match(payload)):
            return self._blob(payload, shape, dtype, tree.token)
        if isinstance(payload, bytes):
            if len(payload) != (type_.size or 0) * dtype.numpy.itemsize:
                raise SourceError(f"{len(payload)} bytes do not fill {type_}", tree.token)
            return np.frombuffer(payload, dtype.numpy).reshape(shape)
        splat = not isinstance(payload, list)
        nested, flat = _flatten([payload] if splat else payload, tree.token)
        if not splat and nested != shape and (len(nested) != 1 or len(flat) != type_.size):
            found = "x".join(map(str, nested))
            raise SourceError(f"elements of shape {found} stand in a constant of type {type_}", tree.token)
        try:
            array = read_elements(flat, dtype)
        except (TypeError, OverflowError) as e:
            raise SourceError(str(e), tree.token) from None
        if not splat:
            return array.reshape(shape)
        out = np.empty(shape, array.dtype)
        out.fill(array[0])  # np.full would take a string's trailing NULs for padding
        return out

    def _blob(self, key: str, shape: tuple[int, ...], dtype: DType, token: Token) -> Array:
        array = self._blobs.get(key)
        if array is None:
            raise SourceError(f"constant '{key}' was left out of this text and is not among the blobs", token)
        if array.dtype.kind == "V" and array.dtype.itemsize == dtype.numpy.itemsize:
            array = array.view(dtype.numpy)  # .npz files forget the types of ml_dtypes
        if array.shape != shape or (array.dtype != dtype.numpy and dtype.kind != "string"):
            raise SourceError(f"blob '{key}' holds {array.dtype}{list(array.shape)}, which is another type", token)
        return array


def _hint(token: Token) -> str:
    """The name that a value's token gives it; a number gives none."""
    name = unquote(token)
    return "" if token[1] != '"' and name.isdigit() else name


def _walk(statements: Sequence[OpSyntax]) -> Iterator[OpSyntax]:
    for op in statements:
        yield op
        for region in op.regions:
            yield from _walk(region.statements)


def _flatten(nested: list[Any], token: Token) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of nested lists, and their elements in order."""
    shape: tuple[int, ...] = (len(nested),)
    flat = nested
    while any(isinstance(e, list) for e in flat):
        sizes = {len(e) if isinstance(e, list) else -1 for e in flat}
        if len(sizes) != 1:
            raise SourceError("lists side by side in a constant must be of one length", token)
        shape += (sizes.pop(),)
        flat = [e for inner in flat for e in inner]
    return shape, flat

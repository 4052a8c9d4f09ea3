"""From text to a syntax tree: the grammar of ir.lark, and errors that point at the place."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import lark
import numpy as np
from lark import Token

from compiler.errors import UserError
from compiler.ir.dtypes import DTYPES
from compiler.ir.opdef import suggest
from compiler.ir.types import Dim, OptionalType, SequenceType, StateType, TensorType, Type


class ParseError(UserError):
    """The text is not what it should be.

    Attributes:
        sentence: what is wrong, without the place.
        line, column: where, both from 1.
    """

    def __init__(self, sentence: str, source: str, file: str, line: int, column: int) -> None:
        lines = source.split("\n")
        shown = lines[line - 1] if 0 < line <= len(lines) else ""
        margin = f"{line:>5} | "
        # A tab before the caret must be a tab, or the caret stands elsewhere than under its character.
        lead = re.sub(r"[^\t]", " ", shown[: column - 1])
        super().__init__(f"{file}:{line}:{column}: {sentence}\n{margin}{shown}\n{' ' * (len(margin) - 2)}| {lead}^")
        self.sentence = sentence
        self.line = line
        self.column = column


class SourceError(Exception):
    """What is wrong, and the token it is about; becomes a :class:`ParseError` once the text is at hand."""

    def __init__(self, sentence: str, token: Token, offset: int = 0) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.line = token.line or 1
        self.column = (token.column or 1) + offset


class DenseSyntax(NamedTuple):
    """``dense<payload>: type``; the payload is a scalar, nested lists of scalars, or bytes."""

    token: Token
    payload: Any
    type: TensorType | None


class AttributeSyntax(NamedTuple):
    """``name = value``; the value is final but for a :class:`DenseSyntax` in it."""

    token: Token
    name: str
    value: Any


class ArgumentSyntax(NamedTuple):
    """``%name: type``; an output may lack the type."""

    token: Token
    type: Type | None


class RegionSyntax(NamedTuple):
    """``name { ^(arguments) statements }``."""

    token: Token
    arguments: list[ArgumentSyntax]
    statements: list[OpSyntax]


class OpSyntax(NamedTuple):
    """An operator; ``return`` is one called ``ir.return``."""

    token: Token
    name: str
    results: list[Token]
    operands: list[Token]
    attributes: list[AttributeSyntax]
    regions: list[RegionSyntax]
    types: list[Type]


class FunctionSyntax(NamedTuple):
    """``func @name(arguments) -> (outputs) {attributes} { statements }``."""

    token: Token
    arguments: list[ArgumentSyntax]
    outputs: list[ArgumentSyntax]
    attributes: list[AttributeSyntax]
    statements: list[OpSyntax]


class ModuleSyntax(NamedTuple):
    """``module @name {attributes} { functions }``."""

    token: Token
    attributes: list[AttributeSyntax]
    functions: list[FunctionSyntax]


def unquote(token: Token) -> str:
    """The name in a token: what follows the sigil, or what stands in the quotes."""
    text = str(token)
    if text[0] in "%@":
        text = text[1:]
    if text[0] != '"':
        return text
    try:
        return str(json.loads(text))
    except json.JSONDecodeError as e:
        raise SourceError(f"{e.msg} in a string", token, e.pos) from None


_DIM = re.compile(r'\s*(?:(\d+)\s*x|(\?)\s*x|([A-Za-z_][A-Za-z0-9_]*)\s+x|("(?:[^"\\]|\\.)*")\s*x)')
_UNRANKED = re.compile(r"\s*\*\s*x")
_RUN_TOGETHER = re.compile(r"\s*([A-Za-z_]\w*?)x(?=\d|\?|[a-z])")


@cache
def _tensor_type(text: str) -> tuple[TensorType | None, str, int]:
    """The type that ``tensor<…>`` spells; or None, why not, and where in the text."""
    body, start = text[:-1], len("tensor<")
    dims: list[Dim] | None = []
    unranked = _UNRANKED.match(body, start)
    if unranked:
        dims, start = None, unranked.end()
    else:
        while found := _DIM.match(body, start):
            number, unknown, name, quoted = found.groups()
            assert dims is not None
            dims.append(int(number) if number else unknown or name or json.loads(quoted))
            start = found.end()
    spelled = body[start:].strip()
    if spelled in DTYPES:
        return TensorType(DTYPES[spelled], dims), "", 0
    run_together = _RUN_TOGETHER.match(body, start)
    if run_together:
        name = run_together.group(1)
        return None, f"a space must stand behind the dimension's name: '{name} x …'", start
    return None, f"no element type is called '{spelled}'{suggest(spelled, DTYPES)}", start


_CONTAINERS = {"sequence": SequenceType, "optional": OptionalType, "state": StateType}
_WORDS: dict[str, Any] = {"true": True, "false": False, **DTYPES}


def _present(items: Iterable[Any]) -> list[Any]:
    return [i for i in items if i is not None]


class _Transformer(lark.Transformer[Token, Any]):
    """Called by the parser as it reduces, so that no tree of strings is ever built."""

    def module(self, items: list[Any]) -> ModuleSyntax:
        return ModuleSyntax(items[0], items[1] or [], items[2:])

    def function(self, items: list[Any]) -> FunctionSyntax:
        return FunctionSyntax(items[0], items[1] or [], items[2] or [], items[3] or [], items[4:])

    def argument(self, items: list[Any]) -> ArgumentSyntax:
        return ArgumentSyntax(items[0], items[1])

    def op(self, items: list[Any]) -> OpSyntax:
        results, token, operands, attributes, *regions, types = items
        return OpSyntax(token, str(token), results or [], operands or [], attributes or [], regions, types or [])

    def end(self, items: list[Any]) -> OpSyntax:
        return OpSyntax(items[0], "ir.return", [], items[1] or [], [], [], [])

    def region(self, items: list[Any]) -> RegionSyntax:
        return RegionSyntax(items[0], items[1] or [], items[2:])

    def attribute(self, items: list[Any]) -> AttributeSyntax:
        token, value = items
        return AttributeSyntax(token, unquote(token), value)

    def integer(self, items: list[Token]) -> int:
        return int(items[0])

    def float(self, items: list[Token]) -> float:
        text = str(items[0])
        if text[-1] == "f" and text[-2] != "n":
            return float(np.float32(text[:-1]))
        return float(text)

    def string(self, items: list[Token]) -> str:
        return unquote(items[0])

    def word(self, items: list[Token]) -> Any:
        word = items[0]
        if word not in _WORDS:
            raise SourceError(f"'{word}' is no value; strings stand in quotes{suggest(word, _WORDS)}", word)
        return _WORDS[word]

    def tuple(self, items: list[Any]) -> tuple[Any, ...]:
        return tuple(_present(items))

    def dense(self, items: list[Any]) -> DenseSyntax:
        token, payload, type_ = items
        if type_ is not None and not isinstance(type_, TensorType):
            raise SourceError(f"a constant is a tensor, not of type {type_}", token)
        return DenseSyntax(token, payload, type_)

    def bytes(self, items: list[Token]) -> bytes:
        return bytes.fromhex(items[0][2:])

    def tensor(self, items: list[Token]) -> TensorType:
        type_, problem, offset = _tensor_type(str(items[0]))
        if type_ is None:
            raise SourceError(problem, items[0], offset)
        return type_

    def container(self, items: list[Any]) -> Type:
        made: Type = _CONTAINERS[str(items[0])](items[1])
        return made

    arguments = outputs = results = operands = result_types = attributes = some_attributes = elements = staticmethod(
        _present
    )
    output = argument


def read(start: str, text: str, file: str) -> Any:
    """The syntax tree of ``text``.

    Args:
        start: the grammar's rule for the whole text: ``module``, ``type`` or ``attributes``.

    Raises:
        ParseError: the text does not follow the grammar.
    """
    try:
        return _parser().parse(text, start=start)
    except SourceError as e:
        raise ParseError(e.sentence, text, file, e.line, e.column) from None
    except lark.UnexpectedToken as e:
        if e.token.type == "$END":
            body = text.rstrip()
            line, column = body.count("\n") + 1, len(body) - body.rfind("\n")
            _unexpected("the end of the text", e.accepts or e.expected, text, file, line, column)
        _unexpected(f"'{e.token}'", e.accepts or e.expected, text, file, e.line, e.column)
    except lark.UnexpectedCharacters as e:
        found = re.compile(r"[\w.@%]+|.", re.DOTALL).match(text, e.pos_in_stream or 0)
        word = found.group() if found else ""
        _unexpected(f"'{word}'", e.allowed or (), text, file, e.line, e.column)


_READABLE = {
    "VALUE": "a value such as %x",
    "SYMBOL": "a name such as @main",
    "OP_NAME": "an operator such as onnx.Relu",
    "NAME": "a name",
    "STRING": "a string",
    "TENSOR": "a type such as tensor<2x3xf32>",
    "CONTAINER": "a type such as tensor<2x3xf32>",
    "INT": "a number",
    "FLOAT": "a number",
    "BYTES": "bytes such as 0x00ff",
    "$END": "the end of the text",
}


def _unexpected(found: str, names: Collection[str], text: str, file: str, line: int, column: int) -> NoReturn:
    literals = {t.name: f"'{t.pattern.value}'" for t in _parser().terminals if t.pattern.type == "str"}
    options = sorted({_READABLE.get(n) or literals.get(n) or n for n in names})
    expected = " or ".join([", ".join(options[:-1]), options[-1]] if len(options) > 1 else options)
    raise ParseError(f"expected {expected}, found {found}", text, file, line, column) from None


@cache
def _parser() -> lark.Lark:
    grammar = Path(__file__).with_name("ir.lark").read_text(encoding="utf-8")
    return lark.Lark(
        grammar,
        parser="lalr",
        start=["module", "type", "attributes"],
        maybe_placeholders=True,
        transformer=_Transformer(),
    )

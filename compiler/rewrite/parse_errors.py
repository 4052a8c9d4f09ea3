"""What is wrong with a text that does not follow the grammar, said in the language's own words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import cast

from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from compiler.rewrite import syntax as s
from compiler.rewrite.diagnostics import Diagnostic

#: How the terminals are called in messages.
_TERMINALS = {
    "NAME": "a name",
    "CALLNAME": "an operator or function",
    "DOTTED": "a name",
    "STRING": "a string",
    "NUMBER": "a number",
    "SIGNED": "a number",
    "INT": "a size",
    "BINARY": "an operator sign",
    "EQUAL": "'='",
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "COMMA": "','",
    "COLON": "':'",
    "$END": "the end of the file",
}


def syntax_error(e: UnexpectedInput, source: str, path: str) -> Diagnostic:
    lines = source.splitlines() or [""]
    if isinstance(e, UnexpectedEOF) or (isinstance(e, UnexpectedToken) and e.token.type == "$END"):
        pos = s.Pos(len(lines), len(lines[-1]) + 1, len(lines), len(lines[-1]) + 2)
        unclosed = _unclosed(source)
        if unclosed is not None:
            message = f"the file ends too early; this '{source[unclosed]}' is not closed"
            line, column = source.count("\n", 0, unclosed) + 1, unclosed - source.rfind("\n", 0, unclosed)
            return Diagnostic(path, s.Pos(line, column, line, column + 1), message, code="syntax")
        expected = getattr(e, "expected", ())
        return Diagnostic(path, pos, f"the file ends too early; expected {_expected(expected)}", code="syntax")
    line, column = max(e.line, 1), max(e.column, 1)
    if isinstance(e, UnexpectedCharacters):
        found, width, expected = repr(e.char), 1, e.allowed or ()
    else:
        token = cast("UnexpectedToken", e).token
        found, width, expected = f"'{token}'", len(token), cast("UnexpectedToken", e).expected
    message = f"unexpected {found}; expected {_expected(expected)}"
    return Diagnostic(path, s.Pos(line, column, line, column + width), message, code="syntax")


def _unclosed(source: str) -> int | None:
    """The offset of the innermost bracket that is open at the end of a text."""
    opened: list[int] = []
    for m in re.finditer(r'//[^\n]*|"(?:[^"\\\n]|\\.)*"|[(){}\[\]]', source):
        if m[0] in ("(", "{", "["):
            opened.append(m.start())
        elif m[0] in (")", "}", "]") and opened:
            opened.pop()
    return opened[-1] if opened else None


def _expected(terminals: Iterable[str]) -> str:
    words = {_TERMINALS.get(t, f"'{t.lower()}'") for t in terminals if not t.startswith("__")}
    listed = sorted(words)
    if len(listed) > 6:
        listed = [*listed[:6], "…"]
    return " or ".join(listed) if listed else "something else"

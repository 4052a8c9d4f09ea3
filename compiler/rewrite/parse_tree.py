"""Reading lark's trees: positions, children, tokens."""

from __future__ import annotations

from lark import Token, Tree

from compiler.rewrite import syntax as s


def position(node: Tree[Token] | Token) -> s.Pos:
    if isinstance(node, Token):
        line, column = node.line or 1, node.column or 1
        return s.Pos(line, column, node.end_line or line, node.end_column or column + 1)
    meta = node.meta
    if meta.empty:
        return s.Pos(1, 1, 1, 1)
    return s.Pos(meta.line, meta.column, meta.end_line, meta.end_column)


def number(text: str) -> int | float:
    """The value of a numeric token; integers stay integers."""
    if text.lstrip("+-") in ("inf", "nan"):
        return float(text)
    return float(text) if any(c in text for c in ".eE") else int(text)


_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


def unquote(token: str) -> str:
    """The text inside a string token."""
    out, chars = "", iter(token[1:-1])
    for c in chars:
        if c == "\\":
            c = next(chars, "")
            c = _ESCAPES.get(c, "\\" + c)
        out += c
    return out


def span(a: s.Pos, b: s.Pos) -> s.Pos:
    return s.Pos(a.line, a.column, b.end_line, b.end_column)


def trees(t: Tree[Token]) -> list[Tree[Token]]:
    return [c for c in t.children if isinstance(c, Tree)]


def find(t: Tree[Token], data: str) -> Tree[Token] | None:
    return next((c for c in trees(t) if c.data == data), None)


def child(t: Tree[Token], data: str) -> Tree[Token]:
    found = find(t, data)
    assert found is not None, f"the grammar promises a {data} in every {t.data}"
    return found

"""``planish rules fmt``: the one layout of rule files.

Lines stay where their author broke them. What is put in order is what stands in a line: spaces, indentation by what is
open, the column of clauses, and the columns of rules that stand in one line each. Comments are kept. Formatting what is
formatted changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from compiler.rewrite.parse import parse

#: The longest line that columns are aligned for.
WIDTH = 120

_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*(?:@[0-9]+)?)
      | (?P<sign>==|!=|<=|>=|\*\*|\.\.|\?\?|[-+*/%<>=|@:,;?(){}\[\].~≈±])
      | (?P<newline>\n)
      | (?P<space>[^\S\n]+)""",
    re.VERBOSE,
)
_WORDS = {"and", "or", "not", "in", "div", "if", "else", "for", "when", "with", "by", "from", "const"}
_CLAUSES = ("match", "where", "let", "rewrite", "else")
_BLOCKS = {*_CLAUSES, "example", "given", "before", "after", "test", "unchanged"}
_OPEN, _CLOSE = "({[", ")}]"
_PAD = len("rewrite ")


def format_rules(source: str, path: str = "<rules>") -> str:
    """A rule file in the one layout.

    Raises:
        RuleError: it does not follow the grammar.
    """
    parse(source, path)
    lines = list(_lines(source))
    braces = _Braces()
    for line in lines:
        for t in line:
            braces.see(t)
    text = "\n".join(_squeezed(_aligned(_indented([_spaced(line) for line in lines])))).strip("\n")
    return text + "\n" if text else ""


@dataclass(slots=True)
class _Token:
    text: str
    kind: str
    before: str = ""  # the space that goes before it
    block: bool = False  # a brace around statements

    @property
    def is_word(self) -> bool:
        return self.kind == "name" and self.text in _WORDS


def _lines(source: str) -> Iterator[list[_Token]]:
    line: list[_Token] = []
    at = 0
    while at < len(source):
        m = _TOKEN.match(source, at)
        assert m is not None, "the parser has accepted the text"
        at = m.end()
        if m.lastgroup == "newline":
            yield line
            line = []
        elif m.lastgroup != "space":
            line.append(_Token(m[0].rstrip(), str(m.lastgroup)))
    yield line


class _Braces:
    """Which braces stand around statements; state that goes on from line to line."""

    def __init__(self) -> None:
        self.stack: list[tuple[str, bool]] = []
        self.when = False
        self.head = False
        self.last: _Token | None = None

    def see(self, t: _Token) -> None:
        if t.text == "{" and t.kind == "sign":
            t.block = self.is_block()
            self.when = self.head = False if t.block else self.when
            self.stack.append(("{", t.block))
        elif t.kind == "sign" and t.text in _OPEN:
            regions = t.text == "(" and self.last is not None and self.last.text == "with"
            self.stack.append(("with" if regions else t.text, False))
        elif t.kind == "sign" and t.text in _CLOSE and self.stack:
            t.block = self.stack.pop()[1]
        elif t.kind == "name" and t.text == "when":
            self.when = True
        elif t.kind == "name" and t.text == "rule" and not self.stack:
            self.head = True
        if t.kind != "comment":
            self.last = t

    def is_block(self) -> bool:
        if self.stack and self.stack[-1][0] in "([":
            return False
        if self.stack and self.stack[-1][0] == "with":
            return True
        if self.head or (self.when and (not self.stack or self.stack[-1] == ("{", True))):
            return True
        last = self.last
        return last is not None and ((last.kind == "name" and last.text in _BLOCKS) or last.kind == "string")


def _spaced(line: list[_Token]) -> list[_Token]:
    """The tokens with the space that goes before each, as far as the neighbours in the line say."""
    previous: _Token | None = None
    slices = 0
    for t in line:
        if t.text == "[" and t.kind == "sign":
            slices += 1
        elif t.text == "]" and t.kind == "sign":
            slices -= 1
        t.before = "" if previous is None else _gap(previous, t, slices > 0)
        if previous is not None and previous.text in ("-", "+", "*", "..", "~", "≈") and previous.kind == "prefix":
            t.before = ""
        if t.kind == "sign" and t.text in ("-", "+", "*", "..", "~", "≈") and _starts(previous):
            t.kind = "prefix"
        previous = t
    return line


def _starts(previous: _Token | None) -> bool:
    """Whether a sign behind ``previous`` is a prefix: nothing there that it could join to what follows."""
    if previous is None or previous.is_word:
        return True
    return previous.kind in ("sign", "prefix") and previous.text not in (")", "]", "}", "?")


def _gap(a: _Token, b: _Token, sliced: bool) -> str:
    if b.kind == "comment":
        return "  "
    if b.text in (",", ";", "?", "±") and b.kind == "sign":
        return ""
    if a.text in (",", ";"):
        return " "
    if b.text == ":" or a.text == ":":
        return "" if b.text in (":", "]") or sliced else " "
    if (a.text in ("(", "[") and a.kind == "sign") or (b.text in (")", "]") and b.kind == "sign"):
        return ""
    if a.text == "{" and b.text == "}":
        return ""
    if (a.text == "{" and a.kind == "sign") or (b.text == "}" and b.kind == "sign"):
        return " " if (a.block if a.text == "{" else b.block) else ""
    if a.text == "±" or (a.kind == "sign" and a.text in ("~", "≈")):
        return ""
    if ".." in (a.text, b.text):
        return "" if a.text == ".." or a.kind in ("number", "name") or a.text in (")", "]") else " "
    if "." in (a.text, b.text):
        return ""
    if b.text == "(" and b.kind == "sign":
        return "" if (a.kind == "name" and not a.is_word) or a.text == "}" else " "
    if b.text == "[" and b.kind == "sign":
        return "" if (a.kind == "name" and not a.is_word) or a.text in (")", "]", "}") else " "
    return " "


def _indented(lines: list[list[_Token]]) -> list[str]:
    """The lines as text: each begins where what is open around it has its contents."""
    opened: list[tuple[int, int]] = []  # per open bracket: the column of its contents, the indentation of its line
    out: list[str] = []
    for line in lines:
        closing = 0
        while closing < len(line) and line[closing].kind == "sign" and line[closing].text in _CLOSE:
            closing += 1
        indent = 0
        if opened:
            indent = opened[-min(closing, len(opened))][1] if closing else opened[-1][0]
        clause = len(opened) == 1 and bool(line) and line[0].text in _CLAUSES
        text = " " * indent
        for i, t in enumerate(line):
            before = t.before
            if i == 1 and clause:
                before = " " * max(1, _PAD - len(line[0].text))
            text += before + t.text
            if t.kind != "sign":
                continue
            if t.text in _OPEN:
                last = i + 1 == len(line) or line[i + 1].kind == "comment"
                opened.append((indent + 2 if last else len(text) + t.block, indent))
            elif t.text in _CLOSE and opened:
                opened.pop()
        out.append(text.rstrip())
    return out


def _aligned(lines: list[str]) -> list[str]:
    """Rules in one line each that follow each other have their clauses in columns."""
    out: list[str] = []
    group: list[tuple[str, str, str]] = []

    def flush() -> None:
        if not group:
            return
        head = max(len(g[0]) for g in group)
        match = max(len(g[1]) for g in group)
        rows = [f"{h:<{head}} {m:<{match}} {r}" for h, m, r in group]
        if any(len(r) > WIDTH for r in rows):
            rows = [" ".join(g) for g in group]
        out.extend(rows)
        group.clear()

    for line in lines:
        parts = _ONE_LINE.fullmatch(line)
        if parts is None:
            flush()
            out.append(line)
        else:
            group.append((parts[1], parts[2], parts[3]))
    flush()
    return out


#: A rule in one line: its head, its match, the rest.
_ONE_LINE = re.compile(r'(rule \w+(?: "(?:[^"\\]|\\.)*")? \{) (match \{.*?\}) ((?:where|let|rewrite)\b.*\})')


def _squeezed(lines: list[str]) -> list[str]:
    """No more than one empty line at a time."""
    return [line for i, line in enumerate(lines) if line or i == 0 or lines[i - 1]]

"""What an editor asks about a place in a rule file: what stands there, what may stand there, where it is defined.

Works on text that need not parse, for it is being written. Lines and columns are counted from 0, as editors do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from compiler.ir import DTYPES, OpDef, OperandSpec, UnknownOperatorError, dialects, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.check import check
from compiler.rewrite.diagnostics import Diagnostic, RuleError
from compiler.rewrite.functions import CONSTANTS, DTYPE_CLASSES, FUNCTIONS
from compiler.rewrite.library import Library
from compiler.rewrite.load import LIBRARY
from compiler.rewrite.parse import parse

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*(?:@[0-9]+)?")
KEYWORDS = (
    "stage",
    "use",
    "pattern",
    "fn",
    "extern",
    "rule",
    "match",
    "where",
    "let",
    "rewrite",
    "else",
    "when",
    "by",
    "numeric",
    "before",
    "after",
    "example",
    "test",
    "given",
    "unchanged",
    "const",
    "with",
    "ordered",
    "clone",
    "exact",
    "rounding",
    "approximate",
)


@dataclass(frozen=True, slots=True)
class Completion:
    """A word that may stand somewhere: ``kind`` is operator, attribute, operand, function, keyword or pattern."""

    label: str
    kind: str
    detail: str


@dataclass(frozen=True, slots=True)
class Place:
    """A stretch of a file; lines and columns from 0."""

    path: str
    line: int
    column: int
    width: int


class Assistant:
    """Answers about files that are open, against the rules of a library."""

    def __init__(self, files: list[s.RuleFile]) -> None:
        self.files = files

    def diagnostics(self, text: str, path: str) -> list[Diagnostic]:
        """The findings in a file; it may be one of the library's own, in a newer form."""
        try:
            own = parse(text, path)
        except RuleError as e:
            return e.diagnostics
        own.builtin = False
        try:
            return check(Library([*self.others(path), own]), [path])
        except RuleError as e:
            return [d for d in e.diagnostics if d.file == path]

    def others(self, path: str) -> list[s.RuleFile]:
        """The library's files but the one that lies at ``path``."""
        return [f for f in self.files if (LIBRARY / Path(f.path).name).resolve() != Path(path).resolve()]

    def hover(self, text: str, line: int, column: int) -> str | None:
        """What the word there is, as Markdown."""
        word = word_at(text, line, column)
        defn = operator(text, word)
        if defn is not None:
            return f"```\n{signature(defn)}\n```\n{first_sentence(defn.doc)}".strip()
        known = FUNCTIONS.get(word)
        if known is not None:
            return f"`{word}(…)`: {known.doc}"
        for f in self.files:
            for r in f.rules:
                if r.name == word:
                    return f"rule `{word}` of stage {r.stage}: {r.doc} ({f.path}:{r.pos.line})"
        return None

    def complete(self, text: str, line: int, column: int) -> list[Completion]:
        """What may be written there."""
        before = "\n".join([*text.splitlines()[:line], (text.splitlines() or [""])[line][:column] if text else ""])
        inside = _enclosing(before)
        out: list[Completion] = []
        if inside is not None:
            bracket, name = inside
            defn = operator(text, name)
            if defn is not None and bracket == "{":
                return [
                    Completion(a.name, "attribute", f"{a.kind}{'' if a.default is None else f' = {a.default}'}")
                    for a in defn.attributes.values()
                ]
            if defn is not None:
                out += [Completion(o.name, "operand", _spec(o)) for o in defn.operands]
        for d in used(text):
            out += [Completion(n, "operator", d) for n in sorted(dialects()[d].op_names())] if d in dialects() else []
        out += [Completion(n, "function", f.doc) for n, f in sorted(FUNCTIONS.items())]
        for f in self.files:
            out += [Completion(n, "pattern", f.path) for n in f.patterns]
        return [*out, *(Completion(k, "keyword", "") for k in (*KEYWORDS, *CONSTANTS, *DTYPES, *DTYPE_CLASSES))]

    def definition(self, text: str, path: str, line: int, column: int) -> Place | None:
        """Where a pattern, function, rule or name is defined."""
        word = word_at(text, line, column)
        if not word:
            return None
        declared = re.compile(rf"^\s*(?:pattern|fn|extern|rule)\s+({re.escape(word)})\b", re.MULTILINE)
        for where, source in ((path, text), *((str(LIBRARY / Path(f.path).name), f.source) for f in self.files)):
            m = declared.search(source)
            if m is not None:
                return _place(where, source, m.start(1), len(word))
        start = _rule_start(text, line)
        bound = re.compile(rf"\b{re.escape(word)}\b")
        offset = sum(len(x) + 1 for x in text.splitlines()[:start])
        m = bound.search(text, offset)
        return _place(path, text, m.start(), len(word)) if m is not None else None


def word_at(text: str, line: int, column: int) -> str:
    """The name, dots included, at a place; empty if there is none."""
    lines = text.splitlines()
    if line >= len(lines):
        return ""
    return next((m[0] for m in _WORD.finditer(lines[line]) if m.start() <= column <= m.end()), "")


def used(text: str) -> list[str]:
    """The dialects that a file's ``use`` lines name."""
    return [d.strip() for m in re.finditer(r"^use\s+([\w, ]+)$", text, re.MULTILINE) for d in m[1].split(",")]


def operator(text: str, name: str) -> OpDef | None:
    """The operator that a name stands for in a file."""
    for full in (name, *(f"{d}.{name}" for d in used(text))):
        if "." in full:
            try:
                return lookup(full)
            except UnknownOperatorError:
                continue
    return None


def signature(defn: OpDef) -> str:
    """``onnx.Conv(X: T, W: T, B?: T) {group: int = 1, …} -> (Y: T)``"""
    operands = ", ".join(map(_spec, defn.operands))
    attributes = ", ".join(
        f"{a.name}: {a.kind}{'' if a.default is None else f' = {a.default}'}" for a in defn.attributes.values()
    )
    results = ", ".join(map(_spec, defn.results))
    return f"{defn.name}({operands}){f' {{{attributes}}}' if attributes else ''} -> ({results})"


def first_sentence(doc: str) -> str:
    """The beginning of a description."""
    return doc.strip().split("\n\n")[0].replace("\n", " ").strip()


def _spec(o: OperandSpec) -> str:
    mark = {"optional": "?", "variadic": "…", "required": ""}[o.arity]
    kinds = sorted(map(str, o.dtypes)) if o.dtypes is not None else []
    shown = " | ".join(kinds) if 0 < len(kinds) <= 4 else o.type_variable
    return f"{o.name}{mark}{f': {shown}' if shown else ''}"


def _enclosing(before: str) -> tuple[str, str] | None:
    """The innermost open bracket, and the operator whose operands or attributes it holds."""
    depth: list[int] = []
    for i, c in enumerate(before):
        if c in "({[":
            depth.append(i)
        elif c in ")}]" and depth:
            depth.pop()
    if not depth:
        return None
    at = depth[-1]
    head = before[:at].rstrip()
    if before[at] == "{" and head.endswith(")"):
        balance = 0
        for i in range(len(head) - 1, -1, -1):
            balance += (head[i] == ")") - (head[i] == "(")
            if balance == 0:
                head = head[:i]
                break
    elif before[at] != "(":
        return None
    m = re.search(rf"({_WORD.pattern})$", head)
    return (before[at], m[1]) if m is not None else None


def _rule_start(text: str, line: int) -> int:
    lines = text.splitlines()
    return next((i for i in range(min(line, len(lines) - 1), -1, -1) if lines[i].lstrip().startswith("rule ")), 0)


def _place(path: str, source: str, offset: int, width: int) -> Place:
    head = source[:offset]
    return Place(path, head.count("\n"), offset - (head.rfind("\n") + 1), width)

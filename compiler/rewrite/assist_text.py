"""Text of a rule file that is being written and need not parse: words, brackets, and the operators that words name."""

from __future__ import annotations

import re

from compiler.ir import AttributeSpec, OpDef, OperandSpec, UnknownOperatorError, lookup

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*(?:@[0-9]+)?")


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
    operands = ", ".join(map(spec_of, defn.operands))
    attributes = ", ".join(f"{a.name}: {attribute(a)}" for a in defn.attributes.values())
    results = ", ".join(map(spec_of, defn.results))
    return f"{defn.name}({operands}){f' {{{attributes}}}' if attributes else ''} -> ({results})"


def attribute(a: AttributeSpec) -> str:
    """``int = 1``: the kind of an attribute and its default."""
    return f"{a.kind}{'' if a.default is None else f' = {a.default}'}"


def first_sentence(doc: str) -> str:
    """The beginning of a description."""
    return doc.strip().split("\n\n")[0].replace("\n", " ").strip()


def spec_of(o: OperandSpec) -> str:
    """``B?: f16 | f32``: an operand or a result, with its types or the variable that stands for them."""
    mark = {"optional": "?", "variadic": "…", "required": ""}[o.arity]
    kinds = sorted(map(str, o.dtypes)) if o.dtypes is not None else []
    shown = " | ".join(kinds) if 0 < len(kinds) <= 4 else o.type_variable
    return f"{o.name}{mark}{f': {shown}' if shown else ''}"


def enclosing(before: str) -> tuple[str, str] | None:
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


def rule_start(text: str, line: int) -> int:
    """The line in which the rule around a line begins."""
    lines = text.splitlines()
    return next((i for i in range(min(line, len(lines) - 1), -1, -1) if lines[i].lstrip().startswith("rule ")), 0)

"""What an editor asks about a place in a rule file: what stands there, what may stand there, where it is defined.

Works on text that need not parse, for it is being written. Lines and columns are counted from 0, as editors do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from compiler.ir import DTYPES, dialects
from compiler.rewrite import syntax as s
from compiler.rewrite.assist_text import (
    attribute,
    enclosing,
    first_sentence,
    operator,
    rule_start,
    signature,
    spec_of,
    used,
    word_at,
)
from compiler.rewrite.check import check
from compiler.rewrite.diagnostics import Diagnostic, RuleError
from compiler.rewrite.functions import CONSTANTS, DTYPE_CLASSES, FUNCTIONS
from compiler.rewrite.library import Library
from compiler.rewrite.load import LIBRARY
from compiler.rewrite.parse import parse

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


#: What ``target`` has.
TARGET = {
    "unit": '"ane", "gpu", "cpu" or "metal"',
    "ios": "the oldest release to run on: 16, 17, 18 or 26",
    "precision": '"fp16" or "fp32"',
    "supports": 'supports("mil.gelu"): whether the release has an operator of Core ML',
}


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
        if not word:
            return None
        defn = operator(text, word)
        if defn is not None:
            return f"```\n{signature(defn)}\n```\n{first_sentence(defn.doc)}".strip()
        inside = enclosing(_before(text, line, column))
        around = operator(text, inside[1]) if inside is not None and inside[0] == "{" else None
        if around is not None and word in around.attributes:
            return f"attribute `{word}` of {around.name}: {attribute(around.attributes[word])}"
        owner, _, member = word.partition(".")
        if owner == "target":
            return f"`{word}`: {TARGET[member]}" if member in TARGET else "`target`: what is compiled for"
        known = FUNCTIONS.get(word)
        if known is not None:
            return f"`{word}(…)`: {known.doc}"
        for r in (r for f in self.files for r in f.rules):
            if r.name == word:
                return f"rule `{word}` of stage {r.stage}: {r.doc} ({r.file}:{r.pos.line})"
        for where, source in (("", text), *((f.path, f.source) for f in self.files)):
            m = re.search(rf"^(?:pattern|fn|extern)\s+{re.escape(word)}\b.*(?:\n[ \t]+\|.*)*", source, re.MULTILINE)
            if m is not None:
                return f"```\n{m[0].strip()}\n```\n{where}".strip()
        if word in DTYPES or word in DTYPE_CLASSES:
            return f"element type `{word}`"
        if word in KEYWORDS or word in CONSTANTS:
            return None
        lines = text.splitlines()
        first = next((x for x in lines[rule_start(text, line) + 1 :] if re.search(rf"\b{re.escape(word)}\b", x)), None)
        return f"`{word}` is bound in `{first.strip()}`" if first is not None else None

    def complete(self, text: str, line: int, column: int) -> list[Completion]:
        """What may be written there."""
        before = _before(text, line, column)
        here = before.rpartition("\n")[2]
        dotted = re.search(r"([A-Za-z_]\w*)\.\w*$", here)
        if dotted is not None and dotted[1] == "target":
            return [Completion(n, "attribute", doc) for n, doc in TARGET.items()]
        if dotted is not None and dotted[1] in dialects():
            return [Completion(n, "operator", dotted[1]) for n in sorted(dialects()[dotted[1]].op_names())]
        asked = re.match(r"\s*(stage|use|before|after)\s[\w, ]*$", here)
        if asked is not None:
            return self.names(asked[1])
        types = [Completion(k, "keyword", "element type") for k in (*DTYPES, *DTYPE_CLASSES)]
        if re.search(r"[\w?]:\s*(const\s+)?\w*$", here):
            return [Completion("const", "keyword", "known when the rule is matched"), *types]
        inside = enclosing(before)
        out: list[Completion] = []
        if inside is not None:
            bracket, name = inside
            defn = operator(text, name)
            if defn is not None and bracket == "{":
                return [Completion(a.name, "attribute", attribute(a)) for a in defn.attributes.values()]
            if defn is not None:
                out += [Completion(o.name, "operand", spec_of(o)) for o in defn.operands]
        for d in used(text):
            out += [Completion(n, "operator", d) for n in sorted(dialects()[d].op_names())] if d in dialects() else []
        out += [Completion(n, "function", f.doc) for n, f in sorted(FUNCTIONS.items())]
        for f in self.files:
            out += [Completion(n, "pattern", f.path) for n in f.patterns]
        return [*out, *(Completion(k, "keyword", "") for k in (*KEYWORDS, *CONSTANTS)), *types]

    def names(self, keyword: str) -> list[Completion]:
        """What may stand behind a keyword that takes names."""
        if keyword == "use":
            return [Completion(n, "keyword", "dialect") for n in dialects()]
        rules = [r for f in self.files for r in f.rules]
        if keyword == "stage":
            return [Completion(n, "keyword", "stage") for n in dict.fromkeys(r.stage for r in rules)]
        return [Completion(r.name, "keyword", f"rule of stage {r.stage}: {r.doc}") for r in rules]

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
        start = rule_start(text, line)
        bound = re.compile(rf"\b{re.escape(word)}\b")
        offset = sum(len(x) + 1 for x in text.splitlines()[:start])
        m = bound.search(text, offset)
        return _place(path, text, m.start(), len(word)) if m is not None else None


def _before(text: str, line: int, column: int) -> str:
    """The text up to a place."""
    lines = text.splitlines()
    return "\n".join([*lines[:line], lines[line][:column] if line < len(lines) else ""])


def _place(path: str, source: str, offset: int, width: int) -> Place:
    head = source[:offset]
    return Place(path, head.count("\n"), offset - (head.rfind("\n") + 1), width)

"""The names that rule files give to rules, patterns and functions: each stands for one thing in all files together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compiler.ir import UnknownOperatorError, dialects, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.diagnostics import Diagnostic
from compiler.rewrite.functions import FUNCTIONS


def clashes(files: Sequence[s.RuleFile]) -> Iterator[Diagnostic]:
    """What is named as something else is, in the order of files: the later is reported.

    A rule file sees the patterns and functions of all others, so a second one of the same name would change what rules
    of other files mean.
    """
    rules: dict[str, s.Rule] = {}
    known: dict[str, tuple[s.RuleFile, s.PatternDef | s.FnDef | s.Extern]] = {}
    for f in files:
        for r in f.rules:
            if r.name in rules:
                first = rules[r.name]
                message = f"rule '{r.name}' stands already in {first.file}:{first.pos.line}; choose another name"
                yield Diagnostic(f.path, r.name_pos, message, code="duplicate")
            rules[r.name] = r
        for kind, defined in (("pattern", f.patterns), ("fn", f.fns), ("extern", f.externs)):
            for name, d in defined.items():
                if isinstance(d, s.PatternDef):
                    meant = _operator(name, d.use)
                else:
                    meant = "a function of the language" if name in FUNCTIONS else None
                if meant is not None:
                    message = f"{kind} '{name}': the name is that of {meant}; choose another"
                    yield Diagnostic(f.path, d.pos, message, code="duplicate")
                where, other = known.setdefault(name, (f, d))
                if other is not d and not _same_function(other, d):
                    message = (
                        f"{kind} '{name}': the name stands already in {where.path}:{other.pos.line}; choose another"
                    )
                    yield Diagnostic(f.path, d.pos, message, code="duplicate")


def _operator(name: str, use: Sequence[str]) -> str | None:
    """Which operator an unqualified name is."""
    for dialect in use:
        if dialect in dialects():
            try:
                return f"the operator {lookup(f'{dialect}.{name}').name}"
            except UnknownOperatorError:
                continue
    return None


def _same_function(a: s.PatternDef | s.FnDef | s.Extern, b: s.PatternDef | s.FnDef | s.Extern) -> bool:
    """Whether two files declare the same Python function."""
    return isinstance(a, s.Extern) and isinstance(b, s.Extern) and a.module == b.module

"""The static checks of a library, put together: what `planish rules check` and the language server report.

Rules of the user's own are checked when they load, as far as :func:`at_load` goes; the whole is for those who write
rules.
"""

from __future__ import annotations

from collections.abc import Sequence

from compiler.errors import UserError
from compiler.rewrite import syntax as s
from compiler.rewrite.check_cycles import endless
from compiler.rewrite.check_kinds import dead_names, ill_typed_expressions
from compiler.rewrite.check_overlaps import overlapping, unreachable
from compiler.rewrite.check_types import ill_typed
from compiler.rewrite.diagnostics import Diagnostic
from compiler.rewrite.library import Library
from compiler.rewrite.resolve import Resolver
from compiler.rewrite.rule_tests import findings as test_findings
from compiler.rewrite.stage import Entry, Stage


def check(library: Library, files: Sequence[str] | None = None, overlaps: bool = False) -> list[Diagnostic]:
    """All findings in a library, errors and warnings, by place.

    Args:
        files: only findings in these; None: in all.
        overlaps: also look for pairs of rules whose order decides the outcome, which takes seconds for a large stage.
    """
    found: dict[Diagnostic, None] = {}
    wanted = {f.path for f in library.files} if files is None else set(files)
    checked = [f for f in library.files if f.path in wanted]
    called: set[str] = set()
    if any(f.patterns or f.fns or f.externs for f in checked):
        called = {c for f in library.files for c in _called(f)}
    for f in checked:
        found.update(dict.fromkeys(_definitions(library, f, called)))
    for name in dict.fromkeys(r.stage for f in checked for r in f.rules):
        found.update(dict.fromkeys(_stage(library, name, wanted, overlaps)))
    position = {f.path: i for i, f in enumerate(library.files)}
    return sorted((d for d in found if d.file in wanted), key=lambda d: (position[d.file], d.pos))


def at_load(entries: Sequence[Entry], own: Sequence[Entry], name: str) -> list[Diagnostic]:
    """The errors in some rules of a stage that make a rule useless or the stage endless.

    Args:
        own: the entries to check, among all ``entries`` of the stage called ``name``.
    """
    found = dict.fromkeys(d for e in own for d in _variant(e))
    out = [d for d in found if d.severity == "error"]
    if not out:
        out = [*endless(entries, own, name), *unreachable(entries, own)]
    return out


def _variant(e: Entry) -> list[Diagnostic]:
    out = [*ill_typed(e.variant), *ill_typed_expressions(e.variant)]
    told = {g.id for example in e.rule.examples for g in example}
    for name, pos in dead_names(e.variant):
        if name in told:  # an example needs a name for what it gives
            continue
        message = f"'{name}' is never used; write '_' for an operand of which nothing is asked"
        out.append(Diagnostic(e.rule.file, pos, message, "warning", "unused"))
    return out


def _stage(library: Library, name: str, wanted: set[str], overlaps: bool) -> list[Diagnostic]:
    out: list[Diagnostic] = []
    ordered, order_findings = library.ordered(name)
    out.extend(order_findings)
    entries: list[Entry] = []
    for rule in ordered:
        resolver = Resolver(library.env, library.file_of(rule.name))
        for v in resolver.rule(rule):
            entry = Entry(v, library)
            if rule.file in wanted:
                try:
                    _ = entry.builds
                except (ValueError, UserError) as why:
                    out.append(Diagnostic(rule.file, rule.name_pos, f"rule '{rule.name}': {why}", code="compile"))
                    continue
            entries.append(entry)
        out.extend(resolver.diagnostics)
        if rule.file in wanted:
            out.extend(test_findings(library, rule))
    sound: list[Entry] = []
    for e in entries:
        findings = _variant(e) if e.rule.file in wanted else []
        out.extend(findings)
        if not any(d.severity == "error" for d in findings):
            sound.append(e)
    own = [e for e in sound if e.rule.file in wanted]
    out.extend(endless(sound, own, name))
    out.extend(unreachable(sound, own))
    if overlaps:
        out.extend(overlapping(sound, Stage(name, sound), own))
    return out


def _definitions(library: Library, file: s.RuleFile, called: set[str]) -> list[Diagnostic]:
    """Findings in patterns, functions and Python functions, and those that nothing uses."""
    resolver = Resolver(library.env, file)
    resolver.definitions_of(file)
    out = list(resolver.diagnostics)
    for e in file.externs.values():
        try:
            library.extern(e.name)
        except UserError as error:
            out.append(Diagnostic(file.path, e.pos, error.message, code="extern"))
    for kind, names in (("pattern", file.patterns), ("fn", file.fns), ("extern", file.externs)):
        for name, definition in names.items():
            if name not in called:
                message = f"{kind} '{name}' is never used"
                out.append(Diagnostic(file.path, definition.pos, message, "warning", "unused"))
    return out


def _called(file: s.RuleFile) -> set[str]:
    """Every name that is called in a file, as a function or as a pattern."""
    out: set[str] = set()
    todo: list[object] = [*file.rules, *file.patterns.values(), *file.fns.values()]
    while todo:
        node = todo.pop()
        if isinstance(node, tuple):
            todo.extend(x for x in node if not isinstance(x, (str, int, float)))
            continue
        if isinstance(node, s.Call):
            out.add(node.callee)
        elif isinstance(node, s.OpPattern):
            out.update(node.names)
        todo.extend(getattr(node, f) for f in getattr(node, "__dataclass_fields__", ()) if f != "pos")
    return out

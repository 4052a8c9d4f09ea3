"""Rules that were loaded together, resolved and compiled into stages."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compiler.errors import UserError
from compiler.ir import Block, Function, Module, suggest
from compiler.rewrite import syntax as s
from compiler.rewrite.definitions import clashes
from compiler.rewrite.diagnostics import Diagnostic, RuleError
from compiler.rewrite.order import in_order
from compiler.rewrite.resolve import Resolver
from compiler.rewrite.resolve_names import Environment
from compiler.rewrite.stage import Entry, Stage

if TYPE_CHECKING:
    from compiler.rewrite.driver import Report


class Library:
    """Rules loaded together. Stages are compiled when they are first asked for."""

    def __init__(
        self,
        files: Sequence[s.RuleFile],
        disabled: Iterable[str] = (),
        traced: bool = False,
        checked: bool = False,
    ) -> None:
        """Resolves all rules.

        Args:
            checked: rules that do not come with the compiler are also checked as :mod:`compiler.rewrite.check` does at
                load, when their stage is compiled.

        Raises:
            RuleError: rules are wrong; all findings at once.
            UserError: a disabled rule does not exist.
        """
        self.files = list(files)
        self.sources = {f.path: f.source for f in files}
        self.traced = traced
        self.checked = checked
        self.env = Environment()
        for f in files:
            self.env.add(f)
        self.rules: dict[str, s.Rule] = {}
        self._files: dict[str, s.RuleFile] = {}
        position = {f.path: i for i, f in enumerate(files)}
        findings = sorted(clashes(self.files), key=lambda d: (position[d.file], d.pos))
        for f in files:
            for r in f.rules:
                self.rules[r.name] = r
                self._files[r.name] = f
        self.disabled = tuple(disabled)
        for name in self.disabled:
            if name not in self.rules:
                raise UserError(
                    f"no rule is called '{name}'{suggest(name, self.rules)}", "planish rules doc lists them"
                )
        if findings:
            raise RuleError(findings, self.sources)
        self._stages: dict[str, Stage] = {}
        self.externs: Mapping[str, Callable[..., Any]] = _LazyExterns(self)
        self._imported: dict[str, Callable[..., Any]] = {}
        self.warnings: list[Diagnostic] = []

    @property
    def stages(self) -> tuple[str, ...]:
        """The names of all stages that have rules."""
        return tuple(dict.fromkeys(r.stage for r in self.rules.values()))

    @property
    def hash(self) -> str:
        """Identifies the set of rules: the same text gives the same hash."""
        h = hashlib.sha256()
        for f in sorted(self.files, key=lambda f: Path(f.path).name):
            h.update(f.source.encode())
        h.update("\0".join(sorted(self.disabled)).encode())
        return h.hexdigest()

    def stage(self, name: str) -> Stage:
        """The compiled stage; an empty one if no rule joins it.

        Raises:
            RuleError: a rule of the stage is wrong; all findings of the stage at once.
        """
        found = self._stages.get(name)
        if found is None:
            found = self._stages[name] = self.compile([r for r in self.rules.values() if r.stage == name], name)
        return found

    def compile_own(self) -> None:
        """Compiles the stages that rules join which do not come with the compiler, so that what is wrong is found now.

        Raises:
            RuleError: all findings in those stages at once.
        """
        findings: list[Diagnostic] = []
        for name in dict.fromkeys(r.stage for f in self.files if not f.builtin for r in f.rules):
            try:
                self.stage(name)
            except RuleError as e:
                findings.extend(e.diagnostics)
        if findings:
            raise RuleError(findings, self.sources)

    def rewrite(self, scope: Module | Function | Block, stage: str, target: Any = None, **options: Any) -> Report:
        """Applies a stage to everything in ``scope``; see :func:`compiler.rewrite.driver.rewrite`."""
        from compiler.rewrite.driver import rewrite  # the driver runs stages, and so imports this module

        return rewrite(scope, self.stage(stage), target, **options)

    def check(self) -> list[Diagnostic]:
        """All findings in all rules, warnings included."""
        out: list[Diagnostic] = []
        for name in dict.fromkeys(r.stage for r in self.rules.values()):
            try:
                self.compile([r for r in self.rules.values() if r.stage == name], name, whole=True)
            except RuleError as e:
                out.extend(e.diagnostics)
        return [*out, *dict.fromkeys(self.warnings)]

    def compile(self, rules: Sequence[s.Rule], name: str, whole: bool = False) -> Stage:
        """Resolves rules into a stage; a user's rules, or all if ``whole``, are also compiled, to find all errors."""
        findings: list[Diagnostic] = []
        entries: list[Entry] = []
        for rule in in_order([r for r in rules if r.name not in self.disabled], findings):
            resolver = Resolver(self.env, self._files[rule.name])
            variants = resolver.rule(rule)
            findings.extend(d for d in resolver.diagnostics if d.severity == "error")
            self.warnings.extend(d for d in resolver.diagnostics if d.severity == "warning")
            for v in variants:
                entry = Entry(v, self)
                entries.append(entry)
                if not whole and self._files[rule.name].builtin:
                    continue
                try:
                    _ = entry.builds
                except (ValueError, UserError) as e:
                    findings.append(Diagnostic(rule.file, rule.name_pos, f"rule '{rule.name}': {e}", code="compile"))
        own = [e for e in entries if self.checked and not self._files[e.rule.name].builtin]
        if own and not findings:
            from compiler.rewrite.check import at_load  # which builds on this module

            findings = at_load(entries, own, name)
        if findings:
            raise RuleError(findings, self.sources)
        return Stage(name, entries)

    def ordered(self, stage: str) -> tuple[list[s.Rule], list[Diagnostic]]:
        """The rules of a stage that are not disabled, in the order in which they are tried, and what contradicts it."""
        findings: list[Diagnostic] = []
        rules = [r for r in self.rules.values() if r.stage == stage and r.name not in self.disabled]
        return in_order(rules, findings), findings

    def file_of(self, rule: str) -> s.RuleFile:
        """The file that a rule stands in."""
        return self._files[rule]

    def extern(self, name: str) -> Callable[..., Any]:
        """The Python function that ``name`` stands for: one declared by ``extern``, or a dotted path.

        Raises:
            UserError: it cannot be imported.
        """
        found = self._imported.get(name)
        if found is None:
            declared = self.env.externs.get(name)
            module, _, attribute = (f"{declared.module}.{name}" if declared else name).rpartition(".")
            try:
                found = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as e:
                top = module.partition(".")[0]
                missing = isinstance(e, ModuleNotFoundError) and e.name == top
                how = f"; install it, or let PYTHONPATH name the folder of {top}.py" if missing else ""
                raise UserError(f"Python function '{attribute}' cannot be imported from '{module}': {e}{how}") from None
            self._imported[name] = found
        return found


class _LazyExterns(dict[str, Callable[..., Any]]):
    """Imports a Python function when generated code first refers to it."""

    def __init__(self, library: Library) -> None:
        super().__init__()
        self.library = library

    def __missing__(self, name: str) -> Callable[..., Any]:
        return self.library.extern(name)

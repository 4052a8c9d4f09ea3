"""The names of a rule: what they stand for, and the operators among them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from compiler.ir import DTYPES, OpDef, UnknownOperatorError, dialects, lookup, suggest
from compiler.rewrite import syntax as s
from compiler.rewrite.diagnostics import Diagnostic
from compiler.rewrite.functions import CONSTANTS

#: What a name stands for: a value of the graph, a list of them, data known when the rule matches, a dimension, several,
#: an element type, all attributes, a region.
Kind = Literal["value", "values", "data", "dim", "dims", "dtype", "attrs", "region"]


#: ``clone(y, a, b) {…}`` builds the operator that makes ``y`` again, with other operands.
CLONE = "clone"


@dataclass(frozen=True, slots=True)
class Binding:
    """A name that the match binds."""

    kind: Kind
    optional: bool = False
    const: bool = False


@dataclass(frozen=True, slots=True)
class Variant:
    """A rule without alternatives, all names resolved.

    Attributes:
        roots: the targets that the rewrite replaces, by statement.
        anchor: index of the statement with which matching starts.
    """

    rule: s.Rule
    statements: tuple[s.MatchStmt, ...]
    where: tuple[s.Expr, ...]
    let: tuple[s.LetStmt, ...]
    rewrites: tuple[s.Rewrite, ...]
    bindings: Mapping[str, Binding]
    anchors: tuple[int, ...]


@dataclass(slots=True)
class Environment:
    """What a rule file may refer to: patterns, functions and Python functions of all files that are loaded together."""

    patterns: dict[str, s.PatternDef] = field(default_factory=dict)
    fns: dict[str, s.FnDef] = field(default_factory=dict)
    externs: dict[str, s.Extern] = field(default_factory=dict)

    def add(self, file: s.RuleFile) -> None:
        self.patterns.update(file.patterns)
        self.fns.update(file.fns)
        self.externs.update(file.externs)


class Names:
    """What the names of one file mean, and what has been found wrong with them."""

    def __init__(self, env: Environment, file: s.RuleFile) -> None:
        self.env = env
        self.file = file
        self.diagnostics: list[Diagnostic] = []
        self.bindings: dict[str, Binding] = {}
        self.used: set[str] = set()
        self.use: tuple[str, ...] = ()

    def report(self, pos: s.Pos, message: str, severity: Literal["error", "warning"] = "error", code: str = "") -> None:
        found = Diagnostic(self.file.path, pos, message, severity, code)
        if found not in self.diagnostics:  # alternatives repeat what is wrong outside them
            self.diagnostics.append(found)

    def _errors(self) -> int:
        return sum(d.severity == "error" for d in self.diagnostics)

    def bind(self, name: str, binding: Binding, pos: s.Pos) -> None:
        if name == "_":
            return
        old = self.bindings.get(name)
        if old is None:
            if name in CONSTANTS or name in DTYPES or name == "target":
                self.report(pos, f"'{name}' has a meaning of its own here; choose another name")
            self.bindings[name] = binding
            return
        if old.kind != binding.kind:
            self.report(pos, f"'{name}' stands for a {old.kind} already; here it would be a {binding.kind}")
        self.used.add(name)
        self.bindings[name] = replace(old, optional=old.optional and binding.optional, const=old.const or binding.const)

    def definitions(self, names: Iterable[str]) -> list[OpDef]:
        out = []
        for n in names:
            if "." in n:
                try:
                    out.append(lookup(n))
                except UnknownOperatorError:
                    continue
        return out

    def op_name(self, name: str, pos: s.Pos) -> str:
        """The qualified name of an operator; what cannot be resolved is reported and comes back as it is."""
        if "." in name:
            try:
                return lookup(name).name
            except UnknownOperatorError as e:
                self.report(pos, str(e), code="unknown-operator")
                return name
        for d in self.use:
            try:
                return lookup(f"{d}.{name}").name
            except UnknownOperatorError:
                continue
        known = dialects()
        pool = [n for d in self.use if d in known for n in known[d].op_names()]
        missing = [d for d in self.use if d not in known]
        hint = f"no dialect is called '{missing[0]}'" if missing else f"unknown operator '{name}'{suggest(name, pool)}"
        if not self.use:
            hint = f"unknown operator '{name}'; name its dialect, as in onnx.{name}, or write 'use onnx' above"
        self.report(pos, hint, code="unknown-operator")
        return name

    def attribute_name(self, name: str, pos: s.Pos, defns: Iterable[OpDef]) -> None:
        for defn in defns:
            if name not in defn.attributes:
                operand = " (it is an operand)" if defn.operand_index(name) is not None else ""
                near = suggest(name, defn.attributes)
                self.report(pos, f"{defn.name} has no attribute '{name}'{operand}{near}", code="unknown-attribute")

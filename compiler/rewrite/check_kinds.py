"""Ill-typed expressions: comparisons that never hold, arithmetic on what is no number, names in the wrong place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from compiler.ir import DTYPES, lookup, suggest
from compiler.rewrite import syntax as s
from compiler.rewrite.check_types import CALLED, Report, values
from compiler.rewrite.diagnostics import Diagnostic
from compiler.rewrite.functions import CONSTANTS, FUNCTIONS
from compiler.rewrite.resolve_names import CLONE, Binding, Variant

#: Values of ``target`` members that exist.
_UNITS = ("ane", "gpu", "cpu", "metal")
_PRECISIONS = ("fp16", "fp32")

#: What an expression is: data of these kinds, a value of the graph as it is, or unknown.
Sort = Literal["number", "string", "bool", "list", "type", "array", "none", "value", "attrs", "?"]

_RESULTS: dict[str, Sort] = {
    **dict.fromkeys(("uses", "rank", "dim", "int", "float", "len", "prod", "axis", "size", "largest"), "number"),
    **dict.fromkeys(
        ("is_static", "has_rank", "is_const", "has", "same_type", "same_shape", "broadcasts_to", "may_broadcast_to"),
        "bool",
    ),
    **dict.fromkeys(("all", "any"), "bool"),
    **dict.fromkeys(
        ("shape", "dims", "ints", "floats", "range", "zip", "sorted", "reversed", "iota", "compose", "inverse", "axes"),
        "list",
    ),
    "normalized_perm": "list",
    "dtype": "type",
    "op_name": "string",
}
_ATTRIBUTES: dict[str, Sort] = {
    **dict.fromkeys(("int", "float"), "number"),
    **dict.fromkeys(("ints", "floats", "strings", "bools"), "list"),
    "string": "string",
    "bool": "bool",
    "type": "type",
    "tensor": "array",
}
_WORDS: dict[Sort, str] = {
    "number": "a number",
    "string": "a string",
    "bool": "true or false",
    "list": "a list",
    "type": "an element type",
    "array": "an array",
    "none": "none",
    "attrs": "a set of attributes",
}


def ill_typed_expressions(variant: Variant) -> list[Diagnostic]:
    """The findings in the conditions, compile-time values and results of a variant."""
    found: list[Diagnostic] = []

    def report(pos: s.Pos, message: str, severity: Literal["error", "warning"], code: str) -> None:
        found.append(Diagnostic(variant.rule.file, pos, message, severity, code))

    _Kinds(variant, report).rule()
    return found


class _Kinds:
    """Finds ill-typed expressions: comparisons that never hold, arithmetic on what is no number, names misused."""

    def __init__(self, variant: Variant, report: Report) -> None:
        self.variant = variant
        self.report = report
        self.sorts: dict[str, Sort] = {}
        self.never_const = self.results()
        for name, b in variant.bindings.items():
            self.sorts[name] = self.sort_of(b)
        for stmt in variant.statements:
            self.attributes(stmt.pattern)

    @staticmethod
    def sort_of(b: Binding) -> Sort:
        match b.kind:
            case "value":
                return "value"
            case "values" | "dims":
                return "list"
            case "dim":
                return "number"
            case "dtype":
                return "type"
            case "attrs":
                return "attrs"
            case _:
                return "?"

    def results(self) -> set[str]:
        """Names of values that an operator makes which is no constant: they are known at no time."""
        return {
            t.id
            for stmt in self.variant.statements
            if isinstance(stmt.pattern, s.OpPattern) and all(lookup(n).constant is None for n in stmt.pattern.names)
            for t in stmt.targets
            if not t.variadic
        }

    def attributes(self, p: Any) -> None:
        if isinstance(p, s.NamedOperand):
            self.attributes(p.pattern)
        if not isinstance(p, s.OpPattern):
            return
        for a in p.args:
            self.attributes(a)
        for attr in p.attrs:
            if isinstance(attr, s.AttrSpread):
                continue
            for c in attr.choices:
                if c.kind not in ("bind", "optional", "default") or c.value == "_":
                    continue
                name = c.value[0] if c.kind == "default" else c.value
                kinds = {lookup(n).attributes[attr.name].kind for n in p.names if attr.name in lookup(n).attributes}
                sorts = {_ATTRIBUTES.get(k, "?") for k in kinds}
                if kinds == {"int"} and attr.name in ("to", "dtype"):
                    sorts = {"type"}
                if c.kind != "optional" and len(sorts) == 1 and name in self.sorts:
                    self.sorts[name] = sorts.pop()

    def rule(self) -> None:
        v = self.variant
        for b in v.let:
            self.sorts[b.id] = self.data(b.value)
        for w in v.where:
            self.condition(w)
        for r in v.rewrites:
            if r.when is not None:
                self.condition(r.when)
            for stmt in r.statements:
                self.build(stmt.value)

    def condition(self, e: s.Expr) -> None:
        sort = self.data(e)
        if sort in ("string", "list", "type"):
            self.report(e.pos, f"a condition is true or false; this is {_WORDS[sort]}", "error", "ill-typed")

    # Each of these gives the sort of an expression, and reports what is wrong inside.

    def data(self, e: s.Arg) -> Sort:
        match e:
            case s.Name(name, pos):
                return self.name(name, pos)
            case s.Literal(value, _):
                return "string" if isinstance(value, str) else "number"
            case s.Unary(op, operand, pos):
                inner = self.data(operand)
                if op == "-":
                    self.arithmetic("-", inner, pos)
                return "bool" if op == "not" else inner
            case s.Binary():
                return self.binary(e)
            case s.Conditional():
                self.data(e.condition)
                then, other = self.data(e.then), self.data(e.otherwise)
                return then if then == other else "?"
            case s.Index(base, index, pos):
                sort = self.data(base)
                if sort in ("number", "bool", "type"):
                    self.report(pos, f"{_WORDS[sort]} has no elements", "error", "ill-typed")
                for part in (index.start, index.stop) if isinstance(index, s.Slice) else (index,):
                    if part is not None:
                        self.data(part)
                return "list" if isinstance(index, s.Slice) and sort == "list" else "?"
            case s.Member(_, name, _):
                return "number" if name == "ios" else "string" if name in ("unit", "precision") else "?"
            case s.ListExpr(items, _):
                for i in items:
                    self.data(i)
                return "list"
            case s.Comprehension():
                self.raw(e.iterable)
                return "list"
            case s.Call():
                return self.call(e)
            case s.Spread(value, _) | s.Keyword(_, value, _):
                return self.data(value)
            case _:
                return "?"

    def name(self, name: str, pos: s.Pos) -> Sort:
        sort = self.sorts.get(name)
        if sort is None:
            if name in DTYPES:
                return "type"
            value = CONSTANTS.get(name, 0)
            return (
                "none"
                if value is None
                else "bool"
                if isinstance(value, bool)
                else "?"
                if name not in CONSTANTS
                else "number"
            )
        if sort == "value":
            if name in self.never_const:
                self.report(
                    pos,
                    f"'{name}' is computed by the model, so its contents are not known here; use rank({name}), "
                    f"shape({name}) or dtype({name}) for what is",
                    "error",
                    "not-constant",
                )
            return "array"
        binding = self.variant.bindings.get(name)
        if binding is not None and binding.kind == "region":
            self.report(
                pos, f"'{name}' is a region: it can only be passed on, as in If(c) with ({name}, …)", "error", "region"
            )
        return sort

    def binary(self, e: s.Binary) -> Sort:
        left, right = self.data(e.left), self.data(e.right)
        if e.op in ("==", "!="):
            self.comparable(left, right, e)
            self.known_word(e)
            return "bool"
        if e.op in ("<", ">", "<=", ">="):
            for sort in (left, right):
                if sort in ("string", "type", "list", "attrs"):
                    self.report(e.pos, f"'{e.op}' compares numbers; this is {_WORDS[sort]}", "error", "ill-typed")
            return "?"
        if e.op in ("in", "not in"):
            if right in ("number", "bool", "type"):
                self.report(e.pos, f"'{e.op}' needs a list or a range on its right, as in 2..64", "error", "ill-typed")
            return "bool"
        if e.op in ("and", "or"):
            return "bool" if left == right == "bool" else "?"
        if e.op == "..":
            return "list"
        if e.op == "??":
            return right if left in ("?", right) else "?"
        for sort in (left, right):
            self.arithmetic(e.op, sort, e.pos)
        return "array" if "array" in (left, right) else "number" if left == right == "number" else "?"

    def arithmetic(self, op: str, sort: Sort, pos: s.Pos) -> None:
        if sort in ("string", "type", "attrs") or (sort == "list" and op not in ("+", "*")):
            self.report(pos, f"'{op}' works on numbers and arrays; this is {_WORDS[sort]}", "error", "ill-typed")

    def comparable(self, left: Sort, right: Sort, e: s.Binary) -> None:
        free = {"?", "array", "none", "value"}
        if left in free or right in free or left == right or {left, right} == {"bool", "number"}:
            return
        always = "never holds" if e.op == "==" else "always holds"
        self.report(
            e.pos, f"this {always}: one side is {_WORDS[left]}, the other {_WORDS[right]}", "error", "ill-typed"
        )

    def known_word(self, e: s.Binary) -> None:
        """``target.unit`` is one of few words; so is an attribute that only takes some, but that no dialect says."""
        for a, b in ((e.left, e.right), (e.right, e.left)):
            if isinstance(a, s.Member) and isinstance(b, s.Literal) and isinstance(b.value, str):
                known = _UNITS if a.name == "unit" else _PRECISIONS if a.name == "precision" else ()
                if known and b.value not in known:
                    near = suggest(b.value, known) or f"; it is one of {', '.join(known)}"
                    self.report(b.pos, f'target.{a.name} is never "{b.value}"{near}', "error", "ill-typed")

    def call(self, e: s.Call) -> Sort:
        known = FUNCTIONS.get(e.callee)
        for a in e.args:
            if known is not None and known.takes_values:
                self.raw(a)
            elif known is not None:
                self.data(a)
            else:
                self.raw(a)
        return _RESULTS.get(e.callee, "?")

    def raw(self, e: s.Arg) -> None:
        """An argument that is taken as it is: a name there may stand for any value."""
        if isinstance(e, (s.Spread, s.Keyword)):
            self.raw(e.value)
        elif isinstance(e, s.Index):
            self.raw(e.base)
        elif not isinstance(e, (s.Name, s.Optional, s.ListExpr, s.Comprehension)):
            self.data(e)

    def build(self, e: s.Arg) -> None:
        match e:
            case s.Call() if ("." in e.callee and e.callee != "target.supports") or e.callee == CLONE:
                for a in e.args:
                    self.build(a)
                for attr in e.attrs or ():
                    if isinstance(attr, s.AttrValue):
                        self.attribute(e, attr)
            case s.Name(name, pos):
                binding = self.variant.bindings.get(name)
                if binding is not None and binding.kind in ("attrs", "region", "dtype"):
                    word = {"attrs": "a set of attributes", "region": "a region", "dtype": "an element type"}[
                        binding.kind
                    ]
                    self.report(pos, f"'{name}' is {word}, no operand", "error", "ill-typed")
            case s.Keyword(_, value, _) | s.Spread(value, _):
                self.build(value)
            case s.Conditional():
                self.condition(e.condition)
                self.build(e.then)
                self.build(e.otherwise)
            case s.Optional() | s.ListExpr() | s.Comprehension() | s.Index():
                pass
            case s.Literal(value, pos) if isinstance(value, str):
                self.report(pos, "a string is no operand; attributes stand in {…}", "error", "ill-typed")
            case _:
                self.data(e)

    def attribute(self, e: s.Call, a: s.AttrValue) -> None:
        sort = self.data(a.value)
        if e.callee == CLONE:
            return
        spec = lookup(e.callee).attributes.get(a.name)
        want: Sort = _ATTRIBUTES.get(spec.kind, "?") if spec is not None else "?"
        if spec is None or "?" in (want, sort) or sort in ("none", "array", want) or want == "array":
            return
        if {sort, want} == {"bool", "number"} or (want == "number" and sort == "type"):
            return
        report = f"attribute {a.name} of {e.callee} is {CALLED[spec.kind]}; this is {_WORDS[sort]}"
        self.report(a.value.pos, report, "error", "attribute-type")


def dead_names(variant: Variant) -> Iterator[tuple[str, s.Pos]]:
    """Operands that are named once and used nowhere: they would read better as ``_``."""
    v = variant
    if any(r.builder for r in v.rewrites):
        return
    used: set[str] = set()
    for w in v.where:
        used |= s.mentioned(w)
    for b in v.let:
        used |= s.mentioned(b.value)
    for r in v.rewrites:
        used |= s.mentioned(r.when) if r.when is not None else set()
        for stmt in r.statements:
            used |= s.mentioned(stmt.value) | {t.id for t in stmt.targets}
    patterns = [p for stmt in v.statements for p in values(stmt.pattern)]
    counts: dict[str, int] = {}
    for p in patterns:
        counts[p.id] = counts.get(p.id, 0) + 1
    targets = {t.id for stmt in v.statements for t in stmt.targets}
    for p in patterns:
        if p.id not in used and counts[p.id] == 1 and p.id != "_" and p.id not in targets and "__" not in p.id:
            yield p.id, p.pos

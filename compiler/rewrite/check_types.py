"""What is wrong with one rule whatever graph it meets: contradictions of attributes, element types and ranks.

Everything here is certain: a finding means that the rule (or one of its alternatives) can never apply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from compiler.ir import DTYPES, DType, OpDef, get_dialect, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.check_terms import Node, Term, Terms, terms
from compiler.rewrite.diagnostics import Diagnostic
from compiler.rewrite.resolve_names import Variant

Report = Callable[[s.Pos, str, Literal["error", "warning"], str], None]


def ill_typed(variant: Variant) -> list[Diagnostic]:
    """The findings in one variant of a rule."""
    found: list[Diagnostic] = []

    def report(pos: s.Pos, message: str, severity: Literal["error", "warning"], code: str) -> None:
        found.append(Diagnostic(variant.rule.file, pos, message, severity, code))

    for stmt in variant.statements:
        _attributes(stmt.pattern, report)
    _element_types(variant, report)
    _ranks(variant, report)
    return found


# ---- attributes

_ACCEPTS: dict[str, tuple[type, ...]] = {
    "int": (int, DType),
    "float": (int, float),
    "string": (str,),
    "bool": (bool,),
    "ints": (tuple,),
    "floats": (tuple,),
    "strings": (tuple,),
    "bools": (tuple,),
    "type": (DType,),
    "tensor": (int, float, tuple),
}
CALLED = {
    "int": "an integer",
    "float": "a number",
    "string": "a string",
    "bool": "true or false",
    "ints": "a list of integers",
    "floats": "a list of numbers",
    "strings": "a list of strings",
    "bools": "a list of true and false",
    "type": "an element type",
    "tensor": "a tensor",
}


def _attributes(p: Any, report: Report) -> None:
    """Literals that an attribute can never be."""
    if isinstance(p, s.NamedOperand):
        _attributes(p.pattern, report)
    if not isinstance(p, s.OpPattern):
        return
    for a in p.args:
        _attributes(a, report)
    for attr in p.attrs:
        if isinstance(attr, s.AttrSpread):
            continue
        for choice in attr.choices:
            value = _literal(choice)
            if value is None:
                continue
            kinds = {lookup(n).attributes[attr.name].kind for n in p.names if attr.name in lookup(n).attributes}
            if kinds and not any(_is(value, k) for k in kinds):
                kind = min(kinds)
                report(
                    choice.pos, f"attribute {attr.name} of {p.names[0]} is {CALLED[kind]}", "error", "attribute-type"
                )


def _literal(c: s.AttrChoice) -> Any:
    if c.kind == "literal":
        return c.value
    if c.kind == "approx":
        return float(c.value[0])
    if c.kind == "default":
        return c.value[1]
    if c.kind == "bind" and c.value in DTYPES:
        return DTYPES[c.value]
    return c.value == "true" if c.kind == "bind" and c.value in ("true", "false") else None


def _is(value: Any, kind: str) -> bool:
    accepted = _ACCEPTS.get(kind)
    if accepted is None:
        return True
    if isinstance(value, bool) and kind != "bool":
        return False
    if not isinstance(value, accepted):
        return False
    element = kind.removesuffix("s")
    return not isinstance(value, tuple) or kind == "tensor" or all(_is(v, element) for v in value)


# ---- element types


def _element_types(variant: Variant, report: Report) -> None:
    """Contradictions among constraints and definitions; results whose element type cannot be the replaced value's."""
    t = terms(variant)
    solver = _Solver()
    try:
        for node in t.nodes:
            solver.node(node)
    except _Contradiction as e:
        place = _place(variant, e.term) or variant.rule.name_pos
        report(place, f"the pattern never matches: {e}", "error", "impossible")
        return
    for i, built in enumerate(t.built):
        _results(variant, t, i, built, solver, report)


def _results(
    variant: Variant, t: Terms, index: int, built: Mapping[str, Term], solver: _Solver, report: Report
) -> None:
    inner = solver.copy()
    stmts = {x.id: (stmt, x) for stmt in variant.rewrites[index].statements for x in stmt.targets}
    for name, term in built.items():
        stmt, _ = stmts[name]
        try:
            inner.term(term)
        except _Contradiction as e:
            report(stmt.value.pos, f"what the rewrite builds can never be: {e}", "error", "result-type")
            return
        old = t.named.get(name)
        if old is None or (term.node is None and not term.name):
            continue
        have, want = inner.types(term), inner.types(old)
        if have is not None and want is not None and not have & want:
            report(
                stmt.value.pos,
                f"'{name}' is {_listed(want)}, but what is built for it is {_listed(have)}, so the rule never applies",
                "error",
                "result-type",
            )


class _Contradiction(Exception):  # noqa: N818 (a finding, no error of ours)
    def __init__(self, term: Term, message: str) -> None:
        super().__init__(message)
        self.term = term


class _Solver:
    """Element types by classes of values that must agree: those under one type variable of an operator."""

    def __init__(self) -> None:
        self.parent: dict[Any, Any] = {}
        self.allowed: dict[Any, frozenset[DType]] = {}
        self.done: set[Node] = set()

    def copy(self) -> _Solver:
        new = _Solver()
        new.parent, new.allowed, new.done = dict(self.parent), dict(self.allowed), set(self.done)
        return new

    def find(self, key: Any) -> Any:
        while key in self.parent:
            key = self.parent[key]
        return key

    def types(self, term: Term) -> frozenset[DType] | None:
        return self.allowed.get(self.find(self.key(term)))

    @staticmethod
    def key(term: Term) -> Any:
        """All terms for one result of one operator are one value."""
        return (term.node, term.index) if term.node is not None else term

    def restrict(self, key: Any, allowed: frozenset[DType], term: Term, why: str) -> None:
        key = self.find(key)
        old = self.allowed.get(key)
        met = allowed if old is None else old & allowed
        if not met:
            raise _Contradiction(term, f"{_named(term)} would be {_listed(old or frozenset())}, but {why}")
        self.allowed[key] = met

    def union(self, a: Any, b: Any, term: Term, why: str) -> None:
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        mine = self.allowed.pop(a, None)
        self.parent[a] = b
        if mine is not None:
            self.restrict(b, mine, term, why)

    def term(self, term: Term) -> None:
        if term.dtypes is not None:
            self.restrict(self.key(term), term.dtypes, term, f"the rule says {_listed(term.dtypes)}")
        if term.node is not None:
            self.node(term.node)

    def node(self, node: Node) -> None:
        if node in self.done:
            return
        self.done.add(node)
        for a in node.args:
            if a is not None:
                self.term(a)
        if len(node.ops) != 1:
            return
        defn = lookup(next(iter(node.ops)))
        if get_dialect(defn.dialect).adopts_types:
            return  # between lowering and narrowing such operators have types that they will not keep
        for i, a in enumerate(node.args):
            if a is not None and i < len(defn.operands):
                self.spec(node, defn, i, a)
        for i, spec in enumerate(defn.results):
            if spec.arity == "variadic" and i + 1 < node.results:
                return
            result = Term(node=node, index=i)
            if spec.dtypes is not None:
                self.restrict((node, i), spec.dtypes, result, f"{defn.name} gives {_listed(spec.dtypes)}")
            if spec.type_variable and not _heterogeneous(defn, spec.type_variable):
                self.union((node, i), (node, spec.type_variable), result, f"{defn.name} gives its operands' type")

    def spec(self, node: Node, defn: OpDef, i: int, a: Term) -> None:
        spec = defn.operands[i]
        if a.node is None and a.const and not a.name:
            return  # a literal takes the type that is wanted
        if spec.dtypes is not None:
            self.restrict(self.key(a), spec.dtypes, a, f"operand {spec.name} of {defn.name} is {_listed(spec.dtypes)}")
        if spec.type_variable and not _heterogeneous(defn, spec.type_variable):
            why = f"{defn.name} wants operands of one type"
            self.union(self.key(a), (node, spec.type_variable), a, why)


def _heterogeneous(defn: OpDef, variable: str) -> bool:
    """Whether a variadic operand or result of the variable's may mix types, as Loop's and If's do."""
    return any(o.arity == "variadic" and o.type_variable == variable for o in (*defn.operands, *defn.results)) and bool(
        defn.regions
    )


def _named(term: Term) -> str:
    if term.name:
        return f"'{term.name}'"
    return f"the result of {'/'.join(sorted(term.node.ops))}" if term.node is not None else "an operand"


def _listed(dtypes: frozenset[DType]) -> str:
    """Element types in few words."""
    classes = {
        "a float": [d for d in DTYPES.values() if d.is_float],
        "an integer": [d for d in DTYPES.values() if d.is_integer],
    }
    if len(dtypes) > 3:
        for name, members in classes.items():
            if dtypes <= set(members):
                return name
        return (
            "a number"
            if all(d.is_float or d.is_integer for d in dtypes)
            else "one of " + ", ".join(sorted(map(str, dtypes)))
        )
    return " or ".join(sorted(map(str, dtypes))) or "nothing"


def _place(variant: Variant, term: Term) -> s.Pos | None:
    """Where a value is constrained, or else named."""
    found: s.Pos | None = None
    for stmt in variant.statements:
        for t in stmt.targets:
            if t.id == term.name and term.name:
                found = t.constraint.pos if t.constraint is not None else found or t.pos
        for p in values(stmt.pattern):
            if p.id == term.name and term.name:
                if p.constraint is not None:
                    return p.constraint.pos
                found = found or p.pos
    return found


def values(p: Any) -> Iterator[s.ValuePattern]:
    if isinstance(p, s.ValuePattern):
        yield p
    elif isinstance(p, s.NamedOperand):
        yield from values(p.pattern)
    elif isinstance(p, s.OpPattern):
        for a in p.args:
            yield from values(a)


# ---- ranks


def _ranks(variant: Variant, report: Report) -> None:
    """One value that is said to have two ranks."""
    said: dict[str, tuple[s.Dim, ...]] = {}
    for stmt in variant.statements:
        constraints = [(t.id, t.constraint) for t in stmt.targets]
        constraints += [(p.id, p.constraint) for p in values(stmt.pattern)]
        for name, c in constraints:
            if name == "_" or c is None or c.dims is None or any(d.rest for d in c.dims):
                continue
            old = said.setdefault(name, c.dims)
            if len(old) != len(c.dims):
                message = f"'{name}' has rank {len(old)} elsewhere and {len(c.dims)} here; no value has both"
                report(c.pos, message, "error", "impossible")

"""Patterns and results of rules as terms: graphs of operators over variables, that can be unified and compared.

The static checks ask of two rules whether one graph can match both, and whether what one builds the other matches.
Terms say what a pattern says of structure, attributes, element types and ranks; conditions are beyond them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.ir import DTYPES, DType, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.functions import DTYPE_CLASSES
from compiler.rewrite.resolve_names import CLONE, Variant

#: An attribute that may have any value.
ANY = object()
#: An attribute that has its default value, or is absent if it has none.
DEFAULT = object()


@dataclass(eq=False, slots=True)
class Node:
    """An operator. ``attrs``: for each attribute what it may be: :data:`ANY`, or a tuple of values.

    ``others`` is what the attributes that are not listed may be: :data:`ANY` or :data:`DEFAULT`. ``open``: more
    operands may follow.
    """

    ops: frozenset[str]
    args: list[Term | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    others: Any = DEFAULT
    open: bool = False
    ordered: bool = False
    built: bool = False
    results: int = 1

    @property
    def commutative(self) -> bool:
        return not self.ordered and len(self.args) == 2 and all(lookup(n).commutative for n in self.ops)

    @property
    def constant(self) -> bool:
        """Whether it makes constants."""
        return any(lookup(n).constant is not None for n in self.ops)


@dataclass(eq=False, slots=True)
class Term:
    """A value. Without ``node`` it is a variable, or (``const``) compile-time data, perhaps of known ``content``.

    ``tied``: its element type is that of others, by a variable.
    """

    name: str = ""
    node: Node | None = None
    index: int = 0
    const: bool = False
    content: tuple[float, ...] | float | None = None
    dtypes: frozenset[DType] | None = None
    dims: tuple[s.Dim, ...] | None = None
    optional: bool = False
    tied: bool = False

    @property
    def is_variable(self) -> bool:
        return self.node is None and not self.const


@dataclass(slots=True)
class Terms:
    """A variant as terms: the matched values by name, the roots, and per rewrite what is built for each root."""

    variant: Variant
    named: dict[str, Term]
    nodes: list[Node]
    roots: list[Term]
    built: list[dict[str, Term]]
    made: list[Node]


def terms(variant: Variant) -> Terms:
    """The terms of a variant."""
    return _Reader(variant).read()


class _Reader:
    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self.named: dict[str, Term] = {}
        self.nodes: list[Node] = []
        self.made: list[Node] = []

    def read(self) -> Terms:
        v = self.variant
        targets: list[list[Term]] = []
        for stmt in v.statements:
            row = []
            for i, t in enumerate(stmt.targets):
                term = self.named.setdefault(t.id, Term(t.id)) if t.id != "_" else Term()
                term.index = i
                _constrain(term, t.constraint)
                row.append(term)
            targets.append(row)
        for stmt, row in zip(v.statements, targets):
            assert isinstance(stmt.pattern, s.OpPattern)
            node = self.operator(stmt.pattern)
            node.results = len(row)
            for term in row:
                term.node = node
        roots = [t for i in v.anchors for t in targets[i]]
        built = [self.rewrite(r) for r in v.rewrites]
        return Terms(v, self.named, self.nodes, roots, built, self.made)

    def operator(self, p: s.OpPattern) -> Node:
        node = Node(frozenset(p.names), [], ordered=p.ordered)
        self.nodes.append(node)
        for a in p.args:
            if isinstance(a, s.VariadicPattern):
                node.open = True
            elif isinstance(a, s.NamedOperand):
                index = lookup(p.names[0]).operand_index(a.name) or 0
                node.args.extend([None] * (index + 1 - len(node.args)))
                node.args[index] = self.pattern(a.pattern)
            else:
                node.args.append(self.pattern(a))
        for attr in p.attrs:
            if isinstance(attr, s.AttrSpread):
                node.others = ANY
            else:
                node.attrs[attr.name] = _accepted(attr)
        return node

    def pattern(self, p: s.Pattern) -> Term:
        match p:
            case s.ValuePattern(name, optional, constraint, _):
                term = Term() if name == "_" else self.named.setdefault(name, Term(name))
                term.optional = optional
                _constrain(term, constraint)
                return term
            case s.LiteralPattern(value, _, _):
                return Term(const=True, content=value)
            case s.ListPattern(values, _):
                return Term(const=True, content=tuple(values))
            case s.OpPattern():
                return Term(node=self.operator(p))
            case _:
                raise AssertionError("alternatives are expanded before rules are checked")

    # ---- results

    def rewrite(self, r: s.Rewrite) -> dict[str, Term]:
        scope = dict(self.named)
        out: dict[str, Term] = {}
        for stmt in r.statements:
            made = self.value(stmt.value, scope)
            for i, t in enumerate(stmt.targets):
                term = made if len(stmt.targets) == 1 else Term(t.id, made.node, i)
                scope[t.id] = out[t.id] = term
        return out

    def value(self, e: s.Arg, scope: Mapping[str, Term]) -> Term:
        match e:
            case s.Name(name, _) | s.Optional(name, _):
                found = scope.get(name)
                return found if found is not None else Term(name, const=True)
            case s.Literal(value, _) if not isinstance(value, str):
                return Term(const=True, content=value)
            case s.Call() if e.callee == CLONE or ("." in e.callee and e.callee != "target.supports"):
                return Term(node=self.call(e, scope))
            case s.Keyword(_, value, _):
                return self.value(value, scope)
            case s.Conditional() | s.Index():
                return Term()
            case _:
                return Term(const=True)

    def call(self, e: s.Call, scope: Mapping[str, Term]) -> Node:
        args = list(e.args)
        node = Node(frozenset((e.callee,)), [], built=True)
        if e.callee == CLONE:
            first = args.pop(0)
            original = scope[first.id].node if isinstance(first, s.Name) and first.id in scope else None
            if original is None:
                return Node(frozenset(), [], built=True, open=True)
            node.ops, node.attrs, node.others = original.ops, dict(original.attrs), original.others
        self.made.append(node)
        for a in args:
            if isinstance(a, s.Spread):
                node.open = True
                break
            if isinstance(a, s.Keyword):
                index = lookup(e.callee).operand_index(a.name) or 0 if e.callee != CLONE else 0
                node.args.extend([None] * (index + 1 - len(node.args)))
                node.args[index] = self.value(a, scope)
            else:
                node.args.append(self.value(a, scope))
        for attr in e.attrs or ():
            if isinstance(attr, s.AttrSpread):
                node.others = ANY
            else:
                value = _known(attr.value)
                node.attrs[attr.name] = ANY if value is ANY else (value,)
        return node


def _known(e: s.Expr) -> Any:
    """The value of an attribute's expression where it is written out."""
    match e:
        case s.Literal(value, _):
            return value
        case s.ListExpr(items, _):
            values = [_known(i) if isinstance(i, s.Literal | s.ListExpr) else ANY for i in items]
            return ANY if any(v is ANY for v in values) else tuple(values)
        case s.Name(name, _) if name in DTYPES:
            return DTYPES[name]
        case s.Name(name, _) if name in ("true", "false"):
            return name == "true"
        case _:
            return ANY


def _accepted(a: s.AttrPattern) -> Any:
    values: list[Any] = []
    for c in a.choices:
        match c.kind:
            case "bind" if c.value in DTYPES:
                values.append(DTYPES[c.value])
            case "bind" if c.value in ("true", "false"):
                values.append(c.value == "true")
            case "literal":
                values.append(c.value)
            case "approx":
                values.append(c.value[0])
            case _:
                return ANY
    return tuple(values)


def _constrain(term: Term, c: s.Constraint | None) -> None:
    if c is None:
        return
    term.const = term.const or c.const
    if c.dims is not None and term.dims is None:
        term.dims = c.dims
    if c.dtypes is not None:
        allowed = element_types(c.dtypes)
        term.tied = term.tied or allowed is None
        if allowed is not None:
            term.dtypes = allowed if term.dtypes is None else term.dtypes & allowed


def element_types(names: Sequence[str]) -> frozenset[DType] | None:
    """The element types that a constraint allows; None for a variable."""
    out: set[DType] = set()
    for n in names:
        if n in DTYPES:
            out.add(DTYPES[n])
        elif n in DTYPE_CLASSES:
            out |= {d for d in DTYPES.values() if DTYPE_CLASSES[n](d)}
        else:
            return None
    return frozenset(out)


def allowed_values(node: Node, attr: str) -> Any:
    """What an attribute may be: :data:`ANY`, or a tuple of values in which None stands for absence."""
    accepted = node.attrs.get(attr, node.others)
    if accepted is not DEFAULT:
        return accepted
    defaults = []
    for n in node.ops:
        spec = lookup(n).attributes.get(attr)
        if spec is None:
            return ANY
        defaults.append(spec.default)
    return tuple(defaults) if defaults else ANY

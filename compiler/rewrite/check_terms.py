"""Patterns and results of rules as terms: graphs of operators over variables, that can be unified and compared.

The static checks ask of two rules whether one graph can match both, and whether what one builds the other matches.
Terms say what a pattern says of structure, attributes, element types and ranks; conditions are beyond them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler.ir import DTYPES, DType, lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.functions import DTYPE_CLASSES, same
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


# ---- unification

#: What each term was found to be the same as; also, as keys, the pairs of operators that were taken to be the same.
Substitution = dict[Any, Any]


def resolve(t: Term, found: Substitution) -> Term:
    """What ``t`` stands for by now."""
    while t in found:
        t = found[t]
    return t


def unify(a: Term, b: Term, found: Substitution) -> Iterator[Substitution]:
    """The ways in which ``a`` and ``b`` can be the same value."""
    a, b = resolve(a, found), resolve(b, found)
    if a is b:
        yield found
        return
    if a.node is None and b.node is not None:
        a, b = b, a
    if a.dtypes is not None and b.dtypes is not None and not a.dtypes & b.dtypes:
        return
    if not _ranks_agree(a.dims, b.dims):
        return
    if a.node is not None:
        if b.const and not a.node.constant:
            return
        if b.node is None:
            yield {**found, b: a}
        elif a.index == b.index:
            for more in unify_nodes(a.node, b.node, found):
                # Below, one may have been found to be the other already: a second link would close a circle.
                one, other = resolve(a, more), resolve(b, more)
                yield more if one is other else {**more, other: one}
        return
    if a.content is not None and b.content is not None and not same(a.content, b.content):
        return
    if (a.content is None and b.content is not None) or (not a.const and b.const):
        a, b = b, a
    dtypes = a.dtypes if b.dtypes is None else b.dtypes if a.dtypes is None else a.dtypes & b.dtypes
    met = Term(a.name, None, 0, a.const or b.const, a.content, dtypes, a.dims or b.dims, a.optional and b.optional)
    yield {**found, a: met, b: met}


def unify_nodes(a: Node, b: Node, found: Substitution) -> Iterator[Substitution]:
    """The ways in which ``a`` and ``b`` can be the same operator."""
    if a is b or (a, b) in found:
        yield found
        return
    found = {**found, (a, b): True}
    ops = a.ops & b.ops
    if (not ops and a.ops and b.ops) or not _attributes_agree(a, b, ops):
        return
    orders = [b.args]
    if a.commutative and b.commutative:
        orders.append([b.args[1], b.args[0]])
    for args in orders:
        yield from _unify_args(a, b, args, found)


def _unify_args(a: Node, b: Node, args: list[Term | None], found: Substitution, at: int = 0) -> Iterator[Substitution]:
    if at >= max(len(a.args), len(args)):
        yield found
        return
    x = a.args[at] if at < len(a.args) else None
    y = args[at] if at < len(args) else None
    if x is None or y is None:
        present, open_end = (y, a.open) if x is None else (x, b.open)
        if present is None or present.optional or open_end:
            yield from _unify_args(a, b, args, found, at + 1)
        return
    for more in unify(x, y, found):
        yield from _unify_args(a, b, args, more, at + 1)


def _ranks_agree(a: tuple[s.Dim, ...] | None, b: tuple[s.Dim, ...] | None) -> bool:
    if a is None or b is None:
        return True
    if any(d.rest for d in (*a, *b)):
        fixed = [sum(not d.rest for d in x) for x in (a, b)]
        opened = [any(d.rest for d in x) for x in (a, b)]
        return (opened[0] or fixed[0] >= fixed[1]) and (opened[1] or fixed[1] >= fixed[0])
    return len(a) == len(b) and all(
        x.value == y.value for x, y in zip(a, b) if isinstance(x.value, int) and isinstance(y.value, int)
    )


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


def _attributes_agree(a: Node, b: Node, ops: frozenset[str]) -> bool:
    names = set(a.attrs) | set(b.attrs)
    for n in ops:
        names |= set(lookup(n).attributes)
    for name in names:
        x, y = allowed_values(a, name), allowed_values(b, name)
        if x is ANY or y is ANY:
            continue
        if not any(same(v, w) for v in x for w in y):
            return False
    return True


# ---- subsumption


def covers(general: Term, special: Term, bound: dict[Term, Term]) -> bool:
    """Whether whatever ``special`` matches ``general`` matches too; ``bound`` gets what its variables stand for."""
    if general in bound:
        return bound[general] is special
    if special.optional and not general.optional:
        return False
    if general.dtypes is not None and not (special.dtypes is not None and special.dtypes <= general.dtypes):
        return False
    if general.dims is not None and not _covers_dims(general.dims, special.dims):
        return False
    if general.node is not None:
        if special.node is None or general.index != special.index or not covers_node(general.node, special.node, bound):
            return False
    elif general.const and (
        not special.const or (general.content is not None and not same(general.content, special.content))
    ):
        return False
    bound[general] = special
    return True


def _covers_dims(general: tuple[s.Dim, ...], special: tuple[s.Dim, ...] | None) -> bool:
    if all(d.rest and not d.broadcast for d in general):
        return True
    return special is not None and [(d.value, d.rest, d.broadcast) for d in general] == [
        (d.value, d.rest, d.broadcast) for d in special
    ]


def covers_node(general: Node, special: Node, bound: dict[Term, Term]) -> bool:
    """Whether whatever operator ``special`` matches ``general`` matches too."""
    if not special.ops <= general.ops or special.results > general.results:
        return False
    for attr in set().union(*(lookup(n).attributes for n in special.ops)):
        accepted, given = allowed_values(general, attr), allowed_values(special, attr)
        if accepted is ANY:
            continue
        if given is ANY or not all(any(same(v, w) for w in accepted) for v in given):
            return False
    if special.open and not general.open:
        return False
    orders = (
        [special.args, [special.args[1], special.args[0]]]
        if general.commutative and len(special.args) == 2
        else [special.args]
    )
    for args in orders:
        trial = dict(bound)
        if _covers_args(general, args, trial):
            bound.update(trial)
            return True
    return False


def _covers_args(general: Node, args: list[Term | None], bound: dict[Term, Term]) -> bool:
    for x, y in itertools.zip_longest(general.args, args):
        if x is None:
            if y is not None and not general.open:
                return False
        elif y is None:
            if not x.optional:
                return False
        elif not covers(x, y, bound):
            return False
    return True

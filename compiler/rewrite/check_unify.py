"""Whether terms can be the same: unification, which takes both to be patterns of one graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compiler.ir import lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.check_terms import ANY, Node, Term, allowed_values
from compiler.rewrite.functions import same

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
    ops = a.ops & b.ops
    if (not ops and a.ops and b.ops) or not _attributes_agree(a, b, ops):
        return
    found = {**found, (a, b): True}
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

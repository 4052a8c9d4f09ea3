"""Whether one term is more general than another: whatever the one matches, the other matches too."""

from __future__ import annotations

import itertools

from compiler.ir import lookup
from compiler.rewrite import syntax as s
from compiler.rewrite.check_terms import ANY, Node, Term, allowed_values
from compiler.rewrite.functions import same


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

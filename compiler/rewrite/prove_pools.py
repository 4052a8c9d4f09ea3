"""What the text of a rule offers to draw from: the values that it mentions, and what its ``example`` blocks fix."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compiler.rewrite import syntax as s
from compiler.rewrite.driver import NO_TARGET
from compiler.rewrite.expressions import ExpressionCompiler
from compiler.rewrite.functions import Decline

if TYPE_CHECKING:
    from compiler.rewrite.library import Library


class Pools:
    """Values that the text of a rule mentions: numbers, strings, lists. They are where conditions change their mind."""

    def __init__(self) -> None:
        self.numbers: list[float] = []
        self.strings: list[str] = []
        self.lists: list[tuple[Any, ...]] = []

    @property
    def sizes(self) -> list[int]:
        return [int(v) for v in self.numbers if float(v).is_integer() and 0 < v <= 40]

    @property
    def counts(self) -> list[int]:
        """Numbers of elements that a tensor of a proof may have, beyond the sizes that are drawn anyway."""
        return [n for n in self.ints if 40 < n < 4200]

    @property
    def ints(self) -> list[int]:
        return [int(v) for v in self.numbers if float(v).is_integer() and abs(v) < 2**40]


@dataclass(slots=True)
class Pins:
    """What an ``example`` fixes: types of values, contents, attributes by the name that the rule has for them.

    A variadic operand stands there once for each of its values: ``every`` has all types of a name, ``types`` the last.
    """

    types: dict[str, s.Constraint] = field(default_factory=dict)
    every: dict[str, list[s.Constraint]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.types or name in self.data


def pins_of(givens: Sequence[s.Given], library: Library) -> Pins:
    """What an ``example`` fixes."""
    pins = Pins()
    for g in givens:
        if g.constraint is not None:
            pins.types[g.id] = g.constraint
            pins.every.setdefault(g.id, []).append(g.constraint)
        elif g.value is not None:
            compiler = ExpressionCompiler(library.env, library.externs)
            try:
                pins.data[g.id] = eval(compiler.data(g.value, {}), {**compiler.globals}, {"target": NO_TARGET})
            except Decline:
                continue
    return pins


def literals(node: Any) -> Iterator[Any]:
    """Every number, string and list of numbers that a piece of a rule mentions."""
    if isinstance(node, (s.Literal, s.LiteralPattern)):
        yield node.value
    elif isinstance(node, s.ListPattern):
        yield node.values
    elif isinstance(node, s.Dim):
        yield node.value if isinstance(node.value, int) else 1
    elif isinstance(node, s.AttrChoice) and node.kind == "literal":
        yield node.value
    elif isinstance(node, s.ListExpr):
        if all(isinstance(i, s.Literal) for i in node.items):
            yield tuple(i.value for i in node.items)  # type: ignore[union-attr]
        for i in node.items:
            yield from literals(i)
    elif isinstance(node, tuple) and not isinstance(node, s.Pos):
        for x in node:
            yield from literals(x)
    elif hasattr(node, "__dataclass_fields__"):
        for f in node.__dataclass_fields__:
            if f not in ("pos", "name_pos", "tests"):
                yield from literals(getattr(node, f))


def pools_of(rule: s.Rule, fns: Mapping[str, s.FnDef]) -> Pools:
    """The values that a rule's text, and the functions it calls, mention."""
    pools = Pools()
    called = [f for f in fns.values() if f.name in callees(rule)]
    for v in literals((rule.match, rule.where, rule.let, tuple(r.when for r in rule.rewrites), tuple(called))):
        if isinstance(v, str):
            pools.strings.append(v)
        elif isinstance(v, tuple):
            pools.lists.append(v)
        else:
            pools.numbers += [v, v + 1] if float(v).is_integer() and 0 < v < 32 else [v]
    return pools


def callees(node: Any) -> set[str]:
    if isinstance(node, s.Pos) or node is None:
        return set()
    if isinstance(node, tuple):
        return set().union(*(callees(x) for x in node))
    if not hasattr(node, "__dataclass_fields__"):
        return set()
    own = {node.callee} if isinstance(node, s.Call) else set()
    return own.union(*(callees(getattr(node, f)) for f in node.__dataclass_fields__))

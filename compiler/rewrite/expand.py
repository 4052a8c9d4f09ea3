"""Rules with alternatives and named patterns → plain variants, each a list of statements without either.

A named pattern is a macro: its parameters stand for the patterns given, its other names are its own. Alternatives
multiply out. Operator sets (``{Add, Mul}(a, b)``) do not: the matcher tests them in one step.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from compiler.rewrite import syntax as s

#: More variants of one rule than this are a mistake of its author.
MOST_VARIANTS = 256

Report = Callable[[s.Pos, str], None]


class Expander:
    """Expands the ``match`` clause of one rule."""

    def __init__(self, patterns: Mapping[str, s.PatternDef], report: Report) -> None:
        self.patterns = patterns
        self.report = report
        self.serial = 0

    def variants(self, rule: s.Rule) -> list[tuple[s.MatchStmt, ...]]:
        """All combinations of the alternatives in ``rule``."""
        choices = [[replace(stmt, pattern=p) for p in self.expand(stmt.pattern, {}, ())] for stmt in rule.match]
        count = 1
        for c in choices:
            count *= len(c)
        if count > MOST_VARIANTS:
            self.report(
                rule.name_pos, f"rule '{rule.name}' has {count} combinations of alternatives; write several rules"
            )
            return []
        return list(itertools.product(*choices))

    def expand(self, p: s.Pattern, bound: Mapping[str, s.Pattern], inside: tuple[str, ...]) -> list[s.Pattern]:
        """The variants of one pattern; ``bound`` has the arguments of the macros around it."""
        match p:
            case s.Alternatives(choices, _):
                return [v for c in choices for v in self.expand(c, bound, inside)]
            case s.ValuePattern(name, _, constraint, pos) if name in bound:
                given = bound[name]
                if constraint is not None:
                    if not isinstance(given, s.ValuePattern) or given.constraint is not None:
                        self.report(
                            pos, f"parameter '{name}' cannot be constrained here: give the constraint in the rule"
                        )
                    else:
                        given = replace(given, constraint=constraint)
                return [given]
            case s.OpPattern(names, _, _, _, pos) if len(names) == 1 and names[0] in self.patterns:
                made = self.call(p, self.patterns[names[0]], bound, inside, pos)
                if not p.ordered:
                    return made
                return [replace(m, ordered=True) if isinstance(m, s.OpPattern) else m for m in made]
            case s.OpPattern():
                return [
                    replace(p, args=args, attrs=tuple(self.rename_attr(a, bound) for a in p.attrs))
                    for args in itertools.product(*(self.operand(a, bound, inside) for a in p.args))
                ]
            case _:
                return [p]

    def operand(
        self, a: s.Pattern | s.NamedOperand | s.VariadicPattern, bound: Mapping[str, s.Pattern], inside: tuple[str, ...]
    ) -> list[s.Pattern | s.NamedOperand | s.VariadicPattern]:
        if isinstance(a, s.NamedOperand):
            return [replace(a, pattern=v) for v in self.expand(a.pattern, bound, inside)]
        if isinstance(a, s.VariadicPattern):
            return [a]
        return list(self.expand(a, bound, inside))

    def rename_attr(
        self, a: s.AttrPattern | s.AttrSpread, bound: Mapping[str, s.Pattern]
    ) -> s.AttrPattern | s.AttrSpread:
        """Attribute names bound inside a macro follow the renaming of its own names."""

        def renamed(name: str) -> str:
            given = bound.get(name)
            return given.id if isinstance(given, s.ValuePattern) else name

        if isinstance(a, s.AttrSpread):
            return replace(a, id=renamed(a.id))
        choices = []
        for c in a.choices:
            if c.kind in ("bind", "optional"):
                c = replace(c, value=renamed(c.value))
            elif c.kind == "default":
                c = replace(c, value=(renamed(c.value[0]), c.value[1]))
            choices.append(c)
        return replace(a, choices=tuple(choices))

    def call(
        self,
        p: s.OpPattern,
        macro: s.PatternDef,
        bound: Mapping[str, s.Pattern],
        inside: tuple[str, ...],
        pos: s.Pos,
    ) -> list[s.Pattern]:
        if macro.name in inside:
            self.report(pos, f"pattern '{macro.name}' contains itself")
            return []
        if p.attrs or p.regions:
            self.report(pos, f"pattern '{macro.name}' takes no attributes; name them in its definition")
        if len(p.args) != len(macro.parameters) or any(not isinstance(a, s.Pattern) for a in p.args):
            self.report(pos, f"pattern '{macro.name}' takes {len(macro.parameters)} patterns, got {len(p.args)}")
            return []
        self.serial += 1
        out: list[s.Pattern] = []
        for args in itertools.product(*(self.operand(a, bound, inside) for a in p.args)):
            inner: dict[str, s.Pattern] = dict(zip(macro.parameters, args))  # type: ignore[arg-type]
            for own in _names(macro.body):
                if own not in inner and own != "_":
                    inner[own] = s.ValuePattern(f"{own}__{self.serial}", False, None, pos)
            out.extend(self.expand(_uncover(macro.body, inner), inner, (*inside, macro.name)))
        return out


def _uncover(body: s.Pattern, bound: Mapping[str, s.Pattern]) -> s.Pattern:
    """The macro's own names keep their constraints and question marks when they are renamed."""
    if isinstance(body, s.ValuePattern):
        given = bound.get(body.id)
        if isinstance(given, s.ValuePattern) and given.id.startswith(body.id + "__"):
            return replace(body, id=given.id)
        return body
    if isinstance(body, s.Alternatives):
        return replace(body, choices=tuple(_uncover(c, bound) for c in body.choices))
    if isinstance(body, s.OpPattern):
        args: list[s.Pattern | s.NamedOperand | s.VariadicPattern] = []
        for a in body.args:
            if isinstance(a, s.NamedOperand):
                args.append(replace(a, pattern=_uncover(a.pattern, bound)))
            elif isinstance(a, s.VariadicPattern):
                given = bound.get(a.id)
                args.append(replace(a, id=given.id) if isinstance(given, s.ValuePattern) else a)
            else:
                args.append(_uncover(a, bound))
        return replace(body, args=tuple(args))
    return body


def _names(p: s.Pattern) -> Iterator[str]:
    """Every name that a pattern binds."""
    match p:
        case s.ValuePattern():
            yield p.id
        case s.Alternatives():
            for c in p.choices:
                yield from _names(c)
        case s.OpPattern():
            for a in p.args:
                if isinstance(a, s.VariadicPattern):
                    yield a.id
                else:
                    yield from _names(a.pattern if isinstance(a, s.NamedOperand) else a)
            for attr in p.attrs:
                if isinstance(attr, s.AttrSpread):
                    yield attr.id
                    continue
                for choice in attr.choices:
                    if choice.kind in ("bind", "optional"):
                        yield choice.value
                    elif choice.kind == "default":
                        yield choice.value[0]
        case _:
            pass

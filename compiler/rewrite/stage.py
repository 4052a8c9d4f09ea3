"""The rules of one stage, and the index by which the driver finds those that may start at an operator."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compiler.ir import Op
from compiler.rewrite import syntax as s
from compiler.rewrite.build import Build, compile_build
from compiler.rewrite.expressions import ExpressionCompiler
from compiler.rewrite.matcher import Matcher, MatcherCompiler, anchor_keys
from compiler.rewrite.resolve_names import Variant

if TYPE_CHECKING:
    from compiler.rewrite.library import Library


class Entry:
    """A variant of a rule as the driver runs it. Its Python functions are generated when it is first a candidate: a
    model uses few of the rules.

    Attributes:
        keys: for each operator that can be the anchor, which producers its operands must have (None: any): the cheap
            test by which candidates are picked.
    """

    def __init__(self, variant: Variant, library: Library) -> None:
        self.rule = variant.rule
        self.variant = variant
        self.library = library
        self.keys, self.commutative = anchor_keys(variant)

    @functools.cached_property
    def matcher(self) -> Matcher:
        return MatcherCompiler(self.variant, self._expressions, self.library.traced).compile()

    @functools.cached_property
    def builds(self) -> tuple[Build, ...]:
        """The builder of each rewrite of the variant."""
        v, names, externs = self.variant, self.matcher.names, self.library.externs
        return tuple(compile_build(v, i, names, self._expressions, externs) for i in range(len(v.rewrites)))

    @functools.cached_property
    def _expressions(self) -> ExpressionCompiler:
        return ExpressionCompiler(self.library.env, self.library.externs)

    def width(self, name: str) -> int:
        """How many operands the cheap test looks at."""
        needs = len(self.keys[name])
        return max(needs, 2) if needs and name in self.commutative else needs

    def admits(self, name: str, key: tuple[str | None, ...]) -> bool:
        """Whether an operator called ``name``, with operands made by the operators in ``key``, can be the anchor."""
        needs = self.keys[name]
        if len(key) < len(needs):
            return False
        if all(n is None or k in n for n, k in zip(needs, key)):
            return True
        if name not in self.commutative or len(key) < 2:
            return False
        first, second, *rest = (*needs, None) if len(needs) == 1 else needs
        return all(n is None or k in n for n, k in zip((second, first, *rest), key))


@dataclass(slots=True)
class _Slot:
    """The entries that can start at one kind of operator, and which of them its operands' producers admit."""

    name: str
    width: int
    entries: tuple[Entry, ...]
    admitted: dict[tuple[str | None, ...], tuple[Entry, ...]] = field(default_factory=dict)

    def admit(self, key: tuple[str | None, ...]) -> tuple[Entry, ...]:
        found = tuple(e for e in self.entries if e.admits(self.name, key))
        self.admitted[key] = found
        return found


class Stage:
    """The rules of one stage, compiled into one index by operator.

    Attributes:
        rules: in the order in which they are tried on an operator.
        depth: the longest chain of operators that a pattern looks at.
        below: for operators that start a rule, how many levels below it the patterns look.
        between: the same for operators inside patterns, from where they stand.
        roots: operators that start a rule with several roots.
    """

    def __init__(self, name: str, entries: Sequence[Entry]) -> None:
        self.name = name
        self.entries = tuple(entries)
        self.rules = tuple(dict.fromkeys(e.rule.name for e in entries))
        self.below: dict[str, int] = {}
        self.between: dict[str, int] = {}
        for e in entries:
            _measure(e.variant, self.below, self.between)
        self.depth = max(self.below.values(), default=1)
        by_name: dict[str, list[Entry]] = {}
        self.roots: set[str] = set()
        for e in entries:
            for op in e.keys:
                by_name.setdefault(op, []).append(e)
                if len(e.variant.anchors) > 1:
                    self.roots.add(op)
        self._slots = {op: _Slot(op, max(e.width(op) for e in found), tuple(found)) for op, found in by_name.items()}

    def candidates(self, op: Op) -> tuple[Entry, ...]:
        """The entries whose cheap test ``op`` passes, in order."""
        slot = self._slots.get(op.defn.name)
        if slot is None:
            return ()
        if slot.width == 0:
            return slot.entries
        key = tuple([None if v is None or (p := v.op) is None else p.defn.name for v in op.operands[: slot.width]])
        found = slot.admitted.get(key)
        return slot.admit(key) if found is None else found

    def starts_at(self, op: Op) -> bool:
        """Whether any rule of the stage can start at ``op``."""
        return op.defn.name in self._slots


def _measure(v: Variant, below: dict[str, int], between: dict[str, int]) -> None:
    """Enters how many levels the operators of a variant's patterns look down, its roots' into ``below``."""
    named = {t.id: stmt.pattern for stmt in v.statements for t in stmt.targets}

    def of(p: Any, seen: int, into: dict[str, int]) -> int:
        if isinstance(p, s.ValuePattern) and p.id in named and seen < len(named):
            return of(named[p.id], seen + 1, into)
        if isinstance(p, s.NamedOperand):
            return of(p.pattern, seen, into)
        if isinstance(p, s.OpPattern):
            levels = 1 + max((of(a, seen, between) for a in p.args), default=0)
            for name in p.names:
                into[name] = max(into.get(name, 0), levels)
            return levels
        return 0

    for i in v.anchors:
        of(v.statements[i].pattern, 0, below)

"""Rules that feed themselves or each other back without end.

What a rule builds may be what another matches: that is an edge of the rule graph, and rules that never come to rest lie
on a cycle of it. Edges are found by unification and so are too many (conditions are not asked); each cycle is therefore
put to the test on small graphs that its rules surely match, and reported only with a graph on which they do not
terminate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from compiler.errors import UserError
from compiler.ir import InferenceError, Op
from compiler.rewrite import syntax as s
from compiler.rewrite.check_examples import TARGETS, examples
from compiler.rewrite.check_terms import Node, Terms, terms
from compiler.rewrite.check_unify import unify_nodes
from compiler.rewrite.diagnostics import Diagnostic, RewriteError
from compiler.rewrite.driver import rewrite
from compiler.rewrite.endless import Endless
from compiler.rewrite.stage import Entry, Stage


class RuleGraph:
    """Which rules of a stage may match what which others build."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = [e for e in entries if not any(r.builder for r in e.variant.rewrites)]
        self._terms: dict[Entry, Terms] = {}
        self._following: dict[Entry, list[Entry]] = {}
        self._matching: dict[str, list[Entry]] = {}
        for e in self.entries:
            for name in {n for stmt in e.variant.statements for n in _operators(stmt.pattern)}:
                self._matching.setdefault(name, []).append(e)

    def terms(self, entry: Entry) -> Terms:
        found = self._terms.get(entry)
        if found is None:
            found = self._terms[entry] = terms(entry.variant)
        return found

    def following(self, entry: Entry) -> list[Entry]:
        """The entries that may match what ``entry`` builds."""
        found = self._following.get(entry)
        if found is None:
            made = self.terms(entry).made
            near = dict.fromkeys(e for node in made for n in node.ops for e in self._matching.get(n, ()))
            found = self._following[entry] = [
                e for e in near if any(_meet(m, n) for m in made for n in self.terms(e).nodes)
            ]
        return found

    def cycles(self, through: Iterable[Entry]) -> Iterator[list[Entry]]:
        """The strongly connected parts of the graph that hold a cycle and one of ``through``."""
        starts = dict.fromkeys(e for e in through if e in set(self.entries))
        preceding: dict[Entry, list[Entry]] = {}
        for e in _reached(starts, self.following):
            for other in self.following(e):
                preceding.setdefault(other, []).append(e)
        done: set[Entry] = set()
        for start in starts:
            # The graph of a handful of rules that are new: a library of graphs would take longer to import.
            if start not in done:
                part = _reached(self.following(start), self.following) & _reached(
                    [start], lambda e: preceding.get(e, ())
                )
                done |= part
                if part:
                    yield [e for e in self.entries if e in part]


def _meet(a: Node, b: Node) -> bool:
    """Whether one operator can be both."""
    return not (a.ops and b.ops and a.ops.isdisjoint(b.ops)) and next(unify_nodes(a, b, {}), None) is not None


def _reached(starts: Iterable[Entry], following: Callable[[Entry], Iterable[Entry]]) -> set[Entry]:
    """The starts and all that follows them, directly or not."""
    seen = set(starts)
    todo = list(seen)
    while todo:
        for other in following(todo.pop()):
            if other not in seen:
                seen.add(other)
                todo.append(other)
    return seen


def _operators(p: object) -> Iterator[str]:
    if isinstance(p, s.OpPattern):
        yield from p.names
        for a in p.args:
            yield from _operators(a.pattern if isinstance(a, s.NamedOperand) else a)


def endless(entries: Sequence[Entry], through: Iterable[Entry], name: str) -> list[Diagnostic]:
    """The cycles of a stage's rules that do not terminate, each with a graph on which they do not.

    Args:
        through: only cycles with one of these are looked for.
        name: of the stage.
    """
    wanted = list(through)
    graph = RuleGraph(entries)
    found: dict[frozenset[str], Diagnostic] = {}
    for part in graph.cycles(wanted):
        stage = Stage(name, part)
        for entry in part:
            if entry not in wanted or any(entry.rule.name in names for names in found):
                continue
            witness = _witness(graph, entry, stage)
            if witness is None:
                continue
            cycle, text = witness
            names = " → ".join([*cycle, cycle[0]])
            how = (
                f"rule '{entry.rule.name}' builds what it matches, without end"
                if len(cycle) == 1
                else f"rules undo each other without end: {names}"
            )
            message = f"{how}; add a condition that tells the result from what is matched, or drop one of them"
            place = next((e.rule for e in part if e.rule.name in cycle and e in wanted), entry.rule)
            found[frozenset(cycle)] = Diagnostic(place.file, place.name_pos, message, code="endless", example=text)
    return list(found.values())


def _witness(graph: RuleGraph, entry: Entry, stage: Stage) -> tuple[list[str], str] | None:
    """The names of rules that go in a circle on an example of ``entry``, and the example."""
    for target in TARGETS:
        matched = 0
        for example in examples(graph.terms(entry).roots):
            if not matches(entry, example.ops[_anchor(graph, entry)], target):
                continue
            text = example.text()
            matched += 1
            try:
                rewrite(example.module, stage, target, descent=_DESCENT)
            except Endless as e:
                return list(e.cycle), text
            except (RewriteError, InferenceError, UserError):
                continue
            if matched >= _MATCHED:
                return None
    return None


#: An example has a handful of operators: so many applications one upon the other are without end.
_DESCENT = 150
#: So many examples on which a cycle comes to rest are taken for proof that it always does.
_MATCHED = 3


def matches(entry: Entry, anchor: Op, target: object) -> bool:
    """Whether a rule matches at an operator of an example; where a condition cannot be computed, it does not.

    A matcher relies on being asked for operators of the right name only.

    Examples are guessed, and some are such as no model has: what a condition makes of them is for `prove` to judge.
    """
    try:
        with np.errstate(all="ignore"):  # as the driver does
            return anchor.name in entry.keys and entry.matcher.match(anchor, target) is not None
    except Exception:
        return False


def _anchor(graph: RuleGraph, entry: Entry) -> Node:
    node = graph.terms(entry).roots[0].node
    assert node is not None
    return node

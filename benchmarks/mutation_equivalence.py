"""Whether a variant of a rule that survives is a wrong one at all: tried on graphs, not asserted.

Where a condition was dropped, or a pattern asks for less, graphs are looked for to which the rule does not apply and
the variant does. First among those that are drawn for the variant with the condition negated, then among those drawn
for other rules of the stage: what surrounds an operator is not in its own rule. On each the variant must be right all
the same: the condition is about what pays. Of any other variant the results are compared with those of the rule itself,
graph by graph: they must be the same graph, or the same numbers to the last bit.

Only graphs that run speak for a variant: both sides were compared, or both left the graph alone, as types or a builder
turned the result down. With fewer than LEAST of them it counts as missed, whatever became of others: refused by
onnxruntime, nothing that the target has.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from compiler.execution.apart import run
from compiler.ir import Module, clone_module, print_module
from compiler.rewrite import syntax as s
from compiler.rewrite.diagnostics import RuleError
from compiler.rewrite.driver import rewrite
from compiler.rewrite.mutate import Mutant, dropped, mutated
from compiler.rewrite.prove import Prover
from compiler.rewrite.prove_check import Checker, Verdict, is_foreign
from compiler.rewrite.prove_search import Instance, Search
from compiler.rewrite.recipe import Recipe, realize

#: Attempts for each graph that is wanted.
_ATTEMPTS = 20
#: And graphs for each that speaks.
_MOST = 4
#: How many graphs must speak for a variant.
LEAST = 60
#: The mistakes that make a rule apply where it did not.
_WEAKER = ("condition dropped", "dimensions unconstrained", "any attribute")
#: What it means for a variant that graphs are of a kind.
_MEANS = {
    "same": "gives the same graph",
    "with the same numbers": "gives the same numbers to the last bit",
    "proved": "right where the rule does not apply",
    "unfired": "left alone all the same, as types or the builder turn it down",
    "invalid": "refused by onnxruntime",
    "void": "of which nothing can be said",
    "unsupported": "without a kernel",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found of a variant: whether nothing tells it from a right rule, and why, in words."""

    harmless: bool
    why: str


def judged(prover: Prover, mutant: Mutant, count: int, seed: int) -> Judgement:
    """What tells a surviving variant from a right rule."""
    rule = mutant.rule
    original = prover.library.rules[rule.name]
    condition = dropped(original, mutant)
    if condition is not None:
        rule = replace(rule, where=(*rule.where, s.Unary("not", condition, condition.pos)))
    try:
        searched = mutated(prover, rule)
    except RuleError as e:
        return Judgement(False, f"the condition negated is no rule: {e.diagnostics[0].message}")
    near = list(_matched(prover, original, seed, 2 * count)) if condition is not None else []
    pair = _Pair(prover.checker(original), mutated(prover, mutant.rule).checker(mutant.rule), mutant.kind in _WEAKER)
    seen: Counter[str] = Counter()
    wrong = _tried(pair, _own(searched, rule, seed, _ATTEMPTS * count, near), seen, count)
    where = "drawn for it"
    if wrong is None and pair.weaker and spoken(seen) < LEAST:
        where = "drawn for it and for other rules"
        wrong = _tried(pair, _others(prover, original, seed, _ATTEMPTS * count), seen, count, matched=False)
    if wrong is not None:
        return Judgement(False, f"wrong on a graph that was looked for: {wrong}")
    told = ", ".join(f"{n} {_MEANS.get(kind, kind)}" for kind, n in seen.most_common())
    why = f"{told} ({seen.total()} graphs {where})" if told else "no graph was found that tells"
    if seen["with other numbers"]:
        return Judgement(False, f"other numbers, within its contract: {why}")
    return Judgement(spoken(seen) >= LEAST, why)


def spoken(seen: Counter[str]) -> int:
    """How many graphs spoke for a variant: both sides ran and were compared, or both left alone what ran."""
    return sum(seen[k] for k in ("same", "with the same numbers", "proved", "unfired"))


@dataclass(frozen=True, slots=True)
class _Pair:
    """The rule itself, and a variant that asks for less or is otherwise another."""

    ours: Checker
    theirs: Checker
    weaker: bool


def _tried(
    pair: _Pair, graphs: Iterator[tuple[Search, Instance]], seen: Counter[str], count: int, matched: bool = True
) -> str | None:
    """Counts what comes of graphs until ``count`` have spoken; what is wrong if a graph shows that.

    Args:
        matched: the variant's pattern and conditions are known to match them.
    """
    for search, instance in graphs:
        recipe = instance.recipe
        ours = applied(pair.ours, recipe)
        if pair.weaker and ours is not None:
            continue  # both apply: that tells nothing of where the rule does not
        verdict = pair.theirs(recipe)
        if verdict.kind == "wrong":
            return verdict.text.splitlines()[0]
        kind: str = verdict.kind
        if kind == "unfired":
            if not matched:
                continue
            left = pair.theirs.left(realize(recipe), recipe)
            kind = left.kind if isinstance(left, Verdict) else kind
        elif kind == "proved" and not pair.weaker and ours is not None:
            if ours == applied(pair.theirs, recipe):
                kind = "same"
            elif same_numbers(pair.ours, pair.theirs, recipe):
                kind = "with the same numbers"
            else:
                kind = "with other numbers"
        if kind == "invalid":
            search.dismiss(instance)  # what is made of it would be refused as well
        seen[kind] += 1
        if spoken(seen) >= count or seen.total() >= _MOST * count:
            break
    return None


def _searches(prover: Prover, rule: s.Rule, rng: random.Random) -> list[Search]:
    entries = [e for e in prover.traced.stage(rule.stage).entries if e.rule.name == rule.name]
    return [Search(e, prover.traced, prover.seeds, rng, prover.targets) for e in entries]


def _matched(prover: Prover, rule: s.Rule, seed: int, attempts: int) -> Iterator[Recipe]:
    """Graphs to which the rule itself applies: one step from some of them it does not."""
    searches = _searches(prover, rule, random.Random(f"{seed} {rule.name} near"))
    for search in searches:
        for _ in range(attempts // len(searches)):
            search.attempt()
        for kept in search.archive.values():
            yield from kept


def _own(
    prover: Prover, rule: s.Rule, seed: int, attempts: int, near: Sequence[Recipe] = ()
) -> Iterator[tuple[Search, Instance]]:
    """Graphs drawn for the rule, then those brought to an edge. ``near``: graphs from which one may start."""
    rng = random.Random(f"{seed} {rule.name} again")
    searches = _searches(prover, rule, rng)
    for search in searches:
        search.shown += near
    for i in range(attempts):
        search = rng.choice(searches)
        instance = search.attempt()
        if instance is not None:
            yield search, instance
        if i % 4 == 3:
            yield from ((search, found) for found in search.extremes(1, far=True))
        if i % 64 == 63:
            yield from ((search, found) for found in search.neighbours())


def _others(prover: Prover, rule: s.Rule, seed: int, attempts: int) -> Iterator[tuple[Search, Instance]]:
    """Graphs drawn for other rules of the stage in whose patterns the operator of this one stands."""
    rng = random.Random(f"{seed} {rule.name} around")
    entries = prover.traced.stage(rule.stage).entries
    anchors = {name for e in entries if e.rule.name == rule.name for name in e.keys}
    around = [e for e in entries if e.rule.name != rule.name and anchors & set(_operators(e.variant.statements))]
    searches = [Search(e, prover.traced, prover.seeds, rng, prover.targets) for e in around]
    for _ in range(attempts if searches else 0):
        search = rng.choice(searches)
        instance = search.attempt()
        if instance is not None:
            yield search, instance


def _operators(node: Any) -> Iterator[str]:
    """The operators of a pattern."""
    if isinstance(node, s.OpPattern):
        yield from node.names
    if isinstance(node, tuple) and not isinstance(node, s.Pos):
        for x in node:
            yield from _operators(x)
    elif is_dataclass(node) and not isinstance(node, type):
        for f in fields(node):
            yield from _operators(getattr(node, f.name))


def same_numbers(ours: Checker, theirs: Checker, recipe: Recipe) -> bool:
    """Whether two rules' results are equal to the last bit."""
    one, other = numbers(ours, recipe), numbers(theirs, recipe)
    if one is None or other is None:
        return False
    return identical(one, other)


def identical(one: list[Any], other: list[Any]) -> bool:
    """Whether no number is another by a bit, and no text another."""
    return all(
        np.array_equal(a, b) if a.dtype.kind == "O" else a.tobytes() == b.tobytes()
        for a, b in zip(one, other, strict=True)
    )


def numbers(check: Checker, recipe: Recipe) -> list[Any] | None:
    """What an instance computes once the rule has been applied; None if it does not fire."""
    realized = realize(recipe)
    after = clone_module(realized.module)
    if not rewrite(after, check.stage, recipe.target).fires:
        return None
    if check.finish is not None and _is_foreign(after) and not _is_foreign(realized.module):
        check.finished([], 0.0, after, recipe)
    right = check.given_meaning(after).main
    feeds = {a.name: recipe.feeds[a.name].astype(a.type.dtype.numpy) for a in right.inputs}
    return run(right, feeds)


def _is_foreign(module: Module) -> bool:
    return any(is_foreign(op) for op in module.walk())


def applied(check: Checker, recipe: Recipe) -> Any:
    """The graph after the rule, as text; None where it does not fire."""
    try:
        module = clone_module(realize(recipe).module)
        report = rewrite(module, check.stage, recipe.target)
    except Exception as e:  # whatever it is, both raise the same or not
        return str(e)
    return print_module(module) if report.fires else None

"""Whether a variant of a rule that survives is a wrong one at all: tried on graphs, not asserted.

Where a condition was dropped, graphs are looked for on which it is false: on each the variant must be right all the
same, or its result be turned down, or be nothing that the target has. Of any other variant the results are compared
with those of the rule itself, graph by graph: they must be the same graph, or the same numbers to the last bit. A
pattern that asks for less must be right where the rule does not match.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

from compiler.execution.apart import run
from compiler.ir import Module, clone_module, print_module
from compiler.rewrite import syntax as s
from compiler.rewrite.diagnostics import RuleError
from compiler.rewrite.driver import rewrite
from compiler.rewrite.mutate import Mutant, dropped, mutated
from compiler.rewrite.prove import Prover
from compiler.rewrite.prove_check import Checker, is_foreign
from compiler.rewrite.prove_search import Search
from compiler.rewrite.recipe import Recipe, realize

#: Attempts for each graph that is wanted.
_ATTEMPTS = 20


def judged(prover: Prover, mutant: Mutant, count: int, seed: int) -> tuple[bool, str]:
    """Whether nothing tells a surviving variant from a right rule, and what was seen."""
    rule = mutant.rule
    original = prover.library.rules[rule.name]
    condition = dropped(original, mutant)
    if condition is not None:
        rule = replace(rule, where=(*rule.where, s.Unary("not", condition, condition.pos)))
    try:
        searched = mutated(prover, rule)
    except RuleError as e:
        return True, f"the others say so: {e.diagnostics[0].message}"
    ours, theirs = prover.checker(original), mutated(prover, mutant.rule).checker(mutant.rule)
    rng = random.Random(f"{seed} {rule.name} again")
    entries = [e for e in searched.traced.stage(rule.stage).entries if e.rule.name == rule.name]
    searches = [Search(e, searched.traced, prover.seeds, rng, prover.targets) for e in entries]
    seen: Counter[str] = Counter()
    for _ in range(_ATTEMPTS * count):
        instance = rng.choice(searches).attempt()
        if instance is None:
            continue
        if condition is None and applied(ours, instance.recipe) == applied(theirs, instance.recipe):
            seen["same"] += 1
        else:
            verdict = theirs(instance.recipe)
            if verdict.kind == "wrong":
                return False, f"wrong on a graph that was looked for: {verdict.text}"
            alike = condition is None and verdict.kind == "proved" and same_numbers(ours, theirs, instance.recipe)
            seen["with the same numbers" if alike else verdict.kind] += 1
        if sum(seen.values()) >= count:
            break
    what = "graphs on which the condition is false" if condition is not None else "graphs"
    told = ", ".join(f"{n} {kind}" for kind, n in seen.most_common())
    weaker = condition is not None or mutant.kind in ("dimensions unconstrained", "any attribute")
    return bool(seen) and (weaker or not seen["proved"]), f"{sum(seen.values())} {what}: {told or 'none were found'}"


def same_numbers(ours: Checker, theirs: Checker, recipe: Recipe) -> bool:
    """Whether two rules' results are equal to the last bit."""
    one, other = numbers(ours, recipe), numbers(theirs, recipe)
    if one is None or other is None:
        return False
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


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

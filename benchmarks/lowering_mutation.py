"""How many mistakes in lowering are caught: every rule of stage lower, broken in one place at a time.

    python -m benchmarks.lowering_mutation [RULE …] [--per-rule 8] [--count 6] [--jobs 2] [--seed 0] [--json FILE]

A mistake is one of benchmarks/lowering_mistakes.py, in an argument of a rule or in an operator that it builds, be it
by its text or by a Python function (benchmarks/lowering_breaker.py). Each is held against

1. the instances on which the test run proves the rule (``--count`` and ``--seed`` as there);
2. the node cases of ONNX's backend tests that have an operator of the rule, by way of a package on disk;
3. the 200 instances of ``planish rules prove``.

One that is caught by none of them is equivalent if no number on any instance is another by a bit, and turned down if
what is built then never fits the types, so that nothing is rewritten; else it survives. Exit code 1 if under 99 % of
the others are caught.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import random
import sys
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import suite
from benchmarks.lowering_breaker import Mistake, State, watch
from benchmarks.mutation_equivalence import applied, identical, numbers
from compiler.options import Options
from compiler.proving.library import library_of, prover_of
from compiler.rewrite import syntax as s
from compiler.rewrite.prove import Prover
from compiler.rewrite.prove_apart import prove_apart
from compiler.rewrite.prove_check import Checker, Verdict
from compiler.rewrite.recipe import Recipe
from compiler.stages import load_library

STAGE = "lower"
HARMLESS = ("equivalent", "turned down")
#: Cases of one rule that a mistake is held against, the smallest first.
_CASES = 24
#: Instances of a proof as users run it.
_FULL = 200


@dataclass(slots=True)
class Outcome:
    """What came of the mistakes in one rule.

    Attributes:
        possible: how many there are.
        idle: how many of those that were made changed nothing on any graph.
        found: of each of the others what it is, and who caught it how.
    """

    rule: str
    stuck: str = ""
    possible: int = 0
    idle: int = 0
    found: list[dict[str, str]] = field(default_factory=list)
    crashes: int = 0


#: An instance and the mistakes that can be made on it.
Kept = tuple[Recipe, frozenset[Mistake]]


class Keeping(Prover):
    """A prover that keeps the instances that held."""

    def __init__(self, prover: Prover) -> None:
        vars(self).update(vars(prover))
        self.kept: list[Kept] = []

    def checker(self, rule: s.Rule) -> Checker:
        check = Remembering(rule, self.library, self.finish)
        check.kept = self.kept
        return check


class Remembering(Checker):
    """A checker that keeps the instances that hold."""

    kept: list[Kept]

    def __call__(self, recipe: Recipe) -> Verdict:
        with noting() as noted:
            verdict = super().__call__(recipe)
        if verdict.kind == "proved":
            self.kept.append((recipe, frozenset(noted)))
        return verdict


@contextlib.contextmanager
def noting() -> Iterator[dict[Mistake, None]]:
    """The mistakes that could have been made meanwhile."""
    State.noted = noted = {}
    try:
        yield noted
    finally:
        State.noted = None


class Judge:
    """Holds mistakes in one rule against instances and cases."""

    def __init__(self, prover: Prover, rule: s.Rule, cases: list[suite.Case]) -> None:
        self.prover, self.rule = prover, rule
        self._cases = cases
        self._full: list[Kept] | None = None
        self.checker = Checker(rule, prover.library, prover.finish)
        self._left: dict[int, Any] = {}
        computed = self.checker.left

        def left(realized: Any, recipe: Recipe) -> Any:
            key = id(recipe)
            if key not in self._left:
                self._left[key] = computed(realized, recipe), recipe
            return self._left[key][0]

        self.checker.left = left  # type: ignore[method-assign]

    @functools.cached_property
    def cases(self) -> list[tuple[suite.Case, frozenset[Mistake]]]:
        """The cases that pass, with the mistakes that can be made on them."""
        found = []
        for case in self._cases:
            with noting() as noted:
                wrong = _broken(case)
            if not wrong:
                found.append((case, frozenset(noted)))
        return found

    def instances(self, count: int, seed: int) -> tuple[list[Kept], str]:
        keeping = Keeping(self.prover)
        proof = keeping.prove(self.rule, count, seed)
        return keeping.kept, proof.wrong or proof.stuck

    def by_instances(self, mistake: Mistake, kept: list[Kept]) -> str:
        """What is wrong on one of the instances; empty if nothing is."""
        turned_down = ""
        held = 0
        for recipe, possible in kept:
            if mistake not in possible:
                held += 1
                continue
            verdict = _with(mistake, self.checker, recipe)
            if verdict.kind == "wrong":
                return f"wrong: {verdict.text}"
            if verdict.kind == "proved":
                held += 1
            else:
                turned_down = f"turned down: {verdict.kind}: {verdict.text}"
        return turned_down if not held else ""

    def by_cases(self, mistake: Mistake) -> str:
        """What is wrong with a case that passes without the mistake; empty if nothing is."""
        for case, possible in self.cases:
            if mistake in possible:
                why = _with(mistake, _broken, case)
                if why:
                    return f"{case.name}: {why}"
        return ""

    def by_proof(self, mistake: Mistake, seed: int) -> str:
        if self._full is None:
            self._full = self.instances(_FULL, seed)[0]
        return self.by_instances(mistake, self._full)

    def harmless(self, mistake: Mistake, kept: list[Kept]) -> tuple[str, str]:
        """What becomes of a mistake that nobody catches: ``idle`` if no graph is another for it, ``equivalent`` if no
        number is, ``turned down`` if what is built fits nowhere, so that nothing is rewritten; else ``survives``."""
        every = [recipe for recipe, possible in (*kept, *(self._full or ())) if mistake in possible]
        same = down = 0
        for recipe in every:
            if applied(self.checker, recipe) == _with(mistake, applied, self.checker, recipe):
                continue
            one, other = numbers(self.checker, recipe), _with(mistake, numbers, self.checker, recipe)
            if one is None or other is None:
                down += 1
            elif identical(one, other):
                same += 1
            else:
                return "survives", ""
        what = "equivalent" if same else "turned down" if down else "idle"
        return what, f"of {len(every)} graphs {same} are others with the same numbers, {down} are not rewritten"


def _with(mistake: Mistake, what: Any, *args: Any) -> Any:
    State.made = mistake
    try:
        return what(*args)
    finally:
        State.made = None


def _broken(case: suite.Case) -> str:
    """What is wrong with a case."""
    from compiler.onnx_backend import PlanishBackend

    try:
        rep = PlanishBackend.prepare(case.model)
        for inputs, want in case.sets:
            why = suite.differs(list(rep.run(inputs)), want, case)
            if why is not None:
                return why
    except Exception as e:  # a mistake may raise anything: the case is not passed
        return f"{type(e).__name__}: {str(e).splitlines()[0] if str(e) else ''}"
    return ""


def judge(prover: Prover, rule: s.Rule, cases: list[suite.Case], options: Any, crashes: int) -> Outcome:
    """What comes of the mistakes in one rule."""
    warnings.simplefilter("ignore")
    np.seterr(all="ignore")
    out = Outcome(rule.name)
    watch(prover.library, rule.name)
    watch(load_library(Options()), rule.name)
    judging = Judge(prover, rule, [c for c in cases if _operators(rule) & set(c.operators)][:_CASES])
    recipes, out.stuck = judging.instances(options.count, options.seed)
    built = any(r.builder for r in rule.rewrites)  # by a function, of which cases may reach more than instances do
    seen = [*recipes, *(judging.cases if built and not crashes else ())]
    mistakes = sorted({m for _, possible in seen for m in possible if m.rule == rule.name}, key=str)
    out.possible = len(mistakes)
    for mistake in ordered(mistakes, random.Random(f"{options.seed} {rule.name} {crashes}")):
        by, why = "test run", judging.by_instances(mistake, recipes)
        if not why:
            by, why = "conformance", judging.by_cases(mistake)
        if not why:
            by, why = "prove", judging.by_proof(mistake, options.seed)
        if not why:
            by, why = judging.harmless(mistake, recipes)
            if by == "idle":
                out.idle += 1
                continue
        out.found.append({"what": mistake.text, "category": mistake.category, "by": by, "why": why})
        if sum(m["by"] not in HARMLESS for m in out.found) >= options.per_rule:
            break
    return out


def ordered(mistakes: list[Mistake], rng: random.Random) -> Iterator[Mistake]:
    """All mistakes: by turns of each category, and first where none has been made."""
    groups: dict[str, list[Mistake]] = defaultdict(list)
    for m in rng.sample(mistakes, len(mistakes)):
        groups[m.category].append(m)
    made: set[Any] = set()
    while groups:
        for category, left in list(groups.items()):
            left.sort(key=lambda m: (m.place, m.part) in made)
            yield left[0]
            made.add((left[0].place, left.pop(0).part))
            if not left:
                del groups[category]


def _operators(rule: s.Rule) -> set[str]:
    """The operators of ai.onnx that a rule names, as cases do."""
    found: set[str] = set()
    stack: list[Any] = [m.pattern for m in rule.match]
    while stack:
        p = stack.pop()
        if isinstance(p, s.OpPattern):
            found.update(n.partition(".")[2].partition("@")[0] for n in p.names)
            stack.extend(p.args)
        elif isinstance(p, s.Alternatives):
            stack.extend(p.choices)
        elif isinstance(p, s.NamedOperand):
            stack.append(p.pattern)
    return found


def every_case() -> list[suite.Case]:
    """The node cases, each followed by the one with its parameters as constants; the smallest first."""
    found: list[suite.Case] = []
    for case in suite.cases(kinds=["node"]):
        found.append(case)
        again = suite.with_constants(case)
        if again is not None:
            found.append(again)
    return sorted(found, key=lambda c: (len(c.model.graph.node), c.name))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rules", nargs="*", metavar="RULE")
    parser.add_argument("--per-rule", type=int, default=8)
    parser.add_argument("--count", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    library = library_of(())
    rules = [r for r in library.rules.values() if r.stage == STAGE and r.name in (options.rules or library.rules)]
    prover = prover_of(library)
    prover.warm(rules)
    cases = every_case()
    outcomes: list[Outcome] = []
    started = time.perf_counter()
    for o in prove_apart(rules, lambda rule, crashes: judge(prover, rule, cases, options, crashes), options.jobs):
        if not isinstance(o, Outcome):
            print(f"  {o.rule}: {o.stuck}", flush=True)  # brought down its process each time
            continue
        outcomes.append(o)
        if options.json:
            options.json.write_text(json.dumps([asdict(o) for o in outcomes], indent=1))
        for m in o.found:
            if m["by"] in ("survives", *HARMLESS):
                print(f"  {m['by']}: {m['what']} {m['why']}", flush=True)
    return report(outcomes, time.perf_counter() - started)


def report(outcomes: list[Outcome], seconds: float) -> int:
    """Prints the share that is caught by category and by whom; whether that is enough."""
    found = [m for o in outcomes for m in o.found]
    by = Counter(m["by"] for m in found)
    wrong = Counter(m["category"] for m in found if m["by"] not in HARMLESS)
    alive = Counter(m["category"] for m in found if m["by"] == "survives")
    print("| mistake | made | caught |")
    print("|---|---:|---:|")
    for category, n in wrong.most_common():
        print(f"| {category} | {n} | {n - alive[category]} |")
    whole = [o.rule for o in outcomes if all(m["by"] in HARMLESS for m in o.found)]
    print(
        f"{len(outcomes) - len(whole)} of {len(outcomes)} rules broken, by {wrong.total()} mistakes, in {seconds:.0f} s"
    )
    print(f"nothing to break in: {', '.join(sorted(whole)) or 'none'}")
    print(f"caught by the test run {by['test run']}, by conformance {by['conformance']}, by prove {by['prove']}")
    print(f"besides {by['equivalent']} are equivalent, {by['turned down']} turned down")
    share = 1 - by["survives"] / max(1, wrong.total())
    print(f"caught {share:.2%} of {wrong.total()}")
    return 0 if share >= 0.99 else 1


if __name__ == "__main__":
    sys.exit(main())

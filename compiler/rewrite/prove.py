"""``planish rules prove``: every rule is instantiated at random from its own text and held to its contract.

See :mod:`instantiate` and :mod:`prove_search` for how instances are found, :mod:`prove_check` for what is done with
one, :mod:`prove_compare` for the contracts.
"""

from __future__ import annotations

import itertools
import logging
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compiler.ir import Module
from compiler.rewrite.library import Library
from compiler.rewrite.prove_apart import prove_apart
from compiler.rewrite.prove_check import MEANING, Checker, Verdict
from compiler.rewrite.prove_replay import recipe_of, replayable, target_of
from compiler.rewrite.prove_search import Search
from compiler.rewrite.prove_seeds import Seeds
from compiler.rewrite.prove_shrink import shrunk
from compiler.rewrite.recipe import Recipe
from compiler.rewrite.syntax import Rule

if TYPE_CHECKING:
    from compiler.rewrite.prove_machine import Machine

#: How many instances prove a rule.
COUNT = 200
#: Attempts per instance wanted before a rule counts as one that cannot be instantiated.
_ATTEMPTS = 30
#: How often a graph that types turn down is tried with open dimensions, or all the same.
_RELAXED = 3
#: Seconds of processor time per instance wanted, after which the search gives up.
_SECONDS = 0.4


@dataclass(slots=True)
class Proof:
    """What came of one rule.

    Attributes:
        instances: how many instances held.
        rewrites: how many by rewrite of the rule.
        counterexample: the smallest instance found on which the contract is broken, as text that can be replayed.
        wrong: what is wrong on it.
        stuck: why there are too few instances, if that is so.
        outcomes: how many attempts ended how.
        oracles: for rules of stage meaning, how many instances were held to whom.
    """

    rule: str
    instances: int = 0
    rewrites: Counter[int] = field(default_factory=Counter)
    wrong: str = ""
    counterexample: str = ""
    stuck: str = ""
    outcomes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    oracles: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    crashes: int = 0

    @property
    def holds(self) -> bool:
        return not self.wrong and not self.stuck


class Prover:
    """Proves rules of one library. Everything that proofs share is made once, before they run side by side."""

    def __init__(
        self,
        library: Library,
        targets: Sequence[Any] = (),
        finish: Callable[[Module], None] | None = None,
        machines: Mapping[str, Machine] | None = None,
    ) -> None:
        """
        Args:
            library: the rules, with those of stage ``meaning`` that say what operators are.
            targets: what conditions may see as ``target``, besides none.
            finish: what makes the element types of lowered modules those that the operators take.
            machines: what runs the operators of a stage, where that is not onnxruntime.
        """
        self.library = library
        self.finish = finish
        self.machines = machines or {}
        self.traced = Library(library.files, library.disabled, traced=True)
        self.seeds = Seeds(library)
        self.targets = list(targets)

    def warm(self, rules: Sequence[Rule]) -> None:
        """Does what all proofs of these rules need, so that processes forked from here need not."""
        import onnxruntime  # noqa: F401 (imported once, before processes are forked)

        self.seeds.of("onnx.Relu")
        for stage in dict.fromkeys(r.stage for r in rules):
            self.library.stage(stage)
            self.traced.stage(stage)
        if any("mil." in name for r in rules for e in self._entries(r) for name in e.keys):
            _ = self.seeds.lowered
        if any(r.stage == MEANING for r in rules):
            logging.getLogger("coremltools").setLevel(logging.ERROR)  # it says what it lacks to run packages
            import coremltools.converters.mil  # noqa: F401

    def _entries(self, rule: Rule) -> list[Any]:
        return [e for e in self.traced.stage(rule.stage).entries if e.rule.name == rule.name]

    def prove(self, rule: Rule, count: int = COUNT, seed: int = 0) -> Proof:
        """Proves one rule in this process."""
        started = time.perf_counter()
        proof = Proof(rule.name)
        rng = random.Random(f"{seed} {rule.name}")
        check = self.checker(rule)
        searches = [Search(e, self.traced, self.seeds, rng, self.targets) for e in self._entries(rule)]
        left = {i: max(1, count // len(searches)) for i in range(len(searches))}
        attempts = Counter[int]()
        limit = time.process_time() + max(8.0, _SECONDS * count)
        most = _ATTEMPTS * count + 400
        while searches and time.process_time() < limit and sum(attempts.values()) < most:
            if proof.instances >= count and all(proof.rewrites[k] for k in range(len(rule.rewrites))):
                if not self._settle(proof, rule, check):
                    break
                continue
            open_ = [i for i in left if left[i] > 0] or list(left)
            i = min(open_, key=lambda i: attempts[i])
            attempts[i] += 1
            search = searches[i]
            instance = search.attempt()
            if instance is None:
                proof.outcomes["no instance"] += 1
                continue
            verdict = check(instance.recipe)
            proof.outcomes[verdict.kind] += 1
            if verdict.kind == "proved":
                proof.instances += 1
                proof.rewrites[instance.rewrite] += 1
                if verdict.text:
                    proof.oracles[verdict.text] += 1
                left[i] -= 1
            elif verdict.kind == "wrong":
                self._wrong(proof, rule, instance.recipe, verdict, check)
                break
            else:
                proof.reasons[f"{verdict.kind}: {verdict.text}"] += 1
                search.dismiss(instance)
                if verdict.kind == "unfired" and not self._try_relaxed(proof, rule, search, instance.recipe, check):
                    break
        if not proof.wrong and proof.instances:
            self._try_extremes(proof, rule, searches, check, count)
        if not proof.wrong:
            self._settle(proof, rule, check)
        if not proof.wrong:
            proof.stuck = self._stuck(proof, rule, searches, count)
        proof.seconds = time.perf_counter() - started
        return proof

    def _try_relaxed(self, proof: Proof, rule: Rule, search: Search, recipe: Recipe, check: Checker) -> bool:
        """Tries what types turned down where sizes are not known, or the same; whether nothing is wrong there."""
        for _ in range(_RELAXED):
            relaxed = search.relaxed(recipe)
            verdict = check(relaxed) if relaxed is not None else None
            if relaxed is not None and verdict is not None and verdict.kind == "wrong":
                self._wrong(proof, rule, relaxed, verdict, check)
                return False
        return True

    def _try_extremes(self, proof: Proof, rule: Rule, searches: Sequence[Search], check: Checker, count: int) -> None:
        """Half as many graphs more are brought to an edge, where the rule may still match, and some have other
        attributes than one that matched. They are not counted."""
        for search in searches:
            extremes = search.extremes(max(4, count // 2 // len(searches)), far=True)
            for instance in itertools.chain(extremes, search.neighbours()):
                verdict = check(instance.recipe)
                if verdict.kind == "wrong":
                    self._wrong(proof, rule, instance.recipe, verdict, check)
                    return

    def checker(self, rule: Rule) -> Checker:
        """What checks instances of ``rule``."""
        from compiler.rewrite.prove_machine import MachineChecker
        from compiler.rewrite.prove_meaning import MeaningChecker

        if rule.stage in self.machines:
            return MachineChecker(rule, self.library, self.machines[rule.stage])
        return (MeaningChecker if rule.stage == MEANING else Checker)(rule, self.library, self.finish)

    def replay(self, rule: Rule, module: Module) -> Verdict:
        """Checks a counterexample again."""
        for entry in self._entries(rule):
            for op in module.main.block.ops:
                if op.name in entry.keys and entry.matcher.match(op, target_of(module)) is not None:
                    check = self.checker(rule)
                    check.immediate = True
                    return check(recipe_of(module, op))
        return Verdict("unfired", "the rule does not match")

    def _settle(self, proof: Proof, rule: Rule, check: Checker) -> bool:
        """Takes back what turns out not to hold; whether that is so and others are to be found instead."""
        late = check.settle()
        for recipe, verdict in late:
            proof.instances -= 1
            if verdict.kind == "wrong":
                self._wrong(proof, rule, recipe, verdict, check)
                return False
            proof.reasons[f"{verdict.kind}: {verdict.text}"] += 1
        return bool(late)

    def _wrong(self, proof: Proof, rule: Rule, recipe: Recipe, verdict: Verdict, check: Checker) -> None:
        check.immediate = True
        smallest = shrunk(recipe, lambda r: check(r).kind == "wrong")
        again = check(smallest)
        proof.wrong = (again if again.kind == "wrong" else verdict).text
        proof.counterexample = replayable(rule.name, smallest)

    def _stuck(self, proof: Proof, rule: Rule, searches: list[Search], count: int) -> str:
        missing = [i for i in range(len(rule.rewrites)) if not proof.rewrites[i]]
        if proof.instances >= count and not missing:
            return ""
        blame: Counter[Any] = Counter()
        for s in searches:
            blame.update(s.blame)
        if proof.instances >= count:
            line = rule.rewrites[missing[0]].pos.line
            what = f"the rewrite in line {line} was never reached in {proof.instances} instances"
        else:
            what = f"only {proof.instances} of {count} instances were found"
            (pos, text), _ = blame.most_common(1)[0] if blame else ((None, ""), 0)
            if pos is not None:
                what += f"; most attempts failed at {rule.file}:{pos.line}:{pos.column} ({text})"
            elif text:
                what += f"; most attempts failed as {text}"
            if proof.reasons and not pos:
                what += f"; {proof.reasons.most_common(1)[0][0]}"
        return f"{what}; add an 'example' block that shows where the rule applies"

    def prove_all(self, rules: Sequence[Rule], count: int = COUNT, seed: int = 0, jobs: int = 1) -> Iterator[Proof]:
        """Proves rules in processes of their own, as onnx's inference can bring one down; in the order they finish.

        Args:
            jobs: how many at a time.
        """
        self.warm(rules)
        yield from prove_apart(rules, lambda rule, crashes: self.prove(rule, count, seed + 1000 * crashes), jobs)

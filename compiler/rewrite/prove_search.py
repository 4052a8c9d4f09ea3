"""From graphs of the right structure to instances of a rule: the matcher says what is missing, and that is mended.

The traced matcher gives the clause that failed and what its names stood for. An equation is solved for a name that
can be set (an attribute, a constant), a wish for equal shapes is granted, anything else is drawn again (see
:mod:`prove_solve`, :mod:`prove_set`). What matches is kept and varied (:mod:`prove_vary`).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compiler.ir import Op, TensorType
from compiler.rewrite import prove_values as draw
from compiler.rewrite import syntax as s
from compiler.rewrite.driver import NO_TARGET
from compiler.rewrite.functions import Decline
from compiler.rewrite.instantiate import Misfit, Sampler
from compiler.rewrite.library import Library
from compiler.rewrite.prove_pools import pins_of, pools_of
from compiler.rewrite.prove_replay import recipe_of
from compiler.rewrite.prove_seeds import Seeds
from compiler.rewrite.prove_solve import Solving
from compiler.rewrite.recipe import Realized, Recipe, realize, symbolic
from compiler.rewrite.rule_tests import build_graph, outputs_of
from compiler.rewrite.stage import Entry

#: How often one graph is mended before another is drawn.
_REPAIRS = 8
#: How often a graph of which a condition is false is tried with open dimensions.
_OPENED = 0.15
#: How many graphs of each rewrite are tried with other attributes, one at a time.
_BASES = 3
#: How often such a one is tried with constants of extreme size.
_EXTREME = 0.05
#: How often one that is varied is brought to an edge.
_EDGED = 0.1
#: How many graphs are brought to an edge for each that the rule should still match there.
_TRIES = 4
#: How many instances are kept to be varied, per rewrite of the rule.
_ARCHIVE = 24


@dataclass(slots=True)
class Instance:
    """A graph to which the rule applies, and which of its rewrites does."""

    recipe: Recipe
    realized: Realized
    rewrite: int


@dataclass(slots=True)
class Failure:
    """How far the matcher got: the clause and what names stood for."""

    step: int = -1
    pos: s.Pos | None = None
    text: str = ""
    found: dict[str, Any] = field(default_factory=dict)


class Search(Solving):
    """Finds instances of one variant of a rule."""

    def __init__(
        self,
        entry: Entry,
        library: Library,
        seeds: Seeds,
        rng: random.Random,
        targets: Sequence[Any] = (),
    ) -> None:
        """``entry`` is compiled in the traced form."""
        self.entry = entry
        self.variant = entry.variant
        self.library = library
        self.rng = rng
        self.targets = [NO_TARGET, *targets]
        rule = entry.rule
        self.pools = pools_of(rule, library.env.fns)
        self.sampler = Sampler(self.variant, rng, seeds, self.pools, rule.numeric.contract == "exact")
        self.pins = [pins_of(e, library) for e in rule.examples]
        whens = [r.when for r in rule.rewrites if r.when is not None]
        #: Optional operands that conditions ask about: they should be there often enough.
        self.asked = {n for e in (*rule.where, *whens) for n in s.mentioned(e)}
        self.shown = list(self._shown())
        self.blame: Counter[tuple[s.Pos | None, str]] = Counter()
        self.archive: dict[int, list[Recipe]] = {}
        self.reached: Counter[int] = Counter()
        self.globals: dict[str, Any] | None = None

    def _shown(self) -> Iterator[Recipe]:
        """The graphs of the rule's own test blocks to which this variant applies: of those that say that it does, and
        of those that say that it does not, should they be wrong."""
        rule = self.entry.rule
        for test in rule.tests:
            module = build_graph(self.library, rule, test, test.before, outputs_of(test))
            for op in module.main.block.ops:
                if op.name in self.entry.keys and self._applies(op):
                    yield recipe_of(module, op)
                    break

    def _applies(self, op: Op) -> bool:
        """Whether the variant matches, or raises in place of an answer, which must be found out too."""
        try:
            return self.entry.matcher.match(op, NO_TARGET) is not None
        except Exception:  # whatever a condition may raise
            return True

    # ---- one attempt

    def attempt(self) -> Instance | None:
        """Draws a graph, or varies one that matched; None if the rule does not match it and it cannot be mended."""
        recipe = self.draw()
        if recipe is None:
            return None
        best = -1
        for _ in range(_REPAIRS):
            try:
                realized = realize(recipe)
            except Exception as e:  # inference of mil runs rules, which may raise anything on what is no operator
                self.blame[None, str(e)] += 1
                return None
            try:
                found, failure = self.match(recipe, realized)
            except Exception:  # a condition that raises: wrong if the graph is valid, which the check finds out
                return Instance(recipe, realized, -1)
            if found is not None:
                rarest = min(range(len(self.variant.rewrites)), key=lambda i: self.reached[i])
                if self.reached[found] > 3 * self.reached[rarest] + 3 and self.rng.random() < 0.6:
                    other = self.towards(rarest, self.locals_of(realized, recipe), recipe)
                    if other is not None:
                        recipe = other
                        continue
                return self.keep(Instance(recipe, realized, found))
            self.blame[failure.pos, failure.text] += 1
            if failure.step < best and self.rng.random() < 0.7:
                return None
            best = max(best, failure.step)
            mended = self.mend(failure, recipe)
            if mended is None:
                return None
            recipe = mended
        return None

    def extremes(self, count: int, far: bool = False) -> Iterator[Instance]:
        """Of graphs that matched, brought to an edge, those that the rule still matches: ``count``, or fewer if that is
        rarely so."""
        kept = [r for found in self.archive.values() for r in found]
        found = 0
        for _ in range(_TRIES * count if kept else 0):
            for instance in self._matching(self.edge(self.rng.choice(kept), far)):
                found += 1
                yield instance
            if found == count:
                break

    def neighbours(self) -> Iterator[Instance]:
        """Of graphs with an attribute or list next to that of one that matched, those that the rule still matches."""
        for kept in self.archive.values():
            for base in self.rng.sample(kept, min(_BASES, len(kept))):
                for recipe in self.stepped(base):
                    yield from self._matching(recipe)

    def _matching(self, recipe: Recipe) -> Iterator[Instance]:
        try:
            realized = realize(recipe)
        except Exception:  # no valid graph, as inference of mil runs rules and may raise anything
            return
        try:
            found, _ = self.match(recipe, realized)
        except Exception:  # a condition that raises: wrong if the graph is valid, which the check finds out
            found = -1
        if found is not None:
            yield Instance(recipe, realized, found)

    def relaxed(self, recipe: Recipe) -> Recipe | None:
        """A graph that matched with dimensions that are open or the same, if the rule still matches it: what types turn
        down where sizes are known and differ has to be right by the rule's own conditions where that is not so."""
        recipe = symbolic(recipe, self.rng) if self.rng.random() < 0.5 else self.levelled(recipe)
        return next((i.recipe for i in self._matching(recipe)), None)

    def draw(self) -> Recipe | None:
        rng = self.rng
        kept = [r for found in self.archive.values() for r in found]
        if kept and rng.random() < 0.6:
            least = min(self.archive, key=lambda i: self.reached[i])
            recipe = rng.choice(self.archive[least] if rng.random() < 0.3 else kept)
            for _ in range(rng.randint(1, 3)):
                recipe = self.vary(recipe)
            return self.edge(recipe) if rng.random() < _EDGED else recipe
        if self.shown and rng.random() < 0.3:
            recipe = rng.choice(self.shown)
            leaves = {n: self.redrawn(leaf, recipe) if not leaf.constant else leaf for n, leaf in recipe.leaves.items()}
            return replace(recipe, leaves=leaves)
        often = 0.9 if self.sampler.careful else 0.5
        pins = rng.choice(self.pins) if self.pins and rng.random() < often else None
        try:
            recipe = self.sampler.draw(pins, self.asked if rng.random() < 0.5 else ())
        except Misfit as e:
            self.blame[e.pos, str(e)] += 1
            return None
        return replace(recipe, target=rng.choice(self.targets) if rng.random() < 0.6 else NO_TARGET)

    def keep(self, instance: Instance) -> Instance:
        types = [v.type for v in instance.realized.function.outputs]
        if self.rng.random() < 0.3 and all(isinstance(t, TensorType) and t.dtype.kind == "bool" for t in types):
            instance = self.wilder(instance)
        self.reached[instance.rewrite] += 1
        kept = self.archive.setdefault(instance.rewrite, [])
        if len(kept) < _ARCHIVE:
            kept.append(instance.recipe)
        else:
            kept[self.rng.randrange(_ARCHIVE)] = instance.recipe
        return instance

    def wilder(self, instance: Instance) -> Instance:
        """The instance with infinities and NaN among its inputs: for results that are true or false."""
        leaves = {
            n: replace(leaf, array=draw.infinite(self.rng, draw.contents(self.rng, leaf.type)))
            if leaf.array.dtype.kind == "f" and not leaf.constant and not leaf.pinned
            else leaf
            for n, leaf in instance.recipe.leaves.items()
        }
        recipe = replace(instance.recipe, leaves=leaves)
        return Instance(recipe, realize(recipe), instance.rewrite)

    def dismiss(self, instance: Instance) -> None:
        """Forgets an instance that turned out not to be valid."""
        if instance.rewrite < 0:
            return
        kept = self.archive.get(instance.rewrite, [])
        self.archive[instance.rewrite] = [r for r in kept if r is not instance.recipe]
        if not self.archive[instance.rewrite]:
            del self.archive[instance.rewrite]
        self.reached[instance.rewrite] -= 1

    def match(self, recipe: Recipe, realized: Realized) -> tuple[int | None, Failure]:
        """The rewrite that applies, or how far the matcher got."""
        deepest = Failure()
        steps = self.entry.matcher.steps

        def failed(step: int, found: dict[str, Any]) -> None:
            if step >= deepest.step:
                deepest.step, deepest.found = step, found
                deepest.pos, deepest.text = steps[step].pos, steps[step].text

        self.entry.matcher.trace.hook = failed
        try:
            with np.errstate(all="ignore", over="raise"):  # as the driver does
                match = self.entry.matcher.match(realized.ops[recipe.anchor], recipe.target)
        finally:
            self.entry.matcher.trace.hook = None
        return (match[0], deepest) if match is not None else (None, deepest)

    def locals_of(self, realized: Realized, recipe: Recipe) -> dict[str, Any]:
        match = self.entry.matcher.match(realized.ops[recipe.anchor], recipe.target)
        assert match is not None
        bound: dict[str, Any] = {f"v_{n}": v for n, v in zip(self.entry.matcher.names, match[2])}
        bound["target"] = recipe.target
        return bound

    # ---- mending

    def mend(self, failure: Failure, recipe: Recipe) -> Recipe | None:
        """The graph changed so that the clause has a better chance; None if nothing can be done about it."""
        pos = failure.pos
        for w in self.variant.where:
            if w.pos == pos:
                if self.rng.random() < _OPENED:  # what is false of sizes may hold where they are not known
                    return symbolic(recipe, self.rng) if self.rng.random() < 0.5 else self.one_open(recipe)
                if _unknown(failure) and self.rng.random() < 0.7:
                    known = self.known(recipe, s.mentioned(w))
                    if known is not None:
                        return known
                if self.rng.random() < _EXTREME:
                    return self.enlarged(recipe)
                return self.solve(w, failure.found, recipe) or self.disturb(w, recipe, failure.found)
        for b in self.variant.let:
            if b.value.pos == pos:
                return self.known(recipe) if _unknown(failure) else self.disturb(b.value, recipe, failure.found)
        whens = [r.when for r in self.variant.rewrites if r.when is not None]
        if failure.text == "when" and whens:
            one = self.rng.choice(whens)
            return self.solve(one, failure.found, recipe) or self.disturb(one, recipe, failure.found)
        return None

    def towards(self, rewrite: int, found: Mapping[str, Any], recipe: Recipe) -> Recipe | None:
        """The graph changed so that another rewrite of the rule applies: those before it do not, and it does."""
        changed: Recipe | None = None
        for i, r in enumerate(self.variant.rewrites[: rewrite + 1]):
            if r.when is not None:
                known, value = self.try_evaluate(r.when, found)
                if known and bool(value) == (i == rewrite):
                    continue
                start = changed or recipe
                changed = self.solve(r.when, found, start, i == rewrite) or self.disturb(r.when, start, found)
        return changed


def _unknown(failure: Failure) -> bool:
    """Whether the clause asked for something that is not known, rather than being false."""
    why = failure.found.get("_why")
    return isinstance(why, Decline) and str(why) != "no such axis"

"""Rules whose right side only another machine than onnxruntime can run: many instances are built and run at once.

A machine compiles what it runs, which takes a second whether it is one graph or a hundred. So instances count as
proved until :meth:`MachineChecker.settle`, which runs all that have gathered; the prover takes back what does not hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from compiler.ir import Module, VerifyError, clone_module, verify
from compiler.rewrite.diagnostics import RewriteError
from compiler.rewrite.driver import rewrite
from compiler.rewrite.library import Library
from compiler.rewrite.prove_check import Checker, Verdict, is_foreign
from compiler.rewrite.prove_compare import difference
from compiler.rewrite.recipe import Leaf, Realized, Recipe, realize
from compiler.rewrite.stage import Stage
from compiler.rewrite.syntax import Rule

Array = np.ndarray[Any, Any]


class Machine(Protocol):
    """What runs modules whose operators onnxruntime does not know."""

    def accepts(self, module: Module) -> str | None:
        """Why a module, lowered by the stage, cannot be run; None if it can be."""

    def run(self, jobs: Sequence[tuple[Module, Mapping[str, Array]]]) -> list[list[Array] | str]:
        """The outputs of each module on its inputs, or what went wrong when it ran."""


class MachineChecker(Checker):
    """Checks instances of one rule of a stage whose operators a machine runs."""

    def __init__(self, rule: Rule, library: Library, machine: Machine) -> None:
        super().__init__(rule, library)
        self.machine = machine
        self.waiting: list[tuple[Recipe, Realized, list[Array], float, Module]] = []
        whole = library.stage(rule.stage)
        #: What brings the rest of a graph to the machine: before the rule has been applied, the rule is not used.
        self.others = Stage(rule.stage, [e for e in whole.entries if e.rule.name != rule.name])
        self.whole = whole

    def judge(self, recipe: Recipe) -> Verdict:
        recipe = replace(recipe, leaves={n: _taken(leaf) for n, leaf in recipe.leaves.items()})
        try:
            realized = realize(recipe)
        except Exception as e:  # a varied recipe need not be an operator any more
            return Verdict("invalid", str(e))
        if any(leaf.array.size == 0 for leaf in recipe.leaves.values()):
            return Verdict("void", "the machine has no empty tensors")
        after = clone_module(realized.module)
        left = self.left(realized, recipe)
        if isinstance(left, Verdict):
            return left
        outputs, scale = left
        if any(np.size(o) == 0 for o in outputs):
            return Verdict("void", "the machine has no empty tensors")
        held = [*outputs, *(leaf.array for leaf in recipe.leaves.values())]
        if any(_beyond_32_bits(a) for a in held):
            return Verdict("void", "integers that the machine does not have")
        try:
            report = rewrite(after, self.stage, recipe.target)
            if not report.fires:
                return Verdict("unfired", report.rules[self.rule.name].reason)
            rewrite(after, self.whole, recipe.target)
            verify(after)
        except (RewriteError, VerifyError) as e:
            return Verdict("wrong", str(e).splitlines()[0])
        broken = self.broken(realized.function, after.main)
        if broken is not None:
            return Verdict("wrong", broken)
        if any(not is_foreign(op) and op.defn.dialect != "ir" and op.defn.constant is None for op in after.walk()):
            return Verdict("unsupported", "the rest of the graph has no kernels")
        try:
            reason = self.machine.accepts(after)
        except Exception as e:  # whatever it raises, it has no kernels for what the rule has made
            return Verdict("wrong", f"no kernels can be written: {type(e).__name__}: {e}")
        if reason is not None:
            return Verdict("unsupported", reason)
        job = (recipe, realized, outputs, scale, after)
        if self.immediate:
            return self.judged(job, self.machine.run([(after, recipe.feeds)])[0])
        self.waiting.append(job)
        return Verdict("proved")

    def left(self, realized: Realized, recipe: Recipe) -> tuple[list[Array], float] | Verdict:
        """Of a graph that the machine's operators stand in already, what the machine computes without the rule."""
        if not any(is_foreign(op) for op in realized.module.walk()):
            return super().left(realized, recipe)
        module = clone_module(realized.module)
        rewrite(module, self.others, recipe.target)
        try:
            reason = self.machine.accepts(module)
        except Exception as e:  # operators of the machine drawn at random need not fit together
            return Verdict("invalid", str(e))
        if reason is not None:
            return Verdict("invalid", reason)
        found = self.machine.run([(module, recipe.feeds)])[0]
        if isinstance(found, str):
            return Verdict("invalid", found)
        return found, max((float(np.abs(a.astype(np.float64)).max(initial=0.0)) for a in found), default=0.0)

    def settle(self) -> list[tuple[Recipe, Verdict]]:
        """Runs what has gathered; gives the instances that do not hold."""
        jobs, self.waiting = self.waiting, []
        found = self.machine.run([(after, recipe.feeds) for recipe, _, _, _, after in jobs])
        verdicts = [(job[0], self.judged(job, f)) for job, f in zip(jobs, found, strict=True)]
        return [(r, v) for r, v in verdicts if v.kind != "proved"]

    def judged(self, job: tuple[Recipe, Realized, list[Array], float, Module], found: list[Array] | str) -> Verdict:
        recipe, realized, outputs, scale, _ = job
        if isinstance(found, str):
            return Verdict("wrong", found)
        outputs, found = ([_single(a) for a in arrays] for arrays in (outputs, found))
        wide = [o.astype(f.dtype) if o.dtype != f.dtype else o for o, f in zip(outputs, found, strict=True)]
        contract = self.rule.numeric
        wrong = difference(wide, found, contract, scale, True, self.approximate)
        if wrong is not None and contract.contract != "exact":
            moved = self.moved(realized, recipe, outputs)
            wrong = difference(wide, found, contract, scale, True, self.approximate, moved)
        return Verdict("proved") if wrong is None else Verdict("wrong", str(wrong))


def _taken(leaf: Leaf) -> Leaf:
    """A leaf of known shape that holds numbers which the machine has: doubles are single there."""
    return replace(leaf, names=None, array=_single(leaf.array).astype(leaf.array.dtype, copy=False))


def _single(array: Array) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if array.dtype == np.float64 else array


def _beyond_32_bits(a: Any) -> bool:
    return np.asarray(a).dtype.kind in "iu" and bool(np.size(a)) and float(np.abs(a.astype(np.float64)).max()) >= 2**31

"""Rules that say what mil.* means, held to what others say of it.

The left side of such a rule cannot be run here: :mod:`prove_oracle` says what it computes. The right side runs in
onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from compiler.errors import PlanishError
from compiler.execution.apart import CrashError, run
from compiler.ir import InferenceError, Op, clone_module
from compiler.rewrite.diagnostics import RewriteError
from compiler.rewrite.driver import rewrite
from compiler.rewrite.prove_check import NUDGES, Checker, Verdict, nudged
from compiler.rewrite.prove_compare import difference
from compiler.rewrite.prove_kernels import inside, magnitude
from compiler.rewrite.prove_oracle import NotTakenError, Truth, UnknownError, fits, truth
from compiler.rewrite.recipe import Recipe, realize

Array = np.ndarray[Any, Any]

#: The places of equal elements in an order are nowhere documented.
_ORDERING = {"mil.topk", "mil.argsort"}


class MeaningChecker(Checker):
    """Checks instances of one meaning rule."""

    def judge(self, recipe: Recipe) -> Verdict:
        try:
            realized = realize(recipe)
        except Exception as e:  # a varied recipe need not be an operator any more, and inference runs rules
            return Verdict("invalid", str(e))
        op = realized.ops[recipe.anchor]
        if any(leaf.array.size == 0 for leaf in recipe.leaves.values()):
            return Verdict("void", "Core ML has no empty tensors")
        try:
            said = self.truth(op, recipe)
        except NotTakenError as e:
            return Verdict("invalid", str(e))
        except UnknownError as e:
            return Verdict("unsupported", str(e))
        if op.name == "mil.topk" and not op.attributes.get("sort", True):
            return Verdict("void", "the order of what is not sorted is not documented")
        if (
            op.name in _ORDERING
            and op.attributes.get("return_indices", True)
            and _ties(_contents(op, recipe)[op.operands[0]], op.attributes["axis"])
        ):
            return Verdict("void", "the order of equal elements is not documented")
        after = clone_module(realized.module)
        try:
            if not rewrite(after, self.stage, recipe.target).fires:
                return Verdict("unfired")
            function = self.given_meaning(after).main
            results = run(function, recipe.feeds)
        except RewriteError as e:
            return Verdict("wrong", str(e).splitlines()[0])
        except CrashError as e:
            return Verdict("wrong", f"the meaning cannot be run: {e}")
        except (PlanishError, InferenceError) as e:
            # No silent miscompile: a package with such an operator is refused, or cannot be proved.
            return Verdict("unsupported", f"the meaning cannot be run: {str(e).splitlines()[0]}")
        broken = self.broken(realized.function, function)
        if broken is not None:
            return Verdict("wrong", broken)
        for i, (ours, theirs) in enumerate(zip(results, said.shapes)):
            if theirs is not None and not fits(ours.shape, theirs):
                if self.shape_moves(recipe, i, said):
                    return Verdict("void", "the number of elements depends on how inputs are rounded")
                return Verdict("wrong", f"result {i} has shape {list(ours.shape)}; coremltools says {list(theirs)}")
        return self.compared(op, recipe, said, results, inside(function, {}))

    def compared(self, op: Op, recipe: Recipe, said: Truth, results: list[Array], scale: float) -> Verdict:
        """The results against what is said of them; ``scale``: the size of numbers on the way."""
        values = _like(said.values, results)
        scale = max([scale, *(magnitude(a) for a in [*values, *(x.array for x in recipe.leaves.values())])])
        found = difference(values, results, self.rule.numeric, scale, True)
        if found is not None and self.rule.numeric.contract != "exact":
            moved = self.moved_truth(recipe, values)
            found = difference(values, results, self.rule.numeric, scale, True, False, moved)
        if found is None:
            return Verdict("proved", said.source)
        if values[found.output].dtype.kind in "iu" and _overflows(op, recipe):
            return Verdict("void", "integers that overflow, which is nowhere documented")
        if self.holds_wider(recipe, results, scale):
            return Verdict("void", "a number on the way that half precision does not hold")
        return Verdict("wrong", f"{found} ({said.source})")

    def holds_wider(self, recipe: Recipe, results: list[Array], scale: float) -> bool:
        """Whether the results are what is said in single precision of what is given in half precision."""
        if not any(leaf.array.dtype == np.float16 for leaf in recipe.leaves.values()):
            return False
        leaves = {
            n: replace(leaf, array=leaf.array.astype(np.float32)) if leaf.array.dtype == np.float16 else leaf
            for n, leaf in recipe.leaves.items()
        }
        wider = replace(recipe, leaves=leaves)
        try:
            said = self.truth(realize(wider).ops[recipe.anchor], wider)
        except (NotTakenError, InferenceError):
            return False
        return difference(_like(said.values, results), results, self.rule.numeric, scale, True) is None

    def truth(self, op: Op, recipe: Recipe) -> Truth:
        return truth(op, _contents(op, recipe), getattr(recipe.target, "os", None))

    def shape_moves(self, recipe: Recipe, index: int, said: Truth) -> bool:
        """Whether a result has another shape once float inputs are rounded otherwise."""
        return any(other.shapes[index] != said.shapes[index] for other in self.nudged_truths(recipe))

    def nudged_truths(self, recipe: Recipe) -> Iterator[Truth]:
        gen = np.random.default_rng(0)
        for _ in range(NUDGES):
            leaves = {n: replace(leaf, array=nudged(leaf.array, gen)) for n, leaf in recipe.leaves.items()}
            other = replace(recipe, leaves=leaves)
            try:
                yield self.truth(realize(other).ops[recipe.anchor], other)
            except (NotTakenError, InferenceError):
                continue

    def moved_truth(self, recipe: Recipe, values: list[Array]) -> list[Array]:
        """How far each element moves when float inputs are rounded otherwise: the most of some tries."""
        out = [np.zeros(np.shape(v)) for v in values]
        for other in self.nudged_truths(recipe):
            again = _like(other.values, values)
            for i, (a, b) in enumerate(zip(values, again)):
                if a.shape == b.shape:
                    with np.errstate(invalid="ignore", over="ignore"):
                        off = np.abs(a.astype(np.float64) - b.astype(np.float64))
                    out[i] = np.maximum(out[i], np.where(np.isfinite(off), off, 0.0))
        return out


def _like(values: list[Array], results: list[Array]) -> list[Array]:
    """Arrays in the element types, and where they have one element in the shapes, of others."""
    out = []
    for v, r in zip(values, results):
        with np.errstate(all="ignore"):
            a = v.astype(r.dtype)
        out.append(a.reshape(r.shape) if a.size == r.size == 1 else a)
    return out


def _ties(x: Array, axis: int) -> bool:
    ordered = np.sort(x.astype(np.float64), axis=axis)
    return bool((np.diff(ordered, axis=axis) == 0).any())


def _overflows(op: Op, recipe: Recipe) -> bool:
    """Whether sums and squares of integers may be no 32-bit integers any more."""
    arrays = [a for a in _contents(op, recipe).values() if a.dtype.kind in "iu"]
    return any(float((a.astype(np.float64) ** 2).sum()) >= 2**31 for a in arrays)


def _contents(op: Op, recipe: Recipe) -> dict[Any, Array]:
    out: dict[Any, Array] = {}
    for v in op.operands:
        if v is None:
            continue
        array = v.constant
        out[v] = array if array is not None else recipe.leaves[v.name].array
    return out

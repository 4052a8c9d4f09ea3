"""One instance, both sides: the rule is applied by the driver, and onnxruntime computes what was and what has become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from compiler.errors import PlanishError
from compiler.ir import (
    Function,
    InferenceError,
    Module,
    Op,
    TensorType,
    VerifyError,
    clone_module,
    dialects,
    type_meet,
    verify,
)
from compiler.rewrite.diagnostics import RewriteError
from compiler.rewrite.driver import rewrite
from compiler.rewrite.library import Library, Stage
from compiler.rewrite.prove_compare import difference
from compiler.rewrite.recipe import Realized, Recipe, realize
from compiler.rewrite.syntax import Rule

if TYPE_CHECKING:
    from compiler.evaluate import Session

Array = np.ndarray[Any, Any]
Kind = Literal["proved", "wrong", "invalid", "unfired", "void", "unsupported"]

#: The stage whose rules say what operators are that onnxruntime does not know.
MEANING = "meaning"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of an instance.

    Attributes:
        kind: ``proved``; ``wrong``: the rule breaks its contract; ``invalid``: onnxruntime refuses the left side;
            ``unfired``: the driver turned the result down, as types did not fit; ``void``: the left side is hardly ever
            finite, so that nothing can be compared; ``unsupported``: onnxruntime has no kernel for the right side.
        text: why.
    """

    kind: Kind
    text: str = ""


class Checker:
    """Checks instances of one rule."""

    def __init__(self, rule: Rule, library: Library) -> None:
        self.rule = rule
        self.library = library
        entries = [e for e in library.stage(rule.stage).entries if e.rule.name == rule.name]
        self.stage = Stage(rule.stage, entries)

    def __call__(self, recipe: Recipe, raised: Exception | None = None) -> Verdict:
        """``raised``: what the matcher raised on this graph; the rule is wrong then, if the graph is valid."""
        try:
            realized = realize(recipe)
        except Exception as e:  # a varied recipe need not be an operator any more, and inference of mil runs rules
            return Verdict("invalid", str(e))
        after = clone_module(realized.module)
        try:
            fired = rewrite(after, self.stage, recipe.target).fires
        except RewriteError as e:
            left = self.left(realized, recipe)
            return Verdict("wrong", str(e).splitlines()[0]) if isinstance(left, tuple) else left
        if not fired:
            return Verdict("unfired")
        broken = self.broken(realized.function, after.main)
        left = self.left(realized, recipe)
        if isinstance(left, Verdict):
            return left
        if broken is not None:
            return Verdict("wrong", broken)
        return self.compare(left, after, recipe)

    def broken(self, before: Function, after: Function) -> str | None:
        """What the verifier has against the rewritten function, or how its results' types have changed."""
        try:
            verify(after)
        except VerifyError as e:
            return f"the rewritten graph is not valid: {e}"
        for i, (a, b) in enumerate(zip(before.outputs, after.outputs)):
            if type_meet(a.type, b.type) is None:
                return f"result {i} is of type {b.type}, not {a.type}"
        return None

    def left(self, realized: Realized, recipe: Recipe) -> tuple[list[Array], float] | Verdict:
        """What the graph computes, and the largest magnitude on the way."""
        module = realized.module
        function = self.given_meaning(clone_module(module)).main if _is_foreign(module) else module.main
        inner = [
            r
            for op in function.block.ops
            if op.defn.constant is None and not op.defn.terminator
            for r in op.results
            if isinstance(r.type, TensorType) and r.type.dtype.is_float and r not in function.outputs and r.use_count
        ]
        try:
            results = session(function, inner).run(recipe.feeds)
        except PlanishError as e:
            return Verdict("invalid", str(e))
        own = len(function.output_names)
        outputs = results[:own]
        seen = [*results, *(leaf.array for leaf in recipe.leaves.values())]
        scale = max((_magnitude(a) for a in seen), default=0.0)
        if self.rule.numeric.contract != "exact":
            floats = [o for o in outputs if np.asarray(o).dtype.kind == "f" and o.size]
            finite = sum(int(np.isfinite(o).sum()) for o in floats)
            if floats and finite < 0.5 * sum(o.size for o in floats):
                return Verdict("void", "the left side is hardly ever finite")
        return outputs, scale

    def compare(self, left: tuple[list[Array], float], after: Module, recipe: Recipe) -> Verdict:
        outputs, scale = left
        try:
            right = self.given_meaning(after).main
            results = session(right).run(recipe.feeds)
        except (PlanishError, InferenceError) as e:
            text = str(e).splitlines()[0]
            if "NOT_IMPLEMENTED" in text or "Could not find an implementation" in text:
                return Verdict("unsupported", text)
            return Verdict("wrong", f"the rewritten graph cannot be run: {text}")
        rough = any(isinstance(r.type, TensorType) and r.type.dtype.is_float for op in after.walk() for r in op.results)
        rough = rough or any(leaf.array.dtype.kind == "f" for leaf in recipe.leaves.values())
        found = difference(outputs, results, self.rule.numeric, scale, rough)
        return Verdict("proved") if found is None else Verdict("wrong", str(found))

    def given_meaning(self, module: Module) -> Module:
        if _is_foreign(module):
            rewrite(module, self.library.stage(MEANING))
        return module


def session(function: Function, extra: Sequence[Any] = ()) -> Session:
    """A function in onnxruntime, every operator computed as it stands.

    Raises:
        EvaluationError, UnsupportedError: it cannot be loaded.
    """
    from compiler.evaluate import Session

    return Session(function, list(extra), threads=1)


def _is_foreign(module: Module) -> bool:
    """Whether a module has operators that onnxruntime does not know."""
    return any(is_foreign(op) for op in module.walk())


def is_foreign(op: Op) -> bool:
    return dialects()[op.defn.dialect].adopts_types


def _magnitude(a: Any) -> float:
    if not isinstance(a, np.ndarray) or a.size == 0 or a.dtype.kind in "OUS?":
        return 0.0
    x = np.abs(a.astype(np.float64))
    x = x[np.isfinite(x)]
    return float(x.max(initial=0.0))

"""One instance, both sides: the driver applies the rule, and onnxruntime computes what was and what has become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from compiler.errors import PlanishError
from compiler.execution.apart import CrashError, run
from compiler.ir import (
    Function,
    InferenceError,
    Module,
    Op,
    TensorType,
    Type,
    Value,
    VerifyError,
    clone_module,
    dialects,
    from_numpy,
    type_meet,
    verify,
)
from compiler.rewrite import syntax as s
from compiler.rewrite.diagnostics import RewriteError
from compiler.rewrite.driver import rewrite
from compiler.rewrite.library import Library
from compiler.rewrite.prove_compare import difference
from compiler.rewrite.prove_kernels import astray, cancels, inside, magnitude
from compiler.rewrite.recipe import Realized, Recipe, realize
from compiler.rewrite.stage import Stage
from compiler.rewrite.syntax import Rule

Array = np.ndarray[Any, Any]
Kind = Literal["proved", "wrong", "invalid", "unfired", "void", "unsupported"]

#: Results of more elements are not compared: a size may be a number that was drawn.
_LARGEST = 1 << 20

#: How often inputs are rounded differently, to see how sensitive a result is.
NUDGES = 6

#: Operators that round floats to 8 bits inside of themselves. By which scale is not specified: in onnxruntime it
#: depends on how many rows a thread gets (UniDirectionalLstm, core/providers/cpu/rnn/uni_directional_lstm.cc). Rules
#: that leave the rounding out are approximate.
_COARSE = frozenset({"msft.DynamicQuantizeLSTM"})

#: What onnxruntime and the exporter say of what is right but cannot be run.
_NO_KERNEL = (
    "NOT_IMPLEMENTED", "Could not find an implementation", "are of no common opset", "data type is not supported",
)  # fmt: skip

#: The stage whose rules say what operators are that onnxruntime does not know.
MEANING = "meaning"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of an instance.

    Attributes:
        kind: ``proved``; ``wrong``: the rule breaks its contract; ``invalid``: onnxruntime refuses the left side;
            ``unfired``: the driver turned the result down, as types did not fit; ``void``: the left side is hardly ever
            finite or too large, so that nothing can be compared; ``unsupported``: onnxruntime has no kernel for the
            right side.
        text: why; of a proof, who said what is right, where it was not onnxruntime.
    """

    kind: Kind
    text: str = ""


class Checker:
    """Checks instances of one rule."""

    def __init__(self, rule: Rule, library: Library, finish: Callable[[Module], None] | None = None) -> None:
        """``finish`` gives lowered modules the element types that their operators take."""
        self.rule = rule
        self.finish = finish
        #: Nothing is left to :meth:`settle`.
        self.immediate = False
        self.library = library
        entries = [e for e in library.stage(rule.stage).entries if e.rule.name == rule.name]
        self.stage = Stage(rule.stage, entries)
        self.approximate = any(_looks_about(e.variant.statements) for e in entries)

    def __call__(self, recipe: Recipe) -> Verdict:
        try:
            return self.judge(recipe)
        except MemoryError as e:
            return Verdict("void", f"more memory than a proof has: {e}")

    def judge(self, recipe: Recipe) -> Verdict:
        """What comes of an instance.

        Raises:
            MemoryError: a result is larger than a proof may hold.
        """
        try:
            realized = realize(recipe)
        except Exception as e:  # a varied recipe need not be an operator any more, and inference of mil runs rules
            return Verdict("invalid", str(e))
        if _is_foreign(realized.module) and _has_empty(realized.module):
            return Verdict("void", "the target has no empty tensors")
        after = clone_module(realized.module)
        try:
            report = rewrite(after, self.stage, recipe.target)
        except RewriteError as e:
            left = self.left(realized, recipe)
            if isinstance(left, Verdict) and left.kind != "void":
                return left
            return Verdict("wrong", str(e).splitlines()[0])  # whatever it computes, the rule must not fail
        if not report.fires:
            stats = report.rules[self.rule.name]
            if stats.misfit is None or not _contradict(*stats.misfit):
                return Verdict("unfired", stats.reason)
            left = self.left(realized, recipe)
            return Verdict("wrong", stats.reason) if isinstance(left, tuple) else left
        broken = self.broken(realized.function, after.main)
        left = self.left(realized, recipe)
        if isinstance(left, Verdict):
            return left
        if broken is not None:
            return Verdict("wrong", broken)
        return self.compare(left, after, realized, recipe)

    def settle(self) -> list[tuple[Recipe, Verdict]]:
        """Instances that were called proved before all had been checked, and are not."""
        return []

    def broken(self, before: Function, after: Function) -> str | None:
        """What the verifier has against the rewritten function, or how its results' types have changed."""
        try:
            foreign = frozenset(name for name, d in dialects().items() if d.adopts_types)
            module = Module("rewritten")
            module.add(after)
            verify(module, untyped=foreign)
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
            results = run(function, recipe.feeds, inner)
        except PlanishError as e:
            return Verdict("invalid", str(e))
        own = len(function.output_names)
        outputs = results[:own]
        if not all(isinstance(value.type, TensorType) for value in function.outputs):
            return Verdict("void", "a result is no tensor")
        for value, result in zip(function.outputs, outputs):
            if isinstance(value.type, TensorType) and not _has_shape(result, value.type):
                return Verdict("invalid", f"inference says {value.type} of a result of shape {np.shape(result)}")
        if any(np.size(result) > _LARGEST for result in results):
            return Verdict("void", "more numbers come out than a proof compares")
        seen = [*results, *(leaf.array for leaf in recipe.leaves.values())]
        scale = max((magnitude(a) for a in seen), default=0.0)
        known = dict(zip([*function.outputs, *inner], results))
        known |= {a: recipe.feeds[a.name] for a in function.inputs}
        scale = max(scale, inside(function, known))
        wrong = astray(function, known)
        if wrong is not None:
            return Verdict("void", wrong)
        if self.rule.numeric.contract != "exact":
            floats = [o for o in outputs if np.asarray(o).dtype.kind == "f" and o.size]
            finite = sum(int(np.isfinite(o).sum()) for o in floats)
            if floats and finite < 0.5 * sum(o.size for o in floats):
                return Verdict("void", "the left side is hardly ever finite")
        return outputs, scale

    def compare(self, left: tuple[list[Array], float], after: Module, realized: Realized, recipe: Recipe) -> Verdict:
        outputs, scale = left
        try:
            if self.finish is not None and _is_foreign(after) and not _is_foreign(realized.module):
                verdict = self.finished(outputs, scale, after, recipe)
                if verdict is not None:
                    return verdict
            right = self.given_meaning(after).main
            feeds = {a.name: _as(recipe.feeds[a.name], a.type) for a in right.inputs}
            results = run(right, feeds)
            contract = self.rule.numeric
            for i, (o, r) in enumerate(zip(outputs, results)):
                if self.narrowed(o, r):
                    # The target computes in its own types: as exact as they are, or as the source's, if coarser.
                    own = from_numpy(o.dtype)
                    if o.dtype.itemsize < r.dtype.itemsize and (own.bits >= 16 if own.is_float else _fits(r, o.dtype)):
                        results[i] = r.astype(o.dtype)
                        continue
                    outputs = [*outputs[:i], o.astype(r.dtype), *outputs[i + 1 :]]
                    contract = contract if contract.contract == "approximate" else s.Numeric("rounding")
        except (PlanishError, InferenceError) as e:
            text = str(e).splitlines()[0]
            if _has_empty(realized.module) or any(np.size(a) == 0 for a in recipe.feeds.values()):
                # Not all kernels of onnxruntime take what is empty, and some crash; the target has nothing empty.
                return Verdict("unsupported", text)
            if isinstance(e, CrashError):
                return Verdict("wrong", f"the rewritten graph cannot be run: {text}")
            is_open = any(leaf.names is not None for leaf in recipe.leaves.values())
            if any(words in text for words in _NO_KERNEL) or (is_open and "is no operator of ONNX" in text):
                # What an operator means may depend on sizes that are not known here.
                return Verdict("unsupported", text)
            return Verdict("wrong", f"the rewritten graph cannot be run: {text}")
        rough = _rough(after, recipe)
        found = difference(outputs, results, contract, scale, rough, self.approximate)
        if found is not None and contract.contract != "exact":
            moved = self.moved(realized, recipe, outputs)
            found = difference(outputs, results, contract, scale, rough, self.approximate, moved)
            known: dict[Value, Array] = {a: feeds[a.name] for a in right.inputs}
            if found is not None and cancels(right, known, contract.rtol or 1e-3):
                return Verdict("void", "a variance of which little is left")
        return Verdict("proved") if found is None else Verdict("wrong", str(found))

    def finished(self, outputs: list[Array], scale: float, after: Module, recipe: Recipe) -> Verdict | None:
        """Lowers the rest of a module and gives it its final element types; a verdict if that says all."""
        assert self.finish is not None
        if any(np.size(o) == 0 for o in outputs):
            return Verdict("void", "the target has no empty tensors")
        given = [leaf.array for leaf in recipe.leaves.values()]
        if any(a.dtype.kind == "O" for a in (*outputs, *given)):
            return Verdict("void", "the target has no strings")
        numbers = [magnitude(a) for a in (*outputs, *given) if a.dtype.kind in "iu"]
        if any(o.dtype.kind in "iu" for o in outputs):  # what an integer was made of may be larger
            numbers.append(scale)
        if max(numbers, default=0.0) >= 2**31:
            return Verdict("void", "integers that the target does not have")
        rewrite(after, self.library.stage(self.rule.stage), recipe.target)
        if all(is_foreign(op) or op.defn.dialect == "ir" for op in after.walk()):
            try:
                self.finish(after)
            except PlanishError as e:
                return Verdict("unsupported", str(e))
            try:
                verify(after)
            except VerifyError as e:
                return Verdict("wrong", f"once finished, the graph is not valid: {e}")
        return None

    def narrowed(self, before: Any, after: Any) -> bool:
        """Whether two results differ in element type only as the target's types do from the source's."""
        a, b = from_numpy(np.asarray(before).dtype), from_numpy(np.asarray(after).dtype)
        integers = all(d.is_integer or d.kind == "bool" for d in (a, b))
        return self.finish is not None and a is not b and (integers or (a.is_float and b.is_float))

    def moved(self, realized: Realized, recipe: Recipe, outputs: list[Array]) -> list[Array]:
        """How far each element moves when float inputs and constants are rounded otherwise: the most of some tries."""
        out = [np.zeros(np.shape(o)) for o in outputs]
        gen = np.random.default_rng(0)
        coarse = self.rule.numeric.contract == "approximate"
        coarse = coarse and any(op.name in _COARSE for op in realized.module.walk())
        for _ in range(NUDGES):
            leaves = {n: replace(leaf, array=nudged(leaf.array, gen, coarse)) for n, leaf in recipe.leaves.items()}
            other = replace(recipe, leaves=leaves)
            left = self.left(realize(other), other)
            if isinstance(left, Verdict):
                continue
            for i, (a, b) in enumerate(zip(outputs, left[0])):
                if a.shape == b.shape and a.dtype.kind != "O" and a.size:
                    with np.errstate(invalid="ignore"):
                        off = np.abs(a.astype(np.float64) - b.astype(np.float64))
                    # What is no number by one rounding, and one by another, says nothing.
                    off = np.where(np.isnan(a) != np.isnan(b), np.inf, np.where(np.isnan(off), 0.0, off))
                    out[i] = np.maximum(out[i], off)
        return out

    def given_meaning(self, module: Module) -> Module:
        if _is_foreign(module):
            rewrite(module, self.library.stage(MEANING))
        return module


def nudged(array: Array, gen: Any, coarse: bool = False) -> Array:
    """Floats moved by up to four roundings; ``coarse``: by up to half a step of 8 bits."""
    if array.dtype.kind != "f":
        return array
    if coarse:
        return np.asarray(array + gen.uniform(-1.0, 1.0, array.shape) * magnitude(array) / 510, array.dtype)
    with np.errstate(all="ignore"):
        by = 4.0 * float(np.finfo(array.dtype).eps) * gen.uniform(-1.0, 1.0, array.shape)
        return np.asarray(array * (1.0 + by)).astype(array.dtype)


def _rough(after: Module, recipe: Recipe) -> float:
    """The share of elements next to a tie: next to none in single precision, many in half, none where no float is."""
    types = [r.type.dtype for op in after.walk() for r in op.results if isinstance(r.type, TensorType)]
    types += [leaf.type.dtype for leaf in recipe.leaves.values()]
    floats = [t for t in types if t.is_float]
    return 0.0 if not floats else 0.05 if all(t.bits > 16 for t in floats) else 0.5


def _looks_about(node: Any) -> bool:
    """Whether a pattern has a constant or an attribute with a tolerance."""
    if isinstance(node, s.LiteralPattern):
        return node.tolerance is not None
    if isinstance(node, s.AttrChoice):
        return node.kind == "approx"
    if isinstance(node, s.Pos):
        return False
    if isinstance(node, tuple):
        return any(map(_looks_about, node))
    fields = getattr(node, "__dataclass_fields__", ())
    return any(_looks_about(getattr(node, f)) for f in fields)


def _contradict(new: Type, old: Type) -> bool:
    """Whether a result is plainly of another type. One that would only have to be broadcast is what types are looked at
    for: a literal may be a matrix, and make the result larger."""
    if not isinstance(new, TensorType) or not isinstance(old, TensorType):
        return True
    if new.dtype is not old.dtype:
        return True
    if not new.is_static or not old.is_static:
        return False
    have, want = new.static_shape, old.static_shape
    if len(have) > len(want):
        return True
    return any(a not in (1, b) for a, b in zip(have, want[len(want) - len(have) :]))


def _has_shape(array: Any, type_: TensorType) -> bool:
    shape = np.shape(array)
    if type_.shape is None:
        return True
    return len(shape) == len(type_.shape) and all(not isinstance(d, int) or d == n for n, d in zip(shape, type_.shape))


def _fits(array: Array, dtype: np.dtype[Any]) -> bool:
    """Whether an array's integers are numbers of an integer type of 8 bits or more."""
    return dtype.kind in "iu" and bool(((array >= np.iinfo(dtype).min) & (array <= np.iinfo(dtype).max)).all())


def _as(array: Array, type_: Any) -> Array:
    """An input in the element type that the function has for it."""
    return array if array.dtype == type_.dtype.numpy else array.astype(type_.dtype.numpy)


def _is_foreign(module: Module) -> bool:
    """Whether a module has operators that onnxruntime does not know."""
    return any(is_foreign(op) for op in module.walk())


def _has_empty(module: Module) -> bool:
    values = [*module.main.inputs, *(r for op in module.walk() for r in op.results)]
    return any(isinstance(v.type, TensorType) and v.type.size == 0 for v in values)


def is_foreign(op: Op) -> bool:
    return dialects()[op.defn.dialect].adopts_types

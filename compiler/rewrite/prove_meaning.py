"""Rules that say what mil.* means, held to coremltools.

The left side of such a rule cannot be run here. But coremltools computes the results of many operators itself where
all inputs are known (``value_inference``, with NumPy), and infers the type of all. Where it computes nothing, the
rule is held to the type, and to a round trip: what it means, lowered and given meaning again, computes the same.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import Any

import numpy as np

from compiler.errors import PlanishError
from compiler.evaluate_apart import CrashError, run
from compiler.ir import InferenceError, Op, TensorType, clone_module
from compiler.rewrite import syntax as s
from compiler.rewrite.diagnostics import RewriteError
from compiler.rewrite.driver import rewrite
from compiler.rewrite.prove_check import Checker, Verdict, _magnitude
from compiler.rewrite.prove_compare import difference
from compiler.rewrite.recipe import Recipe, realize

Array = np.ndarray[Any, Any]

#: The releases by whose operators coremltools is asked, where no target says which.
_RELEASES = ("ios18", "ios17", "ios16")
_LOWER = "lower"


class MeaningChecker(Checker):
    """Checks instances of one meaning rule."""

    def __call__(self, recipe: Recipe, raised: Exception | None = None) -> Verdict:
        try:
            realized = realize(recipe)
        except Exception as e:  # a varied recipe need not be an operator any more, and inference runs rules
            return Verdict("invalid", str(e))
        truth = self.truth(realized.ops[recipe.anchor], recipe)
        if isinstance(truth, Verdict):
            return truth
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
            text = str(e).splitlines()[0]
            # Not a proof that it is wrong: coremltools takes much that Core ML does not.
            return Verdict("unsupported", f"the meaning cannot be run: {text}")
        broken = self.broken(realized.function, function)
        if broken is not None:
            return Verdict("wrong", broken)
        shapes, values = truth
        for i, (ours, theirs) in enumerate(zip(results, shapes)):
            if theirs is not None and not _fits(ours.shape, theirs):
                return Verdict("wrong", f"result {i} has shape {list(ours.shape)}; coremltools says {list(theirs)}")
        scale = max([_magnitude(a) for a in [*results, *(x.array for x in recipe.leaves.values())]], default=0.0)
        if values is not None:
            found = difference([v.astype(r.dtype) for v, r in zip(values, results)], results, _ROUNDING, scale, True)
            return Verdict("proved") if found is None else Verdict("wrong", f"{found} (coremltools)")
        return self.round_trip(recipe, results, scale)

    def truth(self, op: Op, recipe: Recipe) -> tuple[list[tuple[int, ...] | None], list[Array] | None] | Verdict:
        """The shapes of the results by coremltools, and their values if it computes them."""
        made = _built(op, recipe)
        if isinstance(made, Verdict):
            return made
        shapes = [tuple(v.shape) if v.shape is not None else None for v in made]
        values = [v.val for v in made]
        if any(isinstance(d, (int, np.integer)) and d < 0 for dims in shapes for d in dims or ()):
            return Verdict("invalid", "coremltools infers a negative size")
        if any(v is None for v in values):
            return shapes, None
        arrays = [np.asarray(v) for v in values]
        if any(dims is not None and not _fits(a.shape, dims) for a, dims in zip(arrays, shapes)):
            return Verdict(
                "invalid", "coremltools computes another shape than it infers: it does not take such operands"
            )
        return shapes, arrays

    def round_trip(self, recipe: Recipe, results: list[Array], scale: float) -> Verdict:
        after = self.given_meaning(clone_module(realize(recipe).module))
        try:
            rewrite(after, self.library.stage(_LOWER), recipe.target)
            again = run(self.given_meaning(after).main, recipe.feeds)
        except (PlanishError, InferenceError) as e:
            return Verdict("unsupported", f"no way back: {str(e).splitlines()[0]}")
        found = difference(results, again, _ROUNDING, scale, True)
        return (
            Verdict("proved") if found is None else Verdict("wrong", f"{found}, once lowered and given meaning again")
        )


_ROUNDING = s.Numeric("rounding")


def _fits(ours: tuple[int, ...], theirs: tuple[Any, ...]) -> bool:
    """Whether a shape is one that coremltools infers, which may leave dimensions open."""
    if len(ours) != len(theirs):
        # coremltools has no scalars: what is one for ONNX has one element there.
        return int(np.prod(ours)) == 1 and all(d == 1 for d in theirs if isinstance(d, (int, np.integer)))
    return all(not isinstance(b, (int, np.integer)) or a == int(b) for a, b in zip(ours, theirs))


def _built(op: Op, recipe: Recipe) -> Any:
    """The operator in coremltools, all its inputs constant; its results, or why it does not take it."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        logging.getLogger("coremltools").setLevel(logging.ERROR)
        import coremltools
        from coremltools.converters.mil import Builder, Function
        from coremltools.converters.mil.mil import types

        dtypes: dict[str, Any] = {
            "f16": types.fp16, "f32": types.fp32, "i32": types.int32, "i8": types.int8, "u8": types.uint8,
            "i16": types.int16, "u16": types.uint16, "bool": types.bool,
        }  # fmt: skip
        arrays = _contents(op, recipe)
        inputs: dict[str, Any] = {}
        last = len(op.defn.operands) - 1
        for i, v in enumerate(op.operands):
            if v is None:
                continue
            assert isinstance(v.type, TensorType)
            if v.type.dtype.name not in dtypes:
                return Verdict("invalid", f"coremltools has no tensors of {v.type.dtype}")
            spec = op.defn.operands[min(i, last)]
            if spec.arity == "variadic":
                inputs.setdefault(spec.name, []).append(arrays[v])
            else:
                inputs[spec.name] = arrays[v]
        for key, value in op.attributes.items():
            inputs[key] = list(value) if isinstance(value, tuple) else value
        reason = ""
        os = getattr(recipe.target, "os", None)
        for release in [os] if os else _RELEASES:
            opset = getattr(coremltools.target, release.replace("ios", "iOS"))
            try:
                with Function({}, opset_version=opset):
                    made = getattr(Builder, op.name.partition(".")[2])(**inputs)
                return list(made) if isinstance(made, (tuple, list)) else [made]
            except Exception as e:  # whatever coremltools raises, it does not take the operator
                reason = str(e).strip() or type(e).__name__
        return Verdict("invalid", f"coremltools does not take it: {reason.splitlines()[0]}")


def _contents(op: Op, recipe: Recipe) -> dict[Any, Array]:
    out: dict[Any, Array] = {}
    for v in op.operands:
        if v is None:
            continue
        array = v.constant
        out[v] = array if array is not None else recipe.leaves[v.name].array
    return out

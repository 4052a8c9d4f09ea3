"""A condition of a rule that fails → the graph changed so that it has a better chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compiler.ir import TensorType, Value
from compiler.rewrite import prove_values as draw
from compiler.rewrite import syntax as s
from compiler.rewrite.prove_pools import callees
from compiler.rewrite.prove_set import Setting, settable
from compiler.rewrite.prove_vary import ANYTHING
from compiler.rewrite.recipe import Recipe, symbolic

_COMPARISONS = {"==", "!=", "<", ">", "<=", ">=", "in", "not in"}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">", "in": "not in", "not in": "in"}
_MIRRORED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_NOTHING = object()


class Solving(Setting):
    """Solves conditions for names that can be set."""

    def known(self, recipe: Recipe, about: set[str] | None = None) -> Recipe | None:
        """Dimensions known, and one more leaf constant, one that is asked about if there is one."""
        open_ = [n for n, leaf in recipe.leaves.items() if leaf.names is not None]
        if open_:
            leaves = {n: replace(leaf, names=None) for n, leaf in recipe.leaves.items()}
            return replace(recipe, leaves=leaves)
        inputs = [n for n, leaf in recipe.leaves.items() if not leaf.constant]
        if not inputs or len(inputs) == len(recipe.leaves) == 1:
            return None
        asked = [n for n in inputs if about is not None and n in about]
        name = self.rng.choice(asked or inputs)
        return recipe.with_leaf(name, replace(recipe.leaves[name], constant=True))

    def solve(self, e: s.Expr, found: Mapping[str, Any], recipe: Recipe, want: bool = True) -> Recipe | None:
        """The graph changed so that ``e`` is ``want``, if the way is plain."""
        match e:
            case s.Binary("and", left, right, _) if want:
                return self._solve_each((left, right), found, recipe)
            case s.Binary("or", left, right, _) if not want:
                return self._solve_each((left, right), found, recipe, False)
            case s.Binary("and" | "or", left, right, _):
                return self.solve(self.rng.choice((left, right)), found, recipe, want)
            case s.Unary("not", operand, _):
                return self.solve(operand, found, recipe, not want)
            case s.Binary(op, left, right, _) if op in _COMPARISONS:
                return self._solve_comparison(op if want else _OPPOSITE[op], left, right, found, recipe)
            case s.Call(callee, args, _, _, _) if callee in self.library.env.fns:
                fn = self.library.env.fns[callee]
                body = _substituted(fn.body, dict(zip(fn.parameters, args)))
                return self.solve(body, found, recipe, want)
            case s.Call(callee, args, _, _, _):
                return self._solve_call(callee, args, recipe, want)
            case _:
                return None

    def _solve_each(
        self, parts: Sequence[s.Expr], found: Mapping[str, Any], recipe: Recipe, want: bool = True
    ) -> Recipe | None:
        changed = None
        for part in parts:
            known, value = self.try_evaluate(part, found)
            if not known or bool(value) != want:
                changed = self.solve(part, found, changed or recipe, want) or changed
        return changed

    def _solve_comparison(
        self, op: str, left: s.Expr, right: s.Expr, found: Mapping[str, Any], recipe: Recipe
    ) -> Recipe | None:
        sides = [(left, right, op), (right, left, _MIRRORED.get(op, op))]
        if self.rng.random() < 0.3:
            sides.reverse()
        for what, than, sign in sides:
            if not settable(what):
                continue
            known, value = self.try_evaluate(than, found)
            if not known:
                continue
            for _ in range(3):
                wish = self._wish(sign, value)
                changed = self.set(what, wish, found, recipe) if wish is not _NOTHING else None
                if changed is not None:
                    return changed
        return None

    def _wish(self, op: str, value: Any) -> Any:
        rng = self.rng
        if op == "==":
            return value
        if op == "in":
            items = list(value) if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") else []
            return rng.choice(items) if items else _NOTHING
        if op in ("!=", "not in"):
            return self._other(value) if rng.random() < 0.5 else ANYTHING
        if not isinstance(value, (int, float, np.integer, np.floating)):
            return _NOTHING
        step = rng.choice((0, 0, 1, 2)) if isinstance(value, (int, np.integer)) else rng.choice((0.0, 0.5, 1.0))
        strict = 1 if op in ("<", ">") else 0
        return value + step + strict if op in (">", ">=") else value - step - strict

    def _other(self, value: Any) -> Any:
        """Something next to a number, or to those of a list."""
        items = list(value) if isinstance(value, (list, tuple, range)) else [value]
        if not items or not all(isinstance(v, (int, np.integer)) and not isinstance(v, bool) for v in items):
            return ANYTHING
        return self.rng.choice((min(items) - 1, max(items) + 1))

    def _solve_call(self, callee: str, args: Sequence[Any], recipe: Recipe, want: bool) -> Recipe | None:
        names = [a.id for a in args if isinstance(a, (s.Name, s.Optional))]
        rng = self.rng
        if callee == "has" and names:
            return self.without(names[0], recipe) if not want else None
        if callee in ("is_const", "is_static") and want:
            return self.known(recipe)
        if callee in ("is_static", "has_rank") and not want:
            return symbolic(recipe, rng)
        if callee == "is_const" and not want and names and names[0] in recipe.leaves:
            leaf = recipe.leaves[names[0]]
            return recipe.with_leaf(names[0], replace(leaf, constant=False)) if not leaf.pinned else None
        if callee in ("same_shape", "same_type", "broadcasts_to") and want and len(names) >= 2:
            return self._align(callee, names[0], names[1], recipe)
        return None

    def _align(self, callee: str, first: str, second: str, recipe: Recipe) -> Recipe | None:
        rng = self.rng
        if first not in recipe.leaves and second in recipe.leaves and callee != "broadcasts_to":
            first, second = second, first
        leaf, other = recipe.leaves.get(first), recipe.leaves.get(second)
        if leaf is None or leaf.pinned:
            return None
        if other is None:  # made inside: small enough a shape broadcasts to it
            if callee != "broadcasts_to":
                return None
            dims = tuple(1 if rng.random() < 0.5 else d for d in leaf.array.shape[rng.randint(0, leaf.array.ndim) :])
            return recipe.with_leaf(first, self.redrawn(leaf, recipe, dims))
        dims = other.array.shape
        if callee == "broadcasts_to":
            dims = tuple(1 if rng.random() < 0.4 else d for d in dims[rng.randint(0, len(dims)) :])
        changed = self.redrawn(leaf, recipe, dims)
        if callee == "same_type":
            changed = replace(changed, array=changed.array.astype(other.array.dtype))
        return recipe.with_leaf(first, changed)

    def disturb(self, e: s.Expr, recipe: Recipe, found: Mapping[str, Any]) -> Recipe:
        """Draws something anew that the condition mentions; ``found`` has the values around, with their shapes."""
        mentioned = s.mentioned(e)
        for callee in callees(e):
            fn = self.library.env.fns.get(callee)
            if fn is not None:
                mentioned |= s.mentioned(fn.body)
        for b in self.variant.let:
            if b.id in mentioned:
                mentioned |= s.mentioned(b.value)
        for i in {self.sampler.statement_of[n] for n in mentioned if n in self.sampler.statement_of}:
            mentioned |= s.mentioned(self.variant.statements[i].pattern)
        attributes = [recipe.names[n] for n in mentioned if n in recipe.names]
        leaves = [n for n in mentioned if n in recipe.leaves and not recipe.leaves[n].pinned]
        pick = self.rng.random()
        if attributes and (pick < 0.6 or not leaves):
            index, key = self.rng.choice(sorted(attributes))
            changed = self.set_attribute(index, key, ANYTHING, recipe)
            if changed is not None:
                return changed
        if leaves and pick < 0.9:
            name = self.rng.choice(sorted(leaves))
            leaf = recipe.leaves[name]
            dims = leaf.array.shape
            if leaf.constant and leaf.array.dtype.kind == "i" and len(dims) == 1 < dims[0] and self.rng.random() < 0.3:
                return recipe.with_leaf(name, self.regroup(leaf))
            if self.rng.random() < 0.6:
                around = [v.type.static_shape for v in found.values() if _is_static(v)]
                dims = draw.like(self.rng, self.rng.choice([dims, *around, *around]))
            return recipe.with_leaf(name, self.redrawn(leaf, recipe, dims))
        return self.vary(recipe)


def _is_static(v: Any) -> bool:
    return isinstance(v, Value) and isinstance(v.type, TensorType) and v.type.is_static


def _substituted(e: Any, by: Mapping[str, Any]) -> Any:
    """An expression with names replaced: a function's body with the arguments of a call."""
    if isinstance(e, s.Name) and e.id in by:
        return by[e.id]
    if isinstance(e, s.Pos) or not hasattr(e, "__dataclass_fields__"):
        if isinstance(e, tuple) and not isinstance(e, s.Pos):
            return tuple(_substituted(x, by) for x in e)
        return e
    return replace(e, **{f: _substituted(getattr(e, f), by) for f in e.__dataclass_fields__ if f != "pos"})

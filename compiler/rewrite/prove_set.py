"""A name, a dimension, a rank of a graph becomes what is wished for."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from compiler.ir import DType, Value
from compiler.rewrite import prove_values as draw
from compiler.rewrite import syntax as s
from compiler.rewrite.expressions import ExpressionCompiler
from compiler.rewrite.library import Library
from compiler.rewrite.prove_edges import Edging
from compiler.rewrite.prove_vary import ANYTHING
from compiler.rewrite.recipe import Recipe


class Setting(Edging):
    """Sets what expressions name."""

    library: Library

    def evaluate(self, e: s.Expr, found: Mapping[str, Any]) -> Any:
        """The value of an expression where the match has got to.

        Raises:
            Exception: whatever the expression raises, names not bound yet included.
        """
        compiler = ExpressionCompiler(self.library.env, self.library.externs)
        source = compiler.data(e, self.variant.bindings)
        return eval(source, {**compiler.globals}, dict(found))

    def try_evaluate(self, e: s.Expr, found: Mapping[str, Any]) -> tuple[bool, Any]:
        try:
            return True, self.evaluate(e, found)
        except Exception:  # the match has not bound what the expression needs, or it declines
            return False, None

    def set(self, what: s.Expr, wish: Any, found: Mapping[str, Any], recipe: Recipe) -> Recipe | None:
        """The graph in which ``what`` is ``wish``."""
        match what:
            case s.Name(name, _):
                told = next((b.value for b in self.variant.let if b.id == name), None)
                return self._set_name(name, wish, recipe) if told is None else self.set(told, wish, found, recipe)
            case s.Call(callee, (s.Name(name, _), *_), _, _, _):
                if callee in ("rank", "dim", "shape", "dims", "size", "len", "prod", "dtype"):
                    return self._set_type(callee, name, what, wish, found, recipe)
                if callee == "splat" and name in recipe.leaves and wish is not ANYTHING:
                    leaf = recipe.leaves[name]
                    value = np.full(leaf.array.shape, 0 if wish is None else wish).astype(leaf.array.dtype)
                    return recipe.with_leaf(name, replace(leaf, array=value, constant=True))
                return self._set_name(name, wish, recipe)
            case s.Call(_, (inner, *_), _, _, _) if isinstance(inner, s.Expr):  # all(k), sorted(ints(k)) …
                return self.set(inner, wish, found, recipe) if settable(inner) else None
            case s.Binary("??", s.Name(name, _), _, _):
                return self._set_name(name, wish, recipe)
            case s.Binary("%", inner, by, _) if settable(inner):
                known, value = self.try_evaluate(by, found)
                if known and isinstance(wish, int):
                    return self.set(inner, wish + int(value) * self.rng.randint(1, 2), found, recipe)
                return None
            case s.Index(s.Name(name, _), _, _):
                return self._set_name(name, ANYTHING, recipe)
            case s.Index(s.Call("shape" | "dims", (s.Name(name, _),), _, _, _), at, _) if not isinstance(at, s.Slice):
                known, axis = self.try_evaluate(at, found)
                leaf = recipe.leaves.get(name)  # type: ignore[assignment]
                if known and leaf is not None and isinstance(wish, int) and -leaf.array.ndim <= axis < leaf.array.ndim:
                    return self._set_dim(name, int(axis) % leaf.array.ndim, wish, recipe)
                return None
            case s.Member(s.Name("target", _), _, _):
                return self._set_target(wish, recipe)
            case _:
                return None

    def _set_name(self, name: str, wish: Any, recipe: Recipe) -> Recipe | None:
        leaf = recipe.leaves.get(name)
        if leaf is not None:
            if leaf.pinned:
                return None
            if wish is ANYTHING:
                return recipe.with_leaf(name, self.redrawn(leaf, recipe))
            if wish is None:
                return self.without(name, recipe)
            try:
                array = np.asarray(wish).astype(leaf.array.dtype)
            except (TypeError, ValueError):
                return None
            if array.ndim == 0:
                array = np.full(leaf.array.shape, array)
            return recipe.with_leaf(name, replace(leaf, array=array, constant=True, names=None))
        at = recipe.names.get(name)
        if at is not None:
            return self.set_attribute(at[0], at[1], wish, recipe)
        if wish is not ANYTHING and isinstance(wish, int) and name in self.variant.bindings:
            return self._rename_dim(name, wish, recipe)
        return None

    def _set_type(
        self, callee: str, name: str, call: s.Call, wish: Any, found: Mapping[str, Any], recipe: Recipe
    ) -> Recipe | None:
        leaf = recipe.leaves.get(name)
        if leaf is None or leaf.pinned:
            if callee == "rank" and isinstance(wish, (int, np.integer)):
                return self._rank_below(name, int(wish), found, recipe)
            return self.set_attribute(*recipe.names[name], ANYTHING, recipe) if name in recipe.names else None
        array = leaf.array
        if callee == "dtype":
            if not isinstance(wish, DType):
                return self.retyped(name, None, recipe)
            return self.retyped(name, wish, recipe)
        if callee in ("shape", "dims"):
            if not isinstance(wish, (tuple, list)) or not all(isinstance(d, int) for d in wish):
                return None
            dims = tuple(wish)
        elif callee == "rank":
            if not isinstance(wish, (int, np.integer)) or not 0 <= int(wish) <= 6:
                return None
            if self.rng.random() < 0.6 and array.ndim == max(map(len, self.shapes(recipe))):
                return self.reranked(recipe, int(wish))
            dims = _with_rank(self.rng, array.shape, int(wish))
        elif callee == "dim" and len(call.args) > 1 and isinstance(wish, (int, np.integer)):
            known, axis = self.try_evaluate(call.args[1], found)  # type: ignore[arg-type]
            if not known or not -array.ndim <= int(axis) < array.ndim:
                return None
            return self._set_dim(name, int(axis) % array.ndim, int(wish), recipe)
        elif isinstance(wish, (int, np.integer)) and (callee == "size" or (callee == "len" and array.ndim == 1)):
            dims = (max(int(wish), 0),)
        else:
            return None
        if not draw.small(dims):
            return None
        return recipe.with_leaf(name, self.redrawn(leaf, recipe, dims))

    def _rank_below(self, name: str, rank: int, found: Mapping[str, Any], recipe: Recipe) -> Recipe | None:
        """Another rank for a value inside: its leaves of the same rank get it."""
        v = found.get(f"v_{name}")
        if not isinstance(v, Value) or v.shape is None or not 0 <= rank <= 6:
            return None
        now = len(v.shape)
        changed = recipe
        for n, leaf in recipe.leaves.items():
            if leaf.array.ndim == now and not leaf.pinned:
                changed = changed.with_leaf(n, self.redrawn(leaf, recipe, _with_rank(self.rng, leaf.array.shape, rank)))
        return changed if changed is not recipe else None

    def _set_dim(self, name: str, axis: int, wish: int, recipe: Recipe) -> Recipe | None:
        leaf = recipe.leaves[name]
        if not 0 <= wish <= 64:
            return None
        if self.rng.random() < 0.5:
            return self.resized(recipe, leaf.array.shape[axis], wish)
        dims = (*leaf.array.shape[:axis], wish, *leaf.array.shape[axis + 1 :])
        return recipe.with_leaf(name, self.redrawn(leaf, recipe, dims))

    def _rename_dim(self, name: str, wish: int, recipe: Recipe) -> Recipe | None:
        if self.variant.bindings[name].kind != "dim" or not 0 <= wish <= 64:
            return None
        for leaf_name, axis in self._dim_places(name):
            leaf = recipe.leaves.get(leaf_name)
            if leaf is not None and axis < leaf.array.ndim:
                return self.resized(recipe, leaf.array.shape[axis], wish)
        return None

    def _dim_places(self, name: str) -> Iterator[tuple[str, int]]:
        """The leaves whose constraint names a dimension, with the axis."""
        for p in _values(self.variant.statements):
            dims = p.constraint.dims if p.constraint is not None else None
            if dims is None or any(d.rest for d in dims):
                continue
            for i, d in enumerate(dims):
                if d.value == name:
                    yield p.id, i

    def _set_target(self, wish: Any, recipe: Recipe) -> Recipe | None:
        fitting = [t for t in self.targets if wish is ANYTHING or wish in (t.unit, t.ios, t.precision)]
        if not fitting and isinstance(wish, int):
            fitting = self.targets
        return replace(recipe, target=self.rng.choice(fitting)) if fitting else None


def settable(e: Any) -> bool:
    match e:
        case s.Name():
            return True
        case s.Call(_, (first, *_), _, _, _):
            return settable(first)
        case s.Binary("??" | "%", left, _, _):
            return settable(left)
        case s.Index(base, _, _):
            return settable(base)
        case s.Member():
            return True
        case _:
            return False


def _with_rank(rng: random.Random, dims: tuple[int, ...], rank: int) -> tuple[int, ...]:
    out = list(dims)
    while len(out) > rank:
        out.pop(rng.randrange(len(out)))
    while len(out) < rank:
        out.insert(rng.randint(0, len(out)), draw.size(rng))
    return tuple(out)


def _values(node: Any) -> Iterator[s.ValuePattern]:
    if isinstance(node, s.ValuePattern):
        yield node
    elif isinstance(node, tuple) and not isinstance(node, s.Pos):
        for x in node:
            yield from _values(x)
    elif isinstance(node, (s.MatchStmt, s.OpPattern, s.NamedOperand)):
        for f in node.__dataclass_fields__:
            yield from _values(getattr(node, f))

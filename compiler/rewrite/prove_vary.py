"""Changes of a graph: other contents, sizes, element types, attributes."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np

from compiler.ir import DType, TensorType, dtype, lookup
from compiler.rewrite import prove_values as draw
from compiler.rewrite.instantiate import Sampler
from compiler.rewrite.prove_pools import Pools
from compiler.rewrite.recipe import Leaf, Recipe, pruned, swapped, symbolic

#: Stands for a value that is wished for: any will do.
ANYTHING = object()


class Varying:
    """Varies graphs at random."""

    rng: random.Random
    pools: Pools
    sampler: Sampler
    targets: list[Any]

    def shapes(self, recipe: Recipe) -> list[tuple[int, ...]]:
        return [leaf.array.shape for leaf in recipe.leaves.values()]

    def redrawn(self, leaf: Leaf, recipe: Recipe, dims: tuple[int, ...] | None = None) -> Leaf:
        """Other contents, perhaps of another shape."""
        dims = leaf.array.shape if dims is None or not draw.small(dims) else dims
        if leaf.array.dtype.kind in "iu" and len(dims) < 2 and self.rng.random() < 0.6:
            values = draw.small_ints(self.rng, int(np.prod(dims)), self.shapes(recipe), self.pools.ints)
            if len(values) == int(np.prod(dims)):
                array = np.array(values, dtype=np.int64).astype(leaf.array.dtype).reshape(dims)
                return replace(leaf, array=array, names=None)
        type_ = TensorType(leaf.type.dtype, dims)
        array = draw.contents(self.rng, type_, leaf.low, leaf.high, self.sampler.wild, leaf.within)
        return replace(leaf, array=array, names=leaf.names if dims == leaf.array.shape else None)

    def retyped(self, name: str, to: DType | None, recipe: Recipe) -> Recipe | None:
        """Every leaf of the same element type in another one."""
        leaf = recipe.leaves[name]
        if to is None:
            names = ("f32", "f16") if leaf.type.dtype.is_float else ("i32", "i64", "f32")
            to = self.rng.choice([d for d in map(dtype, names) if d is not leaf.type.dtype])
        old = leaf.array.dtype
        leaves = dict(recipe.leaves)
        for n, other in recipe.leaves.items():
            if n == name or (other.array.dtype == old and self.rng.random() < 0.9):
                type_ = TensorType(to, other.array.shape)
                array = draw.contents(self.rng, type_, other.low, other.high, self.sampler.wild, other.within)
                if other.pinned:
                    try:
                        exact = other.array if other.literal is None else np.full(other.array.shape, other.literal)
                        with np.errstate(over="ignore"):
                            array = exact.astype(to.numpy)
                    except TypeError:
                        return None
                # Elements of less than a byte are packed where they come from outside.
                leaves[n] = replace(other, array=array, constant=other.constant or to.bits < 8)
        return replace(recipe, leaves=leaves)

    def resized(self, recipe: Recipe, old: int, new: int) -> Recipe:
        """Every dimension of size ``old``, and numbers that may stand for it, become ``new``."""
        rng = self.rng
        leaves = {}
        for n, leaf in recipe.leaves.items():
            if old in leaf.array.shape:
                leaf = self.redrawn(leaf, recipe, tuple(new if d == old else d for d in leaf.array.shape))
            elif leaf.array.dtype.kind in "iu" and leaf.array.ndim < 2 and not leaf.pinned and rng.random() < 0.8:
                leaf = replace(leaf, array=np.where(leaf.array == old, new, leaf.array).astype(leaf.array.dtype))
            leaves[n] = leaf
        nodes = []
        for node in recipe.nodes:
            attributes = dict(node.attributes)
            for k, v in node.attributes.items():
                if isinstance(v, tuple) and k not in node.pinned and old > 1 and rng.random() < 0.5:
                    attributes[k] = tuple(new if x == old and isinstance(x, int) else x for x in v)
            nodes.append(replace(node, attributes=attributes))
        return replace(recipe, leaves=leaves, nodes=tuple(nodes))

    def without(self, name: str, recipe: Recipe) -> Recipe | None:
        """The graph without an operand that may be absent."""
        for i, node in enumerate(recipe.nodes):
            for k in node.optional:
                ref = node.operands[k] if k < len(node.operands) else None
                if ref is not None and ref.leaf == name:
                    operands = tuple(None if j == k else r for j, r in enumerate(node.operands))
                    return pruned(recipe.with_node(i, replace(node, operands=operands)))
        at = recipe.names.get(name)
        return self.set_attribute(at[0], at[1], None, recipe) if at is not None else None

    def vary(self, recipe: Recipe) -> Recipe:
        """A random change: contents, sizes, ranks, attributes, order, what is known, the target."""
        rng = self.rng
        kind = rng.random()
        if self.sampler.careful and kind > 0.1:
            kind = 0.0
        free = [n for n, leaf in recipe.leaves.items() if not leaf.pinned]
        if kind < 0.25:
            leaves = {n: leaf if leaf.pinned else self._refreshed(leaf, recipe) for n, leaf in recipe.leaves.items()}
            return replace(recipe, leaves=leaves)
        if kind < 0.5:
            sizes = sorted({d for n in free for d in recipe.leaves[n].array.shape})
            if sizes:
                return self.resized(recipe, rng.choice(sizes), draw.size(rng, self.pools.sizes))
        if kind < 0.6 and free:
            name = rng.choice(free)
            leaf = recipe.leaves[name]
            return recipe.with_leaf(name, self.redrawn(leaf, recipe, draw.like(rng, leaf.array.shape)))
        if kind < 0.75:
            index = rng.randrange(len(recipe.nodes))
            keys = [k for k in recipe.nodes[index].attributes if k not in recipe.nodes[index].pinned]
            bound = [at for at in recipe.names.values() if at[0] == index] + [(index, k) for k in keys]
            if bound:
                return self.set_attribute(*rng.choice(bound), ANYTHING, recipe) or recipe
        if kind < 0.8 and free:
            return self.retyped(rng.choice(free), None, recipe) or recipe
        if kind < 0.85:
            index = rng.randrange(len(recipe.nodes))
            if len(recipe.nodes[index].operands) == 2 and lookup(recipe.nodes[index].op).commutative:
                return replace(recipe, nodes=swapped(recipe.nodes, index))
        if kind < 0.9:
            return replace(recipe, target=rng.choice(self.targets))
        if kind < 0.94:
            return symbolic(recipe, rng)
        if free:
            name = rng.choice(free)
            leaf = recipe.leaves[name]
            if leaf.type.dtype.bits >= 8:
                return recipe.with_leaf(name, replace(leaf, constant=not leaf.constant, names=None))
        return recipe

    def _refreshed(self, leaf: Leaf, recipe: Recipe) -> Leaf:
        if leaf.array.dtype.kind in "iu" and leaf.array.ndim < 2 and self.rng.random() < 0.8:
            return leaf  # axes and shapes
        return self.redrawn(leaf, recipe)

    def set_attribute(self, index: int, key: str, wish: Any, recipe: Recipe) -> Recipe | None:
        node = recipe.nodes[index]
        if key in node.pinned:
            return None
        spec = lookup(node.op).attributes[key]
        if wish is ANYTHING:
            seen = self.sampler.seeds.seen(node.op, key)
            wish = draw.attribute(self.rng, spec, self.pools, self.shapes(recipe), seen)
        attributes = {k: v for k, v in node.attributes.items() if k != key}
        if wish is not None:
            if isinstance(wish, np.ndarray) and spec.kind != "tensor":
                wish = wish.tolist()
            if spec.kind in ("ints", "floats", "strings", "bools"):
                if not isinstance(wish, (list, tuple, range)):
                    return None
                kind = {"ints": int, "floats": float, "strings": str, "bools": bool}[spec.kind]
                try:
                    wish = tuple(kind(v) for v in wish)
                except (TypeError, ValueError):
                    return None
            elif spec.kind in ("int", "float"):
                if isinstance(wish, (list, tuple, range, str, DType)):
                    return None
                wish = int(wish) if spec.kind == "int" else float(wish)
            attributes[key] = wish
        elif spec.required:
            return None
        return recipe.with_node(index, replace(node, attributes=attributes))

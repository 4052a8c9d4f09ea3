"""Graphs whose values have other shapes than a rule is written for: another rank, axes of size 1 more or less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compiler.rewrite import prove_values as draw
from compiler.rewrite.prove_vary import Varying
from compiler.rewrite.recipe import Leaf, Recipe

#: The highest rank that operators of the target and kernels of onnxruntime are tried with.
_HIGHEST = 6


class Reshaping(Varying):
    """Changes graphs to ones whose leaves have other shapes."""

    def lowered(self, recipe: Recipe) -> Recipe:
        """What has the highest rank loses axes; the rest stays."""
        rank = rank_of(recipe)
        kept = sorted(self.rng.sample(range(rank), self.rng.randrange(rank))) if rank else []
        leaves = dict(recipe.leaves)
        for n, leaf in recipe.leaves.items():
            dims = leaf.array.shape
            if len(dims) == rank and rank and not leaf.pinned:
                leaves[n] = self.redrawn(leaf, recipe, tuple(dims[i] for i in kept))
        return replace(recipe, leaves=leaves)

    def at_rank_one(self, recipe: Recipe) -> Recipe:
        """One axis is left, and what had a number for each index of another has one number."""
        rank = rank_of(recipe)
        if rank < 2:
            return self.lowered(recipe)
        kept = self.reranked(recipe, self.rng.choice((0, 1)), at_end=True)
        lone = max(kept.leaves, key=lambda n: recipe.leaves[n].array.ndim)
        leaves = {
            n: self.redrawn(leaf, recipe, (1,) * leaf.array.ndim) if n != lone and not leaf.pinned else leaf
            for n, leaf in kept.leaves.items()
        }
        return replace(kept, leaves=leaves)

    def alone(self, recipe: Recipe) -> Recipe:
        """One leaf has an axis of size 1 more, or one less: a number and a list of one are taken for each other."""
        free = [n for n, leaf in recipe.leaves.items() if not leaf.pinned]
        if not free:
            return recipe
        name = self.rng.choice(free)
        leaf = recipe.leaves[name]
        dims = leaf.array.shape
        ones = [i for i, d in enumerate(dims) if d == 1]
        if ones and self.rng.random() < 0.6:
            at = self.rng.choice(ones)
            dims = (*dims[:at], *dims[at + 1 :])
        else:
            at = self.rng.randint(0, len(dims))
            dims = (*dims[:at], 1, *dims[at:])
        return recipe.with_leaf(name, replace(leaf, array=leaf.array.reshape(dims), names=None))

    def of_one(self, recipe: Recipe) -> Recipe:
        """Each leaf is a number or a list of one, or some are: what has a higher rank than what."""
        leaves = dict(recipe.leaves)
        often = self.rng.choice((0.5, 1.0))
        for n, leaf in recipe.leaves.items():
            if not leaf.pinned and self.rng.random() < often:
                leaves[n] = self.redrawn(leaf, recipe, (1,) * self.rng.choice((0, 0, 1, 1, 2)))
        return replace(recipe, leaves=leaves)

    def deepened(self, recipe: Recipe) -> Recipe:
        """One leaf has axes of size 1 in front of its own until its rank is the highest, or above it."""
        free = [n for n, leaf in recipe.leaves.items() if not leaf.pinned]
        if not free:
            return recipe
        single = [n for n in free if recipe.leaves[n].array.size == 1]
        name = self.rng.choice(single if single and self.rng.random() < 0.5 else free)
        leaf = recipe.leaves[name]
        more = max(rank_of(recipe) + self.rng.choice((0, 1, 1)) - leaf.array.ndim, 1)
        return recipe.with_leaf(
            name, replace(leaf, array=leaf.array.reshape((1,) * more + leaf.array.shape), names=None)
        )

    def by_one(self, recipe: Recipe) -> Recipe:
        """One dimension of one leaf is one more or one less."""
        free = [n for n, leaf in recipe.leaves.items() if not leaf.pinned and leaf.array.ndim]
        if not free:
            return recipe
        name = self.rng.choice(free)
        leaf = recipe.leaves[name]
        dims = list(leaf.array.shape)
        dims[self.rng.randrange(len(dims))] += self.rng.choice((-1, 1))
        return recipe.with_leaf(name, self.redrawn(leaf, recipe, tuple(dims))) if min(dims) > 0 else recipe

    def outgrown(self, recipe: Recipe) -> Recipe:
        """One leaf has its elements several times over, along an axis of size 1 or a further one in front: what was
        broadcast to others is what they are broadcast to."""
        free = [n for n, leaf in recipe.leaves.items() if not leaf.pinned]
        if not free:
            return recipe
        name = self.rng.choice(free)
        leaf = recipe.leaves[name]
        dims, times = leaf.array.shape, self.rng.choice((2, 3))
        ones = [i for i, d in enumerate(dims) if d == 1]
        if ones and self.rng.random() < 0.6:
            at = self.rng.choice(ones)
            dims = (*dims[:at], times, *dims[at + 1 :])
        else:
            dims = (times, *dims)
        return recipe.with_leaf(name, replace(leaf, array=np.broadcast_to(leaf.array, dims).copy(), names=None))

    def at_another_rank(self, recipe: Recipe) -> Recipe:
        rank = rank_of(recipe)
        return self.reranked(recipe, self.rng.choice([r for r in range(_HIGHEST + 1) if r != rank]))

    def reranked(self, recipe: Recipe, rank: int, at_end: bool | None = None) -> Recipe:
        """The graph with ``rank`` axes where it has most: lists of a number for each axis, for each but the first two,
        or of two for each, become as long.

        Args:
            at_end: the last axes come or go; otherwise that, or any.
        """
        old = rank_of(recipe)
        at_end = self.rng.random() < 0.6 if at_end is None else at_end
        kept = list(range(min(old, rank))) if at_end else sorted(self.rng.sample(range(old), min(old, rank)))
        new = [draw.size(self.rng, self.pools.sizes) for _ in range(rank - old)]
        leaves = {}
        for n, leaf in recipe.leaves.items():
            dims = leaf.array.shape
            if len(dims) == old and not leaf.pinned:
                if old == 1 and leaf.array.dtype.kind in "iu" and leaf.constant:
                    leaf = self._listed(leaf, old, rank)
                else:
                    leaf = self.redrawn(leaf, recipe, (*(dims[i] for i in kept), *new))
            elif len(dims) == 1 and leaf.array.dtype.kind in "iu" and not leaf.pinned:
                leaf = self._listed(leaf, old, rank)
            leaves[n] = leaf
        nodes = []
        for node in recipe.nodes:
            attributes = {
                k: self._fitted(v, old, rank) if isinstance(v, tuple) and k not in node.pinned else v
                for k, v in node.attributes.items()
            }
            nodes.append(replace(node, attributes=attributes))
        return replace(recipe, leaves=leaves, nodes=tuple(nodes))

    def _fitted(self, values: tuple[Any, ...], old: int, new: int) -> tuple[Any, ...]:
        ways = fitted(values, old, new)
        return self.rng.choice(ways) if ways else values

    def _listed(self, leaf: Leaf, old: int, new: int) -> Leaf:
        values = self._fitted(tuple(leaf.array.tolist()), old, new)
        return leaf if len(values) == leaf.array.size else replace(leaf, array=np.array(values, leaf.array.dtype))


def fitted(values: Sequence[Any], old: int, new: int) -> list[tuple[Any, ...]]:
    """A list of numbers for each of ``old`` axes made one for ``new``, in each way in which it may be meant."""
    values = tuple(values)
    if not all(isinstance(v, int) for v in values):
        return []
    n = len(values)
    if n == old and sorted(values) == list(range(old)):  # an order
        return [(*(v for v in values if v < new), *range(old, new))]
    out = []
    for per, skipped in ((1, 0), (1, 2), (2, 0), (2, 2)):
        if n and n == per * (old - skipped) and new >= skipped:
            halves = [values[i * (n // per) : (i + 1) * (n // per)] for i in range(per)]
            wanted = new - skipped
            out.append(tuple(v for h in halves for v in (*h[:wanted], *h[-1:] * (wanted - len(h)))))
    return out


def rank_of(recipe: Recipe) -> int:
    return max((leaf.array.ndim for leaf in recipe.leaves.values() if not leaf.pinned), default=0)


def sizes_of(recipe: Recipe) -> list[int]:
    return sorted({d for leaf in recipe.leaves.values() if not leaf.pinned for d in leaf.array.shape})

"""Graphs at the edge of what a rule matches: of kinds that are hardly ever drawn, and where conditions stand.

What a rule does not ask for cannot be seen in it. So a graph that it matches is changed in the ways in which graphs of
its operators may differ at all: empty along an axis, of another rank, of another element type, with dimensions that are
known only when it runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from compiler.ir import F16, F32, DType, lookup
from compiler.rewrite.prove_reshape import Reshaping, rank_of, sizes_of
from compiler.rewrite.prove_vary import ANYTHING
from compiler.rewrite.recipe import Leaf, Recipe, symbolic
from compiler.rewrite.resolve_names import Variant

#: Of longer lists, and of more values next to one, only some are tried.
_SHORT = 8


class Edging(Reshaping):
    """Changes graphs to ones of the hardly ever drawn kinds."""

    variant: Variant

    def edge(self, recipe: Recipe, far: bool = False) -> Recipe:
        """One of the changes, at random.

        Args:
            far: also other ranks than lower ones, other element types, numbers of extreme size, and dimensions that are
                not known: of these a rule is not asked to be right by itself, as what the target does not have is
                refused after rules too.
        """
        kinds: list[Callable[[Recipe], Recipe]] = [self.emptied, self.lowered, self.at_rank_one, self.alone]
        kinds += [self.turned, self.around_numbers, self.outgrown, self.regrouped]
        kinds += [self.of_one, self.deepened, self.by_one, self.magnified]
        if self.pools.counts:
            kinds.append(self.counted)
        if far:
            kinds += [self.at_another_rank, self.of_any_type, self.open_ended, self.enlarged, self.stretched]
        return self.rng.choice(kinds)(recipe)

    def emptied(self, recipe: Recipe) -> Recipe:
        """A size has become 0."""
        sizes = sizes_of(recipe)
        return self.resized(recipe, self.rng.choice(sizes), 0) if sizes else recipe

    def of_any_type(self, recipe: Recipe) -> Recipe:
        """Leaves of one element type have another one that their operator takes."""
        uses = [
            (r.leaf, node.op, i)
            for node in recipe.nodes
            for i, r in enumerate(node.operands)
            if r is not None and r.leaf and not recipe.leaves[r.leaf].pinned
        ]
        if not uses:
            return recipe
        name, op, index = self.rng.choice(uses)
        specs = lookup(op).operands
        allowed = specs[min(index, len(specs) - 1)].dtypes
        to: DType | None = None
        if allowed:  # of each kind as often: strings are one type, integers many
            kind = self.rng.choice(sorted({d.kind for d in allowed}))
            to = self.rng.choice(sorted((d for d in allowed if d.kind == kind), key=_name))
        return self.retyped(name, to, recipe) or recipe

    def open_ended(self, recipe: Recipe) -> Recipe:
        """Some dimensions are not known before the graph runs, of one leaf or of all; some of these are 1 then."""
        free = [n for n, leaf in recipe.leaves.items() if not leaf.constant and leaf.array.ndim]
        if not free:
            return recipe
        if self.rng.random() < 0.3:
            return symbolic(recipe, self.rng)
        name = self.rng.choice(free)
        leaf = recipe.leaves[name]
        axes = [i for i in range(leaf.array.ndim) if self.rng.random() < 0.7]
        array = leaf.array
        if self.rng.random() < 0.6:
            array = np.ascontiguousarray(array[tuple(slice(0, 1 if i in axes else None) for i in range(array.ndim))])
        names = tuple(f"{name}{i}" if i in axes else d for i, d in enumerate(array.shape))
        return recipe.with_leaf(name, replace(leaf, array=array, names=names))

    def stretched(self, recipe: Recipe) -> Recipe:
        """An axis of an input that is not known before the graph runs is of size 1 then, and a constant has more along
        it: the input is broadcast, and no type says so."""
        inputs = [n for n, leaf in recipe.leaves.items() if not leaf.constant and leaf.array.ndim]
        wide = [n for n, leaf in recipe.leaves.items() if leaf.constant and not leaf.pinned and leaf.array.size]
        if not inputs or not wide:
            return recipe
        name, by = self.rng.choice(inputs), self.rng.choice(wide)
        leaf, constant = recipe.leaves[name], recipe.leaves[by]
        dims = leaf.array.shape
        axis = self.rng.randrange(len(dims))
        back = len(dims) - axis
        own = (*(1,) * (back - constant.array.ndim), *constant.array.shape)
        if own[-back] == 1:
            own = (*own[: len(own) - back], self.rng.choice((2, 3)), *own[len(own) - back + 1 :])
        array = np.ascontiguousarray(leaf.array.take([0], axis)) if dims[axis] else np.zeros((1,), leaf.array.dtype)
        array = np.broadcast_to(array, (*dims[:axis], 1, *dims[axis + 1 :])).copy()
        names = tuple(f"{name}{i}" if i == axis else d for i, d in enumerate(array.shape))
        wider = np.broadcast_to(constant.array, own).copy()
        recipe = recipe.with_leaf(name, replace(leaf, array=array, names=names))
        return recipe.with_leaf(by, replace(constant, array=wider, names=None))

    def enlarged(self, recipe: Recipe) -> Recipe:
        """What the rule wants constant is so large that any two of them overflow together, and all else is 0: what the
        rule computes must not overflow where nothing did. Or it is so small that any two are 0 together."""
        wanted = {n for n, b in self.variant.bindings.items() if b.const}
        if len(wanted) < 2:
            return recipe
        leaves = dict(recipe.leaves)
        small = self.rng.random() < 0.3
        for n, leaf in recipe.leaves.items():
            if np.issubdtype(leaf.array.dtype, np.floating) and not leaf.pinned:
                info = np.finfo(leaf.array.dtype)
                tiny = small or self.rng.random() < 0.2
                scale = float(info.smallest_subnormal if tiny else info.max) ** 0.6 if n in wanted else float(small)
                with np.errstate(all="ignore"):
                    leaves[n] = replace(leaf, array=np.asarray(leaf.array * scale).astype(leaf.array.dtype))
        return replace(recipe, leaves=leaves)

    def counted(self, recipe: Recipe) -> Recipe:
        """A size is a large number that the rule mentions, or one more."""
        sizes = sizes_of(recipe)
        to = self.rng.choice(self.pools.counts) + self.rng.choice((0, 1))
        return self.resized(recipe, self.rng.choice(sizes), to) if sizes else recipe

    def around_numbers(self, recipe: Recipe) -> Recipe:
        """The inputs are near numbers that the rule mentions, on either side of where it cuts off, or of their size."""
        near = [v + by for v in self.pools.numbers if abs(v) < 1e4 for by in (-1.0, -0.25, 0.25, 1.0)]
        if self.rng.random() < 0.4:
            near = [v * by for v in self.pools.numbers if v for by in (-1.0, -0.5, -0.1, 0.1, 0.5, 1.0)]
        leaves = dict(recipe.leaves)
        for n, leaf in recipe.leaves.items():
            if near and leaf.array.dtype.kind == "f" and not leaf.pinned and not leaf.within and not leaf.constant:
                array = np.array([self.rng.choice(near) for _ in range(leaf.array.size)]).reshape(leaf.array.shape)
                leaves[n] = replace(leaf, array=array.astype(leaf.array.dtype))
        return replace(recipe, leaves=leaves)

    def magnified(self, recipe: Recipe) -> Recipe:
        """The inputs are several times as large: beyond where what is nearly linear about 0 levels out."""
        leaves = dict(recipe.leaves)
        for n, leaf in recipe.leaves.items():
            if leaf.array.dtype.kind == "f" and not leaf.pinned and not leaf.within and not leaf.constant:
                with np.errstate(over="ignore"):
                    leaves[n] = replace(
                        leaf, array=np.asarray(leaf.array * self.rng.choice((4, 16))).astype(leaf.array.dtype)
                    )
        return replace(recipe, leaves=leaves)

    def stepped(self, recipe: Recipe) -> Iterator[Recipe]:
        """Each attribute that the rule has a name for next to what it is: a number, or one of a list, is one more, one
        less or 0, a flag or a mode another; and each number of the short lists that the rule wants constant."""
        for index, key in sorted(set(recipe.names.values())):
            node = recipe.nodes[index]
            spec = lookup(node.op).attributes[key]
            now = node.attributes.get(key, spec.default)
            seen = self.sampler.seeds.seen(node.op, key)
            for wish in next_to(spec.kind, now, seen, rank_of(recipe)):
                changed = self.set_attribute(index, key, wish, recipe)
                if changed is not None:
                    yield changed
        for name, b in self.variant.bindings.items():
            leaf = recipe.leaves.get(name)
            if b.const and leaf is not None and leaf.array.dtype.kind in "iuf" and leaf.array.size <= _SHORT:
                for i in range(leaf.array.size):
                    array = leaf.array.copy()
                    array.flat[i] += 1 if array.dtype.kind != "f" else abs(array.flat[i]) / 8 or 0.125
                    yield recipe.with_leaf(name, replace(leaf, array=array))
        for name, leaf in self._lists(recipe):
            for i, j in itertools.pairwise(range(min(leaf.array.size, _SHORT))):
                if leaf.array[i] != leaf.array[j]:
                    order = [*range(i), j, i, *range(j + 1, leaf.array.size)]
                    yield recipe.with_leaf(name, replace(leaf, array=leaf.array[order]))

    def _lists(self, recipe: Recipe) -> list[tuple[str, Leaf]]:
        """Constant lists of more than one whole number, which may be a shape; those that an example fixes too."""
        return [
            (n, leaf)
            for n, leaf in recipe.leaves.items()
            if leaf.constant and leaf.array.dtype.kind == "i" and leaf.array.ndim == 1 < leaf.array.size
        ]

    def regrouped(self, recipe: Recipe) -> Recipe:
        """A list that may be a shape is another one of as many elements."""
        lists = self._lists(recipe)
        if not lists:
            return recipe
        name, leaf = self.rng.choice(lists)
        return recipe.with_leaf(name, self.regroup(leaf))

    def regroup(self, leaf: Leaf) -> Leaf:
        """Two numbers of a list are exchanged, or one takes a factor from another."""
        i, j = self.rng.sample(range(leaf.array.size), 2)
        array = leaf.array.copy()
        factors = [f for f in (2, 3, 5, 7) if array[i] > 0 and array[j] > 0 and array[i] % f == 0]
        if factors and self.rng.random() < 0.6:
            by = self.rng.choice(factors)
            array[i] //= by
            array[j] *= by
        else:
            array[i], array[j] = array[j], array[i]
        return replace(leaf, array=array)

    def levelled(self, recipe: Recipe) -> Recipe:
        """All sizes are the same; perhaps all but 1."""
        to = self.rng.choice((2, 3))
        kept = self.rng.choice(((0, to), (0, 1, to)))
        for old in sizes_of(recipe):
            if old not in kept:
                recipe = self.resized(recipe, old, to)
        return recipe

    def turned(self, recipe: Recipe) -> Recipe:
        """All sizes are the same, so that one of the attributes may be another."""
        recipe = self.levelled(recipe)
        places = sorted(set(recipe.names.values()))
        return (self.set_attribute(*self.rng.choice(places), ANYTHING, recipe) or recipe) if places else recipe

    def one_open(self, recipe: Recipe) -> Recipe:
        """No size of one leaf is known before the graph runs; nor has it changed."""
        free = [n for n, leaf in recipe.leaves.items() if not leaf.constant and leaf.array.ndim]
        if not free:
            return recipe
        name = self.rng.choice(free)
        leaf = recipe.leaves[name]
        return recipe.with_leaf(name, replace(leaf, names=tuple(f"{name}{i}" for i in range(leaf.array.ndim))))


def next_to(kind: str, now: Any, seen: Sequence[Any], rank: int) -> list[Any]:
    """Values of an attribute next to the one that it has; ``seen``: values that make sense. A list that is not there
    has a number for each of ``rank`` axes but the first two, or two."""
    around: list[Any]
    match kind:
        case "int" if now in (None, 0, 1) and all(v in (0, 1) for v in seen):
            around = [0, 1]
        case "int":
            around = [-1, 0, 1] if now is None else [-1, 0, now - 1, now + 1]
        case "ints" if now is None:
            steps = max(rank - 2, 0)
            around = [(2,) * steps, (1,) * (steps - 1) + (2,) * min(steps, 1), (1,) * 2 * steps, *map(tuple, seen)]
        case "ints":
            around = [(*now[:i], v + 1, *now[i + 1 :]) for i, v in enumerate(now)]
        case "string":
            around = list(seen)
        case "type":
            around = [F32, F16]
        case "bool":
            around = [False, True]
        case _:
            around = []
    return [v for v in dict.fromkeys(around) if v != now][:_SHORT]


def _name(dtype: DType) -> str:
    return dtype.name

"""A counterexample → a smaller one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from compiler.ir import lookup, same_attribute
from compiler.rewrite.driver import NO_TARGET
from compiler.rewrite.recipe import Leaf, Recipe

#: Seconds that are spent on making a counterexample smaller.
_SECONDS = 2.0


def shrunk(recipe: Recipe, fails: Callable[[Recipe], bool]) -> Recipe:
    """The smallest graph found, by single steps, on which the rule still fails."""
    until = time.perf_counter() + _SECONDS
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(recipe):
            if time.perf_counter() > until:
                return recipe
            if fails(smaller):
                recipe, progress = smaller, True
                break
    return recipe


def _smaller(recipe: Recipe) -> Iterator[Recipe]:
    """Simpler neighbours, those that promise most first."""
    if recipe.target is not NO_TARGET:
        yield replace(recipe, target=NO_TARGET)
    for n, leaf in recipe.leaves.items():
        if leaf.names is not None:
            yield recipe.with_leaf(n, replace(leaf, names=None))
    yield from _sizes(recipe)
    yield from _attributes(recipe)
    for n, leaf in recipe.leaves.items():
        for simpler in _contents(leaf):
            yield recipe.with_leaf(n, replace(leaf, array=simpler))


def _sizes(recipe: Recipe) -> Iterator[Recipe]:
    sizes = sorted({d for leaf in recipe.leaves.values() for d in leaf.array.shape}, reverse=True)
    for old in sizes:
        for new in (1, 2, old - 1):
            if 0 < new < old:
                leaves = {n: _resized(leaf, old, new) for n, leaf in recipe.leaves.items()}
                yield replace(recipe, leaves=leaves)
                for n, leaf in recipe.leaves.items():
                    if old in leaf.array.shape:
                        yield recipe.with_leaf(n, _resized(leaf, old, new))


def _resized(leaf: Leaf, old: int, new: int) -> Leaf:
    array = leaf.array
    if old in array.shape:
        cut = tuple(slice(0, new) if d == old else slice(None) for d in array.shape)
        return replace(
            leaf, array=np.ascontiguousarray(array[cut]).reshape([new if d == old else d for d in array.shape])
        )
    if array.dtype.kind in "iu" and array.ndim < 2 and not leaf.pinned:
        return replace(leaf, array=np.where(array == old, new, array).astype(array.dtype))
    return leaf


def _attributes(recipe: Recipe) -> Iterator[Recipe]:
    for i, node in enumerate(recipe.nodes):
        specs = lookup(node.op).attributes
        for k, v in node.attributes.items():
            if k in node.pinned or same_attribute(v, specs[k].default):
                continue
            if not specs[k].required:
                yield recipe.with_node(
                    i, replace(node, attributes={a: b for a, b in node.attributes.items() if a != k})
                )


def _contents(leaf: Leaf) -> Iterator[np.ndarray]:
    array = leaf.array
    if leaf.pinned or array.size == 0 or array.dtype.kind in "OUS":
        return
    simple = not array.any()
    if not simple:
        yield np.zeros_like(array)
    if array.dtype.kind == "f":
        with np.errstate(all="ignore"):
            rounded = np.round(array.astype(np.float64)).astype(array.dtype)
        if not np.array_equal(rounded, array, equal_nan=True):
            yield rounded
    if not (array == 1).all():
        yield np.ones_like(array)
    if array.dtype.kind == "f":
        # What a rule fails on may stand anywhere; once it stands everywhere, sizes can go down.
        for special in (np.nan, np.inf, -np.inf):
            there = np.isnan(array) if np.isnan(special) else array == special
            if there.any() and not there.all():
                yield np.full_like(array, special)
    if not simple and array.size > 1 and array.size <= 32:
        flat = array.reshape(-1)
        for i in range(flat.size):
            if flat[i] != 0:
                out = flat.copy()
                out[i] = 0
                yield out.reshape(array.shape)

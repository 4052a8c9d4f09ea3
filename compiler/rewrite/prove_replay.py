"""Counterexamples as text that can be kept, read and run again.

The graph is a module in the textual IR. Its attributes say which rule it is about, under what target, and what the
inputs hold.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import Module, Op, print_module
from compiler.rewrite.driver import NO_TARGET
from compiler.rewrite.recipe import Leaf, Node, Recipe, Ref, realize

_INPUT = "input."


def replayable(rule: str, recipe: Recipe) -> str:
    """The text of an instance."""
    module = realize(recipe).module
    module.attributes["rule"] = rule
    if recipe.target is not NO_TARGET and recipe.target is not None:
        for key in ("unit", "os", "precision"):
            module.attributes[key] = getattr(recipe.target, key)
    for name, array in recipe.feeds.items():
        module.attributes[_INPUT + name] = array
    return print_module(module, inline=None)


def recipe_of(module: Module, anchor: Op | None = None) -> Recipe:
    """A module of one block as a recipe; inputs hold what its attributes say, else zeros. ``anchor`` stays an operator
    where it is a constant."""
    function = module.main
    refs: dict[Any, Ref] = {}
    leaves: dict[str, Leaf] = {}
    for a in function.inputs:
        array = module.attributes.get(_INPUT + a.name)
        shape = getattr(a.type, "shape", None) or ()
        if array is None:
            array = np.zeros(tuple(d if isinstance(d, int) else 2 for d in shape), a.type.dtype.numpy)  # type: ignore[attr-defined]
        symbolic = any(not isinstance(d, int) for d in shape)
        leaves[a.name] = Leaf(array, names=tuple(shape) if symbolic else None)
        refs[a] = Ref(leaf=a.name)
    nodes: list[Node] = []
    at = 0
    for op in function.block.ops:
        if op.defn.terminator:
            continue
        if op.defn.constant is not None and op is not anchor:
            name = f"k{len(leaves)}"
            leaves[name] = Leaf(op.attributes[op.defn.constant], True, op.defn.dialect)
            refs[op.result] = Ref(leaf=name)
            continue
        if op is anchor:
            at = len(nodes)
        operands = tuple(None if v is None else refs[v] for v in op.operands)
        for i, r in enumerate(op.results):
            refs[r] = Ref(node=len(nodes), index=i)
        nodes.append(Node(op.name, operands, dict(op.attributes), len(op.results), op.regions))
    return Recipe(leaves, tuple(nodes), tuple(refs[v] for v in function.outputs), at, target_of(module))


def target_of(module: Module) -> Any:
    if "unit" not in module.attributes:
        return NO_TARGET
    from compiler.target import Target

    return Target.of(*(module.attributes[k] for k in ("unit", "os", "precision")))

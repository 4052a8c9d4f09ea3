"""A small graph as data that can be varied: what `prove` draws, changes and shrinks.

A recipe lists leaves (with contents) and operators in order. :func:`realize` makes a module of it, so any change of the
recipe that leaves it meaningful is one that inference accepts.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compiler.ir import Block, Builder, Dim, Function, Module, Op, TensorType, Value, clone_block, from_numpy

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Ref:
    """An operand: a leaf by name, or result ``index`` of the operator ``node``."""

    leaf: str = ""
    node: int = -1
    index: int = 0


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that no operator of the pattern makes.

    ``constant``: known at compile time, made by the constant operator of ``dialect``.
    """

    array: Array
    constant: bool = False
    dialect: str = "onnx"
    #: For inputs: what the dimensions are called where they are to be unknown at compile time.
    names: tuple[Dim, ...] | None = None
    #: The rule fixes it: a literal, or an example.
    pinned: bool = False
    #: The range from which contents are drawn, where the operator that uses it is picky.
    low: float | None = None
    high: float | None = None
    #: Contents outside of the range make no sense.
    within: bool = False
    #: The number that the pattern asks for, where it does.
    literal: float | None = None

    @property
    def type(self) -> TensorType:
        return TensorType(from_numpy(self.array.dtype), self.array.shape)


@dataclass(frozen=True, slots=True)
class Node:
    """An operator. ``pinned`` names the attributes that the rule fixes."""

    op: str
    operands: tuple[Ref | None, ...]
    attributes: dict[str, Any]
    results: int = 1
    regions: tuple[Block, ...] = ()
    pinned: frozenset[str] = frozenset()
    #: Operands that the pattern lets be absent.
    optional: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Recipe:
    """A graph.

    Attributes:
        outputs: what the function gives out; the roots of the pattern first.
        anchor: the operator at which matching starts.
        target: what conditions see as ``target``.
        rewrite: the number of the rewrite that applies, once that is known.
    """

    leaves: dict[str, Leaf]
    nodes: tuple[Node, ...]
    outputs: tuple[Ref, ...]
    anchor: int
    target: Any = None
    rewrite: int = 0
    #: Where the rule's names for attributes stand: the operator's number and the attribute.
    names: dict[str, tuple[int, str]] = field(default_factory=dict)

    def with_leaf(self, name: str, leaf: Leaf) -> Recipe:
        return replace(self, leaves={**self.leaves, name: leaf})

    def with_node(self, index: int, node: Node) -> Recipe:
        return replace(self, nodes=(*self.nodes[:index], node, *self.nodes[index + 1 :]))

    @property
    def feeds(self) -> dict[str, Array]:
        return {n: leaf.array for n, leaf in self.leaves.items() if not leaf.constant}


@dataclass(slots=True)
class Realized:
    """The module of a recipe, its operators, and the values of its leaves."""

    module: Module
    ops: list[Op]
    leaves: dict[str, Value]

    @property
    def function(self) -> Function:
        return self.module.main


def realize(recipe: Recipe) -> Realized:
    """Makes the module.

    Raises:
        InferenceError: an operator does not fit its operands.
    """
    inputs = {
        n: leaf.type if leaf.names is None else leaf.type.with_shape(leaf.names)
        for n, leaf in recipe.leaves.items()
        if not leaf.constant
    }
    function = Function("main", inputs)
    builder = Builder(function.block)
    values: dict[str, Value] = {a.name: a for a in function.inputs}
    for name, leaf in recipe.leaves.items():
        if leaf.constant:
            values[name] = builder.constant(leaf.array, leaf.dialect, name)
    ops: list[Op] = []

    def value(ref: Ref | None) -> Value | None:
        if ref is None:
            return None
        return values[ref.leaf] if ref.leaf else ops[ref.node].results[ref.index]

    for node in recipe.nodes:
        operands = [value(r) for r in node.operands]
        while operands and operands[-1] is None:
            operands.pop()
        regions = [clone_block(r, {}) for r in node.regions]
        ops.append(builder.op(node.op, operands, node.attributes, results=node.results, regions=regions))
    outputs = [v for r in recipe.outputs if (v := value(r)) is not None]
    function.set_outputs(outputs, [f"out{i}" for i in range(len(outputs))])
    module = Module("instance")
    module.add(function)
    return Realized(module, ops, values)


def pruned(recipe: Recipe) -> Recipe:
    """Without leaves that nothing uses."""
    used = {r.leaf for n in recipe.nodes for r in n.operands if r is not None} | {r.leaf for r in recipe.outputs}
    return replace(recipe, leaves={n: leaf for n, leaf in recipe.leaves.items() if n in used})


def swapped(nodes: Sequence[Node], index: int) -> tuple[Node, ...]:
    """The nodes, with the first two operands of one in the other order."""
    node = nodes[index]
    first, second, *rest = node.operands
    return (*nodes[:index], replace(node, operands=(second, first, *rest)), *nodes[index + 1 :])


def symbolic(recipe: Recipe, rng: random.Random) -> Recipe:
    """The same graph with input dimensions that are not known at compile time.

    They may share names, or be 1 when it comes to it: what is not known to be more may be broadcast.
    """
    share = rng.random() < 0.4
    one = not share and rng.random() < 0.6
    leaves = {}
    for name, leaf in recipe.leaves.items():
        if not leaf.constant and leaf.array.ndim:
            open_ = [rng.random() < 0.6 for _ in leaf.array.shape]
            names = tuple(
                (f"n{d}" if share else f"{name}{i}") if is_open else d
                for i, (d, is_open) in enumerate(zip(leaf.array.shape, open_))
            )
            array = leaf.array
            if one:
                array = np.ascontiguousarray(array[tuple(slice(0, 1) if o else slice(None) for o in open_)])
            leaf = replace(leaf, names=names, array=array)
        leaves[name] = leaf
    return replace(recipe, leaves=leaves)

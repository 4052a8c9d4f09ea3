"""Graphs brought to the edge of what a rule matches."""

from __future__ import annotations

import random

import numpy as np
import pytest

import compiler.dialects.onnx  # noqa: F401 (registers the operators that recipes name)
from compiler.rewrite.load import load_library
from compiler.rewrite.prove_edges import fitted
from compiler.rewrite.prove_search import Search
from compiler.rewrite.prove_seeds import Seeds
from compiler.rewrite.recipe import Leaf, Node, Recipe, Ref, realize


@pytest.fixture(scope="module")
def search() -> Search:
    """One that only changes graphs; of which rule is all the same."""
    library = load_library()
    entry = next(iter(library.stage("upgrade").entries))
    return Search(entry, library, Seeds(library), random.Random(0))


@pytest.mark.parametrize(
    ("values", "old", "new", "expected"),
    [
        ((2, 0, 1), 3, 2, [(0, 1)]),  # an order
        ((2, 0, 1), 3, 4, [(2, 0, 1, 3)]),
        ((5, 7), 4, 3, [(5,)]),  # one for each axis but the first two
        ((0, 0, 1, 1), 4, 5, [(0, 0, 1, 1, 1), (0, 0, 0, 1, 1, 1)]),  # one for each axis, or pads before and after
        ((1, 2, 3, 4, 5, 6, 7, 8), 4, 3, [(1, 2, 3, 5, 6, 7)]),
        ((9, 9, 9), 5, 4, [(9, 9)]),
        ((9, 9, 9), 7, 4, []),
        ((0.5, 2.0), 2, 3, []),
    ],
)
def test_lists_follow_the_rank(values: tuple[float, ...], old: int, new: int, expected: list[tuple[int, ...]]) -> None:
    assert fitted(values, old, new) == expected


@pytest.mark.parametrize("rank", [3, 4, 5])
def test_an_operator_of_another_rank_is_still_one(rank: int, search: Search) -> None:
    attributes = {"kernel_shape": (2, 2, 2), "strides": (1, 2, 1), "pads": (0, 0, 0, 1, 1, 1)}
    x = Leaf(np.zeros((1, 2, 6, 6, 6), np.float32))
    recipe = Recipe({"x": x}, (Node("onnx.MaxPool", (Ref(leaf="x"),), attributes),), (Ref(node=0),), 0)
    other = search.reranked(recipe, rank, at_end=True)
    assert len(other.nodes[0].attributes["pads"]) == 2 * (rank - 2)
    assert len(realize(other).function.outputs[0].shape or ()) == rank


def test_edges_are_of_all_kinds(search: Search) -> None:
    x = Leaf(np.ones((2, 3, 4), np.float32))
    recipe = Recipe({"x": x}, (Node("onnx.Cast", (Ref(leaf="x"),), {"to": x.type.dtype}),), (Ref(node=0),), 0)
    leaves = [search.edge(recipe, far=True).leaves["x"] for _ in range(300)]
    assert {leaf.array.ndim for leaf in leaves} == set(range(7))
    assert {"string", "bool", "int", "uint", "float"} <= {leaf.type.dtype.kind for leaf in leaves}
    assert any(leaf.array.size == 0 for leaf in leaves)
    assert any(leaf.names is not None and 1 in leaf.array.shape for leaf in leaves)


def test_constants_are_enlarged_until_two_of_them_overflow() -> None:
    library = load_library()
    entry = next(e for e in library.stage("canonicalize").entries if e.rule.name == "mul_chain")
    search = Search(entry, library, Seeds(library), random.Random(0))
    ones = np.ones(3, np.float32)
    leaves = {"x": Leaf(ones), "a": Leaf(ones, constant=True), "b": Leaf(ones, constant=True)}
    product = Node("onnx.Mul", (Ref(leaf="a"), Ref(leaf="b")), {})
    recipe = Recipe(leaves, (product, Node("onnx.Mul", (Ref(leaf="x"), Ref(node=0)), {})), (Ref(node=1),), 1)
    found = [search.enlarged(recipe).leaves for _ in range(30)]
    with np.errstate(over="ignore"):
        assert any(np.isinf(f["a"].array * f["b"].array).all() for f in found)
    assert all(np.isfinite(f["x"].array * f["a"].array).all() for f in found)
    assert not any(f["x"].array.any() for f in found)


def test_an_attribute_is_turned_where_all_sizes_are_the_same(search: Search) -> None:
    x, w = Leaf(np.ones((4, 5), np.float32)), Leaf(np.ones((5, 7), np.float32), constant=True)
    gemm = Node("onnx.Gemm", (Ref(leaf="x"), Ref(leaf="w")), {"transB": 0})
    recipe = Recipe({"x": x, "w": w}, (gemm,), (Ref(node=0),), 0, names={"t": (0, "transB")})
    found = [search.turned(recipe) for _ in range(30)]
    assert {r.nodes[0].attributes.get("transB", 0) for r in found} >= {0, 1}
    for r in found:
        assert len({d for leaf in r.leaves.values() for d in leaf.array.shape}) == 1
        realize(r)


def test_one_leaf_is_opened(search: Search) -> None:
    leaves = {"x": Leaf(np.ones((2, 3), np.float32)), "z": Leaf(np.ones((2, 3), np.float32))}
    recipe = Recipe(leaves, (Node("onnx.Add", (Ref(leaf="x"), Ref(leaf="z")), {}),), (Ref(node=0),), 0)
    found = search.one_open(recipe).leaves
    assert sorted(leaf.names is None for leaf in found.values()) == [False, True]
    assert all(leaf.array.shape == (2, 3) for leaf in found.values())

"""Graphs brought to the edge of what a rule matches."""

from __future__ import annotations

import random

import numpy as np
import pytest

import compiler.dialects.onnx  # noqa: F401 (registers the operators that recipes name)
from compiler.ir import F16, F32
from compiler.proving.library import library_of, prover_of
from compiler.rewrite import prove_check
from compiler.rewrite.driver import NO_TARGET
from compiler.rewrite.load import load_library
from compiler.rewrite.mutate import mutants, mutated
from compiler.rewrite.prove_check import Verdict
from compiler.rewrite.prove_reshape import fitted
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


def test_constants_are_enlarged_until_two_of_them_overflow_or_are_zero() -> None:
    library = load_library()
    entry = next(e for e in library.stage("canonicalize").entries if e.rule.name == "mul_chain")
    search = Search(entry, library, Seeds(library), random.Random(0))
    ones = np.ones(3, np.float32)
    leaves = {"x": Leaf(ones), "a": Leaf(ones, constant=True), "b": Leaf(ones, constant=True)}
    product = Node("onnx.Mul", (Ref(leaf="a"), Ref(leaf="b")), {})
    recipe = Recipe(leaves, (product, Node("onnx.Mul", (Ref(leaf="x"), Ref(node=0)), {})), (Ref(node=1),), 1)
    found = [search.enlarged(recipe).leaves for _ in range(30)]
    with np.errstate(over="ignore", under="ignore"):
        products = [f["a"].array * f["b"].array for f in found]
    assert any(np.isinf(p).all() for p in products)
    assert all(np.isfinite(f["x"].array * f["a"].array).all() for f in found)
    assert not any(f["x"].array.any() for f, p in zip(found, products) if np.isinf(p).any())
    assert any(not p.any() and f["x"].array.all() for f, p in zip(found, products))


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


def test_each_attribute_and_constant_is_stepped() -> None:
    library = library_of(())
    entry = next(e for e in library.stage("lower").entries if e.rule.name == "lower_lp_pool")
    search = Search(entry, library, Seeds(library), random.Random(0))
    attributes = {"auto_pad": "NOTSET", "ceil_mode": 0, "kernel_shape": (2, 3), "p": 2}
    pool = Node("onnx.LpPool", (Ref(leaf="x"),), attributes)
    names = {name: (0, name) for name in ("auto_pad", "ceil_mode", "dilations", "kernel_shape", "p")}
    recipe = Recipe({"x": Leaf(np.ones((1, 1, 5, 5), np.float32))}, (pool,), (Ref(node=0),), 0, names=names)
    stepped = [r.nodes[0].attributes for r in search.stepped(recipe)]
    assert {a["p"] for a in stepped} == {-1, 0, 1, 2, 3}
    assert {a["ceil_mode"] for a in stepped} == {0, 1}
    assert {(3, 3), (2, 4)} <= {a["kernel_shape"] for a in stepped}
    assert (2, 2) in {a.get("dilations") for a in stepped}
    assert {"SAME_UPPER", "SAME_LOWER"} <= {a["auto_pad"] for a in stepped}


def test_inputs_are_drawn_around_the_numbers_of_the_rule() -> None:
    library = library_of(())
    entry = next(e for e in library.stage("lower").entries if e.rule.name == "lower_relu6")
    search = Search(entry, library, Seeds(library), random.Random(0))
    leaves = {"x": Leaf(np.zeros(30, np.float32))}
    found = search.around_numbers(Recipe(leaves, (Node("onnx.Relu", (Ref(leaf="x"),), {}),), (Ref(node=0),), 0))
    x = found.leaves["x"].array
    assert (x < 0).any()
    assert ((x > 0) & (x < 6)).any()
    assert (x > 6).any()


def test_a_rule_that_fails_is_wrong_even_where_nothing_is_finite() -> None:
    prover = prover_of(library_of(()))
    mutant = next(m for m in mutants(prover.library.rules["lower_lp_pool"]) if m.kind == "condition dropped")
    pool = Node("onnx.LpPool", (Ref(leaf="x"),), {"auto_pad": "NOTSET", "kernel_shape": (2, 2), "p": 0})
    recipe = Recipe({"x": Leaf(np.ones((1, 1, 3, 3), np.float32))}, (pool,), (Ref(node=0),), 0)
    check = mutated(prover, mutant.rule).checker(mutant.rule)
    assert check.left(realize(recipe), recipe) == Verdict("void", "the left side is hardly ever finite")
    assert "ZeroDivisionError" in check(recipe).text


def test_of_what_is_too_large_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    check = prover_of(library_of(())).checker(library_of(()).rules["lower_lp_pool"])
    monkeypatch.setattr(prove_check, "rewrite", _too_large)
    recipe = Recipe({"x": Leaf(np.ones(1, np.float32))}, (Node("onnx.Relu", (Ref(leaf="x"),), {}),), (Ref(node=0),), 0)
    assert check(recipe).kind == "void"


def _too_large(*_: object) -> None:
    raise MemoryError("more than there is")


def test_a_size_is_a_large_number_of_the_rule_or_one_more() -> None:
    library = library_of(())
    entry = next(e for e in library.stage("lower").entries if e.rule.name == "lower_cast_of_constant")
    search = Search(entry, library, Seeds(library), random.Random(0))
    recipe = Recipe({"x": Leaf(np.ones(3), constant=True)}, (Node("onnx.Cast", (Ref(leaf="x"),), {"to": F32}),), (), 0)
    assert {search.counted(recipe).leaves["x"].array.size for _ in range(30)} == {4096, 4097}


def test_what_was_broadcast_becomes_what_others_are_broadcast_to(search: Search) -> None:
    recipe = Recipe({"k": Leaf(np.full((1, 2), 3, np.float32))}, (), (Ref(leaf="k"),), 0)
    drawn = [search.outgrown(recipe).leaves["k"].array for _ in range(40)]
    assert {a.shape for a in drawn} == {(2, 2), (3, 2), (2, 1, 2), (3, 1, 2)}
    assert all((a == 3).all() for a in drawn)


def test_a_list_is_regrouped_to_as_many_elements(search: Search) -> None:
    to = Leaf(np.array([2, 6, 5]), True)
    seen = {tuple(search.regroup(to).array.tolist()) for _ in range(100)}
    assert {(1, 12, 5), (4, 3, 5), (2, 2, 15), (6, 2, 5)} <= seen
    assert all(np.prod(dims) == 60 for dims in seen)


def test_an_input_of_open_size_is_broadcast_to_a_constant(search: Search) -> None:
    x, k = Leaf(np.ones((4, 3), np.float32)), Leaf(np.full((1,), 2.0, np.float32), True)
    recipe = Recipe({"x": x, "k": k}, (Node("onnx.Mul", (Ref(leaf="x"), Ref(leaf="k")), {}),), (Ref(node=0),), 0)
    for _ in range(20):
        other = search.stretched(recipe)
        names = other.leaves["x"].names
        assert names is not None
        back = 2 - next(i for i, d in enumerate(names) if isinstance(d, str))
        assert other.leaves["x"].array.shape[-back] == 1
        assert other.leaves["k"].array.shape[-back] > 1
        realize(other)


@pytest.mark.parametrize(
    ("name", "condition"), [("depth_to_space_dcr", 1), ("depth_to_space_dcr", 2), ("group_norm", 3), ("set_row", 2)]
)
def test_a_condition_on_shapes_is_missed(name: str, condition: int) -> None:
    prover = prover_of(library_of(()))
    dropped = [m for m in mutants(prover.library.rules[name]) if m.kind == "condition dropped"]
    assert mutated(prover, dropped[condition].rule).prove(dropped[condition].rule, 200).wrong


def test_doubles_become_halves_as_in_onnxruntime() -> None:
    prover = prover_of(library_of(()))
    x = Leaf(np.array([1 + 2.0**-11 + 2.0**-30]), constant=True)  # beyond the middle of two halves; in f32 it is there
    cast = Node("onnx.Cast", (Ref(leaf="x"),), {"to": F16})
    recipe = Recipe({"x": x}, (cast,), (Ref(node=0),), 0, target=NO_TARGET)
    assert prover.checker(prover.library.rules["lower_cast_of_constant"])(recipe).kind == "proved"

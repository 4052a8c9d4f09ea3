"""Constant folding."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ValueInfoProto, helper

from compiler import frontend, ir
from compiler.execution import evaluate
from passes import fold
from tests.frontend.models import model, reference

RNG = np.random.default_rng(2)
X = RNG.standard_normal((2, 3), np.float32)
node = helper.make_node


def names(module: ir.Module) -> list[str]:
    return [op.name.removeprefix("onnx.") for op in module.main.block.ops if op.defn.constant is None][:-1]


def check(proto, inputs, *left):
    """Folds, and holds the result against onnxruntime on the original."""
    module = frontend.load(proto)
    count = fold.run(module)
    assert names(module) == list(left)
    ir.verify(module)
    for found, expected in zip(evaluate.Session(module).run(inputs), reference(proto, inputs), strict=True):
        np.testing.assert_array_equal(found, expected)
    assert fold.run(module) == 0
    return module, count


def test_operators_on_constants_are_computed():
    nodes = [
        node("Transpose", ["w"], ["t"], perm=[1, 0], name="turn"),
        node("Sqrt", ["t"], ["r"]),
        node("MatMul", ["x", "r"], ["y"]),
        node("Exp", ["t"], ["z"]),
    ]
    module, count = check(model(nodes, {"x": X}, ["y", "z"], initializers={"w": np.abs(X)}), {"x": X}, "MatMul")
    assert count == 3
    made = next(op for op in module.main.block.ops if op.loc.rules)
    assert made.loc.rules == ("fold",)


def test_shapes_that_become_known_make_more_known():
    nodes = [
        node("Cast", ["two"], ["k"], to=7),  # known at once, but not to the front end: it is a vector of floats
        node("NonZero", ["k"], ["i"]),
        node("ReduceSum", ["i"], ["s"], keepdims=0),
        node("Reshape", ["s", "one"], ["t"]),
        node("Concat", ["t", "minus"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["h"]),
        node("Shape", ["h"], ["y"]),
    ]
    constants = {"two": np.zeros(300, np.float32), "one": np.array([1]), "minus": np.array([-1])}
    constants["two"][1] = 1
    module = frontend.load(model(nodes, {"x": X}, ["y", "h"], initializers=constants))
    assert module.main.outputs[0].constant is None
    fold.run(module)
    assert names(module) == ["Reshape"]
    assert module.main.outputs[0].constant.tolist() == [1, 6]
    assert module.main.outputs[1].shape == (1, 6)


def test_what_would_grow_stays():
    nodes = [node("Expand", ["c", "big"], ["h"]), node("Expand", ["c", "small"], ["g"]), node("Add", ["g", "x"], ["y"])]
    constants = {"c": np.ones((1, 3), np.float32), "big": np.array([1 << 18, 3]), "small": np.array([2, 3])}
    check(model(nodes, {"x": X}, ["y", "h"], initializers=constants), {"x": X}, "Expand", "Add")


@pytest.mark.parametrize(("shape", "left"), [((64, 64), ["DequantizeLinear", "MatMul"]), ((64,), ["MatMul"])])
def test_quantized_weights_stay_quantized(shape, left):
    x = RNG.standard_normal((2, 64), np.float32)
    nodes = [node("DequantizeLinear", ["w", "s"], ["d"]), node("MatMul", ["x", "d"], ["y"])]
    constants = {"w": RNG.integers(-9, 9, shape).astype(np.int8), "s": np.array(0.1, np.float32)}
    check(model(nodes, {"x": x}, ["y"], initializers=constants), {"x": x}, *left)


def test_an_if_with_a_known_condition_becomes_its_branch():
    def branch(op, out):
        inner = [node(op, ["x"], [out + "h"]), node("Add", [out + "h", out + "c"], [out])]
        constants = [helper.make_tensor(out + "c", 1, [1], [2.0])]
        return helper.make_graph(inner, out, [], [ValueInfoProto(name=out)], constants)

    nodes = [
        node("ReduceMax", ["w"], ["m"], keepdims=0),
        node("Greater", ["m", "zero"], ["c"]),
        node("If", ["c"], ["h"], then_branch=branch("Neg", "p"), else_branch=branch("Abs", "q")),
        node("Relu", ["h"], ["y"]),
    ]
    w = np.ones((300, 2), np.float32)
    check(model(nodes, {"x": X}, ["y"], initializers={"w": w, "zero": np.float32(0)}), {"x": X}, "Neg", "Add", "Relu")


def test_regions_are_folded_inside():
    body = helper.make_graph(
        [node("Exp", ["w"], ["e"]), node("Add", ["v", "e"], ["u"]), node("Identity", ["c"], ["d"])],
        "body",
        [
            helper.make_tensor_value_info("i", 7, []),
            helper.make_tensor_value_info("c", 9, []),
            helper.make_tensor_value_info("v", 1, [2, 3]),
        ],
        [ValueInfoProto(name="d"), ValueInfoProto(name="u")],
    )
    proto = model(
        [node("Loop", ["n", "", "x"], ["y"], body=body)], {"x": X, "n": np.array(3)}, ["y"], initializers={"w": X}
    )
    _, count = check(proto, {"x": X, "n": np.array(3)}, "Loop")
    assert count == 1


def test_random_numbers_are_not_constants():
    proto = model(
        [node("RandomNormalLike", ["w"], ["r"]), node("Add", ["x", "r"], ["y"])], {"x": X}, ["y"], initializers={"w": X}
    )
    module = frontend.load(proto)
    assert fold.run(module) == 0


def test_what_onnxruntime_cannot_compute_stays():
    nodes = [node("Gather", ["w", "i"], ["g"], axis=0), node("Exp", ["w"], ["e"]), node("Add", ["g", "e"], ["y"])]
    module = frontend.load(model(nodes, {"x": X}, ["y"], initializers={"w": X, "i": np.array([0, 9])}))
    fold.run(module)
    assert names(module) == ["Gather", "Add"]

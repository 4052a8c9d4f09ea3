"""Common subexpressions and dead code."""

from __future__ import annotations

import numpy as np
import pytest

import compiler.dialects.metal
import compiler.dialects.onnx  # noqa: F401 (registers the dialects)
from compiler import ir
from passes import cse, dce

F32 = ir.TensorType(ir.F32, (2, 3))


@pytest.fixture
def graph():
    f = ir.Function("main", {"a": F32, "b": F32}, ["y"])
    module = ir.Module("m")
    module.add(f)
    return module, f, ir.Builder(f.block)


def finish(f, b, *values):
    f.set_outputs([b.op("onnx.Concat", values, {"axis": 0}).result])
    return len(f.block)


def test_equal_operators_become_one(graph):
    module, f, b = graph
    a, c = f.inputs
    one, two = b.op("onnx.Sub", [a, c]).result, b.op("onnx.Sub", [a, c]).result
    before = finish(f, b, b.op("onnx.Relu", [one]).result, b.op("onnx.Relu", [two]).result)
    assert cse.run(module) == 2
    assert len(f.block) == before - 2
    ir.verify(module)
    assert cse.run(module) == 0


@pytest.mark.parametrize(("op", "merged"), [("Add", 1), ("Mul", 1), ("Max", 1), ("Sub", 0), ("Pow", 0)])
def test_commutative_operands_have_no_order(graph, op, merged):
    module, f, b = graph
    a, c = f.inputs
    finish(f, b, b.op(f"onnx.{op}", [a, c]).result, b.op(f"onnx.{op}", [c, a]).result)
    assert cse.run(module) == merged


def test_attributes_results_and_types_of_numbers_count(graph):
    module, f, b = graph
    a, _ = f.inputs
    leaky = [b.op("onnx.LeakyRelu", [a], {"alpha": alpha}).result for alpha in (0.0, -0.0, 0.5, 0.5)]
    finish(f, b, *leaky)
    assert cse.run(module) == 1


def test_results_of_other_shapes_are_kept_apart(graph):
    module, f, b = graph
    x = b.op("metal.reshape", [f.inputs[0]], {"shape": (1, 2, 3)}).result
    w = b.op("metal.reshape", [f.inputs[1]], {"shape": (2, 1, 3)}).result
    how = {"strides": (2,), "pads": (0,), "dilations": (1,), "group": 1}
    types = [ir.TensorType(ir.F32, (1, 1, n)) for n in (7, 8, 7)]
    f.set_outputs([b.op("metal.conv_transpose", [x, w], how, [t]).result for t in types], ["p", "q", "r"])
    assert cse.run(module) == 1
    assert [v.type for v in f.outputs] == types


def test_constants_are_compared_by_content(graph):
    module, f, b = graph
    long = np.arange(10_000, dtype=np.float32)
    other = long.copy()
    other[5001] = -1
    arrays = [long, long.copy(), other, long.reshape(100, 100), long.astype(np.int32), np.float32(0), np.float32(-0.0)]
    arrays += [np.array(["a"], object), np.array(["a"], object)]
    values = [b.constant(x, "onnx") for x in arrays]
    f.set_outputs(values, [f"y{i}" for i in range(len(values))])
    assert cse.run(module) == 2
    assert f.outputs[0] is f.outputs[1]
    assert len(set(f.outputs)) == len(arrays) - 2


def test_random_operators_are_not_merged_but_dropped_neither(graph):
    module, f, b = graph
    one, two = (b.op("onnx.RandomNormalLike", [f.inputs[0]]).result for _ in range(2))
    finish(f, b, one, two)
    assert cse.run(module) == 0


def test_regions_see_what_is_around_them(graph):
    module, f, b = graph
    a, c = f.inputs
    outer = b.op("onnx.Add", [a, c]).result
    regions = []
    for op in ("onnx.Relu", "onnx.Neg"):
        block = ir.Block()
        inner = ir.Builder(block)
        again = inner.op("onnx.Add", [a, c]).result
        inner.ret([inner.op(op, [again]).result])
        regions.append(block)
    condition = b.constant(np.array(True), "onnx")
    branch = b.op("onnx.If", [condition], regions=regions)
    finish(f, b, outer, branch.result)
    assert cse.run(module) == 2
    ir.verify(module)
    assert dce.run(module) == 0


def test_dead_operators_go_and_inputs_stay(graph):
    module, f, b = graph
    a, c = f.inputs
    h = b.op("onnx.Relu", [a]).result
    b.op("onnx.Neg", [b.op("onnx.Exp", [h]).result])
    b.op("onnx.RandomNormalLike", [a])
    f.set_outputs([h])
    assert dce.run(module) == 2
    assert [op.name for op in f.block.ops] == ["onnx.Relu", "onnx.RandomNormalLike", "ir.return"]
    assert [v.name for v in f.inputs] == ["a", "b"]
    assert c.use_count == 0

"""``--batch``: rows for a model that was exported for one, where rows keep apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import compiler
from compiler import Wishes
from compiler.errors import UnsupportedError, UserError
from compiler.proof import Reference, compare
from tests.cli.test_cli import Run
from tests.features.apple import feature, spec_of
from tests.features.test_dynamic_shapes import run
from tests.test_driver import F, model_of

RNG = np.random.default_rng(0)


def classifier() -> onnx.ModelProto:
    """A network as exporters write it at batch 1: its one row stands in the shapes of two reshapes."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["a"], "conv"),
        node("Relu", ["a"], ["b"], "relu"),
        node("Reshape", ["b", "tokens"], ["c"], "to_tokens"),  # 1 × 4 × 24
        node("Transpose", ["c"], ["d"], "turn", perm=[0, 2, 1]),
        node("MatMul", ["d", "v"], ["e"], "project"),
        node("Softmax", ["e"], ["f"], "softmax", axis=-1),
        node("Reshape", ["f", "flat"], ["g"], "flatten"),  # 1 × 72
        node("Gemm", ["g", "u"], ["y"], "head"),
    ]
    constants = {
        "w": RNG.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "v": RNG.standard_normal((4, 3)).astype(np.float32),
        "u": RNG.standard_normal((72, 5)).astype(np.float32),
        "tokens": np.array([1, 4, 24], np.int64),
        "flat": np.array([1, -1], np.int64),
    }
    return model_of(nodes, {"x": [1, 3, 8, 6]}, {"y": F}, constants)


@pytest.mark.parametrize("batch", ["1,2,4", "1..4"])
def test_rows_together_are_rows_one_by_one(tmp_path: Path, batch: str) -> None:
    path = tmp_path / "m.mlpackage"
    model = classifier()
    done = compiler.compile(model, "cpu", path, wishes=Wishes(batch=batch))
    assert done.report.verify.passed
    array = feature(spec_of(path), "x").multiArrayType
    if batch == "1..4":
        assert [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges] == [(1, 4), (3, 3), (8, 8), (6, 6)]
    else:
        assert [s.shape[0] for s in array.enumeratedShapes.shapes] == [1, 2, 4]
    x = RNG.standard_normal((4, 3, 8, 6)).astype(np.float32)
    reference = Reference(model)
    want = np.concatenate([reference.run({"x": x[i : i + 1]})[0] for i in range(4)])
    assert compare(run(path, x)[0], want).rel_l2 < 1e-5


def test_rows_may_leave_on_another_axis(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])], {"x": [1, 3]}, {"y": F})
    done = compiler.compile(model, "cpu", tmp_path / "m.mlpackage", wishes=Wishes(batch="1..3"))
    assert done.report.verify.passed


def mixing(kind: str) -> onnx.ModelProto:
    node = helper.make_node
    constants = {"s": np.array([3, 4], np.int64), "axes": np.array([0], np.int64)}
    nodes = {
        "softmax over rows": [node("Softmax", ["x"], ["y"], "guilty", axis=0)],
        "a sum over rows": [node("ReduceSum", ["x", "axes"], ["y"], "guilty", keepdims=0)],
        "a range over rows": [
            node("DynamicQuantizeLinear", ["x"], ["q", "scale", "zero"], "guilty"),
            node("DequantizeLinear", ["q", "scale", "zero"], ["y"], "back"),
        ],
        "a cumulative sum": [node("Relu", ["x"], ["a"]), node("CumSum", ["a", "axis"], ["y"], "guilty")],
        "a merged axis": [node("Reshape", ["x", "s"], ["y"], "guilty")],
    }[kind]
    constants["axis"] = np.array(0, np.int64)
    used = {name for n in nodes for name in n.input}
    return model_of(nodes, {"x": [1, 12]}, {"y": F}, {k: v for k, v in constants.items() if k in used})


@pytest.mark.parametrize(
    "kind", ["softmax over rows", "a sum over rows", "a range over rows", "a cumulative sum", "a merged axis"]
)
def test_what_mixes_rows_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnsupportedError, match=r"at node 'guilty' (mixes|merges) the rows of a batch"):
        compiler.compile(mixing(kind), "cpu", tmp_path / "m.mlpackage", wishes=Wishes(batch="1,2"))
    assert not (tmp_path / "m.mlpackage").exists()


def test_an_input_of_other_rows_stays(tmp_path: Path) -> None:
    """A table and factors that all rows use."""
    nodes = [helper.make_node("MatMul", ["x", "t"], ["a"]), helper.make_node("Mul", ["a", "k"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, F, s) for n, s in {"x": [1, 4], "t": [4, 2], "k": [2]}.items()],
        [helper.make_tensor_value_info("y", F, [1, 2])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "m.mlpackage"
    compiler.compile(model, "cpu", path, wishes=Wishes(batch="1..3"))
    spec = spec_of(path)
    assert feature(spec, "x").multiArrayType.WhichOneof("ShapeFlexibility") == "shapeRange"
    assert feature(spec, "t").multiArrayType.WhichOneof("ShapeFlexibility") is None


def test_bad_batches(compile_: Run, tmp_path: Path) -> None:
    onnx.save(classifier(), tmp_path / "m.onnx")
    for text in ("0", "4..1", "a", "1,", "1|2"):
        code, _, err = compile_(tmp_path / "m.onnx", "--batch", text)
        assert code == 2
        assert f"--batch {text} is no size" in err
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    onnx.save(model_of(nodes, {"x": [2, 3]}, {"y": F}), tmp_path / "m.onnx")
    code, _, err = compile_(tmp_path / "m.onnx", "--batch", "1,2")
    assert code == 2
    assert "finds no input with one row" in err


def test_integers_are_rows_too(tmp_path: Path) -> None:
    table = RNG.standard_normal((10, 4)).astype(np.float32)
    nodes = [helper.make_node("Gather", ["t", "x"], ["a"]), helper.make_node("ReduceMean", ["a"], ["y"], axes=[1])]
    model = model_of(nodes, {"x": [1, 5]}, {"y": F}, {"t": table}, input_type=TensorProto.INT64)
    done = compiler.compile(model, "cpu", tmp_path / "m.mlpackage", wishes=Wishes(batch="1..3"))
    assert done.report.verify.passed


def test_a_larger_batch_may_be_the_only_one(tmp_path: Path) -> None:
    path = tmp_path / "m.mlpackage"
    done = compiler.compile(classifier(), "cpu", path, wishes=Wishes(batch="4"))
    assert done.report.verify.passed
    assert list(feature(spec_of(path), "x").multiArrayType.shape) == [4, 3, 8, 6]


def test_a_real_model(models_dir: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.mlpackage"
    done = compiler.compile(models_dir / "ultraface" / "model.onnx", "cpu", path, wishes=Wishes(batch="1,3"))
    assert done.report.verify.passed
    spec_of(path)
    with pytest.raises((UnsupportedError, UserError)):
        compiler.compile(models_dir / "wakeword_jarvis" / "model.onnx", "cpu", path, wishes=Wishes(batch="1,2"))

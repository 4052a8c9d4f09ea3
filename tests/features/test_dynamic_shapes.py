"""Shapes that stay open: written as Core ML has them, proven at their bounds, run within them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import compiler
from compiler.driver import Options, load_library
from compiler.errors import UserError
from compiler.execution.calls import run_calls
from compiler.ir import Module
from compiler.proof import MilSession, Reference, compare, read_package
from compiler.shapes import Choice, Span, sizes_to_try
from tests.features.apple import feature, spec_of
from tests.test_driver import F, model_of


def run(package: Path, *inputs: np.ndarray) -> list[np.ndarray]:
    return MilSession(read_package(package), load_library(Options())).run(inputs)


def pooled() -> onnx.ModelProto:
    """What a pooling of rounded-up windows and a resize mean depends on the sizes at hand."""
    half, near = {"mode": "linear"}, {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    nodes = [
        helper.make_node("MaxPool", ["x"], ["a"], "pool", kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
        helper.make_node("Resize", ["a", "", "s"], ["b"], "up", **half),
        helper.make_node("Resize", ["b", "", "s"], ["y"], "near", **near),
    ]
    return model_of(nodes, {"x": ["N", 2, "H", "W"]}, {"y": F}, {"s": np.array([1, 1, 2, 2], np.float32)})


def test_a_range_is_what_coremltools_calls_a_range(tmp_path: Path) -> None:
    path = tmp_path / "m.mlpackage"
    model = pooled()
    done = compiler.compile(model, "cpu", path, shapes={"x": (Span(1, 3), 2, Span(5, 12), Span(6, 9))})
    assert done.report.verify.sets == 3
    array = feature(spec_of(path), "x").multiArrayType
    assert [(r.lowerBound, r.upperBound) for r in array.shapeRange.sizeRanges] == [(1, 3), (2, 2), (5, 12), (6, 9)]
    assert list(array.shape) == [1, 2, 5, 6]
    reference = Reference(model)
    for shape in [(1, 2, 5, 6), (3, 2, 12, 9), (2, 2, 8, 7)]:
        x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        assert compare(run(path, x)[0], reference.run({"x": x})[0]).rel_l2 < 1e-6


def two_inputs() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"], "mm")]
    return model_of(nodes, {"a": ["N", 3, "S"], "b": ["N", "S", 2]}, {"y": F})


def test_choices_of_several_inputs_stand_side_by_side(tmp_path: Path) -> None:
    shapes = {"a": (Choice((1, 2)), 3, Choice((4, 8))), "b": (Choice((1, 2)), Choice((4, 8)), 2)}
    with pytest.raises(UserError, match="before iOS 18 Core ML takes one such input"):
        compiler.compile(two_inputs(), "cpu", tmp_path / "m.mlpackage", shapes=shapes)
    path = tmp_path / "m.mlpackage"
    compiler.compile(two_inputs(), "cpu", path, shapes=shapes, os="ios18")
    spec = spec_of(path)
    listed = {n: [tuple(s.shape) for s in feature(spec, n).multiArrayType.enumeratedShapes.shapes] for n in "ab"}
    assert listed["a"] == [(1, 3, 4), (1, 3, 8), (2, 3, 4), (2, 3, 8)]
    assert listed["b"] == [(1, 4, 2), (1, 8, 2), (2, 4, 2), (2, 8, 2)]


def test_a_list_may_hold_a_shape_twice_where_another_input_differs(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["a", "b"], ["y"], "mm")]
    model = model_of(nodes, {"a": ["N", 3, 4], "b": ["N", 4, "M"]}, {"y": F})
    path = tmp_path / "m.mlpackage"
    shapes = {"a": (Choice((1, 2)), 3, 4), "b": (Choice((1, 2)), 4, Choice((5, 6)))}
    compiler.compile(model, "cpu", path, shapes=shapes, os="ios18")
    listed = feature(spec_of(path), "a").multiArrayType.enumeratedShapes.shapes
    assert [tuple(s.shape) for s in listed] == [(1, 3, 4), (1, 3, 4), (2, 3, 4), (2, 3, 4)]


def test_core_ml_lists_128_shapes_at_most(tmp_path: Path) -> None:
    sizes = Choice(tuple(range(5, 17)))
    with pytest.raises(UserError, match="make 144 shapes"):
        compiler.compile(pooled(), "cpu", tmp_path / "m.mlpackage", shapes={"x": (1, 2, sizes, sizes)})


def test_the_bounds_are_tried_first_and_a_size_between_fits_a_network_that_halves() -> None:
    module = Module("m", {"flexible": (("N", "1..8"), ("H", "160..320"), ("C", "3|5|9"), ("K", "32..32"))})
    assert sizes_to_try(module, 0) == {"N": 1, "H": 160, "C": 3, "K": 32}
    assert sizes_to_try(module, 1) == {"N": 8, "H": 320, "C": 9, "K": 32}
    assert sizes_to_try(module, 2) == {"N": 4, "H": 224, "C": 5, "K": 32}


def test_indices_stay_inside_tables_of_open_size(tmp_path: Path) -> None:
    """Atoms and edges between them: the least size leaves two rows to point to."""
    nodes = [helper.make_node("Gather", ["x", "i"], ["y"], "rows", axis=0)]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", F, ["atoms", 3]),
            helper.make_tensor_value_info("i", onnx.TensorProto.INT64, ["edges"]),
        ],
        [helper.make_tensor_value_info("y", F, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    done = compiler.compile(model, "cpu", tmp_path / "m.mlpackage", shapes={"x": (Span(2, 9), 3), "i": (Span(4, 20),)})
    assert done.report.verify.passed


@pytest.mark.parametrize(
    ("name", "shapes", "target"),
    [
        ("mtcnn_pnet", {"input_1": (Span(1, 2), Span(24, 40), Span(24, 40), 3)}, "cpu"),
        ("craft_refiner", {"y": (1, 2, Span(16, 32), 16), "feature": (1, 32, Span(16, 32), 16)}, "ane"),
        ("gesture_mlp", {"input": (Choice((1, 4, 8)), 42)}, "ane"),
    ],
)
def test_real_models(models_dir: Path, tmp_path: Path, name: str, shapes: dict[str, tuple], target: str) -> None:
    path = tmp_path / "m.mlpackage"
    done = compiler.compile(models_dir / name / "model.onnx", target, path, shapes=shapes)  # type: ignore[arg-type]
    assert done.report.verify.passed
    assert done.report.verify.sets == 3
    spec_of(path)


def test_a_package_runs_at_shapes_that_it_declares(tmp_path: Path) -> None:
    """As in Core ML: within the bounds, and what is listed."""
    ranged, listed = tmp_path / "r.mlpackage", tmp_path / "l.mlpackage"
    compiler.compile(pooled(), "cpu", ranged, shapes={"x": (1, 2, Span(5, 12), 6)})
    compiler.compile(pooled(), "cpu", listed, shapes={"x": (1, 2, Choice((5, 12)), 6)})
    library = load_library(Options())
    for path, taken, refused, said in (
        (ranged, (5, 7, 12), (4, 13), "axis 2 of input 'x' takes 5 to 12 elements, and the array given for it has "),
        (listed, (5, 12), (7,), r"input 'x' takes one of the shapes \(1, 2, 5, 6\), \(1, 2, 12, 6\), and the array"),
    ):
        for size in taken:
            run_calls(read_package(path), library, {"x": np.zeros((1, 2, size, 6), np.float32)})
        for size in refused:
            with pytest.raises(UserError, match=said):
                run_calls(read_package(path), library, {"x": np.zeros((1, 2, size, 6), np.float32)})

"""Parameters that only run time knows, where the model says what shape the result has."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from compiler.errors import UnsupportedError
from compiler.onnx_backend import PlanishBackend

X = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
NAN = np.array([np.nan, 1, np.inf], np.float32)


def agrees(op: str, operands: list[Any], others: list[list[Any]], os: str = "ios18", **attributes: Any) -> None:
    """The package of the operator with all operands as inputs gives what onnxruntime gives, on each set of inputs."""
    names = [f"x{i}" if v is not None else "" for i, v in enumerate(operands)]
    node = helper.make_node(op, names, ["y"], **attributes)
    inputs = [_info(n, v) for n, v in zip(names, operands) if v is not None]
    graph = helper.make_graph([node], "g", inputs, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wants = [session.run(None, {n: v for n, v in zip(names, o) if v is not None})[0] for o in (operands, *others)]
    model.graph.output[0].CopyFrom(_info("y", wants[0]))
    package = PlanishBackend.prepare(model, os=os)
    for given, want in zip((operands, *others), wants, strict=True):
        np.testing.assert_allclose(package.run([v for v in given if v is not None])[0], want, rtol=1e-5, atol=1e-5)


def _info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def i64(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize("os", ["ios16", "ios18"])
def test_slices_along_axes_that_are_computed(os: str) -> None:
    agrees(
        "Slice",
        [X, i64(1, 0), i64(3, 2), i64(1, 2)],
        [[X, i64(0, 3), i64(2, 5), i64(1, 2)], [X, i64(-2, -3), i64(99, -1), i64(-2, -1)]],
        os,
    )
    down = [X, i64(99), i64(-99), i64(0), i64(-1)]
    agrees("Slice", down, [[X, i64(0), i64(3), i64(0), i64(1)]], os)
    agrees("Slice", [X > 7, i64(1), i64(3), i64(1)], [[X > 30, i64(2), i64(4), i64(1)]], os)
    agrees("Slice", [X.astype(np.int64), i64(1), i64(3), i64(1)], [], os)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
def test_paddings_that_are_computed(mode: str) -> None:
    moved = [i64(*p) for p in ((0, 2, 1, 0, 1, 2), (0, 0, 3, 0, 3, 0), (0, 3, 2, 0, 0, 1), (0, 1, 0, 0, 2, 3))]
    agrees("Pad", [X, moved[0]], [[X, p] for p in moved[1:]], mode=mode)
    agrees("Pad", [X, i64(1, -1), None, i64(2)], [[X, i64(-2, 2), None, i64(-1)]], mode=mode)
    agrees(
        "Pad", [X.astype(np.int32), i64(2, 1), None, i64(1)], [[X.astype(np.int32), i64(1, 2), None, i64(1)]], mode=mode
    )


def test_what_fills_may_be_computed() -> None:
    numbers = np.array([7, -1.5], np.float32)
    agrees(
        "Pad",
        [X, i64(1, 0, 0, 0, 0, 2), numbers[:1].reshape(())],
        [[X, i64(0, 0, 1, 1, 0, 1), numbers[1:].reshape(())]],
    )
    agrees("Pad", [X > 7, i64(1, 0, 0, 0, 0, 2), np.array(True)], [])
    agrees("Pad", [NAN, i64(1, 2), np.array(np.inf, np.float32)], [[NAN, i64(3, 0), np.array(2, np.float32)]])


def test_shapes_that_are_computed() -> None:
    agrees("CenterCropPad", [X, i64(7, 3, 2)], [])
    agrees("CenterCropPad", [X.astype(np.int32), i64(2, 6)], [], axes=[-1, 0])
    theta = np.array([[[1, 0.5, 0], [0, 2, -0.25]]], np.float32)
    agrees("AffineGrid", [theta, i64(1, 3, 4, 2)], [], align_corners=1)


def test_a_shape_is_known_from_what_is_computed_of_it() -> None:
    """ReduceSum's axes are an input, and its result is declared behind a square root only."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=0),
        helper.make_node("Cast", ["s"], ["c"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Sqrt", ["c"], ["y"]),
    ]
    axes = i64(1)
    outputs = [_info("y", X.sum(1))]
    graph = helper.make_graph(nodes, "g", [_info("x", X), _info("axes", axes)], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    package = PlanishBackend.prepare(model)
    np.testing.assert_allclose(package.run([X, axes])[0], np.sqrt(X.sum(1)), rtol=1e-6)


def test_what_data_sizes_is_not_known_from_what_is_computed_of_it() -> None:
    from compiler import frontend

    nodes = [helper.make_node("NonZero", ["x"], ["n"]), helper.make_node("Abs", ["n"], ["y"])]
    graph = helper.make_graph(nodes, "g", [_info("x", X)], [_info("y", np.zeros((3, 7), np.int64))])
    loaded = frontend.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10))
    made = {op.name: op.results[0].type for op in loaded.main.block.ops if op.results}
    assert made["onnx.NonZero"].shape == (3, "?")


WAYS = ["half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners"]
NEAREST = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "how",
    [{"mode": "linear"}, {"mode": "cubic"}, {"mode": "cubic", "cubic_coeff_a": -0.5, "exclude_outside": 1}]
    + [{"mode": "nearest", "nearest_mode": n} for n in NEAREST],
)
def test_resizes_by_scales_that_are_computed(way: str, how: dict[str, Any]) -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 7)).astype(np.float32)
    if how["mode"] == "nearest" and way == "half_pixel_symmetric":
        twice = np.array([1, 1, 2, 2], np.float32)
        with pytest.raises(UnsupportedError):
            agrees("Resize", [x, None, twice], [], coordinate_transformation_mode=way, **how)
        return
    for pairs in (((1.6, 2.0), (1.79, 2.1), (1.61, 2.03)), ((0.6, 1.0), (0.75, 1.12), (0.7, 1.05))):
        scales = [np.array([1, 1, *pair], np.float32) for pair in pairs]
        others = [[x, None, s] for s in scales[1:]]
        agrees("Resize", [x, None, scales[0]], others, coordinate_transformation_mode=way, **how)
    y = x[0, 0]
    agrees("Resize", [y, None, np.array([3.3], np.float32)], [], axes=[-1], coordinate_transformation_mode=way, **how)


def test_resizes_that_are_refused_where_scales_are_computed() -> None:
    x, scales = X[None], np.array([1, 1, 1, 1], np.float32)
    with pytest.raises(UnsupportedError):
        agrees("Resize", [x, None, scales], [], mode="linear")
    half = np.array([1, 1, 0.5, 0.5], np.float32)
    with pytest.raises(UnsupportedError, match="computed"):
        agrees("Resize", [x, None, half], [], mode="linear", antialias=1)

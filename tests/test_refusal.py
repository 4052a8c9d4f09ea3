"""What is not compiled is refused with a sentence that names the operator, the reason and the remedy."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from compiler.errors import UnsupportedError
from compiler.onnx_backend import prepare


def model(op: str, inputs: dict[str, tuple[int, list[int]]], output: list[int], **attributes):
    """One node whose inputs are named, and whose output has the type of the first."""
    infos = [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()]
    element = next(iter(inputs.values()))[0]
    node = helper.make_node(op, list(inputs), ["y"], name="the_node", **attributes)
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", element, output)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


F, I = TensorProto.FLOAT, TensorProto.INT64  # noqa: E741
CASES = {
    "of Core ML itself": (
        model("Det", {"x": (F, [3, 3])}, []),
        "onnx.Det at node 'the_node' cannot be compiled: Core ML has no determinants",
        "written out",
    ),
    "operand at run time": (
        model("Pad", {"x": (F, [3]), "pads": (I, [2])}, [5]),
        "onnx.Pad at node 'the_node' cannot be compiled: its 'pads' is computed at run time, and Core ML must know it",
        "holds 'pads' as a constant",
    ),
    "what a builder says": (
        model("GridSample", {"x": (F, [1, 1, 4, 4]), "g": (F, [1, 4, 4, 2])}, [1, 1, 4, 4], mode="cubic"),
        "onnx.GridSample at node 'the_node' cannot be compiled: interpolation is cubic",
        "--rules",
    ),
    "no rule": (
        model("RoiAlign", {"x": (F, [1, 1, 4, 4]), "r": (F, [2, 4]), "b": (I, [2])}, [2, 1, 1, 1]),
        "onnx.RoiAlign at node 'the_node' cannot be compiled: Core ML has no operator for it, and no rule composes it",
        "--rules",
    ),
    "element type": (
        model("SpaceToDepth", {"x": (TensorProto.INT32, [1, 1, 4, 4])}, [1, 4, 2, 2], blocksize=2),
        "onnx.SpaceToDepth at node 'the_node' cannot be compiled: Core ML does it on float only, and here it is on i32",
        "Cast",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_reason_and_the_remedy_are_told(name):
    given, message, remedy = CASES[name]
    with pytest.raises(UnsupportedError) as e:
        prepare(given, os="ios18")
    assert e.value.message.startswith(message)
    assert remedy in (e.value.remedy or "")

"""What is not compiled is refused with a sentence that names the operator, the reason and the remedy."""

from __future__ import annotations

import pytest
from onnx import TensorProto, helper

from compiler.errors import UnsupportedError
from compiler.onnx_backend import prepare


def model(op: str, inputs: dict[str, tuple[int, list[int]]], output: list[int], element: int = 0, **attributes):
    """One node whose inputs are named, and whose output has the type of the first where none is given."""
    infos = [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()]
    element = element or next(iter(inputs.values()))[0]
    node = helper.make_node(op, list(inputs), ["y"], name="the_node", **attributes)
    graph = helper.make_graph([node], "g", infos, [helper.make_tensor_value_info("y", element, output)])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)])


F, I = TensorProto.FLOAT, TensorProto.INT64  # noqa: E741
CASES = {
    "of Core ML itself": (
        model("Det", {"x": (F, [4, 4])}, []),
        "onnx.Det at node 'the_node' cannot be compiled: Core ML has no determinants",
        "--rules",
    ),
    "operand at run time": (
        model("NonMaxSuppression", {"b": (F, [1, 4, 4]), "s": (F, [1, 1, 4]), "n": (I, [1])}, ["n", 3], I),
        "onnx.NonMaxSuppression at node 'the_node' cannot be compiled: its 'max_output_boxes_per_class' is computed",
        "holds 'max_output_boxes_per_class' as a constant",
    ),
    "what a builder says": (
        model("RoiAlign", {"x": (F, [1, 1, 4, 4]), "r": (F, [2, 4]), "b": (I, [2])}, [2, 1, 1, 1]),
        "onnx.RoiAlign at node 'the_node' cannot be compiled: how many places a region has depends on its size",
        "--rules",
    ),
    "no rule": (
        model("MelWeightMatrix", {n: (F if n in "lh" else I, []) for n in ("b", "n", "r", "l", "h")}, [5, 4], F),
        "onnx.MelWeightMatrix at node 'the_node' cannot be compiled: Core ML has no operator for it, and no rule",
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


def test_operators_of_onnxruntime_without_a_rule_are_told_from_standard_ones():
    fused = model("Sum", {"x": (F, [2, 3]), "b": (F, [2, 3])}, [2, 3])
    fused.graph.node[0].op_type, fused.graph.node[0].domain = "BiasSoftmax", "com.microsoft"
    fused.graph.node[0].attribute.append(helper.make_attribute("is_inner_broadcast", 0))
    fused.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(UnsupportedError) as e:
        prepare(fused)
    assert e.value.message.startswith(
        "msft.BiasSoftmax at node 'the_node' cannot be compiled: it is an operator of onnxruntime's own"
    )
    assert "as it was exported" in (e.value.remedy or "")

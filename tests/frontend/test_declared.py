"""What a file says of the types of its values counts where inference does not know, and is named where it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from compiler import frontend
from compiler.driver import Options, compile_model
from compiler.errors import UserError, VerificationError
from compiler.proof import hold_to_shapes
from compiler.target import Target

info = helper.make_tensor_value_info


def model(nodes, outputs, values=(), inputs=None):
    given = inputs or [info("x", TensorProto.FLOAT, [2, 3])]
    graph = helper.make_graph(nodes, "g", given, outputs, value_info=list(values))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def chain(output=("y", TensorProto.FLOAT, [2, 3]), *values):
    nodes = [helper.make_node("Relu", ["x"], ["t"], name="first"), helper.make_node("Neg", ["t"], ["y"])]
    return model(nodes, [info(*output)], [info(*v) for v in values])


@pytest.mark.parametrize("shape", [[4, 5], [6], [2, 3, 1]])
def test_false_shapes_are_named_and_not_believed(shape, tmp_path):
    false = chain(("y", TensorProto.FLOAT, [3, 2]), ("t", TensorProto.FLOAT, shape))
    for verify in ("full", "off"):
        made = compile_model(false, tmp_path / f"{verify}.mlpackage", Options(Target.of("cpu", "ios18"), verify=verify))
        assert made.module.main.outputs[0].shape == (2, 3)
        (note,) = [n for n in made.report.notes if "own types" in n]
        assert f"'t' is {shape} in the file and tensor<2x3xf32> as computed, and 1 more" in note


def test_true_shapes_are_not_mentioned():
    true = chain(("y", TensorProto.FLOAT, [2, 3]), ("t", TensorProto.FLOAT, [2, 3]))
    assert "notes" not in frontend.load(true, {}).attributes


def test_shapes_of_other_inputs_are_not_mentioned():
    stale = chain(("y", TensorProto.FLOAT, ["N", 3]), ("t", TensorProto.FLOAT, [2, 3]))
    stale.graph.input[0].CopyFrom(info("x", TensorProto.FLOAT, ["N", 3]))
    loaded = frontend.load(stale, {"x": (5, 3)})
    assert "notes" not in loaded.attributes
    assert loaded.main.outputs[0].shape == (5, 3)


@pytest.mark.parametrize("false", [{"t": TensorProto.INT64}, {"y": TensorProto.FLOAT16}])
def test_false_element_types_are_refused(false):
    types = {"y": TensorProto.FLOAT, "t": TensorProto.FLOAT} | false
    odd = chain(("y", types["y"], [2, 3]), ("t", types["t"], [2, 3]))
    with pytest.raises(UserError, match=f"the value '{next(iter(false))}' is .*, and onnx.(Relu|Neg) at node .* f32"):
        frontend.load(odd)


def test_sizes_that_depend_on_numbers_stay_open():
    loaded = frontend.load(model([helper.make_node("NonZero", ["x"], ["n"])], [info("n", TensorProto.INT64, [2, 4])]))
    assert loaded.main.outputs[0].shape == (2, "?")


def test_a_reshape_is_not_believed_to_make_elements():
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    inputs = [info("x", TensorProto.FLOAT, [2, 3]), info("s", TensorProto.INT64, [2])]
    for shape, believed in (([5, 5], False), ([3, 2], True)):
        loaded = frontend.load(model(nodes, [info("y", TensorProto.FLOAT, shape)], inputs=inputs))
        assert (loaded.main.outputs[0].shape == tuple(shape)) is believed
        assert any("nothing but the model" in n for n in loaded.attributes.get("notes", ())) is believed


def test_outputs_are_held_to_the_shapes_that_a_package_declares():
    type_ = frontend.load(chain()).main.outputs[0].type
    hold_to_shapes([("y", type_)], [[np.zeros((2, 3))]])
    with pytest.raises(
        VerificationError, match=r"output 'y' is \[2, 3\] as the model declares, and \[2, 4\] on inputs"
    ):
        hold_to_shapes([("y", type_)], [[np.zeros((2, 4))]])

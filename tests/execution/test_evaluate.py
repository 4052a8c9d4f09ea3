"""Evaluation: modules go to onnxruntime and come back as arrays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from compiler import frontend, ir
from compiler.errors import UnsupportedError, UserError
from compiler.execution import evaluate
from tests.frontend.models import model, reference

RNG = np.random.default_rng(11)
X = RNG.standard_normal((2, 3), np.float32)


def function(*outputs: str, **inputs: ir.Type) -> tuple[ir.Function, ir.Builder]:
    f = ir.Function("main", inputs, outputs)
    return f, ir.Builder(f.block)


F32 = ir.TensorType(ir.F32, (2, 3))


def test_outputs_come_by_name_and_values_by_value():
    f, b = function("y", x=F32)
    h = b.op("onnx.Relu", f.inputs).result
    c = b.constant(X, "onnx")
    f.set_outputs([b.op("onnx.Add", [h, c]).result])
    np.testing.assert_array_equal(evaluate.run(f, {"x": X})["y"], np.maximum(X, 0) + X)
    found = evaluate.run(f, {"x": X}, outputs=[h, c, f.inputs[0], h])
    np.testing.assert_array_equal(found[h], np.maximum(X, 0))
    np.testing.assert_array_equal(found[c], X)
    np.testing.assert_array_equal(found[f.inputs[0]], X)


@pytest.mark.parametrize(("left", "right"), [("u8", "i8"), ("i8", "u8")])
@pytest.mark.parametrize("conv", [False, True])
def test_products_of_mixed_signs_are_exact(left: str, right: str, conv: bool):
    """Pairs of products once saturated at 16 bits on processors without VNNI."""
    most = {"u8": 255, "i8": -128}
    a = np.full((2, 4, 6, 6) if conv else (2, 64), most[left], ir.dtype(left).numpy)
    w = np.full((3, 4, 3, 3) if conv else (64, 3), most[right], ir.dtype(right).numpy)
    f, b = function("y", a=ir.TensorType(ir.dtype(left), a.shape))
    zero = b.constant(np.array(3, w.dtype), "onnx")
    name = "onnx.ConvInteger" if conv else "onnx.MatMulInteger"
    f.set_outputs([b.op(name, [f.inputs[0], b.constant(w, "onnx"), None, zero]).result])
    y = evaluate.run(f, {"a": a})["y"]
    assert (y == int(a.flat[0]) * (int(w.flat[0]) - 3) * (36 if conv else 64)).all()


def test_a_session_is_used_again():
    f, b = function("y", "z", x=F32)
    relu = b.op("onnx.Relu", f.inputs).result
    f.set_outputs([relu, relu])
    session = evaluate.Session(f)
    assert session.output_names == ["y", "z"]
    for x in (X, -X):
        for found in session.run({"x": x}):
            np.testing.assert_array_equal(found, np.maximum(x, 0))


def test_names_that_collide_are_kept_apart():
    f, b = function("t", "x_out", x=F32)
    t = b.op("onnx.Relu", f.inputs).result
    t.name = "x"
    u = b.op("onnx.Neg", [t]).result
    u.name = "t"
    f.set_outputs([t, u])
    found = evaluate.run(f, {"x": X})
    np.testing.assert_array_equal(found["t"], np.maximum(X, 0))
    np.testing.assert_array_equal(found["x_out"], -np.maximum(X, 0))


@pytest.mark.parametrize("dtype", ["bf16", "f8e4m3fn", "f8e5m2", "i4", "u4", "i2", "u2", "f16", "i8", "bool", "u16"])
def test_constants_of_every_element_type(dtype):
    array = np.array([[0, 1, 1], [1, 0, 1]] * 600).astype(ir.dtype(dtype).numpy)
    f, b = function("y", "z")
    c = b.constant(array, "onnx")
    f.set_outputs([b.op("onnx.Cast", [c], {"to": ir.F32}).result, c])
    found = evaluate.run(f, {})
    np.testing.assert_array_equal(found["y"], array.astype(np.float32))
    assert found["z"].dtype == array.dtype
    np.testing.assert_array_equal(found["z"].astype(np.float32), array.astype(np.float32))


def test_strings_and_bfloat16_go_in_and_out():
    f, b = function("y", x=ir.TensorType(ir.STRING, (2,)))
    f.set_outputs([b.op("onnx.Identity", f.inputs).result])
    assert evaluate.run(f, {"x": np.array(["a", "ü"])})["y"].tolist() == ["a", "ü"]
    f, b = function("y", x=ir.TensorType(ir.dtype("bf16"), (2, 3)))
    f.set_outputs([b.op("onnx.Identity", f.inputs).result])
    x = X.astype(ir.dtype("bf16").numpy)
    assert evaluate.run(f, {"x": x})["y"].tobytes() == x.tobytes()


@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("shift", [0, 1])
def test_large_weights_are_used_wherever_they_lie(optimize, shift):
    memory = bytes(shift) + RNG.standard_normal(600_000, np.float32).tobytes()
    w = np.frombuffer(memory, np.float32, offset=shift).reshape(3, -1)
    assert w.flags.aligned == (shift == 0)
    f, b = function("y", x=F32)
    f.set_outputs([b.op("onnx.Mul", [b.constant(w, "onnx"), b.constant(np.float32(1), "onnx")]).result])
    found = evaluate.Session(f, optimize=optimize).run({"x": X})[0]
    np.testing.assert_array_equal(found, w * np.float32(1))


def test_wrong_inputs_are_refused():
    f, b = function("y", x=F32)
    f.set_outputs([b.op("onnx.Relu", f.inputs).result])
    session = evaluate.Session(f)
    for inputs, message in (
        ({}, "'x' is missing"),
        ({"x": X, "z": X}, "no input 'z'"),
        ({"x": X.astype(np.float64)}, "float64"),
    ):
        with pytest.raises(UserError, match=message):
            session.run(inputs)


def test_an_error_names_the_operator():
    f, b = function("y", x=ir.TensorType(ir.F32, ("n", 3)), i=ir.TensorType(ir.I64, (1,)))
    h = b.op("onnx.Relu", [f.inputs[0]]).result
    gather = b.op("onnx.Gather", [h, f.inputs[1]], loc=ir.Location(("lookup",)))
    f.set_outputs([gather.result])
    with pytest.raises(evaluate.EvaluationError, match=r"cannot run onnx\.Gather of node 'lookup'") as error:
        evaluate.run(f, {"x": X, "i": np.array([7])})
    assert error.value.op is gather


def test_operators_of_other_dialects_are_refused():
    f = ir.Function("main", {"x": F32}, ["y"])
    other = f.block.append(ir.Op(ir.OpDef("toy.relu"), f.inputs, [F32]))
    f.set_outputs([other.result])
    with pytest.raises(UnsupportedError, match=r"toy\.relu is no operator of ONNX"):
        evaluate.Session(f)


def test_old_forms_are_written_in_their_own_opset():
    x = RNG.standard_normal((2, 3, 4), np.float32)
    proto = model(
        [helper.make_node("Softmax", ["x"], ["h"]), helper.make_node("Relu", ["h"], ["y"])], {"x": x}, ["y"], opset=9
    )
    module = frontend.load(proto)
    assert evaluate.to_onnx(module).opset_import[0].version < 13
    np.testing.assert_array_equal(evaluate.run(module, {"x": x})["y"], reference(proto, {"x": x})[0])


def test_old_forms_beside_new_operators_are_refused():
    f, b = function("y", x=F32)
    f.set_outputs([b.op("onnx.Gelu", [b.op("onnx.Softmax@11", f.inputs).result]).result])
    with pytest.raises(UnsupportedError, match=r"onnx\.Softmax@11 and onnx\.Gelu are of no common opset"):
        evaluate.to_onnx(f)


def test_the_model_is_whole_and_valid():
    f, b = function("y", x=F32)
    f.set_outputs(
        [b.op("onnx.MatMul", [f.inputs[0], b.constant(RNG.standard_normal((3, 900), np.float32), "onnx")]).result]
    )
    proto = evaluate.to_onnx(f)
    onnx.checker.check_model(proto, full_check=True)
    np.testing.assert_array_equal(reference(proto, {"x": X})[0], evaluate.run(f, {"x": X})["y"])

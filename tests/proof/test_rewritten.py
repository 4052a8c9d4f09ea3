"""Models that onnxruntime does not run are proven beside forms of themselves that it does."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from compiler.driver import Options, compile_model
from compiler.errors import UserError
from compiler.proof import Reference
from compiler.proof.rewritten import rewritten
from compiler.target import Target

BATCH, TIME, SIZE, HIDDEN = 2, 5, 3, 4
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
info = helper.make_tensor_value_info


def drawn(*shape, seed=0):
    return (0.3 * np.random.default_rng([seed, *shape]).standard_normal(shape)).astype(np.float32)


def recurrent(op: str, direction: str = "forward", states: bool = True) -> onnx.ModelProto:
    """One layer with the batch first."""
    both = 2 if direction == "bidirectional" else 1
    gates = GATES[op] * HIDDEN
    constants = {"w": drawn(both, gates, SIZE), "r": drawn(both, gates, HIDDEN), "b": drawn(both, 2 * gates)}
    given = ["h0", "c0"][: 2 if op == "LSTM" else 1] if states else []
    outputs = ["y", "yh", "yc"][: 3 if op == "LSTM" else 2]
    node = helper.make_node(
        op, ["x", "w", "r", "b", "", *given], outputs, hidden_size=HIDDEN, direction=direction, layout=1
    )
    graph = helper.make_graph(
        [node],
        "layer",
        [
            info("x", TensorProto.FLOAT, [BATCH, TIME, SIZE]),
            *(info(n, TensorProto.FLOAT, [BATCH, both, HIDDEN]) for n in given),
        ],
        [info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)


def fed(model):
    return {
        i.name: drawn(*(d.dim_value for d in i.type.tensor_type.shape.dim), seed=1 + k)
        for k, i in enumerate(model.graph.input)
    }


@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("op", list(GATES))
def test_layers_with_the_batch_first_compute_what_onnx_says(op, states):
    model = recurrent(op, states=states)
    inputs = fed(model)
    ours = Reference(model).run(inputs)
    for got, want in zip(ours, ReferenceEvaluator(model).run(None, inputs), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op", list(GATES))
def test_layers_with_the_batch_first_are_proven(op, tmp_path):
    made = compile_model(recurrent(op, "bidirectional"), tmp_path / "a.mlpackage", Options(Target.of("cpu", "ios18")))
    assert made.report.verify.passed
    assert any("time first, between transposes" in n for n in made.report.notes)


def narrow(array):
    return array.astype(ml_dtypes.bfloat16)


def bfloat16() -> onnx.ModelProto:
    w = narrow(drawn(4, 4))
    tensor = TensorProto(name="w", data_type=TensorProto.BFLOAT16, dims=w.shape, raw_data=w.tobytes())
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.FLOAT),
        helper.make_node("Softmax", ["b"], ["c"]),
        helper.make_node("Cast", ["c"], ["y"], to=TensorProto.BFLOAT16),
    ]
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.BFLOAT16, [3, 4])], [info("y", TensorProto.BFLOAT16, [3, 4])], [tensor]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize("from_file", [False, True])
def test_bfloat16_is_proven_in_f32(from_file, tmp_path):
    model = bfloat16()
    x = narrow(drawn(3, 4, seed=2))
    product = x.astype(np.float32) @ numpy_helper.to_array(model.graph.initializer[0]).astype(np.float32)
    want = np.exp(product) / np.exp(product).sum(-1, keepdims=True)
    np.testing.assert_allclose(Reference(model).run({"x": x})[0], want, rtol=1e-5)
    if from_file:
        onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0)
        model = tmp_path / "m.onnx"
    made = compile_model(model, tmp_path / "b.mlpackage", Options(Target.of("cpu", "ios18")))
    assert made.report.verify.passed
    assert any("bf16 is f32" in n for n in made.report.notes)


def test_other_models_stay_as_they_are():
    plain = recurrent("GRU")
    next(a for a in plain.graph.node[0].attribute if a.name == "layout").i = 0
    assert rewritten(plain) is None
    plain.graph.node[0].op_type = "Nothing"
    with pytest.raises(UserError, match="cannot open the original model"):
        Reference(plain)

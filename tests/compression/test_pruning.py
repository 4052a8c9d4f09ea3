"""``compile(…, prune=…)``: smaller, proven against the pruned model, measured against the original."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import compiler
from compiler.errors import UserError, VerificationError
from tests.compression.conftest import MODEL, SHAPE


def build(tmp_path, **options):
    return compiler.compile(MODEL, "cpu", tmp_path / "out.mlpackage", shapes={"x": SHAPE}, verify="fast", **options)


def test_pruned_and_quantized(tmp_path, data):
    plain = build(tmp_path)
    done = build(tmp_path, prune=0.3, calibrate=data)
    held = done.report.compression["pruning"]
    assert done.report.verify.passed
    assert held["macs"] < 0.65 * held["macs_before"]
    assert done.report.bytes["package"] < 0.75 * plain.report.bytes["package"]
    assert next(iter(held["distance"].values()))["rel_l2"] > 1e-3
    both = build(tmp_path, prune=0.3, quantize="int8", calibrate=data)
    assert both.report.verify.passed
    assert both.report.bytes["package"] < 0.7 * done.report.bytes["package"]
    # The distance is that from the original, not from the pruned model.
    off = [next(iter(d.values()))["rel_l2"] for d in (both.report.compression["distance"], held["distance"])]
    assert off[0] == pytest.approx(off[1], rel=0.5)


def test_a_channel_that_is_still_needed_is_found_out(tmp_path, monkeypatch):
    """Were the masked model to take more than the pruned one has, the two would differ."""
    monkeypatch.setattr("passes.prune.masked", lambda *_: None)
    with pytest.raises(VerificationError, match="cutting channels out changed output"):
        build(tmp_path, prune=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune": 1.5}, "--prune 1.5 is no share of channels between 0 and 1"),
        ({"prune": 0.3, "budget": "1MB"}, "--budget says how to compress, but not what"),
        ({"prune": 0.5, "max_error": 1e-3}, "pruned, output '"),
    ],
)
def test_errors(tmp_path, options, message):
    with pytest.raises(UserError) as e:
        build(tmp_path, **options)
    assert message in e.value.message


def _model(path, nodes, inputs, weights):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    return path


def _branch(name, weight):
    nodes = [
        helper.make_node("Conv", ["x", weight], [f"{name}_h"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", [f"{name}_h", weight], [f"{name}_y"], pads=[1, 1, 1, 1]),
    ]
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)])


@pytest.mark.parametrize("case", ["branches", "normalized", "outputs"])
def test_what_cannot_be_pruned_is_said_with_the_operator_that_holds_it(tmp_path, case):
    rng = np.random.default_rng(0)
    w = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    v = rng.standard_normal((8, 8, 3, 3)).astype(np.float32)
    inputs = {"x": (TensorProto.FLOAT, (1, 8, 6, 6))}
    if case == "branches":
        inputs["which"] = (TensorProto.BOOL, ())
        then, other = _branch("a", "w"), _branch("b", "v")
        nodes = [helper.make_node("If", ["which"], ["y"], name="choose", then_branch=then, else_branch=other)]
        message, remedy = "If of node 'choose' holds 4 layers inside, where nothing is cut", "without the operator If"
    elif case == "normalized":
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1], name="first"),
            helper.make_node("CumSum", ["h", "axis"], ["y"], name="sums"),
        ]
        message, remedy = "CumSum of node 'sums' needs all 8 that it takes", "--quantize int8 without --prune"
    else:
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
        message, remedy = "no channel of this model can be cut out without changing others", "--quantize int8 without"
    held = {"w": w, "v": v} if case == "branches" else {"w": w}
    if case == "normalized":
        held["axis"] = np.array(1, np.int64)
    path = _model(tmp_path / "m.onnx", nodes, inputs, held)
    with pytest.raises(UserError) as e:
        compiler.compile(path, "cpu", tmp_path / "out.mlpackage", verify="fast", prune=0.3)
    assert e.value.message.startswith("no channel of this model can be cut out without changing others")
    assert e.value.message.endswith(message)
    assert remedy in e.value.remedy
    assert not (tmp_path / "out.mlpackage").exists()

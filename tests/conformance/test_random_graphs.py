"""A slice of benchmarks/random_graphs.py: random graphs are compiled and proven, or refused, and nothing else."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import random_graphs
from benchmarks.random_graphs import judge, takes
from benchmarks.random_models import Drawn, draw, run, run_by_node
from benchmarks.random_noise import disturbed
from compiler.driver import Options
from compiler.target import Target

TARGET = Target.of("cpu", "ios18")


@pytest.mark.parametrize("number", range(6))
def test_random_graphs_are_proven_or_refused(number):
    verdict, why = judge(draw(number, takes(TARGET), least=5, most=15), TARGET)
    assert verdict in ("proven", "unsteady", "refused"), why


def test_a_number_stands_for_one_graph():
    first, second = (draw(3, takes(TARGET), most=8) for _ in range(2))
    assert first.model == second.model
    assert len(first.model.graph.node) >= 5
    for a in run(first.model, first.inputs):
        assert a.dtype.kind == "b" or np.abs(a.astype(np.float64)).max() <= 1e3


def test_what_a_wrong_rule_makes_is_judged_wrong(tmp_path, monkeypatch):
    rules = tmp_path / "wrong.rules"
    rules.write_text(
        "stage lower\nrule wrong { match { y = onnx.Mul(a, b) } rewrite { y = mil.add(a, b) } before lower_mul }"
    )
    info = (
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [3]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [3]),
    )
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    drawn = Drawn(model, {"x": np.array([1.0, 2.0, 3.0], np.float32)})
    assert judge(drawn, TARGET)[0] == "proven"
    monkeypatch.setattr(random_graphs, "Options", functools.partial(Options, rules=[rules]))
    assert judge(drawn, TARGET)[0] == "wrong"


def test_noise_reaches_what_inference_does_not_follow_but_not_what_numbers_size():
    nodes = [
        helper.make_node("GroupNormalization", ["x", "g", "g"], ["n"], num_groups=2),
        helper.make_node("Compress", ["n", "c"], ["k"], axis=1),
        helper.make_node("Selu", ["n"], ["y"]),
        helper.make_node("Selu", ["k"], ["z"]),
        helper.make_node("ReduceMax", ["n"], ["t"], keepdims=0),
        helper.make_node("Cast", ["t"], ["s"], to=TensorProto.INT64),
        helper.make_node("HannWindow", ["s"], ["w"]),
    ]
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 3])]
    outputs.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, None, 3]))
    outputs.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [None]))
    held = [numpy_helper.from_array(np.ones(4, np.float32), "g"), numpy_helper.from_array(np.array([True, False]), "c")]
    graph = helper.make_graph(nodes, "g", infos, outputs, held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    x = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    noisy = {o for n in disturbed(Drawn(model, {"x": x})).graph.node for o in n.output if o.endswith("ed")}
    assert "n.Added" in noisy
    assert not any(i.startswith(("k.", "z.", "w.")) for i in noisy)


def test_a_model_run_node_by_node_gives_what_it_gives_as_a_whole():
    drawn = draw(3, takes(TARGET))
    for a, b in zip(run_by_node(drawn), run(drawn.model, drawn.inputs), strict=True):
        np.testing.assert_array_equal(a, b)

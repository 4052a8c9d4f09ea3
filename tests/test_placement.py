"""What a report says about placement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import compiler
from compiler import placement


def model(*middle: str, size: int = 56) -> onnx.ModelProto:
    """Six convolutions, some operators on one axis, six convolutions."""
    draw = np.random.default_rng(0)
    weights = [numpy_helper.from_array(draw.standard_normal((64, 64, 3, 3), np.float32) / 24, "w")]
    weights.append(numpy_helper.from_array(np.array([size], np.int64), "all"))
    nodes, x = [], "x"
    for i, kind in enumerate([*["Conv"] * 6, *middle, *["Conv"] * 6]):
        attributes = {"pads": [1] * 4} if kind == "Conv" else {}
        inputs = [x, {"Conv": "w", "TopK": "all"}[kind]]
        results = [f"y{i}", "places"] if kind == "TopK" else [f"y{i}"]
        nodes.append(helper.make_node(kind, inputs, results, name=f"n{i}", **attributes))
        x = f"y{i}"
    shape = (1, 64, size, size)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outputs = [helper.make_tensor_value_info(x, TensorProto.FLOAT, shape)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def placed(tmp_path: Path, of: onnx.ModelProto, **options: Any) -> dict[str, Any]:
    done = compiler.compile(of, "ane", tmp_path / "out.mlpackage", verify="off", **options)
    return json.loads(json.dumps(done.report.placement))


def test_a_plain_network_is_placed_on_the_ane_but_for_its_edges(tmp_path: Path) -> None:
    facts = placed(tmp_path, model())
    assert facts["residency"]["macs"] == 1.0
    assert facts["ops"] == {"cpu": 2, "ane": 12}
    assert [s["unit"] for s in facts["segments"]] == ["cpu", "ane", "cpu"]
    assert {row["rule"] for row in facts["off"]} == {"full_precision"}
    estimates = facts["estimates"]
    parts = ("operators_ms", "transfers_ms", "calls_ms", "steps_ms", "weights_ms")
    assert estimates["latency_ms"] == pytest.approx(sum(estimates[p] for p in parts), abs=1e-3)
    assert estimates["steps_ms"] == pytest.approx(12 * 39e-6, abs=1e-4)
    assert placement.sentence(facts).startswith("Neural Engine 12 of 14 ops, 100 % of MACs; about ")


def test_what_the_ane_refuses_is_listed_with_reason_and_remedy(tmp_path: Path) -> None:
    facts = placed(tmp_path, model("TopK"))
    row = next(r for r in facts["off"] if r["op"] == "topk")
    assert row["node"] == "n6"
    assert row["unit"] == "cpu"
    assert "on no chip" in row["reason"]
    assert "behind the model" in row["remedy"]
    assert row["source"].startswith("I")
    assert any("topk" in line for line in placement.reasons(facts))
    assert facts["eligible"]["macs"] == 1.0


def test_what_is_too_small_says_so(tmp_path: Path) -> None:
    facts = placed(tmp_path, model(size=2))
    assert facts["residency"] == {"ops": 0.0, "macs": 0.0}
    assert facts["eligible"]["macs"] == 1.0
    assert any("too little work" in line for line in placement.reasons(facts))


def test_the_chip_decides(tmp_path: Path) -> None:
    slow, fast = (placed(tmp_path, model(), chip=c)["estimates"]["latency_ms"] for c in ("A12", "M4"))
    assert slow > fast


def test_shares_are_never_rounded_up() -> None:
    assert placement.percent(1.0) == "100 %"
    assert placement.percent(0.99999) == "99.9 %"
    assert placement.percent(0.5) == "50 %"

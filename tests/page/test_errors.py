"""The error by layer: what is compared with what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import compiler
from compiler.page.content import _in_layout
from tests.page.test_structure import Reader


def content(path: Path) -> dict[str, Any]:
    return json.loads(Reader(path.read_text(encoding="utf-8")).text["data"])


def test_another_layout_is_found_again() -> None:
    x = np.arange(24.0).reshape(1, 2, 3, 4)
    turned = x.transpose(0, 3, 1, 2).reshape(4, 2, 1, 3)
    assert any(np.array_equal(a, x) for a in _in_layout(turned, x.shape))
    assert [a.shape for a in _in_layout(x, (1, 2, 3, 4))] == [(1, 2, 3, 4)]
    assert not list(_in_layout(x, (1, 2, 3, 5)))


def stateful() -> onnx.ModelProto:
    """y = x + s, and s comes back as y."""
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Add", ["x", "s"], ["t"]), helper.make_node("Relu", ["t"], ["y"])]
    nodes.append(helper.make_node("Mul", ["t", "half"], ["s_out"]))
    inputs = [info("x", TensorProto.FLOAT, (1, 8)), info("s", TensorProto.FLOAT, (1, 8))]
    outputs = [info("y", TensorProto.FLOAT, (1, 8)), info("s_out", TensorProto.FLOAT, (1, 8))]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [numpy_helper.from_array(np.float32(0.5), "half")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_program_with_states_is_drawn_but_not_measured(tmp_path: Path) -> None:
    path = tmp_path / "s.html"
    wishes = compiler.Wishes(states=["s:s_out"])
    compiler.compile(stateful(), "ane", tmp_path / "s.mlpackage", os="ios18", wishes=wishes, report=path)
    found = content(path)
    assert found["measured"] == 0
    assert found["after"]["nodes"]


def test_a_label_among_the_outputs_does_not_keep_layers_from_being_measured(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"c{i}\n" for i in range(8)))
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Relu", ["x"], ["t"]), helper.make_node("Softmax", ["t"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [info("x", TensorProto.FLOAT, (1, 8))], [info("y", TensorProto.FLOAT, (1, 8))]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path / "l.html"
    wishes = compiler.Wishes(labels=str(labels))
    compiler.compile(model, "ane", tmp_path / "l.mlpackage", wishes=wishes, report=path)
    found = content(path)
    assert found["measured"] >= 1
    assert all(row["error"] < 2e-2 for row in found["errors"])


@pytest.mark.parametrize("verify", ["off", "fast"])
def test_nothing_is_measured_without_a_proof(tmp_path: Path, verify: str) -> None:
    path = tmp_path / "v.html"
    compiler.compile(stateful(), "cpu", tmp_path / "v.mlpackage", verify=verify, report=path)
    assert bool(content(path)["measured"]) == (verify == "fast")

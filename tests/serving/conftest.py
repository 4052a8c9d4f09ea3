"""Packages to serve, compiled once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import compiler


def dense(rows: str | int = "rows"):
    """y = tanh(x · w), three numbers from four."""
    w = numpy_helper.from_array(np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 3])
    graph = helper.make_graph(nodes, "dense", [x], [y], [w])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="session")
def rows_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One to eight rows of four numbers to three."""
    path = tmp_path_factory.mktemp("serve") / "dense.mlpackage"
    return Path(compiler.compile(dense(), "cpu", path, wishes=compiler.Wishes(batch="1..8")).path)


@pytest.fixture(scope="session")
def classifier_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serve")
    (folder / "labels.txt").write_text("cat\ndog\nMünster\n", encoding="utf-8")
    wishes = compiler.Wishes(labels=str(folder / "labels.txt"))
    return Path(compiler.compile(dense(1), "cpu", folder / "classes.mlpackage", wishes=wishes).path)


@pytest.fixture(scope="session")
def state_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Adds up what comes in: y = s' = s + x."""
    nodes = [helper.make_node("Add", ["s", "x"], ["t"]), helper.make_node("Identity", ["t"], ["y"])]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "s", "y", "t")]
    graph = helper.make_graph(nodes, "sum", infos[:2], infos[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("serve") / "sum.mlpackage"
    return Path(compiler.compile(model, "ane", path, os="ios18", wishes=compiler.Wishes(states=["s:t"])).path)

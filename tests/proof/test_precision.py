"""What half precision cannot hold: norms with tiny epsilons, masks at −1e9."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import compiler
from tests.test_driver import F, model_of


def normalized() -> onnx.ModelProto:
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g"], ["n"], "norm", axis=-1, epsilon=1e-12),
        helper.make_node("Tanh", ["n"], ["y"], "tanh"),
    ]
    return model_of(nodes, {"x": [1, 4, 64]}, {"y": F}, {"g": np.ones(64, np.float32)})


@pytest.mark.parametrize(("scale", "kept"), [(1.0, False), (2e-3, True)])
def test_a_norm_of_quiet_rows_stays_in_fp32_if_its_epsilon_is_tiny(tmp_path: Path, scale: float, kept: bool) -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 64)).astype(np.float32)
    x[0, 1] *= scale
    x[0, 2] = 0.5  # a row of one value only has no variance, and gives zeros with any epsilon
    done = compiler.compile(normalized(), "ane", tmp_path / "m.mlpackage", inputs={"x": x})
    assert ["norm" in k["node"] for k in done.report.kept] == [True] * kept
    assert any("becomes 6e-08" in note for note in done.report.notes) is not kept
    assert done.report.verify.worst[1].rel_l2 < 2e-3


MASKS = {
    "chosen": [helper.make_node("Where", ["c", "zero", "low"], ["m"], "mask")],
    "computed": [
        helper.make_node("Cast", ["c"], ["f"], "truth", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["one", "f"], ["n"], "untruth"),
        helper.make_node("Mul", ["n", "low"], ["m"], "mask"),
    ],
}


@pytest.mark.parametrize("how", MASKS)
@pytest.mark.parametrize("low", [-1e9, -1e13, float(np.finfo(np.float32).min)])
def test_a_row_that_is_masked_whole_stays_as_it_is(tmp_path: Path, low: float, how: str) -> None:
    """It is uniform where the mask leaves nothing of a score in f32; −4e4 in half would. −1e9 leaves large scores."""
    nodes = [
        *MASKS[how],
        helper.make_node("MatMul", ["q", "k"], ["s"], "scores"),
        helper.make_node("Add", ["s", "m"], ["a"], "masked"),
        helper.make_node("Softmax", ["a"], ["p"], "softmax", axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"], "values"),
    ]
    constants = {name: np.array(x, np.float32) for name, x in {"zero": 0, "one": 1, "low": low}.items()}
    shapes = {"q": [1, 2, 6, 8], "k": [1, 2, 8, 6], "v": [1, 2, 6, 8]}
    model = model_of(nodes, shapes, {"y": F}, constants)
    model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, [1, 1, 6, 6]))
    rng = np.random.default_rng(0)
    inputs = {n: 4 * rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
    inputs["c"] = rng.random((1, 1, 6, 6)) < 0.5
    inputs["c"][0, 0, 2] = False
    done = compiler.compile(model, "ane", tmp_path / "m.mlpackage", inputs=inputs)
    assert done.report.rules.get("selected_mask_in_half", 0) == (low < -1e12)
    assert bool(done.report.kept) == (low == -1e9)
    assert done.report.verify.worst[1].rel_l2 < 5e-3

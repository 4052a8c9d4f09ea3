"""What half precision cannot hold: norms with tiny epsilons, masks at −1e9."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import compiler
from compiler import driver
from compiler.ir import Op
from compiler.proof import Verdict
from compiler.proof.precision import Trial, culprits
from compiler.target import Target
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


class Told(Trial):
    """A trial whose error is told: nothing with the wide convolution in f32, close to the limit with the sigmoid."""

    def judge_half(self, keep: Mapping[Op, str], limit: float | None = None) -> Verdict:
        names = {op.loc.nodes[0] for op in keep}
        error = 1e-3 if "wide" in names else 1.9e-2 if "sigmoid" in names else 5e-2
        return Verdict("passed" if error <= (limit or 2e-2) else "failed", "fp16")


@pytest.mark.parametrize(("others", "kept"), [(8, "sigmoid"), (4096, "wide")])
def test_a_margin_may_cost_a_hundredth_of_the_multiplications(others: int, kept: str) -> None:
    """Else the limit itself decides. ``others`` says how many channels the rest of the network multiplies."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "wide"),
        helper.make_node("Sigmoid", ["a"], ["b"], "sigmoid"),
        helper.make_node("Conv", ["b", "v"], ["c"], "other"),
        helper.make_node("Relu", ["c"], ["y"], "relu"),
    ]
    weights = {"w": np.ones((8, 8, 1, 1), np.float32), "v": np.ones((others, 8, 1, 1), np.float32)}
    options = driver.Options(Target.of("ane", "ios18"))
    module = driver.at_stage(model_of(nodes, {"x": [1, 8, 4, 4]}, {"y": F}, weights), "lower", options)
    trial = Told(module, [], [], driver.load_library(options), "ios18", in_range=True)
    assert [op.loc.nodes[0] for op in culprits(trial, {})] == [kept]

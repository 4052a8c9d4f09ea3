"""Values that half precision cannot hold, brought into its range by powers of two."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import compiler
from compiler import driver
from compiler.ir import clone_module
from compiler.proof import run_mil
from compiler.target import Target
from passes import rescale
from tests.test_driver import F, model_of

RNG = np.random.default_rng(0)
X = RNG.uniform(-1, 1, (1, 8, 6, 6)).astype(np.float32)


def array(*shape: int, scale: float = 1.0) -> np.ndarray:
    return (scale * RNG.standard_normal(shape)).astype(np.float32)


def network(middle: list[onnx.NodeProto], up: float, down: float, **constants: np.ndarray) -> onnx.ModelProto:
    """A convolution that makes values of size ``up``, what is between ``a`` and ``b``, one that brings them back."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "c1"], ["a"], "first"),
        *middle,
        helper.make_node("Conv", ["b", "w2", "c2"], ["y"], "last"),
    ]
    weights = {"w1": array(8, 8, 1, 1, scale=up), "c1": array(8, scale=up), "w2": array(4, 8, 1, 1, scale=down)}
    return model_of(nodes, {"x": [1, 8, 6, 6]}, {"y": F}, {**weights, "c2": array(4), **constants})


RESIDUAL = [
    helper.make_node("Relu", ["a"], ["r"], "relu"),
    helper.make_node("Conv", ["r", "w3", "c3"], ["s"], "inner", pads=[1] * 4),
    helper.make_node("Add", ["r", "s"], ["t"], "add"),
    helper.make_node("Clip", ["t", "low", "high"], ["u"], "clip"),
    helper.make_node("MaxPool", ["u"], ["v"], "pool", kernel_shape=[2, 2]),
    helper.make_node("Concat", ["v", "known"], ["k"], "join", axis=3),
    helper.make_node("BatchNormalization", ["k", "gamma", "beta", "mean", "var"], ["b"], "norm"),
]
CONSTANTS = {
    "w3": array(8, 8, 3, 3, scale=0.1),
    "c3": array(8, scale=1e5),
    "low": np.array(-1e5, np.float32),
    "high": np.array(1e6, np.float32),
    "known": array(1, 8, 5, 1, scale=1e5),
    "gamma": array(8, scale=50),
    "beta": array(8, scale=50),
    "mean": array(8, scale=1e5),
    "var": np.full(8, 4.0, np.float32),
}
CASES = {
    "too large": network([helper.make_node("Relu", ["a"], ["b"], "relu")], 1e5, 1e-4),
    "too small": network([helper.make_node("LeakyRelu", ["a"], ["b"], "leaky", alpha=0.25)], 3e-7, 1e4),
    "residual": network(RESIDUAL, 1e5, 1e-5, **CONSTANTS),
}


@pytest.mark.parametrize("what", CASES)
def test_nothing_stays_in_f32(tmp_path: Path, what: str) -> None:
    done = compiler.compile(CASES[what], "ane", tmp_path / "m.mlpackage", inputs={"x": X})
    assert any("by powers of two" in note for note in done.report.notes)
    assert not done.report.kept
    assert done.report.verify.worst[1].rel_l2 < 5e-3


def test_a_factor_stands_before_what_stays_in_f32(tmp_path: Path) -> None:
    """A softmax of what overflows; the convolutions around it do not stay."""
    model = network([helper.make_node("Softmax", ["a"], ["b"], "softmax", axis=1)], 1e5, 1.0)
    done = compiler.compile(model, "ane", tmp_path / "m.mlpackage", inputs={"x": X})
    assert {k["op"] for k in done.report.kept} == {"mil.mul", "mil.softmax"}
    assert done.report.verify.worst[1].rel_l2 < 5e-3


def test_a_value_beside_which_another_is_nothing_gets_a_factor(tmp_path: Path) -> None:
    """The input of a residual block is 2^20 times smaller than what the block makes of it."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w1"], ["a"], "first"),
        helper.make_node("Add", ["r", "a"], ["b"], "add"),
        helper.make_node("Conv", ["b", "w2"], ["y"], "last"),
    ]
    constants = {"w1": array(8, 8, 1, 1, scale=2.0**30), "w2": array(4, 8, 1, 1, scale=2.0**-30)}
    model = model_of(nodes, {"x": [1, 8, 6, 6]}, {"y": F}, constants)
    done = compiler.compile(model, "ane", tmp_path / "m.mlpackage", inputs={"x": X})
    assert not done.report.kept
    assert done.report.verify.worst[1].rel_l2 < 5e-3


def test_what_only_enters_a_sum_is_judged_by_the_sum(tmp_path: Path) -> None:
    """Values too small for half precision, added to a residual stream, while something else overflows."""
    nodes = [
        helper.make_node("Sigmoid", ["x"], ["g"], "gate"),
        helper.make_node("Mul", ["x", "g"], ["m"], "mul"),
        helper.make_node("Mul", ["m", "small"], ["s"], "small"),
        helper.make_node("Add", ["s", "g"], ["y"], "add"),
        helper.make_node("Conv", ["x", "w1"], ["b"], "first"),
        helper.make_node("Softmax", ["b"], ["z"], "softmax", axis=1),
    ]
    constants = {"w1": array(8, 8, 1, 1, scale=1e5), "small": np.full((1, 8, 1, 1), 1e-6, np.float32)}
    model = model_of(nodes, {"x": [1, 8, 6, 6]}, {"y": F, "z": F}, constants)
    done = compiler.compile(model, "ane", tmp_path / "m.mlpackage", inputs={"x": X})
    assert {k["node"] for k in done.report.kept} == {"softmax", "first"}


def test_a_norm_takes_the_factor_into_its_epsilon(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "first"),
        helper.make_node("LayerNormalization", ["a", "g", "c"], ["y"], "norm", axis=-1, epsilon=1e3),
    ]
    constants = {"w": array(16, 32, scale=1e5), "g": array(32), "c": array(32)}
    model = model_of(nodes, {"x": [1, 4, 16]}, {"y": F}, constants)
    x = RNG.uniform(-1, 1, (1, 4, 16)).astype(np.float32)
    done = compiler.compile(model, "ane", tmp_path / "m.mlpackage", inputs={"x": x})
    assert not done.report.kept
    assert done.report.verify.worst[1].rel_l2 < 5e-3


def test_powers_of_two_change_nothing_in_f32() -> None:
    """The scaled module gives the same numbers, to the bit."""
    options = driver.Options(Target.of("ane", "ios18"))
    library = driver.load_library(options)
    module = driver.at_stage(CASES["residual"], "lower", options)
    (before,) = run_mil(clone_module(module), [[X]], library)
    largest = {r: 1e6 for op in module.main.block.ops if op.defn.constant is None for r in op.results}
    assert rescale.run(module, largest) > 5
    (after,) = run_mil(module, [[X]], library)
    np.testing.assert_array_equal(before[0], after[0])

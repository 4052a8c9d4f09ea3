"""What the Neural Engine refuses, compiled: none of it is left, and the package computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import compiler
from benchmarks import architectures, placement
from compiler import driver, hardware
from compiler.ir import clone_module
from compiler.proof import run_mil
from compiler.target import Target
from passes import place
from tests.test_driver import F, model_of

RNG = np.random.default_rng(0)


def array(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def one(name: str, shape: list[int], *constants: np.ndarray, domain: str = "", **attributes: object) -> onnx.ModelProto:
    """x through one operator; what it takes besides are constants."""
    given = {f"c{i}": c for i, c in enumerate(constants)}
    node = helper.make_node(name, ["x", *given], ["y"], "it", domain=domain, **attributes)
    return model_of([node], {"x": shape}, {"y": F}, given)


def compared(name: str) -> onnx.ModelProto:
    """Two comparisons of floats and what joins them."""
    nodes = [
        helper.make_node("Greater", ["x", "zero"], ["a"]),
        helper.make_node("Less", ["x", "one"], ["b"]),
        helper.make_node(name, ["a", "b"], ["c"]),
        helper.make_node("Where", ["c", "x", "zero"], ["y"]),
    ]
    constants = {"zero": np.array(0, np.float32), "one": np.array(1, np.float32)}
    return model_of(nodes, {"x": [1, 8, 1, 64]}, {"y": F}, constants)


REFUSED = {
    "wave at a stride": one("Conv", [1, 1, 1600], array(8, 1, 400), strides=[160], pads=[200, 200]),
    "wide kernel": one("Conv", [1, 8, 6, 64], array(4, 8, 3, 39), array(4), pads=[1, 19, 1, 19]),
    "wide kernel at a stride": one("Conv", [1, 1, 1200], array(2, 1, 256), strides=[2], pads=[0, 127]),
    "wide depthwise kernel": one("Conv", [1, 8, 90], array(8, 1, 31), pads=[15, 15], group=8),
    "dilated": one("Conv", [1, 4, 1, 90], array(4, 4, 1, 20), dilations=[1, 3], pads=[0, 30, 0, 27]),
    "patches": one("Conv", [1, 3, 64, 64], array(8, 3, 32, 32), strides=[32, 32]),
    "wide max pool": one("MaxPool", [1, 4, 1, 200], kernel_shape=[1, 40], strides=[1, 20], pads=[0, 10, 0, 10]),
    "wide average": one("AveragePool", [1, 4, 64, 64], kernel_shape=[32, 64], strides=[32, 64]),
    "deep product": one("MatMul", [2, 20000], array(20000, 3) / 100),
    "cumsum": one("CumSum", [1, 4, 50], np.array(1, np.int64)),
    "rows": one("Gather", [1, 9, 16], np.array([0, 1, 2, 7, 5, 4], np.int64), axis=1),
    "few factors": one("ReduceProd", [1, 8, 5], axes=[2], keepdims=1),
    "tan": one("Tan", [1, 8, 16]),
    "sinh": one("Sinh", [1, 8, 16]),
    "cosh": one("Cosh", [1, 8, 16]),
    **{name: compared(name) for name in ("And", "Or", "Xor")},
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_the_unit_refuses_is_written_so_that_it_takes_it(tmp_path: Path, what: str) -> None:
    model = REFUSED[what]
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    inputs = {"x": RNG.uniform(-1, 1, shape).astype(np.float16).astype(np.float32)}
    done = compiler.compile(model, "ane", tmp_path / "m.mlpackage", os="ios18", chip="A15", inputs=inputs)
    assert not done.report.kept
    chip = hardware.chip("A15")
    refused = [r.rule for op in done.module.walk() if place.computes(op) and (r := hardware.refusal(op, chip, 18))]
    # What is at the edge is the model's: inputs of fp32 are cast, an input too long is cut.
    edge = {"full_precision"} | ({"extent"} if what == "deep product" else set())
    assert set(refused) <= edge
    assert done.report.verify.passed


def test_a_comparison_of_integers_that_chooses_floats_is_one_of_halves(tmp_path: Path) -> None:
    """A one-hot of an input: the integers become halves at the edge."""
    depth, values = np.array(7, np.int64), np.array([0, 1], np.float32)
    node = helper.make_node("OneHot", ["x", "depth", "values"], ["y"], "hot")
    model = model_of([node], {"x": [1, 9]}, {"y": F}, {"depth": depth, "values": values}, TensorProto.INT64)
    done = compiler.compile(
        model, "ane", tmp_path / "m.mlpackage", inputs={"x": np.array([[0, 6, 3, 2, 1, 9, 5, 4, -1]])}
    )
    equal = next(op for op in done.module.walk() if op.name == "mil.equal")
    assert hardware.refusal(equal, hardware.chip("A15"), 18) is None
    assert done.report.verify.worst[1].agree in (None, 1.0)


def test_the_form_of_a_transformer_block_equals_the_plain_one(tmp_path: Path) -> None:
    """To 1e-5 in fp32, against the model itself and against the package for the CPU; and it has that form."""
    model = architectures.encoder("block", 24, 1, 64, 4, 128, batch=2)
    x = RNG.standard_normal((2, 24, 64)).astype(np.float32)
    shaped, plain = (
        compiler.compile(model, unit, tmp_path / f"{unit}.mlpackage", precision="fp32", inputs={"input": x})
        for unit in ("ane", "cpu")
    )
    names = [op.name.removeprefix("mil.") for op in shaped.module.main.block.ops]
    assert names.count("conv") == 6
    assert names.count("einsum") == 2 * 4  # two for each head
    assert not {"linear", "matmul"} & set(names)
    assert shaped.report.verify.worst[1].rel_l2 <= 1e-5
    library = driver.load_library(driver.Options())
    ours, theirs = (run_mil(clone_module(done.module), [[x]], library)[0][0] for done in (shaped, plain))
    assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


@pytest.mark.parametrize("name", ["llama_block", "whisper_encoder"])
def test_the_form_of_real_blocks_equals_the_plain_one(pairs_dir: Path, tmp_path: Path, name: str) -> None:
    """With a mask, rotary halves and grouped heads; and behind convolutions."""
    settings = placement.options(pairs_dir / name, "A17")
    done = compiler.compile(
        pairs_dir / name / "model.onnx", "ane", tmp_path / "m.mlpackage", precision="fp32", shapes=settings.shapes
    )
    assert done.report.verify.worst[1].rel_l2 <= 1e-5


def test_parts_of_a_deep_product_hold_no_copies_of_its_weights() -> None:
    nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], "it", transB=1)]
    model = model_of(nodes, {"x": [1, 20000]}, {"y": F}, {"w": array(40, 20000) / 100})
    module = driver.at_stage(model, "lower", driver.Options(Target.of("ane", "ios18")))
    weights = [v.constant for op in module.walk() if op.name == "mil.conv" for v in op.operands[1:2] if v is not None]
    assert [w.shape for w in weights] == [(40, 10000, 1, 1)] * 2
    assert all(w.base is not None and np.shares_memory(w, w.base) for w in weights)
    assert np.shares_memory(weights[0].base, weights[1].base)

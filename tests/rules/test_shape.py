"""Shaping for a unit: whole networks keep their values and lose their transposes; other units keep their form."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from compiler import driver, ir
from compiler.ir import clone_module
from compiler.proof import read_package, run_mil
from compiler.report import Report
from compiler.target import Target
from passes import layout
from rules.natives_ane import given_out

LIBRARY = driver.load_library(driver.Options())


def lowered(model: Path, unit: str, os: str = "ios17") -> ir.Module:
    options = driver.Options(Target.of(unit, os))
    report = Report(str(model), options.target)
    module = driver.import_model(model, options, LIBRARY, report)
    driver.optimize(module, LIBRARY, report)
    driver.lower(module, LIBRARY, report)
    return module


def counts(module: ir.Module) -> Counter[str]:
    return Counter(op.name[4:] for op in module.walk() if op.defn.constant is None and not op.defn.terminator)


@pytest.mark.parametrize("pair", ["vit", "llama_block", "convnext"])
def test_three_quarters_of_the_layout_operators_go(pairs_dir, pair):
    ours = lowered(pairs_dir / pair / "model.onnx", "ane")
    apple = read_package(pairs_dir / pair / "apple.mlpackage")
    assert layout.interior(ours) <= layout.interior(apple) / 4
    # A product that the model gives out stays one, where it is wider than what it takes in.
    assert not [op for op in ours.walk() if op.name == "mil.linear" and not given_out(op.result)]
    assert not counts(ours)["matmul"]


def test_the_gpu_keeps_products_and_fuses_attention(pairs_dir):
    found = counts(lowered(pairs_dir / "whisper_encoder" / "model.onnx", "gpu", "ios18"))
    assert found["scaled_dot_product_attention"] == 3
    assert not found["einsum"]
    assert found["linear"]


BLOCK = """
module @block {
  func @main(%x: tensor<2x5x12xf32>) -> (%y: tensor<2x5x12xf32>) {
    %g = mil.const() {val = dense<1.5>} : tensor<12xf32>
    %w = mil.const() {val = dense<"W">} : tensor<12x12xf32>
    %s = mil.const() {val = dense<[2, 5, 3, 4]>: tensor<4xi32>} : tensor<4xi32>
    %t = mil.const() {val = dense<[2, 5, 12]>: tensor<3xi32>} : tensor<3xi32>
    %n = mil.layer_norm(%x, %g, %g) {axes = [2]} : tensor<2x5x12xf32>
    %q = mil.linear(%n, %w) : tensor<2x5x12xf32>
    %q1 = mil.reshape(%q, %s) : tensor<2x5x3x4xf32>
    %q2 = mil.transpose(%q1) {perm = [0, 2, 1, 3]} : tensor<2x3x5x4xf32>
    %k = mil.linear(%x, %w) : tensor<2x5x12xf32>
    %k1 = mil.reshape(%k, %s) : tensor<2x5x3x4xf32>
    %k2 = mil.transpose(%k1) {perm = [0, 2, 1, 3]} : tensor<2x3x5x4xf32>
    %a = mil.matmul(%q2, %k2) {transpose_y = true} : tensor<2x3x5x5xf32>
    %p = mil.softmax(%a) {axis = -1} : tensor<2x3x5x5xf32>
    %o = mil.matmul(%p, %k2) : tensor<2x3x5x4xf32>
    %o1 = mil.transpose(%o) {perm = [0, 2, 1, 3]} : tensor<2x5x3x4xf32>
    %o2 = mil.reshape(%o1, %t) : tensor<2x5x12xf32>
    %z = mil.linear(%o2, %w) : tensor<2x5x12xf32>
    %y = mil.add(%x, %z) : tensor<2x5x12xf32>
    return %y
  }
}
"""


@pytest.mark.parametrize("unit", ["ane", "gpu"])
def test_a_transformer_block_computes_the_same_to_1e_5(unit):
    rng = np.random.default_rng(0)
    weight = (rng.standard_normal((12, 12)) * 0.3).astype(np.float32)
    before = ir.parse_module(BLOCK.replace('dense<"W">', "dense<" + str(weight.tolist()) + ">"))
    after = clone_module(before)
    for stage in ("shape", "ane") if unit == "ane" else ("shape",):
        LIBRARY.rewrite(after, stage, Target.of(unit, "ios18"))
    layout.run(after)
    ir.verify(after)
    assert unit == "gpu" or counts(after)["einsum"] == 6
    x = rng.standard_normal((2, 5, 12)).astype(np.float32)
    (a,), (b,) = run_mil(before, [[x]], LIBRARY)[0], run_mil(after, [[x]], LIBRARY)[0]
    assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a)


def test_halves_scaled_are_no_thirds():
    module = ir.parse_module("""
module @m {
  func @main(%x: tensor<1x5x6xf32>) -> (%y: tensor<1x5x3xf32>, %z: tensor<1x5x3xf32>) {
    %c = mil.const() {val = dense<2.0>: tensor<f32>} : tensor<f32>
    %a, %b = mil.split(%x) {num_splits = 2, axis = 2} : (tensor<1x5x3xf32>, tensor<1x5x3xf32>)
    %s = mil.mul(%a, %c) : tensor<1x5x3xf32>
    return %s, %b
  }
}""")
    LIBRARY.rewrite(module, "shape", Target.of("gpu", "ios18"))
    assert counts(module) == {"split": 1, "mul": 1}

"""Layers whose constants are held by two halves each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import compiler
import compiler.dialects.mil
from compiler import ir
from compiler.driver import load_library
from compiler.options import Options
from compiler.proof import run_mil
from passes import half, two_halves

RNG = np.random.default_rng(0)
V, C = RNG.standard_normal((5, 7)).astype(np.float32), RNG.standard_normal(5).astype(np.float32)
W, B = RNG.standard_normal((3, 5)).astype(np.float32), 1 + RNG.random(3).astype(np.float32)
X = RNG.standard_normal((4, 7)).astype(np.float32)
WANT = np.maximum(X @ V.T + C, 0) @ W.T + B


def layers(also: bool = False, bias: bool = True) -> tuple[ir.Module, ir.Op]:
    load_library(Options())  # says what types operators give
    function = ir.Function("main", {"x": ir.TensorType(ir.F32, X.shape)}, ["y", "h"] if also else ["y"])
    b = ir.Builder(function.block)

    def linear(x: ir.Value, *constants: Any) -> ir.Op:
        return b.op("mil.linear", [x, *(b.constant(a, "mil") for a in constants)])

    hidden = b.op("mil.relu", [linear(function.inputs[0], V, C).result]).result
    last = linear(hidden, W, B) if bias else linear(hidden, W)
    function.set_outputs([last.result, hidden] if also else [last.result])
    module = ir.Module("test")
    module.add(function)
    return module, last


def given(module: ir.Module) -> np.ndarray:
    library = load_library(Options())
    return run_mil(module, [[X]], library, list(module.main.outputs))[0][0]


def test_what_half_precision_loses_of_constants_comes_by_other_units() -> None:
    errors = []
    for split in (False, True):
        module, last = layers()
        if split:
            assert two_halves.run([last]) == 1
            ir.verify(module)
            assert sum(op.name == "mil.linear" for op in module.walk()) == 2
            np.testing.assert_allclose(given(ir.clone_module(module)), WANT, rtol=1e-5, atol=1e-5)
        else:
            W_half, b_half = (a.astype(np.float16).astype(np.float32) for a in (W, B))
            errors.append(np.abs(np.maximum(X @ V.T + C, 0) @ W_half.T + b_half - WANT).max())
    weight, bias = (v.constant.astype(np.float16).astype(np.float32) for v in last.operands[1:] if v is not None)
    hidden = np.maximum(X @ V.T + C, 0)
    both = np.concatenate([hidden, hidden, np.ones((len(X), 1), np.float32)], 1)
    errors.append(np.abs(both @ weight.T + bias - WANT).max())
    assert errors[1] < errors[0] / 100
    assert not half.run(module, "ios17")


def test_only_layers_that_nobody_else_looks_into() -> None:
    module, last = layers(also=True)
    before = ir.print_module(module)
    assert two_halves.run([last]) == 0
    module_without, last = layers(bias=False)
    assert two_halves.run([last]) == 0
    assert ir.print_module(module) == before
    assert given(module_without).shape == WANT.shape


def test_a_transformation_near_the_identity_stays_in_half_precision(pairs_dir: Path, tmp_path: Path) -> None:
    done = compiler.compile(pairs_dir / "stn_grid_sample" / "model.onnx", "gpu", tmp_path / "m.mlpackage")
    assert not done.report.kept
    assert done.report.verify.passed
    assert any("by two halves each" in note for note in done.report.notes)

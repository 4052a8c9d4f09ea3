"""Kernel families against onnxruntime, on this machine's CPU: a slice of benchmarks/metal_sweep.py."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import compiler
from benchmarks.metal_families import FAMILIES, HEADER, cases
from benchmarks.metal_sweep import LIMIT, worst


@pytest.mark.parametrize("family", FAMILIES)
def test_smallest_case_in_float(family):
    assert worst(next(cases(family)), "fp32") <= LIMIT["fp32"]


@pytest.mark.parametrize("family", ["conv", "product", "attention", "norm", "pooling", "quantized product"])
def test_a_ragged_case_in_half(family):
    assert worst(list(cases(family))[1], "fp16") <= LIMIT["fp16"]


def test_integers_are_computed_as_integers(tmp_path):
    text = """g (int64[4] k, int64[4] l) => (int64[4] y, bool[4] z) {
      three = Constant <value_int = 3> () a = Mul (k, three) y = Mod (a, l) z = Less (k, l) }"""
    model = onnx.parser.parse_model(HEADER + text)
    inputs = {"k": np.array([5, -7, 0, 9]), "l": np.array([2, 4, -3, 7])}
    made = compiler.compile(model, target="metal", output=tmp_path / "m.metalpackage", inputs=inputs)
    assert made.report.verify.passed


def test_the_least_int_is_itself(tmp_path):
    text = """g (int32[3] k) => (int32[3] y) {
      least = Constant <value = int32[1] {-2147483648}> () y = Max (k, least) }"""
    model = onnx.parser.parse_model(HEADER + text)
    inputs = {"k": np.array([-(2**31), 1 - 2**31, 5], np.int32)}
    made = compiler.compile(model, target="metal", output=tmp_path / "m.metalpackage", inputs=inputs)
    assert made.report.verify.passed

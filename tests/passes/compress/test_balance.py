"""Rounding that keeps the sums over kernels and channels."""

from __future__ import annotations

import numpy as np
import pytest

import compiler.dialects.mil  # noqa: F401 (registers mil.*)
from compiler.ir import Module, clone_module, parse_module
from passes.compress import run as compress
from passes.compress.balance import balanced
from passes.compress.schemes import parse

LAYERS = """
module @m {
  func @main(%x: tensor<1x64x8x8xf32>, %t: tensor<1x96xf32>, %i: tensor<4xi32>) -> (%a: tensor<1x64x8x8xf32>,
      %b: tensor<1x64x8x8xf32>, %c: tensor<1x64xf32>, %d: tensor<4x96xf32>) {
    %w = mil.const() {val = dense<0.0>} : tensor<64x64x3x3xf32>
    %g = mil.const() {val = dense<0.0>} : tensor<64x2x5x5xf32>
    %m = mil.const() {val = dense<0.0>} : tensor<96x64xf32>
    %e = mil.const() {val = dense<0.0>} : tensor<50x96xf32>
    %a = mil.conv(%x, %w) {pad_type = "same"} : tensor<1x64x8x8xf32>
    %b = mil.conv(%x, %g) {pad_type = "same", groups = 32} : tensor<1x64x8x8xf32>
    %c = mil.matmul(%t, %m) : tensor<1x64xf32>
    %d = mil.gather(%e, %i) {axis = 0} : tensor<4x96xf32>
    return %a, %b, %c, %d
  }
}
"""


@pytest.fixture
def module() -> Module:
    rng = np.random.default_rng(0)
    made = parse_module(LAYERS)
    for op in made.walk():
        if op.name == "mil.const":
            shape = op.attributes["val"].shape
            weight = rng.standard_normal(shape).astype(np.float32) * rng.random((shape[0], *[1] * (len(shape) - 1)))
            weight[3] = 0.0
            op.attributes["val"] = weight.astype(np.float32)
    return made


def test_sums_of_kernels_and_rows_are_near_the_exact_ones():
    rng = np.random.default_rng(1)
    exact = rng.normal(0, 40, (32, 24, 9)).clip(-127, 127).astype(np.float32)
    nearest = np.round(exact)
    found = balanced(exact, nearest, -127, 127)
    np.testing.assert_array_equal(found, np.round(found))
    assert np.abs(found).max() <= 127
    lost = found - exact
    assert np.abs(lost).max() <= 1
    assert np.abs(lost.sum(axis=2)).max() <= 1.001
    assert np.abs(lost.sum(axis=(1, 2))).max() <= 0.501
    assert np.abs((nearest - exact).sum(axis=(1, 2))).max() > 3
    assert np.square(lost).mean() < 1.5 * np.square(nearest - exact).mean()


def test_there_is_no_integer_beyond_the_bounds():
    exact = np.float32([[[7.4, 7.4, 7.4, 7.4]]])
    np.testing.assert_array_equal(balanced(exact, np.float32([[[7, 7, 7, 7]]]), -8, 7), [[[7, 7, 7, 7]]])
    np.testing.assert_array_equal(balanced(exact, np.float32([[[7, 7, 7, 7]]]), -9, 8), [[[8, 8, 7, 7]]])


def test_of_equals_the_first_turn():
    """A row that is off by two steps, each of its elements by as much: two turn, and the first two."""
    exact = np.full((1, 8, 1), 0.25, np.float32)
    np.testing.assert_array_equal(balanced(exact, np.zeros_like(exact), -7, 7)[0, :, 0], [1, 1, 0, 0, 0, 0, 0, 0])
    kernels = np.full((1, 1, 8), 0.25, np.float32)
    np.testing.assert_array_equal(balanced(kernels, np.zeros_like(kernels), -7, 7)[0, 0], [1, 1, 0, 0, 0, 0, 0, 0])


@pytest.mark.parametrize("scheme", ["int8", "uint8-affine", "int4-channel", "int4-block32", "int8-tensor"])
def test_layers_are_balanced_and_tables_are_not(module, scheme):
    before = [op.attributes["val"] for op in module.walk() if op.name == "mil.const"]
    ours, theirs = (compress(clone_module(module), parse(name, 18), 18) for name in (scheme, f"{scheme}-nearest"))
    for weight, a, b, reduced in zip(before, ours, theirs, ((1, 2, 3), (1, 2, 3), 0, None), strict=True):
        assert a.dense is not None
        assert b.dense is not None
        if reduced is None:
            np.testing.assert_array_equal(a.dense, b.dense)
            continue
        off = [np.abs((r.dense - weight).sum(axis=reduced)) for r in (a, b)]
        assert off[0].max() < 0.5 * off[1].max()
        assert a.error < 1.2 * b.error
        assert a.after == b.after

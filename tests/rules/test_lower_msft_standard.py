"""Operators of com.microsoft that are standard ones under another name, held against onnxruntime's own kernels."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rules.harness import C, check, rand, refuses

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_transposed_products(alpha):
    a, b = rand(2, 4, 3), rand(2, 5, 4)
    check("msft.TransposeMatMul", [a, b], {"alpha": alpha, "transA": 1, "transB": 1}, **CLOSE)


def test_triangles():
    for upper in (0, 1):
        check("msft.Trilu", [rand(3, 5), C(np.array(1))], {"upper": upper})


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_pads(mode):
    value = [C(np.array(2.5, np.float32))] if mode == "constant" else []
    check("msft.Pad", [rand(4, 5), C(np.array([1, 0, 2, 3])), *value], {"mode": mode})


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_samples(mode):
    grid = np.tanh(rand(1, 3, 4, 2, seed=2))
    check("msft.GridSample", [rand(1, 2, 5, 6), grid], {"mode": mode, "padding_mode": "border"}, **CLOSE)


def test_movements():
    check("msft.ExpandDims", [rand(2, 3), C(np.array(-1, np.int32))])
    check("msft.GatherND", [rand(3, 4), np.array([[0, 1], [2, 3]])])
    for step in (1, 3):
        check("msft.UnfoldTensor", [rand(2, 7, 3)], {"dim": 1, "size": 3, "step": step})


def test_transposed_convolution_with_pads_as_an_operand():
    x, w = rand(1, 2, 5, 6), C(rand(2, 3, 3, 3, seed=2))
    pads = np.array([1, 0, 1, 2])
    check("msft.ConvTransposeWithDynamicPads", [x, w, C(pads)], {"strides": (2, 2)}, **CLOSE)
    refuses("msft.ConvTransposeWithDynamicPads", [x, w, pads], {"strides": (2, 2)})


def test_scaled_silu():
    check("msft.ScaledSiLU", [rand(2, 5)], {"alpha": 0.7}, **CLOSE)
    check("msft.ScaledSiLU", [rand(2, 5), np.array(1.3, np.float32)], **CLOSE)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean"])
def test_distances(metric):
    check("msft.CDist", [rand(3, 6), rand(4, 6, seed=2)], {"metric": metric}, rtol=1e-3, atol=1e-4)


def scale(value):
    return C(np.array(value, np.float32))


def zero(value):
    return C(np.array(value, np.uint8))


def test_choices_between_quantized_numbers():
    rng = np.random.default_rng(4)
    a, b = (rng.integers(0, 256, (3, 4)).astype(np.uint8) for _ in range(2))
    c = rng.random((3, 4)) < 0.5
    numbers = [a, scale(0.02), zero(100), b, scale(0.05), zero(3), scale(0.04), zero(50)]
    check("msft.QLinearWhere", [c, *numbers])


def test_quantized_convolution():
    rng = np.random.default_rng(5)
    x, w = (rng.integers(0, 256, s).astype(np.uint8) for s in ((1, 2, 5, 6), (3, 2, 3, 3)))
    numbers = [x, scale(0.02), zero(120), C(w), scale(0.01), zero(130), scale(0.07), zero(128)]
    check("msft.QLinearConv", numbers, {"pads": (1, 1, 1, 1)})

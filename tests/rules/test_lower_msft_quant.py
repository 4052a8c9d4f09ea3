"""Quantized operators of com.microsoft, held against onnxruntime's own kernels."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rules.harness import C, check, rand, refuses

S, Z, TO, TO_ZERO = C(0.02), C(128, np.uint8), C(0.0371), C(117, np.uint8)


def bytes_(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.uint16, np.int16])
def test_quantize_and_dequantize(kind):
    zero = C(np.array(7, kind))
    check("msft.QuantizeLinear", [rand(3, 5), C(0.031), zero])
    check("msft.DequantizeLinear", [np.arange(15, dtype=kind).reshape(3, 5), C(0.031), zero])
    columns = [C(np.array([0.03, 0.01, 0.05], np.float32)), C(np.array([1, 2, 3], kind))]
    check("msft.QuantizeLinear", [rand(3, 5), *columns], {"axis": 0})
    check("msft.DequantizeLinear", [np.arange(15, dtype=kind).reshape(5, 3), *columns], {"axis": 1})


def test_elementwise():
    a, b = bytes_(2, 3, 4), bytes_(2, 3, 4, seed=1)
    check("msft.QLinearAdd", [a, S, Z, b, C(0.031), C(3, np.uint8), TO, TO_ZERO])
    check("msft.QLinearMul", [a, S, Z, b, C(0.031), C(3, np.uint8), TO, TO_ZERO])
    check("msft.QLinearSigmoid", [a, S, Z, C(1 / 256), C(0, np.uint8)])
    check("msft.QLinearLeakyRelu", [a, S, Z, TO, TO_ZERO], {"alpha": 0.1})
    check("msft.QLinearConcat", [TO, TO_ZERO, a, S, Z, C(b), C(0.031), C(3, np.uint8)], {"axis": 1})


def test_softmax():
    a, to = bytes_(2, 3, 4), [C(1 / 256), C(0, np.uint8)]
    check("msft.QLinearSoftmax", [a, S, Z, *to], {"axis": -1, "opset": 13})
    check("msft.QLinearSoftmax", [a, S, Z, *to], {"axis": 1, "opset": 17})
    refuses("msft.QLinearSoftmax", [a, S, Z, *to], {"axis": 1, "opset": 11})
    refuses("msft.QLinearSoftmax", [a, S, Z, C(0.0037), to[1]], {"axis": -1, "opset": 13})


def test_pools():
    a = bytes_(1, 3, 6, 6)
    options = {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}
    check("msft.QLinearAveragePool", [a, S, Z, TO, TO_ZERO], options)
    check("msft.QLinearGlobalAveragePool", [a, S, Z, TO, TO_ZERO])
    refuses("msft.QLinearGlobalAveragePool", [a, S, Z, TO, TO_ZERO], {"channels_last": 1})


def test_products_of_integers():
    a, w = bytes_(2, 6), rand(6, 4, dtype=np.int8)
    scale, zero, bias = C(rand(4, seed=3) ** 2 + 0.01), C(np.zeros(4, np.int8)), C(rand(4))
    check("msft.MatMulIntegerToFloat", [a, C(w), S, scale, Z, zero, bias])
    check("msft.MatMulIntegerToFloat", [a, C(w), S, C(0.1)])
    check("msft.DynamicQuantizeMatMul", [rand(2, 6), C(w), C(0.1), C(0, np.int8), bias], rtol=1e-4, atol=1e-5)
    total = C(rand(4, dtype=np.int32))
    one = [C(0.1), C(0, np.int8), total]
    check("msft.QGemm", [a, S, Z, C(w.T.copy()), *one, C(0.137), TO_ZERO], {"transB": 1})
    check("msft.QGemm", [a, S, Z, C(w), *one], {"alpha": 0.5})


@pytest.mark.parametrize("bits", [4, 8])
def test_matmul_of_bits(bits):
    packed, scale = bytes_(6, 2, 16 * bits // 8), rand(6, 2) ** 2
    options = {"K": 32, "N": 6, "bits": bits, "block_size": 16}
    check("msft.MatMulNBits", [rand(3, 32), C(packed), C(scale.reshape(-1))], options, rtol=1e-4, atol=1e-4)
    zeros = C(bytes_(6 * bits // 4))
    given = [rand(2, 3, 32), C(packed), C(scale.reshape(-1)), zeros]
    check("msft.MatMulNBits", given, options, rtol=1e-4, atol=1e-4)

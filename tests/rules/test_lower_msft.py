"""Operators of com.microsoft, held against onnxruntime's own kernels."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.execution import evaluate
from compiler.target import Target
from tests.rules.harness import C, build, check, library, rand

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.mark.parametrize("transposed", [(0, 0), (1, 0), (0, 1), (1, 1)])
def test_fused_matmul(transposed):
    p, q = transposed
    a, b = rand(2, 3, 4), rand(2, 4, 5)
    a, b = (a.swapaxes(1, 2).copy() if p else a), (b.swapaxes(1, 2).copy() if q else b)
    check("msft.FusedMatMul", [a, b], {"alpha": 0.3, "transA": p, "transB": q}, **CLOSE)
    check("msft.FusedMatMul", [a, C(b)], {"transA": p, "transB": q}, **CLOSE)


def test_kinds_of_gelu():
    x, b = 3 * rand(2, 3, 8), C(rand(8, seed=2))
    check("msft.Gelu", [x], **CLOSE)
    check("msft.BiasGelu", [x, b], **CLOSE)
    check("msft.FastGelu", [x, b], **CLOSE)
    check("msft.FastGelu", [x], **CLOSE)
    check("msft.QuickGelu", [x], **CLOSE)
    check("msft.QuickGelu", [x], {"alpha": 1.3}, **CLOSE)


def test_skip_layer_normalization():
    x, skip, vector = rand(2, 3, 8), rand(2, 3, 8, seed=2), [C(rand(8, seed=i)) for i in range(3)]
    check("msft.SkipLayerNormalization", [x, skip, vector[0], vector[1], vector[2]], **CLOSE)
    check("msft.SkipLayerNormalization", [x, skip, vector[0]], {"epsilon": 1e-5}, **CLOSE)
    check("msft.SkipSimplifiedLayerNormalization", [x, skip, vector[0], vector[1]], {"epsilon": 1e-5}, **CLOSE)


def test_embed_layer_normalization():
    ids = np.array([[1, 4, 2], [0, 3, 3]], np.int32)
    tables = [C(rand(n, 8, seed=n)) for n in (6, 5, 2)]
    vectors = [C(rand(8, seed=1)), C(rand(8, seed=2))]
    segments = np.array([[0, 0, 1], [0, 1, 1]], np.int32)
    for given in ([ids, segments, *tables, *vectors], [ids, None, *tables[:2], None, *vectors]):
        module, arrays = build("msft.EmbedLayerNormalization", given, results=2)  # onnxruntime wants both results
        want = next(iter(evaluate.run(module, arrays).values()))
        check("msft.EmbedLayerNormalization", given, expected=[want], **CLOSE)


@pytest.mark.parametrize("options", [{}, {"unidirectional": 1}, {"scale": 0.2}])
def test_attention(options):
    x, w, bias = rand(2, 5, 8), C(rand(8, 24, seed=2)), C(rand(24, seed=3))
    attributes = {"num_heads": 2, **options}
    check("msft.Attention", [x, w, bias], attributes, **CLOSE)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    if not options:
        check("msft.Attention", [x, w, bias, mask], attributes, **CLOSE)
        check("msft.Attention", [x, w, bias, None, None, rand(2, 2, 5, 5)], attributes, **CLOSE)
        module, _ = build("msft.Attention", [x, w, bias, np.array([3, 5], np.int32)], attributes)
        library().rewrite(module, "lower", Target("cpu", "ios18", "fp32"))
        assert "msft.Attention" in [op.name for op in module.walk()]  # lengths, not a mask


def test_fused_conv():
    x, w = rand(1, 3, 6, 6), C(rand(4, 3, 3, 3, seed=2))
    check("msft.FusedConv", [x, w], {"activation": "Relu", "pads": (1, 1, 1, 1)}, **CLOSE)
    options = {"activation": "LeakyRelu", "activation_params": (0.1,)}
    check("msft.FusedConv", [x, w, C(rand(4))], options, **CLOSE)
    clip = {"activation": "Clip", "activation_params": (-0.5, 0.5)}
    check("msft.FusedConv", [x, w, C(rand(4)), rand(1, 4, 4, 4)], clip, **CLOSE)

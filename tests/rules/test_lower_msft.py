"""Operators of com.microsoft, held against onnxruntime's own kernels."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.execution import evaluate
from compiler.target import Target
from tests.rules.harness import C, build, check, library, rand, refuses

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


def test_multi_head_attention():
    q, k, v = rand(2, 4, 8), rand(2, 5, 8, seed=2), rand(2, 5, 12, seed=3)
    heads = {"num_heads": 2}
    check("msft.MultiHeadAttention", [q, k, v], heads, **CLOSE)
    check("msft.MultiHeadAttention", [q, k, v, C(rand(28))], {**heads, "scale": 0.2}, **CLOSE)
    check("msft.MultiHeadAttention", [q, q, q], {**heads, "unidirectional": 1}, **CLOSE)
    for mask in ([[1, 1, 1, 0, 0], [1, 1, 0, 1, 1]], np.tri(4, 5)[None].repeat(2, 0)):
        check("msft.MultiHeadAttention", [q, k, v, None, np.array(mask, np.int32)], heads, **CLOSE)
    check("msft.MultiHeadAttention", [q, k, v, None, None, rand(1, 2, 4, 5)], heads, **CLOSE)
    cache = [rand(2, 2, 3, 4, seed=i) for i in range(2)]
    check("msft.MultiHeadAttention", [q, q, q, None, None, None, *cache], heads, results=3, **CLOSE)
    refuses("msft.MultiHeadAttention", [q, k, v, None, np.array([3, 5], np.int32)], heads)  # lengths, not a mask


@pytest.mark.parametrize("interleaved", [0, 1])
def test_rotary_embedding(interleaved):
    tables = [C(rand(9, 2)), C(rand(9, 2, seed=2))]
    at = np.array([[0, 5, 2], [8, 1, 1]])
    options = {"interleaved": interleaved}
    check("msft.RotaryEmbedding", [rand(2, 3, 8), at, *tables], options, **CLOSE)
    check("msft.RotaryEmbedding", [rand(2, 3, 8), np.array([4]), *tables], options, **CLOSE)
    check("msft.RotaryEmbedding", [rand(2, 2, 3, 4), C(np.array([4])), *tables], options, **CLOSE)
    part = {**options, "num_heads": 2, "rotary_embedding_dim": 4}
    check("msft.RotaryEmbedding", [rand(2, 3, 16), at, *tables], part, **CLOSE)


@pytest.mark.parametrize("options", [{}, {"softcap": 3.0}, {"local_window_size": 3}, {"scale": 0.1}])
def test_group_query_attention(options):
    heads = {"num_heads": 4, "kv_num_heads": 2, **options}
    q, k, v = rand(2, 3, 64), rand(2, 3, 32, seed=2), rand(2, 3, 32, seed=3)
    ends = [C([2, 2], np.int32), C(3, np.int32)]
    check("msft.GroupQueryAttention", [q, k, v, None, None, *ends], heads, results=3, **CLOSE)
    tables = [C(rand(16, 8)), C(rand(16, 8, seed=2))]
    cache, behind = [rand(2, 2, 5, 16, seed=i) for i in range(2)], [C([5, 5], np.int32), C(6, np.int32)]
    turned, one = {**heads, "do_rotary": 1}, [a[:, :1] for a in (q, k, v)]
    check("msft.GroupQueryAttention", [*one, *cache, *behind, *tables], turned, results=3, **CLOSE)
    packed = rand(2, 3, 128)
    check("msft.GroupQueryAttention", [packed, None, None, None, None, *ends, *tables], turned, results=3, **CLOSE)
    refuses("msft.GroupQueryAttention", [q, k, v, None, None, C([2, 1], np.int32), ends[1]], heads, results=3)


@pytest.mark.parametrize("options", [{}, {"do_rotary": 1}, {"local_window_size": 3}])
def test_group_query_attention_of_computed_lengths(options):
    heads = {"num_heads": 4, "kv_num_heads": 2, **options}
    tables = [C(rand(16, 8)), C(rand(16, 8, seed=2))] if "do_rotary" in options else []
    q, k, v = rand(2, 1, 64), rand(2, 1, 32, seed=2), rand(2, 1, 32, seed=3)
    cache = [rand(2, 2, 5, 16, seed=i) for i in range(2)]
    for lengths in (np.array([2, 5], np.int32), np.array([5, 5], np.int32), C(np.array([0, 3], np.int32))):
        operands = [q, k, v, *cache, lengths, C(6, np.int32), *tables]
        check("msft.GroupQueryAttention", operands, heads, results=3, **CLOSE)
    several = [rand(1, n, w, seed=w) for n, w in ((3, 64), (3, 32), (3, 32))]
    caches = [c[:1] for c in cache]
    check(
        "msft.GroupQueryAttention",
        [*several, *caches, np.array([5], np.int32), C(8, np.int32), *tables],
        heads, results=3, **CLOSE,
    )  # fmt: skip
    refuses("msft.GroupQueryAttention", [q, k, v, *cache, np.array([2, 5], np.int32), np.array(6, np.int32)], heads, 3)
    refuses("msft.GroupQueryAttention", [q, k, v, None, None, np.array([0, 0], np.int32), C(1, np.int32)], heads, 3)


def test_fused_gemm():
    a, w, c = rand(2, 3), C(rand(4, 3)), C(rand(4))
    check("msft.FusedGemm", [a, w, c], {"activation": "Relu", "transB": 1, "alpha": 0.5, "beta": 2.0}, **CLOSE)
    check("msft.FusedGemm", [a, w], {"activation": "Tanh", "transB": 1}, **CLOSE)

"""The stage fuse, behind canonicalize: what exporters write for one layer becomes one operator; nothing else does."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from tests.rules.layers import channels, layer_norm, norm
from tests.rules.onnx_graph import Open, fused, graph, library, normal, rewritten, unchanged

X = normal(2, 5, 8)
IMAGE = normal(2, 4, 6, 7)
HALF = np.float16


# ---- convolution

W = normal(6, 4, 3, 3, seed=1)
B = normal(6, seed=2)
PAD = {"pads": (1, 1, 1, 1)}


@pytest.mark.parametrize(
    "build",
    [
        lambda o, x: o.BatchNormalization(o.Conv(x, W, B, **PAD), *norm(6)),
        lambda o, x: o.BatchNormalization(o.Conv(x, W), *norm(6), epsilon=1e-3),
        lambda o, x: o.Mul(o.Conv(x, W, B), channels(6)),
        lambda o, x: o.Div(o.Conv(x, W, B), channels(6, 4).reshape(1, 6, 1, 1)),
        lambda o, x: o.Add(o.Conv(x, W), channels(6)),
        lambda o, x: o.Sub(o.Mul(o.Conv(x, W), 2.0), 1.0),
        lambda o, x: o.Neg(o.Conv(x, W, B)),
        lambda o, x: o.Conv(o.Mul(x, channels(4)), W, B, **PAD),
        lambda o, x: o.Conv(o.Add(x, channels(4)), W, B),
        lambda o, x: o.Conv(o.Add(x, channels(4)), W, auto_pad="VALID"),
        lambda o, x: o.Conv(o.Pad(x, [0, 0, 1, 2, 0, 0, 0, 1]), W, B, **PAD),
        lambda o, x: o.Conv(o.Pad(x, [1, 2, 1, 1], 0.0, [2, -1]), W, B),
        lambda o, x: o.Conv(o.Mul(x, channels(4)), normal(6, 2, 3, 3), B, group=2),
        lambda o, x: o.Conv(o.Sub(x, channels(4)), normal(6, 2, 3, 3), B, group=2),
        lambda o, x: o.Mul(o.Conv(x, normal(8, 1, 3, 3), group=4, strides=(2, 1)), channels(8)),
    ],
)
def test_constants_go_into_a_convolution(build: Any) -> None:
    assert fused(build, IMAGE) == ["Conv"]


@pytest.mark.parametrize(
    ("build", "left"),
    [
        (lambda o, x: o.Mul(o.Conv(x, W), normal(5)), ["Conv", "Mul"]),  # along the columns
        (lambda o, x: o.Add(o.Conv(x, W), normal(3, 1, 6, 1, 1)), ["Add", "Conv"]),  # makes the result larger
        (lambda o, x: o.Add(o.Conv(x, W[:1]), channels(6)), ["Add", "Conv"]),  # one channel becomes six
        (lambda o, x: o.Conv(o.Add(x, 1.0), W, **PAD), ["Add", "Conv"]),  # the padding would be −1
        (lambda o, x: o.Conv(o.Pad(x, [0, 0, 1, 1, 0, 0, 1, 1], 0.5), W), ["Conv", "Pad"]),
        (lambda o, x: o.Conv(o.Pad(x, [0, 0, 1, 1, 0, 0, 1, 1], mode="edge"), W), ["Conv", "Pad"]),
        (lambda o, x: o.Conv(o.Pad(x, [0, 0, -1, 0, 0, 0, 0, 0]), W), ["Conv", "Pad"]),
        (lambda o, x: o.Conv(o.Pad(x, [0, 1, 0, 0, 0, 0, 0, 0]), normal(6, 5, 3, 3)), ["Conv", "Pad"]),
        (lambda o, x: o.Conv(o.Pad(x, [0, 0, 1, 1, 0, 0, 1, 1]), W, auto_pad="SAME_UPPER"), ["Conv", "Pad"]),
        (lambda o, x: o.Conv(o.Mul(x, normal(6, 1)), W), ["Conv", "Mul"]),
        (lambda o, x: o.Mul(o.Relu(o.Conv(x, W)), 2.0), ["Conv", "Mul", "Relu"]),
        (lambda o, x: o.Mul(o.Conv(x, o.Neg(W)), 2.0), ["Conv", "Mul", "Neg"]),  # filters that are not known
    ],
)  # fmt: skip
def test_what_does_not_belong_to_channels_stays(build: Any, left: list[str]) -> None:
    assert fused(build, IMAGE) == left


def test_a_convolution_that_others_see_keeps_its_weights() -> None:
    def build(o: Any, x: Any) -> Any:
        c = o.Conv(x, W)
        return c, o.BatchNormalization(c, *norm(6)), o.Mul(c, 2.0)

    unchanged(build, IMAGE)


def test_batch_normalization_in_training_is_no_constant() -> None:
    module, _ = graph(lambda o, x: o.BatchNormalization(o.Conv(x, W), *norm(6), training_mode=1, results=3)[0], IMAGE)
    assert "conv_batch_norm" not in library().rewrite(module, "fuse").fires


def test_batch_normalization_without_variance_is_left_to_divide_by_zero() -> None:
    scale, bias, mean, _ = norm(6)
    unchanged(lambda o, x: o.BatchNormalization(o.Conv(x, W), scale, bias, mean, -np.ones(6, np.float32)), IMAGE)


def test_half_precision_is_computed_in_single() -> None:
    half = [a.astype(HALF) for a in norm(6)]

    def build(o: Any, x: Any) -> Any:
        return o.BatchNormalization(o.Conv(x, W.astype(HALF), B.astype(HALF)), *half)

    assert fused(build, IMAGE.astype(HALF), rtol=4e-3) == ["Conv"]


def test_half_precision_does_not_overflow_into_weights() -> None:
    big = (W * 1000).astype(HALF)
    assert fused(lambda o, x: o.Mul(o.Conv(x, big), 1000.0), (IMAGE * 0).astype(HALF)) == ["Conv", "Mul"]


def test_an_open_batch_and_an_image_of_any_size() -> None:
    assert fused(lambda o, x: o.BatchNormalization(o.Conv(x, W), *norm(6)), Open(IMAGE, "n", 4, "h", "w")) == ["Conv"]
    assert fused(lambda o, x: o.Conv(o.Pad(x, [0, 0, 1, 1, 0, 0, 1, 1]), W), Open(IMAGE, "n", 4, "h", "w")) == ["Conv"]


def test_one_and_three_dimensions() -> None:
    sound, volume = normal(2, 4, 9), normal(1, 4, 5, 6, 7)
    assert fused(lambda o, x: o.Mul(o.Conv(x, normal(6, 4, 3)), channels(6, 2)), sound) == ["Conv"]
    assert fused(lambda o, x: o.BatchNormalization(o.Conv(x, normal(6, 4, 3, 3, 3)), *norm(6)), volume) == ["Conv"]


@pytest.mark.parametrize("group", [1, 2])
def test_transposed_convolution(group: int) -> None:
    w = normal(4, 6 // group, 3, 3)
    assert fused(lambda o, x: o.BatchNormalization(o.ConvTranspose(x, w, B, group=group), *norm(6)), IMAGE) == [
        "ConvTranspose"
    ]
    assert fused(lambda o, x: o.Add(o.Mul(o.ConvTranspose(x, w, group=group), channels(6)), channels(6)), IMAGE) == [
        "ConvTranspose"
    ]


def test_through_squeezes_and_transposes() -> None:
    def squeezed(o: Any, x: Any) -> Any:
        return o.Add(o.Squeeze(o.Conv(x, normal(6, 4, 6, 3)), [2]), channels(6, 2))

    def turned(o: Any, x: Any) -> Any:
        t = o.Transpose(o.Conv(x, W), perm=(0, 2, 3, 1))
        return o.Add(o.Mul(t, normal(6)), normal(6))

    assert fused(squeezed, IMAGE) == ["Conv", "Squeeze"]
    assert fused(turned, IMAGE) == ["Conv", "Transpose"]


# ---- matrix products

P, C = normal(8, 3, seed=3), normal(3, seed=4)


@pytest.mark.parametrize(
    "build",
    [
        lambda o, x: o.Add(o.MatMul(x, P), C),
        lambda o, x: o.Mul(o.Add(o.MatMul(x, P), C), 0.5),
        lambda o, x: o.Add(o.Div(o.MatMul(x, P), C), C),
        lambda o, x: o.Add(o.Add(o.MatMul(x, P), C), C),
        lambda o, x: o.Add(o.MatMul(o.Mul(x, normal(8)), P), C),
        lambda o, x: o.Reshape(o.Add(o.MatMul(o.Reshape(x, [10, 8]), P), C), [2, 5, 3]),
    ],
)
def test_constants_go_into_a_linear_layer(build: Any) -> None:
    assert fused(build, X)[:2] == ["Add", "MatMul"] or fused(build, X)[:1] == ["Gemm"]


def test_linear_layers_of_matrices_are_gemm() -> None:
    rows = normal(5, 8)
    for t, w in ((0, P), (1, P.T.copy())):
        for build in (
            lambda o, x, w=w, t=t: o.BatchNormalization(o.Gemm(x, w, C, transB=t), *norm(3)),
            lambda o, x, w=w, t=t: o.Mul(o.Gemm(x, w, C, transB=t), C),
            lambda o, x, w=w, t=t: o.Add(o.Gemm(x, w, transB=t), C),
            lambda o, x, w=w, t=t: o.Gemm(o.Mul(x, normal(8)), w, C, transB=t),
            lambda o, x, w=w, t=t: o.Gemm(o.Add(x, normal(8)), w, C, transB=t),
            lambda o, x, w=w, t=t: o.Gemm(o.Sub(o.Div(x, 3.0), 1.0), w, transB=t, alpha=0.5),
        ):
            assert fused(build, rows) == ["Gemm"]
    assert fused(lambda o, x: o.Add(o.MatMul(x, P), C), rows) == ["Gemm"]
    assert fused(lambda o, x: o.BatchNormalization(o.MatMul(x, P), *norm(3)), rows) == ["Gemm"]
    assert fused(lambda o, x: o.Add(o.MatMul(x, P), normal(5, 3)), rows) == ["Add", "MatMul"]
    assert fused(lambda o, x: o.Add(o.MatMul(x, P), normal(2, 1, 3)), rows) == ["Add", "MatMul"]
    assert fused(lambda o, x: o.Mul(o.Gemm(x, P, C), normal(5, 1)), rows) == ["Gemm", "Mul"]


def test_layer_scale_goes_through_the_transpose() -> None:
    def build(o: Any, x: Any) -> Any:
        y = o.Add(o.MatMul(x, normal(7, 3)), C)
        return o.Mul(o.Transpose(y, perm=(0, 3, 1, 2)), channels(3))

    assert fused(build, IMAGE) == ["Add", "MatMul", "Transpose"]


def test_the_factor_of_scores_goes_to_the_queries() -> None:
    q, k = normal(2, 3, 5, 8), normal(2, 3, 6, 8)

    def transposed(o: Any, k: Any) -> Any:
        return o.Transpose(k, perm=(0, 1, 3, 2))

    for build in (
        lambda o, q, k: o.Div(o.MatMul(q, transposed(o, k)), math.sqrt(8)),
        lambda o, q, k: o.MatMul(o.Mul(q, 8**-0.25), transposed(o, o.Mul(k, 8**-0.25))),
        lambda o, q, k: o.MatMul(o.Mul(q, 8**-0.25), o.Mul(transposed(o, k), 8**-0.25)),
        lambda o, q, k: o.Mul(o.MatMul(o.Mul(q, 2.0), transposed(o, k)), 0.25),
    ):
        done = rewritten(build, q, k)
        assert done.ops == ["MatMul", "Mul", "Transpose"]
        assert done.only("MatMul").operands[0].op.name == "onnx.Mul"
    unchanged(lambda o, q, k: o.Mul(o.MatMul(q, transposed(o, k)), normal(1, 3, 1, 1)), q, k)
    unchanged(lambda o, q, k: (s := o.MatMul(q, transposed(o, k)), o.Mul(s, 2.0)), q, k)


# ---- movement


def test_space_and_depth() -> None:
    deep = normal(2, 12, 3, 5)
    blocks = {
        "DCR": ([2, 2, 2, 3, 3, 5], (0, 3, 4, 1, 5, 2)),
        "CRD": ([2, 3, 2, 2, 3, 5], (0, 1, 4, 2, 5, 3)),
    }
    for mode, (shape, perm) in blocks.items():
        done = rewritten(
            lambda o, x, s=shape, p=perm: o.Reshape(o.Transpose(o.Reshape(x, s), perm=p), [2, 3, 6, 10]), deep
        )
        assert done.ops == ["DepthToSpace"]
        assert done.only("DepthToSpace").attributes["mode"] == mode

    def to_depth(o: Any, x: Any) -> Any:
        return o.Reshape(o.Transpose(o.Reshape(x, [2, 3, 2, 2, 3, 2]), perm=(0, 3, 5, 1, 2, 4)), [2, 12, 2, 3])

    def shuffle(o: Any, x: Any) -> Any:
        return o.Reshape(o.Transpose(o.Reshape(x, [2, 3, 4, 3, 5]), perm=(0, 2, 1, 3, 4)), [2, 12, 3, 5])

    assert fused(to_depth, normal(2, 3, 4, 6)) == ["SpaceToDepth"]
    unchanged(shuffle, deep)


def test_slices_that_are_all_are_a_split() -> None:
    def cut(*at: int) -> Any:
        return lambda o, x: tuple(o.Slice(x, [a], [b], [-1]) for a, b in itertools.pairwise(at))

    assert fused(cut(0, 4, 8), X) == ["Split"]
    assert fused(cut(0, 2, 5, 8), X) == ["Split"]
    unchanged(lambda o, x: (o.Slice(x, [0], [5], [2]), o.Slice(x, [4], [8], [2])), X)
    unchanged(lambda o, x: (o.Slice(x, [0], [4], [2]), o.Slice(x, [4], [7], [2])), X)
    unchanged(lambda o, x: (o.Slice(x, [0], [2], [1]), o.Slice(x, [2], [5], [2])), X)


def test_projections_of_one_input_are_widened_where_asked() -> None:
    def build(o: Any, x: Any) -> Any:
        return tuple(o.Add(o.MatMul(x, normal(8, n)), normal(n)) for n in (8, 4, 4))

    assert fused(build, X) == ["Add", "Add", "Add", "MatMul", "MatMul", "MatMul"]
    assert fused(build, X, stages=("canonicalize", "fuse", "fuse_wide")) == ["Add", "MatMul", "Split"]


def test_a_transformer_layer() -> None:
    """One layer, as TorchScript exports it."""

    def linear(o: Any, x: Any, n: int, m: int, seed: int) -> Any:
        return o.Add(o.MatMul(x, normal(n, m, seed=seed)), normal(m, seed=seed))

    def heads(o: Any, x: Any) -> Any:
        return o.Transpose(o.Reshape(x, [2, 5, 2, 4]), perm=(0, 2, 1, 3))

    def build(o: Any, x: Any) -> Any:
        q, k, v = (heads(o, linear(o, x, 8, 8, s)) for s in (1, 2, 3))
        a = o.Softmax(o.Div(o.MatMul(q, o.Transpose(k, perm=(0, 1, 3, 2))), 2.0))
        y = o.Reshape(o.Transpose(o.MatMul(a, v), perm=(0, 2, 1, 3)), [2, 5, 8])
        x = layer_norm(o, o.Add(x, linear(o, y, 8, 8, 4)))
        h = linear(o, x, 8, 16, 5)
        h = o.Mul(o.Mul(h, o.Add(o.Erf(o.Div(h, math.sqrt(2))), 1.0)), 0.5)
        return layer_norm(o, o.Add(x, linear(o, h, 16, 8, 6)))

    count = Counter(fused(build, X, rtol=1e-4))
    assert count.pop("Add") == count.pop("MatMul") == 8
    assert count == {"Transpose": 4, "Reshape": 4, "LayerNormalization": 2, "Softmax": 1, "Gelu": 1, "Mul": 1}

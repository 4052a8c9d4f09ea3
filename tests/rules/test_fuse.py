"""The stage fuse, behind canonicalize: what exporters write for one layer becomes one operator; nothing else does."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from compiler import ir
from tests.rules.onnx_graph import Open, graph, library, normal, rewritten, unchanged

X = normal(2, 5, 8)
IMAGE = normal(2, 4, 6, 7)
HALF = np.float16


def fused(build: Any, *inputs: Any, **options: Any) -> list[str]:
    return rewritten(build, *inputs, **options).ops


# ---- convolution

W = normal(6, 4, 3, 3, seed=1)
B = normal(6, seed=2)
PAD = {"pads": (1, 1, 1, 1)}


def norm(channels: int) -> list[np.ndarray]:
    """Scale, bias, mean and variance of a batch normalization."""
    scale, bias, mean, var = (normal(channels, seed=s) for s in range(3, 7))
    return [scale, bias, mean, np.abs(var) + 0.1]


def channels(n: int, rank: int = 3) -> np.ndarray:
    return normal(n, *[1] * (rank - 1), seed=9) + 2


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


# ---- normalization

G, BETA = normal(8, seed=5), normal(8, seed=6)


def layer_norm(
    o: Any, x: Any, *, square: str = "pow", root: str = "div", axes: Any = (-1,), eps: float = 1e-5, affine: bool = True
) -> Any:
    """A layer normalization, as it is written without the operator."""
    d = o.Sub(x, o.ReduceMean(x, list(axes)))
    d2 = o.Sub(x, o.ReduceMean(x, list(axes))) if square == "again" else d
    squared = o.Mul(d2, d2) if square in ("mul", "again") else o.Pow(d2, 2.0)
    v = o.Add(eps, o.ReduceMean(squared, list(axes)))
    y = {
        "div": lambda: o.Div(d, o.Sqrt(v)),
        "power": lambda: o.Div(d, o.Pow(v, 0.5)),
        "reciprocal": lambda: o.Mul(o.Reciprocal(o.Sqrt(v)), d),
        "one": lambda: o.Mul(d, o.Div(1.0, o.Sqrt(v))),
        "minus half": lambda: o.Mul(d, o.Pow(v, -0.5)),
        "scaled": lambda: o.Mul(d, o.Mul(o.Reciprocal(o.Sqrt(v)), G)),
    }[root]()
    if not affine:
        return y
    return o.Add(y if root == "scaled" else o.Mul(y, G), BETA)


@pytest.mark.parametrize(
    ("square", "root"),
    list(itertools.product(["pow", "mul", "again"], ["div", "power", "reciprocal", "one", "minus half", "scaled"])),
)
def test_layer_normalization_in_every_spelling(square: str, root: str) -> None:
    from passes import cse

    def build(o: Any, x: Any) -> Any:
        return layer_norm(o, x, square=square, root=root)

    if square == "again":  # the two differences are one once common subexpressions are
        module, _ = graph(build, X)
        cse.run(module)
        for stage in ("canonicalize", "fuse"):
            library().rewrite(module, stage)
        assert [op.name for op in module.walk() if op.name == "onnx.LayerNormalization"]
        return
    done = rewritten(build, X, rtol=3e-5)
    assert done.ops == ["LayerNormalization"]
    assert len(done.only("LayerNormalization").operands) == 3


def test_layer_normalization_without_scale_of_several_axes_and_of_channels() -> None:
    assert fused(lambda o, x: layer_norm(o, x, affine=False), X) == ["LayerNormalization"]
    assert fused(lambda o, x: layer_norm(o, x, affine=False, axes=(1, 2)), X) == ["LayerNormalization"]
    assert fused(lambda o, x: layer_norm(o, x, affine=False), Open(X, "n", "m", 8)) == ["LayerNormalization"]

    def of_channels(o: Any, x: Any) -> Any:
        return o.Add(o.Mul(layer_norm(o, x, affine=False, axes=(1,)), channels(4)), channels(4))

    assert fused(of_channels, IMAGE) == ["LayerNormalization", "Transpose", "Transpose"]


def test_what_is_no_layer_normalization() -> None:
    def wrong_axis(o: Any, x: Any) -> Any:
        d = o.Sub(x, o.ReduceMean(x, [2]))
        return o.Div(d, o.Sqrt(o.Add(o.ReduceMean(o.Mul(d, d), [1]), 1e-5)))

    def other_epsilon(o: Any, x: Any) -> Any:
        d = o.Sub(x, o.ReduceMean(x, [2]))
        return o.Div(d, o.Sqrt(o.Add(o.ReduceMean(o.Mul(d, d), [2]), channels(5, 2))))

    def epsilon_outside(o: Any, x: Any) -> Any:
        d = o.Sub(x, o.ReduceMean(x, [2]))
        return o.Div(d, o.Add(o.Sqrt(o.ReduceMean(o.Mul(d, d), [2])), 1e-5))

    def other_difference(o: Any, x: Any, z: Any) -> Any:
        d = o.Sub(x, o.ReduceMean(x, [2]))
        return o.Div(z, o.Sqrt(o.Add(o.ReduceMean(o.Mul(d, d), [2]), 1e-5)))

    for build in (wrong_axis, other_epsilon, epsilon_outside):
        unchanged(build, X)
    unchanged(other_difference, X, X + 1)
    assert fused(lambda o, x: layer_norm(o, x, affine=False), Open(X, "n", "m", "d"))[0] == "Add"  # width not known


def test_scale_and_shift_of_a_layer_normalization() -> None:
    def normalized(o: Any, x: Any) -> Any:
        return o.LayerNormalization(x, G)

    assert fused(lambda o, x: o.Add(o.Mul(normalized(o, x), 2.0), BETA.reshape(1, 1, 8)), X) == ["LayerNormalization"]
    unchanged(lambda o, x: o.Mul(normalized(o, x), channels(5, 2)), X)
    unchanged(lambda o, x: o.Add(normalized(o, x), normal(5, 8)), X)
    unchanged(lambda o, x: o.Mul(o.LayerNormalization(x, [2.0] * 1), normal(8)), X[:, :, :1])  # becomes eight wide
    unchanged(lambda o, x: (n := normalized(o, x), o.Mul(n, G)), X)


def test_half_precision_normalized_in_single() -> None:
    def build(o: Any, x: Any) -> Any:
        return o.Cast(layer_norm(o, o.Cast(x, to=ir.F32)), to=ir.F16)

    assert fused(build, X.astype(HALF), rtol=2e-3) == ["LayerNormalization"]


def rms(o: Any, x: Any, eps: float = 1e-6) -> Any:
    return o.Mul(x, o.Reciprocal(o.Sqrt(o.Add(o.ReduceMean(o.Pow(x, 2.0), [-1]), eps))))


def test_root_mean_square_normalization() -> None:
    assert fused(lambda o, x: o.Mul(G, rms(o, x)), X) == ["RMSNormalization"]
    assert fused(lambda o, x: o.Mul(o.Cast(rms(o, o.Cast(x, to=ir.F32)), to=ir.F16), G.astype(HALF)),
                 X.astype(HALF), rtol=4e-3) == ["RMSNormalization"]  # fmt: skip
    unchanged(lambda o, x: o.Div(x, o.Sqrt(o.Add(o.ReduceMean(o.Mul(x, x), [1]), 1e-6))), X)


def test_instance_and_group_normalization() -> None:
    def instance(o: Any, x: Any) -> Any:
        return o.Add(o.Mul(layer_norm(o, x, axes=(2, 3), affine=False), channels(4)), channels(4))

    def group(o: Any, x: Any) -> Any:
        n = o.InstanceNormalization(o.Reshape(x, [0, 2, -1]), [1.0, 1.0], [0.0, 0.0])
        return o.Add(o.Mul(o.Reshape(n, [2, 4, 6, 7]), channels(4)), channels(4))

    def group_with_scales(o: Any, x: Any) -> Any:
        return o.Reshape(o.InstanceNormalization(o.Reshape(x, [2, 2, -1]), [1.5, 2.5], [0.5, -0.5]), [2, 4, 6, 7])

    def written_out(o: Any, x: Any) -> Any:
        n = layer_norm(o, o.Reshape(x, [2, 2, 84]), affine=False)
        return o.Add(o.Mul(o.Reshape(n, [2, 4, 6, 7]), channels(4)), channels(4))

    def mixes_batches(o: Any, x: Any) -> Any:
        n = o.InstanceNormalization(o.Reshape(x, [1, 4, 84]), [1.0] * 4, [0.0] * 4)
        return o.Reshape(n, [2, 4, 6, 7])

    assert fused(instance, IMAGE) == ["InstanceNormalization"]
    for build in (group, group_with_scales, written_out):
        assert fused(build, IMAGE, rtol=3e-5) == ["GroupNormalization"]
    unchanged(mixes_batches, IMAGE)


def test_batch_normalization_takes_what_follows() -> None:
    def build(o: Any, x: Any) -> Any:
        return o.Relu(o.Add(o.Mul(o.BatchNormalization(x, *norm(4)), channels(4)), channels(4)))

    assert fused(build, IMAGE) == ["BatchNormalization", "Relu"]


def test_softmax_and_its_logarithm() -> None:
    def shifted(o: Any, x: Any) -> Any:
        return o.Sub(x, o.ReduceMax(x, [-1]))

    def quotient(o: Any, e: Any) -> Any:
        return o.Div(e, o.ReduceSum(e, [-1]))

    assert fused(lambda o, x: quotient(o, o.Exp(shifted(o, x))), X) == ["Softmax"]
    assert fused(lambda o, x: quotient(o, o.Exp(x)), X) == ["Softmax"]
    assert fused(lambda o, x: o.Log(o.Softmax(x, axis=1)), X) == ["LogSoftmax"]
    assert fused(lambda o, x: o.Sub(x, o.Log(o.ReduceSum(o.Exp(x), [-1]))), X) == ["LogSoftmax"]
    assert fused(lambda o, x: o.Sub(z := shifted(o, x), o.Log(o.ReduceSum(o.Exp(z), [-1]))), X) == ["LogSoftmax"]
    unchanged(lambda o, x: o.Div(e := o.Exp(x), o.ReduceSum(e, [1, 2])), X)
    unchanged(lambda o, x: o.Softmax(o.Sub(x, o.ReduceMax(x, [1])), axis=2), X)


def test_the_guard_behind_softmax_goes_only_where_no_row_is_masked() -> None:
    q, k = normal(3, 8), normal(8, 3)
    causal = np.triu(np.full((3, 3), -np.inf, np.float32), 1)

    def guarded(o: Any, scores: Any) -> Any:
        s = o.Softmax(scores)
        return o.Where(o.IsNaN(s), 0.0, s)

    assert fused(lambda o, q, k: guarded(o, o.MatMul(q, k)), q, k) == ["MatMul", "Softmax"]
    assert fused(lambda o, q, k: guarded(o, o.Add(o.MatMul(q, k), causal)), q, k) == ["Add", "MatMul", "Softmax"]
    finite = lambda o, m: o.Where(m, 0.0, np.float32(-3.4e38))  # noqa: E731
    kept = lambda o, m: o.Where(m, 0.0, np.float32(-np.inf))  # noqa: E731
    mask = np.array([[True, False, True], [False] * 3, [True] * 3])
    assert "IsNaN" not in fused(lambda o, q, k, m: guarded(o, o.Add(o.MatMul(q, k), finite(o, m))), q, k, mask)
    unchanged(lambda o, q, k, m: guarded(o, o.Add(o.MatMul(q, k), kept(o, m))), q, k, mask)
    row = np.array([[0.0] * 3, [-np.inf] * 3, [0.0] * 3], np.float32)
    unchanged(lambda o, q, k: guarded(o, o.Add(o.MatMul(q, k), row)), q, k)
    unchanged(guarded, X)


# ---- activation functions

SQRT2, HALF_PI = math.sqrt(2), math.sqrt(2 / math.pi)


@pytest.mark.parametrize(
    "build",
    [
        lambda o, x: o.Mul(o.Mul(x, o.Add(o.Erf(o.Div(x, SQRT2)), 1.0)), 0.5),
        lambda o, x: o.Mul(0.5, o.Mul(o.Add(1.0, o.Erf(o.Mul(x, 1 / SQRT2))), x)),
        lambda o, x: o.Mul(o.Mul(x, 0.5), o.Add(o.Erf(o.Div(x, SQRT2)), 1.0)),
        lambda o, x: o.Mul(o.Div(x, 2.0), o.Add(o.Erf(o.Div(x, SQRT2)), 1.0)),
        lambda o, x: o.Mul(x, o.Mul(o.Add(o.Erf(o.Div(x, SQRT2)), 1.0), 0.5)),
        lambda o, x: o.Mul(x, o.Add(o.Mul(o.Erf(o.Div(x, SQRT2)), 0.5), 0.5)),
        lambda o, x: o.Div(o.Mul(x, o.Add(o.Erf(o.Mul(x, 0.70710677)), 1.0)), 2.0),
    ],
)
def test_gelu_in_every_spelling(build: Any) -> None:
    assert fused(build, X) == ["Gelu"]
    assert fused(build, X.astype(HALF), rtol=4e-3) == ["Gelu"]


def cubic(o: Any, x: Any, form: int) -> Any:
    """√(2/π) (x + 0.044715 x³)."""
    return [
        lambda: o.Mul(o.Add(x, o.Mul(o.Pow(x, 3.0), 0.044715)), HALF_PI),
        lambda: o.Mul(HALF_PI, o.Add(x, o.Mul(0.044715, o.Mul(o.Mul(x, x), x)))),
        lambda: o.Mul(o.Add(x, o.Mul(x, o.Mul(x, o.Mul(x, 0.044715)))), HALF_PI),
        lambda: o.Mul(o.Mul(x, o.Add(o.Mul(o.Pow(x, 2.0), 0.044715), 1.0)), HALF_PI),
        lambda: o.Mul(o.Mul(x, HALF_PI), o.Add(o.Mul(o.Mul(x, 0.044715), x), 1.0)),
        lambda: o.Mul(x, o.Add(HALF_PI, o.Mul(o.Mul(x, x), HALF_PI * 0.044715))),
    ][form]()


@pytest.mark.parametrize(("form", "outer"), list(itertools.product(range(6), range(4))))
def test_gelu_by_tanh_in_every_spelling(form: int, outer: int) -> None:
    def build(o: Any, x: Any) -> Any:
        t = o.Tanh(cubic(o, x, form))
        return [
            lambda: o.Mul(o.Mul(x, 0.5), o.Add(t, 1.0)),
            lambda: o.Mul(o.Mul(x, o.Add(1.0, t)), 0.5),
            lambda: o.Mul(x, o.Mul(0.5, o.Add(t, 1.0))),
            lambda: o.Mul(x, o.Add(o.Mul(t, 0.5), 0.5)),
        ][outer]()

    done = rewritten(build, X)
    assert done.ops == ["Gelu"]
    assert done.only("Gelu").attributes["approximate"] == "tanh"


def test_what_is_no_gelu() -> None:
    def of(k: float, one: float, half: float) -> Any:
        return lambda o, x: o.Mul(o.Mul(x, o.Add(o.Erf(o.Mul(x, k)), one)), half)

    unchanged(of(0.7, 1.0, 0.5), X)
    unchanged(of(0.70710678, 1.1, 0.5), X)
    assert fused(of(0.70710678, 1.0, 0.25), X) == ["Gelu", "Mul"]
    unchanged(lambda o, x, z: o.Mul(o.Mul(z, o.Add(o.Erf(o.Mul(x, 0.70710678)), 1.0)), 0.5), X, X + 1)
    unchanged(lambda o, x: o.Mul(o.Mul(x, o.Add(o.Erf(o.Mul(x, 0.70710678)), 1.0)), np.full((3, 1, 1, 1), 0.5)), X)


ACTIVATIONS: Mapping[str, list[Any]] = {
    "Swish": [
        lambda o, x: o.Mul(x, o.Sigmoid(x)),
        lambda o, x: o.Mul(o.Sigmoid(o.Mul(x, 1.702)), x),
        lambda o, x: o.Div(x, o.Add(1.0, o.Exp(o.Neg(x)))),
    ],
    "Sigmoid": [
        lambda o, x: o.Div(1.0, o.Add(o.Exp(o.Neg(x)), 1.0)),
        lambda o, x: o.Reciprocal(o.Add(o.Exp(o.Neg(x)), 1.0)),
    ],
    "HardSigmoid": [
        lambda o, x: o.Div(o.Clip(o.Add(x, 3.0), 0.0, 6.0), 6.0),
        lambda o, x: o.Div(o.Min(o.Relu(o.Add(x, 3.0)), 6.0), 6.0),
        lambda o, x: o.Clip(o.Add(o.Mul(x, 0.2), 0.5), 0.0, 1.0),
        lambda o, x: o.Min(o.Max(o.Add(o.Mul(x, 0.2), 0.5), 0.0), 1.0),
    ],
    "HardSwish": [
        lambda o, x: o.Mul(x, o.Div(o.Clip(o.Add(x, 3.0), 0.0, 6.0), 6.0)),
        lambda o, x: o.Div(o.Mul(x, o.Clip(o.Add(x, 3.0), 0.0, 6.0)), 6.0),
        lambda o, x: o.Mul(o.Mul(x, 1 / 6), o.Clip(o.Add(x, 3.0), 0.0, 6.0)),
        lambda o, x: o.Mul(x, o.HardSigmoid(x, alpha=1 / 6, beta=0.5)),
        lambda o, x: o.Mul(x, o.Mul(o.Min(o.Max(o.Add(x, 3.0), 0.0), 6.0), 1 / 6)),
    ],
    "LeakyRelu": [
        lambda o, x: o.Max(x, o.Mul(x, 0.2)),
        lambda o, x: o.Sub(o.Relu(x), o.Mul(0.2, o.Relu(o.Neg(x)))),
        lambda o, x: o.Add(o.Relu(x), o.Mul(-0.2, o.Relu(o.Neg(x)))),
        lambda o, x: o.Where(o.Greater(x, 0.0), x, o.Mul(x, 0.2)),
        lambda o, x: o.PRelu(x, [0.2]),
    ],
    "PRelu": [
        lambda o, x: o.Sub(o.Relu(x), o.Mul(np.abs(channels(5, 2)), o.Relu(o.Neg(x)))),
        lambda o, x: o.Add(o.Relu(x), o.Mul(o.Mul(o.Sub(x, o.Abs(x)), channels(5, 2)), 0.5)),
        lambda o, x: o.Max(x, o.Mul(x, np.abs(np.tanh(channels(5, 2))))),
    ],
    "Mish": [
        lambda o, x: o.Mul(x, o.Tanh(o.Softplus(x))),
        lambda o, x: o.Mul(x, o.Tanh(o.Log(o.Add(1.0, o.Exp(x))))),
    ],
    "Softplus": [lambda o, x: o.Log(o.Add(o.Exp(x), 1.0))],
    "Elu": [
        lambda o, x: o.Where(o.Greater(x, 0.0), x, o.Sub(o.Exp(x), 1.0)),
        lambda o, x: o.Where(o.Greater(x, 0.0), x, o.Mul(0.7, o.Sub(o.Exp(x), 1.0))),
    ],
}


@pytest.mark.parametrize(("name", "build"), [(n, b) for n, builds in ACTIVATIONS.items() for b in builds])
def test_activation_functions(name: str, build: Any) -> None:
    assert fused(build, X * 3) == [name]
    assert fused(build, (X * 3).astype(HALF), rtol=6e-3) == [name]


@pytest.mark.parametrize(
    "build",
    [
        lambda o, x: o.Max(x, o.Mul(x, 1.5)),
        lambda o, x: o.Max(x, o.Mul(x, -0.2)),
        lambda o, x: o.Mul(x, o.Sigmoid(o.Add(x, 1.0))),
        lambda o, x: o.Mul(x, o.Sigmoid(o.Mul(x, normal(8)))),
        lambda o, x: o.Mul(o.Clip(o.Add(x, 3.0), 0.0, 6.0), 0.2),
        lambda o, x: o.Mul(x, o.HardSigmoid(x)),
        lambda o, x: o.Log(o.Add(o.Exp(x), 2.0)),
        lambda o, x: o.Where(o.Less(x, 0.0), x, o.Mul(x, 0.2)),
        lambda o, x: o.Where(o.Greater(x, 1.0), x, o.Mul(x, 0.2)),
    ],
)
def test_what_is_no_activation_function(build: Any) -> None:
    unchanged(build, X)


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
        h = o.Mul(o.Mul(h, o.Add(o.Erf(o.Div(h, SQRT2)), 1.0)), 0.5)
        return layer_norm(o, o.Add(x, linear(o, h, 16, 8, 6)))

    count = Counter(fused(build, X, rtol=1e-4))
    assert count.pop("Add") == count.pop("MatMul") == 8
    assert count == {"Transpose": 4, "Reshape": 4, "LayerNormalization": 2, "Softmax": 1, "Gelu": 1, "Mul": 1}

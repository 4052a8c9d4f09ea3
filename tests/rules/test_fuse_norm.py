"""The stage fuse: what exporters write for a normalization or a softmax becomes one operator; nothing else does."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from compiler import ir
from tests.rules.layers import BETA, G, channels, layer_norm, norm
from tests.rules.onnx_graph import Open, fused, graph, library, normal, rewritten, unchanged

X = normal(2, 5, 8)
IMAGE = normal(2, 4, 6, 7)
HALF = np.float16


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

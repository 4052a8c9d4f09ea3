"""The stage canonicalize: what each rule makes of a graph, and what it must leave alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler import ir
from tests.rules.onnx_graph import Open, graph, library, normal, rewritten, unchanged

STAGE = ("canonicalize",)
X = normal(2, 3, 4)
SPECIAL = np.array([[np.nan, -np.inf, np.inf, -0.0, 0.0, -1.5, 2.5, 7.0]], np.float32)


def canonical(build: Any, *inputs: Any, **options: Any) -> list[str]:
    return rewritten(build, *inputs, stages=STAGE, **options).ops


def left_alone(build: Any, *inputs: Any) -> None:
    unchanged(build, *inputs, stages=STAGE)


@pytest.mark.parametrize(
    "build",
    [
        lambda o, x: o.Identity(x),
        lambda o, x: o.Dropout(x, 0.5),
        lambda o, x: o.Cast(x, to=ir.F32),
        lambda o, x: o.Add(x, 0.0),
        lambda o, x: o.Add(np.zeros((1, 4), np.float32), x),
        lambda o, x: o.Sub(x, 0.0),
        lambda o, x: o.Mul(x, 1.0),
        lambda o, x: o.Div(x, np.ones((3, 1), np.float32)),
        lambda o, x: o.Pow(x, 1.0),
        lambda o, x: o.Max(o.Identity(x)),
        lambda o, x: o.Max(x, -np.inf),
        lambda o, x: o.Min(x, np.inf),
        lambda o, x: o.Neg(o.Neg(x)),
        lambda o, x: o.Reshape(x, [0, 3, -1]),
        lambda o, x: o.Reshape(o.Reshape(x, [4, 6]), [2, 3, 4]),
        lambda o, x: o.Squeeze(o.Unsqueeze(x, [0, -1]), [-1, 0]),
        lambda o, x: o.Transpose(x, perm=(0, 1, 2)),
        lambda o, x: o.Transpose(o.Transpose(x, perm=(1, 2, 0)), perm=(2, 0, 1)),
        lambda o, x: o.Transpose(o.Transpose(x)),
        lambda o, x: o.Slice(x, [0, 0], [9223372036854775807, 4], [0, 2]),
        lambda o, x: o.Gather(x, [0, 1, 2], axis=1),
        lambda o, x: o.Split(x, num_outputs=1, axis=2),
        lambda o, x: o.Concat(x, axis=0),
        lambda o, x: o.Pad(x, [0] * 6),
        lambda o, x: o.Expand(x, [3, 1]),
        lambda o, x: o.Tile(x, [1, 1, 1]),
        lambda o, x: o.Resize(x, None, [1.0, 1.0, 1.0], mode="linear"),
        lambda o, x: o.Resize(x, None, None, [2, 3, 4], mode="nearest"),
        lambda o, x: o.Where(np.array([True]), x, 0.0),
        lambda o, x: o.Where(np.array([False]), 0.0, x),
        lambda o, x: o.Where(np.array([True, False, True, False]), x, x),
    ],
)
def test_operators_that_do_nothing_are_dropped(build: Any) -> None:
    assert canonical(build, X) == []


@pytest.mark.parametrize(
    "build",
    [
        lambda o, x: o.Cast(x, to=ir.F64),
        lambda o, x: o.Add(x, np.zeros((5, 1, 1, 1), np.float32)),  # makes the result larger
        lambda o, x: o.Add(o.Reshape(x, [6, 4, 1]), np.zeros((1, 1, 5), np.float32)),
        lambda o, x: o.Add(x, [0.0, 0.0, 0.0, 1.0]),
        lambda o, x: o.Pow(1.0, x),
        lambda o, x: o.Mul(x, 0.0),  # NaN · 0 is NaN
        lambda o, x: o.Slice(x, [-1], [-9223372036854775807], [2], [-1]),  # the same shape, from behind
        lambda o, x: o.Pad(x, [0, 0, -1, 0, 0, 1]),  # the same shape, shifted
        lambda o, x: o.Resize(x, None, [1.0, 1.0, 1.1], mode="linear"),  # rounds to the same shape
        lambda o, x: o.Squeeze(o.Unsqueeze(x, [0, 1]), [0]),
        lambda o, x: o.Where(np.array([True, False, True, True]), x, 0.0),
        lambda o, x: o.Sub(1.0, x),
    ],
)
def test_what_looks_like_nothing_but_is_not_stays(build: Any) -> None:
    assert canonical(build, X)


def test_dropout_in_training_and_with_its_mask_stays() -> None:
    module, _ = graph(lambda o, x: o.Dropout(x, 0.5, np.array(True)), X)
    assert not library().rewrite(module, "canonicalize").fires
    assert canonical(lambda o, x: o.Dropout(x, 0.5, results=2), X) == ["Dropout"]


def test_unknown_dimensions_are_equal_to_nothing() -> None:
    left_alone(lambda o, x: o.Expand(x, [1, 1, 1]), Open(X, "?", 3, 4))
    assert canonical(lambda o, x: o.Add(x, 0.0), Open(X, "n", "?", 4)) == []
    left_alone(lambda o, x: o.Add(x, np.zeros((1,), np.float32)), Open(X))  # a scalar would gain an axis
    assert canonical(lambda o, x: o.Reshape(x, [-1, 3, 4]), Open(X, "n", 3, 4)) == []
    left_alone(lambda o, x, s: o.Reshape(x, s), Open(X, "n", "m", 4), np.array([2, 3, 4]))


# ---- arithmetic


def test_sums_and_products_have_their_constant_on_the_right() -> None:
    for name in ("Add", "Mul", "Max"):
        op = rewritten(lambda o, x, name=name: getattr(o, name)(2.0, x), X, stages=STAGE).only(name)
        assert op.operands[1].constant is not None
    assert canonical(lambda o, x: o.Sub(x, 2.0), X) == ["Add"]
    assert canonical(lambda o, x: o.Div(x, 3.0), X) == ["Mul"]
    left_alone(lambda o, x: o.Div(x, 3), np.arange(-6, 6))  # integers are divided with truncation
    left_alone(lambda o, x: o.Div(x, [0.0, 1.0, 2.0, 3.0]), X)
    left_alone(lambda o, x: o.Div(x, 1e38), X)  # 1/k is subnormal
    left_alone(lambda o, x: o.Sub(x, np.array([1], np.uint8)), np.arange(3, 9, dtype=np.uint8))


def test_chains_of_constants_are_gathered() -> None:
    assert canonical(lambda o, x: o.Add(o.Add(x, 1.0), [1.0, 2.0, 3.0, 4.0]), X) == ["Add"]
    assert canonical(lambda o, x: o.Mul(o.Div(o.Mul(x, 3.0), 7.0), 0.5), X) == ["Mul"]
    assert canonical(lambda o, x: o.Mul(o.Add(o.Mul(x, 2.0), 1.0), [3.0, 1.0, 2.0, 4.0]), X) == ["Add", "Mul"]
    assert canonical(lambda o, x: o.Neg(o.Mul(x, 2.0)), X) == ["Mul"]
    assert canonical(lambda o, x: o.Mul(o.Neg(x), 2.0), X) == ["Mul"]


def test_chains_that_round_overflow_grow_or_are_shared_stay() -> None:
    left_alone(lambda o, x: o.Add(o.Add(x, 12582912.0), -12582912.0), X)
    left_alone(lambda o, x: o.Mul(o.Mul(x, 1e30), 1e30), np.zeros((2, 3), np.float32))
    left_alone(lambda o, x: o.Mul(o.Mul(x, 1e-30), 1e-30), X)
    column, row = np.ones((3, 1), np.float32) * 2, np.array([1, 2, 3, 4], np.float32)
    left_alone(lambda o, x: o.Add(o.Add(x, column), row), X)
    left_alone(lambda o, x: (s := o.Add(x, 1.0), o.Add(s, 2.0)), X)


def test_several_operands_become_two() -> None:
    assert canonical(lambda o, x: o.Sum(x, x, x), X) == ["Add", "Add"]
    assert canonical(lambda o, x: o.Max(x, o.Neg(x), o.Abs(x)), X) == ["Abs", "Max", "Max", "Neg"]
    assert canonical(lambda o, x, y: o.Mean(x, y), X, normal(3, 1)) == ["Add", "Mul"]


def test_signs() -> None:
    assert canonical(lambda o, x, y: o.Add(x, o.Neg(y)), X, X + 1) == ["Sub"]
    assert canonical(lambda o, x, y: o.Sub(x, o.Neg(y)), X, X + 1) == ["Add"]
    assert canonical(lambda o, x, y: o.Neg(o.Sub(x, y)), X, X + 1) == ["Sub"]
    assert canonical(lambda o, x: o.Abs(o.Neg(x)), X) == ["Abs"]
    left_alone(lambda o, x, y: (d := o.Sub(x, y), o.Neg(d)), X, X + 1)


def test_powers_and_roots() -> None:
    assert canonical(lambda o, x: o.Pow(x, 2.0), X) == ["Mul"]
    assert canonical(lambda o, x: o.Pow(x, np.array(3)), X) == ["Mul", "Mul"]
    assert canonical(lambda o, x: o.Pow(o.Add(o.Pow(x, 2.0), 1.0), 0.5), X) == ["Add", "Mul", "Sqrt"]
    assert canonical(lambda o, x: o.Pow(o.Exp(x), -0.5), X) == ["Exp", "Reciprocal", "Sqrt"]
    left_alone(lambda o, x: o.Pow(x, 0.5), SPECIAL)  # of −∞ the power is ∞ and the root is NaN
    left_alone(lambda o, x: o.Pow(x, [2.0, 2.0, 2.0, 3.0]), X)
    assert canonical(lambda o, x: o.Div(1.0, x), X) == ["Reciprocal"]
    assert canonical(lambda o, x, y: o.Mul(o.Reciprocal(y), x), X, X + 5) == ["Div"]
    assert canonical(lambda o, x, y: o.Mul(x, o.Div([1.0, 2.0, 3.0, 4.0], y)), X, X + 5) == ["Div", "Mul"]
    assert canonical(lambda o, x: o.Mul(r := o.Sqrt(o.Exp(x)), r), X) == ["Exp"]
    left_alone(lambda o, x: o.Mul(r := o.Sqrt(x), r), SPECIAL)


def test_tensorflows_normalization_is_factored() -> None:
    def build(o: Any, x: Any, m: Any, k: Any) -> Any:
        return o.Add(o.Mul(x, k), o.Sub([1.0, 2.0, 3.0, 4.0], o.Mul(m, k)))

    assert canonical(build, X, normal(2, 3, 1), np.abs(normal(2, 3, 1, seed=1))) == ["Add", "Mul", "Sub"]


def test_bounds() -> None:
    assert canonical(lambda o, x: o.Max(x, 0.0), SPECIAL) == ["Relu"]
    assert canonical(lambda o, x: o.Min(o.Max(x, -1.0), 6.0), SPECIAL) == ["Clip"]
    assert canonical(lambda o, x: o.Max(o.Min(x, 6.0), -1.0), SPECIAL) == ["Clip"]
    assert canonical(lambda o, x: o.Min(o.Relu(x), 6.0), SPECIAL) == ["Clip"]
    assert canonical(lambda o, x: o.Clip(o.Relu(x), -1.0, 6.0), SPECIAL) == ["Clip"]
    assert canonical(lambda o, x: o.Relu(o.Clip(x, -1.0, 6.0)), SPECIAL) == ["Clip"]
    assert canonical(lambda o, x: o.Clip(o.Clip(x, -1.0, 2.0), 0.0, 6.0), SPECIAL) == ["Clip"]
    assert canonical(lambda o, x: o.Clip(x, 0.0), X) == ["Relu"]
    assert canonical(lambda o, x: o.Clip(x), X) == []
    assert canonical(lambda o, x: o.Relu(o.Sigmoid(x)), SPECIAL) == ["Sigmoid"]
    assert canonical(lambda o, x: o.Floor(o.Round(x)), SPECIAL) == ["Round"]
    left_alone(lambda o, x: o.Max(x, 1.0), SPECIAL)  # Clip without the other bound brings ∞ to the greatest number
    left_alone(lambda o, x: o.Min(o.Max(x, 3.0), 1.0), SPECIAL)
    left_alone(lambda o, x: o.Clip(o.Clip(x, 3.0, 1.0), 0.0, 6.0), X)
    left_alone(lambda o, x: o.Relu(o.Tanh(x)), X)
    left_alone(lambda o, x: o.Min(o.Max(x, [0.0, 1.0, 2.0, 3.0]), 6.0), X)


def test_bounds_in_half_precision() -> None:
    assert canonical(lambda o, x: o.Min(o.Max(x, 0.0), 6.0), X.astype(np.float16)) == ["Clip"]


def test_truth() -> None:
    n = np.arange(6).reshape(2, 3)
    assert canonical(lambda o, x: o.Not(o.Less(x, [3])), n) == ["GreaterOrEqual"]
    assert canonical(lambda o, x: o.Not(o.Not(o.Less(x, 0.0))), SPECIAL) == ["Less"]
    left_alone(lambda o, x: o.Not(o.Less(x, 0.0)), SPECIAL)  # not NaN < 0, and not NaN ≥ 0 either
    assert canonical(lambda o, x: o.Where(o.Not(o.Less(x, 0.0)), x, 1.0), SPECIAL) == ["Less", "Where"]
    assert canonical(lambda o, x: o.And(np.array([True]), o.Less(x, 0.0)), SPECIAL) == ["Less"]


def test_casts() -> None:
    half = X.astype(np.float16)
    assert canonical(lambda o, x: o.Cast(o.Cast(x, to=ir.F32), to=ir.F16), half) == []
    assert canonical(lambda o, x: o.Cast(o.Cast(x, to=ir.I32), to=ir.F32), X > 0) == ["Cast"]
    left_alone(lambda o, x: o.Cast(o.Cast(x, to=ir.I32), to=ir.F32), X * 3)
    left_alone(lambda o, x: o.Cast(o.Cast(x, to=ir.F32), to=ir.I64), np.array([2**53 + 1, 16777217]))
    left_alone(lambda o, x: o.Cast(o.Cast(x, to=ir.dtype("u8")), to=ir.I32), np.array([-1, 300], np.int32))


# ---- reductions and matrix products


def test_reductions() -> None:
    assert canonical(lambda o, x: o.Squeeze(o.ReduceMean(x, [-1]), [2]), X) == ["ReduceMean"]
    assert canonical(lambda o, x: o.Unsqueeze(o.ReduceMax(x, [1], keepdims=0), [1]), X) == ["ReduceMax"]
    assert canonical(lambda o, x: o.Reshape(o.ReduceSum(x, [1], keepdims=0), [2, 1, 4]), X) == ["ReduceSum"]
    assert canonical(lambda o, x: o.Reshape(o.ReduceSum(x, [1]), [2, 4]), X) == ["ReduceSum"]
    assert canonical(lambda o, x: o.ReduceMean(x, [0]), X[:1]) == []
    assert canonical(lambda o, x: o.Mul(o.ReduceSum(x, [1, 2], noop_with_empty_axes=1), 1 / 12), X) == ["ReduceMean"]
    assert canonical(lambda o, x: o.Mul(o.ReduceSum(o.Mul(x, x), [2]), 0.25), X) == ["Mul", "ReduceMean"]
    assert canonical(lambda o, x: o.Sqrt(o.ReduceSum(o.Mul(x, x), [2])), X) == ["ReduceL2"]
    assert canonical(lambda o, x: o.ReduceSum(o.Abs(x), [2]), X) == ["ReduceL1"]
    left_alone(lambda o, x: o.Mul(o.ReduceSum(x, [1, 2]), 1 / 4), X)
    left_alone(lambda o, x: o.ReduceSum(x, noop_with_empty_axes=1), X)
    left_alone(lambda o, x: o.Squeeze(o.ReduceMean(x, [0]), [0, 1]), X[:, :1])


def test_reductions_of_transposed() -> None:
    image = normal(2, 3, 4, 5)
    op = rewritten(lambda o, x: o.ReduceMax(o.Transpose(x, perm=(0, 2, 3, 1)), [1, 2], keepdims=0), image, stages=STAGE)
    assert op.ops == ["ReduceMax"]
    left_alone(lambda o, x: o.ReduceMax(o.Transpose(x, perm=(2, 0, 1)), [1], keepdims=0), X)


def test_global_pooling_is_a_reduction() -> None:
    image = normal(2, 3, 4, 5)
    assert canonical(lambda o, x: o.GlobalAveragePool(x), image) == ["ReduceMean"]
    assert canonical(lambda o, x: o.AveragePool(x, kernel_shape=(4, 5)), image) == ["ReduceMean"]
    padded = {"kernel_shape": (4, 5), "pads": (1, 1, 1, 1)}
    left_alone(lambda o, x: o.AveragePool(x, **padded), image)
    left_alone(lambda o, x: o.AveragePool(x, **padded, count_include_pad=1), image)


def test_products_by_gemm() -> None:
    a, b, c = normal(3, 4), normal(4, 5, seed=1), normal(5, seed=2)
    assert canonical(lambda o, a, b, c: o.Gemm(a, b, c, alpha=0.5, beta=2.0), a, b, c) == [
        "Add",
        "MatMul",
        "Mul",
        "Mul",
    ]
    assert canonical(lambda o, a, b: o.Gemm(a, b, transA=1, transB=1), a.T.copy(), b.T.copy()) == [
        "MatMul",
        "Transpose",
        "Transpose",
    ]
    factors = rewritten(lambda o, x: o.Gemm(x, b, c, alpha=0.5, beta=2.0), a, stages=STAGE)
    assert factors.only("Gemm").attributes["alpha"] == 1
    assert canonical(lambda o, x: o.Gemm(x, b, transA=1), a.T.copy()) == ["Gemm", "Transpose"]
    assert canonical(lambda o, x: o.Gemm(x, b, normal(3, 5)), a) == ["Add", "MatMul"]


def test_products_between_reshapes() -> None:
    w, c = normal(4, 5), normal(5)

    def linear(o: Any, x: Any, to: Any) -> Any:
        return o.Reshape(o.Gemm(o.Reshape(x, [-1, 4]), w, c), to)

    assert canonical(lambda o, x: linear(o, x, [2, 3, 5]), X) == ["Add", "MatMul"]
    assert canonical(lambda o, x: linear(o, x, [-1, 3, 5]), Open(X, "?", 3, 4)) == ["Add", "MatMul"]
    assert canonical(lambda o, x: linear(o, x, [3, 2, 5]), X) == ["Gemm", "Reshape", "Reshape"]
    assert canonical(lambda o, x: o.Reshape(o.MatMul(o.Reshape(x, [6, 4]), w), [2, 3, 5]), X) == ["MatMul"]


# ---- movement


def test_reshapes() -> None:
    assert canonical(lambda o, x: o.Reshape(o.Reshape(x, [6, 4]), [0, 2, 2]), X) == ["Reshape"]
    assert canonical(lambda o, x: o.Flatten(o.Unsqueeze(x, [1])), X) == ["Reshape"]
    assert canonical(lambda o, x: o.Unsqueeze(o.Reshape(x, [6, 4]), [1]), X) == ["Reshape"]
    assert canonical(lambda o, x: o.Squeeze(o.Reshape(x, [6, 1, 4]), [1]), X) == ["Reshape"]
    assert canonical(lambda o, x: o.Unsqueeze(o.Unsqueeze(x, [0]), [2]), Open(X, "n", 3, 4)) == ["Unsqueeze"]
    assert canonical(lambda o, x: o.Squeeze(o.Squeeze(x, [0]), [1]), Open(X[:1, :, :1], 1, "n", 1)) == ["Squeeze"]
    op = rewritten(lambda o, x: o.Squeeze(x), X[:1], stages=STAGE).only("Squeeze")
    assert op.operands[1].constant.tolist() == [0]


def test_a_shape_that_is_computed_but_known_is_freed() -> None:
    def build(o: Any, x: Any) -> Any:
        n = o.Slice(o.Shape(x), [0], [1])
        return o.Reshape(x, o.Concat(n, [12], axis=0))

    done = rewritten(build, Open(X, "n", 3, 4), stages=STAGE)
    assert done.ops == ["Reshape"]
    assert done.only("Reshape").operands[1].constant.tolist() == [-1, 12]


def test_two_open_dimensions_keep_their_places() -> None:
    def build(o: Any, x: Any) -> Any:
        return o.Reshape(x, o.Concat(o.Slice(o.Shape(x), [0], [2]), [2, 2], axis=0))

    done = rewritten(build, Open(X, "n", "m", 4), stages=STAGE)
    assert done.only("Reshape").operands[1].constant.tolist() == [0, 0, 2, 2]


def test_an_empty_tensor_is_not_reshaped_by_another_target() -> None:
    empty = np.zeros((0, 3, 4), np.float32)
    assert canonical(lambda o, x: o.Reshape(x, [3, 0, 4], allowzero=1), empty) == ["Reshape"]


def test_transposes() -> None:
    assert canonical(lambda o, x: o.Transpose(o.Transpose(x, perm=(2, 0, 1)), perm=(2, 0, 1)), X) == ["Transpose"]
    assert canonical(lambda o, x: o.Transpose(x, perm=(1, 0, 2)), X[:1]) == ["Reshape"]
    left_alone(lambda o, x: o.Transpose(x, perm=(1, 0, 2)), Open(X[:1], "n", 3, 4))

    def between(o: Any, x: Any) -> Any:
        return o.Reshape(o.Transpose(o.Reshape(x, [3, 4]), perm=(1, 0)), [1, 4, 3])

    assert canonical(between, X[:1]) == ["Transpose"]
    left_alone(lambda o, x: o.Reshape(o.Transpose(o.Reshape(x, [6, 4]), perm=(1, 0)), [4, 2, 3]), X)


def test_slices() -> None:
    assert canonical(lambda o, x: o.Slice(o.Slice(x, [1], [3], [1]), [0], [2], [2]), X) == ["Slice"]
    assert canonical(lambda o, x: o.Slice(o.Slice(x, [1], [4], [2]), [1], [3], [2]), X) == ["Slice"]
    assert canonical(lambda o, x: o.Slice(o.Slice(x, [0], [4], [2], [2]), [1], [2], [2]), X) == ["Slice"]
    assert canonical(lambda o, x: o.Slice(o.Slice(x, [1], [4], [2]), [-1], [9], [-1]), X) == ["Slice"]
    backwards = ([-1], [-9223372036854775807], [2], [-1])
    left_alone(lambda o, x: o.Slice(o.Slice(x, *backwards), [1], [3], [2]), X)
    left_alone(lambda o, x: (s := o.Slice(x, [1], [3], [1]), o.Slice(s, [0], [1], [2])), X)


def test_gathers_of_constants_are_slices() -> None:
    assert canonical(lambda o, x: o.Gather(x, np.array(1), axis=1), X) == ["Slice", "Squeeze"]
    assert canonical(lambda o, x: o.Gather(x, np.array(-1), axis=-1), X) == ["Slice", "Squeeze"]
    assert canonical(lambda o, x: o.Gather(x, np.array(-2), axis=2), X) == ["Slice", "Squeeze"]
    assert canonical(lambda o, x: o.Gather(x, [0, 2], axis=1), X) == ["Slice"]
    left_alone(lambda o, x: o.Gather(x, [2, 0], axis=1), X)
    left_alone(lambda o, x: o.Gather(x, [1, 1], axis=1), X)
    left_alone(lambda o, x, i: o.Gather(x, i, axis=1), X, np.array([0, 1]))


def test_concats_are_flat() -> None:
    assert canonical(lambda o, x, y: o.Concat(x, o.Concat(y, x, axis=1), y, axis=1), X, X + 1) == ["Concat"]
    left_alone(lambda o, x, y: o.Concat(o.Concat(x, y, axis=1), o.Concat(y, x, axis=1), axis=2), X, X + 1)
    left_alone(lambda o, x, y: (c := o.Concat(x, y, axis=1), o.Concat(c, x, axis=1)), X, X + 1)


def test_repetition_is_left_to_broadcasting() -> None:
    row = normal(1, 4)
    assert canonical(lambda o, x, r: o.Add(o.Expand(r, [2, 3, 4]), x), X, row) == ["Add"]
    assert canonical(lambda o, x, r: o.Sub(x, o.Tile(r, [3, 1])), X, row) == ["Sub"]
    assert canonical(lambda o, x, r: o.Where(o.Less(x, 0.0), o.Expand(r, [3, 4]), x), X, row) == ["Less", "Where"]
    assert canonical(lambda o, x: o.Expand(o.Expand(x, [3, 4]), [2, 3, 4]), row) == ["Expand"]
    left_alone(lambda o, x, r: o.Add(o.Expand(r, [5, 1, 1, 4]), x), X, row)
    left_alone(lambda o, x: o.Add(o.Expand(x, [3, 4]), [1.0, 2.0, 3.0, 4.0]), row)
    left_alone(
        lambda o, x, y, s: o.Add(o.Expand(x, s), y), Open(row, "?", 4), Open(normal(3, 4), "?", 4), np.array([3, 4])
    )

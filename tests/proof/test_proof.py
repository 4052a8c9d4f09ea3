"""The proof's arithmetic, its inputs, and that it catches what is wrong and says where."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler import ir
from compiler.errors import UserError
from compiler.execution import samples
from compiler.proof import EXACT_PSNR, compare, judge

F = np.float32


def test_equal_arrays_are_exact() -> None:
    a = np.arange(6, dtype=F).reshape(2, 3)
    error = compare(a, a.copy())
    assert (error.rel_l2, error.max_abs, error.psnr, error.argmax) == (0.0, 0.0, EXACT_PSNR, 1.0)


def test_metrics_follow_their_formulas() -> None:
    b = np.array([3.0, 4.0], F)
    error = compare(b + np.array([0.3, -0.4], F), b)
    assert error.rel_l2 == pytest.approx(0.1)
    assert error.max_abs == pytest.approx(0.4)
    assert error.psnr == pytest.approx(20 * math.log10(4.0 / (0.5 / math.sqrt(2))), rel=1e-6)


def test_nan_in_both_is_undefined_and_nan_in_one_is_wrong() -> None:
    b = np.array([1.0, np.nan, np.inf], F)
    both = compare(b.copy(), b)
    assert both.rel_l2 == 0.0
    assert both.undefined == 1
    assert compare(np.array([np.nan, np.nan, np.inf], F), b).rel_l2 == math.inf
    assert compare(np.array([1.0, np.nan, -np.inf], F), b).rel_l2 == math.inf
    assert judge(["y"], [[b.copy()]], [[b]], "fp32").notes == ["output 'y' has 1 NaN in the original model too"]


def test_zeros_where_zeros_are_due_and_where_not() -> None:
    zero = np.zeros(4, F)
    assert compare(zero, zero).rel_l2 == 0.0
    assert compare(zero + 1, zero).rel_l2 == math.inf
    assert compare(zero, zero + 1).rel_l2 == 1.0


def test_integers_are_held_to_agreement() -> None:
    labels = np.arange(1000, dtype=np.int64)
    ours = labels.astype(np.int32)
    assert compare(ours, labels).agree == 1.0
    ours[:15] += 1
    error = compare(ours, labels)
    assert error.agree == pytest.approx(0.985)
    assert error.passes("fp16")
    assert not error.passes("fp32")


def test_a_large_label_that_is_off_by_one_is_wrong() -> None:
    assert not compare(np.array([30001]), np.array([30000])).passes("fp16")


def test_a_shape_that_differs_is_wrong() -> None:
    assert compare(np.zeros((1, 4), F), np.zeros(4, F)).rel_l2 == math.inf


def test_empty_outputs_agree() -> None:
    assert compare(np.zeros((0, 4), F), np.zeros((0, 4), F)).rel_l2 == 0.0


def test_the_verdict_keeps_the_worst_of_all_sets() -> None:
    good, bad = np.ones(4, F), np.array([1, 1, 1, 1.5], F)
    verdict = judge(["y"], [[good], [bad], [good]], [[good]] * 3, "fp16")
    assert verdict.status == "failed"
    assert verdict.failing_set == 1
    assert verdict.outputs["y"].max_abs == 0.5
    assert verdict.to_json()["outputs"]["y"]["rel_l2"] == pytest.approx(0.25)


def _embedding() -> ir.Function:
    import compiler.dialects.onnx  # noqa: F401 (registers onnx.*)

    main = ir.Function(
        "main",
        {
            "ids": ir.TensorType(ir.I64, (1, 6)),
            "attention_mask": ir.TensorType(ir.I64, (1, 6)),
            "k": ir.TensorType(ir.I64, ()),
        },
        ["y"],
    )
    b = ir.Builder(main.block)
    table = b.constant(np.ones((11, 4), F), "onnx")
    y = b.op("onnx.Gather", [table, main.inputs[0]], {"axis": 0}).result
    main.set_outputs([y])
    return main


def test_inputs_are_the_same_every_time_and_stay_inside_tables() -> None:
    first, second = samples.generate(_embedding(), 2), samples.generate(_embedding(), 2)
    for a, b in zip(first, second, strict=True):
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
    many = np.concatenate([s["ids"].ravel() for s in samples.generate(_embedding(), 20)])
    assert many.min() >= 0
    assert 4 < many.max() < 11
    assert first[0]["attention_mask"].all()
    assert first[0]["k"].shape == ()


def test_arrays_that_do_not_fit_are_refused() -> None:
    good = samples.generate(_embedding())[0]
    assert list(samples.fitted(dict(reversed(good.items())), _embedding())) == ["ids", "attention_mask", "k"]
    with pytest.raises(UserError, match="'ids' has shape"):
        samples.fitted({**good, "ids": np.zeros((1, 5), np.int64)}, _embedding())
    with pytest.raises(UserError, match="no array for input 'k'"):
        samples.fitted({n: a for n, a in good.items() if n != "k"}, _embedding())


def test_what_looks_like_a_picture_gets_one() -> None:
    main = ir.Function(
        "main",
        {
            "nchw": ir.TensorType(ir.F32, (2, 3, 48, 64)),
            "nhwc": ir.TensorType(ir.F32, (1, 48, 64, 1)),
            "noise": ir.TensorType(ir.F32, (1, 8, 48, 64)),
        },
    )
    normal, uniform = samples.generate(main, 2)
    assert [a.shape for a in normal.values()] == [(2, 3, 48, 64), (1, 48, 64, 1), (1, 8, 48, 64)]
    for name in ("nchw", "nhwc"):
        neighbours = np.diff(normal[name], axis=-1 if name == "nchw" else 2)
        assert np.abs(neighbours).mean() < 0.5 * np.abs(np.diff(normal["noise"], axis=-1)).mean()
        assert uniform[name].min() > -0.5
    assert not np.array_equal(normal["nchw"][0], normal["nchw"][1])


def test_tiny_probabilities_are_held_to_the_same_limit() -> None:
    p = np.array([1e-5, 3e-5], F)
    assert judge(["p"], [[p + np.array([5e-8, 0], F)]], [[p]], "fp32").status == "failed"
    assert judge(["p"], [[p]], [[p]], "fp32").status == "passed"

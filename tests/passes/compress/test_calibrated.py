"""Error compensation, bias correction, ranges of activations, and the choice of schemes."""

from __future__ import annotations

import itertools

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import compiler.dialects.mil  # noqa: F401 (registers mil.*)
from compiler import ir
from compiler.ir import clone_module, parse_module
from passes.compress import Linear, Palette, weights, windows
from passes.compress import run as compress
from passes.compress.activations import Histogram, parameters
from passes.compress.assign import Choice, within_error, within_size
from passes.compress.calibrated import Means, Statistics, correction, encoder
from passes.compress.compensate import compensate, output_error


def inputs(count: int, length: int) -> np.ndarray:
    """Columns whose elements hang together, as a layer's inputs do."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((1, count, length)) @ rng.standard_normal((1, length, length)) + 0.3


def test_compensation_is_better_than_rounding():
    rng = np.random.default_rng(0)
    x = inputs(500, 48)
    h = x.transpose(0, 2, 1) @ x / 500
    w = rng.standard_normal((1, 16, 48))
    plain = np.round(2 * w) / 2
    better = compensate(w, h, lambda column, _: np.round(2 * column) / 2)
    np.testing.assert_array_equal(better, np.round(2 * better) / 2)
    assert output_error(w, better, h) < 0.5 * output_error(w, plain, h)
    # The error that is measured is that of the outputs.
    lost = np.square(x @ (better - w).transpose(0, 2, 1)).sum(-1).mean()
    assert output_error(w, better, h) == pytest.approx(lost)


@pytest.mark.parametrize("scheme", [Linear(), Linear("uint4", False, "block", 4), Palette(4, 16), Palette(3)])
def test_a_calibrated_layer_is_nearer_to_the_original(scheme):
    rng = np.random.default_rng(3)
    w = (rng.standard_normal((64, 48)) / 7).astype(np.float32)
    module = ir.Module("m")
    main = module.add(ir.Function("main", {"x": ir.TensorType(ir.F32, (1, 48))}, ["y"]))
    b = ir.Builder(main.block)
    held = b.constant(w, "mil", "w")
    y = b.op("mil.linear", [main.inputs[0], held], result_types=[ir.TensorType(ir.F32, (1, 64))])
    main.set_outputs([y.result])
    x = inputs(400, 48)
    known = Statistics(np.zeros((1, 48, 48), np.float32), np.zeros((1, 48), np.float32))
    known.add(x)
    (weight,) = weights(module)
    copy = ir.clone_module(module)
    (plain,) = compress(copy, scheme, 18)
    (better,) = compress(ir.clone_module(module), scheme, 18, encoder=encoder({"w": known}))
    off = [np.square(x[0] @ (r.dense - w).T).sum() for r in (plain, better)]
    assert off[1] < 0.9 * off[0]
    shift = correction(weight, better.dense, known)
    np.testing.assert_allclose(shift, (x[0] @ (w - better.dense).T).mean(0), atol=1e-4)
    corrected = np.square(x[0] @ (better.dense - w).T + shift).sum()
    assert corrected <= off[1]


def test_what_is_used_element_by_element_stays_but_not_with_coremltools_settings():
    module = parse_module("""
module @m {
  func @main(%x: tensor<64x64xf32>) -> (%z: tensor<64x64xf32>) {
    %a = mil.const() {val = dense<0.5>} : tensor<64x64xf32>
    %b = mil.const() {val = dense<0.25>} : tensor<64x64xf32>
    %y = mil.matmul(%x, %a) : tensor<64x64xf32>
    %z = mil.add(%y, %b) : tensor<64x64xf32>
    return %z
  }
}
""")
    for fit, schemes in ((True, [None, Linear()]), (False, [Linear(), Linear()])):
        assert [r.scheme for r in compress(clone_module(module), Linear(), 17, fit=fit)] == schemes


def test_of_made_up_inputs_no_more_is_believed_than_they_agree_on():
    module = parse_module("""
module @m {
  func @main(%x: tensor<1x2xf32>) -> (%y: tensor<1x3xf32>) {
    %w = mil.const() {val = dense<[0.5, 0.5, 0.5, 0.5, 0.5, 0.5]>} : tensor<3x2xf32>
    %b = mil.const() {val = dense<[0.0, 0.0, 0.0]>} : tensor<3xf32>
    %y = mil.linear(%x, %w, %b) : tensor<1x3xf32>
    return %y
  }
}
""")
    (weight,) = weights(module, 0)
    dense = np.float32([[0.5, 0.5], [0.25, 0.5], [0.5, 0.25]])  # the second row lost of x₀, the third of x₁
    known = Means()
    for x in ([1.0, 4.0], [1.0, -4.0]):
        known.means.append(np.float64([x]))
    np.testing.assert_allclose(correction(weight, dense, known), [0.0, 0.25, 0.0])
    sure = Means()
    sure.means.append(np.float64([[1.0, -4.0]]))
    np.testing.assert_allclose(correction(weight, dense, sure), [0.0, 0.25, -1.0])


@pytest.mark.parametrize(
    ("groups", "strides", "dilations", "pads"),
    [(1, (1, 1), (1, 1), (0, 0, 0, 0)), (2, (2, 1), (1, 2), (1, 2, 0, 1)), (8, (1, 2), (2, 1), (2, 2, 1, 1))],
)
def test_windows_are_what_a_convolution_multiplies(groups, strides, dilations, pads):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 8, 9, 7)).astype(np.float32)
    w = rng.standard_normal((16, 8 // groups, 3, 2)).astype(np.float32)
    node = helper.make_node(
        "Conv", ["x", "w"], ["y"], group=groups, strides=strides, dilations=dilations,
        pads=[pads[0], pads[2], pads[1], pads[3]],
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    (want,) = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    op = ir.Op("mil.conv", (), [], {"groups": groups, "strides": strides, "dilations": dilations, "pad": pads})
    op.attributes["pad_type"] = "custom"
    columns = windows.columns(op, x, w.shape, rng)
    got = columns @ windows.rows(op, w).transpose(0, 2, 1)  # groups, positions, rows
    got = got.transpose(1, 0, 2).reshape(2, *want.shape[2:], 16).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(got, want, atol=1e-4)
    np.testing.assert_array_equal(windows.back(op, windows.rows(op, w), w.shape), w)
    np.testing.assert_allclose(windows.mean(op, x, w.shape), columns.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("size", [1, 2, 3, 9])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3)])
@pytest.mark.parametrize("dilations", [(1, 1), (2, 1)])
def test_means_of_what_is_smaller_than_the_kernel(size, strides, dilations):
    """Padding makes up for what is missing, and some elements of the kernel meet nothing but it."""
    rng = np.random.default_rng(size)
    x = rng.standard_normal((1, 4, size, 5)).astype(np.float32)
    op = ir.Op("mil.conv", (), [], {"groups": 2, "strides": strides, "dilations": dilations, "pad": (4, 4, 2, 2)})
    op.attributes["pad_type"] = "custom"
    columns = windows.columns(op, x, (6, 2, 5, 5), rng)
    np.testing.assert_allclose(windows.mean(op, x, (6, 2, 5, 5)), columns.mean(axis=1), atol=1e-6)


def test_ranges():
    rng = np.random.default_rng(0)
    seen = Histogram()
    for _ in range(3):
        seen.add(rng.standard_normal(20_000))
    seen.add(np.array([50.0, np.nan, np.inf]))  # an outlier
    assert seen.range("minmax") == (seen.low, 50.0)
    low, high = seen.range("percentile")
    assert -4.5 < low < -2.5
    assert 2.5 < high < 4.5
    low, high = seen.range("mse")
    assert 0.29 * 50 < high < 50  # to leave it out costs less than the steps that it takes
    scale, zero = parameters((-1.0, 3.0), np.float32)
    assert float(scale) == pytest.approx(4 / 255)
    assert int(zero) == -64
    assert parameters((0.0, 0.0), np.float16)[0] == 1


def test_choices_are_the_best_there_are():
    rng = np.random.default_rng(2)
    options = [
        [Choice(int(b), float(e)) for b, e in zip(rng.integers(1, 40, 4), rng.random(4), strict=True)] for _ in range(5)
    ]

    def totals(chosen):
        picked = [o[i] for o, i in zip(options, chosen, strict=True)]
        return sum(c.bits for c in picked), sum(c.error for c in picked)

    every = [totals(c) for c in itertools.product(range(4), repeat=5)]
    bits = sorted(b for b, _ in every)[400]
    assert totals(within_size(options, bits))[1] == pytest.approx(min(e for b, e in every if b <= bits), rel=1e-3)
    error = sorted(e for _, e in every)[300]
    assert totals(within_error(options, error))[0] == min(b for b, e in every if e <= error)
    assert within_size(options, 0) is None
    assert within_error(options, 0.0) is None

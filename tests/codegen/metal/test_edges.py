"""Models at the edge of what kernels compute: the same as onnxruntime to the last integer, or refused by name."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import compiler
from benchmarks.metal_families import HEADER, Case
from codegen.metal import executor, package
from compiler.errors import UnsupportedError

BOXES = np.array([[[0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6], [0, 3, 1, 4]]], np.float32)
SCORES = np.array([[[0.9, 0.8, 0.7, 0.6]]], np.float32)

#: Graphs, and inputs for them.
EXACT = {
    "what overflows a byte is cut, though it is never stored": (
        """g (int32[4] k, uint8[4] l) => (int32[4] y, float[4] z) {
          a = Cast <to = 3> (k) y = Cast <to = 6> (a) b = Add (l, l) z = Cast <to = 1> (b) }""",
        {"k": np.array([300, -129, 127, 70000], np.int32), "l": np.array([1, 127, 128, 255], np.uint8)},
    ),
    "what is added to a byte is cut, too": (
        """g (uint8[2,3] x, int64[2,2] i, uint8[2,2] u) => (float[2,3] y) {
          a = ScatterElements <axis = 1, reduction = "add"> (x, i, u) y = Cast <to = 1> (a) }""",
        {
            "x": np.array([[250, 1, 2], [3, 4, 255]], np.uint8),
            "i": np.array([[0, 0], [2, 1]]),
            "u": np.array([[5, 7], [1, 255]], np.uint8),
        },
    ),
    "floats are cut to bytes": (
        "g (float[3] x) => (int32[3] y) { a = Cast <to = 2> (x) y = Cast <to = 6> (a) }",
        {"x": np.array([300.7, 12.5, 255.9], np.float32)},
    ),
    "products of large integers": (
        "g (int32[3,4] k, int32[4,8] l) => (int32[3,8] y) { y = MatMul (k, l) }",
        {
            "k": np.arange(12, dtype=np.int32).reshape(3, 4) * 991,
            "l": np.arange(32, dtype=np.int32).reshape(4, 8) * 4099 + 1,
        },
    ),
    "a zero point beyond halves": (
        """g (int32[2] k) => (float[2] y) {
          quarter = Constant <value_float = 0.25> () s = Cast <to = 10> (quarter)
          zero = Constant <value = int32 {200000001}> ()
          y = DequantizeLinear <output_dtype = 1> (k, s, zero) }""",
        {"k": np.array([200000000, 100000001], np.int32)},
    ),
    "results of two sizes of the same operands": (
        """g (float[1,1,3] x, float[1,1,2] w) => (float[1,1,7] y, float[1,1,6] z) {
          y = ConvTranspose <strides = [2], output_padding = [1]> (x, w) z = ConvTranspose <strides = [2]> (x, w) }""",
        None,
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_kernels_give_what_onnxruntime_gives(tmp_path, name):
    text, inputs = EXACT[name]
    model = onnx.parser.parse_model(HEADER.replace("21", "23") + text)
    made = compiler.compile(model, target="metal", output=tmp_path / "m.metalpackage", inputs=inputs)
    assert made.report.verify.passed


def test_boxes_that_leave_twice_are_counted_twice(tmp_path):
    text = """g (float[1,4,4] boxes, float[1,1,4] scores) => (int64[n,3] y, int64[n,3] z) {
      y = NonMaxSuppression (boxes, scores, limit, iou) z = NonMaxSuppression (boxes, scores, limit, iou) }"""
    case = Case("", "", text, {"limit": np.array([4]), "iou": np.array([0.5], np.float32)})
    inputs = {"boxes": BOXES, "scores": SCORES}
    made = compiler.compile(case.model(), target="metal", output=tmp_path / "m.metalpackage", inputs=inputs)
    found = executor.Session(package.read(made.path)).run(inputs)
    for name in "yz":
        np.testing.assert_array_equal(found[name], [[0, 0, 0], [0, 0, 2], [0, 0, 3]])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("g (float[3] x) => (float[3] y) { e = Cast <to = 17> (x) y = Cast <to = 1> (e) }", "onnx.Cast at node 'e'"),
        (
            """g (float[1,1,8] x) => (float[1,1,m] y) {
              y = AveragePool <auto_pad = "SAME_UPPER", kernel_shape = [3], dilations = [2]> (x) }""",
            "onnx.AveragePool at node 'y'",
        ),
        (
            """g (float[1,1,2] x) => (float[1,1,1] y) {
              y = MaxPool <kernel_shape = [2], dilations = [3], pads = [1, 1]> (x) }""",
            "onnx.MaxPool at node 'y'",
        ),
    ],
)
def test_what_kernels_would_compute_otherwise_is_refused(tmp_path, text, named):
    model = onnx.parser.parse_model(HEADER + text)
    with pytest.raises(UnsupportedError, match=named):
        compiler.compile(model, target="metal", output=tmp_path / "m.metalpackage")

"""Branches and loops, from ONNX's textual form down to mil and back."""

from __future__ import annotations

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest

from compiler import frontend
from compiler.target import Target
from tests.rules.harness import library, lower, rand, run_mil

HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'

LOOP = """g (float[3] x) => (float[3] y, float[5,3] all) {
  trips = Constant <value = int64 {5}> ()
  yes = Constant <value = bool {1}> ()
  y, all = Loop (trips, yes, x) <body = b (int64 i, bool going, float[3] s) => (bool on, float[3] t, float[3] row) {
    on = Identity (going)
    f = Cast <to = 1> (i)
    t = Add (s, f)
    row = Mul (t, x)
  }>
}"""

WHILE = """g (float[3] x, float limit) => (float[3] y, int64 rounds) {
  none = Constant <value = int64 {0}> ()
  yes = Constant <value = bool {1}> ()
  y, rounds = Loop (, yes, x, none)
    <body = b (int64 i, bool going, float[3] s, int64 n) => (bool on, float[3] t, int64 m) {
    t = Add (s, s)
    one = Constant <value = int64 {1}> ()
    m = Add (n, one)
    total = ReduceSum <keepdims = 0> (t)
    on = Less (total, limit)
  }>
}"""

BRANCH = """g (float[3] x, bool p) => (float[3] y) {
  y = If (p) <
    then_branch = a () => (float[3] u) { u = Add (x, x) },
    else_branch = b () => (float[3] v) { v = Identity (x) }
  >
}"""

SCAN = """g (float[2] s, float[2,4] x) => (float[2] last, float[2,4] all) {
  last, all = Scan <
    num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1], scan_input_directions = [DIRECTION],
    scan_output_directions = [DIRECTION],
    body = b (float[2] a, float[2] e) => (float[2] c, float[2] d) { c = Add (a, e) d = Mul (c, e) }
  > (s, x)
}"""


def compare(text, *inputs):
    model = onnx.parser.parse_model(HEADER + text)
    feeds = {i.name: np.asarray(a) for i, a in zip(model.graph.input, inputs, strict=True)}
    want = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)
    for release in ("ios16", "ios18"):
        lowered = lower(frontend.load(model), release)
        for a, b in zip(run_mil(lowered, feeds), want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    return [op.name for op in lowered.walk()]


def test_loop_that_counts():
    assert "mil.while_loop" in compare(LOOP, rand(3))


@pytest.mark.parametrize("limit", [-100.0, 5.0, 1000.0])
def test_loop_that_ends_on_a_condition(limit):
    compare(WHILE, np.abs(rand(3)) + 0.1, np.float32(limit))


@pytest.mark.parametrize("p", [True, False])
def test_branch(p):
    assert "mil.cond" in compare(BRANCH, rand(3), np.array(p))


@pytest.mark.parametrize("direction", ["0", "1"])
def test_scan(direction):
    compare(SCAN.replace("DIRECTION", direction), rand(2), rand(2, 4))


def test_a_state_that_grows_is_refused():
    text = """g (float[1] x) => (float[n] y) {
      trips = Constant <value = int64 {3}> ()
      yes = Constant <value = bool {1}> ()
      y = Loop (trips, yes, x) <body = b (int64 i, bool going, float[k] s) => (bool on, float[m] t) {
        on = Identity (going)
        t = Concat <axis = 0> (s, x)
      }>
    }"""
    module = frontend.load(onnx.parser.parse_model(HEADER + text))
    library().rewrite(module, "lower", Target("cpu", "ios18", "fp32"))
    assert "onnx.Loop" in [op.name for op in module.walk()]

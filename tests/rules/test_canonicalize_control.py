"""A decoder's loop as exporters write it: rows set one by one, a flag that is a number first, later a vector of one."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import compiler

HEADER = '<ir_version: 10, opset_import: ["" : 17]>\n'

# x[:, i:i+1] = v by a scattered range; the loop ends once a row's sum exceeds the limit.
DECODER = """g (float[1,3] step, float[1] limit) => (float[1,5,3] rows, int64 count) {
  zeros = Constant <value = float[1,5,3] {0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}> ()
  zero = Constant <value = int64 {0}> ()
  no = Constant <value = bool {0}> ()
  yes = Constant <value = bool {1}> ()
  most = Constant <value = int64 {8}> ()
  rows, ended, count = Loop (most, yes, zeros, no, zero)
    <body = b (int64 round, bool going, float[1,5,3] x, bool end, int64 i)
           => (bool on, float[1,5,3] y, bool fin, int64 j) {
    one = Constant <value = int64[1] {1}> ()
    nought = Constant <value = int64[1] {0}> ()
    five = Constant <value = int64[1] {5}> ()
    unit = Constant <value = int64 {1}> ()
    float_one = Constant <value = float {1.0}> ()
    f = Cast <to = 1> (i)
    g = Add (f, float_one)
    j = Cast <to = 7> (g)
    v = Mul (step, g)
    start = Reshape (i, one)
    next = Reshape (j, one)
    stop = Min (five, next)
    cut = Slice (x, start, stop, one, one)
    size = Shape (cut)
    row = Unsqueeze (v, one)
    wide = Expand (row, size)
    a = Squeeze (start, nought)
    z = Squeeze (stop, nought)
    range = Range (a, z, unit)
    form = Constant <value = int64[3] {1, -1, 1}> ()
    column = Reshape (range, form)
    times = Constant <value = int64[3] {1, 1, 3}> ()
    index = Tile (column, times)
    y = ScatterElements <axis = 1> (x, index, wide)
    total = ReduceSum <keepdims = 0> (v, one)
    over = Greater (total, limit)
    flag = If (over) <
      then_branch = t () => (bool p) { p = Constant <value = bool {1}> () },
      else_branch = e () => (bool[1] q) { e0 = Cast <to = 7> (end) e1 = Add (e0, nought) q = Cast <to = 9> (e1) }
    >
    h = Cast <to = 7> (flag)
    k = Add (h, nought)
    fin = Cast <to = 9> (k)
    on = Not (flag)
  }>
}"""


@pytest.mark.parametrize("limit", [0.5, 7.0, 1e6])
def test_decoder_compiles_and_fills_as_many_rows_as_the_model(tmp_path, limit):
    inputs = {"step": np.array([[0.5, 1.0, 0.75]], np.float32), "limit": np.array([limit], np.float32)}
    model = onnx.parser.parse_model(HEADER + DECODER)
    made = compiler.compile(model, target="cpu", output=tmp_path / "decoder.mlpackage", inputs=inputs)
    assert made.report.verify.passed
    assert "set_row" in made.report.rules
    assert "while_loop" in " ".join(made.report.ops)

"""What shares a kernel, and what is no work at all: dispatches of small models, proven."""

from __future__ import annotations

import pytest

import compiler
from benchmarks.metal_families import Case

#: Graphs, their constants, and the kinds of their kernels in order.
MODELS = {
    "arithmetic in front of a convolution": (
        "g (float[1,3,9,8] x) => (float[1,4,9,8] y) { a = Relu (x) y = Conv <pads = [1,1,1,1]> (a, w) }",
        {"w": (4, 3, 3, 3)},
        ["conv"],
    ),
    "parts that are reshaped before they are concatenated": (
        """g (float[1,3,4,6] x, float[1,3,2,3] z) => (float[1,5,30] y) {
          a = Conv (x, w) b = Conv (z, w) shape = Constant <value_ints = [1, 5, -1]> ()
          c = Reshape (a, shape) d = Reshape (b, shape) y = Concat <axis = 2> (c, d) }""",
        {"w": (5, 3, 1, 1)},
        ["conv", "conv"],
    ),
    "overlapping frames of a signal": (
        """g (float[1,70] x) => (float[6,8] y) {
          one = Constant <value_ints = [1]> () zero = Constant <value_ints = [0]> ()
          ten = Constant <value_ints = [10]> () end = Constant <value_ints = [60]> ()
          all = Constant <value_ints = [70]> ()
          shape = Constant <value_ints = [6, 10]> ()
          a = Slice (x, zero, end, one) b = Slice (x, ten, all, one) c = Reshape (a, shape) d = Reshape (b, shape)
          e = Concat <axis = 1> (c, d) y = MatMul (e, w) }""",
        {"w": (20, 8)},
        ["matmul"],
    ),
    "states of a recurrence side by side, and what comes to nothing": (
        """g (float[3,1,4] x, int64 rate) => (float[2,1,5] y) {
          _, h, c = LSTM <hidden_size = 5> (x, w, r) a = Concat <axis = 0> (h, c)
          none = Constant <value_int = 0> () b = Mul (rate, none) d = Cast <to = 1> (b) y = Add (a, d) }""",
        {"w": (1, 20, 4), "r": (1, 20, 5)},
        ["matmul", "lstm"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_as_few_kernels_as_that(tmp_path, name):
    text, tensors, kinds = MODELS[name]
    made = compiler.compile(Case("", "", text, tensors).model(), target="metal", output=tmp_path / "m.metalpackage")
    assert [kind for kind, n in made.report.ops.items() for _ in range(n)] == kinds
    assert made.report.placement["layout_copies"] == 0

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
    "a pool, arithmetic on both sides of it": (
        """g (float[1,3,9,8] x) => (float[1,4,4,4] y) {
          a = Conv <pads = [1,1,1,1]> (x, w, b) r = LeakyRelu (a)
          p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (r) y = Sigmoid (p) }""",
        {"w": (4, 3, 3, 3), "b": (4,)},
        ["conv"],
    ),
    "a pool whose windows overlap so much that it is better to compute once": (
        """g (float[1,32,9,8] x) => (float[1,4,4,3] y) {
          a = Conv <pads = [1,1,1,1]> (x, w) y = MaxPool <kernel_shape = [3,3], strides = [2,2]> (a) }""",
        {"w": (4, 32, 3, 3)},
        ["conv", "pool"],
    ),
    "a convolution of what is pooled and enlarged": (
        """g (float[1,3,8,8] x, float[1,2,2,2] z) => (float[1,4,4,4] y) {
          p = MaxPool <kernel_shape = [2,2], strides = [2,2]> (x) s = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
          e = Resize <mode = "nearest", coordinate_transformation_mode = "half_pixel"> (z, , s)
          a = Concat <axis = 1> (e, p) y = Conv (a, w) }""",
        {"w": (4, 5, 1, 1)},
        ["conv"],
    ),
    "convolutions of one tensor, with activations of their own, one of which ends in a concatenation": (
        """g (float[1,3,6,6] x) => (float[1,4,6,6] y, float[1,10,6,6] z) {
          a = Conv <pads = [1,1,1,1]> (x, wa) y = Relu (a) b = Conv <pads = [1,1,1,1]> (x, wb) s = Sigmoid (b)
          c = Conv (s, wc) z = Concat <axis = 1> (s, c) }""",
        {"wa": (4, 3, 3, 3), "wb": (6, 3, 3, 3), "wc": (4, 6, 1, 1)},
        ["conv", "conv"],
    ),
    "products of one matrix of which something is computed together": (
        """g (float[5,7] x) => (float[5,8] y) {
          a = MatMul (x, wa) s = Sigmoid (a) b = MatMul (x, wb) y = Mul (s, b) }""",
        {"wa": (7, 8), "wb": (7, 8)},
        ["matmul", "matmul"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_as_few_kernels_as_that(tmp_path, name):
    text, tensors, kinds = MODELS[name]
    made = compiler.compile(Case("", "", text, tensors).model(), target="metal", output=tmp_path / "m.metalpackage")
    assert [kind for kind, n in made.report.ops.items() for _ in range(n)] == kinds
    assert made.report.placement["layout_copies"] == 0

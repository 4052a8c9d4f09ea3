"""Kernel families against onnxruntime, on this machine's CPU: shapes that vectors and simdgroups do not divide, too."""

from __future__ import annotations

import numpy as np
import onnx.parser
import pytest

import compiler

HEADER = '<ir_version: 10, opset_import: ["" : 21]>\n'

#: The greatest relative L2 error of a kernel family, by precision.
LIMIT = {"fp32": 1e-5, "fp16": 5e-3}


def weights(*shape: int, seed: int = 0) -> onnx.TensorProto:
    array = np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / np.sqrt(np.prod(shape[1:]) or 1)
    return onnx.numpy_helper.from_array(array.astype(np.float32))


def check(tmp_path, text: str, tensors: dict[str, tuple[int, ...]] | None = None, precision: str = "fp32", **options):
    """Compiles a graph with random constants of the shapes in ``tensors``, proven to the family's limit."""
    model = onnx.parser.parse_model(HEADER + text)
    for i, (name, shape) in enumerate((tensors or {}).items()):
        tensor = weights(*shape, seed=i)
        tensor.name = name
        model.graph.initializer.append(tensor)
    made = compiler.compile(model, target="metal", output=tmp_path / "m.metalpackage", precision=precision, **options)
    for name, error in made.report.verify.outputs.items():
        assert error.badness <= LIMIT[precision], f"{name}: {error}"
    return made


FAMILIES = {
    "elementwise": (
        """g (float[3,1,7] x, float[5,1] y, int64[4] k) => (
            float[3,5,7] a, float[3,1,7] b, float[3,5,7] c, int64[4] d) {
          a0 = Mul (x, y) a1 = Erf (a0) a = Add (a1, x)
          b0 = Softplus (x) b1 = Tanh (b0) b = Mul (x, b1)
          m = Greater (x, y) c0 = Sub (x, y) c1 = Div (x, y) c = Where (m, c0, c1)
          three = Constant <value_int = 3> () d0 = Mul (k, three) d = Mod (d0, three)
        }""",
        {},
    ),
    "convolution": (
        """g (float[1,3,13,20] x, float[1,8,7,7] z, float[2,6,9] s) => (
            float[1,8,13,20] a, float[1,6,7,10] b, float[1,16,5,5] c, float[1,8,7,7] d, float[2,5,9] f) {
          a0 = Conv <pads = [1,1,1,1]> (x, wa, ba) a = Relu (a0)
          b = Conv <strides = [2,2], pads = [1,1,1,1]> (x, wb)
          c = Conv <group = 2, dilations = [2,2], pads = [1,1,1,1]> (z, wc)
          d0 = Conv <group = 8, pads = [1,1,1,1]> (z, wd) d = Add (d0, z)
          f = Conv <pads = [1,1]> (s, wf)
        }""",
        {"wa": (8, 3, 3, 3), "ba": (8,), "wb": (6, 3, 3, 3), "wc": (16, 4, 3, 3), "wd": (8, 1, 3, 3), "wf": (5, 6, 3)},
    ),
    "wide convolution": (
        "g (float[1,4,32,64] x) => (float[1,8,32,64] y) { y = Conv <pads = [1,1,1,1]> (x, w) }",
        {"w": (8, 4, 3, 3)},
    ),
    "transposed convolution": (
        """g (float[1,4,5,6] x) => (float[1,3,11,13] y, float[1,6,7,8] z) {
          y = ConvTranspose <strides = [2,2], output_padding = [0,0]> (x, w, b)
          z = ConvTranspose <group = 2, strides = [1,1]> (x, v)
        }""",
        {"w": (4, 3, 3, 3), "b": (3,), "v": (4, 3, 3, 3)},
    ),
    "product": (
        """g (float[2,5,7] x, float[2,7,6] y, float[9,10] q) => (float[2,5,6] a, float[2,5,8] b, float[9,5] c) {
          a = MatMul (x, y)
          b0 = MatMul (x, w) b1 = Add (b0, bias) b = Gelu (b1)
          c = Gemm <transB = 1> (q, v, cb)
        }""",
        {"w": (7, 8), "bias": (8,), "v": (5, 10), "cb": (5,)},
    ),
    "attention": (
        """g (float[2,3,33,16] q, float[2,3,33,16] k, float[2,3,33,16] v, float[2,1,1,33] m) => (float[2,3,33,16] y) {
          kt = Transpose <perm = [0,1,3,2]> (k) s = MatMul (q, kt)
          scale = Constant <value_float = 0.25> () t = Mul (s, scale) u = Add (t, m)
          w = Softmax <axis = -1> (u) y = MatMul (w, v)
        }""",
        {},
    ),
    "rows": (
        """g (float[3,70,5] x, float[2,8,9] z) => (float[3,70,5] a, float[3,70,5] b, float[2,8,9] c, float[3,1,5] d,
            int64[3,70,1] e, float[2,8,9] f, float[1] h, float[2,8,9] l) {
          a = Softmax <axis = 1> (x) b = LogSoftmax <axis = 2> (x)
          c = LayerNormalization (z, g9, b9) one = Constant <value_ints = [1]> () d = ReduceMean (x, one)
          e = ArgMax <axis = 2> (x) two = Constant <value_int = 2> () f = CumSum <reverse = 1, exclusive = 1> (z, two)
          h0 = ReduceMax <keepdims = 0> (x) h = Reshape (h0, one)
          l = GroupNormalization <num_groups = 2> (z, g8, b8)
        }""",
        {"g9": (9,), "b9": (9,), "g8": (8,), "b8": (8,)},
    ),
    "pooling and resizing": (
        """g (float[1,3,9,11] x) => (float[1,3,5,6] a, float[1,3,8,10] b, float[1,3,18,22] c, float[1,3,13,17] d) {
          a = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (x)
          b = AveragePool <kernel_shape = [2,2], count_include_pad = 1> (x)
          roi = Constant <value_floats = [1.0]> ()
          twice = Constant <value_floats = [1.0, 1.0, 2.0, 2.0]> ()
          c = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor">
            (x, , twice)
          sizes = Constant <value_ints = [1, 3, 13, 17]> ()
          d = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (x, , , sizes)
        }""",
        {},
    ),
    "movement": (
        """g (float[2,6,5] x, int64[3] i) => (float[5,12] a, float[2,3,5] b, float[2,12,7] c, float[2,2,5] d) {
          a0 = Transpose <perm = [2,0,1]> (x) shape = Constant <value_ints = [5, 12]> () a = Reshape (a0, shape)
          b = Gather <axis = 1> (x, i)
          pads = Constant <value_ints = [0, 0, 1, 0, 0, 1]> () c0 = Pad <mode = "reflect"> (x, pads)
          c1 = Sin (c0) c = Concat <axis = 1> (c0, c1)
          one = Constant <value_ints = [1]> () four = Constant <value_ints = [5]> ()
          two = Constant <value_ints = [2]> ()
          d = Slice (x, one, four, one, two)
        }""",
        {},
    ),
    "recurrence": (
        """g (float[5,2,3] x, float[1,2,4] h) => (float[5,1,2,4] a, float[1,2,4] ah, float[1,2,4] ac, float[5,2,2,4] b,
            float[5,1,2,4] c, float[5,1,2,4] d) {
          a, ah, ac = LSTM <hidden_size = 4> (x, wl, rl, bl, , h)
          b = GRU <hidden_size = 4, direction = "bidirectional", linear_before_reset = 1> (x, wg, rg, bg)
          c = GRU <hidden_size = 4, direction = "reverse"> (x, wh, rh)
          d = RNN <hidden_size = 4> (x, wr, rr)
        }""",
        {"wl": (1, 16, 3), "rl": (1, 16, 4), "bl": (1, 32), "wg": (2, 12, 3), "rg": (2, 12, 4), "bg": (2, 24),
         "wh": (1, 12, 3), "rh": (1, 12, 4), "wr": (1, 4, 3), "rr": (1, 4, 4)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_family_in_float(tmp_path, family):
    inputs = {"i": np.array([0, 5, -1])} if family == "movement" else None
    text, tensors = FAMILIES[family]
    if inputs is not None:
        inputs["x"] = np.random.default_rng(1).standard_normal((2, 6, 5)).astype(np.float32)
    check(tmp_path, text, tensors, inputs=inputs)


@pytest.mark.parametrize("family", ["convolution", "product", "attention", "rows", "pooling and resizing"])
def test_family_in_half(tmp_path, family):
    check(tmp_path, *FAMILIES[family], precision="fp16")

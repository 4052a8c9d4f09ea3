"""Kernel families of ``--target metal`` as small models, over sizes that vectors, tiles and simdgroups do not divide.

:func:`cases` gives them; benchmarks/metal_sweep.py holds each against onnxruntime, benchmarks/metal_mutations.py
breaks their kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx.parser

HEADER = '<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1]>\n'

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """A model: ``text`` is a graph, ``tensors`` gives shapes of random constants or constants themselves."""

    family: str
    sizes: str
    text: str
    tensors: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Any] | None = None
    images: tuple[str, ...] = ()  # inputs that are pictures, as --image spells them

    def model(self) -> onnx.ModelProto:
        made = onnx.parser.parse_model(HEADER + self.text)
        for i, (name, given) in enumerate(self.tensors.items()):
            array = weights(given, i) if isinstance(given, tuple) else np.asarray(given)
            made.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        return made


def weights(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Random numbers whose sums along all but the first dimension stay near one."""
    array = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)
    return array.astype(np.float32)


def dims(*shape: int) -> str:
    return ",".join(map(str, shape))


#: A graph, its constants, inputs where random floats will not do, and inputs that are pictures.
Made = (
    tuple[str, Mapping[str, Any]]
    | tuple[str, Mapping[str, Any], Mapping[str, Any]]
    | tuple[str, Mapping[str, Any], Mapping[str, Any], tuple[str, ...]]
)


def elementwise(a: int, b: int, c: int) -> Made:
    """Arithmetic and functions of one element that broadcast."""
    return (
        f"""g (float[{a},1,{c}] x, float[{b},1] y) => (float[{a},{b},{c}] u, float[{a},1,{c}] v,
            float[{a},{b},{c}] w) {{
          u0 = Mul (x, y) u1 = Erf (u0) u = Add (u1, x) v0 = Softplus (x) v1 = Tanh (v0) v = Mul (x, v1)
          m = Greater (x, y) w0 = Sub (x, y) w1 = Sigmoid (x) w = Where (m, w0, w1) }}""",
        {},
    )


def conv(c: int, h: int, w: int, o: int, k: int, s: int, d: int, g: int) -> Made:
    """A convolution with bias, activation and residual behind it."""
    p = (k - 1) * d // 2
    oh, ow = ((n + 2 * p - (k - 1) * d - 1) // s + 1 for n in (h, w))
    return (
        f"""g (float[2,{c},{h},{w}] x, float[2,{o},{oh},{ow}] r) => (float[2,{o},{oh},{ow}] y) {{
          a = Conv <pads = [{dims(p, p, p, p)}], strides = [{s},{s}], dilations = [{d},{d}], group = {g}> (x, w, b)
          e = Relu (a) y = Add (e, r) }}""",
        {"w": (o, c // g, k, k), "b": (o,)},
    )


def conv_computed(c: int, h: int, o: int) -> Made:
    """A convolution whose weights are computed."""
    return (
        f"""g (float[1,{c},{h},{h}] x, float[{o},{c},3,3] w) => (float[1,{o},{h},{h}] y) {{
          v = Sigmoid (w) y = Conv <pads = [1,1,1,1]> (x, v, b) }}""",
        {"b": (o,)},
    )


def conv_of_computed(c: int, h: int, w: int, o: int, k: int) -> Made:
    """A convolution by tiles of what is computed on the way, from a tensor whose channels are last."""
    return (
        f"""g (float[1,{h},{w},{c}] x) => (float[1,{o},{h - k + 1},{w - k + 1}] y) {{
          t = Transpose <perm = [0,3,1,2]> (x) s = Sigmoid (t) y = Conv (s, w, b) }}""",
        {"w": (o, c, k, k), "b": (o,)},
    )


def variants(c: int, h: int, w: int, o: int, k: int) -> Made:
    """Two convolutions that differ in sizes alone: kernels of one function, whose constants the plan gives."""
    p = dims(*[k // 2] * 4)
    more = (c + 4, h + 4, w + 4, o + 4)
    return (
        f"""g (float[1,{c},{h},{w}] x, float[1,{dims(*more[:3])}] u) => (float[1,{o},{h},{w}] y,
            float[1,{dims(more[3], *more[1:3])}] z) {{
          a = Conv <pads = [{p}]> (x, w, b) y = Relu (a) d = Conv <pads = [{p}]> (u, v, e) z = Relu (d) }}""",
        {"w": (o, c, k, k), "b": (o,), "v": (more[3], more[0], k, k), "e": (more[3],)},
    )


def conv_1d(c: int, n: int, o: int, k: int) -> Made:
    """A convolution along one axis."""
    return (
        f"g (float[1,{c},{n}] x) => (float[1,{o},{n}] y) {{ y = Conv <pads = [{k // 2},{k // 2}]> (x, w) }}",
        {"w": (o, c, k)},
    )


def conv_transpose(c: int, h: int, o: int, k: int, s: int, g: int) -> Made:
    """Transposed convolution."""
    n = (h - 1) * s + k
    return (
        f"""g (float[1,{c},{h},{h}] x) => (float[1,{o},{n},{n}] y) {{
          y = ConvTranspose <strides = [{s},{s}], group = {g}> (x, w, b) }}""",
        {"w": (c, o // g, k, k), "b": (o,)},
    )


def conv_pooled(c: int, h: int, w: int, o: int, kind: str, k: int, s: int, pad: int) -> Made:
    """A convolution whose result only a pool reads."""
    oh, ow = (-(-(n + 2 * pad - k) // s) + 1 for n in (h, w))
    return (
        f"""g (float[2,{c},{h},{w}] x) => (float[2,{o},{oh},{ow}] y) {{
          a = Conv <pads = [1,1,1,1]> (x, w, b) e = LeakyRelu (a)
          p = {kind} <kernel_shape = [{k},{k}], strides = [{s},{s}], pads = [{dims(*[pad] * 4)}], ceil_mode = 1> (e)
          y = Sigmoid (p) }}""",
        {"w": (o, c, 3, 3), "b": (o,)},
    )


def conv_of_pool(c: int, h: int, o: int) -> Made:
    """A convolution that reads a pool, beside one that is enlarged."""
    n = h // 2
    return (
        f"""g (float[1,{c},{h},{h}] x, float[1,3,{n // 2},{n // 2}] z) => (float[1,{o},{n},{n}] y) {{
          p = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,0,0]> (x)
          e = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (z, , s)
          a = Concat <axis = 1> (e, p) y = Conv (a, w, b) }}""",
        {"w": (o, c + 3, 1, 1), "b": (o,), "s": np.array([1, 1, 2, 2], np.float32)},
    )


def siblings(c: int, h: int, o: int, q: int, n: int) -> Made:
    """Convolutions and products of one tensor, with activations of their own."""
    return (
        f"""g (float[1,{c},{h},{h}] x, float[{h},{n}] z) => (float[1,{o},{h},{h}] a, float[1,{q},{h},{h}] b,
            float[1,{c},{h},{h}] d, float[1,{c},{h},{h}] e, float[{h},{o}] u, float[{h},{q}] v) {{
          a0 = Conv <pads = [1,1,1,1]> (x, wa, ba) a = Relu (a0) b0 = Conv <pads = [1,1,1,1]> (x, wb) b = Tanh (b0)
          d0 = Conv <group = {c}> (x, wd, bd) d = Sigmoid (d0) e = Conv <group = {c}> (x, we)
          u0 = MatMul (z, wu) u = Add (u0, bu) v0 = MatMul (z, wv) v = Gelu (v0) }}""",
        {"wa": (o, c, 3, 3), "ba": (o,), "wb": (q, c, 3, 3), "wd": (c, 1, 1, 1), "bd": (c,), "we": (c, 1, 1, 1),
         "wu": (n, o), "bu": (o,), "wv": (n, q)},
    )  # fmt: skip


def product(b: int, m: int, k: int, n: int) -> Made:
    """A product with weights, with bias and activation, and one of two inputs."""
    return (
        f"""g (float[{b},{m},{k}] x, float[{b},{k},{n}] z) => (float[{b},{m},{n}] y, float[{b},{m},{n}] u) {{
          a = MatMul (x, w) c = Add (a, bias) y = Gelu (c) u = MatMul (x, z) }}""",
        {"w": (k, n), "bias": (n,)},
    )


def quantized_product(m: int, k: int, n: int, type_: str, block: int) -> Made:
    """A product with weights that are stored as integers, for each tensor, column or block of rows."""
    rng = np.random.default_rng(7)
    low, high = {"int8": (-128, 128), "uint8": (0, 256), "int4": (-8, 8), "uint4": (0, 16)}[type_]
    dtype = {"int8": np.int8, "uint8": np.uint8}.get(type_) or onnx.helper.tensor_dtype_to_np_dtype(
        getattr(onnx.TensorProto, type_.upper()))  # fmt: skip
    scales = {0: (n,), -1: ()}.get(block, (-(-k // max(block, 1)), n))
    w = rng.integers(low, high, (k, n)).astype(dtype)
    zero = rng.integers(max(low, -3), min(high, 9), scales or ()).astype(dtype)
    scale = (rng.uniform(0.5, 1.5, scales) / (np.sqrt(k) * high)).astype(np.float32)
    how = f"axis = 0, block_size = {block}" if block > 0 else "axis = 1"
    return (
        f"""g (float[2,{m},{k}] x) => (float[2,{m},{n}] y) {{
          d = DequantizeLinear <{how}> (w, scale, zero) a = MatMul (x, d) y = Relu (a) }}""",
        {"w": w, "scale": scale, "zero": zero},
    )


def product_of_bits(m: int, k: int, n: int, bits: int, block: int) -> Made:
    """com.microsoft.MatMulNBits, as quantized language models have it."""
    rng = np.random.default_rng(8)
    blocks = -(-k // block)
    w = rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(np.uint8)
    scale = (rng.uniform(0.5, 1.5, (n, blocks)) / (np.sqrt(k) * 2**bits)).astype(np.float32)
    return (
        f"""g (float[1,{m},{k}] x) => (float[1,{m},{n}] y) {{
          y = com.microsoft.MatMulNBits <K = {k}, N = {n}, bits = {bits}, block_size = {block}> (x, w, scale) }}""",
        {"w": w, "scale": scale},
    )


def attention(heads: int, q: int, k: int, d: int) -> Made:
    """softmax(s · q · kᵀ + m) · v."""
    return (
        f"""g (float[1,{heads},{q},{d}] q, float[1,{heads},{k},{d}] k, float[1,{heads},{k},{d}] v,
            float[1,1,1,{k}] m) => (float[1,{heads},{q},{d}] y) {{
          kt = Transpose <perm = [0,1,3,2]> (k) s = MatMul (q, kt)
          scale = Constant <value_float = 0.25> () t = Mul (s, scale) u = Add (t, m)
          w = Softmax <axis = -1> (u) y = MatMul (w, v) }}""",
        {},
    )


def norms(b: int, c: int, n: int) -> Made:
    """Layer, instance and group normalization."""
    return (
        f"""g (float[{b},{c},{n}] x) => (float[{b},{c},{n}] y, float[{b},{c},{n}] u, float[{b},{c},{n}] v) {{
          y = LayerNormalization (x, gn, bn) u = InstanceNormalization (x, gc, bc)
          v = GroupNormalization <num_groups = 2> (x, gc, bc) }}""",
        {"gn": (n,), "bn": (n,), "gc": (c,), "bc": (c,)},
    )


def softmax(a: int, b: int, c: int) -> Made:
    """Softmax along the last and a middle axis, and its logarithm."""
    return (
        f"""g (float[{a},{b},{c}] x) => (float[{a},{b},{c}] y, float[{a},{b},{c}] u, float[{a},{b},{c}] v) {{
          y = Softmax <axis = 2> (x) u = Softmax <axis = 1> (x) v = LogSoftmax <axis = 2> (x) }}""",
        {},
    )


def reductions(a: int, b: int, c: int) -> Made:
    """Sums, means, extremes, where those stand, prefix sums."""
    return (
        f"""g (float[{a},{b},{c}] x) => (float[{a},1,{c}] s, float[{a},{b},1] t, float[1,1,1] u, int64[{a},{b},1] i,
            int64[{a},1,{c}] j, float[{a},{b},{c}] z) {{
          one = Constant <value_ints = [1]> () two = Constant <value_ints = [2]> () s0 = Mul (x, x)
          s = ReduceSum (s0, one) t1 = ReduceMean (x, two) t = Sigmoid (t1) u = ReduceMax (x)
          i = ArgMax <axis = 2> (x) j = ArgMin <axis = 1, select_last_index = 1> (x)
          axis = Constant <value_int = 2> () z = CumSum <reverse = 1, exclusive = 1> (x, axis) }}""",
        {},
    )


def pooling(c: int, h: int, w: int) -> Made:
    """Maxima and means of windows that hang over the edges or do not, and over everything."""
    return (
        f"""g (float[1,{c},{h},{w}] x) => (float[1,{c},{(h + 1) // 2},{(w + 1) // 2}] y, float[1,{c},{h},{w}] u,
            float[1,{c},{h - 1},{w - 1}] v, float[1,{c},1,1] g) {{
          y = MaxPool <kernel_shape = [3,3], strides = [2,2], pads = [1,1,1,1]> (x)
          u = AveragePool <kernel_shape = [3,3], pads = [1,1,1,1]> (x)
          v = AveragePool <kernel_shape = [2,2], count_include_pad = 1> (x) g = GlobalAveragePool (x) }}""",
        {},
    )


def resize(h: int, w: int, oh: int, ow: int, mode: str, how: str) -> Made:
    """Nearest, linear and cubic interpolation."""
    return (
        f"""g (float[1,3,{h},{w}] x) => (float[1,3,{oh},{ow}] y) {{
          y = Resize <mode = "{mode}", coordinate_transformation_mode = "{how}"> (x, , , sizes) }}""",
        {"sizes": np.array([1, 3, oh, ow])},
    )


def grid_sample(c: int, h: int, w: int, o: int, mode: str, padding: str, align: int) -> Made:
    """Sampling at places some of which lie outside."""
    grid = np.random.default_rng(3).uniform(-1.4, 1.4, (2, o, o + 1, 2)).astype(np.float32)
    return (
        f"""g (float[2,{c},{h},{w}] x, float[2,{o},{o + 1},2] grid) => (float[2,{c},{o},{o + 1}] y) {{
          y = GridSample <mode = "{mode}", padding_mode = "{padding}", align_corners = {align}> (x, grid) }}""",
        {},
        {"x": weights((2, c, h, w), 4), "grid": grid},
    )


def selection(b: int, n: int, k: int) -> Made:
    """The best of a row, and the worst of a column."""
    return (
        f"""g (float[{b},{n},{k}] x) => (float[{b},{n},3] y, int64[{b},{n},3] i, float[{b},2,{k}] u,
            int64[{b},2,{k}] j) {{
          three = Constant <value_ints = [3]> () two = Constant <value_ints = [2]> ()
          y, i = TopK (x, three) u, j = TopK <axis = 1, largest = 0> (x, two) }}""",
        {},
    )


def scatter(a: int, b: int, c: int, reduction: str) -> Made:
    """Updates of single elements and of slices, some of them twice at one place."""
    rng = np.random.default_rng(1)
    return (
        f"""g (float[{a},{b},{c}] x, float[2,{b},3] u, float[4,{c}] v) => (float[{a},{b},{c}] y,
            float[{a},{b},{c}] z) {{
          y = ScatterElements <axis = 2, reduction = "{reduction}"> (x, i, u)
          z = ScatterND <reduction = "{reduction}"> (x, j, v) }}""",
        {"i": rng.integers(-c, c, (2, b, 3)), "j": rng.integers([-a, -b], [a, b], (4, 2))},
    )


def suppression(n: int, classes: int, limit: int, center: int) -> Made:
    """Boxes that do not overlap too much."""
    rng = np.random.default_rng(2)
    low, size = rng.uniform(0, 1, (1, n, 2)), rng.uniform(0.1, 0.4, (1, n, 2))
    boxes = np.concatenate([low, size if center else low + size], -1).astype(np.float32)
    if not center:  # any two opposite corners will do
        boxes[:, ::3] = boxes[:, ::3, [2, 1, 0, 3]]
        boxes[:, ::4] = boxes[:, ::4, [0, 3, 2, 1]]
    return (
        f"""g (float[1,n,4] boxes, float[1,{classes},n] scores) => (int64[m,3] y) {{
          y = NonMaxSuppression <center_point_box = {center}> (boxes, scores, limit, iou, least) }}""".replace(
            ",n", f",{n}"
        ),
        {"limit": np.array([limit]), "iou": np.array([0.4], np.float32), "least": np.array([0.2], np.float32)},
        {"boxes": boxes, "scores": rng.uniform(0, 1, (1, classes, n)).astype(np.float32)},
    )


def detection(n: int, classes: int, limit: int) -> Made:
    """What a detector gives: for each box that is left its picture, corners, class and score."""
    _, tensors, inputs = suppression(n, classes, limit, 0)
    inputs = {name: np.concatenate([a, np.roll(a[..., ::-1], 3, 1)]) for name, a in inputs.items()}  # two pictures
    return (
        f"""g (float[2,{n},4] boxes, float[2,{classes},{n}] scores) => (float[m,7] y, int64[m] which) {{
          z = NonMaxSuppression (boxes, scores, limit, iou, least)
          b = Gather <axis = 1> (z, zero) c = Gather <axis = 1> (z, one0) which = Gather <axis = 1> (z, two)
          b1 = Unsqueeze (b, one) c1 = Unsqueeze (c, one) k1 = Unsqueeze (which, one)
          place = Concat <axis = 1> (b1, k1) corners = GatherND (boxes, place)
          turned = Transpose <perm = [0, 2, 1]> (scores) all = GatherND (turned, place)
          best = ReduceMax <keepdims = 1> (all, one) by = Cast <to = 1> (b1) of = Cast <to = 1> (c1)
          y = Concat <axis = -1> (by, corners, of, best) }}""",
        {**tensors, "zero": np.array(0), "one0": np.array(1), "one": np.array([1]), "two": np.array(2)},
        inputs,
    )


def picture(color: str, h: int, w: int, o: int) -> Made:
    """A picture that a convolution reads, normalized, and that something else reads too."""
    n = 1 if color == "gray" else 3
    pixels = np.random.default_rng(6).integers(0, 256, (1, n, h, w)).astype(np.float32)
    return (
        f"""g (float[1,{n},{h},{w}] x) => (float[1,{o},{h},{w}] y, float[1,{n},{h},{w}] z) {{
          y = Conv <pads = [1,1,1,1]> (x, w, b) z = Sigmoid (x) }}""",
        {"w": (o, n, 3, 3), "b": (o,)},
        {"x": pixels},
        (f"x:{color}:scale=1/255:mean=0.45:std=0.25",),
    )


def drawing(color: str, h: int, w: int, planes: int) -> Made:
    """An output that is a picture, with arithmetic on the way back, beside one that is none."""
    return (
        f"""g (float[1,4,{h},{w}] x) => (float[1,{planes},{h},{w}] y, float[1,{planes},{h},{w}] z) {{
          a = Conv <pads = [1,1,1,1]> (x, w, b) y = Sigmoid (a) z = Tanh (a) }}""",
        {"w": (planes, 4, 3, 3), "b": (planes,)},
        {"x": np.random.default_rng(2).standard_normal((1, 4, h, w)).astype(np.float32)},
        (f"y:{color}:scale=1/255:mean=0.1:std=0.9",),
    )


def movement(a: int, b: int, c: int) -> Made:
    """Transposes, reshapes, slices, pads, concatenations, gathers."""
    return (
        f"""g (float[{a},{b},{c}] x, int64[3] i) => (float[{c},{a * b}] y, float[{a},3,{c}] u,
            float[{a},{2 * b},{c + 2}] v, float[{a},{b // 2},{c}] w) {{
          y0 = Transpose <perm = [2,0,1]> (x) y = Reshape (y0, shape) u = Gather <axis = 1> (x, i)
          v0 = Pad <mode = "reflect"> (x, pads) v1 = Sin (v0) v = Concat <axis = 1> (v0, v1)
          one = Constant <value_ints = [1]> () two = Constant <value_ints = [2]> ()
          w = Slice (x, one, end, one, two) }}""",
        {"shape": np.array([c, a * b]), "pads": np.array([0, 0, 1, 0, 0, 1]), "end": np.array([b // 2 * 2 + b % 2])},
        {"x": weights((a, b, c), 9), "i": np.array([0, b - 1, -1])},
    )


def recurrence(steps: int, b: int, n: int, h: int) -> Made:
    """LSTM, GRU and RNN in their directions."""
    return (
        f"""g (float[{steps},{b},{n}] x) => (float[{steps},1,{b},{h}] y, float[1,{b},{h}] hn, float[1,{b},{h}] cn,
            float[{steps},2,{b},{h}] u, float[{steps},1,{b},{h}] v, float[{steps},1,{b},{h}] w) {{
          y, hn, cn = LSTM <hidden_size = {h}> (x, wl, rl, bl)
          u = GRU <hidden_size = {h}, direction = "bidirectional", linear_before_reset = 1> (x, wg, rg, bg)
          v = GRU <hidden_size = {h}, direction = "reverse"> (x, wh, rh) w = RNN <hidden_size = {h}> (x, wr, rr) }}""",
        {"wl": (1, 4 * h, n), "rl": (1, 4 * h, h), "bl": (1, 8 * h), "wg": (2, 3 * h, n), "rg": (2, 3 * h, h),
         "bg": (2, 6 * h), "wh": (1, 3 * h, n), "rh": (1, 3 * h, h), "wr": (1, h, n), "rr": (1, h, h)},
    )  # fmt: skip


#: Families by name, with the sizes of their cases; the first case of each is the smallest.
FAMILIES: dict[str, tuple[Callable[..., Made], list[tuple[Any, ...]]]] = {
    "elementwise": (elementwise, [(3, 5, 7), (2, 33, 64), (1, 100, 257)]),
    "conv": (conv, [(3, 9, 11, 8, 3, 1, 1, 1), (4, 32, 64, 8, 3, 1, 1, 1), (5, 14, 13, 6, 3, 2, 1, 1),
                    (8, 11, 7, 12, 3, 1, 2, 2), (3, 23, 17, 16, 7, 2, 1, 1), (6, 8, 8, 9, 2, 1, 1, 3)]),
    "conv 1×1": (conv, [(7, 5, 9, 8, 1, 1, 1, 1), (16, 32, 32, 24, 1, 1, 1, 1), (13, 6, 7, 5, 1, 1, 1, 1)]),
    "conv depthwise": (conv, [(5, 9, 7, 5, 3, 1, 1, 5), (16, 20, 21, 16, 3, 2, 1, 16), (8, 12, 12, 8, 5, 1, 1, 8)]),
    "conv computed": (conv_computed, [(3, 7, 8), (4, 9, 5)]),
    "conv 1-d": (conv_1d, [(3, 17, 5, 3), (8, 101, 16, 9), (1, 400, 4, 25)]),
    "conv by tiles": (conv, [(5, 9, 11, 33, 3, 1, 1, 1), (16, 16, 16, 32, 1, 1, 1, 1), (32, 13, 17, 40, 3, 2, 1, 1),
                             (24, 10, 10, 64, 3, 1, 2, 1)]),
    "conv of computed": (conv_of_computed, [(5, 11, 13, 33, 1), (3, 19, 17, 40, 3)]),
    "conv variants": (variants, [(3, 9, 11, 8, 3), (16, 12, 12, 64, 3), (12, 5, 10, 8, 1)]),
    "conv pooled": (conv_pooled, [(3, 7, 9, 5, "MaxPool", 2, 2, 0), (4, 8, 12, 8, "MaxPool", 3, 2, 1),
                                  (3, 9, 12, 8, "AveragePool", 3, 3, 0), (2, 10, 7, 6, "MaxPool", 3, 2, 0)]),
    "conv of pool": (conv_of_pool, [(5, 8, 8), (8, 20, 6)]),
    "siblings": (siblings, [(3, 7, 4, 6, 9), (6, 9, 8, 4, 33), (4, 32, 5, 12, 40)]),
    "conv transposed": (conv_transpose, [(4, 5, 3, 3, 2, 1), (8, 7, 8, 2, 2, 1), (4, 6, 6, 4, 1, 2)]),
    "product": (product, [(2, 5, 7, 6), (1, 33, 65, 31), (3, 16, 48, 64), (1, 1, 100, 10)]),
    "product by tiles": (product, [(1, 33, 20, 40), (1, 64, 32, 96), (2, 50, 33, 45), (1, 130, 100, 70)]),
    "quantized product": (quantized_product, [(5, 7, 8, "int8", 0), (3, 33, 31, "uint8", 0), (9, 64, 48, "int8", -1),
                                              (4, 32, 20, "int4", 16), (2, 48, 64, "uint4", 16), (3, 9, 7, "int4", 0),
                                              (5, 64, 36, "uint8", 32), (1, 17, 12, "uint4", 0),
(40, 32, 48, "uint4", 16), (33, 40, 50, "int8", 0)]),
    "product of bits": (product_of_bits, [(3, 32, 12, 4, 16), (1, 96, 64, 4, 32), (5, 64, 9, 8, 32),
                                          (2, 40, 8, 4, 32)]),
    "attention": (attention, [(2, 9, 11, 8), (3, 33, 33, 16), (1, 65, 40, 20)]),
    "norm": (norms, [(2, 4, 9), (1, 8, 65), (2, 6, 200)]),
    "softmax": (softmax, [(2, 5, 9), (2, 70, 33), (1, 3, 1000)]),
    "reduction": (reductions, [(2, 5, 7), (3, 65, 33), (1, 7, 300)]),
    "pooling": (pooling, [(2, 7, 9), (5, 16, 17), (1, 33, 12)]),
    "resize": (resize, [(4, 5, 9, 7, "linear", "half_pixel"), (9, 7, 18, 14, "nearest", "asymmetric"),
                        (6, 9, 13, 20, "linear", "align_corners"), (12, 11, 5, 6, "linear", "pytorch_half_pixel"),
                        (7, 9, 13, 20, "cubic", "half_pixel"),
                        (16, 12, 5, 7, "cubic", "align_corners")]),
    "grid_sample": (grid_sample, [(3, 5, 7, 4, "linear", "zeros", 0), (2, 9, 6, 5, "linear", "border", 1),
                                  (2, 6, 9, 7, "linear", "reflection", 0), (3, 8, 7, 9, "nearest", "zeros", 1),
                                  (1, 7, 8, 6, "nearest", "border", 0), (2, 5, 9, 8, "cubic", "zeros", 0),
                                  (2, 9, 5, 7, "cubic", "reflection", 1), (2, 6, 6, 9, "cubic", "border", 0)]),
    "top_k": (selection, [(2, 5, 7), (1, 33, 65), (3, 4, 100)]),
    "scatter": (scatter, [(3, 4, 5, "none"), (3, 5, 7, "add"), (2, 9, 33, "max"), (4, 3, 9, "mul")]),
    "suppression": (suppression, [(270, 2, 40, 0), (300, 1, 50, 1), (77, 3, 100, 0)]),
    "detection": (detection, [(270, 2, 40), (90, 3, 20)]),
    "picture": (picture, [("rgb", 7, 9, 4), ("bgr", 12, 5, 6), ("gray", 9, 13, 5)]),
    "picture made": (drawing, [("rgb", 7, 9, 3), ("bgr", 12, 5, 3), ("gray", 9, 13, 1)]),
    "movement": (movement, [(2, 6, 5), (3, 9, 33), (1, 65, 7)]),
    "recurrence": (recurrence, [(3, 2, 3, 5), (5, 1, 9, 33), (4, 3, 8, 16)]),
}  # fmt: skip


def cases(family: str) -> Iterator[Case]:
    """The cases of a family, the smallest first."""
    make, sizes = FAMILIES[family]
    for given in sizes:
        text, tensors, *more = make(*given)
        inputs, images = (*more, None, ())[:2] if len(more) < 2 else more
        yield Case(family, "×".join(map(str, given)), text, tensors, inputs or None, images or ())

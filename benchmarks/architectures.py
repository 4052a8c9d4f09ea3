"""Public networks as ONNX models with made-up weights: what published latencies were measured on.

Shapes follow the papers and reference implementations named at each function; weights are random, since time does not
depend on them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Graph:
    """Writes an ONNX graph whose operators are applied to one running value, ``x``."""

    def __init__(self, name: str, shape: tuple[int, ...], eight_bit: bool = False) -> None:
        """An empty graph.

        Args:
            eight_bit: whether weights and activations of convolutions and matrix products are 8-bit integers, written
                as exporters write it: each is quantized and dequantized.
        """
        self.name, self.x, self.shape, self.eight_bit = name, "input", shape, eight_bit
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.draw = np.random.default_rng(0)

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        out = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, [self.x, *inputs], [out], name=out, **attributes))
        self.x = out
        return out

    def weight(self, *shape: int) -> str:
        array = self.draw.standard_normal(shape, dtype=np.float32) / np.float32(max(1, np.prod(shape[1:])) ** 0.5)
        return self.constant(array)

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def conv(self, inputs: int, outputs: int, window: int = 1, stride: int = 1, groups: int = 1) -> str:
        """A convolution with its batch normalization folded in."""
        self.round_activation()
        weight, bias = self.matrix(outputs, inputs // groups, window, window), self.weight(outputs)
        pads = [window // 2] * 4
        return self.op("Conv", weight, bias, strides=[stride] * 2, pads=pads, group=groups, kernel_shape=[window] * 2)

    def round_activation(self) -> None:
        if self.eight_bit:
            scale, zero = self.constant(np.float32(0.05)), self.constant(np.int8(0))
            self.op("QuantizeLinear", scale, zero)
            self.op("DequantizeLinear", scale, zero)

    def residual(self, other: str) -> str:
        """The sum with another value."""
        before, self.x = self.x, other
        self.round_activation()
        other, self.x = self.x, before
        self.round_activation()
        return self.op("Add", other)

    def matrix(self, *shape: int) -> str:
        """A weight, in 8 bits if that is asked for."""
        if not self.eight_bit:
            return self.weight(*shape)
        before, integers = self.x, self.draw.integers(-127, 128, shape).astype(np.int8)
        self.x = self.constant(integers)
        scale = self.constant(np.full(shape[0], np.float32(0.001)))
        made = self.op("DequantizeLinear", scale, self.constant(np.zeros(shape[0], np.int8)), axis=0)
        self.x = before
        return made

    def linear(self, inputs: int, outputs: int) -> str:
        self.round_activation()
        self.op("MatMul", self.matrix(inputs, outputs))
        return self.op("Add", self.weight(outputs))

    def relu6(self) -> str:
        return self.op("Clip", self.constant(np.float32(0)), self.constant(np.float32(6)))

    def silu(self) -> str:
        before = self.x
        self.op("Sigmoid")
        return self.op("Mul", before)

    def norm(self, width: int) -> str:
        return self.op("LayerNormalization", self.weight(width), self.weight(width))

    def reshape(self, *shape: int) -> str:
        return self.op("Reshape", self.constant(np.array(shape, np.int64)))

    def model(self, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
        inputs = [helper.make_tensor_value_info("input", dtype, self.shape)]
        outputs = [helper.make_tensor_value_info(self.x, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, self.name, inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def resnet(depth: int, eight_bit: bool = False) -> onnx.ModelProto:
    """ResNet-18 or -50 at 224 x 224 (He et al. 2015; torchvision's v1.5, where the window carries the stride)."""
    blocks = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}[depth]
    g = Graph(f"resnet{depth}", (1, 3, 224, 224), eight_bit)
    g.conv(3, 64, 7, 2)
    g.op("Relu")
    g.op("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels = 64
    for i, count in enumerate(blocks):
        width = 64 << i
        out = width * (4 if depth == 50 else 1)
        for j in range(count):
            stride = 2 if i and not j else 1
            before = g.x
            if depth == 50:
                g.conv(channels, width)
                g.op("Relu")
                g.conv(width, width, 3, stride)
                g.op("Relu")
                main = g.conv(width, out)
            else:
                g.conv(channels, width, 3, stride)
                g.op("Relu")
                main = g.conv(width, out, 3)
            g.x = before
            if stride != 1 or channels != out:
                g.conv(channels, out, 1, stride)
            g.residual(main)
            g.op("Relu")
            channels = out
    _classify(g, channels)
    return g.model()


def mobilenet_v2(eight_bit: bool = False) -> onnx.ModelProto:
    """MobileNetV2 1.0 at 224 x 224 (Sandler et al. 2018, table 2)."""
    g = Graph("mobilenet_v2", (1, 3, 224, 224), eight_bit)
    g.conv(3, 32, 3, 2)
    g.relu6()
    channels = 32
    table = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expansion, out, count, first in table:
        for j in range(count):
            channels = inverted_residual(g, channels, out, expansion, first if not j else 1, g.relu6)
    g.conv(channels, 1280)
    g.relu6()
    _classify(g, 1280)
    return g.model()


def inverted_residual(
    g: Graph, channels: int, out: int, expansion: int, stride: int, activation: Callable[[], str]
) -> int:
    before, inner = g.x, channels * expansion
    if expansion > 1:
        g.conv(channels, inner)
        activation()
    g.conv(inner, inner, 3, stride, inner)
    activation()
    g.conv(inner, out)
    if stride == 1 and channels == out:
        g.residual(before)
    return out


def mobilevit_v2(eight_bit: bool = False) -> onnx.ModelProto:
    """MobileViTv2-1.0 at 256 x 256 (Mehta and Rastegari 2022): 78.1 % top-1, 4.9 M parameters, 1.8 G MACs."""
    g = Graph("mobilevit_v2", (1, 3, 256, 256), eight_bit)
    g.conv(3, 32, 3, 2)
    g.silu()
    channels = inverted_residual(g, 32, 64, 2, 1, g.silu)
    for stride in (2, 1):
        channels = inverted_residual(g, channels, 128, 2, stride, g.silu)
    for out, width, depth, side in ((256, 128, 2, 32), (384, 192, 4, 16), (512, 256, 3, 8)):
        channels = inverted_residual(g, channels, out, 2, 2, g.silu)
        g.conv(channels, channels, 3, 1, channels)
        g.silu()
        g.conv(channels, width)
        # Patches of 2 x 2: (1, C, H, W) -> (1, C, 4, HW/4).
        half = side // 2
        g.reshape(1, width, half, 2, half, 2)
        g.op("Transpose", perm=[0, 1, 3, 5, 2, 4])
        g.reshape(1, width, 4, half * half)
        for _ in range(depth):
            _separable_attention(g, width, half * half)
        _group_norm(g, width, half * half)
        g.reshape(1, width, 2, 2, half, half)
        g.op("Transpose", perm=[0, 1, 4, 2, 5, 3])
        g.reshape(1, width, side, side)
        g.conv(width, channels)
    _classify(g, channels)
    return g.model()


def _separable_attention(g: Graph, width: int, places: int) -> None:
    """A block of MobileViTv2 in channels-first form: scores of one channel, a context vector, a feed-forward part."""
    before = g.x
    normed = _group_norm(g, width, places)
    g.conv(width, 1)
    scores = g.op("Softmax", axis=-1)
    g.x = normed
    g.conv(width, width)
    g.op("Mul", scores)
    context = g.op("ReduceSum", g.constant(np.array([-1], np.int64)), keepdims=1)
    g.x = normed
    g.conv(width, width)
    g.op("Relu")
    g.op("Mul", context)
    g.conv(width, width)
    middle = g.residual(before)
    _group_norm(g, width, places)
    g.conv(width, 2 * width)
    g.silu()
    g.conv(2 * width, width)
    g.residual(middle)


def _group_norm(g: Graph, width: int, places: int) -> str:
    """With one group: over all axes but the batch, then a scale and a bias for each channel."""
    g.op("LayerNormalization", g.constant(np.ones((width, 4, places), np.float32)), axis=1)
    g.op("Mul", g.weight(1, width, 1, 1))
    return g.op("Add", g.weight(1, width, 1, 1))


def encoder(
    name: str, length: int, layers: int, width: int, heads: int, inner: int, batch: int = 1, patch: int = 0
) -> onnx.ModelProto:
    """A transformer encoder on embeddings: DistilBERT, MiniLM (Devlin et al. 2018), ViT (Dosovitskiy et al. 2020)."""
    g = Graph(name, (batch, 3, 224, 224) if patch else (batch, length, width))
    if patch:
        g.op("Conv", g.weight(width, 3, patch, patch), g.weight(width), strides=[patch] * 2, kernel_shape=[patch] * 2)
        g.reshape(batch, width, -1)
        g.op("Transpose", perm=[0, 2, 1])
        g.op("Concat", g.weight(batch, 1, width), axis=1)
        g.op("Add", g.weight(1, length, width))
    g.norm(width)
    for _ in range(layers):
        before, each = g.x, width // heads
        parts = []
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            g.x = before
            g.linear(width, width)
            g.reshape(batch, length, heads, each)
            parts.append(g.op("Transpose", perm=perm))
        g.x = parts[0]
        g.op("MatMul", parts[1])
        g.op("Mul", g.constant(np.float32(each**-0.5)))
        g.op("Softmax", axis=-1)
        g.op("MatMul", parts[2])
        g.op("Transpose", perm=[0, 2, 1, 3])
        g.reshape(batch, length, width)
        g.linear(width, width)
        g.op("Add", before)
        middle = g.norm(width)
        g.linear(width, inner)
        _gelu(g)
        g.linear(inner, width)
        g.op("Add", middle)
        g.norm(width)
    return g.model()


def _gelu(g: Graph) -> None:
    before = g.x
    g.op("Div", g.constant(np.float32(2**0.5)))
    g.op("Erf")
    g.op("Add", g.constant(np.float32(1)))
    g.op("Mul", before)
    g.op("Mul", g.constant(np.float32(0.5)))


def _classify(g: Graph, channels: int) -> None:
    g.op("GlobalAveragePool")
    g.op("Flatten", axis=1)
    g.linear(channels, 1000)

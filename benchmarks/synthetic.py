"""Makes ONNX models for measurements: transformers of any number of nodes, and a convolution net of any weight.

    python -m benchmarks.synthetic transformer 10000 OUT.onnx [--plain]
    python -m benchmarks.synthetic heavy 500 OUT.onnx

A transformer's layer has 47 nodes with weights 8 wide: what exporters write where one operator would do (layer norm in
9, GELU in 5), and 5 nodes that a clean-up should remove (an identity, a product with 1, two transposes that cancel, a
reshape to its own shape). ``--plain`` leaves those 5 out. A heavy model has few nodes and that many megabytes of
weights.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH, LENGTH, OPSET = 8, 4, 17
ROW, COLUMN, SCORES, TURNED = (1, LENGTH, WIDTH), (1, LENGTH, 1), (1, LENGTH, LENGTH), (1, WIDTH, LENGTH)


class Graph:
    """Nodes and initializers in the making; each value's shape is recorded as value_info, as exporters do."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._shapes: dict[str, Sequence[int]] = {}

    def op(self, kind: str, *inputs: str, shape: Sequence[int] = ROW, **attributes: object) -> str:
        output = f"v{len(self.nodes) + 1}"
        name = f"n{len(self.nodes) + 1}_{kind}"
        self.nodes.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        self._shapes[output] = shape
        return output

    def constant(self, name: str, value: object) -> str:
        self._initializers.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, name: str, *shape: int, scale: float = 0.2) -> str:
        values = self._rng.standard_normal(shape, dtype=np.float32)
        values *= np.float32(scale)
        return self.constant(name, values)

    def model(self, input_shape: Sequence[int], output: str) -> onnx.ModelProto:
        def info(name: str, shape: Sequence[int]) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        graph = helper.make_graph(
            self.nodes,
            self._name,
            [info("x", input_shape)],
            [info(output, self._shapes[output])],
            self._initializers,
            value_info=[info(n, s) for n, s in self._shapes.items() if n != output],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)


def transformer(nodes: int, noise: bool = True) -> onnx.ModelProto:
    """A chain of layers that has at least ``nodes`` nodes, and less than a layer more."""
    g = Graph("transformer")
    x = "x"
    layer = 0
    while len(g.nodes) < nodes:
        x = _layer(g, f"l{layer}", x, noise)
        layer += 1
    return g.model(ROW, x)


def _layer(g: Graph, at: str, x: str, noise: bool) -> str:
    if noise:
        x = _noise(g, at, x)
    q, k, v = (_linear(g, f"{at}.{n}", x) for n in "qkv")
    scores = g.op("MatMul", q, g.op("Transpose", k, shape=TURNED, perm=[0, 2, 1]), shape=SCORES)
    scores = g.op("Div", scores, g.constant(f"{at}.scale", np.float32(math.sqrt(WIDTH))), shape=SCORES)
    attended = g.op("MatMul", g.op("Softmax", scores, shape=SCORES, axis=-1), v)
    x = _layer_norm(g, f"{at}.norm1", g.op("Add", x, _linear(g, f"{at}.out", attended)))
    hidden = _gelu(g, at, _linear(g, f"{at}.up", x))
    return _layer_norm(g, f"{at}.norm2", g.op("Add", x, _linear(g, f"{at}.down", hidden)))


def _noise(g: Graph, at: str, x: str) -> str:
    x = g.op("Mul", g.op("Identity", x), g.constant(f"{at}.unit", np.float32(1)))
    x = g.op("Transpose", g.op("Transpose", x, shape=TURNED, perm=[0, 2, 1]), perm=[0, 2, 1])
    return g.op("Reshape", x, g.constant(f"{at}.shape", np.array(ROW, np.int64)))


def _linear(g: Graph, at: str, x: str) -> str:
    return g.op("Add", g.op("MatMul", x, g.weight(f"{at}.weight", WIDTH, WIDTH)), g.weight(f"{at}.bias", WIDTH))


def _layer_norm(g: Graph, at: str, x: str) -> str:
    centred = g.op("Sub", x, g.op("ReduceMean", x, shape=COLUMN, axes=[-1], keepdims=1))
    square = g.op("Pow", centred, g.constant(f"{at}.two", np.float32(2)))
    variance = g.op("ReduceMean", square, shape=COLUMN, axes=[-1], keepdims=1)
    variance = g.op("Add", variance, g.constant(f"{at}.epsilon", np.float32(1e-5)), shape=COLUMN)
    normal = g.op("Div", centred, g.op("Sqrt", variance, shape=COLUMN))
    return g.op("Add", g.op("Mul", normal, g.weight(f"{at}.scale", WIDTH)), g.weight(f"{at}.shift", WIDTH))


def _gelu(g: Graph, at: str, x: str) -> str:
    erf = g.op("Erf", g.op("Div", x, g.constant(f"{at}.sqrt2", np.float32(math.sqrt(2)))))
    product = g.op("Mul", x, g.op("Add", erf, g.constant(f"{at}.one", np.float32(1))))
    return g.op("Mul", product, g.constant(f"{at}.half", np.float32(0.5)))


def heavy(megabytes: int) -> onnx.ModelProto:
    """A VGG-like net: convolutions, then fully connected layers, of which the first holds 411 MB as VGG's does."""
    g = Graph("heavy")
    x, channels, size = "x", 3, 112
    for i, wide in enumerate((64, 128, 256, 512)):
        weight = g.weight(f"conv{i}.weight", wide, channels, 3, 3, scale=0.05)
        shape = (1, wide, size, size)
        x = g.op("Conv", x, weight, g.weight(f"conv{i}.bias", wide), shape=shape, pads=[1] * 4, kernel_shape=[3, 3])
        x = g.op("Relu", x, shape=shape)
        size //= 2
        x = g.op("MaxPool", x, shape=(1, wide, size, size), kernel_shape=[2, 2], strides=[2, 2])
        channels = wide
    features, hidden = channels * size * size, 4096
    x = g.op("Flatten", x, shape=(1, features))
    left = megabytes * 250_000 - sum(math.prod(t.dims) for t in g._initializers)
    while left > 0:
        here = max(1, min(hidden, left // features))
        weight = g.weight(f"fc{len(g.nodes)}.weight", here, features, scale=0.01)
        x = g.op("Gemm", x, weight, g.weight(f"fc{len(g.nodes)}.bias", here), shape=(1, here), transB=1)
        x = g.op("Relu", x, shape=(1, here))
        left -= here * features
        features = here
        if here < hidden:
            break
    return g.model((1, 3, 112, 112), x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["transformer", "heavy"])
    parser.add_argument("size", type=int, help="nodes, or megabytes of weights")
    parser.add_argument("output")
    parser.add_argument("--plain", action="store_true", help="without the nodes that a clean-up removes")
    args = parser.parse_args()
    model = transformer(args.size, not args.plain) if args.kind == "transformer" else heavy(args.size)
    onnx.save(model, args.output)
    print(f"{args.output}: {len(model.graph.node)} nodes, {model.ByteSize() / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

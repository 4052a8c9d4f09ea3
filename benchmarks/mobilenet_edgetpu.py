"""MobilenetEdgeTPU as mil operators, in the order of Core ML's compute plan for it.

The architecture is that of V3_EDGETPU in tensorflow/models, research/slim/nets/mobilenet/mobilenet_v3.py: a stem,
blocks (fused or depthwise), a head. The plan adds what Core ML puts around it: two steps that scale the picture in
fp32, casts.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import compiler.dialects.mil  # noqa: F401  (registers the dialect)
from compiler import ir

Shape = tuple[int, ...]

#: Blocks: fused or depthwise, window, stride, expansion, channels, whether they have a residual.
BLOCKS = [
    ("fused", 3, 1, 1, 16, False),
    ("fused", 3, 2, 8, 32, False),
    *[("fused", 3, 1, 4, 32, True)] * 3,
    ("fused", 3, 2, 8, 48, False),
    *[("fused", 3, 1, 4, 48, True)] * 3,
    ("depthwise", 3, 2, 8, 96, False),
    *[("depthwise", 3, 1, 4, 96, True)] * 3,
    ("depthwise", 3, 1, 8, 96, False),
    *[("depthwise", 3, 1, 4, 96, True)] * 3,
    ("depthwise", 5, 2, 8, 160, False),
    *[("depthwise", 5, 1, 4, 160, True)] * 3,
    ("depthwise", 3, 1, 8, 192, False),
]

#: Units by the columns of the file that holds Core ML's estimates.
COLUMNS = {"ane": "ms_ane", "cpu": "ms_classic_cpu", "gpu": "ms_mps_graph"}


@dataclass(frozen=True)
class Estimate:
    """One operator of Core ML's plan: its name there, the unit it chose, milliseconds by unit that takes it."""

    name: str
    output: str
    chosen: str
    ms: dict[str, float]


def reference() -> Path:
    """The file of Core ML's estimates: in the folder that PLANISH_REFERENCE names, else ../shared/reference/data."""
    folder = os.environ.get("PLANISH_REFERENCE") or Path(__file__).parents[2] / "shared" / "reference" / "data"
    return Path(folder) / "coreml_estimates_mobilenet_edgetpu_m1.csv"


def estimates() -> list[Estimate]:
    """Core ML's own estimates for the 119 operators."""
    units = {"ane": "ane", "classic_cpu": "cpu", "mps_graph": "gpu"}
    lines = [line for line in reference().read_text().splitlines() if not line.startswith("#")]
    return [
        Estimate(
            row["op"].split(".")[1],
            row["output"],
            units[row["selected"]],
            {unit: float(row[column]) for unit, column in COLUMNS.items() if row[column]},
        )
        for row in csv.DictReader(lines)
    ]


class Net:
    """Writes a mil module operator by operator; all weights are zeros that take no memory."""

    def __init__(self, shape: Shape, dtype: ir.DType = ir.F32) -> None:
        self.module = ir.Module("mobilenet_edgetpu")
        self.function = self.module.add(ir.Function("main", {"images": ir.TensorType(dtype, shape)}, ["Softmax"]))
        self.build = ir.Builder(self.function.block)
        self.x: ir.Value = self.function.inputs[0]
        self.ops: list[ir.Op] = []

    def op(self, name: str, *operands: ir.Value, shape: Shape, half: bool = True, **attributes: object) -> None:
        type_ = ir.TensorType(ir.dtype("f16") if half else ir.F32, shape)
        made = self.build.op(f"mil.{name}", [self.x, *operands], attributes, [type_])
        self.ops.append(made)
        self.x = made.result

    def weight(self, *shape: int, half: bool = True) -> ir.Value:
        array = np.broadcast_to(np.float16(0) if half else np.float32(0), shape)
        return self.build.constant(array, "mil")

    def conv(self, channels: int, window: int, stride: int, groups: int = 1) -> None:
        _, inputs, height, width = self.x.type.static_shape  # type: ignore[attr-defined]
        weight, bias = self.weight(channels, inputs // groups, window, window), self.weight(channels)
        shape = (1, channels, height // stride, width // stride)
        strides = (stride, stride)
        self.op("conv", weight, bias, shape=shape, strides=strides, pad_type="same", groups=groups)

    def same(self, name: str, *operands: ir.Value) -> None:
        self.op(name, *operands, shape=self.x.type.static_shape)  # type: ignore[attr-defined]


def build() -> Net:
    """The 119 operators."""
    net = Net((1, 3, 224, 224))
    picture = (1, 3, 224, 224)
    net.op("identity", shape=picture, half=False)  # tensor_buffer_to_tensor
    net.op("mul", net.weight(1, half=False), shape=picture, half=False)
    net.op("add", net.weight(1, 3, 1, 1, half=False), shape=picture, half=False)
    net.op("cast", shape=picture, dtype="fp16")
    net.conv(32, 3, 2)
    net.same("relu")
    for kind, window, stride, expansion, channels, residual in BLOCKS:
        before = net.x
        inner = expansion * before.type.static_shape[1]  # type: ignore[attr-defined]
        if kind == "fused" and expansion == 1:
            net.conv(channels, window, stride)
            continue
        net.conv(inner, *((window, stride) if kind == "fused" else (1, 1)))
        net.same("relu")
        if kind == "depthwise":
            net.conv(inner, window, stride, inner)
            net.same("relu")
        net.conv(channels, 1, 1)
        if residual:
            net.same("add", before)
    net.conv(1280, 1, 1)
    net.same("relu")
    net.op("avg_pool", shape=(1, 1280, 1, 1), kernel_sizes=(7, 7), strides=(1, 1), pad_type="valid")
    net.conv(1001, 1, 1)
    net.op("transpose", shape=(1, 1, 1, 1001), perm=(0, 2, 3, 1))
    net.op("squeeze", shape=(1, 1001), axes=(1, 2))
    net.same("softmax")
    net.op("cast", shape=(1, 1001), half=False, dtype="fp32")
    net.function.set_outputs([net.x])
    return net

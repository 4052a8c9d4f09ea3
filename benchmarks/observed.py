"""Predicted placement against what Core ML was seen to choose on devices (sources H, K and L)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks import mobilenet_edgetpu
from compiler import hardware, ir
from compiler.ir import Module
from passes import place


@dataclass(frozen=True)
class Observation:
    """One operator, the chip, and the unit that Core ML preferred."""

    what: str
    chip: str
    unit: str
    source: str
    module: Module


def single(name: str, left: tuple[int, int], right: tuple[int, int], dtype: str = "f16") -> Module:
    """A program of one linear operator with a constant weight, or one matrix product of two inputs."""
    element = ir.dtype(dtype)
    module = Module(name)
    inputs = {"x": ir.TensorType(element, left)}
    if name == "matmul":
        inputs["y"] = ir.TensorType(element, right)
    f = module.add(ir.Function("main", inputs, ["o"]))
    b = ir.Builder(f.block)
    columns = right[1] if name == "matmul" else right[0]
    second = f.inputs[1] if name == "matmul" else b.constant(np.broadcast_to(element.numpy.type(0), right), "mil")
    f.set_outputs([b.op(f"mil.{name}", [f.inputs[0], second], {}, [ir.TensorType(element, (left[0], columns))]).result])
    return module


def observations() -> Iterator[Observation]:
    """Where the preferred unit changes, from both sides."""
    for deep, unit in ((1024, "cpu"), (4864, "cpu"), (5120, "ane"), (16384, "ane"), (16512, "cpu")):
        module = single("linear", (1, deep), (4096, deep))
        yield Observation(f"linear of one row, {deep} deep, 4096 wide", "M3", unit, "K", module)
    for n, unit in ((128, "cpu"), (384, "cpu"), (512, "ane"), (1024, "ane")):
        yield Observation(f"matmul {n} x {n} x {n}", "M4", unit, "L", single("matmul", (n, n), (n, n)))
    full = single("matmul", (1024, 1024), (1024, 1024), "f32")
    yield Observation("matmul 1024 x 1024 x 1024, fp32", "M4", "cpu", "L", full)


def stack(channels: int, size: int, depth: int) -> Module:
    """Convolutions of 3 x 3 in a row."""
    module = Module("stack")
    element = ir.dtype("f16")
    f = module.add(ir.Function("main", {"x": ir.TensorType(element, (1, channels, size, size))}, ["o"]))
    b, x = ir.Builder(f.block), f.inputs[0]
    weight = b.constant(np.broadcast_to(np.float16(0), (channels, channels, 3, 3)), "mil")
    for _ in range(depth):
        x = b.op("mil.conv", [x, weight], {"pad_type": "same"}, [x.type]).result
    f.set_outputs([x])
    return module


#: What source D measured on the ANE of an M1 Max over a private route (chapter 11), in 10^9 operations a second.
SILICON = [
    ("linear, 64 rows, 256 to 256", single("linear", (64, 256), (256, 256)), 2 * 64 * 256 * 256, 51),
    ("linear, 128 rows, 1024 to 1024", single("linear", (128, 1024), (1024, 1024)), 2 * 128 * 1024**2, 662),
    ("linear, 256 rows, 4096 to 4096", single("linear", (256, 4096), (4096, 4096)), 2 * 256 * 4096**2, 3588),
    ("conv 3 x 3, 64 channels, 32 x 32", stack(64, 32, 1), 2 * 64 * 64 * 9 * 32**2, 99),
    ("16 convs 3 x 3, 256 channels, 32 x 32", stack(256, 32, 16), 16 * 2 * 256 * 256 * 9 * 32**2, 9602),
]


def silicon() -> list[dict[str, object]]:
    """Prints and gives estimates beside what source D measured, all operators on the ANE."""
    chip, rows = hardware.chip("M1"), []
    for what, module, flops, gflops in SILICON:
        ops = [op for op in module.main.block.ops if place.computes(op)]
        compute = sum(hardware.cost(op, "ane", chip).ms for op in ops)
        streamed = hardware.weights_ms(sum(hardware.work(op).weights for op in ops), "ane", chip)
        ms, measured = chip.dispatch_ms + max(compute, streamed), flops / gflops / 1e6
        miss = "" if abs(ms / measured - 1) <= 0.3 else "  MISS"
        print(f"{what:<40} M1  measured {measured:.3f} ms, estimated {ms:.3f} ms  {ms / measured - 1:>+5.0%}  D{miss}")
        rows.append({"what": what, "measured": measured, "estimated": ms})
    return rows


def compare() -> dict[str, object]:
    """Prints and gives how often the prediction is what was seen."""
    rows = []
    for seen in observations():
        placed = place.run(seen.module, "ane", hardware.chip(seen.chip), 17)
        (unit,) = placed.unit.values()
        rows.append((seen, unit))
        miss = "" if unit == seen.unit else "  MISS"
        print(f"{seen.what:<40} {seen.chip:<3} seen {seen.unit}, predicted {unit}  {seen.source}{miss}")
    net, reference = mobilenet_edgetpu.build(), mobilenet_edgetpu.estimates()
    chosen = place.run(net.module, "ane", hardware.chip("M1"), 17).unit
    agree = sum(chosen[op] == e.chosen for op, e in zip(net.ops, reference, strict=True))
    print(f"{'MobilenetEdgeTPU, each operator':<40} M1  as seen for {agree} of {len(reference)}  H")
    return {
        "silicon": silicon(),
        "single": [{"what": s.what, "chip": s.chip, "seen": s.unit, "predicted": u} for s, u in rows],
        "mobilenet_edgetpu": [agree, len(reference)],
    }


if __name__ == "__main__":
    compare()

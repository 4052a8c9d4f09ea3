"""Predicted placement against what Core ML was seen to choose on devices (sources H, K and L)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import mobilenet_edgetpu
import numpy as np

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
        "single": [{"what": s.what, "chip": s.chip, "seen": s.unit, "predicted": u} for s, u in rows],
        "mobilenet_edgetpu": [agree, len(reference)],
    }


if __name__ == "__main__":
    compare()

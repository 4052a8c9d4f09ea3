"""Every kernel family against onnxruntime over a sweep of sizes, in both precisions: the worst error of each.

    python -m benchmarks.metal_sweep [FAMILY …] [--precision fp32|fp16] [--verbose]

In half, floats that a model takes and gives are halves too, so that every kernel reads and writes them. A kernel family
holds if the relative L2 error of every output stays below 1e-5 in float and 5e-3 in half; exit code 1
if one does not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

import compiler
from benchmarks.metal_families import FAMILIES, Case, cases
from compiler.errors import PlanishError

#: The greatest relative L2 error by precision.
LIMIT = {"fp32": 1e-5, "fp16": 5e-3}


def worst(case: Case, precision: str) -> float:
    """The relative L2 error of the worst output, over all inputs of a full proof.

    Raises:
        PlanishError: the model does not compile, or is not what it should be.
    """
    model, inputs = case.model(), dict(case.inputs) if case.inputs else None
    if precision == "fp16" and not case.images:
        model = halved(model)
        inputs = inputs and {n: a.astype(np.float16) if a.dtype == np.float32 else a for n, a in inputs.items()}
    with tempfile.TemporaryDirectory() as folder:
        made = compiler.compile(
            model,
            target="metal",
            output=Path(folder) / "m.metalpackage",
            precision=precision,
            inputs=inputs,
            wishes=compiler.Wishes(images=case.images) if case.images else None,
        )
    return max(error.badness for error in made.report.verify.outputs.values())


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with halves in place of the floats that it takes and gives."""
    graph = model.graph
    floats, halves = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    inner = {v.name: f"{v.name}_float" for v in (*graph.input, *graph.output) if v.type.tensor_type.elem_type == floats}
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [inner.get(n, n) for n in names]
    casts = [
        onnx.helper.make_node("Cast", [v.name], [inner[v.name]], to=floats) for v in graph.input if v.name in inner
    ]
    nodes = [*casts, *graph.node]
    nodes += [
        onnx.helper.make_node("Cast", [inner[v.name]], [v.name], to=halves) for v in graph.output if v.name in inner
    ]
    for v in (*graph.input, *graph.output):
        if v.name in inner:
            v.type.tensor_type.elem_type = halves
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    parser.add_argument("--precision", action="append", choices=list(LIMIT))
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()
    precisions = options.precision or list(LIMIT)
    failed = 0
    print(f"{'family':18} {'sizes':>5} " + " ".join(f"{p:>9}" for p in precisions))
    for family in options.families or FAMILIES:
        found: dict[str, float] = dict.fromkeys(precisions, 0.0)
        listed = list(cases(family))
        for case in listed:
            for precision in precisions:
                try:
                    error = worst(case, precision)
                except PlanishError as e:
                    error = float("inf")
                    print(f"  {family} {case.sizes} {precision}: {e}")
                found[precision] = max(found[precision], error)
                if options.verbose or error > LIMIT[precision]:
                    print(f"  {family} {case.sizes} {precision}: {error:.1e}")
        failed += any(found[p] > LIMIT[p] for p in precisions)
        print(f"{family:18} {len(listed):5} " + " ".join(f"{found[p]:9.1e}" for p in precisions), flush=True)
    print("all hold" if not failed else f"{failed} families do not hold")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

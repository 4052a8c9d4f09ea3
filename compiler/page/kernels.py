"""What a page says of Metal kernels: the model as it was, the kernels with bytes, intensity, least time and error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compiler import metal, placement
from compiler.ir import Module, Op
from compiler.page.content import ROWS, Measurement
from compiler.page.graph import Drawing, draw, weights_by_layer
from compiler.report import Report, megabytes, number
from compiler.target import UNIT_TITLES

Array = np.ndarray[Any, Any]


def collect(
    before: Drawing, module: Module, package: Path, report: Report, measurement: Measurement | None
) -> dict[str, Any]:
    """All that the page's script and template need, as JSON.

    Args:
        before: the drawing of the model as it was imported.
        module: the module of ``metal.kernel`` that the package was made of.
        measurement: None where nothing was proven.
    """
    kernels = [op for op in module.main.block.ops if op.name == "metal.kernel"]
    rows = [
        {**row, "node": placement.node(op), "op": row["kernel"], "ms": row["microseconds"] / 1e3,
         "text": f"{row['microseconds']:.3g} µs"}
        for op, row in zip(kernels, report.placement["dispatched"], strict=True)
    ]  # fmt: skip
    errors = _by_kernel(kernels, package, measurement) if measurement is not None else {}
    stored = {op: sum(v.constant.nbytes for v in op.operands if v is not None and v.constant is not None)
              for op in kernels}  # fmt: skip
    after = draw(module)
    for op, row in zip(kernels, rows, strict=True):
        node = after.nodes[after.number[op]]
        node.label = op.attributes["kind"]
        inner = [o.name.removeprefix("metal.") for o in op.regions[0].ops if o.defn.constant is None]
        node.facts |= {
            "unit": "gpu",
            "computes": ", ".join(inner[:-1]),
            "kernel": row["kernel"],
            "ms": row["ms"],
            "memory": megabytes(row["bytes"]),
            "operations for each byte": row["intensity"],
        }
        if stored[op]:
            node.facts["bytes"] = stored[op]
        if op in errors:
            node.facts["error"] = errors[op]
    facts = report.to_json()
    macs = sum(row["macs"] for row in rows)
    facts["placement"] = {**facts["placement"], "ops": {"gpu": len(kernels)}, "macs": {"gpu": macs}}
    named = {op: row["kernel"] for op, row in zip(kernels, rows, strict=True)}
    return {
        "report": facts,
        "before": before.to_json(),
        "after": after.to_json(),
        "sentence": metal.sentence(report.placement),
        "kernels": rows,
        "sizes": [
            {"op": o, "node": n, "bytes": b, "text": megabytes(b), "shape": s}
            for o, n, b, s in weights_by_layer(module, stored)[:ROWS]
        ],
        "errors": [
            {"op": named[op], "node": placement.node(op), "error": e, "text": number(e)}
            for op, e in sorted(errors.items(), key=lambda item: -item[1])[:ROWS]
        ],
        "measured": len(errors),
        "slowest": sorted(rows, key=lambda row: -row["ms"])[:ROWS],
        "rules": report.rules.most_common(),
        "units": {**UNIT_TITLES, "gpu": "GPU"},
    }


def _by_kernel(kernels: list[Op], package: Path, with_: Measurement) -> Mapping[Op, float]:
    """How far what kernels store is off, relative L2: of values that the original model has by name and shape."""
    from codegen.metal import executor
    from codegen.metal import package as files
    from compiler.proof import compare

    stored = [(op, r.name) for op in kernels for r in op.results]
    theirs = with_.reference.values(with_.inputs, [name for _, name in stored if name])
    found: dict[Op, float] = {}
    traced = executor.Session(files.read(package)).trace(with_.inputs)
    for (op, name), array in zip(stored, traced, strict=True):
        expected = theirs.get(name)
        if expected is not None and expected.shape == array.shape:
            error = float(compare(array, expected).badness)
            if np.isfinite(error):
                found[op] = max(error, found.get(op, 0.0))
    return found

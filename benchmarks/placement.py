"""Predicted placement of our packages beside Apple's for the same networks, judged by the same tables.

    python -m benchmarks.placement ../shared/pairs [../shared/models] [NAME …] [--chip A17] [--json FILE] [--markdown]
                                   [--proven]

Both are judged with half-precision inputs and outputs: Apple's converter gives such outputs where nothing else is
asked, ours keep the model's types, and casts at the edge say nothing about either. For each network: the share of
multiplications that the Neural Engine takes at all (`eligible`) and that is predicted to run there, the share of
operators, transposes and reshapes between computations, and the estimated latency. A folder without apple.mlpackage has
our side only. With ``--proven`` a second table says what is left of it after the proof, and which facts keep the rest
off (benchmarks/placement_proven.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compiler import driver, hardware, placement
from compiler.errors import PlanishError
from compiler.ir import Module, TensorType
from compiler.proof import read_package
from compiler.target import Target
from passes import place

#: The columns of one side.
SIDE = ("eligible", "MACs", "ops", "layout", "ms")


def halve_edges(module: Module) -> None:
    """Takes away casts between fp32 inputs and outputs and the half-precision program between them."""
    main = module.main
    for argument in main.inputs:
        casts = [u for u in argument.users if u.name == "mil.cast" and _is(u.result, "f16")]
        if casts and len(casts) == len(list(argument.users)) and _is(argument, "f32"):
            argument.type = casts[0].result.type
            for op in casts:
                op.result.replace_all_uses_with(argument)
                op.erase()
    outputs = []
    for value in main.outputs:
        op = value.op
        edge = op is not None and op.name == "mil.cast" and _is(value, "f32") and _is(op.operands[0], "f16")
        outputs.append(op.operands[0] if edge and op is not None else value)
    main.block.terminator.operands = tuple(outputs)
    for op in [o for o in main.block.ops if o.name == "mil.cast" and o.is_unused]:
        op.erase()


def _is(value: Any, dtype: str) -> bool:
    return value is not None and isinstance(value.type, TensorType) and value.type.dtype.name == dtype


def judged(module: Module, chip: str, ios: int) -> dict[str, Any]:
    """The placement of a mil module as JSON."""
    halve_edges(module)
    return placement.describe(place.run(module, "ane", hardware.chip(chip), ios))


def options(folder: Path, chip: str) -> driver.Options:
    """Options for --target ane with the shapes that meta.json gives, open dimensions fixed to those of io.npz."""
    import numpy as np
    import onnx

    given = {}
    with np.load(folder / "io.npz") as io:
        arrays = {k.removeprefix("in:"): io[k].shape for k in io.files if k.startswith("in")}
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    known = {i.name for i in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        if value.name not in known and value.name in arrays and any(not d.HasField("dim_value") for d in dims):
            given[value.name] = tuple(arrays[value.name])
    return driver.Options(Target.of("ane", "ios18", chip=chip), given)


def rows(folders: list[Path], names: list[str], chip: str) -> Iterator[dict[str, Any]]:
    """One row for each network; ``error`` where ours cannot be compiled."""
    for root in folders:
        for folder in sorted(p.parent for p in root.glob("*/model.onnx")):
            if names and folder.name not in names:
                continue
            row: dict[str, Any] = {"network": folder.name}
            try:
                row["ours"] = judged(driver.at_stage(folder / "model.onnx", "half", options(folder, chip)), chip, 18)
            except PlanishError as e:
                row["error"] = e.message
            apple = folder / "apple.mlpackage"
            if apple.is_dir():
                row["apple"] = judged(read_package(apple), chip, 18)
            yield row


def cells(facts: Mapping[str, Any] | None) -> list[str]:
    if facts is None:
        return ["–"] * len(SIDE)
    return [
        placement.percent(facts["eligible"]["macs"]) if sum(facts["macs"].values()) else "none",
        placement.percent(facts["residency"]["macs"]) if sum(facts["macs"].values()) else "none",
        placement.percent(facts["residency"]["ops"]),
        str(facts["interior_layout_ops"]),
        f"{facts['estimates']['latency_ms']:.3f}",
    ]


def summary(all_rows: list[dict[str, Any]]) -> list[str]:
    both = [r for r in all_rows if "ours" in r and "apple" in r]
    lines = []
    if both:
        ours, apple = (sum(r[s]["interior_layout_ops"] for r in both) for s in ("ours", "apple"))
        lines.append(f"{len(both)} pairs: interior transposes and reshapes {ours} against {apple}")
        slower = [r["network"] for r in both if _ms(r["ours"]) > 1.001 * _ms(r["apple"])]
        lines.append(f"estimated slower than Apple's: {len(slower)} of {len(both)} {', '.join(slower)}".rstrip())
    ours_rows = [r for r in all_rows if "ours" in r and sum(r["ours"]["macs"].values())]
    full = [r for r in ours_rows if r["ours"]["eligible"]["macs"] >= 0.99]
    lines.append(f"at least 99 % of MACs eligible: {len(full)} of {len(ours_rows)}")
    return lines


def _ms(facts: Mapping[str, Any]) -> float:
    return float(facts["estimates"]["latency_ms"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--chip", default=hardware.DEFAULT_CHIP)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", action="store_true")
    parser.add_argument("--proven", action="store_true")
    arguments = parser.parse_args()
    folders = [Path(p) for p in arguments.paths if Path(p).is_dir()]
    names = [p for p in arguments.paths if not Path(p).is_dir()]
    header = ["network", *(f"{s} {c}" for c in SIDE for s in ("ours", "Apple"))]
    if arguments.markdown:
        print("| " + " | ".join(header) + " |")
        print("|" + "---|" * len(header))
    else:
        print("  ".join(f"{h:>14}" for h in header))
    done = []
    for row in rows(folders, names, arguments.chip):
        done.append(row)
        pairs = zip(cells(row.get("ours")), cells(row.get("apple")))
        line = [row["network"], *(c for pair in pairs for c in pair)]
        print(
            ("| " + " | ".join(line) + " |") if arguments.markdown else "  ".join(f"{c:>14}" for c in line), flush=True
        )
        if "error" in row:
            print(f"  {row['network']}: {row['error']}", file=sys.stderr)
    print("\n" + "\n".join(summary(done)))
    if arguments.json:
        arguments.json.write_text(json.dumps(done, indent=1))
    if not arguments.proven:
        return 0
    from benchmarks import placement_proven

    print()
    return 1 if placement_proven.show(folders, names)[1] else 0


if __name__ == "__main__":
    raise SystemExit(main())

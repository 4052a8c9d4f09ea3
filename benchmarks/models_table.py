"""One table of what became of models, for all targets side by side, from the rows that benchmarks.models collects.

    python -m benchmarks.models_table found.json

How operators are counted, ours and Apple's alike (:func:`count`): everything in the package's program, bodies of loops
and branches included, except constants, weights that are stored compressed (``constexpr_…``) and terminators. The plain
count leaves out casts between an f32 input or output and the half-precision program: Apple's converter gives f16
outputs where nothing else is asked, ours keep the model's types, and a cast at the edge says nothing about what a
compiler made of the network. The total is also given with these casts counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.placement import halve_edges
from compiler.proof import LIMITS, read_package
from compiler.report import number_of_ops

Row = dict[str, Any]

#: The share of Apple's operators that ours may come to in all, and the share on one network; for --target gpu.
IN_ALL, ON_ONE = 0.95, 1.0


def count(package: Path) -> tuple[int, int]:
    """How many operators a package has: casts at its edge left out, and counted."""
    module = read_package(package)
    with_edges = number_of_ops(module)
    halve_edges(module)
    return number_of_ops(module), with_edges


def worst(row: Row) -> str:
    """The greatest relative L2 error of the outputs; nothing where nothing was compared."""
    errors = [o["rel_l2"] for o in row["report"].get("verify", {}).get("outputs", {}).values()]
    return "" if not errors else "inf" if None in errors else f"{max(errors):.1e}"


def own_limit(row: Row) -> str:
    """The limit of the proof where it is not the plain one of its precision."""
    limit = row["report"].get("verify", {}).get("limit")
    return f"limit {limit:.1e}, see docs/proof.md" if limit not in (None, *LIMITS.values()) else ""


def verdict(row: Row) -> str:
    return {0: "proven", 1: "FAILED", 2: "refused"}.get(row["code"], f"exit {row['code']}")


def against_apple(rows: Sequence[Row]) -> list[str]:
    """Our operators beside those of Apple's converter, over the networks for which it made a package."""
    both = [(r["model"], r["ops"], r["apple"]) for r in rows if r["apple"] and r["ops"]]
    if not both:
        return []
    ours, theirs = (sum(b[i] for b in both) for i in (1, 2))
    larger = [f"{name} {mine} to {other}" for name, mine, other in both if mine > ON_ONE * other]
    more = f"larger: {', '.join(larger)}" if larger else "larger nowhere"
    lines = [
        f"{ours} operators beside {theirs} of Apple's converter over {len(both)} networks, {ours / theirs:.3f}; {more}"
    ]
    all_ours, all_theirs = (sum(r[key] for r in rows if r["apple"] and r["ops"]) for key in ("edges", "apple_edges"))
    lines.append(f"with casts at the edge counted {all_ours} beside {all_theirs}, {all_ours / all_theirs:.3f}")
    return lines


def table(rows: Sequence[Row]) -> list[str]:
    """Markdown: a line a model, for each target error, seconds of the processor, and operators; totals; and what was
    not proven, why. It is the processor's time, as a machine that does other work too only changes the other."""
    targets = list(dict.fromkeys(r["target"] for r in rows))
    head = [f"{t}{what}" for t in targets for what in (" error", " s", " ops")]
    lines = ["| model | " + " | ".join([*head, "Apple's ops"]) + " |", "|---|" + "---:|" * (len(head) + 1)]
    notes = []
    networks = list(dict.fromkeys((r["folder"], r["model"]) for r in rows))
    names = [name for _, name in networks]
    for folder, model in networks:
        mine = {r["target"]: r for r in rows if (r["folder"], r["model"]) == (folder, model)}
        name = model if names.count(model) == 1 else f"{model} in {folder}"
        cells, apple = [], ""
        for target in targets:
            row = mine.get(target)
            if row is None:
                cells += ["", "", ""]
                continue
            said = worst(row) if row["code"] == 0 else " ".join(filter(None, (verdict(row), worst(row))))
            cells += [said, f"{row['processor']:.1f}", str(row["ops"] or "")]
            apple = str(row["apple"] or "")
            why = row["said"].removeprefix("error: ") if row["code"] else own_limit(row)
            notes += [f"- {name}, {target}: {why}"] if why else []
        lines.append(f"| {name} | " + " | ".join([*cells, apple]) + " |")
    totals = []
    for target in targets:
        own = [r for r in rows if r["target"] == target]
        good = [r for r in own if r["code"] == 0]
        seconds, ops = sum(r["processor"] for r in own), sum(r["ops"] or 0 for r in good)
        totals += [f"{len(good)} of {len(own)}", f"{seconds:.0f}", str(ops)]
    apples = {(r["folder"], r["model"]): r["apple"] or 0 for r in rows}
    lines.append("| proven, in all | " + " | ".join([*totals, str(sum(apples.values()) or "")]) + " |")
    for target in targets:
        notes += [f"- {target}: {line}" for line in against_apple([r for r in rows if r["target"] == target])]
    return [*lines, "", *notes]


def more_than_apple(rows: Sequence[Row]) -> bool:
    """Whether packages for the GPU have more operators than the limits allow."""
    both = [(r["ops"], r["apple"]) for r in rows if r["target"] == "gpu" and r["apple"] and r["ops"]]
    return any(mine > ON_ONE * other for mine, other in both) or sum(b[0] for b in both) > IN_ALL * sum(
        b[1] for b in both
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="what benchmarks.models --json wrote")
    print("\n".join(table(json.loads(parser.parse_args().json.read_text()))))
    return 0


if __name__ == "__main__":
    sys.exit(main())

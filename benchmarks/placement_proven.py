"""What is left of residency once packages are proven: operators that the proof moved to fp32 are off the Neural Engine.

    python -m benchmarks.placement_proven ../shared/pairs ../shared/models [NAME …] [--made-up] [--json FILE]

Each model is compiled by the command that users have, `compile --target ane --os ios18`, with the shapes beside it and,
unless ``--made-up`` says otherwise, on the inputs beside it (io.npz). For each: the share of multiplications that the
Neural Engine takes, of those that it is predicted to run, the operators in fp32, the proof's error; and next to each
below 99 % what keeps multiplications off, with the source of that fact. Exit code 1 if one is below for another reason.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.models import compile_one, own_inputs, shapes
from benchmarks.models_table import worst
from compiler.placement import percent

#: The share of multiplications that is asked for.
WANTED = 0.99

#: Reasons that are no facts about the unit: what the proof decided, and the cost model.
MOVED, TOO_LITTLE = "fp32 values", "too little work"


def rows(folders: list[Path], names: list[str], made_up: bool) -> Iterator[dict[str, Any]]:
    """One row for each model with its report; ``said`` instead where it was not proven."""
    with tempfile.TemporaryDirectory() as place:
        for root in folders:
            for folder in sorted(p.parent for p in root.glob("*/model.onnx")):
                if names and folder.name not in names:
                    continue
                words = [*shapes(folder), "--os", "ios18", *([] if made_up else own_inputs(folder, Path(place)))]
                row = compile_one(folder / "model.onnx", "ane", words)
                yield {"network": folder.name, "target": "ane", **row}


def share(row: Mapping[str, Any]) -> float | None:
    """The share of multiplications that the unit takes; None of a model without any, or that was not proven."""
    placed = row["report"].get("placement")
    return placed["eligible"]["macs"] if row["code"] == 0 and placed and sum(placed["macs"].values()) else None


def reasons(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What keeps multiplications off the unit because it does not take them, most of them first."""
    return [r for r in row["report"]["placement"]["reasons"] if r["macs"] and not r["reason"].startswith(TOO_LITTLE)]


def fact(row: Mapping[str, Any]) -> str:
    """Why less than is wanted runs on the unit; empty where enough does."""
    eligible = share(row)
    if eligible is None or eligible >= WANTED:
        return ""
    total = sum(row["report"]["placement"]["macs"].values())
    return "; ".join(
        f"{percent(r['macs'] / total)} of MACs: {r['reason']} ({r['source'].partition(':')[0]})" for r in reasons(row)
    )


def excused(row: Mapping[str, Any]) -> bool:
    """Whether no more is off the unit than facts about it explain: what the proof moved is none."""
    if share(row) is None:
        return True
    moved = sum(r["macs"] for r in reasons(row) if r["reason"].startswith(MOVED))
    return moved <= (1 - WANTED) * sum(row["report"]["placement"]["macs"].values())


def line(row: Mapping[str, Any]) -> str:
    if row["code"]:
        return f"| {row['network']} | not proven: {row['said']} | | | | |"
    placed = row["report"]["placement"]
    cells = [percent(placed[k]["macs"]) if share(row) is not None else "none" for k in ("eligible", "residency")]
    kept = len(row["report"].get("fp32_ops", []))
    return f"| {row['network']} | {' | '.join(cells)} | {kept} | {worst(row)} | {fact(row)} |"


def show(folders: list[Path], names: list[str], made_up: bool = False) -> tuple[list[dict[str, Any]], list[str]]:
    """Prints the table; gives its rows, and the models that are below what is wanted for other reasons than facts."""
    print("| network | eligible | MACs | in fp32 | error | fact |\n|---|---|---|---|---|---|")
    done = []
    for row in rows(folders, names, made_up):
        done.append(row)
        print(line(row), flush=True)
    shares = [s for row in done if (s := share(row)) is not None]
    print(f"\nat least 99 % of MACs eligible after the proof: {sum(s >= WANTED for s in shares)} of {len(shares)}")
    guilty = [row["network"] for row in done if row["code"] or not excused(row)]
    print(f"below for other reasons than facts: {len(guilty)} {', '.join(guilty)}".rstrip())
    return done, guilty


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--made-up", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    folders = [Path(p) for p in arguments.paths if Path(p).is_dir()]
    names = [p for p in arguments.paths if not Path(p).is_dir()]
    done, guilty = show(folders, names, arguments.made_up)
    if arguments.json:
        arguments.json.write_text(json.dumps(done, indent=1))
    return 1 if guilty else 0


if __name__ == "__main__":
    sys.exit(main())

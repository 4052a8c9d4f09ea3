"""Compiles every model of a folder for some targets and prints a table: verdict, error, seconds, operators, and the
limit where it is not the plain one.

    python benchmarks/models.py ../shared/models --target ane --target cpu [NAME …] [--json FILE]

Each compile is a process of its own, as a user would start it. Shapes come from meta.json beside each model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from compiler.proof import LIMITS


def compile_one(model: Path, target: str, extra: list[str]) -> dict[str, object]:
    """One compile: its exit code, wall-clock seconds, JSON report if there is one, and what it said last."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [
            *(sys.executable, "-m", "compiler.cli", str(model), "--target", target),
            *("-o", f"{folder}/out.mlpackage", "--json", str(report), *extra),
        ]
        start = perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = perf_counter() - start
        data = json.loads(report.read_text()) if report.exists() else {}
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    errors = [line for line in said if line.startswith("error:")]
    return {"code": done.returncode, "seconds": seconds, "report": data, "said": errors[0] if errors else ""}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--target", action="append")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--own-inputs", action="store_true", help="prove on io.npz beside the model")
    arguments, extra = parser.parse_known_intermixed_args()
    names = arguments.names or sorted(p.parent.name for p in arguments.folder.glob("*/model.onnx"))
    rows = []
    for target in arguments.target or ["ane", "cpu"]:
        for name in names:
            folder = arguments.folder / name
            own = ["--inputs", str(folder / "io.npz")] if arguments.own_inputs else []
            row = compile_one(folder / "model.onnx", target, [*shapes(folder), *own, *extra])
            rows.append({"model": name, "target": target, **row})
            print(line(rows[-1]), flush=True)
    passed = sum(r["code"] == 0 for r in rows)
    print(f"{passed} of {len(rows)} proven")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 0 if passed == len(rows) else 1


def shapes(folder: Path) -> list[str]:
    """``--shape`` for every input, from meta.json beside the model."""
    inputs = json.loads((folder / "meta.json").read_text())["inputs"]
    return [word for name, (_, dims) in inputs.items() for word in ("--shape", f"{name}={','.join(map(str, dims))}")]


def line(row: dict) -> str:
    report = row["report"]
    outputs = report.get("verify", {}).get("outputs", {})
    errors = [o["rel_l2"] for o in outputs.values()]
    worst = "" if not errors else "inf" if None in errors else f"{max(errors):.1e}"
    ops = sum(report.get("ops", {}).values()) or ""
    kept = len(report.get("fp32_ops", []))
    fp32 = f"{kept} fp32" if kept and report.get("precision") == "fp16" else ""
    limit = report.get("verify", {}).get("limit")
    own = f"limit {limit:.1e}, see docs/proof.md" if limit not in (None, *LIMITS.values()) else ""
    verdict = {0: "proven", 1: "FAILED"}.get(row["code"], f"exit {row['code']}")
    text = f"{row['model']:24} {row['target']:4} {verdict:8} {worst:8} {row['seconds']:6.1f} s {ops:>5} ops {fp32:8}"
    return f"{text} {own} {row['said'][:160]}".rstrip()


if __name__ == "__main__":
    sys.exit(main())

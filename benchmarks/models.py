"""Compiles every model of folders for some targets and prints one table: verdict, error, seconds, operators (of Apple's
converter too), totals, and why what is not proven is not.

    python -m benchmarks.models ../shared/models ../shared/pairs [--target gpu …] [NAME …] [--own-inputs] [--json FILE]

Each compile is a process of its own, as a user would start it; what is not known here (``--os ios18``) is passed on to
it. Targets are ane, cpu and gpu unless some are named. Shapes come from meta.json or io.npz beside each model. Where a
package of Apple's converter stands beside it, the model is compiled for the same release, and that package's operators
are counted as well; benchmarks.models_table says what is counted. Exit code 1 if a compile is not proven, or a package
for the GPU has more operators than that module allows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx

from benchmarks.models_table import count, more_than_apple, own_limit, table, verdict, worst


def compile_one(model: Path, target: str, extra: list[str]) -> dict[str, object]:
    """One compile: its exit code, seconds by the clock and of the processor, report if there is one, and its error."""
    with tempfile.TemporaryDirectory() as folder:
        report, package = Path(folder) / "report.json", Path(folder) / "out.mlpackage"
        command = [
            *(sys.executable, "-m", "compiler.cli", str(model), "--target", target),
            *("-o", str(package), "--json", str(report), *extra),
        ]
        start, before = perf_counter(), processor()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds, busy = perf_counter() - start, processor() - before
        data = json.loads(report.read_text()) if report.exists() else {}
        inner, edges = count(package) if (package / "Manifest.json").exists() else (None, None)  # kernels have none
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    errors = [line for line in said if line.startswith("error:")]
    return {
        "code": done.returncode,
        "seconds": seconds,
        "processor": busy,
        "report": data,
        "ops": inner,
        "edges": edges,
        "said": errors[0] if errors else "",
    }


def processor() -> float:
    """Seconds of processor time that finished child processes have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="+", metavar="FOLDER|NAME")
    parser.add_argument("--target", action="append")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--own-inputs", action="store_true", help="prove on io.npz beside the model")
    arguments, extra = parser.parse_known_intermixed_args()
    names = [w for w in arguments.words if not Path(w).is_dir()]
    found = sorted(p.parent for w in arguments.words for p in Path(w).glob("*/model.onnx"))
    folders = [f for f in found if f.name in names or not names]
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for target in arguments.target or ["ane", "cpu", "gpu"]:
            print(f"{'model':24} {'unit':4} {'verdict':8} {'error':8} {'time':>8} {'ops':>5} {'Apple':>5}")
            for folder in folders:
                words = [*shapes(folder), *([] if "--os" in extra else release(folder)), *extra]
                words += own_inputs(folder, Path(place)) if arguments.own_inputs else []
                theirs = folder / "apple.mlpackage"
                apple, apple_edges = count(theirs) if theirs.exists() else (None, None)
                row = compile_one(folder / "model.onnx", target, words)
                place_of = {"model": folder.name, "folder": folder.parent.name, "target": target}
                rows.append({**place_of, "apple": apple, "apple_edges": apple_edges, **row})
                print(line(rows[-1]), flush=True)
    print("\n" + "\n".join(table(rows)))
    passed = sum(r["code"] == 0 for r in rows)
    print(f"{passed} of {len(rows)} proven")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))
    return 0 if passed == len(rows) and not more_than_apple(rows) else 1


def shapes(folder: Path) -> list[str]:
    """``--shape`` for every input, from meta.json beside the model, or else from the inputs beside it."""
    meta = json.loads((folder / "meta.json").read_text())
    if isinstance(meta.get("inputs"), dict):
        sizes = {name: dims for name, (_, dims) in meta["inputs"].items()}
    else:
        sizes = {name: array.shape for name, array in in_order(folder).items()}
    return [word for name, dims in sizes.items() for word in ("--shape", f"{name}={','.join(map(str, dims))}")]


def in_order(folder: Path) -> dict[str, np.ndarray]:
    """The inputs in io.npz that are numbered in the order of the model's (``in0`` …), by name."""
    graph = onnx.load(folder / "model.onnx", load_external_data=False).graph
    held = {t.name for t in graph.initializer}
    names = [i.name for i in graph.input if i.name not in held]
    with np.load(folder / "io.npz") as io:
        return {name: io[f"in{i}"] for i, name in enumerate(names)}


def own_inputs(folder: Path, place: Path) -> list[str]:
    """``--inputs`` with those that lie beside the model."""
    io = folder / "io.npz"
    with np.load(io) as arrays:
        numbered = "in0" in arrays
    if numbered:
        io = place / f"{folder.name}.npz"
        np.savez(io, **in_order(folder))
    return ["--inputs", str(io)]


def release(folder: Path) -> list[str]:
    """``--os`` as Apple's converter was given it."""
    target = json.loads((folder / "meta.json").read_text()).get("target")
    return ["--os", target.lower()] if target else []


def line(row: dict) -> str:
    """A compile as it is done: verdict, error, seconds, operators, and what it said."""
    report = row["report"]
    ops, beside = row["ops"] or "", row["apple"] or ""
    kept = len(report.get("fp32_ops", []))
    fp32 = f"{kept} fp32" if kept and report.get("precision") == "fp16" else ""
    what = f"{row['model']:24} {row['target']:4} {verdict(row):8} {worst(row):8}"
    text = f"{what} {row['seconds']:6.1f} s {ops:>5} {beside:>5} {fp32:8}"
    return f"{text} {own_limit(row)} {row['said'][:160]}".rstrip()


if __name__ == "__main__":
    sys.exit(main())

"""Reads packages that Apple's converter wrote and holds what they compute against the network that they come from.

    python -m benchmarks.reader ../shared/pairs [NAME …]

Each NAME/apple.mlpackage goes through ``planish run`` on NAME/io.npz, and through ``planish export`` into onnxruntime.
Its error must stay below 2e-2, or below twice the pair's floor: what half precision alone costs, measured when the pair
was made by an interpreter of the package that is not ours (meta.json, ``mil_interp_fp16_rounded_rel_err_per_output``).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

LIMIT = 2e-2
FLOOR = "mil_interp_fp16_rounded_rel_err_per_output"
PLANISH = [sys.executable, "-c", "from compiler.cli import planish_main; planish_main()"]


def planish(*words: object) -> str:
    """Runs the command; gives the first line of its error, or nothing."""
    done = subprocess.run([*PLANISH, *map(str, words)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[0]


def errors(ours: dict[str, np.ndarray], io: dict[str, np.ndarray], outputs: list[str]) -> float:
    """The worst relative L2 error over the outputs, which stand in the order of the file's."""
    worst = 0.0
    for i, name in enumerate(outputs):
        a, b = ours[name].astype(np.float64), io[f"out{i}"].astype(np.float64)
        worst = max(worst, float(np.linalg.norm(a - b) / np.linalg.norm(b)) if a.shape == b.shape else np.inf)
    return worst


def measure(folder: Path, work: Path) -> dict[str, object]:
    """One pair: errors of ``run`` and ``export``, the limit, and what went wrong."""
    import onnxruntime as ort

    meta = json.loads((folder / "meta.json").read_text())
    with np.load(folder / "io.npz") as file:
        io = dict(file)
    inputs = meta["names"]["apple_inputs"] if "names" in meta else [i["name"] for i in meta["apple_inputs"]]
    outputs = meta["names"]["apple_outputs"] if "names" in meta else [o["name"] for o in meta["apple_outputs"]]
    package, given, got, model = folder / "apple.mlpackage", work / "in.npz", work / "out.npz", work / "m.onnx"
    np.savez(given, **{name: io[f"in{i}"] for i, name in enumerate(inputs)})
    floors = (
        meta.get("mil_interp_fp16_rounded_rel_err_per_output") or meta.get("mil_interp_rel_err_per_output") or [0.0]
    )
    row: dict[str, object] = {
        "name": folder.name,
        "limit": max(LIMIT, 2 * max(floors)),
        "run": np.inf,
        "export": np.inf,
    }
    row["said"] = planish("run", package, "--inputs", given, "--outputs", got)
    if not row["said"]:
        with np.load(got) as file:
            row["run"] = errors(dict(file), io, outputs)
    row["said"] = row["said"] or planish("export", package, model)
    if not row["said"]:
        session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        fed = {}
        for i, name in zip(session.get_inputs(), inputs):
            kind = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}[i.type]
            fed[i.name] = io[f"in{inputs.index(name)}"].astype(kind)
        row["export"] = errors(dict(zip((o.name for o in session.get_outputs()), session.run(None, fed))), io, outputs)
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    names = arguments.names or sorted(p.parent.name for p in arguments.folder.glob("*/apple.mlpackage"))
    print(f"{'pair':18} {'run':>9} {'limit':>9} {'export':>9}")
    good = 0
    for name in names:
        with tempfile.TemporaryDirectory() as work:
            row = measure(arguments.folder / name, Path(work))
        fine = row["run"] <= row["limit"] and row["export"] <= row["limit"]
        good += fine
        verdict = "" if fine else "  FAILED"
        numbers = f"{row['run']:9.1e} {row['limit']:9.1e} {row['export']:9.1e}"
        print(f"{name:18} {numbers}{verdict} {row['said']}".rstrip(), flush=True)
    print(f"{good} of {len(names)} within their limit")
    return 0 if good == len(names) else 1


if __name__ == "__main__":
    sys.exit(main())

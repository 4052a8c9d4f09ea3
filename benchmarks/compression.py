"""What compression costs on real tasks: text read, boxes found, sizes; a table to paste into docs/compression.md.

    python benchmarks/compression.py ../shared/models [--task ocr|yolo|faces]… [--lines 60] [--photos 24]

needs pip install pillow rapidfuzz scikit-image, and fonts. Packages run as the proof runs them: read back from disk, in
emulated half precision.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import compression_tasks as tasks
import numpy as np
import onnx
import onnxruntime as ort

import compiler
from compiler.driver import Options, load_library
from compiler.errors import PlanishError
from compiler.proof import MilSession, read_package

#: Rows: what the table calls them, and options of compile; "calibrate" stands for the calibration inputs.
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("fp16", {}),
    ("int8", {"quantize": "int8"}),
    ("int8, calibrated", {"quantize": "int8", "calibrate": True}),
    ("palette6", {"quantize": "palette6"}),
    ("palette4-group16", {"quantize": "palette4-group16", "os": "ios18"}),
    ("palette4-group16, calibrated", {"quantize": "palette4-group16", "os": "ios18", "calibrate": True}),
    ("w8a8", {"quantize": "w8a8", "calibrate": True}),
    ("mixed, max error 0.05", {"quantize": "mixed", "max_error": 0.05, "os": "ios18", "calibrate": True}),
    ("pruned 30 %, untrained", {"prune": 0.3, "calibrate": True}),
    ("pruned 30 %, untrained, int8", {"prune": 0.3, "quantize": "int8", "calibrate": True}),
]

Score = Callable[[Callable[[np.ndarray], list[np.ndarray]]], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--task", action="append", choices=["ocr", "yolo", "faces"])
    parser.add_argument("--lines", type=int, default=450)
    parser.add_argument("--photos", type=int, default=24)
    parser.add_argument("--rows", default="", help="only rows of these names, with | between")
    args = parser.parse_args()
    for task in args.task or ["ocr", "yolo", "faces"]:
        model, name, shape, data, score, unit = globals()[task](args)
        table(model, name, shape, data, score, unit, args.rows)


def ocr(args: argparse.Namespace) -> tuple:
    path = args.models / "ppocrv4_rec" / "model.onnx"
    metadata = {p.key: p.value for p in onnx.load(path, load_external_data=False).metadata_props}
    keys = ["", *metadata["character"].splitlines(), " "]
    pictures, texts = tasks.lines(args.lines, seed=1)
    data, _ = tasks.lines(16, seed=2)

    def score(run):
        return tasks.characters_right(texts, [tasks.read(run(p)[0], keys) for p in pictures])

    return path, "x", (1, 3, 48, 320), data, score, "characters right"


def yolo(args: argparse.Namespace) -> tuple:
    path = args.models / "yolov8n_320" / "model.onnx"
    return path, "images", (1, 3, 320, 320), *_boxes(path, "images", (320, 320), args, 1 / 255, 0.0, tasks.yolo_boxes)


def faces(args: argparse.Namespace) -> tuple:
    path = args.models / "ultraface" / "model.onnx"
    return path, "input", (1, 3, 240, 320), *_boxes(path, "input", (240, 320), args, 1 / 128, 127.0, tasks.face_boxes)


def _boxes(path, name, size, args, scale, shift, boxes) -> tuple:
    """Agreement with the boxes that the original finds (score 0.25 and up)."""
    pictures = (tasks.photographs(size, args.photos, seed=1) - np.float32(shift)) * np.float32(scale)
    data = (tasks.photographs(size, 8, seed=2) - np.float32(shift)) * np.float32(scale)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    truth = [boxes(session.run(None, {name: p}), 0.25) for p in pictures]
    print(f"{sum(map(len, truth))} boxes on {len(pictures)} photographs")

    def score(run):
        return tasks.mean_average_precision(truth, [boxes(run(p), 0.05) for p in pictures])

    return data, score, "mAP against the original"


def table(path: Path, name: str, shape: tuple, data: np.ndarray, score: Score, unit: str, rows: str) -> None:
    weights = tasks.weight_bytes(path)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    original = score(lambda p: session.run(None, {name: p}))
    print(f"\n### {path.parent.name}: {unit}\n")
    print("| | package MB | of f32 weights | MACs | score | compile s |\n|---|---|---|---|---|---|")
    print(f"| original | {weights / 1e6:.2f} (weights) | 100 % | 100 % | {original:.4f} | |", flush=True)
    library = load_library(Options())
    for label, options in ROWS:
        if rows and label not in rows.split("|"):
            continue
        given = {k: {name: data} if k == "calibrate" else v for k, v in options.items()}
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "model.mlpackage"
            start = time.perf_counter()
            try:
                done = compiler.compile(path, "ane", out, shapes={name: shape}, verify="fast", **given)
            except PlanishError as e:
                print(f"| {label} | {e.message} | | | | |", flush=True)
                continue
            seconds = time.perf_counter() - start
            run = MilSession(read_package(out), library)
            got = score(lambda p, run=run: run.run([p]))
            size = done.report.bytes["package"]
            pruned = done.report.compression.get("pruning")
            macs = f"{100 * pruned['macs'] / pruned['macs_before']:.0f} %" if pruned else "100 %"
            print(
                f"| {label} | {size / 1e6:.2f} | {100 * size / weights:.1f} % | {macs} | {got:.4f} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

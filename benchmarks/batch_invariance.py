"""Whether rows come out the same to the bit, however many share a call, and what that costs.

    python -m benchmarks.batch_invariance ../shared/models [MODEL…] [--seconds 30]

Every model that takes ``--batch 1..64`` is compiled so and loaded as ``planish serve`` loads it. 64 different rows are
computed alone, then in calls of every number of rows from 2 to 64 (of some numbers where all would take longer than
``--seconds`` a model; the table says how many and up to which), from different places among the 64. Then the time of a
row: as onnxruntime computes one of its own choice, on all processors, and as it is computed here, alone and together.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

import compiler
import compiler.ir
from compiler.driver import Options, load_library
from compiler.errors import PlanishError
from compiler.execution import samples
from compiler.execution.description import ROWS
from compiler.execution.running import MilSession, read_package
from compiler.frontend import load as import_model
from compiler.serving.loaded import Loaded

MOST = 64
#: In this order, so that what takes too long still tries small, large and odd ones.
SIZES = list(dict.fromkeys([2, 3, 5, 8, 64, 33, 17, 16, 7, 63, 32, *range(2, MOST + 1)]))

Array = np.ndarray[Any, Any]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="*")
    parser.add_argument("--seconds", type=float, default=30.0)
    arguments = parser.parse_args()
    folders = sorted(p for p in arguments.folder.iterdir() if (p / "model.onnx").exists())
    print(f"{'model':22} {'calls':>5} {'rows':>6} {'most':>4} {'different':>9}   "
          f"{'row, free':>10} {'alone':>10} {'together':>10}")  # fmt: skip
    wrong = 0
    for folder in folders:
        if arguments.models and folder.name not in arguments.models:
            continue
        with tempfile.TemporaryDirectory() as name:
            try:
                package = packaged(folder, Path(name) / "m.mlpackage")
            except PlanishError as e:
                print(f"{folder.name:22} one row only: {str(e).splitlines()[0][:110]}", flush=True)
                continue
            wrong += measured(folder, package, arguments.seconds)
    print(f"{wrong} rows differ" if wrong else "no row differs")
    return 1 if wrong else 0


def packaged(folder: Path, output: Path) -> Path:
    """A model compiled for 1 to 64 rows, its other sizes as in the inputs that lie beside it."""
    shapes = {n: (1, *a.shape[1:]) for n, a in lying(folder).items() if a.ndim}
    wishes = compiler.Wishes(batch=f"1..{MOST}")
    model = folder / "model.onnx"
    return Path(compiler.compile(model, "ane", output, shapes=shapes, wishes=wishes, verify="off").path)


def lying(folder: Path) -> dict[str, Array]:
    """The inputs that lie beside a model, in its order."""
    return samples.from_npz(folder / "io.npz", [a.name for a in import_model(folder / "model.onnx").main.inputs])


def measured(folder: Path, package: Path, seconds: float) -> int:
    """How many rows differ; prints the line of a model."""
    loaded = Loaded(package)
    rows = loaded.description.rows
    if rows is None:
        print(f"{folder.name:22} {loaded.apart or 'rows are not in front of all outputs'}", flush=True)
        return 0
    arrays = made(loaded, folder)
    alone = [loaded.run(cut(arrays, rows.inputs, i, i + 1)) for i in range(MOST)]
    start = perf_counter()
    alone_seconds = _time(lambda i: loaded.run(cut(arrays, rows.inputs, i, i + 1)))
    calls = compared = different = most = 0
    together = 0.0
    for size in SIZES:
        if perf_counter() - start + 1.5 * size * max(together, alone_seconds / 2) > seconds and size > 3:
            continue
        first = size * 7 % (MOST - size + 1)
        outputs = loaded.run(cut(arrays, rows.inputs, first, first + size))
        different += sum(
            any(outputs[n][i].tobytes() != alone[first + i][n][0].tobytes() for n in outputs) for i in range(size)
        )
        calls, compared, most = calls + 1, compared + size, max(most, size)
        if size == most:
            together = _time(lambda _, f=first, s=size: loaded.run(cut(arrays, rows.inputs, f, f + s))) / size
    free = _free(package, loaded, cut(arrays, rows.inputs, 0, 1))
    print(f"{folder.name:22} {calls:5} {compared:6} {most:4} {different:9}   "
          f"{free * 1e3:7.3f} ms {alone_seconds * 1e3:7.3f} ms {together * 1e3:7.3f} ms", flush=True)  # fmt: skip
    return different


def made(loaded: Loaded, folder: Path) -> dict[str, Array]:
    """64 rows that differ, near those that lie beside the model."""
    rng = np.random.default_rng(0)
    rows = loaded.description.rows
    assert rows is not None
    out = {}
    # Names of a package may be others than the model's, the order is the same.
    for feature, base in zip(loaded.description.inputs, lying(folder).values(), strict=True):
        kind = compiler.ir.dtype(feature.dtype).numpy
        if feature.name not in rows.inputs:
            out[feature.name] = base.astype(kind)
        elif base.dtype.kind == "f":
            noise = rng.standard_normal((MOST, *base.shape[1:])) * (float(np.std(base)) or 1.0)
            out[feature.name] = (base[:1] + noise).astype(kind)
        else:
            most = max(int(base.max()), 1) + 1
            out[feature.name] = rng.integers(0, most, (MOST, *base.shape[1:])).astype(kind)
    return out


def cut(arrays: Mapping[str, Array], inputs: tuple[str, ...], start: int, end: int) -> dict[str, Array]:
    return {n: a[start:end] if n in inputs else a for n, a in arrays.items()}


def _free(package: Path, loaded: Loaded, one: Mapping[str, Array]) -> float:
    """Seconds of a row where onnxruntime may compute it as it likes."""
    module = read_package(package)
    del module.attributes[f"metadata.{ROWS}"]
    session = MilSession(module, load_library(Options()))
    fed = [one[f.name] for f in loaded.description.inputs]
    return _time(lambda _: session.run(fed))


def _time(call: Any) -> float:
    call(0)
    best, spent, i = float("inf"), 0.0, 1
    while i < 4 or (spent < 0.3 and i < MOST):
        start = perf_counter()
        call(i)
        best = min(best, perf_counter() - start)
        spent, i = spent + best, i + 1
    return best


if __name__ == "__main__":
    sys.exit(main())

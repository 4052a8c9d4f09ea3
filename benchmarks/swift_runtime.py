"""The Swift runtime on real models: batching, queue time, pipeline, cache, eviction.

    python -m benchmarks.swift_runtime ../shared/models

It writes a Swift package, builds it for release with benchmarks/swift/main.swift as a program, and runs that; models
run in `planish serve`. What batching can give at most is measured beside it: rows a second of the same program in
onnxruntime, one row a call and several, without server, pipe or Swift. A request may wait for the delay and one call,
or for as many calls as it takes to serve all callers once, where they are more than a call has rows.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

import compiler
from codegen.swift import package
from compiler.driver import Options, load_library
from compiler.execution.description import ROWS
from compiler.execution.running import MilSession, read_package

HERE = Path(__file__).parent
#: Model, Swift type, shapes, rows of a call, rows that the batcher collects.
MODELS = [
    ("gesture_mlp", "Gesture", None, "1..64", 64),
    ("mtcnn_rnet", "Crop", {"input_2": (1, 24, 24, 3)}, "1..16", 16),
    ("ppocr_cls", "Direction", {"x": (1, 3, 48, 192)}, "1,4,8", 8),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if shutil.which("swift") is None:
        print("no Swift toolchain here")
        return 2
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        packages, bounds = [], {}
        for model, type_, shapes, rows, most in MODELS:
            source = arguments.folder / model / "model.onnx"
            wishes = compiler.Wishes(batch=rows)
            done = compiler.compile(source, "ane", work / f"{type_}.mlpackage", shapes=shapes, wishes=wishes)
            packages.append(Path(done.path))
            bounds[type_] = bound(Path(done.path), most)
        return report(measured(work, packages), bounds)


def bound(path: Path, most: int) -> tuple[float, float]:
    """Rows a second in onnxruntime, one a call and ``most`` a call.

    One row is computed as onnxruntime likes, as if the package had no rows to batch.
    """
    (argument,) = read_package(path).main.inputs
    rest = [d for d in argument.type.shape[1:] if isinstance(d, int)]  # type: ignore[union-attr]
    rng = np.random.default_rng(0)
    out = []
    for rows in (1, most):
        module = read_package(path)
        if rows == 1:
            del module.attributes[f"metadata.{ROWS}"]
        session = MilSession(module, load_library(Options()))
        x = rng.standard_normal((rows, *rest)).astype(np.float32)
        session.run([x])
        best = float("inf")
        for _ in range(20):
            start = perf_counter()
            session.run([x])
            best = min(best, perf_counter() - start)
        out.append(rows / best)
    return out[0], out[1]


def measured(work: Path, packages: list[Path]) -> str:
    """What the program of benchmarks/swift prints."""
    made = package.write(packages, work / "package", "Models").path
    (made / "Sources" / "Measure").mkdir()
    shutil.copy(HERE / "swift" / "main.swift", made / "Sources" / "Measure")
    manifest = made / "Package.swift"
    target = '        .executableTarget(name: "Measure", dependencies: ["PlanishRuntime", "Models"]),\n'
    text = manifest.read_text(encoding="utf-8")
    manifest.write_text(text.replace("        .executableTarget(", target + "        .executableTarget(", 1))
    serve = work / "planish"
    code = "from compiler.cli import planish_main; planish_main()"
    serve.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{code}" "$@"\n', encoding="utf-8")
    serve.chmod(0o755)
    paths = [str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PLANISH": str(serve), "PYTHONPATH": os.pathsep.join(paths)}
    command = ["swift", "run", "-c", "release", "--scratch-path", str(work / "build"), "Measure"]
    return subprocess.run(command, cwd=made, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def report(told: str, bounds: dict[str, tuple[float, float]]) -> int:
    """Prints the tables; 1 where a measure is missed."""
    lines = {(w[0], w[1]): w for w in (line.split() for line in told.splitlines()) if len(w) > 2}
    missed = []
    print(f"{'model':10} {'onnxruntime: 1 row':>19} {'several':>9} {'gain':>5}   {'64 callers: alone':>17} "
          f"{'together':>9} {'gain':>5} {'rows':>5}   {'p99 queue':>9} {'bound':>8}  different")  # fmt: skip
    for name, (one, several) in bounds.items():
        b, q = _numbers(lines["batching", name]), _numbers(lines["queue", name])
        print(
            f"{name:10} {one:17,.0f}/s {several:7,.0f}/s {several / one:5.1f}   {b['alone']:15,.0f}/s "
            f"{b['together']:7,.0f}/s {b['together'] / b['alone']:5.1f} {b['mean']:5.1f}   {q['p99'] * 1e3:6.1f} ms "
            f"{q['bound'] * 1e3:5.1f} ms  {q['different']:.0f} of {q['of']:.0f}"
        )
        if several / one >= 2 and b["together"] / b["alone"] < 2:
            missed.append(f"{name}: batching")
        if q["p99"] > q["bound"]:
            missed.append(f"{name}: queue")
    values = {w[0]: _numbers(w) for w in (line.split() for line in told.splitlines()) if w}
    p, c, e = values["pipeline"], values["cache"], values["eviction"]
    print(
        f"pipeline   {p['slowest'] / p['element']:.3f} of its slowest stage ({1 / p['element']:.0f} elements a second)"
    )
    print(
        f"cache      first load {c['first'] * 1e3:.1f} ms, second {c['second'] * 1e3:.3f} ms: "
        f"× {c['first'] / c['second']:,.0f}"
    )
    print(f"eviction   {e['uses']:,.0f} uses, {e['hits']:,.0f} hits, {e['evictions']:,.0f} evictions, at most "
          f"{e['peak']:.0f} of {e['limit']:.0f} bytes")  # fmt: skip
    if p["slowest"] / p["element"] < 0.9:
        missed.append("pipeline")
    if c["first"] / c["second"] < 50:
        missed.append("cache")
    if e["peak"] > e["limit"]:
        missed.append("eviction")
    print(f"missed: {', '.join(missed)}" if missed else "all measures are met")
    return 1 if missed else 0


def _numbers(words: list[str]) -> dict[str, float]:
    pairs = itertools.pairwise(words)
    return {a: float(b) for a, b in pairs if re.fullmatch(r"[\d.]+(e-?\d+)?", b) and not re.fullmatch(r"[\d.]+", a)}


if __name__ == "__main__":
    sys.exit(main())

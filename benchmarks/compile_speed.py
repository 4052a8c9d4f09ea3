"""Times `compile` as a whole process on graphs of growing size, `planish run` on what it wrote, and peak memory on a
heavy model. Prints Markdown.

    python -m benchmarks.compile_speed [--nodes 10000 50000] [--megabytes 500] [--runs 3] [--generator FILE.py]

Limits: 4 s at 10,000 nodes, 18 s at 50,000, growth exponent 1.1, and 700 MB above the model's own size. They hold for
an idle machine; processor time (user and system) is printed beside, which other processes disturb less. The graphs are
those of synthetic.py, or what ``FILE.py NODES OUT.onnx`` writes. Reading a package and running it must not take more
processor time than compiling it.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

HERE = Path(__file__).parent
SECONDS_LIMIT = {10_000: 4.0, 50_000: 18.0}
EXPONENT_LIMIT = 1.1
MEMORY_LIMIT_ABOVE_MODEL = 700.0  # MB


class Measure(NamedTuple):
    """One compile: wall-clock seconds, processor seconds, and peak resident memory in MB (of 10^6 bytes)."""

    seconds: float
    processor: float
    megabytes: float


def generate(arguments: Sequence[str | Path]) -> None:
    # In a process of its own: a child's peak on Linux is never below its parent's memory at the fork.
    subprocess.run([sys.executable, *arguments], check=True, stdout=sys.stderr)


def compile_once(model: Path, target: str, verify: str) -> Measure:
    """Compiles, with the proof as far as ``verify`` says.

    Raises:
        RuntimeError: the compiler failed; its last lines are in the message.
    """
    output = model.with_suffix(".mlpackage")
    options = ["--target", target, "--verify", verify, "-o", str(output)]
    measure = run(["-m", "compiler.cli", str(model), *options])
    if not output.is_dir():
        raise RuntimeError(f"compiling {model} left no package")
    return measure


def read_once(model: Path) -> Measure:
    """Runs the package of a model that has been compiled, on zeros. Raises as :func:`compile_once` does."""
    package, given, got = (model.with_suffix(s) for s in (".mlpackage", ".in.npz", ".out.npz"))
    if not given.exists():
        subprocess.run([sys.executable, "-c", ZEROS, str(model), str(given)], check=True)
    start = "from compiler.cli import planish_main; planish_main()"
    return run(["-c", start, "run", str(package), "--inputs", str(given), "--outputs", str(got)])


#: Writes an input of zeros for each of a model's; in a process of its own, see :func:`generate`.
ZEROS = """
import sys, numpy as np, onnx
graph = onnx.load(sys.argv[1], load_external_data=False).graph
known = {i.name for i in graph.initializer}
shapes = {i.name: [d.dim_value for d in i.type.tensor_type.shape.dim] for i in graph.input if i.name not in known}
np.savez(sys.argv[2], **{name: np.zeros(shape, np.float32) for name, shape in shapes.items()})
"""


def run(arguments: Sequence[str]) -> Measure:
    """Measures a process of this Python's. Raises RuntimeError where it fails, with its last lines."""
    command = [sys.executable, *arguments]
    with tempfile.TemporaryFile() as log:
        start = perf_counter()
        process = subprocess.Popen(command, cwd=HERE.parent, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        said = log.read().decode(errors="replace")
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}:\n{said[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024
    return Measure(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)


def best(runs: int, once: Callable[[], Measure]) -> Measure:
    """The least of each over some runs: what other processes do only ever adds."""
    measures = [once() for _ in range(runs)]
    return Measure(*(min(each) for each in zip(*measures, strict=True)))


def verdict(value: float, limit: float | None) -> str:
    return "" if limit is None else "ok" if value <= limit else "**over**"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--megabytes", type=int, default=500, help="weights of the heavy model; 0 leaves it out")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--generator", type=Path, default=None)
    args = parser.parse_args()
    rows: list[tuple[str, str, str, str]] = []

    def row(what: str, value: float, unit: str, limit: float | None = None) -> None:
        digits = 0 if unit in ("MB", "µs") else 2
        said = f"{limit:.3g} {unit}".strip() if limit is not None and digits else f"{limit:.0f} {unit}" if limit else ""
        rows.append((what, f"{value:.{digits}f} {unit}".strip(), said, verdict(value, limit)))

    with tempfile.TemporaryDirectory() as folder:
        measures: dict[int, Measure] = {}
        for nodes in args.nodes:
            model = Path(folder, f"transformer_{nodes}.onnx")
            made_by = [args.generator] if args.generator else [HERE / "synthetic.py", "transformer"]
            generate([*made_by, str(nodes), model])
            m = measures[nodes] = best(args.runs, lambda model=model: compile_once(model, args.target, "off"))
            row(f"{nodes:,} nodes", m.seconds, "s", SECONDS_LIMIT.get(nodes))
            row(f"{nodes:,} nodes, processor", m.processor, "s")
            row(f"{nodes:,} nodes, processor per node", m.processor / nodes * 1e6, "µs")
            row(f"{nodes:,} nodes, peak memory", m.megabytes, "MB")
            r = best(args.runs, lambda model=model: read_once(model))
            row(f"{nodes:,} nodes, `planish run` of the package", r.seconds, "s")
            row(f"{nodes:,} nodes, `planish run`, processor", r.processor, "s", m.processor)
        if len(measures) > 1:
            low, high = min(measures), max(measures)
            scale = math.log(high / low)
            row(
                "growth exponent",
                math.log(measures[high].seconds / measures[low].seconds) / scale,
                "",
                EXPONENT_LIMIT,
            )
            row("growth exponent, processor", math.log(measures[high].processor / measures[low].processor) / scale, "")
        if args.megabytes:
            model = Path(folder, "heavy.onnx")
            generate([HERE / "synthetic.py", "heavy", str(args.megabytes), model])
            size = model.stat().st_size / 1e6
            m = best(args.runs, lambda model=model: compile_once(model, args.target, "off"))
            row(f"{size:.0f} MB model", m.seconds, "s")
            row(f"{size:.0f} MB model, processor", m.processor, "s")
            row(f"{size:.0f} MB model, peak memory", m.megabytes, "MB", size + MEMORY_LIMIT_ABOVE_MODEL)
            m = compile_once(model, args.target, "full")
            row(f"{size:.0f} MB model, proven", m.seconds, "s")
            row(f"{size:.0f} MB model, proven, peak memory", m.megabytes, "MB", size + MEMORY_LIMIT_ABOVE_MODEL)
    print(f"`compile --target {args.target} --verify off`, whole process, best of {args.runs}\n")
    print("| | measured | limit | |\n|---|---:|---:|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 1 if any(row[3] == "**over**" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

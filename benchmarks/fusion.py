"""Simplifies a transformer of any number of nodes with Planish's rules and with other tools. Prints Markdown.

    python -m benchmarks.fusion [--nodes 10000 50000] [--others PYTHON] [--tools planish onnxsim …] [--patience 300]

Each tool runs in a process of its own on the same model in memory; what counts is the CPU time of the call, and the
operators that are left. Planish's time includes reading the model into its IR; the stages canonicalize and fuse are
also given alone, the best of several runs. The other tools come from the Python that ``--others`` names (an environment
of its own with ``pip install onnxscript onnxsim onnxslim onnxruntime``); those that it lacks are skipped.

Limits: canonicalize and fuse take 0.6 s together at 10,000 nodes and grow in proportion, no more than 5,964 operators
are left of 10,000, and no normalization or activation stays in pieces.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

HERE = Path(__file__).resolve().parent
LAYER = 47
SECONDS_LIMIT = 0.6e-4  # a node
OPERATORS_LIMIT = 0.5964  # of the nodes
GROWTH_LIMIT = 1.15  # exponent
RUNS = 3

#: Seconds, operators left by name, and what else is worth telling.
Outcome = tuple[float, Counter[str], dict[str, float]]


def planish(path: str) -> Outcome:
    sys.path.insert(0, str(HERE.parent))
    import onnx

    from compiler import frontend
    from compiler.garbage import rare_collections
    from compiler.rewrite import load_library
    from passes import cse, dce, fold

    library = load_library()
    model = onnx.load(path)
    with rare_collections():  # as in a compile
        started = process_time()
        module = frontend.load(model)
        library.rewrite(module, "upgrade")
        fold.run(module)
        cse.run(module)
        before = process_time()
        for stage in ("canonicalize", "fuse"):
            library.rewrite(module, stage)
        stages = process_time() - before
        fold.run(module)
        cse.run(module)
        dce.run(module)
        seconds = process_time() - started
    left = Counter(o.name.partition(".")[2] for o in module.walk() if o.defn.constant is None and not o.defn.terminator)
    return seconds, left, {"stages": stages}


def _model_to_model(run: Callable[[Any], Any], path: str) -> Outcome:
    import onnx

    model = onnx.load(path)
    started = process_time()
    result = run(model)
    seconds = process_time() - started
    return seconds, Counter(n.op_type for n in result.graph.node if n.op_type != "Constant"), {}


def onnxsim(path: str) -> Outcome:
    import onnxsim as tool

    return _model_to_model(lambda m: tool.simplify(m)[0], path)


def onnxslim(path: str) -> Outcome:
    import onnxslim as tool

    return _model_to_model(tool.slim, path)


def onnxscript_optimizer(path: str) -> Outcome:
    from onnxscript import optimizer

    return _model_to_model(optimizer.optimize, path)


def onnxscript_rewriter(path: str) -> Outcome:
    from onnxscript import rewriter

    return _model_to_model(rewriter.rewrite, path)


def onnxruntime(path: str) -> Outcome:
    import onnx
    import onnxruntime as tool

    options = tool.SessionOptions()
    options.graph_optimization_level = tool.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    options.optimized_model_filepath = path + ".optimized"
    started = process_time()
    tool.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    seconds = process_time() - started
    nodes = onnx.load(options.optimized_model_filepath).graph.node
    return seconds, Counter(n.op_type for n in nodes if n.op_type != "Constant"), {}


TOOLS = {f.__name__: f for f in (planish, onnxsim, onnxruntime, onnxscript_rewriter, onnxscript_optimizer, onnxslim)}


def measure(tool: str, path: Path, python: str, patience: float) -> Outcome | str:
    """What a tool makes of a model, in a process of its own; why not, if it does not."""
    command = [python, __file__, "--run", tool, str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=patience, check=False)
    except subprocess.TimeoutExpired:
        return f"not done in {patience:.0f} s"
    if done.returncode:
        error = (done.stderr.strip().splitlines() or ["no message"])[-1]
        if "ModuleNotFoundError" in error:
            return f"skipped: {python} has no {tool.partition('_')[0]}; see --others"
        return f"failed: {error[:120]}"
    seconds, left, more = json.loads(done.stdout.strip().splitlines()[-1])
    return seconds, Counter(left), more


def generate(nodes: int, folder: str) -> Path:
    path = Path(folder) / f"transformer-{nodes}.onnx"
    command = [sys.executable, str(HERE / "synthetic.py"), "transformer", str(nodes), str(path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument(
        "--others", default=sys.executable, metavar="PYTHON", help="the Python that has the other tools"
    )
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    parser.add_argument("--patience", type=float, default=300, help="seconds after which a tool is given up")
    parser.add_argument("--run", nargs=2, metavar=("TOOL", "MODEL"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        print(json.dumps(TOOLS[args.run[0]](args.run[1])))
        return
    broken: list[str] = []
    stages: dict[int, float] = {}
    print("| nodes | tool | CPU s | operators left | LayerNormalization | Gelu |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for nodes in args.nodes:
            path = generate(nodes, folder)
            for tool in args.tools:
                own = tool == "planish"
                python = sys.executable if own else args.others
                got = measure(tool, path, python, args.patience)
                if isinstance(got, str):
                    print(f"| {nodes} | {tool} | {got} | | | |", flush=True)
                    continue
                seconds, left, more = got
                total = sum(left.values())
                norms, gelus = left["LayerNormalization"], left["Gelu"] + left["FastGelu"] + left["BiasGelu"]
                print(f"| {nodes} | {tool} | {seconds:.2f} | {total} | {norms} | {gelus} |", flush=True)
                if not own:
                    continue
                again = [measure(tool, path, python, args.patience) for _ in range(RUNS - 1)]
                alone = [more["stages"], *(a[2]["stages"] for a in again if not isinstance(a, str))]
                stages[nodes] = min(alone)
                print(f"| | canonicalize and fuse alone | {stages[nodes]:.2f} | | | |", flush=True)
                layers = math.ceil(nodes / LAYER)
                if (norms, gelus) != (2 * layers, layers):
                    broken.append(f"{nodes} nodes: {norms} normalizations and {gelus} GELUs in {layers} layers")
                if total > OPERATORS_LIMIT * nodes:
                    broken.append(f"{nodes} nodes: {total} operators are left")
                if nodes >= 10_000 and stages[nodes] > SECONDS_LIMIT * nodes:
                    broken.append(f"{nodes} nodes: canonicalize and fuse take {stages[nodes]:.2f} s")
    if len(stages) > 1:
        least, most = min(stages), max(stages)
        growth = math.log(stages[most] / stages[least]) / math.log(most / least)
        print(f"\ncanonicalize and fuse grow with nodes to the power of {growth:.2f}")
        if growth > GROWTH_LIMIT:
            broken.append(f"growth exponent {growth:.2f}")
    for line in broken:
        print(f"over the limit: {line}", file=sys.stderr)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()

"""Random ONNX graphs through the compiler: each is compiled and proven, or refused with a sentence.

    python -m benchmarks.random_graphs [--count 2000] [--first 0] [--target cpu] [--os ios18] [--json FILE]
        [--keep FOLDER] [--processes N] [--timeout 120]

Graphs have 5 to 40 operators of those that the compiler takes (benchmarks/random_models.py). A graph is ``proven``,
``refused``, ``wrong`` (the proof failed) or a ``crash``. Two kinds of failed proof are no wrong package: ``unsteady``
if the model in onnxruntime moves as far by noise of f32's rounding (the sign of a difference that is zero) or run node
by node, and with ``--target ane``, which computes in half precision, ``inexact`` if the graph is proven at fp32: half
precision does not hold it, and the compiler says so. ``--keep`` leaves the models of wrong ones and crashes behind.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import workers
from benchmarks.random_models import Drawn, draw, run, run_by_node
from benchmarks.random_noise import disturbed
from compiler.driver import Options, compile_model, load_library
from compiler.errors import PlanishError, UnsupportedError, UserError, VerificationError
from compiler.execution.evaluate import EvaluationError
from compiler.proof import compare
from compiler.report import Report
from compiler.rewrite.prove_seeds import Seed, as_module
from compiler.stages import lower
from compiler.target import Target

ROOT = Path(__file__).parents[1]
VERDICTS = ("proven", "unsteady", "inexact", "refused", "wrong", "crash")


@functools.cache
def takes(target: Target) -> Callable[[Seed], bool]:
    """Says of a case whether the compiler takes it."""
    known: dict[int, bool] = {}
    library = load_library(Options(target))

    def allowed(seed: Seed) -> bool:
        if id(seed) not in known:
            known[id(seed)] = _lowers(seed, target, library)
        return known[id(seed)]

    return allowed


def _lowers(seed: Seed, target: Target, library: Any) -> bool:
    module = as_module(seed)
    if module is None:
        return False
    try:
        lower(module, library, Report("case", target))
    except PlanishError:
        return False
    return True


def judge(drawn: Drawn, target: Target) -> tuple[str, str]:
    """What becomes of one graph, and why."""
    options = Options(target, inputs=drawn.inputs)
    with tempfile.TemporaryDirectory() as folder:
        try:
            compile_model(drawn.model, Path(folder) / "model.mlpackage", options)
        except VerificationError as e:
            if target.precision == "fp16" and judge(drawn, Target(target.unit, target.os, "fp32"))[0] == "proven":
                return "inexact", str(e)
            return ("unsteady" if _unsteady(drawn, e) else "wrong"), str(e)
        except EvaluationError as e:
            return "crash", str(e)
        except (UnsupportedError, UserError) as e:
            return "refused", str(e)
        except Exception as e:
            return "crash", f"{type(e).__name__}: {e}"
    return "proven", ""


def _unsteady(drawn: Drawn, failure: VerificationError) -> bool:
    """Whether each output that is off moves as far, within a factor of ten, where rounding noise comes in at every node
    of the original: the difference is rounding, or a decision (a comparison, a cast) that rounding takes. Or where each
    node runs by itself: onnxruntime does not agree with itself."""
    assert isinstance(failure.report, Report)
    names = [o.name for o in drawn.model.graph.output]
    plain = run(drawn.model, drawn.inputs)
    moved = dict.fromkeys(names, 0.0)
    for other in (run_by_node(drawn), *(run(disturbed(drawn, seed), drawn.inputs) for seed in range(6))):
        for name, a, b in zip(names, other, plain, strict=True):
            moved[name] = max(moved[name], compare(a, b).badness)
    verify = failure.report.verify
    off = {n: e for n, e in verify.outputs.items() if not e.passes(verify.precision)}
    # An error beyond the output itself says no more than one as large: another choice has other elements, or fewer.
    return bool(off) and all(moved.get(n, 0.0) >= min(e.badness, 1.0) / 10 for n, e in off.items())


def serve() -> None:
    """Answers requests as benchmarks.workers makes them: a number, a target, a release."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        target = Target.of(request["target"], request["os"])
        drawn = draw(request["number"], takes(target))
        status, why = judge(drawn, target)
        if request["keep"] and status in ("wrong", "crash"):
            Path(request["keep"]).mkdir(parents=True, exist_ok=True)
            place = Path(request["keep"]) / f"{request['number']}.onnx"
            place.write_bytes(drawn.model.SerializeToString())
        operators = sorted({n.op_type for n in drawn.model.graph.node})
        answer = {"status": status, "why": why, "nodes": len(drawn.model.graph.node), "operators": operators}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--os", default="ios18")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", default="")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return 0
    started = time.perf_counter()
    numbers = range(arguments.first, arguments.first + arguments.count)
    common = {"target": arguments.target, "os": arguments.os, "keep": arguments.keep}
    records: dict[int, dict[str, Any]] = {}

    def done(i: int, answer: workers.Answer) -> None:
        records[numbers[i]] = answer
        if answer["status"] in ("wrong", "crash"):
            print(f"{numbers[i]:6} {answer['status']:6} {' '.join(answer['why'].split())[:400]}", flush=True)

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.random_graphs", "--serve"]
    requests = [{"number": n, **common} for n in numbers]
    workers.each(requests, lambda: workers.Worker(command, arguments.timeout, environment), arguments.processes, done)
    counts = collections.Counter(r["status"] for r in records.values())
    operators = {o for r in records.values() for o in r.get("operators", ())}
    nodes = sum(r.get("nodes", 0) for r in records.values())
    print(
        f"{len(records)} graphs, {nodes} nodes of {len(operators)} operators, {arguments.target} {arguments.os}: "
        f"{', '.join(f'{counts[v]} {v}' for v in VERDICTS)}; {time.perf_counter() - started:.0f} s"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=0))
    return 1 if counts["wrong"] or counts["crash"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

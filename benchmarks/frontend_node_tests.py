"""Runs ONNX's own backend tests through the front end and back: Module → ONNX → onnxruntime, held against onnxruntime
on the original model.

    python -m benchmarks.frontend_node_tests [PART OF A NAME …] [--passes] [--verbose]

Every model must load, and evaluate as the original does wherever onnxruntime can run that. ``--passes``
applies fold, cse and dce in between.
"""

from __future__ import annotations

import argparse
import collections
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.version_converter
import onnxruntime as ort

from compiler import frontend
from compiler.errors import PlanishError
from compiler.execution import evaluate

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")


def cases(parts: list[str], kinds: tuple[str, ...] = KINDS) -> Iterator[tuple[str, onnx.ModelProto, list[list[Any]]]]:
    """Name, model and sets of inputs of each test; those that ship as files come with their data."""
    from onnx import numpy_helper
    from onnx.backend.test import loader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = [t for kind in kinds for t in loader.load_model_tests(kind=kind)]
    for test in tests:
        if parts and not any(p in test.name for p in parts):
            continue
        if test.model is not None:
            yield test.name, test.model, [inputs for inputs, _ in test.data_sets or ()]
            continue
        folder = Path(test.model_dir)
        sets = []
        for data in sorted(folder.glob("test_data_set_*")):
            files = sorted(data.glob("input_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
            try:
                sets.append([numpy_helper.to_array(onnx.load_tensor(f)) for f in files])
            except Exception:  # a sequence, which has another message
                continue
        yield test.name, onnx.load(folder / "model.onnx"), sets


def original(model: onnx.ModelProto, inputs: dict[str, Any]) -> list[Any] | str:
    """What onnxruntime computes, or why it does not."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, inputs))
    except Exception as e:
        return str(e).splitlines()[0]


def same(a: Any, b: Any, rtol: float = 0) -> bool:
    """Whether two results are equal, sequences element by element; to the bit if ``rtol`` is 0."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, rtol) for x, y in zip(a, b))
    if a is None or b is None:
        return a is b
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.kind not in "fc":
        return a.tolist() == b.tolist()
    return bool(np.allclose(a, b, rtol, rtol * np.max(np.abs(b), initial=0), equal_nan=True))


def check(model: onnx.ModelProto, sets: list[list[Any]], passes: bool) -> tuple[str, str]:
    """A verdict in a word, and what is behind it."""
    if next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 1) < frontend.OLDEST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, frontend.OLDEST_OPSET)
        except Exception as e:
            return "too old", str(e)
    try:
        module = frontend.load(model)
        if passes:
            from passes import cse, dce, fold

            fold.run(module)
            cse.run(module)
            dce.run(module)
    except PlanishError as e:
        names = [i.name for i in model.graph.input]
        runs = sets and not isinstance(original(model, dict(zip(names, sets[0]))), str)
        return ("refused" if runs else "both refuse"), str(e)
    names = [a.name for a in module.main.inputs]
    for inputs in sets:
        feeds = dict(zip(names, inputs))
        expected = original(model, feeds)
        if isinstance(expected, str):
            return "onnxruntime refuses", expected
        try:
            found = evaluate.Session(module).run(feeds)
        except PlanishError as e:
            return "not evaluated", str(e)
        if not same(found, expected):
            # Another version of an operator may have another kernel.
            half = any(np.asarray(e).dtype == np.float16 for e in expected if isinstance(e, np.ndarray))
            return ("rounding" if same(found, expected, 2e-3 if half else 1e-6) else "different"), ""
    return ("same" if sets else "loaded"), ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--passes", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    start = time.perf_counter()
    verdicts: dict[str, list[str]] = collections.defaultdict(list)
    for name, model, sets in cases(args.parts):
        try:
            verdict, why = check(model, sets, args.passes)
        except Exception as e:
            verdict, why = "crashed", f"{type(e).__name__}: {e}"
        verdicts[verdict].append(name)
        quiet = ("same", "loaded", "rounding", "too old", "onnxruntime refuses", "both refuse")
        if verdict not in quiet[: 2 if args.verbose else None]:
            print(f"{verdict:20} {name}: {' '.join(why.split())[:300]}")
    for verdict, tests in sorted(verdicts.items(), key=lambda v: -len(v[1])):
        print(f"{len(tests):5} {verdict}")
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

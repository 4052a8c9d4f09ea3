"""Runs ONNX's own backend tests of single operators down to mil and back: lowered, legal for the release, given meaning
again, and run, held against the outputs that ship with the tests (or onnxruntime's on the original).

    python benchmarks/lowering_node_tests.py [PART OF A NAME …] [--os ios18] [--verbose] [--operators]

A case whose operands cannot be computed at run time (shapes, axes, repeats) is tried again with its integer inputs,
and with inputs of few numbers, as constants. ``--operators`` counts by operator.
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
import onnxruntime as ort
from onnx import numpy_helper

from compiler import driver, evaluate
from compiler.dialects.mil import legal
from compiler.driver import Options
from compiler.errors import PlanishError
from compiler.report import Report
from compiler.rewrite import Library
from compiler.target import Target

Array = np.ndarray[Any, Any]
Case = tuple[str, onnx.ModelProto, list[Array], list[Array]]


def cases(parts: list[str]) -> Iterator[Case | str]:
    """Name, model, inputs and outputs of each test; only the name where they are no tensors."""
    from onnx.backend.test import loader

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = loader.load_model_tests(kind="node")
    for test in tests:
        if parts and not any(p in test.name for p in parts):
            continue
        if test.model is not None:
            inputs, outputs = next(iter(test.data_sets or ()), ((), ()))
            if outputs and all(isinstance(a, (np.ndarray, np.generic)) for a in (*inputs, *outputs)):
                yield test.name, test.model, [np.asarray(a) for a in inputs], [np.asarray(a) for a in outputs]
            else:
                yield test.name
            continue
        folder = Path(test.model_dir)
        try:
            data = [
                [numpy_helper.to_array(onnx.load_tensor(f)) for f in sorted(
                    (folder / "test_data_set_0").glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))]
                for kind in ("input", "output")
            ]  # fmt: skip
        except Exception:  # a sequence or an optional, which are messages of other kinds
            yield test.name
            continue
        yield test.name, onnx.load(folder / "model.onnx"), data[0], data[1]


def with_constants(model: onnx.ModelProto, inputs: list[Array]) -> tuple[onnx.ModelProto, list[Array]] | None:
    """The model with inputs that look like parameters as constants, and the arrays that are left."""
    left, names = [], []
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for i, (info, array) in enumerate(zip(model.graph.input, inputs)):
        if i > 0 and (array.dtype.kind in "iub" or array.size <= 8):
            out.graph.initializer.append(numpy_helper.from_array(array, info.name))
        else:
            left.append(array)
            names.append(info)
    if len(left) == len(inputs):
        return None
    del out.graph.input[:]
    out.graph.input.extend(names)
    return out, left


def attempt(model: onnx.ModelProto, inputs: list[Array], library: Library, target: Target) -> list[Array] | str:
    """What the lowered model computes, or why it is refused. Other errors than refusals are raised."""
    options = Options(target, verify="off")
    report = Report("model", target)
    module = driver.import_model(model, options, library, report)
    driver.optimize(module, library, report)
    driver.lower(module, library, report)
    for op in module.walk():
        if op.defn.dialect == "mil":
            why = legal(op, target.os)
            if why is not None:
                return why
    driver.give_meaning(module, library)
    left = [op.name for op in module.walk() if op.defn.dialect == "mil"]
    if left:
        raise AssertionError(f"no meaning for {', '.join(left)}")
    feeds = {a.name: x.astype(a.type.dtype.numpy, copy=False) for a, x in zip(module.main.inputs, inputs, strict=True)}
    return list(evaluate.run(module, feeds).values())


def original(model: onnx.ModelProto, inputs: list[Array]) -> list[Array] | None:
    """What onnxruntime computes of the original, if it can."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return list(session.run(None, {i.name: x for i, x in zip(session.get_inputs(), inputs, strict=True)}))
    except Exception:
        return None


def agree(got: list[Array], want: list[Array]) -> str | None:
    """How they differ, or None."""
    if len(got) != len(want):
        return f"{len(got)} outputs for {len(want)}"
    for a, b in zip(got, want):
        if tuple(a.shape) != tuple(b.shape):
            return f"shape {a.shape} for {b.shape}"
        if b.dtype.kind in "iub":
            if not np.array_equal(a.astype(b.dtype), b):
                return "integers differ"
            continue
        if b.dtype.kind in "OUS":
            if not np.array_equal(a.astype(object), b.astype(object)):
                return "strings differ"
            continue
        x, y = a.astype(np.float64), b.astype(np.float64)
        rtol, atol = (1e-2, 1e-2) if b.dtype.itemsize < 4 else (2e-3, 1e-5)
        if not np.allclose(x, y, rtol, atol, equal_nan=True):
            return f"by {np.nanmax(np.abs(x - y)):.3g}"
    return None


def judge(case: Case, library: Library, target: Target) -> tuple[str, str]:
    """``right``, ``refused``, ``wrong`` or ``error``, and why."""
    _, model, inputs, outputs = case
    tries = [(model, inputs)]
    constant = with_constants(model, inputs)
    if constant is not None:
        tries.append(constant)
    verdict = ("refused", "")
    for m, x in tries:
        try:
            got = attempt(m, x, library, target)
        except evaluate.EvaluationError as e:
            verdict = ("error", str(e))
            continue
        except PlanishError as e:
            if verdict[0] != "error":
                verdict = ("error", str(e)) if "rule '" in str(e) else ("refused", str(e))
            continue
        except Exception as e:
            verdict = ("error", f"{type(e).__name__}: {e}")
            continue
        if isinstance(got, str):
            verdict = ("refused", got)
            continue
        why = agree(got, outputs)
        if why is None:
            return "right", ""
        reference = original(model, inputs)
        if reference is not None and agree(got, reference) is None:
            return "right", "as onnxruntime, not as the test"
        return "wrong", why
    return verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*")
    parser.add_argument("--os", default="ios18")
    parser.add_argument("--verbose", action="store_true", help="say why each case is refused")
    parser.add_argument("--operators", action="store_true", help="count by operator")
    arguments = parser.parse_args()
    target = Target.of("cpu", arguments.os, "fp32")
    library = driver.load_library(Options(target, verify="off"))
    counts: collections.Counter[str] = collections.Counter()
    by_operator: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    started = time.perf_counter()
    for case in cases(arguments.parts):
        if isinstance(case, str):
            counts["refused"] += 1
            continue
        verdict, why = judge(case, library, target)
        counts[verdict] += 1
        for node in case[1].graph.node:
            by_operator[node.op_type][verdict] += 1
        if verdict in ("wrong", "error") or (arguments.verbose and verdict == "refused"):
            print(f"{verdict:8} {case[0]:60} {why.splitlines()[0][:200] if why else ''}", flush=True)
    if arguments.operators:
        for name, each in sorted(by_operator.items()):
            print(f"{name:32} {dict(each)}")
    print(f"{dict(counts)} of {counts.total()} in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()

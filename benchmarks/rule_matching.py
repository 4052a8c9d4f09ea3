"""Measures what matching costs when nothing fires: a stage of 100 rules over transformers of 10,000 and 100,000 nodes.

    python -m benchmarks.rule_matching [--sizes 10000 100000] [--rules 100]

The rules begin like the patterns that fusion looks for (sums, products, norms, activations, transposes, several
roots) and each asks for one thing that the graph does not have. Prints microseconds per node and the exponent of the
growth; the best of three runs counts. Exits with 1 beyond 10 µs per node or an exponent of 1.1.
"""

from __future__ import annotations

import argparse
import gc
import math
import sys
import time

import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
from benchmarks import synthetic
from compiler import frontend
from compiler.ir import Module
from compiler.rewrite import Library
from compiler.rewrite.parse import parse

FORMS = (
    "y = Add(Mul(x, {k}), b)",
    "y = Mul(Sub(x, m), Tanh(z))",
    "y = Add(MatMul(x, w: const f64), b: const)",
    "y = Div(x, Sqrt(Add(v, {k})))",
    "y = Mul(Add(Erf(Div(x, {k})), 1.0), 0.25)",
    "y = Transpose(Transpose(x) {{perm = [1, 0]}}) {{perm = [{k}, 0]}}",
    "y = Softmax(Div(x, {k})) {{axis = 7}}",
    "y = MatMul(Softmax(a), Transpose(Transpose(v)))",
    "a = MatMul(x, wa: const f64)\\n b = MatMul(x, wb: const f64)",
    "y = ReduceMean(Pow(Sub(x, m), {k}), _) {{axes = _}}",
)


def rules(count: int) -> str:
    """That many rules that never fire on what :mod:`benchmarks.synthetic` makes."""
    out = ["stage fuse", "use onnx"]
    for i in range(count):
        form = FORMS[i % len(FORMS)].replace("{{axes = _}}", "").format(k=f"{17 + i}.0")
        form = form.replace(".0, 0]", ", 0]").replace("\\n", "\n")
        roots = ("a", "b") if form.startswith("a = ") else ("y",)
        gives = "\n".join(f"{r} = Identity(x)" for r in roots) if "(x" in form else "y = Identity(a)"
        out.append(f"rule never_{i} {{ match {{ {form} }} rewrite {{ {gives} }} }}")
    return "\n".join(out)


def microseconds(module: Module, library: Library) -> float:
    """Per operator, the best of three."""
    size = sum(1 for _ in module.walk())
    stage = library.stage("fuse")
    best = math.inf
    for _ in range(3):
        gc.collect()
        started = time.process_time()
        report = library.rewrite(module, "fuse")
        best = min(best, time.process_time() - started)
        assert not report.fires, report.fires
    assert len(stage.rules) >= 1
    return best / size * 1e6


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    options.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    options.add_argument("--rules", type=int, default=100)
    given = options.parse_args()
    library = Library([parse(rules(given.rules))])
    costs = []
    for size in given.sizes:
        module = frontend.load(synthetic.transformer(size).SerializeToString())
        costs.append(microseconds(module, library))
        print(f"{size:>8} nodes: {costs[-1]:.2f} µs per operator, {given.rules} rules, none fires")
    exponent = 1.0
    if len(costs) > 1:
        exponent += math.log(costs[-1] / costs[0]) / math.log(given.sizes[-1] / given.sizes[0])
        print(f"exponent {exponent:.3f}")
    return 0 if max(costs) <= 10 and exponent <= 1.1 else 1


if __name__ == "__main__":
    sys.exit(main())

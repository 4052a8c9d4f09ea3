"""A slice of ONNX's own backend tests; benchmarks/frontend_node_tests.py runs them all."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location(
    "frontend_node_tests", Path(__file__).parents[2] / "benchmarks" / "frontend_node_tests.py"
)
node_tests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(node_tests)


@pytest.mark.parametrize("passes", [False, True])
def test_tests_that_ship_as_files(passes):
    """The tests recorded from PyTorch and those of whole small models, which need no generating."""
    verdicts: dict[str, list[str]] = {}
    for name, model, sets in node_tests.cases([], ("simple", "pytorch-converted", "pytorch-operator")):
        verdict, why = node_tests.check(model, sets, passes)
        verdicts.setdefault(verdict, []).append(f"{name}: {why}")
    assert set(verdicts) <= {"same", "rounding", "loaded", "onnxruntime refuses", "both refuse", "too old"}, verdicts
    assert len(verdicts["same"]) > 90

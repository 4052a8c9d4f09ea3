"""A slice of the fuzzing of rule files; benchmarks/fuzz_rules.py runs the whole."""

from __future__ import annotations

import contextlib
import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.rewrite import RuleError
from compiler.rewrite.parse import parse


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "fuzz_rules.py"
    spec = importlib.util.spec_from_file_location("fuzz_rules", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_changed_and_random_rules_give_rule_errors_only(fuzz: ModuleType) -> None:
    rng = random.Random(7)
    rules, tokens = fuzz.pieces()
    outcomes = {fuzz.tried(fuzz.mutated(rng, rules, tokens)) for _ in range(1500)}
    outcomes |= {fuzz.tried(fuzz.generated(rng, tokens)) for _ in range(500)}
    assert {"sound", "syntax", "unbound", "unknown-operator", "unknown-function"} <= outcomes


@settings(max_examples=150)
@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_any_text_parses_or_is_a_rule_error(text: str) -> None:
    with contextlib.suppress(RuleError):
        assert parse(text).source == text


@pytest.mark.parametrize(
    "nest",
    ["Relu(" * 3000 + "x" + ")" * 3000, "(" * 5000, "[" * 3000 + "]" * 3000, "-" * 4000 + "1", "1" + "+ 1" * 400],
)
def test_deep_nesting_is_an_error_of_the_rules(fuzz: ModuleType, nest: str) -> None:
    frame = "stage s\nuse onnx\nrule r { match { y = Relu(x) } where { %s } rewrite { y = %s } }"
    assert fuzz.tried(frame % (nest, "x")) != "sound"
    assert fuzz.tried(frame % ("true", nest)) != "sound"

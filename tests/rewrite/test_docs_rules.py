"""The examples of the language's reference: each loads without a finding, its own tests hold, and it is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
from compiler.rewrite import Library, load_library
from compiler.rewrite.check import check
from compiler.rewrite.parse import parse
from compiler.rewrite.prove import Prover
from compiler.rewrite.rule_tests import run_tests
from compiler.target import Target

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "rules.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```rules\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("source", BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_loads(source: str) -> None:
    found = check(Library([parse(source, "docs/rules.md")]))
    assert [d.render(source) for d in found] == []


@pytest.mark.parametrize("source", BLOCKS, ids=range(len(BLOCKS)))
def test_the_tests_of_an_example_hold(source: str) -> None:
    library = Library([parse(source, "docs/rules.md")])
    assert [r.message for r in run_tests(library, library.rules.values()) if r.message] == []


def test_names_are_not_those_of_the_library() -> None:
    """Who copies an example can load it."""
    names = [r.name for source in BLOCKS for r in parse(source, "docs/rules.md").rules]
    assert not set(names) & set(load_library().rules)
    assert len(set(names)) == len(names)


def test_python_examples_are_what_the_rules_call() -> None:
    written = (DOCS.parent / "examples" / "rule_builder.py").read_text(encoding="utf-8")
    shown = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert shown
    assert all(block in written for block in shown)


def test_examples_are_true() -> None:
    library = Library([parse(source, f"docs/rules.md:{i}") for i, source in enumerate(BLOCKS)])
    rules = list(library.rules.values())
    proofs = Prover(library, [Target.of("ane")]).prove_all(rules, count=8)
    assert [f"{p.rule}: {p.wrong or p.stuck}" for p in proofs if not p.holds] == []


#: What the reference must show, as it is written in an example.
SHOWN = {
    "a reusable pattern": r"^pattern \w+\(",
    "a function": r"^fn \w+\(",
    "a Python function": r"^extern \w+ from",
    "a Python builder": r"rewrite by \w",
    "several roots": r"match +\{ \w+ = .*\n +\w+ = \w+\(x",
    "several results": r"match +\{ \(a, b\) = ",
    "all results": r"match +\{ \*\w+ = .*\n(.*\n)* +rewrite \{ \*\w+ = ",
    "an optional operand": r"\w\?: const",
    "a default operand": r"\w \?\? -?inf",
    "an operand by name": r"\w = Clip\(x, max = h\)",
    "a variadic tail": r"Sum\(.*, \*rest\)",
    "alternatives": r"Mul\(x, k\) \| Div",
    "one of several operators": r"= \{\w+, \w+\}\(",
    "the same name twice": r"Mul\(x, Sigmoid\(x\)\)",
    "ordered operands": r"ordered\(",
    "the number of uses": r"uses\(\w+\) ==",
    "regions bound": r"If\(.*\) with \(t, e\)",
    "regions written": r"with \(\{",
    "a constant": r": const",
    "a number": r"Clip\(.*, 0\.0, 6\.0\)",
    "about a number": r"≈",
    "a vector": r"\(x, \[1, 1\]\)",
    "a set of types": r": \{f16, f32\}",
    "a type variable": r": T\b",
    "dimensions": r"\[_, C, \*rest\]",
    "what broadcasts": r"\*~S",
    "an attribute's value": r"\{alpha = 0\.0\}",
    "an attribute of several": r"= \"none\" \| \"tanh\"",
    "an optional attribute": r"perm = p\?",
    "spread attributes": r"\.\.rest",
    "a condition": r"where +\{",
    "the target": r"target\.unit ==",
    "a computed value": r"let +\{",
    "variants": r"rewrite when .*\n +else",
    "the same operator again": r"clone\(",
    "exact": r"numeric exact",
    "approximate": r"numeric approximate\(",
    "an order": r"^  before .*$",
    "the other order": r"^  after .*$",
    "an example": r"example \{",
    "a test": r"test \"",
    "what stays": r"unchanged \"",
}


@pytest.mark.parametrize("construct", SHOWN)
def test_the_reference_shows(construct: str) -> None:
    assert re.search(SHOWN[construct], "\n".join(BLOCKS), re.MULTILINE), construct

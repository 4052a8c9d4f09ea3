"""The examples of the language's reference: each loads without a finding, and its own tests hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
from compiler.rewrite import Library
from compiler.rewrite.check import check
from compiler.rewrite.parse import parse
from compiler.rewrite.rule_tests import run_tests

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = re.findall(r"```rules\n(.*?)```", (DOCS / "rules.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("source", BLOCKS, ids=range(len(BLOCKS)))
def test_an_example_loads(source: str) -> None:
    found = check(Library([parse(source, "docs/rules.md")]))
    assert [d.render(source) for d in found] == []


@pytest.mark.parametrize("source", BLOCKS, ids=range(len(BLOCKS)))
def test_the_tests_of_an_example_hold(source: str) -> None:
    library = Library([parse(source, "docs/rules.md")])
    assert [r.message for r in run_tests(library, library.rules.values()) if r.message] == []


def test_the_reference_shows_every_clause() -> None:
    text = "\n".join(BLOCKS)
    for word in (
        "pattern",
        "fn",
        "match",
        "where",
        "let",
        "rewrite when",
        "else",
        "numeric",
        "test",
        "given",
        "unchanged",
    ):
        assert re.search(rf"\b{word}\b", text), word

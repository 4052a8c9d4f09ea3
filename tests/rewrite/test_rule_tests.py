"""Test blocks beside rules."""

from __future__ import annotations

import pytest

from compiler.proving.library import library_of
from compiler.rewrite import RuleError
from compiler.rewrite.rule_tests import TestResult, run_tests
from tests.rewrite.engine import library

RULE = """rule r {{
  match {{ y = Mul(Neg(x), k: const) }}
  rewrite {{ y = Mul(x, -k) }}
  test "doc" {{ {0} }}
}}"""


def result(block: str) -> TestResult:
    lib = library(RULE.format(block))
    return next(run_tests(lib, lib.rules.values()))


def test_before_becomes_after_whatever_the_names() -> None:
    block = "given { v: f32[2, N] } before { n = Neg(v)\n out = Mul(2.0, n) } after { out = Mul(v, -2.0) }"
    assert result(block).passed


def test_a_difference_is_shown() -> None:
    failed = result("given { x: f32[2] } before { y = Mul(Neg(x), 2.0) } after { y = Mul(x, 2.0) }")
    assert not failed.passed
    assert any(line.strip().startswith("- ") and "2.0" in line for line in failed.message.splitlines())
    assert any(line.strip().startswith("+ ") and "-2.0" in line for line in failed.message.splitlines())


def test_unchanged() -> None:
    assert result('given { x: f32[2], z: f32[2] } before { y = Mul(Neg(x), z) } unchanged "z is no constant"').passed
    failed = result('given { x: f32[2] } before { y = Mul(Neg(x), 2.0) } unchanged "I say so"')
    assert "fires, although I say so" in failed.message


def test_a_rule_that_must_fire_and_does_not() -> None:
    failed = result("given { x: f32[2] } before { y = Mul(Abs(x), 2.0) } after { y = Mul(x, -2.0) }")
    assert "does not fire" in failed.message


@pytest.mark.parametrize(
    "block",
    [
        "given { x: f32[2] } before { y = Mull(x, x) } after { y = x }",
        "given { x: f32[2], z: f32[3] } before { y = Mul(x, z) } unchanged",
        "given { x: f32[2] } before { y = Neg(x) } after { z = Neg(x) }",
    ],
)
def test_a_block_that_is_wrong_is_an_error_at_its_place(block: str) -> None:
    with pytest.raises(RuleError, match=r"t\.rules:6:"):
        result(block)


def test_the_library_passes_its_own() -> None:
    lib = library_of(())
    results = list(run_tests(lib, lib.rules.values()))
    assert len(results) > 10
    assert [r.rule + r.message for r in results if not r.passed] == []

"""The prover: right rules hold, wrong ones are caught with a small counterexample that can be replayed."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
from compiler import meaning
from compiler.ir import parse_module
from compiler.rewrite.library import Library
from compiler.rewrite.load import load_library
from compiler.rewrite.parse import parse
from compiler.rewrite.prove import Proof, Prover
from compiler.rewrite.prove_compare import difference
from compiler.rewrite.syntax import Numeric
from passes import narrow
from tests.rewrite.engine import HEAD


@functools.cache
def builtin() -> Library:
    library = load_library()
    meaning.install(library)
    return library


def prover(rules: str) -> Prover:
    return Prover(Library([*builtin().files, parse(HEAD + rules, "t.rules")]), (), narrow.run)


def proof_of(rules: str, name: str = "r", count: int = 20) -> Proof:
    p = prover(rules)
    rule = p.library.rules[name]
    p.warm([rule])
    return p.prove(rule, count)


@pytest.mark.parametrize(
    "rule",
    [
        "match { y = Neg(Neg(x)) } rewrite { y = x } numeric exact",
        "match { y = Mul(Mul(x, a: const), b: const) } rewrite { y = Mul(x, a * b) }",
        """match { y = Transpose(Transpose(x) {perm = p}) {perm = q} }
           rewrite when compose(p, q) == iota(rank(x)) { y = x }
           else { y = Transpose(x) {perm = compose(p, q)} } numeric exact""",
        """match { c = Conv(x, w: const, b?: const) {..conv}
                   y = Mul(c, k: const) }
           where { uses(c) == 1, size(k) == 1, rank(k) == 0 }
           rewrite when has(b) { y = Conv(x, w * k, b * k) {..conv} }
           else { y = Conv(x, w * k) {..conv} }""",
        """match { q = MatMul(x, wq: const[D, Q])
                   k = MatMul(x, wk: const[D, K]) }
           rewrite { (q, k) = Split(MatMul(x, concat([wq, wk], axis = 1)), [Q, K]) {axis = -1} }""",
    ],
)
def test_right_rules_hold_on_each_of_their_rewrites(rule: str) -> None:
    proof = proof_of(f"rule r {{ {rule} }}")
    assert proof.holds, (proof.wrong, proof.stuck)
    assert proof.instances >= 20
    assert set(proof.rewrites) == set(range(rule.count("rewrite") + rule.count("else")))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("match { y = Sub(x, z) } rewrite { y = Add(Neg(x), z) }", "instead of"),
        ("match { y = Add(x, k: const) } rewrite { y = Sub(x, k) }", "instead of"),
        (
            "match { y = Transpose(Transpose(x) {perm = p}) {perm = q} }"
            " rewrite { y = Identity(Transpose(x) {perm = compose(q, p)}) }",
            "",
        ),
        ("match { y = Relu(x) } rewrite { y = Max(x, 1e-3) }", "instead of"),
        ("match { y = LeakyRelu(x) {alpha = _} } rewrite { y = Max(x, Mul(x, 0.01)) }", "instead of"),
        (
            "match { y = Mul(x, 0.0) } where { same_shape(x, y) } rewrite { y = Mul(x, 1e-3) } numeric exact",
            "instead of",
        ),
        (
            "match { y = Clip(x, a: const, b: const) } where { a < 0 and b == 1 or a < b } rewrite { y = x }",
            "instead of",
        ),
        (  # right by types wherever w is not square
            "match { y = Gemm(x, w: const) {transB = _} } rewrite { y = MatMul(x, w) }",
            "instead of",
        ),
    ],
)
def test_wrong_rules_are_caught(rule: str, said: str) -> None:
    proof = proof_of(f"rule r {{ {rule} }}", count=200)
    assert said in proof.wrong
    assert proof.wrong


@pytest.mark.parametrize("name", ["f8e5m2", "i4"])
def test_numbers_of_narrow_types_are_compared_as_they_are(name: str) -> None:
    """Converting what was computed to the narrow type would round it, or cut its bits."""
    to = "mil.mul(x, 1.0)" if name == "f8e5m2" else 'mil.cast(x) {dtype = "int32"}'
    where = "where { not is_const(x) }"  # nothing in this library lowers constants
    text = f"stage lower\nrule r {{ match {{ y: {name} = onnx.Cast(x: f32) {{..a}} }} {where} rewrite {{ y = {to} }} }}"
    files = [f for f in builtin().files if "lower" not in str(f.path)]
    p = Prover(Library([*files, parse(text, "t.rules")]), (), narrow.run)
    p.warm([p.library.rules["r"]])
    assert "instead of" in p.prove(p.library.rules["r"], 60).wrong


def test_results_too_large_to_compare_are_no_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compiler.rewrite.prove_check._LARGEST", 3)
    rule = "match { y = Neg(Neg(x: f32[4])) } rewrite { y = x }"
    proof = proof_of(f"rule r {{ {rule} }}", count=5)
    assert not proof.instances
    assert any("more numbers come out" in reason for reason in proof.reasons)


def test_a_counterexample_is_small_and_can_be_replayed() -> None:
    rules = "rule r { match { y = Sub(x, z) } rewrite { y = Add(Neg(x), z) } }"
    proof = proof_of(rules)
    module = parse_module(proof.counterexample)
    assert module.attributes["rule"] == "r"
    assert all(np.size(v) <= 4 for k, v in module.attributes.items() if k.startswith("input."))
    p = prover(rules)
    assert p.replay(p.library.rules["r"], module).kind == "wrong"


def test_what_is_not_finite_does_not_keep_a_counterexample_large() -> None:
    """x - x is not 0 where x is not finite."""
    rule = "match { y = Sub(x: f32, x) } where { is_static(x) } rewrite { y = full(shape(x), 0, f32) } numeric exact"
    module = parse_module(proof_of(f"rule r {{ {rule} }}", count=200).counterexample)
    assert all(np.size(v) == 1 for k, v in module.attributes.items() if k.startswith("input."))


def test_results_that_are_no_tensors_are_no_instances() -> None:
    """The branches of If are drawn, and give sequences too."""
    rule = "rule r { match { y = If(Not(c)) with (t, e) } rewrite { y = If(c) with (e, t) } }"
    assert proof_of(rule, count=60).holds


def test_a_rule_without_instances_says_which_clause_is_to_blame() -> None:
    proof = proof_of("rule r { match { y = Neg(x) } where { rank(x) == 3, rank(x) == 4 } rewrite { y = x } }", count=5)
    assert not proof.wrong
    assert "t.rules:3:" in proof.stuck
    assert "'example'" in proof.stuck


def test_a_rewrite_that_is_never_reached_is_reported() -> None:
    rule = "match { y = Abs(x) } rewrite when rank(x) > 9 { y = Neg(x) } else { y = Max(x, Neg(x)) }"
    assert "never reached" in proof_of(f"rule r {{ {rule} }}", count=5).stuck


def test_an_example_pins_what_cannot_be_guessed() -> None:
    rule = """rule r { match { y = LeakyRelu(x) {alpha = a} } where { abs(a - 0.2718) < 1e-9 }
                       rewrite { y = Where(Less(x, 0.0), Mul(x, a), x) } example { x: f32[2, 3], a = 0.2718 } }"""
    proof = proof_of(rule)
    assert proof.holds, (proof.wrong, proof.stuck)


def test_open_dimensions_are_tried() -> None:
    """x + 0 is no x where 0 is a matrix and x's rows are unknown: they may be one."""
    rule = "rule r { match { y = Add(x, k: const) } where { splat(k) == 0 } rewrite { y = Sub(x, 0.0) } }"
    assert "shape" in proof_of(rule, count=200).wrong


@pytest.mark.parametrize(
    ("a", "b", "contract", "right"),
    [
        ([1.0, np.nan, np.inf], [1.0, np.nan, np.inf], Numeric("exact"), True),
        ([0.0], [-0.0], Numeric("exact"), True),
        ([1.0], [1.0000001], Numeric("exact"), False),
        ([np.nan], [1.0], Numeric("exact"), False),
        ([1.0], [1.00001], Numeric("rounding"), True),
        ([1.0], [1.001], Numeric("rounding"), False),
        ([1.0], [np.nan], Numeric("rounding"), False),
        ([np.inf], [1.0], Numeric("rounding"), True),
        ([1.0, 2.0], [1.0005, 2.0], Numeric("approximate", 1e-3), True),
        ([1.0, 2.0], [1.05, 2.0], Numeric("approximate", 1e-3), False),
    ],
)
def test_contracts(a: list[float], b: list[float], contract: Numeric, right: bool) -> None:
    left, other = np.array(a, np.float32), np.array(b, np.float32)
    assert (difference([left], [other], contract, 1.0, False) is None) == right


def test_types_and_shapes_must_be_equal() -> None:
    one = np.ones((2, 1), np.float32)
    assert difference([one], [one.astype(np.float16)], Numeric(), 1.0, False) is not None
    assert difference([one], [one.reshape(1, 2)], Numeric(), 1.0, False) is not None

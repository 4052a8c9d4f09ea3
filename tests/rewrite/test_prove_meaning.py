"""Proofs of meaning rules: coremltools and its documentation say what is right, and wrong meanings are caught."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import compiler.dialects.mil
import compiler.dialects.onnx  # noqa: F401 (registers the operators that rules name)
from compiler import meaning, reference
from compiler.ir import parse_module
from compiler.rewrite.library import Library
from compiler.rewrite.load import load_library
from compiler.rewrite.parse import parse
from compiler.rewrite.prove import Proof, Prover
from compiler.rewrite.prove_oracle import NotTakenError, fits, truth
from passes import narrow


@functools.cache
def builtin() -> Library:
    library = load_library()
    meaning.install(library)
    return library


def proof_of(rule: str, count: int) -> Proof:
    library = Library([*builtin().files, parse(f"stage meaning\nrule r {{ {rule} }}", "t.rules")])
    p = Prover(library, (), narrow.run)
    p.warm([library.rules["r"]])
    return p.prove(library.rules["r"], count)


SUMS = """module @m { func @f(%x: tensor<2x3xf32>) -> (%y: tensor<2xf32>) {
  %0 = mil.reduce_sum(%x) {axes = [AXIS], keep_dims = false} : tensor<2xf32>
  return %0 } }"""


@pytest.mark.parametrize(
    "rule",
    [
        "match { y = mil.sub(a, b) } rewrite { y = onnx.Sub(a, b) }",
        "match { y = mil.relu6(x) } rewrite { y = onnx.Min(onnx.Max(x, 0), 6) }",
        """match { y = mil.matmul(a, b) {transpose_x = false, transpose_y = false} }
           rewrite { y = onnx.MatMul(a, b) }""",
        """match { y = mil.scaled_tanh(x: T, a: T, b: T) } where { broadcasts_to(a, x), broadcasts_to(b, x) }
           rewrite { y = onnx.Mul(onnx.Tanh(onnx.Mul(x, b)), a) }""",
    ],
)
def test_what_coremltools_computes_itself_is_the_truth(rule: str) -> None:
    proof = proof_of(rule, 8)
    assert proof.holds, (proof.wrong, proof.stuck)
    assert proof.oracles == {"coremltools": proof.instances}


@pytest.mark.parametrize(
    ("rule", "oracle"),
    [
        ("match { y = mil.sub(a, b) } rewrite { y = onnx.Sub(b, a) }", "coremltools"),
        ("match { y = mil.relu6(x) } rewrite { y = onnx.Max(x, 0) }", "coremltools"),
        ("match { y = mil.mod(a: integer, b) } rewrite { y = onnx.Mod(a, b) {fmod = 1} }", "coremltools"),
        (
            """match { y = mil.depth_to_space(x) {block_size = n} }
               rewrite { y = onnx.DepthToSpace(x) {blocksize = n, mode = "CRD"} }""",
            "documentation",
        ),
        (
            """match { y = mil.clamped_relu(x: T, a: T, b: T) } where { broadcasts_to(a, x), broadcasts_to(b, x) }
               rewrite { y = onnx.Where(onnx.GreaterOrEqual(x, 0), onnx.Min(x, b), onnx.Mul(x, a)) }""",
            "documentation",
        ),
        ("match { *ys = mil.cond(c) with (t, e) } rewrite { ys = onnx.If(c) with (e, t) }", "control flow"),
    ],
)
def test_wrong_meanings_are_caught(rule: str, oracle: str) -> None:
    assert f"({oracle})" in proof_of(rule, 60).wrong


def test_what_coremltools_refuses_is_no_instance() -> None:
    module = parse_module(SUMS.replace("AXIS", "7"))
    op = module.main.block.first
    assert op is not None
    with pytest.raises(NotTakenError):
        truth(op, {module.main.inputs[0]: np.ones((2, 3), np.float32)})


def test_the_truth_says_what_and_who() -> None:
    module = parse_module(SUMS.replace("AXIS", "1"))
    op = module.main.block.first
    assert op is not None
    said = truth(op, {module.main.inputs[0]: np.ones((2, 3), np.float32)})
    assert (said.shapes, said.source) == ([(2,)], "coremltools")
    np.testing.assert_array_equal(said.values[0], [3, 3])


def test_what_nobody_has_said_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "OPERATORS", {})
    proof = proof_of(
        """match { y = mil.depth_to_space(x) {block_size = n} }
           rewrite { y = onnx.DepthToSpace(x) {blocksize = n} }""",
        2,
    )
    assert not proof.instances
    assert "nobody says what mil.depth_to_space computes" in str(proof.reasons)


def test_shapes_may_be_left_open() -> None:
    assert fits((2, 3), (2, "is0"))
    assert fits((), (1,))
    assert not fits((2, 3), (3, 2))
    assert not fits((2,), (2, 1))

"""Proofs of rules whose right side is a kernel: run on this CPU, many instances in one program."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from compiler.ir import parse_module
from compiler.proving.kernels import KernelMachine
from compiler.proving.library import library_of, prover_of
from compiler.rewrite.library import Library
from compiler.rewrite.parse import parse
from compiler.rewrite.prove import Proof, Prover

#: Every so manieth rule of the stage, on so many instances: each rule is a program to compile.
STRIDE, COUNT = 9, 4


@functools.cache
def prover() -> Prover:
    return prover_of(library_of(()))


def proof_of(rule: str, count: int) -> Proof:
    text = f"stage metal\nuse onnx\nrule r {{ {rule} }}"
    library = Library([*prover().library.files, parse(text, "t.rules")])
    p = Prover(library, machines={"metal": KernelMachine()})
    p.warm([library.rules["r"]])
    return p.prove(library.rules["r"], count)


def test_some_rules_of_the_library_hold() -> None:
    rules = [r for r in prover().library.rules.values() if r.stage == "metal"][::STRIDE]
    failed = [
        f"{p.rule}: {p.wrong or p.stuck}\n{p.counterexample}"
        for p in prover().prove_all(rules, COUNT, 0, 2)
        if not p.holds
    ]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("match { y = Sub(a: f32, b) } rewrite { y = metal.sub(b, a) }", "instead of"),
        ("match { y = Max(a: f32, b) } rewrite { y = metal.select(metal.less(a, b), a, b) }", "instead of"),
        ("match { y = Sign(x: i32) } rewrite { y = metal.sign(x) }", "ambiguous"),
    ],
)
def test_wrong_kernels_are_caught(rule: str, said: str) -> None:
    proof = proof_of(rule, 12)
    assert said in proof.wrong
    assert "onnx." in proof.counterexample


def test_graphs_run_together_as_they_do_alone() -> None:
    text = """module @m {{ func @f(%x: tensor<{n}xf32>) -> (%y: tensor<{n}xf32>) {{
      %0 = metal.{op}(%x) : tensor<{n}xf32>
      return %0 }} }}"""
    jobs = []
    for n, op in ((3, "neg"), (4, "neg"), (3, "abs")):
        jobs.append((parse_module(text.format(n=n, op=op)), {"x": np.arange(n, dtype=np.float32) - 1}))
    found = KernelMachine().run(jobs)
    for (_, feeds), results, expected in zip(jobs, found, (np.negative, np.negative, np.abs), strict=True):
        assert not isinstance(results, str)
        np.testing.assert_array_equal(results[0], expected(feeds["x"]))

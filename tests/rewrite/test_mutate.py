"""Mistakes put into rules: a harmful one is caught by the proof, not by a failure of the tool; a right rule is not."""

from __future__ import annotations

import pytest

from compiler.proving.kernels import KernelMachine
from compiler.rewrite.library import Library
from compiler.rewrite.mutate import Mutant, caught, mutants, mutated
from compiler.rewrite.parse import parse
from compiler.rewrite.prove import Prover
from passes import narrow
from tests.rewrite.engine import HEAD
from tests.rewrite.test_prove import builtin

RULES = """
rule mutable_relu {
  match   { y = Max(x: f32, 0) }
  rewrite { y = Relu(x) }
}
"""


@pytest.fixture(scope="module")
def prover() -> Prover:
    library = Library([*builtin().files, parse(HEAD + RULES, "t.rules")])
    return Prover(library, (), narrow.run, {"metal": KernelMachine()})


def test_a_wrong_constant_is_caught(prover: Prover) -> None:
    rule = next(r for f in prover.library.files for r in f.rules if r.name == "mutable_relu")
    assert not caught(prover, Mutant("nothing", "t.rules", rule), 8, 0)
    found = {m.kind: caught(prover, m, 8, 0) for m in mutants(rule)}
    assert found
    assert all(found.values()), found
    assert any(said.startswith("wrong") for said in found.values()), found


def test_the_prover_of_a_mutant_has_all_of_the_first(prover: Prover) -> None:
    rule = next(r for f in prover.library.files for r in f.rules if r.name == "mutable_relu")
    changed = mutated(prover, rule)
    assert vars(changed).keys() == vars(prover).keys()
    assert changed.machines is prover.machines

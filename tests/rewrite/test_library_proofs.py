"""The rules of all stages but metal, each on some random instances; those of meaning against what others say.

``planish rules prove`` takes 200 of each. Where a proof is slow here, its instances are hard to find, not to check.
"""

from __future__ import annotations

import functools

import pytest

from compiler.proving.library import library_of, prover_of
from compiler.rewrite.prove import Prover

#: Instances of each rule.
COUNT = 6
#: So many parts the rules are proved in, so that processes can share them.
PARTS = 8
#: Proved elsewhere, with what their operators mean.
OTHERS = ("meaning", "metal")
#: Instances of each meaning rule, and parts.
MEANINGS, MEANING_PARTS = 4, 2


@functools.cache
def prover() -> Prover:
    return prover_of(library_of(()))


@pytest.mark.parametrize("part", range(PARTS))
def test_rules_hold(part: int) -> None:
    rules = [r for r in prover().library.rules.values() if r.stage not in OTHERS][part::PARTS]
    failed = [
        f"{p.rule}: {p.wrong or p.stuck}\n{p.counterexample}"
        for p in prover().prove_all(rules, COUNT, 0, 2)
        if not p.holds
    ]
    assert not failed, "\n".join(failed)


@pytest.mark.parametrize("part", range(MEANING_PARTS))
def test_meanings_hold(part: int) -> None:
    rules = [r for r in prover().library.rules.values() if r.stage == "meaning"][part::MEANING_PARTS]
    proofs = list(prover().prove_all(rules, MEANINGS, 0, 2))
    failed = [f"{p.rule}: {p.wrong or p.stuck}\n{p.counterexample}" for p in proofs if not p.holds]
    assert not failed, "\n".join(failed)
    unknown = [p.rule for p in proofs if sum(p.oracles.values()) != p.instances]
    assert not unknown, f"proved without anybody outside having said what is right: {', '.join(unknown)}"

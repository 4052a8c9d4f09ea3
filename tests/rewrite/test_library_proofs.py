"""The rules of stages upgrade, canonicalize, fuse, shape, ane and wide, each on 20 random instances.

``planish rules prove`` takes 200, and all stages: not all rules of lower and meaning hold yet.
"""

from __future__ import annotations

import pytest

from compiler.cli_rules_prove import _load, _prover
from compiler.rewrite.library import LIBRARY
from compiler.rewrite.prove import Prover

STAGES = ("upgrade", "canonicalize", "fuse", "shape", "ane", "wide")
FILES = sorted(f.name for f in LIBRARY.glob("*.rules") if f.name.startswith(STAGES))


@pytest.fixture(scope="module")
def prover() -> Prover:
    return _prover(_load(()))


@pytest.mark.parametrize("file", FILES)
def test_rules_hold(prover: Prover, file: str) -> None:
    rules = [r for r in prover.library.rules.values() if r.file == f"rules/{file}"]
    assert rules
    failed = [
        f"{p.rule}: {p.wrong or p.stuck}\n{p.counterexample}" for p in prover.prove_all(rules, 20, 0, 2) if not p.holds
    ]
    assert not failed, "\n".join(failed)

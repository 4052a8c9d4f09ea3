"""``planish bench``: what it measures, and that estimates are called so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from tests.cli.test_cli import EXAMPLE, Run, compile_, planish

__all__ = ["compile_", "planish"]


def test_a_package_is_timed_and_estimated(compile_: Run, planish: Run, tmp_path: Path) -> None:
    model = shutil.copy(EXAMPLE, tmp_path)
    assert compile_(model, "--shape", "x=1..4,3,48,192", "--target", "cpu", "-o", "m.mlpackage", "-q")[0] == 0
    code, out, err = planish("bench", "m.mlpackage", "--runs", "3", "--batch", "1,4", "--json", "b.json")
    assert code == 0, err
    found = json.loads(Path("b.json").read_text())
    assert [row["batch"] for row in found["calls"]] == [0, 1, 4]
    for row in found["calls"]:
        assert 0.0 < row["ms"]["p50"] <= row["ms"]["p90"] <= row["ms"]["p99"]
    assert set(found["estimated"]) == {"ane", "gpu", "cpu"}
    assert out.count("estimated, not measured") == 3


def test_a_fixed_batch_and_bad_sizes_are_refused(planish: Run) -> None:
    code, _, err = planish("bench", EXAMPLE, "--batch", "4,x")
    assert (code, "is no list of batch sizes" in err) == (2, True)
    code, _, err = planish("bench", "nothing.mlpackage")
    assert code == 2

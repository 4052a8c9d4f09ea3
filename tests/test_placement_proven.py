"""A slice of benchmarks/placement_proven.py: what it says of a model whose values half precision cannot hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import placement_proven as benchmark


def test_a_model_of_large_values_keeps_its_products_on_the_unit(models_dir: Path) -> None:
    (row,) = benchmark.rows([models_dir], ["light_squeezenet"], made_up=False)
    assert benchmark.share(row) == 1.0
    assert {k["op"] for k in row["report"]["fp32_ops"]} == {"mil.mul", "mil.softmax"}
    assert benchmark.fact(row) == ""


@pytest.mark.parametrize(("moved", "excused"), [(0, True), (10, True), (200, False)])
def test_what_the_proof_moved_is_no_fact(moved: int, excused: bool) -> None:
    refused = {"macs": 300, "reason": "the ANE takes lstm on no chip", "source": "C, D: appendix A"}
    fp32 = {"macs": moved, "reason": "fp32 values: the ANE computes in half precision", "source": "A"}
    small = {"macs": 100, "reason": "too little work here: …", "source": "M"}
    placed: dict[str, Any] = {
        "macs": {"ane": 600 - moved, "cpu": 400 + moved},
        "eligible": {"macs": (700 - moved) / 1000},
        "residency": {"macs": 0.6},
        "reasons": [refused, fp32, small],
    }
    row = {"code": 0, "report": {"placement": placed}}
    assert benchmark.fact(row).startswith("30 % of MACs: the ANE takes lstm on no chip (C, D)")
    assert "too little" not in benchmark.fact(row)
    assert benchmark.excused(row) is excused

"""A slice of benchmarks/placement.py: networks that the Neural Engine takes whole, beside Apple's packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import placement as benchmark


@pytest.mark.parametrize("name", ["resnet_basic", "mobilenet_v3", "unet", "vit"])
def test_ours_is_taken_whole_and_estimated_no_slower(pairs_dir: Path, name: str) -> None:
    (row,) = benchmark.rows([pairs_dir], [name], "A17")
    assert row["ours"]["eligible"]["macs"] >= 0.99
    assert row["ours"]["residency"]["macs"] >= 0.99
    ours, apple = (row[s]["estimates"]["latency_ms"] for s in ("ours", "apple"))
    assert ours <= 1.01 * apple
    assert row["ours"]["interior_layout_ops"] <= row["apple"]["interior_layout_ops"]

"""The page of a package of Metal kernels: each kernel with its node, bytes, intensity, least time, and error."""

from __future__ import annotations

import json
import re

import pytest

import compiler
from benchmarks.metal_families import cases
from tests.page.test_structure import Reader


@pytest.mark.parametrize("verify", ["fast", "off"])
def test_kernels_stand_on_the_page_in_order(tmp_path, verify):
    case = next(cases("conv pooled"))
    path = tmp_path / "out.html"
    made = compiler.compile(
        case.model(), target="metal", output=tmp_path / "m.metalpackage", verify=verify, report=path
    )
    text = path.read_text(encoding="utf-8")
    read = Reader(text)
    assert read.errors == []
    assert "placement" not in read.ids
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S)[1])
    rows = made.report.placement["dispatched"]
    assert [row["kernel"] for row in data["kernels"]] == [row["kernel"] for row in rows]
    for row in rows:
        assert row["kernel"] in read.text["kernels"]
        assert row["intensity"] == pytest.approx(2 * row["macs"] / row["bytes"], abs=0.01)
    (kernel,) = [n for n in data["after"]["nodes"] if n[0] == "conv"]
    assert "pool" in kernel[4]["computes"]
    assert data["measured"] == (verify == "fast")
    assert ("error" in kernel[4]) == (verify == "fast")

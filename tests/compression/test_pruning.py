"""``compile(…, prune=…)``: smaller, proven against the pruned model, measured against the original."""

from __future__ import annotations

import pytest

import compiler
from compiler.errors import UserError, VerificationError
from tests.compression.conftest import MODEL, SHAPE


def build(tmp_path, **options):
    return compiler.compile(MODEL, "cpu", tmp_path / "out.mlpackage", shapes={"x": SHAPE}, verify="fast", **options)


def test_pruned_and_quantized(tmp_path, data):
    plain = build(tmp_path)
    done = build(tmp_path, prune=0.3, calibrate=data)
    held = done.report.compression["pruning"]
    assert done.report.verify.passed
    assert held["macs"] < 0.65 * held["macs_before"]
    assert done.report.bytes["package"] < 0.75 * plain.report.bytes["package"]
    assert next(iter(held["distance"].values()))["rel_l2"] > 1e-3
    both = build(tmp_path, prune=0.3, quantize="int8", calibrate=data)
    assert both.report.verify.passed
    assert both.report.bytes["package"] < 0.7 * done.report.bytes["package"]
    # The distance is that from the original, not from the pruned model.
    off = [next(iter(d.values()))["rel_l2"] for d in (both.report.compression["distance"], held["distance"])]
    assert off[0] == pytest.approx(off[1], rel=0.5)


def test_a_channel_that_is_still_needed_is_found_out(tmp_path, monkeypatch):
    """Were the masked model to take more than the pruned one has, the two would differ."""
    monkeypatch.setattr("passes.prune.masked", lambda *_: None)
    with pytest.raises(VerificationError, match="cutting channels out changed output"):
        build(tmp_path, prune=0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prune": 1.5}, "--prune 1.5 is no share of channels between 0 and 1"),
        ({"prune": 0.3, "budget": "1MB"}, "--budget says how to compress, but not what"),
        ({"prune": 0.5, "max_error": 1e-3}, "pruned, output '"),
    ],
)
def test_errors(tmp_path, options, message):
    with pytest.raises(UserError) as e:
        build(tmp_path, **options)
    assert message in e.value.message

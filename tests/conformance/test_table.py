"""The table of docs/conformance.md, from records made up."""

from __future__ import annotations

from benchmarks.conformance_table import reason, row, totals

REFUSED = "onnx.Pad at node 'n' cannot be compiled: its 'pads' is computed at run time\n  try: constants"


def record(verdict, why="", opset=13, **more):
    late = {"ios16": "refused" if more.pop("late", False) else verdict, "ios17": verdict}
    return {"operators": ["Pad"], "opset": opset, "verdict": verdict, "why": why, "releases": late, **more}


def test_an_operators_line_says_what_passed_since_when_and_why_not():
    records = [
        record("right", late=True),
        record("rounding", opset=19),
        record("refused", REFUSED, with_constants="right"),
    ]
    assert row("Pad", records) == "| Pad | 13–19 | 2 of 3 | iOS 17 | 1 | its '…' is computed at run time |"


def test_what_never_passes_is_since_no_release():
    assert (
        row("Det", [record("refused", "Core ML has no type a|b")])
        == "| Det | 13 | 0 of 1 |  |  | Core ML has no type a\\|b |"
    )


def test_reasons_name_no_case():
    assert reason("'y' gives a tensor of rank 7 (1 × 2 × 3); Core ML's have at most 5") == (
        "'…' gives a tensor of rank 7 (…); Core ML's have at most 5"
    )


def test_totals_count_verdicts_by_release():
    text = totals([record("right", late=True), record("wrong")])
    assert "| planish, iOS 16 | 0 | 0 | 0 | 1 | 1 | 0 |" in text
    assert "| planish, iOS 17 | 1 | 0 | 0 | 0 | 1 | 0 |" in text


def test_what_is_off_by_rounding_is_named():
    assert "stored output" not in totals([record("right")])
    assert "\nOf test_a the stored output is what rounding left" in totals([record("rounding") | {"name": "test_a"}])

"""The cost model against Core ML's own estimates, and its constants against the fit."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from benchmarks import cost_model, mobilenet_edgetpu
from compiler import hardware
from passes import place

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _reference() -> None:
    if not mobilenet_edgetpu.reference().is_file():
        pytest.skip(f"no file {mobilenet_edgetpu.reference()}; set PLANISH_REFERENCE to its folder")


def test_shapes_are_those_of_core_mls_plan() -> None:
    """The rebuilt network has its operators, in its order."""
    names = {"identity": "tensor_buffer_to_tensor"}
    ours = [op.name.removeprefix("mil.") for op in mobilenet_edgetpu.build().ops]
    assert [names.get(n, n) for n in ours] == [e.name for e in mobilenet_edgetpu.estimates()]


@pytest.mark.parametrize("unit", ["ane", "cpu", "gpu"])
@pytest.mark.parametrize("by_shape", [False, True])
def test_error_left_out(unit: str, by_shape: bool) -> None:
    row = cost_model.operators(unit, by_shape)
    assert row["estimated"] == row["operators"]
    assert row["median"] <= 0.15
    assert row["rank correlation"] >= 0.95


def test_constants_are_the_fitted_ones() -> None:
    fitted = tomllib.loads(cost_model.constants())
    assert fitted["rate"] == hardware.costs()["rate"]


def test_the_estimate_of_the_package_is_the_roofline_of_the_benchmark() -> None:
    net = mobilenet_edgetpu.build()
    for op in net.ops:
        work = hardware.work(op)
        expected = cost_model.estimated(work, hardware.costs()["rate"]["ane"])
        assert hardware.milliseconds(work, "ane", hardware.chip("M1")) == pytest.approx(expected)


def test_the_ane_takes_what_core_ml_says() -> None:
    assert cost_model.choices() == (119, 119)


def test_each_operator_is_placed_where_core_ml_places_it() -> None:
    net = mobilenet_edgetpu.build()
    chosen = place.run(net.module, "ane", hardware.chip("M1"), 17).unit
    assert [chosen[op] for op in net.ops] == [e.chosen for e in mobilenet_edgetpu.estimates()]


def test_each_operator_of_a_program_costs_a_step() -> None:
    """44 cycles on the Neural Engine, whatever the operator does."""
    net, on = mobilenet_edgetpu.build(), hardware.chip("M1")
    for op in net.ops:
        assert hardware.cost(op, "ane", on).ms - hardware.milliseconds(hardware.work(op), "ane", on) == pytest.approx(
            44 / 1.14e6, rel=0.02
        )
        assert hardware.cost(op, "cpu", on).ms == pytest.approx(hardware.milliseconds(hardware.work(op), "cpu", on))

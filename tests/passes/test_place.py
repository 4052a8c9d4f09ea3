"""Placement against exhaustive search, and what it says of whole programs."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import compiler.dialects.mil  # noqa: F401  (registers the dialect)
from compiler import hardware, ir
from passes import place

HALF = ir.dtype("f16")
CHIP = hardware.chip("M1")


def random_net(seed: int, ops: int) -> ir.Module:
    """Convolutions, sums and operators that the ANE refuses, wired at random."""
    draw = np.random.default_rng(seed)
    module = ir.Module("m")
    f = module.add(ir.Function("main", {"x": ir.TensorType(HALF, (1, 64, 56, 56))}, ["o"]))
    b = ir.Builder(f.block)
    weight = b.constant(np.broadcast_to(np.float16(0), (64, 64, 3, 3)), "mil")
    values: list[ir.Value] = [f.inputs[0]]
    for _ in range(ops):
        kind = draw.choice(["conv", "add", "cumsum", "relu"], p=[0.4, 0.3, 0.15, 0.15])
        x, y = (values[-1 - int(draw.integers(min(3, len(values))))] for _ in range(2))
        operands = {"conv": [x, weight], "add": [x, y]}.get(kind, [x])
        attributes = {"pad_type": "same"} if kind == "conv" else {}
        values.append(b.op(f"mil.{kind}", operands, attributes, [x.type]).result)
    f.set_outputs([values[-1]])
    return module


@pytest.mark.parametrize("seed", range(12))
def test_two_units_are_placed_at_least_cost(seed: int) -> None:
    module = random_net(seed, 8)
    problem = place._Problem(module, ("ane", "cpu"), CHIP, 17)
    found = problem.solve()
    best = min(
        problem.energy(dict(zip(problem.ops, units)))
        for units in itertools.product(("ane", "cpu"), repeat=len(problem.ops))
        if all(problem.takes(u, op) for op, u in zip(problem.ops, units))
    )
    assert problem.energy(found) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(40))
def test_bounds_and_parts_cost_what_one_cut_costs(seed: int) -> None:
    module = random_net(seed, 14)
    problem = place._Problem(module, ("ane", "cpu"), CHIP, 17)
    one = problem._cut(problem.ops, dict.fromkeys(problem.ops, "cpu"), "ane")
    assert problem.energy(problem._two("ane")) == pytest.approx(problem.energy(one))


def test_bounds_settle_plain_programs_without_a_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place._Problem, "_cut", None)
    for module in (chain("conv", "relu", size=2), chain("conv", "relu", count=10)):
        place.run(module, "ane", CHIP, 17)


@pytest.mark.parametrize("seed", range(6))
def test_three_units_are_placed_near_least_cost(seed: int) -> None:
    module = random_net(seed, 6)
    problem = place._Problem(module, ("ane", "gpu", "cpu"), CHIP, 17)
    found = problem.solve()
    best = min(
        problem.energy(dict(zip(problem.ops, units)))
        for units in itertools.product(("ane", "gpu", "cpu"), repeat=len(problem.ops))
        if all(problem.takes(u, op) for op, u in zip(problem.ops, units))
    )
    assert best <= problem.energy(found) <= 1.1 * best
    assert all(found[op] != "ane" for op in problem.refused)


def chain(*kinds: str, size: int = 56, count: int = 1) -> ir.Module:
    module = ir.Module("m")
    f = module.add(ir.Function("main", {"x": ir.TensorType(HALF, (1, 64, size, size))}, ["o"]))
    b = ir.Builder(f.block)
    weight = b.constant(np.broadcast_to(np.float16(0), (64, 64, 3, 3)), "mil")
    x: ir.Value = f.inputs[0]
    for kind in kinds * count:
        attributes = {"pad_type": "same"} if kind == "conv" else {}
        x = b.op(f"mil.{kind}", [x, weight] if kind == "conv" else [x], attributes, [x.type]).result
    f.set_outputs([x])
    return module


def test_a_tiny_program_stays_on_the_cpu_and_a_large_one_does_not() -> None:
    """Source M: 0 of 77 operators of a tiny model on the ANE, 217 of 217 of a realistic one."""
    tiny = place.run(chain("conv", "relu", size=2), "ane", CHIP, 17)
    assert set(tiny.unit.values()) == {"cpu"}
    assert not tiny.refused
    large = place.run(chain("conv", "relu", count=10), "ane", CHIP, 17)
    assert set(large.unit.values()) == {"ane"}


def test_an_operator_that_the_ane_refuses_cuts_the_program() -> None:
    placed = place.run(chain(*["conv"] * 6, "cumsum", *["conv"] * 6), "ane", CHIP, 17)
    assert [s.unit for s in placed.segments] == ["ane", "cpu", "ane"]
    assert [len(s.ops) for s in placed.segments] == [6, 1, 6]
    assert [op.name for op in placed.refused] == ["mil.cumsum"]
    assert placed.calls_ms == pytest.approx(2 * CHIP.dispatch_ms)


def test_an_activation_after_a_convolution_is_free() -> None:
    placed = place.run(chain("conv", "relu", count=8), "ane", CHIP, 17)
    assert all(ms == 0.0 for op, ms in placed.ms.items() if op.name == "mil.relu")
    assert all(ms > 0.0 for op, ms in placed.ms.items() if op.name == "mil.conv")


def test_segments_leave_a_unit_as_seldom_as_the_graph_allows() -> None:
    """Two branches, each with one operator on the CPU: one visit there, not two."""
    module = ir.Module("m")
    f = module.add(ir.Function("main", {"x": ir.TensorType(HALF, (4, 4))}, ["o"]))
    b = ir.Builder(f.block)
    type_ = f.inputs[0].type
    branches = []
    for _ in range(2):
        before = b.op("mil.exp", [f.inputs[0]], {}, [type_])
        middle = b.op("mil.cumsum", [before.result], {}, [type_])
        branches.append((before, middle))
    last = b.op("mil.add", [branches[0][1].result, branches[1][1].result], {}, [type_])
    f.set_outputs([last.result])
    unit = {op: "cpu" if op.name == "mil.cumsum" else "ane" for op in (o for pair in branches for o in pair)}
    unit[last] = "ane"
    assert [s.unit for s in place.segments(unit)] == ["ane", "cpu", "ane"]

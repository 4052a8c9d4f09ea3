"""What a report says about placement: which unit is predicted to run what, how long it may take, what keeps it off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from compiler import hardware
from compiler.ir import Module, Op, Value
from compiler.report import short
from compiler.target import UNIT_TITLES, Target

if TYPE_CHECKING:
    from passes.place import Placement

#: How many operators of each reason a report lists by name.
LISTED = 200


def predict(module: Module, target: Target) -> Placement:
    """Places the operators of a mil module on the units of its target's chip."""
    from passes import place

    return place.run(module, target.unit, hardware.chip(target.chip), target.ios)


def describe(placed: Placement) -> dict[str, Any]:
    """The placement as JSON: shares by operators and multiplications, segments, estimates, what stays off and why."""
    macs = {op: done.macs for op, done in placed.work.items()}
    wanted = placed.wanted
    on = [op for op, unit in placed.unit.items() if unit == wanted]
    taken = [op for op in placed.unit if op not in placed.refused]
    energy = sum(hardware.millijoules(placed.work[op], unit) for op, unit in placed.unit.items())
    return {
        "predicted": True,
        "unit": wanted,
        "chip": placed.chip.name,
        "ops": _count(placed.unit),
        "macs": _count(placed.unit, macs),
        "residency": {"ops": _share(len(on), len(placed.unit)), "macs": _share(_sum(macs, on), _sum(macs, macs))},
        "eligible": {"ops": _share(len(taken), len(placed.unit)), "macs": _share(_sum(macs, taken), _sum(macs, macs))},
        "interior_layout_ops": interior_layout_ops(placed.work),
        "segments": [{"unit": s.unit, "ops": len(s.ops)} for s in placed.segments],
        "estimates": {
            "latency_ms": round(placed.total_ms, 4),
            "energy_mj": round(energy, 4),
            "memory_mb": round(memory(placed) / 1e6, 3),
            "operators_ms": round(sum(placed.ms.values()), 4),
            "transfers_ms": round(placed.moved_ms, 4),
            "calls_ms": round(placed.calls_ms, 4),
            "steps_ms": round(placed.steps_ms, 4),
            "weights_ms": round(placed.stream_ms, 4),
        },
        "reasons": _grouped(placed, macs),
        "off": [
            {"op": short(op), "node": node(op), "unit": placed.unit[op], "macs": macs[op], **why(op, placed)}
            for op in list(off(placed))[:LISTED]
        ],
    }


def off(placed: Placement) -> Iterator[Op]:
    """The operators that do not run on the unit asked for."""
    return (op for op, unit in placed.unit.items() if unit != placed.wanted)


def why(op: Op, placed: Placement) -> dict[str, str]:
    """Why an operator is not on the unit asked for: the reason, what would bring it on, and which row says so."""
    refusal = placed.refused.get(op)
    if refusal is not None:
        return {
            "reason": refusal.reason,
            "remedy": refusal.remedy,
            "rule": refusal.rule,
            "source": refusal.source,
        }
    return {
        "reason": f"too little work here: a call costs {placed.chip.dispatch_ms:g} ms, more than it would save",
        "remedy": "more work in one call, or fewer operators around it that stay off",
        "rule": "cost",
        "source": "M; compiler/hardware/costs.toml",
    }


def sentence(facts: Mapping[str, Any]) -> str:
    """``Neural Engine 99 of 101 ops, 100 % of MACs; about 0.14 ms on A17 Pro``."""
    total = sum(facts["ops"].values())
    unit, chip = facts["unit"], hardware.chip(facts["chip"])
    on = facts["ops"].get(unit, 0)
    share = f", {percent(facts['residency']['macs'])} of MACs" if sum(facts["macs"].values()) else ""
    count = f"all {total} ops" if on == total else f"{on} of {total} ops{share}"
    return f"{UNIT_TITLES[unit]} {count}; about {_short_ms(facts['estimates']['latency_ms'])} ms on {chip.title}"


def reasons(facts: Mapping[str, Any]) -> list[str]:
    """One line for each reason that keeps operators off: how many, which, why."""
    lines = []
    for row in facts["reasons"]:
        kinds = row["kinds"]
        named = ", ".join(kinds[:3]) + (f" and {len(kinds) - 3} more kinds" if len(kinds) > 3 else "")
        lines.append(f"{row['ops']} on the {UNIT_TITLES[row['unit']]} ({named}): {row['reason']}")
    return lines


def interior_layout_ops(ops: Mapping[Op, hardware.Work]) -> int:
    """How many transposes and reshapes have an operator with multiplications somewhere before them and one behind."""
    names = hardware.costs()["kinds"]["layout"]
    computes = {op for op, done in ops.items() if done.macs}
    behind: set[Op] = set()  # computations, and what needs them
    for op in ops:
        if op in computes or any(v is not None and v.op in behind for v in op.operands):
            behind.add(op)
    before: set[Op] = set()  # computations, and what they need
    for op in reversed(list(ops)):
        if op in computes or any(user in before for r in op.results for user in r.users):
            before.add(op)
    return sum(short(op) in names for op in ops if op in behind and op in before)


def percent(share: float) -> str:
    """``99.8 %``; never rounded up to 100."""
    return "100 %" if share == 1.0 else f"{min(100 * share, 99.9):.3g} %"


def node(op: Op) -> str:
    """The source node that an operator comes from."""
    return op.loc.nodes[0] if op.loc.nodes else ""


def memory(placed: Placement) -> int:
    """The most bytes that live at once: all weights, and activations between producer and last user."""
    weights = sum(done.weights for done in placed.work.values())
    order = [op for segment in placed.segments for op in segment.ops]
    last: dict[Value, int] = {}
    for i, op in enumerate(order):
        for value in op.operands:
            if value is not None and not hardware.is_parameter(value):
                last[value] = i
    ends: dict[int, list[Value]] = {}
    for value, i in last.items():
        ends.setdefault(i, []).append(value)
    unit_of: dict[Value, str] = {r: placed.unit[op] for op in order for r in op.results}
    sizes = {v: hardware.footprint(v, unit_of.get(v, "cpu")) for v in {*last, *unit_of}}
    live = sum(sizes[v] for v in last if v not in unit_of)
    most = live
    for i, op in enumerate(order):
        live += sum(sizes[r] for r in op.results)
        most = max(most, live)
        live -= sum(sizes[v] for v in ends.get(i, ()))
    return weights + most


def _grouped(placed: Placement, macs: Mapping[Op, int]) -> list[dict[str, Any]]:
    """The reasons that keep operators off, with what they keep off: most multiplications first, then most operators."""
    groups: dict[tuple[str, ...], list[Op]] = {}
    for op in off(placed):
        facts = why(op, placed)
        groups.setdefault((placed.unit[op], facts["reason"], facts["remedy"], facts["source"]), []).append(op)
    rows = [
        {
            "ops": len(ops),
            "macs": _sum(macs, ops),
            "unit": unit,
            "kinds": list(dict.fromkeys(short(op) for op in ops)),
            "nodes": [n for n in (node(op) for op in ops[:12]) if n],
            "reason": reason,
            "remedy": remedy,
            "source": source,
        }
        for (unit, reason, remedy, source), ops in groups.items()
    ]
    return sorted(rows, key=lambda r: (-int(str(r["macs"])), -int(str(r["ops"]))))


def _count(unit: Mapping[Op, str], weight: Mapping[Op, int] | None = None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for op, name in unit.items():
        counts[name] = counts.get(name, 0) + (1 if weight is None else weight[op])
    return counts


def _sum(macs: Mapping[Op, int], ops: Any) -> int:
    return sum(macs[op] for op in ops)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _short_ms(ms: float) -> str:
    return f"{ms:.1f}" if ms >= 10 else f"{ms:.2g}"

"""What a page says: both drawings with unit, cost and error at each operator, and the tables beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np

from compiler import hardware, placement
from compiler.ir import Module, Op, TensorType, Value, clone_function
from compiler.page.graph import Drawing, draw, weights_by_layer
from compiler.report import Report, counts_as_op, megabytes, number, short
from compiler.target import UNIT_TITLES

if TYPE_CHECKING:
    from compiler.proof import Reference
    from compiler.rewrite import Library
    from passes.place import Placement

Array = np.ndarray[Any, Any]

#: An error from which on a value is taken to be no other layout of the model's, but another value.
OTHER = 0.5

#: Up to how many axes longer than 1 a value is compared in other orders of its axes.
LAYOUT_AXES = 4

#: How many rows a table shows.
ROWS = 60


@dataclass(frozen=True, slots=True)
class Measurement:
    """What the error of each layer is measured with.

    Attributes:
        reference: the original model.
        inputs: what it takes, by name.
        given: the same as the package takes it, in the order of its inputs.
        library: rules that give the package's operators meaning.
        same_outputs: whether the package's outputs are the model's own, by name.
    """

    reference: Reference
    inputs: Mapping[str, Array]
    given: Sequence[Array]
    library: Library
    same_outputs: bool = True


def collect(before: Drawing, module: Module, report: Report, measurement: Measurement | None) -> dict[str, Any]:
    """All that the page's script and template need, as JSON.

    Args:
        before: the drawing of the model as it was imported.
        module: the mil module of the package.
        measurement: None where nothing was proven.
    """
    placed = placement.predict(module, report.target)
    errors = by_value(module, measurement) if measurement is not None else {}
    after = draw(module)
    stored = {op: done.weights for op, done in placed.work.items()}
    _annotate(after, placed, errors, stored)
    failing = [(op, errors[r]) for op in placed.unit for r in op.results if r in errors]
    return {
        "report": report.to_json(),
        "before": before.to_json(),
        "after": after.to_json(),
        "sentence": placement.sentence(report.placement),
        "parts": _parts(placed),
        "gain": report.placement["reasons"],
        "hints": _hints(placed),
        "sizes": [
            {"op": o, "node": n, "bytes": b, "text": megabytes(b), "shape": s}
            for o, n, b, s in weights_by_layer(module, stored)[:ROWS]
        ],
        "errors": [
            {"op": short(op), "node": placement.node(op), "error": e, "text": number(e)}
            for op, e in sorted(failing, key=lambda row: -row[1])[:ROWS]
        ],
        "measured": len(failing),
        "slowest": [
            {
                "op": short(op),
                "node": placement.node(op),
                "unit": placed.unit[op],
                "ms": ms,
                "text": f"{1e3 * ms:.3g} µs",
            }
            for op, ms in sorted(placed.ms.items(), key=lambda row: -row[1])[:ROWS]
            if ms
        ],
        "rules": report.rules.most_common(),
        "units": UNIT_TITLES,
    }


def by_value(module: Module, with_: Measurement) -> dict[Value, float]:
    """How far values of a mil module are off, relative L2: those that the original model has by name.

    Half precision is emulated, as in the proof. A value in another layout than the model's is compared in the order of
    axes that fits best. What fits in none is left out, and so is everything in a program with states.
    """
    from compiler.proof import compare, run_mil
    from passes import dce

    if any(not isinstance(a.type, TensorType) for a in module.main.inputs):
        return {}  # a state: what a value should be depends on the calls before
    twins: dict[Value, Value] = {}
    copy = Module(module.name, module.attributes)
    for function in module.functions.values():
        copy.add(clone_function(function, values=twins))
    named: dict[str, Value] = {}
    for op in module.main.block.ops:
        if counts_as_op(op):
            named.update({r.name: r for r in op.results if r.name})
    if with_.same_outputs:
        named.update(zip(module.main.output_names, module.main.outputs, strict=True))
    theirs = with_.reference.values(with_.inputs, named)
    shared = [name for name in named if name in theirs]
    if not shared:
        return {}
    copy.main.set_outputs([twins[named[n]] for n in shared], [f"value_{i}" for i in range(len(shared))])
    dce.run(copy)  # what no value needs, like an operator that picks a label
    mine = run_mil(copy, [with_.given], with_.library)[0]
    found = {}
    for name, array in zip(shared, mine, strict=True):
        badness = min((compare(a, theirs[name]).badness for a in _in_layout(array, theirs[name].shape)), default=np.inf)
        if badness < OTHER:
            found[named[name]] = float(badness)
    return found


def _in_layout(array: Array, shape: tuple[int, ...]) -> Iterator[Array]:
    """An array in the layouts of ``shape`` that it may be another of: the same axes longer than 1, in any order."""
    if array.shape == shape:
        yield array
        return
    long = array.reshape([d for d in array.shape if d != 1])
    wanted = tuple(d for d in shape if d != 1)
    if sorted(long.shape) == sorted(wanted) and len(wanted) <= LAYOUT_AXES:
        for order in permutations(range(len(wanted))):
            turned = long.transpose(order)
            if turned.shape == wanted:
                yield turned.reshape(shape)


def _annotate(after: Drawing, placed: Placement, errors: Mapping[Value, float], stored: Mapping[Op, int]) -> None:
    """Adds unit, cost and error to the nodes of the package's drawing."""
    chip = placed.chip
    for op, index in after.number.items():
        facts = after.nodes[index].facts
        unit = placed.unit[op]
        facts["unit"] = unit
        costs = {u: hardware.cost(op, u, chip) for u in hardware.UNITS if u != "ane" or op not in placed.refused}
        facts["ms"] = round(placed.ms[op], 6)
        facts["estimated"] = ", ".join(f"{UNIT_TITLES[u]} {1e3 * c.ms:.3g} µs" for u, c in costs.items())
        facts["memory"] = megabytes(costs[unit].memory)
        if stored[op]:
            facts["bytes"] = stored[op]
        if unit != placed.wanted:
            why = placement.why(op, placed)
            facts["stays off"] = why["reason"]
            facts["to bring it on"] = why["remedy"]
        found = [errors[r] for r in op.results if r in errors]
        if found:
            facts["error"] = max(found)


def _parts(placed: Placement) -> list[dict[str, Any]]:
    """The segments: unit, operators, first and last of them, estimated time."""
    return [
        {
            "unit": s.unit,
            "ops": len(s.ops),
            "first": placement.node(s.ops[0]) or short(s.ops[0]),
            "last": placement.node(s.ops[-1]) or short(s.ops[-1]),
            "ms": round(sum(placed.ms[o] for o in s.ops), 4),
        }
        for s in placed.segments
    ]


def _hints(placed: Placement) -> list[dict[str, str]]:
    """What the ANE takes but does badly."""
    rows = []
    for op, unit in placed.unit.items():
        if unit == "ane":
            for hint in hardware.hints(op, placed.chip, 99):
                rows.append(
                    {
                        "op": short(op),
                        "node": placement.node(op),
                        "reason": hint.reason,
                        "remedy": hint.remedy,
                        "source": hint.source,
                    }
                )
    return rows[:ROWS]

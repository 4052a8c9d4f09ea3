"""Where a package departs from the model: the first operator whose value differs, and the rules that made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir import Op, TensorType, Value
from compiler.proof import Reference, compare
from compiler.proof.precision import Trial, probe

Array = np.ndarray[Any, Any]

#: A value departs when its relative L2 error, computed in f32, exceeds this.
DEPARTS = 1e-3


@dataclass(frozen=True, slots=True)
class Departure:
    """The first value found that is wrong, and what may have made it so.

    Attributes:
        value: its name in the original model.
        nodes: the source nodes of the operator that makes it.
        op: that operator's name.
        rel_l2: how far it is off.
        rules: rules that made operators between it and the values that are still right, nearest first.
    """

    value: str
    nodes: tuple[str, ...]
    op: str
    rel_l2: float
    rules: tuple[str, ...]

    def __str__(self) -> str:
        at = f" at node '{self.nodes[-1]}'" if self.nodes else ""
        made = f", made by {' < '.join(self.rules)}" if self.rules else ""
        return f"{self.op}{at} is the first to depart: value '{self.value}', rel. L2 {self.rel_l2:.2g}{made}"


def locate(trial: Trial, reference: Reference, inputs: Mapping[str, Array], index: int) -> Departure | None:
    """Compares the values that the lowered module and the original model share by name, in the module's order.

    Args:
        inputs: the set of inputs to compare on, number ``index`` of the trial's.

    Returns:
        None if no shared value departs: then the fault lies behind the lowered module, in writer, reader or meaning.
    """
    main = trial.lowered.main
    named: dict[str, Value] = {}
    for op in main.block.ops:
        if op.defn.constant is None and not op.defn.terminator:
            named.update({r.name: r for r in op.results if r.name and isinstance(r.type, TensorType)})
    named.update(zip(main.output_names, main.outputs, strict=True))
    theirs = reference.values(inputs, named)
    shared = [(name, named[name]) for name in named if name in theirs]
    mine = probe(trial, [v for _, v in shared], index)
    right: set[Value] = set()
    for (name, value), array in zip(shared, mine, strict=True):
        expected = theirs[name]
        if array.shape != expected.shape:
            continue  # another layout of the same value: nothing to compare
        error = compare(array, expected)
        if error.badness <= DEPARTS:
            right.add(value)
        elif value.op is not None:
            op = value.op
            return Departure(name, op.loc.nodes, op.name, error.badness, _rules_since(op, right))
    return None


def _rules_since(op: Op, right: set[Value]) -> tuple[str, ...]:
    """The rules that made ``op`` and its producers, back to values known to be right, nearest operator first."""
    rules: dict[str, None] = {}
    seen = {op}
    pending = [op]
    for each in pending:
        rules.update(dict.fromkeys(each.loc.rules))
        for v in each.operands:
            if v is not None and v not in right and v.op is not None and v.op not in seen:
                seen.add(v.op)
                pending.append(v.op)
    return tuple(rules)

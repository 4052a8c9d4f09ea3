"""Kernels that the user writes: each holds what its rule put between it and its inputs, and nothing else."""

from __future__ import annotations

from compiler import ir
from compiler.dialects.metal import ANCHORS
from compiler.errors import UnsupportedError
from passes.fuse_groups import Group, Plan


def take(plan: Plan, block: ir.Block) -> None:
    """Makes each ``metal.by_hand`` of a block a kernel.

    Raises:
        UnsupportedError: its operators are none, too many for one kernel, or read what is not among its inputs.
    """
    for op in list(block.ops):
        if op.name != "metal.by_hand":
            continue
        name = op.attributes["kernel"]
        value, *inputs = (v for v in op.operands if v is not None)
        inner = _between(name, value, inputs)
        anchors = [o for o in inner if o.name in ANCHORS]
        if not inner:
            raise UnsupportedError(f"kernel '{name}' computes nothing", "give metal.by_hand a value and what it is of")
        if len(anchors) > 1 or any(len(o.results) > 1 for o in inner):
            heavy = ", ".join(o.name for o in anchors)
            raise UnsupportedError(f"kernel '{name}' would hold {heavy}, more than one has", "a metal.by_hand for each")
        new: dict[ir.Value | None, ir.Value | None] = {v: v for o in inner for v in o.operands}
        copies = []
        for o in inner:  # others may use them too, where equal operators became one
            copy = ir.Op(o.defn, [new[v] for v in o.operands], [r.type for r in o.results], o.attributes, (), o.loc)
            copies.append(block.insert_before(op, copy))
            copy.result.name = o.result.name
            new[o.result] = copy.result
        root = new[value]
        assert root is not None
        root.name = op.result.name
        op.result.replace_all_uses_with(root)
        op.erase()
        by_name = {o.name: c for o, c in zip(inner, copies, strict=True)}
        plan.add(Group(by_name[anchors[0].name] if anchors else None, set(copies), [root], name))


def _between(name: str, value: ir.Value, inputs: list[ir.Value]) -> list[ir.Op]:
    """The operators that compute a value from inputs and constants, in order."""
    found: set[ir.Op] = set()
    stack = [value]
    while stack:
        v = stack.pop()
        if v in inputs or v.constant is not None or v.op in found:
            continue
        if v.op is None:
            raise UnsupportedError(
                f"kernel '{name}' reads '{v.name}', which its rule does not give it",
                "name every value that the rule matched in metal.by_hand(value, inputs …)",
            )
        found.add(v.op)
        stack += [u for u in v.op.operands if u is not None]
    return sorted(found, key=lambda o: o._order)

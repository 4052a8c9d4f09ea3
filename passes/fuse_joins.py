"""Joins: a concatenation is no work where those who make its parts write them where they will lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler import ir
from passes.fuse_groups import Group, Plan, size_of


def keep_outputs_apart(function: ir.Function) -> None:
    """Gives each output of the function a value of its own, made by an operator of the function."""
    end = function.block.terminator
    assert end is not None
    seen: set[ir.Value] = set()
    values: list[ir.Value] = []
    for v in function.outputs:
        if v in seen or v.op is None or v.constant is not None:
            v = _copied(ir.Builder(function.block, end), v)
        seen.add(v)
        values.append(v)
    end.operands = tuple(values)


def _copied(b: ir.Builder, value: ir.Value) -> ir.Value:
    """The value once more; of rows that are counted at run time, as many rows."""
    if value.op is None or value.op.name != "metal.trim":
        return b.op("metal.copy", [value]).result
    rows, count = value.op.operands
    return b.op("metal.trim", [b.op("metal.copy", [rows]).result, count]).result


def merge_adjacent_slices(op: ir.Op) -> None:
    """Parts of a concatenation that are all of one tensor, in order, become that tensor."""
    axis: int = op.attributes["axis"]
    parts = list(op.operands)
    out: list[ir.Value | None] = []
    at = 0
    while at < len(parts):
        whole, end = _covered(parts, at, axis)
        out.append(parts[at] if whole is None else whole)
        at = end
    if len(out) < len(parts):
        op.operands = tuple(out)


def _covered(parts: list[ir.Value | None], at: int, axis: int) -> tuple[ir.Value | None, int]:
    source: ir.Value | None = None
    position, end = 0, at
    while end < len(parts):
        part = parts[end]
        op = part.op if part is not None else None
        if op is None or op.name != "metal.slice" or any(s != 1 for s in op.attributes["steps"]):
            break
        x, starts = op.operands[0], op.attributes["starts"]
        assert x is not None
        assert x.shape is not None
        if source not in (None, x) or any(s != (position if i == axis else 0) for i, s in enumerate(starts)):
            break
        sizes = op.attributes["shape"]
        if any(n != sizes[i] for i, n in enumerate(x.shape) if i != axis):
            break
        source = x
        position += sizes[axis]
        end += 1
    if source is not None and source.shape is not None and position == source.shape[axis]:
        return source, end
    return None, at + 1


def join(plan: Plan, op: ir.Op, outputs: set[ir.Value], copies: bool) -> ir.Op | None:
    """Makes a concatenation a join if at most one part must be copied for it, or none where there may be no
    ``copies``; gives the first operator made."""
    parts = [_unshaped(plan, v) for v in op.operands if v is not None]
    ready = [_can_lie_elsewhere(plan, v, outputs) and parts.count(v) == 1 for v in parts]
    moved = sum(size_of(v) for v, r in zip(parts, ready, strict=True) if not r)
    if ready.count(False) > 1 and not (ready.count(False) == 2 and 4 * moved < size_of(op.result)):
        return None
    if not any(ready) or not (copies or all(ready)):
        return None
    builder = ir.Builder(op.block, op, op.loc) if op.block is not None else None
    assert builder is not None
    first: ir.Op | None = None
    for i, part in enumerate(parts):
        if not ready[i]:
            copy = builder.op("metal.copy", [op.operands[i]])
            plan.add(Group(None, {copy}, [copy.result]))
            parts[i] = copy.result
            first = first or copy
        else:
            parts[i] = part
        plan.joined.add(parts[i])
    joined = builder.op("metal.join", parts, {"axis": op.attributes["axis"]}, [op.result.type])
    op.result.replace_all_uses_with(joined.result)
    if op.result in outputs:
        outputs.remove(op.result)
        outputs.add(joined.result)
    op.erase()
    return first or joined


def _unshaped(plan: Plan, part: ir.Value) -> ir.Value:
    """What a part of a concatenation is a reshape of, whose dimensions that only joins."""
    op = part.op
    while op is not None and op.name == "metal.reshape" and op not in plan.owner:
        inner = op.operands[0]
        assert inner is not None
        if split_dimensions(inner.shape or (), part.shape or ()) is None:
            break
        part, op = inner, inner.op
    return part


def split_dimensions(fine: Sequence[Any], coarse: Sequence[Any]) -> list[list[int]] | None:
    """For each dimension of ``coarse`` the dimensions of ``fine`` that it was split into; None if it was not."""
    out: list[list[int]] = []
    at = 0
    for size in coarse:
        chosen: list[int] = []
        product = 1
        while at < len(fine) and (product < size or (fine[at] == 1 and len(fine) - at > len(coarse) - len(out) - 1)):
            chosen.append(at)
            product *= fine[at]
            at += 1
        if product != size:
            return None
        out.append(chosen)
    return out if at == len(fine) else None


def _can_lie_elsewhere(plan: Plan, value: ir.Value, outputs: set[ir.Value]) -> bool:
    """Whether a kernel stores this value, and may store it in another's buffer."""
    if value in outputs or value in plan.joined or value.op is None:
        return False
    owner = plan.owner.get(value.op)
    return (owner is not None and value in owner.roots and not owner.name) or value.op.name == "metal.concat"

"""Epilogues: from an anchor forward, what depends on one element of its result joins its kernel.

Elementwise operators and renamings of the index are taken along for as long as everything that depends on the anchor
meets in one value again: bias, activation, residual, gate. A pool behind a convolution is taken along if computing
elements again that lie in several windows costs less than storing them. Convolutions and products that were merged
(:mod:`passes.fuse_siblings`) are followed part by part, and store each part on its own.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from compiler import ir
from compiler.dialects.metal import MOVEMENT, POINTWISE
from passes.fuse_cost import pools_in_place
from passes.fuse_groups import Group, Plan

#: How many operators an epilogue may hold.
LONGEST = 48


def grown(plan: Plan, anchor: ir.Op, outputs: set[ir.Value], merged: bool) -> Group:
    """The anchor's kernel with the longest epilogue that ends in one value, or in one for each part of it.

    Args:
        merged: whether the result has parts, slices that cover it.
    """
    if len(anchor.results) != 1:
        return Group(anchor, {anchor}, list(anchor.results))
    if not merged:
        root, members = _followed(plan, anchor, anchor.result, outputs, pools=anchor.name == "metal.conv")
        return Group(anchor, {anchor, *members}, [root])
    members = {anchor}
    roots = []
    for part in list(anchor.result.users):
        root, more = _followed(plan, anchor, part.result, outputs, early=True)
        members |= {part, *more}
        roots.append(root)
    return Group(anchor, members, roots)


def _followed(
    plan: Plan, anchor: ir.Op, start: ir.Value, outputs: set[ir.Value], pools: bool = False, early: bool = False
) -> tuple[ir.Value, set[ir.Op]]:
    """The last value in which all meets that depends on ``start``, and the operators up to there.

    A value's ``view`` tells apart what stands at one index of the start: a transpose, a reshape or a pool starts a new
    one, and two views of the same tensor do not meet in a function of one element.

    Args:
        pools: whether a pool may be among the operators.
        early: whether all else that they read must be there before the anchor.
    """
    best, root = set[ir.Op](), start
    members: set[ir.Op] = set()
    view: dict[ir.Value, int] = {start: 0}
    waiting: list[tuple[int, int, ir.Op]] = []
    seen: set[ir.Op] = set()

    def wait_for(users: Iterable[ir.Op]) -> None:
        for u in users:
            if u not in seen:
                seen.add(u)
                heapq.heappush(waiting, (u._order, len(seen), u))

    wait_for(start.users)
    while waiting and len(members) < LONGEST:
        op = heapq.heappop(waiting)[2]
        pooled = pools and op.name == "metal.pool" and not any(m.name in MOVEMENT for m in members)
        if (
            op in plan.owner
            or not (_follows(op, view) or (pooled and pools_in_place(anchor, op)))
            or (early and not all(v in view or _is_early(v, anchor) for v in op.operands))
            or any(v in outputs for v in view if v is not root and v in op.operands)
        ):
            break
        members.add(op)
        view[op.result] = view[next(v for v in op.operands if v in view)]
        if op.name in MOVEMENT or op.name == "metal.pool":
            view[op.result] = len(members)
            pools = False
        wait_for(op.result.users)
        if all(v is op.result or (v not in outputs and all(u in members for u in v.users)) for v in view):
            best, root = set(members), op.result
    return root, best


def _follows(op: ir.Op, view: dict[ir.Value, int]) -> bool:
    """Whether each element of the result depends on one element of the anchor's, and each of those is used."""
    if op.name in ("metal.reshape", "metal.transpose"):
        return True
    if op.name not in POINTWISE:
        return False
    chain = [v for v in op.operands if v in view]
    return len({view[v] for v in chain}) == 1 and all(v is not None and v.shape == op.result.shape for v in chain)


def _is_early(value: ir.Value | None, anchor: ir.Op) -> bool:
    return value is None or value.op is None or value.constant is not None or value.op.comes_before(anchor)

"""Kernels from metal.* operators: what touches the data anyway takes its neighbours' arithmetic along.

Four decisions, in this order, once kernels that the user writes (:mod:`passes.fuse_by_hand`) are set apart:

1. **Siblings** (:mod:`passes.fuse_siblings`). What reads one tensor in the same way becomes one operator.
2. **Epilogues** (:mod:`passes.fuse_epilogues`). From each anchor (convolution, product, reduction …) forward,
   elementwise operators join its kernel.
3. **Joins** (:mod:`passes.fuse_joins`). A concatenation is no work if those who make its parts write them where they
   will lie.
4. **Prologues**. From the last operator to the first, what is left is computed where it is read, if all its readers
   can do that (:mod:`passes.fuse_cost`): a movement always, arithmetic if it has one reader and is not repeated too
   often. The rest becomes a kernel of its own, or an operator's readers' common operand.
"""

from __future__ import annotations

from compiler import ir
from compiler.dialects.metal import ANCHORS, MOVEMENT, POINTWISE
from passes import fuse_by_hand as by_hand
from passes.fuse_cost import affordable, only_renames
from passes.fuse_epilogues import grown
from passes.fuse_groups import Group, Plan, size_of
from passes.fuse_joins import join, keep_outputs_apart, merge_adjacent_slices
from passes.fuse_siblings import merge

#: How many buffers a kernel may have (Metal has 31 bindings).
BUFFERS = 24

#: A concatenation of at most this many parts may be read part by part, without being made.
PARTS_READ_IN_PLACE = 4


def run(module: ir.Module) -> int:
    """Replaces the metal.* operators of the main function by ``metal.kernel`` and ``metal.join``.

    Returns:
        How many kernels there are.
    """
    block = module.main.block
    plan = Plan()
    keep_outputs_apart(module.main)
    for op in list(block.ops):
        if op.name == "metal.concat":
            merge_adjacent_slices(op)
    _drop_dead(block)
    by_hand.take(plan, block)
    merged = merge(block, plan.owner)
    for op in reversed(list(block.ops)):
        if op.defn.constant is not None and block.first is not None and op is not block.first:
            block.insert_before(block.first, block.remove(op))
    outputs = set(module.main.outputs)
    for op in block.ops:
        if op.name in ANCHORS and op not in plan.owner:
            plan.add(grown(plan, op, outputs, op in merged))
    at: ir.Op | None = block.last
    while at is not None:
        before = at.prev
        if at.name == "metal.pool":
            _pool_where_it_is_read(plan, at, outputs)
        elif (at.name in POINTWISE or at.name in MOVEMENT) and at not in plan.owner:
            before = _place(plan, at, outputs) or before
        at = before
    _build(block, plan)
    return len(plan.groups)


def _pool_where_it_is_read(plan: Plan, op: ir.Op, outputs: set[ir.Value]) -> None:
    """Takes a pool's kernel back if its reader may as well compute it."""
    group = plan.owner[op]
    if group.name or group.members != {op} or op.result in outputs:
        return
    readers = plan.readers(op)
    if readers is not None and len(readers) == 1 and _all_afford(op, readers):
        plan.dissolve(group)
        plan.inlined[op] = readers


def _all_afford(op: ir.Op, readers: dict[Group, set[int]]) -> bool:
    return all(affordable(op, group, place) for group, places in readers.items() for place in places)


def _place(plan: Plan, op: ir.Op, outputs: set[ir.Value]) -> ir.Op | None:
    """Decides where an operator is computed, whose users have been decided. Gives where to go on if that changed."""
    readers = plan.readers(op)
    stored = op.result in outputs or readers is None
    if op.name == "metal.concat":
        in_place = not stored and len(op.operands) <= PARTS_READ_IN_PLACE and len(readers or ()) == 1
        # Best of all is no work, then no trip through memory.
        went = join(plan, op, outputs, copies=not (in_place and _all_afford(op, readers or {})))
        if went is not None:
            return went.prev if went.prev is not None else went
        stored = stored or not in_place or not _all_afford(op, readers or {})
    if not stored:
        assert readers is not None
        free = op.name in MOVEMENT or size_of(op.result) <= 1
        stored = not free and len(readers) > 1
        if op.name != "metal.concat" and not only_renames(op) and size_of(op.result) > 1:
            stored = stored or not _all_afford(op, readers)
        for group in readers:
            stored = stored or len(plan.region(group)[1]) + len(op.operands) > BUFFERS
    if stored:
        plan.add(Group(None, {op}, [op.result]))
    else:
        assert readers is not None
        plan.inlined[op] = readers
    return None


def _build(block: ir.Block, plan: Plan) -> None:
    for group in sorted(plan.groups, key=lambda g: g.last._order):
        ops, outside = plan.region(group)
        region = ir.Block([v.type for v in outside], [v.name for v in outside])
        new: dict[ir.Value | None, ir.Value | None] = {None: None}
        new.update(zip(outside, region.arguments, strict=True))
        for op in ops:
            copy = ir.Op(
                op.defn, [new[v] for v in op.operands], [r.type for r in op.results], op.attributes, (), op.loc
            )
            region.append(copy)
            for old, made in zip(op.results, copy.results, strict=True):
                made.name = old.name
                new[old] = made
        region.append(ir.Op("ir.return", [new[r] for r in group.roots]))
        kind = group.anchor.name.removeprefix("metal.") if group.anchor is not None else "map"
        loc = ir.Location.fuse((op.loc for op in ops if op.loc.nodes), "fuse_regions")
        how = {"kind": kind, "name": group.name}
        kernel = ir.Op("metal.kernel", outside, [r.type for r in group.roots], how, [region], loc)
        block.insert_before(group.last, kernel)
        for root, stored in zip(group.roots, kernel.results, strict=True):
            stored.name = root.name
            root.replace_all_uses_with(stored)
    _drop_dead(block)


def _drop_dead(block: ir.Block) -> None:
    op = block.last
    while op is not None:
        before = op.prev
        if op.is_unused and not op.defn.terminator:
            op.erase()
        op = before

"""Kernels from metal.* operators: what touches the data anyway takes its neighbours' arithmetic along.

Three decisions, in this order:

1. **Epilogues.** From each anchor (convolution, product, reduction …) forward, elementwise operators and renamings of
   the index join its kernel for as long as everything that depends on the anchor meets in one value again: bias,
   activation, residual, gate.
2. **Joins.** A concatenation is no work if those who make its parts write them where they will lie.
3. **Prologues.** From the last operator to the first, what is left is computed where it is read, if all its readers
   can do that: a movement always, arithmetic if it has one reader and is not repeated too often. The rest becomes a
   kernel of its own, or an operator's readers' common operand.

How often an operand's element is read (:func:`reads`) and what an operator costs (:func:`cost`) are all that is known
about operators here; their roles come from the dialect.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from compiler import ir
from compiler.dialects.metal import ANCHORS, MOVEMENT, POINTWISE

#: Arithmetic may be repeated up to this many operations for each element before it is better done once and stored.
REPEATED = 16

#: In front of a convolution it is worth it for as long as it takes less time than the trip through memory that it
#: spares: operations that a GPU does while it moves a byte (an A15: 1.6 Tflops by 34 GB/s), or while it starts a
#: kernel.
PER_BYTE = 48
PER_KERNEL = 3_000_000

#: How many multiplications a thread of a convolution makes with an element that it has loaded.
PER_LOAD = 4

#: How many operators an epilogue may hold, and how many buffers a kernel may have (Metal has 31 bindings).
LONGEST = 48
BUFFERS = 24

#: A concatenation of at most this many parts may be read part by part, without being made.
PARTS_READ_IN_PLACE = 4

_EXPENSIVE = frozenset(
    f"metal.{n}" for n in ("exp", "log", "pow", "erf", "tanh", "sin", "cos", "tan", "asin", "acos", "atan", "sinh",
                           "cosh", "asinh", "acosh", "atanh", "remainder", "floor_mod")
)  # fmt: skip


_RENAMES = frozenset(
    f"metal.{n}" for n in ("reshape", "transpose", "broadcast", "slice", "pad", "strided", "dequantize")
)


@dataclass(eq=False)
class Group:
    """A kernel to be: its anchor, if it has one, the operators it holds, and the values that it stores."""

    anchor: ir.Op | None
    members: set[ir.Op]
    roots: list[ir.Value]

    @property
    def last(self) -> ir.Op:
        assert self.roots[0].op is not None
        return self.roots[0].op


@dataclass
class _Plan:
    groups: list[Group] = field(default_factory=list)
    owner: dict[ir.Op, Group] = field(default_factory=dict)
    #: Where an operator is computed in place of being stored: the kernels, and whether in front of the anchor.
    inlined: dict[ir.Op, dict[Group, set[int]]] = field(default_factory=dict)
    joined: set[ir.Value] = field(default_factory=set)


#: The place of an operand that does not feed the anchor but stands beside its result.
SIDE = -1


def run(module: ir.Module) -> int:
    """Replaces the metal.* operators of the main function by ``metal.kernel`` and ``metal.join``.

    Returns:
        How many kernels there are.
    """
    block = module.main.block
    plan = _Plan()
    _keep_outputs_apart(module.main)
    for op in list(block.ops):
        if op.name == "metal.concat":
            _merge_adjacent_slices(op)
    _drop_dead(block)
    outputs = set(module.main.outputs)
    for op in block.ops:
        if op.name in ANCHORS:
            _add(plan, _grown(plan, op, outputs))
    at: ir.Op | None = block.last
    while at is not None:
        before = at.prev
        if (at.name in POINTWISE or at.name in MOVEMENT) and at not in plan.owner:
            before = _place(plan, at, outputs) or before
        at = before
    _build(block, plan)
    return len(plan.groups)


def cost(op: ir.Op) -> int:
    """Operations for one element of the result, a transcendental function counting as eight."""
    if op.name in MOVEMENT:
        return 1 if op.name.startswith("metal.gather") else len(op.operands) - 1
    return 8 if op.name in _EXPENSIVE else 1


def reads(group: Group, place: int, value: ir.Value) -> float:
    """How often a kernel reads each element of ``value``, which feeds operand ``place`` of its anchor."""
    size = max(1, _size(value))
    anchor = group.anchor
    if anchor is None or place == SIDE:
        return max(1.0, _size(group.roots[0]) / size)
    operand = anchor.operands[place]
    assert operand is not None
    repeated = _size(operand) / size
    result = anchor.results[0].shape or ()
    match anchor.name:
        case "metal.reduce" | "metal.arg_reduce" | "metal.scan":
            again = 1.0
        case "metal.softmax" | "metal.normalize":
            again = 2.0
        case "metal.matmul" if place == 0:
            again = max(1.0, int(result[-1]) / 32)
        case "metal.matmul":
            again = max(1.0, int(result[-2]) / 32)
        case "metal.pool":
            again = math.prod(anchor.attributes["kernel"]) / math.prod(anchor.attributes["strides"])
        case "metal.resize":
            again = 4.0
        case _:
            again = math.inf
    return repeated * again


def _size(value: ir.Value) -> int:
    return value.type.size or 0 if isinstance(value.type, ir.TensorType) else 0


def _add(plan: _Plan, group: Group) -> None:
    plan.groups.append(group)
    for op in group.members:
        plan.owner[op] = group


# ---- epilogues


def _grown(plan: _Plan, anchor: ir.Op, outputs: set[ir.Value]) -> Group:
    """The anchor's kernel with the longest epilogue that ends in one value.

    A value's ``view`` tells apart what stands at one index of the anchor: a transpose or a reshape starts a new one,
    and two views of the same tensor do not meet in a function of one element.
    """
    best = Group(anchor, {anchor}, list(anchor.results))
    if len(anchor.results) != 1:
        return best
    members = {anchor}
    view: dict[ir.Value, int] = {anchor.result: 0}
    waiting: list[tuple[int, int, ir.Op]] = []
    seen: set[ir.Op] = set()

    def wait_for(users: Iterable[ir.Op]) -> None:
        for u in users:
            if u not in seen:
                seen.add(u)
                heapq.heappush(waiting, (u._order, len(seen), u))

    wait_for(anchor.result.users)
    while waiting and len(members) < LONGEST:
        op = heapq.heappop(waiting)[2]
        if (
            op in plan.owner
            or not _follows(op, view)
            or any(v in outputs for v in view if v is not best.roots[0] and v in op.operands)
        ):
            break
        members.add(op)
        view[op.result] = view[next(v for v in op.operands if v in view)]
        if op.name in MOVEMENT:
            view[op.result] = len(members)
        wait_for(op.result.users)
        if all(v is op.result or (v not in outputs and all(u in members for u in v.users)) for v in view):
            best = Group(anchor, set(members), [op.result])
    return best


def _follows(op: ir.Op, view: dict[ir.Value, int]) -> bool:
    """Whether each element of the result depends on one element of the anchor's, and each of those is used."""
    if op.name in ("metal.reshape", "metal.transpose"):
        return True
    if op.name not in POINTWISE:
        return False
    chain = [v for v in op.operands if v in view]
    return len({view[v] for v in chain}) == 1 and all(v is not None and v.shape == op.result.shape for v in chain)


# ---- joins


def _keep_outputs_apart(function: ir.Function) -> None:
    """Gives each output of the function a value of its own, made by an operator of the function."""
    end = function.block.terminator
    assert end is not None
    seen: set[ir.Value] = set()
    values: list[ir.Value] = []
    for v in function.outputs:
        if v in seen or v.op is None or v.constant is not None:
            v = ir.Builder(function.block, end).op("metal.copy", [v]).result
        seen.add(v)
        values.append(v)
    end.operands = tuple(values)


def _merge_adjacent_slices(op: ir.Op) -> None:
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


def _join(plan: _Plan, op: ir.Op, outputs: set[ir.Value]) -> ir.Op | None:
    """Makes a concatenation a join if at most one part must be copied for it; gives the first copy made."""
    parts = [_unshaped(plan, v) for v in op.operands if v is not None]
    ready = [_can_lie_elsewhere(plan, v, outputs) and parts.count(v) == 1 for v in parts]
    moved = sum(_size(v) for v, r in zip(parts, ready, strict=True) if not r)
    if ready.count(False) > 1 and not (ready.count(False) == 2 and 4 * moved < _size(op.result)):
        return None
    if not any(ready):
        return None
    builder = ir.Builder(op.block, op, op.loc) if op.block is not None else None
    assert builder is not None
    first: ir.Op | None = None
    for i, part in enumerate(parts):
        if not ready[i]:
            copy = builder.op("metal.copy", [op.operands[i]])
            _add(plan, Group(None, {copy}, [copy.result]))
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


def _unshaped(plan: _Plan, part: ir.Value) -> ir.Value:
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


def _can_lie_elsewhere(plan: _Plan, value: ir.Value, outputs: set[ir.Value]) -> bool:
    """Whether a kernel stores this value, and may store it in another's buffer."""
    if value in outputs or value in plan.joined or value.op is None:
        return False
    owner = plan.owner.get(value.op)
    return (owner is not None and value in owner.roots) or value.op.name == "metal.concat"


# ---- prologues


def _place(plan: _Plan, op: ir.Op, outputs: set[ir.Value]) -> ir.Op | None:
    """Decides where an operator is computed, whose users have been decided. Gives where to go on if that changed."""
    readers = _readers(plan, op)
    stored = op.result in outputs or readers is None
    if op.name == "metal.concat":
        in_place = not stored and len(op.operands) <= PARTS_READ_IN_PLACE and len(readers or ()) == 1
        in_place = in_place and all(_affordable(op, g, p) for g, places in (readers or {}).items() for p in places)
        if not in_place:
            went = _join(plan, op, outputs)
            if went is not None:
                return went.prev if went.prev is not None else went
            stored = True
    if not stored:
        assert readers is not None
        free = op.name in MOVEMENT or _size(op.result) <= 1
        stored = not free and len(readers) > 1
        for group, places in readers.items():
            for place in places:
                stored = stored or not (_only_renames(op) or _size(op.result) <= 1 or _affordable(op, group, place))
            stored = stored or len(_operands(plan, group)) + len(op.operands) > BUFFERS
    if stored:
        _add(plan, Group(None, {op}, [op.result]))
    else:
        assert readers is not None
        plan.inlined[op] = readers
    return None


def _affordable(op: ir.Op, group: Group, place: int) -> bool:
    """Whether an operator may be computed anew at each of a kernel's reads."""
    again = reads(group, place, op.result)
    anchor = group.anchor
    if place == 0 and anchor is not None and anchor.name == "metal.conv" and op.name in POINTWISE:
        x, w = anchor.operands[:2]
        assert x is not None
        assert w is not None
        loads = _size(anchor.result) * _size(w) // (w.shape or (1,))[0] // PER_LOAD  # type: ignore[operator]
        return cost(op) * loads <= 2 * 4 * _size(op.result) * PER_BYTE + PER_KERNEL
    return cost(op) * again <= REPEATED


def _only_renames(op: ir.Op) -> bool:
    """Whether reading an element costs no more than a load; what is stored quantized is even cheaper to read so."""
    return op.name in _RENAMES


def _readers(plan: _Plan, op: ir.Op) -> dict[Group, set[int]] | None:
    """The kernels that would compute ``op`` in place, and for which operands of their anchors; None if one cannot."""
    out: dict[Group, set[int]] = {}
    for user in op.result.users:
        owner = plan.owner.get(user)
        if owner is not None and user is owner.anchor:
            places = {i for i, v in enumerate(user.operands) if v is op.result}
            out.setdefault(owner, set()).update(places)
        elif owner is not None:
            out.setdefault(owner, set()).add(SIDE)
        elif user in plan.inlined:
            for group, places in plan.inlined[user].items():
                out.setdefault(group, set()).update(places)
        else:
            return None
    return out


def _operands(plan: _Plan, group: Group) -> list[ir.Value]:
    """The values that a kernel reads from outside, as decided so far."""
    return _region(plan, group)[1]


# ---- building


def _region(plan: _Plan, group: Group) -> tuple[list[ir.Op], list[ir.Value]]:
    """The operators of a kernel in order, and the values from outside, in the order of their first use."""
    ops: dict[ir.Op, None] = {}
    outside: dict[ir.Value, None] = {}
    stack: list[tuple[ir.Op, bool]] = [(group.last, False)]
    while stack:
        op, visited = stack.pop()
        if visited:
            ops[op] = None
            continue
        if op in ops:
            continue
        stack.append((op, True))
        for v in reversed(op.operands):
            if v is not None and v.op is not None and _inside(plan, group, v):
                stack.append((v.op, False))
    for op in ops:
        for v in op.operands:
            if v is not None and not (v.op is not None and v.op in ops):
                outside[v] = None
    return list(ops), list(outside)


def _inside(plan: _Plan, group: Group, value: ir.Value) -> bool:
    op = value.op
    if op is None:
        return False
    if op in group.members or group in plan.inlined.get(op, ()):
        return True
    constant = value.constant
    return constant is not None and constant.size == 1


def _build(block: ir.Block, plan: _Plan) -> None:
    for group in sorted(plan.groups, key=lambda g: g.last._order):
        ops, outside = _region(plan, group)
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
        kernel = ir.Op("metal.kernel", outside, [r.type for r in group.roots], {"kind": kind}, [region], loc)
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

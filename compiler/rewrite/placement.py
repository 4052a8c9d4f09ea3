"""Where what a rule builds can stand: behind all that it uses, before all that use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from compiler.ir import Op, Value

#: Operators that lie between a rule's first root and an operand defined behind it are moved up, at most this many.
_MOST_HOISTED = 64


def place(roots: list[Op], matched: Sequence[Op]) -> Op | None:
    """The operator before which the result goes: behind all that the match uses, before all users of its results.

    With several roots that may need operators between them to move up; None if that cannot be.
    """
    if len(roots) == 1:
        return roots[0]
    first = min(roots, key=lambda r: r._order)
    last = max(roots, key=lambda r: r._order)
    if all(_after(u, last) for r in roots if r is not last for v in r.results for u in v.users):
        return last
    inside = set(matched)
    to_move: list[Op] = []
    for op in matched:
        for v in op.operands:
            if v is None:
                continue
            if v.op in roots:  # one result feeds another, so that the new ones would feed themselves
                return None
            if v.op not in inside and not _collect(v.op, first, inside, to_move):
                return None
    assert first.block is not None
    for op in to_move:
        first.block.remove(op)
        first.block.insert_before(first, op)
    return first


def reaches_users(pairs: Sequence[tuple[Value, Any]], roots: Sequence[Op], before: Op, matched: Sequence[Op]) -> bool:
    """Whether what stands for results inside the match comes before all that goes on using them."""
    for old, _ in pairs:
        if old.op in roots:
            continue
        for user in old.users:
            stays = user not in matched or any(u not in matched for r in user.results for u in r.users)
            if user not in roots and stays and not _after(user, before):
                return False
    return True


def _after(user: Op, op: Op) -> bool:
    """Whether ``user``, or the operator of ``op``'s block that holds it, comes after ``op``."""
    at: Op | None = user
    while at is not None and at.block is not op.block:
        at = at.parent
    return at is not None and (op.comes_before(at))


def _collect(op: Op | None, first: Op, inside: set[Op], to_move: list[Op]) -> bool:
    """Lists the operators, operands first, that must move before ``first`` for ``op`` to be usable there."""
    if op is None or op.block is not first.block or op.comes_before(first) or op in to_move:
        return True
    if op in inside or op.regions or not op.defn.pure or len(to_move) >= _MOST_HOISTED:
        return False
    if not all(_collect(v.op, first, inside, to_move) for v in op.operands if v is not None):
        return False
    to_move.append(op)
    return True

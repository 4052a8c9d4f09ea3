"""When a two-unit placement needs no cut: bounds that prove the labelling of a whole stretch of operators at once.

Most programs are placed by these, which spares a compile the import of a graph library and the cut itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

Node = TypeVar("Node")


@dataclass(frozen=True, slots=True)
class Flow(Generic[Node]):
    """A value between operators that may be placed freely.

    Attributes:
        home: who makes it; None if that is the host or an operator that cannot move.
        users: who needs it.
        fixed: whether the host, or an operator that cannot move, makes or needs it.
        charge: what it costs if it is needed on another unit than the one that makes it.
    """

    home: Node | None
    users: tuple[Node, ...]
    fixed: bool
    charge: float

    @property
    def ends(self) -> tuple[Node, ...]:
        return tuple(dict.fromkeys(self.users if self.home is None else (self.home, *self.users)))


Stretch = tuple[list[Node], list[Flow[Node]]]


def stretches(ops: Sequence[Node], flows: Sequence[Flow[Node]]) -> list[Stretch[Node]]:
    """The operators in groups that hang together through values, each with the values that touch it."""
    touching: dict[Node, list[int]] = {n: [] for n in ops}
    for i, flow in enumerate(flows):
        for end in flow.ends:
            if end in touching:
                touching[end].append(i)
    found: list[Stretch[Node]] = []
    seen: set[Node] = set()
    taken: set[int] = set()
    for start in ops:
        if start in seen:
            continue
        seen.add(start)
        group, values, stack = [], [], [start]
        while stack:
            op = stack.pop()
            group.append(op)
            for i in touching[op]:
                if i not in taken:
                    taken.add(i)
                    values.append(flows[i])
                    near = [e for e in flows[i].ends if e in touching and e not in seen]
                    stack += near
                    seen.update(near)
        found.append((group, values))
    return found


def settle(
    ops: Sequence[Node], flows: Sequence[Flow[Node]], gain: Mapping[Node, float]
) -> tuple[list[Node], list[Stretch[Node]]]:
    """What the cheapest labelling of a stretch moves, as far as bounds prove it.

    Let a labelling move the operators Y of the stretch K, and leave X = K - Y. If Y is not empty, data must get into it
    and out of it: it pays at least twice the least charge. So nothing moves if all gains together are no more than
    that. Otherwise, if anything moves, X holds no operator whose gain is at least what leaving X can save in all: the
    charges at the outer edge of K, less those that Y pays, and gains below zero. The other, small operators fall into
    parts that share no value, so that each is a problem of its own. A part moves if what leaving some of it could save
    is no more than the least charge of a value between that and Y. There is such a value where K hangs together by
    values that nothing fixed touches, since those do not cross yet.

    Args:
        gain: how much time moving an operator saves, which may be below zero.

    Returns:
        The operators that move if any of the stretch do, and the parts that stay open, to be solved with those moved.
        Whether moving anything pays at all remains to be compared. Both are empty if nothing moves.
    """
    if not flows:
        return [], [(list(ops), [])]
    positive = sum(max(gain[n], 0.0) for n in ops)
    negative = sum(max(-gain[n], 0.0) for n in ops)
    fed, read = {u for f in flows for u in f.users}, {f.home for f in flows}
    least = min(f.charge for f in flows) * (all(n in fed for n in ops) + all(n in read for n in ops))
    if positive <= least:
        return [], []
    slack = sum(f.charge for f in flows if f.fixed) - least + negative
    small = [n for n in ops if gain[n] < slack]
    if len(small) == len(ops):
        return [], [(list(ops), list(flows))]
    joined = len(stretches(ops, [f for f in flows if not f.fixed])) == 1
    moved, open_ = set(ops).difference(small), []
    for part, values in stretches(small, flows):
        new = [f.charge for f in values if not f.fixed and len(f.ends) > 1]
        saved = sum(f.charge for f in values if f.fixed) + sum(max(-gain[n], 0.0) for n in part)
        if joined and new and saved <= min(new):
            moved.update(part)
        else:
            open_.append((part, values))
    return [n for n in ops if n in moved], open_

"""Factors of dimensions, and the arrangements in which a tensor's elements can lie in memory.

``transpose``, ``reshape``, ``expand_dims`` and ``squeeze`` compute nothing: what goes in and what comes out is one
tensor whose elements are numbered by the same factors of its dimensions, in another order and otherwise grouped.
(1, 65, 96) seen as (1, 65, 4, 24) and as (1, 4, 65, 24) has the factors 65, 4 and 24. An *arrangement* is a tuple of
groups of factors, a group for each dimension, the major factor first; a group without factors is a dimension of size 1.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

Group = tuple["Factor", ...]
Arrangement = tuple[Group, ...]


class Factor:
    """A factor of a dimension. It may turn out to be a product itself; then ``parts`` holds a major and a minor one."""

    __slots__ = ("parts", "size", "ties")

    def __init__(self, size: int) -> None:
        self.size = size
        self.parts: tuple[Factor, Factor] | None = None
        self.ties: list[Tie] = []

    def split(self, major: int, changed: list[Tie]) -> None:
        """Makes it the product of ``major`` and the rest. Ties that it belongs to are added to ``changed``."""
        self.parts = (Factor(major), Factor(self.size // major))
        for part in self.parts:
            part.ties = list(self.ties)
        changed.extend(self.ties)

    def __repr__(self) -> str:
        return f"Factor({self.size})"


class Tie:
    """Two dimensions that an operator walks through together: they must have factors of the same sizes."""

    __slots__ = ("broken", "left", "right")

    def __init__(self, left: Sequence[Factor], right: Sequence[Factor]) -> None:
        self.left, self.right = tuple(left), tuple(right)
        self.broken = False
        for factor in (*leaves(left), *leaves(right)):
            factor.ties.append(self)


def dimension(size: int) -> tuple[Factor, ...]:
    """The factors of a dimension of which nothing more is known: itself, or none if it is of size 1."""
    return () if size == 1 else (Factor(size),)


def leaves(factors: Iterable[Factor]) -> Group:
    """The factors that are products of no others, the major first."""
    whole = tuple(factors)
    for f in whole:
        if f.parts is not None:
            break
    else:
        return whole
    out: list[Factor] = []
    stack = list(whole)[::-1]
    while stack:
        f = stack.pop()
        if f.parts is None:
            out.append(f)
        else:
            stack.extend(f.parts[::-1])
    return tuple(out)


def regroup(factors: Sequence[Factor], shape: Sequence[int], changed: list[Tie]) -> list[tuple[Factor, ...]] | None:
    """The factors grouped anew into dimensions of these sizes, split where that is needed; None if they do not fit."""
    rest = list(leaves(factors))[::-1]
    out: list[tuple[Factor, ...]] = []
    for size in shape:
        group: list[Factor] = []
        need = size
        while need > 1:
            if not rest:
                return None
            f = rest.pop()
            if need % f.size == 0:
                group.append(f)
                need //= f.size
            elif f.size % need == 0:
                f.split(need, changed)
                assert f.parts is not None
                group.append(f.parts[0])
                rest.append(f.parts[1])
                need = 1
            else:
                return None
        out.append(tuple(group))
    return out if not rest else None


def settle(pending: list[Tie]) -> None:
    """Splits factors until both sides of every tie have the same ones; a tie for which that cannot be is broken."""
    while pending:
        tie = pending.pop()
        if tie.broken:
            continue
        left, right = list(leaves(tie.left))[::-1], list(leaves(tie.right))[::-1]
        while left and right:
            a, b = left.pop(), right.pop()
            if a.size == b.size:
                continue
            large, small, stack = (a, b, left) if a.size > b.size else (b, a, right)
            if large.size % small.size:
                tie.broken = True
                break
            large.split(small.size, pending)
            assert large.parts is not None
            stack.append(large.parts[1])
        else:
            tie.broken = tie.broken or bool(left or right)


def shape_of(arrangement: Arrangement) -> tuple[int, ...]:
    """The shape of a tensor that lies so."""
    return tuple(math.prod(f.size for f in group) for group in arrangement)


def order(arrangement: Arrangement) -> Group:
    """The factors from the slowest to the fastest."""
    return tuple(f for group in arrangement for f in group)


def moves(have: Arrangement, want: Arrangement) -> list[tuple[str, tuple[int, ...]]]:
    """How a tensor that lies as ``have`` comes to lie as ``want``: ``("reshape", shape)`` and ``("transpose", perm)``.

    No step has more than five axes, the most that Core ML's tensors have.
    """
    if have == want:
        return []
    source, target = order(have), order(want)
    perm: tuple[int, ...] | None
    if source == target:
        return [("reshape", shape_of(want))] if shape_of(have) != shape_of(want) else []
    perm = _single_transpose(have, want)
    if perm is not None:
        return [("transpose", perm)]
    runs = _runs(source, target)
    if len(runs) > 5:
        return _one_by_one(have, want)
    place = {run[0]: i for i, run in enumerate(runs)}
    turned = [place[f] for f in target if f in place]
    sizes = [math.prod(f.size for f in run) for run in runs]
    # Where the source has one run to a dimension, it is turned as it is, its single dimensions in front.
    if [g for g in have if g] == runs:
        where = [i for i, g in enumerate(have) if g]
        perm = (*[i for i, g in enumerate(have) if not g], *[where[t] for t in turned])
        shape = tuple(shape_of(have)[i] for i in perm)
        steps = [("transpose", perm)]
        return steps if shape == shape_of(want) else [*steps, ("reshape", shape_of(want))]
    # Where the target has, it is taken apart with the target's single dimensions in front.
    if [g for g in want if g] == [runs[t] for t in turned] and len(want) <= 5:
        singles = sum(not g for g in want)
        apart = (1,) * singles + tuple(sizes)
        numbers, ones = iter(turned), iter(range(singles))
        perm = tuple(singles + next(numbers) if g else next(ones) for g in want)
        return [("reshape", apart), ("transpose", perm)]
    out: list[tuple[str, tuple[int, ...]]] = []
    if tuple(sizes) != shape_of(have):
        out.append(("reshape", tuple(sizes)))
    out.append(("transpose", tuple(turned)))
    if tuple(sizes[i] for i in turned) != shape_of(want):
        out.append(("reshape", shape_of(want)))
    return out


def _single_transpose(have: Arrangement, want: Arrangement) -> tuple[int, ...] | None:
    """The permutation that does it all: both have the same groups, single dimensions among them."""
    if len(have) != len(want):
        return None
    singles = [i for i, g in enumerate(have) if not g]
    where = {g: i for i, g in enumerate(have) if g}
    perm = []
    for group in want:
        if group:
            if group not in where:
                return None
            perm.append(where[group])
        else:
            if not singles:
                return None
            perm.append(singles.pop(0))
    return tuple(perm)


def _runs(source: Group, target: Group) -> list[Group]:
    """The longest stretches of the source that stay together in the target, in the order of the source."""
    follows = dict(itertools.pairwise(target))
    out: list[list[Factor]] = []
    for f in source:
        if out and follows.get(out[-1][-1]) is f:
            out[-1].append(f)
        else:
            out.append([f])
    return [tuple(r) for r in out]


def _one_by_one(have: Arrangement, want: Arrangement) -> list[tuple[str, tuple[int, ...]]]:
    """Run after run is brought to its place; four axes suffice: what is in place, what is passed, it, the rest."""
    out: list[tuple[str, tuple[int, ...]]] = []
    now, target = list(order(have)), order(want)
    shape = shape_of(have)
    i = 0
    while i < len(target):
        if now[i] is target[i]:
            i += 1
            continue
        j = now.index(target[i])
        k = j
        while k < len(now) and i + (k - j) < len(target) and now[k] is target[i + (k - j)]:
            k += 1
        parts = now[:i], now[i:j], now[j:k], now[k:]
        four = tuple(math.prod(f.size for f in p) for p in parts)
        if four != shape:
            out.append(("reshape", four))
        out.append(("transpose", (0, 2, 1, 3)))
        shape = (four[0], four[2], four[1], four[3])
        now = [*parts[0], *parts[2], *parts[1], *parts[3]]
        i += k - j
    if shape != shape_of(want):
        out.append(("reshape", shape_of(want)))
    return out

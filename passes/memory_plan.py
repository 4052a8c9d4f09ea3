"""Where buffers lie in one heap: those that are never alive together may share memory.

Greedy by size, largest first, each at the lowest offset that is free while it lives (Pisarchyk and Lee, "Efficient
memory management for deep neural net inference", 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Offsets are multiples of this many bytes, as Metal asks of buffer offsets on every family.
ALIGNMENT = 256


#: How often placing is tried anew, for at most how many buffers, and when it is good enough.
TRIES = 120
MANY = 400
ENOUGH = 1.02


@dataclass(frozen=True, slots=True)
class Span:
    """A buffer of ``size`` bytes that lives from step ``first`` to step ``last``, both included."""

    size: int
    first: int
    last: int

    @property
    def padded(self) -> int:
        return -(-self.size // ALIGNMENT) * ALIGNMENT

    def meets(self, other: Span) -> bool:
        return self.first <= other.last and other.first <= self.last


def lower_bound(spans: Sequence[Span]) -> int:
    """The most bytes that are alive at one step: no heap is smaller."""
    changes: dict[int, int] = {}
    for s in spans:
        changes[s.first] = changes.get(s.first, 0) + s.padded
        changes[s.last + 1] = changes.get(s.last + 1, 0) - s.padded
    alive = most = 0
    for step in sorted(changes):
        alive += changes[step]
        most = max(most, alive)
    return most


def pack(spans: Sequence[Span]) -> tuple[list[int], int]:
    """Offsets in bytes, in the order of ``spans``, and the size of the heap: the best of some orders of placing."""
    orders = (
        lambda i: (-spans[i].padded, spans[i].first),
        lambda i: (-spans[i].padded * (spans[i].last - spans[i].first + 1), i),
        lambda i: (spans[i].first, -spans[i].padded),
    )
    tried = [sorted(range(len(spans)), key=key) for key in orders]
    best, order = min(((_placed(spans, o), o) for o in tried), key=lambda found: found[0][1])
    least = lower_bound(spans)
    # What ends up on top goes first at the next try (Joslin and Clements, "Squeaky wheel optimization", 1999).
    for _ in range(TRIES if len(spans) <= MANY else 0):
        if best[1] <= least * ENOUGH:
            break
        offsets, top = _placed(spans, order)
        if top < best[1]:
            best = offsets, top
        high = [i for i in order if offsets[i] + spans[i].padded == top]
        order = [*high, *(i for i in order if i not in high)]
    return best


def _placed(spans: Sequence[Span], order: Sequence[int]) -> tuple[list[int], int]:
    offsets = [0] * len(spans)
    done: list[int] = []
    top = 0
    for i in order:
        at = 0
        for start, end in sorted((offsets[j], offsets[j] + spans[j].padded) for j in done if spans[j].meets(spans[i])):
            if start - at >= spans[i].padded:
                break
            at = max(at, end)
        offsets[i] = at
        top = max(top, at + spans[i].padded)
        done.append(i)
    return offsets, top

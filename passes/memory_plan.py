"""Where buffers lie in one heap: those that are never alive together may share memory.

Greedy by size, largest first, each at the lowest offset that is free while it lives (Pisarchyk and Lee, "Efficient
memory management for deep neural net inference", 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

#: Offsets are multiples of this many bytes, as Metal asks of buffer offsets on every family.
ALIGNMENT = 256


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
    """Offsets in bytes, in the order of ``spans``, and the size of the heap: the better of three orders of placing."""
    orders = (
        lambda i: (-spans[i].padded, spans[i].first),
        lambda i: (-spans[i].padded * (spans[i].last - spans[i].first + 1), i),
        lambda i: (spans[i].first, -spans[i].padded),
    )
    return min((_placed(spans, sorted(range(len(spans)), key=key)) for key in orders), key=lambda found: found[1])


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

"""Which channels belong together: classes that can only be removed at once, in all operators that see them.

Each channel of a value has a number; numbers that must go or stay together are joined. Where operators mix channels, as
convolutions and products of matrices do, the numbers of their inputs end and new ones begin; where they do not, numbers
pass. Numbers that reach something that needs all of them, an output or a normalization over channels, are fixed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from compiler.ir import Op, Value

Array = np.ndarray[Any, Any]

#: What a slice of a constant is to the channels: it makes them, takes them, or has a number for each.
Role = Literal["out", "in", "each"]


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels of a value: the axis along which they lie, and the number of each."""

    axis: int
    ids: Array


@dataclass(frozen=True, slots=True)
class Cut:
    """A constant operand that loses slices along ``axis`` with its channels."""

    op: Op
    operand: int
    axis: int
    ids: Array
    role: Role


def held(cut: Cut) -> Array:
    """The constant of a cut."""
    value = cut.op.operands[cut.operand]
    assert value is not None
    assert value.constant is not None
    return value.constant


#: Sets right what else of an operator tells of channels (a target shape, sizes of a split), given which are kept.
Fixup = Callable[["Keep"], None]
#: Which of these numbers are kept.
Keep = Callable[[Array], Array]


class Classes:
    """Numbers of channels, joined into classes.

    Attributes:
        cuts: the constants that change with channels.
        fixups: what else does.
        sums: operators that take all channels of their first operand together, and nothing from those that go.
        holders: operators that need all channels of what they take, and how many these are.
    """

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._fixed: list[bool] = []
        self._seen: dict[tuple[Value, int], Array] = {}
        self.cuts: list[Cut] = []
        self.fixups: list[Fixup] = []
        self.sums: list[tuple[Op, Channels]] = []
        self.holders: dict[Op, int] = {}

    def fresh(self, count: int, fixed: bool = False) -> Array:
        """New numbers, each a class of its own."""
        start = len(self._parent)
        self._parent += range(start, start + count)
        self._fixed += [fixed] * count
        return np.arange(start, start + count)

    def root(self, number: int) -> int:
        """The number that stands for the class."""
        at = number
        while self._parent[at] != at:
            self._parent[at] = self._parent[self._parent[at]]
            at = self._parent[at]
        return at

    def roots(self, ids: Array) -> Array:
        """The numbers that stand for the classes of ``ids``."""
        return np.array([self.root(int(i)) for i in ids], np.intp)

    def join(self, a: Iterable[Any], b: Iterable[Any]) -> None:
        """Makes one class of each pair."""
        for x, y in zip(a, b):
            one, other = self.root(int(x)), self.root(int(y))
            if one != other:
                self._parent[other] = one
                self._fixed[one] |= self._fixed[other]

    def fix(self, channels: Channels | None) -> None:
        """All of these channels must stay."""
        for i in channels.ids if channels is not None else ():
            self._fixed[self.root(int(i))] = True

    def is_fixed(self, number: int) -> bool:
        return self._fixed[self.root(number)]

    def cut(self, op: Op, operand: int, axis: int, ids: Array, role: Role) -> None:
        """Notes that a constant has a slice for each channel. A constant that several operators share stays shared."""
        value = op.operands[operand]
        assert value is not None
        known = self._seen.setdefault((value, axis), ids)
        if known is not ids:
            self.join(known, ids)
        self.cuts.append(Cut(op, operand, axis, ids, role))


def reshaped(
    channels: Channels,
    before: Sequence[Any],
    after: Sequence[Any],
    classes: Classes,
    apart: Callable[[int], bool] = lambda axis: False,
) -> Channels | None:
    """The channels of a value that was reshaped. None if they do not keep apart.

    An axis may stay, be split in front (of each part of it one number is left, as of a head of attention), or take in
    the axes behind it.

    Args:
        apart: whether parts along an axis of the result go different ways; the same channels then go in every part.
    """
    axis, count = channels.axis, len(channels.ids)
    at = _same_place(axis, before, after)
    if at is None or not isinstance(after[at], int):
        return None
    parts = 1
    if apart(at) and at + 1 < len(after) and isinstance(after[at + 1], int) and count % after[at] == 0:
        parts, at = after[at], at + 1
    size, each = after[at], count // parts
    if size <= each and each % size == 0 and (size > 1 or count == 1):
        rows = channels.ids.reshape(parts, size, -1)
        made = rows[0, :, 0]
        for part in rows:
            for column in part.T:
                classes.join(made, column)
        return Channels(at, made)
    if parts == 1 and size > count and size % count == 0:
        return Channels(at, np.repeat(channels.ids, size // count))
    return None


def _same_place(axis: int, before: Sequence[Any], after: Sequence[Any]) -> int | None:
    """The axis of ``after`` in front of which lies what lies in front of ``axis``."""
    if not all(isinstance(d, int) for d in before[:axis]):
        return axis if tuple(before[:axis]) == tuple(after[:axis]) and len(after) > axis else None
    want, product = int(np.prod(before[:axis])), 1
    for i, d in enumerate(after):
        if product == want and d != 1:
            return i
        if not isinstance(d, int):
            return None
        product *= d
    return None

"""What ``--nms`` makes of a detector's outputs in the program: features × boxes, stretches of them, centers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from compiler.errors import UserError
from compiler.features.base import Array
from compiler.ir import F32, Builder, TensorType, Value

SPELLING = "--nms boxes=NAME[0:4],scores=NAME[4:],iou=0.45,score=0.25,max=100,format=corners|center,class=1"


@dataclass(frozen=True, slots=True)
class Part:
    """A stretch of an output along its axis of features; all of it where ``start`` and ``stop`` are None."""

    name: str
    start: int | None = None
    stop: int | None = None

    def of(self, array: Array) -> Array:
        """Features × boxes of an array of 1 × boxes × features, or the other way round: features are fewer."""
        rows = array[0] if array.shape[1] < array.shape[2] else array[0].T
        inside(self.start or 0, len(rows) if self.stop is None else self.stop, len(rows), self.name)
        return np.asarray(rows[self.start : self.stop])


def dims(value: Value) -> tuple[int, ...]:
    """The sizes of a value, all known."""
    assert isinstance(value.type, TensorType)
    return value.type.static_shape


def rows(b: Builder, value: Value, part: Part) -> Value:
    """1 × features × boxes in f32.

    Raises:
        UserError: the output is no tensor of 1 × boxes × features, or has not that many features.
    """
    type_ = value.type
    fits = isinstance(type_, TensorType) and type_.is_static and type_.rank == 3 and type_.dtype.is_float
    if not isinstance(type_, TensorType) or not fits or type_.static_shape[0] != 1:
        raise UserError(f"--nms needs '{part.name}' as 1 × boxes × numbers, and it is a {type_}", SPELLING)
    if type_.dtype is not F32:
        value = b.op("mil.cast", [value], {"dtype": "fp32"}).result
    if type_.static_shape[1] >= type_.static_shape[2]:
        value = b.op("mil.transpose", [value], {"perm": (0, 2, 1)}).result
    if part.start is None and part.stop is None:
        return value
    stop = dims(value)[1] if part.stop is None else part.stop
    return stretch(b, value, 1, part.start or 0, stop, part.name)


def inside(start: int, stop: int, size: int, name: str) -> None:
    """Raises UserError unless a stretch lies inside the numbers that output ``name`` has for a box."""
    if not 0 <= start < stop <= size:
        raise UserError(f"--nms takes {start} to {stop} of '{name}', which has {size} numbers a box", SPELLING)


def fit(boxes: tuple[int, ...], scores: tuple[int, ...]) -> None:
    """Raises UserError unless numbers × boxes and classes × boxes go together."""
    if boxes[0] != 4 or boxes[1] != scores[1] or not scores[0]:
        raise UserError(
            f"--nms finds boxes of {boxes[0]} numbers × {boxes[1]} and scores of {scores[0]} × {scores[1]}",
            "outputs or stretches of outputs with 4 numbers a box, and as many scores as boxes",
        )


def stretch(b: Builder, value: Value, axis: int, start: int, stop: int, name: str) -> Value:
    """From ``start`` to before ``stop`` along one axis."""
    sizes = dims(value)
    inside(start, stop, sizes[axis], name)
    begin, end = [0] * len(sizes), list(sizes)
    begin[axis], end[axis] = start, stop
    ends = [b.constant(np.array(e, np.int32), "mil") for e in (begin, end)]
    return b.op("mil.slice_by_index", [value, *ends]).result


def center(b: Builder, corners: Value) -> Value:
    """Centers and sizes of 1 × (x₁, y₁, x₂, y₂) × boxes."""
    low, high = (stretch(b, corners, 1, i, i + 2, "boxes") for i in (0, 2))
    size = b.op("mil.sub", [high, low]).result
    half = b.op("mil.mul", [size, b.constant(np.float32(0.5), "mil")]).result
    middle = b.op("mil.add", [low, half]).result
    return b.op("mil.concat", [middle, size], {"axis": 1}).result

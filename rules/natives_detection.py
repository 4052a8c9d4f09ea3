"""Builders that choose boxes."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import shape_of
from rules.natives_shape import ints

#: Core ML suppresses within one image and one class at a time; each pair of them is an operator of its own.
_MOST_PAIRS = 128


def non_max_suppression(b: RuleBuilder, m: Bindings) -> Value:
    """Rows of image, class and box: for each image and class those that Core ML keeps, without the places left over.

    A box that is not above the threshold suppresses none that is, as the better ones come first: so it may go at the
    end.
    """
    (images, classes, count), limit = shape_of(m.scores), 0 if m.limit is None else int(m.limit.constant.reshape(-1)[0])
    if limit < 1:
        raise Decline("it keeps no box")
    if images * classes > _MOST_PAIRS:
        raise Decline(f"images and classes make more than {_MOST_PAIRS} pairs")
    most = min(limit, count)
    iou = np.float32(0 if m.iou is None else m.iou.constant.reshape(-1)[0])
    boxes = b.op("mil.transpose", [m.boxes], {"perm": (0, 2, 1)})
    if not m.center:
        first, last = (_part(b, boxes, {1: (i, i + 2)}, 3) for i in (0, 2))
        middle = b.op("mil.mul", [b.op("mil.add", [first, last]), np.float32(0.5)])
        boxes = b.op("mil.concat", [middle, b.op("mil.abs", [b.op("mil.sub", [last, first])])], {"axis": 1})
    found, good = [], []
    for image in range(images):
        own = _part(b, boxes, {0: (image, image + 1)}, 3)
        for c in range(classes):
            scores = _part(b, m.scores, {0: (image, image + 1), 1: (c, c + 1)}, 3)
            *_, index = b.op("mil.non_maximum_suppression", [own, scores, iou], {"max_boxes": most}, results=3)
            there = b.op("mil.greater_equal", [index, np.int32(0)])
            if m.score is not None:
                flat = b.op("mil.reshape", [b.op("mil.maximum", [index, np.int32(0)]), ints([most])])
                score = b.op("mil.reshape", [b.op("mil.gather", [scores, flat], {"axis": 2}), ints([1, most])])
                least = np.float32(m.score.constant.reshape(-1)[0])
                there = b.op("mil.logical_and", [there, b.op("mil.greater", [score, least])])
            found.append(index)
            good.append(b.op("mil.cast", [there], {"dtype": "int32"}))
    rows, kept = (b.op("mil.concat", v, {"axis": 0}) if len(v) > 1 else v[0] for v in (found, good))
    places = b.op("mil.non_zero", [kept])
    pair = b.op("mil.gather", [places, ints([0])], {"axis": 1})
    box = b.op("mil.expand_dims", [b.op("mil.gather_nd", [rows, places])], {"axes": (1,)})
    columns = [b.op(name, [pair, np.int32(classes)]) for name in ("mil.floor_div", "mil.mod")]
    out: Value = b.op("mil.concat", [*columns, box], {"axis": 1})
    return out


def _part(b: RuleBuilder, x: Value, bounds: dict[int, tuple[int, int]], rank: int) -> Any:
    """What is between bounds along some axes."""
    shape = shape_of(x)
    begin = [bounds.get(i, (0, shape[i]))[0] for i in range(rank)]
    end = [bounds.get(i, (0, shape[i]))[1] for i in range(rank)]
    if not any(begin) and end == list(shape):
        return x
    return b.op("mil.slice_by_index", [x, ints(begin), ints(end)])

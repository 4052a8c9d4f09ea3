"""What an order selects: the largest elements, the boxes that others do not suppress.

Source: the documentation of each operator in coremltools (converters/mil/mil/ops/defs/iOS17/tensor_operation.py), and
for what it leaves open its tests that Apple runs on Core ML (converters/mil/mil/ops/tests/iOS14/
test_tensor_operation.py): behind the last box chosen stand zeros, and -1 among the indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def topk(
    x: Array,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str | None = None,
) -> Array | tuple[Array, Array]:
    """The largest elements in descending order, or the smallest in ascending order; ``k`` = -1 takes all. coremltools
    negates to sort, which turns unsigned numbers round."""
    wide = x.astype(np.float64)
    order = np.argsort(wide if ascending else -wide, axis=axis, kind="stable")
    chosen = np.take(order, range(x.shape[axis] if k == -1 else k), axis=axis)
    values = np.take_along_axis(x, chosen, axis=axis)
    if not return_indices:
        return values
    return values, chosen.astype(output_indices_dtype or "int32")


def _overlap(box: Array, others: Array) -> Array:
    """Intersection over union of a box (x, y, width, height about its center) with others (4, n)."""
    low = [np.maximum(box[i] - box[i + 2] / 2, others[i] - others[i + 2] / 2) for i in (0, 1)]
    high = [np.minimum(box[i] + box[i + 2] / 2, others[i] + others[i + 2] / 2) for i in (0, 1)]
    shared = np.maximum(high[0] - low[0], 0) * np.maximum(high[1] - low[1], 0)
    return np.asarray(shared / (box[2] * box[3] + others[2] * others[3] - shared))


def non_maximum_suppression(
    boxes: Array, scores: Array, iou_threshold: Any, max_boxes: int, per_class_suppression: bool = False
) -> tuple[Array, Array, Array]:
    """iOS 17's form, classes suppressed together: the best score of a box counts, and a box goes that overlaps a better
    one that has stayed by more than the threshold.

    Raises:
        ValueError: boxes without size, equal scores, or classes on their own, of which nothing is said here.
    """
    best = scores.max(axis=1)
    if per_class_suppression or (boxes[:, 2:] <= 0).any() or any(len(set(b)) < len(b) for b in best.tolist()):
        raise ValueError("boxes without size, equal scores, or classes on their own")
    n = boxes.shape[0]
    out = np.zeros((n, 4, max_boxes)), np.zeros((n, scores.shape[1], max_boxes)), np.full((n, max_boxes), -1, np.int32)
    for b in range(n):
        kept: list[int] = []
        for i in np.argsort(-best[b]).tolist():
            if len(kept) < max_boxes and not (_overlap(boxes[b][:, i], boxes[b][:, kept]) > float(iou_threshold)).any():
                kept.append(i)
        out[0][b, :, : len(kept)] = boxes[b][:, kept]
        out[1][b, :, : len(kept)] = scores[b][:, kept]
        out[2][b, : len(kept)] = kept
    return out


OPERATORS = {"topk": topk, "non_maximum_suppression": non_maximum_suppression}

"""What Core ML's crop_resize means in ONNX: a GridSample for each box, where its corners are samples.

Source: coremltools' documentation of crop_resize (converters/mil/mil/ops/defs/iOS15/image_resizing.py, iOS16/ and
iOS17/). It gives the samples of a whole image; of a box they follow from that only where the outermost ones are its
corners. What lies outside the image is ``pad_value``, as in tf.image.crop_and_resize, to which it refers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import F32, I32, I64, TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import dtype_of

#: Which columns of a box are (row, column), first those of its start or center, then those of its end or size.
_COLUMNS = {"HEIGHT_FIRST": ((0, 1), (2, 3)), "WIDTH_FIRST": ((1, 0), (3, 2))}


def _dims(x: Value, rank: int) -> tuple[Any, ...]:
    shape = x.type.shape if isinstance(x.type, TensorType) else None
    if shape is None or len(shape) != rank or not all(isinstance(d, int) for d in shape):
        raise Decline("a size is not known")
    return shape


def crops_of_regions(b: RuleBuilder, m: Bindings) -> Value:
    """Before iOS 17: of every image each box, or of that image which a fifth number says."""
    batch, channels, height, width = _dims(m.x, 4)
    count, _, columns, *_ = _dims(m.roi, 5)
    flat = b.op("onnx.Reshape", [m.roi, np.array([count, columns])])
    if columns == 5:
        if batch != 1:
            raise Decline("coremltools infers a crop of every image, and its documentation says one")
        index = b.op("onnx.Cast", [b.op("onnx.Gather", [flat, np.array(0)], {"axis": 1})], {"to": I64})
        images = b.op("onnx.Gather", [m.x, index])
        flat = b.op("onnx.Slice", [flat, np.array([1]), np.array([5]), np.array([1])])
    else:
        images = b.op("onnx.Reshape", [m.x, np.array([1, batch * channels, height, width])])
        images = b.op("onnx.Expand", [images, np.array([count, batch * channels, height, width])])
    found = _crops(b, m, images, flat)
    shape = np.array([count, batch, channels, m.target_height, m.target_width])
    result: Value = b.op("onnx.Reshape", [found, shape])
    return result


def crops_of_boxes(b: RuleBuilder, m: Bindings) -> Value:
    """Since iOS 17: of that image which ``box_indices`` says, else of the first ones, one each."""
    batch = _dims(m.x, 4)[0]
    index = m.i
    if index is None:
        count = _dims(m.boxes, 2)[0]
        if count > batch:
            raise Decline("there are more boxes than images")
        index = np.arange(count)
    elif index.constant is not None:
        index = index.constant.astype(np.int64)
    elif dtype_of(index) not in (I32, I64):
        index = b.op("onnx.Cast", [index], {"to": I64})
    return _crops(b, m, b.op("onnx.Gather", [m.x, index]), m.boxes)


def _crops(b: RuleBuilder, m: Bindings, images: Value, boxes: Value) -> Value:
    """One crop of each image, by the box in the same row of ``boxes``."""
    dtype = dtype_of(m.x)
    size = _dims(m.x, 4)[2:]
    out = (m.target_height, m.target_width)
    if min(out) < 1:
        raise Decline("there is nothing to sample")
    form, _, order = m.box_coordinate_mode.partition("_")
    if form == "CENTER":
        order = order.removeprefix("SIZE_")
    if form not in ("CORNERS", "CENTER") or order not in _COLUMNS:
        raise Decline(f"boxes are {m.box_coordinate_mode}")
    if dtype_of(boxes) is not F32:
        boxes = b.op("onnx.Cast", [boxes], {"to": F32})
    first, second = _COLUMNS[order]
    lines = []
    for axis in (0, 1):
        start, end = (b.op("onnx.Gather", [boxes, np.array([c[axis]])], {"axis": 1}) for c in (first, second))
        if form == "CENTER":
            half = b.op("onnx.Mul", [end, np.float32(0.5)])
            start, end = b.op("onnx.Sub", [start, half]), b.op("onnx.Add", [start, half])
        factor = m.spatial_scale * (size[axis] - 1 if m.normalized_coordinates else 1)
        lines.append(_places(b, start, end, out[axis], factor, m.sampling_mode))
    grid, inside = _grid(b, lines, size)
    if dtype is not F32:
        images = b.op("onnx.Cast", [images], {"to": F32})
    how = {"mode": "linear", "padding_mode": "border", "align_corners": 1}
    sampled = b.op("onnx.GridSample", [images, grid], how)
    result: Value = b.op("onnx.Where", [inside, sampled, np.float32(m.pad_value)])
    return result if dtype is F32 else b.op("onnx.Cast", [result], {"to": dtype})  # type: ignore[no-any-return]


def _places(b: RuleBuilder, start: Value, end: Value, count: int, factor: float, mode: str) -> Value:
    """(boxes, ``count``): where a side of each box is sampled, in elements; its ends exactly."""
    if mode not in ("ALIGN_CORNERS", "STRICT_ALIGN_CORNERS"):
        raise Decline(f"of a box, Core ML does not say where {mode} samples")
    share = np.arange(count) / (count - 1) if count > 1 else np.full(1, 0.5 if mode == "ALIGN_CORNERS" else 0.0)
    before = b.op("onnx.Mul", [start, ((1 - share) * factor).astype(np.float32)[None]])
    after = b.op("onnx.Mul", [end, (share * factor).astype(np.float32)[None]])
    result: Value = b.op("onnx.Add", [before, after])
    return result


def _grid(b: RuleBuilder, lines: list[Value], size: tuple[int, ...]) -> tuple[Value, Value]:
    """The coordinates that GridSample takes, and which of them lie inside the image."""
    coordinates, inside = [], []
    for line, length, grid_axes, image_axes in zip(lines, size, ([2, 3], [1, 3]), ([1, 3], [1, 2])):
        low = b.op("onnx.GreaterOrEqual", [line, np.float32(0)])
        high = b.op("onnx.LessOrEqual", [line, np.float32(length - 1)])
        inside.append(b.op("onnx.Unsqueeze", [b.op("onnx.And", [low, high]), np.array(image_axes)]))
        at = b.op("onnx.Mul", [line, np.float32(2 / (length - 1) if length > 1 else 0)])
        at = b.op("onnx.Sub", [at, np.float32(1 if length > 1 else 0)])
        coordinates.append(b.op("onnx.Unsqueeze", [at, np.array(grid_axes)]))
    down, across = coordinates
    zero = np.float32(0)
    across = b.op("onnx.Add", [across, b.op("onnx.Mul", [down, zero])])
    down = b.op("onnx.Add", [down, b.op("onnx.Mul", [across, zero])])
    return b.op("onnx.Concat", [across, down], {"axis": -1}), b.op("onnx.And", inside)

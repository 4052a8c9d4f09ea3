"""What Core ML's moves between batch and space, and its reshapes by example, mean in ONNX.

Sources: coremltools' documentation (converters/mil/mil/ops/defs/iOS15/tensor_transformation.py and iOS16/), and
TensorFlow's of SpaceToBatchND and BatchToSpaceND, which its converter maps to them: the order of batches is theirs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline


def _sizes(x: Value) -> tuple[int, int, int]:
    """Channels, height and width; the batch may be open."""
    shape = x.type.shape if isinstance(x.type, TensorType) else None
    if shape is None or len(shape) != 4 or not all(isinstance(d, int) and d > 0 for d in shape[1:]) or shape[0] == 0:
        raise Decline("channels, height or width are not known, or there is nothing")
    channels, height, width = shape[1:]
    return int(channels), int(height), int(width)


def space_to_batch(b: RuleBuilder, m: Bindings) -> Value:
    """Batch (i · block width + j) · n + k is place (i, j) of every block of image k."""
    channels, height, width = _sizes(m.x)
    (down, across), pads = (int(d) for d in m.block), np.asarray(m.paddings, np.int64).reshape(2, 2)
    height, width = height + int(pads[0].sum()), width + int(pads[1].sum())
    if pads.min() < 0 or height % down or width % across:
        raise Decline("blocks do not fill the padded image")
    x = m.x
    if pads.any():
        x = b.op("onnx.Pad", [x, np.array([0, 0, *pads[:, 0], 0, 0, *pads[:, 1]])])
    split = b.op("onnx.Reshape", [x, np.array([-1, channels, height // down, down, width // across, across])])
    moved = b.op("onnx.Transpose", [split], {"perm": (3, 5, 0, 1, 2, 4)})
    result: Value = b.op("onnx.Reshape", [moved, np.array([-1, channels, height // down, width // across])])
    return result


def batch_to_space(b: RuleBuilder, m: Bindings) -> Value:
    """The way back."""
    channels, height, width = _sizes(m.x)
    (down, across), crops = (int(d) for d in m.block), np.asarray(m.crops, np.int64).reshape(2, 2)
    size = np.array([height * down, width * across])
    if crops.min() < 0 or (crops.sum(axis=1) >= size).any():
        raise Decline("more is cropped than there is")
    split = b.op("onnx.Reshape", [m.x, np.array([down, across, -1, channels, height, width])])
    moved = b.op("onnx.Transpose", [split], {"perm": (2, 3, 4, 0, 5, 1)})
    result: Value = b.op("onnx.Reshape", [moved, np.array([-1, channels, *size])])
    if crops.any():
        result = b.op("onnx.Slice", [result, crops[:, 0], size - crops[:, 1], np.array([2, 3])])
    return result


def reshape_like(b: RuleBuilder, m: Bindings) -> Value:
    """Dimensions of other tensors, put one after the other; coremltools takes none that are open."""
    shape: list[Any] = []
    for ref, begin, end, to_last in zip(m.refs, m.begins, m.ends, m.masks, strict=True):
        dims = ref.type.shape if isinstance(ref.type, TensorType) else None
        if dims is None:
            raise Decline("a rank is not known")
        shape += dims[begin:] if to_last else dims[begin:end]
    if not all(isinstance(d, int) for d in shape):
        raise Decline("a size is not known")
    result: Value = b.op("onnx.Reshape", [m.x, np.array(shape, np.int64)], {"allowzero": int(0 in shape)})
    return result

"""Lowering of Resize with known sizes: the mil operator with the same matrices, else multiplication with them.

The matrices are those of :mod:`rules.natives_resize_matrix`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.ir import TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_resize_matrix import Array, is_identity, linear_matrix, onnx_matrix, positions

#: Matrices that differ less than this compute the same: far below what f32 resolves of a weighted mean.
_SAME = 1e-6


def lower_resize(b: RuleBuilder, m: Bindings) -> Value:
    """Resize, of static shapes: a mil operator with the same matrices, else the matrices themselves."""
    assert isinstance(m.x.type, TensorType)
    assert isinstance(m.y.type, TensorType)
    shape, result = m.x.type.static_shape, m.y.type.static_shape
    axes = _axes(m, len(shape))
    scales = _scales(m, shape, result, axes)
    rois = [(0.0, 1.0)] * len(axes)
    crops = m.r["coordinate_transformation_mode"] == "tf_crop_and_resize"
    if crops:
        if m.roi is None or m.roi.constant is None:
            raise Decline("its region is computed at run time")
        flat = m.roi.constant.reshape(-1)
        rois = [(float(flat[i]), float(flat[len(axes) + i])) for i in range(len(axes))]
    matrices: dict[int, Array] = {}
    outside: dict[int, Array] = {}
    for a, s, roi in zip(axes, scales, rois):
        if s == 1.0 and shape[a] == result[a] and not crops:
            continue
        matrices[a] = onnx_matrix(shape[a], result[a], s, roi, m.r)
        if crops:
            if s == 1.0 and roi != (0.0, 1.0):  # a crop by the reference implementation, nothing by onnxruntime
                raise Decline("an axis is cropped to as many elements as it has")
            at = positions(shape[a], result[a], s, "tf_crop_and_resize", roi)
            outside[a] = (at < 0) | (at > shape[a] - 1)
    extrapolates = any(o.any() for o in outside.values())
    refuse_copies(shape, result, matrices, bool(m.r["antialias"]), extrapolates)
    if crops and m.r["mode"] == "cubic" and not set(matrices) <= {len(shape) - 2, len(shape) - 1}:
        raise Decline("the region of an axis other than the last two is not what onnxruntime crops by")
    y = apply_matrices(b, m.x, matrices, m.r["mode"] == "nearest")
    if extrapolates:
        y = _extrapolated(b, y, result, outside, m.r["extrapolation_value"])
    return y


def _axes(m: Bindings, rank: int) -> list[int]:
    given = m.r.get("axes")
    return [a % rank for a in given] if given else list(range(rank))


def _scales(m: Bindings, shape: Sequence[int], result: Sequence[int], axes: Sequence[int]) -> list[float]:
    """The factor along each of ``axes``, as onnxruntime takes it."""
    if m.scales is not None and (m.scales.constant is None or m.scales.constant.size):
        if m.scales.constant is None:
            raise Decline("its scales are computed at run time")
        return [float(s) for s in m.scales.constant.reshape(-1)]
    if m.sizes is not None and m.sizes.constant is not None:
        wanted = [int(s) for s in m.sizes.constant.reshape(-1)]
    elif m.r["keep_aspect_ratio_policy"] == "stretch":
        wanted = [result[a] for a in axes]  # the sizes are what the result has
    else:
        raise Decline("its sizes are computed at run time")
    each = [np.float32(w) / np.float32(shape[a]) for w, a in zip(wanted, axes)]
    match m.r["keep_aspect_ratio_policy"]:
        case "not_larger":
            return [float(min(each))] * len(each)
        case "not_smaller":
            return [float(max(each))] * len(each)
    return [float(s) for s in each]


def refuse_copies(
    shape: Sequence[Any], result: Sequence[Any], matrices: Mapping[int, Array], antialias: bool, outside: bool = False
) -> None:
    """Declines where onnxruntime copies because sizes stay, and the definition of Resize does not.

    It copies where no axis changes its size, and with ``antialias`` along each axis that does not. ``outside`` tells
    that something is extrapolated.
    """
    stays = {a for a in matrices if shape[a] == result[a] and (antialias or tuple(shape) == tuple(result))}
    if any(not np.allclose(matrices[a], np.eye(len(matrices[a])), rtol=0, atol=_SAME) for a in stays):
        raise Decline("an axis keeps its size but not its elements' places, and onnxruntime copies it")
    if stays and outside:
        raise Decline("no axis changes its size, and onnxruntime copies instead of extrapolating")


def _extrapolated(b: RuleBuilder, y: Value, shape: Sequence[int], outside: Mapping[int, Array], value: float) -> Value:
    """``value`` where any axis is outside."""
    mask = np.zeros((1,) * len(shape), bool)
    for axis, o in outside.items():
        mask = mask | o.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    assert isinstance(y.type, TensorType)
    number = y.type.dtype.numpy.type(value)
    result: Value = b.op("mil.select", [b.constant(np.ascontiguousarray(mask), "mil"), number, y])
    return result


def apply_matrices(b: RuleBuilder, x: Value, matrices: Mapping[int, Array], nearest: bool) -> Value:
    """``x`` combined along each axis by a matrix, outputs × inputs, with mil operators."""
    assert isinstance(x.type, TensorType)
    rank = len(x.type.static_shape)
    left = {a: m for a, m in matrices.items() if not is_identity(m)}
    height, width = rank - 2, rank - 1
    if left and rank >= 3 and set(left) <= {height, width} and x.type.dtype.is_float:
        pair = [left.get(a, np.eye(x.type.static_shape[a])) for a in (height, width)]
        made = spatial(b, x, pair, nearest)
        if made is not None:
            return made
    for axis in sorted(left):
        x = _along(b, x, axis, left[axis])
    return x


def spatial(b: RuleBuilder, x: Value, pair: Sequence[Array], nearest: bool) -> Value | None:
    """The mil operator that has these two matrices for the last two axes."""
    if nearest:
        factors = [_repeats(m) for m in pair]
        if None in factors:
            return None
        result: Value = b.op(
            "mil.upsample_nearest_neighbor",
            [x],
            {"scale_factor_height": factors[0], "scale_factor_width": factors[1]},
        )
        return result
    sizes = [(m.shape[1], m.shape[0]) for m in pair]
    for mode in ("UNALIGN_CORNERS", "STRICT_ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "ALIGN_CORNERS"):
        if not all(np.allclose(linear_matrix(*s, mode), m, rtol=0, atol=_SAME) for s, m in zip(sizes, pair)):
            continue
        if mode in ("UNALIGN_CORNERS", "STRICT_ALIGN_CORNERS") and all(o % i == 0 for i, o in sizes):
            attributes: dict[str, Any] = {
                "scale_factor_height": sizes[0][1] // sizes[0][0],
                "scale_factor_width": sizes[1][1] // sizes[1][0],
                "align_corners": mode == "STRICT_ALIGN_CORNERS",
            }
            upsampled: Value = b.op("mil.upsample_bilinear", [x], attributes)
            return upsampled
        attributes = {"target_size_height": sizes[0][1], "target_size_width": sizes[1][1], "sampling_mode": mode}
        resized: Value = b.op("mil.resize_bilinear", [x], attributes)
        return resized
    return None


def _repeats(matrix: Array) -> int | None:
    """How often each input stands in a row, if the matrix does nothing but repeat."""
    factor, rest = divmod(matrix.shape[0], matrix.shape[1])
    if rest or factor < 1:
        return None
    return factor if np.array_equal(matrix, np.repeat(np.eye(matrix.shape[1]), factor, axis=0)) else None


def _picks(matrix: Array) -> Array | None:
    """The input that each output is, if every output is one input."""
    index: Array = matrix.argmax(1)
    return index if np.array_equal(matrix, np.eye(matrix.shape[1])[index]) else None


def _stride(index: Array) -> tuple[int, int] | None:
    """First and step, if the indices ascend evenly."""
    step = int(index[1] - index[0]) if len(index) > 1 else 1
    if step < 1 or not np.array_equal(index, index[0] + step * np.arange(len(index))):
        return None
    return int(index[0]), step


def _along(b: RuleBuilder, x: Value, axis: int, matrix: Array) -> Value:
    """``x`` combined along one axis: a slice, a gather, or a product."""
    assert isinstance(x.type, TensorType)
    shape = x.type.static_shape
    rank = len(shape)
    index = _picks(matrix)
    if index is not None:
        even = _stride(index)
        if even is not None:
            begin, end, stride = [0] * rank, list(shape), [1] * rank
            begin[axis], end[axis], stride[axis] = even[0], int(index[-1]) + 1, even[1]
            sliced: Value = b.op("mil.slice_by_index", [x, begin, end], {"stride": stride})
            return sliced
        if getattr(b.target, "unit", None) != "ane" or not x.type.dtype.is_float:
            picked: Value = b.op("mil.gather", [x, index.astype(np.int32)], {"axis": axis})
            return picked
    if not x.type.dtype.is_float:
        raise Decline("integers are not interpolated")
    weights = matrix.astype(x.type.dtype.numpy)
    if rank == 1:
        column = b.op("mil.matmul", [b.constant(weights, "mil"), b.op("mil.expand_dims", [x], {"axes": (1,)})], {})
        flat: Value = b.op("mil.squeeze", [column], {"axes": (1,)})
        return flat
    if axis == rank - 2:
        product: Value = b.op("mil.matmul", [b.constant(weights, "mil"), x], {})
        return product
    if axis == rank - 1:
        transposed = b.constant(np.ascontiguousarray(weights.T), "mil")
        product = b.op("mil.matmul", [x, transposed], {})
        return product
    perm = list(range(rank))
    perm[axis], perm[rank - 2] = rank - 2, axis
    product = b.op("mil.matmul", [b.constant(weights, "mil"), b.op("mil.transpose", [x], {"perm": perm})], {})
    back: Value = b.op("mil.transpose", [product], {"perm": perm})
    return back

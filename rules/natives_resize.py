"""Resizing as linear algebra: along each axis, an output is a fixed combination of inputs.

A resize is a product of one matrix for each axis, outputs × inputs. Here these matrices are computed as onnxruntime's
Resize and as Core ML's operators define them; an ONNX Resize is lowered to the mil operator with the same matrices, and
where there is none, to multiplication with them.

Sources: ONNX's operator documentation and reference implementation (onnx/reference/ops/op_resize.py); coremltools'
documentation of ``resize_bilinear`` for the sampling modes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.ir import TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline

Array = np.ndarray[Any, Any]

#: Matrices that differ less than this compute the same: far below what f32 resolves of a weighted mean.
_SAME = 1e-6

SAMPLING_MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS")


# ---- ONNX


def _positions(inputs: int, outputs: int, scale: float, mode: str, roi: tuple[float, float]) -> Array:
    """Where each output lies on the axis of inputs, in the f32 arithmetic of onnxruntime."""
    f = np.float32
    i = np.arange(outputs).astype(f)
    s = f(scale)
    half, one = f(0.5), f(1)
    match mode:
        case "half_pixel":
            return (i + half) / s - half
        case "pytorch_half_pixel":
            return (i + half) / s - half if outputs > 1 else np.zeros(outputs, f)
        case "half_pixel_symmetric":
            adjustment = f(outputs) / (s * f(inputs))
            return f(inputs) / f(2) * (one - adjustment) + (i + half) / s - half
        case "align_corners":
            return i * f(inputs - 1) / f(outputs - 1) if outputs > 1 else np.zeros(outputs, f)
        case "asymmetric":
            return i / s
        case "tf_half_pixel_for_nn":
            return (i + half) / s
        case "tf_crop_and_resize":
            start, end = f(roi[0]), f(roi[1])
            if outputs > 1:
                return start * f(inputs - 1) + i * (end - start) * f(inputs - 1) / f(outputs - 1)
            return np.full(outputs, half * (start + end) * f(inputs - 1), f)
    raise Decline(f"coordinates are transformed by {mode}")


def _nearest(at: Array, mode: str) -> Array:
    match mode:
        case "round_prefer_floor":
            return np.ceil(at - np.float32(0.5))
        case "round_prefer_ceil":
            return np.floor(at + np.float32(0.5))
        case "floor":
            return np.floor(at)
        case "ceil":
            return np.ceil(at)
    raise Decline(f"the nearest is found by {mode}")


def _refuse_ties(at: Array, mode: str) -> None:
    """Declines where a rounding error of the position, which depends on how it is computed, decides on the input."""
    slack = np.float32(1e-4)
    if not np.array_equal(_nearest(at - slack, mode), _nearest(at + slack, mode)):
        raise Decline("a position lies between two inputs")


def _cubic(x: Array, a: float) -> Array:
    """Keys' kernel at distance ``x``."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def onnx_matrix(inputs: int, outputs: int, scale: float, roi: tuple[float, float], r: Mapping[str, Any]) -> Array:
    """Outputs × inputs in f64, as onnxruntime's Resize with the attributes ``r`` weighs them.

    Raises:
        Decline: a mode is not known.
    """
    at = _positions(inputs, outputs, scale, r["coordinate_transformation_mode"], roi)
    matrix = np.zeros((outputs, inputs))
    rows = np.arange(outputs)
    mode = r["mode"]
    if mode == "nearest":
        if r["coordinate_transformation_mode"] == "half_pixel_symmetric":
            _refuse_ties(at, r["nearest_mode"])
        matrix[rows, np.clip(_nearest(at, r["nearest_mode"]), 0, inputs - 1).astype(np.int64)] = 1.0
        return matrix
    if mode not in ("linear", "cubic"):
        raise Decline(f"the mode is {mode}")
    if r["antialias"]:
        return _antialiased(inputs, outputs, scale, at.astype(np.float64), r)
    if mode == "linear":
        return _linear(inputs, at.astype(np.float64))
    at = at.astype(np.float64)
    floor = np.floor(at)
    for k in range(-1, 3):
        index = floor + k
        weight = _cubic(at - index, r["cubic_coeff_a"])
        if r["exclude_outside"]:
            weight = np.where((index >= 0) & (index < inputs), weight, 0.0)
        np.add.at(matrix, (rows, np.clip(index, 0, inputs - 1).astype(np.int64)), weight)
    return matrix / matrix.sum(1, keepdims=True) if r["exclude_outside"] else matrix


def _linear(inputs: int, at: Array) -> Array:
    """Linear interpolation at positions clamped to the axis."""
    at = np.clip(at, 0, inputs - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, inputs - 1)
    rows = np.arange(len(at))
    matrix = np.zeros((len(at), inputs))
    np.add.at(matrix, (rows, low), 1 - (at - low))
    np.add.at(matrix, (rows, high), at - low)
    return matrix


def _antialiased(inputs: int, outputs: int, scale: float, at: Array, r: Mapping[str, Any]) -> Array:
    """A kernel stretched by the factor of reduction and normalized.

    What it takes from outside is what lies at the border, or nothing with ``exclude_outside``.
    """
    stretch = max(1.0, 1.0 / scale)
    support = (1.0 if r["mode"] == "linear" else 2.0) * stretch
    matrix = np.zeros((outputs, inputs))
    for i, center in enumerate(at + 0.5):
        first, last = math.floor(center - support + 0.5), math.floor(center + support + 0.5)
        if r["exclude_outside"]:
            first, last = max(first, 0), min(last, inputs)
        index = np.arange(first, last)
        distance = (index - center + 0.5) / stretch
        if r["mode"] == "linear":
            weight = np.maximum(0.0, 1.0 - np.abs(distance))
        else:
            weight = _cubic(distance, r["cubic_coeff_a"])
        np.add.at(matrix[i], np.clip(index, 0, inputs - 1), weight / weight.sum())
    return matrix


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
            at = _positions(shape[a], result[a], s, "tf_crop_and_resize", roi)
            outside[a] = (at < 0) | (at > shape[a] - 1)
    y = apply_matrices(b, m.x, matrices, m.r["mode"] == "nearest")
    if any(o.any() for o in outside.values()):
        y = _extrapolated(b, y, result, outside, m.r["extrapolation_value"])
    return y


def _extrapolated(b: RuleBuilder, y: Value, shape: Sequence[int], outside: Mapping[int, Array], value: float) -> Value:
    """``value`` where any axis is outside."""
    mask = np.zeros((1,) * len(shape), bool)
    for axis, o in outside.items():
        mask = mask | o.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    assert isinstance(y.type, TensorType)
    number = y.type.dtype.numpy.type(value)
    result: Value = b.op("mil.select", [b.constant(np.ascontiguousarray(mask), "mil"), number, y])
    return result


# ---- Core ML


def sampled(inputs: int, outputs: int, mode: str) -> Array:
    """Where each output lies on the axis of inputs, in one of Core ML's sampling modes (see the module's source)."""
    i = np.arange(outputs, dtype=np.float64)
    match mode:
        case "STRICT_ALIGN_CORNERS" | "ALIGN_CORNERS":
            if outputs == 1:
                return np.full(1, (inputs - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0)
            return i * (inputs - 1) / (outputs - 1)
        case "DEFAULT":
            return i * (inputs / outputs)
        case "OFFSET_CORNERS":
            delta = max(1, inputs - 1) / outputs
            return 0.5 * delta + i * delta
        case "UNALIGN_CORNERS":
            return (i + 0.5) * (inputs / outputs) - 0.5
    raise Decline(f"the sampling mode is {mode}")


def linear_matrix(inputs: int, outputs: int, mode: str) -> Array:
    """Outputs × inputs of Core ML's bilinear resizing along one axis."""
    return _linear(inputs, sampled(inputs, outputs, mode))


def _is_identity(matrix: Array) -> bool:
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))


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


def apply_matrices(b: RuleBuilder, x: Value, matrices: Mapping[int, Array], nearest: bool) -> Value:
    """``x`` combined along each axis by a matrix, outputs × inputs, with mil operators."""
    assert isinstance(x.type, TensorType)
    rank = len(x.type.static_shape)
    left = {a: m for a, m in matrices.items() if not _is_identity(m)}
    height, width = rank - 2, rank - 1
    if left and rank >= 3 and set(left) <= {height, width} and x.type.dtype.is_float:
        pair = [left.get(a, np.eye(x.type.static_shape[a])) for a in (height, width)]
        made = _spatial(b, x, pair, nearest)
        if made is not None:
            return made
    for axis in sorted(left):
        x = _along(b, x, axis, left[axis])
    return x


def _spatial(b: RuleBuilder, x: Value, pair: Sequence[Array], nearest: bool) -> Value | None:
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


# ---- what Core ML means


def _multiplied(b: RuleBuilder, x: Value, matrices: Mapping[int, Array]) -> Value:
    """``x`` combined along each axis by a matrix, outputs × inputs, with onnx operators."""
    assert isinstance(x.type, TensorType)
    dtype = x.type.dtype.numpy
    rank = x.type.rank
    assert rank is not None
    for axis, matrix in sorted(matrices.items()):
        if _is_identity(matrix):
            continue
        perm = list(range(rank))
        perm[axis], perm[-1] = rank - 1, axis
        turned = x if axis == rank - 1 else b.op("onnx.Transpose", [x], {"perm": perm})
        product = b.op("onnx.MatMul", [turned, np.ascontiguousarray(matrix.T).astype(dtype)])
        x = product if axis == rank - 1 else b.op("onnx.Transpose", [product], {"perm": perm})
    return x


def _by_factor(b: RuleBuilder, x: Value, factors: Sequence[float], mode: str) -> Value:
    """Linear interpolation by whole factors, which needs no sizes."""
    rank = x.type.rank if isinstance(x.type, TensorType) else None
    if rank is None or not all(float(f).is_integer() for f in factors):
        raise Decline("a factor is a fraction, or the rank is not known")
    scales = np.array([1.0] * (rank - 2) + list(factors), np.float32)
    attributes = {"mode": "linear", "coordinate_transformation_mode": mode}
    result: Value = b.op("onnx.Resize", [x, None, scales], attributes)
    return result


def _sizes_known(x: Value) -> bool:
    shape = x.type.shape if isinstance(x.type, TensorType) else None
    return shape is not None and all(isinstance(d, int) for d in shape[-2:])


def _spatial_sizes(x: Value) -> tuple[int, int]:
    shape = x.type.shape if isinstance(x.type, TensorType) else None
    if shape is None or len(shape) < 3 or not isinstance(shape[-1], int) or not isinstance(shape[-2], int):
        raise Decline("the sizes of the last two axes are not known")
    return shape[-2], shape[-1]


def _bilinear(b: RuleBuilder, x: Value, target: Sequence[int], mode: str) -> Value:
    shape = x.type.shape if isinstance(x.type, TensorType) else None
    if shape is None:
        raise Decline("rank not known")
    first = len(shape) - len(target)
    matrices: dict[int, Array] = {}
    for axis, size in enumerate(target, first):
        have = shape[axis]
        if not isinstance(have, int):
            raise Decline("a size is not known")
        matrices[axis] = linear_matrix(have, int(size), mode)
    return _multiplied(b, x, matrices)


def mean_upsample_nearest(b: RuleBuilder, m: Bindings) -> Value:
    """Whole factors only: for others Core ML does not say which input is the nearest."""
    factors = [float(m.h), float(m.w)]
    if not all(f.is_integer() for f in factors):
        raise Decline("a factor is a fraction")
    rank = m.x.type.rank
    if rank is None:
        raise Decline("rank not known")
    scales = np.array([1.0] * (rank - 2) + factors, np.float32)
    result: Value = b.op(
        "onnx.Resize",
        [m.x, None, scales],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    )
    return result


def mean_upsample_bilinear(b: RuleBuilder, m: Bindings) -> Value:
    """The factor is what the sizes make it, after rounding down the size of the result."""
    half = not m.a if m.p is None else bool(m.p)
    if not _sizes_known(m.x) and not (m.a and half):
        return _by_factor(b, m.x, (m.h, m.w), "align_corners" if m.a else "half_pixel" if half else "asymmetric")
    height, width = _spatial_sizes(m.x)
    target = (math.floor(height * float(np.float32(m.h))), math.floor(width * float(np.float32(m.w))))
    match bool(m.a), half:
        case True, False:
            mode = "STRICT_ALIGN_CORNERS"
        case False, True:
            mode = "UNALIGN_CORNERS"
        case False, False:
            mode = "DEFAULT"
        case _:
            raise Decline("corners are aligned, and centers are half pixels")
    return _bilinear(b, m.x, target, mode)


def mean_resize_bilinear(b: RuleBuilder, m: Bindings) -> Value:
    return _bilinear(b, m.x, (m.h, m.w), m.m)


def mean_resize(b: RuleBuilder, m: Bindings) -> Value:
    """Linear interpolation of the last axes."""
    wanted = [int(s) for s in m.s.constant.reshape(-1)][-int(m.n) :] if m.n else []
    shape = m.x.type.shape
    if shape is None:
        raise Decline("rank not known")
    sizes = [s or shape[len(shape) - len(wanted) + i] for i, s in enumerate(wanted)]
    return _bilinear(b, m.x, sizes, m.m)

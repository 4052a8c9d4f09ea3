"""What Core ML's resizing means in ONNX: its matrices, or Resize by whole factors where sizes are open."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from compiler.ir import TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_resize_matrix import Array, is_identity, linear_matrix


def _multiplied(b: RuleBuilder, x: Value, matrices: Mapping[int, Array]) -> Value:
    """``x`` combined along each axis by a matrix, outputs × inputs, with onnx operators."""
    assert isinstance(x.type, TensorType)
    dtype = x.type.dtype.numpy
    rank = x.type.rank
    assert rank is not None
    for axis, matrix in sorted(matrices.items()):
        if is_identity(matrix):
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


def _nearest(b: RuleBuilder, x: Value, factors: Sequence[float]) -> Value:
    """The last two axes, each element so often in a row."""
    rank = x.type.rank if isinstance(x.type, TensorType) else None
    if rank is None:
        raise Decline("rank not known")
    scales = np.array([1.0] * (rank - 2) + list(factors), np.float32)
    how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    result: Value = b.op("onnx.Resize", [x, None, scales], how)
    return result


def mean_upsample_nearest(b: RuleBuilder, m: Bindings) -> Value:
    """Whole factors only: for others Core ML does not say which input is the nearest."""
    factors = [float(m.h), float(m.w)]
    if not all(f.is_integer() for f in factors):
        raise Decline("a factor is a fraction")
    return _nearest(b, m.x, factors)


def mean_resize_nearest(b: RuleBuilder, m: Bindings) -> Value:
    """To whole multiples of the sizes, as by :func:`mean_upsample_nearest`."""
    height, width = _spatial_sizes(m.x)
    if not height or not width or m.h % height or m.w % width or not m.h or not m.w:
        raise Decline("a size is no multiple of what it was")
    return _nearest(b, m.x, [m.h // height, m.w // width])


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

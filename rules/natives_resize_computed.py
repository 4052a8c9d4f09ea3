"""Resizing by scales that only run time knows, to a size that the model names.

Where an output lies on the axis of inputs, and so the matrix of :mod:`rules.natives_resize_matrix`, is computed by the
package: the positions by one division, a weight from the distance between a position and an input.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import BOOL, F16, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import dtype_of, shape_of
from rules.natives_resize import apply_matrices
from rules.natives_resize_matrix import TIE, Array, onnx_matrix
from rules.natives_shape import ints

#: Outputs of an axis times its inputs: what a package computes at every call.
_MOST_WEIGHTS = 1 << 20


def lower_computed_resize(b: RuleBuilder, m: Bindings) -> Value:
    """Resize along each axis of ``x`` by its scale."""
    shape, result = shape_of(m.x), shape_of(m.y)
    rank, mode, way = len(shape), m.r["mode"], m.r["coordinate_transformation_mode"]
    if 0 in (*shape, *result):
        raise Decline("there is nothing, or it becomes nothing")
    if shape == result:
        raise Decline("no axis changes its size, and onnxruntime copies whatever the scales are")
    if m.r["antialias"]:
        raise Decline("how far a kernel reaches depends on scales that are computed")
    if dtype_of(m.x) is BOOL or (mode != "nearest" and not dtype_of(m.x).is_float):
        raise Decline("integers are not interpolated")
    if mode == "nearest" and way == "half_pixel_symmetric":
        raise Decline("which input is nearest is found in double precision, by scales that are computed")
    given = m.r.get("axes")
    axes = [a % rank for a in given] if given else list(range(rank))
    x: Value = m.x
    for i, axis in enumerate(axes):
        have, want = shape[axis], result[axis]
        if have == want == 1:
            continue
        if have * want > _MOST_WEIGHTS:
            raise Decline(f"an axis of {have} elements becomes one of {want} by a scale that is computed")
        if way == "align_corners" or (way == "pytorch_half_pixel" and want == 1):  # where the scale says nothing
            x = apply_matrices(b, x, {axis: onnx_matrix(have, want, 1.0, (0.0, 1.0), m.r)}, mode == "nearest")
            continue
        scale = b.op("mil.slice_by_index", [m.scales, ints([i]), ints([i + 1])])
        at = _positions(b, have, want, scale, way)
        if mode == "nearest":
            x = b.op("mil.gather", [x, _nearest(b, at, have, m.r["nearest_mode"])], {"axis": axis})
        else:
            weights = _linear(b, at, have) if mode == "linear" else _cubic(b, at, have, m.r)
            x = _along(b, x, axis, weights)
    return x


def _positions(b: RuleBuilder, have: int, want: int, scale: Value, way: str) -> Value:
    """Where each output lies, in f32 and in the order of onnxruntime's operations."""
    half = np.float32(0.5)
    rows = np.arange(want, dtype=np.float32)
    if way == "asymmetric":
        return b.op("mil.real_div", [rows, scale])  # type: ignore[no-any-return]
    middle = b.op("mil.real_div", [rows + half, scale])
    match way:
        case "half_pixel" | "pytorch_half_pixel":
            return b.op("mil.sub", [middle, half])  # type: ignore[no-any-return]
        case "tf_half_pixel_for_nn":
            return middle  # type: ignore[no-any-return]
        case "half_pixel_symmetric":
            share = b.op("mil.real_div", [np.float32(want), b.op("mil.mul", [scale, np.float32(have)])])
            offset = b.op("mil.mul", [b.op("mil.sub", [np.float32(1), share]), np.float32(have / 2)])
            return b.op("mil.sub", [b.op("mil.add", [offset, middle]), half])  # type: ignore[no-any-return]
    raise Decline(f"coordinates are transformed by {way}, and scales are computed")


def _nearest(b: RuleBuilder, at: Value, have: int, how: str) -> Value:
    tie = np.float32(0.5 + TIE)
    match how:
        case "round_prefer_floor":
            whole = b.op("mil.ceil", [b.op("mil.sub", [at, tie])])
        case "round_prefer_ceil":
            whole = b.op("mil.floor", [b.op("mil.add", [at, tie])])
        case "floor" | "ceil":
            whole = b.op(f"mil.{how}", [at])
        case _:
            raise Decline(f"the nearest is found by {how}")
    inside = b.op("mil.clip", [whole, 0.0, float(have - 1)])
    return b.op("mil.cast", [inside], {"dtype": "int32"})  # type: ignore[no-any-return]


def _distances(b: RuleBuilder, at: Value, places: Array) -> Value:
    column = b.op("mil.expand_dims", [at], {"axes": (1,)})
    return b.op("mil.abs", [b.op("mil.sub", [column, places.astype(np.float32)[None, :]])])  # type: ignore[no-any-return]


def _linear(b: RuleBuilder, at: Value, have: int) -> Value:
    inside = b.op("mil.clip", [at, 0.0, float(have - 1)])
    near = b.op("mil.sub", [np.float32(1), _distances(b, inside, np.arange(have))])
    return b.op("mil.relu", [near])  # type: ignore[no-any-return]


def _cubic(b: RuleBuilder, at: Value, have: int, r: Any) -> Value:
    """Keys' kernel at the distance of each input, those beyond the ends included; they are at the ends, or left out."""
    a = float(r["cubic_coeff_a"])
    d = _distances(b, at, np.arange(-2, have + 2))

    def polynomial(*coefficients: float) -> Value:
        out: Any = np.float32(coefficients[0])
        for c in coefficients[1:]:
            out = b.op("mil.add", [b.op("mil.mul", [d, out]), np.float32(c)])
        return out  # type: ignore[no-any-return]

    near, far = polynomial(a + 2, -(a + 3), 0, 1), polynomial(a, -5 * a, 8 * a, -4 * a)
    outer = b.op("mil.select", [b.op("mil.less", [d, np.float32(2)]), far, b.op("mil.mul", [d, np.float32(0)])])
    weights = b.op("mil.select", [b.op("mil.less_equal", [d, np.float32(1)]), near, outer])
    fold = np.zeros((have + 4, have), np.float32)
    fold[np.arange(have + 4), np.clip(np.arange(-2, have + 2), 0, have - 1)] = 1
    if not r["exclude_outside"]:
        return b.op("mil.matmul", [weights, fold])  # type: ignore[no-any-return]
    inside = b.op("mil.slice_by_index", [weights, ints([0, 2]), ints([shape_of(weights)[0], have + 2])])
    total = b.op("mil.reduce_sum", [inside], {"axes": (1,), "keep_dims": True})
    return b.op("mil.real_div", [inside, total])  # type: ignore[no-any-return]


def _along(b: RuleBuilder, x: Value, axis: int, weights: Value) -> Value:
    """``x`` times the weights, outputs × inputs, along an axis."""
    rank = len(shape_of(x))
    if dtype_of(x) is F16:
        weights = b.op("mil.cast", [weights], {"dtype": "fp16"})
    if rank == 1:
        product = b.op("mil.matmul", [weights, b.op("mil.expand_dims", [x], {"axes": (1,)})])
        return b.op("mil.squeeze", [product], {"axes": (1,)})  # type: ignore[no-any-return]
    if axis == rank - 1:
        return b.op("mil.matmul", [x, weights], {"transpose_y": True})  # type: ignore[no-any-return]
    perm = list(range(rank))
    perm[axis], perm[rank - 2] = rank - 2, axis
    turned = b.op("mil.transpose", [x], {"perm": perm}) if axis != rank - 2 else x
    product = b.op("mil.matmul", [weights, turned])
    return b.op("mil.transpose", [product], {"perm": perm}) if axis != rank - 2 else product  # type: ignore[no-any-return]

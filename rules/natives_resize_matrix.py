"""Resizing as linear algebra: along each axis, an output is a fixed combination of inputs.

A resize is a product of one matrix for each axis, outputs × inputs. Here these matrices are computed as onnxruntime's
Resize and as Core ML's operators define them.

Sources: ONNX's operator documentation and reference implementation (onnx/reference/ops/op_resize.py); coremltools'
documentation of ``resize_bilinear`` for the sampling modes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from compiler.rewrite.functions import Decline

Array = np.ndarray[Any, Any]

#: How far from the middle between two inputs a position still counts as the middle, in onnxruntime (since 1.32 at the
#: latest; its definition in ONNX knows no such distance, and leaves the rounding of positions open).
TIE = 1e-6
#: Weights of a matrix, and rows of one: more than any image has, and less than fills a machine's memory.
_LARGEST, _LONGEST = 1 << 26, 1 << 22


def positions(inputs: int, outputs: int, scale: float, mode: str, roi: tuple[float, float]) -> Array:
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
            offset = f(inputs) / f(2) * (one - f(outputs) / (s * f(inputs)))
            return (offset + (i + 0.5).astype(np.float64) / s - 0.5).astype(f)  # in double precision from here on
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


def nearest_index(at: Array, mode: str) -> Array:
    """Positions rounded as ``nearest_mode`` says, not yet clamped to the axis."""
    at = at.astype(np.float64)
    match mode:
        case "round_prefer_floor":
            return np.ceil(at - (0.5 + TIE))
        case "round_prefer_ceil":
            return np.floor(at + (0.5 + TIE))
        case "floor":
            return np.floor(at)
        case "ceil":
            return np.ceil(at)
    raise Decline(f"the nearest is found by {mode}")


def _cubic(x: Array, a: float) -> Array:
    """Keys' kernel at distance ``x``."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def onnx_matrix(inputs: int, outputs: int, scale: float, roi: tuple[float, float], r: Mapping[str, Any]) -> Array:
    """Outputs × inputs in f64, as onnxruntime's Resize with the attributes ``r`` weighs them.

    Raises:
        Decline: a mode is not known, or the matrix too large.
    """
    _fits(outputs, inputs)
    at = positions(inputs, outputs, scale, r["coordinate_transformation_mode"], roi)
    matrix = np.zeros((outputs, inputs))
    rows = np.arange(outputs)
    mode = r["mode"]
    if mode == "nearest":
        matrix[rows, np.clip(nearest_index(at, r["nearest_mode"]), 0, inputs - 1).astype(np.int64)] = 1.0
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
        if not weight.sum():
            raise Decline("an output lies so far outside that no input has a weight")
        np.add.at(matrix[i], np.clip(index, 0, inputs - 1), weight / weight.sum())
    return matrix


def _fits(outputs: int, inputs: int) -> None:
    """Refuses a matrix that no memory holds: a model may name any scale."""
    if outputs * inputs > _LARGEST or outputs > _LONGEST:
        raise Decline(f"an axis of {inputs} elements becomes one of {outputs}: too many weights to hold")


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
    """Outputs × inputs of Core ML's bilinear resizing along one axis.

    Raises:
        Decline: the mode is not known, or the matrix too large.
    """
    _fits(outputs, inputs)
    return _linear(inputs, sampled(inputs, outputs, mode))


def is_identity(matrix: Array) -> bool:
    """Whether a matrix leaves its axis as it is."""
    return matrix.shape[0] == matrix.shape[1] and np.array_equal(matrix, np.eye(len(matrix)))

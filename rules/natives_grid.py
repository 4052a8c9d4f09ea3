"""Sampling at computed places: ONNX's GridSample and Core ML's resample and affine.

coremltools maps PyTorch's grid_sample, which GridSample is, to resample one to one: zeros are a constant border, and
reflection is about the centers of the border pixels where corners are aligned, about their edges (``symmetric``) where
they are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import F16, F32, TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline

_PADDING = {"zeros": "constant", "border": "border"}


def _size(v: Value) -> tuple[int, int]:
    """Height and width."""
    shape = v.type.shape if isinstance(v.type, TensorType) else None
    if shape is None or len(shape) != 4 or not isinstance(shape[2], int) or not isinstance(shape[3], int):
        raise Decline("height and width are not known")
    return shape[2], shape[3]


def lower_grid_sample(b: RuleBuilder, m: Bindings) -> Value:
    """Of images; cubic interpolation is nothing that Core ML has."""
    if m.mode not in ("linear", "nearest"):
        raise Decline(f"interpolation is {m.mode}")
    reflection = "reflection" if m.align else "symmetric"
    border = np.zeros((), m.x.type.dtype.numpy)
    attributes = {
        "sampling_mode": "bilinear" if m.mode == "linear" else "nearest",
        "padding_mode": _PADDING.get(m.padding, reflection),
        "coordinates_mode": "normalized_minus_one_to_one",
        "align_corners": bool(m.align),
    }
    result: Value = b.op("mil.resample", [m.x, m.grid, border], attributes)
    return result


def mean_resample(b: RuleBuilder, m: Bindings) -> Value:
    """GridSample, the coordinates brought to −1 … 1, about centers or edges as the padding asks for."""
    height, width = _size(m.x)
    size = np.array([width, height], np.float64)
    dtype = m.x.type.dtype
    grid: Value = m.at
    if grid.type.dtype not in (F16, F32) or grid.type.dtype is not dtype:  # type: ignore[union-attr]
        grid = b.op("onnx.Cast", [grid], {"to": dtype})
    align = bool(m.align)
    match m.coordinates:
        case "unnormalized":  # 0 … size − 1 are the centers
            factor, offset, align = _affine(size - 1, -1.0), np.full(2, -1.0), True
        case "normalized_zero_to_one":
            factor, offset = np.full(2, 2.0), np.full(2, -1.0)
        case "normalized_minus_one_to_one":
            factor, offset = np.ones(2), np.zeros(2)
        case _:
            raise Decline(f"coordinates are {m.coordinates}")
    wanted = {"reflection": True, "symmetric": False}.get(m.padding, align)
    if wanted and not align:  # ((g + 1) size − 1) / (size − 1) − 1
        scale = _affine(size - 1, 0.0) / 2 * size
        factor, offset = factor * scale, offset * scale + scale - _affine(size - 1, 0.0) / 2 - 1
    elif align and not wanted:  # ((g + 1) (size − 1) + 1) / size − 1
        factor, offset = factor * (size - 1) / size, (offset + 1) * (size - 1) / size + 1 / size - 1
    if not (np.all(factor == 1) and np.all(offset == 0)):
        grid = b.op("onnx.Mul", [grid, factor.astype(dtype.numpy)])
        grid = b.op("onnx.Add", [grid, offset.astype(dtype.numpy)])
    mode = {"bilinear": "linear", "nearest": "nearest"}.get(m.sampling)
    padding = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}
    if mode is None or m.padding not in padding:
        raise Decline(f"sampling is {m.sampling}, padding {m.padding}")
    x = m.x
    border = m.border.constant
    if border is None:
        raise Decline("the border is computed")
    moved = m.padding == "constant" and bool(np.any(border))
    if moved:
        x = b.op("onnx.Sub", [x, border.astype(dtype.numpy)])
    attributes = {"mode": mode, "padding_mode": padding[m.padding], "align_corners": int(wanted)}
    result: Value = b.op("onnx.GridSample", [x, grid], attributes)
    return b.op("onnx.Add", [result, border.astype(dtype.numpy)]) if moved else result  # type: ignore[no-any-return]


def _affine(length: Any, alone: float) -> Any:
    """2 / length, and what a single place needs."""
    return np.where(length > 0, 2.0 / np.maximum(length, 1), alone + 1.0)


def is_places_of_affine_sample(grid: Value) -> bool:
    """Whether the result of an AffineGrid is only where one GridSample samples, and Core ML's affine does both."""
    users, op = list(grid.users), grid.op
    if op is None or len(users) != 1 or users[0].name != "onnx.GridSample" or users[0].operands[1] is not grid:
        return False
    sample = users[0]
    image, theta = sample.operands[0], op.operands[0]
    if image is None or theta is None:
        return False
    given, moved, sampled = image.type, theta.type, grid.type
    if not isinstance(given, TensorType) or not isinstance(moved, TensorType) or not isinstance(sampled, TensorType):
        return False
    if not given.is_static or not moved.is_static or not sampled.is_static or given.dtype not in (F16, F32):
        return False
    how, corners = sample.attributes, op.attributes["align_corners"]
    return (
        given.dtype is moved.dtype
        and given.rank == 4
        and moved.static_shape == (given.static_shape[0], 2, 3)
        and (how["mode"], how["padding_mode"], how["align_corners"]) == ("linear", "zeros", corners)
        and 1 not in sampled.static_shape[1:3]  # Core ML divides by a size less one
    )


def mean_affine(b: RuleBuilder, m: Bindings) -> Value:
    """GridSample at the grid of the transform; one transform for all images is repeated."""
    if (m.sampling, m.padding, m.coordinates) != ("bilinear", "constant", "normalized_minus_one_to_one"):
        raise Decline("a form that Core ML does not have either")
    shape = m.x.type.shape if isinstance(m.x.type, TensorType) else None
    if shape is None or not all(isinstance(d, int) for d in shape[:2]):
        raise Decline("batch and channels are not known")
    batch, channels = int(shape[0]), int(shape[1])
    theta = b.op("onnx.Reshape", [m.theta, np.array([-1, 2, 3])])
    theta = b.op("onnx.Expand", [theta, np.array([batch, 2, 3])])
    size = np.array([batch, channels, m.height, m.width])
    grid = b.op("onnx.AffineGrid", [theta, size], {"align_corners": int(m.align)})
    attributes = {"mode": "linear", "padding_mode": "zeros", "align_corners": int(m.align)}
    result: Value = b.op("onnx.GridSample", [m.x, grid], attributes)
    return result


def affine_base(space: Sequence[int], corners: bool) -> np.ndarray[Any, Any]:
    """The homogeneous coordinates of all points, (1, points, axes + 1), from −1 to 1 between corners or edges."""
    lines = []
    for size in space:
        centres = np.arange(size, dtype=np.float64)
        lines.append(2 * centres / (size - 1) - 1 if corners else (2 * centres + 1) / size - 1)
    grids = np.meshgrid(*lines, indexing="ij")[::-1]
    return np.stack([*grids, np.ones(space)], axis=-1).reshape(1, -1, len(space) + 1)

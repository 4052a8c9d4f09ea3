"""Sampling that Core ML's resample does not have: elements picked tap by tap, weighted and added up.

Sources: ONNX's GridSample and RoiAlign, and onnxruntime's kernels (grid_sample.cc, roialign.cc) where they are silent.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from compiler.ir import F32, I64, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import dtype_of, shape_of

#: The parameter of GridSample's cubic convolution.
_CUBIC = -0.75

#: Which elements take part along an axis, from the one at or before the place.
_TAPS = {"nearest": (0,), "linear": (0, 1), "cubic": (-1, 0, 1, 2)}


class _Float:
    """Arithmetic on f32 values."""

    def __init__(self, b: RuleBuilder) -> None:
        self._b = b

    def __getattr__(self, name: str) -> Any:
        def made(*operands: Any, **attributes: Any) -> Any:
            given = [np.float32(v) if isinstance(v, (int, float)) else v for v in operands]
            return self._b.op(f"onnx.{name}", given, attributes)

        return made


def grid_sample(b: RuleBuilder, m: Bindings) -> Value:
    """GridSample over two or three dimensions: the places of all taps, one gather, a weighted sum.

    Along an axis, places and weights are (batch, taps, points); taken together, (batch, taps, taps, …, points).
    """
    shape, result = shape_of(m.x), shape_of(m.y)
    batch, channels, sizes = shape[0], shape[1], shape[2:]
    n, points = len(sizes), math.prod(result[2:])
    taps = _TAPS.get(m.mode)
    if taps is None or (m.mode == "cubic" and n != 2):
        raise Decline(f"interpolation is {m.mode} in {n} dimensions")
    o = _Float(b)
    grid = m.grid if dtype_of(m.grid) is F32 else b.op("onnx.Cast", [m.grid], {"to": F32})
    flat: Any = None
    weight: Any = None
    inside: Any = None
    for axis, size in enumerate(sizes):
        g = b.op("onnx.Gather", [grid, np.array(n - 1 - axis)], {"axis": n + 1})
        g = b.op("onnx.Reshape", [g, np.array([batch, 1, points])])
        if m.align:
            at = o.Mul(o.Add(g, 1.0), (size - 1) / 2)
        else:
            at = o.Div(o.Sub(o.Mul(o.Add(g, 1.0), float(size)), 1.0), 2.0)
        low = o.Round(at) if m.mode == "nearest" else o.Floor(at)
        place = o.Add(low, np.array(taps, np.float32).reshape(1, -1, 1))
        apart = [batch, *[len(taps) if a == axis else 1 for a in range(n)], points]
        step = b.op("onnx.Cast", [_padded(o, place, size, m.padding, bool(m.align))], {"to": I64})
        step = b.op("onnx.Reshape", [step, np.array(apart)])
        step = b.op("onnx.Mul", [step, np.array(math.prod(sizes[axis + 1 :]))])
        flat = step if flat is None else b.op("onnx.Add", [flat, step])
        if m.mode != "nearest":
            share = b.op("onnx.Reshape", [_weights(o, o.Sub(at, low), m.mode), np.array(apart)])
            weight = share if weight is None else o.Mul(weight, share)
        if m.padding == "zeros":
            fits = b.op("onnx.And", [o.GreaterOrEqual(place, 0.0), o.LessOrEqual(place, size - 1.0)])
            fits = b.op("onnx.Reshape", [fits, np.array(apart)])
            inside = fits if inside is None else b.op("onnx.And", [inside, fits])
    many = len(taps) ** n
    picked = b.op("onnx.Reshape", [m.x, np.array([batch, channels, math.prod(sizes)])])
    flat = b.op("onnx.Reshape", [flat, np.array([batch, 1, many * points])])
    flat = b.op("onnx.Expand", [flat, np.array([batch, channels, many * points])])
    picked = b.op("onnx.GatherElements", [picked, flat], {"axis": 2})
    picked = b.op("onnx.Reshape", [picked, np.array([batch, channels, many, points])])
    dtype = dtype_of(m.x)
    if inside is not None:
        inside = b.op("onnx.Reshape", [inside, np.array([batch, 1, many, points])])
        picked = b.op("onnx.Where", [inside, picked, np.zeros((), dtype.numpy)])
    if weight is not None:
        weight = b.op("onnx.Reshape", [weight, np.array([batch, 1, many, points])])
        if dtype is not F32:
            weight = b.op("onnx.Cast", [weight], {"to": dtype})
        picked = b.op("onnx.ReduceSum", [b.op("onnx.Mul", [picked, weight]), np.array([2])], {"keepdims": 0})
    sampled: Value = b.op("onnx.Reshape", [picked, np.array(result)])
    return sampled


def _padded(o: _Float, place: Any, size: int, padding: str, align: bool) -> Any:
    """Whole places brought into the axis: those outside are mirrored at the borders, or clamped."""
    if padding == "reflection":
        low, span = (0.0, size - 1.0) if align else (-0.5, float(size))
        if span:
            away = o.Abs(o.Sub(place, low))
            away = o.Sub(away, o.Mul(o.Floor(o.Div(away, 2 * span)), 2 * span))
            place = o.Sub(low + span, o.Abs(o.Sub(away, span)))
    return o.Clip(place, 0.0, size - 1.0)


def _weights(o: _Float, part: Any, mode: str) -> Any:
    """The weights of the taps, (batch, taps, points), for how far a place is behind the element before it."""
    if mode == "linear":
        return o.Concat(o.Sub(1.0, part), part, axis=1)
    near, far = [o.Sub(1.0, part), part], [o.Add(part, 1.0), o.Sub(2.0, part)]
    a = _CUBIC
    outer = [o.Sub(o.Mul(o.Add(o.Mul(o.Sub(o.Mul(a, d), 5 * a), d), 8 * a), d), 4 * a) for d in far]
    inner = [o.Add(o.Mul(o.Sub(o.Mul(a + 2, d), a + 3), o.Mul(d, d)), 1.0) for d in (near[1], near[0])]
    return o.Concat(outer[0], inner[0], inner[1], outer[1], axis=1)


def roi_align(b: RuleBuilder, m: Bindings) -> Value:
    """Means over evenly spread places in each region. What a place sees is bilinear, rows and columns apart, so that a
    region is a product: (rows × height) · features · (width × columns)."""
    batch, _, height, width = shape_of(m.x)
    count = shape_of(m.rois)[0]
    if m.n < 1:
        raise Decline("how many places a region has depends on its size")
    o = _Float(b)
    aligned = m.ct == "half_pixel"
    rois = o.Mul(m.rois, float(m.scale))
    if aligned:
        rois = o.Sub(rois, 0.5)
    matrices = []
    for first, bins, size in ((1, m.h, height), (0, m.w, width)):
        start = b.op("onnx.Slice", [rois, np.array([first]), np.array([first + 1]), np.array([1])])
        end = b.op("onnx.Slice", [rois, np.array([first + 2]), np.array([first + 3]), np.array([1])])
        length = o.Sub(end, start)
        if not aligned:
            length = o.Max(length, np.ones(1, np.float32))
        steps = (np.arange(bins * m.n, dtype=np.float32) + 0.5) / np.float32(bins * m.n)
        at = o.Add(start, o.Mul(length, steps.reshape(1, -1)))  # (regions, places)
        seen = b.op("onnx.And", [o.GreaterOrEqual(at, -1.0), o.LessOrEqual(at, float(size))])
        at = b.op("onnx.Unsqueeze", [o.Clip(at, 0.0, size - 1.0), np.array([2])])
        hat = o.Max(o.Sub(1.0, o.Abs(o.Sub(at, np.arange(size, dtype=np.float32)))), np.zeros(1, np.float32))
        hat = b.op("onnx.Where", [b.op("onnx.Unsqueeze", [seen, np.array([2])]), hat, np.float32(0)])
        hat = b.op("onnx.Reshape", [hat, np.array([count, bins, m.n, size])])
        matrices.append(b.op("onnx.ReduceMean", [hat, np.array([2])], {"keepdims": 0}))
    rows, columns = (b.op("onnx.Unsqueeze", [matrix, np.array([1])]) for matrix in matrices)
    features = m.x if batch == 1 else b.op("onnx.Gather", [m.x, m.which], {"axis": 0})
    columns = b.op("onnx.Transpose", [columns], {"perm": (0, 1, 3, 2)})
    result: Value = b.op("onnx.MatMul", [b.op("onnx.MatMul", [rows, features]), columns])
    return result

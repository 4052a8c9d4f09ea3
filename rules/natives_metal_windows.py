"""Lowering of windows, of resizing and of the selection of boxes to metal.*.

Builders get what a rule matched and give what replaces it; see compiler/rewrite/build.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline, shape
from rules.natives_metal import all_pads, constant_of, reshaped
from rules.natives_pool import window_sizes
from rules.natives_window import windows_start_inside


def max_pool(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.MaxPool; windows that hang over the end see less."""
    return _pool(b, m, "max", False)


def average_pool(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.AveragePool, over what lies inside or over the padded tensor."""
    return _pool(b, m, "mean", not m.i)


def _pool(b: RuleBuilder, m: Bindings, kind: str, inside: bool) -> Value:
    dims, n = shape(m.x), len(m.k)
    strides, dilations = m.s or (1,) * n, m.d or (1,) * n
    if windows_start_inside(m.a, dims[2:], m.k, strides, dilations):
        raise Decline("windows lie so far apart that pads would be negative")
    if m.a.startswith("SAME") and any(d != 1 for d in dilations):
        raise Decline("onnxruntime pads for windows that are not dilated")
    pads = all_pads(m.a, m.p, dims[2:], m.k, strides, dilations)
    if (window_sizes(dims[2:], shape(m.y)[2:], m.k, strides, dilations, pads[:n], [(0, 0)] * n) == 0).any():
        raise Decline("a window sees nothing but pads")
    attributes = {
        "kind": kind,
        "kernel": tuple(m.k),
        "strides": tuple(strides),
        "pads": tuple(pads),
        "dilations": tuple(dilations),
        "inside": inside,
    }
    out: Value = b.op("metal.pool", [m.x], attributes, replaced=(m.y,))
    return out


def resize(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.Resize without a region of interest and without antialiasing."""
    how = m.y.op.attributes
    mode = how["coordinate_transformation_mode"]
    if mode == "tf_crop_and_resize" or how.get("antialias") or how.get("axes") is not None:
        raise Decline("a crop, antialiasing or chosen axes")
    if how.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise Decline("the aspect ratio is kept")
    dims, to = shape(m.x), shape(m.y)
    given = None if m.scales is None else np.asarray(constant_of(m.scales, "scales"))
    scales = [o / i for o, i in zip(to, dims, strict=True)]
    if given is not None and given.size:
        scales = [float(s) for s in given]
    return _resized(
        b, m, how["mode"], scales, mode, how["nearest_mode"], how["cubic_coeff_a"], bool(how["exclude_outside"])
    )


def upsample(b: RuleBuilder, m: Bindings) -> Value:
    """The deprecated onnx.Upsample: a resize with asymmetric coordinates, rounded down."""
    scales = [float(s) for s in np.asarray(constant_of(m.s, "scales")).reshape(-1)]
    return _resized(b, m, m.m, scales, "asymmetric", "floor", -0.75, False)


def _resized(
    b: RuleBuilder, m: Bindings, mode: str, scales: list[float], how: str, rounding: str, cubic: float, exclude: bool
) -> Value:
    if any(not math.isclose(s, 1.0) for s, n, o in zip(scales, shape(m.x), shape(m.y), strict=True) if n == o):
        raise Decline("a dimension is scaled to its own size")
    if shape(m.x) == shape(m.y):
        return m.x
    factors = [
        o // i if o % i == 0 and math.isclose(s, o // i) else 0
        for i, o, s in zip(shape(m.x), shape(m.y), scales, strict=True)
    ]
    if mode == "nearest" and all(_repeats(n, f, how, rounding) for n, f in zip(shape(m.x), factors, strict=True)):
        return _repeated(b, m.x, factors)
    attributes = {
        "mode": mode,
        "scales": tuple(scales),
        "coordinates": how,
        "rounding": rounding,
        "cubic": cubic,
        "exclude": exclude,
    }
    out: Value = b.op("metal.resize", [m.x], attributes, replaced=(m.y,))
    return out


def _repeats(size: int, factor: int, how: str, rounding: str) -> bool:
    """Whether the nearest element to each of ``size · factor`` places is that at the place divided by the factor."""
    if factor <= 1 or how not in ("asymmetric", "half_pixel", "pytorch_half_pixel"):
        return factor == 1
    places = np.arange(size * factor, dtype=np.float64)
    at = places / factor if how == "asymmetric" else (places + 0.5) / factor - 0.5
    rounded = {
        "floor": np.floor(at),
        "ceil": np.ceil(at),
        "round_prefer_floor": np.ceil(at - 0.5),
        "round_prefer_ceil": np.floor(at + 0.5),
    }[rounding]
    return bool(np.array_equal(np.clip(rounded, 0, size - 1), places // factor))


def _repeated(b: RuleBuilder, x: Value, factors: Sequence[int]) -> Value:
    """Each element as often as ``factors`` say along each dimension, side by side."""
    dims = shape(x)
    split = [d for n, f in zip(dims, factors, strict=True) for d in ((n, 1) if f > 1 else (n,))]
    wide = [d for n, f in zip(dims, factors, strict=True) for d in ((n, f) if f > 1 else (n,))]
    if split == wide:
        return x
    spread: Value = b.op("metal.broadcast", [reshaped(b, x, split)], {"shape": tuple(wide)})
    return reshaped(b, spread, [n * f for n, f in zip(dims, factors, strict=True)])


def nms(b: RuleBuilder, m: Bindings) -> Value:
    """onnx.NonMaxSuppression: a buffer for as many rows as there can be, and how many there are."""
    limit = 0 if m.limit is None else int(constant_of(m.limit, "the limit").reshape(-1)[0])
    if limit < 1:
        raise Decline("no box may be chosen")
    attributes = {
        "limit": min(limit, 2**31 - 1),
        "iou": 0.0 if m.iou is None else float(constant_of(m.iou, "the overlap").reshape(-1)[0]),
        "score": -math.inf if m.score is None else float(constant_of(m.score, "the least score").reshape(-1)[0]),
        "center": bool(m.c),
    }
    found = b.op("metal.nms", [m.b, m.s], attributes, results=2)
    out: Value = b.op("metal.trim", list(found))
    return out

"""Resizing where sizes are open: whole factors, for which one mil operator does the same at every size.

The matrices of :mod:`rules.natives_resize_matrix` need sizes; here it is enough that an output lies at a place that
only the factor decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import TensorType, Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives_resize import refuse_copies, spatial
from rules.natives_resize_matrix import nearest_index, onnx_matrix, positions, sampled

#: Sizes at which places are compared. They are linear in the index, and clamped at the ends of the axis.
_SIZES = (1, 2, 3, 7, 64)
_LONGEST = 4096
_ROI = (0.0, 1.0)


def lower_open_resize(b: RuleBuilder, m: Bindings) -> Value:
    """Resize of the last two axes of ``x``: by its matrices where their sizes are known, else by whole factors.

    Raises:
        Decline: it resizes other axes, or no mil operator does the same at every size.
    """
    assert isinstance(m.x.type, TensorType)
    assert isinstance(m.y.type, TensorType)
    before, after = m.x.type.shape, m.y.type.shape
    if (
        before is None
        or after is None
        or len(before) < 3
        or m.r["coordinate_transformation_mode"] == "tf_crop_and_resize"
    ):
        raise Decline("sizes are open")
    scales = _scales(m, before, after)
    if any(s != 1.0 for s in scales[:-2]):
        raise Decline("an axis other than the last two is resized, and sizes are open")
    ends = [(before[i], after[i], scales[i]) for i in (-2, -1)]
    nearest = m.r["mode"] == "nearest"
    if all(isinstance(d, int) for start, end, _ in ends for d in (start, end)):
        matrices = [onnx_matrix(int(start), int(end), scale, _ROI, m.r) for start, end, scale in ends]
        refuse_copies(before, after, dict(zip((-2, -1), matrices)), bool(m.r["antialias"]))
        made = spatial(b, m.x, matrices, nearest)
        if made is None:
            raise Decline("no operator resizes so while other axes are open")
        return made
    if any(scale < 1 or scale != int(scale) for *_, scale in ends):
        raise Decline("a factor is a fraction, and sizes are open")
    factors: dict[str, Any] = {"scale_factor_height": int(ends[0][2]), "scale_factor_width": int(ends[1][2])}
    if nearest:
        if not all(_repeats(f, m.r) for f in factors.values()):
            raise Decline("the nearest input is not the one that is repeated")
        repeated: Value = b.op("mil.upsample_nearest_neighbor", [m.x], factors)
        return repeated
    if m.r["mode"] != "linear" or m.r["antialias"]:
        raise Decline("no operator interpolates so at every size")
    for mode, corners in (("UNALIGN_CORNERS", False), ("STRICT_ALIGN_CORNERS", True)):
        if all(_same_places(f, mode, m.r) for f in factors.values()):
            upsampled: Value = b.op("mil.upsample_bilinear", [m.x], {**factors, "align_corners": corners})
            return upsampled
    raise Decline("no operator interpolates so at every size")


def _scales(m: Bindings, before: tuple[Any, ...], after: tuple[Any, ...]) -> list[float]:
    """The factor of every axis; 1 where the size stays, whatever it is."""
    rank = len(before)
    if m.scales is not None and (m.scales.constant is None or m.scales.constant.size):
        if m.scales.constant is None:
            raise Decline("the scales are computed")
        scales = [1.0] * rank
        for axis, scale in zip(m.r.get("axes") or range(rank), m.scales.constant.reshape(-1)):
            scales[axis] = float(scale)
        return scales
    if m.r["keep_aspect_ratio_policy"] != "stretch":
        raise Decline("the aspect ratio is kept, and sizes are open")
    out = []
    for start, end in zip(before, after):
        if isinstance(start, int) and isinstance(end, int):
            out.append(float(np.float32(end) / np.float32(start)))
        elif start == end and start != "?":
            out.append(1.0)
        else:
            raise Decline("the sizes are computed")
    return out


def _repeats(factor: int, r: Any) -> bool:
    """Whether the nearest input of output ``i`` is input ``i // factor``, at every size."""
    at = positions(_LONGEST, _LONGEST * factor, factor, r["coordinate_transformation_mode"], _ROI)
    index = np.clip(nearest_index(at, r["nearest_mode"]), 0, _LONGEST - 1)
    settled = r["coordinate_transformation_mode"] != "align_corners"  # where the factor depends on the size
    return settled and np.array_equal(index, np.arange(_LONGEST * factor) // factor)


def _same_places(factor: int, mode: str, r: Any) -> bool:
    for size in _SIZES:
        theirs = np.clip(positions(size, size * factor, factor, r["coordinate_transformation_mode"], _ROI), 0, size - 1)
        ours = np.clip(sampled(size, size * factor, mode), 0, size - 1)
        if not np.allclose(theirs, ours, rtol=0, atol=1e-5):
            return False
    return True

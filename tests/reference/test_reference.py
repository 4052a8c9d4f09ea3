"""What the references of MIL operators compute, against numbers that coremltools gives in its documentation and in its
own tests, which Apple runs on Core ML (converters/mil/mil/ops/tests)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compiler import reference
from compiler.reference.sampling import grid

DEPTH = np.array([9, 5, 1, 3], np.float32).reshape(1, 4, 1, 1)


@pytest.mark.parametrize(
    ("mode", "out", "points"),
    [
        ("UNALIGN_CORNERS", 5, [0.0, 0.1, 0.5, 0.9, 1.0]),
        ("STRICT_ALIGN_CORNERS", 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("ALIGN_CORNERS", 5, [0.0, 0.25, 0.5, 0.75, 1.0]),
        ("DEFAULT", 5, [0.0, 0.4, 0.8, 1.0, 1.0]),
        ("OFFSET_CORNERS", 5, [0.1, 0.3, 0.5, 0.7, 0.9]),
        ("UNALIGN_CORNERS", 6, [0.0, 0.0, 0.33, 0.67, 1.0, 1.0]),
        ("STRICT_ALIGN_CORNERS", 6, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ("DEFAULT", 6, [0.0, 0.33, 0.67, 1.0, 1.0, 1.0]),
        ("OFFSET_CORNERS", 6, [0.08, 0.25, 0.42, 0.58, 0.75, 0.92]),
    ],
)
def test_grid_points_of_the_documentation(mode: str, out: int, points: list[float]) -> None:
    np.testing.assert_allclose(grid(2, out, mode), points, atol=0.005)


@pytest.mark.parametrize(
    ("name", "inputs", "expected"),
    [
        (
            "scatter",
            {
                "data": np.array([[1, 2, 3], [4, 5, 6]], np.float32),
                "indices": np.array([1, 0]),
                "updates": np.array([[5, 6, 7], [8, 9, 10]], np.float32),
                "axis": 0,
                "mode": "add",
            },
            [[9, 11, 13], [9, 11, 13]],
        ),
        (
            "crop",
            {
                "x": np.arange(1, 17, dtype=np.float32).reshape(1, 1, 4, 4),
                "crop_height": (0, 1),
                "crop_width": (1, 1),
            },
            [[[[2, 3], [6, 7], [10, 11]]]],
        ),
        (
            "upsample_bilinear",
            {"x": np.array([[[0, 1]]], np.float32), "scale_factor_width": 3, "align_corners": True},
            [[[0, 0.2, 0.4, 0.6, 0.8, 1]]],
        ),
        ("depth_to_space", {"x": DEPTH, "block_size": 2}, [[[[9, 5], [1, 3]]]]),
        ("pixel_shuffle", {"x": DEPTH, "upscale_factor": 2}, [[[[9, 5], [1, 3]]]]),
        (
            "sliding_windows",
            {"x": DEPTH, "axis": 1, "size": 2},
            np.array([9, 5, 5, 1, 1, 3]).reshape(1, 3, 2, 1, 1),
        ),
        (
            "l2_pool",
            {
                "x": np.arange(1, 5, dtype=np.float32).reshape(1, 1, 2, 2),
                "kernel_sizes": (2, 2),
                "pad_type": "same_lower",
            },
            [[[[1, 2.236068], [3.162278, 5.477226]]]],
        ),
    ],
)
def test_results_that_core_ml_gave(name: str, inputs: dict[str, Any], expected: Any) -> None:
    found = reference.compute(name, inputs)
    assert found is not None
    np.testing.assert_allclose(found[0], expected, rtol=1e-6)


def test_the_limit_of_clamped_relu_may_be_negative() -> None:
    x, one, low = (np.array(v, np.float32) for v in ([1.0, -2.0], 1.0, -1.0))
    found = reference.compute("clamped_relu", {"x": x, "alpha": one, "beta": low})
    assert found is not None
    np.testing.assert_array_equal(found[0], [-1.0, -2.0])


def test_what_is_not_here_is_none() -> None:
    assert reference.compute("no_such_operator", {}) is None

"""A slice of benchmarks/resize.py, and where onnxruntime's Resize is not its definition."""

from __future__ import annotations

import numpy as np

from benchmarks import resize
from rules import natives_resize_matrix
from tests.rules.harness import C, check, rand, refuses


def operands(x, scales, roi=None):
    return [x, None if roi is None else C(np.array(roi, np.float32)), C(np.array(scales, np.float32))]


def test_random_resizes_are_right_or_refused():
    found = resize.sweep(50, seed=5)
    assert not [why for verdict, why in found if verdict == "wrong"]
    assert found["right", ""] >= 40


def test_a_wrong_resize_is_found(monkeypatch):
    monkeypatch.setattr(natives_resize_matrix, "nearest_index", lambda at, mode: np.floor(at))
    assert any(verdict == "wrong" for verdict, _ in resize.sweep(15, seed=5))


def test_what_is_almost_in_the_middle_is_the_middle():
    x = np.arange(9, dtype=np.float32)  # 4.5 / 0.6 is 7.4999995 in single precision
    for nearest in resize.NEAREST:
        check(
            "Resize",
            operands(x, [0.6]),
            {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": nearest},
        )


def test_nearest_in_a_region_by_fractions():
    for scale in (1.5, 0.7, 2.5):
        check(
            "Resize",
            operands(rand(1, 2, 7, 9), [1, 1, scale, scale], [0, 0, 0.05, 0.2, 1, 1, 0.98, 0.7]),
            {"coordinate_transformation_mode": "tf_crop_and_resize", "nearest_mode": "round_prefer_ceil"},
        )


def test_what_onnxruntime_copies_is_refused():
    refuses("Resize", operands(rand(4, 2), [1, 1.3]), {"mode": "linear"})
    refuses("Resize", operands(rand(3, 6), [1.3, 2.5]), {"mode": "linear", "antialias": 1})
    check("Resize", operands(rand(3, 6), [1.3, 2.5]), {"mode": "linear"})

"""Operators that pick or place single elements: lowered, given their meaning back, and run beside the original."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rules.harness import C, check, rand, refuses

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def grid(*shape, seed=3):
    return 1.4 * np.tanh(rand(*shape, seed=seed))


@pytest.mark.parametrize(
    ("columns", "image", "block", "attributes"),
    [
        (9, [5, 5], [3, 3], {}),
        (4, [5, 6], [3, 3], {"strides": (2, 2)}),
        (6, [4, 5], [2, 3], {"strides": (2, 1), "pads": (0, 0, 1, 0)}),
        (4, [6, 6], [2, 2], {"dilations": (1, 5), "strides": (2, 1), "pads": (1, 0, 1, 0)}),
    ],
)
def test_overlapping_blocks_are_added_up(columns, image, block, attributes):
    x = rand(2, 3 * block[0] * block[1], columns)
    check("Col2Im", [x, C(np.array(image)), C(np.array(block))], attributes, **CLOSE)


def test_blocks_of_one_and_three_dimensions():
    check("Col2Im", [rand(1, 6, 3), C(np.array([8])), C(np.array([3]))], {"strides": (2,)}, **CLOSE)
    check("Col2Im", [rand(1, 16, 12), C(np.array([4, 3, 3])), C(np.array([2, 2, 2]))], **CLOSE)


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": (2, 3), "strides": (2, 1), "pads": (1, 0, 0, 2)},
        {"kernel_shape": (2, 2), "dilations": (2, 3)},
        {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1},
        {"kernel_shape": (3, 2), "auto_pad": "SAME_UPPER"},
    ],
)
def test_indices_of_a_pool(attributes, order):
    check("MaxPool", [rand(2, 3, 7, 8)], {**attributes, "storage_order": order}, results=2)


def test_indices_of_the_first_of_equal_elements():
    x = np.round(rand(1, 2, 6, 6))
    check("MaxPool", [x], {"kernel_shape": (3, 3), "strides": (1, 1)}, results=2)
    check("MaxPool", [np.round(rand(1, 2, 9))], {"kernel_shape": (3,)}, results=2)
    check("MaxPool", [np.round(rand(1, 2, 3, 4, 5))], {"kernel_shape": (2, 2, 2)}, results=2)


def test_unpooling():
    x, places = rand(1, 2, 2, 2), np.array([0, 3, 8, 14, 17, 18, 24, 31]).reshape(1, 2, 2, 2)
    shape = {"kernel_shape": (2, 2), "strides": (2, 2)}
    check("MaxUnpool", [x, places], shape)
    check("MaxUnpool", [x, places, C(np.array([1, 2, 4, 4]))], shape)
    refuses("MaxUnpool", [x, places, C(np.array([1, 2, 5, 5]))], shape)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 3), (4, 2, 2), (2, 3, 3, 3)])
def test_determinants(shape):
    check("Det", [rand(*shape)], **CLOSE)


def test_determinants_of_large_matrices_are_refused():
    refuses("Det", [rand(2, 4, 4)])


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [0, 1])
def test_sampling_tap_by_tap(padding, align):
    attributes = {"align_corners": align, "padding_mode": padding}
    check("GridSample", [rand(2, 3, 5, 4), grid(2, 3, 4, 2)], {**attributes, "mode": "cubic"}, **CLOSE)
    for mode in ("linear", "nearest"):
        check("GridSample", [rand(2, 3, 4, 5, 3), grid(2, 2, 3, 2, 3)], {**attributes, "mode": mode}, **CLOSE)


def test_sampling_along_an_axis_of_one_element():
    for padding in ("border", "reflection"):
        attributes = {"align_corners": 1, "padding_mode": padding, "mode": "linear"}
        check("GridSample", [rand(1, 2, 1, 4, 3), grid(1, 2, 3, 2, 3)], attributes, **CLOSE)


@pytest.mark.parametrize("coordinates", ["half_pixel", "output_half_pixel"])
def test_regions(coordinates):
    x = rand(2, 3, 6, 7)
    rois = np.array([[0, 0, 8, 10], [3, 1, 12, 4], [-6, -4, 3, 2], [5, 5, 5.2, 5.1], [9, 9, 30, 30]], np.float32)
    which = np.array([1, 0, 1, 0, 1])
    attributes = {
        "coordinate_transformation_mode": coordinates, "output_height": 2, "output_width": 3, "sampling_ratio": 2,
        "spatial_scale": 0.5,
    }  # fmt: skip
    check("RoiAlign", [x, rois, which], attributes, **CLOSE)
    check("RoiAlign", [x[:1], rois, 0 * which], {**attributes, "sampling_ratio": 1}, **CLOSE)
    refuses("RoiAlign", [x, rois, which], {**attributes, "sampling_ratio": 0})
    refuses("RoiAlign", [x, rois, which], {**attributes, "mode": "max"})


# ---- detection


@pytest.mark.parametrize("center", [0, 1])
@pytest.mark.parametrize("images", [1, 2])
def test_boxes_that_do_not_overlap_better_ones(center: int, images: int) -> None:
    rng = np.random.default_rng(center)
    boxes = rng.random((images, 40, 4)).astype(np.float32)
    scores = rng.random((images, 3, 40)).astype(np.float32)
    for most, score in ((5, 0.6), (40, 0.0), (99, 0.95)):
        given = [boxes, scores, C(np.array([most])), C(np.float32([0.3])), C(np.float32([score]))]
        check("NonMaxSuppression", given, {"center_point_box": center}, os=["ios17", "ios18"])
    check("NonMaxSuppression", [boxes, scores, C(np.array([3])), C(np.float32([0.5]))], os="ios18")


def test_boxes_are_chosen_by_thresholds_that_are_known() -> None:
    rng = np.random.default_rng(0)
    boxes, scores = rng.random((1, 9, 4)).astype(np.float32), rng.random((1, 1, 9)).astype(np.float32)
    known = [C(np.array([3])), C(np.float32([0.5])), C(np.float32([0.1]))]
    refuses("NonMaxSuppression", [boxes, scores, *known], os="ios16")
    refuses("NonMaxSuppression", [boxes, scores, known[0], np.float32([0.5]), known[2]])
    refuses("NonMaxSuppression", [boxes, scores, C(np.array([0])), *known[1:]])

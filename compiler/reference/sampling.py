"""Images at other sizes and at computed places.

Source: the documentation of each operator in coremltools (converters/mil/mil/ops/defs/iOS15/image_resizing.py and
iOS16/image_resizing.py), which gives the grid points of each mode.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def grid(size: int, out: int, mode: str) -> Array:
    """The places at which a line of ``size`` elements is sampled."""
    i = np.arange(out)
    match mode:
        case "STRICT_ALIGN_CORNERS" | "ALIGN_CORNERS":
            points = i * ((size - 1) / (out - 1)) if out > 1 else np.zeros(1)
            if out == 1 and mode == "ALIGN_CORNERS":
                points = np.full(1, (size - 1) / 2)
        case "DEFAULT":
            points = i * ((size - size / out) / (out - 1)) if out > 1 else np.zeros(1)
        case "OFFSET_CORNERS":
            delta = max(1, size - 1) / out
            points = 0.5 * delta + i * delta
        case "UNALIGN_CORNERS":
            spacing = size / out
            points = i * spacing + 0.5 * spacing - 0.5
        case _:
            raise ValueError(mode)
    return np.clip(points, 0, size - 1)


def _along(x: Array, points: Array, axis: int) -> Array:
    """Linear interpolation at places inside."""
    low = np.floor(points).astype(int)
    high = np.minimum(low + 1, x.shape[axis] - 1)
    weight = (points - low).reshape(-1, *(1,) * (x.ndim - 1 - axis % x.ndim))
    return np.asarray(np.take(x, low, axis=axis) * (1 - weight) + np.take(x, high, axis=axis) * weight)


def resize_bilinear(
    x: Array, target_size_height: int = 1, target_size_width: int = 1, sampling_mode: str = "DEFAULT"
) -> Array:
    y = _along(x, grid(x.shape[-2], target_size_height, sampling_mode), -2)
    return _along(y, grid(x.shape[-1], target_size_width, sampling_mode), -1)


def resize(
    x: Array, shape: Array, resized_dims: int, interpolation_mode: str = "LINEAR", sampling_mode: str = "DEFAULT"
) -> Array:
    if interpolation_mode != "LINEAR":
        raise ValueError(interpolation_mode)
    for k in range(1, int(resized_dims) + 1):
        wanted = int(shape[-k])
        if wanted:
            x = _along(x, grid(x.shape[-k], wanted, sampling_mode), -k)
    return x


def upsample_bilinear(
    x: Array,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Array:
    """Neither corners aligned nor half pixels: tf.raw_ops.ResizeBilinear, whose grid is that of ``DEFAULT``."""
    centers = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and centers:
        raise ValueError("corners are aligned or pixels have half centers")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if centers else "DEFAULT"
    height = int(np.floor(x.shape[-2] * np.float32(scale_factor_height)))
    width = int(np.floor(x.shape[-1] * np.float32(scale_factor_width)))
    return resize_bilinear(x, height, width, mode)


def upsample_nearest_neighbor(x: Array, scale_factor_height: float = 1, scale_factor_width: float = 1) -> Array:
    """By whole factors, each element so often in a row."""
    if scale_factor_height != int(scale_factor_height) or scale_factor_width != int(scale_factor_width):
        raise ValueError("factors that are not whole")
    return x.repeat(int(scale_factor_height), axis=-2).repeat(int(scale_factor_width), axis=-1)


def _read(image: Array, i: Array, j: Array, padding: str, border: float) -> Array:
    """Elements of (channels, height, width) at whole places, which may lie outside."""

    def folded(k: Array, n: int) -> Any:
        if padding == "border":
            return np.clip(k, 0, n - 1)
        if padding == "symmetric":
            k = np.mod(k, 2 * n)
            return np.minimum(k, 2 * n - 1 - k)
        if n == 1:
            return np.zeros_like(k)
        k = np.mod(k, 2 * (n - 1))
        return np.minimum(k, 2 * (n - 1) - k)

    h, w = image.shape[1:]
    if padding == "constant":
        outside = (i < 0) | (i >= h) | (j < 0) | (j >= w)
        return np.asarray(np.where(outside, border, image[:, np.clip(i, 0, h - 1), np.clip(j, 0, w - 1)]))
    return np.asarray(image[:, folded(i, h), folded(j, w)])


def _sampled(image: Array, y: Array, x: Array, sampling: str, padding: str, border: float) -> Array:
    if sampling == "nearest":
        return _read(image, np.rint(y).astype(int), np.rint(x).astype(int), padding, border)
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    dy, dx = y - i, x - j
    return np.asarray(
        _read(image, i, j, padding, border) * (1 - dy) * (1 - dx)
        + _read(image, i, j + 1, padding, border) * (1 - dy) * dx
        + _read(image, i + 1, j, padding, border) * dy * (1 - dx)
        + _read(image, i + 1, j + 1, padding, border) * dy * dx
    )


def _pixels(g: Array, size: int, mode: str, align: bool) -> Array:
    """Coordinates in pixels. Aligned, the extremes are the centers of the outermost pixels, else their edges."""
    if mode == "unnormalized":
        return g
    if mode == "normalized_zero_to_one":
        g = 2 * g - 1
    return (g + 1) / 2 * (size - 1) if align else ((g + 1) * size - 1) / 2


def resample(
    x: Array,
    coordinates: Array,
    padding_value: Any,
    sampling_mode: str,
    padding_mode: str,
    coordinates_mode: str,
    align_corners: bool,
) -> Array:
    out = []
    for image, at in zip(x, coordinates.astype(np.float64)):
        across = _pixels(at[..., 0], x.shape[3], coordinates_mode, align_corners)
        down = _pixels(at[..., 1], x.shape[2], coordinates_mode, align_corners)
        out.append(_sampled(image, down, across, sampling_mode, padding_mode, float(padding_value)))
    return np.stack(out)


def affine(
    x: Array,
    transform_matrix: Array,
    padding_value: Any,
    output_height: int,
    output_width: int,
    sampling_mode: str,
    padding_mode: str,
    coordinates_mode: str,
    align_corners: bool,
) -> Array:
    def normalized(n: int) -> Array:
        i = np.arange(n)
        if align_corners:
            return np.asarray(2 * i / (n - 1) - 1) if n > 1 else np.full(1, -1.0)
        return np.asarray((2 * i + 1) / n - 1)

    across, down = np.meshgrid(normalized(output_width), normalized(output_height))
    matrices = np.broadcast_to(transform_matrix, (x.shape[0], 6))
    places = [np.stack([a * across + b * down + c, d * across + e * down + f], -1) for a, b, c, d, e, f in matrices]
    at = np.stack(places)
    return resample(x, at, padding_value, sampling_mode, padding_mode, coordinates_mode, align_corners)


def resize_nearest_neighbor(x: Array, target_size_height: int, target_size_width: int) -> Array:
    """To whole multiples; of others nobody says which element is the nearest."""
    height, width = x.shape[-2:]
    if not target_size_height or target_size_height % height or not target_size_width or target_size_width % width:
        raise ValueError("factors that are not whole")
    return upsample_nearest_neighbor(x, target_size_height // height, target_size_width // width)


def crop_resize(
    x: Array,
    roi: Array | None = None,
    boxes: Array | None = None,
    box_indices: Array | None = None,
    target_height: int = 1,
    target_width: int = 1,
    normalized_coordinates: bool = False,
    spatial_scale: float = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: float = 0.0,
) -> Array:
    """Boxes whose corners are samples: of the other modes it is said where they sample an image, and not a box.

    A sample outside the image is ``pad_value``, as of tf.image.crop_and_resize, to which the documentation refers.
    """
    if sampling_mode not in ("ALIGN_CORNERS", "STRICT_ALIGN_CORNERS"):
        raise ValueError(sampling_mode)

    def crop(image: Array, box: Array) -> Array:
        p, q, r, s = (float(v) for v in box)
        if box_coordinate_mode.endswith("WIDTH_FIRST"):
            p, q, r, s = q, p, s, r
        if box_coordinate_mode.startswith("CENTER_SIZE"):
            p, q, r, s = p - r / 2, q - s / 2, p + r / 2, q + s / 2
        alone = 0.5 if sampling_mode == "ALIGN_CORNERS" else 0.0

        def line(start: float, end: float, count: int, size: int) -> Array:
            share = np.linspace(0, 1, count) if count > 1 else np.full(1, alone)
            unit = (size - 1 if normalized_coordinates else 1) * spatial_scale
            return np.asarray((start * (1 - share) + end * share) * unit)

        height, width = image.shape[1:]
        down, across = line(p, r, target_height, height), line(q, s, target_width, width)
        inside = ((down >= 0) & (down <= height - 1))[:, None] & ((across >= 0) & (across <= width - 1))
        y = _along(image, np.clip(down, 0, height - 1), -2)
        return np.asarray(np.where(inside, _along(y, np.clip(across, 0, width - 1), -1), pad_value))

    if roi is None:
        assert boxes is not None
        at = range(len(boxes)) if box_indices is None else box_indices.tolist()
        return np.stack([crop(x[i], box) for i, box in zip(at, boxes, strict=True)])
    rows = roi.reshape(len(roi), -1)
    if rows.shape[1] == 5:
        return np.stack([crop(x[int(row[0])], row[1:])[None] for row in rows])
    return np.stack([np.stack([crop(image, box) for image in x]) for box in rows])


OPERATORS = {
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "crop_resize": crop_resize,
    "resize_bilinear": resize_bilinear,
    "resize": resize,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
    "resample": resample,
    "affine": affine,
}

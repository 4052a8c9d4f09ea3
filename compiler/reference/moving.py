"""Elements put elsewhere: crops, windows, gathers, scatters, depth and space.

Source: the documentation of each operator in coremltools (converters/mil/mil/ops/defs/iOS15/scatter_gather.py,
tensor_transformation.py, tensor_operation.py, image_resizing.py), where nothing else is said.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

_MODES = {
    "update": lambda old, new: new,
    "add": lambda old, new: old + new,
    "sub": lambda old, new: old - new,
    "mul": lambda old, new: old * new,
    "div": lambda old, new: old / new,
    "max": np.maximum,
    "min": np.minimum,
}


def crop(x: Array, crop_height: Sequence[int], crop_width: Sequence[int]) -> Array:
    top, bottom = crop_height
    left, right = crop_width
    return x[..., top : x.shape[-2] - bottom, left : x.shape[-1] - right]


def concat(values: Sequence[Array], axis: int, interleave: bool = False) -> Array:
    """``interleave``: one slice of each in turn. coremltools does not look at it when it computes."""
    if not interleave:
        return np.concatenate([np.atleast_1d(v) for v in values], axis=axis)
    slices = [np.take(v, [i], axis=axis) for i in range(values[0].shape[axis]) for v in values]
    return np.concatenate(slices, axis=axis)


def sliding_windows(x: Array, axis: int, size: int, stride: int = 1) -> Array:
    axis %= x.ndim
    starts = range(0, x.shape[axis] - size + 1, stride)
    return np.stack([np.take(x, range(i, i + size), axis=axis) for i in starts], axis=axis)


def reverse_sequence(x: Array, lengths: Array, seq_axis: int = 0, batch_axis: int = 0) -> Array:
    """The first ``lengths[i]`` elements along ``seq_axis``, in slice ``i`` of ``batch_axis``, the other way round."""
    out = np.moveaxis(x.copy(), (batch_axis, seq_axis), (0, 1))
    for i, n in enumerate(lengths.tolist()):
        if not 0 <= n <= out.shape[1]:
            raise ValueError("a length is out of range")
        out[i, :n] = out[i, :n][::-1].copy()
    return np.moveaxis(out, (0, 1), (batch_axis, seq_axis))


def slice_by_size(x: Array, begin: Array, size: Array) -> Array:
    """-1 takes what remains. A begin before the end is meant from there; one that lies outside is an error, where
    coremltools cuts off what it can; so are both together, of which coremltools infers more elements than it takes."""
    cut = []
    for d, b, n in zip(x.shape, begin.tolist(), size.tolist(), strict=True):
        at = b + d if b < 0 else b
        if not 0 <= at <= d or n < -1 or at + max(n, 0) > d or (b < 0 and n == -1):
            raise ValueError("a slice lies outside")
        cut.append(slice(at, d if n == -1 else at + n))
    return x[tuple(cut)]


def range_1d(end: Array, start: Array, step: Array) -> Array:
    """From ``start`` in steps to before ``end``. coremltools computes the step of NumPy's arange in the element type:
    in half precision some hundred elements on it is off by several steps."""
    first, by = start.item(), step.item()
    count = max(int(np.ceil((end.item() - first) / by)), 0)
    return np.asarray(first + by * np.arange(count), dtype=start.dtype)


def one_hot(indices: Array, one_hot_vector_size: Array, axis: int = -1, on_value: Any = 1, off_value: Any = 0) -> Array:
    """What lies outside is off everywhere."""
    hot = np.stack([indices == i for i in range(int(one_hot_vector_size))], axis=axis)
    return np.asarray(np.where(hot, on_value, off_value))


def _modes(mode: str, dtype: np.dtype[Any]) -> Any:
    if mode == "div" and dtype.kind in "iu":
        return lambda old, new: np.trunc(old / new).astype(dtype)
    return _MODES[mode]


def scatter(
    data: Array, indices: Array, updates: Array, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Array:
    out, by = np.moveaxis(data.copy(), axis, 0), np.moveaxis(updates, axis, 0)
    join = _modes(mode, data.dtype)
    for i, at in enumerate(indices.tolist()):
        out[at] = join(out[at], by[i])
    return np.moveaxis(out, 0, axis)


def scatter_along_axis(
    data: Array, indices: Array, updates: Array, axis: int = 0, mode: str = "add", validate_indices: bool = False
) -> Array:
    """coremltools computes ``update``, whatever the mode is."""
    out = data.copy()
    join = _modes(mode, data.dtype)
    for at in itertools.product(*(range(n) for n in indices.shape)):
        to = list(at)
        to[axis] = int(indices[at])
        out[tuple(to)] = join(out[tuple(to)], updates[at])
    return out


def scatter_nd(data: Array, indices: Array, updates: Array, mode: str = "add", validate_indices: bool = False) -> Array:
    out = data.copy()
    join = _modes(mode, data.dtype)
    for at in itertools.product(*(range(n) for n in indices.shape[:-1])):
        to = tuple(indices[at].tolist())
        out[to] = join(out[to], updates[at])
    return out


def gather_nd(x: Array, indices: Array, batch_dims: int = 0, validate_indices: bool = False) -> Array:
    inner = x.shape[batch_dims + indices.shape[-1] :]
    out = np.zeros((*indices.shape[:-1], *inner), x.dtype)
    for at in itertools.product(*(range(n) for n in indices.shape[:-1])):
        out[at] = x[(*at[:batch_dims], *indices[at].tolist())]
    return out


def depth_to_space(x: Array, block_size: int) -> Array:
    """Channels are (row in the block, column in the block, channel): tf.nn.depth_to_space."""
    n, c, h, w = x.shape
    b = block_size
    return x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // b**2, h * b, w * b)


def space_to_depth(x: Array, block_size: int) -> Array:
    n, c, h, w = x.shape
    b = block_size
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b**2, h // b, w // b)


def pixel_shuffle(x: Array, upscale_factor: int) -> Array:
    """Channels are (channel, row in the block, column in the block): torch.nn.PixelShuffle."""
    n, c, h, w = x.shape
    f = upscale_factor
    return x.reshape(n, c // f**2, f, f, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // f**2, h * f, w * f)


def pixel_unshuffle(x: Array, downscale_factor: int) -> Array:
    n, c, h, w = x.shape
    f = downscale_factor
    return x.reshape(n, c, h // f, f, w // f, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f**2, h // f, w // f)


def space_to_batch(x: Array, block_shape: Array, paddings: Array) -> Array:
    """The documentation gives shapes; the order of batches is that of tf.space_to_batch_nd, which is mapped to it."""
    (down, across), pads = (int(b) for b in block_shape), np.asarray(paddings).tolist()
    x = np.pad(x, [(0, 0), (0, 0), *pads])
    if x.shape[2] % down or x.shape[3] % across:
        raise ValueError("blocks do not fill the image")
    return np.concatenate([x[:, :, i::down, j::across] for i in range(down) for j in range(across)])


def batch_to_space(x: Array, block_shape: Array, crops: Array) -> Array:
    down, across = (int(b) for b in block_shape)
    (top, bottom), (left, right) = np.asarray(crops).tolist()
    n, height, width = x.shape[0] // (down * across), x.shape[2] * down, x.shape[3] * across
    if min(top, bottom, left, right) < 0 or top + bottom >= height or left + right >= width:
        raise ValueError("more is cropped than there is")
    out = np.zeros((n, x.shape[1], height, width), x.dtype)
    for i in range(down):
        for j in range(across):
            out[:, :, i::down, j::across] = x[(i * across + j) * n :][:n]
    return out[:, :, top : height - bottom, left : width - right]


def reshape_like(
    x: Array, ref_tensors: Sequence[Array], begins: Sequence[int], ends: Sequence[int], end_masks: Sequence[bool]
) -> Array:
    shape: list[int] = []
    for ref, begin, end, whole in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape += ref.shape[begin:] if whole else ref.shape[begin:end]
    return x.reshape(shape)


OPERATORS = {
    "space_to_batch": space_to_batch,
    "batch_to_space": batch_to_space,
    "reshape_like": reshape_like,
    "crop": crop,
    "concat": concat,
    "sliding_windows": sliding_windows,
    "reverse_sequence": reverse_sequence,
    "slice_by_size": slice_by_size,
    "range_1d": range_1d,
    "one_hot": one_hot,
    "scatter": scatter,
    "scatter_along_axis": scatter_along_axis,
    "scatter_nd": scatter_nd,
    "gather_nd": gather_nd,
    "depth_to_space": depth_to_space,
    "space_to_depth": space_to_depth,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
}

"""Convolution, pooling, normalization, activations.

Source, if nothing else is said: the documentation of each operator in coremltools
(converters/mil/mil/ops/defs/iOS15/conv.py, pool.py, normalization.py, activation.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def window_pads(
    pad_type: str,
    pad: Sequence[int] | None,
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]]:
    """Elements before and after each spatial dimension. ``same``: ``d_out = ceil(d_in / stride)``, and what is odd goes
    behind (``same_lower``: in front)."""
    if pad_type == "valid":
        return [(0, 0)] * len(sizes)
    if pad_type == "custom":
        flat = list(pad) if pad is not None else [0] * (2 * len(sizes))
        return list(zip(flat[::2], flat[1::2]))
    out = []
    for d, k, s, e in zip(sizes, kernel, strides, dilations):
        total = max(0, (-(-d // s) - 1) * s + (k - 1) * e + 1 - d)
        small, large = total // 2, total - total // 2
        out.append((small, large) if pad_type == "same" else (large, small))
    return out


def _padded(x: Array, pads: Sequence[tuple[int, int]], value: float) -> Array:
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=value)


def _places(sizes: Sequence[int]) -> Iterator[Any]:
    return itertools.product(*(range(n) for n in sizes))


def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Any = None,
    pad_type: str = "valid",
    pad: Any = None,
    dilations: Any = None,
    groups: int = 1,
) -> Array:
    n = x.ndim - 2
    strides, dilations = strides or (1,) * n, dilations or (1,) * n
    kernel = weight.shape[2:]
    pads = window_pads(pad_type, pad, x.shape[2:], kernel, strides, dilations)
    x = _padded(x, pads, 0.0)
    sizes = [(x.shape[2 + i] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i in range(n)]
    per_in, per_out = x.shape[1] // groups, weight.shape[0] // groups
    out = np.zeros((x.shape[0], weight.shape[0], *sizes))
    for at in _places(sizes):
        cut = tuple(slice(p * s, p * s + (k - 1) * d + 1, d) for p, s, k, d in zip(at, strides, kernel, dilations))
        window = x[(slice(None), slice(None), *cut)].reshape(x.shape[0], groups, -1)
        w = weight.reshape(groups, per_out, -1)
        assert window.shape[2] == per_in * int(np.prod(kernel))
        out[(slice(None), slice(None), *at)] = np.einsum("bgk,gok->bgo", window, w).reshape(x.shape[0], -1)
    return out if bias is None else out + bias.reshape(-1, *(1,) * n)


def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Any = None,
    output_shape: Any = None,
    pad_type: str = "valid",
    strides: Any = None,
    dilations: Any = None,
    groups: int = 1,
) -> Array:
    """Each input adds the kernel, scaled by it, to the output; pads are cut off. ``same``: stride times the input, as
    the gradient of the conv that has such an input: what is odd is cut off behind. An ``output_shape`` says where the
    end is; what nothing adds to is zero."""
    n = x.ndim - 2
    strides, dilations = strides or (1,) * n, dilations or (1,) * n
    kernel = weight.shape[2:]
    full = [(x.shape[2 + i] - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 for i in range(n)]
    if pad_type == "same":
        total = [f - x.shape[2 + i] * strides[i] for i, f in enumerate(full)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = window_pads(pad_type, pad, x.shape[2:], kernel, strides, dilations)
    sizes = [f - a - b for f, (a, b) in zip(full, pads)]
    if output_shape is not None:
        sizes = list(output_shape)[2:]
    room = [max(f, a + s) for f, (a, _), s in zip(full, pads, sizes)]
    channels = weight.shape[1] * groups
    out = np.zeros((x.shape[0], channels, *room))
    grouped = weight.reshape(groups, -1, *weight.shape[1:])
    for at in _places(x.shape[2:]):
        values = x[(slice(None), slice(None), *at)].reshape(x.shape[0], groups, -1)
        added = np.einsum("bgi,gio...->bgo...", values, grouped).reshape(x.shape[0], channels, *kernel)
        cut = tuple(slice(p * s, p * s + (k - 1) * d + 1, d) for p, s, k, d in zip(at, strides, kernel, dilations))
        out[(slice(None), slice(None), *cut)] += added
    out = out[(slice(None), slice(None), *(slice(a, a + s) for (a, _), s in zip(pads, sizes)))]
    return out if bias is None else out + bias.reshape(-1, *(1,) * n)


def _pooled(x: Array, kernel: Any, strides: Any, pad_type: str, pad: Any, ceil_mode: bool, fill: float) -> Any:
    """The windows of each place, and for each how many elements are padding that counts; where it rounds up, windows
    reach over the end into nothing."""
    n = x.ndim - 2
    strides = strides or (1,) * n
    pads = window_pads(pad_type, pad, x.shape[2:], kernel, strides, (1,) * n)
    sizes = []
    for i in range(n):
        room = x.shape[2 + i] + sum(pads[i]) - kernel[i]
        size = room // strides[i] + 1
        if ceil_mode:
            size = -(-room // strides[i]) + 1
            if (size - 1) * strides[i] >= x.shape[2 + i] + pads[i][0] and sum(pads[i]) > 0:
                size -= 1
        sizes.append(size)
    padded = _padded(x, pads, fill)
    inside = _padded(np.ones((1, 1, *x.shape[2:])), pads, 0.0)
    return padded, inside, sizes, strides


def _windows(x: Array, kernel: Any, strides: Any, sizes: Sequence[int]) -> Iterator[tuple[Any, Array]]:
    for at in _places(sizes):
        cut = tuple(slice(p * s, p * s + k) for p, s, k in zip(at, strides, kernel))
        yield at, x[(slice(None), slice(None), *cut)].reshape(*x.shape[:2], -1)


def max_pool(
    x: Array, kernel_sizes: Any, strides: Any = None, pad_type: str = "valid", pad: Any = None, ceil_mode: bool = False
) -> Array:
    padded, _, sizes, strides = _pooled(x, kernel_sizes, strides, pad_type, pad, ceil_mode, -np.inf)
    out = np.zeros((*x.shape[:2], *sizes))
    for at, window in _windows(padded, kernel_sizes, strides, sizes):
        out[(slice(None), slice(None), *at)] = window.max(axis=2)
    return out


def avg_pool(
    x: Array,
    kernel_sizes: Any,
    strides: Any = None,
    pad_type: str = "valid",
    pad: Any = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Array:
    padded, inside, sizes, strides = _pooled(x, kernel_sizes, strides, pad_type, pad, ceil_mode, 0.0)
    out = np.zeros((*x.shape[:2], *sizes))
    counts = {at: w.sum() for at, w in _windows(inside, kernel_sizes, strides, sizes)}
    for at, window in _windows(padded, kernel_sizes, strides, sizes):
        count = counts[at] if exclude_padding_from_average else window.shape[2]
        out[(slice(None), slice(None), *at)] = window.sum(axis=2) / count
    return out


def l2_pool(
    x: Array, kernel_sizes: Any, strides: Any = None, pad_type: str = "valid", pad: Any = None, ceil_mode: bool = False
) -> Array:
    """The root of the sum of squares (NeuralNetwork.proto, PoolingLayerParams.L2)."""
    padded, _, sizes, strides = _pooled(x, kernel_sizes, strides, pad_type, pad, ceil_mode, 0.0)
    out = np.zeros((*x.shape[:2], *sizes))
    for at, window in _windows(padded, kernel_sizes, strides, sizes):
        out[(slice(None), slice(None), *at)] = np.sqrt((window**2).sum(axis=2))
    return out


def _per_channel(v: Array | None, rank: int, default: float) -> Any:
    return default if v is None else v.reshape(1, -1, *(1,) * (rank - 2))


def batch_norm(
    x: Array, mean: Array, variance: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: float = 1e-5
) -> Array:
    r = x.ndim
    y = (x - _per_channel(mean, r, 0.0)) / np.sqrt(_per_channel(variance, r, 1.0) + epsilon)
    return np.asarray(y * _per_channel(gamma, r, 1.0) + _per_channel(beta, r, 0.0))


def instance_norm(x: Array, gamma: Array | None = None, beta: Array | None = None, epsilon: float = 1e-5) -> Array:
    axes = tuple(range(2, x.ndim))
    mean, variance = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    y = (x - mean) / np.sqrt(variance + epsilon)
    return np.asarray(y * _per_channel(gamma, x.ndim, 1.0) + _per_channel(beta, x.ndim, 0.0))


def local_response_norm(x: Array, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Array:
    """The neighbours are ``size`` channels around each, of an odd size as many before as after."""
    squares = np.zeros_like(x)
    for c in range(x.shape[1]):
        low, high = max(0, c - size // 2), min(x.shape[1], c - size // 2 + size)
        squares[:, c] = (x[:, low:high] ** 2).sum(axis=1)
    return np.asarray(x / (k + alpha / size * squares) ** beta)


def silu(x: Array) -> Array:
    return np.asarray(x / (1.0 + np.exp(-x)))


def clamped_relu(x: Array, alpha: Array, beta: Array) -> Array:
    """``min(beta, x)`` from zero on, ``min(beta, alpha x)`` below. coremltools computes the sum of both parts, each
    limited: twice ``beta`` where that is negative."""
    return np.asarray(np.minimum(beta, np.where(x >= 0, x, alpha * x)))


OPERATORS = {
    "conv": conv,
    "conv_transpose": conv_transpose,
    "max_pool": max_pool,
    "avg_pool": avg_pool,
    "l2_pool": l2_pool,
    "batch_norm": batch_norm,
    "instance_norm": instance_norm,
    "local_response_norm": local_response_norm,
    "silu": silu,
    "clamped_relu": clamped_relu,
}

"""Layers as products of matrices: the rows of a weight, and the columns of inputs that they meet.

A convolution, a linear layer and a product with a constant matrix all compute y = W x for many columns x: the windows
under a kernel, or the rows of a matrix. W is seen as (groups, rows, columns): output channels by input elements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import Op, Value
from passes.compress.select import Weight

Array = np.ndarray[Any, Any]

#: Windows of one sample beyond so many are drawn at random: they overlap, and tell little more.
MOST_COLUMNS = 2048


def input_of(op: Op, weight: Value) -> Value | None:
    """The input that ``op`` multiplies ``weight`` with, if it is such a layer; else None."""
    if op.name in ("mil.conv", "mil.linear") and op.operand("weight") is weight:
        x = op.operand("x")
        return None if x is weight else x
    if op.name == "mil.matmul" and op.operand("y") is weight and len(weight.shape or ()) == 2:
        x = op.operand("x")
        return None if x is weight or op.attributes["transpose_x"] else x
    return None


def layer_of(weight: Weight) -> Op | None:
    """The layer that a weight belongs to: of several that share it the first, if all see it in the same way."""
    users = list(weight.op.result.users)
    if any(input_of(u, weight.op.result) is None for u in users):
        return None
    first = users[0]
    same = all(
        u.name == first.name
        and u.attributes.get("groups") == first.attributes.get("groups")
        and u.attributes.get("transpose_y") == first.attributes.get("transpose_y")
        for u in users
    )
    return first if same else None


def rows(op: Op, weight: Array) -> Array:
    """``weight`` as (groups, rows, columns)."""
    if op.name == "mil.conv":
        groups = op.attributes["groups"]
        return weight.reshape(groups, len(weight) // groups, -1)
    turned = op.name == "mil.matmul" and not op.attributes["transpose_y"]
    return (weight.T if turned else weight)[None]


def back(op: Op, matrix: Array, shape: Sequence[int]) -> Array:
    """What :func:`rows` made, in the shape of the weight again."""
    if op.name == "mil.conv":
        return matrix.reshape(shape)
    turned = op.name == "mil.matmul" and not op.attributes["transpose_y"]
    return np.ascontiguousarray(matrix[0].T if turned else matrix[0])


def mean(op: Op, x: Array, shape: Sequence[int]) -> Array:
    """The mean of all columns that a layer's input ``x`` holds: (groups, length), f64.

    Args:
        shape: of the weight.
    """
    if op.name != "mil.conv":
        return np.asarray(x.reshape(-1, x.shape[-1]).mean(axis=0, dtype=np.float64)[None])
    kernel, strides, dilations, pads = _geometry(op, x, shape)
    found = x[0] if len(x) == 1 else x.mean(axis=0)
    if {*kernel, *strides} == {1} and not np.any(pads):
        found = found.reshape(len(found), -1).mean(axis=1)
    else:
        found = found[None]  # what each element of the kernel meets, by channel and the axes that are left
        for k, d, s, pad in zip(kernel, dilations, strides, pads):
            found = _means(found, k, d, s, pad)
        found = found.T
    out: Array = found.astype(np.float64).reshape(op.attributes["groups"], -1)
    return out


def _means(x: Array, kernel: int, dilation: int, stride: int, pad: tuple[int, int]) -> Array:
    """The means along the third axis that each element of a kernel meets; they join the first axis."""
    size, rest = x.shape[2], x.shape[3:]
    count = (size + sum(pad) - dilation * (kernel - 1) - 1) // stride + 1
    means: list[Array] = []
    for i in range(0, kernel * dilation, dilation):
        first = i - pad[0]
        last = first + (count - 1) * stride
        if i >= stride and stride % dilation == 0:  # what another element meets, but for one at either end
            made = means[(i - stride) // dilation]
            if 0 <= last < size:
                made = made + x[:, :, last] / np.float32(count)
            if 0 <= first - stride < size:
                made = made - x[:, :, first - stride] / np.float32(count)
        else:
            met = x[:, :, first if first >= 0 else first % stride : max(last + 1, 0) : stride]
            # As a product, since NumPy is slow to sum along short axes.
            part = np.full(met.shape[2], 1 / count, np.float32)
            made = part @ met.reshape(*met.shape[:3], math.prod(rest)) if rest else met @ part
            made = made.reshape(*x.shape[:2], *rest)
        means.append(made)
    return np.stack(means, axis=1).reshape(-1, x.shape[1], *rest)


def _geometry(
    op: Op, x: Array, shape: Sequence[int]
) -> tuple[Sequence[int], Sequence[int], Sequence[int], list[tuple[int, int]]]:
    """Kernel sizes, strides and dilations of a convolution, and how many zeros are put around its input."""
    n = len(shape) - 2
    kernel = shape[2:]
    strides = op.attributes["strides"] or (1,) * n
    dilations = op.attributes["dilations"] or (1,) * n
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
    return kernel, strides, dilations, _pads(op, x.shape[2:], reach, strides)


def columns(op: Op, x: Array, shape: Sequence[int], rng: np.random.Generator) -> Array:
    """The columns that a layer's input ``x`` holds: (groups, number of columns, length).

    Args:
        shape: of the weight.
    """
    if op.name != "mil.conv":
        flat = x.reshape(-1, x.shape[-1])
        if len(flat) > MOST_COLUMNS:
            flat = flat[rng.choice(len(flat), MOST_COLUMNS, replace=False)]
        return flat[None]
    n = len(shape) - 2
    kernel, strides, dilations, pads = _geometry(op, x, shape)
    padded = np.pad(x, [(0, 0), (0, 0), *pads])
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel)]
    axes = tuple(range(2, 2 + n))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=axes)
    thinned = [slice(None)] * 2 + [slice(None, None, s) for s in strides] + [slice(None, None, d) for d in dilations]
    view = np.moveaxis(windows[tuple(thinned)], 1, 1 + n)  # batch, positions …, channels, kernel …
    count = int(np.prod(view.shape[: 1 + n]))
    picked = np.arange(count) if count <= MOST_COLUMNS else rng.choice(count, MOST_COLUMNS, replace=False)
    taken = view[np.unravel_index(picked, view.shape[: 1 + n])]
    groups = op.attributes["groups"]
    found: Array = taken.reshape(len(picked), groups, -1).transpose(1, 0, 2)
    return found


def _pads(op: Op, sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int]) -> list[tuple[int, int]]:
    """Zeros before and behind each spatial axis, by Core ML's ``pad_type``."""
    kind = op.attributes["pad_type"]
    if kind == "custom":
        pad = op.attributes["pad"] or (0,) * (2 * len(sizes))
        return [(int(a), int(b)) for a, b in zip(pad[0::2], pad[1::2])]
    if kind == "valid":
        return [(0, 0)] * len(sizes)
    pads = []
    for size, r, s in zip(sizes, reach, strides):
        total = max((-(-size // s) - 1) * s + r - size, 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if kind == "same" else (large, small))
    return pads

"""Encoding weights by what their inputs look like: importance for palettes and sparsity, GPTQ, corrected biases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from compiler.ir import Module, Op, TensorType
from passes.compress import windows
from passes.compress.compensate import compensate, output_error
from passes.compress.encode import Axes, Encoded, encode
from passes.compress.linear import Quantized, bounds, spread
from passes.compress.palette import Palettized
from passes.compress.run import Encoder, array, plain
from passes.compress.schemes import Linear, Palette, Scheme
from passes.compress.select import Weight
from passes.compress.windows import layer_of

Array = np.ndarray[Any, Any]


@dataclass(slots=True)
class Statistics:
    """What calibration has seen of the inputs of one weight's layer.

    Attributes:
        moment: (groups, columns, columns), the sum of x xᵀ over all columns x.
        total: (groups, columns), their sum.
        count: how many there were.
    """

    moment: Array
    total: Array
    count: int = 0

    def add(self, columns: Array) -> None:
        """Takes in (groups, number, columns)."""
        wide = columns.astype(np.float32, copy=False)
        self.moment += wide.transpose(0, 2, 1) @ wide
        self.total += wide.sum(axis=1)
        self.count += wide.shape[1]

    @property
    def h(self) -> Array:
        """E[x xᵀ]."""
        return self.moment / max(self.count, 1)

    @property
    def means(self) -> list[Array]:
        """E[x], which is known."""
        return [self.total.astype(np.float64) / self.count] if self.count else []


@dataclass(slots=True)
class Means:
    """What the inputs of one weight's layer are on the mean, for each of a few made-up samples by itself.

    Attributes:
        means: of each sample, (groups, columns).
    """

    means: list[Array] = field(default_factory=list)


def encoder(statistics: Mapping[str, Statistics]) -> Encoder:
    """An encoder for :func:`passes.compress.run.run` that uses what is known of weights by name."""

    made: dict[tuple[str, Scheme, np.dtype[Any]], Encoded] = {}

    def remembered(weight: Weight, scheme: Scheme, axes: Axes) -> Encoded:
        # The same weights come again where the proof moves operators to f32.
        key = (weight.name, scheme, array(weight).dtype)
        if key not in made:
            made[key] = encode_one(weight, scheme, axes)
        return made[key]

    def encode_one(weight: Weight, scheme: Scheme, axes: Axes) -> Encoded:
        whole, layer = array(weight), layer_of(weight)
        known = statistics.get(weight.name)
        if known is None or layer is None or not known.count:
            return plain(weight, scheme, axes)
        h = known.h
        diagonal = np.einsum("gii->gi", h).astype(np.float64)
        seen = np.broadcast_to(diagonal[:, None, :], windows.rows(layer, whole).shape)
        base = encode(whole, scheme, axes, windows.back(layer, seen, whole.shape))
        if isinstance(scheme, Linear) and isinstance(base, Quantized):
            found: Encoded = _linear(layer, whole, scheme, base, h)
        elif isinstance(scheme, Palette) and isinstance(base, Palettized) and scheme.mode == "kmeans":
            found = _palette(layer, whole, base, h, axes)
        else:
            return base
        before, exact = windows.rows(layer, base.dense()), windows.rows(layer, whole)
        after = windows.rows(layer, found.dense())
        return found if output_error(exact, after, h) < output_error(exact, before, h) else base

    return remembered


def _linear(layer: Op, whole: Array, scheme: Linear, base: Quantized, h: Array) -> Quantized:
    scale = windows.rows(layer, spread(base.scale, whole.shape)).astype(np.float64)
    zero = None if base.offset is None else windows.rows(layer, spread(base.offset, whole.shape)).astype(np.float64)
    low, high = bounds(scheme)
    groups, height = np.arange(len(scale))[:, None], np.arange(scale.shape[1])[None]

    def integers(column: Array, at: Array) -> tuple[Array, Array, Array | float]:
        s = scale[groups, height, at[:, None]]
        z = 0.0 if zero is None else zero[groups, height, at[:, None]]
        with np.errstate(divide="ignore", invalid="ignore"):
            q = np.nan_to_num(np.round(column / s), nan=0.0) + z
        return np.clip(q, low, high), s, z

    def rounded(column: Array, at: Array) -> Array:
        q, s, z = integers(column, at)
        made: Array = (q - z) * s
        return made

    dense = windows.back(layer, compensate(windows.rows(layer, whole), h, rounded), whole.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        data = np.nan_to_num(np.round(dense / spread(base.scale, whole.shape).astype(np.float64)), nan=0.0)
    if base.offset is not None:
        data = data + spread(base.offset, whole.shape)
    return replace(base, data=data.astype(base.data.dtype))


def _palette(layer: Op, whole: Array, base: Palettized, h: Array, axes: Axes) -> Palettized:
    """The indices anew; the tables stay."""
    tables = base.table.reshape(-1, base.table.shape[-2]).astype(np.float64)
    shape = [1] * whole.ndim
    shape[axes.output] = -1
    of_channel = np.repeat(np.arange(len(tables)), whole.shape[axes.output] // len(tables)).reshape(shape)
    which = windows.rows(layer, np.broadcast_to(of_channel, whole.shape))[:, :, 0]
    scale = np.ones((1, 1))
    if base.scale is not None:
        scale = windows.rows(layer, np.broadcast_to(base.scale, whole.shape))[:, :, 0].astype(np.float64)
    entries = tables[which]  # (groups, rows, entries)

    def nearest(column: Array) -> Array:
        found: Array = np.abs(entries - (column / scale)[:, :, None]).argmin(axis=-1)
        return found

    def rounded(column: Array, _: Array) -> Array:
        chosen: Array = np.take_along_axis(entries, nearest(column)[:, :, None], axis=-1)[:, :, 0] * scale
        return chosen

    dense = compensate(windows.rows(layer, whole), h, rounded)
    indices = np.stack([nearest(dense[:, :, i]) for i in range(dense.shape[2])], axis=-1).astype(np.uint8)
    return replace(base, indices=windows.back(layer, indices, whole.shape))


#: Of so many elements at a time it is computed what they lose.
_PIECE = 1 << 16


def correction(weight: Weight, dense: Array, known: Statistics | Means) -> Array | None:
    """(W − Ŵ) E[x] for each output channel of a convolution or linear layer, to be added to its bias.

    Samples that were made up do not say what E[x] is, so of what they say no more is believed than they agree on: with
    mean m and variance s² between samples, the part 1 − s²/m² of it, and nothing where that is below 0.

    Returns:
        None where the weight has another user, so that one bias is no place for it, or where nothing is known.
    """
    layer = layer_of(weight)
    if layer is None or layer.name == "mil.matmul" or len(list(weight.op.result.users)) != 1 or not known.means:
        return None
    exact, ours = windows.rows(layer, array(weight)), windows.rows(layer, dense)
    seen = np.stack(known.means, axis=-1)
    each = np.empty((len(known.means), *exact.shape[:2]))
    step = max(1, _PIECE // max(1, exact.shape[0] * exact.shape[2]))
    for at in range(0, exact.shape[1], step):
        lost = exact[:, at : at + step].astype(np.float64) - ours[:, at : at + step]
        each[:, :, at : at + step] = np.moveaxis(lost @ seen, -1, 0)
    each = each.reshape(len(each), -1)
    if not np.isfinite(each).all():
        return None
    made: Array = each.mean(axis=0)
    if len(each) > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            made = np.nan_to_num(made * np.clip(1 - each.var(axis=0, ddof=1) / np.square(made), 0.0, 1.0))
    return made


def correct_biases(module: Module, corrections: Mapping[str, Array]) -> None:
    """Adds to the biases of layers what :func:`correction` gave, by the name of the layer's weight."""
    for op in list(module.walk()):
        if op.name not in ("mil.conv", "mil.linear"):
            continue
        weight = op.operand("weight")
        found = corrections.get(weight.name) if weight is not None else None
        if weight is None or found is None:
            continue
        bias = op.operand("bias")
        held = bias.constant if bias is not None else None
        if bias is not None and held is None:
            continue
        assert isinstance(weight.type, TensorType)
        dtype = weight.type.dtype.numpy
        new = ((0.0 if held is None else held.astype(np.float64)) + found).astype(dtype)
        const = Op("mil.const", (), [TensorType(weight.type.dtype, new.shape)], {"val": new}, loc=op.loc)
        const.result.name = f"{op.result.name}_bias"
        assert op.block is not None
        op.block.insert_before(op, const)
        op.operands = (*op.operands[:2], const.result)
        if bias is not None and bias.op is not None and bias.op.is_unused:
            bias.op.erase()

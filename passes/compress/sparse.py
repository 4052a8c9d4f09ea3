"""Sparsity: which elements become zero, as coremltools' ``prune_weights`` chooses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from passes.compress.linear import Quantized
from passes.compress.palette import Palettized
from passes.compress.schemes import Sparse

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Sparsified:
    """A tensor whose zeros are not stored.

    Attributes:
        values: the tensor with its new zeros, or in the form that its elements are stored in.
        mask: u8, 1 where an element is stored.
    """

    values: Array | Quantized | Palettized
    mask: Array

    def dense(self) -> Array:
        """The tensor that it stands for."""
        whole = self.values if isinstance(self.values, np.ndarray) else self.values.dense()
        return np.where(self.mask != 0, whole, whole.dtype.type(0))


def zeroed(weight: Array, scheme: Sparse, axis: int, importance: Array | None = None) -> Array | None:
    """``weight`` with zeros where the scheme wants them.

    Args:
        axis: along which a pattern counts.
        importance: by what elements are chosen in place of their magnitude.

    Returns:
        None if the pattern does not fit the tensor.
    """
    size = np.abs(weight) if importance is None else importance
    zero = weight.dtype.type(0)
    if scheme.pattern is not None:
        mask = _pattern(size, *scheme.pattern, axis)
        return None if mask is None else np.where(mask, zero, weight)
    if scheme.threshold is not None:
        return np.where(size <= scheme.threshold, zero, weight)
    assert scheme.amount is not None
    return np.where(size <= np.percentile(size, scheme.amount * 100), zero, weight)


def _pattern(size: Array, n: int, m: int, axis: int) -> Array | None:
    """True for the n least of every m along the axis; the last ones are counted with zeros behind them."""
    length = size.shape[axis]
    if m > length / 2:
        return None
    moved = np.moveaxis(size, axis, -1)
    padded = np.pad(moved, [(0, 0)] * (size.ndim - 1) + [(0, -length % m)])
    least = np.argsort(padded.reshape(-1, m), axis=-1)[:, :n]
    mask = np.zeros((len(least), m), np.bool_)
    np.put_along_axis(mask, least, True, axis=-1)
    return np.moveaxis(mask.reshape(padded.shape)[..., :length], -1, axis)

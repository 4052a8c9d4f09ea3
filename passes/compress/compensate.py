"""Rounding that makes good: what one element loses, the elements after it make up for, as far as inputs are alike.

The method is GPTQ (Frantar et al. 2022): with H = E[x xᵀ] of a layer's inputs and U the upper Cholesky factor of H⁻¹,
columns are rounded one after the other, and for the error e of column i, e U[i, j] / U[i, i] is taken from each column
j behind it. Columns come in the order of falling H[i, i]. Scales and tables are those of plain rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: What is added to the diagonal of H, as a part of its mean: GPTQ's default.
DAMPING = 0.01

#: Columns beyond so many see the losses of these at once, as one product of matrices: the same sums, sooner.
_BLOCK = 64

#: Rounds elements of the column with these numbers: (groups, rows), (groups,) → (groups, rows).
Round = Callable[[Array, Array], Array]


def compensate(weight: Array, h: Array, rounded: Round) -> Array:
    """Rounds a weight so that the layer's outputs change little.

    Args:
        weight: (groups, rows, columns), f32 or f64.
        h: (groups, columns, columns): E[x xᵀ] of each group's inputs.
        rounded: gives what elements of a column become.

    Returns:
        The rounded weight, in f64.
    """
    groups, _, length = weight.shape
    diagonal = np.einsum("gii->gi", h)
    # An input that is always 0 takes no part: any weight will do.
    damping = DAMPING * diagonal.mean(axis=1, keepdims=True)
    damping[damping <= 0] = 1.0
    order = np.argsort(-diagonal, axis=1, kind="stable")
    each = np.arange(groups)[:, None]
    h = h.astype(np.float64)[each[..., None], order[:, :, None], order[:, None, :]]
    h[:, np.arange(length), np.arange(length)] += damping
    upper = _upper_factor(h)
    left = weight.astype(np.float64)[each[..., None], np.arange(weight.shape[1])[:, None], order[:, None, :]]
    out = np.empty_like(left)
    for start in range(0, length, _BLOCK):
        end = min(start + _BLOCK, length)
        losses = np.empty((*left.shape[:2], end - start))
        for i in range(start, end):
            column = left[:, :, i]
            out[:, :, i] = rounded(column, order[:, i])
            losses[:, :, i - start] = loss = (column - out[:, :, i]) / upper[:, i, i, None]
            left[:, :, i + 1 : end] -= loss[:, :, None] * upper[:, None, i, i + 1 : end]
        left[:, :, end:] -= losses @ upper[:, start:end, end:]
    return np.take_along_axis(out, np.argsort(order, axis=1)[:, None, :], axis=2)


def _upper_factor(h: Array) -> Array:
    """U with Uᵀ U = H⁻¹: turned around, the inverse of a lower factor is an upper one."""
    reverse = h[:, ::-1, ::-1]
    lower = np.linalg.cholesky(reverse)  # H = Fᵀ F with F = the turned-around factor, lower
    inverse = np.linalg.inv(lower)
    turned: Array = inverse[:, ::-1, ::-1]
    return turned


def output_error(weight: Array, rounded: Array, h: Array) -> float:
    """E[‖(W − Ŵ) x‖²] over all groups: what a change of the weight does to the layer's outputs."""
    d = rounded.astype(np.float64) - weight.astype(np.float64)
    return float(np.einsum("grc,gcd,grd->", d, h.astype(np.float64), d, optimize=True))

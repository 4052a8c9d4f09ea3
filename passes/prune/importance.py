"""How much a class of channels matters: by its weights, by what it passes on, or by how far outputs move without it.

Each function gives a number for every class, by the number that stands for it; only the order within a layer counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from compiler.ir import Value
from passes.prune.channels import Classes, Cut, held

Array = np.ndarray[Any, Any]
Scores = dict[int, float]
Importance = Literal["magnitude", "activation", "taylor"]
IMPORTANCES: tuple[Importance, ...] = ("magnitude", "activation", "taylor")


def magnitude(classes: Classes) -> Scores:
    """Of each class, the mean over the operators that make it of its share of their weights' square norm."""
    return _mean_shares(classes, [(c, _energy(c)) for c in classes.cuts if c.role == "out"])


def activation(classes: Classes, energy: Mapping[Value, Array]) -> Scores:
    """Of each class, the mean over the operators that take it of its share of what they make of it: E[x²] of the
    channel times the square norm of the weights that take it.

    Args:
        energy: E[x²] of each channel of values that operators mix.
    """
    found = []
    for c in classes.cuts:
        source = c.op.operands[0]
        known = energy.get(source) if source is not None else None
        if c.role == "in" and known is not None:
            share = _energy(c)
            found.append((c, share * known if len(known) == len(share) else share))
    return _mean_shares(classes, found)


def first_order(classes: Classes, takers: Sequence[Cut], slopes: Sequence[Array]) -> Scores:
    """Of each class, E[(Σ ∂f/∂gate)²], the sum over the gates through which ``takers`` see it: the square of the change
    of f to first order were the gates shut (Molchanov et al. 2017 and 2019).

    Args:
        slopes: for each of ``takers`` an array of draws × channels, of the same draws in the same order.
    """
    sums: dict[int, Array] = {}
    for c, slope in zip(takers, slopes, strict=True):
        for root, column in zip(classes.roots(c.ids).tolist(), slope.astype(np.float64).T, strict=True):
            sums[root] = sums.get(root, 0.0) + column
    return {root: float(np.square(s).mean()) for root, s in sums.items()}


def takers(classes: Classes) -> list[Cut]:
    """The slices through which operators take channels, each constant once."""
    return list({(c.op.operands[c.operand], c.axis): c for c in classes.cuts if c.role == "in"}.values())


def _energy(c: Cut) -> Array:
    """The square norm of each slice."""
    array = held(c).astype(np.float64)
    found: Array = np.square(array).sum(axis=tuple(i for i in range(array.ndim) if i != c.axis))
    return found


def _mean_shares(classes: Classes, shares: Sequence[tuple[Cut, Array]]) -> Scores:
    found: dict[int, list[float]] = {}
    for c, share in shares:
        for root, s in zip(classes.roots(c.ids).tolist(), (share / (share.mean() or 1.0)).tolist(), strict=True):
            found.setdefault(root, []).append(s)
    return {root: float(np.mean(s)) for root, s in found.items()}

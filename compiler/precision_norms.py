"""Norms whose epsilon half precision cannot hold: whether the smallest half in its place may stand.

(x - mean) / √(variance + ε) changes by a factor √((v + ε) / (v + ε')) where ε becomes ε'. That is nothing beside half
precision's own rounding where the variance v is of the size of ordinary activations, and all where it is not. So it is
measured on the proof's inputs, and where a row is that quiet its norm stays in f32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from compiler.ir import Module, Op
from passes import half

if TYPE_CHECKING:
    from compiler.precision import Trial


def with_tiny_epsilon(module: Module) -> list[Op]:
    """The norms of the main function whose epsilon vanishes in half precision."""
    return [op for op in module.main.block.ops if half.epsilon_vanishes(op)]


def least_variance(epsilon: float) -> float:
    """The variance from which on :data:`passes.half.SMALLEST` in place of ``epsilon`` moves a norm by less than
    :data:`passes.half.CONSTANT_LOSS`, relatively: √((v + ε') / (v + ε)) - 1 ≈ (ε' - ε) / 2v."""
    return (half.SMALLEST - epsilon) / (2 * half.CONSTANT_LOSS)


def quiet(trial: Trial) -> dict[Op, str]:
    """The norms of ``trial.lowered`` that meet a row of less than :func:`least_variance` on the proof's inputs.

    Rows of one value only do not count: they give their bias whatever the epsilon.
    """
    from compiler.precision import probe

    norms = with_tiny_epsilon(trial.lowered)
    found: dict[Op, str] = {}
    for index in range(len(trial.inputs) if norms else 0):
        for op, x in zip(norms, probe(trial, [op.operands[0] for op in norms if op.operands[0]], index), strict=True):
            axes = op.attributes.get("axes")
            over = tuple(range(2, x.ndim)) if axes is None else tuple(axes)
            variance = np.asarray(x, np.float64).var(axis=over)
            epsilon = float(op.attributes["epsilon"])
            low = variance[(variance > 0.0) & (variance < least_variance(epsilon))]
            if low.size:
                found[op] = f"epsilon {epsilon:.3g} vanishes in half precision beside a variance of {low.min():.3g}"
    return found

"""Which scheme for which weight: the least error within so many bits, or the fewest bits within an error.

Errors of several compressed weights add up like independent noise: their squares do. To choose one option for each
weight is a multiple-choice knapsack, which SciPy's branch and bound (HiGHS) solves exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.errors import UserError


@dataclass(frozen=True, slots=True)
class Choice:
    """One option for one weight: how many bits it takes, and the squared error of the outputs with it alone."""

    bits: int
    error: float


def within_size(options: Sequence[Sequence[Choice]], bits: int) -> list[int] | None:
    """The option of each weight for the least sum of errors with at most ``bits`` in all; None if none is so small."""
    if sum(min(c.bits for c in o) for o in options) > bits:
        return None
    return _solve(options, "error", "bits", float(bits))


def within_error(options: Sequence[Sequence[Choice]], error: float) -> list[int] | None:
    """The option of each weight for the fewest bits with a sum of errors of at most ``error``; None if none has."""
    if sum(min(c.error for c in o) for o in options) > error:
        return None
    return _solve(options, "bits", "error", error)


def _solve(options: Sequence[Sequence[Choice]], cost: str, weight: str, limit: float) -> list[int]:
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import block_diag

    if not options:
        return []
    flat = [c for o in options for c in o]
    costs = np.array([float(getattr(c, cost)) for c in flat])
    weights = np.array([float(getattr(c, weight)) for c in flat])
    # Numbers near one suit the solver.
    costs /= costs.max() or 1.0
    scale = limit or 1.0
    one_each = LinearConstraint(block_diag([np.ones((1, len(o))) for o in options]), 1, 1)
    room = LinearConstraint(weights[None] / scale, -np.inf, limit / scale)
    found = milp(costs, constraints=[one_each, room], integrality=np.ones(len(flat)), bounds=Bounds(0, 1),
                 options={"mip_rel_gap": 1e-4, "time_limit": 20.0})  # fmt: skip
    if found.x is None:
        raise UserError(f"no choice of schemes was found: {found.message}", "a larger --budget or --max-error")
    out, start = [], 0
    for o in options:
        out.append(int(np.argmax(found.x[start : start + len(o)])))
        start += len(o)
    return out

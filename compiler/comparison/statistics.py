"""Confidence in a metric and in the difference of two, from the scores of the same samples on both sides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

#: How often samples are drawn anew.
RESAMPLES = 9999
CONFIDENCE = 0.95
SEED = 8


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and the interval that holds the true one with :data:`CONFIDENCE`."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Paired:
    """Two sides on the same samples.

    Attributes:
        difference: of B from A.
        p: how likely a difference at least as large would be if A and B were the same: the two-sided permutation test
            that swaps sides within samples.
    """

    samples: int
    a: Interval
    b: Interval
    difference: Interval
    p: float

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        found["difference"]["p"] = found.pop("p")
        return found


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Intervals by the bias-corrected and accelerated bootstrap (Efron 1987), and a paired permutation test.

    Args:
        a, b: scores of the same samples in the same order; at least two.
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert x.shape == y.shape
    assert x.size >= 2
    return Paired(x.size, _interval(x), _interval(y), _interval(y - x), _p(y - x))


def _interval(scores: np.ndarray[Any, Any]) -> Interval:
    from scipy import stats

    mean = float(scores.mean())
    if np.ptp(scores) == 0.0:
        return Interval(mean, mean, mean)  # no spread to draw from
    found = stats.bootstrap(
        (scores,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(SEED),
    )
    low, high = found.confidence_interval
    return Interval(mean, float(low), float(high))


def _p(differences: np.ndarray[Any, Any]) -> float:
    from scipy import stats

    if not differences.any():
        return 1.0
    found = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(SEED),
    )
    return float(found.pvalue)

"""Intervals and p values against what theory gives for samples large enough."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from compiler.comparison import paired


def test_large_samples_agree_with_normal_theory() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(0.80, 0.1, 400)
    b = a + rng.normal(0.01, 0.1, 400)
    found = paired(a.tolist(), b.tolist())
    low, high = stats.norm.interval(0.95, loc=np.mean(b - a), scale=stats.sem(b - a))
    assert found.difference.low == pytest.approx(low, abs=5e-4)
    assert found.difference.high == pytest.approx(high, abs=5e-4)
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)
    assert found.samples == 400


def test_pairing_finds_what_spread_between_samples_would_hide() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(0.0, 10.0, 50)
    b = a + 0.1 + rng.normal(0.0, 0.05, 50)
    found = paired(a.tolist(), b.tolist())
    assert 0.0 < found.difference.low < 0.1 < found.difference.high
    assert found.p < 0.01
    assert found.a.low < found.b.mean < found.a.high, "unpaired, nothing would show"


@pytest.mark.parametrize("shift", [0.0, 0.25])
def test_scores_without_spread_have_no_interval(shift: float) -> None:
    found = paired([0.5] * 8, [0.5 + shift] * 8)
    assert (found.difference.low, found.difference.mean, found.difference.high) == (shift, shift, shift)
    assert found.p == (1.0 if shift == 0.0 else pytest.approx(2 / 2**8))


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(40):
        scores = rng.binomial(1, 0.7, 60).astype(float)
        interval = paired(scores.tolist(), scores.tolist()).a
        held += interval.low <= 0.7 <= interval.high
    assert held >= 34, "of 40; 38 are expected, and fewer than 34 are a chance of 1 in 100"

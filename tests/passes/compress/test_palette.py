"""Tables of floats, which are found faster than the best there are, and are as good."""

from __future__ import annotations

import numpy as np
import pytest

from passes.compress.palette import _nearly_best, clusters


@pytest.mark.parametrize("count", [2, 16, 64])
@pytest.mark.parametrize("kind", ["normal", "far out", "two heaps"])
@pytest.mark.parametrize("weighted", [False, True])
def test_clusters_of_many_values_are_as_good_as_the_best(count, kind, weighted):
    rng = np.random.default_rng(count)
    drawn = {
        "normal": rng.standard_normal(9000),
        "far out": rng.standard_t(2, 9000),
        "two heaps": np.concatenate([rng.normal(0, 1e-3, 4500), rng.normal(5, 1, 4500)]),
    }[kind]
    values = np.unique(drawn.astype(np.float32))
    weights = rng.exponential(size=len(values)) if weighted else np.ones(len(values), np.intp)

    def error(labels, centres):
        assert labels.shape == values.shape
        assert (np.diff(labels) >= 0).all()
        return float((weights * np.square(values - centres[labels])).sum())

    assert error(*_nearly_best(values, count, weights)) <= 1.002 * error(*clusters(values, count, weights))

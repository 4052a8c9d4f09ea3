"""Integers with scales."""

from __future__ import annotations

import numpy as np

from passes.compress.linear import _round_to_half


def test_rounding_to_half_is_numpys():
    """On everything that steps of a scale can be, ties and their neighbours among them; less than the least normal half
    keeps digits, and rounds to the integer 0 all the same."""
    halves = np.arange(0x10000, dtype=np.uint16).view(np.float16).astype(np.float32)
    halves = halves[np.isfinite(halves) & (np.abs(halves) < 65504)]
    between = (halves + np.nextafter(halves.astype(np.float16), np.float16(np.inf)).astype(np.float32)) / 2
    given = np.concatenate(
        [halves, between, np.nextafter(between, np.float32(9e9)), np.nextafter(between, np.float32(0))]
    )
    found = given.copy()
    _round_to_half(found)
    normal = np.abs(given) >= 2.0**-14
    np.testing.assert_array_equal(found[normal], given[normal].astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(np.rint(found[~normal]), 0)
    undefined = np.float32([np.nan, -np.nan, np.inf, -np.inf])
    kept = undefined.copy()
    _round_to_half(kept)
    np.testing.assert_array_equal(kept, undefined)

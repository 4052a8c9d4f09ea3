"""Python's collector of cyclic garbage, kept from walking a large graph again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: Allocations between two collections of the young; Python's own choice is 700, which a graph of 50,000 operators
#: passes some thousand times.
YOUNG = 100_000


@contextmanager
def rare_collections() -> Iterator[None]:
    """Collects garbage seldom while a graph grows: little of it is garbage, and that little holds no arrays."""
    before = gc.get_threshold()
    gc.set_threshold(YOUNG, before[1], before[2])
    try:
        yield
    finally:
        gc.set_threshold(*before)

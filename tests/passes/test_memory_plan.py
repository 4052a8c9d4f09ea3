"""Buffers in one heap: none alive overlaps another, and the heap is not much larger than it must be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from passes.memory_plan import ALIGNMENT, Span, lower_bound, pack

spans = st.lists(st.tuples(st.integers(1, 5000), st.integers(0, 30), st.integers(0, 6)), min_size=1, max_size=30)


@given(spans)
def test_what_is_alive_at_once_lies_apart(drawn: list[tuple[int, int, int]]) -> None:
    found = [Span(size, first, first + length) for size, first, length in drawn]
    offsets, heap = pack(found)
    assert heap >= lower_bound(found)
    for i, (a, at) in enumerate(zip(found, offsets, strict=True)):
        assert at % ALIGNMENT == 0
        assert at + a.size <= heap
        for b, other in list(zip(found, offsets, strict=True))[i + 1 :]:
            assert not a.meets(b) or at + a.size <= other or other + b.size <= at


def test_a_chain_needs_two_buffers() -> None:
    chain = [Span(1024, i, i + 1) for i in range(10)]
    assert pack(chain)[1] == lower_bound(chain) == 2048

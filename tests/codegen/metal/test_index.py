"""Index expressions: what the text computes, by C's division, is what they stand for."""

from __future__ import annotations

import itertools
import math

from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.metal.index import Index, linear, unravel, variable

SIZES = {"i": 6, "j": 4, "k": 5}


class Number(int):
    """An integer that divides as MSL does: towards zero, the remainder with the dividend's sign."""

    def __add__(self, other: int) -> Number:
        return Number(int(self) + int(other))

    def __sub__(self, other: int) -> Number:
        return Number(int(self) - int(other))

    def __mul__(self, other: int) -> Number:
        return Number(int(self) * int(other))

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: int) -> Number:
        return Number(int(other) - int(self))

    def __neg__(self) -> Number:
        return Number(-int(self))

    def __truediv__(self, other: int) -> Number:
        return Number(math.trunc(int(self) / int(other)))

    def __mod__(self, other: int) -> Number:
        return Number(math.fmod(int(self), int(other)))


def evaluated(index: Index, values: dict[str, int]) -> int:
    """The value of the emitted text, with division and remainder as MSL has them."""
    names = {"min": _least, "max": _greatest, "clamp": lambda x, a, b: _least(_greatest(x, a), b)}
    return int(eval(index.text, names, {n: Number(v) for n, v in values.items()}))


def _least(*x: int) -> Number:
    return Number(min(x))


def _greatest(*x: int) -> Number:
    return Number(max(x))


@settings(max_examples=150)
@given(
    st.lists(st.integers(-24, 24), min_size=3, max_size=3),
    st.integers(-40, 40),
    st.lists(st.tuples(st.sampled_from("+*/%c"), st.integers(1, 24)), max_size=4),
)
def test_text_has_the_value_and_keeps_its_bounds(
    coefficients: list[int], constant: int, steps: list[tuple[str, int]]
) -> None:
    index = Index((), constant)
    for (name, size), c in zip(SIZES.items(), coefficients):
        index = index + variable(name, size) * c
    for op, n in steps:
        match op:
            case "+":
                index = index + n
            case "*":
                index = index * n
            case "/":
                index = index // n
            case "%":
                index = index % n
            case _:
                index = index.clamped(0, n)
    low, high = index.bounds
    for point in itertools.product(*(range(s) for s in SIZES.values())):
        values = dict(zip(SIZES, point))
        want = constant + sum(c * v for c, v in zip(coefficients, point))
        for op, n in steps:
            want = {"+": want + n, "*": want * n, "/": want // n, "%": want % n, "c": min(max(want, 0), n)}[op]
        assert evaluated(index, values) == want, (index.text, values)
        assert low <= want <= high


def test_a_reshape_that_only_renames_leaves_no_trace() -> None:
    h, d = variable("h", 4), variable("d", 32)
    assert [i.text for i in unravel(linear((h, d), (4, 32)), (4, 32))] == ["h", "d"]

"""Integer expressions over thread and loop variables: what addresses and bounds are made of.

An :class:`Index` is a sum of atoms with integer coefficients. Atoms are variables with a range, and quotients,
remainders and clamped values that could not be simplified. Addition, and division and remainder by a constant, keep
expressions short: ``(32·h + d) / 32`` is ``h`` where ``0 ≤ d < 32``. So a transpose or a reshape that only renames what
is contiguous leaves no trace in the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Atom:
    """A variable, or a function of one index: ``kind`` is ``var``, ``div``, ``mod``, ``clamp`` or ``load``.

    Attributes:
        text: how it is spelled in MSL; two atoms are equal if their texts are.
        low, high: the least and greatest value, both included.
        inner: what a quotient, remainder or clamped value is of.
        by: the divisor.
    """

    text: str
    low: int
    high: int
    kind: str = "var"
    inner: Index | None = None
    by: int = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Atom) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)

    def uses(self, name: str) -> bool:
        """Whether it is the variable of that name, or holds it."""
        return self.text == name or (self.inner is not None and any(a.uses(name) for a, _ in self.inner.terms))

    def replace(self, name: str, value: Index) -> Index:
        """What it becomes with another value for a variable."""
        if self.text == name:
            return value
        if self.inner is None or not self.uses(name):
            return Index(((self, 1),))
        inner = self.inner.replace(name, value)
        if self.kind == "div":
            return inner // self.by
        return inner % self.by if self.kind == "mod" else inner.clamped(self.low, self.high)


@dataclass(frozen=True)
class Index:
    """``constant + Σ coefficient · atom``, atoms in the order in which they came."""

    terms: tuple[tuple[Atom, int], ...] = ()
    constant: int = 0

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """The least and greatest value it can have, both included (exact for independent atoms)."""
        low = high = self.constant
        for a, c in self.terms:
            low += min(c * a.low, c * a.high)
            high += max(c * a.low, c * a.high)
        return low, high

    @cached_property
    def text(self) -> str:
        """MSL, without parentheses around it."""
        out = ""
        for a, c in sorted(self.terms, key=lambda t: -abs(t[1])):
            size = abs(c)
            part = a.text if size == 1 else f"{size} * {a.text}"
            out += (" - " if c < 0 else " + ") + part if out else ("-" if c < 0 else "") + part
        if not out:
            return str(self.constant)
        if self.constant:
            out += f" {'+' if self.constant > 0 else '-'} {abs(self.constant)}"
        return out

    @property
    def is_constant(self) -> bool:
        return not self.terms

    @property
    def atomic(self) -> str:
        """MSL that can stand beside any operator."""
        simple = not self.terms or (len(self.terms) == 1 and self.terms[0][1] == 1 and not self.constant)
        return self.text if simple and not self.text.startswith("-") else f"({self.text})"

    def __add__(self, other: Index | int) -> Index:
        other = of(other)
        terms = dict(self.terms)
        for a, c in other.terms:
            terms[a] = terms.get(a, 0) + c
        return _rejoined(terms, self.constant + other.constant)

    def __sub__(self, other: Index | int) -> Index:
        return self + of(other) * -1

    def __mul__(self, factor: int) -> Index:
        if factor == 0:
            return Index()
        return Index(tuple((a, c * factor) for a, c in self.terms), self.constant * factor)

    def __floordiv__(self, by: int) -> Index:
        if by == 1:
            return self
        whole, rest = self._split(by)
        shift, rest = rest._lifted(by)
        whole = whole - shift
        low, high = rest.bounds
        if high < by:
            return whole
        g = math.gcd(by, rest.constant, *(c for _, c in rest.terms))
        if g > 1:
            return whole + rest._divided(g) // (by // g)
        # What is smaller than the gcd of all else cannot carry: (16·a + b) / 24 with b < 8 is (2·a) / 3.
        g = math.gcd(by, *(c for a, c in rest.terms if abs(c) > 1))
        if g > 1 and any(abs(c) > 1 for _, c in rest.terms):
            small = Index(tuple((a, c) for a, c in rest.terms if abs(c) == 1), rest.constant % g)
            if small.bounds[0] >= 0 and small.bounds[1] < g:
                return whole + (rest - small)._divided(g) // (by // g)
        atom = Atom(
            f"({rest.text}) / {by}" if len(rest.terms) > 1 or rest.constant else f"{rest.atomic} / {by}",
            low // by,
            high // by,
            "div",
            rest,
            by,
        )
        return whole + Index(((_wrapped(atom), 1),))

    def __mod__(self, by: int) -> Index:
        if by == 1:
            return Index()
        _, rest = self._split(by)
        _, rest = rest._lifted(by)
        if rest.bounds[1] < by:
            return rest
        g = math.gcd(by, rest.constant, *(c for _, c in rest.terms))
        if g > 1:
            return (rest._divided(g) % (by // g)) * g
        atom = Atom(f"{rest.atomic} % {by}", 0, by - 1, "mod", rest, by)
        return Index(((_wrapped(atom), 1),))

    def _split(self, by: int) -> tuple[Index, Index]:
        """``q, r`` with ``self == by·q + r`` and every coefficient of ``r`` that divides moved to ``q``."""
        whole, rest = [], []
        for a, c in self.terms:
            (whole if c % by == 0 else rest).append((a, c))
        constant = self.constant % by
        q = Index(tuple((a, c // by) for a, c in whole), (self.constant - constant) // by)
        return q, Index(tuple(rest), constant)

    def _lifted(self, by: int) -> tuple[int, Index]:
        """``n, r`` with ``r == self + by·n`` never negative, since MSL divides towards zero; n is the least such."""
        n = max(0, -(self.bounds[0] // by))
        return n, self + n * by if n else self

    def _divided(self, by: int) -> Index:
        return Index(tuple((a, c // by) for a, c in self.terms), self.constant // by)

    def clamped(self, low: int, high: int) -> Index:
        """The nearest value in ``low … high``."""
        a, b = self.bounds
        if low <= a and b <= high:
            return self
        if max(low, min(a, high)) == min(high, max(b, low)):
            return of(max(low, min(a, high)))
        if a >= low:
            text = f"min({self.text}, {high})"
        elif b <= high:
            text = f"max({self.text}, {low})"
        else:
            text = f"clamp({self.text}, {low}, {high})"
        return Index(((Atom(text, max(low, min(a, high)), min(high, max(b, low)), "clamp", self), 1),))

    def coefficient(self, name: str) -> int | None:
        """How often the variable counts; None if it also stands inside a quotient or the like."""
        out = 0
        for a, c in self.terms:
            if a.text == name:
                out = c
            elif a.uses(name):
                return None
        return out

    def divisible(self, by: int) -> bool:
        """Whether every value is a multiple of ``by``, as far as coefficients tell."""
        return self.constant % by == 0 and all(c % by == 0 for _, c in self.terms)

    def replace(self, name: str, value: Index | int) -> Index:
        """The index with another value for a variable."""
        value = of(value)
        out = Index((), self.constant)
        for a, c in self.terms:
            out = out + a.replace(name, value) * c
        return out


def _wrapped(atom: Atom) -> Atom:
    return Atom(f"({atom.text})", atom.low, atom.high, atom.kind, atom.inner, atom.by)


def _rejoined(terms: dict[Atom, int], constant: int) -> Index:
    """The sum, with ``n·(e / n) + e % n`` written as ``e``, also where ``e`` is itself a quotient."""
    kept = {a: c for a, c in terms.items() if c}
    for a, c in list(kept.items()):
        if a.kind != "mod" or a not in kept:
            continue
        assert a.inner is not None
        for d, k in list(kept.items()):
            if d.kind == "div" and k == c * a.by and _quotient_of(d, a.inner, a.by):
                del kept[a], kept[d]
                return _rejoined(kept, constant) + a.inner * c
    return Index(tuple(kept.items()), constant)


def _quotient_of(atom: Atom, inner: Index, by: int) -> bool:
    """Whether a quotient is ``inner / by``; ``(e / m) / by`` is written ``e / (m·by)``."""
    if atom.by == by and atom.inner == inner:
        return True
    if len(inner.terms) != 1 or inner.constant or inner.terms[0][1] != 1 or inner.terms[0][0].kind != "div":
        return False
    nested = inner.terms[0][0]
    return atom.by == nested.by * by and atom.inner == nested.inner


def of(value: Index | int) -> Index:
    """An index that is a number, or the index itself."""
    return Index((), value) if isinstance(value, int) else value


def variable(name: str, size: int) -> Index:
    """A variable in ``0 … size - 1``; the number 0 where that is all it can be."""
    return Index(((Atom(name, 0, size - 1), 1),)) if size > 1 else Index()


def ranged(name: str, low: int, high: int) -> Index:
    """A variable in ``low … high``, both included."""
    return Index(((Atom(name, low, high), 1),)) if low < high else Index((), low)


def linear(indices: Sequence[Index], shape: Sequence[int]) -> Index:
    """The row-major position of an element."""
    out = Index()
    for i, n in zip(indices, shape, strict=True):
        out = out * n + i
    return out


def unravel(position: Index, shape: Sequence[int]) -> tuple[Index, ...]:
    """The element at a row-major position."""
    out = []
    stride = math.prod(shape)
    for axis, n in enumerate(shape):
        stride //= n
        at = position // stride if stride > 1 else position
        out.append((at % n if axis else at) if n > 1 else Index())
    return tuple(out)

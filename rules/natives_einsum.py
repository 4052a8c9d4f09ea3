"""Einsum: by ``mil.einsum`` where it takes the form, else as transposes, sums and one batched product per pair."""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir import Value
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline
from rules.natives import dtype_of, permuted, rank_of, shape_of

Array = np.ndarray[Any, Any]

#: The highest rank that Core ML's tensors have.
_MOST_AXES = 5
#: The highest rank that a linear layer takes.
_MOST_LINEAR = 3

#: The equations that ``mil.einsum`` computes, with letters numbered as they first appear.
_NATIVE = {((0, 1, 2, 3), (0, 3, 2, 4), (0, 1, 2, 4)), ((0, 1, 2), (2, 1, 3), (0, 1, 3))}


@dataclass(slots=True)
class _Term:
    """A tensor with a letter for each of its axes."""

    value: Value
    letters: str


def lower(b: RuleBuilder, m: Bindings) -> Value:
    """Letters that only one operand has are summed there; pairs are multiplied from left to right.

    Raises:
        Decline: an ellipsis stands for axes of which nothing is known, or a rank above 5 would be needed.
    """
    inputs, output = _parse(m.e, [rank_of(x) for x in m.xs])
    if len(m.xs) == 2 and _numbered([*inputs, output]) in _NATIVE and dtype_of(m.y).is_float:
        shapes = [shape_of(x) for x in m.xs]
        sizes = [dict(zip(letters, s)) for letters, s in zip(inputs, shapes)]
        if all(sizes[0][c] == sizes[1][c] for c in inputs[0] if c in inputs[1]):
            native: Value = b.op("mil.einsum", list(m.xs), {"equation": m.e.replace(" ", "")})
            return native
    terms = [_diagonal(b, _Term(x, letters)) for x, letters in zip(m.xs, inputs)]
    out = terms[0]
    for i, term in enumerate(terms[1:], 1):
        needed = set(output).union(*(t.letters for t in terms[i + 1 :]))
        out = _product(b, out, term, needed)
    out = _summed(b, out, set(output))
    return _arranged(b, out, output).value


def _parse(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The letters of each operand and of the result; an ellipsis becomes capital letters, aligned at the right."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise Decline("the equation is of another number of operands")
    spare = [c for c in string.ascii_letters[::-1] if c not in equation]
    dots = max([r - len(p) + 3 for p, r in zip(parts, ranks) if "..." in p], default=0)
    ellipsis = "".join(spare[:dots])
    inputs = []
    for part, rank in zip(parts, ranks):
        count = rank - len(part) + 3
        inputs.append(part.replace("...", ellipsis[dots - count :] if count else "") if "..." in part else part)
        if len(inputs[-1]) != rank:
            raise Decline("the equation is of another rank")
    if arrow:
        return inputs, right.replace("...", ellipsis)
    joined = "".join(inputs)
    once = sorted(c for c in set(joined) if joined.count(c) == 1 and c not in ellipsis)
    return inputs, ellipsis + "".join(once)


def _numbered(parts: list[str]) -> tuple[tuple[int, ...], ...]:
    order: dict[str, int] = {}
    return tuple(tuple(order.setdefault(c, len(order)) for c in p) for p in parts)


def _diagonal(b: RuleBuilder, term: _Term) -> _Term:
    """A letter that stands twice takes the diagonal: both axes become one, of which every (n + 1)-th element counts."""
    value, letters = term.value, term.letters
    while len(set(letters)) < len(letters):
        letter = next(c for c in letters if letters.count(c) > 1)
        first = letters.index(letter)
        second = letters.index(letter, first + 1)
        order = [i for i in range(len(letters)) if i not in (first, second)]
        perm = [first, second, *order]
        moved = _transposed(b, value, perm)
        n, _, *rest = shape_of(moved)
        flat = _reshaped(b, moved, [n * n, *rest])
        begin, end, stride = [0] * (1 + len(rest)), [n * n, *rest], [n + 1] + [1] * len(rest)
        value = b.op("mil.slice_by_index", [flat, _ints(begin), _ints(end)], {"stride": tuple(stride)})
        letters = letter + "".join(letters[i] for i in order)
    return _Term(value, letters)


def _ints(values: Sequence[int]) -> Array:
    return np.array(values, np.int32)


def _transposed(b: RuleBuilder, value: Value, perm: Sequence[int]) -> Value:
    if not permuted(perm):
        return value
    array = value.constant
    if array is not None:
        turned: Value = b.constant(array.transpose(perm), "mil")
        return turned
    out: Value = b.op("mil.transpose", [value], {"perm": tuple(perm)})
    return out


def _reshaped(b: RuleBuilder, value: Value, shape: Sequence[int]) -> Value:
    if shape_of(value) == tuple(shape):
        return value
    array = value.constant
    if array is not None:
        other: Value = b.constant(array.reshape(shape), "mil")
        return other
    if not shape:
        scalar: Value = b.op("mil.squeeze", [value], {"axes": tuple(range(rank_of(value)))})
        return scalar
    out: Value = b.op("mil.reshape", [value, _ints(shape)])
    return out


def _summed(b: RuleBuilder, term: _Term, needed: set[str]) -> _Term:
    axes = tuple(i for i, c in enumerate(term.letters) if c not in needed)
    if not axes:
        return term
    value = b.op("mil.reduce_sum", [term.value], {"axes": axes, "keep_dims": False})
    return _Term(value, "".join(c for c in term.letters if c in needed))


def _arranged(b: RuleBuilder, term: _Term, letters: str) -> _Term:
    return _Term(_transposed(b, term.value, [term.letters.index(c) for c in letters]), letters)


def _product(b: RuleBuilder, left: _Term, right: _Term, needed: set[str]) -> _Term:
    """The product of two terms, summed over the letters that nothing else needs."""
    left = _summed(b, left, needed | set(right.letters))
    right = _summed(b, right, needed | set(left.letters))
    shared = [c for c in left.letters if c in right.letters]
    sizes = _sizes(left, right)
    summed = [c for c in shared if c not in needed]
    batch = [c for c in shared if c in needed]
    mine = [c for c in left.letters if c not in shared]
    theirs = [c for c in right.letters if c not in shared]
    own = [dict(zip(t.letters, shape_of(t.value))) for t in (left, right)]
    if not summed or len(batch) > _MOST_AXES - 2 or any(own[0][c] != own[1][c] for c in summed):
        return _outer(b, left, right, batch + mine + theirs, needed)
    if left.value.constant is not None and right.value.constant is None:
        left, right, mine, theirs = right, left, theirs, mine
    rows, turn_rows = _matrices(b, left, batch, mine, summed)
    columns, stand_columns = _matrices(b, right, batch, theirs, summed)
    if right.value.constant is not None and not batch and not turn_rows:
        # A constant matrix without a batch makes a linear layer.
        matrix = _transposed(b, columns, (1, 0)) if not stand_columns else columns
        deep = len(summed) == 1 and len(left.letters) <= _MOST_LINEAR
        value = b.op("onnx.MatMul", [_arranged(b, left, "".join(mine + summed)).value if deep else rows, matrix])
    else:
        value = b.op("mil.matmul", [rows, columns], {"transpose_x": turn_rows, "transpose_y": not stand_columns})
    letters = batch + mine + theirs
    return _Term(_reshaped(b, value, [sizes[x] for x in letters]), "".join(letters))


def _matrices(b: RuleBuilder, term: _Term, batch: list[str], own: list[str], summed: list[str]) -> tuple[Value, bool]:
    """``term`` as a batch of matrices (own, summed), or the other way round if its axes stand so: then True."""
    turned = term.letters == "".join(batch + summed + own) and bool(own)
    groups = (summed, own) if turned else (own, summed)
    value = _arranged(b, term, "".join(batch + groups[0] + groups[1])).value
    shape = shape_of(value)
    n, k = len(batch), len(groups[0])
    flat = [*shape[:n], math.prod(shape[n : n + k]), math.prod(shape[n + k :])]
    return _reshaped(b, value, flat), turned


def _sizes(left: _Term, right: _Term) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for term in (left, right):
        for c, d in zip(term.letters, shape_of(term.value)):
            if sizes.setdefault(c, d) != d:
                if 1 not in (d, sizes[c]):
                    raise Decline("sizes do not agree")
                sizes[c] = max(d, sizes[c])
    return sizes


def _outer(b: RuleBuilder, left: _Term, right: _Term, letters: list[str], needed: set[str]) -> _Term:
    """The product element by element, both spread over all letters, then summed over those that nothing needs."""
    letters = letters + [c for c in left.letters if c not in letters]
    if len(letters) > _MOST_AXES:
        raise Decline("Core ML has no tensors of rank 6")

    def spread(term: _Term) -> Value:
        kept = [c for c in letters if c in term.letters]
        value = _arranged(b, term, "".join(kept)).value
        missing = tuple(i for i, c in enumerate(letters) if c not in term.letters)
        out: Value = b.op("mil.expand_dims", [value], {"axes": missing}) if missing else value
        return out

    return _summed(b, _Term(b.op("mil.mul", [spread(left), spread(right)]), "".join(letters)), needed)

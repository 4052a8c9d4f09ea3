"""What the functions that :mod:`matcher` generates call: tests of attributes, constants and shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import Dim, Op, TensorType, Value
from compiler.rewrite.functions import Decline, contains, same


def only(op: Op, mentioned: frozenset[str]) -> bool:
    """Whether every attribute that the pattern does not mention has its default value."""
    specs = op.defn.attributes
    return all(k in mentioned or same(v, specs[k].default) for k, v in op.attributes.items())


def unused_beyond(op: Op, named: int) -> bool:
    """Whether the results that the pattern does not name have no users."""
    return not any(r._uses for r in op.results[named:])


def holds(value: Value, number: float, tolerance: float | None) -> bool:
    """Whether all elements of a constant are ``number``, rounded to its element type or to a relative tolerance."""
    array = value.constant
    if array is None or array.size == 0 or array.dtype == np.object_:
        return False
    first = array.reshape(-1)[0]
    if not _is(first, number, tolerance):
        return False
    return array.size == 1 or bool((array == first).all())


def _is(x: Any, number: float, tolerance: float | None) -> bool:
    have = float(x)
    if tolerance is not None:
        return abs(have - number) <= tolerance * abs(number)
    if have == number:
        return True
    kind = getattr(x, "dtype", None)
    if kind is None or kind.kind in "iub":
        return False
    return bool(x == kind.type(number)) or (math.isnan(have) and math.isnan(number))


def holds_list(value: Value, numbers: tuple[float, ...]) -> bool:
    """Whether a constant is a vector of exactly these numbers."""
    array = value.constant
    return array is not None and array.shape == (len(numbers),) and bool((array == np.asarray(numbers)).all())


def into(have: Sequence[Dim], want: Sequence[Dim]) -> bool:
    """Whether dimensions, aligned at the last, broadcast to ``want`` without changing it."""
    if len(have) > len(want):
        return False
    return all(h == 1 or same(h, w) for h, w in zip(have, want[len(want) - len(have) :]))


def together(a: Sequence[Dim], b: Sequence[Dim]) -> tuple[Dim, ...] | None:
    """What two shapes broadcast to; None if that is not surely anything."""
    if len(a) < len(b):
        a, b = b, a
    out = list(a[: len(a) - len(b)])
    for x, y in zip(a[len(a) - len(b) :], b):
        if x != 1 and y != 1 and not same(x, y):
            return None
        out.append(x if y == 1 else y)
    return tuple(out)


def shapeless(value: Value, user: Op) -> bool:
    """Whether a constant surely leaves the results of ``user`` in the shape that another operand gives them."""
    array = value.constant
    assert array is not None
    if array.ndim == 0:
        return True
    others = [v.shape for v in user.operands if v is not None and v is not value]
    if array.size == 1:
        return not others or any(d is not None and len(d) >= array.ndim for d in others)
    shape = user.results[0].shape
    return shape is not None and any(d is not None and same(d, shape) for d in others)


def close(x: Any, number: float, tolerance: float) -> bool:
    """Whether an attribute is ``number`` to a relative tolerance."""
    return isinstance(x, (int, float)) and abs(x - number) <= tolerance * abs(number)


HELPERS: dict[str, Any] = {
    "_only": only,
    "_unused": unused_beyond,
    "_holds": holds,
    "_holds_list": holds_list,
    "_shapeless": shapeless,
    "_close": close,
    "_into": into,
    "_together": together,
    "_same": same,
    "_in": contains,
    "_Decline": Decline,
    "_TensorType": TensorType,
    "_int": int,
}

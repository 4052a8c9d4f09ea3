"""The table of functions that rules may call, and what all of them rest on: data, and when it is equal.

A *value* function takes values of the graph as they are (``rank(x)``); a *data* function takes compile-time data: a
constant operand is passed to it as its array. Both are pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir import UNKNOWN, DType, TensorType, Value


class Decline(Exception):  # noqa: N818 (no error: the match is given up)
    """Raised while a condition or a compile-time value is computed: the rule does not apply here."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the rule language: its name, its number of arguments, and whether it sees values as they are."""

    name: str
    call: Callable[..., Any]
    least: int
    most: int | None
    takes_values: bool
    doc: str


FUNCTIONS: dict[str, Function] = {}


def register(
    least: int, most: int | None = -1, *, values: bool = False, name: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def add(fn: Callable[..., Any]) -> Callable[..., Any]:
        label = name or fn.__name__.strip("_")
        FUNCTIONS[label] = Function(label, fn, least, least if most == -1 else most, values, (fn.__doc__ or "").strip())
        return fn

    return add


def data(x: Any) -> Any:
    """What ``x`` is at compile time: the array of a constant value; anything that is no value, as it is.

    Raises:
        Decline: ``x`` is a value that is not known at compile time.
    """
    if isinstance(x, Value):
        array = x.constant
        if array is None:
            raise Decline(f"%{x.name} is not a constant")
        return array
    return x


def same(a: Any, b: Any) -> bool:
    """Equality of compile-time data: sequences by elements whatever their kind, NaN equal to itself, unknown dimensions
    equal to nothing."""
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        x, y = np.asarray(data(a)), np.asarray(data(b))
        if x.shape != y.shape:
            return False
        return bool(np.array_equal(x, y, equal_nan=x.dtype.kind == "f" and y.dtype.kind == "f"))
    if isinstance(a, (tuple, list, range)) and isinstance(b, (tuple, list, range)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return bool(a == b) and not (isinstance(a, str) and a == UNKNOWN)


def equal(a: Any, b: Any) -> Any:
    """``a == b``: for an array and a number elementwise, as in ``all(k == 0)``; else one answer, see :func:`same`."""
    if isinstance(a, np.ndarray) and isinstance(b, (int, float, np.generic)):
        return a == b
    if isinstance(b, np.ndarray) and isinstance(a, (int, float, np.generic)):
        return a == b
    return same(a, b)


def differ(a: Any, b: Any) -> Any:
    """``a != b``: the negation of :func:`equal`, elementwise where that is."""
    result = equal(a, b)
    return ~result if isinstance(result, np.ndarray) else not result


def contains(item: Any, collection: Any) -> bool:
    """``item in collection``, with the equality of :func:`same`; a range includes its end."""
    if isinstance(collection, range):
        return isinstance(item, (int, np.integer)) and int(item) in collection
    return any(same(item, c) for c in collection)


def tensor_type(x: Any) -> TensorType:
    """The tensor type of a value; of an array, the type that it would have as a constant.

    Raises:
        Decline: it is no tensor.
    """
    t = x.type if isinstance(x, Value) else None
    if isinstance(t, TensorType):
        return t
    if t is None and x is not None:
        from compiler.ir import from_numpy

        array = np.asarray(x)
        return TensorType(from_numpy(array.dtype), array.shape)
    raise Decline("not a tensor")


#: Names that stand for data wherever an expression may stand.
CONSTANTS: dict[str, Any] = {
    "true": True,
    "false": False,
    "none": None,
    "inf": math.inf,
    "nan": math.nan,
    "pi": math.pi,
}

#: Names for sets of element types, usable in constraints.
DTYPE_CLASSES: dict[str, Callable[[DType], bool]] = {
    "float": lambda d: d.is_float,
    "int": lambda d: d.kind == "int",
    "uint": lambda d: d.kind == "uint",
    "integer": lambda d: d.is_integer,
    "number": lambda d: d.is_float or d.is_integer,
    "any": lambda d: True,
}

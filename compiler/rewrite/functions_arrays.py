"""Functions of rules on numbers and arrays."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from compiler.ir import DType
from compiler.rewrite.function_table import FUNCTIONS, Decline, Function, register


@register(2)
def cast(x: Any, to: DType) -> Any:
    """The array `x` with the elements converted to another type; where an integer does not hold one, the rule does not
    apply."""
    array = np.asarray(x)
    if to.is_integer and array.dtype.kind in "iuf" and array.size:
        least, most = array.min().item(), array.max().item()
        info = np.iinfo(to.numpy)
        if not (info.min <= least and most <= info.max):
            raise Decline(f"a number is too large for {to}")
    return array.astype(to.numpy)


def _elementwise(name: str, fn: Callable[..., Any], doc: str) -> None:
    FUNCTIONS[name] = Function(name, fn, 1, 1, False, doc)


_elementwise("sqrt", np.sqrt, "Square root, elementwise.")
_elementwise("exp", np.exp, "Exponential, elementwise.")
_elementwise("log", np.log, "Natural logarithm, elementwise.")
_elementwise("abs", np.abs, "Absolute value, elementwise.")
_elementwise("ceil", np.ceil, "Smallest integer not below, elementwise.")
_elementwise("floor", np.floor, "Largest integer not above, elementwise.")
_elementwise("isfinite", np.isfinite, "Whether neither infinite nor NaN, elementwise.")


@register(1)
def int_(x: Any) -> int:
    """The integer part of a number, or of the only element of an array; of more, the rule does not apply."""
    return int(_only(x))


@register(1)
def float_(x: Any) -> float:
    """A number, or the only element of an array, as a float; of more, the rule does not apply."""
    return float(_only(x))


def _only(x: Any) -> Any:
    a = np.asarray(x)
    if a.size != 1:
        raise Decline("not one element")
    return a.item()


@register(1)
def ints(x: Any) -> tuple[int, ...]:
    """The elements of an array or list as integers."""
    return tuple(int(v) for v in np.asarray(x).reshape(-1).tolist())


@register(1)
def floats(x: Any) -> tuple[float, ...]:
    """The elements of an array or list as floats."""
    return tuple(float(v) for v in np.asarray(x, dtype=np.float64).reshape(-1).tolist())


@register(1, values=True)
def len_(x: Any) -> int:
    """The number of elements of a list, or of operands bound by `*xs`."""
    return len(x)


@register(1, None)
def max_(*x: Any) -> Any:
    """The greatest of several numbers, or of the elements of a list or array."""
    return builtins.max(_flat(x))


@register(1, None)
def min_(*x: Any) -> Any:
    """The least of several numbers, or of the elements of a list or array."""
    return builtins.min(_flat(x))


def _flat(x: Sequence[Any]) -> list[Any]:
    items: list[Any] = np.asarray(x[0]).reshape(-1).tolist() if len(x) == 1 else list(x)
    if not items:
        raise Decline("empty")
    return items


@register(1)
def sum_(x: Iterable[Any]) -> Any:
    """The sum of a list of numbers or arrays."""
    return builtins.sum(x)


@register(1)
def prod(x: Iterable[Any]) -> Any:
    """The product of a list of numbers; 1 for none."""
    return math.prod(x)


@register(1)
def all_(x: Any) -> bool:
    """Whether all elements are true (or not zero)."""
    return bool(np.all(np.asarray(x)))


@register(1)
def any_(x: Any) -> bool:
    """Whether any element is true (or not zero)."""
    return bool(np.any(np.asarray(x)))


@register(1, 2)
def range_(start: int, stop: int | None = None) -> range:
    """The integers from 0 (or the first argument) up to, not including, the last argument."""
    return range(start) if stop is None else range(start, stop)


@register(1, None, values=True)
def zip_(*x: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Pairs (or longer tuples) of the elements of several lists of equal length."""
    return list(builtins.zip(*x, strict=True))


@register(1)
def sorted_(x: Iterable[Any]) -> tuple[Any, ...]:
    """The elements in ascending order."""
    return tuple(builtins.sorted(x))


@register(1)
def reversed_(x: Sequence[Any]) -> tuple[Any, ...]:
    """The elements from last to first."""
    return tuple(builtins.reversed(x))


@register(1)
def iota(n: int) -> tuple[int, ...]:
    """0, 1, …, n − 1."""
    return tuple(range(n))


@register(2)
def compose(p: Sequence[int], q: Sequence[int]) -> tuple[int, ...]:
    """The permutation that transposing by `p`, then by `q`, amounts to: `p[q[i]]`."""
    if len(p) != len(q):
        raise Decline("permutations of different ranks")
    return tuple(int(p[i]) for i in q)


@register(1)
def inverse(p: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `p`."""
    return tuple(int(i) for i in np.argsort(np.asarray(p)))


@register(2)
def axis(a: int, r: int) -> int:
    """The axis `a` of a tensor of rank `r`, counted from the front."""
    a = int(a)
    if not -r <= a < max(r, 1):
        raise Decline("no such axis")
    return a + r if a < 0 else a


@register(2)
def axes(a: Iterable[int], r: int) -> tuple[int, ...]:
    """Several axes of a tensor of rank `r`, counted from the front, ascending."""
    return tuple(builtins.sorted(axis(int(i), r) for i in np.asarray(a).reshape(-1)))


@register(1)
def normalized_perm(p: Iterable[int]) -> tuple[int, ...]:
    """A permutation with its axes counted from the front."""
    p = [int(i) for i in p]
    return tuple(i % len(p) for i in p)


@register(1, 2)
def concat(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Arrays, joined along an axis; of flat lists, one list."""
    if all(not isinstance(a, np.ndarray) for a in arrays):
        return tuple(x for a in arrays for x in a)
    return np.concatenate([np.asarray(a) for a in arrays], axis=axis)


@register(2)
def reshape(x: Any, to: Sequence[int]) -> Any:
    """The array `x` with another shape; where it has not as many elements, the rule does not apply."""
    try:
        return np.reshape(x, tuple(int(d) for d in np.asarray(to).reshape(-1)))
    except ValueError:
        raise Decline("the array does not have this shape") from None


@register(2)
def transpose(x: Any, perm: Sequence[int]) -> Any:
    """The array `x` with its axes permuted."""
    return np.transpose(x, tuple(int(d) for d in perm))


@register(2)
def unsqueeze_to(x: Any, r: int) -> Any:
    """A vector as an array of rank `r`, along axis 0: shape (n, 1, 1, …)."""
    return np.reshape(x, (-1,) + (1,) * (r - 1))


@register(2)
def expand_dims(x: Any, at: Any) -> Any:
    """The array `x` with new axes of size 1 at the given places of the result."""
    return np.expand_dims(x, tuple(int(a) for a in np.asarray(at).reshape(-1)))


@register(2)
def broadcast_to(x: Any, to: Sequence[int]) -> Any:
    """The array `x` repeated to another shape; where it cannot be, the rule does not apply."""
    try:
        return np.broadcast_to(x, tuple(to))
    except ValueError:
        raise Decline("the array does not broadcast to this shape") from None


@register(2, 3)
def full(of: Sequence[int], value: Any, to: DType | None = None) -> Any:
    """An array of shape `of`, every element `value`; element type f32 unless given."""
    return np.full(tuple(of), value, to.numpy if to is not None else np.float32)


@register(1, 2)
def array(x: Any, to: DType | None = None) -> Any:
    """A list or number as an array; integers become i64 and floats f32 unless a type is given."""
    if to is not None:
        return np.asarray(x, dtype=to.numpy)
    a = np.asarray(x)
    return a.astype(np.float32) if a.dtype == np.float64 and not isinstance(x, np.ndarray) else a


@register(1)
def size(x: Any) -> int:
    """The number of elements of an array or list."""
    return int(np.asarray(x).size)


@register(3)
def where(condition: Any, x: Any, y: Any) -> Any:
    """Elements of `x` where the condition holds, of `y` elsewhere."""
    return np.where(condition, x, y)


@register(1, 2)
def largest(x: DType) -> float:
    """The greatest finite number of an element type."""
    import ml_dtypes

    info: Any = ml_dtypes.finfo(x.numpy) if x.is_float else np.iinfo(x.numpy)  # type: ignore[no-untyped-call]
    return float(info.max)

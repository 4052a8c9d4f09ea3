"""The functions that rules may call at compile time.

A *value* function takes values of the graph as they are (``rank(x)``); a *data* function takes compile-time data: a
constant operand is passed to it as its array. Both are pure.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compiler.ir import UNKNOWN, Dim, DType, TensorType, Value


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


def _register(
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


# ---- facts about values


@_register(1, values=True)
def uses(x: Value) -> int:
    """How many operands in the graph are `x`."""
    return x.use_count


@_register(1, values=True)
def rank(x: Any) -> int:
    """The number of dimensions of `x`; where it is not known, the rule does not apply."""
    r = tensor_type(x).rank
    if r is None:
        raise Decline("rank not known")
    return r


@_register(1, values=True)
def shape(x: Any) -> tuple[int, ...]:
    """The sizes of all dimensions of `x`; where one is not known, the rule does not apply."""
    t = tensor_type(x)
    if not t.is_static:
        raise Decline("shape not known")
    return t.static_shape


@_register(1, values=True)
def dims(x: Any) -> tuple[Dim, ...]:
    """The dimensions of `x`, names included, for comparing; where the rank is not known, the rule does not apply."""
    t = tensor_type(x)
    if t.shape is None:
        raise Decline("rank not known")
    return t.shape


@_register(2, values=True)
def dim(x: Any, axis: int) -> int:
    """The size of one dimension of `x`, counted from the end if negative; not known: the rule does not apply."""
    s = dims(x)
    if not -len(s) <= axis < len(s):
        raise Decline("no such axis")
    d = s[axis]
    if not isinstance(d, int):
        raise Decline("size not known")
    return d


@_register(1, values=True)
def dtype(x: Any) -> DType:
    """The element type of `x`."""
    return tensor_type(x).dtype


@_register(1, values=True)
def is_static(x: Any) -> bool:
    """Whether all dimensions of `x` are known."""
    return tensor_type(x).is_static


@_register(1, values=True)
def has_rank(x: Any) -> bool:
    """Whether the rank of `x` is known."""
    return tensor_type(x).rank is not None


@_register(1, values=True)
def is_const(x: Any) -> bool:
    """Whether `x` is known at compile time."""
    return x is not None and (not isinstance(x, Value) or x.constant is not None)


@_register(1, values=True)
def has(x: Any) -> bool:
    """Whether an optional operand or attribute is there."""
    return x is not None


@_register(1, values=True)
def op_name(x: Value) -> str:
    """The qualified name of the operator that makes `x`; `""` for an input."""
    return x.op.name if x.op is not None else ""


@_register(1, None, values=True)
def same_type(x: Any, *others: Any) -> bool:
    """Whether all have the same element type and provably the same dimensions."""
    first = tensor_type(x)
    for o in others:
        t = tensor_type(o)
        if t.dtype is not first.dtype or first.shape is None or t.shape is None or not same(first.shape, t.shape):
            return False
    return True


@_register(2, values=True)
def same_shape(x: Any, y: Any) -> bool:
    """Whether both have provably the same dimensions."""
    a, b = tensor_type(x).shape, tensor_type(y).shape
    return a is not None and b is not None and same(a, b)


@_register(2, values=True)
def broadcasts_to(x: Any, y: Any) -> bool:
    """Whether broadcasting `x` with `y` provably gives the shape of `y`."""
    a, b = tensor_type(x).shape, tensor_type(y).shape
    if a is None or b is None or len(a) > len(b):
        return False
    return all(d == 1 or same(d, e) for d, e in zip(a, b[len(b) - len(a) :]))


@_register(2, values=True)
def may_broadcast_to(x: Any, y: Any) -> bool:
    """Whether nothing that is known keeps broadcasting `x` with `y` from giving the shape of `y`."""
    a, b = tensor_type(x).shape, tensor_type(y).shape
    if a is None or b is None or len(a) > len(b):
        return False
    return all(d == 1 or d == e or not (isinstance(d, int) and isinstance(e, int)) for d, e in zip(a[::-1], b[::-1]))


@_register(1, values=True)
def splat(x: Any) -> Any:
    """The one number that all elements of a constant have; none if they differ or `x` is not constant."""
    array = x.constant if isinstance(x, Value) else np.asarray(x)
    if array is None or array.size == 0 or array.dtype == np.object_:
        return None
    flat = array.reshape(-1)
    first = flat[0]
    # Most arrays that are no splat show it at their ends.
    if flat.size > 1 and (first != flat[-1] or not bool((flat == first).all())):
        return None
    return first.item()


# ---- numbers and arrays


@_register(2)
def cast(x: Any, to: DType) -> Any:
    """The array `x` with the elements converted to another type."""
    return np.asarray(x).astype(to.numpy)


def _elementwise(name: str, fn: Callable[..., Any], doc: str) -> None:
    FUNCTIONS[name] = Function(name, fn, 1, 1, False, doc)


_elementwise("sqrt", np.sqrt, "Square root, elementwise.")
_elementwise("exp", np.exp, "Exponential, elementwise.")
_elementwise("log", np.log, "Natural logarithm, elementwise.")
_elementwise("abs", np.abs, "Absolute value, elementwise.")
_elementwise("ceil", np.ceil, "Smallest integer not below, elementwise.")
_elementwise("floor", np.floor, "Largest integer not above, elementwise.")
_elementwise("isfinite", np.isfinite, "Whether neither infinite nor NaN, elementwise.")


@_register(1)
def int_(x: Any) -> int:
    """The integer part of a number, or the only element of an array."""
    return int(np.asarray(x).item())


@_register(1)
def float_(x: Any) -> float:
    """A number, or the only element of an array, as a float."""
    return float(np.asarray(x).item())


@_register(1)
def ints(x: Any) -> tuple[int, ...]:
    """The elements of an array or list as integers."""
    return tuple(int(v) for v in np.asarray(x).reshape(-1).tolist())


@_register(1)
def floats(x: Any) -> tuple[float, ...]:
    """The elements of an array or list as floats."""
    return tuple(float(v) for v in np.asarray(x, dtype=np.float64).reshape(-1).tolist())


@_register(1, values=True)
def len_(x: Any) -> int:
    """The number of elements of a list, or of operands bound by `*xs`."""
    return len(x)


@_register(1, None)
def max_(*x: Any) -> Any:
    """The greatest of several numbers, or of the elements of a list or array."""
    return builtins.max(_flat(x))


@_register(1, None)
def min_(*x: Any) -> Any:
    """The least of several numbers, or of the elements of a list or array."""
    return builtins.min(_flat(x))


def _flat(x: Sequence[Any]) -> list[Any]:
    items: list[Any] = np.asarray(x[0]).reshape(-1).tolist() if len(x) == 1 else list(x)
    if not items:
        raise Decline("empty")
    return items


@_register(1)
def sum_(x: Iterable[Any]) -> Any:
    """The sum of a list of numbers or arrays."""
    return builtins.sum(x)


@_register(1)
def prod(x: Iterable[Any]) -> Any:
    """The product of a list of numbers; 1 for none."""
    return math.prod(x)


@_register(1)
def all_(x: Any) -> bool:
    """Whether all elements are true (or not zero)."""
    return bool(np.all(np.asarray(x)))


@_register(1)
def any_(x: Any) -> bool:
    """Whether any element is true (or not zero)."""
    return bool(np.any(np.asarray(x)))


@_register(1, 2)
def range_(start: int, stop: int | None = None) -> range:
    """The integers from 0 (or the first argument) up to, not including, the last argument."""
    return range(start) if stop is None else range(start, stop)


@_register(1, None, values=True)
def zip_(*x: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Pairs (or longer tuples) of the elements of several lists of equal length."""
    return list(builtins.zip(*x, strict=True))


@_register(1)
def sorted_(x: Iterable[Any]) -> tuple[Any, ...]:
    """The elements in ascending order."""
    return tuple(builtins.sorted(x))


@_register(1)
def reversed_(x: Sequence[Any]) -> tuple[Any, ...]:
    """The elements from last to first."""
    return tuple(builtins.reversed(x))


@_register(1)
def iota(n: int) -> tuple[int, ...]:
    """0, 1, …, n − 1."""
    return tuple(range(n))


@_register(2)
def compose(p: Sequence[int], q: Sequence[int]) -> tuple[int, ...]:
    """The permutation that transposing by `p`, then by `q`, amounts to: `p[q[i]]`."""
    if len(p) != len(q):
        raise Decline("permutations of different ranks")
    return tuple(int(p[i]) for i in q)


@_register(1)
def inverse(p: Sequence[int]) -> tuple[int, ...]:
    """The permutation that undoes `p`."""
    return tuple(int(i) for i in np.argsort(np.asarray(p)))


@_register(2)
def axis(a: int, r: int) -> int:
    """The axis `a` of a tensor of rank `r`, counted from the front."""
    a = int(a)
    if not -r <= a < max(r, 1):
        raise Decline("no such axis")
    return a + r if a < 0 else a


@_register(2)
def axes(a: Iterable[int], r: int) -> tuple[int, ...]:
    """Several axes of a tensor of rank `r`, counted from the front, ascending."""
    return tuple(builtins.sorted(axis(int(i), r) for i in np.asarray(a).reshape(-1)))


@_register(1)
def normalized_perm(p: Iterable[int]) -> tuple[int, ...]:
    """A permutation with its axes counted from the front."""
    p = [int(i) for i in p]
    return tuple(i % len(p) for i in p)


@_register(1, 2)
def concat(arrays: Sequence[Any], axis: int = 0) -> Any:
    """Arrays, joined along an axis; of flat lists, one list."""
    if all(not isinstance(a, np.ndarray) for a in arrays):
        return tuple(x for a in arrays for x in a)
    return np.concatenate([np.asarray(a) for a in arrays], axis=axis)


@_register(2)
def reshape(x: Any, to: Sequence[int]) -> Any:
    """The array `x` with another shape."""
    return np.reshape(x, tuple(int(d) for d in np.asarray(to).reshape(-1)))


@_register(2)
def transpose(x: Any, perm: Sequence[int]) -> Any:
    """The array `x` with its axes permuted."""
    return np.transpose(x, tuple(int(d) for d in perm))


@_register(2)
def unsqueeze_to(x: Any, r: int) -> Any:
    """A vector as an array of rank `r`, along axis 0: shape (n, 1, 1, …)."""
    return np.reshape(x, (-1,) + (1,) * (r - 1))


@_register(2)
def expand_dims(x: Any, at: Any) -> Any:
    """The array `x` with new axes of size 1 at the given places of the result."""
    return np.expand_dims(x, tuple(int(a) for a in np.asarray(at).reshape(-1)))


@_register(2)
def broadcast_to(x: Any, to: Sequence[int]) -> Any:
    """The array `x` repeated to another shape."""
    try:
        return np.broadcast_to(x, tuple(to))
    except ValueError:
        raise Decline("the array does not broadcast to this shape") from None


@_register(2, 3)
def full(of: Sequence[int], value: Any, to: DType | None = None) -> Any:
    """An array of shape `of`, every element `value`; element type f32 unless given."""
    return np.full(tuple(of), value, to.numpy if to is not None else np.float32)


@_register(1, 2)
def array(x: Any, to: DType | None = None) -> Any:
    """A list or number as an array; integers become i64 and floats f32 unless a type is given."""
    if to is not None:
        return np.asarray(x, dtype=to.numpy)
    a = np.asarray(x)
    return a.astype(np.float32) if a.dtype == np.float64 and not isinstance(x, np.ndarray) else a


@_register(1)
def size(x: Any) -> int:
    """The number of elements of an array or list."""
    return int(np.asarray(x).size)


@_register(3)
def where(condition: Any, x: Any, y: Any) -> Any:
    """Elements of `x` where the condition holds, of `y` elsewhere."""
    return np.where(condition, x, y)


@_register(1, 2)
def largest(x: DType) -> float:
    """The greatest finite number of an element type."""
    import ml_dtypes

    info: Any = ml_dtypes.finfo(x.numpy) if x.is_float else np.iinfo(x.numpy)  # type: ignore[no-untyped-call]
    return float(info.max)


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


@_register(2, values=True)
def milliseconds(x: Value, target: Any) -> float:
    """The estimated time of the operator that makes `x` on the target: `milliseconds(x, target)`."""
    estimate = getattr(target, "milliseconds", None)
    if x.op is None or estimate is None:
        raise Decline("nothing to estimate")
    return float(estimate(x.op))

"""The functions that rules may call at compile time: facts about values here, numbers and arrays in
:mod:`compiler.rewrite.functions_arrays`."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import Dim, DType, Value
from compiler.rewrite.function_table import (
    CONSTANTS,
    DTYPE_CLASSES,
    FUNCTIONS,
    Decline,
    contains,
    data,
    differ,
    equal,
    register,
    same,
    tensor_type,
)
from compiler.rewrite.functions_arrays import axis

__all__ = [
    "CONSTANTS",
    "DTYPE_CLASSES",
    "FUNCTIONS",
    "Decline",
    "axis",
    "contains",
    "data",
    "differ",
    "dims",
    "equal",
    "same",
    "shape",
]


@register(1, values=True)
def uses(x: Value) -> int:
    """How many operands in the graph are `x`."""
    return x.use_count


@register(1, values=True)
def rank(x: Any) -> int:
    """The number of dimensions of `x`; where it is not known, the rule does not apply."""
    r = tensor_type(x).rank
    if r is None:
        raise Decline("rank not known")
    return r


@register(1, values=True)
def shape(x: Any) -> tuple[int, ...]:
    """The sizes of all dimensions of `x`; where one is not known, the rule does not apply."""
    t = tensor_type(x)
    if not t.is_static:
        raise Decline("shape not known")
    return t.static_shape


@register(1, values=True)
def dims(x: Any) -> tuple[Dim, ...]:
    """The dimensions of `x`, names included, for comparing; where the rank is not known, the rule does not apply."""
    t = tensor_type(x)
    if t.shape is None:
        raise Decline("rank not known")
    return t.shape


@register(2, values=True)
def dim(x: Any, axis: int) -> int:
    """The size of one dimension of `x`, counted from the end if negative; not known: the rule does not apply."""
    s = dims(x)
    if not -len(s) <= axis < len(s):
        raise Decline("no such axis")
    d = s[axis]
    if not isinstance(d, int):
        raise Decline("size not known")
    return d


@register(1, values=True)
def dtype(x: Any) -> DType:
    """The element type of `x`."""
    return tensor_type(x).dtype


@register(1, values=True)
def is_static(x: Any) -> bool:
    """Whether all dimensions of `x` are known."""
    return tensor_type(x).is_static


@register(1, values=True)
def has_rank(x: Any) -> bool:
    """Whether the rank of `x` is known."""
    return tensor_type(x).rank is not None


@register(1, values=True)
def is_const(x: Any) -> bool:
    """Whether `x` is known at compile time."""
    return x is not None and (not isinstance(x, Value) or x.constant is not None)


@register(1, values=True)
def has(x: Any) -> bool:
    """Whether an optional operand or attribute is there."""
    return x is not None


@register(1, values=True)
def op_name(x: Value) -> str:
    """The qualified name of the operator that makes `x`; `""` for an input."""
    return x.op.name if x.op is not None else ""


@register(1, None, values=True)
def same_type(x: Any, *others: Any) -> bool:
    """Whether all have the same element type and provably the same dimensions."""
    first = tensor_type(x)
    for o in others:
        t = tensor_type(o)
        if t.dtype is not first.dtype or first.shape is None or t.shape is None or not same(first.shape, t.shape):
            return False
    return True


@register(2, values=True)
def same_shape(x: Any, y: Any) -> bool:
    """Whether both have provably the same dimensions."""
    a, b = tensor_type(x).shape, tensor_type(y).shape
    return a is not None and b is not None and same(a, b)


@register(2, values=True)
def broadcasts_to(x: Any, y: Any) -> bool:
    """Whether broadcasting `x` with `y` provably gives the shape of `y`."""
    a, b = tensor_type(x).shape, tensor_type(y).shape
    if a is None or b is None or len(a) > len(b):
        return False
    return all(d == 1 or same(d, e) for d, e in zip(a, b[len(b) - len(a) :]))


@register(2, values=True)
def may_broadcast_to(x: Any, y: Any) -> bool:
    """Whether nothing that is known keeps broadcasting `x` with `y` from giving the shape of `y`."""
    a, b = tensor_type(x).shape, tensor_type(y).shape
    if a is None or b is None or len(a) > len(b):
        return False
    return all(d == 1 or d == e or not (isinstance(d, int) and isinstance(e, int)) for d, e in zip(a[::-1], b[::-1]))


@register(1, values=True)
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


@register(2, values=True)
def milliseconds(x: Value, target: Any) -> float:
    """The estimated time of the operator that makes `x` on the target: `milliseconds(x, target)`."""
    estimate = getattr(target, "milliseconds", None)
    if x.op is None or estimate is None:
        raise Decline("nothing to estimate")
    return float(estimate(x.op))

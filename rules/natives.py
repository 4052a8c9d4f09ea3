"""Functions that rules share: names of element types, axes, permutations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from compiler.ir import BOOL, F16, F32, I8, I16, I32, U8, U16, DType, TensorType, Value
from compiler.rewrite.functions import Decline

Array = np.ndarray[Any, Any]

#: MIL's names of element types where it wants them as strings (``cast.dtype``, ``topk.output_indices_dtype``).
_NAMES: dict[str, DType] = {
    "fp16": F16,
    "fp32": F32,
    "int8": I8,
    "int16": I16,
    "int32": I32,
    "uint8": U8,
    "uint16": U16,
    "bool": BOOL,
}


def onnx_dtype(name: str) -> DType:
    """The element type that MIL calls ``name``.

    Raises:
        Decline: MIL has no such name.
    """
    found = _NAMES.get(name)
    if found is None:
        raise Decline(f"MIL has no element type '{name}'")
    return found


def mil_dtype(dtype: DType) -> str:
    """MIL's name of the element type that stands for ``dtype`` in Core ML: 32 bits for any integer, fp32 for f64."""
    if dtype is F16:
        return "fp16"
    if dtype is BOOL:
        return "bool"
    if dtype.is_integer:
        return "int32"
    if dtype.is_float:
        return "fp32"
    raise Decline(f"Core ML has no {dtype}")


def swapped(rank: int) -> tuple[int, ...]:
    """The permutation that exchanges the last two axes of a tensor of that rank; of a vector, none."""
    perm = list(range(rank))
    if rank >= 2:
        perm[-1], perm[-2] = perm[-2], perm[-1]
    return tuple(perm)


def shape_of(value: Value) -> tuple[int, ...]:
    """The shape of ``value``, all of it known.

    Raises:
        Decline: a dimension is not known.
    """
    if not isinstance(value.type, TensorType) or not value.type.is_static:
        raise Decline("shape not known")
    return value.type.static_shape


def rank_of(value: Value) -> int:
    """The rank of ``value``.

    Raises:
        Decline: it is not known.
    """
    if not isinstance(value.type, TensorType) or value.type.shape is None:
        raise Decline("rank not known")
    return len(value.type.shape)


def dtype_of(value: Value) -> DType:
    """The element type of ``value``.

    Raises:
        Decline: it is no tensor.
    """
    if not isinstance(value.type, TensorType):
        raise Decline("not a tensor")
    return value.type.dtype


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front.

    Raises:
        Decline: there is no such axis.
    """
    if not -rank <= axis < max(rank, 1):
        raise Decline("no such axis")
    return axis % rank if rank else 0


def constant_ints(value: Value | None) -> tuple[int, ...] | None:
    """The integers that a constant holds; None where the value is absent or not constant."""
    array = None if value is None else value.constant
    return None if array is None else tuple(int(v) for v in np.asarray(array).reshape(-1))


def permuted(perm: Sequence[int]) -> bool:
    """Whether a permutation changes anything."""
    return tuple(perm) != tuple(range(len(perm)))

"""What operators ask of the powers of two by which their operands and results are scaled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil, floor, isfinite, log2
from typing import Any

import numpy as np

from compiler.ir import F32, Op, TensorType, Value
from passes.half import CONSTANT_LOSS, SMALLEST

Array = np.ndarray[Any, Any]

LARGEST = float(np.finfo(np.float16).max)

#: With a constant operand at this position, the result has a scale of its own: the constant takes it.
TAKES = {"conv": 1, "conv_transpose": 1, "linear": 1, "matmul": 1, "mul": 1, "real_div": 1, "batch_norm": 3}

#: What commutes with positive factors: its float operands and results have one scale.
_COMMUTES = frozenset(
    (
        *("relu", "leaky_relu", "prelu", "abs", "clip", "add", "sub", "maximum", "minimum", "select"),
        *("identity", "concat", "stack", "split", "pad", "tile", "reverse", "transpose", "reshape", "expand_dims"),
        *("squeeze", "slice_by_index", "slice_by_size", "gather", "max_pool", "avg_pool", "reduce_sum", "reduce_mean"),
        *("reduce_max", "reduce_min", "upsample_bilinear", "upsample_nearest_neighbor", "resize_bilinear"),
        *("resize_nearest_neighbor", "depth_to_space", "space_to_depth", "pixel_shuffle", "pixel_unshuffle", "crop"),
    )
)

#: Operands that are factors, not values on the scale of the result.
_FACTORS = frozenset({("leaky_relu", 1), ("prelu", 1), ("pad", 1), ("gather", 1), ("select", 0)})

_NORMS = frozenset({"layer_norm", "instance_norm"})


@dataclass(frozen=True, slots=True)
class Change:
    """A constant operand of an operator is multiplied by 2 to the power of e(``plus``) - e(``minus``), where e says by
    which power of two a value is divided; of a value that is None it is 0."""

    index: int
    plus: Value | None
    minus: Value | None


def takes(op: Op) -> int | None:
    """The position of the constant operand that takes a scale; None if there is none."""
    name = op.name.removeprefix("mil.")
    at = TAKES.get(name)
    if at is None:
        return None
    for i in (at, 0) if name in ("mul", "matmul") else (at,):
        operand = op.operands[i] if i < len(op.operands) else None
        if operand is not None and operand.constant is not None and is_float(operand):
            rest = [v for j, v in enumerate(op.operands) if j != i and v is not None]
            moving = [v for v in rest if v.constant is None]
            if len(moving) == 1 and (i != 0 or moving[0] is op.operands[1]):
                return i
    return None


def is_norm(op: Op) -> bool:
    """Whether an operator is a norm whose gamma and beta are constants, where it has them."""
    given = [v for v in op.operands[1:] if v is not None]
    return op.name.removeprefix("mil.") in _NORMS and all(v.constant is not None for v in given)


def commutes(op: Op) -> bool:
    """Whether all that flows through an operator may have one scale, whatever it is."""
    pads = op.name == "mil.pad" and op.attributes["mode"] == "constant" and float(op.attributes["constant_val"]) != 0.0
    return op.name.removeprefix("mil.") in _COMMUTES and not pads


def changes(op: Op) -> Iterator[Change]:
    """The constants of an operator that take its scales."""
    at, name = takes(op), op.name.removeprefix("mil.")
    out = op.results[0]
    if at is not None:
        x = op.operands[1 - at] if name in ("mul", "matmul") else op.operands[0]
        yield Change(at, out, x) if name == "real_div" else Change(at, x, out)
        if name == "batch_norm":
            yield Change(1, None, x)
            yield Change(4, None, out)
        elif name in ("conv", "conv_transpose", "linear"):
            yield Change(2, None, out)
    elif is_norm(op):
        yield Change(1, None, out)
        yield Change(2, None, out)
    elif commutes(op):
        for i, v in enumerate(op.operands):
            if v is not None and v.constant is not None and is_float(v) and (name, i) not in _FACTORS:
                yield Change(i, None, out)


def added_to(op: Op, index: int) -> Value | None:
    """The value on whose scale an operand is that is only added to something: a bias, the mean of a normalization."""
    name = op.name.removeprefix("mil.")
    if (name in ("conv", "conv_transpose", "linear") and index == 2) or (name == "batch_norm" and index == 4):
        return op.results[0]
    if name in ("add", "sub"):
        return op.results[0]
    return op.operands[0] if name == "batch_norm" and index == 1 else None


def survives(constant: Array) -> tuple[float, float]:
    """The least and the greatest power of two by which a constant may be multiplied for half precision to hold it.

    Below 2⁻¹⁴ halves are 2⁻²⁴ apart, so that rounding loses 2⁻²⁴ / √12 in the quadratic mean, of which
    :data:`passes.half.CONSTANT_LOSS` of the constant's is allowed.
    """
    finite = constant[np.isfinite(constant) & (constant != 0)].astype(np.float64)
    if not finite.size:
        return -np.inf, np.inf
    mean = float(np.sqrt(np.mean(np.square(finite))))
    return ceil(log2(2.0**-24 / np.sqrt(12.0) / CONSTANT_LOSS / mean)), floor(
        log2(LARGEST / float(np.abs(finite).max()))
    )


def epsilon_range(op: Op) -> tuple[float, float]:
    """Between which powers of two a norm's input may be divided for its epsilon, times their squares, to stay a half
    below 1; none is always allowed, since what becomes of an epsilon that is too small is decided elsewhere."""
    epsilon = float(op.attributes["epsilon"])
    if epsilon <= 0.0:
        return -np.inf, np.inf
    return min(0, floor(log2(epsilon) / 2) + 1), max(0, floor(log2(epsilon / SMALLEST) / 2))


def beside(constant: Array, op: Op, largest: Mapping[Value, float]) -> bool:
    """Whether a constant is of a size with what the operator gives: a limit that nothing reaches asks for nothing."""
    most = float(np.abs(constant).max(initial=0.0))
    return isfinite(most) and most <= 2.0**10 * largest.get(op.results[0], 0.0)


def flows(value: Value) -> bool:
    return is_float(value) and value.constant is None


def is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype is F32

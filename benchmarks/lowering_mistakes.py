"""Mistakes of the kind that are made in lowering: what may stand for a parameter in its place.

A wrong axis, pads in another order, strides for dilations, another way to round or to place samples, a flag turned
round, an epsilon of another framework, an operand that is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from compiler.ir import DType

#: A mistake and what stands there instead.
Change = tuple[str, Any]

_AXIS = frozenset({"axis", "batch_axis", "seq_axis", "time_axis"})
_AXES = frozenset({"axes", "perm"})
_PADS = frozenset({"pad", "pads"})
_PER_AXIS = frozenset({"strides", "dilations", "kernel_shape", "kernel_sizes", "output_padding", "output_shape"})

#: Words that are mistaken for each other.
_WORDS = (
    ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"),
    ("valid", "same", "same_lower", "custom"),
    ("constant", "reflect", "edge", "wrap"),
    ("constant", "reflect", "replicate"),
    ("zeros", "border", "reflection"),
    ("nearest", "linear", "cubic"),
    ("bilinear", "nearest"),
    ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"),
    ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "half_pixel_symmetric", "tf_crop_and_resize"),
    ("DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS", "OFFSET_CORNERS"),
    ("normalized_minus_one_to_one", "normalized_zero_to_one", "unnormalized"),
    ("stretch", "not_larger", "not_smaller"),
    ("LEFT", "RIGHT"),
    ("left", "right"),
    ("forward", "reverse"),
    ("bidirectional", "forward"),
    ("DCR", "CRD"),
    ("none", "add", "mul", "min", "max"),
    ("update", "add", "mul", "min", "max"),
    ("none", "tanh"),
    ("EXACT", "TANH_APPROXIMATION", "SIGMOID_APPROXIMATION"),
    ("relu", "tanh", "sigmoid"),
    ("sigmoid", "tanh", "relu"),
    ("Sigmoid", "Tanh", "Relu"),
    ("Relu", "Tanh", "Sigmoid"),
    ("int32", "bool"),
    ("fp32", "int32"),
    ("mean", "sum", "none"),
)

#: Operators that are mistaken for each other, or differ in how they round, break ties or treat what is left over.
OTHERS = {
    "mil.add": "mil.sub", "mil.sub": "mil.add", "mil.mul": "mil.real_div", "mil.real_div": "mil.mul",
    "mil.maximum": "mil.minimum", "mil.minimum": "mil.maximum", "mil.floor": "mil.round", "mil.ceil": "mil.floor",
    "mil.round": "mil.floor", "mil.floor_div": "mil.real_div", "mil.mod": "mil.sub",
    "mil.greater": "mil.greater_equal", "mil.greater_equal": "mil.greater", "mil.less": "mil.less_equal",
    "mil.less_equal": "mil.less", "mil.equal": "mil.not_equal", "mil.not_equal": "mil.equal",
    "mil.logical_and": "mil.logical_or", "mil.logical_or": "mil.logical_xor", "mil.logical_xor": "mil.logical_or",
    "mil.reduce_sum": "mil.reduce_mean", "mil.reduce_mean": "mil.reduce_sum", "mil.reduce_max": "mil.reduce_min",
    "mil.reduce_min": "mil.reduce_max", "mil.reduce_prod": "mil.reduce_sum",
    "mil.reduce_l1_norm": "mil.reduce_l2_norm", "mil.reduce_l2_norm": "mil.reduce_sum_square",
    "mil.reduce_sum_square": "mil.reduce_l2_norm", "mil.reduce_log_sum": "mil.reduce_log_sum_exp",
    "mil.reduce_log_sum_exp": "mil.reduce_log_sum", "mil.reduce_argmax": "mil.reduce_argmin",
    "mil.reduce_argmin": "mil.reduce_argmax", "mil.sin": "mil.cos", "mil.cos": "mil.sin", "mil.asin": "mil.acos",
    "mil.acos": "mil.asin", "mil.sinh": "mil.cosh", "mil.cosh": "mil.sinh", "mil.tan": "mil.atan",
    "mil.atan": "mil.atanh", "mil.atanh": "mil.atan", "mil.tanh": "mil.sigmoid", "mil.sigmoid": "mil.tanh",
    "mil.exp": "mil.exp2", "mil.sqrt": "mil.rsqrt", "mil.rsqrt": "mil.sqrt", "mil.square": "mil.abs",
    "mil.abs": "mil.square", "mil.erf": "mil.tanh", "mil.relu": "mil.abs", "mil.relu6": "mil.relu",
    "mil.softplus": "mil.relu", "mil.softsign": "mil.tanh", "mil.silu": "mil.sigmoid",
    "mil.max_pool": "mil.l2_pool", "mil.depth_to_space": "mil.pixel_shuffle", "mil.pixel_shuffle": "mil.depth_to_space",
    "mil.gather_along_axis": "mil.gather", "mil.log": "mil.exp", "mil.sign": "mil.abs",
}  # fmt: skip


def changes(name: str, value: Any, rank: int | None) -> Iterator[Change]:
    """What may stand for the parameter ``name``, a number, word, list or array known at compile time.

    Args:
        rank: of the tensor whose axes it counts, if it does and that is known.
    """
    if isinstance(value, (bool, np.bool_)):
        yield "flag turned round", not value
    elif isinstance(value, DType) or value is None:
        return
    elif isinstance(value, (int, np.integer)):
        yield from _whole(name, int(value), rank)
    elif isinstance(value, (float, np.floating)):
        yield from _real(name, float(value))
    elif isinstance(value, str):
        yield from _word(value)
    elif isinstance(value, np.ndarray):
        yield from _array(name, value, rank)
    elif isinstance(value, (tuple, list)) and value:
        yield from _list(name, tuple(value), rank)


def _whole(name: str, value: int, rank: int | None) -> Iterator[Change]:
    if name in _AXIS:
        if rank is None or rank > 1:
            yield "wrong axis", _turned(value, rank)
    elif value in (0, 1) and name not in ("group", "groups", "p", "k", "size"):
        yield "flag turned round", 1 - value
    else:
        yield "off by one", value + 1


def _turned(axis: int, rank: int | None) -> int:
    if rank is None:
        return axis + 1
    return (axis + rank + 1) % rank - (rank if axis < 0 else 0)


def _real(name: str, value: float) -> Iterator[Change]:
    if name == "epsilon":
        yield "epsilon of another framework", value * 100 if value else 1e-3
    else:
        yield "wrong number", value * 1.5 if value and np.isfinite(value) else 1.0 if value == 0 else -value


def _word(value: str) -> Iterator[Change]:
    for words in _WORDS:
        if value in words:
            other = words[(words.index(value) + 1) % len(words)]
            yield f"wrong mode: {value} as {other}", other


def _list(name: str, value: tuple[Any, ...], rank: int | None) -> Iterator[Change]:
    if all(isinstance(v, str) for v in value):
        for i, v in enumerate(value):
            for kind, other in _word(v):
                yield kind, (*value[:i], other, *value[i + 1 :])
        return
    if not all(isinstance(v, (bool, int, float, np.number, np.bool_)) for v in value):
        return
    if all(isinstance(v, (bool, np.bool_)) for v in value):
        yield "flag turned round", tuple(not v for v in value)
        return
    if name == "axes":
        if rank is None or rank > len(value):
            yield "wrong axis", tuple(sorted(_turned(int(v), rank) for v in value))
        if len(value) > 1:
            yield "one axis less", value[:-1]
    elif name == "perm":
        inverse = tuple(int(i) for i in np.argsort(np.asarray(value)))
        if inverse != value:
            yield "permutation not inverted", inverse
        if len(value) > 1:
            yield "wrong axis", (*value[:-2], value[-1], value[-2])
    elif name in _PADS:
        half = len(value) // 2
        if value[half:] != value[:half]:
            yield "pads in another order: the ends first", (*value[half:], *value[:half])
        if half > 1:
            mixed = tuple(v for pair in zip(value[:half], value[half:]) for v in pair)
            if mixed != value:
                yield "pads in another order: by axes", mixed
        yield "off by one", (*value[:-1], value[-1] + 1)
    else:
        if value[::-1] != value:
            yield "axes in another order", value[::-1]
        if name in _PER_AXIS and any(v != 1 for v in value):
            yield "left as it is by default", (1,) * len(value)
        elif all(isinstance(v, (int, np.integer)) for v in value):
            yield "off by one", (value[0] + 1, *value[1:])
        elif all(isinstance(v, (float, np.floating)) for v in value):
            yield "wrong number", tuple(float(v) * 1.5 if v else 1.0 for v in value)


def _array(name: str, value: np.ndarray[Any, Any], rank: int | None) -> Iterator[Change]:
    if value.ndim == 0:
        for kind, other in changes(name, value[()].item() if value.dtype.kind in "iufb" else None, rank):
            yield kind, np.asarray(other).astype(value.dtype)
    elif value.size and value.dtype.kind in "iu" and value.ndim == 1 and value.size <= 16:
        for kind, other in _list(name, tuple(int(v) for v in value), rank):
            yield kind, np.asarray(other).astype(value.dtype)
    elif value.size and value.dtype.kind in "iuf":
        for axis in range(value.ndim):
            if value.shape[axis] > 1:
                yield f"data turned round: axis {axis}", np.flip(value, axis)
        if value.dtype.kind == "f":
            yield "wrong number", (value * 1.5).astype(value.dtype)

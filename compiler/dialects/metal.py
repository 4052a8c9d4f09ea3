"""The metal dialect: what a kernel can do to a tensor, and kernels.

Operators come in three roles, which is all that fusion needs to know:

- ``pointwise``: an element of the result depends on one element of each operand, which broadcast as in NumPy;
- ``movement``: an element of the result *is* one of an operand, or a constant; only its index changes. A constant that
  is stored quantized counts as one: an element is brought back where it is read, ``(x - zero) · scale``, the scale
  being one number, one for each index of ``axis``, or one for each ``block`` of them;
- ``anchor``: the rest: reductions, products, windows, recurrences. A kernel holds at most one. ``metal.picture`` is
  one, too: planes from 0 to 255 as the pixels of a texture.

``metal.kernel`` holds a region of the above over whole tensors: what one dispatch computes. ``metal.by_hand`` is its
first operand, computed from the others by a kernel that the user names and writes. ``metal.join`` says its operands lie
side by side in one buffer, so that nobody need move them there. ``metal.trim`` says how many rows of a buffer hold
something, where that is only known at run time.

Rules of stage ``metal`` bring onnx.* here; ``passes/fuse_regions.py`` makes the kernels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from compiler.ir import core
from compiler.ir.dtypes import BOOL, I64, DType
from compiler.ir.opdef import (
    Arity,
    AttributeKind,
    AttributeSpec,
    Dialect,
    InferenceError,
    OpDef,
    OperandSpec,
    register_dialect,
)
from compiler.ir.types import TensorType, Type

#: Functions of one number that give the same type.
UNARY = (
    *("neg", "abs", "sign", "floor", "ceil", "rint", "exp", "log", "sqrt", "rsqrt", "reciprocal", "erf"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "not"),
)
BINARY = ("add", "sub", "mul", "div", "remainder", "floor_mod", "pow", "max", "min", "and", "or", "xor")
COMPARISONS = ("less", "less_equal", "equal")
TESTS = ("is_nan", "is_inf")

_OPERANDS: dict[str, str] = {
    **dict.fromkeys((*UNARY, *TESTS, "cast", "copy"), "x"),
    **dict.fromkeys((*BINARY, *COMPARISONS), "x y"),
    "select": "condition x y",
    # movement
    **dict.fromkeys(("reshape", "transpose", "broadcast", "slice", "pad", "strided"), "x"),
    "concat": "x*",
    "gather": "x indices",
    "gather_elements": "x indices",
    "gather_nd": "x indices",
    "dequantize": "x scale zero?",
    # anchors
    "conv": "x w b?",
    "conv_transpose": "x w b?",
    "matmul": "a b",
    "attention": "q k v mask?",
    "reduce": "x",
    "arg_reduce": "x",
    "softmax": "x",
    "normalize": "x",
    "pool": "x",
    "resize": "x",
    "scan": "x",
    "lstm": "x r h? c?",
    "gru": "x r b? h?",
    "rnn": "x r h?",
    "top_k": "x",
    "scatter_nd": "x indices updates",
    "scatter_elements": "x indices updates",
    "nms": "boxes scores",
    "grid_sample": "x grid",
    "picture": "x",
    # structure
    "by_hand": "value x*",
    "join": "x*",
    "trim": "x count",
    "kernel": "x*",
}

_ATTRIBUTES: dict[str, dict[str, AttributeKind]] = {
    "cast": {"to": "type"},
    "reshape": {"shape": "ints"},
    "broadcast": {"shape": "ints"},
    "transpose": {"perm": "ints"},
    "slice": {"starts": "ints", "steps": "ints", "shape": "ints"},
    "strided": {"start": "int", "strides": "ints", "shape": "ints"},
    "pad": {"before": "ints", "after": "ints", "mode": "string", "value": "float"},
    "concat": {"axis": "int"},
    "gather": {"axis": "int"},
    "gather_elements": {"axis": "int"},
    "gather_nd": {"batch_dims": "int"},
    "dequantize": {"axis": "int", "block": "int"},
    "conv": {"strides": "ints", "pads": "ints", "dilations": "ints", "group": "int"},
    "conv_transpose": {"strides": "ints", "pads": "ints", "dilations": "ints", "group": "int"},
    "attention": {"scale": "float", "causal": "bool"},
    "reduce": {"kind": "string", "axes": "ints"},
    "arg_reduce": {"kind": "string", "axis": "int", "last": "bool"},
    "softmax": {"axis": "int", "log": "bool"},
    "normalize": {"axes": "ints", "epsilon": "float", "center": "bool"},
    "pool": {
        "kind": "string",
        "kernel": "ints",
        "strides": "ints",
        "pads": "ints",
        "dilations": "ints",
        "inside": "bool",
    },
    "resize": {
        "mode": "string",
        "scales": "floats",
        "coordinates": "string",
        "rounding": "string",
        "cubic": "float",
        "exclude": "bool",
    },
    "scan": {"axis": "int", "exclusive": "bool", "reverse": "bool"},
    "lstm": {"reverse": "bool"},
    "gru": {"reverse": "bool", "linear_before_reset": "bool"},
    "rnn": {"reverse": "bool"},
    "top_k": {"k": "int", "axis": "int", "largest": "bool"},
    "scatter_nd": {"kind": "string"},
    "scatter_elements": {"axis": "int", "kind": "string"},
    "nms": {"limit": "int", "iou": "float", "score": "float", "center": "bool"},
    "grid_sample": {"mode": "string", "padding": "string", "align": "bool"},
    "picture": {"pixels": "string"},
    "by_hand": {"kernel": "string"},
    "join": {"axis": "int"},
    "kernel": {"kind": "string", "name": "string"},
}

_RESULTS = {"lstm": "y h c", "gru": "y h", "rnn": "y h", "top_k": "values indices", "nms": "rows count", "kernel": "y*"}

POINTWISE = frozenset(f"metal.{n}" for n in (*UNARY, *BINARY, *COMPARISONS, *TESTS, "select", "cast", "copy"))
MOVEMENT = frozenset(
    f"metal.{n}"
    for n in (
        *("reshape", "transpose", "broadcast", "slice", "pad", "concat", "gather", "gather_elements", "gather_nd"),
        *("strided", "dequantize"),
    )
)
STRUCTURE = frozenset({"metal.by_hand", "metal.join", "metal.trim", "metal.kernel"})
ANCHORS = frozenset(f"metal.{n}" for n in _OPERANDS) - POINTWISE - MOVEMENT - STRUCTURE

_BOOLEAN = frozenset(f"metal.{n}" for n in (*COMPARISONS, *TESTS))
_COMMUTATIVE = frozenset({"add", "mul", "max", "min", "and", "or", "xor", "equal"})


class MetalDialect(Dialect):
    """``metal.*``. Types of pointwise and movement operators are inferred; what an anchor gives its rule must say."""

    name = "metal"
    adopts_types = True

    def lookup(self, op: str) -> OpDef | None:
        if op not in _OPERANDS:
            return None
        return OpDef(
            name=f"metal.{op}",
            operands=tuple(_operand(o, _same_type(op, o)) for o in _OPERANDS[op].split()),
            results=tuple(_operand(r, "") for r in _RESULTS.get(op, "y").split()),
            attributes={n: AttributeSpec(n, kind, required=True) for n, kind in _ATTRIBUTES.get(op, {}).items()},
            regions=("body",) if op == "kernel" else (),
            commutative=op in _COMMUTATIVE,
        )

    def op_names(self) -> Iterable[str]:
        return _OPERANDS

    def infer(
        self,
        defn: OpDef,
        operands: Sequence[core.Value | None],
        attributes: Mapping[str, Any],
        regions: Sequence[core.Block] = (),
        results: int | None = None,
    ) -> list[Type]:
        types = [v.type for v in operands if v is not None]
        tensors = [t for t in types if isinstance(t, TensorType) and t.is_static]
        if len(tensors) != len(types) or not tensors:
            raise InferenceError(f"{defn.name} needs tensors of known shapes")
        if defn.name in POINTWISE:
            return [TensorType(_pointwise_dtype(defn.name, tensors, attributes), _broadcast(defn.name, tensors))]
        if defn.name in ("metal.lstm", "metal.gru", "metal.rnn"):
            steps, batch, _ = tensors[0].static_shape
            state = TensorType(tensors[0].dtype, (batch, tensors[1].static_shape[0]))
            return [state.with_shape((steps, *state.static_shape)), *[state] * (len(defn.results) - 1)]
        if defn.name == "metal.dequantize":
            _check_scale(tensors, attributes)
            return [tensors[1].with_shape(tensors[0].shape)]
        if defn.name == "metal.top_k":
            axis, dims = attributes["axis"], tensors[0].static_shape
            kept = tensors[0].with_shape((*dims[:axis], attributes["k"], *dims[axis + 1 :]))
            return [kept, TensorType(I64, kept.shape)]
        if defn.name == "metal.nms":
            batches, classes, boxes = tensors[1].static_shape
            rows = batches * classes * min(boxes, attributes["limit"])
            return [TensorType(I64, (rows, 3)), TensorType(I64, (1,))]
        shape = _shape(defn.name, tensors, attributes)
        if shape is None:
            raise InferenceError(f"the result types of {defn.name} are not inferred; the rule that makes it gives them")
        return [TensorType(I64 if defn.name == "metal.arg_reduce" else tensors[0].dtype, shape)]

    def constant(self, value: np.ndarray[Any, Any]) -> tuple[str, dict[str, Any]]:
        return "onnx.Constant", {"value": value}


def _same_type(op: str, operand: str) -> str:
    """The type variable of an operand: those of a pointwise operator have one element type, a condition aside."""
    return "T" if f"metal.{op}" in POINTWISE and operand != "condition" else ""


def _operand(spelling: str, variable: str) -> OperandSpec:
    name = spelling.rstrip("?*")
    arity: Arity = "variadic" if spelling[-1] == "*" else "optional" if spelling[-1] == "?" else "required"
    return OperandSpec(name, arity, None, variable)


def _pointwise_dtype(name: str, operands: Sequence[TensorType], attributes: Mapping[str, Any]) -> DType:
    if name == "metal.cast":
        to: DType = attributes["to"]
        return to
    return BOOL if name in _BOOLEAN else operands[1 if name == "metal.select" else 0].dtype


def _broadcast(name: str, operands: Sequence[TensorType]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*(t.static_shape for t in operands))
    except ValueError:
        raise InferenceError(f"{name}: shapes {', '.join(map(str, operands))} do not broadcast") from None


def _shape(name: str, operands: Sequence[TensorType], attributes: Mapping[str, Any]) -> tuple[int, ...] | None:
    first = operands[0].static_shape
    match name:
        case "metal.reshape" | "metal.broadcast" | "metal.slice" | "metal.strided":
            shape = tuple(int(d) for d in attributes["shape"])
            if not _reaches(name, first, shape, attributes):
                raise InferenceError(f"{name} to {list(shape)} does not fit a tensor of shape {list(first)}")
            return shape
        case "metal.transpose":
            if sorted(attributes["perm"]) != list(range(len(first))):
                raise InferenceError(f"{list(attributes['perm'])} is no order of {len(first)} dimensions")
            return tuple(first[p] for p in attributes["perm"])
        case "metal.pad":
            return tuple(b + n + a for b, n, a in zip(attributes["before"], first, attributes["after"], strict=True))
        case "metal.concat" | "metal.join":
            axis = attributes["axis"]
            return (*first[:axis], sum(t.static_shape[axis] for t in operands), *first[axis + 1 :])
        case "metal.gather":
            axis = attributes["axis"]
            return (*first[:axis], *operands[1].static_shape, *first[axis + 1 :])
        case "metal.scatter_elements" | "metal.scatter_nd":
            return first
        case "metal.gather_elements":
            return operands[1].static_shape
        case "metal.softmax" | "metal.normalize" | "metal.scan" | "metal.trim" | "metal.by_hand" | "metal.picture":
            return first
        case "metal.reduce":
            return tuple(1 if i in attributes["axes"] else n for i, n in enumerate(first))
        case "metal.arg_reduce":
            return tuple(1 if i == attributes["axis"] else n for i, n in enumerate(first))
        case "metal.matmul":
            b = operands[1].static_shape
            return (*np.broadcast_shapes(first[:-2], b[:-2]), first[-2], b[-1])
        case "metal.attention":
            return (*first[:-1], operands[2].static_shape[-1])
    return None


def _reaches(name: str, x: tuple[int, ...], shape: tuple[int, ...], attributes: Mapping[str, Any]) -> bool:
    """Whether a movement to ``shape`` finds an element of ``x`` for each that it gives."""
    if any(n < 0 for n in shape):
        return False
    match name:
        case "metal.reshape":
            return math.prod(shape) == math.prod(x)
        case "metal.broadcast":
            return len(x) <= len(shape) and all(a in (1, b) for a, b in zip(reversed(x), reversed(shape)))
        case "metal.slice":
            starts, steps = attributes["starts"], attributes["steps"]
            if not len(starts) == len(steps) == len(shape) == len(x):
                return False
            ends = [s + t * (n - 1) for s, t, n in zip(starts, steps, shape)]
            return all(0 <= s < d and 0 <= e < d for s, e, n, d in zip(starts, ends, shape, x) if n)
    strides = attributes["strides"]
    if len(strides) != len(shape):
        return False
    reach = [s * (n - 1) for s, n in zip(strides, shape)]
    low, high = (attributes["start"] + sum(f(0, r) for r in reach) for f in (min, max))
    return 0 in shape or (low >= 0 and high < math.prod(x))


def _check_scale(operands: Sequence[TensorType], attributes: Mapping[str, Any]) -> None:
    """That there is one scale, one for each index of the axis, or one for each block of them; and as many zeros."""
    dims, axis, block = operands[0].static_shape, attributes["axis"], attributes["block"]
    if not 0 <= axis < max(len(dims), 1):
        raise InferenceError(f"metal.dequantize has no axis {axis}")
    for t in operands[1:]:
        if block:
            wanted: tuple[int, ...] = (*dims[:axis], -(-dims[axis] // block), *dims[axis + 1 :])
        else:
            wanted = dims[axis : axis + 1] if t.shape else ()
        if t.static_shape != wanted:
            raise InferenceError(f"metal.dequantize needs scales of shape {list(wanted)}, not {list(t.static_shape)}")
        if t.static_shape != operands[1].static_shape:
            raise InferenceError("metal.dequantize needs as many zero points as scales")


DIALECT = MetalDialect()
register_dialect(DIALECT)

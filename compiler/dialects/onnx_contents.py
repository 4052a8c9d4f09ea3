"""What is known of the contents of small tensors: the arithmetic by which models compute shapes.

``Shape → Gather → Concat → Reshape`` and its like only work on a few numbers, some of which may be dimensions that have
no number but a name. :func:`contents` follows such a chain back and says what it yields, element by element. Integers
are exact; floats are computed in their own precision, as ``Shape → Cast → Mul → Floor → Cast`` needs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from compiler import ir

#: A number, the name of a dimension, or ``"?"``.
Element = int | float | bool | str
Contents = tuple[Element, ...]


class Memo(dict[ir.Value, "Contents | None"]):
    """What has been found, value by value; valid as long as types and constants stay."""

    depth = 0


#: Tensors with more elements than this are data, not shapes.
LIMIT = 256
#: A chain longer than this is no shape arithmetic, and would exhaust Python's stack.
_DEPTH = 100


def contents(value: ir.Value, memo: Memo | None = None) -> Contents | None:
    """The elements of a scalar or a vector, where something is known of them.

    Args:
        value: a tensor of rank 0 or 1 of at most :data:`LIMIT` elements; nothing is known of others.
        memo: what has been found before.
    """
    type_ = value.type
    if not isinstance(type_, ir.TensorType) or type_.shape is None or len(type_.shape) > 1:
        return None
    if type_.shape and (type(type_.shape[0]) is not int or type_.shape[0] > LIMIT):
        return None
    op = value.op
    if op is None:
        return None
    if op.defn.constant is not None:
        array = op.attributes[op.defn.constant]
        return tuple(array.reshape(-1).tolist()) if array.dtype.kind in "iubf" else None
    rule = _RULES.get(op.name.partition("@")[0])
    if rule is None:
        return None
    if memo is None:
        memo = Memo()
    if value in memo:
        return memo[value]
    if memo.depth > _DEPTH:
        return None
    memo.depth += 1
    found = memo[value] = rule(op, memo)
    memo.depth -= 1
    return found


def is_known(elements: Contents | None) -> bool:
    """Whether every element is a number."""
    return elements is not None and not any(type(e) is str for e in elements)


def as_array(elements: Contents, type_: ir.TensorType) -> np.ndarray[Any, Any]:
    """Elements that are all known, as the array that ``type_`` describes."""
    return np.array(elements, type_.dtype.numpy).reshape(() if type_.rank == 0 else (len(elements),))


def computes_shapes(op: ir.Op) -> bool:
    """Whether :func:`contents` might know what the operator yields."""
    return op.name.partition("@")[0] in _RULES


def _operands(op: ir.Op, memo: Memo) -> list[Contents] | None:
    """The contents of all operands, or None if nothing is known of one."""
    out = []
    for v in op.operands:
        c = contents(v, memo) if v is not None else None
        if c is None:
            return None
        out.append(c)
    return out


def _shape(op: ir.Op, memo: Memo) -> Contents | None:
    shape = _operand_shape(op)
    if shape is None:
        return None
    return shape[op.attributes.get("start", 0) : op.attributes.get("end", len(shape))]


def _size(op: ir.Op, memo: Memo) -> Contents | None:
    shape = _operand_shape(op)
    return None if shape is None else (product(shape),)


def _operand_shape(op: ir.Op) -> tuple[ir.Dim, ...] | None:
    v = op.operands[0]
    return None if v is None else v.shape


def product(dims: tuple[Element, ...]) -> ir.Dim:
    """The product of dimensions: a number, a name (times one), or unknown."""
    number, names = 1, []
    for d in dims:
        if type(d) is int:
            number *= d
        else:
            names.append(str(d))
    if not names or number == 0:
        return number
    return names[0] if number == 1 and len(names) == 1 else ir.UNKNOWN


def _same(op: ir.Op, memo: Memo) -> Contents | None:
    """Operators that move no element as long as the rank stays below two."""
    v = op.operands[0]
    return None if v is None else contents(v, memo)


def _cast(op: ir.Op, memo: Memo) -> Contents | None:
    source = _same(op, memo)
    to = op.attributes["to"]
    if source is None or to.bits < 8 or not (to.is_integer or (to.is_float and to.bits >= 16) or to.name == "bool"):
        return None
    if not is_known(source):
        return source if to.is_integer and to.bits >= 32 else None
    if to.is_integer and any(isinstance(e, float) and not math.isfinite(e) for e in source):
        return None
    with np.errstate(all="ignore"):
        return tuple(np.array(source).astype(to.numpy).tolist())


def _gather(op: ir.Op, memo: Memo) -> Contents | None:
    both = _operands(op, memo)
    if both is None or op.attributes["axis"] not in (0, -1) or _operand_shape(op) == ():
        return None
    data, indices = both
    if not all(type(i) is int and -len(data) <= i < len(data) for i in indices):
        return None
    return tuple(data[i] for i in indices)  # type: ignore[index]


def _concat(op: ir.Op, memo: Memo) -> Contents | None:
    parts: list[Element] = []
    for v in op.operands:
        c = None if v is None else contents(v, memo)
        if c is None:  # its length may be known all the same
            shape = v.shape if v is not None else None
            if shape is None or len(shape) != 1 or type(shape[0]) is not int or shape[0] > LIMIT:
                return None
            c = (ir.UNKNOWN,) * shape[0]
        parts += c
    return tuple(parts)


def _slice(op: ir.Op, memo: Memo) -> Contents | None:
    data = _same(op, memo)
    if data is None:
        return None
    if "starts" in op.attributes:  # before version 10
        bounds: list[Contents | None] = [op.attributes["starts"], op.attributes["ends"]]
        axes: Contents = op.attributes.get("axes", (0,))
        steps: Contents = (1,)
    else:
        given = [None if v is None else contents(v, memo) for v in op.operands[1:]]
        if any(v is not None and not is_known(c) for v, c in zip(op.operands[1:], given)):
            return None
        given += [None] * (4 - len(given))
        bounds, axes, steps = given[:2], given[2] or (0,), given[3] or (1,)
    if axes not in ((0,), (-1,)) or not all(b is not None and len(b) == 1 for b in (*bounds, steps)) or steps[0] == 0:
        return None
    start, end, step = int(bounds[0][0]), int(bounds[1][0]), int(steps[0])  # type: ignore[index]
    n = len(data)
    # ONNX clamps where Python, going backwards, would take a negative end to count from the back once more.
    start, end = (b + n if b < 0 else b for b in (start, end))
    low, high = (0, n) if step > 0 else (-1, n - 1)
    start, end = (min(max(b, low), high) for b in (start, end))
    return tuple(data[i] for i in range(start, end, step))


def _constant_of_shape(op: ir.Op, memo: Memo) -> Contents | None:
    length = _same(op, memo)
    if length is None or len(length) > 1 or not is_known(length):
        return None
    fill = op.attributes.get("value")
    element = 0.0 if fill is None else fill.reshape(-1).tolist()[0]
    return (element,) * int(length[0]) if length else (element,)


def _range(op: ir.Op, memo: Memo) -> Contents | None:
    parts = _operands(op, memo)
    if parts is None or not all(type(p[0]) is int for p in parts):
        return None
    start, limit, step = (int(p[0]) for p in parts)
    if step == 0 or (limit - start) / step > LIMIT:
        return None
    return tuple(range(start, limit, step))


def _expand(op: ir.Op, memo: Memo) -> Contents | None:
    both = _operands(op, memo)
    if both is None or len(both[0]) != 1 or not is_known(both[1]) or len(both[1]) > 1:
        return None
    return both[0] * int(both[1][0] if both[1] else 1)


def _where(op: ir.Op, memo: Memo) -> Contents | None:
    parts = _operands(op, memo)
    if parts is None:
        return None
    n = max(map(len, parts))
    condition, yes, no = (p * n if len(p) == 1 else p for p in parts)
    if not len(condition) == len(yes) == len(no):
        return None
    return tuple((y if c else z) if type(c) is not str else ir.UNKNOWN for c, y, z in zip(condition, yes, no))


def _reduce(combine: Callable[[Any], Any]) -> Callable[[ir.Op, Memo], Contents | None]:
    def rule(op: ir.Op, memo: Memo) -> Contents | None:
        source = _same(op, memo)
        if not source or _result_dtype(op).is_float or op.attributes.get("noop_with_empty_axes"):
            return None
        if is_known(source):
            return (int(combine(source)),)
        return (product(source),) if combine is math.prod else None

    return rule


def _result_dtype(op: ir.Op) -> ir.DType:
    type_ = op.results[0].type
    assert isinstance(type_, ir.TensorType)
    return type_.dtype


def _elementwise(function: Callable[..., Any], identity: int | None = None) -> Callable[[ir.Op, Memo], Contents | None]:
    """Numbers are computed in the operand's element type; a name survives where the other side changes nothing."""

    def rule(op: ir.Op, memo: Memo) -> Contents | None:
        parts = _operands(op, memo)
        if parts is None:
            return None
        n = 0 if any(len(p) == 0 for p in parts) else max(map(len, parts))
        if any(len(p) not in (1, n) for p in parts):
            return None
        operand = op.operands[0]
        assert operand is not None
        assert isinstance(operand.type, ir.TensorType)
        numpy = operand.type.dtype.numpy
        out: list[Element] = []
        for row in zip(*(p * n if len(p) == 1 else p for p in parts)):
            if not any(type(e) is str for e in row):
                with np.errstate(all="ignore"):
                    result = function(*(numpy.type(e) for e in row))
                if result is None:
                    return None
                out.append(np.asarray(result).item())
            elif identity is not None and row[-1] == identity:
                out.append(row[0])
            elif identity is not None and row[0] == identity and op.defn.commutative:
                out.append(row[-1])
            else:
                out.append(ir.UNKNOWN)
        return tuple(out)

    return rule


def _divide(a: Any, b: Any) -> Any:
    """Integers are divided towards zero, as onnxruntime does."""
    if a.dtype.kind == "f":
        return a / b
    if b == 0:
        return None
    quotient = abs(int(a)) // abs(int(b))
    return a.dtype.type(quotient if (a < 0) == (b < 0) else -quotient)


def _modulo(a: Any, b: Any) -> Any:
    return None if a.dtype.kind == "f" or b == 0 else np.mod(a, b)


_RULES: dict[str, Callable[[ir.Op, Memo], Contents | None]] = {
    "onnx.Shape": _shape,
    "onnx.Size": _size,
    "onnx.Identity": _same,
    "onnx.Unsqueeze": _same,
    "onnx.Squeeze": _same,
    "onnx.Reshape": _same,
    "onnx.Cast": _cast,
    "onnx.Gather": _gather,
    "onnx.Concat": _concat,
    "onnx.Slice": _slice,
    "onnx.ConstantOfShape": _constant_of_shape,
    "onnx.Range": _range,
    "onnx.Expand": _expand,
    "onnx.Where": _where,
    "onnx.ReduceProd": _reduce(math.prod),
    "onnx.ReduceSum": _reduce(sum),
    "onnx.ReduceMax": _reduce(max),
    "onnx.ReduceMin": _reduce(min),
    "onnx.Add": _elementwise(lambda a, b: a + b, 0),
    "onnx.Sub": _elementwise(lambda a, b: a - b, 0),
    "onnx.Mul": _elementwise(lambda a, b: a * b, 1),
    "onnx.Div": _elementwise(_divide, 1),
    "onnx.Mod": _elementwise(_modulo),
    "onnx.Neg": _elementwise(lambda a: -a),
    "onnx.Abs": _elementwise(abs),
    "onnx.Floor": _elementwise(np.floor),
    "onnx.Ceil": _elementwise(np.ceil),
    "onnx.Min": _elementwise(lambda *a: functools.reduce(np.minimum, a)),
    "onnx.Max": _elementwise(lambda *a: functools.reduce(np.maximum, a)),
    "onnx.Equal": _elementwise(lambda a, b: a == b),
    "onnx.Less": _elementwise(lambda a, b: a < b),
    "onnx.Greater": _elementwise(lambda a, b: a > b),
    "onnx.LessOrEqual": _elementwise(lambda a, b: a <= b),
    "onnx.GreaterOrEqual": _elementwise(lambda a, b: a >= b),
    "onnx.And": _elementwise(lambda a, b: a and b),
    "onnx.Or": _elementwise(lambda a, b: a or b),
    "onnx.Not": _elementwise(lambda a: not a),
}

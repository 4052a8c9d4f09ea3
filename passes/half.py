"""Half precision: a module of mil.* operators that computes in f32 becomes one that computes in f16.

Inputs and outputs of functions keep the types they were declared with; casts stand where precision changes. An operator
stays in f32 when the caller says so, when its definition takes no f16, or when one of its constants does not survive
rounding to half: an epsilon of 1e-10 would become 0, a mask value of -1e9 would become -inf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from compiler.dialects.mil_forms import form
from compiler.ir import F16, F32, NOWHERE, Block, BlockArgument, DType, Module, Op, TensorType, Value

#: A constant survives rounding to half if its relative L2 error stays below this. Normal halves lose at most 2^-11 =
#: 4.9e-4 each; what loses more lies in the subnormal range or has left it.
CONSTANT_LOSS = 2e-3

#: The epsilon of these guards a variance that they compute of their own input. Where it would vanish it becomes the
#: smallest half, as coremltools has it (add_fp16_cast). That decides where a variance is of that size; whether one is,
#: is looked at on the proof's inputs (compiler/proof/precision.py).
NORMS = frozenset({"mil.layer_norm", "mil.instance_norm"})
SMALLEST = float(np.finfo(np.float16).smallest_subnormal)

#: What keeps a value from 0 by a small constant, and the operands of others that must not be 0.
_GUARDS = frozenset({"mil.add", "mil.clip", "mil.maximum"})
_AT_ZERO = {"mil.inverse": ("x",), "mil.log": ("x",), "mil.real_div": ("y",), "mil.rsqrt": ("x",)}

_LARGEST = float(np.finfo(np.float16).max)
_CHUNK = 1 << 20


def run(module: Module, os: str, keep: Mapping[Op, str] | None = None) -> dict[Op, str]:
    """Converts ``module`` in place.

    Args:
        os: the release that decides which operators take f16.
        keep: operators that must go on computing in f32, with all that is inside them, each with the reason why.

    Returns:
        The operators that go on computing in f32, with the reason: those of ``keep``, those whose constants do not
        survive, and those that the release computes in f32 only.
    """
    conversion = _Conversion(os, dict(keep or {}))
    for function in module.functions.values():
        conversion.block(function.block, None)
    return conversion.kept


def constant_loss(
    array: np.ndarray[Any, Any], limit: float = CONSTANT_LOSS, into: np.ndarray[Any, Any] | None = None
) -> str | None:
    """Why ``array`` (f32) does not survive rounding to half within ``limit``, or None if it does.

    NaN and ±inf round to themselves.

    Args:
        into: an f16 array of the same shape to round into.
    """
    rounded = None if into is None else into.reshape(-1)
    lost = total = 0.0
    start = 0
    for part in _chunks(array):
        with np.errstate(over="ignore", invalid="ignore"):
            half = part.astype(np.float16)
            if rounded is not None:
                rounded[start : start + part.size] = half
                start += part.size
            back = half.astype(np.float32)
            back -= part
            squares, of = float(np.dot(back, back)), float(np.dot(part, part))
        if not np.isfinite(squares + of):
            finite = np.isfinite(part)
            part, half = part[finite], half[finite]
            if np.isinf(half).any():
                worst = float(part[np.argmax(np.abs(part))])
                return f"constant {worst:.3g} overflows in half precision"
            difference = half.astype(np.float64) - part
            squares, of = float(np.dot(difference, difference)), float(np.dot(part.astype(np.float64), part))
        lost += squares
        total += of
    if total == 0.0:
        # Squares of what is left may have vanished; the values themselves tell.
        tiny = array[(array != 0) & np.isfinite(array)]
        return f"constant {float(tiny[0]):.3g} vanishes in half precision" if tiny.size else None
    if lost > total * limit**2:
        worst = max((float(part[np.argmax(np.abs(part))]) for part in _chunks(array)), key=abs)
        return f"constant {worst:.3g} {'vanishes' if lost > 0.5 * total else 'loses digits'} in half precision"
    return None


def _chunks(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """The elements in order, some at a time: views where that can be, so that a view of columns is not copied whole."""
    if array.flags.c_contiguous or array.ndim < 2:
        flat = array.reshape(-1)
        yield from (flat[start : start + _CHUNK] for start in range(0, flat.size, _CHUNK))
        return
    rows = max(1, _CHUNK * len(array) // max(array.size, 1))
    yield from (array[start : start + rows].reshape(-1) for start in range(0, len(array), rows))


@dataclass(slots=True)
class _Conversion:
    os: str
    keep: dict[Op, str]
    kept: dict[Op, str] = field(default_factory=dict)
    halved: set[Value] = field(default_factory=set)  # values whose type was f32 and now is f16
    rounded: dict[Value, np.ndarray[Any, Any]] = field(default_factory=dict)  # constants in half, not yet used
    as_half: dict[Value, Value] = field(default_factory=dict)  # an f32 value's f16 twin
    as_full: dict[Value, Value] = field(default_factory=dict)  # and the other way

    def block(self, block: Block, parent: Op | None, reason: str | None = None) -> None:
        """Converts the operators of a block, or keeps them all in f32 for ``reason``."""
        for op in block.ops:
            if op.defn.terminator:
                wanted = [r.type for r in parent.results] if parent is not None else None
                self._terminator(op, wanted)
            elif op.defn.constant is None:
                self._op(op, reason)

    def _op(self, op: Op, inherited: str | None) -> None:
        if not any(_is(v, F32) or v in self.halved for v in (*op.operands, *op.results) if v is not None):
            for region in op.regions:
                self.block(region, op, inherited or self.keep.get(op))
            return
        takes_half = _takes_half(op, self.os)
        if op.operands and not takes_half:
            reason: str | None = f"{self.os} computes it in f32 only"
        else:
            reason = inherited or self._constants_lost(op, takes_half) or self._guarded(op) or self.keep.get(op)
        if reason is not None:
            self.kept[op] = reason
            op.operands = tuple(self._full(v) if v in self.halved else v for v in op.operands)
            for region in op.regions:
                self.block(region, op, reason)
            return
        before = op.operands
        op.operands = tuple(
            self._half(v) if v is not None and _is(v, F32) and takes else v
            for v, takes in zip(op.operands, takes_half, strict=True)
        )
        for v in before:
            if v is not None and v.op is not None and v.op.defn.constant is not None and v.op.is_unused and v.op.block:
                v.op.erase()
        _halve_attributes(op)
        for region in op.regions:
            for argument in region.arguments:
                self._retype(argument)
        for result in op.results:
            self._retype(result)
        for region in op.regions:
            self.block(region, op)

    def _terminator(self, op: Op, wanted: list[Any] | None) -> None:
        operands: list[Value | None] = []
        for i, v in enumerate(op.operands):
            if v is None or not isinstance(v.type, TensorType):
                operands.append(v)
                continue
            # A function gives out what it was declared to give; a region gives what its operator's results are.
            expected: DType | None
            if wanted is None or i >= len(wanted):
                expected = F32 if v in self.halved else None
            else:
                expected = wanted[i].dtype if isinstance(wanted[i], TensorType) else None
            if expected is F32 and v in self.halved:
                operands.append(self._full(v))
            elif expected is F16 and _is(v, F32):
                operands.append(self._half(v))
            else:
                operands.append(v)
        op.operands = tuple(operands)

    def _retype(self, value: Value) -> None:
        if _is(value, F32):
            assert isinstance(value.type, TensorType)
            value.type = value.type.with_dtype(F16)
            self.halved.add(value)

    def _half(self, value: Value) -> Value:
        twin = self.as_half.get(value)
        if twin is None:
            array = value.constant
            if array is None:
                twin = cast(value, F16)
            else:
                rounded = self.rounded.pop(value, None)
                twin = _constant_after(value, array.astype(np.float16) if rounded is None else rounded)
            self.as_half[value] = twin
        return twin

    def _full(self, value: Value | None) -> Value:
        assert value is not None
        twin = self.as_full.get(value)
        if twin is None:
            twin = self.as_full[value] = cast(value, F32)
        return twin

    def _guarded(self, op: Op) -> str | None:
        """Why an operator that has no value at 0 stays in f32: what keeps 0 from it would vanish on the way."""
        for name in _AT_ZERO.get(op.name, ()):
            guard = op.operand(name)
            maker = guard.op if guard is not None else None
            if maker is not None and maker.name in _GUARDS and "vanishes" in self.kept.get(maker, ""):
                return "what keeps its input from 0 vanishes in half precision"
        return None

    def _constants_lost(self, op: Op, takes_half: list[bool]) -> str | None:
        for v, takes in zip(op.operands, takes_half, strict=True):
            if v is None or v in self.as_half or not _is(v, F32) or not takes:
                continue
            array = v.constant
            if array is None:
                continue
            rounded = self.rounded[v] = np.empty(array.shape, np.float16)
            reason = constant_loss(array, into=rounded)
            if reason is not None:
                return reason
        for name, spec in op.defn.attributes.items():
            if spec.kind != "float" or (name == "epsilon" and epsilon_vanishes(op)):
                continue
            # A default that vanishes (log's epsilon of 1e-45) was nobody's choice and vanishes in Core ML as well.
            value = op.attributes.get(name)
            if not isinstance(value, float) or value == spec.default or value == 0.0 or np.isinf(value):
                continue
            if abs(value) > _LARGEST:
                return f"{name} {value:.3g} overflows in half precision"
            if np.float16(value) == 0:
                return f"{name} {value:.3g} vanishes in half precision"
        return None


def cast(value: Value, dtype: DType) -> Value:
    """A ``mil.cast`` of a tensor to f16 or f32, right behind the value, so that it dominates all it may serve."""
    assert isinstance(value.type, TensorType)
    producer = value.op
    op = Op(
        "mil.cast",
        [value],
        [value.type.with_dtype(dtype)],
        {"dtype": {"f16": "fp16", "f32": "fp32"}[dtype.name]},
        loc=producer.loc if producer is not None else NOWHERE,
    )
    op.result.name = f"{value.name}_{dtype.name}" if value.name else ""
    _insert_behind(value, op)
    return op.result


def _constant_after(value: Value, array: np.ndarray[Any, Any]) -> Value:
    producer = value.op
    assert producer is not None
    assert isinstance(value.type, TensorType)
    assert producer.defn.constant is not None
    attributes = {**producer.attributes, producer.defn.constant: array}
    op = Op(producer.defn, (), [value.type.with_dtype(F16)], attributes, loc=producer.loc)
    op.result.name = value.name
    _insert_behind(value, op)
    return op.result


def _insert_behind(value: Value, op: Op) -> None:
    producer = value.op
    if producer is not None:
        assert producer.block is not None
        producer.block.insert_after(producer, op)
    else:
        assert isinstance(value, BlockArgument)
        value.block.insert_after(None, op)


def _is(value: Value, dtype: DType) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype is dtype


def _takes_half(op: Op, os: str) -> list[bool]:
    """For each operand whether it may be f16; empty if the operator cannot give f16 where it gives f32."""
    at = form(op.name, os)
    if at is None:
        return [True] * len(op.operands)  # the writer refuses it, with a better sentence
    specs = op.defn.operands
    out = []
    bound = {v for v, r in zip(at.result_variables, op.results) if v and _is(r, F32)}
    for i, value in enumerate(op.operands):
        found = at.inputs.get(specs[min(i, len(specs) - 1)].name)
        takes = found is None or found.dtypes is None or F16 in found.dtypes
        if value is not None and not takes and found is not None and found.variable in bound:
            return []
        out.append(takes)
    return out


def _halve_attributes(op: Op) -> None:
    if op.attributes.get("dtype") == "fp32":
        op.attributes["dtype"] = "fp16"
    for name, value in op.attributes.items():
        if isinstance(value, np.ndarray) and value.dtype == np.float32:
            op.attributes[name] = value.astype(np.float16)
    if epsilon_vanishes(op):
        op.attributes["epsilon"] = SMALLEST


def epsilon_vanishes(op: Op) -> bool:
    """Whether ``op`` is a norm whose epsilon is smaller than the smallest half."""
    epsilon = op.attributes.get("epsilon")
    return op.name in NORMS and isinstance(epsilon, float) and 0.0 < epsilon < SMALLEST

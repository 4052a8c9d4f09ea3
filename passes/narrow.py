"""Core ML's element types: i64 and its like become i32, f64 becomes f32, and bool leaves the interface.

Lowering keeps the element types of the source. Core ML computes in f16, f32, i32 and bool, and takes f16, f32 and i32
at its doors, so this pass retypes a whole module of mil.* operators. Quantized data (what ``constexpr_*``, ``quantize``
and ``dequantize`` hold and give) stays as narrow as it is.

An integer that overflows 32 bits at run time wraps around in Core ML where it did not in the source; nothing here can
see that. A constant that does not fit is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.errors import UnsupportedError
from compiler.ir import (
    BOOL,
    F16,
    F32,
    I32,
    NOWHERE,
    Block,
    DType,
    Function,
    Module,
    Op,
    TensorType,
    Type,
    Value,
    from_numpy,
)

Array = np.ndarray[Any, Any]

#: The most axes that a tensor has in Core ML (coremltools refuses more, too).
MOST_AXES = 5

#: Operators whose narrow integers are storage, not numbers to compute with.
_STORAGE = ("mil.constexpr_", "mil.quantize", "mil.dequantize")


def run(module: Module) -> None:
    """Retypes ``module`` in place.

    An input or output whose element type changes is recorded: attribute ``declared.NAME`` of the function holds the
    type that the source model gives it.

    Raises:
        UnsupportedError: a constant does not fit into 32 bits; the message names its node or value.
    """
    for function in module.functions.values():
        declared = [(n, v.type) for n, v in zip(function.output_names, function.outputs, strict=True)]
        _inputs(function)
        _block(function.block)
        _outputs(function)
        for (name, old), value in zip(declared, function.outputs, strict=True):
            if value.type is not old:
                function.attributes.setdefault(f"declared.{name}", old)


def narrowed(dtype: DType) -> DType:
    """The element type Core ML computes with in place of ``dtype``: floats but f16 become f32, all integers i32."""
    if dtype.is_integer:
        return I32
    return F32 if dtype.is_float and dtype is not F16 else dtype


def _retyped(type_: Type) -> Type:
    return type_.with_dtype(narrowed(type_.dtype)) if isinstance(type_, TensorType) else type_


def _held(type_: Type, op: Op) -> Type:
    """``type_``, if a Core ML tensor can have it.

    Raises:
        UnsupportedError: it has more axes than Core ML's tensors, or no elements.
    """
    shape = type_.shape if isinstance(type_, TensorType) else None
    if shape is None or (len(shape) <= MOST_AXES and 0 not in shape):
        return type_
    at = op.loc.nodes[0] if op.loc.nodes else op.name
    dims = " × ".join(map(str, shape))
    if len(shape) > MOST_AXES:
        raise UnsupportedError(
            f"'{at}' gives a tensor of rank {len(shape)} ({dims}); Core ML's have at most {MOST_AXES}"
        )
    raise UnsupportedError(f"'{at}' gives a tensor without elements ({dims}), which Core ML does not have")


def _inputs(function: Function) -> None:
    for argument in function.inputs:
        old = argument.type
        if not isinstance(old, TensorType):
            continue
        argument.type = _retyped(old)
        if old.dtype is BOOL:
            argument.type = old.with_dtype(I32)
            inside = Op("mil.cast", [argument], [old], {"dtype": "bool"}, loc=NOWHERE)
            for user in list(argument.users):
                if user is not inside:
                    user.operands = tuple(inside.result if v is argument else v for v in user.operands)
            if inside.is_unused:
                inside.erase()
            else:
                inside.result.name = argument.name
                function.block.insert_after(None, inside)
        if argument.type is not old:
            function.attributes[f"declared.{argument.name}"] = old


def _outputs(function: Function) -> None:
    end = function.block.terminator
    assert end is not None
    operands: list[Value | None] = []
    for value, name in zip(end.operands, function.output_names, strict=True):
        assert value is not None
        if isinstance(value.type, TensorType) and value.type.dtype is BOOL:
            loc = value.op.loc if value.op is not None else NOWHERE
            out = Op("mil.cast", [value], [value.type.with_dtype(I32)], {"dtype": "int32"}, loc=loc)
            out.result.name = name
            function.block.insert_before(end, out)
            value = out.result
        operands.append(value)
    end.operands = tuple(operands)


def _block(block: Block) -> None:
    for argument in block.arguments:
        argument.type = _retyped(argument.type)
    for op in block.ops:
        if op.defn.terminator:
            continue
        for region in op.regions:
            _block(region)
        if op.defn.constant is not None:
            _constant(op)
        elif not op.name.startswith(("mil.constexpr_", "mil.quantize")):
            for name, value in op.attributes.items():
                if isinstance(value, np.ndarray):
                    op.attributes[name] = _fitted(value, op)
            for result in op.results:
                result.type = _held(_retyped(result.type), op)
            if op.name == "mil.cast" and op.operands[0] is not None and op.operands[0].type is op.result.type:
                # It led from one type that Core ML lacks to another, or to the one that stands for it.
                op.result.replace_all_uses_with(op.operands[0])
                op.erase()


def _constant(op: Op) -> None:
    """Narrows a constant, except for the operators that take it as quantized data."""
    result = op.results[0]
    assert op.defn.constant is not None
    array: Array = op.attributes[op.defn.constant]
    if array.size == 0 and result.use_count:
        _held(result.type, op)
    fitted = array
    users = list(result.users)
    if not users or any(not u.name.startswith(_STORAGE) for u in users):
        fitted = _fitted(array, op)
    if fitted is array:
        return
    assert isinstance(result.type, TensorType)
    stored = [u for u in users if u.name.startswith(_STORAGE)]
    if stored:
        wide = Op(op.defn, (), [_retyped(result.type)], {**op.attributes, op.defn.constant: fitted}, loc=op.loc)
        assert op.block is not None
        op.block.insert_after(op, wide)
        for user in users:
            if user not in stored:
                user.operands = tuple(wide.result if v is result else v for v in user.operands)
        return
    op.attributes[op.defn.constant] = fitted
    result.type = _retyped(result.type)


def _fitted(array: Array, op: Op) -> Array:
    have = from_numpy(array.dtype)
    want = narrowed(have)
    if want is have:
        return array
    if have.is_integer and array.size and have.bits >= 32:
        low, high = int(array.min()), int(array.max())
        limits = np.iinfo(np.int32)
        if low < limits.min or high > limits.max:
            worst = low if low < limits.min else high
            at = op.loc.nodes[0] if op.loc.nodes else op.results[0].name or op.name
            raise UnsupportedError(
                f"the constant {worst} of '{at}' does not fit into 32 bits, and Core ML has no wider integers",
                "a model whose integers stay below 2147483648",
            )
    return array.astype(want.numpy)

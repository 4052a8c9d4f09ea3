"""Element types that Core ML does not have, and what may cross a function's boundary.

Behind the lowering, mil.* operators still carry ONNX's element types. 64-bit numbers become 32-bit, onnx constants
become mil constants, and inputs and outputs get a type that a feature of a Core ML model can have, with a cast inside.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.errors import UnsupportedError
from compiler.ir import (
    BOOL,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Block,
    Builder,
    DType,
    Function,
    Module,
    Op,
    TensorType,
    Value,
)

#: What stands for an element type inside a program.
NARROWED: dict[DType, DType] = {I64: I32, U64: I32, U32: I32, F64: F32}

#: Element types that no feature has, with the names that ``mil.cast`` has for them. They cross the boundary as i32.
_CAST_NAMES: dict[DType, str] = {BOOL: "bool", I8: "int8", U8: "uint8", I16: "int16", U16: "uint16"}


def run(module: Module) -> None:
    """Makes the types of a mil module Core ML's, in place.

    Raises:
        UnsupportedError: a constant does not fit into 32 bits.
    """
    for function in module.functions.values():
        _narrow(function.block)
        _inputs(function)
        _outputs(function)


def _narrow(block: Block) -> None:
    for argument in block.arguments:
        _narrow_value(argument)
    for op in block.ops:
        if op.defn.constant is not None:
            _constant(op)
            continue
        for region in op.regions:
            _narrow(region)
        for result in op.results:
            _narrow_value(result)


def _narrow_value(value: Value) -> None:
    if isinstance(value.type, TensorType):
        narrowed = NARROWED.get(value.type.dtype)
        if narrowed is not None:
            value.type = value.type.with_dtype(narrowed)


def _constant(op: Op) -> None:
    assert op.defn.constant is not None
    array: np.ndarray[Any, Any] = op.attributes[op.defn.constant]
    type_ = op.result.type
    assert isinstance(type_, TensorType)
    narrowed = NARROWED.get(type_.dtype)
    if narrowed is None and op.name == "mil.const":
        return
    if narrowed is not None:
        array = _fitting(array, narrowed, op)
        type_ = type_.with_dtype(narrowed)
    new = Op("mil.const", (), [type_], {"val": array}, loc=op.loc)
    new.result.name = op.result.name
    assert op.block is not None
    op.block.insert_before(op, new)
    op.result.replace_all_uses_with(new.result)
    op.erase()


def _fitting(array: np.ndarray[Any, Any], dtype: DType, op: Op) -> np.ndarray[Any, Any]:
    with np.errstate(over="ignore"):
        out = array.astype(dtype.numpy)
    if dtype.is_integer and not np.array_equal(out, array):
        users = [u.loc.nodes[0] for u in op.result.users if u.loc.nodes]
        at = f" of node '{users[0]}'" if users else ""
        worst = array.reshape(-1)[np.argmax(np.abs(array.astype(np.float64)))]
        raise UnsupportedError(f"the constant {worst}{at} does not fit into the 32 bits that Core ML's integers have")
    return out


def _inputs(function: Function) -> None:
    for argument in function.inputs:
        if not isinstance(argument.type, TensorType) or argument.type.dtype not in _CAST_NAMES:
            continue
        own = argument.type
        argument.type = own.with_dtype(I32)
        users = list(argument.users)
        builder = Builder(function.block, function.block.first)
        inside = builder.op("mil.cast", [argument], {"dtype": _CAST_NAMES[own.dtype]}, [own]).result
        for user in users:
            user.operands = tuple(inside if v is argument else v for v in user.operands)


def _outputs(function: Function) -> None:
    """Casts what no feature can be; gives an operator of its own to what is an input, a constant or given out twice."""
    builder = Builder(function.block)
    outputs: list[Value] = []
    for value in function.outputs:
        out: Value = value
        if isinstance(value.type, TensorType) and value.type.dtype in _CAST_NAMES:
            out = builder.op("mil.cast", [value], {"dtype": "int32"}, [value.type.with_dtype(I32)]).result
        elif value.op is None or value.op.defn.constant is not None or value in outputs:
            out = builder.op("mil.identity", [value], {}, [value.type]).result
        outputs.append(out)
    function.set_outputs(outputs)

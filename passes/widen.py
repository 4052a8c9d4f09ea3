"""Half precision taken out of a module: every f16 tensor becomes f32, and nothing is rounded.

For reading a package as a model in plain f32, and for a package in f32 of a model that computes in half.
:mod:`passes.emulate` is the one that keeps what rounding does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import F16, F32, Block, Module, Type, element_dtype
from compiler.ir.types import TensorType
from passes.half import cast

#: How MIL spells the element types that a cast or a quantized operator can ask for.
_SPELLED = {"fp16": "fp32", "float16": "float32"}


def run(module: Module) -> None:
    """Widens ``module`` in place, its inputs and outputs too. Casts that lead nowhere any more vanish."""
    for function in module.functions.values():
        _block(function.block)


def inside(module: Module) -> None:
    """As :func:`run`, but inputs and outputs of functions keep their types, with casts behind and before them."""
    for function in module.functions.values():
        halves = [a for a in function.inputs if element_dtype(a.type) is F16]
        declared = [v.type for v in function.outputs]
        _block(function.block)
        for argument in halves:
            users = list(argument.users)
            assert isinstance(argument.type, TensorType)
            argument.type = argument.type.with_dtype(F16)
            wide = cast(argument, F32)
            for user in users:
                user.operands = tuple(wide if v is argument else v for v in user.operands)
        terminator = function.block.terminator
        assert terminator is not None
        terminator.operands = tuple(
            v if v is None or v.type is type_ else cast(v, F16)
            for v, type_ in zip(terminator.operands, declared, strict=True)
        )


def _block(block: Block) -> None:
    for argument in block.arguments:
        argument.type = _widened(argument.type)
    for op in list(block.ops):
        for region in op.regions:
            _block(region)
        op.attributes = {name: _value(value) for name, value in op.attributes.items()}
        for result in op.results:
            result.type = _widened(result.type)
        if op.name == "mil.cast":
            source = op.operands[0]
            if source is not None and source.type is op.result.type:
                op.result.replace_all_uses_with(source)
                op.erase()


def _widened(type_: Type) -> Type:
    return type_.with_dtype(F32) if isinstance(type_, TensorType) and element_dtype(type_) is F16 else type_


def _value(value: Any) -> Any:
    if isinstance(value, np.ndarray) and value.dtype == np.float16:
        return value.astype(np.float32)
    return _SPELLED.get(value, value) if isinstance(value, str) else value

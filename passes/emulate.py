"""Half precision on a machine that has none: an f16 tensor becomes f32, rounded to half where made.

This is what a half-precision unit with f32 accumulators computes: values are rounded between operators, not inside.
Constants hold halves already and are only widened. Compressed weights stay halves until they are whole: their
decompression rounds, too.
"""

from __future__ import annotations

import numpy as np

from compiler.ir import F16, F32, Block, Module, Op, TensorType, Value
from passes.half import cast


def run(module: Module) -> None:
    """Widens ``module`` in place. Inputs and outputs declared f16 become f32 as well.

    Each result ``x`` that was f16 becomes ``cast(cast(x, f16), f32)``. onnxruntime keeps such a pair at every
    optimization level (a test holds it to that), since dropping it would change values.
    """
    for function in module.functions.values():
        _block(function.block)


def _block(block: Block) -> None:
    for argument in block.arguments:
        if _is(argument, F16):
            _widen_and_round(argument)
    for op in list(block.ops):
        if is_compressed(op):
            widen_for_others(op)
            continue
        if op.defn.constant is not None:
            _widen_constant(op)
            continue
        for region in op.regions:
            _block(region)
        if op.name == "mil.cast" and _is(op.result, F16):
            # It rounds already; what follows sees its result widened.
            wide = cast(op.result, F32)
            _replace_other_uses(op.result, wide)
        elif op.name == "mil.cast" and _is(op.result, F32) and _is(op.operands[0], F32):
            # It used to widen a half, which is wide by now.
            source = op.operands[0]
            assert source is not None
            op.result.replace_all_uses_with(source)
            op.erase()
        else:
            for result in op.results:
                if _is(result, F16):
                    _widen_and_round(result)


def _widen_and_round(value: Value) -> None:
    assert isinstance(value.type, TensorType)
    value.type = value.type.with_dtype(F32)
    rounded = cast(value, F16)
    _replace_other_uses(value, cast(rounded, F32), rounded.op)


def _replace_other_uses(value: Value, new: Value, rounding: Op | None = None) -> None:
    for user in list(value.users):
        if user is not new.op and user is not rounding:
            user.operands = tuple(new if v is value else v for v in user.operands)


def is_compressed(op: Op) -> bool:
    """Whether an operator gives a compressed weight, or a part of one."""
    return op.name.startswith("mil.constexpr_") or any(
        user.name.startswith("mil.constexpr_") for result in op.results for user in result.users
    )


def widen_for_others(op: Op) -> None:
    """Lets all but compressed weights, which are made of one another in half, see the halves of ``op`` as f32."""
    for result in op.results:
        outer = [user for user in result.users if not user.name.startswith("mil.constexpr_")]
        if outer and _is(result, F16):
            wide = cast(result, F32)
            for user in outer:
                user.operands = tuple(wide if v is result else v for v in user.operands)


def _widen_constant(op: Op) -> None:
    for name, array in op.attributes.items():
        if isinstance(array, np.ndarray) and array.dtype == np.float16:
            op.attributes[name] = array.astype(np.float32)
    for result in op.results:
        if _is(result, F16):
            assert isinstance(result.type, TensorType)
            result.type = result.type.with_dtype(F32)


def _is(value: Value | None, dtype: object) -> bool:
    return value is not None and isinstance(value.type, TensorType) and value.type.dtype is dtype

"""Branches that give one element each, as a number and as a vector of one: both give a vector, where no user can tell.

The type of such an If is not known otherwise, nor that of anything computed from it.
"""

from __future__ import annotations

import numpy as np

from compiler.dialects.onnx_ranks import is_one_element, ranks_agree
from compiler.ir import Builder, InferenceError, Module, Op, TensorType, Value, get_dialect


def run(module: Module) -> int:
    """Rewrites branches in place, types what follows from them, and returns how many results changed."""
    count = 0
    for op in list(module.walk()):
        if op.name == "onnx.If":
            count += sum(_agree(op, i) for i in range(len(op.results)))
    return count


def _agree(op: Op, index: int) -> bool:
    ends = [region.terminator for region in op.regions]
    given = [end.operands[index] if end is not None else None for end in ends]
    result = op.results[index]
    mixed = all(v is not None and is_one_element(v) for v in given) and len({v.type for v in given if v}) == 2
    if not mixed or not ranks_agree(result):
        return False
    for end, value in zip(ends, given, strict=True):
        assert end is not None
        assert value is not None
        assert isinstance(value.type, TensorType)
        if value.type.shape == ():
            builder = Builder(op.regions[ends.index(end)], end, value.op.loc if value.op is not None else op.loc)
            one = builder.constant(np.array([1]), "onnx")
            end.set_operand(index, builder.op("onnx.Reshape", [value, one]).result)
        result.type = value.type.with_shape((1,))
    _retype(result)
    return True


def _retype(value: Value) -> None:
    """Types the operators that use ``value``, and those that use what they give, as far as that tells something new."""
    pending = [value]
    while pending:
        for user in set(pending.pop().users):
            if user.regions or user.defn.terminator:
                continue
            try:
                types = get_dialect(user.defn.dialect).infer(user.defn, user.operands, user.attributes)
            except InferenceError:
                continue
            for result, type_ in zip(user.results, types):
                if isinstance(result.type, TensorType) and result.type.shape is None and type_ is not result.type:
                    result.type = type_
                    pending.append(result)

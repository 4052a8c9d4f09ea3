"""What a compressed package must compute: the model with the weights that its compressed ones stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from compiler.ir import F16, F32, Module, Op, TensorType, Value, clone_function
from passes import emulate
from passes.compress import Record
from passes.compress.activations import Range, insert
from passes.compress.calibrated import correct_biases
from passes.compress.select import is_weight

Array = np.ndarray[Any, Any]


def reference(
    module: Module, records: Sequence[Record], corrections: Mapping[str, Array], ranges: Mapping[str, Range]
) -> tuple[Module, dict[Op, Op]]:
    """A copy of a mil module with decompressed weights, corrected biases and rounded activations.

    The weights are those that the encoder says its integers and tables stand for; the package's reader and the rules
    of stage ``meaning`` have no part in them.

    Returns:
        The copy, and the operator of ``module`` that each of its operators is a copy of.
    """
    twins: dict[Value, Value] = {}
    copy = Module(module.name, module.attributes)
    for function in module.functions.values():
        copy.add(clone_function(function, values=twins))
    origin = {twin.op: value.op for value, twin in twins.items() if twin.op is not None and value.op is not None}
    dense = {r.name: r.dense for r in records if r.dense is not None}
    for op in copy.walk():
        if op.name == "mil.const" and op.result.name in dense and is_weight(op, 0):
            held = op.attributes["val"]
            op.attributes["val"] = dense[op.result.name].astype(held.dtype, copy=False)
    correct_biases(copy, corrections)
    insert(copy, ranges)
    return copy, origin


def holds_halves(module: Module) -> bool:
    """Whether anything in a mil module is in half precision, which is rounded when it runs."""
    arguments = (a for function in module.functions.values() for a in function.inputs)
    results = (r for op in module.walk() for r in op.results)
    return any(isinstance(v.type, TensorType) and v.type.dtype is F16 for v in (*arguments, *results))


def widen(module: Module) -> None:
    """Makes a mil module in half precision compute in f32, its constants as they are: nothing is rounded any more but
    what compressed weights stand for."""
    for function in module.functions.values():
        for argument in function.inputs:
            _widen(argument)
    for op in list(module.walk()):
        if emulate.is_compressed(op):
            emulate.widen_for_others(op)
            continue
        for region in op.regions:
            for argument in region.arguments:
                _widen(argument)
        for name, held in op.attributes.items():
            if isinstance(held, np.ndarray) and held.dtype == np.float16:
                op.attributes[name] = held.astype(np.float32)
        for result in op.results:
            _widen(result)
        if op.attributes.get("dtype") == "fp16":
            op.attributes["dtype"] = "fp32"
        source = op.operands[0] if op.operands else None
        if op.name == "mil.cast" and source is not None and source.type is op.result.type:
            op.result.replace_all_uses_with(source)
            op.erase()


def _widen(value: Value) -> None:
    if isinstance(value.type, TensorType) and value.type.dtype is F16:
        value.type = value.type.with_dtype(F32)

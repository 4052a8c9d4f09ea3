"""How far a random model moves by rounding alone, which is how far a right package of it may be off."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks.random_models import Drawn, run

Array = np.ndarray[Any, Any]

#: The relative noise that stands for rounding in f32; a sum of some hundred products in another order has it.
_NOISE = 1e-6


def disturbed(drawn: Drawn, seed: int = 0) -> onnx.ModelProto:
    """The model with noise of f32's rounding on every float that a node gives: what a right package may differ by.

    With an odd ``seed``, elements that are nothing but noise beside the greatest of their tensor are zero as well.
    Where noise may change how many elements there are (Compress), none is added.
    """
    numbers = np.random.default_rng(seed)
    every = _arrays(drawn)
    sized = _sized(drawn.model, {n for n, a in {**drawn.inputs, **every}.items() if a.dtype.kind in "iu"})
    arrays = {o: a for o, a in every.items() if a.dtype == np.float32 and o in sized}
    out = onnx.ModelProto()
    out.CopyFrom(drawn.model)
    del out.graph.node[:]
    renamed: dict[str, str] = {}
    for node in drawn.model.graph.node:
        kept = onnx.NodeProto()
        kept.CopyFrom(node)
        for i, name in enumerate(kept.input):
            kept.input[i] = renamed.get(name, name)
        out.graph.node.append(kept)
        for name in node.output:
            if name not in arrays:
                continue
            array = arrays[name]
            top = float(np.max(np.abs(array)))
            kept_ones = np.abs(array) > 10 * _NOISE * top if seed % 2 else np.ones(array.shape)
            added = np.zeros(array.shape) if seed % 2 else _NOISE / 3 * top * numbers.standard_normal(array.shape)
            for op, noise in (("Mul", kept_ones * (1 + _NOISE * numbers.standard_normal(array.shape))), ("Add", added)):
                constant = f"{name}.{op}"
                out.graph.initializer.append(numpy_helper.from_array(noise.astype(np.float32), constant))
                made = f"{constant}ed"
                out.graph.node.append(helper.make_node(op, [renamed.get(name, name), constant], [made]))
                renamed[name] = made
    for info in out.graph.output:
        info.name = renamed.get(info.name, info.name)
    return out


#: Operators whose result has as many elements as floats or flags ask for.
_BY_FLOATS = ("Compress", "NonMaxSuppression", "NonZero", "Range", "Resize", "Unique", "Upsample")


def _sized(model: onnx.ModelProto, integers: Container[str]) -> set[str]:
    """The values whose sizes no numbers decide: those that ONNX's inference knows, and what is computed of them by
    operators that it does not follow (GroupNormalization), unless it is an integer, which may be a size."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    known = {
        v.name
        for v in [*inferred.value_info, *inferred.output]
        if v.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in v.type.tensor_type.shape.dim)
    }
    constants = {"", *(t.name for t in model.graph.initializer)}
    known |= constants | {i.name for i in model.graph.input}
    for node in model.graph.node:
        if node.op_type in _BY_FLOATS or not known.issuperset(node.input):
            continue
        if not any(name in integers and name not in constants for name in node.input):
            known.update(node.output)
    return known


def _arrays(drawn: Drawn) -> dict[str, Array]:
    names = [o for n in drawn.model.graph.node for o in n.output if o]
    every = onnx.ModelProto()
    every.CopyFrom(drawn.model)
    del every.graph.output[:]
    every.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names)
    results = run(every, drawn.inputs)
    return dict(zip(names, results, strict=True))

"""Types of com.microsoft operators: onnxruntime knows them and is asked, with a model of that one node."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from compiler import ir
from compiler.dialects import onnx_proto
from compiler.dialects.onnx_contents import Contents
from compiler.dialects.onnx_schema import DOMAINS, make_node


@functools.cache
def _options() -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    return options


def infer(
    defn: ir.OpDef,
    operands: Sequence[ir.Value | None],
    attributes: Mapping[str, Any],
    data: Sequence[tuple[int, Any, Contents]],
    results: int,
) -> list[ir.Type | None]:
    """The types of the results, None where onnxruntime cannot tell: it has no kernel, or an operand is no tensor.

    The caller then has the file's own annotation, and the element types that the schema's type variables give.
    """
    import onnxruntime as ort

    if any(v is not None and not isinstance(v.type, ir.TensorType) for v in operands):
        return [None] * results
    names = ["" if v is None else f"i{k}" for k, v in enumerate(operands)]
    graph = onnx.GraphProto(name="one", node=[make_node(defn, attributes, names, results)])
    known = {i: (dtype, elements) for i, dtype, elements in data}
    dims: dict[str, ir.Dim] = {}
    for k, v in enumerate(operands):
        if v is None:
            continue
        dims.update({d: d for d in v.shape or () if type(d) is str})
        if k in known:
            dtype, elements = known[k]
            array = np.array(elements, dtype).reshape(() if v.shape == () else (len(elements),))
            graph.initializer.append(onnx_proto.array_to_proto(array, names[k]))
        else:
            graph.input.append(onnx.ValueInfoProto(name=names[k], type=onnx_proto.type_to_proto(v.type)))
    graph.output.extend(onnx.ValueInfoProto(name=f"o{k}") for k in range(results))
    opsets = [onnx.OperatorSetIdProto(version=20), onnx.OperatorSetIdProto(domain=DOMAINS["msft"], version=1)]
    model = onnx.ModelProto(ir_version=10, graph=graph, opset_import=opsets)
    try:
        session = ort.InferenceSession(model.SerializeToString(), _options(), providers=["CPUExecutionProvider"])
    except Exception:  # onnxruntime raises a class of its own for each of its status codes, with no common base
        return [None] * results
    scalars = all(v is None or v.shape == () for v in operands)
    return [_type(o, dims, scalars) for o in session.get_outputs()]


def _type(output: Any, dims: Mapping[str, ir.Dim], scalars: bool) -> ir.Type | None:
    """The type of an output. onnxruntime spells an unknown rank as it does a scalar's, which comes of scalars only."""
    spelled = output.type
    dtype = onnx_proto.BY_SPELLING.get(spelled.removeprefix("tensor(").removesuffix(")"))
    if dtype is None:
        return None
    if output.shape is None or (not output.shape and not scalars):
        return ir.TensorType(dtype, None)
    # A name that no operand has was made up by onnxruntime.
    return ir.TensorType(dtype, (d if type(d) is int else dims.get(d, ir.UNKNOWN) for d in output.shape))

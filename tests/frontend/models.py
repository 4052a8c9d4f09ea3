"""Small ONNX models for tests, and what onnxruntime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Any],
    outputs: Sequence[str],
    *,
    opset: int = 18,
    initializers: Mapping[str, Array] | None = None,
    value_info: Mapping[str, Any] | None = None,
    domains: Mapping[str, int] | None = None,
    ir_version: int = 8,
) -> onnx.ModelProto:
    """A model; an input is an array that it is like, or a list of dimensions of floats (strings are symbols)."""
    infos = []
    for name, like in inputs.items():
        if isinstance(like, np.ndarray):
            infos.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(like.dtype), like.shape))
        else:
            infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, like))
    graph = helper.make_graph(
        nodes,
        "g",
        infos,
        [onnx.ValueInfoProto(name=o) for o in outputs],
        [numpy_helper.from_array(a, n) for n, a in (initializers or {}).items()],
        value_info=[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (value_info or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, v) for d, v in (domains or {}).items())]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def reference(proto: onnx.ModelProto, inputs: Mapping[str, Array]) -> list[Array]:
    """What onnxruntime computes, without optimizations."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, dict(inputs)))

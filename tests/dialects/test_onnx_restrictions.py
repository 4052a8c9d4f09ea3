"""What inference refuses of operands is what onnxruntime refuses when it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from compiler.errors import PlanishError
from compiler.frontend import load

DOMAINS = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]


def model(op: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any]) -> onnx.ModelProto:
    domain, _, name = op.rpartition("::")
    kinds = [onnx.TensorProto.INT64 if op == "CumSum" and i else onnx.TensorProto.FLOAT for i in range(len(shapes))]
    node = helper.make_node(name, [f"i{k}" for k in range(len(shapes))], ["y"], domain=domain, **attributes)
    inputs = [helper.make_tensor_value_info(f"i{k}", t, s) for k, (t, s) in enumerate(zip(kinds, shapes))]
    rank = None if op != "NonZero" else [None, None]
    kind = onnx.TensorProto.INT64 if op == "NonZero" else onnx.TensorProto.FLOAT
    graph = helper.make_graph([node], "one", inputs, [helper.make_tensor_value_info("y", kind, rank)])
    return helper.make_model(graph, opset_imports=DOMAINS, ir_version=10)


def runs(proto: onnx.ModelProto) -> bool:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 4
    feeds = {}
    for v in proto.graph.input:
        dims = [d.dim_value for d in v.type.tensor_type.shape.dim]
        whole = v.type.tensor_type.elem_type == onnx.TensorProto.INT64
        feeds[v.name] = np.zeros(dims, np.int64 if whole else np.float32)
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        results = session.run(None, feeds)
    except Exception:  # onnxruntime has a class of its own for each reason
        return False
    return proto.graph.node[0].op_type != "PRelu" or results[0].shape == feeds["i0"].shape


@pytest.mark.parametrize(
    ("op", "shapes", "attributes"),
    [
        ("Clip", [(3, 4), (1,)], {}),
        ("Clip", [(3, 4), (2,)], {}),
        ("Clip", [(3, 4), (1, 1)], {}),
        ("CumSum", [(3, 4), (1,)], {}),
        ("CumSum", [(3, 4), (2,)], {}),
        ("GlobalAveragePool", [(2, 3, 4)], {}),
        ("GlobalAveragePool", [(2, 3)], {}),
        ("GlobalMaxPool", [(2, 3)], {}),
        ("InstanceNormalization", [(2, 3, 4), (3,), (3,)], {}),
        ("InstanceNormalization", [(2, 3), (3,), (3,)], {}),
        ("GroupNormalization", [(1, 4, 5), (4,), (4,)], {"num_groups": 2}),
        ("GroupNormalization", [(1, 4, 5), (4,), (4,)], {"num_groups": 3}),
        ("GridSample", [(1, 2, 3, 3), (1, 3, 3, 2)], {}),
        ("GridSample", [(1, 2, 3), (1, 3, 1)], {}),
        ("PRelu", [(2, 3), (1, 3)], {}),
        ("PRelu", [(2, 3), (4, 2, 3)], {}),
        ("PRelu", [(2, 1), (2, 3)], {}),
        ("Attention", [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4)], {}),
        ("Attention", [(1, 2, 3, 4), (1, 2, 5, 4), (2, 5, 4)], {}),
        ("com.microsoft::CDist", [(3, 4), (5, 4)], {"metric": "euclidean"}),
        ("com.microsoft::CDist", [(2, 3, 4), (2, 5, 4)], {"metric": "euclidean"}),
    ],
)
def test_what_is_refused_does_not_run(op: str, shapes: list[tuple[int, ...]], attributes: dict[str, Any]) -> None:
    proto = model(op, shapes, attributes)
    if runs(proto):
        load(proto)
    else:
        with pytest.raises(PlanishError, match=op.rpartition("::")[2]):
            load(proto)


def test_where_the_rows_of_a_number_lie_is_not_said() -> None:
    with pytest.raises(PlanishError, match="NonZero"):
        load(model("NonZero", [()], {}))

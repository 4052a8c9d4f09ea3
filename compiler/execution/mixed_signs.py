"""Products of unsigned by signed bytes, so that onnxruntime computes them exactly.

On x86 processors without VNNI, onnxruntime (MLAS) adds two products u8 · i8 in 16 bits, where they saturate:
255 · 127 + 255 · 127 becomes 32767 (onnxruntime's quantization documentation, "When and why do I need to try U8U8").
Products of equal signs are exact. So the signed operand is moved to the unsigned range along with its zero point, which
changes nothing that ONNX promises: (w + 128) − (z + 128) = w − z.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto

from compiler import ir
from compiler.dialects import onnx_proto

#: The operators whose two factors may be of different signs: where data and zero point of each stand.
_FACTORS: Mapping[str, Sequence[tuple[int, int]]] = {
    "onnx.MatMulInteger": ((0, 2), (1, 3)),
    "onnx.ConvInteger": ((0, 2), (1, 3)),
    "onnx.QLinearMatMul": ((0, 2), (3, 5)),
    "onnx.QLinearConv": ((0, 2), (3, 5)),
}
_SHIFT, _INT, _BYTE = "shift_to_unsigned", TensorProto.INT32, TensorProto.UINT8


def unify_signs(graph: GraphProto, ops: Mapping[str, ir.Op]) -> None:
    """Makes the signed factor of each product of mixed signs unsigned.

    Args:
        graph: the main graph of a model, which is changed.
        ops: the operator of each node, by the node's name.
    """
    mixed = {name: op for name, op in ops.items() if op.name in _FACTORS and _is_mixed(op)}
    if not mixed:
        return
    nodes = list(graph.node)
    del graph.node[:]
    graph.initializer.append(onnx_proto.array_to_proto(np.array(128, np.int32), _SHIFT))
    for node in nodes:
        op = mixed.get(node.name)
        if op is not None:
            for at, zero in _FACTORS[op.name]:
                if _dtype(op, at) is ir.dtype("i8"):
                    _unsign(graph, node, at, zero)
        graph.node.append(node)


def _is_mixed(op: ir.Op) -> bool:
    return {_dtype(op, at) for at, _ in _FACTORS[op.name]} == {ir.dtype("i8"), ir.dtype("u8")}


def _dtype(op: ir.Op, index: int) -> ir.DType | None:
    value = op.operands[index]
    return value.type.dtype if value is not None and isinstance(value.type, ir.TensorType) else None


def _unsign(graph: GraphProto, node: NodeProto, at: int, zero: int) -> None:
    while len(node.input) <= zero:
        node.input.append("")
    for index in (at, zero):
        made = f"{node.name}_unsigned{index}"
        source = _SHIFT
        if node.input[index]:
            _add(graph, "Cast", [node.input[index]], f"{made}_wide", to=_INT)
            _add(graph, "Add", [f"{made}_wide", _SHIFT], f"{made}_sum")
            source = f"{made}_sum"
        _add(graph, "Cast", [source], made, to=_BYTE)
        node.input[index] = made


def _add(graph: GraphProto, op_type: str, operands: Sequence[str], result: str, to: int | None = None) -> None:
    node = graph.node.add(op_type=op_type, input=operands, output=[result], name=result)
    if to is not None:
        node.attribute.append(onnx_proto.attribute_to_proto("to", to, "int"))

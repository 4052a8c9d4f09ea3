"""Operators that ONNX defines by other operators: the definition takes their place, as onnx.inliner writes it out."""

from __future__ import annotations

from typing import Any

from compiler import ir
from compiler.errors import UserError
from compiler.ir import Block, Value, clone_block
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline


def expand(b: RuleBuilder, m: Bindings) -> tuple[Value | None, ...]:
    """Builds the definition of ``m.ys``' operator, its shape arithmetic computed.

    Returns:
        A value for each result, None for an optional one that nobody uses.

    Raises:
        Decline: ONNX gives no definition for these types and attributes.
    """
    from onnx import inliner

    from compiler import frontend
    from passes import dce, fold

    op = m.ys[0].op
    model = _model_of(op)
    name = op.name.partition(".")[2]
    try:
        inlined = inliner.inline_selected_functions(model, [("", name)], inline_schema_functions=True)
    except RuntimeError as e:
        raise Decline(str(e)) from None
    if any(node.op_type == name for node in inlined.graph.node):
        raise Decline(f"{op.name} has no definition here")
    try:
        body = frontend.load(inlined)
    except UserError as e:
        raise Decline(str(e)) from None
    fold.run(body)
    dce.run(body)
    operands = {a.name: v for a in body.main.inputs if (v := _operand(op, a.name)) is not None}
    made = dict(zip(body.main.output_names, _spliced(b, body.main, operands)))
    return tuple(made.get(f"o{k}") for k in range(len(m.ys)))


def _operand(op: ir.Op, name: str) -> Value | None:
    return op.operands[int(name[1:])]


def _model_of(op: ir.Op) -> Any:
    """A model of this one operator, whose inputs ``i0`` … are its operands; constants are initializers."""
    import onnx

    from compiler.dialects import onnx_infer, onnx_proto

    names = ["" if v is None else f"i{k}" for k, v in enumerate(op.operands)]
    node = onnx_infer.make_node(op.defn, op.attributes, names, len(op.results))
    used = [k for k, r in enumerate(op.results) if r.use_count]
    for k in range(len(op.results)):
        if k not in used and op.defn.results[min(k, len(op.defn.results) - 1)].arity == "optional":
            node.output[k] = ""
    graph = onnx.GraphProto(name="definition", node=[node])
    for given, v in zip(names, op.operands):
        if v is None:
            continue
        array = v.constant
        if array is not None:
            graph.initializer.append(onnx_proto.array_to_proto(array, given))
        else:
            graph.input.append(onnx.ValueInfoProto(name=given, type=onnx_proto.type_to_proto(v.type)))
    for k, r in enumerate(op.results):
        if node.output[k]:
            graph.output.append(onnx.ValueInfoProto(name=node.output[k], type=onnx_proto.type_to_proto(r.type)))
    opset = onnx.OperatorSetIdProto(domain="", version=onnx.defs.onnx_opset_version())
    return onnx.ModelProto(ir_version=10, graph=graph, opset_import=[opset])


def _spliced(b: RuleBuilder, function: ir.Function, values: dict[str, Value]) -> tuple[Value, ...]:
    """Builds the operators of ``function``, its inputs being ``values``; gives its outputs."""
    known: dict[Value, Value] = {a: values[a.name] for a in function.inputs}
    for op in function.block.ops:
        if op.defn.terminator:
            continue
        operands = [None if v is None else known[v] for v in op.operands]
        regions: list[Block] = [clone_block(region, known) for region in op.regions]
        made = b.op(op.name, operands, op.attributes, results=len(op.results), regions=regions)
        known.update(zip(op.results, made if isinstance(made, tuple) else (made,)))
    return tuple(known[v] for v in function.outputs)

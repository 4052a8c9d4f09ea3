"""Operators that ONNX defines by other operators: the definition takes their place, as onnx.inliner writes it out."""

from __future__ import annotations

from typing import Any

from compiler import ir
from compiler.errors import UserError
from compiler.ir import Block, Value, clone_block
from compiler.rewrite.build import Bindings, RuleBuilder
from compiler.rewrite.functions import Decline

#: The domain of a definition while it is written out.
_LOCAL = "planish.definition"


def expand(b: RuleBuilder, m: Bindings) -> tuple[Value | None, ...]:
    """Builds the definition of ``m.ys``' operator, its shape arithmetic computed.

    Returns:
        A value for each result, None for an optional one that nobody uses.

    Raises:
        Decline: ONNX gives no definition for these types and attributes.
    """
    from compiler import frontend
    from passes import dce, fold

    op = m.ys[0].op
    if op.attributes.get("softcap", 0.0) < 0:
        raise Decline("a negative cap, which the definition takes and onnxruntime's kernel ignores")
    model = _model_of(op)
    try:
        body = frontend.load(_inlined(model, op))
    except UserError as e:
        raise Decline(str(e)) from None
    fold.run(body)
    dce.run(body)
    operands = {a.name: v for a in body.main.inputs if (v := _operand(op, a.name)) is not None}
    made = dict(zip(body.main.output_names, _spliced(b, body.main, operands)))
    return tuple(made.get(f"o{k}") for k in range(len(m.ys)))


def _inlined(model: Any, op: ir.Op) -> Any:
    """The model with its one node replaced by the node's definition.

    A definition that depends on types is asked for with the types of all operands, absent ones in between included, for
    which the inliner itself knows none (onnx/inliner/inliner.cc, GetType).

    Raises:
        Decline: there is no definition.
    """
    import onnx
    from onnx import inliner

    node = model.graph.node[0]
    name = node.op_type
    versions = onnx.defs.get_schema(name).context_dependent_function_opset_versions
    try:
        if versions:
            types = [onnx.TypeProto() if v is None else _type_proto(v) for v in op.operands]
            function = onnx.defs.get_schema(name).get_context_dependent_function_with_opset_version(
                max(versions), node.SerializeToString(), [t.SerializeToString() for t in types]
            )
            definition = onnx.FunctionProto.FromString(function)
            node.domain = definition.domain = _LOCAL
            model.functions.append(definition)
            del model.opset_import[:]
            model.opset_import.extend([*definition.opset_import, onnx.OperatorSetIdProto(domain=_LOCAL, version=1)])
            inlined = inliner.inline_local_functions(model)
        else:
            inlined = inliner.inline_selected_functions(model, [("", name)], inline_schema_functions=True)
    except RuntimeError:
        raise Decline(f"ONNX defines {op.name} by other operators, but not with these types and attributes") from None
    if any(n.op_type == name for n in inlined.graph.node):
        raise Decline(f"ONNX defines {op.name} by other operators, but not with these types and attributes")
    return inlined


def _type_proto(value: Value) -> Any:
    from compiler.dialects import onnx_proto

    return onnx_proto.type_to_proto(value.type)


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

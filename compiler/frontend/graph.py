"""A GraphProto as a block of SSA operators, typed on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import AttributeProto, GraphProto, NodeProto, TypeProto

from compiler import ir
from compiler.dialects import onnx_infer, onnx_proto, onnx_regions, onnx_schema
from compiler.dialects.onnx_contents import Memo, as_array, computes_shapes, contents, is_known
from compiler.dialects.onnx_proto import ProtoError
from compiler.dialects.onnx_versions import Ladder, ladder
from compiler.errors import UserError
from compiler.frontend import declared
from compiler.frontend.sort import CycleError, in_order, uses
from compiler.frontend.weights import Weights

Array = np.ndarray[Any, Any]


@dataclass
class Scope:
    """The values of a graph by name, and the scope around it."""

    outer: Scope | None = None
    values: dict[str, ir.Value] = field(default_factory=dict)
    #: What the file says of the types of values, which is used where inference falls short.
    declared: dict[str, TypeProto] = field(default_factory=dict)
    graph: GraphProto = field(default_factory=GraphProto)

    @functools.cached_property
    def used(self) -> frozenset[str]:
        """The names of the values that the graph's nodes use and its outputs are."""
        names = {o.name for o in self.graph.output}
        names.update(name for node in self.graph.node for name in uses(node))
        return frozenset(names)

    def find(self, name: str) -> ir.Value | None:
        scope: Scope | None = self
        while scope is not None:
            value = scope.values.get(name)
            if value is not None:
                return value
            scope = scope.outer
        return None

    def gives(self, name: str) -> bool:
        """Whether that is an output of the model."""
        return self.outer is None and any(o.name == name for o in self.graph.output)

    def __contains__(self, name: str) -> bool:
        return self.find(name) is not None


@dataclass(frozen=True)
class _Kind:
    """What all nodes of one operator have in common."""

    ladder: Ladder
    first: ir.OpDef  # the form that the file is written in
    free: ir.OpDef | None  # the form that all of them take, if it does not depend on the node
    defaults: dict[str, Any]
    computes_shapes: bool


class GraphImporter:
    """Builds blocks from graphs of one model."""

    def __init__(
        self,
        source: str,
        opsets: Mapping[str, int],
        weights: Weights,
        upgraded: frozenset[str],
        rename: Callable[[str], ir.Dim],
    ) -> None:
        """``contradictions`` tells afterwards where the file's own types are not what is computed, by value, and
        ``believed`` names the outputs whose sizes nothing but the file tells.

        Args:
            source: the model's name in errors.
            opsets: the version of each domain that the model imports.
            upgraded: the forms that rules upgrade, as ``Softmax@11``.
            rename: what becomes of the name of a dimension.
        """
        self._source = source
        self._opsets = opsets
        self._weights = weights
        self._upgraded = upgraded
        self._rename = rename
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._memo = Memo()
        self.nodes = 0
        self.contradictions: list[str] = []
        self.believed: list[str] = []

    def error(self, text: str, remedy: str | None = None) -> UserError:
        return UserError(f"{self._source}: {text}", remedy)

    def _check_text(self, name: object) -> None:
        """Raises UserError for what protobuf hands out as bytes, as it is not UTF-8."""
        if type(name) is not str:
            raise self.error(f"the name {name!r} in it is not UTF-8")

    def type_of(self, proto: TypeProto, what: str) -> ir.Type | None:
        """The type that a message declares for ``what``; None where it says nothing."""
        try:
            return onnx_proto.type_from_proto(proto, self._rename)
        except ProtoError as e:
            raise self.error(f"{what} {e}") from None

    def fill(self, graph: GraphProto, block: ir.Block, scope: Scope) -> list[ir.Value]:
        """Appends the initializers and nodes of ``graph`` to ``block``.

        Args:
            scope: holds the values of the graph's inputs.

        Returns:
            The values of the graph's outputs, in order.
        """
        scope.graph = graph
        for info in graph.value_info:
            scope.declared[info.name] = info.type
        for info in graph.output:
            scope.declared.setdefault(info.name, info.type)
        self._initializers(graph, block, scope)
        try:
            nodes = in_order(graph.node, scope)
        except CycleError as e:
            names = " → ".join(_label(n) for n in e.nodes[:5])
            raise self.error(f"the nodes {names} wait for each other's results", "remove the cycle") from None
        for node in nodes:
            self._node(node, block, scope)
        out = []
        for info in graph.output:
            value = scope.find(info.name)
            self._check_text(info.name)
            if value is None:
                raise self.error(f"nothing produces the output '{info.name}'")
            out.append(value)
        return out

    def _initializers(self, graph: GraphProto, block: ir.Block, scope: Scope) -> None:
        for tensor in graph.initializer:
            try:
                array = self._weights.read(tensor)
            except ProtoError as e:
                raise self.error(f"the initializer '{tensor.name}' {e}") from None
            self._constant(array, block, scope, tensor.name)
        for sparse in graph.sparse_initializer:
            try:
                array = onnx_proto.dense_from_sparse(sparse, self._weights.read)
            except ProtoError as e:
                raise self.error(f"the initializer '{sparse.values.name}' {e}") from None
            self._constant(array, block, scope, sparse.values.name)

    def _constant(
        self, array: Array, block: ir.Block, scope: Scope, name: str, loc: ir.Location = ir.NOWHERE
    ) -> ir.Value:
        type_ = onnx_infer.type_of_array(array)
        value = block.append(ir.Op("onnx.Constant", (), (type_,), {"value": array}, loc=loc)).results[0]
        self._define(name, value, scope)
        return value

    def _define(self, name: str, value: ir.Value, scope: Scope) -> None:
        self._check_text(name)
        if name in scope.values:
            raise self.error(f"the name '{name}' stands for two values", "give each value a name of its own")
        scope.values[name] = value
        value.name = name

    def _kind(self, node: NodeProto) -> _Kind:
        key = (node.domain, node.op_type)
        kind = self._kinds.get(key)
        if kind is None:
            found = self._ladder(node)
            free = found.forms[-1] if found.is_free else None
            first = found.forms[0]
            computes = computes_shapes(ir.Op(first))
            kind = self._kinds[key] = _Kind(found, first, free, (free or first).defaults(), computes)
        return kind

    def _ladder(self, node: NodeProto) -> Ladder:
        self._check_text(node.domain)
        self._check_text(node.op_type)
        domain = "" if node.domain == "ai.onnx" else node.domain
        where = f"node {_label(node)} uses {domain or 'ai.onnx'}.{node.op_type}"
        dialect = onnx_schema.DIALECT_OF_DOMAIN.get(domain)
        if dialect is None:
            known = ", ".join(d or "ai.onnx" for d in onnx_schema.DOMAINS.values())
            raise self.error(
                f"{where}, and operators of the domain '{domain}' are not known (known are {known})",
                "export the model with standard operators, or with the custom ones as local functions",
            )
        version = self._opsets.get(domain)
        if version is None:
            if dialect != "msft":  # onnxruntime does without the import of its own domain
                raise self.error(f"{where}, but the model does not import that domain", "add it to opset_import")
            version = 1
        names = onnx_schema.versions(dialect)
        if dialect == "onnx" and node.op_type in onnx_schema.SYNONYMS:
            newer = onnx_schema.SYNONYMS[node.op_type]
            found = ladder(dialect, newer, names[newer][-1], self._upgraded)
            if found is not None:
                return found
        if node.op_type not in names:
            near = ir.suggest(node.op_type, names)
            raise self.error(
                f"{where}, an operator that does not exist{near}",
                "export the model with standard operators, or with the custom ones as local functions",
            )
        found = ladder(dialect, node.op_type, version, self._upgraded)
        if found is None:
            late = names[node.op_type][0] > version
            why = f"only since opset {names[node.op_type][0]}" if late else "no more"
            raise self.error(f"{where}, which exists {why}, in a model of opset {version}", "export the model again")
        return found

    def _node(self, node: NodeProto, block: ir.Block, scope: Scope) -> None:
        self.nodes += 1
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and not node.input:
            self._constant_node(node, block, scope)
            return
        kind = self._kind(node)
        operands: list[ir.Value | None] = []
        for name in node.input:
            if not name:
                operands.append(None)
                continue
            value = scope.values.get(name)
            if value is None:
                value = scope.find(name)
            if value is None:
                raise self.error(f"node {_label(node)} uses '{name}', which nothing produces")
            operands.append(value)
        while operands and operands[-1] is None:
            operands.pop()
        names = list(node.output)
        while len(names) > 1 and not names[-1]:
            names.pop()
        attributes = dict(kind.defaults)
        regions: dict[str, GraphProto] = {}
        for a in node.attribute:
            self._attribute(node, kind.first, a, attributes, regions)
        defn = kind.free
        if defn is None:
            # A result that is there and not used must not keep the operator in its old form.
            specs = kind.first.results
            while (
                1 < len(names) <= len(specs)
                and specs[len(names) - 1].arity == "optional"
                and names[-1] not in scope.used
            ):
                names.pop()
            dtypes = [v.type.dtype if v is not None and isinstance(v.type, ir.TensorType) else None for v in operands]
            defn = kind.ladder.newest(dtypes, attributes, len(names), [v is not None for v in operands])
            attributes = {**defn.defaults(), **attributes}
        if defn.name == "onnx.Split" and len(operands) < 2:
            # Before version 18, equal parts were as many as there are outputs; since then their number is said.
            attributes.setdefault("num_outputs", len(names))
        self._check(node, defn, operands, attributes, regions, len(names))
        self._check_text(node.name)
        loc = ir.Location((node.name or next(filter(None, names), node.op_type),))
        if defn.regions:
            op = self._with_regions(node, defn, operands, attributes, regions, scope, loc)
        else:
            types = self._infer(node, defn, operands, attributes, len(names))
            op = ir.Op(defn, operands, types, attributes, loc=loc)
        self._declared(op, names, scope)
        if kind.computes_shapes and len(names) == 1:
            known = contents(op.results[0], self._memo)
            if known is not None and is_known(known):
                type_ = op.results[0].type
                assert isinstance(type_, ir.TensorType)
                op.operands = ()
                self._constant(as_array(known, type_), block, scope, names[0], loc)
                return
        block.append(op)
        for result, name in zip(op.results, names):
            if name:
                self._define(name, result, scope)

    def _constant_node(self, node: NodeProto, block: ir.Block, scope: Scope) -> None:
        try:
            array = onnx_proto.constant_from_attributes({a.name: a for a in node.attribute}, self._weights.read)
        except ProtoError as e:
            raise self.error(f"node {_label(node)} (Constant) {e}") from None
        if len(node.output) != 1 or not node.output[0]:
            raise self.error(f"node {_label(node)} (Constant) has {len(node.output)} results")
        self._constant(array, block, scope, node.output[0], ir.Location((node.name or node.output[0],)))

    def _attribute(
        self,
        node: NodeProto,
        defn: ir.OpDef,
        a: AttributeProto,
        attributes: dict[str, Any],
        regions: dict[str, GraphProto],
    ) -> None:
        if a.name in defn.regions:
            if not a.HasField("g"):
                raise self.error(f"node {_label(node)} ({node.op_type}): its attribute '{a.name}' holds no graph")
            regions[a.name] = a.g
            return
        spec = defn.attributes.get(a.name)
        if spec is None:
            near = ir.suggest(str(a.name), defn.attributes)
            raise self.error(f"node {_label(node)}: {node.op_type} has no attribute '{a.name}'{near}")
        try:
            value = onnx_proto.attribute_from_proto(a, spec.kind, self._weights.read)
        except ProtoError as e:
            raise self.error(f"node {_label(node)} ({node.op_type}): its attribute '{a.name}' {e}") from None
        if value is not None:
            attributes[a.name] = value

    def _check(
        self,
        node: NodeProto,
        defn: ir.OpDef,
        operands: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        regions: Mapping[str, GraphProto],
        results: int,
    ) -> None:
        """Raises UserError where a node does not fit its operator's definition."""
        least, most = defn.operand_range
        if len(operands) < least or (most is not None and len(operands) > most):
            want = f"{least}" if least == most else f"{least} to {most}" if most is not None else f"at least {least}"
            raise self.error(f"{_what(node)} has {len(operands)} inputs where it takes {want}")
        if None in operands:
            for spec, v in zip(defn.operands, operands):
                if v is None and spec.arity == "required":
                    raise self.error(f"{_what(node)} lacks its input '{spec.name}'")
        if results > len(defn.results) and not (defn.results and defn.results[-1].arity == "variadic"):
            raise self.error(f"{_what(node)} has {results} outputs where it yields {len(defn.results)}")
        for attribute in defn.attributes.values():
            if attribute.required and attribute.name not in attributes:
                raise self.error(f"{_what(node)} lacks its attribute '{attribute.name}'")
        for name in defn.regions:
            if name not in regions:
                raise self.error(f"{_what(node)} lacks its subgraph '{name}'")

    def _infer(
        self,
        node: NodeProto,
        defn: ir.OpDef,
        operands: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        results: int,
        regions: Sequence[ir.Block] = (),
    ) -> list[ir.Type]:
        try:
            return onnx_infer.infer(defn, operands, attributes, regions, results, self._memo)
        except (ir.InferenceError, ProtoError) as e:
            text = str(e).removeprefix(f"{defn.name}: ")
            raise self.error(f"{_what(node)}: {text}") from None

    def _declared(self, op: ir.Op, names: Sequence[str], scope: Scope) -> None:
        """Types the results of ``op`` with what the file says of them, and keeps where it contradicts."""
        for result, name in zip(op.results, names):
            proto = scope.declared.get(name)
            if proto is None:
                continue
            dtype = declared.element_type(result.type, proto)
            if dtype is not None and op.defn.dialect != "msft":
                assert isinstance(result.type, ir.TensorType)
                raise self.error(
                    f"it says that the value '{name}' is {dtype}, and {op.defn.name} at node '{op.loc.nodes[0]}' makes "
                    f"{result.type.dtype} of what it is given",
                    "export the model again, or delete its value_info and let onnx.shape_inference write it anew",
                )
            shape = declared.shape(result.type, proto)
            if shape is not None:
                self.contradictions.append(f"'{name}' is {shape} in the file and {result.type} as computed")
            if isinstance(result.type, ir.TensorType) and result.type.is_static:
                continue
            result.type = declared.merged(op, result.type, self.type_of(proto, f"the value '{name}'"))
            if isinstance(result.type, ir.TensorType) and result.type.is_static and scope.gives(name):
                self.believed.append(name)

    def _with_regions(
        self,
        node: NodeProto,
        defn: ir.OpDef,
        operands: Sequence[ir.Value | None],
        attributes: Mapping[str, Any],
        graphs: Mapping[str, GraphProto],
        scope: Scope,
        loc: ir.Location,
    ) -> ir.Op:
        """An operator with control flow. What a body is given back in the next round decides its arguments' types."""
        names = list(node.output)
        bodies = [graphs[name] for name in defn.regions]
        arguments = [_argument_types(defn, operands, attributes, body) for body in bodies]
        for _ in range(8):  # a type only gets wider: sizes, then ranks are given up
            regions = [self._region(body, types, scope) for body, types in zip(bodies, arguments)]
            try:
                wider = [_widened(defn, attributes, types, region) for types, region in zip(arguments, regions)]
            except ir.InferenceError as e:
                raise self.error(f"{_what(node)}: {e}") from None
            if wider == arguments:
                break
            arguments = wider
            for region in regions:
                region.clear()
        types = self._infer(node, defn, operands, attributes, len(names), regions)
        if len(types) < len(names):
            raise self.error(
                f"node {_label(node)} ({node.op_type}) has {len(names)} outputs where it yields {len(types)}"
            )
        return ir.Op(defn, operands, types, attributes, regions, loc)

    def _region(self, graph: GraphProto, types: Sequence[ir.Type | None], outer: Scope) -> ir.Block:
        initialized = {t.name for t in graph.initializer}
        inputs = [i for i in graph.input if i.name not in initialized]
        if len(inputs) != len(types):
            raise self.error(f"the subgraph '{graph.name}' has {len(inputs)} inputs where it is given {len(types)}")
        block, scope = ir.Block(), Scope(outer)
        for info, type_ in zip(inputs, types):
            declared = self.type_of(info.type, f"the input '{info.name}' of the subgraph '{graph.name}'")
            chosen = type_ if type_ is not None else declared
            if chosen is None:
                raise self.error(f"the type of the input '{info.name}' of the subgraph '{graph.name}' is not known")
            self._define(info.name, block.add_argument(chosen, info.name), scope)
        out = self.fill(graph, block, scope)
        block.append(ir.Op("ir.return", out))
        return block


def _label(node: NodeProto) -> str:
    return f"'{node.name}'" if node.name else f"of '{next(iter(node.output), '')}'"


def _what(node: NodeProto) -> str:
    return f"node {_label(node)} ({node.op_type})"


def _argument_types(
    defn: ir.OpDef, operands: Sequence[ir.Value | None], attributes: Mapping[str, Any], body: GraphProto
) -> list[ir.Type | None]:
    """The types of a body's arguments in its first round; None for what the body itself declares."""
    given = [None if v is None else v.type for v in operands]
    name = defn.name.partition("@")[0]
    if name == "onnx.If":
        return []
    if name == "onnx.Loop":
        return [ir.TensorType(ir.I64, ()), ir.TensorType(ir.BOOL, ()), *given[2:]]
    if name == "onnx.Scan" and defn.since > 8:
        scanned = attributes["num_scan_inputs"]
        axes = attributes.get("scan_input_axes") or (0,) * scanned
        states = len(given) - scanned
        return given[:states] + [_slice_type(t, axis) for t, axis in zip(given[states:], axes)]
    if name == "onnx.SequenceMap":
        return [t.element if isinstance(t, ir.SequenceType) else t for t in given]
    return [None] * len(body.input)


def _slice_type(type_: ir.Type | None, axis: int) -> ir.Type | None:
    if not isinstance(type_, ir.TensorType) or type_.shape is None:
        return type_
    at = axis + len(type_.shape) if axis < 0 else axis
    return type_.with_shape(d for i, d in enumerate(type_.shape) if i != at)


def _widened(
    defn: ir.OpDef, attributes: Mapping[str, Any], types: Sequence[ir.Type | None], region: ir.Block
) -> list[ir.Type | None]:
    """What the arguments' types must be, given what the body hands to its next round."""
    name = defn.name.partition("@")[0]
    out = list(types)
    returned = onnx_regions.returned(region)
    if name == "onnx.Loop":
        pairs = zip(range(2, len(out)), returned[1:])
    elif name == "onnx.Scan" and defn.since > 8:
        pairs = zip(range(len(out) - attributes["num_scan_inputs"]), returned)
    else:
        return out
    for i, value in pairs:
        before = out[i]
        if before is not None:
            out[i] = onnx_regions.join(before, value.type)
    return out

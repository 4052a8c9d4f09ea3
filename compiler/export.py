"""A module of onnx.* operators as an ONNX model."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

from compiler import ir
from compiler.dialects import onnx_proto
from compiler.dialects.onnx_schema import DOMAINS, schema, versions
from compiler.dialects.onnx_versions import fitting_versions, spelled
from compiler.errors import UnsupportedError
from compiler.frontend.upgraded import upgraded_forms

Array = np.ndarray[Any, Any]

#: Constants of at least this many bytes stay out of the message where the caller wants them apart.
LARGE = 1024
#: Constants of at least this many bytes can be handed in as inputs, which onnxruntime does not copy.
HUGE = 1 << 20
_IR_VERSION = 10


class Export:
    """One function written as a graph.

    Attributes:
        model: the message.
        names: the name in the graph of every value that has one.
        large: the constants that were left out of the message, by name.
        huge: the constants that became inputs, by name.
        ops: the operator of each node, by the node's name, which is unique.
    """

    def __init__(
        self, function: ir.Function, extra: Sequence[ir.Value] = (), *, detach: bool = False, borrow: bool = False
    ) -> None:
        """
        Args:
            extra: values to give out after the function's own outputs.
            detach: leave large constants out of the message, as external data, and collect them in ``large``.
            borrow: make huge floating-point constants inputs.

        Raises:
            UnsupportedError: the function holds operators that ONNX does not have, or forms of different times.
        """
        self.names: dict[ir.Value, str] = {}
        self.large: dict[str, Array] = {}
        self.huge: dict[str, Array] = {}
        self.ops: dict[str, ir.Op] = {}
        self._detach, self._borrow = detach, borrow
        self._taken: set[str] = {a.name for a in function.inputs} | set(function.output_names)
        self._count = 0
        self._opsets = _opsets(function)
        graph = GraphProto(name=function.name)
        for argument in function.inputs:
            self.names[argument] = argument.name
            graph.input.append(_info(argument.name, argument.type))
        outputs = [*zip(function.outputs, function.output_names), *((v, None) for v in extra)]
        # A value that leaves once, made by an operator here, is made under the output's name.
        for value, name in outputs:
            op = value.op
            inner = op is not None and op.block is function.block and not self._is_borrowed(op)
            if inner and name is not None and value not in self.names:
                self.names[value] = name
        self.output_names: list[str] = []
        for value, _ in outputs:
            if value not in self.names:
                self.names[value] = self._fresh(value)
        self._body(function.block, graph)
        for value, name in outputs:
            source = self.names[value]
            out = name if name is not None else self._unique(f"{source}_out")
            if out != source:
                node = graph.node.add(op_type="Identity", input=[source], output=[out], name=self._unique("identity"))
                self.names.setdefault(value, node.output[0])
            self.output_names.append(out)
            graph.output.append(_info(out, value.type))
        self._opsets.setdefault("", onnx.defs.onnx_opset_version())
        opsets = [onnx.OperatorSetIdProto(domain=d, version=v) for d, v in sorted(self._opsets.items())]
        self.model = ModelProto(ir_version=_IR_VERSION, producer_name="planish", graph=graph, opset_import=opsets)

    def _unique(self, hint: str) -> str:
        name = hint
        while name in self._taken:
            name = f"{hint}_{self._count}"
            self._count += 1
        self._taken.add(name)
        return name

    def _fresh(self, value: ir.Value) -> str:
        return self._unique(value.name or f"v{len(self.names)}")

    def _name(self, value: ir.Value) -> str:
        name = self.names.get(value)
        if name is None:
            name = self.names[value] = self._fresh(value)
        return name

    def _body(self, block: ir.Block, graph: GraphProto) -> None:
        for op in block.ops:
            if op.defn.constant is not None and op.defn.dialect == "onnx":
                if self._is_borrowed(op):
                    name = self._name(op.results[0])
                    self.huge[name] = op.attributes["value"]
                    graph.input.append(_info(name, op.results[0].type))
                else:
                    graph.initializer.append(self._initializer(op))
            elif not op.defn.terminator:
                graph.node.append(self._node(op))

    def _is_borrowed(self, op: ir.Op) -> bool:
        """Whether a constant becomes an input."""
        if not self._borrow or op.defn.constant is None or op.parent is not None:
            return False
        array: Array = op.attributes[op.defn.constant]
        return array.nbytes >= HUGE and array.dtype.kind == "f"

    def _initializer(self, op: ir.Op) -> TensorProto:
        value = op.results[0]
        array: Array = op.attributes["value"]
        name = self._name(value)
        inside = op.parent is not None  # where onnxruntime does not look for the constants that it is handed
        if not self._detach or inside or array.nbytes < LARGE or array.dtype.kind in "OUS" or _is_packed(array):
            return onnx_proto.array_to_proto(array, name)
        self.large[name] = array
        tensor = TensorProto(name=name, data_type=onnx_proto.ENUM[ir.from_numpy(array.dtype)], dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="memory")
        return tensor

    def _node(self, op: ir.Op) -> NodeProto:
        defn = op.defn
        dialect, _, name = defn.name.partition(".")
        domain = DOMAINS.get(dialect)
        if domain is None:
            raise UnsupportedError(f"{_where(op)} is no operator of ONNX and cannot be evaluated as one")
        label = self._unique(f"{op.loc.nodes[0] if op.loc.nodes else name}")
        self.ops[label] = op
        node = NodeProto(op_type=name.partition("@")[0], domain=domain, name=label)
        node.input.extend(["" if v is None else self._name(v) for v in op.operands])
        outputs = ["" if self._is_spare(op, i) else self._name(r) for i, r in enumerate(op.results)]
        while len(outputs) > 1 and not outputs[-1]:
            outputs.pop()
        node.output.extend(outputs)
        written = _form_at(defn, self._opsets[domain]).attributes
        for key, value in op.attributes.items():
            # What an older form cannot say has its default, or that form would not do.
            if key in written:
                node.attribute.append(onnx_proto.attribute_to_proto(key, value, written[key].kind))
        for key, region in zip(defn.regions, op.regions):
            node.attribute.append(AttributeProto(name=key, type=AttributeProto.GRAPH, g=self._region(region, key)))
        return node

    def _is_spare(self, op: ir.Op, index: int) -> bool:
        """Whether a result is optional and nobody uses it, so that it need not be asked for."""
        result = op.results[index]
        spec = op.defn.results[min(index, len(op.defn.results) - 1)]
        return spec.arity == "optional" and not result.use_count and result not in self.names

    def _region(self, block: ir.Block, name: str) -> GraphProto:
        graph = GraphProto(name=name)
        for argument in block.arguments:
            graph.input.append(_info(self._name(argument), argument.type))
        self._body(block, graph)
        end = block.terminator
        for value in end.operands if end is not None else ():
            assert value is not None
            source = self._name(value)
            # What a subgraph gives out must be made in it, and once.
            out = self._unique(f"{source}_returned")
            graph.node.add(op_type="Identity", input=[source], output=[out], name=self._unique("identity"))
            graph.output.append(_info(out, value.type))
        return graph


def to_onnx(source: ir.Module | ir.Function) -> ModelProto:
    """The model that a module's main function, or a function, stands for, with all constants inside.

    Raises:
        UnsupportedError: it holds operators that ONNX does not have, or forms that no one opset has.
    """
    return Export(source.main if isinstance(source, ir.Module) else source).model


def _info(name: str, type_: ir.Type) -> ValueInfoProto:
    return ValueInfoProto(name=name, type=onnx_proto.type_to_proto(type_))


def _is_packed(array: Array) -> bool:
    return ir.from_numpy(array.dtype).bits < 8


def _where(op: ir.Op) -> str:
    return f"{op.name}{f' (node {op.loc.nodes[0]})' if op.loc.nodes else ''}"


def _opsets(function: ir.Function) -> dict[str, int]:
    """A version of each domain under which all operators mean what they mean here, the newest that can be run.

    Raises:
        UnsupportedError: there is none, as old forms stand beside operators that are younger.
    """
    used: dict[str, dict[ir.OpDef, list[ir.Op]]] = {}
    for op in function.walk():
        if op.defn.dialect in DOMAINS:
            used.setdefault(op.defn.dialect, {}).setdefault(op.defn, []).append(op)
    return {DOMAINS[d]: _version(d, forms) for d, forms in used.items()}


def _version(dialect: str, forms: Mapping[ir.OpDef, list[ir.Op]]) -> int:
    newest = onnx.defs.onnx_opset_version() if dialect == "onnx" else max(v[-1] for v in versions(dialect).values())
    last, aged = newest, None
    for form, ops in forms.items():
        if "@" in form.name:
            end = fitting_versions(ops[0], upgraded_forms())[1]
            if end is not None and end < last:
                last, aged = end, ops[0]
    version = _runnable(dialect, forms, last)
    for form, ops in forms.items():
        if form.since <= version:
            continue
        for op in ops:
            first = fitting_versions(op, upgraded_forms())[0]
            if first > last:
                assert aged is not None
                raise UnsupportedError(
                    f"{_where(aged)} and {_where(op)} are of no common opset", "apply the rules' stage upgrade first"
                )
            version = max(version, first)
    return version


def _runnable(dialect: str, forms: Iterable[ir.OpDef], version: int) -> int:
    """The newest version up to ``version`` at which onnxruntime runs all operators that it runs at any.

    A kernel without an upper bound serves the schema that is as old as itself, and no younger one: with a new version
    of a schema, onnxruntime loses the operator until it follows. What has no kernel is run as the function that the
    schema gives, as long as none of the operators in that has changed.
    """
    names = {form.name.partition(".")[2].partition("@")[0] for form in forms}
    kernels = _kernels(DOMAINS[dialect])
    limit, before = version, -1
    while limit != before:
        before = limit
        for name in names:
            since = max((v for v in versions(dialect)[name] if v <= limit), default=1)
            ranges = kernels.get(name)
            if ranges:
                if since > 1 and not any(lo == since or (lo < since <= hi < _OPEN) for lo, hi in ranges):
                    limit = since - 1
            elif dialect != "msft":
                body = schema(dialect, name, since).function_body
                parts = {n.op_type for n in body.node} if body is not None else set()
                changes = (v for part in parts for v in versions("onnx").get(part, ()) if v > since)
                limit = min(limit, min(changes, default=limit + 1) - 1)
    return limit


_OPEN = 2**31 - 1


@functools.cache
def _kernels(domain: str) -> dict[str, list[tuple[int, int]]]:
    """The versions that onnxruntime's kernels for the CPU serve, by operator."""
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    out: dict[str, list[tuple[int, int]]] = {}
    for kernel in ort.get_all_opkernel_def():
        if kernel.domain == domain and kernel.provider == "CPUExecutionProvider":
            out.setdefault(kernel.op_name, []).append(kernel.version_range)
    return out


@functools.cache
def _form_at(defn: ir.OpDef, version: int) -> ir.OpDef:
    """The form of an operator that is in force at ``version``."""
    if defn.since <= version:
        return defn
    name = defn.name.partition(".")[2].partition("@")[0]
    older = max((v for v in versions(defn.dialect)[name] if v <= version), default=defn.since)
    return ir.lookup(spelled(defn.dialect, name, older))

"""Operator definitions from the schemas that the onnx package and onnxruntime carry. No operator is typed in here.

Both libraries describe an operator alike (onnxruntime exports its own copy of ONNX's C++ class), but spell the Python
attributes differently; :func:`definition` hides that.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from onnx import AttributeProto, NodeProto, defs

from compiler import ir
from compiler.dialects import onnx_proto as proto

#: The dialects and the ONNX domains they stand for. ``com.microsoft`` cannot be split at the first dot.
DOMAINS: dict[str, str] = {"onnx": "", "ml": "ai.onnx.ml", "msft": "com.microsoft"}
DIALECT_OF_DOMAIN: dict[str, str] = {**{d: n for n, d in DOMAINS.items()}, "ai.onnx": "onnx"}

#: Operators whose first two operands (all, for a variadic one) may be swapped; ONNX's schemas do not say it.
COMMUTATIVE = frozenset(
    ["Add", "Mul", "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Equal", "Max", "Min", "Sum", "Mean"]
)

#: What onnxruntime's optimizer calls operators in ai.onnx that ONNX has had since then, with the same attributes.
SYNONYMS = {"SimplifiedLayerNormalization": "RMSNormalization"}

_KINDS: dict[str, ir.opdef.AttributeKind] = {
    "INT": "int",
    "FLOAT": "float",
    "STRING": "string",
    "TENSOR": "tensor",
    "SPARSE_TENSOR": "tensor",
    "TYPE_PROTO": "type",
    "INTS": "ints",
    "FLOATS": "floats",
    "STRINGS": "strings",
}

#: ONNX spells element types as INT attributes; nothing but the name tells them from numbers.
_ELEMENT_TYPE_ATTRIBUTE = re.compile(r"to|.*dtype|.*datatype|stash_type|(.*_)?precision")


@functools.cache
def msft_schemas() -> Mapping[str, Any]:
    """The schemas of ``com.microsoft`` by name, as the installed onnxruntime has them."""
    from onnxruntime.capi import onnxruntime_pybind11_state as ort

    return {s.name: s for s in ort.get_all_operator_schema() if s.domain == DOMAINS["msft"]}


@functools.cache
def versions(dialect: str) -> Mapping[str, tuple[int, ...]]:
    """For each operator of the dialect, the versions at which its definition changed, oldest first."""
    if dialect == "msft":
        return {name: (s.since_version,) for name, s in msft_schemas().items()}
    out: dict[str, set[int]] = {}
    for s in defs.get_all_schemas_with_history():
        if s.domain == DOMAINS[dialect]:
            out.setdefault(s.name, set()).add(s.since_version)
    return {name: tuple(sorted(v)) for name, v in out.items()}


def schema(dialect: str, name: str, version: int | None = None) -> Any:
    """The schema of an operator: the newest, or the one in force at ``version``; None where there is none."""
    if dialect == "msft":
        return msft_schemas().get(name)
    known = versions(dialect).get(name)
    if known is None:
        return None
    in_force = [v for v in known if version is None or v <= version]
    return defs.get_schema(name, in_force[-1], DOMAINS[dialect]) if in_force else None


def definition(dialect: str, name: str, since: int) -> ir.OpDef:
    """The definition of an operator in the form that ``since`` introduced."""
    s = schema(dialect, name, since)
    newest = versions(dialect)[name][-1]
    qualified = f"{dialect}.{name}" if since == newest else f"{dialect}.{name}@{since}"
    if qualified == "onnx.Constant":  # one attribute for all of ONNX's ways to write a constant
        value = {"value": ir.AttributeSpec("value", "tensor", required=True)}
        return ir.OpDef(qualified, (), _specs(s.outputs, {}), value, constant="value", since=since, doc=s.doc)
    constraints = {c.type_param_str: c for c in s.type_constraints}
    graphs = [a for a in s.attributes if _kind_name(s.attributes[a]) == "GRAPH"]
    attributes = {a: _attribute(s.attributes[a]) for a in sorted(s.attributes) if a not in graphs}
    return ir.OpDef(
        qualified,
        _specs(s.inputs, constraints),
        _specs(s.outputs, constraints),
        attributes,
        # Schemas list attributes by alphabet; reversed, If has its then_branch first. No other operator has two graphs.
        regions=tuple(sorted(graphs, reverse=True)),
        commutative=name in COMMUTATIVE and dialect == "onnx",
        # Whatever draws random numbers can be given a seed, and nothing else can. Dropout can since version 12, when
        # it learned to train.
        pure="seed" not in attributes,
        since=since,
        doc=s.doc or "",
    )


def _kind_name(attribute: Any) -> str:
    return str(attribute.type).rpartition(".")[2]


def _attribute(a: Any) -> ir.AttributeSpec:
    kind = _KINDS.get(_kind_name(a), "any")
    if kind == "int" and _ELEMENT_TYPE_ATTRIBUTE.fullmatch(a.name):
        kind = "type"
    raw = getattr(a, "default_value", None)
    if raw is None:  # onnxruntime's schemas give the message's bytes
        raw = AttributeProto.FromString(a._default_value)
    default = proto.attribute_from_proto(raw, kind) if raw.type else None
    return ir.AttributeSpec(a.name, kind, a.required, default)


def _specs(parameters: Any, constraints: Mapping[str, Any]) -> tuple[ir.OperandSpec, ...]:
    out = []
    for p in parameters:
        option = str(p.option).rpartition(".")[2]
        arity: ir.opdef.Arity = {"Optional": "optional", "Variadic": "variadic"}.get(option, "required")  # type: ignore[assignment]
        variable = p.type_str if hasattr(p, "type_str") else p.typeStr
        homogeneous = p.is_homogeneous if hasattr(p, "is_homogeneous") else p.isHomogeneous
        known = constraints.get(variable)
        allowed = frozenset(p.types) or frozenset(known.allowed_type_strs if known else ())
        bound = variable in constraints and (homogeneous or arity != "variadic")
        out.append(ir.OperandSpec(p.name, arity, _dtypes(allowed), variable if bound else ""))
    return tuple(out)


@functools.cache
def _dtypes(allowed: frozenset[str]) -> frozenset[ir.DType] | None:
    """The element types of a set of ONNX type strings; None (any) where sequences or optionals are allowed too."""
    if not allowed or not all(t.startswith("tensor(") for t in allowed):
        return None
    spelled = (t.removeprefix("tensor(").removesuffix(")") for t in allowed)
    return frozenset(proto.BY_SPELLING[s] for s in spelled if s in proto.BY_SPELLING)


def make_node(defn: ir.OpDef, attributes: Mapping[str, Any], inputs: Sequence[str], results: int) -> NodeProto:
    """A node message with results ``o0``, ``o1`` …; for operators without regions."""
    name = defn.name.partition(".")[2].partition("@")[0]
    node = NodeProto(op_type=name, domain=DOMAINS[defn.dialect], input=inputs)
    node.output.extend(f"o{k}" for k in range(results))
    for key, value in attributes.items():
        node.attribute.append(proto.attribute_to_proto(key, value, defn.attributes[key].kind))
    return node

"""The mil dialect: Core ML's model intermediate language, from a snapshot of coremltools' op registry.

A MIL operator has named inputs; here each is either an operand or an attribute, by one rule. An input is an attribute
iff it must be const in every release that has it, and it is a parameter rather than data:

- it has a default that does not depend on the other inputs (``epsilon``), or
- its element types hold no float, but i32, u32, bool or string (``strides``, ``axes``, ``pad_type``; narrow integers
  alone are quantized data), or
- it is a list (``classify.classes``) or what a ``const`` holds.

Everything else is an operand, in the registry's order. The first tuple of tensors (``concat.values``) is the variadic
operand and stands last; a further one (``reshape_like.begins``) is an attribute.

``python -m compiler.dialects.mil NAME …`` prints signatures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from compiler.dialects import mil_forms
from compiler.dialects.mil_forms import Form, Input, Registered, form, releases
from compiler.ir import core
from compiler.ir.dtypes import BOOL, I32, STRING, U32, DType, from_numpy
from compiler.ir.opdef import (
    AttributeKind,
    AttributeSpec,
    Dialect,
    InferenceError,
    OpDef,
    OperandSpec,
    lookup,
    register_dialect,
)
from compiler.ir.spelling import same_attribute
from compiler.ir.types import StateType, TensorType, Type, type_meet

#: Gives the result types of an operator: same arguments and errors as :meth:`Dialect.infer`.
Inference = Callable[
    [OpDef, Sequence["core.Value | None"], Mapping[str, Any], Sequence["core.Block"], int | None], list[Type]
]

_PARAMETER_DTYPES = frozenset({I32, U32, BOOL, STRING})
_KINDS: dict[str, tuple[AttributeKind, AttributeKind]] = {
    "int": ("int", "ints"),
    "float": ("float", "floats"),
    "bool": ("bool", "bools"),
    "string": ("string", "strings"),
}


class MilDialect(Dialect):
    """``mil.*``. Types of results come from the hook that :func:`set_inference` installs."""

    name = "mil"
    adopts_types = True  # inference goes by way of the meaning in onnx.*; every lowering rule is proved instead

    def __init__(self) -> None:
        self.inference: Inference | None = None

    def lookup(self, op: str) -> OpDef | None:
        registered = mil_forms.registered(op)
        return None if registered is None else _definition(registered)

    def op_names(self) -> Iterable[str]:
        return mil_forms.operator_names()

    def infer(
        self,
        defn: OpDef,
        operands: Sequence[core.Value | None],
        attributes: Mapping[str, Any],
        regions: Sequence[core.Block] = (),
        results: int | None = None,
    ) -> list[Type]:
        structural = _STRUCTURAL.get(defn.name)
        if structural is not None:
            return structural(operands, attributes, regions)
        if self.inference is None:
            raise InferenceError(f"the result types of {defn.name} are not known: no inference is set for dialect mil")
        return self.inference(defn, operands, attributes, regions, results)

    def constant(self, value: np.ndarray[Any, Any]) -> tuple[str, dict[str, Any]]:
        return "mil.const", {"val": value}


def set_inference(fn: Inference | None) -> None:
    """Installs what infers the result types of mil operators; None removes it."""
    DIALECT.inference = fn


def _const_types(operands: Sequence[Any], attributes: Mapping[str, Any], regions: Sequence[core.Block]) -> list[Type]:
    value = attributes["val"]
    return [TensorType(from_numpy(value.dtype), value.shape)]


def _branch_types(operands: Sequence[Any], attributes: Mapping[str, Any], regions: Sequence[core.Block]) -> list[Type]:
    true, false = ([v.type for v in r.terminator.operands if v] if r.terminator else [] for r in regions)
    if len(true) != len(false):
        raise InferenceError(f"the branches of mil.cond give {len(true)} and {len(false)} values")
    out = []
    for i, (a, b) in enumerate(zip(true, false, strict=True)):
        if type_meet(a, b) is None:
            raise InferenceError(f"the branches of mil.cond give {a} and {b} as result {i}")
        out.append(a)
    return out


def _loop_types(operands: Sequence[Any], attributes: Mapping[str, Any], regions: Sequence[core.Block]) -> list[Type]:
    return [v.type for v in operands]


def _state_types(operands: Sequence[Any], attributes: Mapping[str, Any], regions: Sequence[core.Block]) -> list[Type]:
    state = operands[0].type
    if not isinstance(state, StateType):
        raise InferenceError(f"a state is needed, got {state}")
    return [state.element]


#: Operators whose result types are a matter of structure, not of what they compute.
_STRUCTURAL: dict[str, Callable[[Sequence[Any], Mapping[str, Any], Sequence[core.Block]], list[Type]]] = {
    "mil.const": _const_types,
    "mil.cond": _branch_types,
    "mil.while_loop": _loop_types,
    "mil.read_state": _state_types,
    "mil.coreml_update_state": _state_types,
}


def _definition(op: Registered) -> OpDef:
    merged = _merged_inputs(op)
    attributes = {n for n, specs in merged.items() if _is_attribute(specs)}
    tuples = [n for n, specs in merged.items() if specs[-1].kind == "tuple"]
    attributes |= set(tuples[1:])
    newest = op.forms[-1]
    return OpDef(
        name=f"mil.{op.name}",
        operands=tuple(_operand(n, s, len(op.forms)) for n, s in merged.items() if n not in attributes),
        results=_results(op),
        attributes={n: _attribute(n, s, len(op.forms)) for n, s in merged.items() if n in attributes},
        regions=op.regions,
        commutative=op.commutative,
        constant="val" if op.name == "const" else None,
        pure=not op.impure,
        since=releases()[op.forms[0].since].specification,
        doc=f"since {op.forms[0].since}" if newest is op.forms[0] else f"forms of {', '.join(_sinces(op))}",
    )


def _sinces(op: Registered) -> list[str]:
    return [f.since for f in op.forms]


def _merged_inputs(op: Registered) -> dict[str, list[Input]]:
    """The inputs of all forms, in the newest one's order; an input that was dropped stands after its old neighbour."""
    order = list(op.forms[-1].inputs)
    for f in reversed(op.forms[:-1]):
        previous = None
        for name in f.inputs:
            if name not in order:
                order.insert(order.index(previous) + 1 if previous else 0, name)
            previous = name
    return {n: [f.inputs[n] for f in op.forms if n in f.inputs] for n in order}


def _is_attribute(specs: list[Input]) -> bool:
    if not all(s.const for s in specs):
        return False
    if specs[-1].kind != "tensor" or any(s.default is not None for s in specs):
        return True
    domain = frozenset().union(*(s.dtypes or () for s in specs))
    return not any(d.is_float for d in domain) and bool(domain & _PARAMETER_DTYPES)


def _operand(name: str, specs: list[Input], forms: int) -> OperandSpec:
    dtypes = None if any(s.dtypes is None for s in specs) else frozenset().union(*(s.dtypes or () for s in specs))
    if specs[-1].kind == "tuple":
        return OperandSpec(name, "variadic", dtypes)
    required = len(specs) == forms and not any(s.optional for s in specs)
    return OperandSpec(name, "required" if required else "optional", dtypes, specs[-1].variable)


def _attribute(name: str, specs: list[Input], forms: int) -> AttributeSpec:
    default = next((s.default for s in specs if s.default is not None), None)
    required = len(specs) == forms and not any(s.optional for s in specs)
    return AttributeSpec(name, _attribute_kind(name, specs), required, default)


def _attribute_kind(name: str, specs: list[Input]) -> AttributeKind:
    spec = specs[-1]
    if spec.kind == "any":
        return "tensor"
    domain = frozenset().union(*(s.dtypes or () for s in specs))
    kinds = {"int" if d.is_integer else d.kind for d in domain}
    if spec.rank is None or len(kinds) != 1:
        return "any"
    return _KINDS[kinds.pop()][spec.rank]


def _results(op: Registered) -> tuple[OperandSpec, ...]:
    least = min(f.least for f in op.forms)
    most = None if any(f.most is None for f in op.forms) else max(f.most or 0 for f in op.forms)
    if most is None:
        return (OperandSpec("results", "variadic"),)
    variables = next((f.result_variables for f in reversed(op.forms) if len(f.result_variables) == most), ("",) * most)
    names = ["result"] if most == 1 else [f"result_{i}" for i in range(most)]
    return tuple(
        OperandSpec(n, "required" if i < least else "optional", None, variables[i]) for i, n in enumerate(names)
    )


def supports(op_name: str, os: str) -> bool:
    """Whether release ``os`` has the operator, named with or without ``mil.``.

    Raises:
        ValueError: no release is called ``os``.
    """
    return form(op_name, os) is not None


def dtypes(op_name: str, input_name: str, os: str) -> frozenset[DType] | None:
    """The element types that an input takes in release ``os``; None where the registry does not restrict them.

    Raises:
        KeyError: the operator or the input does not exist in that release.
    """
    found = form(op_name, os)
    if found is None or input_name not in found.inputs:
        raise KeyError(f"{op_name} has no input '{input_name}' in {os}")
    return found.inputs[input_name].dtypes


def since(op_name: str) -> str | None:
    """The first release that has the operator, or None if no release has it."""
    op = mil_forms.registered(op_name.removeprefix("mil."))
    return None if op is None else op.forms[0].since


def bound_dtypes(op: core.Op, at: Form) -> dict[str, DType]:
    """The element type that each type variable of ``at`` has from the operands of ``op``."""
    out: dict[str, DType] = {}
    for spec, value in zip(op.defn.operands, op.operands):
        if value is not None and spec.name in at.inputs and isinstance(value.type, TensorType):
            variable = at.inputs[spec.name].variable
            if variable:
                out.setdefault(variable, value.type.dtype)
    return out


def result_dtype(op: core.Op) -> DType | None:
    """The element type of the first result, if it is a tensor."""
    type_ = op.results[0].type if op.results else None
    return type_.dtype if isinstance(type_, TensorType) else None


def written_dtype(op: core.Op, name: str, value: Any, at: Form) -> DType:
    """The element type with which attribute ``name`` of ``op`` is written if it is ``value`` (see parameter_dtype)."""
    spec = at.inputs[name]
    if not spec.variable:
        return mil_forms.parameter_dtype(spec, value, {}, None)
    bound = bound_dtypes(op, at)
    if spec.variable not in bound and not isinstance(value, np.ndarray):
        # Attributes alone share the variable: one float among them makes all of them floats.
        shared = (op.attributes[n] for n, i in at.inputs.items() if i.variable == spec.variable and n in op.attributes)
        value = tuple(v for v in (value, *shared) if not isinstance(v, np.ndarray | tuple)) or value
    return mil_forms.parameter_dtype(spec, value, bound, result_dtype(op))


def legal(op: core.Op, os: str) -> str | None:
    """Why release ``os`` does not take ``op``, in one sentence that starts with the operator's name; None if it does.

    Looks at the operator alone, not into its regions. Checks that the release has it; that the inputs are those that
    the release knows (an attribute that it does not know may stand at its default, which is what the release does);
    that element types are in their domains and agree where they share a type variable; that what must be const is; and
    that no parameter is left out whose default depends on the operands, since coremltools never leaves those to the
    runtime.
    """
    found = form(op.name, os)
    if found is None:
        return f"{op.name} exists from {since(op.name)} on, not in {os}"
    present: dict[str, list[core.Value]] = {}
    specs = op.defn.operands
    for i, value in enumerate(op.operands):
        if value is not None:
            present.setdefault(specs[min(i, len(specs) - 1)].name, []).append(value)
    return _illegal_operands(op, found, present, os) or _illegal_attributes(op, found, present, os)


def _illegal_operands(op: core.Op, at: Form, present: Mapping[str, list[core.Value]], os: str) -> str | None:
    bound: dict[str, tuple[str, DType]] = {}
    for name, values in present.items():
        spec = at.inputs.get(name)
        if spec is None:
            return f"{op.name} has no input '{name}' in {os}"
        for value in values:
            if spec.const and not is_compile_time(value):
                return f"{op.name} needs a constant for '{name}' in {os}"
            if not isinstance(value.type, TensorType):
                continue
            dtype = value.type.dtype
            if spec.dtypes is not None and dtype not in spec.dtypes:
                return f"{op.name} does not take {dtype} for '{name}' in {os} ({_spelled(spec.dtypes)})"
            if spec.variable:
                other, first = bound.setdefault(spec.variable, (name, dtype))
                if first is not dtype:
                    return (
                        f"{op.name} needs one element type for '{other}' and '{name}' in {os}, got {first} and {dtype}"
                    )
    return None


def _illegal_attributes(op: core.Op, at: Form, present: Mapping[str, list[core.Value]], os: str) -> str | None:
    bound = bound_dtypes(op, at)
    for name, value in op.attributes.items():
        spec = at.inputs.get(name)
        if spec is None:
            default = op.defn.attributes[name].default
            if default is not None and same_attribute(value, default):
                continue
            return f"{op.name} has no parameter '{name}' in {os}"
        if spec.kind == "tensor" and spec.dtypes is not None:
            dtype = written_dtype(op, name, value, at)
            if dtype not in spec.dtypes:
                return f"{op.name} does not take {dtype} for '{name}' in {os} ({_spelled(spec.dtypes)})"
            if spec.variable and bound.setdefault(spec.variable, dtype) is not dtype:
                return f"{op.name} needs {bound[spec.variable]} for '{name}' in {os}, got {dtype}"
    for name, spec in at.inputs.items():
        if name in present or name in op.attributes or spec.kind == "tuple":
            continue
        if not spec.optional:
            return f"{op.name} needs '{name}' in {os}"
        if spec.computed and name in op.defn.attributes and not _is_conditional(op, name):
            return f"{op.name} needs '{name}' spelled out: its default depends on the operands"
    return None


def _is_conditional(op: core.Op, name: str) -> bool:
    """Whether the parameter is meaningless unless another is set, like the type of indices that are not returned."""
    return op.defn.attributes[name].kind == "string"


def is_compile_time(value: core.Value) -> bool:
    """Whether a value can stand where an input must be const: a constant, plain or compressed."""
    op = value.op
    return op is not None and _makes_constant(op.defn)


@cache
def _makes_constant(defn: OpDef) -> bool:
    return defn.constant is not None or defn.name.startswith("mil.constexpr_")


def _spelled(dtypes_: Iterable[DType]) -> str:
    return ", ".join(sorted(d.name for d in dtypes_))


def signature(op_name: str) -> str:
    """The operator's operands, attributes and results, and what changes from release to release, as text.

    Raises:
        UnknownOperatorError: there is no such operator.
    """
    name = op_name if op_name.startswith("mil.") else f"mil.{op_name}"
    defn = lookup(name)
    op = mil_forms.registered(defn.name.removeprefix("mil."))
    assert op is not None
    marks = {"required": "{}", "optional": "{}?", "variadic": "*{}"}
    attributes = []
    for a in defn.attributes.values():
        text = f"{a.name}: {a.kind}"
        if a.default is not None:
            text += f" = {a.default!r}"
        attributes.append(text if a.required or a.default is not None else f"{text}?")
    line = f"{name}({', '.join(marks[o.arity].format(o.name) for o in defn.operands)})"
    if attributes:
        line += f" {{{', '.join(attributes)}}}"
    for region in defn.regions:
        line += f" {region} {{…}}"
    line += f" -> ({', '.join(marks[r.arity].format(r.name) for r in defn.results)})"
    lines = [line + ("  commutative" if defn.commutative else "") + ("" if defn.pure else "  impure")]
    for f in op.forms:
        domains: dict[str, list[str]] = {}
        for i in f.inputs.values():
            domain = _spelled(i.dtypes) if i.dtypes else i.kind
            label = (
                f"{i.name}{'?' if i.optional else ''}{' const' if i.const and i.name not in defn.attributes else ''}"
            )
            domains.setdefault(f"{i.variable + ': ' if i.variable else ''}{domain}", []).append(label)
        lines.append(f"  {f.since}: " + "; ".join(f"{', '.join(names)}: {d}" for d, names in domains.items()))
    return "\n".join(lines)


DIALECT = MilDialect()
register_dialect(DIALECT)


if __name__ == "__main__":
    for each in sys.argv[1:] or mil_forms.operator_names():
        print(signature(each))

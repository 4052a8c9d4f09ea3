"""Types of control flow: what If, Loop, Scan and SequenceMap yield follows from what their regions return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compiler import ir
from compiler.dialects.onnx_contents import contents


def join(a: ir.Type, b: ir.Type) -> ir.Type:
    """What is true of a value that may be of either type: dimensions that differ are unknown.

    Raises:
        InferenceError: the two have different kinds, or element types.
    """
    if a is b:
        return a
    if isinstance(a, ir.TensorType) and isinstance(b, ir.TensorType) and a.dtype is b.dtype:
        if a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
            return ir.TensorType(a.dtype, None)
        return ir.TensorType(a.dtype, (x if x == y else ir.UNKNOWN for x, y in zip(a.shape, b.shape)))
    for kind in (ir.SequenceType, ir.OptionalType):
        if isinstance(a, kind) and isinstance(b, kind):
            joined: ir.Type = kind(join(a.element, b.element))
            return joined
    if isinstance(a, ir.OptionalType) or isinstance(b, ir.OptionalType):  # ONNX takes a value for an optional of it
        plain = (t.element if isinstance(t, ir.OptionalType) else t for t in (a, b))
        optional: ir.Type = ir.OptionalType(join(*plain))
        return optional
    raise ir.InferenceError(f"a value cannot be {a} and {b}")


def returned(region: ir.Block) -> list[ir.Value]:
    """What a region returns.

    Raises:
        InferenceError: it has no terminator.
    """
    end = region.terminator
    if end is None:
        raise ir.InferenceError("a region has no ir.return")
    return [v for v in end.operands if v is not None]


def infer(
    defn: ir.OpDef, operands: Sequence[ir.Value | None], attributes: Mapping[str, Any], regions: Sequence[ir.Block]
) -> list[ir.Type]:
    """The types of the results of an operator with regions.

    Raises:
        InferenceError: the regions do not fit each other, the operands or the operator.
    """
    name = defn.name.partition("@")[0]
    if name == "onnx.If":
        yes, no = (returned(r) for r in regions)
        if len(yes) != len(no):
            raise ir.InferenceError(f"{defn.name}: its branches return {len(yes)} and {len(no)} values")
        return [join(a.type, b.type) for a, b in zip(yes, no)]
    if name == "onnx.Loop":
        return _loop(defn, operands, regions[0])
    if name == "onnx.Scan":
        return _scan(defn, operands, attributes, regions[0])
    if name == "onnx.SequenceMap":
        return [ir.SequenceType(v.type) for v in returned(regions[0])]
    raise ir.InferenceError(f"{defn.name}: inference through its region is not known")


def _loop(defn: ir.OpDef, operands: Sequence[ir.Value | None], body: ir.Block) -> list[ir.Type]:
    out = returned(body)
    carried = len(operands) - 2
    if len(body.arguments) != len(operands) or len(out) < 1 + carried:
        raise ir.InferenceError(
            f"{defn.name}: its body takes {len(body.arguments)} values and returns {len(out)}, for {carried} carried"
        )
    # A value that starts as an optional may come back plain: the loop then yields it plain, as onnxruntime has it.
    types = [
        v.type if isinstance(a.type, ir.OptionalType) and a.type.element is v.type else join(a.type, v.type)
        for a, v in zip(body.arguments[2:], out[1:])
    ]
    trips: ir.Dim = ir.UNKNOWN
    count = contents(operands[0]) if operands[0] is not None else None
    if count and type(count[0]) in (int, str) and _never_stops(operands[1], body, out[0]):
        trips = count[0]  # type: ignore[assignment]
    return types + [_stack(v.type, 0, trips) for v in out[1 + carried :]]


def _never_stops(condition: ir.Value | None, body: ir.Block, going_on: ir.Value) -> bool:
    def always(value: ir.Value | None) -> bool:
        return value is None or (value.constant is not None and bool(value.constant.all()))

    while going_on.op is not None and going_on.op.name == "onnx.Identity" and going_on.op.operands[0] is not None:
        going_on = going_on.op.operands[0]
    return always(condition) and (going_on is body.arguments[1] or always(going_on))


def _scan(
    defn: ir.OpDef, operands: Sequence[ir.Value | None], attributes: Mapping[str, Any], body: ir.Block
) -> list[ir.Type]:
    scanned: int = attributes["num_scan_inputs"]
    given, out = list(operands), returned(body)
    if defn.since == 8:  # before version 9: lengths first, and everything has a batch dimension
        given = given[1:]
        states = len(given) - scanned
        kept = (v.type for v in given[:states] if v is not None)
        return [*kept, *(_unranked(v.type) for v in out[states:])]
    states = len(given) - scanned
    if len(body.arguments) != len(given) or len(out) < states:
        raise ir.InferenceError(f"{defn.name}: its body takes {len(body.arguments)} values for {len(given)} operands")
    axes = attributes.get("scan_input_axes") or (0,) * scanned
    length: ir.Dim = ir.UNKNOWN
    for v, axis in zip(given[states:], axes):
        shape = v.shape if v is not None else None
        if shape and -len(shape) <= axis < len(shape):
            length = ir.dim_meet(length, shape[axis]) or length
    types = [join(a.type, v.type) for a, v in zip(body.arguments, out[:states])]
    out_axes = attributes.get("scan_output_axes") or (0,) * (len(out) - states)
    return types + [_stack(v.type, axis, length) for v, axis in zip(out[states:], out_axes)]


def _unranked(type_: ir.Type) -> ir.Type:
    return ir.TensorType(type_.dtype, None) if isinstance(type_, ir.TensorType) else type_


def _stack(type_: ir.Type, axis: int, length: ir.Dim) -> ir.Type:
    """The type of many values of one type, stacked along a new axis."""
    if not isinstance(type_, ir.TensorType):
        raise ir.InferenceError(f"a loop cannot collect values of type {type_}")
    if type_.shape is None:
        return type_
    at = axis + len(type_.shape) + 1 if axis < 0 else axis
    return type_.with_shape((*type_.shape[:at], length, *type_.shape[at:]))

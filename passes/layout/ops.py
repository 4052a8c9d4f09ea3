"""The flows of mil's operators: what each asks of the dimensions it works along, and how it is written in another form.

An operator that is not here, or has a form that is not, runs as it was written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from compiler.ir import Op, Value
from passes.layout.flows import (
    Flow,
    Form,
    Strand,
    Written,
    always,
    arrange_constant,
    place,
    same,
    static,
)
from passes.layout.movement import concat, pad, slice_, split, tile
from passes.layout.names import ELEMENTWISE, REDUCTIONS
from passes.layout.products import channels_second, linear, pointwise

Operands = list[Any]


def describe(op: Op) -> Flow | None:
    """The flow of an operator, or None if it runs as it was written."""
    maker = _MAKERS.get(op.name)
    if maker is None or op.regions:
        return None
    tensors = [v for v in op.operands if v is not None and v.constant is None]
    if not tensors or any(static(v) is None for v in (*op.operands, *op.results) if v is not None):
        return None
    return maker(op)


def operands(op: Op) -> list[Value | None]:
    return [v if v is not None and v.constant is None else None for v in op.operands]


def _elementwise(op: Op) -> Flow | None:
    result = op.results[0]
    rank = len(static(result) or ())
    want = static(result) or ()
    carrier = Strand(result, tuple(range(rank)), -1)
    strands = [carrier]
    axes_of: dict[int, tuple[int | None, ...]] = {}
    for i, v in enumerate(op.operands):
        if v is None:
            continue
        shape = static(v) or ()
        lead = rank - len(shape)
        axes = tuple(lead + d if n != 1 or want[lead + d] == 1 else None for d, n in enumerate(shape))
        axes_of[i] = axes
        if v.constant is None:
            strands.append(Strand(v, axes, i))

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        out: Operands = list(operands)
        for i, v in enumerate(op.operands):
            array = v.constant if v is not None else None
            if array is not None:
                out[i] = v if array.ndim == 0 else arrange_constant(flow, form, array, axes_of[i])
        return out, dict(op.attributes)

    return Flow(op, carrier, strands, {}, always, emit, loose=True)


def _along(axis_name: str) -> Callable[[Op], Flow | None]:
    """Operators that keep the shape and work along one axis."""

    def make(op: Op) -> Flow | None:
        x = op.operands[0]
        assert x is not None
        rank = len(static(x) or ())
        axis = op.attributes[axis_name] % rank
        carrier = same(x, 0)

        def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
            return list(operands), {**op.attributes, axis_name: place(form, axis)}

        if (static(x) or ())[axis] == 1:
            return None
        return Flow(
            op, carrier, [carrier, same(op.results[0], -1)], {axis: False}, always, emit, rows=frozenset({axis})
        )

    return make


def _reduced_groups(form: Form, axes: set[int]) -> list[int] | None:
    """The dimensions that are reduced; None if one holds what is reduced and what is not."""
    found = []
    for i, group in enumerate(form):
        inside = [s[0] in axes for s in group]
        if any(inside):
            if not all(inside):
                return None
            found.append(i)
    return found


def _reduce(op: Op) -> Flow | None:
    x = op.operands[0]
    assert x is not None
    shape = static(x) or ()
    given = op.attributes.get("axes")
    axes = {a % len(shape) for a in given} if given is not None else set(range(len(shape)))
    if all(shape[a] == 1 for a in axes):
        return None
    carrier = same(x, 0)
    kept = [None if a in axes else a for a in range(len(shape)) if op.attributes["keep_dims"] or a not in axes]
    result = Strand(op.results[0], tuple(kept), -1)

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        return list(operands), {**op.attributes, "axes": tuple(_reduced_groups(form, axes) or ()), "keep_dims": True}

    def single(form: Form) -> tuple[list[int], dict[str, Any]]:
        return _reduced_groups(form, axes) or [], {"keep_dims": False}

    return Flow(
        op,
        carrier,
        [carrier, result],
        {},
        lambda f: bool(_reduced_groups(f, axes)),
        emit,
        single=single,
        rows=frozenset(axes),
    )


def _arg(op: Op) -> Flow | None:
    x = op.operands[0]
    assert x is not None
    shape = static(x) or ()
    axis = op.attributes["axis"] % len(shape)
    if shape[axis] == 1:
        return None
    carrier = same(x, 0)
    kept = [None if a == axis else a for a in range(len(shape)) if op.attributes["keep_dims"] or a != axis]

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        return list(operands), {**op.attributes, "axis": place(form, axis), "keep_dims": True}

    def single(form: Form) -> tuple[list[int], dict[str, Any]]:
        return [place(form, axis)], {"keep_dims": False}

    strands = [carrier, Strand(op.results[0], tuple(kept), -1)]
    return Flow(op, carrier, strands, {axis: False}, always, emit, single=single, rows=frozenset({axis}))


def _layer_norm(op: Op) -> Flow | None:
    x = op.operands[0]
    assert x is not None
    shape = static(x) or ()
    given = op.attributes.get("axes")
    axes = {a % len(shape) for a in given} if given is not None else set(range(len(shape)))
    if any(v is not None and v.constant is None for v in op.operands[1:]) or any(shape[a] == 1 for a in axes):
        return None
    carrier = same(x, 0)

    def fits(form: Form) -> bool:
        return bool(_reduced_groups(form, axes))

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        groups = _reduced_groups(form, axes) or []
        out: Operands = [operands[0]]
        for v in op.operands[1:]:
            array = v.constant if v is not None else None
            inner = tuple(form[i] for i in groups)
            out.append(None if array is None else arrange_constant(flow, inner, array, sorted(axes)))
        return out, {**op.attributes, "axes": tuple(groups)}

    return Flow(op, carrier, [carrier, same(op.results[0], -1)], {}, fits, emit, rows=frozenset(axes))


_MAKERS: Mapping[str, Callable[[Op], Flow | None]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduce),
    "mil.reduce_argmax": _arg,
    "mil.reduce_argmin": _arg,
    "mil.softmax": _along("axis"),
    "mil.cumsum": _along("axis"),
    "mil.layer_norm": _layer_norm,
    "mil.concat": concat,
    "mil.split": split,
    "mil.slice_by_index": slice_,
    "mil.pad": pad,
    "mil.tile": tile,
    "mil.batch_norm": channels_second,
    "mil.prelu": channels_second,
    "mil.conv": pointwise,
    "mil.linear": linear,
    "mil.matmul": linear,
}

"""The flows of operators that join, cut, fill and repeat."""

from __future__ import annotations

from typing import Any

import numpy as np

from compiler.ir import Op, Value
from passes.layout.flows import (
    WHOLE,
    Flow,
    Form,
    Strand,
    Written,
    always,
    arrange_constant,
    behind,
    place,
    same,
    static,
)


def concat(op: Op) -> Flow | None:
    result = op.results[0]
    rank = len(static(result) or ())
    axis = op.attributes["axis"] % rank
    if op.attributes["interleave"] or (static(result) or ())[axis] == 1:  # of one part; a form may not have the axis
        return None
    carrier = same(result, -1)
    strands = [carrier, *(same(v, i) for i, v in enumerate(op.operands) if v is not None and v.constant is None)]

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        out: list[Any] = [
            x if x is not None else arrange_constant(flow, form, _array(v), range(rank))
            for x, v in zip(operands, op.operands, strict=True)
        ]
        return out, {**op.attributes, "axis": place(form, axis)}

    alone = any(v is not None and v.constant is not None for v in op.operands)
    return Flow(op, carrier, strands, {axis: not alone}, always, emit)


def _array(value: Value | None) -> np.ndarray[Any, Any]:
    assert value is not None
    assert value.constant is not None
    return value.constant


def split(op: Op) -> Flow | None:
    x = op.operands[0]
    assert x is not None
    shape = static(x) or ()
    axis = op.attributes["axis"] % len(shape)
    carrier = same(x, 0)
    sizes = [(static(r) or ())[axis] for r in op.results]
    if shape[axis] == 1:
        return None

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        at, minor = place(form, axis), behind(flow, form, axis)
        if len(set(sizes)) == 1:
            return list(operands), {"axis": at, "num_splits": len(sizes)}
        wide = tuple(n * minor for n in sizes)
        return list(operands), {"axis": at, "split_sizes": wide}

    strands = [carrier, *(same(r, -1 - i) for i, r in enumerate(op.results))]
    return Flow(op, carrier, strands, {axis: True}, always, emit)


def slice_(op: Op) -> Flow | None:
    x = op.operands[0]
    assert x is not None
    shape = static(x) or ()
    bounds = _bounds(op, shape)
    if bounds is None:
        return None
    cut = {d for d, (first, last, step) in enumerate(bounds) if (first, last, step) != (0, shape[d], 1)}
    squeezed = {d for d, s in enumerate(op.attributes.get("squeeze_mask") or ()) if s}
    if not cut or any(shape[d] == 1 for d in cut):
        return None
    whole = {d: bounds[d][2] == 1 for d in cut}
    carrier = same(x, 0)
    kept = tuple(d for d in range(len(shape)) if d not in squeezed)

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        begin, end, stride = [], [], []
        for group in form:
            n = 1
            for s in group:
                n *= flow.sizes[s] if s[1] != WHOLE else 1
            at = group[0][0] if group and group[0][1] == WHOLE else None
            first, last, step = bounds[at] if at is not None else (0, 1, 1)
            begin.append(first * n)
            end.append(last * n)
            stride.append(step)
        attributes: dict[str, Any] = {"stride": tuple(stride)} if any(s != 1 for s in stride) else {}
        return [operands[0], np.array(begin, np.int32), np.array(end, np.int32)], attributes

    def single(form: Form) -> tuple[list[int], dict[str, Any]]:
        at = [i for i, g in enumerate(form) if len(g) == 1 and g[0][0] in squeezed]
        return at, {"squeeze_mask": tuple(i in at for i in range(len(form)))}

    return Flow(op, carrier, [carrier, Strand(op.results[0], kept, -1)], whole, always, emit, single=single)


def _bounds(op: Op, shape: tuple[int, ...]) -> list[tuple[int, int, int]] | None:
    """First, last and step of a slice for each dimension; None where they are not known or run backwards."""
    begin, end = op.operands[1], op.operands[2]
    if begin is None or end is None or begin.constant is None or end.constant is None:
        return None
    rank = len(shape)
    steps = op.attributes.get("stride") or (1,) * rank
    masks = [op.attributes.get(n) or (False,) * rank for n in ("begin_mask", "end_mask", "squeeze_mask")]
    out = []
    for d, n in enumerate(shape):
        if steps[d] < 1:
            return None
        first = 0 if masks[0][d] else int(begin.constant[d])
        last = n if masks[1][d] else int(end.constant[d])
        first += n if first < 0 else 0
        last += n if last < 0 else 0
        if masks[2][d]:
            last = first + 1
        out.append((max(first, 0), min(last, n), steps[d]))
    return out


def pad(op: Op) -> Flow | None:
    x, pads = op.operands[0], op.operands[1]
    assert x is not None
    shape = static(x) or ()
    if pads is None or pads.constant is None:
        return None
    given = [int(p) for p in pads.constant.reshape(-1)]
    given = [0] * (2 * len(shape) - len(given)) + given  # those of the last dimensions may stand alone
    cut = [d for d in range(len(shape)) if given[2 * d] or given[2 * d + 1]]
    if not cut or any(shape[d] == 1 for d in cut):
        return None
    carrier = same(x, 0)

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        out = [0] * (2 * len(form))
        for d in cut:
            at = place(form, d)
            out[2 * at : 2 * at + 2] = given[2 * d : 2 * d + 2]
        return [operands[0], np.array(out, np.int32)], dict(op.attributes)

    def fits(form: Form) -> bool:
        # Reflection and replication are to be had along the last two axes only.
        return op.attributes["mode"] == "constant" or all(place(form, d) >= len(form) - 2 for d in cut)

    return Flow(op, carrier, [carrier, same(op.results[0], -1)], dict.fromkeys(cut, False), fits, emit)


def tile(op: Op) -> Flow | None:
    x, reps = op.operands[0], op.operands[1]
    assert x is not None
    shape = static(x) or ()
    if reps is None or reps.constant is None:
        return None
    times = [int(r) for r in reps.constant.reshape(-1)]
    if any(r != 1 and n != 1 for r, n in zip(times, shape, strict=True)):
        return None
    carrier = same(op.results[0], -1)
    source = Strand(x, tuple(None if r != 1 else d for d, r in enumerate(times)), 0)
    new = {d for d, r in enumerate(times) if r != 1}

    def fits(form: Form) -> bool:
        # What is repeated must stand before what is not.
        return all([s[0] in new for s in g] == sorted((s[0] in new for s in g), reverse=True) for g in form)

    def emit(flow: Flow, form: Form, operands: list[Value | None]) -> Written:
        out = []
        for group in form:
            n = 1
            for s in group:
                n *= flow.sizes[s] if s[0] in new else 1
            out.append(n)
        return [operands[0], np.array(out, np.int32)], dict(op.attributes)

    return Flow(op, carrier, [carrier, source], {}, fits, emit)

"""Pools: kernels of their own, computed where a convolution reads them, or behind one that gives them their windows."""

from __future__ import annotations

import math
from collections.abc import Sequence

from codegen.metal import index
from codegen.metal.access import Access, register_type, static
from codegen.metal.body import Body, between
from codegen.metal.index import Index
from codegen.metal.launch import Launch, independent, operands
from compiler import ir


def pool(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """The greatest or mean value of a window; a mean counts what lies inside, or inside the padded tensor."""
    at = index.unravel(index.variable("i", math.prod(static(op.result))), static(op.result))
    body.finish(op.result, at, element(body, op, at), roots, outs)
    return independent(math.prod(static(op.result)))


def element(body: Body, op: ir.Op, at: Sequence[Index]) -> str:
    """An element of a pool, from a loop over its window."""
    (x,) = operands(op)
    a, sizes = op.attributes, static(x)[2:]
    mean = a["kind"] == "mean"
    window = body.fresh("window")
    body.line(f"float {window} = {nothing(op)};")
    if mean:
        body.line(f"int {window}_count = 0;")
    places, inside, padded = [], [], []
    half = len(a["pads"]) // 2
    for d, size in enumerate(sizes):
        k = body.loop(f"{window}_k{d}", a["kernel"][d], always=True)
        place = at[2 + d] * a["strides"][d] + k * a["dilations"][d] - a["pads"][d]
        low, high = place.bounds
        name = f"{window}_p{d}"
        body.line(f"const int {name} = {place.text};")
        inside += [f"{name} >= 0"] if low < 0 else []
        inside += [f"{name} < {size}"] if high >= size else []
        padded += [f"{name} < {size + a['pads'][half + d]}"] if high >= size + a["pads"][half + d] else []
        places.append(index.ranged(name, 0, size - 1))
    if mean and not a["inside"]:
        body.line(f"{window}_count += {' && '.join(padded) or '1'};")
    if inside:
        body.line(f"if (!({' && '.join(inside)})) {{ continue; }}")
    body.line(takes(op, window, body.element(x, [at[0], at[1], *places])))
    if mean and a["inside"]:
        body.line(f"{window}_count += 1;")
    for _ in places:
        body.close()
    if mean:
        return f"({window} / float({window}_count))"
    return f"int({window})" if register_type(x.type) == "int" else window


def nothing(op: ir.Op) -> str:
    """What a window without elements comes to."""
    return "0.0f" if op.attributes["kind"] == "mean" else "-INFINITY"


def takes(op: ir.Op, window: str, value: str) -> str:
    """The statement that adds an element to a window."""
    if op.attributes["kind"] == "mean":
        return f"{window} += {value};"
    return f"{window} = max({window}, {value if register_type(op.result.type) == 'float' else f'float({value})'});"


def behind(anchor: ir.Op, roots: Sequence[ir.Value]) -> ir.Op | None:
    """The pool that a kernel computes from its anchor's result."""
    ops = between(anchor.result, roots[0])
    return next((op for op in ops if op.name == "metal.pool"), None)

"""Kernels that look between elements, by resizing or at places that another tensor gives, or make a texture."""

from __future__ import annotations

import math
from collections.abc import Sequence

from codegen.metal import index
from codegen.metal.access import Access, static
from codegen.metal.body import Body
from codegen.metal.index import Index
from codegen.metal.launch import Launch, independent, operands
from codegen.metal.spelling import literal
from compiler import ir
from compiler.errors import UnsupportedError

#: How a place is rounded to an element, by onnx.Resize's nearest_mode. What is no further than 1e-6 from the middle
#: between two elements is the middle, as in onnxruntime.
_ROUNDED = {
    "floor": "floor({0})",
    "ceil": "ceil({0})",
    "round_prefer_floor": "(abs({0} - floor({0}) - 0.5f) <= 1e-6f ? floor({0}) : rint({0}))",
    "round_prefer_ceil": "(abs({0} - floor({0}) - 0.5f) <= 1e-6f ? floor({0}) + 1.0f : rint({0}))",
}

#: The parameter of onnx.GridSample's cubic convolution (operator documentation).
_GRID_CUBIC = -0.75


def resize(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Nearest, linear or cubic interpolation along the dimensions whose size changes."""
    (x,) = operands(op)
    a = op.attributes
    at = list(index.unravel(index.variable("i", math.prod(static(op.result))), static(op.result)))
    if a["mode"] not in ("nearest", "linear", "cubic"):
        raise UnsupportedError(f"there is no Metal kernel for a resize by '{a['mode']}'", "--target cpu")
    changed = [d for d, (n, m) in enumerate(zip(static(x), static(op.result), strict=True)) if n != m]
    for d in changed:
        place = _source(a["coordinates"], at[d], a["scales"][d], static(x)[d], static(op.result)[d])
        body.line(f"const float s{d} = {place};")
    if a["mode"] == "cubic":
        _cubic(body, x, at, changed, op)
    else:
        _corners(body, x, at, changed, op)
    body.finish(op.result, at, "value", roots, outs)
    return independent(math.prod(static(op.result)))


def picture(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Planes from 0 to 255 as a texture: a thread writes a pixel, red first; one plane is grey. All is opaque."""
    _, planes, height, width = static(op.result)
    row, column = index.unravel(index.variable("i", height * width), (height, width))
    row, column = body.named("row", row), body.named("column", column)
    (x,) = operands(op)
    values = [body.element(x, [Index(), index.of(p), row, column]) for p in range(planes)]
    colors = ", ".join(values[:: -1 if op.attributes["pixels"] == "BGR" else 1])
    body.line(f"const float3 pixel = float3({colors}) / 255.0f;")
    body.line(f"{outs[0].name}.write(float4(pixel, 1.0f), uint2({column.text}, {row.text}));")
    return independent(height * width)


def _corners(body: Body, x: ir.Value, at: Sequence[Index], changed: Sequence[int], op: ir.Op) -> None:
    """The value as the weighted sum of the corners around it, of which nearest has one."""
    corners: list[tuple[str, list[Index]]] = [("", [])]
    for d, n in enumerate(static(x)):
        if d not in changed:
            corners = [(w, [*i, at[d]]) for w, i in corners]
            continue
        if op.attributes["mode"] == "nearest":
            rounded = _ROUNDED[op.attributes["rounding"]].format(f"s{d}")
            body.line(f"const int n{d} = clamp(int({rounded}), 0, {n - 1});")
            corners = [(w, [*i, index.ranged(f"n{d}", 0, n - 1)]) for w, i in corners]
            continue
        body.line(f"const float c{d} = clamp(s{d}, 0.0f, {literal(float(n - 1))});")
        body.line(f"const int l{d} = int(floor(c{d})), h{d} = min(l{d} + 1, {n - 1});")
        body.line(f"const float t{d} = c{d} - float(l{d});")
        low, high = index.ranged(f"l{d}", 0, n - 1), index.ranged(f"h{d}", 0, n - 1)
        corners = [
            (f"{w}{factor} * ", [*i, at_])
            for w, i in corners
            for factor, at_ in ((f"(1.0f - t{d})", low), (f"t{d}", high))
        ]
    body.line(f"const float value = {' + '.join(w + body.element(x, i) for w, i in corners)};")


def _cubic(body: Body, x: ir.Value, at: Sequence[Index], changed: Sequence[int], op: ir.Op) -> None:
    """The sum over four samples along each dimension that changes; those outside repeat the edge, or do not count."""
    exclude = op.attributes["exclude"]
    body.line("float sum = 0.0f;")
    if exclude:
        body.line("float total = 0.0f;")
    where, factors = list(at), []
    for d in changed:
        n = static(x)[d]
        body.open(f"for (int k{d} = -1; k{d} <= 2; ++k{d})")
        body.line(f"const int p{d} = int(floor(s{d})) + k{d};")
        if exclude:
            body.line(f"if (p{d} < 0 || p{d} >= {n}) {{ continue; }}")
        body.line(f"const float w{d} = cubic_weight(s{d} - float(p{d}), {literal(op.attributes['cubic'])});")
        factors.append(f"w{d}")
        where[d] = index.ranged(f"p{d}" if exclude else f"clamp(p{d}, 0, {n - 1})", 0, n - 1)
    body.line(f"sum += {' * '.join(factors)} * {body.element(x, where)};")
    if exclude:
        body.line(f"total += {' * '.join(factors)};")
    for _ in changed:
        body.close()
    body.line(f"const float value = sum{' / total' if exclude else ''};")


def _source(how: str, i: Index, scale: float, size: int, result: int) -> str:
    """Where in the input a coordinate of the result lies (ONNX's operator documentation)."""
    x = f"float({i.text})"
    if how == "asymmetric":
        return f"{x} / {literal(scale)}"
    if how == "align_corners":
        return f"{x} * {literal((size - 1) / (result - 1))}" if result > 1 else "0.0f"
    if how == "half_pixel" or (how == "pytorch_half_pixel" and result > 1):
        return f"({x} + 0.5f) / {literal(scale)} - 0.5f"
    if how == "pytorch_half_pixel":
        return "0.0f"
    raise UnsupportedError(f"there is no Metal kernel for a resize with '{how}' coordinates", "--target cpu")


def grid_sample(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """The picture at places of a grid, -1 … 1 from edge to edge (onnx.GridSample)."""
    x, grid = operands(op)
    a = op.attributes
    n, c, h, w = index.unravel(index.variable("i", math.prod(static(op.result))), static(op.result))
    edges = []
    for name, k, size in (("x", 0, static(x)[3]), ("y", 1, static(x)[2])):
        g = body.element(grid, [n, h, w, index.of(k)])
        inner = f"({g} + 1.0f) * 0.5f * {literal(size - 1.0)}" if a["align"] else (
            f"(({g} + 1.0f) * {literal(float(size))} - 1.0f) * 0.5f")  # fmt: skip
        low, high = (0.0, size - 1.0) if a["align"] else (-0.5, size - 0.5)
        edges.append((literal(low), literal(high), size))
        if a["mode"] == "nearest":
            inner = f"rint({inner})"
        body.line(f"const float g{name} = {inner};")
    taps = {"nearest": (0, 0), "linear": (0, 1), "cubic": (-1, 2)}[a["mode"]]
    body.line("float value = 0.0f;")
    places, factors = [], []
    for name, (low_, high_, size) in zip("yx", reversed(edges), strict=True):
        body.open(f"for (int k{name} = {taps[0]}; k{name} <= {taps[1]}; ++k{name})")
        body.line(f"const int t{name} = int(floor(g{name})) + k{name};")
        if a["padding"] == "zeros":
            body.line(f"if (t{name} < 0 || t{name} >= {size}) {{ continue; }}")
            place = f"t{name}"
        elif a["padding"] == "border":
            place = f"clamp(t{name}, 0, {size - 1})"
        else:
            place = f"clamp(int(reflected(float(t{name}), {low_}, {high_})), 0, {size - 1})"
        places.append(index.ranged(place, 0, size - 1))
        if a["mode"] == "linear":
            body.line(f"const float w{name} = 1.0f - abs(g{name} - float(t{name}));")
        elif a["mode"] == "cubic":
            body.line(f"const float w{name} = cubic_weight(g{name} - float(t{name}), {literal(_GRID_CUBIC)});")
        factors += [f"w{name} * "] if a["mode"] != "nearest" else []
    body.line(f"value += {''.join(factors)}{body.element(x, [n, c, *places])};")
    body.close()
    body.close()
    body.finish(op.result, [n, c, h, w], "value", roots, outs)
    return independent(math.prod(static(op.result)))

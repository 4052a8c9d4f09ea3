"""Kernels that look through a window: convolution, its transpose, pooling, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from codegen.metal import index
from codegen.metal.body import Access, Body, literal, static
from codegen.metal.index import Index
from codegen.metal.launch import Launch, Packing, Packings, independent, operands
from compiler import ir
from compiler.errors import UnsupportedError

#: Columns that a thread of a convolution computes side by side, if there are enough threads left with that.
COLUMNS = 4
ENOUGH_THREADS = 1024


def _window(body: Body, op: ir.Op, at: Sequence[Index], d: int, kernel: int, size: int) -> tuple[Index, Index, bool]:
    """Starts the loop over a dimension of a window: the tap, where it looks, and whether that may lie outside."""
    a = op.attributes

    def place(k: Index) -> Index:
        return at[2 + d] * a["strides"][d] + k * a["dilations"][d] - a["pads"][d]

    low, high = place(index.variable(f"k{d}", kernel)).bounds
    outside = low < 0 or high >= size
    k = body.loop(f"k{d}", kernel, always=outside)
    return k, place(k), outside


def _width(op: ir.Op) -> int:
    """How many output channels a thread of a convolution computes: those of one load of packed weights."""
    w = op.operands[1]
    assert w is not None
    per_group = static(w)[0] // op.attributes["group"]
    return next(v for v in (4, 2, 1) if per_group % v == 0)


def pack_conv(op: ir.Op) -> Packings:
    """Weights [O, I, …] as vectors of neighbouring output channels, [O/v, I, …] of v."""
    w, width = op.operands[1], _width(op)
    if w is None or width == 1:
        return {}
    o, *rest = static(w)

    def packed(array: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.ascontiguousarray(np.moveaxis(array.reshape(o // width, width, *rest), 1, -1))

    return {w: Packing(f"channels{width}", width, (o // width, *rest), packed)}


def conv(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Direct convolution. A thread computes some output channels of some neighbouring columns, so that an element of
    the input serves for all channels and a vector of weights for all columns."""
    x, w, *bias = operands(op)
    a, result = op.attributes, static(op.result)
    n = len(result) - 2
    width = _width(op) if body.accesses.get(w) is not None and body.accesses[w].width > 1 else 1
    rest = math.prod(result) // width
    columns = COLUMNS if width > 1 and result[-1] % COLUMNS == 0 and rest // COLUMNS >= ENOUGH_THREADS else 1
    blocks = (result[0], result[1] // width, *result[2:-1], result[-1] // columns)
    block = index.unravel(index.variable("i", math.prod(blocks)), blocks)
    channels, per_group = static(w)[1], static(w)[0] // a["group"] // width
    kind = f"float{width}" if width > 1 else "float"

    def output(o: Index, p: Index) -> list[Index]:
        return [block[0], block[1] * width + o, *block[2:-1], block[-1] * columns + p]

    many = columns > 1
    acc = [f"acc{p}" if many else "acc" for p in range(columns)]
    first = f"{kind}(0.0f)" if width > 1 else "0.0f"
    if bias:
        parts = [body.element(bias[0], [output(index.of(o), Index())[1]]) for o in range(width)]
        first = f"{kind}({', '.join(parts)})" if width > 1 else parts[0]
    for name in acc:
        body.line(f"{kind} {name} = {first};")
    taps: list[Index] = []
    places: list[list[Index]] = [[] for _ in acc]
    checks: list[list[str]] = [[] for _ in acc]
    depth = 0
    for d in range(n):
        size = static(x)[2 + d]
        if d < n - 1 or not many:
            k, place, outside = _window(body, op, output(Index(), Index()), d, static(w)[2 + d], size)
            at = _position(body, f"p{d}", place, size, outside)
            if outside:
                body.line(f"if (p{d} < 0 || p{d} >= {size}) {{ continue; }}")
            for listed in places:
                listed.append(at)
        else:
            k = body.loop(f"k{d}", static(w)[2 + d])
            for p in range(columns):
                place = output(Index(), index.of(p))[2 + d] * a["strides"][d] + k * a["dilations"][d] - a["pads"][d]
                low, high = place.bounds
                at = _position(body, f"p{d}_{p}", place, size, low < 0 or high >= size)
                checks[p] += [f"p{d}_{p} >= 0"] if low < 0 else []
                checks[p] += [f"p{d}_{p} < {size}"] if high >= size else []
                places[p].append(at.clamped(0, size - 1) if checks[p] else at)
        taps.append(k)
        depth += 1
    c = body.loop("c", channels)
    group = (block[1] // per_group) * channels if a["group"] > 1 else Index()
    if width > 1:
        access = body.accesses[w]
        body.line(f"const {kind} weights = {kind}({access.name}[{access.at([block[1], c, *taps]).text}]);")
        weights = "weights"
    else:
        weights = body.element(w, [block[1], c, *taps])
    for p, name in enumerate(acc):
        value = body.element(x, [block[0], group + c, *places[p]])
        if checks[p]:
            value = f"(({' && '.join(checks[p])}) ? {value} : 0.0f)"
        body.line(f"{name} += {value} * {weights};")
    for _ in range(depth + 1):
        body.close()
    for p, name in enumerate(acc):
        for o in range(width):
            value = f"{name}[{o}]" if width > 1 else name
            body.finish(op.result, output(index.of(o), index.of(p)), value, roots[0], outs[0])
    return independent(math.prod(blocks))


def _position(body: Body, name: str, place: Index, size: int, outside: bool) -> Index:
    """A place along a dimension: in a variable where it has to be compared, as it is where it lies inside."""
    if not outside:
        return place
    body.line(f"const int {name} = {place.text};")
    low, high = place.bounds
    return index.ranged(name, min(low, 0), max(high, size - 1))


def conv_transpose(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Transposed convolution from the result's side: the taps whose input lies on the grid of strides."""
    x, w, *bias = operands(op)
    a, n = op.attributes, len(static(x)) - 2
    at = index.unravel(index.variable("i", math.prod(static(op.result))), static(op.result))
    per_group, channels = static(w)[1], static(w)[0] // a["group"]
    body.line(f"float acc = {body.element(bias[0], [at[1]]) if bias else '0.0f'};")
    taps, places = [], []
    for d in range(n):
        size, stride = static(x)[2 + d], a["strides"][d]
        k = body.loop(f"k{d}", static(w)[2 + d], always=True)
        reach = at[2 + d] + a["pads"][d] - k * a["dilations"][d]
        body.line(f"const int r{d} = {reach.text};")
        aligned = f" || r{d} % {stride} != 0" if stride > 1 else ""
        body.line(f"if (r{d} < 0 || r{d} >= {size * stride}{aligned}) {{ continue; }}")
        body.line(f"const int p{d} = r{d}{f' / {stride}' if stride > 1 else ''};")
        taps.append(k)
        places.append(index.ranged(f"p{d}", 0, size - 1))
    c = body.loop("c", channels)
    group = (at[1] // per_group) * channels if a["group"] > 1 else Index()
    inner = at[1] % per_group
    value = body.element(x, [at[0], group + c, *places])
    body.line(f"acc += {value} * {body.element(w, [group + c, inner, *taps])};")
    for _ in range(n + 1):
        body.close()
    body.finish(op.result, at, "acc", roots[0], outs[0])
    return independent(math.prod(static(op.result)))


def pool(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """The greatest or mean value of a window; a mean counts what lies inside, or inside the padded tensor."""
    (x,) = operands(op)
    a, sizes = op.attributes, static(x)[2:]
    at = index.unravel(index.variable("i", math.prod(static(op.result))), static(op.result))
    mean = a["kind"] == "mean"
    body.line(f"float acc = {'0.0f' if mean else '-INFINITY'};")
    if mean:
        body.line("int count = 0;")
    places, inside, padded = [], [], []
    half = len(a["pads"]) // 2
    for d, size in enumerate(sizes):
        k = body.loop(f"k{d}", a["kernel"][d], always=True)
        place = at[2 + d] * a["strides"][d] + k * a["dilations"][d] - a["pads"][d]
        low, high = place.bounds
        body.line(f"const int p{d} = {place.text};")
        inside += [f"p{d} >= 0"] if low < 0 else []
        inside += [f"p{d} < {size}"] if high >= size else []
        padded += [f"p{d} < {size + a['pads'][half + d]}"] if high >= size + a["pads"][half + d] else []
        places.append(index.ranged(f"p{d}", 0, size - 1))
    if mean and not a["inside"]:
        body.line(f"count += {' && '.join(padded) or '1'};")
    if inside:
        body.line(f"if (!({' && '.join(inside)})) {{ continue; }}")
    value = body.element(x, [at[0], at[1], *places])
    body.line(f"acc += {value};" if mean else f"acc = max(acc, {value});")
    if mean and a["inside"]:
        body.line("count += 1;")
    for _ in places:
        body.close()
    body.finish(op.result, at, "acc / float(count)" if mean else "acc", roots[0], outs[0])
    return independent(math.prod(static(op.result)))


def resize(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Nearest or linear interpolation along the dimensions whose size changes."""
    (x,) = operands(op)
    a = op.attributes
    at = list(index.unravel(index.variable("i", math.prod(static(op.result))), static(op.result)))
    if a["mode"] not in ("nearest", "linear"):
        raise UnsupportedError(f"there is no Metal kernel for a resize by '{a['mode']}'", "--target cpu")
    corners: list[tuple[str, list[Index]]] = [("", [])]
    for d, (n, m) in enumerate(zip(static(x), static(op.result), strict=True)):
        if n == m:
            corners = [(w, [*i, at[d]]) for w, i in corners]
            continue
        body.line(f"const float s{d} = {_source(a['coordinates'], at[d], a['scales'][d], n, m)};")
        if a["mode"] == "nearest":
            rounded = {
                "floor": f"floor(s{d})",
                "ceil": f"ceil(s{d})",
                "round_prefer_floor": f"ceil(s{d} - 0.5f)",
                "round_prefer_ceil": f"floor(s{d} + 0.5f)",
            }[a["rounding"]]
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
    body.finish(op.result, at, "value", roots[0], outs[0])
    return independent(math.prod(static(op.result)))


def _source(how: str, i: Index, scale: float, size: int, result: int) -> str:
    """Where in the input a coordinate of the result lies (ONNX's operator documentation)."""
    x = f"float({i.text})"
    if how == "asymmetric":
        return f"{x} / {literal(scale)}"
    if how == "align_corners":
        return f"{x} * {literal((size - 1) / (result - 1))}" if result > 1 else "0.0f"
    if how == "half_pixel" or (how == "pytorch_half_pixel" and result > 1):
        return f"({x} + 0.5f) / {literal(scale)} - 0.5f"
    raise UnsupportedError(f"there is no Metal kernel for a resize with '{how}' coordinates", "--target cpu")

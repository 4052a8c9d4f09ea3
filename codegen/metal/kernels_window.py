"""Kernels that look through a window: convolution, also with a pool behind it, and its transpose."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from codegen.metal import index, kernels_pool, kernels_simdgroup
from codegen.metal.access import Access, quantized, static
from codegen.metal.body import Body
from codegen.metal.index import Index
from codegen.metal.launch import Launch, Packing, Packings, independent, operands
from codegen.metal.spelling import literal, zero
from compiler import ir

#: Columns that a thread of a convolution computes side by side, if there are enough threads left with that.
COLUMNS = 4
ENOUGH_THREADS = 1024


#: What a thread of a convolution calls its sample, its channels and its place, by how many dimensions that has.
_NAMES = {
    1: ("sample", "channel", "column"),
    2: ("sample", "channel", "row", "column"),
    3: ("sample", "channel", "depth", "row", "column"),
}


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


def _by_tiles(op: ir.Op) -> bool:
    """Whether a convolution in a kernel goes by tiles, into which no pool behind it fits."""
    end = op.block.terminator if op.block is not None else None
    roots = [v for v in end.operands if v is not None] if end is not None else []
    return kernels_simdgroup.conv_fits(op) and kernels_pool.behind(op, roots) is None


def pack_conv(op: ir.Op) -> Packings:
    """Weights [O, I, …] as vectors of neighbouring output channels, [O/v, I, …] of v."""
    w, width = op.operands[1], _width(op)
    if w is None or width == 1 or _by_tiles(op):
        return {}
    constant, scales = quantized(w), []
    if constant is not None:
        assert w.op is not None
        if (static(constant[1]) and w.op.attributes["axis"] != 0) or w.op.attributes["block"]:
            return {}
        w, *scales = constant
    o, *rest = static(w)

    def packed(array: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        return np.ascontiguousarray(np.moveaxis(array.reshape(o // width, width, *rest), 1, -1))

    each = Packing(f"channels{width}", width, (o // width,), None)
    bias = op.operands[2] if len(op.operands) > 2 else None
    return {
        w: Packing(f"channels{width}", width, (o // width, *rest), packed),
        **{v: each for v in (*scales, bias) if v is not None and static(v)},
    }


def conv(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Direct convolution. A thread computes some output channels of some neighbouring columns, so that an element of
    the input serves for all channels and a vector of weights for all columns. Where a pool follows, these are the
    columns of a window, whose rows come one after another."""
    if _by_tiles(op):
        return kernels_simdgroup.conv(body, op, roots, outs)
    x, w, *bias = operands(op)
    pool = kernels_pool.behind(op, roots)
    a, result = op.attributes, static(op.result if pool is None else pool.result)
    n = len(result) - 2
    constant = quantized(w)
    stored = body.accesses.get(constant[0] if constant else w)
    width = stored.width if stored is not None else 1
    rest = math.prod(result) // width
    columns = COLUMNS if width > 1 and result[-1] % COLUMNS == 0 and rest // COLUMNS >= ENOUGH_THREADS else 1
    step, shift = columns, 0
    if pool is not None:
        columns, step = pool.attributes["kernel"][-1], pool.attributes["strides"][-1]
        shift = pool.attributes["pads"][n - 1]
    blocks = (result[0], result[1] // width, *result[2:-1], result[-1] // (columns if pool is None else 1))
    block = index.unravel(index.variable("i", math.prod(blocks)), blocks)
    block = tuple(body.named(name, at) for name, at in zip(_NAMES[n], block, strict=True))
    channels, per_group = static(w)[1], static(w)[0] // a["group"] // width
    kind = f"float{width}" if width > 1 else "float"

    if pool is not None:
        body.line(f"{kind} pooled = {kind}({kernels_pool.nothing(pool)});")
    rows = block[2:-1] if pool is None else _rows(body, pool, block[2:-1], static(op.result)[2:-1])

    def output(o: Index, p: Index) -> list[Index]:
        column = block[-1] * step + p * (1 if pool is None else pool.attributes["dilations"][-1]) - shift
        return [block[0], block[1] * width + o, *rows, column]

    many = columns > 1
    name = f"{kind} acc[{columns}]" if many else f"{kind} acc"
    start = _bias(body, bias[0], block[1], width) if bias else zero(width)
    if bias and many:
        body.line(f"const {kind} bias = {start};")
        start = ", ".join(["bias"] * columns)
    body.line(f"{name} = {f'{{{start}}}' if many and bias else '{}' if many else start};")
    if width > 1:
        body.hoist(w, [block[1]])
    taps: list[Index] = []
    places: list[Index] = []
    for d in range(n):
        size = static(x)[2 + d]
        if d == n - 1 and many:
            taps.append(body.loop(f"k{d}", static(w)[2 + d]))
            continue
        k, place, outside = _window(body, op, output(Index(), Index()), d, static(w)[2 + d], size)
        at = _position(body, f"p{d}", place, size, outside)
        if outside:
            body.line(f"if (p{d} < 0 || p{d} >= {size}) {{ continue; }}")
        taps.append(k)
        places.append(at)
    c = body.loop("c", channels)
    group = (block[1] // per_group) * channels if a["group"] > 1 else Index()
    if width > 1:
        body.line(f"const {kind} weights = {body.vector(w, [block[1], c, *taps], [block[1]])};")
        weights = "weights"
    else:
        weights = body.element(w, [block[1], c, *taps])
    p = body.loop("p", columns)
    check = ""
    if many:
        d, size = n - 1, static(x)[-1]
        place = output(Index(), p)[-1] * a["strides"][d] + taps[d] * a["dilations"][d] - a["pads"][d]
        low, high = place.bounds
        at = _position(body, f"p{d}", place, size, low < 0 or high >= size)
        check = " && ".join([f"p{d} >= 0"] * (low < 0) + [f"p{d} < {size}"] * (high >= size))
        # A load stands behind the check; what else is read is computed before it.
        places.append(at.clamped(0, size - 1) if check and x not in body.accesses else at)
    value = body.element(x, [block[0], group + c, *places])
    if check:
        value = f"(({check}) ? {value} : 0.0f)"
    acc = f"acc[{p.text}]" if many else "acc"
    body.line(f"{acc} += {value} * {weights};")
    for _ in range(n + 2):
        body.close()
    if pool is None:
        p, o = body.loop("p", columns), body.loop("o", width)
        body.finish(op.result, output(o, p), f"{acc}[{o.text}]" if width > 1 else acc, roots, outs)
    else:
        _pool(body, op, pool, columns, width, acc, output)
        o = body.loop("o", width)
        pooled = f"pooled[{o.text}]" if width > 1 else "pooled"
        if pool.attributes["kind"] == "mean":
            pooled += f" * {literal(1.0 / math.prod(pool.attributes['kernel']))}"
        body.finish(pool.result, [block[0], block[1] * width + o, *block[2:]], pooled, roots, outs)
    while body.depth > 1:
        body.close()
    return independent(math.prod(blocks))


def _rows(body: Body, pool: ir.Op, block: Sequence[Index], sizes: Sequence[int]) -> tuple[Index, ...]:
    """Starts the loops over a pool's window but for its columns: the rows of the convolution that lie in it."""
    a, rows = pool.attributes, []
    for d, (at, size) in enumerate(zip(block, sizes, strict=True)):
        k = body.loop(f"w{d}", a["kernel"][d], always=True)
        place = at * a["strides"][d] + k * a["dilations"][d] - a["pads"][d]
        low, high = place.bounds
        body.line(f"const int q{d} = {place.text};")
        if low < 0 or high >= size:
            body.line(f"if (q{d} < 0 || q{d} >= {size}) {{ continue; }}")
        rows.append(index.ranged(f"q{d}", max(low, 0), min(high, size - 1)))
    return tuple(rows)


def _pool(
    body: Body,
    op: ir.Op,
    pool: ir.Op,
    columns: int,
    width: int,
    acc: str,
    output: Callable[[Index, Index], list[Index]],
) -> None:
    """Adds some columns of a convolution to the windows they lie in, and ends the loops over rows."""
    size, inner = static(op.result)[-1], pool.operands[0]
    assert inner is not None
    p = body.loop("p", columns, always=True)
    low, high = output(Index(), p)[-1].bounds
    column = body.named("q", output(Index(), p)[-1])
    if low < 0 or high >= size:
        body.line(f"if (q < 0 || q >= {size}) {{ continue; }}")
        column = index.ranged("q", max(low, 0), min(high, size - 1))
    o = body.loop("o", width)
    at = [*output(o, p)[:-1], column]
    _, value = body.follow(op.result, at, f"{acc}[{o.text}]" if width > 1 else acc, inner)
    body.line(kernels_pool.takes(pool, f"pooled[{o.text}]" if width > 1 else "pooled", value))
    for _ in range(len(pool.attributes["kernel"]) + 1):
        body.close()


def _bias(body: Body, bias: ir.Value, block: Index, width: int) -> str:
    """The bias of a block of channels."""
    access = body.accesses.get(bias)
    if width > 1 and access is not None and access.width == width:
        return body.vector(bias, [block])
    parts = [body.element(bias, [block * width + o]) for o in range(width)]
    return f"float{width}({', '.join(parts)})" if width > 1 else parts[0]


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
    body.finish(op.result, at, "acc", roots, outs)
    return independent(math.prod(static(op.result)))

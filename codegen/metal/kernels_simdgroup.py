"""Products and convolutions by simdgroup_matrix: four simdgroups compute a tile of 32 × 32 from pieces in threadgroup
memory. A convolution is the product of its weights and the windows of its input, which are nowhere made (implicit GEMM:
Chetlur et al., "cuDNN: Efficient primitives for deep learning", 2014).

What is read is computed on the way into threadgroup memory, what stands behind the product on the way out, so that
sizes need not divide and neighbours are fused as in every other kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from codegen.metal import index
from codegen.metal.access import Access, register_type, static
from codegen.metal.body import Body
from codegen.metal.index import Index
from codegen.metal.launch import WAIT, Launch, of_batch, operands
from codegen.metal.spelling import literal
from compiler import ir

#: Rows and columns of a tile, and how far along the sum a piece reaches: 4 KB and 2 × 2 KB of threadgroup memory.
TILE = 32
DEPTH = 16

#: Each of four simdgroups has a quarter of a tile, 2 × 2 matrices of 8 × 8.
_THREADS = 128
_QUARTER = TILE // 2

#: In front of loops over matrices, which stay in registers only where each has a number of its own.
_UNROLL = "#pragma unroll"

#: Operations that a load costs a thread, and finding out where an element of a window lies; a direct convolution loads
#: five times for sixteen multiplications, or twice for four where its columns do not divide (kernels_window.py).
_LOAD = 4
_ADDRESS = 8
_FEWEST = 8


def conv_fits(op: ir.Op) -> bool:
    """Whether a convolution takes less by tiles than directly: loads and what tiles compute in vain counted in."""
    x, w = operands(op)[:2]
    channels, *window = static(w)
    n, _, *places = static(op.result)
    if op.attributes["group"] != 1 or register_type(op.result.type) != "float" or register_type(x.type) != "float":
        return False
    depth, positions = math.prod(window), math.prod(places)
    tiles = n * math.ceil(channels / TILE) * math.ceil(positions / TILE)
    computed = tiles * TILE * TILE * math.ceil(depth / DEPTH) * DEPTH
    wanted = n * channels * positions * depth
    direct = 1 + _LOAD * (5 / 16 if places[-1] % 4 == 0 else 2 / 4)
    by_tiles = computed / wanted * (1 + (_LOAD + _ADDRESS) * 2 / TILE)
    return tiles >= _FEWEST and by_tiles < direct


def fits(op: ir.Op) -> bool:
    """Whether a product fills tiles well enough: at least half of what is computed is wanted."""
    a, _ = operands(op)
    *_, m, n = static(op.result)
    if register_type(op.result.type) != "float" or static(a)[-1] < DEPTH or min(m, n) < TILE // 2:
        return False
    tiles = math.ceil(m / TILE) * math.ceil(n / TILE)
    return tiles >= 2 and 2 * m * n >= tiles * TILE * TILE


def matmul(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """A product of two matrices, or of a batch of them."""
    a, b = operands(op)
    *batch, m, n = static(op.result)
    kind = "half" if all(v in body.accesses and body.accesses[v].store == "half" for v in (a, b)) else "float"

    def left(block: Sequence[Index], row: Index, k: Index) -> str:
        return _inside(body, a, of_batch(a, [*block, row, k]), row, k, kind)

    def right(block: Sequence[Index], k: Index, column: Index) -> str:
        return _inside(body, b, of_batch(b, [*block, k, column]), k, column, kind)

    def finish(block: Sequence[Index], row: Index, column: Index) -> None:
        body.finish(op.result, [*block, row, column], "product", roots, outs)

    return _tiles(body, batch, m, n, static(a)[-1], kind, left, right, finish)


def conv(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """A convolution: weights [channels, taps] times windows [taps, places]."""
    x, w, *bias = operands(op)
    a = op.attributes
    batch, channels, *places = static(op.result)
    taps, sizes = static(w)[1:], static(x)[2:]
    depth, positions = math.prod(taps), math.prod(places)
    kind = "half" if all(v in body.accesses and body.accesses[v].store == "half" for v in (x, w)) else "float"

    def left(block: Sequence[Index], row: Index, k: Index) -> str:
        checks = [f"{i.text} < {size}" for i, size in ((row, channels), (k, depth)) if i.bounds[1] >= size]
        if w not in body.accesses:  # what is computed on the way is computed before the check
            row, k = row.clamped(0, channels - 1), k.clamped(0, depth - 1)
        return _checked(checks, body.element(w, [row, *index.unravel(k, taps)]), kind)

    def right(block: Sequence[Index], k: Index, column: Index) -> str:
        checks = [f"{i.text} < {size}" for i, size in ((k, depth), (column, positions)) if i.bounds[1] >= size]
        computed = x not in body.accesses
        if computed:
            k, column = k.clamped(0, depth - 1), column.clamped(0, positions - 1)
        channel, *tap = index.unravel(k, taps)
        where = []
        for d, (place, t, size) in enumerate(zip(index.unravel(column, places), tap, sizes, strict=True)):
            at = place * a["strides"][d] + t * a["dilations"][d] - a["pads"][d]
            low, high = at.bounds
            at = body.named(f"p{d}", at)
            checks += [f"p{d} >= 0"] * (low < 0) + [f"p{d} < {size}"] * (high >= size)
            where.append(at.clamped(0, size - 1) if computed else at)
        return _checked(checks, body.element(x, [block[0], channel, *where]), kind)

    def finish(block: Sequence[Index], row: Index, column: Index) -> None:
        value = "product"
        if bias:
            body.line(f"const float sum = product + {body.element(bias[0], [row])};")
            value = "sum"
        body.finish(op.result, [block[0], row, *index.unravel(column, places)], value, roots, outs)

    return _tiles(body, [batch], channels, positions, depth, kind, left, right, finish)


#: An element of an operand of a product, and what is done with one of the result: at a block, a row, a column.
_Read = Callable[[Sequence[Index], Index, Index], str]
_Write = Callable[[Sequence[Index], Index, Index], None]


def _tiles(
    body: Body, batch: Sequence[int], m: int, n: int, depth: int, kind: str, left: _Read, right: _Read, finish: _Write
) -> Launch:
    """A threadgroup computes a tile, and waits before it uses what it loaded and before it loads again."""
    tiles = (*batch, math.ceil(m / TILE), math.ceil(n / TILE))
    tile = list(index.unravel(index.variable("g", math.prod(tiles)), tiles))
    tile[-2:] = [body.named("tile_row", tile[-2]), body.named("tile_column", tile[-1])]
    body.line(f"threadgroup {kind} left[{TILE * DEPTH}];")
    body.line(f"threadgroup {kind} right[{DEPTH * TILE}];")
    body.line(f"threadgroup float tile[{TILE * TILE}];")
    body.line(f"const int rows = {_QUARTER} * int(simdgroup / 2);")
    body.line(f"const int columns = {_QUARTER} * int(simdgroup % 2);")
    body.line("simdgroup_float8x8 acc[4];")
    body.line(_UNROLL)
    body.open("for (int q = 0; q < 4; ++q)")
    body.line("acc[q] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);")
    body.close()
    steps = math.ceil(depth / DEPTH)
    step = body.loop("step", steps)
    for name, read, width in (("left", left, DEPTH), ("right", right, TILE)):
        outer, inner = _each(body, TILE * DEPTH // width, width)
        row = tile[-2] * TILE + outer if name == "left" else step * DEPTH + outer
        column = step * DEPTH + inner if name == "left" else tile[-1] * TILE + inner
        value = read(tile[:-2], body.named("row", row), body.named("column", column))
        body.line(f"{name}[{(outer * width + inner).text}] = {value};")
        body.close()
    body.line(WAIT)
    body.open(f"for (int k = 0; k < {DEPTH}; k += 8)")
    body.line(f"simdgroup_matrix<{kind}, 8, 8> a[2], b[2];")
    body.line(_UNROLL)
    body.open("for (int q = 0; q < 2; ++q)")
    body.line(f"simdgroup_load(a[q], left + {DEPTH} * (rows + 8 * q) + k, {DEPTH});")
    body.line(f"simdgroup_load(b[q], right + {TILE} * k + columns + 8 * q, {TILE});")
    body.close()
    body.line(_UNROLL)
    body.open("for (int q = 0; q < 4; ++q)")
    body.line("simdgroup_multiply_accumulate(acc[q], a[q / 2], b[q % 2], acc[q]);")
    body.close()
    body.close()
    body.line(WAIT)
    body.close()
    body.line(_UNROLL)
    body.open("for (int q = 0; q < 4; ++q)")
    body.line(f"simdgroup_store(acc[q], tile + {TILE} * (rows + 8 * (q / 2)) + columns + 8 * (q % 2), {TILE});")
    body.close()
    body.line(WAIT)
    outer, inner = _each(body, TILE, TILE)
    body.line(f"const float product = tile[{(outer * TILE + inner).text}];")
    row = body.named("row", tile[-2] * TILE + outer)
    column = body.named("column", tile[-1] * TILE + inner)
    outside = [f"{i.text} >= {size}" for i, size in ((row, m), (column, n)) if i.bounds[1] >= size]
    if outside:
        body.line(f"if ({' || '.join(outside)}) {{ continue; }}")
    row, column = (index.ranged(i.text, i.bounds[0], min(i.bounds[1], size - 1)) for i, size in ((row, m), (column, n)))
    finish(tile[:-2], row, column)
    body.close()
    positions = (
        ("uint", "thread_index", "thread_position_in_threadgroup"),
        ("uint", "simdgroup", "simdgroup_index_in_threadgroup"),
        ("uint", "group_index", "threadgroup_position_in_grid"),
    )
    opening = ["    const int t = int(thread_index);"]
    if math.prod(tiles) > 1:
        opening.append("    const int g = int(group_index);")
    return Launch(math.prod(tiles), _THREADS, positions, tuple(opening))


def _each(body: Body, rows: int, width: int) -> tuple[Index, Index]:
    """Starts a loop in which the threads go through rows of ``width``, each down one column, whose place it knows."""
    body.open(f"for (int outer = t / {width}; outer < {rows}; outer += {_THREADS // width})")
    return index.variable("outer", rows), body.named("inner", index.variable("t", _THREADS) % width)


def _inside(body: Body, v: ir.Value, batch: Sequence[Index], row: Index, column: Index, kind: str) -> str:
    """An element of a matrix; nothing outside of it."""
    *_, height, width = static(v)
    checks = [f"{i.text} < {n}" for i, n in ((row, height), (column, width)) if i.bounds[1] >= n]
    if checks and v not in body.accesses:  # what is computed on the way is computed before the check
        row, column = row.clamped(0, height - 1), column.clamped(0, width - 1)
    return _checked(checks, body.element(v, [*batch, row, column]), kind)


def _checked(checks: Sequence[str], value: str, kind: str) -> str:
    """A value where it lies inside, else nothing."""
    if kind == "half":
        value = value.removeprefix("float(").removesuffix(")") if value.startswith("float(") else f"half({value})"
    nothing = literal(0.0) if kind == "float" else "half(0.0f)"
    return f"({' && '.join(checks)}) ? {value} : {nothing}" if checks else value

"""Products by simdgroup_matrix: four simdgroups compute a tile of 32 × 32 from pieces in threadgroup memory.

What is read is computed on the way into threadgroup memory, what stands behind the product on the way out, so that
sizes need not divide and neighbours are fused as in every other kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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


def fits(op: ir.Op) -> bool:
    """Whether a product fills tiles well enough: at least half of what is computed is wanted."""
    a, _ = operands(op)
    *_, m, n = static(op.result)
    if register_type(op.result.type) != "float" or static(a)[-1] < DEPTH or min(m, n) < TILE // 2:
        return False
    tiles = math.ceil(m / TILE) * math.ceil(n / TILE)
    return tiles >= 2 and 2 * m * n >= tiles * TILE * TILE


def matmul(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """A threadgroup computes a tile, and waits before it uses what it loaded and before it loads again."""
    a, b = operands(op)
    *batch, m, n = static(op.result)
    depth = static(a)[-1]
    tiles = (*batch, math.ceil(m / TILE), math.ceil(n / TILE))
    tile = list(index.unravel(index.variable("g", math.prod(tiles)), tiles))
    tile[-2:] = [body.named("tile_row", tile[-2]), body.named("tile_column", tile[-1])]
    halves = all(v in body.accesses and body.accesses[v].store == "half" for v in (a, b))
    kind = "half" if halves else "float"
    body.line(f"threadgroup {kind} left[{TILE * DEPTH}];")
    body.line(f"threadgroup {kind} right[{DEPTH * TILE}];")
    body.line(f"threadgroup float tile[{TILE * TILE}];")
    body.line(f"const int rows = {_QUARTER} * int(simdgroup / 2);")
    body.line(f"const int columns = {_QUARTER} * int(simdgroup % 2);")
    body.line("simdgroup_float8x8 acc[4];")
    body.open("for (int q = 0; q < 4; ++q)")
    body.line("acc[q] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);")
    body.close()
    steps = math.ceil(depth / DEPTH)
    step = body.loop("step", steps)
    for name, operand, width in (("left", a, DEPTH), ("right", b, TILE)):
        body.open(f"for (int e = t; e < {TILE * DEPTH}; e += {_THREADS})")
        e = index.variable("e", TILE * DEPTH)
        outer, inner = body.named("outer", e // width), body.named("inner", e % width)
        row = tile[-2] * TILE + outer if name == "left" else step * DEPTH + outer
        column = step * DEPTH + inner if name == "left" else tile[-1] * TILE + inner
        body.line(f"{name}[e] = {_inside(body, operand, of_batch(operand, tile), row, column, kind)};")
        body.close()
    body.line(WAIT)
    body.open(f"for (int k = 0; k < {DEPTH}; k += 8)")
    body.line(f"simdgroup_matrix<{kind}, 8, 8> a[2], b[2];")
    body.open("for (int q = 0; q < 2; ++q)")
    body.line(f"simdgroup_load(a[q], left + {DEPTH} * (rows + 8 * q) + k, {DEPTH});")
    body.line(f"simdgroup_load(b[q], right + {TILE} * k + columns + 8 * q, {TILE});")
    body.close()
    body.open("for (int q = 0; q < 4; ++q)")
    body.line("simdgroup_multiply_accumulate(acc[q], a[q / 2], b[q % 2], acc[q]);")
    body.close()
    body.close()
    body.line(WAIT)
    body.close()
    body.open("for (int q = 0; q < 4; ++q)")
    body.line(f"simdgroup_store(acc[q], tile + {TILE} * (rows + 8 * (q / 2)) + columns + 8 * (q % 2), {TILE});")
    body.close()
    body.line(WAIT)
    body.open(f"for (int e = t; e < {TILE * TILE}; e += {_THREADS})")
    e = index.variable("e", TILE * TILE)
    row = body.named("row", tile[-2] * TILE + e // TILE)
    column = body.named("column", tile[-1] * TILE + e % TILE)
    outside = [f"{i.text} >= {size}" for i, size in ((row, m), (column, n)) if i.bounds[1] >= size]
    if outside:
        body.line(f"if ({' || '.join(outside)}) {{ continue; }}")
    row, column = (index.ranged(i.text, i.bounds[0], min(i.bounds[1], size - 1)) for i, size in ((row, m), (column, n)))
    body.finish(op.result, [*tile[:-2], row, column], "tile[e]", roots, outs)
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


def _inside(body: Body, v: ir.Value, batch: Sequence[Index], row: Index, column: Index, kind: str) -> str:
    """An element of a matrix; nothing outside of it."""
    *_, height, width = static(v)
    row, column = body.named("row", row), body.named("column", column)
    checks = [f"{i.text} < {n}" for i, n in ((row, height), (column, width)) if i.bounds[1] >= n]
    if checks and v not in body.accesses:  # what is computed on the way is computed before the check
        row, column = row.clamped(0, height - 1), column.clamped(0, width - 1)
    value = body.element(v, [*batch, row, column])
    if kind == "half":
        value = value.removeprefix("float(").removesuffix(")") if value.startswith("float(") else f"half({value})"
    nothing = literal(0.0) if kind == "float" else "half(0.0f)"
    return f"({' && '.join(checks)}) ? {value} : {nothing}" if checks else value

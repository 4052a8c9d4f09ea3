"""Kernels of products: matrices, batches of them, and attention in one pass."""

from __future__ import annotations

import math
from collections.abc import Sequence

from codegen.metal import index, kernels_simdgroup
from codegen.metal.access import Access, quantized, register_type, static
from codegen.metal.body import Body
from codegen.metal.index import Index
from codegen.metal.launch import Launch, Packing, Packings, independent, of_batch, operands
from codegen.metal.spelling import literal, zero
from compiler import ir

#: Columns that a thread of a product computes: those of one vector of the right operand. And rows, for which it serves.
COLUMNS = 4
ROWS = 4


def pack_matmul(op: ir.Op) -> Packings:
    """The right operand as vectors of neighbouring columns; it lies so already."""
    b = op.operands[1]
    if b is None or static(b)[-1] % COLUMNS or kernels_simdgroup.fits(op) or register_type(op.result.type) != "float":
        return {}
    constant = quantized(b)
    if constant is None:
        return {b: _columns(b)}
    x, *scales = constant
    return {v: _columns(v) for v in (x, *scales) if v is not None and static(v)[-1:] == static(b)[-1:]}


def _columns(v: ir.Value) -> Packing:
    *outer, n = static(v)
    return Packing(f"columns{COLUMNS}", COLUMNS, (*outer, n // COLUMNS), None)


def matmul(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """A product that fills tiles goes by simdgroup_matrix. Else a thread computes a tile of some rows and columns, so
    that what it loads serves several times."""
    if kernels_simdgroup.fits(op):
        return kernels_simdgroup.matmul(body, op, roots, outs)
    a, b = operands(op)
    *batch, m, n = static(op.result)
    constant = quantized(b)
    stored = body.accesses.get(constant[0] if constant else b)
    width = stored.width if stored is not None else 1
    rows = next(r for r in (ROWS, 2, 1) if m % r == 0) if width > 1 else 1
    blocks = (*batch, m // rows, n // width)
    block = list(index.unravel(index.variable("i", math.prod(blocks)), blocks))
    block[-2:] = [body.named("row", block[-2]), body.named("column", block[-1])]
    if len(batch) == 1:
        block[0] = body.named("batch", block[0])
    kind = f"float{width}" if width > 1 else register_type(op.result.type)
    nothing = "0" if kind == "int" else zero(width)
    body.line(f"{kind} acc{f'[{rows}] = {{}}' if rows > 1 else f' = {nothing}'};")
    if width > 1 and not _blocked(b):
        body.hoist(b, _scales(b, Index(), block[-1]))
    k = body.loop("k", static(a)[-1])
    if width > 1:
        right = body.vector(b, [*of_batch(b, block), k, block[-1]], _scales(b, k, block[-1]))
        body.line(f"const {kind} right = {right};")
        right = "right"
    else:
        right = body.element(b, [*of_batch(b, block), k, block[-1]])
    r = body.loop("r", rows)
    name = f"acc[{r.text}]" if rows > 1 else "acc"
    left = body.element(a, [*of_batch(a, block), block[-2] * rows + r, k])
    body.line(f"{name} += {left} * {right};")
    body.close()
    body.close()
    r = body.loop("r", rows)
    c = body.loop("c", width)
    at = [*block[:-2], block[-2] * rows + r, block[-1] * width + c]
    body.finish(op.result, at, f"{name}[{c.text}]" if width > 1 else name, roots, outs)
    body.close()
    body.close()
    return independent(math.prod(blocks))


def _blocked(b: ir.Value) -> bool:
    """Whether a weight that is stored quantized has scales that change along the sum."""
    return b.op is not None and quantized(b) is not None and (
        b.op.attributes["block"] > 0 or b.op.attributes["axis"] == 0)  # fmt: skip


def _scales(b: ir.Value, k: Index, column: Index) -> list[Index]:
    """Where the scale of a weight that is stored quantized lies: for its column, its row, or its block of rows."""
    constant = quantized(b)
    if constant is None or not static(constant[1]):
        return []
    assert b.op is not None
    axis, block = b.op.attributes["axis"], b.op.attributes["block"]
    if block:
        return [k // block, column]
    return [k] if axis == 0 else [column]


def attention(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """One query in one pass over the keys: the running maximum rescales what was summed (online softmax, Milakov and
    Gimelshein, "Online normalizer calculation for softmax", 2018)."""
    q, k, v, *mask = operands(op)
    shape = static(op.result)
    at = list(index.unravel(index.variable("i", math.prod(shape[:-1])), shape[:-1]))
    width, keys, depth = shape[-1], static(k)[-2], static(q)[-1]
    body.line(f"float acc[{width}];")
    e = body.loop("e", width)
    body.line(f"acc[{e.text}] = 0.0f;")
    body.close()
    body.line("float top = -INFINITY, total = 0.0f;")
    j = body.loop("j", keys)
    body.line("float score = 0.0f;")
    d = body.loop("d", depth)
    body.line(f"score += {body.element(q, [*at, d])} * {body.element(k, [*at[:-1], j, d])};")
    body.close()
    body.line(f"score *= {literal(op.attributes['scale'])};")
    if mask:
        m = static(mask[0])
        inner = [*at, j][len(at) + 1 - len(m) :]
        chosen = [Index() if n == 1 else i for n, i in zip(m, inner, strict=True)]
        body.line(f"score += {body.element(mask[0], chosen)};")
    body.line("const float above = max(top, score);")
    # Where every score so far is -inf, their difference would be NaN.
    body.line("const float keep = top == above ? 1.0f : exp(top - above);")
    body.line("const float weight = score == above ? 1.0f : exp(score - above);")
    body.line("total = total * keep + weight;")
    e = body.loop("e", width)
    body.line(f"acc[{e.text}] = acc[{e.text}] * keep + weight * {body.element(v, [*at[:-1], j, e])};")
    body.close()
    body.line("top = above;")
    body.close()
    e = body.loop("e", width)
    body.line(f"const float mixed = acc[{e.text}] / total;")
    body.finish(op.result, [*at, e], "mixed", roots, outs)
    body.close()
    return independent(math.prod(shape[:-1]))

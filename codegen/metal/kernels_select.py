"""Kernels that choose or replace elements: the best of a row, updates at indices, boxes that do not overlap."""

from __future__ import annotations

import math
from collections.abc import Sequence

from codegen.metal import index
from codegen.metal.access import Access, register_type, static
from codegen.metal.body import Body
from codegen.metal.index import Index
from codegen.metal.launch import WAIT, Launch, independent, operands
from codegen.metal.spelling import literal, narrowed
from compiler import ir
from compiler.errors import UnsupportedError

#: Boxes that fit threadgroup memory as one flag each, beside what simdgroups exchange.
MOST_BOXES = 32000

#: Threads that look for the best box together: eight simdgroups.
_SEARCHERS = 256


def top_k(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """The best elements of a row, each put where the number of better ones says; of equal ones the first is better."""
    (x,) = operands(op)
    a, shape, kind = op.attributes, static(x), register_type(x.type)
    axis, better = a["axis"], ">" if a["largest"] else "<"
    at = list(index.unravel(index.variable("i", math.prod(shape)), shape))
    body.line(f"const {kind} here = {body.element(x, at)};")
    body.line("int rank = 0;")
    other = body.loop("j", shape[axis])
    body.line(f"const {kind} there = {body.element(x, [*at[:axis], other, *at[axis + 1 :]])};")
    body.line(f"rank += there {better} here || (there == here && {other.text} < {at[axis].text}) ? 1 : 0;")
    body.close()
    body.open(f"if (rank < {a['k']})")
    where = [*at[:axis], index.ranged("rank", 0, a["k"] - 1), *at[axis + 1 :]]
    for root, out, value in zip(roots, outs, ("here", at[axis].text), strict=True):
        body.finish(root, where, value, [root], [out])
    body.close()
    return independent(math.prod(shape))


#: How an update joins what is there, by reduction.
_JOINED = {
    "none": "value = {0};",
    "add": "value += {0};",
    "mul": "value *= {0};",
    "max": "value = max(value, {0});",
    "min": "value = min(value, {0});",
}


def _start(body: Body, op: ir.Op) -> tuple[list[Index], str, str]:
    x, kind = op.operands[0], register_type(op.result.type)
    assert x is not None
    if op.attributes["kind"] not in _JOINED or (kind == "bool" and op.attributes["kind"] != "none"):
        raise UnsupportedError(f"there is no Metal kernel for a scatter by {op.attributes['kind']}", "--target cpu")
    at = list(index.unravel(index.variable("i", math.prod(static(x))), static(x)))
    body.line(f"{kind} value = {body.element(x, at)};")
    return at, kind, _JOINED[op.attributes["kind"]]


def _settled(op: ir.Op) -> str:
    """What the updates come to."""
    return narrowed(op.result.type, "value") if op.attributes["kind"] in ("add", "mul") else "value"


def scatter_elements(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """An element looks through the indices of its row for its own, in order, so that equal indices need no atomics."""
    x, chosen, updates = operands(op)
    axis = op.attributes["axis"]
    at, _, joined = _start(body, op)
    reach = static(chosen)
    inside = [f"{i.text} < {n}" for d, (i, n) in enumerate(zip(at, reach, strict=True)) if d != axis and
              i.bounds[1] >= n]  # fmt: skip
    if inside:
        body.open(f"if ({' && '.join(inside)})")
    j = body.loop("j", reach[axis])
    there = [j if d == axis else i.clamped(0, n - 1) if inside else i for d, (i, n) in enumerate(
        zip(at, reach, strict=True))]  # fmt: skip
    row = body.element(chosen, there)
    body.open(f"if ({row} == {at[axis].text} || {row} + {static(x)[axis]} == {at[axis].text})")
    body.line(joined.format(body.element(updates, there)))
    body.close()
    body.close()
    if inside:
        body.close()
    body.finish(op.result, at, _settled(op), roots, outs)
    return independent(math.prod(static(x)))


def scatter_nd(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """An element looks through all rows of indices for those that mean its slice, in order."""
    x, chosen, updates = operands(op)
    *outer, depth = static(chosen)
    at, _, joined = _start(body, op)
    rows = math.prod(outer)
    j = body.loop("j", rows)
    row = index.unravel(j, outer)
    hits = []
    for k in range(depth):
        n = static(x)[k]
        place = body.element(chosen, [*row, index.of(k)])
        hits.append(f"({place} == {at[k].text} || {place} + {n} == {at[k].text})")
    body.open(f"if ({' && '.join(hits) or 'true'})")
    body.line(joined.format(body.element(updates, [*row, *at[depth:]])))
    body.close()
    body.close()
    body.finish(op.result, at, _settled(op), roots, outs)
    return independent(math.prod(static(x)))


def nms(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Greedy suppression by one threadgroup: the best box that is left is taken, what overlaps it too much is dropped.

    Gives rows of batch, class and box, and how many rows there are (onnx.NonMaxSuppression).
    """
    boxes, scores = operands(op)
    a = op.attributes
    batches, classes, count = static(scores)
    if count > MOST_BOXES:
        raise UnsupportedError(f"there is no Metal kernel for suppression among {count} boxes", "--target cpu")
    groups = _SEARCHERS // 32
    body.line(f"threadgroup bool alive[{count}];")
    body.line(f"threadgroup float tops[{groups}];")
    body.line(f"threadgroup int bests[{groups}];")
    body.line("int taken = 0;")
    b, c = body.loop("b", batches), body.loop("c", classes)
    each = f"for (int j = int(thread_index); j < {count}; j += {_SEARCHERS})"
    j = index.variable("j", count)
    body.open(each)
    body.line(f"alive[j] = {body.element(scores, [b, c, j])} > {literal(a['score'])};")
    body.close()
    body.open(f"for (int turn = 0; turn < {min(a['limit'], count)}; ++turn)")
    body.line("float top = -INFINITY;")
    body.line(f"int best = {count};")
    body.open(each)
    body.line(f"const float score = {body.element(scores, [b, c, j])};")
    body.open("if (alive[j] && score > top)")
    body.line("top = score;")
    body.line("best = j;")
    body.close()
    body.close()
    body.line("const float highest = simd_max(top);")
    body.line(f"const int first = simd_min(top == highest ? best : {count});")
    body.line(WAIT)  # everybody has read what the turn before left there
    body.open("if (lane == 0)")
    body.line("tops[simdgroup] = highest;")
    body.line("bests[simdgroup] = first;")
    body.close()
    body.line(WAIT)
    body.line(f"int chosen = {count};")
    body.line("float most = -INFINITY;")
    body.open(f"for (int g = 0; g < {groups}; ++g)")
    body.open("if (tops[g] > most || (tops[g] == most && bests[g] < chosen))")
    body.line("most = tops[g];")
    body.line("chosen = bests[g];")
    body.close()
    body.close()
    body.line(f"if (chosen == {count}) {{ break; }}")
    _corners(body, boxes, [b, index.ranged("chosen", 0, count - 1)], "chosen", a["center"])
    body.open(each)
    body.line("if (!alive[j]) { continue; }")
    _corners(body, boxes, [b, j], "other", a["center"])
    body.line("const float2 lower = max(chosen_low, other_low);")
    body.line("const float2 upper = min(chosen_high, other_high);")
    body.line("const float2 common = max(upper - lower, 0.0f);")
    for name in ("chosen", "other"):
        body.line(f"const float2 {name}_size = {name}_high - {name}_low;")
    body.line("const float shared = common.x * common.y;")
    body.line("const float whole = chosen_size.x * chosen_size.y + other_size.x * other_size.y - shared;")
    body.open(f"if (j == chosen || (shared > 0.0f && shared > {literal(a['iou'])} * whole))")
    body.line("alive[j] = false;")
    body.close()
    body.close()
    body.open("if (thread_index == 0)")
    most = static(op.results[0])[0]
    for k, value in enumerate((b, c, index.ranged("chosen", 0, count - 1))):
        body.finish(roots[0], [index.ranged("taken", 0, most - 1), index.of(k)], value.text, roots[:1], outs[:1])
    body.close()
    body.line("++taken;")
    body.close()
    body.close()
    body.close()
    body.open(f"for (int r = taken + int(thread_index); r < {most}; r += {_SEARCHERS})")
    for k in range(3):  # what is computed from rows that are not there must find its way, too
        body.finish(roots[0], [index.ranged("r", 0, most - 1), index.of(k)], "0", roots[:1], outs[:1])
    body.close()
    body.open("if (thread_index == 0)")
    body.finish(roots[1], [Index()], "taken", roots[1:], outs[1:])
    body.close()
    return Launch(
        1,
        _SEARCHERS,
        (
            ("uint", "thread_index", "thread_position_in_threadgroup"),
            ("uint", "lane", "thread_index_in_simdgroup"),
            ("uint", "simdgroup", "simdgroup_index_in_threadgroup"),
        ),
        (),
    )


def _corners(body: Body, boxes: ir.Value, at: Sequence[Index], name: str, center: bool) -> None:
    """Writes two opposite corners of a box, the lower and the higher one."""
    first, second, third, fourth = (body.element(boxes, [*at, index.of(k)]) for k in range(4))
    if center:
        body.line(f"const float2 {name}_low = float2({first} - {third} * 0.5f, {second} - {fourth} * 0.5f);")
        body.line(f"const float2 {name}_high = float2({first} + {third} * 0.5f, {second} + {fourth} * 0.5f);")
    else:
        body.line(f"const float2 {name}_low = float2(min({first}, {third}), min({second}, {fourth}));")
        body.line(f"const float2 {name}_high = float2(max({first}, {third}), max({second}, {fourth}));")

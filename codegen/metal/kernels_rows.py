"""Kernels that look along rows: reductions, argmax, softmax, normalization, prefix sums.

A long row belongs to a simdgroup: its lanes take every 32nd element each and join what they find. A short one belongs
to a thread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from codegen.metal import index
from codegen.metal.access import Access, register_type, static
from codegen.metal.body import Body
from codegen.metal.index import Index
from codegen.metal.launch import Launch, independent, operands
from codegen.metal.spelling import literal
from compiler import ir
from compiler.errors import UnsupportedError

LANES = 32

#: From this length on a row is worth a simdgroup.
LONG = 64


@dataclass(slots=True)
class _Rows:
    """Rows of ``shape`` along ``axes``: the index of a thread's row, and how it walks along it."""

    body: Body
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    at: list[Index]
    launch: Launch
    shared: bool

    def walk(self) -> list[Index]:
        """Starts a loop over the elements of the row that are this thread's; gives the index of one."""
        extent = [self.shape[a] for a in self.axes]
        inner = list(self.at)
        if self.shared:
            length = math.prod(extent)
            self.body.open(f"for (int j = int(lane); j < {length}; j += {LANES})")
            for a, i in zip(self.axes, index.unravel(index.variable("j", length), extent), strict=True):
                inner[a] = i
        else:
            for a, n in zip(self.axes, extent, strict=True):
                inner[a] = self.body.loop(f"r{a}", n)
        return inner

    def end(self) -> None:
        for _ in range(1 if self.shared else len(self.axes)):
            self.body.close()

    def joined(self, value: str, function: str) -> str:
        """What the lanes found, joined; each gets the same."""
        return f"simd_{function}({value})" if self.shared else value


def _rows(body: Body, x: ir.Value, axes: Sequence[int], shareable: bool = True) -> _Rows:
    shape = static(x)
    outer = [1 if d in axes else n for d, n in enumerate(shape)]
    count, length = math.prod(outer), math.prod(shape[a] for a in axes)
    shared = shareable and length >= LONG
    if shared:
        positions = (
            ("uint", "lane", "thread_index_in_simdgroup"),
            ("uint", "row_index", "threadgroup_position_in_grid"),
        )
        opening = ("    const int i = int(row_index);",) if count > 1 else ()
        launch = Launch(count, LANES, positions if count > 1 else positions[:1], opening)
    else:
        launch = independent(count)
    at = list(index.unravel(index.variable("i", count), outer))
    return _Rows(body, shape, tuple(axes), at, launch, shared)


#: What a reduction starts with in float, how it takes an element in, and how lanes join.
_REDUCED = {
    "sum": ("0", "acc += {0};", "sum"),
    "mean": ("0", "acc += {0};", "sum"),
    "prod": ("1", "acc *= {0};", "product"),
    "max": ("-INFINITY", "acc = max(acc, {0});", "max"),
    "min": ("INFINITY", "acc = min(acc, {0});", "min"),
}
_INT_START = {"max": "INT_MIN", "min": "INT_MAX"}


def reduce(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Sum, mean, product, greatest or least value along some dimensions."""
    (x,) = operands(op)
    kind, axes = op.attributes["kind"], op.attributes["axes"]
    stored = register_type(x.type)
    if kind not in _REDUCED or stored == "bool" or (stored == "int" and kind == "mean"):
        raise UnsupportedError(f"there is no Metal kernel for a reduction by {kind} of {x.type}", "--target cpu")
    start, step, join = _REDUCED[kind]
    if stored == "int":
        start = _INT_START.get(kind, start)
    elif start in "01":
        start += ".0f"
    rows = _rows(body, x, axes)
    body.line(f"{stored} acc = {start};")
    body.line(step.format(body.element(x, rows.walk())))
    rows.end()
    if rows.shared:
        body.line(f"acc = {rows.joined('acc', join)};")
        body.open("if (lane == 0)")
    count = math.prod(static(x)[a] for a in axes)
    body.finish(op.result, rows.at, f"acc * {literal(1.0 / count)}" if kind == "mean" else "acc", roots, outs)
    if rows.shared:
        body.close()
    return rows.launch


def arg_reduce(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Where the greatest or least value of a row stands: the first of several, or the last."""
    (x,) = operands(op)
    a = op.attributes
    rows = _rows(body, x, [a["axis"]], shareable=False)
    kind = register_type(x.type)
    better = {"max": ">", "min": "<"}[a["kind"]] + ("=" if a["last"] else "")
    body.line("int best = 0;")
    body.line(f"{kind} top = {body.element(x, rows.at)};")
    here = rows.walk()
    body.line(f"const {kind} here = {body.element(x, here)};")
    body.open(f"if (here {better} top)")
    body.line("top = here;")
    body.line(f"best = {here[a['axis']].text};")
    body.close()
    rows.end()
    body.finish(op.result, rows.at, "best", roots, outs)
    return rows.launch


def softmax(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """A row in three passes: its maximum, the sum of exponentials, the results."""
    (x,) = operands(op)
    rows = _rows(body, x, [op.attributes["axis"]])
    body.line("float top = -INFINITY;")
    body.line(f"top = max(top, {body.element(x, rows.walk())});")
    rows.end()
    if rows.shared:
        body.line(f"top = {rows.joined('top', 'max')};")
    body.line("float total = 0.0f;")
    body.line(f"total += exp({body.element(x, rows.walk())} - top);")
    rows.end()
    if rows.shared:
        body.line(f"total = {rows.joined('total', 'sum')};")
    here = rows.walk()
    value = body.element(x, here)
    result = f"{value} - top - log(total)" if op.attributes["log"] else f"exp({value} - top) / total"
    body.line(f"const float weight = {result};")
    body.finish(op.result, here, "weight", roots, outs)
    rows.end()
    return rows.launch


def normalize(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """A row in three passes: its mean, its variance about the mean, the results."""
    (x,) = operands(op)
    axes = op.attributes["axes"]
    scale = literal(1.0 / math.prod(static(x)[a] for a in axes))
    rows = _rows(body, x, axes)
    mean = "0.0f"
    if op.attributes["center"]:
        body.line("float total = 0.0f;")
        body.line(f"total += {body.element(x, rows.walk())};")
        rows.end()
        body.line(f"const float mean = {rows.joined('total', 'sum')} * {scale};")
        mean = "mean"
    body.line("float squares = 0.0f;")
    body.line(f"const float d = {body.element(x, rows.walk())} - {mean};")
    body.line("squares += d * d;")
    rows.end()
    spread = f"{rows.joined('squares', 'sum')} * {scale}"
    body.line(f"const float inverse = rsqrt({spread} + {literal(op.attributes['epsilon'])});")
    here = rows.walk()
    body.line(f"const float normal = ({body.element(x, here)} - {mean}) * inverse;")
    body.finish(op.result, here, "normal", roots, outs)
    rows.end()
    return rows.launch


def scan(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Prefix sums, from the front or the back, with or without the element itself."""
    (x,) = operands(op)
    a = op.attributes
    rows = _rows(body, x, [a["axis"]], shareable=False)
    kind = register_type(x.type)
    body.line(f"{kind} acc = {'0' if kind == 'int' else '0.0f'};")
    here = rows.walk()
    if a["reverse"]:
        here[a["axis"]] = here[a["axis"]] * -1 + (static(x)[a["axis"]] - 1)
    value = body.element(x, here)
    if a["exclusive"]:
        body.line(f"const {kind} sum = acc;")
        body.line(f"acc += {value};")
    else:
        body.line(f"acc += {value};")
        body.line(f"const {kind} sum = acc;")
    body.finish(op.result, here, "sum", roots, outs)
    rows.end()
    return rows.launch

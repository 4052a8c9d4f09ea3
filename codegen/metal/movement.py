"""Reading through movements: the element of an operand that an element of the result is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from codegen.metal import index
from codegen.metal.access import quantized, register_type, static
from codegen.metal.index import Atom, Index
from codegen.metal.spelling import literal
from compiler import ir
from compiler.errors import UnsupportedError

if TYPE_CHECKING:
    from codegen.metal.body import Body


def _dequantized(body: Body, op: ir.Op, where: Sequence[Index]) -> str:
    x, scale, zero = quantized(op.result) or (None, None, None)
    assert x is not None
    assert scale is not None
    axis, block = op.attributes["axis"], op.attributes["block"]
    at = [] if not static(scale) else [where[axis]]
    if block:
        at = [i // block if d == axis else i for d, i in enumerate(where)]
    text = f"float({body.element(x, where)})"
    if zero is not None:
        text = f"({text} - {body.element(zero, at)})"
    name = body.fresh("dequantized")
    body.line(f"const float {name} = {text} * {body.element(scale, at)};")
    return name


def element(body: Body, op: ir.Op, where: Sequence[Index]) -> str:
    x = op.operands[0]
    assert x is not None
    a = op.attributes
    match op.name:
        case "metal.reshape":
            return body.element(x, index.unravel(index.linear(where, static(op.result)), static(x)))
        case "metal.transpose":
            back = [Index()] * len(where)
            for i, p in zip(where, a["perm"], strict=True):
                back[p] = i
            return body.element(x, back)
        case "metal.broadcast":
            return body.element(x, broadcast(x, where))
        case "metal.slice":
            moved = [i * t + s for i, s, t in zip(where, a["starts"], a["steps"], strict=True)]
            return body.element(x, moved)
        case "metal.strided":
            flat = sum((i * s for i, s in zip(where, a["strides"], strict=True)), index.of(a["start"]))
            return body.element(x, index.unravel(flat, static(x)))
        case "metal.pad":
            return _padded(body, op, x, where)
        case "metal.concat":
            return _side_by_side(body, op, where)
        case "metal.gather":
            return _gathered(body, op, x, where)
        case "metal.gather_elements":
            axis = a["axis"]
            row = _row(body, op, where, static(x)[axis])
            return body.element(x, [*where[:axis], row, *where[axis + 1 :]])
        case "metal.gather_nd":
            return _gathered_nd(body, op, x, where)
        case "metal.dequantize":
            return _dequantized(body, op, where)
    raise UnsupportedError(f"no Metal kernel reads through {op.name} yet", "--target cpu")


def _padded(body: Body, op: ir.Op, x: ir.Value, where: Sequence[Index]) -> str:
    if op.attributes["mode"] not in ("constant", "edge", "reflect"):
        raise UnsupportedError(f"no Metal kernel pads by '{op.attributes['mode']}'", "--target cpu")
    inside, at = [], []
    for i, b, n in zip(where, op.attributes["before"], static(x), strict=True):
        j = i - b
        low, high = j.bounds
        inside += [f"{j.text} >= 0"] if low < 0 else []
        inside += [f"{j.text} < {n}"] if high >= n else []
        if op.attributes["mode"] == "reflect" and (low < 0 or high >= n):
            text = f"({n - 1} - abs({n - 1} - abs({j.text})))"
            at.append(index.ranged(text, 0, n - 1))
        else:
            at.append(j.clamped(0, n - 1))
    value = body.element(x, at)
    if op.attributes["mode"] != "constant" or not inside:
        return value
    kind = register_type(op.result.type)
    name = body.fresh("padded")
    fill = literal(np.array(op.attributes["value"], np.float32 if kind == "float" else np.int32))
    body.line(f"const {kind} {name} = ({' && '.join(inside)}) ? {value} : {fill};")
    return name


def _side_by_side(body: Body, op: ir.Op, where: Sequence[Index]) -> str:
    axis = op.attributes["axis"]
    kind = register_type(op.result.type)
    name = body.fresh("part")
    at, text = 0, ""
    for v in op.operands:
        assert v is not None
        n = static(v)[axis]
        inner = [*where[:axis], (where[axis] - at).clamped(0, n - 1), *where[axis + 1 :]]
        value = body.element(v, inner)
        at += n
        text += value if v is op.operands[-1] else f"{where[axis].text} < {at} ? {value} : "
    body.line(f"const {kind} {name} = {text};")
    return name


def _gathered(body: Body, op: ir.Op, x: ir.Value, where: Sequence[Index]) -> str:
    axis, chosen = op.attributes["axis"], op.operands[1]
    assert chosen is not None
    r = len(static(chosen))
    row = _row(body, op, where[axis : axis + r], static(x)[axis])
    return body.element(x, [*where[:axis], row, *where[axis + r :]])


def _gathered_nd(body: Body, op: ir.Op, x: ir.Value, where: Sequence[Index]) -> str:
    """Rows of indices: the last dimension of the indices names the first ones of ``x`` behind the batch's."""
    chosen, batch = op.operands[1], op.attributes["batch_dims"]
    assert chosen is not None
    *outer, depth = static(chosen)
    r = len(outer)
    at = [_row(body, op, [*where[:r], index.of(k)], static(x)[batch + k]) for k in range(depth)]
    return body.element(x, [*where[:batch], *at, *where[r:]])


def _row(body: Body, op: ir.Op, where: Sequence[Index], size: int) -> Index:
    """An element of the indices, counted from the end where it is negative."""
    chosen = op.operands[1]
    assert chosen is not None
    if chosen.constant is not None and (chosen.constant == chosen.constant.reshape(-1)[0]).all():
        return index.of(int(chosen.constant.reshape(-1)[0]) % size)
    row = body.element(chosen, where)
    if not row.isidentifier():
        given = body.fresh("given")
        body.line(f"const int {given} = {row};")
        row = given
    name = body.fresh("row")
    body.line(f"const int {name} = {row} < 0 ? {row} + {size} : {row};")
    return Index(((Atom(name, 0, size - 1), 1),)) if size > 1 else Index()


def broadcast(value: ir.Value | None, where: Sequence[Index]) -> list[Index]:
    """The index of an operand that broadcasts to the shape that ``where`` is an index of."""
    assert value is not None
    shape = static(value)
    kept = where[len(where) - len(shape) :]
    return [Index() if n == 1 else i for n, i in zip(shape, kept, strict=True)]

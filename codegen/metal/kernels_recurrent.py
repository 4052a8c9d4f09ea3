"""Recurrences: one threadgroup for each sequence of a batch, the hidden state in threadgroup memory.

The products with the inputs were made before for all steps; a thread computes the gates of its units at each step, and
waits for the others twice: before it overwrites the state that they read, and before it reads what they wrote.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from codegen.metal import index
from codegen.metal.access import Access, static
from codegen.metal.body import Body
from codegen.metal.index import Index
from codegen.metal.launch import WAIT, Launch
from compiler import ir

_POSITIONS = (
    ("uint", "thread_index", "thread_position_in_threadgroup"),
    ("uint", "group_index", "threadgroup_position_in_grid"),
)

#: Writes what gives ``next[j]`` of a unit at a step of a sequence; it may wait and start another loop over units.
Cell = Callable[[Index, Index, Index], None]


def _units(body: Body, hidden: int, threads: int) -> Index:
    """Starts a loop over the units of a thread, ``j``; a thread has one where there are as many."""
    body.open(f"for (int j = t; j < {hidden}; j += {threads})")
    return index.variable("j", hidden)


def _initial(body: Body, state: ir.Value | None, n: Index, name: str, hidden: int, threads: int) -> None:
    j = _units(body, hidden, threads)
    body.line(f"{name}[j] = {body.element(state, [n, j]) if state is not None else '0.0f'};")
    body.close()


def _steps(body: Body, op: ir.Op, steps: int) -> Index:
    body.open(f"for (int step = 0; step < {steps}; ++step)")
    forward = index.variable("step", steps)
    return forward * -1 + (steps - 1) if op.attributes["reverse"] else forward


def _gates(body: Body, op: ir.Op, s: Index, n: Index, j: Index, hidden: int, gates: str, separate: str = "") -> None:
    """Sums ``x + h · r`` for each gate; those in ``separate`` keep their recurrent part apart, in ``r<gate>``."""
    x, r = op.operands[:2]
    assert x is not None
    assert r is not None
    for i, g in enumerate(gates):
        body.line(f"float {g} = {body.element(x, [s, n, j + i * hidden])};")
        if g in separate:
            body.line(f"float r{g} = 0.0f;")
    k = body.loop("k", hidden)
    for i, g in enumerate(gates):
        body.line(f"{'r' if g in separate else ''}{g} += h[k] * {body.element(r, [k, j + i * hidden])};")
    body.close()


def _last(body: Body, roots: Sequence[ir.Value], outs: Sequence[Access], n: Index, hidden: int, threads: int) -> None:
    """The final states."""
    j = _units(body, hidden, threads)
    for name, root, out in zip("hc", roots[1:], outs[1:], strict=False):
        body.finish(root, [n, j], f"{name}[j]", [root], [out])
    body.close()


def _advance(body: Body, hidden: int, threads: int) -> None:
    """Ends a step: the new state takes the place of the old one when everybody has read that."""
    body.line(WAIT)
    _units(body, hidden, threads)
    body.line("h[j] = next[j];")
    body.close()
    body.line(WAIT)
    body.close()


def _recurrence(
    body: Body,
    op: ir.Op,
    roots: Sequence[ir.Value],
    outs: Sequence[Access],
    states: Sequence[tuple[str, ir.Value | None]],
    others: Sequence[str],
    cell: Cell,
) -> Launch:
    """What all recurrences share: states in threadgroup memory, the loop over steps, the final states.

    Args:
        states: names of states that last from step to step, with what they start from.
        others: names of arrays beside them.
    """
    steps, batch, _ = static(op.operands[0])  # type: ignore[arg-type]
    hidden = static(op.operands[1])[0]  # type: ignore[arg-type]
    threads = min(1024, 32 * math.ceil(hidden / 32))
    opening = ["    const int t = int(thread_index);"]
    if batch > 1:
        opening.append("    const int n = int(group_index);")
    n = index.variable("n", batch)
    for name in (*(name for name, _ in states), "next", *others):
        body.line(f"threadgroup float {name}[{hidden}];")
    for name, initial in states:
        _initial(body, initial, n, name, hidden, threads)
    body.line(WAIT)
    s = _steps(body, op, steps)
    j = _units(body, hidden, threads)
    cell(s, n, j)
    body.finish(roots[0], [s, n, j], "next[j]", roots[:1], outs[:1])
    body.close()
    _advance(body, hidden, threads)
    _last(body, roots, outs, n, hidden, threads)
    return Launch(batch, threads, _POSITIONS, tuple(opening))


def _squashed(body: Body, gates: str) -> None:
    for g in gates:
        body.line(f"{g} = 1.0f / (1.0f + exp(-{g}));")


def lstm(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Gates i, o, f, c in ONNX's order: ``c ← f·c + i·tanh(c̃)``, ``h ← o·tanh(c)``."""
    hidden = static(op.operands[1])[0]  # type: ignore[arg-type]
    h0, c0 = (*op.operands[2:], None, None)[:2]

    def cell(s: Index, n: Index, j: Index) -> None:
        _gates(body, op, s, n, j, hidden, "iofg")
        _squashed(body, "iof")
        body.line("c[j] = f * c[j] + i * precise::tanh(g);")
        body.line("next[j] = o * precise::tanh(c[j]);")

    return _recurrence(body, op, roots, outs, [("h", h0), ("c", c0)], (), cell)


def gru(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Gates z, r, h in ONNX's order: ``h ← (1 − z)·h̃ + z·h``; the reset acts before or behind the recurrent product."""
    x, r = op.operands[:2]
    assert x is not None
    assert r is not None
    hidden = static(r)[0]
    threads = min(1024, 32 * math.ceil(hidden / 32))
    bias, h0 = (*op.operands[2:], None, None)[:2]

    def late(s: Index, n: Index, j: Index) -> None:
        inner = body.element(bias, [j + 2 * hidden]) if bias is not None else "0.0f"
        _gates(body, op, s, n, j, hidden, "zrg", "g")
        _squashed(body, "zr")
        body.line(f"g = precise::tanh(g + r * (rg + {inner}));")
        body.line("next[j] = (1.0f - z) * g + z * h[j];")

    def early(s: Index, n: Index, j: Index) -> None:
        _gates(body, op, s, n, j, hidden, "zr")
        body.line("update[j] = 1.0f / (1.0f + exp(-z));")
        body.line("kept[j] = h[j] / (1.0f + exp(-r));")
        body.close()
        body.line(WAIT)
        j = _units(body, hidden, threads)
        body.line(f"float g = {body.element(x, [s, n, j + 2 * hidden])};")
        k = body.loop("k", hidden)
        body.line(f"g += kept[k] * {body.element(r, [k, j + 2 * hidden])};")
        body.close()
        body.line("next[j] = (1.0f - update[j]) * precise::tanh(g) + update[j] * h[j];")

    if op.attributes["linear_before_reset"]:
        return _recurrence(body, op, roots, outs, [("h", h0)], (), late)
    return _recurrence(body, op, roots, outs, [("h", h0)], ("kept", "update"), early)


def rnn(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """``h ← tanh(x + h · r)``."""
    hidden = static(op.operands[1])[0]  # type: ignore[arg-type]
    h0 = op.operands[2] if len(op.operands) > 2 else None

    def cell(s: Index, n: Index, j: Index) -> None:
        _gates(body, op, s, n, j, hidden, "g")
        body.line("next[j] = precise::tanh(g);")

    return _recurrence(body, op, roots, outs, [("h", h0)], (), cell)

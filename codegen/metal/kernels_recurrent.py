"""Recurrences: one threadgroup for each sequence of a batch, the hidden state in threadgroup memory.

The products with the inputs were made before for all steps; a thread computes the gates of its units at each step, and
waits for the others twice: before it overwrites the state that they read, and before it reads what they wrote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from codegen.metal import index
from codegen.metal.body import Access, Body, static
from codegen.metal.index import Index
from codegen.metal.launch import Launch
from compiler import ir

_POSITIONS = (
    ("uint", "thread_index", "thread_position_in_threadgroup"),
    ("uint", "group_index", "threadgroup_position_in_grid"),
)
_WAIT = "threadgroup_barrier(mem_flags::mem_threadgroup);"


def _start(body: Body, op: ir.Op) -> tuple[int, int, Index, Launch]:
    """Steps, hidden units, the sequence's index and the launch."""
    steps, batch, _ = static(op.operands[0])  # type: ignore[arg-type]
    hidden = static(op.operands[1])[0]  # type: ignore[arg-type]
    threads = min(1024, 32 * math.ceil(hidden / 32))
    opening = ["    const int t = int(thread_index);"]
    if batch > 1:
        opening.append("    const int n = int(group_index);")
    return steps, hidden, index.variable("n", batch), Launch(batch, threads, _POSITIONS, tuple(opening))


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


def _store(body: Body, value: str, where: Sequence[Index], root: ir.Value, out: Access) -> None:
    body.finish(root, where, value, root, out)


def _last(body: Body, roots: Sequence[ir.Value], outs: Sequence[Access], n: Index, hidden: int, threads: int) -> None:
    """The final states."""
    j = _units(body, hidden, threads)
    for name, root, out in zip("hc", roots[1:], outs[1:], strict=False):
        _store(body, f"{name}[j]", [n, j], root, out)
    body.close()


def lstm(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Gates i, o, f, c in ONNX's order: ``c ← f·c + i·tanh(c̃)``, ``h ← o·tanh(c)``."""
    steps, hidden, n, launch = _start(body, op)
    h0, c0 = (*op.operands[2:], None, None)[:2]
    for name in ("h", "c", "next"):
        body.line(f"threadgroup float {name}[{hidden}];")
    _initial(body, h0, n, "h", hidden, launch.threads)
    _initial(body, c0, n, "c", hidden, launch.threads)
    body.line(_WAIT)
    s = _steps(body, op, steps)
    j = _units(body, hidden, launch.threads)
    _gates(body, op, s, n, j, hidden, "iofg")
    for g in "iof":
        body.line(f"{g} = 1.0f / (1.0f + exp(-{g}));")
    body.line("c[j] = f * c[j] + i * precise::tanh(g);")
    body.line("next[j] = o * precise::tanh(c[j]);")
    _store(body, "next[j]", [s, n, j], roots[0], outs[0])
    body.close()
    _advance(body, hidden, launch.threads)
    _last(body, roots, outs, n, hidden, launch.threads)
    return launch


def gru(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """Gates z, r, h in ONNX's order: ``h ← (1 − z)·h̃ + z·h``; the reset acts before or behind the recurrent product."""
    steps, hidden, n, launch = _start(body, op)
    bias, h0 = (*op.operands[2:], None, None)[:2]
    late = op.attributes["linear_before_reset"]
    for name in ("h", "next") if late else ("h", "next", "kept", "update"):
        body.line(f"threadgroup float {name}[{hidden}];")
    _initial(body, h0, n, "h", hidden, launch.threads)
    body.line(_WAIT)
    s = _steps(body, op, steps)
    j = _units(body, hidden, launch.threads)
    inner = body.element(bias, [j + 2 * hidden]) if bias is not None else "0.0f"
    if late:
        _gates(body, op, s, n, j, hidden, "zrg", "g")
        for g in "zr":
            body.line(f"{g} = 1.0f / (1.0f + exp(-{g}));")
        body.line(f"g = precise::tanh(g + r * (rg + {inner}));")
        body.line("next[j] = (1.0f - z) * g + z * h[j];")
    else:
        _gates(body, op, s, n, j, hidden, "zr")
        body.line("update[j] = 1.0f / (1.0f + exp(-z));")
        body.line("kept[j] = h[j] / (1.0f + exp(-r));")
        body.close()
        body.line(_WAIT)
        j = _units(body, hidden, launch.threads)
        x, r = op.operands[:2]
        assert x is not None
        assert r is not None
        body.line(f"float g = {body.element(x, [s, n, j + 2 * hidden])};")
        k = body.loop("k", hidden)
        body.line(f"g += kept[k] * {body.element(r, [k, j + 2 * hidden])};")
        body.close()
        body.line("next[j] = (1.0f - update[j]) * precise::tanh(g) + update[j] * h[j];")
    _store(body, "next[j]", [s, n, j], roots[0], outs[0])
    body.close()
    _advance(body, hidden, launch.threads)
    _last(body, roots, outs, n, hidden, launch.threads)
    return launch


def rnn(body: Body, op: ir.Op, roots: Sequence[ir.Value], outs: Sequence[Access]) -> Launch:
    """``h ← tanh(x + h · r)``."""
    steps, hidden, n, launch = _start(body, op)
    h0 = op.operands[2] if len(op.operands) > 2 else None
    for name in ("h", "next"):
        body.line(f"threadgroup float {name}[{hidden}];")
    _initial(body, h0, n, "h", hidden, launch.threads)
    body.line(_WAIT)
    s = _steps(body, op, steps)
    j = _units(body, hidden, launch.threads)
    _gates(body, op, s, n, j, hidden, "g")
    body.line("next[j] = precise::tanh(g);")
    _store(body, "next[j]", [s, n, j], roots[0], outs[0])
    body.close()
    _advance(body, hidden, launch.threads)
    _last(body, roots, outs, n, hidden, launch.threads)
    return launch


def _advance(body: Body, hidden: int, threads: int) -> None:
    """Ends a step: the new state takes the place of the old one when everybody has read that."""
    body.line(_WAIT)
    _units(body, hidden, threads)
    body.line("h[j] = next[j];")
    body.close()
    body.line(_WAIT)
    body.close()

"""When buffers live, which dispatches wait for others, and where everything lies."""

from __future__ import annotations

import math
from dataclasses import replace

from codegen.metal.program import Program
from passes import memory_plan


def schedule(program: Program) -> None:
    """Fills in what follows from the order of dispatches: lifetimes, waits, offsets."""
    _lifetimes(program)
    _waits(program)
    _pack(program)


def _lifetimes(program: Program) -> None:
    seen: set[int] = set()
    for step, d in enumerate(program.dispatches):
        for b in d.bindings:
            buffer = program.buffers[b.buffer]
            if b.buffer not in seen:
                seen.add(b.buffer)
                buffer.first = step
            buffer.last = step


def _waits(program: Program) -> None:
    """Marks the dispatches that must wait for those before them: a barrier stands in front of each."""
    read: set[int] = set()
    written: set[int] = set()
    for i, d in enumerate(program.dispatches):
        reads = {b.buffer for b in d.bindings if not b.writes}
        writes = {b.buffer for b in d.bindings if b.writes}
        # Parts of one joined buffer lie apart, so two writers of it need not wait for each other.
        wait = bool(reads & written or writes & read)
        if wait:
            read, written = set(), set()
        read |= reads
        written |= writes
        if d.wait != wait:
            program.dispatches[i] = replace(d, wait=wait)


def _pack(program: Program) -> None:
    """Gives scratch buffers their offsets in the heap, constants theirs in the weights file.

    Dispatches between two barriers run at the same time, so that a buffer lives from the first barrier interval that
    touches it to the last.
    """
    interval, count = [], -1
    for d in program.dispatches:
        count += d.wait or count < 0
        interval.append(count)
    scratch = program.of_kind("scratch")
    spans = [
        memory_plan.Span(program.buffers[i].size, interval[program.buffers[i].first], interval[program.buffers[i].last])
        for i in scratch
    ]
    offsets, program.heap = memory_plan.pack(spans) if spans else ([], 0)
    program.bound = memory_plan.lower_bound(spans) if spans else 0
    for i, at in zip(scratch, offsets, strict=True):
        program.buffers[i].offset = at
    at = 0
    for i in program.of_kind("constant"):
        program.buffers[i].offset = at
        at += math.ceil(program.buffers[i].size / memory_plan.ALIGNMENT) * memory_plan.ALIGNMENT

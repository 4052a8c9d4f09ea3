"""How kernels are started: threadgroups, threads, and what a thread calls itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from codegen.metal.access import Access, static
from codegen.metal.body import Body
from codegen.metal.index import Index
from compiler import ir

Array = np.ndarray[Any, Any]

#: Lets the threads of a threadgroup wait for one another.
WAIT = "threadgroup_barrier(mem_flags::mem_threadgroup);"

#: Threads in a threadgroup where a kernel's threads have nothing to do with one another: eight simdgroups.
INDEPENDENT = 256


@dataclass(frozen=True, slots=True)
class Launch:
    """How a kernel is started, and the lines with which it finds out which thread it is.

    Attributes:
        positions: parameters beside the buffers: type, name, attribute.
    """

    groups: int
    threads: int
    positions: tuple[tuple[str, str, str], ...]
    opening: tuple[str, ...]


def independent(total: int) -> Launch:
    """Threads ``i`` in ``0 … total - 1`` that have nothing to do with one another."""
    threads = min(INDEPENDENT, 32 * math.ceil(total / 32))
    groups = math.ceil(total / threads)
    opening = ["    const int i = int(thread_index);"]
    if groups * threads > total:
        opening.insert(0, f"    if (thread_index >= {total}) {{ return; }}")
    return Launch(groups, threads, (("uint", "thread_index", "thread_position_in_grid"),), tuple(opening))


@dataclass(frozen=True, slots=True)
class Packing:
    """How a kernel wants an operand that it loads as vectors.

    Attributes:
        name: tells packings of the same constant apart.
        shape: in vectors.
        pack: brings a constant into this form; None where row-major elements already have it.
    """

    name: str
    width: int
    shape: tuple[int, ...]
    pack: Callable[[Array], Array] | None


Packings = dict[ir.Value, Packing]


def operands(op: ir.Op) -> list[ir.Value]:
    """The operands that are there."""
    return [v for v in op.operands if v is not None]


def of_batch(v: ir.Value, block: Sequence[Index]) -> list[Index]:
    """The index into the batch of an operand, which broadcasts."""
    shape = static(v)[:-2]
    kept = block[: len(block) - 2][len(block) - 2 - len(shape) :]
    return [Index() if n == 1 else i for n, i in zip(shape, kept, strict=True)]


#: Writes the statements of one thread: the body, the anchor, what the kernel gives and where that goes.
Template = Callable[[Body, ir.Op, Sequence[ir.Value], Sequence[Access]], Launch]

"""Rows that come out the same to the bit, however many share a call.

onnxruntime computes a row of a batch in other ways as the number of rows changes, and what it adds in another order it
rounds otherwise. Three causes were found, on all models at hand, and there is a remedy for each:

1. One row is a case of its own: a matrix product of one row is another kernel (gemv), and a reduction drops the axis of
   the rows and adds along another. So one row is computed twice, in a call of two.
2. Threads share one product by columns or by rows as its shape suggests, and the length of its partial sums along K
   follows from a thread's columns. So a call has one thread; several calls of some rows each run side by side instead.
3. An element-wise function that the compiler of onnxruntime's vector code makes of packets has other code for what is
   left at the end (Log, Sin, Atan, Softplus on x86), so its value depends on where in the tensor an element stands,
   unless each row is a whole number of packets. Where one does, no rows share a call
   (:mod:`compiler.execution.packets`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Call = Callable[[Sequence[Array]], list[Array]]
Shapes = tuple[tuple[int, ...], ...]

#: Seconds of work below which another thread costs more than it saves.
_WORTH = 1e-3


class Rows:
    """Calls of any number of rows, made of calls that give each row the same bits.

    Args:
        inputs: the places of the inputs that have rows; the others are the same for all.
        call: computes several rows, or one where no rows may share a call; the former on one thread, and it may be
            called from several threads at once.
        apart: the operator, if there is one, for whose sake no rows may share a call on inputs of some shapes.
    """

    def __init__(self, inputs: Collection[int], call: Call, apart: Callable[[Shapes], str | None]) -> None:
        self._inputs, self._call, self._apart = inputs, call, apart
        self._seconds = 0.0

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """The outputs, each with as many rows in front as the inputs have."""
        count = len(inputs[next(iter(self._inputs))])
        if count == 0:
            return self._call(inputs)
        if self._apart(tuple(np.shape(a) for a in inputs)) is not None:
            return _joined([self._call(self._part(inputs, i, i + 1)) for i in range(count)])
        if count == 1:
            twice = [np.repeat(a, 2, 0) if k in self._inputs else a for k, a in enumerate(inputs)]
            return [out[:1] for out in self._call(twice)]
        start = perf_counter()
        cuts = self._cuts(count)
        parts = [self._part(inputs, a, b) for a, b in pairwise(cuts)]
        outputs = _joined(list(_pool().map(self._call, parts)) if len(parts) > 1 else [self._call(parts[0])])
        self._seconds = (perf_counter() - start) * len(parts) / count
        return outputs

    def shapes(self, shapes: Shapes, count: int) -> Shapes:
        """The shapes of inputs with ``count`` rows."""
        return tuple((count, *s[1:]) if k in self._inputs else s for k, s in enumerate(shapes))

    def _part(self, inputs: Sequence[Array], start: int, end: int) -> list[Array]:
        return [a[start:end] if k in self._inputs else a for k, a in enumerate(inputs)]

    def _cuts(self, count: int) -> list[int]:
        """Where the parts begin and end: one for each processor if that pays, two rows or more in each."""
        parts = min(processors(), count // 2) if count * self._seconds > _WORTH else 1
        return [count * i // parts for i in range(parts + 1)]


def _joined(parts: Sequence[Sequence[Array]]) -> list[Array]:
    return list(parts[0]) if len(parts) == 1 else [np.concatenate(one) for one in zip(*parts, strict=True)]


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def _pool() -> ThreadPoolExecutor:
    """This process's threads: a fork inherits none."""
    with _lock:
        if os.getpid() not in _pools:
            _pools[os.getpid()] = ThreadPoolExecutor(processors(), "rows")
        return _pools[os.getpid()]

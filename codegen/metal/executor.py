"""A program of Metal kernels on this machine's CPU: the same source, the same plan, one threadgroup after another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codegen.metal.library import Library
from codegen.metal.program import STORED, Dispatch, Program
from compiler.errors import UserError
from compiler.ir import dtype

Array = np.ndarray[Any, Any]

#: What memory holds before a kernel writes it: NaN as floats and halves, so that what nobody wrote shows.
_UNWRITTEN = 0xFF


class Session:
    """A program built for this machine, ready to run."""

    def __init__(self, program: Program, flags: Sequence[str] = ("-O2", "-march=native")) -> None:
        """Compiles the source, or takes what was built before from the cache.

        Raises:
            UnsupportedError: there is no compiler for it here; the remedy names the extra.
            BuildError: the compiler refuses the source.
        """
        self.program = program
        self._library = Library(program.source, flags=flags)

    def run(self, inputs: Mapping[str, Array], order: int = 0) -> dict[str, Array]:
        """The outputs by name, with the element types that the model declares.

        Args:
            order: in which order the threads of a threadgroup run; see :meth:`Library.run`.

        Raises:
            UserError: an input is missing or has another shape.
            DispatchError: a dispatch breaks a limit, or its threads do not meet where they must.
        """
        memory = self._memory(inputs)
        for d in self.program.dispatches:
            self._dispatch(d, memory, order)
        out = {}
        for i in self.program.of_kind("output"):
            b = self.program.buffers[i]
            out[b.name] = memory[i].astype(dtype(b.declared).numpy, copy=False)
        return out

    def trace(self, inputs: Mapping[str, Array]) -> list[Array]:
        """What each dispatch writes, in order: copies of whole buffers, joined ones as far as they are filled."""
        memory = self._memory(inputs)
        out = []
        for d in self.program.dispatches:
            self._dispatch(d, memory, 0)
            for b in d.bindings:
                if b.writes:
                    buffer = self.program.buffers[b.buffer]
                    array = memory[b.buffer].view(STORED[buffer.store])
                    out.append(array.reshape(buffer.shape).copy())
        return out

    def _memory(self, inputs: Mapping[str, Array]) -> list[Array]:
        program = self.program
        heap = np.full(max(program.heap, 1), _UNWRITTEN, np.uint8)
        memory: list[Array] = []
        for i, b in enumerate(program.buffers):
            stored = STORED[b.store]
            if b.kind == "input":
                memory.append(_given(inputs, b.name, b.shape, stored))
            elif b.kind == "constant":
                memory.append(program.constants[i])
            elif b.kind == "output":
                memory.append(np.full(b.size, _UNWRITTEN, np.uint8).view(stored).reshape(b.shape))
            else:
                memory.append(heap[b.offset : b.offset + b.size])
        return memory

    def _dispatch(self, d: Dispatch, memory: Sequence[Array], order: int) -> None:
        buffers: dict[int, Array | int] = {k: memory[b.buffer] for k, b in enumerate(d.bindings)}
        self._library.run(d.kernel, [d.groups], [d.threads], buffers, order=order)


def _given(inputs: Mapping[str, Array], name: str, shape: tuple[int, ...], stored: Any) -> Array:
    if name not in inputs:
        raise UserError(f"there is no array for input '{name}' (there are {', '.join(inputs) or 'none'})")
    array = np.asarray(inputs[name])
    if array.shape != shape:
        raise UserError(f"input '{name}' has shape {shape}, the array given for it {array.shape}")
    wide = array.dtype.kind in "iu" and stored is np.int32 and array.size > 0
    if wide and (int(array.max()) > 2**31 - 1 or int(array.min()) < -(2**31)):
        raise UserError(f"input '{name}' has values that 32-bit integers do not hold")
    return np.ascontiguousarray(array.astype(stored, copy=False))

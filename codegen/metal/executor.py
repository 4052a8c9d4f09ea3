"""A program of Metal kernels on this machine's CPU: the same source, the same plan, one threadgroup after another.

It runs in a process of its own, every buffer between guard pages, so that a kernel that leaves its buffers or its
arrays, or does not end, is found and named. A run in another order does all that the plan leaves open another way:
threads and threadgroups go backwards, and so do dispatches between two barriers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codegen.metal import apart
from codegen.metal.guard import guarded
from codegen.metal.library import DispatchError, Library
from codegen.metal.program import STORED, Buffer, Dispatch, Program
from compiler.errors import UserError
from compiler.ir import dtype

Array = np.ndarray[Any, Any]

#: What memory holds before a kernel writes it: NaN as floats and halves, so that what nobody wrote shows.
_UNWRITTEN = 0xFF

#: Bytes of buffers up to which runs in several orders go on at the same time.
_TOGETHER = 1 << 30

#: How kernels are compiled to run: an index outside an array of known size is a trap.
FLAGS = ("-O2", "-march=native", "-fsanitize=bounds", "-fsanitize-trap=all")


class Session:
    """A program built for this machine, ready to run."""

    def __init__(self, program: Program, flags: Sequence[str] = FLAGS) -> None:
        """Compiles the source, or takes what was built before from the cache.

        Raises:
            UnsupportedError: there is no compiler for it here; the remedy names the extra.
            BuildError: the compiler refuses the source.
        """
        self.program = program
        self._library = Library(program.source, program.variants, flags)

    def run(self, inputs: Mapping[str, Array], order: int = 0, seconds: int = apart.SECONDS) -> dict[str, Array]:
        """The outputs by name, with the element types that the model declares.

        Args:
            order: 0 runs threads, and dispatches that need not wait for one another, as they come, each buffer in
                memory of its own; 1 runs them in reverse and others shuffle threads with that seed, scratch buffers
                sharing the heap as the plan says.
            seconds: how long it may take.

        Raises:
            UserError: an input is missing or has another shape.
            DispatchError: a dispatch breaks a limit or leaves its buffers, its threads do not meet where they must,
                or it does not end.
        """
        (found,) = self.run_orders(inputs, (order,), seconds)
        return found

    def run_orders(
        self, inputs: Mapping[str, Array], orders: Sequence[int], seconds: int = apart.SECONDS
    ) -> list[dict[str, Array]]:
        """The outputs of a run in each order, see :meth:`run`; the runs go on at the same time where memory allows.

        Raises:
            UserError, DispatchError: as :meth:`run`.
        """
        given = self.given(inputs)
        told = [*self.program.of_kind("output"), *self.program.of_kind("count")]
        shapes = [(b.shape, STORED[b.store]) for b in (self.program.buffers[i] for i in told)]
        together = sum(b.size for b in self.program.buffers) <= _TOGETHER
        running: list[apart.Running] = []
        for order in orders:
            running.append(apart.Running(self._work(given, told, order), shapes, seconds))
            if not together:
                running[-1].wait()
        for r in running:
            r.wait()
        return [self._named(dict(zip(told, self._results(r), strict=True))) for r in running]

    def _work(self, given: Mapping[int, Array], told: Sequence[int], order: int) -> apart.Work:
        program = self.program

        def work(announce: Any) -> list[Array]:
            memory = self._scattered(given) if order == 0 else self._as_planned(given)
            for step in self._steps(order):
                announce(step)
                d = program.dispatches[step]
                self._dispatch(d, [memory(b.buffer, step) for b in d.bindings], order)
            end = len(program.dispatches)
            return [_seen(memory(i, end), program.buffers[i]) for i in told]

        return work

    def _named(self, found: Mapping[int, Array]) -> dict[str, Array]:
        """Outputs by name, as many rows as hold something, as the model declares them."""
        out = {}
        for i, array in found.items():
            b = self.program.buffers[i]
            if b.kind == "output":
                rows = array if b.rows < 0 else array[: int(found[b.rows][0])]
                out[b.name] = rows.astype(dtype(b.declared).numpy, copy=False)
        return out

    def trace(self, inputs: Mapping[str, Array]) -> list[Array]:
        """What each dispatch writes, in order: copies of whole buffers, joined ones as far as they are filled.

        Raises:
            UserError, DispatchError: as :meth:`run`.
        """
        program, given = self.program, self.given(inputs)
        written = [program.buffers[b.buffer] for d in program.dispatches for b in d.bindings if b.writes]

        def work(announce: Any) -> list[Array]:
            memory = self._as_planned(given)
            out = []
            for step, d in enumerate(program.dispatches):
                announce(step)
                own = [memory(b.buffer, step) for b in d.bindings]
                self._dispatch(d, own, 0)
                for b, array in zip(d.bindings, own, strict=True):
                    if b.writes:
                        buffer = program.buffers[b.buffer]
                        out.append(_seen(array, buffer).copy())
            return out

        return self._results(apart.Running(work, [(b.shape, STORED[b.store]) for b in written]))

    def _results(self, running: apart.Running) -> list[Array]:
        """Results of work in a process of its own; where it crashed, the dispatch that did."""
        try:
            return running.results()
        except apart.CrashError as e:
            raise DispatchError(f"{self.program.dispatches[e.step].kernel}: {e}") from None
        except apart.FailedError as e:
            raise DispatchError(str(e)) from None

    def given(self, inputs: Mapping[str, Array]) -> dict[int, Array]:
        """What input and constant buffers hold, by index."""
        program = self.program
        out = {}
        for i in program.of_kind("input"):
            b = program.buffers[i]
            array = _checked(inputs, b.name, b.shape, STORED[b.store])
            out[i] = _texture(array, b.pixels) if b.pixels else array
        return {**out, **{i: program.constants[i] for i in program.of_kind("constant")}}

    def _steps(self, order: int) -> list[int]:
        """Dispatches in the order in which they run: within one barrier interval, any will do."""
        if order == 0:
            return list(range(len(self.program.dispatches)))
        intervals: list[list[int]] = []
        for i, d in enumerate(self.program.dispatches):
            if d.wait or not intervals:
                intervals.append([])
            intervals[-1].append(i)
        return [i for interval in intervals for i in reversed(interval)]

    def _scattered(self, given: Mapping[int, Array]) -> Any:
        """Memory where each buffer lies alone before a guard page, from its first dispatch to its last."""
        alive: dict[int, Array] = {}
        buffers = self.program.buffers

        def memory(buffer: int, step: int) -> Array:
            for i in [i for i in alive if buffers[i].last < step and buffers[i].kind not in ("output", "count")]:
                del alive[i]
            if buffer not in alive:
                alive[buffer] = _alone(_bytes(buffers[buffer]), given.get(buffer), at_end=True)
            return alive[buffer]

        return memory

    def _as_planned(self, given: Mapping[int, Array]) -> Any:
        """Memory with scratch buffers in one heap; the heap and every other buffer lie behind a guard page."""
        heap = guarded(max(self.program.heap, 1), at_end=False, fill=_UNWRITTEN)
        alive: dict[int, Array] = {}

        def memory(buffer: int, step: int) -> Array:
            b = self.program.buffers[buffer]
            if b.kind == "scratch":
                return heap[b.offset : b.offset + b.size]
            if buffer not in alive:
                alive[buffer] = _alone(_bytes(b), given.get(buffer), at_end=False)
            return alive[buffer]

        return memory

    def _dispatch(self, d: Dispatch, memory: Sequence[Array], order: int) -> None:
        buffers, textures = [], []
        for b, own in zip(d.bindings, memory, strict=True):
            what = self.program.buffers[b.buffer]
            if what.pixels:
                textures.append(own.view(np.float32).reshape(*what.shape[2:], 4))
            else:
                buffers.append(own)
        slots = dict(enumerate(buffers))
        self._library.run(d.kernel, [d.groups], [d.threads], slots, textures=dict(enumerate(textures)), order=order)


def _texture(planes: Array, pixels: str) -> Array:
    """Planes [1, n, height, width] from 0 to 255 as a texture has them: red, green, blue, alpha from 0 to 1."""
    _, n, height, width = planes.shape
    out = np.ones((height, width, 4), np.float32)
    out[..., :n] = planes[0, :: -1 if pixels == "BGR" else 1].transpose(1, 2, 0) / np.float32(255)
    return out


def _seen(memory: Array, buffer: Buffer) -> Array:
    """What the caller gets of a buffer: its elements, or the planes of a texture from 0 to 255."""
    if not buffer.pixels:
        return memory.view(STORED[buffer.store]).reshape(buffer.shape)
    _, n, height, width = buffer.shape
    pixels = memory.view(np.float32).reshape(height, width, 4)[..., :n] * np.float32(255)
    return pixels[..., :: -1 if buffer.pixels == "BGR" else 1].transpose(2, 0, 1)[None]


def _bytes(buffer: Buffer) -> int:
    """What a buffer takes here, where a texture has four floats for each pixel."""
    return 16 * buffer.shape[2] * buffer.shape[3] if buffer.pixels else buffer.size


def _alone(size: int, content: Array | None, at_end: bool) -> Array:
    memory = guarded(size if content is None else content.nbytes, at_end, _UNWRITTEN)
    if content is not None:
        memory[:] = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
    return memory


def _checked(inputs: Mapping[str, Array], name: str, shape: tuple[int, ...], stored: Any) -> Array:
    if name not in inputs:
        raise UserError(f"there is no array for input '{name}' (there are {', '.join(inputs) or 'none'})")
    array = np.asarray(inputs[name])
    if array.shape != shape:
        raise UserError(f"input '{name}' has shape {shape}, the array given for it {array.shape}")
    wide = array.dtype.kind in "iu" and stored is np.int32 and array.size > 0
    if wide and (int(array.max()) > 2**31 - 1 or int(array.min()) < -(2**31)):
        raise UserError(f"input '{name}' has values that 32-bit integers do not hold")
    return np.ascontiguousarray(array.astype(stored, copy=False))

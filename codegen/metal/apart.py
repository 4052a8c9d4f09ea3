"""Work in a forked process that may crash or hang; its results come back through shared memory."""

from __future__ import annotations

import faulthandler
import mmap
import os
import resource
import signal
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

#: Seconds that a run may take.
SECONDS = 900

_HEADER = 8192

#: What a signal that ended the process says about what ran in it.
_SIGNALS = {
    signal.SIGSEGV: "reads or writes outside its buffers",
    signal.SIGBUS: "reads or writes outside its buffers",
    signal.SIGILL: "reads or writes outside an array of its own",
    signal.SIGTRAP: "reads or writes outside an array of its own",
    signal.SIGFPE: "divides an integer by zero",
    signal.SIGALRM: "does not end",
}


class CrashError(Exception):
    """The process was ended by a signal. ``step`` is the last that it announced; the message says what it did."""

    def __init__(self, step: int, what: str) -> None:
        super().__init__(what)
        self.step = step


class FailedError(Exception):
    """The work raised; the message is the exception's."""


#: Gets a function that announces the next step, and gives the results.
Work = Callable[[Callable[[int], None]], Sequence[Array]]


class Running:
    """Work in a process of its own, from when it is made."""

    def __init__(self, work: Work, shapes: Sequence[tuple[tuple[int, ...], Any]], seconds: int = SECONDS) -> None:
        """Starts it.

        Args:
            shapes: shape and element type of every result.
            seconds: how long it may take.
        """
        sizes = [int(np.prod(s, dtype=np.int64)) * np.dtype(t).itemsize for s, t in shapes]
        padded = [-(-n // 64) * 64 for n in sizes]
        shared = mmap.mmap(-1, _HEADER + sum(padded))
        self._step = np.frombuffer(shared, np.int64, 2)
        self._text = np.frombuffer(shared, np.uint8, _HEADER - 16, 16)
        self._places, at = [], _HEADER
        for (shape, dtype), n, p in zip(shapes, sizes, padded, strict=True):
            self._places.append(np.frombuffer(shared, np.uint8, n, at).view(dtype).reshape(shape))
            at += p
        self._child = os.fork()
        if self._child == 0:
            _serve(work, self._step, self._text, self._places, seconds)
        self._status: int | None = None

    def wait(self) -> None:
        """Waits until it has ended, however it does."""
        if self._status is None:
            self._status = os.waitpid(self._child, 0)[1]

    def results(self) -> list[Array]:
        """What it gives, once it has ended.

        Raises:
            CrashError, FailedError: see there.
        """
        self.wait()
        assert self._status is not None
        if os.WIFSIGNALED(self._status):
            number = os.WTERMSIG(self._status)
            what = _SIGNALS.get(signal.Signals(number), f"ends the process with {signal.Signals(number).name}")
            raise CrashError(int(self._step[0]), what)
        if os.WEXITSTATUS(self._status):
            said = self._text[: int(self._step[1])].tobytes().decode(errors="replace")
            raise FailedError(said or "the process ended")
        return [p.copy() for p in self._places]


def _serve(work: Work, step: Array, text: Array, places: Sequence[Array], seconds: int) -> None:
    """What the child does; it never returns."""
    status = 1
    try:
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(seconds)

        def announce(n: int) -> None:
            step[0] = n

        for place, array in zip(places, work(announce), strict=True):
            place[...] = array
        status = 0
    except BaseException as e:  # whatever it is belongs to the parent
        said = str(e).encode()[: len(text)]
        text[: len(said)] = np.frombuffer(said, np.uint8)
        step[1] = len(said)
    finally:
        os._exit(status)

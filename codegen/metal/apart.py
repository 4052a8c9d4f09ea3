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


def run(work: Work, shapes: Sequence[tuple[tuple[int, ...], Any]], seconds: int = SECONDS) -> list[Array]:
    """Results of ``work``, which runs in a process of its own.

    Args:
        shapes: shape and element type of every result.
        seconds: how long it may take.

    Raises:
        CrashError, FailedError: see there.
    """
    sizes = [int(np.prod(s, dtype=np.int64)) * np.dtype(t).itemsize for s, t in shapes]
    padded = [-(-n // 64) * 64 for n in sizes]
    shared = mmap.mmap(-1, _HEADER + sum(padded))
    step = np.frombuffer(shared, np.int64, 2)
    text = np.frombuffer(shared, np.uint8, _HEADER - 16, 16)
    places, at = [], _HEADER
    for (shape, dtype), n, p in zip(shapes, sizes, padded, strict=True):
        places.append(np.frombuffer(shared, np.uint8, n, at).view(dtype).reshape(shape))
        at += p
    child = os.fork()
    if child == 0:
        _serve(work, step, text, places, seconds)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        what = _SIGNALS.get(signal.Signals(number), f"ends the process with {signal.Signals(number).name}")
        raise CrashError(int(step[0]), what)
    if os.WEXITSTATUS(status):
        raise FailedError(text[: int(step[1])].tobytes().decode(errors="replace") or "the process ended")
    return [p.copy() for p in places]


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

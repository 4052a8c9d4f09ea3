"""onnxruntime in a process of its own, for models that may bring it down: those that proofs make up.

onnxruntime ends the process on some models (a check that fails inside a kernel, a division by zero), and never ends on
others. Here it runs in a worker that is forked once and serves until it dies; then the next model gets another.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from compiler import ir
from compiler.execution.evaluate import EvaluationError, from_ort, is_exotic, reason_of, to_ort
from compiler.export import Export

Array = np.ndarray[Any, Any]

#: Seconds that a model may take to load and run. Those of proofs take milliseconds.
SECONDS = 20.0


#: Bytes of memory of its own that a process may have: shapes that are made up can be of any size.
MEMORY = 4 << 30


class CrashError(EvaluationError):
    """onnxruntime brought its process down, or did not come back."""


def run(
    function: ir.Function, inputs: Mapping[str, Array], extra: Sequence[ir.Value] = (), *, seconds: float = SECONDS
) -> list[Array]:
    """Runs a function once, every operator computed as it stands, in one thread.

    Args:
        inputs: an array for every input, of its element type.
        extra: values of the function's own block to give out after its outputs.
        seconds: how long it may take.

    Returns:
        The outputs in order, then the extra values.

    Raises:
        UnsupportedError: the function holds operators that are not ONNX's.
        EvaluationError: onnxruntime refuses the model or fails.
        CrashError: it crashed, or took too long.
    """
    export = Export(function, extra)
    types = [*(a.type for a in function.inputs), *(v.type for v in (*function.outputs, *extra))]
    feeds = {a.name: inputs[a.name] for a in function.inputs}
    request = (export.model.SerializeToString(), export.output_names, feeds, any(map(is_exotic, types)))
    return _worker().run(request, seconds)


class _Worker:
    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.connection), daemon=True)
        self.process.start()
        theirs.close()

    def run(self, request: tuple[bytes, list[str], dict[str, Array], bool], seconds: float) -> list[Array]:
        try:
            self.connection.send(request)
            if not self.connection.poll(seconds):
                self.stop()
                raise CrashError(f"onnxruntime did not come back within {seconds:g} s")
            answer = self.connection.recv()
        except (EOFError, ConnectionError):
            self.stop()
            raise CrashError(f"onnxruntime brought its process down ({self._ending()})") from None
        if isinstance(answer, str):
            raise EvaluationError(answer)
        return list(answer)

    def _ending(self) -> str:
        code = self.process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"

    def stop(self) -> None:
        self.process.join(0.5)
        self.process.kill()
        self.process.join()
        self.connection.close()


#: The worker of each process: a fork of a process that has one gets its own.
_workers: dict[int, _Worker] = {}


def _worker() -> _Worker:
    """This process's worker."""
    own = _workers.get(os.getpid())
    if own is None or own.connection.closed:
        for inherited in _workers.values():
            inherited.connection.close()
        _workers.clear()
        own = _workers[os.getpid()] = _Worker()
    return own


def limit_memory() -> None:
    """From here on this process gets a MemoryError rather than all the memory there is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    within = [n for n in (MEMORY, soft, hard) if n != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(within), hard))


def _serve(connection: Connection, other: Connection) -> None:
    """Answers requests with results or with what is wrong, until the other side is gone."""
    other.close()
    faulthandler.disable()
    limit_memory()
    with contextlib.suppress(OSError):  # what a library writes before it aborts is not for the user
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for as long as the process lives)
    while True:
        try:
            model, outputs, feeds, exotic = connection.recv()
        except EOFError:
            return
        try:
            connection.send(_run(model, outputs, feeds, exotic))
        except Exception as e:  # onnxruntime has a class for each status, with no common base
            connection.send(f"onnxruntime cannot run the model: {reason_of(e)}")


def _run(model: bytes, outputs: list[str], feeds: dict[str, Array], exotic: bool) -> list[Array]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if not exotic:
        return list(session.run(outputs, feeds))
    return [from_ort(v) for v in session.run_with_ort_values(outputs, {n: to_ort(a) for n, a in feeds.items()})]

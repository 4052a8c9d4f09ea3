"""The server: one frame in, one frame out, in order, until the stream ends."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, BinaryIO

import numpy as np

from compiler.errors import PlanishError, UserError
from compiler.execution.evaluate import EvaluationError
from compiler.serving import frames
from compiler.serving.frames import EndOfStreamError, FrameError
from compiler.serving.loaded import Loaded

Array = np.ndarray[Any, Any]

#: The version of the protocol, which the first frame says.
PROTOCOL = 1

#: What a request may hold.
_KEYS = {"predict": {"state", "tensors"}, "open_state": set[str](), "close_state": {"state"}}


class Server:
    """Answers requests for one package over a pair of streams.

    Every frame that comes gets one reply, in the order in which they come. A frame that cannot be served costs a reply
    that says why; what an earlier frame did wrong never touches a later one.
    """

    def __init__(self, loaded: Loaded, source: BinaryIO, sink: int, most: int = frames.MOST) -> None:
        """
        Args:
            source: where requests come from.
            sink: the file descriptor that replies go to.
            most: the most bytes of a request.
        """
        self._loaded, self._source, self._sink, self._most = loaded, source, sink, most

    def run(self) -> None:
        """Serves until the stream ends between two frames.

        Raises:
            EndOfStreamError: it ends within one; a reply has said so.
            BrokenPipeError: nobody reads the replies any more.
        """
        self._reply({"ready": PROTOCOL, "description": self._loaded.description.to_json()})
        while True:
            number: int | str | None = None
            try:
                payload = frames.read(self._source, self._most)
                if payload is None:
                    return
                header, data = frames.header_of(payload)
                number = _id(header)
                self._serve(number, header, data)
            except EndOfStreamError as e:
                self._reply(_error(number, "frame", e))
                raise
            except FrameError as e:
                self._reply(_error(number, "frame", e))
            except EvaluationError as e:
                self._reply(_error(number, "evaluation", e))
            except PlanishError as e:
                self._reply(_error(number, "request", e))
            except MemoryError:
                self._reply(_error(number, "memory", UserError("not enough memory", "a smaller request")))

    def _serve(self, number: int | str | None, header: Mapping[str, Any], data: memoryview) -> None:
        tensors = frames.tensors_of(header, data)
        op = header.get("op", "predict")
        if not isinstance(op, str) or op not in _KEYS:
            raise UserError(f"there is no request {op!r}", f"one of {', '.join(_KEYS)}")
        for key in header:
            if key not in _KEYS[op] | {"id", "op"}:
                raise UserError(f"a request '{op}' has no '{key}'")
        state = header.get("state")
        if state is not None and type(state) is not int:
            raise UserError(f"'state' is {state!r}, not the number of a state")
        if op == "open_state":
            self._reply({"id": number, "state": self._loaded.open_state()})
        elif op == "close_state":
            if state is None:
                raise UserError("close_state does not say which 'state'")
            self._loaded.close_state(state)
            self._reply({"id": number})
        else:
            start = perf_counter()
            outputs = self._loaded.run(tensors, state)
            self._reply({"id": number, "seconds": round(perf_counter() - start, 7)}, outputs)

    def _reply(self, header: Mapping[str, Any], tensors: Mapping[str, Array] | None = None) -> None:
        _write(self._sink, frames.encode(header, tensors or {}))


def _id(header: Mapping[str, Any]) -> int | str | None:
    """What the client calls its request; comes back in the reply."""
    number = header.get("id")
    if number is not None and type(number) is not int and not (isinstance(number, str) and len(number) <= 64):
        raise FrameError("'id' is neither an integer nor a string of at most 64 characters")
    return number


def _error(number: int | str | None, kind: str, error: PlanishError) -> dict[str, Any]:
    said = {"kind": kind, "message": error.message}
    if error.remedy:
        said["remedy"] = error.remedy
    return {"id": number, "error": said}


def _write(sink: int, pieces: Sequence[memoryview]) -> None:
    for piece in pieces:
        while piece:
            piece = piece[os.write(sink, piece) :]

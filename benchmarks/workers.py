"""Processes that answer requests, one JSON line each, and may die or hang without harm."""

from __future__ import annotations

import json
import queue
import select
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

Answer = dict[str, Any]


class Worker:
    """A process that reads a request from its standard input and writes an answer to its standard output."""

    def __init__(self, command: Sequence[str], timeout: float, environment: dict[str, str] | None = None) -> None:
        """
        Args:
            timeout: how many seconds an answer may take.
        """
        self._command = list(command)
        self._timeout = timeout
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the worker lives)

    def ask(self, request: dict[str, Any]) -> Answer:
        """The answer; ``status`` is ``crash`` where the process died or took too long."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            return self._dead("it died before it was asked")
        if not select.select([process.stdout], [], [], self._timeout)[0]:
            return self._dead(f"no answer within {self._timeout:.0f} s")
        line = process.stdout.readline()
        if not line:
            process.wait()
            return self._dead(f"the process died with code {process.returncode}")
        answer: Answer = json.loads(line)
        return answer

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        self._said.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env=self._environment,
            )
        return self._process

    def _dead(self, why: str) -> Answer:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").strip().splitlines()
        self._said.seek(0)
        self._said.truncate()
        return {"status": "crash", "why": f"{why}: {lines[-1]}" if lines else why}


def each(
    requests: Sequence[dict[str, Any]],
    make: Callable[[], Worker],
    count: int,
    done: Callable[[int, Answer], None],
) -> None:
    """Asks every request of one of ``count`` workers; ``done`` gets its number and its answer, one call at a time."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for i in range(len(requests)):
        waiting.put(i)
    lock = threading.Lock()
    failed: list[BaseException] = []

    def serve() -> None:
        worker = make()
        try:
            while not failed:
                try:
                    i = waiting.get_nowait()
                except queue.Empty:
                    return
                answer = worker.ask(requests[i])
                with lock:
                    done(i, answer)
        except BaseException as e:  # raised again below, by the caller's thread
            failed.append(e)
        finally:
            worker.close()

    threads = [threading.Thread(target=serve) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]

"""``planish serve`` as a process, and the least of a client: frames out, frames in."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from compiler.serving import frames

COMMAND = [sys.executable, "-c", "from compiler.cli import planish_main; planish_main()", "serve"]


class Client:
    """A server for a package, asked one frame at a time."""

    def __init__(self, package: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, str(package), *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def __enter__(self) -> Client:
        self.ready = self.receive()[0]
        assert self.ready["ready"] == 1
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.process.communicate()

    def send_bytes(self, data: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, header: dict[str, Any], tensors: dict[str, np.ndarray] | None = None) -> None:
        self.send_bytes(b"".join(map(bytes, frames.encode(header, tensors or {}))))

    def receive(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """A reply: decoded here, not by the server's own code."""
        stream = self.process.stdout
        assert stream
        (total,) = struct.unpack("<I", stream.read(4))
        payload = stream.read(total)
        (length,) = struct.unpack("<I", payload[:4])
        header = json.loads(payload[4 : 4 + length])
        at = 4 + length
        out: dict[str, Any] = {}
        for one in header.get("tensors", []):
            if one["dtype"] == "string":
                out[one["name"]] = one["values"]
                continue
            dtype = np.dtype({"f16": "<f2", "f32": "<f4", "f64": "<f8", "i32": "<i4"}[one["dtype"]])
            size = int(np.prod(one["shape"])) * dtype.itemsize
            out[one["name"]] = np.frombuffer(payload[at : at + size], dtype).reshape(one["shape"])
            at += size
        assert at == len(payload)
        return header, out

    def ask(self, header: dict[str, Any], **tensors: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
        self.send(header, tensors)
        return self.receive()

    def end(self) -> tuple[int, bytes, str]:
        """Closes the server's input: its exit code, what it still said, and its errors."""
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err.decode()

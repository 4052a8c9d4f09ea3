"""Frames: how requests and replies with tensors are bytes on a pipe.

A frame is a length and that many bytes; those are the length of a header, the header in JSON, and the elements of the
tensors that it lists, one after the other: ``u32 n · u32 h · h bytes of JSON · n - 4 - h bytes of elements``. Numbers
are little-endian, elements row-major. docs/serve.md has it for those who write a client.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from compiler.errors import UserError

Array = np.ndarray[Any, Any]

#: Element types by their names in headers, little-endian.
DTYPES: dict[str, Any] = {
    "bool": np.dtype("?"),
    **{f"{k}{8 * n}": np.dtype(f"<{k}{n}") for k in "iu" for n in (1, 2, 4, 8)},
    **{f"f{8 * n}": np.dtype(f"<f{n}") for n in (2, 4, 8)},
}
_NAMES = {v: k for k, v in DTYPES.items()}

#: The most bytes that any frame can have behind its length, and that a header may have.
MOST = 2**32 - 1
MOST_HEADER = 1 << 20
#: NumPy's own limit on axes.
_MOST_AXES = 64
_SKIP = 1 << 20


class FrameError(UserError):
    """Bytes that are no frame, though where the next one begins is known."""


class EndOfStreamError(UserError):
    """The stream ends in the middle of a frame."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A header, and the tensors that it lists by their names."""

    header: dict[str, Any]
    tensors: dict[str, Array]


def read(stream: BinaryIO, most: int = MOST) -> memoryview | None:
    """What stands behind the next length; None where the stream ends before it.

    Raises:
        FrameError: it is longer than ``most`` bytes; they have been passed over.
        EndOfStreamError: the stream ends within it.
    """
    start = _exactly(stream, 4)
    if len(start) == 0:
        return None
    if len(start) < 4:
        raise EndOfStreamError(f"the stream ends after {len(start)} of 4 bytes of a length")
    (length,) = struct.unpack("<I", start)
    if length > most:
        _pass_over(stream, length)
        raise FrameError(f"a frame of {length:,} bytes is longer than the {most:,} that are allowed", "--max-frame MIB")
    payload = _exactly(stream, length)
    if len(payload) < length:
        raise EndOfStreamError(f"the stream ends after {len(payload):,} of {length:,} bytes of a frame")
    return payload


def _exactly(stream: BinaryIO, count: int) -> memoryview:
    # Memory of np.empty is touched only as bytes arrive: a length alone costs nothing.
    buffer = memoryview(np.empty(count, np.uint8))  # type: ignore[arg-type]  # mypy knows no buffers before 3.12
    filled = 0
    while filled < count:
        got = stream.readinto(buffer[filled:])  # type: ignore[attr-defined]  # all binary streams have it
        if not got:
            break
        filled += got
    return buffer[:filled]


def _pass_over(stream: BinaryIO, count: int) -> None:
    while count > 0:
        got = len(stream.read(min(count, _SKIP)))
        if got == 0:
            raise EndOfStreamError(f"the stream ends within a frame that is too long; {count:,} bytes are missing")
        count -= got


def header_of(payload: memoryview) -> tuple[dict[str, Any], memoryview]:
    """The header of a frame, and the bytes behind it.

    Raises:
        FrameError: there is no header there.
    """
    if len(payload) < 4:
        raise FrameError(f"a frame of {len(payload)} bytes has no room for the length of its header")
    (length,) = struct.unpack("<I", payload[:4])
    if length > min(len(payload) - 4, MOST_HEADER):
        raise FrameError(f"a header of {length:,} bytes does not fit into a frame of {len(payload):,}")
    try:
        header = json.loads(str(payload[4 : 4 + length], "utf-8"))
    except (ValueError, RecursionError) as e:
        raise FrameError(f"the header is not JSON in UTF-8: {e}") from None
    if not isinstance(header, dict):
        raise FrameError(f"the header is a JSON {_kind(header)}, not an object")
    return header, payload[4 + length :]


def tensors_of(header: Mapping[str, Any], data: memoryview) -> dict[str, Array]:
    """The tensors that a header lists: views into ``data``.

    Raises:
        FrameError: the list is not one, or does not account for ``data`` to the last byte.
    """
    listed = header.get("tensors", [])
    if not isinstance(listed, list):
        raise FrameError(f"'tensors' is a JSON {_kind(listed)}, not a list")
    out: dict[str, Array] = {}
    at = 0
    for i, one in enumerate(listed):
        name, dtype, shape = _entry(i, one)
        if name in out:
            raise FrameError(f"'tensors' lists '{name}' twice")
        size = math.prod(shape) * dtype.itemsize
        if size > len(data) - at:
            raise FrameError(f"tensor '{name}' has {size:,} bytes, and {len(data) - at:,} are left in the frame")
        out[name] = np.frombuffer(data[at : at + size], dtype).reshape(shape)
        at += size
    if at != len(data):
        raise FrameError(f"{len(data) - at:,} bytes are left behind the tensors that 'tensors' lists")
    return out


def _entry(index: int, one: Any) -> tuple[str, Any, tuple[int, ...]]:
    if not isinstance(one, dict):
        raise FrameError(f"entry {index} of 'tensors' is a JSON {_kind(one)}, not an object")
    name, dtype, shape = one.get("name"), one.get("dtype"), one.get("shape")
    if not isinstance(name, str):
        raise FrameError(f"entry {index} of 'tensors' has no name")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FrameError(f"tensor '{name}' has no known dtype", f"one of {', '.join(DTYPES)}")
    sizes = (
        isinstance(shape, list) and len(shape) <= _MOST_AXES and all(type(d) is int and 0 <= d < 2**40 for d in shape)
    )
    if not sizes or not isinstance(shape, list):
        raise FrameError(f"the shape of tensor '{name}' is not a list of sizes")
    return name, DTYPES[dtype], tuple(shape)


def encode(header: Mapping[str, Any], tensors: Mapping[str, Array]) -> list[memoryview]:
    """A frame as the pieces to write one after the other; text goes into the header.

    Raises:
        FrameError: it would be longer than any frame can be.
    """
    listed: list[dict[str, Any]] = []
    pieces = []
    for name, array in tensors.items():
        entry: dict[str, Any] = {"name": name, "shape": list(array.shape)}
        if array.dtype.kind in "UO":
            entry |= {"dtype": "string", "values": [str(v) for v in array.reshape(-1)]}
        else:
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
            entry["dtype"] = _NAMES[little.dtype]
            if little.size:
                pieces.append(memoryview(little.reshape(-1).view(np.uint8)))  # type: ignore[arg-type]  # as above
        listed.append(entry)
    head = json.dumps({**header, "tensors": listed} if tensors else header, ensure_ascii=False).encode()
    total = 4 + len(head) + sum(len(p) for p in pieces)
    if total > MOST:
        raise FrameError(f"the reply has {total:,} bytes, more than a frame can have")
    return [memoryview(struct.pack("<II", total, len(head)) + head), *pieces]


def _kind(value: Any) -> str:
    kinds = {"NoneType": "null", "list": "list", "dict": "object", "str": "string", "bool": "boolean"}
    return kinds.get(type(value).__name__, "number")

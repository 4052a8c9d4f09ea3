"""Where the weights are: in the message, cut out of the file, or in files beside it. None is copied."""

from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto

from compiler.dialects import onnx_proto
from compiler.dialects.onnx_proto import ProtoError
from compiler.errors import UserError
from compiler.frontend.wire import SLICE_KEY

Array = np.ndarray[Any, Any]


def map_file(path: Path) -> memoryview:
    """The bytes of a file, memory-mapped; the map lives as long as a view of it.

    Raises:
        OSError: it cannot be opened or is no regular file.
    """
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return memoryview(b"")
        whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        _MAPS.add(whole)
        return memoryview(whole)


#: The maps that are alive.
_MAPS: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()


def let_go() -> None:
    """Gives back the memory that mapped files take, until they are read again. For when they have been read through."""
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
        for whole in _MAPS:
            whole.madvise(mmap.MADV_DONTNEED)


class Weights:
    """Reads tensors: those that :func:`compiler.frontend.wire.strip` cut out, external ones, and all others."""

    def __init__(self, source: str, folder: Path | None, slices: list[memoryview]) -> None:
        """``source`` names the model in errors; external data lies under ``folder``, or nowhere if that is None."""
        self._source = source
        self._folder = folder
        self._slices = slices
        self._files: dict[str, memoryview] = {}

    def read(self, tensor: TensorProto) -> Array:
        """The array a message stands for, as a view of the file wherever its elements are whole bytes.

        Raises:
            ProtoError: it makes no sense.
            UserError: it lies in a file that is missing, too short, or outside the model's folder.
        """
        if tensor.data_location != TensorProto.EXTERNAL:
            return onnx_proto.array_from_proto(tensor)
        entries = {e.key: e.value for e in tensor.external_data}
        number = entries.get(SLICE_KEY)
        if number is None:
            data = self._external(tensor, entries)
        elif number.isdecimal() and int(number) < len(self._slices):
            data = self._slices[int(number)]
        else:
            raise ProtoError("refers to data that is not there")
        dtype = onnx_proto.element_type(tensor.data_type)
        if any(d < 0 for d in tensor.dims):
            raise ProtoError(f"has the shape {list(tensor.dims)}")
        if dtype.name == "string":
            raise ProtoError("holds strings as raw bytes")
        return onnx_proto.array_from_bytes(data, dtype, tuple(tensor.dims))

    def _external(self, tensor: TensorProto, entries: dict[str, str]) -> memoryview:
        location = entries.get("location", "")
        file = self._open(location, tensor.name)
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries["length"]) if "length" in entries else self._size(tensor)
        except ValueError:
            raise ProtoError("has an offset or length that is no number") from None
        if offset < 0 or length < 0 or offset + length > len(file):
            raise UserError(
                f"{self._source}: the weight '{tensor.name}' lies at bytes {offset} to {offset + length} of "
                f"'{location}', which has {len(file)}",
                "get the whole file again",
            )
        return file[offset : offset + length]

    @staticmethod
    def _size(tensor: TensorProto) -> int:
        count = 1
        for d in tensor.dims:
            count *= d
        return (count * onnx_proto.element_type(tensor.data_type).bits + 7) // 8

    def _open(self, location: str, name: str) -> memoryview:
        if location in self._files:
            return self._files[location]
        if self._folder is None:
            raise UserError(
                f"{self._source}: the weight '{name}' lies in the file '{location}', and a model given as bytes has "
                "no folder to look in",
                "give the model's path",
            )
        folder = self._folder.resolve()
        outside = UserError(
            f"{self._source}: the weight '{name}' lies in '{location}', outside the model's folder",
            "keep a model's files in one folder, and save it with locations relative to it",
        )
        if not location or "\0" in location or "\\" in location or Path(location).is_absolute():
            raise outside
        path = (folder / location).resolve()
        if not path.is_relative_to(folder):
            raise outside
        try:
            data = map_file(path)
        except OSError as e:
            raise UserError(
                f"{self._source}: the weight '{name}' lies in '{location}', which cannot be read ({e.strerror})",
                f"put {location} beside the model",
            ) from None
        self._files[location] = data
        return data

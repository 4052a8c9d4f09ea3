"""A program of Metal kernels: one source, the buffers that it works on, and the dispatches in order.

As JSON it is ``plan.json`` of a package; :mod:`codegen.metal.package` has the files beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from compiler import ir

#: Integers that are stored as they are, four bits in the half of a byte; wider ones have 32 bits.
_BYTES = {"i8": "char", "u8": "uchar", "i4": "uchar", "u4": "uchar"}

Array = np.ndarray[Any, Any]
Kind = Literal["input", "output", "constant", "scratch", "count"]

#: Elements in buffers: the MSL type, and NumPy's.
STORED = {
    "float": np.float32,
    "half": np.float16,
    "int": np.int32,
    "bool": np.bool_,
    "char": np.int8,
    "uchar": np.uint8,
}


@dataclass(slots=True)
class Buffer:
    """Elements of one type, row-major.

    Attributes:
        name: of the function's input or output, or a hint.
        kind: who fills it: the caller, a kernel for the caller, the weights file, a kernel for another, or a kernel
            that says how many rows of an output hold something.
        store: the MSL type of its elements.
        declared: the element type of the input or output as the model has it, for the caller to convert.
        offset: in bytes: of constants in the weights file, of scratch buffers in the heap.
        first, last: of a scratch buffer: the dispatches that write it first and read it last.
        pixels: of an input or output that is a texture: what its planes are, RGB, BGR or GRAYSCALE, from 0 to 255.
        rows: the buffer whose one element says how many rows hold something; -1 where all do.
    """

    name: str
    kind: Kind
    store: str
    shape: tuple[int, ...]
    declared: str = ""
    offset: int = 0
    first: int = 0
    last: int = 0
    rows: int = -1
    pixels: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * np.dtype(STORED[self.store]).itemsize


@dataclass(frozen=True, slots=True)
class Binding:
    """A buffer of the program at an index of a kernel's, read or written."""

    buffer: int
    writes: bool = False


@dataclass(frozen=True, slots=True)
class Constant:
    """The value of a function constant, an ``int``, by its name in the source and its index."""

    name: str
    index: int
    value: int


@dataclass(frozen=True, slots=True)
class Variant:
    """The function of the source that a kernel is, and what its function constants are."""

    function: str
    constants: tuple[Constant, ...]


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One kernel: how many threadgroups of how many threads, and on which buffers.

    Attributes:
        kernel: the function of the source, or the name of a variant of one.
        work: multiplications with additions, and bytes read and written, for estimates.
        nodes: the model's nodes that it computes.
        wait: whether a dispatch since the last wait writes what this one reads, or reads or writes what it writes.
    """

    kernel: str
    groups: int
    threads: int
    bindings: tuple[Binding, ...]
    kind: str
    nodes: tuple[str, ...] = ()
    macs: int = 0
    bytes: int = 0
    wait: bool = True
    variant: Variant | None = None

    @property
    def function(self) -> str:
        """The function of the source."""
        return self.kernel if self.variant is None else self.variant.function


@dataclass(slots=True)
class Program:
    """What a package holds.

    Attributes:
        heap: bytes of the heap that scratch buffers share.
        bound: the most bytes of scratch that are alive at once; no heap is smaller.
        constants: arrays of the constant buffers, by the index of the buffer; empty once they are in a file.
    """

    name: str
    source: str
    buffers: list[Buffer] = field(default_factory=list)
    dispatches: list[Dispatch] = field(default_factory=list)
    heap: int = 0
    bound: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    constants: dict[int, Array] = field(default_factory=dict)

    @property
    def kernels(self) -> int:
        """How many different kernels are dispatched: pipelines that a GPU makes."""
        return len({d.kernel for d in self.dispatches})

    @property
    def functions(self) -> int:
        """How many functions of the source these are."""
        return len({d.function for d in self.dispatches})

    @property
    def variants(self) -> dict[str, Variant]:
        """The kernels that are variants of a function, by name."""
        return {d.kernel: d.variant for d in self.dispatches if d.variant is not None}

    def of_kind(self, kind: Kind) -> list[int]:
        """Indices of the buffers of a kind, in order."""
        return [i for i, b in enumerate(self.buffers) if b.kind == kind]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": 1,
            "name": self.name,
            "heap": self.heap,
            "bound": self.bound,
            "metadata": self.metadata,
            "buffers": [asdict(b) for b in self.buffers],
            "dispatches": [asdict(d) for d in self.dispatches],
        }

    @staticmethod
    def from_json(data: dict[str, Any], source: str) -> Program:
        buffers = [Buffer(**{**b, "shape": tuple(b["shape"])}) for b in data["buffers"]]
        dispatches = [
            Dispatch(
                **{
                    **d,
                    "bindings": tuple(Binding(**b) for b in d["bindings"]),
                    "nodes": tuple(d["nodes"]),
                    "variant": _variant(d.get("variant")),
                }
            )
            for d in data["dispatches"]
        ]
        return Program(data["name"], source, buffers, dispatches, data["heap"], data["bound"], dict(data["metadata"]))


def _variant(data: dict[str, Any] | None) -> Variant | None:
    return data and Variant(data["function"], tuple(Constant(**c) for c in data["constants"]))


def store_type(type_: ir.Type, half: bool) -> str:
    """The MSL type in which elements lie in a buffer; floats are halves where ``half`` says so."""
    from codegen.metal.access import register_type

    kind = register_type(type_)
    assert isinstance(type_, ir.TensorType)
    if type_.dtype.name in _BYTES:
        return _BYTES[type_.dtype.name]
    return "half" if kind == "float" and half else kind


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides in elements."""
    out: list[int] = []
    step = 1
    for n in reversed(shape):
        out.append(step)
        step *= n
    return tuple(reversed(out))

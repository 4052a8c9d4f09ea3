"""Metal kernels as functions on NumPy arrays: built for this CPU, run with a chosen order of threads."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from codegen.metal import toolchain
from codegen.metal.program import Variant
from codegen.metal.signature import BUILTINS, Signature, plain, signatures, strip_comments
from codegen.metal.variants import specialized

Array = np.ndarray[Any, Any]

#: What the runtime reports about a dispatch, by bit.
FINDINGS = {
    1: "some threads ended while others wait at a barrier",
    2: "threads wait at different barriers",
    4: "lanes of a simdgroup diverge at a simdgroup function",
}

#: Limits of a threadgroup on every Apple GPU since A11: threads, bytes of memory.
MAX_THREADS = 1024
MAX_THREADGROUP_BYTES = 32768

#: How many kernels one object holds: clang compiles objects side by side.
_PER_OBJECT = 12


class DispatchError(Exception):
    """A dispatch breaks a limit, or its threads do not meet where they must; the message says what was found."""


class Library:
    """The kernels of a Metal source, compiled for this machine."""

    def __init__(
        self,
        source: str,
        wanted: Mapping[str, Variant] | None = None,
        flags: Sequence[str] = ("-O2", "-march=native"),
    ) -> None:
        """Builds the library, or takes it from the cache.

        Args:
            wanted: kernels that are variants of a function of another name.
            flags: how to compile; ``-fsanitize=bounds -fsanitize-trap=all`` makes an overrun array a trap.

        Raises:
            SignatureError, BuildError, UnsupportedError: the source or the machine will not do.
        """
        text = specialized(plain(strip_comments(source)), wanted or {})
        self.kernels: dict[str, Signature] = {k.name: k for k in signatures(text)}
        self.path = toolchain.build([p + "".join(map(_entry, k)) for p, k in _parts(text)], flags)
        self._library = ctypes.CDLL(str(self.path))
        self._dispatch = self._library["__msl_dispatch"]

    def run(
        self,
        kernel: str,
        groups: Sequence[int],
        threads: Sequence[int],
        buffers: Mapping[int, Array | int],
        *,
        textures: Mapping[int, Array] | None = None,
        scratch: Mapping[int, int] | None = None,
        order: int = 0,
    ) -> None:
        """Dispatches ``groups`` threadgroups of ``threads`` threads and waits.

        Args:
            buffers: contiguous arrays, or addresses, by index.
            textures: arrays [height, width, 4] of float32 by index.
            scratch: bytes of threadgroup memory by index.
            order: 0 runs threads in order, 1 in reverse, others shuffle with that seed.

        Raises:
            DispatchError: a limit is broken, or barriers diverge.
        """
        grid, group = _three(groups), _three(threads)
        if int(np.prod(group)) > MAX_THREADS:
            raise DispatchError(f"{kernel}: {int(np.prod(group))} threads in a threadgroup, the limit is {MAX_THREADS}")
        bytes_ = (ctypes.c_uint32 * 8)()
        for i, n in (scratch or {}).items():
            bytes_[i] = n
        if sum(bytes_) > MAX_THREADGROUP_BYTES:
            raise DispatchError(f"{kernel}: {sum(bytes_)} bytes of threadgroup memory of {MAX_THREADGROUP_BYTES}")
        context = (ctypes.c_uint64 * 96)()
        alive: list[Any] = []
        for i, buffer in buffers.items():
            context[i] = buffer if isinstance(buffer, int) else buffer.ctypes.data
        for i, texture in (textures or {}).items():
            descriptor = np.zeros(2, np.uint64)
            descriptor[0] = texture.ctypes.data
            descriptor.view(np.uint32)[2:] = (texture.shape[1], texture.shape[0])
            alive.append(descriptor)
            context[31 + 8 + i] = descriptor.ctypes.data
        entry = ctypes.cast(self._library[f"__msl_entry_{kernel}"], ctypes.c_void_p)
        total = _three([g * t for g, t in zip(grid, group, strict=True)])
        synchronises = int(self.kernels[kernel].synchronises)
        found = self._dispatch(entry, synchronises, context, grid, group, bytes_, order, total)
        if found:
            raise DispatchError(f"{kernel}: " + "; ".join(t for bit, t in FINDINGS.items() if found & bit))


def _three(sizes: Sequence[int]) -> Any:
    return (ctypes.c_uint32 * 3)(*(*sizes, 1, 1)[:3])


def _parts(source: str) -> list[tuple[str, list[Signature]]]:
    """The source cut into pieces of some kernels each, every piece with what comes before the first kernel."""
    marker = "\nkernel void "
    head, *bodies = source.split(marker)
    alone = len(signatures(source)) == len(bodies) and all(b.rstrip().endswith("}") for b in bodies)
    if not alone:  # something stands between kernels: keep it in one piece
        return [(source, signatures(source))]
    out = []
    for at in range(0, len(bodies), _PER_OBJECT):
        text = head + "".join(marker + b for b in bodies[at : at + _PER_OBJECT])
        out.append((text, signatures(text)))
    return out or [(source, [])]


def _entry(kernel: Signature) -> str:
    """A function of C's calling convention that takes a thread's context apart into the kernel's parameters."""
    arguments = []
    for p in kernel.parameters:
        if p.attribute in ("buffer", "threadgroup"):
            slot = f"c->{'buf' if p.attribute == 'buffer' else 'tg'}[{p.index}]"
            arguments.append(f"*({p.type[:-1]}*){slot}" if p.type[-1] == "&" else f"({p.type}){slot}")
        elif p.attribute == "texture":
            arguments.append(f"*(thread {p.type}*)c->tex[{p.index}]")
        else:
            field, components = BUILTINS[p.attribute]
            width = int(p.type[-1]) if p.type[-1].isdigit() else 1
            if components == 0:
                arguments.append(field)
            elif components == 1:
                arguments.append(f"({p.type})c->{field}")
            elif width == 1:
                arguments.append(f"({p.type})c->{field}[0]")
            else:
                values = ", ".join(f"c->{field}[{i}]" for i in range(width))
                arguments.append(f"metal::__mk<metal::{p.type}>({values})")
    call = f"{kernel.name}({', '.join(arguments)});"
    return f'\nextern "C" void __msl_entry_{kernel.name}(thread __msl_ctx* c) {{ {call} }}\n'

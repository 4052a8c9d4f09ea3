"""From a module of ``metal.kernel`` and ``metal.join`` to a program: text for each kernel, buffers, dispatches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from codegen.metal import helpers, kernels
from codegen.metal.access import Access, static
from codegen.metal.body import Body
from codegen.metal.by_hand import Handwritten, stub
from codegen.metal.launch import Array, Packing
from codegen.metal.program import STORED, Binding, Buffer, Dispatch, Program, row_major, store_type
from codegen.metal.schedule import schedule
from codegen.metal.texts import HEADER, Texts, comment
from compiler import ir
from compiler.errors import UnsupportedError, UserError
from passes.fuse_joins import split_dimensions
from passes.half import constant_loss

#: Buffers that a kernel can have (Metal feature set tables, all families).
MOST_BUFFERS = 31


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a value lies: in which buffer, and how."""

    buffer: int
    strides: tuple[int, ...]
    offset: int = 0


class _Emitter:
    def __init__(self, module: ir.Module, half: bool, full: frozenset[ir.Value], hand: Handwritten | None) -> None:
        self.main = module.main
        self.half = half
        self.full = full
        self.program = Program(module.name or "model", "")
        self.places: dict[ir.Value, _Place] = {}
        self.repacked: dict[tuple[ir.Value, str], _Place] = {}
        self.texts = Texts()
        self.hand = hand
        self.stubs: list[str] = []  # of kernels that the user names

    def run(self) -> Program:
        program = self.program
        for v in self.main.inputs:
            self._own(v, v.name, "input")
        outputs = dict(zip(self.main.outputs, self.main.output_names, strict=True))
        self._join_parts()
        trims = [op for op in self.main.block.ops if op.name == "metal.trim"]
        for op in trims:
            rows, count = op.operands
            assert rows is not None
            assert count is not None
            self._own(rows, outputs[op.result], "output")
            if count not in self.places:
                self._own(count, f"{outputs[op.result]}.rows", "count")
            self.places[op.result] = self.places[rows]
            program.buffers[self.places[rows].buffer].rows = self.places[count].buffer
        for op in self.main.block.ops:
            if op.name != "metal.kernel":
                continue
            for r in op.results:
                if r not in self.places:
                    self._own(r, outputs.get(r, r.name), "output" if r in outputs else "scratch")
        for v in self.main.outputs:
            if v not in self.places:
                self._own(v, outputs[v], "output")
        for op in self.main.block.ops:
            if op.name == "metal.kernel":
                self._dispatch(op)
            elif op.defn.constant is None and not op.defn.terminator and op.name not in ("metal.join", "metal.trim"):
                raise UnsupportedError(f"{op.name} has no place in a Metal program", "--target cpu")
        order = {b: i for i, b in enumerate(self._output_order())}
        assert len(order) == len(self.main.outputs)
        schedule(program)
        if self.hand is not None:
            self.hand.finish()
        program.source, variants = self.texts.source(self.hand)
        program.dispatches = [replace(d, variant=variants.get(d.kernel)) for d in program.dispatches]
        return program

    def _output_order(self) -> list[int]:
        return [self.places[v].buffer for v in self.main.outputs]

    def _own(self, value: ir.Value, name: str, kind: str) -> None:
        shape = static(value)
        assert isinstance(value.type, ir.TensorType)
        # What the caller sees keeps the model's type where Metal has it; 64-bit integers become 32-bit ones.
        half = self.half and value not in self.full if kind == "scratch" else value.type.dtype is ir.F16
        declared = value.type.dtype.name if kind in ("input", "output") else ""
        made = Buffer(name, kind, store_type(value.type, half), shape, declared)  # type: ignore[arg-type]
        if kind in ("input", "output"):
            made.pixels = str(self.main.attributes.get(f"image.{name}", ""))
        self.program.buffers.append(made)
        self.places[value] = _Place(len(self.program.buffers) - 1, row_major(shape))

    def _join_parts(self) -> None:
        """Gives the parts of joins their places in the whole, from the last join to the first, since joins nest."""
        outputs = dict(zip(self.main.outputs, self.main.output_names, strict=True))
        for op in reversed([o for o in self.main.block.ops if o.name == "metal.join"]):
            whole = op.result
            if whole not in self.places:
                self._own(whole, outputs.get(whole, whole.name), "output" if whole in outputs else "scratch")
            place = self.places[whole]
            axis, at = op.attributes["axis"], place.offset
            for part in op.operands:
                assert part is not None
                extent = math.prod(static(part)) // math.prod(n for d, n in enumerate(static(whole)) if d != axis)
                seen = tuple(extent if d == axis else n for d, n in enumerate(static(whole)))
                self.places[part] = _Place(place.buffer, _split_strides(place.strides, seen, static(part)), at)
                at += extent * place.strides[axis]

    def _constant(self, value: ir.Value) -> _Place:
        assert value.constant is not None
        place = _Place(self._store_constant(value, value.constant), row_major(static(value)))
        self.places[value] = place
        return place

    def _store_constant(self, value: ir.Value, array: Array) -> int:
        """Adds a constant's buffer, whose index it gives."""
        half = self.half and array.dtype == np.float32 and constant_loss(array) is None
        store = store_type(value.type, half)
        if array.dtype.kind in "iu" and array.size and (array.max() > 2**31 - 1 or array.min() < -(2**31)):
            array = np.clip(array, -(2**31), 2**31 - 1)  # bounds such as "to the end"
        buffers = self.program.buffers
        if _nibbles(value):
            array = _halves_of_bytes(array)
        buffers.append(Buffer(value.name, "constant", store, array.shape))
        self.program.constants[len(buffers) - 1] = np.ascontiguousarray(array.astype(STORED[store], copy=False))
        return len(buffers) - 1

    def _elements(self, value: ir.Value, place: _Place) -> str:
        return _nibbles(value) or self.program.buffers[place.buffer].store

    def _packed(self, value: ir.Value, packing: Packing) -> _Place | None:
        """Where an operand lies as vectors, strides and offset in vectors; None if it cannot be read so."""
        width = packing.width
        if packing.pack is None:
            place = self.places.get(value) or (self._constant(value) if value.constant is not None else None)
            if place is None or self.program.buffers[place.buffer].pixels:
                return None
            if place.strides[-1] != 1 or any(s % width for s in (*place.strides[:-1], place.offset)):
                return None
            return _Place(place.buffer, (*(s // width for s in place.strides[:-1]), 1), place.offset // width)
        if value.constant is None:
            return None
        found = self.repacked.get((value, packing.name))
        if found is None:
            buffer = self._store_constant(value, packing.pack(value.constant))
            found = self.repacked[value, packing.name] = _Place(buffer, row_major(packing.shape))
        return found

    def _dispatch(self, op: ir.Op) -> None:
        accesses: dict[ir.Value, Access] = {}
        bindings: list[Binding] = []
        parameters: list[str] = []
        slots = {"buffer": 0, "texture": 0}
        wanted = kernels.packings(op)
        for i, (outside, inside) in enumerate(zip(op.operands, op.regions[0].arguments, strict=True)):
            assert outside is not None
            packed = self._packed(outside, wanted[inside]) if inside in wanted else None
            if packed is None:
                place = self.places.get(outside) or self._constant(outside)
                store = self._elements(outside, place)
                pixels = self.program.buffers[place.buffer].pixels
                accesses[inside] = Access(f"x{i}", static(outside), store, place.strides, place.offset, pixels=pixels)
            else:
                place, width = packed, wanted[inside].width
                store = self._elements(outside, place)
                accesses[inside] = Access(f"x{i}", wanted[inside].shape, store, place.strides, place.offset, width)
            bindings.append(Binding(place.buffer))
            kind = "texture" if accesses[inside].pixels else "buffer"
            parameters.append(accesses[inside].parameter(slots[kind]))
            slots[kind] += 1
        outs = []
        for i, result in enumerate(op.results):
            place = self.places[result]
            buffer = self.program.buffers[place.buffer]
            name = "y" if len(op.results) == 1 else f"y{i}"
            out = Access(name, static(result), buffer.store, place.strides, place.offset, pixels=buffer.pixels)
            outs.append(out)
            bindings.append(Binding(place.buffer, writes=True))
            kind = "texture" if out.pixels else "buffer"
            parameters.append(out.written(slots[kind]))
            slots[kind] += 1
        if slots["buffer"] > MOST_BUFFERS:
            raise UnsupportedError(f"a kernel would need {len(bindings)} buffers of {MOST_BUFFERS}", "--target cpu")
        body = Body(accesses, kernels.ELEMENTS)
        launch = kernels.write(body, op, outs)
        name, text = self.texts.add(op, parameters, launch, body)
        groups, threads = launch.groups, launch.threads
        if op.attributes["name"]:
            written = stub(name, text, comment(op), groups, threads)
            self.stubs += [written] if written not in self.stubs else []
            if self.hand is not None and name in self.hand.kernels:
                groups, threads = self.hand.instead_of(name, written, groups, threads)
        values = dict.fromkeys(v for v in (*op.operands, *op.results) if v is not None)
        moved = sum(self._bytes(v, b) for v, b in zip(values, bindings, strict=True))
        self.program.dispatches.append(
            Dispatch(
                name,
                groups,
                threads,
                tuple(bindings),
                op.attributes["kind"],
                op.loc.nodes,
                kernels.macs(op),
                moved,
            )
        )

    def _bytes(self, value: ir.Value, binding: Binding) -> int:
        """How much of a buffer a kernel touches for a value, which may lie in a larger one beside others."""
        buffer = self.program.buffers[binding.buffer]
        return min(buffer.size, math.prod(static(value)) * np.dtype(STORED[buffer.store]).itemsize)


def emit(
    module: ir.Module,
    half: bool = False,
    full: frozenset[ir.Value] = frozenset(),
    hand: Handwritten | None = None,
) -> Program:
    """The program of a module whose main function holds kernels, joins and constants.

    Args:
        half: floats between kernels, and constants that survive it, lie in buffers as halves.
        full: values that lie in buffers as floats all the same.
        hand: kernels that the user wrote, in place of those of their names.

    Raises:
        UnsupportedError: no template writes a kernel.
        UserError: a kernel of the user's has another signature, or no place.
    """
    return _Emitter(module, half, full, hand).run()


def stubs(module: ir.Module, half: bool = False) -> str:
    """A Metal file of the kernels that rules name, for the user to write: signatures, and bodies to start from.

    Raises:
        UserError: no rule names one.
    """
    emitter = _Emitter(module, half, frozenset(), None)
    emitter.run()
    if not emitter.stubs:
        raise UserError(
            "no rule names a kernel that is to be written by hand",
            "--rules FILE with a rule of stage metal that gives metal.by_hand (docs/metal.md shows one)",
        )
    body = "".join(emitter.stubs)
    return f"{HEADER}{helpers.used_by(body)}{body}"


def _nibbles(value: ir.Value) -> str:
    """How the halves of bytes are called that hold the elements of a value; empty where whole bytes do."""
    assert isinstance(value.type, ir.TensorType)
    return {"u4": "nibble", "i4": "signed_nibble"}.get(value.type.dtype.name, "")


def _halves_of_bytes(array: Array) -> Array:
    """Integers of four bits as bytes, the first of two in the lower half."""
    flat = array.astype(np.int8).reshape(-1).view(np.uint8) & 15
    flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
    return flat[::2] | flat[1::2] << 4


def _split_strides(strides: Sequence[int], coarse: Sequence[int], fine: Sequence[int]) -> tuple[int, ...]:
    """Strides of a tensor that lies as one of shape ``coarse``, whose dimensions it splits."""
    split = split_dimensions(fine, coarse)
    assert split is not None
    out = [0] * len(fine)
    for stride, dims in zip(strides, split, strict=True):
        for d in reversed(dims):
            out[d] = stride
            stride *= fine[d]
    return tuple(out)

"""How tensors lie in buffers, and what their elements are called while a kernel computes with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codegen.metal import index
from codegen.metal.index import Index
from compiler import ir
from compiler.errors import UnsupportedError


@dataclass(frozen=True, slots=True)
class Access:
    """How a tensor lies in a buffer of MSL type ``store``: element ``i`` at ``offset + Σ stride · i``, in elements.

    ``width`` elements are loaded as one; all else counts in such vectors. Elements of ``nibble`` and ``signed_nibble``
    are halves of bytes. ``pixels`` says what the planes of a texture are, which is read as [1, planes, height, width].
    """

    name: str
    shape: tuple[int, ...]
    store: str
    strides: tuple[int, ...]
    offset: int = 0
    width: int = 1
    pixels: str = ""

    @property
    def pointee(self) -> str:
        """The MSL type that the kernel's pointer is to."""
        if self.store.endswith("nibble"):
            return f"uchar{self.width // 2}" if self.width > 1 else "uchar"
        return f"{self.store}{self.width}" if self.width > 1 else self.store

    def parameter(self, slot: int) -> str:
        """How a kernel declares it, to read from."""
        if self.pixels:
            return f"texture2d<float, access::read> {self.name} [[texture({slot})]]"
        return f"device const {self.pointee}* {self.name} [[buffer({slot})]]"

    def written(self, slot: int) -> str:
        """How a kernel declares it, to write to."""
        if self.pixels:
            return f"texture2d<float, access::write> {self.name} [[texture({slot})]]"
        return f"device {self.store}* {self.name} [[buffer({slot})]]"

    def load(self, where: Sequence[Index]) -> str:
        """What stands there, as it is stored; of a texture, which has numbers from 0 to 1, from 0 to 255."""
        if self.pixels:
            _, plane, row, column = where
            component = (plane * -1 + 2 if self.pixels == "BGR" else plane).text
            return f"255.0f * {self.name}.read(uint2({column.text}, {row.text}))[{component}]"
        if self.store.endswith("nibble"):
            at = self.at(where).text
            return f"{self.store}s({self.name}[{at}])" if self.width > 1 else f"{self.store}({self.name}, {at})"
        return f"{self.name}[{self.at(where).text}]"

    def at(self, where: Sequence[Index]) -> Index:
        out = index.of(self.offset)
        for i, s in zip(where, self.strides, strict=True):
            out = out + i * s
        return out


def quantized(value: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value | None] | None:
    """The integers, the scale and the zero point of a constant that is stored quantized; None of another value."""
    op = value.op
    if op is None or op.name != "metal.dequantize":
        return None
    x, scale, zero = (*op.operands, None)[:3]
    assert x is not None
    assert scale is not None
    return x, scale, zero


def register_type(type_: ir.Type) -> str:
    """The MSL type of an element while it is computed with."""
    assert isinstance(type_, ir.TensorType)
    if type_.dtype.is_float:
        return "float"
    if type_.dtype is ir.BOOL:
        return "bool"
    if type_.dtype.is_integer:
        return "int"
    raise UnsupportedError(f"Metal kernels have no elements of {type_.dtype}", "--target cpu")


def static(value: ir.Value) -> tuple[int, ...]:
    """The shape of a value, which fusion has seen to be known."""
    assert isinstance(value.type, ir.TensorType)
    return value.type.static_shape

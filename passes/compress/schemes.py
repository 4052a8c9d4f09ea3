"""What can be done to a weight: linear quantization, palettes, sparsity, and their joint forms.

A :class:`Scheme` says what a weight becomes. Names and meanings are those of ``coremltools.optimize.coreml``: the same
settings give the same bits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from compiler.errors import UserError
from compiler.ir import suggest

Granularity = Literal["tensor", "channel", "block"]
Rounding = Literal["nearest", "balanced"]
LinearType = Literal["int8", "uint8", "int4", "uint4"]

#: Bits of an index into a palette, and the release that takes them.
PALETTE_BITS = {1: 16, 2: 16, 3: 18, 4: 16, 6: 16, 8: 16}


@dataclass(frozen=True, slots=True)
class Linear:
    """s (q − z): integers with a scale, and a zero point where the mode is affine.

    Attributes:
        dtype: the integers' type.
        symmetric: the range is symmetric to zero (and leaves the least integer out), so that no zero point is needed
            for signed integers; affine otherwise.
        granularity: one scale for the tensor, for each output channel, or for each ``block`` input channels of each
            output channel.
        rounding: ``nearest`` as coremltools does, or ``balanced``: sums over kernels and channels of a layer stay (see
            :mod:`passes.compress.balance`).
    """

    dtype: LinearType = "int8"
    symmetric: bool = True
    granularity: Granularity = "channel"
    block: int = 32
    rounding: Rounding = "nearest"

    @property
    def bits(self) -> int:
        return 4 if self.dtype.endswith("int4") else 8

    @property
    def signed(self) -> bool:
        return not self.dtype.startswith("u")

    @property
    def ios(self) -> int:
        """The first release that takes it."""
        return 18 if self.bits == 4 or self.granularity == "block" else 16

    def __str__(self) -> str:
        where = {"tensor": " per tensor", "channel": "", "block": f" in blocks of {self.block}"}[self.granularity]
        return f"{self.dtype}{where}{'' if self.symmetric else ' affine'}"


@dataclass(frozen=True, slots=True)
class Palette:
    """table[index]: each element is one of 2^bits values.

    Attributes:
        bits: of an index: 1, 2, 3, 4, 6 or 8.
        group: output channels that share a table; 0 for one table for the tensor.
        channel_scale: elements are divided by the largest of their output channel before tables are made. (What
            coremltools calls so takes the largest over output channels, which needs a scale for each of the others.)
        mode: ``kmeans`` makes the tables, ``uniform`` spaces entries evenly, ``unique`` is exact for a tensor that
            holds few values, and leaves any other alone.
        quantized: the table itself is int8 with one scale.
    """

    bits: int = 4
    group: int = 0
    channel_scale: bool = False
    mode: Literal["kmeans", "uniform", "unique"] = "kmeans"
    quantized: bool = False

    @property
    def ios(self) -> int:
        """The first release that takes it."""
        return 18 if self.group or self.channel_scale or self.quantized else PALETTE_BITS[self.bits]

    def __str__(self) -> str:
        what = f"{self.bits}-bit palette" + (f" for {self.group} channels" if self.group else "")
        return what + (", scaled by channel" if self.channel_scale else "")


@dataclass(frozen=True, slots=True)
class Sparse:
    """Zeros are not stored. Exactly one of the three ways chooses them.

    Attributes:
        amount: the share of elements of least magnitude that become zero.
        threshold: elements of at most this magnitude become zero.
        pattern: (n, m): n of every m elements along ``axis`` become zero.
        axis: 0 counts along output channels, 1 along input channels.
        values: how the elements that are left are stored; as floats when None. Needs iOS 18.
    """

    amount: float | None = None
    threshold: float | None = None
    pattern: tuple[int, int] | None = None
    axis: int = 1
    values: Linear | Palette | None = None

    @property
    def ios(self) -> int:
        """The first release that takes it."""
        return 16 if self.values is None else 18

    def __str__(self) -> str:
        if self.pattern is not None:
            what = f"{self.pattern[0]}:{self.pattern[1]} sparse"
        elif self.threshold is not None:
            what = f"sparse below {self.threshold:g}"
        else:
            what = f"{100 * (self.amount or 0):.3g} % sparse"
        return what if self.values is None else f"{what}, {self.values}"


Scheme = Linear | Palette | Sparse

_LINEAR = re.compile(r"(u?int[48])(?:-(affine))?(?:-(tensor|channel|block(\d+)))?(-nearest)?")
_PALETTE = re.compile(r"palette(\d+)(?:-(?:group(\d+)))?(-scaled)?(-uniform|-unique)?")
_SPARSE = re.compile(r"sparse(\d+)(?:of(\d+))?")

#: What the command line offers by name.
NAMES = ("int8", "uint8", "int4", "uint4", "palette8", "palette6", "palette4", "palette3", "palette2", "palette1")


def parse(text: str, ios: int) -> Scheme:
    """The scheme that a name stands for, in the best form that the release has.

    ``int8``, ``uint8``, ``int4`` and ``uint4`` take ``-affine`` and ``-tensor``, ``-channel`` or ``-block32`` behind,
    and ``-nearest`` behind that for coremltools' rounding; ``palette4`` takes ``-group16``, ``-scaled`` and
    ``-uniform`` or ``-unique``; ``sparse50`` makes half the elements zero and ``sparse2of4`` two of every four.
    ``sparse50+int8`` is a joint form. Plain ``int4`` is in blocks of 32.

    Raises:
        UserError: no scheme is called so, or the release cannot hold it.
    """
    scheme = _sparse(text, ios) if text.startswith("sparse") else _plain(text)
    if scheme.ios > ios:
        raise UserError(f"{scheme} weights need iOS {scheme.ios} or later", f"--os ios{scheme.ios}")
    return scheme


def _plain(text: str) -> Linear | Palette:
    found = _LINEAR.fullmatch(text)
    if found is not None:
        dtype, affine, where, block, nearest = found.groups()
        if where is None:
            where, block = ("block", "32") if dtype.endswith("int4") else ("channel", None)
        granularity: Granularity = "block" if where.startswith("block") else where  # type: ignore[assignment]
        if block is not None and int(block) < 2:
            raise UserError(f"'{text}' has blocks of {block}", "blocks of 2 or more, as int4-block32")
        rounding: Rounding = "balanced" if nearest is None else "nearest"
        return Linear(dtype, affine is None, granularity, int(block) if block else 32, rounding)  # type: ignore[arg-type]
    found = _PALETTE.fullmatch(text)
    if found is not None:
        bits, group, scaled, mode = found.groups()
        if int(bits) not in PALETTE_BITS:
            raise UserError(f"a palette of {bits} bits is none that Core ML has", "palette1, 2, 3, 4, 6 or 8")
        return Palette(int(bits), int(group or 0), bool(scaled), (mode or "-kmeans")[1:])  # type: ignore[arg-type]
    raise UserError(
        f"no way to compress weights is called '{text}'{suggest(text, NAMES)}", f"one of {', '.join(NAMES)}"
    )


def _sparse(text: str, ios: int) -> Sparse:
    head, plus, tail = text.partition("+")
    found = _SPARSE.fullmatch(head)
    if found is None:
        raise UserError(f"no way to make weights sparse is called '{head}'", "sparse50 for half, or sparse2of4")
    first, second = int(found[1]), found[2]
    values = _plain(tail) if plus else None
    if isinstance(values, Linear):
        # Sums would have to be kept over the elements that are left.
        values = replace(values, rounding="nearest")
    if second is None:
        if not 0 < first < 100:
            raise UserError(f"'{head}' leaves nothing to do or nothing at all", "sparse1 to sparse99, in percent")
        return Sparse(amount=first / 100, values=values)
    if not 0 < first < int(second):
        raise UserError(f"'{head}' is no part of {second}", "sparse2of4: two of every four elements become zero")
    return Sparse(pattern=(first, int(second)), values=values)

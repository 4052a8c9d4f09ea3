"""Whether a compressed package is, operator by operator, the program that it must compute.

If it is, and its compressed weights have the bits that the encoder says, then both compute the same on any inputs, and
there is no need to run them and compare. What weights stand for is computed as when the package runs: from the file
that was read back, by the rules of stage ``meaning``. Where anything differs, for whatever reason, nothing is said, and
outputs have to be compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from compiler.compression.road import same_but_for_symbols
from compiler.ir import Block, Function, Module, Op, Value
from passes import emulate

Array = np.ndarray[Any, Any]


def alike(package: Module, wanted: Module, dense: Mapping[Value, Array]) -> bool:
    """Whether a package that was read back is ``wanted``, with some of its constants compressed.

    Args:
        dense: what the compressed weights of the package stand for.
    """
    return list(package.functions) == list(wanted.functions) and all(
        _Twins(dense).functions(f, wanted.functions[name]) for name, f in package.functions.items()
    )


class _Twins:
    """Two functions, walked side by side."""

    def __init__(self, dense: Mapping[Value, Array]) -> None:
        self.dense = dense
        self.twin: dict[Value, Value] = {}

    def functions(self, ours: Function, theirs: Function) -> bool:
        names = [[*(a.name for a in f.inputs), *f.output_names] for f in (ours, theirs)]
        return names[0] == names[1] and ours.attributes == theirs.attributes and self._blocks(ours.block, theirs.block)

    def _blocks(self, ours: Block, theirs: Block) -> bool:
        mine, others = list(_computing(ours)), list(_computing(theirs))
        if len(mine) != len(others) or not self._declared(ours.arguments, theirs.arguments):
            return False
        return all(self._ops(a, b) for a, b in zip(mine, others, strict=True))

    def _declared(self, ours: Any, theirs: Any) -> bool:
        """Whether values that are made have the same types; if so, they are each other's twins."""
        self.twin.update(zip(ours, theirs))
        return len(ours) == len(theirs) and all(same_but_for_symbols(a.type, b.type) for a, b in zip(ours, theirs))

    def _ops(self, ours: Op, theirs: Op) -> bool:
        return (
            ours.defn is theirs.defn
            and len(ours.operands) == len(theirs.operands)
            and all(map(self._values, ours.operands, theirs.operands))
            and _attributes(ours.attributes, theirs.attributes)
            and len(ours.regions) == len(theirs.regions)
            and all(map(self._blocks, ours.regions, theirs.regions))
            and self._declared(ours.results, theirs.results)
        )

    def _values(self, ours: Value | None, theirs: Value | None) -> bool:
        if ours is None or theirs is None:
            return ours is theirs
        known = self.twin.get(ours)
        if known is not None:
            return known is theirs
        held = theirs.constant
        mine = self.dense.get(ours, ours.constant)
        if held is None or mine is None or not same_but_for_symbols(ours.type, theirs.type):
            return False
        return same_bits(mine, held)


def _computing(block: Block) -> Iterator[Op]:
    """The operators of a block that are no constants, nor parts of compressed ones."""
    return (op for op in block.ops if op.defn.constant is None and not emulate.is_compressed(op))


def _attributes(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    return ours.keys() == theirs.keys() and all(_equal(ours[k], theirs[k]) for k in ours)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return same_bits(a, b)
    return type(a) is type(b) and bool(a == b)


def same_bits(a: Array, b: Array) -> bool:
    """Whether arrays have the same element type, the same shape and the same bits."""
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if a.dtype.kind == "f":
        a, b = (x.view(f"u{x.itemsize}") for x in (a, b))
    return np.array_equal(a, b)
